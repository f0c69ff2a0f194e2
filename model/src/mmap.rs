// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `mmap(2)`: `ksys_mmap_pgoff`, `do_mmap` (mm/mmap.c), `__mmap_region` with `__mmap_setup`,
//! `__mmap_new_vma` and `__mmap_complete` (mm/vma.c).
//!
//! The pool of huge pages is not modelled: for anonymous memory (`MAP_HUGETLB`) it is empty, so that there are
//! areas with `MAP_NORESERVE` alone, and pages of 2 MiB are known alone; for files of hugetlbfs it is large
//! enough.
//!
//! The names are those of 7.2: `__mmap_setup` and its sisters are since 6.13, before which `mmap_region` was one;
//! 2.6.11 has `do_mmap_pgoff`. The order of the steps differs more than they do: [`Rules`](crate::Rules).

use core::ops::Range;

use crate::fault::wants_pages;
use crate::file::{File, Kind};
use crate::limits::Overcommit;
use crate::memfd::{check_seals, check_seals_late};
use crate::munmap::Gathered;
use crate::rules::{DriverMerges, Mistake, Room};
use crate::unmapped_area::{PMD_SIZE, Request};
use crate::{
    AddressSpace, Allocation, Backing, Container, Errno, FileId, Hook, MapFlags, Mmap, Object,
    PAGE_SHIFT, PAGE_SIZE, Prot, Rules, VmFlags, Vma,
};

/// What `MAP_SHARED` takes without looking (`LEGACY_MAP_MASK`).
const LEGACY: MapFlags = MapFlags(
    MapFlags::SHARED.0
        | MapFlags::PRIVATE.0
        | MapFlags::FIXED.0
        | MapFlags::ANONYMOUS.0
        | MapFlags::DENYWRITE.0
        | MapFlags::EXECUTABLE.0
        | MapFlags::UNINITIALIZED.0
        | MapFlags::GROWSDOWN.0
        | MapFlags::LOCKED.0
        | MapFlags::NORESERVE.0
        | MapFlags::POPULATE.0
        | MapFlags::NONBLOCK.0
        | MapFlags::STACK.0
        | MapFlags::HUGETLB.0
        | MapFlags::BIT32.0
        | MapFlags::ABOVE4G.0
        | MapFlags::HUGE_2MB.0
        | MapFlags::HUGE_1GB.0,
);
/// Where the size of huge pages is in the flags, as a logarithm (`MAP_HUGE_SHIFT`).
const HUGE_SHIFT: u32 = linux_raw_sys::general::HUGETLB_FLAG_ENCODE_SHIFT;
/// The largest offset of a regular file (`MAX_LFS_FILESIZE`).
const MAX_FILE_SIZE: u64 = i64::MAX as u64;

impl<C: Container> AddressSpace<C> {
    /// `ksys_mmap_pgoff`, `do_mmap`. Gives the address.
    pub(crate) fn mmap(&mut self, args: &Mmap) -> Result<u64, Errno> {
        if args.offset % PAGE_SIZE != 0 {
            return Err(Errno::EINVAL);
        }
        let mut flags = args.flags;
        if !self.rules.map_hugetlb {
            flags = flags.without(MapFlags::HUGETLB);
        }
        let id = if flags.contains(MapFlags::ANONYMOUS) {
            None
        } else {
            match args.backing {
                Backing::File(id) if self.has_descriptor(id) => Some(id),
                _ => return Err(Errno::EBADF),
            }
        };
        let mut file = id.map(|id| *self.file(id));
        let mut object = id.map_or(Object::Anon, Object::File);
        let mut hugetlb = file.is_some_and(|file| file.kind == Kind::Hugetlb);
        if flags.contains(MapFlags::HUGETLB) && !hugetlb {
            let size = flags.0 >> HUGE_SHIFT;
            if file.is_some() || (size != 0 && size != PMD_SIZE.ilog2()) {
                return Err(Errno::EINVAL);
            }
            // A new file, for which nothing is reserved before it is mapped.
            hugetlb = true;
            object = self.shmem.create(0, 0);
            file = Some(File {
                mmap_error: (!flags.contains(MapFlags::NORESERVE)).then_some(Errno::ENOMEM),
                ..File::hugetlb(0)
            });
        }

        let len = if hugetlb && self.rules.hugetlb_rounds_length {
            // ALIGN() makes nothing of what is too long.
            args.len.checked_next_multiple_of(PMD_SIZE).unwrap_or(0)
        } else {
            args.len
        };
        let pgoff = args.offset >> PAGE_SHIFT;
        let result = self.do_mmap(object, file, args.addr, len, args.prot, flags, pgoff);
        if result.is_err() {
            // If it was made for this.
            self.shmem.forget_unused(object);
        }
        result
    }

