// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Watching an object: each call of a hook as an [`Event`].

use std::{
    fmt,
    ops::Range,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{Device, Error, Hook, HookSet, error::Action, sys};

/// The size of a record.
const SIZE: usize = size_of::<sys::vmalab_event>();
/// As many as are read at once.
const BATCH: usize = 64;

/// A call of a hook, as the kernel made it: `struct vmalab_event`.
///
/// As text it is one line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Event {
    /// The number of the call among those that the watch was to record, from 0 on. Where one is missing,
    /// the ring was full, and the call is counted as lost.
    pub sequence: u64,
    /// When, by `CLOCK_MONOTONIC`.
    pub time: Duration,
    /// Which hook.
    pub hook: Hook,
    /// What the kernel was answered: 0 or a negative error number; for the hooks of a fault, what the
    /// kernel calls `VM_FAULT_*`.
    pub result: i32,
    /// The process that called, as the pid namespace of who made the watch sees it; 0 if it does not.
    pub pid: u32,
    /// The thread, likewise.
    pub tid: u32,
    /// The addresses that the call is about: the area, a part of it, or a page.
    pub range: Range<usize>,
    /// Where the first of them is in the object, in bytes.
    pub offset: u64,
    /// The flags of the area, the kernel's `VM_*`.
    pub flags: u64,
    /// `may_split`: the address; `mprotect`: the flags that the part is to get; the hooks of a fault:
    /// `FAULT_FLAG_*`; else 0.
    pub argument: u64,
}

impl Event {
    /// None for a hook that this crate does not know.
    fn from_raw(raw: &sys::vmalab_event) -> Option<Self> {
        Some(Self {
            sequence: raw.sequence,
            time: Duration::from_nanos(raw.time),
            hook: Hook::from_number(raw.hook)?,
            result: raw.result,
            pid: raw.pid,
            tid: raw.tid,
            range: raw.start as usize..raw.end as usize,
            offset: raw.offset,
            flags: raw.flags,
            argument: raw.argument,
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.range;
        write!(
            f,
            "{:>5} {:>12.6} {:>6} {:<12} {start:x}-{end:x} offset={:x} argument={:x} result={}",
            self.sequence,
            self.time.as_secs_f64(),
            self.tid,
            self.hook.name(),
            self.offset,
            self.argument,
            self.result,
        )
    }
}

/// How to watch, from [`Device::watch`].
#[derive(Debug, Clone)]
#[must_use = "nothing is watched before `open`"]
pub struct WatchOptions<'a> {
    device: &'a Device,
    hooks: HookSet,
    records: u32,
}

impl<'a> WatchOptions<'a> {
    pub(crate) fn new(device: &'a Device) -> Self {
        Self {
            device,
            hooks: HookSet::all(),
            records: 4096,
        }
    }

    /// The hooks whose calls are recorded; all, if nothing else is said.
    pub fn hooks(self, hooks: impl Into<HookSet>) -> Self {
        let hooks = hooks.into();
        Self { hooks, ..self }
    }

    /// For how many records that have not been read there is room: a power of two, at most 65536. It
    /// is 4096 if nothing else is said.
    pub fn records(self, records: u32) -> Self {
        Self { records, ..self }
    }

    /// Records calls from now on. Mirrors `VMALAB_IOC_WATCH`.
    ///
    /// # Errors
    /// `EINVAL` if the number of records is not a power of two or too large; `EBUSY` if the object is
    /// watched by eight already; `EBADF` if the device is open for reading only; `ENOTTY` if it
    /// is none, or the module is too old; `EMFILE`, `ENOMEM`.
    pub fn open(self) -> Result<Watch, Error> {
        let mut argument = sys::vmalab_watch {
            hooks: self.hooks.bits(),
            records: self.records,
            flags: sys::VMALAB_WATCH_NONBLOCK,
        };
        // SAFETY: the request reads exactly one vmalab_watch.
        let number = unsafe { ioctl(self.device.as_fd(), sys::VMALAB_IOC_WATCH, &mut argument) };
        match number {
            Ok(number) => Ok(Watch {
                // SAFETY: it is the new descriptor, and ours.
                fd: unsafe { OwnedFd::from_raw_fd(number) },
            }),
            Err(errno) => Err(Error::new(Action::Watch, errno)),
        }
    }
}

/// A watched object: the descriptor from which its [`Event`]s are read.
///
/// It does not keep the object alive. When that is gone with its mappings, the events end. Dropping it
/// ends the recording. The descriptor does not block, and can be given to any event loop.
///
/// ```no_run
/// use vmalab::{Device, Hook};
///
/// let device = Device::open()?;
/// let mapping = device.map().length(4 * 4096).shared()?;
/// let watch = device.watch().open()?;
///
/// let rest = mapping.unmap_range(4096..2 * 4096)?;
/// let hooks: Vec<Hook> = watch.take()?.iter().map(|event| event.hook).collect();
/// assert_eq!(hooks, [Hook::MaySplit, Hook::Open, Hook::MaySplit, Hook::Open, Hook::Close]);
/// # Ok::<(), vmalab::Error>(())
/// ```
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
}

