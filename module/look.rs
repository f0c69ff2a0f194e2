// SPDX-License-Identifier: GPL-2.0-only

//! Looking: what areas the calling process has, and what munmap would do to them.
//!
//! Both readings go the same way. The records are collected in the kernel's own memory, while the
//! address space is locked; only afterwards are they copied to user space, since a fault there would
//! wait for that lock. How many there are is known only under it, and nothing is allocated under it: so
//! if there were more than expected, it is done again with more room.
//!
//! What munmap would do is decided by the first half of the model's munmap, the very file that the
//! predictions in user space are made with (`model/src/gather.rs`).
//!
//! Lock order: see `areas.rs`. Nothing here holds another lock.

use crate::{
    area,
    areas::{self, AddressSpace, AnyArea, Class, Identity},
    hook::Hook,
    ioctl::{Argument, Versioned},
    object::Object,
    uapi::*,
};
use core::ops::Range;
use kernel::{
    bindings, current,
    fs::File,
    mm::virt::flags,
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    sync::ArcBorrow,
    uaccess::{UserPtr, UserSlice},
};
use zerocopy::{FromZeros, Immutable};

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the model's file, which is public there"
)]
#[path = "../model/src/gather.rs"]
#[rustfmt::skip]
mod gather;

use gather::{Extent, Gather, Refusal, Step, View};

impl Versioned for vmalab_areas {}
impl Versioned for vmalab_unmapping {}

/// A structure of which the caller has an array; its versions differ as those of [`Versioned`].
trait Element: IntoBytes + Immutable + Sized {
    /// The size of the first version, in bytes.
    const FIRST: usize = size_of::<Self>();
}

impl Element for vmalab_area {}
impl Element for vmalab_step {}

/// The caller's array.
struct Array {
    address: usize,
    capacity: usize,
    stride: usize,
}

impl Array {
    /// # Errors
    ///
    /// EINVAL if there are elements, and they are of no size that `T` can have.
    fn of<T: Element>(address: u64, capacity: u32, stride: u32) -> Result<Self> {
        let stride = stride as usize;
        if capacity > 0 && (stride < T::FIRST || stride > PAGE_SIZE || stride % 8 != 0) {
            return Err(EINVAL);
        }
        Ok(Self {
            address: address.try_into().map_err(|_| EFAULT)?,
            capacity: capacity.min(VMALAB_MAX_RECORDS) as usize,
            stride,
        })
    }

    /// Writes as many elements as there are, which must be no more than the capacity.
    ///
    /// # Errors
    ///
    /// EFAULT, ENOMEM.
    fn write<T: Element>(&self, elements: impl ExactSizeIterator<Item = T>) -> Result {
        let known = self.stride.min(size_of::<T>());
        // At most 2^20 elements of at most a page.
        let bytes = elements.len() * self.stride;
        let mut writer = UserSlice::new(UserPtr::from_addr(self.address), bytes).writer();
        // A page of them at a time, which is many.
        let mut buffer = KVec::with_capacity(PAGE_SIZE, GFP_KERNEL)?;
        for element in elements {
            if buffer.len() + self.stride > PAGE_SIZE {
                writer.write_slice(&buffer)?;
                buffer.clear();
            }
            buffer.extend_from_slice(&element.as_bytes()[..known], GFP_KERNEL)?;
            // What this module does not know is zero.
            buffer.extend_with(self.stride - known, 0, GFP_KERNEL)?;
        }
        writer.write_slice(&buffer)
    }
}

/// Records of one reading, and how many there would have been with enough room.
struct Records<T> {
    kept: KVVec<T>,
    count: usize,
}

