// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! libvmalab, the C library over `/dev/vmalab`.
//!
//! The functions here are thin: they turn C arguments into calls of the crate `vmalab`, and its
//! errors into -1, `errno` and a text for [`vmalab_last_error`]. No panic leaves them.
//!
//! The doc comments are those of `libvmalab.h`, and so are written for C.
#![allow(non_camel_case_types)]

use std::{
    any::Any,
    cell::RefCell,
    ffi::{CStr, CString, OsStr, c_char, c_int, c_void},
    os::{
        fd::{AsRawFd, IntoRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    ptr, slice,
};

use nix::errno::Errno;
use vmalab::{
    AreaFlags, Device, Hook, HookSet, Mapping, Prot, RawMapping, RuleId, Seals, Sharing, sys,
};

/// A descriptor of the node, from vmalab_open() to vmalab_close().
pub struct vmalab_device(Device);

/// Opens the node for reading and writing, which makes a new object.
///
/// path: the node, or NULL for /dev/vmalab.
///
/// Returns the device, to be closed with vmalab_close(), or NULL. Errors: ENOENT or ENXIO if the
/// module is not loaded, EACCES if this user may not open the node, and all others of open(2).
///
/// # Safety
/// path is NULL or a string that ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_open(path: *const c_char) -> *mut vmalab_device {
    guard(ptr::null_mut(), || {
        let device = if path.is_null() {
            Device::open()
        } else {
            // SAFETY: the caller's promise.
            let path = unsafe { CStr::from_ptr(path) };
            Device::open_at(OsStr::from_bytes(path.to_bytes()))
        };
        Ok(Box::into_raw(Box::new(vmalab_device(device?))))
    })
}

/// Closes the device. Mappings of it stay, and keep the object alive. NULL is ignored.
///
/// # Safety
/// device is NULL or comes from vmalab_open() and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_close(device: *mut vmalab_device) {
    guard((), || {
        if !device.is_null() {
            // SAFETY: the caller's promise.
            drop(unsafe { Box::from_raw(device) });
        }
        Ok(())
    });
}

/// The file descriptor of the device, for calls that this library does not wrap: mmap(2), dup(2),
/// ioctl(2) with the requests of vmalab.h. It is closed by vmalab_close().
///
/// Returns the descriptor, or -1. Errors: EINVAL if the device is NULL.
///
/// # Safety
/// device is NULL or an open device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_fd(device: *const vmalab_device) -> c_int {
    // SAFETY: the caller's promise.
    guard(-1, || Ok(unsafe { borrow(device) }?.as_raw_fd()))
}

/// Reads the size of the object, in bytes, into *size.
///
/// Returns 0, or -1. Errors: EINVAL if an argument is NULL.
///
/// # Safety
/// device is NULL or an open device; size is NULL or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_get_size(device: *const vmalab_device, size: *mut u64) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's promise.
        let (device, size) = unsafe { (borrow(device)?, borrow_mut(size)?) };
        *size = device.size()?;
        Ok(0)
    })
}

/// Sets the size of the object to size bytes, rounded up to whole pages. Pages past a smaller end
/// are freed, and touching them raises SIGBUS, as with ftruncate(2).
///
/// Returns 0, or -1. Errors: EFBIG if it is larger than the module allows, EPERM if the object is sealed
/// against it, EINVAL if the device is NULL.
///
/// # Safety
/// device is NULL or an open device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_set_size(device: *const vmalab_device, size: u64) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's promise.
        unsafe { borrow(device) }?.set_size(size)?;
        Ok(0)
    })
}

/// Reads in pieces of how many bytes the object allocates memory from now on into *size.
///
/// Returns 0, or -1. Errors: EINVAL if one of the arguments is NULL, ENOTTY if the module is too old.
///
/// # Safety
/// device is NULL or an open device; size is NULL or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_get_folio_size(
    device: *const vmalab_device,
    size: *mut u64,
) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's promise.
        let (device, size) = unsafe { (borrow(device)?, borrow_mut(size)?) };
        *size = device.folio_size()?;
        Ok(0)
    })
}

