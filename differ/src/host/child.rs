// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What runs between fork and exit: the template, and the child that it forks for each batch.
//!
//! # What may be called here
//! The address space is the thing under test, and the other threads of the parent are gone. So:
//! - system calls by `libc::syscall` alone; it touches no memory but `errno` of this thread; and `memchr`;
//! - memory that was mapped before: [`Shared`], and a stack of bounded depth;
//! - a load or a store that may fault, of which a handler takes down the signal;
//! - no allocation, no buffered I/O, no formatting, no lock, no panic: indexing is checked by hand and
//!   trouble is written down as a number.
//!
//! The template goes through the same functions once before anything is recorded, so the stack has
//! already grown to its final size.

use core::ptr::addr_of_mut;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use linux_raw_sys::general::{self, procmap_query, procmap_query_flags as query};

use vmalab_model::{PAGE_SHIFT, PAGE_SIZE};

use super::device::{self, Watched};
use super::smaps::{self, number};
use super::wire::{
    Call, EVERYWHERE, FORK, MAX_AREAS, MAX_HOOKS, MAX_OPS, MAX_WINDOWS, RawArea, Record, STEER,
    Shared, Touch, Trouble, device_number,
};

/// `PROCMAP_QUERY` of `linux/fs.h`.
const PROCMAP_QUERY: u64 =
    libc::_IOWR::<procmap_query>(general::PROCFS_IOCTL_MAGIC as u32, 17) as u64;

/// Asks the template to fork a child that does the calls.
pub(super) const RUN: u8 = b'r';
/// Asks the template to do the calls itself: what it maps, all later children have.
pub(super) const PLACE: u8 = b'p';

/// A system call with up to six arguments: the value, or a negative errno.
fn call(nr: i64, args: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the kernel checks the arguments of a system call. Whether the call may take away memory
    // that this program stands on is the generator's matter: it stays inside the windows, which hold
    // nothing of ours.
    let value = unsafe { libc::syscall(nr, a, b, c, d, e, f) };
    if value == -1 {
        // SAFETY: the location of this thread's errno is always valid.
        -i64::from(unsafe { *libc::__errno_location() })
    } else {
        value
    }
}

/// A system call with three arguments.
fn call3(nr: i64, a: u64, b: u64, c: u64) -> i64 {
    call(nr, [a, b, c, 0, 0, 0])
}

/// Opens for reading.
fn open(path: &core::ffi::CStr) -> i64 {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    call(
        libc::SYS_openat,
        [
            libc::AT_FDCWD as i64 as u64,
            path.as_ptr() as u64,
            flags as u64,
            0,
            0,
            0,
        ],
    )
}

/// Ends this process.
fn exit(code: u64) -> ! {
    loop {
        call3(libc::SYS_exit_group, code, 0, 0);
    }
}

/// The template: does as it is told until `control` ends.
///
/// # Safety
/// `shared` must be the shared mapping; the caller is a fresh fork with one thread.
pub(super) unsafe fn template(shared: *mut Shared, devices: &mut [Watched], control: i32) -> ! {
    // Ctrl-C goes to the whole process group; the parent decides what to do then.
    // SAFETY: ignoring a signal has no precondition.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    // SAFETY: the caller says that it is the mapping, which nobody else has a reference into yet.
    take_signals(unsafe { &mut *shared });
    loop {
        let mut order = 0u8;
        let got = call3(libc::SYS_read, control as u64, &raw mut order as u64, 1);
        if got == -i64::from(libc::EINTR) {
            continue;
        }
        if got != 1 {
            exit(0);
        }
        // SAFETY: the parent waits for the answer and does not touch the memory meanwhile.
        let shared = unsafe { &mut *shared };
        if order == RUN {
            fork_and_wait(shared, devices);
        } else {
            work(shared, devices);
        }
        if call3(libc::SYS_write, control as u64, &raw const order as u64, 1) != 1 {
            exit(1);
        }
    }
}