impl<T> Records<T> {
    /// Takes a reading of the running task's address space, of as many records as fit into `capacity`.
    ///
    /// # Errors
    ///
    /// ESRCH if the task has no address space, ENOMEM, EINTR.
    fn read<R>(
        capacity: usize,
        mut read: impl FnMut(&AddressSpace<'_>, &mut Self) -> R,
    ) -> Result<(Self, R)> {
        let task = current!();
        let mm = task.mm().ok_or(ESRCH)?;
        let mut room = 0;
        loop {
            let mut records = Self {
                kept: KVVec::with_capacity(room, GFP_KERNEL_ACCOUNT)?,
                count: 0,
            };
            let result = {
                let space = AddressSpace::lock(mm)?;
                read(&space, &mut records)
            };
            if records.count.min(capacity) <= room {
                records.kept.truncate(capacity);
                return Ok((records, result));
            }
            // Some more, in case that others are mapping.
            room = (records.count + records.count / 8).min(capacity);
        }
    }

    /// One record more; it is only counted if there is no room.
    fn push(&mut self, record: impl FnOnce() -> T) {
        self.count += 1;
        if self.kept.len() < self.kept.capacity() {
            // There is room, and nothing is allocated here.
            let _ = self.kept.push_within_capacity(record());
        }
    }
}

/// Small numbers for so many identities: from 1 on, in the order in which they appear; 0 for none.
fn numbers(count: usize, identities: impl Iterator<Item = Option<Identity>>) -> Result<KVVec<u32>> {
    let mut all = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
    let mut order = KVVec::new();
    let mut numbers = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
    for (index, identity) in identities.enumerate() {
        all.push(identity, GFP_KERNEL_ACCOUNT)?;
        numbers.push(0, GFP_KERNEL_ACCOUNT)?;
        if identity.is_some() {
            order.push(index as u32, GFP_KERNEL_ACCOUNT)?;
        }
    }

    // Equal ones side by side, of which the one that appears first is the first.
    order.sort_unstable_by_key(|&index: &u32| (all[index as usize], index));
    for run in order.chunk_by(|&a, &b| all[a as usize] == all[b as usize]) {
        for &index in run {
            numbers[index as usize] = run[0];
        }
    }
    let mut last = 0;
    for index in (0..all.len()).filter(|&index| all[index].is_some()) {
        let first = numbers[index] as usize;
        numbers[index] = if first == index {
            last += 1;
            last
        } else {
            // It has its number already.
            numbers[first]
        };
    }
    Ok(numbers)
}

/// The mask of hooks that an area has.
fn hooks(area: AnyArea<'_>) -> u64 {
    area.operations().map_or(0, |ops| {
        Hook::ALL
            .iter()
            .filter(|(hook, _)| hook.is_in(ops))
            .fold(0, |mask, (hook, _)| mask | 1 << *hook as u32)
    })
}

impl Hook {
    /// Whether a table has it.
    fn is_in(self, ops: &bindings::vm_operations_struct) -> bool {
        match self {
            // The mmap handler is in another table.
            Self::Mmap => false,
            Self::Open => ops.open.is_some(),
            Self::Close => ops.close.is_some(),
            Self::Mapped => ops.mapped.is_some(),
            Self::MaySplit => ops.may_split.is_some(),
            Self::Mremap => ops.mremap.is_some(),
            Self::Mprotect => ops.mprotect.is_some(),
            Self::Fault => ops.fault.is_some(),
            Self::HugeFault => ops.huge_fault.is_some(),
            Self::MapPages => ops.map_pages.is_some(),
            Self::PageMkwrite => ops.page_mkwrite.is_some(),
            Self::PfnMkwrite => ops.pfn_mkwrite.is_some(),
        }
    }
}

/// Which of our objects an area maps.
fn object_identity(area: AnyArea<'_>) -> Option<Identity> {
    // Most areas are of nobody.
    area.operations()?;
    area::object(area.vma()).map(|object| Identity::of_ref(&*object))
}

/// An area, but for the numbers that are given out afterwards.
struct Seen {
    area: vmalab_area,
    anon_vma: Option<Identity>,
    anon_root: Option<Identity>,
    file: Option<Identity>,
    object: Option<Identity>,
}

impl Seen {
    fn new(area: AnyArea<'_>) -> Self {
        let (anon_vma, forked) = area.anon_vma();
        let file = area.file();
        let (dev_major, dev_minor) = file.as_ref().map_or((0, 0), |file| file.device);
        let mut is = 0;
        for (yes, flag) in [
            (area.operations().is_some(), VMALAB_AREA_HAS_OPS),
            (area.is_sealed(), VMALAB_AREA_IS_SEALED),
            (forked, VMALAB_AREA_IS_FORKED),
            (area.is_watched(), VMALAB_AREA_IS_WATCHED),
        ] {
            if yes {
                is |= flag;
            }
        }
        Self {
            area: vmalab_area {
                start: area.start() as u64,
                end: area.end() as u64,
                flags: area.flags() as u64,
                pgoff: area.index() as u64,
                ino: file.as_ref().map_or(0, |file| file.inode),
                hooks: hooks(area),
                dev_major,
                dev_minor,
                is,
                ..vmalab_area::new_zeroed()
            },
            anon_vma: anon_vma.as_ref().map(|anon_vma| anon_vma.own),
            anon_root: anon_vma.as_ref().map(|anon_vma| anon_vma.root),
            file: file.as_ref().map(|file| file.identity),
            object: object_identity(area),
        }
    }
}

/// An address from user space. One that does not fit is not mapped, as the highest is not.
fn address(addr: u64) -> usize {
    usize::try_from(addr).unwrap_or(usize::MAX)
}

/// `VMALAB_IOC_AREAS`.
pub(crate) fn areas(
    object: ArcBorrow<'_, Object>,
    _file: &File,
    argument: &Argument,
) -> Result<isize> {
    let mut request = argument.read::<vmalab_areas>()?;
    if request.reserved != 0 || request.end < request.start {
        return Err(EINVAL);
    }
    let array = Array::of::<vmalab_area>(request.areas, request.capacity, request.area_size)?;
    let range = address(request.start)..address(request.end);

    let (seen, counters) = Records::read(array.capacity, |space, records| {
        for area in space.areas(range.clone()) {
            records.push(|| Seen::new(area));
        }
        space.counters()
    })?;

    let kept = &seen.kept;
    let anon = numbers(
        2 * kept.len(),
        kept.iter().flat_map(|seen| [seen.anon_vma, seen.anon_root]),
    )?;
    let files = numbers(kept.len(), kept.iter().map(|seen| seen.file))?;
    let objects = object_numbers(&object, kept.len(), kept.iter().map(|seen| seen.object))?;
    array.write(kept.iter().enumerate().map(|(index, seen)| vmalab_area {
        anon_vma: anon[2 * index],
        anon_root: anon[2 * index + 1],
        file: files[index],
        object: objects[index + 1],
        ..seen.area
    }))?;

    request.filled = kept.len() as u32;
    request.count = seen.count as u64;
    request.map_count = counters.map_count as u64;
    request.total_vm = counters.total_vm as u64;
    request.locked_vm = counters.locked_vm as u64;
    request.pinned_vm = counters.pinned_vm as u64;
    request.data_vm = counters.data_vm as u64;
    request.exec_vm = counters.exec_vm as u64;
    request.stack_vm = counters.stack_vm as u64;
    request.hiwater_vm = counters.hiwater_vm as u64;
    request.def_flags = counters.def_flags as u64;
    request.task_size = counters.task_size as u64;
    request.mmap_base = counters.mmap_base as u64;
    request.start_brk = counters.start_brk as u64;
    request.brk = counters.brk as u64;
    request.start_stack = counters.start_stack as u64;
    argument.write(&request)
}

/// The numbers of objects, with that of `own` first, which is 1.
fn object_numbers(
    own: &Object,
    count: usize,
    objects: impl Iterator<Item = Option<Identity>>,
) -> Result<KVVec<u32>> {
    let own = Some(Identity::of_ref(own));
    numbers(count + 1, Iterator::chain(core::iter::once(own), objects))
}

/// What the first half of munmap sees.
impl View for AddressSpace<'_> {
    fn find(&self, addr: u64) -> Option<Extent> {
        let area = AddressSpace::find(self, addr as usize)?;
        Some(Extent {
            start: area.start() as u64,
            end: area.end() as u64,
            sealed: area.is_sealed(),
            locked: area.is_locked(),
            watched: area.is_watched(),
        })
    }

