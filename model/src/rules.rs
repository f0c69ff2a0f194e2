// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Rules`]: what differs between kernels, as data.
//!
//! No other file asks which kernel it imitates. A difference between two eras is a field here, with
//! the version in which it changed; an era is a constant that fills all fields in.

/// A field of [`Rules`], as data: what tells two eras apart.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it decides, and since when: its documentation.
    pub doc: &'static str,
    differs: fn(&Rules, &Rules) -> bool,
    copy: fn(&mut Rules, &Rules),
}

impl Field {
    /// Whether it has another value there.
    pub fn differs(&self, one: &Rules, other: &Rules) -> bool {
        (self.differs)(one, other)
    }

    /// Gives `to` the value that `from` has.
    pub fn copy(&self, to: &mut Rules, from: &Rules) {
        (self.copy)(to, from);
    }
}

/// Makes [`Rules::FIELDS`] of the struct.
macro_rules! with_fields {
    (
        $(#[$attribute:meta])*
        pub struct Rules {
            pub name: $name:ty,
            pub since: $since:ty,
            $($(#[doc = $doc:literal])* pub $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$attribute])*
        pub struct Rules {
            /// The era's name, as in `V7_2`.
            pub name: $name,
            /// The kernel version from which on these rules are known to hold: major, minor, patch.
            pub since: $since,
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl Rules {
            /// All that two eras can differ in, and [`mistake`](Self::mistake).
            pub const FIELDS: &'static [Field] = &[$(Field {
                name: stringify!($field),
                doc: concat!($($doc, "\n"),*),
                differs: |one, other| one.$field != other.$field,
                copy: |to, from| to.$field = from.$field,
            }),*];
        }
    };
}

with_fields! {
/// The rules of one era.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub name: &'static str,
    pub since: (u16, u16, u16),
    // Limits and splits
    /// Every split of `munmap` needs room below `vm.max_map_count`, even one that takes no area more in
    /// the end. Until 2.6.32; since, only where a hole is punched.
    pub limit_at_every_split: bool,
    /// Of each split of `munmap` the new piece, of which the driver is told (`open`), is the one that goes.
    /// Until 6.4 at the begin of the range, until 6.2 at its end; since, the one that stays (`new_below` of
    /// `__split_vma`).
    pub new_piece_goes: bool,
    /// What the kernel maps by itself (`[vdso]`, `[vvar]`) may not be cut (`special_mapping_split`).
    /// Since 5.11.
    pub special_is_whole: bool,

    // Drivers
    /// A driver is asked before one of its areas is cut (`vm_operations_struct.split`, `may_split` since
    /// 5.11). Since 4.15; before, only hugetlbfs had a say.
    pub asks_before_split: bool,
    /// A driver is told when one of its areas has moved, and may send it back
    /// (`vm_operations_struct.mremap`). Since 4.3.
    pub tells_of_mremap: bool,
    /// A driver with `mmap_prepare`, which cannot know if there will be an area, is told when there is
    /// one (`vm_operations_struct.mapped`, "mm: add vm_ops->mapped hook"). Since 7.1.
    pub tells_of_mapped: bool,
    /// A driver is asked before the protection of one of its areas changes
    /// (`vm_operations_struct.mprotect`). Since 5.11, for SGX.
    pub asks_before_mprotect: bool,

    // Merging
    /// An area that was written to merges into a neighbour that was not, which takes its `anon_vma`
    /// over (`is_mergeable_anon_vma`). Until 2.6.39, and again since 6.16; in between only the
    /// neighbour's own `anon_vma` could cover the new part, although the opposite had been intended.
    pub merge_into_unwritten: bool,
    /// Areas of a forked child have `anon_vma`s of their own (`anon_vma_fork`, `anon_vma_chain`). Since
    /// 2.6.34; before, parent and child shared theirs, a child's areas merged as freely, and no memory was needed to
    /// tie a piece, a copy or a merged area to an `anon_vma`.
    pub fork_makes_anon_vmas: bool,
    /// An area with a `close` hook never merges. Until 6.3; since 6.4, a `close` hook only keeps the area
    /// from being removed by a merge (`can_merge_remove_vma`).
    pub close_forbids_merging: bool,
    /// A merge for which there is no memory fails what wanted it; before, the areas just stayed apart ("mm: abort
    /// vma_modify() on merge out of memory failure"). Since 6.14.
    pub failed_merge_is_an_error: bool,
    /// The tree of areas allocates nodes, which can fail ([`Allocation::Tree`](crate::Allocation::Tree)). Since
    /// 6.1, with the maple tree; before, an area held its place in the tree.
    pub tree_takes_memory: bool,
    /// `mmap` asks the area above first, and the one below must then fit that one (`__mmap_region`).
    /// From 6.1, with the maple tree, to 6.11: an area below that was written to loses against a
    /// different one above.
    pub mmap_asks_above_first: bool,
    /// What was written to of a private mapping of a file keeps a page offset by its address, as
    /// anonymous memory does; after a move it merges only with what has moved as far
    /// (`needs_adjacent_anon_pgoff`). Since 7.3; before, the offset in the file alone decided.
    pub private_pages_know_their_place: bool,

    // mmap
    /// When it is checked that the new area fits into RLIMIT_AS and RLIMIT_DATA. Until 3.9 when what was in
    /// the way was gone; from 3.10 to 6.11 before anything was cut, so that a refusal leaves all as it was
    /// ("mm/mmap: check for RLIMIT_AS before unmapping"); since 6.12 after the cuts, by what they gathered
    /// ("mm/mmap: move may_expand_vm() check in mmap_region()").
    pub mmap_checks_room: Room,
    /// When a mapping of a driver that has `mmap` is tried for merging. Until 2.6.28 when it was asked;
    /// since 2.6.29 before, so that it hears of those alone that did not merge ("Fix OOPS in mmap_region()
    /// when merging adjacent VM_LOCKED file segments"); from 5.9 to 6.16 afterwards once more, since it may
    /// have changed the flags ("mm: mmap: merge vma after call_mmap() if possible").
    pub driver_merges: DriverMerges,
    /// A driver can have `mmap_prepare`, which runs before merging and knows of no area. Since 6.16; before, the
    /// same driver had `mmap`.
    pub mmap_prepare: bool,
    /// A file that cannot be mapped is ENODEV, and one on noexec EPERM for executing, before anything else is looked
    /// at, even the length. Until 2.6.17; since 2.6.18 ("Fix VM_MAYEXEC calculation"), after the rights of the file.
    pub file_checked_first: bool,
    /// What is mapped of a file on noexec never becomes executable (`VM_MAYEXEC`). Since 2.6.18, by the same change;
    /// before, `mprotect` made it so.
    pub noexec_is_for_ever: bool,
    /// A memory file can be sealed against writing, `F_SEAL_WRITE` ("shm: add sealing API"), and then not be mapped
    /// shared and writable: EPERM. Since 3.17; before, there was no such call.
    pub write_seal: bool,
    /// Such a file is mapped shared for reading, and that never becomes writable (`VM_MAYWRITE`). Since 5.10, in its
    /// stable versions and those of 6.1 (seen in 5.10.262 and 6.1.192), and in 6.7 where it came first ("mm: drop the
    /// assumption that VM_SHARED always implies writable"); before EPERM, as `mprotect` could have made it writable.
    pub write_seal_lets_read: bool,
    /// It is refused before anything is cut or unmapped. Since 5.10, in the same versions, and in 6.12 where it came
    /// first ("mm: resolve faulty mmap_region() error path behaviour"); before, when the new area was to be counted among
    /// the writable ones (`mapping_map_writable`) and what was in the way was gone, so that a hole was left.
    pub write_seal_checked_first: bool,
    /// A memory file can be sealed against future writing, `F_SEAL_FUTURE_WRITE` ("mm/memfd: add an
    /// F_SEAL_FUTURE_WRITE seal to memfd"), and then be mapped shared for reading alone. Since 5.1; before EINVAL, so that it is not sealed.
    /// (5.1 to 5.4 took private mappings the right to be written to, too: no era here.)
    pub future_write_seal: bool,
    /// That is refused before anything is cut or unmapped. Since 6.12, in its stable versions (seen in 6.12.118), and in
    /// 6.13 where it came first ("mm: perform all memfd seal checks in a single place"); before, it was `shmem_mmap`
    /// that refused, which left a hole.
    pub future_write_seal_checked_first: bool,
    /// Shared anonymous memory begins at the offset that was given with it, so that there is less of the object
    /// than was mapped. Until 2.6.26 ("mmap: fix petty bug in anonymous shared mmap offset handling"); since, at 0.
    pub shared_memory_keeps_offset: bool,
    /// An area that fork leaves out (`VM_DONTCOPY`) never merges (`VM_SPECIAL`). Until 2.6.15; since 2.6.16, when
    /// `MADV_DONTFORK` came, it is a flag as any other.
    pub dontcopy_is_special: bool,
    /// What never merges is not locked when it is mapped, whatever was asked for ("mmap: handle mlocked pages during
    /// map, remap, unmap"). Since 2.6.28; before, it was locked and counted as all else.
    pub special_is_not_locked: bool,
    /// Regular files have a largest size, beyond which nothing can be mapped: EOVERFLOW (`file_mmap_ok`, "mmap:
    /// introduce sane default mmap limits"). Since 4.17; before, there was nothing there to touch.
    pub file_size_is_bounded: bool,
    /// A length of 0 maps nothing and gives the hint back; one that is too long is EINVAL
    /// (`do_mmap_pgoff`). Until 2.6.11; since 2.6.12 the first is EINVAL, as POSIX has it, and the second
    /// ENOMEM.
    pub mmap_of_nothing_works: bool,
    /// `MAP_FIXED_NOREPLACE` is known. Since 4.17; before it was ignored, so that the address was a hint.
    pub fixed_noreplace: bool,
    /// `MAP_SHARED_VALIDATE` is known. Since 4.15; before EINVAL.
    pub shared_validate: bool,
    /// `MAP_SYNC` is known, and remembered even where it means nothing (`VM_SYNC`). Since 4.15; before ignored.
    pub map_sync: bool,
    /// `MAP_ABOVE4G` is known ("x86/mm: Introduce MAP_ABOVE4G"). Since 6.6; before ignored.
    pub above4g: bool,
    /// `MAP_HUGETLB` is known. Since 2.6.32; before ignored, so that there were small pages.
    pub map_hugetlb: bool,
    /// `MAP_DROPPABLE` is known. Since 6.11; before EINVAL.
    pub droppable: bool,
    /// What may be dropped is not locked when it is mapped after `mlockall(MCL_FUTURE)`
    /// (`vma_supports_mlock`): it would have been kept from being dropped. Since 6.12, in its stable
    /// versions (seen in 6.12.117), in those of 6.18, and in 7.1 where it came first.
    pub droppable_is_not_locked: bool,
    /// `MAP_STACK` means `VM_NOHUGEPAGE`. Since 6.7; before nothing.
    pub stack_is_nohugepage: bool,
    /// `MAP_NORESERVE` is remembered (`VM_NORESERVE`, "record MAP_NORESERVE status on vmas"). Since
    /// 2.6.27; before it only left `VM_ACCOUNT` out.
    pub noreserve_is_kept: bool,
    /// The length of a mapping of hugetlbfs is rounded up to huge pages. Since 3.10 ("hugetlbfs: fix mmap
    /// failure in unaligned size request"); before EINVAL.
    pub hugetlb_rounds_length: bool,
    /// A hint for huge pages is rounded down to them, even to address 0 ("x86/mm: Prevent non-MAP_FIXED mapping
    /// across DEFAULT_MAP_WINDOW border"). From 4.15 to 6.12; before and since, up.
    pub hugetlb_rounds_hint_down: bool,
    /// Huge pages are put where `MAP_32BIT` and `MAP_ABOVE4G` say. Since 6.13 ("mm: make hugetlb mappings go
    /// through mm_get_unmapped_area_vmflags"); before, hugetlbfs searched by itself, anywhere.
    pub hugetlb_heeds_map_flags: bool,
    /// A mapping of hugetlbfs for reading alone may not reach beyond the end of the file: ENOMEM, with
    /// what was in the way gone. Until 2.6.17; since 2.6.18, such a mapping may keep a place ("mmap zero-length
    /// hugetlb file with PROT_NONE").
    pub hugetlb_reads_within_file: bool,
    /// Any failure to unmap what is in the way is ENOMEM. Until 6.11: the loop around `do_munmap`, later
    /// `munmap_vma_range`, looked at whether it failed alone; since 6.12 `vms_gather_munmap_vmas` says why.
    pub mmap_hides_unmap_error: bool,
    /// Memory is charged before what is in the way goes away, net of it. Since 6.12 ("mm/mmap: avoid
    /// zeroing vma tree in mmap_region()": who looks meanwhile shall see no hole); before, a refused charge
    /// left a hole.
    pub charge_before_unmap: bool,
    /// What that was charged is forgotten if the new area, which was to take the charge over, does not come to be
    /// (`__mmap_setup`). From 6.12 to 7.3.3; before and since ("mm/vma: don't leak the commit charge on mmap failure"),
    /// it is given back.
    pub failed_mmap_forgets_charge: bool,
    /// A file that cannot be a stack refuses `MAP_GROWSDOWN` before anything is unmapped (`do_mmap`). Since
    /// 2.6.36; before, a hole was left. The same for shared anonymous memory, which took it.
    pub stack_checked_first: bool,

    // The choice of an address
    /// Upwards from `TASK_SIZE / 3`, first fit, from where the last search ended or a lower area was
    /// unmapped (`mm->free_area_cache`, `arch_unmap_area`). Until 2.6.24 on x86-64; since, downwards
    /// from the stack.
    pub first_fit_upwards: bool,
    /// Large anonymous mappings are aligned to huge pages (`thp_get_unmapped_area`). Since 6.7.
    pub anon_huge_aligned: bool,
    /// Large mappings of files whose file system wants it are, too (`thp_get_unmapped_area`, "mm/readahead: Align
    /// file mappings for non-DAX"). Since 5.18; before, those of DAX alone.
    pub file_huge_aligned: bool,
    /// Where the room to spare is aligned already, the mapping is put at its upper end ("mm: thp_get_unmapped_area must
    /// honour topdown preference"). Since 6.8, and in stable versions of 6.7; before, at its lower one.
    pub huge_aligned_at_the_top: bool,
    /// A gap that is too small hides the stack above it, so that its guard gap may be built on
    /// (`mas_empty_area`). Since 6.1; before, gaps were kept net of the guard gap.
    pub small_gap_hides_stack: bool,
    /// How a stack keeps its distance from what is below it. Until 2.6.35 not at all; from 2.6.36 to 4.11
    /// by a page of its own ("mm: keep a guard page below a grow-down stack segment"); since 4.12 by a gap
    /// that is no part of it, for one page can be jumped over ("mm: larger stack guard gap, between vmas").
    pub stack_guard: StackGuard,
    /// The guard page of a stack does not count against RLIMIT_STACK ("mm: Don't count the stack guard page towards
    /// RLIMIT_STACK"). From 3.19 to 4.11; since 4.12, it is no part of the area.
    pub stack_limit_spares_guard: bool,
    /// How far down a stack may grow (`expand_downwards`). Until 2.6.23 to the first address; from 2.6.24
    /// to 4.20 to `vm.mmap_min_addr`, but below it with CAP_SYS_RAWIO; since 5.0 to that in any case, for
    /// who faults may be another process ("mm: enforce min addr even if capable() in expand_downwards()").
    pub stack_floor: StackFloor,

    // mprotect, mdwe
    /// Argument bits are checked before an empty range is a success (`sys_mprotect`). Until 2.6.11 at
    /// least; since 4.9 at the latest an empty range comes first, so that a length that is rounded up to 0
    /// can be told from one.
    pub mprotect_checks_empty: bool,
    /// Areas of hugetlbfs cannot be protected: EACCES. Until 2.6.16; since 2.6.17 their page tables are
    /// walked, too ("Enable mprotect on huge pages").
    pub mprotect_refuses_hugetlb: bool,
    /// A driver is asked twice about an area that would merge into the one before it but for its
    /// `close` hook: the refused merge leaves the iterator one area behind
    /// (`vma_merge_existing_range`). Since 6.12.
    pub mprotect_asks_again: bool,
    /// Memory that was never written to is given back when it is made read-only
    /// (`VM_ACCOUNT` goes; "mm/mprotect: allow unfaulted VMAs to be unaccounted"). Since 6.7.
    pub mprotect_unaccounts: bool,
    /// There are protection keys, with `pkey_mprotect`, `pkey_alloc` and `pkey_free`, where the processor has them.
    /// Since 4.9; the one of memory that is only executable came in 4.6.
    pub pkeys: bool,
    /// The key of memory that is only executable is no program's (`mm_pkey_is_allocated`), and leaves such memory
    /// with any other protection. Since 4.17 ("x86/pkeys: Override pkey when moving away from PROT_EXEC"); before, a
    /// program could name and free it, and what got no rights at all kept it, even when it could be read again.
    pub execute_only_key_is_reserved: bool,
    /// What is special about key 0, which all memory has at first. Until 4.10 that it cannot be freed; from 4.11
    /// ("x86/pkeys: Check against max pkey to avoid overflows") to 4.16 it cannot be named, either; since 4.17 ("x86/pkeys:
    /// Do not special case protection key 0") nothing.
    pub key_zero: KeyZero,
    /// A forked child has the keys of its parent (`arch_dup_pkeys`). Since 5.0 ("x86/pkeys: Properly copy pkey state at
    /// fork()"); before, its areas alone.
    pub fork_copies_keys: bool,
    /// There is `prctl(PR_SET_MDWE)`. Since 6.3.
    pub mdwe: bool,
    /// `PR_MDWE_NO_INHERIT` is known. Since 6.7, and in stable versions of 6.6.
    pub mdwe_no_inherit: bool,

    // Other calls
    /// There is `mseal`. Since 6.10.
    pub mseal: bool,
    /// `remap_file_pages` is `mmap` in disguise. Since 4.0; before, one area could have the pages of its
    /// file in any order.
    pub remap_file_pages_is_mmap: bool,
    /// The break goes down only where something is mapped. Since 6.1, when the heap came to be looked up
    /// before it shrinks ("mm/mmap: change do_brk_flags() to expand existing VMA and add do_brk_munmap()");
    /// before, a hole would do.
    pub brk_needs_heap: bool,
    /// The first piece of a heap never merges with what is below it, the program's own data. Since 6.1, as
    /// `do_brk_flags` expands the area of the heap alone, if there is one; before, `vma_merge` took any
    /// neighbour.
    pub brk_stays_apart: bool,
    /// The break may go down to the end of the program's code (`mm->end_code`), below where the heap begins. Until
    /// 2.6.24; since 2.6.25 ("brk: check the lower bound properly"), not below `mm->start_brk`, if the kernel is not
    /// built for old programs (`CONFIG_COMPAT_BRK`).
    pub brk_goes_down_to_code: bool,
    /// The break goes down whatever RLIMIT_DATA says (`sys_brk`). Until 2.6.16; since 2.6.17, the limit is asked first.
    pub brk_shrinks_beyond_limit: bool,
    /// RLIMIT_DATA counts all addresses from the program's data on (`mm->start_data`), with the gap before the heap.
    /// Until 2.6.24 at least; since 2.6.26 at the latest, what is used of them: from 2.6.25 on, the heap may be placed
    /// at random.
    pub brk_limit_counts_gap: bool,

    // mlock
    /// `mlock` merges with its neighbours. Since 2.6.12.
    pub mlock_merges: bool,
    /// `mlock` faults each area in as it goes, and answers with what faulting answers: EFAULT, or EPERM
    /// if some pages were had; a split that fails is EAGAIN (`make_pages_present`). Until 2.6.27
    /// ("mlock: make mlock error return Posixly Correct"); since, ENOMEM in all cases, and since 2.6.38 all
    /// is faulted in at the end ("mlock: only hold mmap_sem in shared mode when faulting in pages").
    pub mlock_populates_each: bool,
    /// `mlock` counts pages in an `int`, so that 8 TiB and more leave `VmLck` wrong (`mlock_fixup`). Until 7.3.3;
    /// since 7.3.4, in a `long` ("mm/mlock: use a long for the page count in mlock_fixup()").
    pub mlock_counts_in_an_int: bool,
    /// `MCL_ONFAULT` alone is EINVAL ("mm/mlock.c: mlockall error for flag MCL_ONFAULT"). Since 5.2; before, it
    /// unlocked all.
    pub mlockall_checks_onfault: bool,
    /// Memory that cannot be accessed cannot be locked as it is faulted in, either (`MLOCK_ONFAULT`): ENOMEM.
    /// Until 5.17; since, nothing is looked at.
    pub lock_on_fault_needs_access: bool,
    /// There is `mlock2`. Since 4.4.
    pub mlock2: bool,
    /// `mlock` of what is locked already needs no more room below RLIMIT_MEMLOCK (`count_mm_mlocked_page_nr`). Since
    /// 4.9; before, it counted twice.
    pub mlock_counts_once: bool,

    // madvise
    /// Advice merges areas, and none is cut if nothing changes ("madvise: merge the maps"). Since 2.6.14;
    /// before, it always cut.
    pub madvise_merges: bool,
    /// The highest advice that is known, by number; the rest is EINVAL. 4 (`MADV_DONTNEED`) until 2.6.15,
    /// 17 (`MADV_DODUMP`) from 3.4, 19 (`MADV_KEEPONFORK`) from 4.14, 21 (`MADV_PAGEOUT`) from 5.4, 24
    /// (`MADV_DONTNEED_LOCKED`) from 5.18, 25 (`MADV_COLLAPSE`) from 6.1.
    pub last_advice: u32,
    /// `MADV_POPULATE_READ` and `_WRITE` pass holes over, which are ENOMEM in the end. Until 6.9; since 6.10, they
    /// end at a hole ("mm/madvise: don't perform madvise VMA walk for `MADV_POPULATE_(READ|WRITE)`").
    pub populate_skips_holes: bool,
    /// No room for a split is ENOMEM where `vm.max_map_count` is the reason. From 4.11 to 5.16; before and
    /// since, EAGAIN.
    pub madvise_tells_of_limit: bool,
    /// `MADV_WILLNEED` is only for areas of a file: EBADF. Until 3.8; since 3.9, anonymous memory is
    /// read in from swap.
    pub willneed_needs_file: bool,
    /// `MADV_DONTNEED` drops pages of hugetlbfs. Since 5.18; before EINVAL.
    pub dontneed_takes_hugetlb: bool,
    /// `MADV_DOFORK` is refused to all areas that never merge (`VM_SPECIAL`), whose drivers set
    /// `VM_DONTCOPY` for their own reasons. Until 6.18 only to memory-mapped I/O (`VM_IO`); since 7.2 at
    /// the latest to all of them.
    pub dofork_refuses_special: bool,
    /// Unknown advice is found out before the range is looked at (`madvise_behavior_valid`). Since 2.6.34;
    /// before, a range without areas was answered first.
    pub advice_checked_first: bool,
    /// There are guard regions, `MADV_GUARD_INSTALL` and `_REMOVE`. Since 6.13 of private anonymous memory,
    /// since 6.15 of files, too.
    pub guards: bool,
    /// An area with guard regions is flagged as such (`VM_MAYBE_GUARD`), so that it needs no `anon_vma` to
    /// have its page tables copied by fork ("mm: set the VM_MAYBE_GUARD flag on guard region install").
    /// Since 6.18, in its stable versions, and in 6.19 where it came first; before, even shared memory got
    /// one.
    pub guards_are_flagged: bool,
    /// There is `PR_SET_VMA_ANON_NAME`. Since 5.17.
    pub names: bool,
    /// Shared anonymous memory can have a name, too ("mm: anonymous shared memory naming"). Since 6.2;
    /// before EBADF.
    pub names_shared: bool,

    // mbind
    /// The highest policy that is known, by number: 3 (`MPOL_INTERLEAVE`), and no flags, until 2.6.25; 4
    /// (`MPOL_LOCAL`) from 3.8, 5 (`MPOL_PREFERRED_MANY`) from 5.15, 6 (`MPOL_WEIGHTED_INTERLEAVE`) from 6.9.
    pub last_policy: u32,
    /// What gets another policy merges with its neighbours, and none is cut if nothing changes ("mm: fix mbind vma
    /// merge problem"). Since 2.6.34; before, it always cut.
    pub mbind_merges: bool,
    /// The default policy may be set over holes (`MPOL_MF_DISCONTIG_OK`). Since 2.6.16; before EFAULT, as
    /// for all others.
    pub mbind_default_skips_holes: bool,
    /// Holes are found at the begin, in the middle, and at the end alike. Since 5.5 ("mm/mempolicy.c: fix
    /// checking unmapped holes for mbind"); before, one at the begin was EFAULT even for the default
    /// policy, and one at the end went unseen if there was an area beyond.
    pub mbind_sees_all_holes: bool,
    /// A range may begin in a hole, or lie in one as a whole, if only there is an area above (`check_range`). Until
    /// 2.6.33; since 2.6.34, with the merging, EFAULT.
    pub mbind_begins_in_hole: bool,
    /// All nodes that are named must be there: EINVAL. Until 2.6.24; since 2.6.25 ("Mempolicy: silently restrict
    /// nodemask to allowed nodes"), those that are not are left out.
    pub mbind_needs_all_nodes: bool,
    /// `MPOL_MF_MOVE` and `MPOL_MF_MOVE_ALL` are known. Since 2.6.16; before EINVAL.
    pub mbind_moves: bool,
    /// Each area that gets a policy gets a copy of its own, for which there may be no memory (`vma_replace_policy`).
    /// Since 3.7 ("mempolicy: remove mempolicy sharing"); before, all had the one.
    pub mbind_copies_policy: bool,

    // mremap
    /// All arguments and the worst case of the number of areas are checked before anything is unmapped,
    /// and several areas move at once (`check_mremap_params`, `remap_move`). Since 6.17.
    pub mremap_checks_first: bool,
    /// The worst case is counted as what it is: an early check of two areas more for what is unmapped
    /// first, and two for the move (`__check_map_count_against_split`), of every `mremap`. Until 6.18 one
    /// of five and of three, of those that are given an address; since 7.2 at the latest what can come of
    /// it, and no more.
    pub mremap_counts_exactly: bool,
    /// What a move leaves behind when it shrinks is charged once more, and never given back:
    /// `vrm_calc_charge` takes the difference that there was before. From 6.17 to 7.3.3 ("mm/mremap: populate calculated
    /// fields in vrm state correctly").
    pub mremap_charges_what_shrank: bool,
    /// A source that cannot be unmapped is charged once more, though nobody will give that back: its areas are not
    /// accounted for any more ("mm/mremap: account memory on do_munmap() failure"). Since 5.11; before, what was left
    /// of it was taken off.
    pub mremap_charges_what_stays: bool,
    /// The same of a source that was not accounted for before. Since 6.15, with the moving written
    /// anew (`unmap_source_vma`).
    pub mremap_charges_all_that_stays: bool,
    /// A move that grows, and that the driver sends back, keeps the charge for what it would have grown by ("mm/mremap:
    /// don't account pages in vma_to_resize()"). From 5.16 to 7.3.3 ("mm/mremap: correctly uncharge accountable VMAs in
    /// error path").
    pub mremap_charges_what_came_back: bool,
    /// There must be an area at the old address even where nothing is looked up otherwise: when the mapping
    /// shrinks or keeps its size, or before the target of a move is checked. Since 5.16, when areas of
    /// hugetlbfs came to be movable, whose size decides about the arguments ("mm, hugepages: add mremap()
    /// support for hugepage backed vma"); before, they were EINVAL.
    pub mremap_looks_up_first: bool,
    /// The driver is asked whether the source may be cut before anything moves ("mremap: check if it's
    /// possible to split original vma"). Since 5.11; before, a refusal came when the copy was made, and
    /// left both.
    pub mremap_asks_first: bool,
    /// `MREMAP_FIXED` checks the worst case of the number of areas before it unmaps ("mm,mremap: bail out
    /// earlier in mremap_to under map pressure"). Since 5.1.
    pub mremap_counts_first: bool,
    /// What grows in place merges with the area behind it ("mm: add merging after mremap resize"). Since 6.1. What
    /// may never merge because it has a `close` hook grows by itself (since 6.2 and 6.1.10; before, ENOMEM by
    /// mistake).
    pub mremap_grown_merges: bool,
    /// A private mapping cannot be duplicated by an old length of 0: EINVAL. Since 4.14 ("mm/mremap: fail
    /// map duplication attempts for private mappings"); before, it gave a new mapping without what was
    /// written to the old one.
    pub mremap_duplicates_shared_only: bool,
    /// The pages of an area that moves as a whole are counted at their new place. Since 2.6.12; before,
    /// they were added by means of the old area, which was gone by then, and so were lost to `VmSize`
    /// and the others.
    pub mremap_counts_whole_moves: bool,
    /// Which areas `MREMAP_DONTUNMAP` is for. None until 5.6; from 5.7 to 5.12 private anonymous ones
    /// ("mm/mremap: add MREMAP_DONTUNMAP to mremap()"); since 5.13 all that may grow ("mm: Extend
    /// MREMAP_DONTUNMAP to non-anonymous mappings").
    pub dontunmap: Dontunmap,
    /// `mremap` with `MREMAP_DONTUNMAP` treats the source as an area of its own: a locked range is cut out,
    /// so that it alone is unlocked, and leaves `locked_vm` (`needs_pre_split`); the copy never merges with
    /// the source (`copy_vma`); and a source that lost its pages gets the page offset of one that never had
    /// any (`dontunmap_complete`). From 6.1 to 6.12, in later stable versions of both, and again since 7.2
    /// at the latest, not in 6.18. Before, all of the source area was unlocked, and `locked_vm` kept it.
    pub dontunmap_is_clean: bool,
    /// `MREMAP_DONTUNMAP` of pages amid an area that is accounted for takes them for unmapped: the area above, whatever
    /// it is, is marked as accounted for, too, and gives back in the end what was never charged. From 5.7 to 5.10;
    /// since 5.11 ("mremap: for MREMAP_DONTUNMAP check security_vm_enough_memory_mm()"), none is.
    pub dontunmap_accounts_above: bool,
    /// The source of `MREMAP_DONTUNMAP` loses its `anon_vma` with its pages. Since 5.12.
    pub dontunmap_unlinks: bool,
    /// The locked pages of the copy are counted, although those of the source stay in `locked_vm`
    /// (`vrm_stat_account`). From 6.17 on, until `dontunmap_is_clean`.
    pub dontunmap_counts_copy: bool,
    /// A copy right beside its source, of memory that was never written to, merges with nothing, not even
    /// on its other side (`copy_vma`). From 6.1 to 6.11: in later stable versions of 6.1 alone.
    pub dontunmap_beside_source_is_alone: bool,

    // userfaultfd
    /// When a userfaultfd is told of an unmapping. It is told even if that fails afterwards. Never until
    /// 4.10; from 4.11 to 4.13 before the splits ("userfaultfd: non-cooperative: add event for memory
    /// unmaps"); from 4.14 to 6.11 after them; since 6.12 with the first area that it watches
    /// (`vms_gather_munmap_vmas`).
    pub unmap_announced: Announced,
    /// Which areas a userfaultfd can watch (`vma_can_userfault`). None until 4.2; from 4.3 to 4.10 private
    /// anonymous ones; since 4.11 those of shared memory and of huge pages, too.
    pub userfaultfd: Userfaultfd,
    /// It tells of moves and of pages that are dropped (`UFFD_EVENT_REMAP`, `UFFD_EVENT_REMOVE`). Since 4.11.
    pub uffd_tells: bool,
    /// Memory that may never be written to cannot be watched: EPERM ("userfaultfd: shmem/hugetlbfs: only allow to
    /// register VM_MAYWRITE vmas"). Since 4.20.
    pub uffd_needs_maywrite: bool,
    /// What `mremap` unmaps at the target is told, too, and before the move. Since 4.13; before, it was
    /// not told at all.
    pub mremap_tells_of_target: bool,
    /// Registering a part of an area looks for neighbours to merge with by the offset of the whole area, so
    /// that it finds none. Until 6.3; since 6.4 by that of the part ("mm/uffd: fix vma operation where
    /// start addr cuts part of vma").
    pub uffd_merges_by_area_offset: bool,
    /// A move that shrinks is told with the length that it had before (`mremap_userfaultfd_complete`).
    /// Until 6.16; since, with the new one.
    pub remap_told_before_shrinking: bool,

    // Faults
    /// A page that may be written may be read. Since 2.6.19 ("make PROT_WRITE imply PROT_READ": the
    /// hardware knows no other); before, reading needed PROT_READ or PROT_EXEC.
    pub write_implies_read: bool,
    /// A private copy gets its `anon_vma` before the page that it copies is looked for ("mm: preallocate
    /// page before lock_page() at filemap COW"). Since 3.1; before, a fault beyond the end of a file left
    /// none.
    pub anon_vma_before_page: bool,

    // Counters
    /// `VmData` is what is neither of a file nor a stack, and `VmSize` leaves out what is no ordinary
    /// memory. Until 4.4 (the latter until 3.6, "mm: kill vma flag VM_RESERVED and mm->reserved_vm
    /// counter"); since 4.5 it is what is private, writable and no stack ("mm: rework virtual memory
    /// accounting").
    pub data_is_the_rest: bool,
    /// RLIMIT_DATA is of the heap alone. Until 4.4; since 4.5 ("mm: rework virtual memory accounting"), of all that
    /// counts as `VmData`.
    pub data_limit_is_of_heap: bool,
    /// Of a single request, as much as there is of memory is too much already. Until 5.1, where what was free or could
    /// be freed decided; since 5.2 ("mm: fix false-positive OVERCOMMIT_GUESS failures"), all of memory and swap may be
    /// asked for.
    pub guess_wants_more: bool,
    /// What a large process leaves to others of what can be promised has an upper bound (`vm.user_reserve_kbytes`).
    /// Since 3.10; before, it was a 32nd of its size, however large.
    pub user_reserve_is_bounded: bool,

    /// A deliberate error, for testing testers. `None` in every era.
    pub mistake: Option<Mistake>,
}
}

/// When `mmap` checks its resource limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// When what is in the way is gone: a refusal leaves a hole. Until 3.9.
    AfterUnmapping,
    /// Before anything is cut, net of what is in the way. From 3.10 to 6.11.
    BeforeCuts,
    /// When what is in the way was cut out, net of it: a refusal leaves the cuts. Since 6.12.
    AfterCuts,
}