/// `si_code` of a page fault: nothing mapped, not allowed, not allowed by a key; no address; no page.
/// `asm-generic/siginfo.h` has them.
pub(super) const SEGV_MAPERR: i32 = general::SEGV_MAPERR as i32;
pub(super) const SEGV_ACCERR: i32 = general::SEGV_ACCERR as i32;
pub(super) const SEGV_PKUERR: i32 = general::SEGV_PKUERR as i32;
pub(super) const SI_KERNEL: i32 = general::SI_KERNEL as i32;
pub(super) const BUS_ADRERR: i32 = general::BUS_ADRERR as i32;

/// The signal of the touch that is under way and its `si_code`. Each process has its own, and one thread.
static SIGNAL: [AtomicI32; 2] = [AtomicI32::new(0), AtomicI32::new(0)];
/// Whether one is under way.
static TOUCHES: AtomicBool = AtomicBool::new(false);

/// Has signals of touches taken down from now on, on a stack of their own.
fn take_signals(shared: &mut Shared) {
    let stack = libc::stack_t {
        ss_sp: shared.signal_stack.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: size_of_val(&shared.signal_stack),
    };
    // SAFETY: zeros are a value of it.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    // SAFETY: the stack stays mapped for as long as this process and its children live, and nothing else uses
    // it; the handler is one for SA_SIGINFO, and what it does may be done in one.
    unsafe {
        libc::sigaltstack(&raw const stack, core::ptr::null_mut());
        libc::sigaction(libc::SIGSEGV, &raw const action, core::ptr::null_mut());
        libc::sigaction(libc::SIGBUS, &raw const action, core::ptr::null_mut());
    }
}

/// Takes a signal of a touch down, and goes on behind it. Any other one ends the process.
extern "C" fn on_signal(number: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if !TOUCHES.load(Ordering::Relaxed) {
        // The instruction is tried again.
        // SAFETY: the usual action has no precondition.
        unsafe { libc::signal(number, libc::SIG_DFL) };
        return;
    }
    // SAFETY: the kernel gives both, of these types, to a handler for SA_SIGINFO.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    let [of, code] = &SIGNAL;
    of.store(number, Ordering::Relaxed);
    code.store(info.si_code, Ordering::Relaxed);
    let registers = &mut context.uc_mcontext.gregs;
    registers[libc::REG_RIP as usize] = registers[libc::REG_RCX as usize];
}

/// Touches memory by one instruction, which leaves it as it is: the signal and its `si_code`, or zeros.
fn touch_it(touch: Touch) -> [i32; 2] {
    let Touch { addr, write } = touch;
    for part in &SIGNAL {
        part.store(0, Ordering::Relaxed);
    }
    TOUCHES.store(true, Ordering::Relaxed);
    // SAFETY: what is there keeps its value, whatever it is: it is read, or nothing is added to its bits. If
    // it cannot be had, the handler goes on behind the instruction, as rcx says.
    unsafe {
        if write {
            core::arch::asm!(
                "lea rcx, [rip + 2f]",
                "lock or byte ptr [{addr}], 0",
                "2:",
                addr = in(reg) addr,
                out("rcx") _,
            );
        } else {
            core::arch::asm!(
                "lea rcx, [rip + 2f]",
                "mov {byte}, byte ptr [{addr}]",
                "2:",
                addr = in(reg) addr,
                byte = out(reg_byte) _,
                out("rcx") _,
            );
        }
    }
    TOUCHES.store(false, Ordering::Relaxed);
    let [number, code] = &SIGNAL;
    [number.load(Ordering::Relaxed), code.load(Ordering::Relaxed)]
}

