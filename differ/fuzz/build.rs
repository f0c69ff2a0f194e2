// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The library with `mm/vma.c` tells libFuzzer, which is in the program, what is reached.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,--export-dynamic-symbol=__sanitizer_cov_*");
}