/// When a mapping of a driver that has `mmap` is tried for merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverMerges {
    /// When the driver was asked, so that it hears of each mapping. Until 2.6.28.
    AfterAsking,
    /// Before, so that it hears of those alone that did not merge. From 2.6.29 ("Fix OOPS in mmap_region() when merging
    /// adjacent VM_LOCKED file segments") to 5.8, and since 6.17.
    BeforeAsking,
    /// Before, and afterwards again if the driver changed the flags and there is any area below ("mm: mmap: merge vma
    /// after call_mmap() if possible"). From 5.9 to 6.16.
    Twice,
}

/// How a stack keeps its distance from what is below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackGuard {
    /// Not at all: until 2.6.35.
    None,
    /// Its lowest page is not used and not shown; a touch of it grows the stack
    /// (`check_stack_guard_page`). From 2.6.36 to 4.11.
    Page,
    /// By `stack_guard_gap`, which others do not build on (`vm_start_gap`). Since 4.12.
    Gap,
}

/// How far down a stack may grow (`expand_downwards`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackFloor {
    /// To the first address. Until 2.6.23.
    None,
    /// To `vm.mmap_min_addr`, but below with CAP_SYS_RAWIO. From 2.6.24 to 4.20.
    ForMost,
    /// To `vm.mmap_min_addr` ("mm: enforce min addr even if capable() in expand_downwards()"). Since 5.0, and in later
    /// stable versions of older kernels.
    ForAll,
}