/// One batch in a child of its own.
fn fork_and_wait(shared: &mut Shared, devices: &mut [Watched]) {
    let limit = shared.limit_fd;
    if limit >= 0 && !write_limit(limit, &shared.limit_text[0]) {
        shared.trouble = Trouble::SetLimit as u32;
        shared.status = 0;
        return;
    }
    let pid = call3(libc::SYS_clone, libc::SIGCHLD as u64, 0, 0);
    if pid == 0 {
        // A child whose template is killed goes with it.
        call3(
            libc::SYS_prctl,
            libc::PR_SET_PDEATHSIG as u64,
            libc::SIGKILL as u64,
            0,
        );
        if set_rlimits(shared) {
            work(shared, devices);
        } else {
            shared.trouble = Trouble::SetLimit as u32;
        }
        exit(0);
    }
    shared.child_pid = pid as i32;
    if pid > 0 {
        let status = addr_of_mut!(shared.status) as u64;
        while call(libc::SYS_wait4, [pid as u64, status, 0, 0, 0, 0]) == -i64::from(libc::EINTR) {}
    }
    if limit >= 0 && !write_limit(limit, &shared.limit_text[1]) {
        shared.trouble = Trouble::SetLimit as u32;
    }
}

/// Sets the child's resource limits.
fn set_rlimits(shared: &Shared) -> bool {
    shared
        .rlimits
        .iter()
        .take(shared.n_rlimits as usize)
        .all(|[resource, limits @ ..]| {
            let limits = limits.as_ptr() as u64;
            call(libc::SYS_prlimit64, [0, *resource, limits, 0, 0, 0]) == 0
        })
}

/// Writes a number, padded with zero bytes, into a sysctl.
fn write_limit(fd: i32, text: &[u8; 24]) -> bool {
    let len = text
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(text.len()) as u64;
    call(
        libc::SYS_pwrite64,
        [fd as u64, text.as_ptr() as u64, len, 0, 0, 0],
    ) == len as i64
}

/// What looks at this process.
struct Eyes<'a> {
    /// If there are some, they tell of the areas and the counters.
    devices: &'a mut [Watched],
    maps: i64,
    status: i64,
}

/// Does the calls and records what is seen after each; stops at the first trouble.
fn work(shared: &mut Shared, devices: &mut [Watched]) {
    shared.trouble = Trouble::None as u32;
    shared.trouble_errno = 0;
    shared.begun = 0;
    shared.n_records = 0;
    shared.n_areas = 0;
    shared.n_text = 0;
    shared.n_hooks = 0;
    shared.n_contents = 0;
    let mut eyes = Eyes::open(devices);
    let result = record_all(shared, &mut eyes);
    if let Err((trouble, errno)) = result {
        shared.trouble = trouble as u32;
        shared.trouble_errno = errno as i32;
    }
    eyes.close();
}

impl<'a> Eyes<'a> {
    /// The files show the process that opens them, so each child opens its own.
    fn open(devices: &'a mut [Watched]) -> Self {
        let mut eyes = Self {
            devices,
            maps: 0,
            status: 0,
        };
        eyes.reopen();
        eyes
    }

    fn reopen(&mut self) {
        self.maps = open(c"/proc/self/maps");
        if self.devices.is_empty() {
            self.status = open(c"/proc/self/status");
        }
    }

    fn close(&self) {
        call3(libc::SYS_close, self.maps as u64, 0, 0);
        if self.devices.is_empty() {
            call3(libc::SYS_close, self.status as u64, 0, 0);
        }
    }
}

/// Forks, and goes on in the child: 0, or a negative errno. The parent waits for it, and ends as it did.
fn fork_and_go_on(eyes: &mut Eyes<'_>) -> i64 {
    let pid = call3(libc::SYS_clone, libc::SIGCHLD as u64, 0, 0);
    if pid < 0 {
        return pid;
    }
    if pid > 0 {
        let mut status = 0i32;
        let at = &raw mut status as u64;
        while call(libc::SYS_wait4, [pid as u64, at, 0, 0, 0, 0]) == -i64::from(libc::EINTR) {}
        if libc::WIFSIGNALED(status) {
            let me = call3(libc::SYS_getpid, 0, 0, 0) as u64;
            call3(libc::SYS_kill, me, libc::WTERMSIG(status) as u64, 0);
        }
        exit(libc::WEXITSTATUS(status) as u64);
    }
    call3(
        libc::SYS_prctl,
        libc::PR_SET_PDEATHSIG as u64,
        libc::SIGKILL as u64,
        0,
    );
    eyes.close();
    eyes.reopen();
    0
}

