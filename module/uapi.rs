// SPDX-License-Identifier: GPL-2.0-only

//! `uapi/vmalab.h`, as bindgen reads it: the contract with user space.
//!
//! The structures are plain bytes in both directions, without padding: the derived traits are proof
//! of it.

#![allow(
    clippy::undocumented_unsafe_blocks,
    missing_docs,
    non_camel_case_types,
    unreachable_pub,
    unused,
    reason = "bindgen writes it: names are C's, and nothing in it can be commented"
)]

use kernel::{ffi, prelude::*};
use zerocopy_derive::Immutable;

include!(concat!(env!("VMALAB_GENERATED"), "/uapi.rs"));