impl Watch {
    /// Takes the events that are there, without waiting.
    ///
    /// # Errors
    /// `EIO` if somebody has mapped the ring and put nonsense into its tail.
    pub fn take(&self) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        while self.read(&mut events)?.is_some_and(|number| number > 0) {}
        Ok(events)
    }

    /// Appends some of the events that are there to `events`, and says how many; None if there will be
    /// no more.
    fn read(&self, events: &mut Vec<Event>) -> Result<Option<usize>, Error> {
        let mut raw = [sys::vmalab_event::default(); BATCH];
        let length = loop {
            // SAFETY: there is room for that many bytes, and any bytes are a vmalab_event.
            let got = unsafe {
                libc::read(
                    self.fd.as_raw_fd(),
                    raw.as_mut_ptr().cast(),
                    size_of_val(&raw),
                )
            };
            match Errno::result(got) {
                Ok(0) => return Ok(None),
                Ok(length) => break length as usize,
                Err(Errno::EAGAIN) => return Ok(Some(0)),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::new(Action::ReadWatch, errno)),
            }
        };
        let raw = &raw[..length / SIZE];
        events.extend(raw.iter().filter_map(Event::from_raw));
        Ok(Some(raw.len()))
    }

    /// Waits until there is an event, or there will be no more; or for `timeout`, then it is false.
    ///
    /// # Errors
    /// Those of `poll(2)`; a signal is none.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let milliseconds = left.map_or(PollTimeout::NONE, |left| {
                // Rounded up: not before its time.
                let left = left.as_nanos().div_ceil(1_000_000);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            });
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, milliseconds) {
                Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(Error::new(Action::ReadWatch, errno)),
            }
        }
    }

    /// The events one by one: waits for each, and ends when the object is gone.
    pub fn events(&self) -> Events<'_> {
        Events {
            watch: self,
            timeout: None,
            ready: Vec::new().into_iter(),
        }
    }

    /// Records the calls of these hooks from now on, and of no others. Events that are there stay.
    /// Mirrors `VMALAB_IOC_WATCH_SET`.
    ///
    /// # Errors
    /// `EINVAL` for a hook that the module does not know.
    pub fn set_hooks(&self, hooks: impl Into<HookSet>) -> Result<(), Error> {
        let mut argument = sys::vmalab_hooks {
            hooks: hooks.into().bits(),
            reserved: 0,
        };
        // SAFETY: the request reads exactly one vmalab_hooks.
        let done = unsafe { ioctl(self.as_fd(), sys::VMALAB_IOC_WATCH_SET, &mut argument) };
        done.map(drop)
            .map_err(|errno| Error::new(Action::Watch, errno))
    }

    /// How the watch is, and how much was lost. Mirrors `VMALAB_IOC_WATCH_STATE`.
    ///
    /// # Errors
    /// `ENOTTY` if the descriptor is not one of a watch.
    pub fn state(&self) -> Result<WatchState, Error> {
        let mut state = sys::vmalab_watch_state::default();
        // SAFETY: the request reads and writes exactly one vmalab_watch_state.
        let done = unsafe { ioctl(self.as_fd(), sys::VMALAB_IOC_WATCH_STATE, &mut state) };
        done.map(|_| WatchState {
            hooks: HookSet::from_bits_retain(state.hooks),
            object: state.object,
            recorded: state.recorded,
            lost: state.lost,
            records: state.records,
        })
        .map_err(|errno| Error::new(Action::Watch, errno))
    }

    /// Maps the ring, to read it without system calls. Nobody else should read the events then.
    ///
    /// # Errors
    /// `ENOMEM`, and the others of `mmap(2)`.
    pub fn map(&self) -> Result<MappedWatch, Error> {
        let page = crate::page_size();
        let tail = self.map_part(sys::VMALAB_WATCH_MMAP_TAIL, page, true)?;
        let header = self.map_part(sys::VMALAB_WATCH_MMAP_RING, page, false)?;
        // SAFETY: the page has the structure at its begin; the fields are constant.
        let (records, record_size, data_offset) = unsafe {
            let header = header.addr.cast::<sys::vmalab_ring>().as_ptr();
            (
                (*header).records as usize,
                (*header).record_size as usize,
                (*header).data_offset as usize,
            )
        };
        if !records.is_power_of_two() || record_size < SIZE || record_size % 8 != 0 {
            return Err(Error::new(Action::MapWatch, Errno::EIO));
        }
        let length = (data_offset + records * record_size).next_multiple_of(page);
        let ring = self.map_part(sys::VMALAB_WATCH_MMAP_RING, length, false)?;
        Ok(MappedWatch {
            tail,
            ring,
            records: records as u64,
            words: record_size / 8,
            data_offset,
        })
    }

    fn map_part(&self, offset: u32, length: usize, write: bool) -> Result<Part, Error> {
        let prot = if write {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            libc::PROT_READ
        };
        // SAFETY: it is mapped where nothing is.
        let addr = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                prot,
                libc::MAP_SHARED,
                self.fd.as_raw_fd(),
                offset.into(),
            )
        };
        match NonNull::new(addr.cast::<u8>()) {
            Some(start) if addr != libc::MAP_FAILED => Ok(Part {
                addr: start,
                length,
            }),
            _ => Err(Error::new(Action::MapWatch, Errno::last())),
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for Watch {
    /// Takes the descriptor of a watch that came from elsewhere.
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl From<Watch> for OwnedFd {
    fn from(watch: Watch) -> Self {
        watch.fd
    }
}

/// How a watch is: `struct vmalab_watch_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WatchState {
    /// The hooks that it records.
    pub hooks: HookSet,
    /// The number of the object, by which the tracepoint `vmalab:vmalab_hook` knows it, too.
    pub object: u64,
    /// The records so far.
    pub recorded: u64,
    /// The calls that were not recorded, because there was no room.
    pub lost: u64,
    /// For how many records there is room.
    pub records: u32,
}

/// The events of a watch one by one: see [`Watch::events`].
#[derive(Debug)]
pub struct Events<'a> {
    watch: &'a Watch,
    timeout: Option<Duration>,
    ready: std::vec::IntoIter<Event>,
}