    fn map_count(&self) -> u64 {
        AddressSpace::map_count(self) as u64
    }
}

/// A step, but for the number that is given out afterwards.
struct Taken {
    step: vmalab_step,
    object: Option<Identity>,
}

impl Taken {
    /// A step about a range.
    fn range(kind: vmalab_step_kind, range: &Range<usize>) -> Self {
        Self {
            step: vmalab_step {
                kind,
                start: range.start as u64,
                end: range.end as u64,
                ..vmalab_step::new_zeroed()
            },
            object: None,
        }
    }
}

/// A part of an area: what splits leave of it.
#[derive(Clone, Copy)]
struct Piece<'a> {
    area: AnyArea<'a>,
    start: usize,
    end: usize,
}

impl<'a> Piece<'a> {
    /// What lies in a range.
    fn of(area: AnyArea<'a>, range: Range<usize>) -> Self {
        Self {
            area,
            start: area.start().max(range.start),
            end: area.end().min(range.end),
        }
    }

    fn pages(self) -> i64 {
        ((self.end - self.start) >> PAGE_SHIFT) as i64
    }

    /// A step about it.
    fn step(self, kind: vmalab_step_kind) -> Taken {
        let mut taken = Taken::range(kind, &(self.start..self.end));
        let index = self.area.index() + ((self.start - self.area.start()) >> PAGE_SHIFT);
        taken.step.pgoff = index as u64;
        taken.object = object_identity(self.area);
        taken
    }