/// What went wrong, and the errno.
type Stuck = (Trouble, i64);

fn record_all(shared: &mut Shared, eyes: &mut Eyes<'_>) -> Result<(), Stuck> {
    for device in &mut *eyes.devices {
        device.begin().map_err(|errno| (Trouble::Device, errno))?;
    }
    if eyes.maps < 0 {
        return Err((Trouble::OpenMaps, -eyes.maps));
    }
    if eyes.status < 0 {
        return Err((Trouble::OpenStatus, -eyes.status));
    }
    let whole = shared.want_whole != 0;
    let all = What {
        counters: true,
        contents: false,
        exact: false,
        whole,
        range: EVERYWHERE,
    };
    record(shared, eyes, 0, 0, &all)?;
    let n = (shared.n_calls as usize).min(MAX_OPS);
    let counters_every = shared.counters_every.max(1) as usize;
    let layout_every = shared.layout_every.max(1) as usize;
    let flags_every = shared.flags_every as usize;
    for index in 0..n {
        let Some(&Call {
            nr,
            args,
            touch,
            look,
            look_at_result,
        }) = shared.calls.get(index)
        else {
            break;
        };
        shared.begun = index as u32 + 1;
        let ret = match nr {
            FORK => fork_and_go_on(eyes),
            STEER => {
                let [fd, hook, nth, error, ..] = args;
                device::steer([fd, hook, nth, error], |fd, request, argument| {
                    call3(libc::SYS_ioctl, fd, request, argument)
                })
            }
            _ => call(nr, args),
        };
        let signal = touch.map_or([0; 2], touch_it);
        let done = index + 1;
        let last = done == n;
        let exact = flags_every != 0 && (last || done % flags_every == 0);
        let contents = last || done % layout_every == 0;
        let range = match look_at_result {
            _ if contents || exact => EVERYWHERE,
            0 => look,
            _ if ret < 0 => EVERYWHERE,
            _ => look.map(|byte| byte.wrapping_add(ret as u64)),
        };
        let what = What {
            counters: last || done % counters_every == 0,
            contents: contents && shared.want_contents != 0,
            exact,
            whole: last && whole,
            range,
        };
        record(shared, eyes, done, ret, &what)?;
        if let Some(record) = shared.records.get_mut(done) {
            record.signal = signal;
        }
    }
    if shared.want_smaps != 0 {
        read_smaps(shared)?;
    }
    Ok(())
}

/// What to record.
struct What {
    counters: bool,
    /// The pages of the areas.
    contents: bool,
    /// Their exact flags and names.
    exact: bool,
    /// All areas of the process.
    whole: bool,
    /// Else those that touch this range, in the windows.
    range: [u64; 2],
}

/// Fills record `index`.
fn record(
    shared: &mut Shared,
    eyes: &mut Eyes<'_>,
    index: usize,
    ret: i64,
    what: &What,
) -> Result<(), Stuck> {
    let first_area = shared.n_areas;
    let mut windows = if what.whole {
        shared.all
    } else {
        shared.windows
    };
    for [start, end] in &mut windows {
        *start = (*start).max(what.range[0]);
        *end = (*end).min(what.range[1]);
    }
    let mut new = Record {
        ret,
        first_area,
        n_areas: 0,
        has_counters: what.counters.into(),
        whole: what.whole.into(),
        looked: what.range,
        counters: [0; 5],
        peak: 0,
        signal: [0; 2],
        map_count: 0,
        known: 0,
        has_names: 0,
        first_hook: shared.n_hooks,
        n_hooks: 0,
        first_page: shared.n_contents,
        n_pages: 0,
    };
    if !eyes.devices.is_empty() {
        // What is called comes first: to look calls nothing.
        take_hooks(shared, eyes)?;
        new.n_hooks = shared.n_hooks - new.first_hook;
        (new.counters, new.map_count) = look(shared, eyes, &windows)?;
        new.has_counters = 1;
    } else if shared.query != 0 {
        query_areas(shared, eyes, &windows)?;
    } else {
        read_areas(shared, eyes, &windows)?;
    }
    new.n_areas = shared.n_areas - first_area;
    if eyes.devices.is_empty() {
        if what.counters {
            (new.counters, new.peak) = read_counters(shared, eyes)?;
        }
        if what.whole {
            new.map_count = new.n_areas.into();
        }
    }
    if what.exact {
        let (known, named) = read_exact(shared, first_area as usize)?;
        (new.known, new.has_names) = (known, named.into());
    }
    if what.contents {
        read_contents(shared, first_area as usize)?;
        new.n_pages = shared.n_contents - new.first_page;
    }
    if let Some(record) = shared.records.get_mut(index) {
        *record = new;
        shared.n_records = index as u32 + 1;
    }
    Ok(())
}