/// Has the object allocate memory in pieces of size bytes from now on: a power of two, from one page
/// to 2 MiB, or 0 for what a fresh object has. See VMALAB_IOC_SET_FOLIO_SIZE.
///
/// Returns 0, or -1. Errors: EINVAL if there is no such size or the device is NULL, ENOTTY if the
/// module is too old.
///
/// # Safety
/// device is NULL or an open device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_set_folio_size(device: *const vmalab_device, size: u64) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's promise.
        unsafe { borrow(device) }?.set_folio_size(size)?;
        Ok(0)
    })
}

/// Reads the counts into *stats.
///
/// scope: VMALAB_SCOPE_OBJECT for the object of this device, VMALAB_SCOPE_MODULE for everything
/// since the module was loaded.
///
/// Returns 0, or -1. Errors: EINVAL for another scope or an argument that is NULL.
///
/// # Safety
/// device is NULL or an open device; stats is NULL or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_get_stats(
    device: *const vmalab_device,
    scope: u32,
    stats: *mut sys::vmalab_stats,
) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's promise.
        let (device, stats) = unsafe { (borrow(device)?, borrow_mut(stats)?) };
        let counts = match scope {
            sys::VMALAB_SCOPE_OBJECT => device.stats()?,
            sys::VMALAB_SCOPE_MODULE => device.module_stats()?,
            _ => return Err(refused("the scope is neither OBJECT nor MODULE")),
        };
        let mut n_calls = [0; sys::VMALAB_MAX_HOOKS as usize];
        for &hook in Hook::ALL {
            n_calls[hook as usize] = counts.hooks.of(hook);
        }
        *stats = sys::vmalab_stats {
            scope,
            reserved: 0,
            objects: counts.objects,
            areas: counts.areas,
            pages: counts.pages,
            n_calls,
        };
        Ok(0)
    })
}

/// Reads the areas of this process that overlap [start, end), and its counters, at one moment.
///
/// areas: where to, with room for capacity of them; may be NULL if capacity is 0.
/// answer: its filled says how many were written, its count how many there are, and the rest is the
/// counters. If there are more than were written, ask again with more room.
///
/// Returns 0, or -1. Errors: EINVAL if the range ends before it begins, or device or answer is NULL;
/// ENOMEM.
///
/// # Safety
/// device is NULL or an open device; areas is NULL or has room for capacity structures; answer is NULL
/// or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_get_areas(
    device: *const vmalab_device,
    start: usize,
    end: usize,
    areas: *mut sys::vmalab_area,
    capacity: usize,
    answer: *mut sys::vmalab_areas,
) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's promise.
        let (device, answer) = unsafe { (borrow(device)?, borrow_mut(answer)?) };
        // SAFETY: the caller's promise.
        *answer = device.read_areas(start..end, unsafe { borrow_array(areas, capacity)? })?;
        Ok(0)
    })
}

/// Asks what munmap(addr, length) would do now, if there may be max_map_count areas
/// (/proc/sys/vm/max_map_count). Nothing is done.
///
/// steps: where to write what it would do, with room for capacity steps; may be NULL if capacity is 0.
/// answer: its error is the errno that munmap would fail with, or 0; its filled says how many steps were
/// written, its count how many there are; the rest says by how much the counters would change.
///
/// Returns 0, or -1. Errors: EINVAL if device or answer is NULL; ENOMEM.
///
/// # Safety
/// device is NULL or an open device; steps is NULL or has room for capacity structures; answer is NULL
/// or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_would_unmap(
    device: *const vmalab_device,
    addr: usize,
    length: usize,
    max_map_count: u64,
    steps: *mut sys::vmalab_step,
    capacity: usize,
    answer: *mut sys::vmalab_unmapping,
) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's promise.
        let (device, answer) = unsafe { (borrow(device)?, borrow_mut(answer)?) };
        // SAFETY: the caller's promise.
        let steps = unsafe { borrow_array(steps, capacity)? };
        *answer = device.read_unmap_steps(addr, length, max_map_count, steps)?;
        Ok(0)
    })
}

