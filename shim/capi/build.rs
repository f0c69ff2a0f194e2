// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Gives the shared library its soname: the version of the interface, not of the package.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libvmalab.so.0");
}
