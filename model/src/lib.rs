// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What `munmap` and its family do to a Linux address space, era by era.
//!
//! An [`AddressSpace`] holds areas, as the kernel's `mm_struct` holds `vm_area_struct`s. An [`Op`] is
//! applied to it by the [`Rules`] of an era, within [`Limits`], and gives an [`Outcome`]: the value or
//! the error, the hook calls that a driver sees, the areas and the counters. A real kernel asked the
//! same must answer the same.
//!
//! The eras, from 2.6.11 to 7.3, are constants of [`Rules`], and differ in its fields alone.
//!
//! # The life of an area
//!
//! One letter is a page, a capital begins an area, a dot is a hole.
//!
//! ```text
//! ................    nothing
//! ....Aaaaaaaa....    mmap      an area is born; a file's driver hears `mmap`
//! ....Aaaaaaaaaa..    mmap      the next one fits (same flags, same file, offsets go on):
//!                               the area grows, and the driver hears nothing
//! ....AaAaAaaaaa..    mprotect  other rights for two pages: cut out by two splits; the driver is
//!                               asked (`may_split`) and told (`open`) of each new piece
//! ....Aaaaaaaaaa..    mprotect  the old rights: merged again, if no driver wants to be told of areas
//!                               that vanish (`close`), and if no two written pieces met
//! ....Aaa...Aaaa..    munmap    gather: two splits; complete: `close` for what lay between
//! ....Aaa...Aa..Aa    mremap    the tail moves: copied (`open`), then unmapped (`close`)
//! ....Aaa...Aa..Aa    fork      the child's areas: the same, but they will merge less
//! ................    exit      `close`, one by one
//! ```
//!
//! The same, played:
//!
//! ```
//! use vmalab_model::{AddressSpace, Limits, Op, Prot, Rules};
//! # use vmalab_model::{Backing, MapFlags, Mmap, MremapFlags, PAGE_SIZE};
//! # use core::ops::Range;
//! # const BASE: u64 = 0x10_0000;
//! # fn addr(page: u64) -> u64 { BASE + page * PAGE_SIZE }
//! # fn len(pages: &Range<u64>) -> u64 { (pages.end - pages.start) * PAGE_SIZE }
//! # fn map(pages: Range<u64>) -> Op {
//! #     Op::Mmap(Mmap {
//! #         addr: addr(pages.start),
//! #         len: len(&pages),
//! #         prot: Prot::READ | Prot::WRITE,
//! #         flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED,
//! #         backing: Backing::None,
//! #         offset: 0,
//! #     })
//! # }
//! # fn protect(pages: Range<u64>, prot: Prot) -> Op {
//! #     Op::Mprotect { addr: addr(pages.start), len: len(&pages), prot }
//! # }
//! # fn unmap(pages: Range<u64>) -> Op {
//! #     Op::Munmap { addr: addr(pages.start), len: len(&pages) }
//! # }
//! # fn relocate(pages: Range<u64>, to: u64) -> Op {
//! #     Op::Mremap {
//! #         addr: addr(pages.start),
//! #         old_len: len(&pages),
//! #         new_len: len(&pages),
//! #         flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
//! #         new_addr: addr(to),
//! #     }
//! # }
//! # fn draw(space: &AddressSpace) -> String {
//! #     let mut drawn = vec![b'.'; 16];
//! #     for vma in space.areas() {
//! #         let page = |addr| ((addr - BASE) / PAGE_SIZE) as usize;
//! #         drawn[page(vma.start)..page(vma.end)].fill(b'a');
//! #         drawn[page(vma.start)] = b'A';
//! #     }
//! #     String::from_utf8(drawn).unwrap()
//! # }
//!
//! let mut space: AddressSpace = AddressSpace::new(Rules::V7_2, Limits::default());
//! let write = Prot::READ | Prot::WRITE;
//! for (op, drawn) in [
//!     (map(4..12), "....Aaaaaaaa...."),
//!     (map(12..14), "....Aaaaaaaaaa.."),
//!     (protect(6..8, Prot::READ), "....AaAaAaaaaa.."),
//!     (protect(6..8, write), "....Aaaaaaaaaa.."),
//!     (unmap(7..10), "....Aaa...Aaaa.."),
//!     (relocate(12..14, 14), "....Aaa...Aa..Aa"),
//!     (Op::Fork, "....Aaa...Aa..Aa"),
//!     (unmap(0..16), "................"),
//! ] {
//!     space.apply(&op).result.unwrap();
//!     assert_eq!(draw(&space), drawn, "{op:?}");
//! }
//! ```
//!
//! **Cut.** A split gives one piece a new structure, and the other keeps the old one. Which of the two is new
//! a driver can see: its `open` is called on that one, while the old one still covers all.
//!
//! ```text
//!        at                     new below           new above
//! |------|-------|             |=new=|------|      |------|=new=|
//! ```
//!
//! **Merged.** What is new beside two areas that fit becomes part of the lower one, and the upper one vanishes.
//! Where it may not, because its driver wants to be told (`close`) of what goes away, although nothing does,
//! the lower one grows alone.
//!
//! ```text
//!  prev   new  next                           with a close hook
//! |----|.....|-----|    ->   |--------------|         |---------|------|
//! ```
//!
//! **Written to.** The first private page ties an area to an `anon_vma`, by which the kernel finds who maps a page.
//! An area that has none takes that of a neighbour from which it might have been cut; two areas that got
//! theirs apart will never be one:
//!
//! ```text
//! |--a--|.....|--b--|    written to, each by itself
//! |--a--|-new-|--b--|    mapped between them: part of the left one,
//! |-----a-----|--b--|    for a and b are not the same
//! ```
//!
//! **Forked.** A child's areas have `anon_vma`s of their own, tied to the parent's. They merge with nothing that
//! was not written to, so that the lock of one never comes to be that of ever more processes.
//!
//! **Gone.** `munmap` goes over its range twice, so that all that can fail does so before anything is lost:
//!
//! ```text
//!            addr          addr+len
//! |----A------|---B---|------C----|      the range cuts A and C
//! |--A--|**A**|***B***|**C**|--C--|      gather: split, split; note what goes
//! |--A--|                   |--C--|      complete: count, close, forget
//! ```
//!
//! Three questions decide nearly all:
//!
//! - **May it be cut?** A split needs room below `vm.max_map_count` ([`Limits::max_map_count`]), the
//!   driver's consent, and no seal. Only `munmap` may go over the limit for a moment, so that memory can
//!   be given back at the limit.
//! - **May it merge?** Flags, object and offsets must fit; and so must the `anon_vma`, which an area gets
//!   with its first private page: two areas that got theirs apart stay apart. That is why the model has
//!   to know what was written to ([`Op::Touch`]).
//! - **What if it fails half way?** The splits that succeeded stay. An error before the old pages go
//!   leaves all else as it was, one after leaves a hole.
//!
//! # munmap, step by step
//!
//! The first half of `munmap`, [`gather`], only reads: here is what it would do.
//!
//! ```
//! use vmalab_model::gather::{Gather, Step};
//! use vmalab_model::{AddressSpace, Backing, Limits, MapFlags, Mmap, Op, Prot, Rules};
//!
//! let mut space: AddressSpace = AddressSpace::new(Rules::V7_2, Limits::default());
//! space.apply(&Op::Mmap(Mmap {
//!     addr: 0x10000,
//!     len: 0x10000,
//!     prot: Prot::READ,
//!     flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED,
//!     backing: Backing::None,
//!     offset: 0,
//! }));
//! //  0x10000  0x14000  0x18000  0x20000
//! //  |--------|********|--------|
//! let mut gather = Gather::new(0x14000, 0x18000, space.limits().max_map_count);
//! let steps: Vec<Step> = std::iter::from_fn(|| gather.next(&space)).collect();
//! assert_eq!(
//!     steps,
//!     [
//!         Step::Split { area: 0x10000, at: 0x14000, new_below: true },
//!         Step::Split { area: 0x14000, at: 0x18000, new_below: false },
//!         Step::Detach { start: 0x14000, end: 0x18000 },
//!     ]
//! );
//! ```
//!
//! # What a driver sees
//!
//! ```
//! use vmalab_model::{
//!     AddressSpace, Backing, File, Hook, Limits, MapFlags, Mmap, Op, Prot, Rules,
//! };
//!
//! let mut space: AddressSpace = AddressSpace::new(Rules::V7_2, Limits::default());
//! let device = space.add_file(File::device(16));
//! let mut map = Mmap {
//!     addr: 0x10000,
//!     len: 0x4000,
//!     prot: Prot::READ | Prot::WRITE,
//!     flags: MapFlags::SHARED | MapFlags::FIXED,
//!     backing: Backing::File(device),
//!     offset: 0,
//! };
//! let outcome = space.apply(&Op::Mmap(map));
//! assert_eq!(outcome.hooks[0].hook, Hook::Mmap);
//!
//! // The next four pages of the file behind the first four: the area grows unseen.
//! (map.addr, map.offset) = (0x14000, 0x4000);
//! let outcome = space.apply(&Op::Mmap(map));
//! assert!(outcome.hooks.is_empty());
//! assert_eq!(outcome.layout.len(), 1);
//! ```
//!
//! # Where to find what
//!
//! Each file names the kernel functions that it mirrors.
//!
//! | file | what | in the kernel |
//! |---|---|---|
//! | `rules`, `limits`, `file` | what differs between kernels, machines, drivers | |
//! | `space`, `vma`, `container` | the areas and where they are kept | `mm_struct`, `vm_area_struct`, maple tree |
//! | `gather`, `munmap` | the two halves of unmapping | `mm/vma.c` |
//! | `mmap`, `unmapped_area` | mapping, and the choice of an address | `mm/mmap.c`, `mm/vma.c`, `arch/x86` |
//! | `split`, `merge` | one area into two, two or three into one | `mm/vma.c` |
//! | `allocation` | memory for the kernel's own needs, and that it may fail | `kernel/fork.c`, `lib/maple_tree.c`, `mm/rmap.c` |
//! | `account` | counters, limits, what is promised | `mm/mmap.c`, `mm/util.c` |
//! | `fault`, `signal` | touching, stacks that grow, SIGSEGV and SIGBUS | `mm/memory.c`, `mm/vma.c`, `arch/x86/mm/fault.c` |
//! | `mprotect`, `mlock`, `madvise`, `mremap`, `mseal`, `brk`, `remap_file_pages`, `fork` | as they are called | the files of those names, `mm/mmap.c` |
//! | `mempolicy` | from where pages are taken | `mm/mempolicy.c` |
//! | `guards` | pages whose touch is refused | `mm/madvise.c` |
//! | `shm` | segments that are attached | `ipc/shm.c` |
//! | `shmem` | shared anonymous memory | `mm/shmem.c` |
//! | `memfd` | memory files that are sealed | `mm/memfd.c` |
//! | `steer` | drivers that are told to refuse | |
//! | `pkeys` | protection keys | `mm/mprotect.c`, `arch/x86/mm/pkeys.c` |
//! | `mdwe` | no memory that becomes executable | `kernel/sys.c`, `mm/vma.h` |
//! | `page_table` | which page tables go with areas | `mm/memory.c` |
//! | `userfaultfd` | areas that are watched from user space | `mm/userfaultfd.c` |
//! | `invariants` | what must always hold | `validate_mm` |
//!
//! # What is not modelled
//!
//! - Which pages are present (so `fault` hooks are not predicted), soft-dirty bits, the pool of huge pages.
//! - Other memory nodes than the first, and where pages are; the hooks `set_policy` and `get_policy`, and all
//!   others that [`Hook`] does not name.
//! - Shadow stacks; `personality(2)`, with which reading is executing (`READ_IMPLIES_EXEC`);
//!   `PR_SET_MEMORY_MERGE`; a thread that writes its rights to memory of a protection key by itself (`WRPKRU`).
//! - Of files: those that can only be appended to (EACCES), swap files (ETXTBSY), DAX, on which `MAP_SYNC` is known.
//! - A userfaultfd that write-protects or wants minor faults; `MADV_HWPOISON` and its like.
//! - That a memory file is sealed while it is mapped: its seals are there from the start ([`file::WriteSeal`]).
//!
//! Of the kernel's own allocations, those for areas, the tree that they are in, what ties them to their pages, their
//! policies and what a userfaultfd is told can fail ([`Allocation`]); those of names, of shared objects and of page
//! tables cannot.
//!
//! # Features
//!
//! - `alloc`, on by default: the model, which keeps its areas in allocated memory. Without it there is
//!   [`gather`] alone, which needs `core` and no other crate.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

