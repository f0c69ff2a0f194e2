// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Safe Rust over `/dev/vmalab`, the node of the module `vmalab.ko`.
//!
//! Every open of the node makes one memory *object*: zeroed pages by offset, allocated when they
//! are first touched. Descriptors and areas (VMAs) keep it alive. [`Device`] is a descriptor,
//! [`Mapping`] an area that this process owns.
//!
//! ```no_run
//! use vmalab::{Device, Prot};
//!
//! let device = Device::open()?;
//! device.set_size(4 * 4096)?;
//!
//! let mapping = device.map().length(4 * 4096).prot(Prot::READ | Prot::WRITE).shared()?;
//! mapping.write_at(0, b"still here")?;
//!
//! // Take the middle out: two mappings remain.
//! let rest = mapping.unmap_range(4096..3 * 4096)?;
//! let head = rest.head.expect("the first page");
//! assert_eq!(device.stats()?.areas, 2);
//!
//! let mut text = [0; 10];
//! head.read_at(0, &mut text)?;
//! assert_eq!(&text, b"still here");
//! # Ok::<(), vmalab::Error>(())
//! ```
//!
//! Every failure is an [`Error`]: it says what failed, why, and what to do about it, and keeps the
//! error number of the kernel.
//!
//! # Why there is no safe `&[u8]`
//! A shared mapping can change under a reference: another process, another thread or the kernel may
//! write to the object at any time, which Rust forbids for the target of a `&[u8]`. So the safe way
//! to the bytes is [`Mapping::read_at`] and [`Mapping::write_at`], which copy them one by one with
//! relaxed atomic accesses; racing with them is defined and gives old or new bytes. For all else
//! there are [`Mapping::as_ptr`] and the unsafe [`Mapping::as_slice`], which say what to promise.
//!
//! An object can also shrink ([`Device::set_size`], by anyone who has its descriptor). Touching a
//! page past its end raises SIGBUS. That ends the process, as a failed assertion in the kernel's
//! hands would; it is no undefined behaviour, and the safe methods do not prevent it.

mod device;
mod error;
mod hook;
mod look;
mod mapping;
mod object;
mod steer;
mod watch;

pub use device::{Device, Stats};
pub use error::Error;
pub use hook::{Hook, HookCounts, HookSet};
pub use look::{AnonVma, Area, AreaFile, Change, Counters, Snapshot, Step, StepKind, Unmapping};
pub use mapping::{MapOptions, Mapping, Prot, RawMapping, Remains, Sharing, UnmapError};
pub use object::{Seals, Written};
pub use steer::{AreaFlags, Rule, RuleCounts, RuleId};
pub use watch::{Event, Events, MappedWatch, Watch, WatchOptions, WatchState};

/// `uapi/vmalab.h` as bindgen reads it: the structures and numbers of the ioctls.
///
/// For tests of the module and for calls that this crate does not wrap; [`Device`] is the way to
/// use the node.
pub mod sys {
    #![allow(missing_docs, non_camel_case_types)]
    // bindgen writes a `Default` by hand for a structure with an array that is longer than 32.
    #![allow(clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/sys.rs"));
}

/// The size of a page of this machine, in bytes.
pub fn page_size() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| size.try_into().ok())
        .expect("every Linux system tells its page size")
}
