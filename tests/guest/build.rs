// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Makes the list of all requests out of `uapi/vmalab.h`, so that none is forgotten.

use std::{env, fmt::Write, fs, path::PathBuf};

fn main() {
    let header =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../uapi/vmalab.h");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap()).join("requests.rs");
    println!("cargo::rerun-if-changed={}", header.display());

    let text = fs::read_to_string(&header).expect("uapi/vmalab.h is there");
    let requests = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words
            .next()
            .filter(|word| *word == "#define")
            .and(words.next())?;
        (name.starts_with("VMALAB_IOC_") && words.next()?.starts_with("_IO")).then_some(name)
    });
    let mut list = String::from("&[\n");
    for name in requests {
        writeln!(list, "(\"{name}\", vmalab::sys::{name}),").expect("a string grows");
    }
    fs::write(out, list + "]\n").expect("OUT_DIR can be written to");
}
