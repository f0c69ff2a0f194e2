// SPDX-License-Identifier: GPL-2.0-only

//! Watching an object: a record of each call of a hook, in a ring that user space reads.
//!
//! ```text
//!   Object ──► Watchers ◄── Watch (a descriptor)
//!                 │            │
//!               Slot ──► Reader: the ring, and who waits
//!                              ▲
//!                            areas that map the ring
//! ```
//!
//! A watch does not keep its object alive, and so not its pages either. Both have [`Watchers`], which
//! knows the rings. When the object goes, the watches are told: their readers come to an end.
//!
//! # Locks
//!
//! Calls come from several processors at once, also from where the kernel must not sleep (`map_pages`
//! runs under RCU), but never from an interrupt. So there is one spinlock for all rings of an object,
//! [`Watchers::slots`], held for the time of a few hundred instructions: that is what keeps
//! `sequence` without gaps and `time` from going back. A ring for each processor would need no
//! lock, but somebody would have to merge them, and a reader of the mapped memory could not.
//!
//! It is taken inside of all locks that the kernel holds around a hook (the mmap lock, that of an area, RCU);
//! inside of it are only those of wait queues, which are taken to wake readers. User memory
//! is not touched under it: a reader may read into the very object that it watches, and its own page
//! fault is recorded then.
//!
//! While nobody watches, a call of a hook costs one relaxed load and a branch. A reader that watches
//! a hook may miss a call that began before it did so, and no other.

use crate::{
    anon_file::{self, AnonFile},
    hook::{Call, Hook},
    ioctl::{Argument, Versioned},
    ring::Ring,
    task,
    uapi::*,
    vm_ops::{self, vm_operations_table, Fault, VmFault, VmOperations},
};
use kernel::{
    bindings,
    fs::{
        file::{flags, FileDescriptorReservation},
        File,
    },
    mm::virt::{flags as vm_flags, VmaNew},
    new_poll_condvar, new_spinlock,
    page::PAGE_SIZE,
    pid_namespace::PidNamespace,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        poll::{PollCondVar, PollTable},
        Arc, SpinLock,
    },
    time::{ClockSource, Monotonic},
    uaccess::UserSliceWriter,
};
use zerocopy::FromZeros;

/// A record, in words.
const WORDS: usize = size_of::<vmalab_event>() / size_of::<u64>();

/// Those who watch an object.
#[pin_data]
pub(crate) struct Watchers {
    /// The number of the object: see [`vmalab_watch_state`].
    object: u64,
    /// The hooks that somebody watches, as a mask. It is looked at before the lock is taken, and orders
    /// nothing.
    wanted: Atomic<u32>,
    #[pin]
    slots: SpinLock<Slots>,
}

/// The rings, and the writer's side of each.
struct Slots {
    /// The object is gone.
    over: bool,
    slots: KVec<Slot>,
}

/// The writer's side of a ring.
struct Slot {
    reader: Arc<Reader>,
    /// The hooks that it wants, as a mask.
    hooks: u32,
    /// How many records were written. What user space sees of it is a copy.
    head: u64,
    /// How many were not.
    lost: u64,
    /// Somebody is copying records out, between the tail and the head.
    reading: bool,
    /// Somebody has waited, or polled, and may still.
    awaited: bool,
}

/// A ring, and those who wait for it.
#[pin_data]
struct Reader {
    ring: Ring<WORDS>,
    /// In which the numbers of processes and threads are told.
    pid_ns: ARef<PidNamespace>,
    #[pin]
    waiting: PollCondVar,
}

impl Watchers {
    /// Nobody, yet. `object` is the number of the object.
    pub(crate) fn new(object: u64) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                object,
                wanted: Atomic::new(0),
                slots <- new_spinlock!(Slots {
                    over: false,
                    slots: KVec::new(),
                }),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Whether somebody watches a hook.
    #[inline]
    pub(crate) fn want(&self, hook: Hook) -> bool {
        self.wanted.load(Relaxed) & 1 << hook as u32 != 0
    }

    /// Records a call for all who want it. What belongs to a record alone is filled in.
    pub(crate) fn record(&self, event: &mut vmalab_event) {
        let mut slots = self.slots.lock();
        // Under the lock, so that it goes up with the sequence.
        event.time = Monotonic::ktime_get() as u64;
        for slot in slots.slots.iter_mut() {
            if slot.hooks & 1 << event.hook != 0 {
                slot.record(event);
            }
        }
    }

    /// The object is gone: there will be no more calls.
    pub(crate) fn finish(&self) {
        let mut slots = self.slots.lock();
        slots.over = true;
        for slot in slots.slots.iter() {
            slot.reader.waiting.notify_all();
        }
    }

