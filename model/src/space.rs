// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`AddressSpace`]: the model of one process's memory (`struct mm_struct`).
//!
//! The areas are in a maple tree since 6.1 (`mm->mm_mt`); until 6.0 in a list (`mm->mmap`) and a red-black tree
//! (`mm->mm_rb`).

use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::ops::Range;

use crate::allocation::Failing;
use crate::container::BTree;
use crate::file::File;
use crate::guards::Guards;
use crate::pkeys::Keys;
use crate::rules::StackGuard;
use crate::shmem::Objects;
use crate::userfaultfd::Pending;
use crate::{
    Area, Break, Container, Counters, Errno, FileId, Hook, HookCall, Limits, MdweFlags, Object, Op,
    Outcome, PAGE_SIZE, Rules, Signal, UffdEvent, VmFlags, Vma,
};

/// The address space of a process, and what operations do to it by the rules of an era.
///
/// ```
/// use vmalab_model::{AddressSpace, Backing, Limits, MapFlags, Mmap, Op, Prot, Rules};
///
/// let mut space: AddressSpace = AddressSpace::new(Rules::V7_2, Limits::default());
/// // Eight pages of memory, then a hole in their middle.
/// let outcome = space.apply(&Op::Mmap(Mmap {
///     addr: 0x10000,
///     len: 0x8000,
///     prot: Prot::READ | Prot::WRITE,
///     flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED,
///     backing: Backing::None,
///     offset: 0,
/// }));
/// assert_eq!(outcome.result, Ok(0x10000));
///
/// let outcome = space.apply(&Op::Munmap { addr: 0x13000, len: 0x2000 });
/// assert_eq!(outcome.result, Ok(0));
/// let left: Vec<_> = outcome.layout.iter().map(|area| area.start..area.end).collect();
/// assert_eq!(left, [0x10000..0x13000, 0x15000..0x18000]);
/// assert_eq!(outcome.counters.total_vm, 6);
/// ```
#[derive(Clone, Debug)]
pub struct AddressSpace<C: Container = BTree> {
    pub(crate) rules: Rules,
    pub(crate) limits: Limits,
    pub(crate) areas: C,
    pub(crate) files: Vec<File>,
    pub(crate) counters: Counters,
    /// The calls of the operation that is under way, or was the last.
    pub(crate) hooks: Vec<HookCall>,
    /// Flags of all areas to come (`mm->def_flags`).
    pub(crate) def_flags: VmFlags,
    pub(crate) mdwe: MdweFlags,
    pub(crate) keys: Keys,
    pub(crate) heap: Break,
    pub(crate) last_anon_vma: NonZeroU32,
    /// Where a search for an address began last (`free_area_cache`).
    pub(crate) last_search: u64,
    /// Shared anonymous objects.
    pub(crate) shmem: Objects,
    /// The most pages that there were before some went (`mm->hiwater_vm`).
    pub(crate) peak_vm: u64,
    /// Pages that have been promised.
    pub(crate) committed: u64,
    /// Of these, what the parents have, which live on.
    pub(crate) committed_of_parents: u64,
    /// And what nobody will ever give back.
    pub(crate) lost_charge: u64,
    /// The last merge of an area was refused when the kernel's iterator had already gone back to the area
    /// before it.
    pub(crate) went_back: bool,
    /// Pages whose touch is refused.
    pub(crate) guards: Guards,
    /// What it discarded.
    pub(crate) discarded: Vec<Range<u64>>,
    /// What the last touch would have raised.
    pub(crate) signal: Option<Signal>,
    pub(crate) uffd: Pending,
    pub(crate) uffd_events: Vec<UffdEvent>,
    pub(crate) failing: Option<Failing>,
}

/// Why an area could not be put where a process had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// It is empty, not page-aligned or beyond the address space.
    BadRange,
    /// There is an area already.
    Overlap,
    /// It is of a file that was not added.
    NoSuchFile,
}

impl core::fmt::Display for RestoreError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::BadRange => "the area is empty, not page-aligned or beyond the address space",
            Self::Overlap => "there is an area already",
            Self::NoSuchFile => "the area's file was not added",
        })
    }
}

impl core::error::Error for RestoreError {}

