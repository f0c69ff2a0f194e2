// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Links without a C library and its start-up code.

fn main() {
    for arg in ["-nostdlib", "-nostartfiles", "-static", "-no-pie"] {
        println!("cargo::rustc-link-arg-bins={arg}");
    }
}
