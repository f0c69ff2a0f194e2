// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Operations that follow from bytes, of which one of the first allocations fails, whatever it is of. No model
//! says what follows; but all that the kernel counts and links must agree with the areas, and nothing leak.

#![no_main]

use std::sync::{Mutex, OnceLock};

use libfuzzer_sys::fuzz_target;
use vmalab_differ::vmac::{VmaC, fail_allocations_of};

static ORACLE: OnceLock<Mutex<VmaC>> = OnceLock::new();

fuzz_target!(init: drop(ORACLE.set(Mutex::new(vmalab_fuzz::oracle()))), |bytes: &[u8]| {
    let oracle = ORACLE.get().expect("it was started");
    let mut oracle = oracle.lock().expect("what panics ends the program");
    if let Err(what) = fail_allocations_of(&mut oracle, bytes) {
        panic!("{what}");
    }
});