impl<C: Container> AddressSpace<C> {
    /// An empty address space.
    pub fn new(rules: Rules, limits: Limits) -> Self {
        Self {
            rules,
            limits,
            areas: C::default(),
            files: Vec::new(),
            counters: Counters::default(),
            hooks: Vec::new(),
            def_flags: VmFlags::empty(),
            mdwe: MdweFlags::empty(),
            keys: Keys::INITIAL,
            heap: Break::default(),
            last_anon_vma: NonZeroU32::MIN,
            last_search: 0,
            shmem: Objects::default(),
            peak_vm: 0,
            committed: 0,
            committed_of_parents: 0,
            lost_charge: 0,
            went_back: false,
            guards: Guards::default(),
            discarded: Vec::new(),
            signal: None,
            uffd: Pending::default(),
            uffd_events: Vec::new(),
            failing: None,
        }
    }

    /// Makes an open file known. The first one is number 0.
    ///
    /// # Panics
    ///
    /// If there are 65,536 already.
    pub fn add_file(&mut self, file: File) -> FileId {
        let id = u16::try_from(self.files.len()).expect("at most 65,536 files");
        self.files.push(file);
        FileId(id)
    }

    /// A file grows or shrinks to so many pages (`ftruncate(2)`).
    ///
    /// # Panics
    ///
    /// If the file was not added.
    pub fn set_file_size(&mut self, id: FileId, pages: u64) {
        self.files[usize::from(id.0)].pages = pages;
    }

    /// How many pages a file holds: a writable mapping of hugetlbfs makes it larger.
    ///
    /// # Panics
    ///
    /// If the file was not added.
    pub fn file_size(&self, id: FileId) -> u64 {
        self.file(id).pages
    }

    /// Puts an area where a real process has it, without any check of limits. `written` says that a
    /// private page of it exists, so that it has an `anon_vma`.
    ///
    /// Of what `/proc` does not tell the caller should know what it can: `MAY*` and `ACCOUNT` decide
    /// about merging.
    pub fn restore(&mut self, area: Area, written: bool) -> Result<(), RestoreError> {
        if area.start >= area.end
            || (area.start | area.end | area.offset) % PAGE_SIZE != 0
            || area.end > self.limits.task_size
        {
            return Err(RestoreError::BadRange);
        }
        if self.is_mapped(area.start, area.end) {
            return Err(RestoreError::Overlap);
        }
        match area.object {
            Object::File(id) if usize::from(id.0) >= self.files.len() => {
                return Err(RestoreError::NoSuchFile);
            }
            Object::Shmem(number) => {
                self.shmem.avoid(number);
            }
            _ => {}
        }
        let pgoff = area.offset >> crate::PAGE_SHIFT;
        let vma = Vma {
            anon_vma: written.then(|| self.new_anon_vma()),
            name: area.name,
            ..Vma::new(area.start..area.end, pgoff, area.flags, area.object)
        };
        self.counters.map_count += 1;
        self.counters
            .add(&self.rules, vma.flags, vma.has_file(), vma.pages());
        if vma.flags.contains(VmFlags::LOCKED) {
            self.counters.locked_vm = self.counters.locked_vm.wrapping_add(vma.pages());
        }
        if vma.flags.contains(VmFlags::ACCOUNT) {
            self.committed += vma.pages();
        }
        self.areas.insert(vma);
        Ok(())
    }

    /// Applies an operation, and gives the whole layout.
    pub fn apply(&mut self, op: &Op) -> Outcome {
        let mut outcome = Outcome::default();
        self.apply_into(op, 0..u64::MAX, &mut outcome);
        outcome
    }

    /// Applies an operation, and gives the areas that touch the window, uncut; of an empty window none.
    /// Re-uses the vectors of the outcome, so that nothing is allocated for it.
    pub fn apply_into(&mut self, op: &Op, window: Range<u64>, outcome: &mut Outcome) {
        outcome.result = self.execute(op);
        outcome.signal = self.signal;
        core::mem::swap(&mut self.hooks, &mut outcome.hooks);
        core::mem::swap(&mut self.uffd_events, &mut outcome.events);
        core::mem::swap(&mut self.discarded, &mut outcome.discarded);
        self.forget_effects();
        outcome.layout.clear();
        if !window.is_empty() {
            outcome.layout.extend(
                self.areas
                    .iter_from(window.start)
                    .take_while(|vma| vma.start < window.end)
                    .map(|vma| self.shown(vma)),
            );
        }
        outcome.counters = self.counters;
        outcome.peak_vm = self.peak_vm();
        outcome.committed = self.committed;
    }