/// What is special about protection key 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyZero {
    /// It cannot be freed. Until 4.10.
    Kept,
    /// A program that names it gets EINVAL. From 4.11 to 4.16, but for later stable versions.
    Refused,
    /// Nothing: it can be freed, and then be had anew. Since 4.17.
    Ordinary,
}

/// Which areas a userfaultfd can watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Userfaultfd {
    /// There is none: ENOSYS. Until 4.2.
    Unknown,
    /// Private anonymous ones. From 4.3 to 4.10.
    Anonymous,
    /// Those of shared memory and of huge pages, too. Since 4.11.
    Shared,
}

/// When a userfaultfd is told of an unmapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// Never: until 4.10.
    Never,
    /// Before the first split, so that it is told of what then fails for want of room. From 4.11 to
    /// 4.13.
    BeforeSplits,
    /// After the last split ("userfaultfd: call userfaultfd_unmap_prep only if __split_vma succeeds"). From
    /// 4.14 to 6.11.
    AfterSplits,
    /// With the first area that it watches, so that a sealed one behind that comes too late. Since 6.12.
    WithEachArea,
}

/// Which areas `MREMAP_DONTUNMAP` is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dontunmap {
    /// The flag is unknown: EINVAL. Until 5.6.
    Unknown,
    /// Private anonymous areas alone. From 5.7 to 5.12.
    Anonymous,
    /// All that may grow. Since 5.13.
    Any,
}

