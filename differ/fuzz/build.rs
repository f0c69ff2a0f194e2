// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The library with `mm/vma.c` calls what is in the program: libFuzzer, which it tells what is reached, and
//! the sanitizers, if both are made with them. A list of them is what each linker takes, also an old one.

fn main() {
    let exports = concat!(env!("CARGO_MANIFEST_DIR"), "/exports");
    println!("cargo::rerun-if-changed={exports}");
    println!("cargo::rustc-link-arg-bins=-Wl,--dynamic-list={exports}");
}