    /// Segments have none, attached or not.
    pub(crate) fn has_descriptor(&self, id: FileId) -> bool {
        let file = self.files.get(usize::from(id.0));
        file.is_some_and(|file| file.kind != Kind::Segment && file.attached.is_none())
    }

    /// The error of a length that is too large by itself.
    fn too_long(&self) -> Errno {
        if self.rules.mmap_of_nothing_works {
            Errno::EINVAL
        } else {
            Errno::ENOMEM
        }
    }

    /// `do_mmap`, and the populating that comes after it. `object` is what is mapped, `file` what the model
    /// knows of it.
    #[allow(
        clippy::too_many_arguments,
        reason = "they are those of the kernel's function"
    )]
    pub(crate) fn do_mmap(
        &mut self,
        object: Object,
        file: Option<File>,
        addr: u64,
        len: u64,
        prot: Prot,
        mut flags: MapFlags,
        pgoff: u64,
    ) -> Result<u64, Errno> {
        if self.rules.file_checked_first {
            if let Some(file) = &file {
                check_mappable(&self.rules, file, prot_flags(prot))?;
            }
        }
        if len == 0 {
            return if self.rules.mmap_of_nothing_works {
                Ok(addr)
            } else {
                Err(Errno::EINVAL)
            };
        }
        if !self.rules.fixed_noreplace {
            flags = flags.without(MapFlags::FIXED_NOREPLACE);
        }
        if flags.contains(MapFlags::FIXED_NOREPLACE) {
            flags |= MapFlags::FIXED;
        }
        // Rounded down, but up where the first fit upwards is taken.
        let hint = if flags.contains(MapFlags::FIXED) || self.rules.first_fit_upwards {
            addr
        } else {
            self.round_hint_to_min(addr)
        };
        let len = len
            .checked_next_multiple_of(PAGE_SIZE)
            .filter(|&len| !self.rules.mmap_of_nothing_works || len <= self.limits.task_size)
            .ok_or(self.too_long())?;
        // An offset in pages has twelve bits to spare, so that this sum never wraps around as the
        // kernel fears (EOVERFLOW): the system call takes bytes.
        if self.counters.map_count > self.max_map_count() {
            return Err(Errno::ENOMEM);
        }
        let mut vm_flags = prot_flags(prot)
            | self.def_flags
            | self.map_flags(flags)
            | VmFlags::MAYREAD
            | VmFlags::MAYWRITE
            | VmFlags::MAYEXEC;
        let addr = self.get_unmapped_area(&Request {
            file: file.as_ref(),
            addr: hint,
            len,
            pgoff,
            flags: if self.rules.above4g {
                flags
            } else {
                flags.without(MapFlags::ABOVE4G)
            },
        })?;
        if flags.contains(MapFlags::FIXED_NOREPLACE)
            && self.is_mapped(addr, addr + len)
            && !self.rules.errs(Mistake::NoreplaceReplaces)
        {
            return Err(Errno::EEXIST);
        }
        vm_flags |= self.key_of_mapping(prot);
        let locked = vm_flags.contains(VmFlags::LOCKED);
        if flags.contains(MapFlags::LOCKED) && !self.limits.can_do_mlock() {
            return Err(Errno::EPERM);
        }
        if !self.limits.may_lock(locked, len, self.counters.locked_vm) {
            return Err(Errno::EAGAIN);
        }

        let mut pgoff = pgoff;
        match &file {
            Some(file) => {
                vm_flags = file_flags(&self.rules, file, prot, flags, vm_flags, pgoff, len)?;
            }
            None => (vm_flags, pgoff) = anonymous_flags(&self.rules, flags, vm_flags, addr, pgoff)?,
        }
        if flags.contains(MapFlags::NORESERVE)
            && !matches!(self.limits.overcommit, Overcommit::Never { .. })
        {
            vm_flags |= VmFlags::NORESERVE;
        }
        let addr = self.mmap_region(object, file.as_ref(), addr, len, vm_flags, pgoff)?;
        if self.rules.mlock_populates_each {
            // MAP_POPULATE faulted nothing in that needs an anon_vma.
            if vm_flags.contains(VmFlags::LOCKED) {
                let _ = self.make_pages_present(addr, addr + len);
            }
        } else if wants_pages(flags, vm_flags) {
            // Pages that cannot be had are nobody's concern here.
            let _ = self.populate(addr, addr + len);
        }
        Ok(addr)
    }

    /// `calc_vm_flag_bits`
    fn map_flags(&self, flags: MapFlags) -> VmFlags {
        let mut vm_flags = VmFlags::empty();
        for (map, vm) in [
            (MapFlags::GROWSDOWN, VmFlags::GROWSDOWN),
            (MapFlags::LOCKED, VmFlags::LOCKED),
        ] {
            if flags.contains(map) {
                vm_flags |= vm;
            }
        }
        if flags.contains(MapFlags::SYNC) && self.rules.map_sync {
            vm_flags |= VmFlags::SYNC;
        }
        if flags.contains(MapFlags::STACK) && self.rules.stack_is_nohugepage {
            vm_flags |= VmFlags::NOHUGEPAGE;
        }
        vm_flags
    }

    /// `round_hint_to_min`
    fn round_hint_to_min(&self, hint: u64) -> u64 {
        let page = hint & !(PAGE_SIZE - 1);
        if page != 0 && page < self.limits.mmap_min_addr {
            self.limits.mmap_min_addr.next_multiple_of(PAGE_SIZE)
        } else {
            page
        }
    }

    /// `__mmap_region`
    fn mmap_region(
        &mut self,
        object: Object,
        file: Option<&File>,
        addr: u64,
        len: u64,
        mut vm_flags: VmFlags,
        pgoff: u64,
    ) -> Result<u64, Errno> {
        let pages = len >> PAGE_SHIFT;
        let end = addr + len;
        if self.denies_write_exec(vm_flags, vm_flags) {
            return Err(Errno::EACCES);
        }

        let room_before_cuts = self.rules.mmap_checks_room == Room::BeforeCuts;
        if room_before_cuts && !self.may_expand_vm(vm_flags, pages - self.mapped_pages(addr, end)) {
            return Err(Errno::ENOMEM);
        }
        // __mmap_setup: what is in the way is cut out, then the limits are checked as if it were gone.
        // Up to here an error leaves all but the cuts as it was.
        let hides = self.rules.mmap_hides_unmap_error;
        let mut old = if self.is_mapped(addr, end) {
            self.gather(addr, end)
                .map_err(|error| if hides { Errno::ENOMEM } else { error })?
        } else {
            Gathered::default()
        };
        let replaced = if self.rules.errs(Mistake::ReplacedCountedTwice) {
            0
        } else {
            old.counters.total_vm
        };
        let room_after_cuts = self.rules.mmap_checks_room == Room::AfterCuts;
        if room_after_cuts && !self.may_expand_vm(vm_flags, pages - replaced) {
            return Err(Errno::ENOMEM);
        }
        let accounted = vm_flags.contains(VmFlags::WRITE)
            && file.is_none_or(|file| file.kind != Kind::Hugetlb)
            && !vm_flags.intersects(VmFlags::NORESERVE | VmFlags::SHARED);
        let mut charged = 0;
        let mut taken_over = 0;
        if accounted && self.rules.charge_before_unmap {
            taken_over = core::mem::take(&mut old.accounted);
            charged = pages.saturating_sub(taken_over);
            if charged > 0 {
                self.charge(charged)?;
            }
        }
        // From here on the old areas are gone: an error leaves a hole.
        let freed = self.complete(&old);
        if !self.rules.charge_before_unmap {
            self.settle(&old, freed);
        }
        let room_in_the_end = self.rules.mmap_checks_room == Room::AfterUnmapping;
        if room_in_the_end && !self.may_expand_vm(vm_flags, pages) {
            return Err(Errno::ENOMEM);
        }
        if accounted {
            if !self.rules.charge_before_unmap {
                charged = pages;
                self.charge(charged)?;
            }
            vm_flags |= VmFlags::ACCOUNT;
        }
        let new = self.map_what_is_free(object, file, addr..end, vm_flags, pgoff);
        if self.rules.charge_before_unmap {
            self.settle(&old, freed);
        }
        let new = new.inspect_err(|_| {
            self.uncharge(charged);
            // The charge of what is gone was to be that of what is new.
            if self.rules.failed_mmap_forgets_charge {
                self.lose_charge(taken_over);
            } else {
                self.uncharge(taken_over);
            }
        })?;
        if let Some(new) = new {
            if file.is_some_and(|file| self.prepares(file)) && self.rules.tells_of_mapped {
                if let Err(error) = self.ask(Hook::Mapped, &new, None) {
                    // mmap_action_finish
                    let _ = self.munmap(addr, len);
                    return Err(error);
                }
            }
        }
        Ok(addr)
    }

    /// Whether the driver is asked before merging (`can_mmap_prepare`).
    fn prepares(&self, file: &File) -> bool {
        file.prepares && self.rules.mmap_prepare
    }

    /// `__mmap_new_vma`, or a merge, and `__mmap_complete`. Gives the area if it is a new one.
    fn map_what_is_free(
        &mut self,
        object: Object,
        file: Option<&File>,
        range: Range<u64>,
        mut vm_flags: VmFlags,
        pgoff: u64,
    ) -> Result<Option<Vma>, Errno> {
        let Range { start: addr, end } = range;
        let pages = (end - addr) >> PAGE_SHIFT;
        let reserve = !vm_flags.contains(VmFlags::NORESERVE);
        if !self.rules.noreserve_is_kept {
            vm_flags = vm_flags.without(VmFlags::NORESERVE);
        }
        if object != Object::Anon
            && vm_flags.contains(VmFlags::GROWSDOWN)
            && !self.rules.stack_checked_first
        {
            return Err(Errno::EINVAL);
        }

        let mut new = Vma::new(addr..end, pgoff, vm_flags, object);
        let (prepares, asks) = match file {
            Some(file) if self.prepares(file) => (Some(file), None),
            other => (None, other),
        };
        if let Some(file) = prepares {
            self.call_mmap(file, &mut new)?;
        }
        // A new shared anonymous object is nobody's neighbour.
        let shared = new.object == Object::Anon && vm_flags.contains(VmFlags::SHARED);
        let asked_first = asks.is_some() && self.rules.driver_merges == DriverMerges::AfterAsking;
        let merged = if shared || asked_first {
            None
        } else {
            let prev = self.areas.prev(addr).filter(|prev| prev.end == addr);
            let prev = prev.copied();
            let next = self.areas.find(addr).filter(|next| next.start == end);
            let next = next.copied();
            if self.rules.mmap_asks_above_first {
                self.merge_above_first(&new, prev.as_ref(), next.as_ref())
            } else {
                self.merge_new_range(&new, prev.as_ref(), next.as_ref())
            }
            // If there is no memory to merge, there may be some for an area of its own.
            .unwrap_or(None)
        };
        let mut merged = merged;
        if merged.is_none() {
            self.allocate_area(addr)?;
            self.allocate(Allocation::Tree)?;
            if let Some(file) = asks {
                check_seals_late(&self.rules, file, new.flags)?;
                if let Err(error) = self.call_mmap(file, &mut new) {
                    // With what the driver may have put in.
                    self.discard(addr..end);
                    return Err(error);
                }
                merged = self.merge_what_was_asked_for(&new, vm_flags);
            } else if shared {
                self.shmem_zero_setup(&mut new, reserve)?;
            }
        }
        let flags = merged.map_or(new.flags, |merged| merged.flags);

        // __mmap_complete
        self.counters.add(&self.rules, flags, new.has_file(), pages);
        let mut kept = flags;
        if flags.contains(VmFlags::LOCKED) {
            let droppable =
                flags.contains(VmFlags::DROPPABLE) && self.rules.droppable_is_not_locked;
            let special =
                flags.intersects(crate::merge::SPECIAL) && self.rules.special_is_not_locked;
            if special || droppable {
                kept = flags.without(VmFlags::LOCKED | VmFlags::LOCKONFAULT);
            } else if !self.rules.errs(Mistake::LockedNotCounted) {
                self.counters.locked_vm = self.counters.locked_vm.wrapping_add(pages);
            }
        }
        if merged.is_none() {
            new.flags = kept;
            self.areas.insert(new);
            self.shmem.gain(new.object);
            self.counters.map_count += 1;
        }
        Ok(merged.is_none().then_some(new))
    }

    /// The driver was asked, which may have changed the flags: what merges then, though an area had been made for it.
    fn merge_what_was_asked_for(&mut self, new: &Vma, asked: VmFlags) -> Option<Vma> {
        let below = self.areas.prev(new.start).copied();
        let merges = match self.rules.driver_merges {
            DriverMerges::AfterAsking => true,
            DriverMerges::BeforeAsking => false,
            DriverMerges::Twice => new.flags != asked && below.is_some(),
        };
        if !merges {
            return None;
        }
        let prev = below.filter(|prev| prev.end == new.start);
        let next = self.areas.find(new.start).copied();
        // If there is no memory to merge, the area is there.
        self.merge_new_range(new, prev.as_ref(), next.as_ref())
            .unwrap_or(None)
    }

    /// How many pages of a range are mapped (`count_vma_pages_range`).
    fn mapped_pages(&self, start: u64, end: u64) -> u64 {
        let areas = self.areas.iter_from(start);
        let areas = areas.take_while(|vma| vma.start < end);
        areas
            .map(|vma| (vma.end.min(end) - vma.start.max(start)) >> PAGE_SHIFT)
            .sum()
    }

    /// The driver's mmap handler.
    fn call_mmap(&mut self, file: &File, new: &mut Vma) -> Result<(), Errno> {
        let answer = self.ask(Hook::Mmap, new, file.mmap_error);
        if file.kind == Kind::Hugetlb {
            self.hugetlbfs_file_mmap(new)?;
        }
        new.flags |= file.sets;
        answer
    }

    /// `hugetlbfs_file_mmap`: a writable mapping makes the file as large as itself.
    fn hugetlbfs_file_mmap(&mut self, new: &Vma) -> Result<(), Errno> {
        let end = new.pgoff_at(new.end);
        // Of a sum below zero, which 4.9 did not see coming, nothing can be said.
        let too_far = end > MAX_FILE_SIZE >> PAGE_SHIFT;
        if (new.pgoff << PAGE_SHIFT) % PMD_SIZE != 0 || too_far {
            return Err(Errno::EINVAL);
        }
        let Object::File(id) = new.object else {
            return Ok(());
        };
        let size = self.file(id).pages;
        if new.flags.contains(VmFlags::WRITE) {
            self.set_file_size(id, size.max(end));
        } else if self.rules.hugetlb_reads_within_file && end > size {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }
}