/// A rule that is deliberately wrong, so that a tester can prove that it notices. Never part of an era.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mistake {
    /// The upper piece of a split keeps the offset of the whole.
    SplitLosesOffset,
    /// A split calls `open` on neither piece.
    SplitForgetsOpen,
    /// Unmapping a range in which nothing is mapped is EINVAL.
    MunmapOfHoleFails,
    /// A length of 0 unmaps nothing and succeeds.
    MunmapOfNothingWorks,
    /// At the limit any split of munmap is refused, as before 2.6.33.
    LimitAtEverySplit,
    /// The limit on the number of areas is one lower.
    MapCountOffByOne,
    /// `close` is called in descending order of addresses.
    CloseBackwards,
    /// A new range never merges with the area above it.
    NoMergeForward,
    /// A new range merges with neighbours whatever their offsets are.
    MergeIgnoresOffset,
    /// A `close` hook does not stop a merge from removing the area.
    MergeIgnoresClose,
    /// Private areas merge though they have different `anon_vma`s.
    MergeIgnoresAnonVma,
    /// A new range of locked memory is not counted.
    LockedNotCounted,
    /// `MAP_FIXED` counts what it replaces twice.
    ReplacedCountedTwice,
    /// `MAP_FIXED_NOREPLACE` replaces.
    NoreplaceReplaces,
    /// Addresses are chosen without a thought of stacks that may grow.
    NoGuardGap,

    // Errors that some kernel once had.
    /// A split that the driver refuses calls `close` on the piece that never came to be.
    FailedSplitCloses,
    /// A `munmap` that is refused half way has taken the areas so far out of `locked_vm`.
    FailedMunmapUnlocks,
    /// A range merges into the area behind it that maps what is inside the range: the offset goes below
    /// zero.
    MergeUnderflowsOffset,
    /// An area that grows down over a part of another one gets the flags that the part had.
    NextKeepsOldFlags,
    /// An area that was written to never merges with one that was not.
    NoUnwrittenMerge,
    /// When an area in the middle merges with both its neighbours, the one behind is removed twice: the
    /// second time it is the next but one.
    NextRemovedTwice,
    /// `mremap` of a part that ends where its area ends grows by the offset that follows the length of
    /// the part, not of the area.
    MremapGrowsFromPart,
    /// `mremap` goes on though what is too much could not be unmapped.
    MremapIgnoresUnmap,
    /// `mremap` to a length of 0 unmaps.
    MremapToNothingWorks,
    /// The break may go beyond the end of the addresses.
    BrkUnbounded,
}