/// Appends what the rings hold.
fn take_hooks(shared: &mut Shared, eyes: &mut Eyes<'_>) -> Result<(), Stuck> {
    for device in &mut *eyes.devices {
        let mut fits = true;
        let all = device.take(|call| match shared.hooks.get_mut(shared.n_hooks as usize) {
            Some(slot) if (shared.n_hooks as usize) < MAX_HOOKS => {
                *slot = call;
                shared.n_hooks += 1;
            }
            _ => fits = false,
        });
        if !(all && fits) {
            return Err((Trouble::TooManyHooks, 0));
        }
    }
    Ok(())
}

/// Lists areas by asking the device: all from the first window to the last at once, so that it is seen which
/// share an `anon_vma`. Gives the counters, and how many areas there are in all.
fn look(shared: &mut Shared, eyes: &Eyes<'_>, windows: &Windows) -> Result<([u64; 5], u64), Stuck> {
    let Some(device) = eyes.devices.first() else {
        return Err((Trouble::Device, 0));
    };
    let (mut from, mut to) = (u64::MAX, 0);
    for &[start, end] in windows.iter().filter(|[start, end]| start < end) {
        (from, to) = (start.min(from), end.max(to));
    }
    let seen = device
        .look(from.min(to)..to, &mut shared.look)
        .map_err(|errno| (Trouble::Device, errno))?;
    if seen.count != u64::from(seen.filled) {
        return Err((Trouble::TooManyAreas, 0));
    }
    for index in 0..seen.filled as usize {
        let Some(&area) = shared.look.get(index) else {
            break;
        };
        let inside = windows
            .iter()
            .any(|&[start, end]| area.start < end && area.end > start);
        if inside {
            let device = device_number(area.dev_major, area.dev_minor);
            let segment = is_segment(shared, eyes, area.start, device, area.ino)?;
            push(
                shared,
                RawArea {
                    start: area.start,
                    end: area.end,
                    flags: area.flags,
                    offset: area.pgoff << PAGE_SHIFT,
                    device,
                    inode: area.ino,
                    segment: segment.into(),
                    anon_vma: area.anon_vma.into(),
                    exact: 0,
                    name: 0,
                },
            )?;
        }
    }
    let counters = [
        seen.total_vm,
        seen.locked_vm,
        seen.data_vm,
        seen.stack_vm,
        seen.exec_vm,
    ];
    Ok((counters, seen.map_count))
}

/// Reads the first bytes of the pages of the areas from that one on, as far as they can be had.
fn read_contents(shared: &mut Shared, first_area: usize) -> Result<(), Stuck> {
    let pid = call3(libc::SYS_getpid, 0, 0, 0) as u64;
    for index in first_area..shared.n_areas as usize {
        let Some(&RawArea {
            start, end, flags, ..
        }) = shared.areas.get(index)
        else {
            break;
        };
        // Even to read makes huge pages of large areas; those outside the windows are not ours.
        let observed = shared
            .windows
            .iter()
            .any(|&[first, last]| start < last && end > first);
        if flags & 1 == 0 || end - start >= LARGE || !observed {
            continue;
        }
        let mut at = start;
        while at < end {
            at = read_pages(shared, pid, at, end)?;
        }
    }
    Ok(())
}