/// Allocates pages of the object, or frees them, as fallocate(2) does with a file.
///
/// mode: VMALAB_FALLOCATE_ALLOCATE, VMALAB_FALLOCATE_KEEP_SIZE or VMALAB_FALLOCATE_PUNCH_HOLE.
///
/// Returns 0, or -1. Errors: EINVAL if length is 0 or the device is NULL, EOPNOTSUPP for another mode,
/// EFBIG past the largest size that the module allows, ENOSPC if it allows no more pages, EPERM if the
/// object is sealed against it, ENOMEM, EINTR.
///
/// # Safety
/// device is NULL or an open device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_fallocate(
    device: *const vmalab_device,
    mode: u32,
    offset: u64,
    length: u64,
) -> c_int {
    guard(-1, || {
        let end = offset
            .checked_add(length)
            .ok_or_else(|| refused("offset plus length is too large"))?;
        // SAFETY: the caller's promise.
        unsafe { borrow(device) }?.fallocate(mode, offset..end)?;
        Ok(0)
    })
}

/// Forbids something for good, for all who have the object: VMALAB_SEAL_*, ored, as F_ADD_SEALS of
/// fcntl(2) does for a memfd.
///
/// Returns 0, or -1. Errors: EBUSY for VMALAB_SEAL_WRITE while somebody can still write to a shared
/// mapping, EPERM if it is sealed against more seals, EINVAL for an unknown seal or if the device is
/// NULL.
///
/// # Safety
/// device is NULL or an open device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_add_seals(device: *const vmalab_device, seals: u32) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's promise.
        unsafe { borrow(device) }?.add_seals(Seals::from_bits_retain(seals))?;
        Ok(0)
    })
}

/// Reads what is forbidden into *seals.
///
/// Returns 0, or -1. Errors: EINVAL if an argument is NULL.
///
/// # Safety
/// device is NULL or an open device; seals is NULL or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_get_seals(device: *const vmalab_device, seals: *mut u32) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's promise.
        let (device, seals) = unsafe { (borrow(device)?, borrow_mut(seals)?) };
        *seals = device.seals()?.bits();
        Ok(0)
    })
}

/// Which pages have been written to since the last call with VMALAB_WRITTEN_CLEAR. *written says where
/// to look and has the space for the answer; afterwards it says where to go on: call it until length
/// is 0.
///
/// Returns 0, or -1. Errors: EINVAL if these are no whole pages, if there is no space, or if an
/// argument is NULL; ENOMEM; EFAULT.
///
/// # Safety
/// device is NULL or an open device; written is NULL or may be written to, and so may n_ranges ranges at
/// the address in it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_get_written(
    device: *const vmalab_device,
    written: *mut sys::vmalab_written,
) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's promise.
        unsafe { borrow(device)?.written_into(borrow_mut(written)?) }?;
        Ok(0)
    })
}

/// Gives the object a name, by which other processes can open it: those whom mode allows, as the mode
/// of a file. Or takes its name away, if name is NULL. It is gone with the last descriptor and the last
/// mapping of the object, too.
///
/// Returns 0, or -1. Errors: EEXIST if another object has this name, EBUSY if this one has a name,
/// EINVAL for a name that is empty, too long or not printable, for a mode that is not within 0666, or if
/// the device is NULL; ENOMEM.
///
/// # Safety
/// device is NULL or an open device; name is NULL or a string that ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_set_name(
    device: *const vmalab_device,
    name: *const c_char,
    mode: u32,
) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's promise.
        let device = unsafe { borrow(device) }?;
        if name.is_null() {
            device.remove_name()?;
        } else {
            // SAFETY: the caller's promise.
            device.set_name(unsafe { text(name) }?, mode)?;
        }
        Ok(0)
    })
}

/// Opens the object that has this name, for reading and writing.
///
/// Returns the device, to be closed with vmalab_close(), or NULL. Errors: ENOENT if no object has this
/// name, EACCES if its mode does not allow it, EINVAL if name is NULL or no name, and those of
/// vmalab_open().
///
/// # Safety
/// name is NULL or a string that ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_open_named(name: *const c_char) -> *mut vmalab_device {
    guard(ptr::null_mut(), || {
        if name.is_null() {
            return Err(refused("the name is NULL"));
        }
        // SAFETY: the caller's promise.
        let device = Device::open_named(unsafe { text(name) }?)?;
        Ok(Box::into_raw(Box::new(vmalab_device(device))))
    })
}