impl Mistake {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::SplitLosesOffset,
        Self::SplitForgetsOpen,
        Self::MunmapOfHoleFails,
        Self::MunmapOfNothingWorks,
        Self::LimitAtEverySplit,
        Self::MapCountOffByOne,
        Self::CloseBackwards,
        Self::NoMergeForward,
        Self::MergeIgnoresOffset,
        Self::MergeIgnoresClose,
        Self::MergeIgnoresAnonVma,
        Self::LockedNotCounted,
        Self::ReplacedCountedTwice,
        Self::NoreplaceReplaces,
        Self::NoGuardGap,
        Self::FailedSplitCloses,
        Self::FailedMunmapUnlocks,
        Self::MergeUnderflowsOffset,
        Self::NextKeepsOldFlags,
        Self::NoUnwrittenMerge,
        Self::NextRemovedTwice,
        Self::MremapGrowsFromPart,
        Self::MremapIgnoresUnmap,
        Self::MremapToNothingWorks,
        Self::BrkUnbounded,
    ];
}

impl Rules {
    /// Linux 2.6.11: the areas in a red-black tree and a sorted list, with one look-up cache.
    pub const V2_6_11: Self = Self {
        name: "V2_6_11",
        since: (2, 6, 11),
        limit_at_every_split: true,
        new_piece_goes: true,
        special_is_whole: false,
        asks_before_split: false,
        tells_of_mremap: false,
        tells_of_mapped: false,
        asks_before_mprotect: false,
        merge_into_unwritten: true,
        fork_makes_anon_vmas: false,
        close_forbids_merging: true,
        failed_merge_is_an_error: false,
        tree_takes_memory: false,
        mmap_asks_above_first: false,
        private_pages_know_their_place: false,
        mmap_checks_room: Room::AfterUnmapping,
        driver_merges: DriverMerges::AfterAsking,
        mmap_prepare: false,
        file_checked_first: true,
        noexec_is_for_ever: false,
        write_seal: false,
        write_seal_lets_read: false,
        write_seal_checked_first: false,
        future_write_seal: false,
        future_write_seal_checked_first: false,
        shared_memory_keeps_offset: true,
        dontcopy_is_special: true,
        special_is_not_locked: false,
        file_size_is_bounded: false,
        mmap_of_nothing_works: true,
        fixed_noreplace: false,
        shared_validate: false,
        map_sync: false,
        above4g: false,
        map_hugetlb: false,
        droppable: false,
        droppable_is_not_locked: false,
        stack_is_nohugepage: false,
        noreserve_is_kept: false,
        hugetlb_rounds_length: false,
        hugetlb_rounds_hint_down: false,
        hugetlb_heeds_map_flags: false,
        hugetlb_reads_within_file: true,
        mmap_hides_unmap_error: true,
        charge_before_unmap: false,
        failed_mmap_forgets_charge: false,
        stack_checked_first: false,
        first_fit_upwards: true,
        anon_huge_aligned: false,
        file_huge_aligned: false,
        huge_aligned_at_the_top: false,
        small_gap_hides_stack: false,
        stack_guard: StackGuard::None,
        stack_limit_spares_guard: false,
        stack_floor: StackFloor::None,
        mprotect_checks_empty: true,
        mprotect_refuses_hugetlb: true,
        mprotect_asks_again: false,
        mprotect_unaccounts: false,
        mlock_merges: false,
        mlock_populates_each: true,
        mlock_counts_in_an_int: true,
        pkeys: false,
        execute_only_key_is_reserved: false,
        key_zero: KeyZero::Kept,
        fork_copies_keys: false,
        mdwe: false,
        mdwe_no_inherit: false,
        mseal: false,
        remap_file_pages_is_mmap: false,
        brk_needs_heap: false,
        brk_stays_apart: false,
        brk_goes_down_to_code: true,
        brk_shrinks_beyond_limit: true,
        brk_limit_counts_gap: true,
        mlockall_checks_onfault: false,
        lock_on_fault_needs_access: true,
        mlock2: false,
        mlock_counts_once: false,
        madvise_merges: false,
        populate_skips_holes: true,
        madvise_tells_of_limit: false,
        willneed_needs_file: true,
        dontneed_takes_hugetlb: false,
        dofork_refuses_special: false,
        last_advice: 4,
        advice_checked_first: false,
        guards: false,
        guards_are_flagged: false,
        names: false,
        names_shared: false,
        last_policy: 3,
        mbind_merges: false,
        mbind_default_skips_holes: false,
        mbind_sees_all_holes: false,
        mbind_begins_in_hole: true,
        mbind_needs_all_nodes: true,
        mbind_moves: false,
        mbind_copies_policy: false,
        mremap_checks_first: false,
        mremap_counts_exactly: false,
        mremap_charges_what_shrank: false,
        mremap_charges_what_stays: false,
        mremap_charges_all_that_stays: false,
        mremap_charges_what_came_back: false,
        mremap_looks_up_first: false,
        mremap_asks_first: false,
        mremap_counts_first: false,
        mremap_grown_merges: false,
        mremap_duplicates_shared_only: false,
        mremap_counts_whole_moves: false,
        dontunmap: Dontunmap::Unknown,
        dontunmap_is_clean: false,
        dontunmap_accounts_above: false,
        dontunmap_unlinks: false,
        dontunmap_counts_copy: false,
        dontunmap_beside_source_is_alone: false,
        unmap_announced: Announced::Never,
        userfaultfd: Userfaultfd::Unknown,
        uffd_tells: false,
        uffd_needs_maywrite: false,
        mremap_tells_of_target: false,
        uffd_merges_by_area_offset: true,
        remap_told_before_shrinking: true,
        write_implies_read: false,
        anon_vma_before_page: false,
        data_is_the_rest: true,
        data_limit_is_of_heap: true,
        guess_wants_more: true,
        user_reserve_is_bounded: false,
        mistake: None,
    };