/// From here on an area may have huge pages.
const LARGE: u64 = 2 << 20;
/// So many pages are read by one system call.
const AT_ONCE: usize = 32;

/// Reads some pages from `at` on, and gives where to go on: behind one that cannot be had, if there is one.
fn read_pages(shared: &mut Shared, pid: u64, at: u64, end: u64) -> Result<u64, Stuck> {
    let mut words = [0u64; AT_ONCE];
    let mut remote = [[0u64; 2]; AT_ONCE];
    let mut n = 0;
    for (place, page) in remote.iter_mut().zip((at..end).step_by(PAGE_SIZE as usize)) {
        // A `struct iovec`: address and length.
        *place = [page, 8];
        n += 1;
    }
    let local = [words.as_mut_ptr() as u64, n * 8];
    let got = call(
        libc::SYS_process_vm_readv,
        [pid, local.as_ptr() as u64, 1, remote.as_ptr() as u64, n, 0],
    );
    if got < 0 && got != -i64::from(libc::EFAULT) {
        return Err((Trouble::ReadContents, -got));
    }
    let read = got.max(0) as u64 / 8;
    for (&[page, _], &word) in remote.iter().zip(&words).take(read as usize) {
        // What there is no room for is not compared.
        if let Some(slot) = shared.contents.get_mut(shared.n_contents as usize) {
            *slot = [page, word];
            shared.n_contents += 1;
        }
    }
    let next = if read < n { read + 1 } else { n };
    Ok(at + next * PAGE_SIZE)
}

/// Looks up the exact flags and the names of the areas from that one on in `/proc/self/smaps`. Gives which
/// flags are seen by that, and whether the names are.
fn read_exact(shared: &mut Shared, first_area: usize) -> Result<(u64, bool), Stuck> {
    read_smaps(shared)?;
    let (mut known, mut named) = (smaps::shown().0, true);
    let (mut from, len) = (0, shared.n_text as usize);
    let mut index = first_area;
    while index < shared.n_areas as usize {
        let Some((entry, used)) = shared.text.get(from..len).and_then(smaps::entry) else {
            return Err((Trouble::ReadSmaps, 0));
        };
        from += used;
        let Some(area) = shared.areas.get_mut(index) else {
            break;
        };
        if entry.start == area.start {
            if entry.end != area.end {
                return Err((Trouble::ReadSmaps, 0));
            }
            let (flags, seen) = entry.flags();
            area.exact = flags.0;
            known &= seen.0;
            let name = entry.name();
            area.name = name.unwrap_or(0);
            named &= name.is_some();
            index += 1;
        }
    }
    Ok((known, named))
}

/// Appends an area.
fn push(shared: &mut Shared, area: RawArea) -> Result<(), Stuck> {
    match shared.areas.get_mut(shared.n_areas as usize) {
        Some(slot) if (shared.n_areas as usize) < MAX_AREAS => {
            *slot = area;
            shared.n_areas += 1;
            Ok(())
        }
        _ => Err((Trouble::TooManyAreas, 0)),
    }
}

type Windows = [[u64; 2]; MAX_WINDOWS];

/// Lists areas with one ioctl each (`do_procmap_query`, since 6.11).
fn query_areas(shared: &mut Shared, eyes: &Eyes<'_>, windows: &Windows) -> Result<(), Stuck> {
    for &[start, end] in windows {
        let mut addr = start;
        while addr < end {
            let area = match query_area(eyes, addr, &mut []) {
                Err(libc::ENOENT) => break,
                Err(errno) => return Err((Trouble::ReadMaps, errno.into())),
                Ok(area) if area.vma_start >= end => break,
                Ok(area) => area,
            };
            let device = device_number(area.dev_major, area.dev_minor);
            let segment = is_segment(shared, eyes, area.vma_start, device, area.inode)?;
            push(
                shared,
                RawArea {
                    start: area.vma_start,
                    end: area.vma_end,
                    flags: area.vma_flags & 0xf,
                    offset: area.vma_offset,
                    device,
                    inode: area.inode,
                    segment: segment.into(),
                    anon_vma: 0,
                    exact: 0,
                    name: 0,
                },
            )?;
            addr = area.vma_end;
        }
    }
    Ok(())
}