    /// The call of a hook about it, if the area has that hook.
    fn call(self, hook: Hook) -> Option<Taken> {
        let ops = self.area.operations()?;
        hook.is_in(ops).then(|| {
            let mut call = self.step(VMALAB_STEP_HOOK);
            call.step.hook = hook as u32;
            call
        })
    }
}

/// munmap, as far as it goes without doing it.
struct Unmapping<'a> {
    space: &'a AddressSpace<'a>,
    steps: &'a mut Records<Taken>,
    /// How many areas were cut in two.
    splits: i64,
    /// What goes away.
    change: Change,
}

/// By how much the counters change.
#[derive(Default)]
struct Change {
    map_count: i64,
    total_vm: i64,
    locked_vm: i64,
    data_vm: i64,
    exec_vm: i64,
    stack_vm: i64,
    accounted: i64,
}

impl<'a> Unmapping<'a> {
    /// Takes all steps; the error is that of munmap (`do_vmi_munmap`).
    fn run(&mut self, addr: usize, len: u64, max_map_count: u64) -> Result {
        let addr = self.space.untagged(addr) as u64;
        let (start, end) = gather::range(addr, len, areas::task_size() as u64, PAGE_SIZE as u64)?;
        let mut gather = Gather::new(start, end, max_map_count);
        while let Some(step) = gather.next(self.space) {
            self.step(step)?;
        }
        if self.change.total_vm == 0 {
            return Ok(());
        }

        // Of what was detached the pages go first, then one area after the other.
        let range = start as usize..end as usize;
        self.steps.push(|| Taken::range(VMALAB_STEP_CLEAR, &range));
        for area in self.space.areas(range.clone()) {
            self.call(Piece::of(area, range.clone()), Hook::Close);
        }
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result {
        match step {
            Step::Refuse { area, why } => {
                let mut last = self
                    .piece(area, u64::MAX)
                    .map(|piece| piece.step(VMALAB_STEP_REFUSE))?;
                let error = Error::from(why);
                last.step.error = number(error);
                self.steps.push(|| last);
                return Err(error);
            }
            Step::Split {
                area,
                at,
                new_below,
            } => {
                let whole = self.piece(area, u64::MAX)?;
                self.split(whole, at as usize, new_below)?;
            }
            Step::Detach { start, end } => {
                let piece = self.piece(start, end)?;
                self.steps.push(|| piece.step(VMALAB_STEP_DETACH));
                self.change.map_count -= 1;
                self.change.total_vm -= piece.pages();
                match piece.area.class() {
                    Class::Plain => {}
                    Class::Exec => self.change.exec_vm -= piece.pages(),
                    Class::Stack => self.change.stack_vm -= piece.pages(),
                    Class::Data => self.change.data_vm -= piece.pages(),
                }
                if piece.area.flags() & flags::ACCOUNT != 0 {
                    self.change.accounted -= piece.pages();
                }
            }
            Step::Unlock { start, end } => {
                let piece = self.piece(start, end)?;
                self.steps.push(|| piece.step(VMALAB_STEP_UNLOCK));
                self.change.locked_vm -= piece.pages();
            }
            Step::Announce { start, end } => {
                let piece = self.piece(start, end)?;
                self.steps.push(|| piece.step(VMALAB_STEP_ANNOUNCE));
            }
        }
        Ok(())
    }

    /// An area is cut in two, unless its driver forbids it (`__split_vma`).
    fn split(&mut self, whole: Piece<'_>, at: usize, new_below: bool) -> Result {
        if let Some(mut call) = whole.call(Hook::MaySplit) {
            let answer = if call.object.is_some() {
                // Ours allows every split, and is not called: a call is counted.
                Ok(())
            } else {
                whole.area.may_split(at)
            };
            call.step.at = at as u64;
            call.step.error = answer.map_or_else(number, |()| 0);
            self.steps.push(|| call);
            answer?;
        }
        self.steps.push(|| {
            let mut split = whole.step(VMALAB_STEP_SPLIT);
            split.step.at = at as u64;
            split.step.new_below = new_below.into();
            split
        });
        let new = if new_below {
            Piece { end: at, ..whole }
        } else {
            Piece { start: at, ..whole }
        };
        self.call(new, Hook::Open);
        self.splits += 1;
        Ok(())
    }

    /// A hook is called, if the area has it.
    fn call(&mut self, piece: Piece<'_>, hook: Hook) {
        if let Some(call) = piece.call(hook) {
            self.steps.push(|| call);
        }
    }

    /// The piece of an area that a step is about.
    fn piece(&self, start: u64, end: u64) -> Result<Piece<'a>> {
        let space: &'a AddressSpace<'a> = self.space;
        let range = start as usize..end as usize;
        // The step comes from this very area.
        let area = AddressSpace::find(space, range.start).ok_or(EINVAL)?;
        Ok(Piece::of(area, range))
    }
}