    /// Linux 4.9.
    pub const V4_9: Self = Self {
        name: "V4_9",
        since: (4, 9, 0),
        limit_at_every_split: false,
        merge_into_unwritten: false,
        fork_makes_anon_vmas: true,
        mmap_checks_room: Room::BeforeCuts,
        mmap_of_nothing_works: false,
        noreserve_is_kept: true,
        hugetlb_rounds_length: true,
        hugetlb_reads_within_file: false,
        mprotect_refuses_hugetlb: false,
        stack_checked_first: true,
        first_fit_upwards: false,
        stack_guard: StackGuard::Page,
        mprotect_checks_empty: false,
        tells_of_mremap: true,
        mlock_merges: true,
        mlock2: true,
        pkeys: true,
        remap_file_pages_is_mmap: true,
        willneed_needs_file: false,
        mlock_populates_each: false,
        mremap_counts_whole_moves: true,
        madvise_merges: true,
        last_advice: 17,
        advice_checked_first: true,
        last_policy: 4,
        mbind_merges: true,
        mbind_default_skips_holes: true,
        write_implies_read: true,
        anon_vma_before_page: true,
        data_is_the_rest: false,
        data_limit_is_of_heap: false,
        user_reserve_is_bounded: true,
        driver_merges: DriverMerges::BeforeAsking,
        file_checked_first: false,
        noexec_is_for_ever: true,
        write_seal: true,
        shared_memory_keeps_offset: false,
        dontcopy_is_special: false,
        special_is_not_locked: true,
        map_hugetlb: true,
        stack_limit_spares_guard: true,
        stack_floor: StackFloor::ForMost,
        mlock_counts_once: true,
        mbind_begins_in_hole: false,
        mbind_needs_all_nodes: false,
        mbind_moves: true,
        mbind_copies_policy: true,
        brk_goes_down_to_code: false,
        brk_shrinks_beyond_limit: false,
        brk_limit_counts_gap: false,
        userfaultfd: Userfaultfd::Anonymous,
        ..Self::V2_6_11
    };

