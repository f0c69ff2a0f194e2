// SPDX-License-Identifier: GPL-2.0-only

//! `helpers.h`, as bindgen reads it: the C functions that have no binding in the kernel crate.

#![allow(dead_code, reason = "a driver uses the part of this that it needs")]
#![allow(missing_docs, unreachable_pub, clippy::undocumented_unsafe_blocks)]
// The zero-sized structures are zero-sized in C, too, and never passed by value.
#![allow(improper_ctypes)]

use kernel::{bindings::*, ffi};

include!(concat!(env!("VMALAB_GENERATED"), "/helpers.rs"));