#[cfg(feature = "alloc")]
mod abi;
#[cfg(feature = "alloc")]
mod account;
#[cfg(feature = "alloc")]
mod allocation;
#[cfg(feature = "alloc")]
mod brk;
#[cfg(feature = "alloc")]
pub mod container;
#[cfg(feature = "alloc")]
mod fault;
#[cfg(feature = "alloc")]
pub mod file;
#[cfg(feature = "alloc")]
mod fork;
pub mod gather;
#[cfg(feature = "alloc")]
mod guards;
#[cfg(feature = "alloc")]
mod invariants;
#[cfg(feature = "alloc")]
pub mod limits;
#[cfg(feature = "alloc")]
mod madvise;
#[cfg(feature = "alloc")]
mod mdwe;
#[cfg(feature = "alloc")]
mod memfd;
#[cfg(feature = "alloc")]
pub mod mempolicy;
#[cfg(feature = "alloc")]
mod merge;
#[cfg(feature = "alloc")]
mod mlock;
#[cfg(feature = "alloc")]
mod mmap;
#[cfg(feature = "alloc")]
mod mprotect;
#[cfg(feature = "alloc")]
mod mremap;
#[cfg(feature = "alloc")]
mod mseal;
#[cfg(feature = "alloc")]
mod munmap;
#[cfg(feature = "alloc")]
mod op;
#[cfg(feature = "alloc")]
mod outcome;
#[cfg(feature = "alloc")]
pub mod page_table;
#[cfg(feature = "alloc")]
mod pkeys;
#[cfg(feature = "alloc")]
mod remap_file_pages;
#[cfg(feature = "alloc")]
pub mod rules;
#[cfg(feature = "alloc")]
mod shm;
#[cfg(feature = "alloc")]
mod shmem;
#[cfg(feature = "alloc")]
mod signal;
#[cfg(feature = "alloc")]
mod space;
#[cfg(feature = "alloc")]
mod split;
#[cfg(feature = "alloc")]
mod steer;
#[cfg(feature = "alloc")]
mod unmapped_area;
#[cfg(feature = "alloc")]
mod userfaultfd;
#[cfg(feature = "alloc")]
pub mod vma;