/// The errno of an error, positive.
fn number(error: Error) -> u32 {
    error.to_errno().unsigned_abs()
}

impl From<Refusal> for Error {
    fn from(why: Refusal) -> Self {
        match why {
            Refusal::Range => EINVAL,
            Refusal::Limit => ENOMEM,
            Refusal::Sealed => EPERM,
        }
    }
}

/// `VMALAB_IOC_WOULD_UNMAP`.
pub(crate) fn unmap(
    object: ArcBorrow<'_, Object>,
    _file: &File,
    argument: &Argument,
) -> Result<isize> {
    let mut request = argument.read::<vmalab_unmapping>()?;
    let array = Array::of::<vmalab_step>(request.steps, request.capacity, request.step_size)?;

    let (steps, (result, change)) = Records::read(array.capacity, |space, steps| {
        let mut unmapping = Unmapping {
            space,
            steps,
            splits: 0,
            change: Change::default(),
        };
        let result = unmapping.run(address(request.addr), request.len, request.max_map_count);
        if result.is_err() {
            // What was detached is attached again. The splits stay.
            unmapping.change = Change::default();
        }
        unmapping.change.map_count += unmapping.splits;
        (result, unmapping.change)
    })?;

    let kept = &steps.kept;
    let objects = object_numbers(&object, kept.len(), kept.iter().map(|taken| taken.object))?;
    array.write(kept.iter().enumerate().map(|(index, taken)| vmalab_step {
        object: objects[index + 1],
        ..taken.step
    }))?;

    request.filled = kept.len() as u32;
    request.count = steps.count as u64;
    request.error = result.map_or_else(number, |()| 0);
    request.map_count = change.map_count;
    request.total_vm = change.total_vm;
    request.locked_vm = change.locked_vm;
    request.data_vm = change.data_vm;
    request.exec_vm = change.exec_vm;
    request.stack_vm = change.stack_vm;
    request.accounted = change.accounted;
    argument.write(&request)
}