    fn add(&self, reader: Arc<Reader>, hooks: u32) -> Result {
        // Allocated by the first, for all.
        let mut room = KVec::with_capacity(VMALAB_MAX_WATCHES as usize, GFP_KERNEL_ACCOUNT)?;
        let mut slots = self.slots.lock();
        if slots.slots.capacity() == 0 {
            core::mem::swap(&mut slots.slots, &mut room);
        }
        if slots.slots.len() >= VMALAB_MAX_WATCHES as usize {
            return Err(EBUSY);
        }
        let slot = Slot {
            reader,
            hooks,
            head: 0,
            lost: 0,
            reading: false,
            awaited: false,
        };
        slots.slots.push_within_capacity(slot).map_err(|_| EBUSY)?;
        self.wanted.store(slots.wanted(), Relaxed);
        Ok(())
    }

    fn remove(&self, reader: &Arc<Reader>) {
        let mut slots = self.slots.lock();
        // The caller has another reference: none is dropped here for the last time.
        slots
            .slots
            .retain(|slot| !Arc::ptr_eq(&slot.reader, reader));
        self.wanted.store(slots.wanted(), Relaxed);
    }
}

impl Slots {
    fn wanted(&self) -> u32 {
        self.slots.iter().fold(0, |hooks, slot| hooks | slot.hooks)
    }

    /// The slot of a reader, which is there as long as its descriptor is open.
    fn of(&mut self, reader: &Arc<Reader>) -> Result<&mut Slot> {
        self.slots
            .iter_mut()
            .find(|slot| Arc::ptr_eq(&slot.reader, reader))
            .ok_or(EBADF)
    }
}

impl Slot {
    fn record(&mut self, event: &mut vmalab_event) {
        let ring = &self.reader.ring;
        // A tail that is not between the two makes this larger than the ring.
        if self.head.wrapping_sub(ring.tail()) >= ring.records() {
            self.lost += 1;
            ring.publish_lost(self.lost);
            return;
        }
        (event.pid, event.tid) = task::current_ids_in(&self.reader.pid_ns);
        event.sequence = self.head + self.lost;
        ring.write(self.head, zerocopy::transmute_ref!(event));
        self.head += 1;
        ring.publish(self.head);
        if self.awaited {
            self.reader.waiting.notify_all();
        }
    }

    /// The tail, and how many records there are from there on.
    ///
    /// # Errors
    ///
    /// EIO if user space has put something there that cannot be.
    fn unread(&self) -> Result<(u64, u64)> {
        let ring = &self.reader.ring;
        let tail = ring.tail();
        let unread = self.head.wrapping_sub(tail);
        if unread > ring.records() {
            return Err(EIO);
        }
        Ok((tail, unread))
    }
}

/// The descriptor of a watch.
pub(crate) struct Watch {
    reader: Arc<Reader>,
    watchers: Arc<Watchers>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watchers.remove(&self.reader);
    }
}

impl Versioned for vmalab_watch {}
impl Versioned for vmalab_watch_state {}

/// `VMALAB_IOC_WATCH`: the number of a new descriptor.
pub(crate) fn open(watchers: &Arc<Watchers>, wanted: &vmalab_watch) -> Result<isize> {
    let hooks = check_hooks(wanted.hooks)?;
    if wanted.flags & !VMALAB_WATCH_NONBLOCK != 0
        || !wanted.records.is_power_of_two()
        || wanted.records > VMALAB_WATCH_MAX_RECORDS
    {
        return Err(EINVAL);
    }
    let nonblock = match wanted.flags & VMALAB_WATCH_NONBLOCK {
        0 => 0,
        _ => flags::O_NONBLOCK,
    };
    let fd = FileDescriptorReservation::get_unused_fd_flags(flags::O_CLOEXEC)?;
    let pid_ns = current!().active_pid_ns().ok_or(ESRCH)?.into();
    let reader = Arc::pin_init(
        try_pin_init!(Reader {
            ring: Ring::new(wanted.records as usize)?,
            pid_ns,
            waiting <- new_poll_condvar!("vmalab_watch"),
        }),
        GFP_KERNEL_ACCOUNT,
    )?;
    watchers.add(reader.clone(), hooks)?;
    let watch = Watch {
        reader,
        watchers: watchers.clone(),
    };
    // From here on, whatever fails drops it, which takes it off the list.
    let watch = KBox::new(watch, GFP_KERNEL_ACCOUNT)?;
    let file = anon_file::create::<Watch>(watch, flags::O_RDWR | nonblock)?;
    let number = fd.reserved_fd();
    fd.fd_install(file);
    Ok(number as isize)
}

/// The mask of hooks, if there are such hooks.
fn check_hooks(hooks: u64) -> Result<u32> {
    if hooks >> VMALAB_NR_HOOKS != 0 {
        return Err(EINVAL);
    }
    Ok(hooks as u32)
}

impl AnonFile for Watch {
    const NAME: &'static CStr = c"[vmalab-watch]";

    fn read(&self, file: &File, mut to: UserSliceWriter) -> Result<usize> {
        let room = to.len() / size_of::<vmalab_event>();
        if room == 0 {
            return Err(EINVAL);
        }
        let (tail, unread) = self.begin(file.flags() & flags::O_NONBLOCK != 0)?;
        let wanted = unread.min(room as u64);
        let mut done = 0;
        let mut result = Ok(());
        while done < wanted && result.is_ok() {
            let record = self.reader.ring.read(tail.wrapping_add(done));
            result = to.write_slice(record.as_bytes());
            done += u64::from(result.is_ok());
        }
        if unread > 0 {
            self.end(tail.wrapping_add(done));
        }
        match result {
            Err(error) if done == 0 => Err(error),
            _ => Ok(done as usize * size_of::<vmalab_event>()),
        }
    }