/// Sets the flags that areas of the object get which are mapped from now on.
///
/// flags: of enum vmalab_area_flags, ored.
///
/// Returns 0, or -1. Errors: EINVAL for unknown flags, for PFNMAP together with MIXEDMAP, or if the
/// device is NULL.
///
/// # Safety
/// device is NULL or an open device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_set_area_flags(device: *const vmalab_device, flags: u64) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's promise.
        let device = unsafe { borrow(device) }?;
        device.set_area_flags(AreaFlags::from_bits_retain(flags))?;
        Ok(0)
    })
}

/// Adds a rule: calls of a hook from now on are answered otherwise than they would be.
///
/// rule: see struct vmalab_rule; hook, answer and nth must be set, and error, delay_us, offset,
/// length and times as needed, all else be zero. Its id is filled in.
///
/// Returns 0, or -1. Errors: EINVAL if the hook has no such answer, a number is not as it must be, or an
/// argument is NULL; ENOSPC if the object has VMALAB_MAX_RULES rules; EPERM for HWPOISON without
/// CAP_SYS_ADMIN.
///
/// # Safety
/// device is NULL or an open device; rule is NULL or may be read and written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_add_rule(
    device: *const vmalab_device,
    rule: *mut sys::vmalab_rule,
) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's promise.
        let (device, rule) = unsafe { (borrow(device)?, borrow_mut(rule)?) };
        device.add_rule(rule)?;
        Ok(0)
    })
}

/// Reads how often the rule of rule->id has been used, into n_calls and n_fired.
///
/// Returns 0, or -1. Errors: ENOENT if there is no such rule, EINVAL if an argument is NULL.
///
/// # Safety
/// device is NULL or an open device; rule is NULL or may be read and written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_get_rule(
    device: *const vmalab_device,
    rule: *mut sys::vmalab_rule,
) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's promise.
        let (device, rule) = unsafe { (borrow(device)?, borrow_mut(rule)?) };
        let counts = device.rule_counts(RuleId::from(rule.id))?;
        (rule.n_calls, rule.n_fired) = (counts.calls, counts.fired);
        Ok(0)
    })
}

/// Removes a rule.
///
/// id: that of the rule, or 0 for all.
///
/// Returns 0, or -1. Errors: ENOENT if there is no such rule, EINVAL if the device is NULL.
///
/// # Safety
/// device is NULL or an open device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_clear_rules(device: *const vmalab_device, id: u32) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's promise.
        let device = unsafe { borrow(device) }?;
        if id == 0 {
            device.clear_rules()?;
        } else {
            device.clear_rule(RuleId::from(id))?;
        }
        Ok(0)
    })
}

/// Maps length bytes of the object from offset on, as mmap(2) does.
///
/// addr: where, if that is free, or NULL; with MAP_FIXED in flags, where in any case.
/// prot: PROT_READ, PROT_WRITE, PROT_EXEC or PROT_NONE.
/// flags: MAP_SHARED or MAP_PRIVATE, and any other of mmap(2).
///
/// Returns the address, or MAP_FAILED. Errors: those of mmap(2); EINVAL if the device is NULL.
///
/// # Safety
/// device is NULL or an open device; with MAP_FIXED, nothing else uses the range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_map(
    device: *const vmalab_device,
    addr: *mut c_void,
    length: usize,
    prot: c_int,
    flags: c_int,
    offset: u64,
) -> *mut c_void {
    guard(libc::MAP_FAILED, || {
        if flags & libc::MAP_FIXED != 0 && addr.is_null() {
            return Err(refused("MAP_FIXED needs an address"));
        }
        // SAFETY: the caller's promise.
        let device = unsafe { borrow(device) }?;
        let options = device
            .map()
            .length(length)
            .offset(offset)
            .prot(Prot::from_bits_retain(prot))
            .hint(addr.addr());
        // SAFETY: the caller's promise, for MAP_FIXED; what comes out is given up as raw parts at
        // once, so that no other flag can break a promise of Mapping.
        let options = unsafe { options.custom_flags(flags & !libc::MAP_TYPE) };
        let mapping = match flags & libc::MAP_TYPE {
            libc::MAP_SHARED => options.shared(),
            libc::MAP_PRIVATE => options.private(),
            _ => return Err(refused("flags need one of MAP_SHARED and MAP_PRIVATE")),
        };
        Ok(mapping?.into_raw_parts().addr.cast())
    })
}

