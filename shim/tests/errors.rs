// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Errors say what failed, why, and what to do; none of these needs the node.

use std::{fs::File, os::fd::OwnedFd};

use vmalab::{Device, sys};

#[test]
fn a_missing_node_names_the_module() {
    let error = Device::open_at("/nowhere/vmalab").unwrap_err();
    assert_eq!(error.errno(), libc::ENOENT);
    assert_eq!(
        error.to_string(),
        "cannot open /nowhere/vmalab: No such file or directory (ENOENT); the module is not \
         loaded: load it with `insmod vmalab.ko` as root, or try it in a guest with `make vm`"
    );
    assert_eq!(
        std::io::Error::from(error).kind(),
        std::io::ErrorKind::NotFound
    );
}

#[test]
fn a_foreign_descriptor_is_told_so() {
    let device = Device::from(OwnedFd::from(File::open("/dev/null").unwrap()));
    for error in [
        device.stats().unwrap_err(),
        device.module_stats().unwrap_err(),
        device.size().unwrap_err(),
        device.set_size(4096).unwrap_err(),
    ] {
        assert_eq!(error.errno(), libc::ENOTTY);
        assert!(
            error.to_string().contains("not one of /dev/vmalab"),
            "{error}"
        );
    }
}

#[test]
fn a_length_of_zero_is_told_so() {
    let device = Device::from(OwnedFd::from(File::open("/dev/null").unwrap()));
    let error = device.map().shared().unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot map 0 bytes from offset 0: Invalid argument (EINVAL); the length must not be 0"
    );
}

#[test]
fn the_request_numbers_carry_the_sizes_of_the_structures() {
    let size_in = |number: u32| ((number >> 16) & 0x3fff) as usize;
    assert_eq!(
        size_in(sys::VMALAB_IOC_STATS),
        size_of::<sys::vmalab_stats>()
    );
    assert_eq!(
        size_in(sys::VMALAB_IOC_GET_SIZE),
        size_of::<sys::vmalab_size>()
    );
    assert_eq!(
        size_in(sys::VMALAB_IOC_SET_SIZE),
        size_of::<sys::vmalab_size>()
    );
    for number in [
        sys::VMALAB_IOC_STATS,
        sys::VMALAB_IOC_GET_SIZE,
        sys::VMALAB_IOC_SET_SIZE,
    ] {
        assert_eq!((number >> 8) & 0xff, sys::VMALAB_IOC_TYPE);
    }
}
