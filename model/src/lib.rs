// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What `munmap` and its family do to a Linux address space, era by era.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod abi;
mod op;
mod outcome;

pub use abi::{Errno, MapFlags, PAGE_SHIFT, PAGE_SIZE, Prot, VmFlags};
pub use op::{Backing, FileId, Mmap, Op};
pub use outcome::{Area, Counters, Hook, HookCall, Object, Outcome};
