// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The library with `mm/vma.c` calls what is in the program: libFuzzer, which it tells what is reached, and
//! the sanitizers, if both are made with them.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for of in ["__sanitizer_*", "__asan_*", "__ubsan_*"] {
        println!("cargo::rustc-link-arg-bins=-Wl,--export-dynamic-symbol={of}");
    }
}