/// Asks for the area at an address, or the next one, and its name if there is room for one; or an errno.
fn query_area(eyes: &Eyes<'_>, addr: u64, name: &mut [u8]) -> Result<procmap_query, i32> {
    let mut area = procmap_query {
        size: size_of::<procmap_query>() as u64,
        query_flags: query::PROCMAP_QUERY_COVERING_OR_NEXT_VMA as u64,
        query_addr: addr,
        vma_start: 0,
        vma_end: 0,
        vma_flags: 0,
        vma_page_size: 0,
        vma_offset: 0,
        inode: 0,
        dev_major: 0,
        dev_minor: 0,
        vma_name_size: name.len() as u32,
        build_id_size: 0,
        vma_name_addr: name.as_mut_ptr() as u64,
        build_id_addr: 0,
    };
    // It wants no address where there is no room.
    if name.is_empty() {
        area.vma_name_addr = 0;
    }
    let at = &raw mut area as u64;
    match call3(libc::SYS_ioctl, eyes.maps as u64, PROCMAP_QUERY, at) {
        0 => Ok(area),
        errno => Err(-errno as i32),
    }
}

/// How the kernel names what a segment is on.
const SEGMENT: &[u8] = b"/SYSV";

/// Whether the area at `start`, of that file, is of a segment. What is none may have the inode of one.
fn is_segment(
    shared: &Shared,
    eyes: &Eyes<'_>,
    start: u64,
    device: u64,
    inode: u64,
) -> Result<bool, Stuck> {
    if device != shared.memory || !shared.segments.contains(&inode) {
        return Ok(false);
    }
    // A segment's name is no longer than this.
    let mut name = [0; 32];
    match query_area(eyes, start, &mut name) {
        Ok(_) => Ok(name.starts_with(SEGMENT)),
        Err(libc::ENAMETOOLONG) => Ok(false),
        Err(errno) => Err((Trouble::ReadMaps, errno.into())),
    }
}

/// Lists areas from the text of `/proc/self/maps`, for kernels before 6.11.
fn read_areas(shared: &mut Shared, eyes: &Eyes<'_>, windows: &Windows) -> Result<(), Stuck> {
    call3(libc::SYS_lseek, eyes.maps as u64, 0, libc::SEEK_SET as u64);
    loop {
        // The kernel gives whole lines as long as there is room for one.
        let len = read_text(shared, eyes.maps)?;
        if len == 0 {
            return Ok(());
        }
        let mut from = 0;
        while let Some((area, used)) = shared.text.get(from..len).and_then(parse_line) {
            from += used;
            // [vsyscall] is listed, but it is no area of the process.
            let ours = area.start < 1 << 63;
            let inside = windows
                .iter()
                .any(|&[start, end]| area.start < end && area.end > start);
            if ours && inside {
                push(shared, area)?;
            }
        }
        if from != len {
            return Err((Trouble::ReadMaps, 0));
        }
    }
}

/// Reads once from `fd` into [`Shared::text`]: how many bytes.
fn read_text(shared: &mut Shared, fd: i64) -> Result<usize, Stuck> {
    let room = shared.text.len() as u64;
    let got = call3(
        libc::SYS_read,
        fd as u64,
        shared.text.as_mut_ptr() as u64,
        room,
    );
    if got < 0 {
        Err((Trouble::ReadMaps, -got))
    } else {
        Ok(got as usize)
    }
}