    /// Applies an operation, and gives its value alone. What else there is to know of it can be asked for:
    /// [`hooks`](Self::hooks), [`events`](Self::events), [`discarded`](Self::discarded),
    /// [`counters`](Self::counters), [`areas`](Self::areas). The way to apply very many.
    ///
    /// ```
    /// use vmalab_model::{AddressSpace, Errno, Limits, Op, Rules};
    ///
    /// let mut space: AddressSpace = AddressSpace::new(Rules::V7_2, Limits::default());
    /// let refused = space.execute(&Op::Munmap { addr: 0x1234, len: 0x1000 });
    /// assert_eq!(refused, Err(Errno::EINVAL));
    /// assert!(space.hooks().is_empty() && space.discarded().is_empty());
    /// ```
    ///
    /// # Errors
    ///
    /// What the system call answers.
    pub fn execute(&mut self, op: &Op) -> Result<u64, Errno> {
        self.forget_effects();
        let result = self.call_system(op);
        self.uffd_complete(result.is_ok());
        result
    }

    fn forget_effects(&mut self) {
        self.signal = None;
        self.hooks.clear();
        self.uffd_events.clear();
        self.discarded.clear();
    }

    /// The hook calls of the last [`execute`](Self::execute), as [`Outcome::hooks`].
    pub fn hooks(&self) -> &[HookCall] {
        &self.hooks
    }

    /// The signal that the last [`execute`](Self::execute) would have raised, as [`Outcome::signal`].
    pub fn signal(&self) -> Option<Signal> {
        self.signal
    }

    /// What a userfaultfd is told of the last [`execute`](Self::execute), as [`Outcome::events`].
    pub fn events(&self) -> &[UffdEvent] {
        &self.uffd_events
    }

    /// The ranges that the last [`execute`](Self::execute) discarded, as [`Outcome::discarded`].
    pub fn discarded(&self) -> &[Range<u64>] {
        &self.discarded
    }

    fn call_system(&mut self, op: &Op) -> Result<u64, Errno> {
        match *op {
            Op::Mmap(ref args) => return self.mmap(args),
            Op::Mremap {
                addr,
                old_len,
                new_len,
                flags,
                new_addr,
            } => return self.mremap(addr, old_len, new_len, flags, new_addr),
            Op::Munmap { addr, len } => self.munmap(addr, len),
            Op::Brk { addr } => return Ok(self.brk(addr)),
            Op::Mprotect { addr, len, prot } => self.mprotect(addr, len, prot, None),
            Op::PkeyMprotect {
                addr,
                len,
                prot,
                pkey,
            } => self.pkey_mprotect(addr, len, prot, pkey),
            Op::PkeyAlloc { flags, rights } => return self.pkey_alloc(flags, rights),
            Op::PkeyFree { pkey } => self.pkey_free(pkey),
            Op::Mlockall { flags } => self.mlockall(flags),
            Op::Munlockall => {
                self.munlockall();
                Ok(())
            }
            Op::Mseal { addr, len, flags } => self.mseal(addr, len, flags),
            Op::RemapFilePages {
                addr,
                len,
                prot,
                pgoff,
                flags,
            } => self.remap_file_pages(addr, len, prot, pgoff, flags),
            Op::SetName { addr, len, name } => self.set_anon_vma_name(addr, len, name),
            Op::Mbind {
                addr,
                len,
                mode,
                nodes,
                flags,
            } => self.mbind(addr, len, mode, nodes, flags),
            Op::Shmat {
                segment,
                addr,
                flags,
            } => return self.shmat(segment, addr, flags),
            Op::Shmdt { addr } => self.shmdt(addr),
            Op::SetMdwe { bits } => self.set_mdwe(bits),
            Op::Mlock { addr, len, flags } => self.mlock(addr, len, flags),
            Op::Munlock { addr, len } => self.munlock(addr, len),
            Op::Madvise { addr, len, advice } => self.madvise(addr, len, advice),
            Op::Fork => self.fork(),
            Op::Steer {
                file,
                hook,
                nth,
                error,
            } => self.steer(file, hook, nth, error),
            Op::UffdRegister { addr, len } => self.uffd_register(addr, len),
            Op::UffdUnregister { addr, len } => self.uffd_unregister(addr, len),
            Op::FailAllocation { what, nth } => {
                self.fail_nth_allocation(what, nth);
                Ok(())
            }
            Op::Touch { addr, write } => self.touch(addr, write),
        }
        .map(|()| 0)
    }

