// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The committed header is what cbindgen makes of the source.

use std::{env, fs, path::Path};

#[test]
fn the_header_is_up_to_date() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = here.join("include/libvmalab.h");
    let config = cbindgen::Config::from_file(here.join("cbindgen.toml")).unwrap();
    let mut made = Vec::new();
    cbindgen::generate_with_config(here, config)
        .unwrap()
        .write(&mut made);
    if env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let made = String::from_utf8(made).unwrap();
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == made,
        "include/libvmalab.h is out of date: make it anew with\n\
         UPDATE_HEADER=1 cargo test -p vmalab-capi --test header"
    );
}