    /// Linux 4.12.
    pub const V4_12: Self = Self {
        name: "V4_12",
        since: (4, 12, 0),
        stack_guard: StackGuard::Gap,
        madvise_tells_of_limit: true,
        unmap_announced: Announced::BeforeSplits,
        stack_limit_spares_guard: false,
        userfaultfd: Userfaultfd::Shared,
        uffd_tells: true,
        key_zero: KeyZero::Refused,
        ..Self::V4_9
    };

    /// Linux 5.10, the last long-term kernel with the red-black tree.
    pub const V5_10: Self = Self {
        name: "V5_10",
        since: (5, 10, 0),
        hugetlb_rounds_hint_down: true,
        fixed_noreplace: true,
        shared_validate: true,
        asks_before_split: true,
        last_advice: 21,
        mlockall_checks_onfault: true,
        mbind_sees_all_holes: true,
        mremap_counts_first: true,
        mremap_duplicates_shared_only: true,
        dontunmap: Dontunmap::Anonymous,
        dontunmap_accounts_above: true,
        unmap_announced: Announced::AfterSplits,
        driver_merges: DriverMerges::Twice,
        file_size_is_bounded: true,
        write_seal_lets_read: true,
        write_seal_checked_first: true,
        future_write_seal: true,
        map_sync: true,
        stack_floor: StackFloor::ForAll,
        uffd_needs_maywrite: true,
        guess_wants_more: false,
        execute_only_key_is_reserved: true,
        key_zero: KeyZero::Ordinary,
        fork_copies_keys: true,
        mremap_tells_of_target: true,
        ..Self::V4_12
    };