#[cfg(feature = "alloc")]
pub use abi::{
    Errno, MapFlags, MdweFlags, MlockFlags, MlockallFlags, MremapFlags, PAGE_SHIFT, PAGE_SIZE,
    Prot, ShmFlags, VmFlags,
};
#[cfg(feature = "alloc")]
pub use allocation::Allocation;
#[cfg(feature = "alloc")]
pub use brk::Break;
#[cfg(feature = "alloc")]
pub use container::{BTree, Container, Gap, OutOfMemory, RbList, SortedVec};
#[cfg(feature = "alloc")]
pub use file::File;
#[cfg(feature = "alloc")]
pub use limits::Limits;
#[cfg(feature = "alloc")]
pub use madvise::Advice;
#[cfg(feature = "alloc")]
pub use op::{Backing, FileId, Mmap, NewName, Op};
#[cfg(feature = "alloc")]
pub use outcome::{Area, Counters, Hook, HookCall, Object, Outcome};
#[cfg(feature = "alloc")]
pub use rules::{Field, Mistake, Rules};
#[cfg(feature = "alloc")]
pub use signal::Signal;
#[cfg(feature = "alloc")]
pub use space::{AddressSpace, RestoreError};
#[cfg(feature = "alloc")]
pub use steer::{Asked, Steered};
#[cfg(feature = "alloc")]
pub use unmapped_area::PMD_SIZE;
#[cfg(feature = "alloc")]
pub use userfaultfd::UffdEvent;
#[cfg(feature = "alloc")]
pub use vma::{AnonVma, Name, Vma};
