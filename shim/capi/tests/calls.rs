// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The C functions, called as C calls them; none of these needs the node.

use std::{ffi::CStr, ptr, thread};

use nix::errno::Errno;
use vmalab_c::*;

fn last_error() -> String {
    // SAFETY: the text is valid until the next failure in this thread.
    unsafe { CStr::from_ptr(vmalab_last_error()) }
        .to_str()
        .unwrap()
        .into()
}

#[test]
fn a_failed_open_is_null_with_errno_and_advice() {
    // SAFETY: the path is a C string.
    let device = unsafe { vmalab_open(c"/nowhere/vmalab".as_ptr()) };
    assert!(device.is_null());
    assert_eq!(Errno::last(), Errno::ENOENT);
    assert!(
        last_error().contains("insmod vmalab.ko"),
        "{}",
        last_error()
    );

    let elsewhere = thread::spawn(last_error).join().unwrap();
    assert_eq!(elsewhere, "", "each thread has its own");
}

#[test]
fn null_is_refused_and_not_followed() {
    // SAFETY: null is allowed everywhere here.
    unsafe {
        assert_eq!(vmalab_fd(ptr::null()), -1);
        assert_eq!(Errno::last(), Errno::EINVAL);
        assert!(last_error().contains("did vmalab_open() fail?"));
        assert_eq!(vmalab_get_size(ptr::null(), ptr::null_mut()), -1);
        assert_eq!(vmalab_set_size(ptr::null(), 1), -1);
        assert_eq!(vmalab_get_stats(ptr::null(), 0, ptr::null_mut()), -1);
        let (none, nowhere) = (ptr::null(), ptr::null_mut());
        assert_eq!(
            vmalab_get_areas(none, 0, 1, nowhere, 0, ptr::null_mut()),
            -1
        );
        assert_eq!(Errno::last(), Errno::EINVAL);
        let steps = ptr::null_mut();
        assert_eq!(
            vmalab_would_unmap(none, 0, 1, 1, steps, 0, ptr::null_mut()),
            -1
        );
        assert_eq!(Errno::last(), Errno::EINVAL);
        assert_eq!(vmalab_fallocate(ptr::null(), 0, 0, 1), -1);
        assert_eq!(vmalab_fallocate(ptr::null(), 0, u64::MAX, 1), -1);
        assert!(last_error().contains("too large"));
        assert_eq!(vmalab_add_seals(ptr::null(), 1), -1);
        assert_eq!(vmalab_get_seals(ptr::null(), ptr::null_mut()), -1);
        assert_eq!(vmalab_get_written(ptr::null(), ptr::null_mut()), -1);
        assert_eq!(vmalab_set_name(ptr::null(), ptr::null(), 0), -1);
        assert!(vmalab_open_named(ptr::null()).is_null());
        assert_eq!(vmalab_set_area_flags(ptr::null(), 0), -1);
        assert_eq!(vmalab_add_rule(ptr::null(), ptr::null_mut()), -1);
        assert_eq!(vmalab_get_rule(ptr::null(), ptr::null_mut()), -1);
        assert_eq!(vmalab_clear_rules(ptr::null(), 0), -1);
        let addr = vmalab_map(ptr::null(), ptr::null_mut(), 1, 0, libc::MAP_SHARED, 0);
        assert_eq!(addr, libc::MAP_FAILED);
        vmalab_close(ptr::null_mut());
    }
}

#[test]
fn any_file_can_be_mapped_and_unmapped_in_parts() {
    let page = vmalab::page_size();
    // SAFETY: the device is open throughout, and nobody else uses the range.
    unsafe {
        let device = vmalab_open(c"/proc/self/exe".as_ptr());
        assert!(
            device.is_null(),
            "a running program is not open for writing"
        );
        assert_eq!(Errno::last(), Errno::ETXTBSY);

        let device = vmalab_open(c"/dev/zero".as_ptr());
        assert!(vmalab_fd(device) >= 0);
        let (prot, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
        let map = |flags| vmalab_map(device, ptr::null_mut(), 3 * page, prot, flags, 0);
        assert_eq!(map(0), libc::MAP_FAILED);
        assert!(last_error().contains("MAP_SHARED and MAP_PRIVATE"));
        assert_eq!(map(private | libc::MAP_FIXED), libc::MAP_FAILED);
        assert!(last_error().contains("MAP_FIXED needs an address"));

        let addr = map(private).cast::<u8>();
        addr.write(1);
        addr.add(2 * page).write(3);
        assert_eq!(vmalab_unmap(addr.add(1).cast(), page), -1);
        assert_eq!(Errno::last(), Errno::EINVAL);
        assert_eq!(vmalab_unmap(addr.add(page).cast(), 0), -1);
        assert_eq!(vmalab_unmap(addr.add(page).cast(), page), 0);
        assert_eq!((addr.read(), addr.add(2 * page).read()), (1, 3));
        assert_eq!(vmalab_unmap(addr.cast(), 3 * page), 0);

        assert_eq!(vmalab_set_size(device, 4096), -1);
        assert_eq!(Errno::last(), Errno::ENOTTY);
        vmalab_close(device);
    }
}