/// One line of `/proc/self/maps`, and its length with the newline.
fn parse_line(text: &[u8]) -> Option<(RawArea, usize)> {
    let len = text.iter().position(|&byte| byte == b'\n')? + 1;
    let mut words = text.get(..len - 1)?.split(|&byte| byte == b' ');
    let mut range = words.next()?.split(|&byte| byte == b'-');
    let (start, end) = (number(range.next()?, 16)?, number(range.next()?, 16)?);
    let mut flags = 0;
    for (bit, &letter) in words.next()?.iter().enumerate() {
        flags |= u64::from(matches!(letter, b'r' | b'w' | b'x' | b's')) << bit;
    }
    let offset = number(words.next()?, 16)?;
    let mut device = words.next()?.split(|&byte| byte == b':');
    let (major, minor) = (number(device.next()?, 16)?, number(device.next()?, 16)?);
    let inode = number(words.next()?, 10)?;
    let name = words.find(|word| !word.is_empty());
    let segment = name.is_some_and(|name| name.starts_with(SEGMENT));
    let device = device_number(major as u32, minor as u32);
    // Without a file, PROCMAP_QUERY says 0 and so does this. (A machine's first segment has the inode 0.)
    let offset = if inode == 0 && device == 0 { 0 } else { offset };
    Some((
        RawArea {
            start,
            end,
            flags,
            offset,
            device,
            inode,
            segment: segment.into(),
            anon_vma: 0,
            exact: 0,
            name: 0,
        },
        len,
    ))
}

/// Reads the counters of `/proc/self/status`.
fn read_counters(shared: &mut Shared, eyes: &Eyes<'_>) -> Result<([u64; 5], u64), Stuck> {
    let room = shared.text.len() as u64;
    let text = shared.text.as_mut_ptr() as u64;
    let got = call(libc::SYS_pread64, [eyes.status as u64, text, room, 0, 0, 0]);
    if got < 0 {
        return Err((Trouble::ReadStatus, -got));
    }
    let text = shared.text.get(..got as usize).unwrap_or(&[]);
    parse_status(text).ok_or((Trouble::ReadStatus, 0))
}

/// `VmSize`, `VmLck`, `VmData`, `VmStk`, `VmExe` + `VmLib`; and `VmPeak`; in pages.
fn parse_status(text: &[u8]) -> Option<([u64; 5], u64)> {
    let mut counters = [0; 6];
    let mut seen = 0;
    for line in text.split(|&byte| byte == b'\n') {
        let Some(rest) = line.strip_prefix(b"Vm") else {
            continue;
        };
        let index = match rest.get(..4)? {
            b"Size" => 0,
            b"Lck:" => 1,
            b"Data" => 2,
            b"Stk:" => 3,
            b"Exe:" | b"Lib:" => 4,
            b"Peak" => 5,
            _ => continue,
        };
        let mut kib = 0;
        for &byte in rest {
            if byte.is_ascii_digit() {
                kib = kib * 10 + u64::from(byte - b'0');
            }
        }
        *counters.get_mut(index)? += kib / (PAGE_SIZE >> 10);
        seen += 1;
    }
    let [size, locked, data, stack, exec, peak] = counters;
    (seen == 7).then_some(([size, locked, data, stack, exec], peak))
}

/// Reads `/proc/self/smaps` into [`Shared::text`].
fn read_smaps(shared: &mut Shared) -> Result<(), Stuck> {
    let fd = open(c"/proc/self/smaps");
    if fd < 0 {
        return Err((Trouble::ReadSmaps, -fd));
    }
    let mut len = 0;
    loop {
        let Some(room) = shared.text.get_mut(len..).filter(|room| !room.is_empty()) else {
            return Err((Trouble::ReadSmaps, 0));
        };
        let got = call3(
            libc::SYS_read,
            fd as u64,
            room.as_mut_ptr() as u64,
            room.len() as u64,
        );
        if got < 0 {
            return Err((Trouble::ReadSmaps, -got));
        }
        if got == 0 {
            break;
        }
        len += got as usize;
    }
    call3(libc::SYS_close, fd as u64, 0, 0);
    shared.n_text = len as u32;
    Ok(())
}