/// `calc_vm_prot_bits`
pub(crate) fn prot_flags(prot: Prot) -> VmFlags {
    // PROT_READ, WRITE and EXEC have the values of their VM_ flags.
    VmFlags(u64::from(prot.0 & 7))
}

/// What `do_mmap` checks of a file, and the flags that follow.
fn file_flags(
    rules: &Rules,
    file: &File,
    prot: Prot,
    flags: MapFlags,
    mut vm_flags: VmFlags,
    pgoff: u64,
    len: u64,
) -> Result<VmFlags, Errno> {
    // file_mmap_ok
    let max = match file.kind {
        Kind::Regular | Kind::Shmem | Kind::Segment | Kind::Hugetlb
            if rules.file_size_is_bounded =>
        {
            MAX_FILE_SIZE
        }
        _ => u64::MAX,
    };
    if len > max || pgoff > (max - len) >> PAGE_SHIFT {
        return Err(Errno::EOVERFLOW);
    }
    let kind = flags.0 & MapFlags::TYPE.0;
    let shared = if kind == MapFlags::SHARED.0 {
        true
    } else if kind == MapFlags::SHARED_VALIDATE.0 && rules.shared_validate {
        let known = if rules.above4g {
            LEGACY
        } else {
            LEGACY.without(MapFlags::ABOVE4G)
        };
        if flags.without(known) != MapFlags::empty() {
            return Err(Errno::EOPNOTSUPP);
        }
        true
    } else if kind == MapFlags::PRIVATE.0 {
        false
    } else {
        return Err(Errno::EINVAL);
    };
    if shared {
        if prot.contains(Prot::WRITE) && !file.write {
            return Err(Errno::EACCES);
        }
        vm_flags |= VmFlags::SHARED | VmFlags::MAYSHARE;
        if !file.write {
            vm_flags = vm_flags.without(VmFlags::MAYWRITE | VmFlags::SHARED);
        }
    }
    if !file.read {
        return Err(Errno::EACCES);
    }
    if !rules.file_checked_first {
        check_mappable(rules, file, vm_flags)?;
    }
    if file.noexec && rules.noexec_is_for_ever {
        vm_flags = vm_flags.without(VmFlags::MAYEXEC);
    }
    if vm_flags.contains(VmFlags::GROWSDOWN) && rules.stack_checked_first {
        return Err(Errno::EINVAL);
    }
    check_seals(rules, file, vm_flags)
}