/// Unmaps length bytes from addr on, as munmap(2) does, which can be used instead: a whole mapping,
/// its head, its tail or its middle. What remains on either side keeps its contents.
///
/// Returns 0, or -1. Errors: EINVAL if addr is no multiple of the page size or the length is 0;
/// ENOMEM if taking a middle out makes more areas than vm.max_map_count; EPERM if it is sealed.
///
/// # Safety
/// Nothing uses the range any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_unmap(addr: *mut c_void, length: usize) -> c_int {
    guard(-1, || {
        let page = vmalab::page_size();
        let whole = length.checked_next_multiple_of(page);
        match whole {
            Some(length) if length > 0 && addr.addr() % page == 0 && !addr.is_null() => {
                let raw = RawMapping {
                    addr: addr.cast(),
                    length,
                    offset: 0,
                    sharing: Sharing::Shared,
                    prot: Prot::empty(),
                };
                // SAFETY: the caller's promise; sharing, protection and offset do not matter to
                // unmapping.
                let mapping = unsafe { Mapping::from_raw_parts(raw) };
                match mapping.unmap() {
                    Ok(()) => Ok(0),
                    Err(error) => {
                        let failure = error.error().clone().into();
                        // It is still mapped, and the caller's.
                        let _ = error.into_mapping().into_raw_parts();
                        Err(failure)
                    }
                }
            }
            _ => Err(refused(
                "a range to unmap must begin at a multiple of the page size and not be empty",
            )),
        }
    })
}

/// Watches the object: records the calls of some hooks from now on.
///
/// hooks: which, a mask of 1 << VMALAB_HOOK_...
/// records: for how many that are not read yet there is room, a power of two up to 65536.
///
/// Returns a new descriptor, to be closed with close(2), or -1. It does not block; vmalab_watch_read()
/// waits, and so does poll(2). It can be mapped, as struct vmalab_ring says. Errors: EINVAL for a
/// hook or a number that is not possible, or if the device is NULL; EBUSY if eight watch the object
/// already; EBADF if the device is open for reading only.
///
/// # Safety
/// device is NULL or an open device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_watch_open(
    device: *const vmalab_device,
    hooks: u64,
    records: u32,
) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's promise.
        let device = unsafe { borrow(device) }?;
        let options = device.watch().hooks(HookSet::from_bits_retain(hooks));
        let watch: OwnedFd = options.records(records).open()?.into();
        Ok(watch.into_raw_fd())
    })
}

