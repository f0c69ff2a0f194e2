// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Operations that follow from bytes, on the kernel's `mm/vma.c` and on the model: all that is seen is compared.
//! The first byte names the world, the others are the choices of the random generator.

#![no_main]

use std::sync::{Mutex, OnceLock};

use libfuzzer_sys::fuzz_target;
use vmalab_differ::runner::Runner;
use vmalab_differ::vmac::VmaC;

static RUNNER: OnceLock<Mutex<Runner<'static, VmaC>>> = OnceLock::new();

fn start() {
    let oracle = Box::leak(Box::new(vmalab_fuzz::oracle()));
    let rules = vmalab_fuzz::rules(oracle);
    let runner = Runner::new(oracle, rules).unwrap_or_else(|error| panic!("{error}"));
    assert!(RUNNER.set(Mutex::new(runner)).is_ok(), "it starts once");
}

fuzz_target!(init: start(), |bytes: &[u8]| {
    let runner = RUNNER.get().expect("it was started");
    let mut runner = runner.lock().expect("what panics ends the program");
    match runner.decode(bytes) {
        Ok(None) => {}
        Ok(Some(case)) => vmalab_fuzz::report(&mut runner, bytes, &case),
        Err(error) => panic!("{error}"),
    }
});