/// Whether there is a way to map the file, and to execute it if that is asked for.
fn check_mappable(rules: &Rules, file: &File, vm_flags: VmFlags) -> Result<(), Errno> {
    let forbidden = file.noexec && vm_flags.contains(VmFlags::EXEC);
    let unmappable = file.kind == Kind::Unmappable;
    // Of both, the older kernels say the first.
    if unmappable && (rules.file_checked_first || !forbidden) {
        return Err(Errno::ENODEV);
    }
    if forbidden {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// What `do_mmap` checks of anonymous memory, and the flags and page offset that follow.
fn anonymous_flags(
    rules: &Rules,
    flags: MapFlags,
    mut vm_flags: VmFlags,
    addr: u64,
    pgoff: u64,
) -> Result<(VmFlags, u64), Errno> {
    let kind = flags.0 & MapFlags::TYPE.0;
    if kind == MapFlags::SHARED.0 {
        if vm_flags.contains(VmFlags::GROWSDOWN) && rules.stack_checked_first {
            return Err(Errno::EINVAL);
        }
        let pgoff = if rules.shared_memory_keeps_offset {
            pgoff
        } else {
            0
        };
        return Ok((vm_flags | VmFlags::SHARED | VmFlags::MAYSHARE, pgoff));
    }
    if kind == MapFlags::DROPPABLE.0 && rules.droppable {
        if flags.contains(MapFlags::LOCKED) || vm_flags.contains(VmFlags::GROWSDOWN) {
            return Err(Errno::EINVAL);
        }
        vm_flags |=
            VmFlags::DROPPABLE | VmFlags::NORESERVE | VmFlags::WIPEONFORK | VmFlags::DONTDUMP;
    } else if kind != MapFlags::PRIVATE.0 {
        return Err(Errno::EINVAL);
    }
    Ok((vm_flags, addr >> PAGE_SHIFT))
}