    /// Linux 6.1, the first long-term kernel with the maple tree.
    pub const V6_1: Self = Self {
        name: "V6_1",
        since: (6, 1, 0),
        special_is_whole: true,
        asks_before_mprotect: true,
        brk_needs_heap: true,
        brk_stays_apart: true,
        tree_takes_memory: true,
        mmap_asks_above_first: true,
        small_gap_hides_stack: true,
        file_huge_aligned: true,
        mremap_looks_up_first: true,
        mremap_charges_what_stays: true,
        mremap_charges_what_came_back: true,
        mremap_asks_first: true,
        mremap_grown_merges: true,
        last_advice: 25,
        lock_on_fault_needs_access: false,
        madvise_tells_of_limit: false,
        last_policy: 5,
        names: true,
        dontneed_takes_hugetlb: true,
        dontunmap: Dontunmap::Any,
        dontunmap_accounts_above: false,
        dontunmap_is_clean: true,
        dontunmap_unlinks: true,
        dontunmap_beside_source_is_alone: true,
        ..Self::V5_10
    };

    /// Linux 6.12.
    pub const V6_12: Self = Self {
        name: "V6_12",
        since: (6, 12, 0),
        droppable_is_not_locked: true,
        new_piece_goes: false,
        close_forbids_merging: false,
        mmap_asks_above_first: false,
        mmap_checks_room: Room::AfterCuts,
        dontunmap_beside_source_is_alone: false,
        last_policy: 6,
        names_shared: true,
        droppable: true,
        future_write_seal_checked_first: true,
        populate_skips_holes: false,
        mdwe: true,
        mdwe_no_inherit: true,
        mseal: true,
        stack_is_nohugepage: true,
        above4g: true,
        mmap_hides_unmap_error: false,
        charge_before_unmap: true,
        failed_mmap_forgets_charge: true,
        anon_huge_aligned: true,
        huge_aligned_at_the_top: true,
        mprotect_asks_again: true,
        mprotect_unaccounts: true,
        unmap_announced: Announced::WithEachArea,
        uffd_merges_by_area_offset: false,
        ..Self::V6_1
    };

    /// Linux 6.18.
    pub const V6_18: Self = Self {
        name: "V6_18",
        since: (6, 18, 0),
        hugetlb_rounds_hint_down: false,
        hugetlb_heeds_map_flags: true,
        guards: true,
        guards_are_flagged: true,
        failed_merge_is_an_error: true,
        driver_merges: DriverMerges::BeforeAsking,
        mmap_prepare: true,
        merge_into_unwritten: true,
        mremap_checks_first: true,
        mremap_charges_what_shrank: true,
        mremap_charges_all_that_stays: true,
        remap_told_before_shrinking: false,
        dontunmap_is_clean: false,
        dontunmap_counts_copy: true,
        ..Self::V6_12
    };

    /// Linux 7.2.
    pub const V7_2: Self = Self {
        name: "V7_2",
        since: (7, 2, 0),
        dofork_refuses_special: true,
        tells_of_mapped: true,
        mremap_counts_exactly: true,
        dontunmap_is_clean: true,
        ..Self::V6_18
    };

    /// Linux 7.3.
    pub const V7_3: Self = Self {
        name: "V7_3",
        since: (7, 3, 0),
        private_pages_know_their_place: true,
        ..Self::V7_2
    };

    /// Linux 7.3.4.
    pub const V7_3_4: Self = Self {
        name: "V7_3_4",
        since: (7, 3, 4),
        failed_mmap_forgets_charge: false,
        mremap_charges_what_shrank: false,
        mremap_charges_what_came_back: false,
        mlock_counts_in_an_int: false,
        ..Self::V7_3
    };

    const ALL: &'static [Self] = &[
        Self::V2_6_11,
        Self::V4_9,
        Self::V4_12,
        Self::V5_10,
        Self::V6_1,
        Self::V6_12,
        Self::V6_18,
        Self::V7_2,
        Self::V7_3,
        Self::V7_3_4,
    ];

    /// All eras, oldest first.
    pub const fn all() -> &'static [Self] {
        Self::ALL
    }

    /// The newest era that is not newer than a kernel, given its release as `uname -r` prints it
    /// (`"6.18.44-cloud"`). `None` for a kernel older than all eras, or for what is not a release.
    ///
    /// ```
    /// use vmalab_model::Rules;
    /// assert_eq!(Rules::for_kernel("6.18.44-cloud").unwrap().name, "V6_18");
    /// assert_eq!(Rules::for_kernel("6.17.2").unwrap().name, "V6_12");
    /// assert_eq!(Rules::for_kernel("7.3-cloud-amd64").unwrap().name, "V7_3");
    /// assert!(Rules::for_kernel("2.4.0").is_none());
    /// ```
    pub fn for_kernel(release: &str) -> Option<&'static Self> {
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map_while(|part| part.parse::<u16>().ok());
        let version = (
            numbers.next()?,
            numbers.next()?,
            numbers.next().unwrap_or(0),
        );
        Self::ALL.iter().rev().find(|rules| rules.since <= version)
    }

    /// The fields in which another era differs from this one.
    ///
    /// ```
    /// use vmalab_model::Rules;
    /// let changed: Vec<_> = Rules::V4_9.differences(&Rules::V4_12).map(|field| field.name).collect();
    /// assert_eq!(
    ///     changed,
    ///     [
    ///         "stack_guard",
    ///         "stack_limit_spares_guard",
    ///         "key_zero",
    ///         "madvise_tells_of_limit",
    ///         "unmap_announced",
    ///         "userfaultfd",
    ///         "uffd_tells",
    ///     ]
    /// );
    /// ```
    pub fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'static Field> + 'a {
        Self::FIELDS
            .iter()
            .filter(move |field| field.differs(self, other))
    }

    /// The era of that name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|rules| rules.name == name)
    }

    /// These rules with one of them broken.
    pub const fn with_mistake(mut self, mistake: Mistake) -> Self {
        self.mistake = Some(mistake);
        self
    }

    pub(crate) fn errs(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }
}
