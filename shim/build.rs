// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Makes the module `vmalab::sys` out of `uapi/vmalab.h`.

use std::{env, path::PathBuf};

fn main() {
    let header = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../uapi/vmalab.h");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    println!("cargo::rerun-if-changed={}", header.display());

    bindgen::builder()
        .header(
            header
                .to_str()
                .expect("the path of the checkout is not UTF-8"),
        )
        .allowlist_item("(VMALAB|vmalab)_.*")
        .generate_cstr(true)
        .prepend_enum_name(false)
        .derive_default(true)
        .formatter(bindgen::Formatter::None)
        .derive_eq(true)
        // The ioctl numbers are macros with casts and sizeof: let clang evaluate them.
        .clang_macro_fallback()
        .clang_macro_fallback_build_dir(&out)
        // Take the header's plain comments as docs.
        .clang_arg("-fparse-all-comments")
        .generate()
        .expect(
            "bindgen could not read uapi/vmalab.h (it needs libclang: apt install libclang-dev)",
        )
        .write_to_file(out.join("sys.rs"))
        .expect("cannot write into OUT_DIR");
}
