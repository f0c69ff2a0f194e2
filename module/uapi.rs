// SPDX-License-Identifier: GPL-2.0-only

//! `uapi/vmalab.h`, as bindgen reads it: the contract with user space.
//!
//! The structures are plain bytes in both directions, without padding: the derived traits are proof
//! of it.

#![allow(non_camel_case_types, unused, missing_docs, unreachable_pub)]
#![allow(clippy::undocumented_unsafe_blocks)]

use kernel::{ffi, prelude::*};
use zerocopy_derive::Immutable;

include!(concat!(env!("VMALAB_GENERATED"), "/uapi.rs"));