/// Reads up to count records of a watch into events. Where a sequence number is missing, calls were
/// lost because nobody read in time.
///
/// watch: the descriptor from vmalab_watch_open().
/// timeout: in milliseconds, how long to wait for the first; 0 not at all, -1 without a limit.
///
/// Returns how many there are; 0 if the time was over, or the object is gone, of which poll(2) tells
/// with POLLHUP; or -1. Errors: EINVAL if events is NULL or count is 0; EBADF; EINTR by a signal;
/// EIO if somebody has mapped the ring and stored a wrong tail.
///
/// # Safety
/// events is NULL or has room for count records.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmalab_watch_read(
    watch: c_int,
    events: *mut sys::vmalab_event,
    count: usize,
    timeout: c_int,
) -> isize {
    const SIZE: usize = size_of::<sys::vmalab_event>();
    guard(-1, || {
        if events.is_null() || count == 0 {
            return Err(refused("there is no room for a record"));
        }
        let mut ready = libc::pollfd {
            fd: watch,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: it is one pollfd.
        match Errno::result(unsafe { libc::poll(&mut ready, 1, timeout) }) {
            Ok(0) => return Ok(0),
            Ok(_) => {}
            Err(errno) => return Err(failed("cannot wait for records", errno)),
        }
        let bytes = count.saturating_mul(SIZE).min(isize::MAX as usize);
        // SAFETY: the caller's promise.
        match Errno::result(unsafe { libc::read(watch, events.cast(), bytes) }) {
            Ok(length) => Ok(length / SIZE as isize),
            // Another reader was faster.
            Err(Errno::EAGAIN) => Ok(0),
            Err(errno) => Err(failed("cannot read records", errno)),
        }
    })
}

/// The kernel's name of a hook, enum vmalab_hook, or NULL if there is none of that number.
#[unsafe(no_mangle)]
pub extern "C" fn vmalab_hook_name(hook: u32) -> *const c_char {
    match Hook::from_number(hook) {
        Some(hook) => hook.c_name().as_ptr(),
        None => ptr::null(),
    }
}

/// What went wrong in the last call of this library that failed in this thread, and what to do: a
/// sentence without a line end. The empty string if none has failed.
///
/// It is valid until another call fails in this thread, or the thread ends.
#[unsafe(no_mangle)]
pub extern "C" fn vmalab_last_error() -> *const c_char {
    LAST_ERROR
        .try_with(|text| text.try_borrow().map_or(c"".as_ptr(), |text| text.as_ptr()))
        .unwrap_or(c"".as_ptr())
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Why a call fails.
struct Failure {
    errno: i32,
    text: String,
}

impl From<vmalab::Error> for Failure {
    fn from(error: vmalab::Error) -> Self {
        Self {
            errno: error.errno(),
            text: error.to_string(),
        }
    }
}

/// An argument that this library refuses itself.
fn refused(why: &str) -> Failure {
    Failure {
        errno: libc::EINVAL,
        text: format!("{why} (EINVAL)"),
    }
}

/// A system call that failed.
fn failed(what: &str, errno: Errno) -> Failure {
    Failure {
        errno: errno as i32,
        text: format!("{what}: {} ({errno:?})", errno.desc()),
    }
}

/// Runs the body of a C function; an error or a panic becomes `failed`, errno and the text.
fn guard<T>(failed: T, body: impl FnOnce() -> Result<T, Failure>) -> T {
    // What a panic leaves half done is local to the body.
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = format!("a bug in libvmalab: {}", panic_text(&*panic));
        Err(Failure {
            errno: libc::ENOTRECOVERABLE,
            text,
        })
    });
    result.unwrap_or_else(|Failure { errno, text }| {
        let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
        // No text in a thread that is ending: errno remains.
        let _ = LAST_ERROR.try_with(|last| last.replace(text));
        Errno::from_raw(errno).set();
        failed
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic")
}

/// # Safety
/// `text` is a C string, and stays one during 'a.
unsafe fn text<'a>(text: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str()
        .map_err(|_| refused("a name has printable characters of ASCII only"))
}

/// # Safety
/// `device` is null or an open device.
unsafe fn borrow<'a>(device: *const vmalab_device) -> Result<&'a Device, Failure> {
    // SAFETY: the caller's promise.
    match unsafe { device.as_ref() } {
        Some(device) => Ok(&device.0),
        None => Err(refused("the device is NULL: did vmalab_open() fail?")),
    }
}

/// # Safety
/// `target` is null or may be written to.
unsafe fn borrow_mut<'a, T>(target: *mut T) -> Result<&'a mut T, Failure> {
    // SAFETY: the caller's promise; all types here are plain numbers.
    unsafe { target.as_mut() }
        .ok_or_else(|| refused("there is no place for the answer: it is NULL"))
}

/// # Safety
/// `array` is null or has room for `capacity` elements.
unsafe fn borrow_array<'a, T>(array: *mut T, capacity: usize) -> Result<&'a mut [T], Failure> {
    if capacity == 0 {
        return Ok(&mut []);
    }
    if array.is_null() {
        return Err(refused("there is no array for the answer: it is NULL"));
    }
    // SAFETY: the caller's promise; all types here are plain numbers.
    Ok(unsafe { slice::from_raw_parts_mut(array, capacity) })
}