    /// The area as `/proc/PID/maps` shows it: without the guard page of a stack, in kernels that had one
    /// (`stack_guard_page_start`).
    pub fn shown(&self, vma: &Vma) -> Area {
        let mut area = vma.area();
        if let Object::File(id) = vma.object {
            // Who looks sees the segment, and not who attached it.
            area.object = Object::File(self.file(id).attached.unwrap_or(id));
        }
        if self.rules.stack_guard == StackGuard::Page
            && vma.flags.contains(VmFlags::GROWSDOWN)
            && !self.areas.prev(vma.start).is_some_and(|prev| {
                prev.end == vma.start && prev.flags.contains(VmFlags::GROWSDOWN)
            })
        {
            area.start += PAGE_SIZE;
        }
        area
    }

    /// The first area that ends above `addr`: the one that holds it, or the next (`find_vma`).
    pub fn find_vma(&self, addr: u64) -> Option<&Vma> {
        self.areas.find(addr)
    }

    /// The areas, by address.
    pub fn areas(&self) -> impl Iterator<Item = &Vma> {
        self.areas.iter_from(0)
    }

    /// The counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The most pages that it ever had (`VmPeak`, since 2.6.15).
    pub fn peak_vm(&self) -> u64 {
        self.peak_vm.max(self.counters.total_vm)
    }

    /// How many pages have been promised to it, as [`Outcome::committed`].
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// The rules it follows.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The same areas, as if another kernel had them from here on.
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// The limits it is held to.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Changes the limits, as `setrlimit(2)` and `sysctl` do.
    pub fn limits_mut(&mut self) -> &mut Limits {
        &mut self.limits
    }

    pub(crate) fn file(&self, id: FileId) -> &File {
        &self.files[usize::from(id.0)]
    }

    /// Records that the pages of a range are taken out of the page tables.
    pub(crate) fn discard(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        push_range(&mut self.discarded, range);
    }

    /// Records the call of a hook, if the driver has it.
    pub(crate) fn call(&mut self, hook: Hook, vma: &Vma) {
        record(&self.files, &mut self.hooks, hook, vma);
    }
}

/// Adds a range, to the last one if it follows that.
pub(crate) fn push_range(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

/// Records the call of a hook, if the area's driver has it.
#[inline]
pub(crate) fn record(files: &[File], calls: &mut Vec<HookCall>, hook: Hook, vma: &Vma) {
    if let Object::File(file) = vma.object {
        record_of_file(files, calls, hook, vma, file);
    }
}

fn record_of_file(files: &[File], calls: &mut Vec<HookCall>, hook: Hook, vma: &Vma, file: FileId) {
    let known = &files[usize::from(file.0)];
    if known.attached.is_some() {
        // The kernel's own.
        return;
    }
    let hooks = &known.hooks;
    let present = match hook {
        Hook::Mmap => hooks.mmap,
        Hook::Open => hooks.open,
        Hook::Close => hooks.close,
        Hook::MaySplit { .. } => hooks.may_split,
        Hook::Mapped => hooks.mapped,
        Hook::Mremap => hooks.mremap,
        Hook::Mprotect { .. } => hooks.mprotect,
        Hook::Fault { .. } => false,
    };
    if present {
        calls.push(HookCall {
            hook,
            file,
            start: vma.start,
            end: vma.end,
            offset: vma.pgoff << crate::PAGE_SHIFT,
            error: None,
        });
    }
}