    fn poll(&self, file: &File, table: PollTable<'_>) -> u32 {
        // Before it is looked at, so that nothing can come in between.
        table.register_wait(file, &self.reader.waiting);
        let mut slots = self.watchers.slots.lock();
        let over = slots.over;
        let Ok(slot) = slots.of(&self.reader) else {
            return bindings::POLLERR;
        };
        slot.awaited = true;
        let mut ready = match slot.unread() {
            Ok((_, 0)) => 0,
            Ok(_) => bindings::POLLIN | bindings::POLLRDNORM,
            Err(_) => bindings::POLLERR,
        };
        if over {
            ready |= bindings::POLLHUP;
        }
        ready
    }

    fn mmap(&self, vma: &VmaNew) -> Result {
        let first = vm_ops::index(vma);
        let pages = (vma.end() - vma.start()) / PAGE_SIZE;
        let end = first.checked_add(pages).ok_or(EINVAL)?;
        if end > self.reader.ring.size() / PAGE_SIZE || vma.flags() & vm_flags::SHARED == 0 {
            return Err(EINVAL);
        }
        // Only the page of the tail is the reader's to write to.
        if end * PAGE_SIZE > VMALAB_WATCH_MMAP_RING as usize {
            vma.try_clear_maywrite().map_err(|_| EACCES)?;
        }
        vma.set_dontexpand();
        vma.set_dontdump();
        vm_ops::install::<RingAreas>(vma, self.reader.clone());
        Ok(())
    }

    fn ioctl(&self, cmd: u32, arg: usize) -> Result<isize> {
        let argument = Argument::new(cmd, arg);
        if argument.is(VMALAB_IOC_WATCH_SET) {
            let wanted = argument.read::<vmalab_hooks>()?;
            if wanted.reserved != 0 {
                return Err(EINVAL);
            }
            let hooks = check_hooks(wanted.hooks)?;
            let mut slots = self.watchers.slots.lock();
            slots.of(&self.reader)?.hooks = hooks;
            self.watchers.wanted.store(slots.wanted(), Relaxed);
            Ok(0)
        } else if argument.is(VMALAB_IOC_WATCH_STATE) {
            argument.read::<vmalab_watch_state>()?;
            let state = {
                let mut slots = self.watchers.slots.lock();
                let slot = slots.of(&self.reader)?;
                vmalab_watch_state {
                    hooks: slot.hooks.into(),
                    object: self.watchers.object,
                    recorded: slot.head,
                    lost: slot.lost,
                    records: self.reader.ring.records() as u32,
                    record_size: size_of::<vmalab_event>() as u32,
                }
            };
            argument.write(&state)
        } else {
            Err(ENOTTY)
        }
    }
}

impl Watch {
    /// Waits for records, and makes the caller the only one who reads: the tail, and how many records
    /// there are. None means that there never will be, and then there is no [`end`](Self::end).
    fn begin(&self, nonblock: bool) -> Result<(u64, u64)> {
        let mut slots = self.watchers.slots.lock();
        loop {
            let over = slots.over;
            let slot = slots.of(&self.reader)?;
            if !slot.reading {
                let (tail, unread) = slot.unread()?;
                if unread > 0 {
                    slot.reading = true;
                }
                if unread > 0 || over {
                    return Ok((tail, unread));
                }
            }
            if nonblock {
                return Err(EAGAIN);
            }
            slot.awaited = true;
            if self.reader.waiting.wait_interruptible(&mut slots) {
                return Err(ERESTARTSYS);
            }
        }
    }

    /// Has read all before `tail`.
    fn end(&self, tail: u64) {
        let mut slots = self.watchers.slots.lock();
        self.reader.ring.set_tail(tail);
        if let Ok(slot) = slots.of(&self.reader) {
            slot.reading = false;
        }
        self.reader.waiting.notify_all();
    }
}

/// The areas that map a ring.
struct RingAreas;

vm_operations_table!(RingAreas);

#[vtable]
impl VmOperations for RingAreas {
    type Data = Arc<Reader>;

    fn fault(fault: Fault<'_, Self>) -> VmFault {
        match fault.area().data().ring.page(fault.index()) {
            Some(page) => fault.give(page),
            None => VmFault::SIGBUS,
        }
    }
}

impl Call {
    /// The call and its result, as user space is told of it; without what belongs to a record alone.
    pub(crate) fn event(&self, result: i32) -> vmalab_event {
        vmalab_event {
            hook: self.hook as u32,
            result,
            start: self.range.start as u64,
            end: self.range.end as u64,
            offset: (self.index as u64).wrapping_mul(PAGE_SIZE as u64),
            flags: self.flags as u64,
            argument: self.argument,
            ..vmalab_event::new_zeroed()
        }
    }
}