impl Events<'_> {
    /// Ends as well when there was none for so long.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..self
        }
    }
}

impl Iterator for Events<'_> {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.ready.next() {
                return Some(Ok(event));
            }
            let mut events = Vec::new();
            match self.watch.read(&mut events) {
                Ok(None) => return None,
                Ok(Some(0)) => match self.watch.wait(self.timeout) {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(error) => return Some(Err(error)),
                },
                Ok(Some(_)) => self.ready = events.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// A part of the ring, mapped.
#[derive(Debug)]
struct Part {
    addr: NonNull<u8>,
    length: usize,
}

impl Drop for Part {
    fn drop(&mut self) {
        // SAFETY: it was mapped by us, and whoever uses it is gone.
        unsafe { libc::munmap(self.addr.as_ptr().cast(), self.length) };
    }
}

/// The mapped ring of a watch: an iterator over the events that are there, which makes no system
/// call. It ends when there are no more *now*; go on after [`Watch::wait`].
///
/// It stays readable when the [`Watch`] is dropped, which ends the recording.
#[derive(Debug)]
pub struct MappedWatch {
    tail: Part,
    ring: Part,
    records: u64,
    words: usize,
    data_offset: usize,
}

// SAFETY: the mappings belong to no thread.
unsafe impl Send for MappedWatch {}

impl MappedWatch {
    /// The calls that were not recorded, because there was no room.
    pub fn lost(&self) -> u64 {
        self.header(std::mem::offset_of!(sys::vmalab_ring, lost))
            .load(Ordering::Relaxed)
    }

    fn tail(&self) -> &AtomicU64 {
        // SAFETY: the page has the position at its begin, and the kernel reads it as we do.
        unsafe { AtomicU64::from_ptr(self.tail.addr.cast().as_ptr()) }
    }

    fn header(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: it is a word of the structure at the begin of the mapping, which the kernel writes
        // atomically, and which is only loaded here.
        unsafe { AtomicU64::from_ptr(self.ring.addr.byte_add(offset).cast().as_ptr()) }
    }
}

impl Iterator for MappedWatch {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            let head = self
                .header(std::mem::offset_of!(sys::vmalab_ring, head))
                .load(Ordering::Acquire);
            let position = self.tail().load(Ordering::Relaxed);
            if position == head {
                return None;
            }
            let place = (position % self.records) as usize;
            let first = self.data_offset + place * self.words * 8;
            let mut words = [0; SIZE / 8];
            for (nth, word) in words.iter_mut().enumerate() {
                // A record that is being overwritten against the protocol is a mixture, no more.
                *word = self.header(first + nth * 8).load(Ordering::Relaxed);
            }
            self.tail()
                .store(position.wrapping_add(1), Ordering::Release);
            // SAFETY: both are of the same size, and any bytes are a vmalab_event.
            let raw: sys::vmalab_event = unsafe { std::mem::transmute(words) };
            if let Some(event) = Event::from_raw(&raw) {
                return Some(event);
            }
        }
    }
}

/// # Safety
/// `argument` is what `request` reads and writes.
unsafe fn ioctl<T>(fd: BorrowedFd<'_>, request: u32, argument: &mut T) -> Result<i32, Errno> {
    let argument: *mut T = argument;
    // SAFETY: the caller's promise.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), argument) })
}
