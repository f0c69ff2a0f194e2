// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What `munmap` and its family do to a Linux address space, era by era.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod abi;
mod account;
pub mod container;
mod fault;
pub mod file;
mod fork;
pub mod gather;
mod invariants;
pub mod limits;
mod madvise;
mod merge;
mod mlock;
mod mmap;
mod mprotect;
mod mremap;
mod munmap;
mod op;
mod outcome;
pub mod rules;
mod space;
mod split;
mod unmapped_area;
pub mod vma;

pub use abi::{Errno, MapFlags, MremapFlags, PAGE_SHIFT, PAGE_SIZE, Prot, VmFlags};
pub use container::{Container, SortedVec};
pub use file::File;
pub use limits::Limits;
pub use madvise::Advice;
pub use op::{Backing, FileId, Mmap, Op};
pub use outcome::{Area, Counters, Hook, HookCall, Object, Outcome};
pub use rules::{Mistake, Rules};
pub use space::{AddressSpace, RestoreError};
pub use vma::Vma;
