// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Mappings of a memfd: all that the crate does without asking the module.
//!
//! Some look for holes in the address space, which other threads may fill: nextest gives each test
//! a process of its own; plain `cargo test` needs `-- --test-threads=1`.

use std::{
    ops::Range,
    os::fd::{AsRawFd, OwnedFd},
    thread,
};

use nix::{
    sys::memfd::{MFdFlags, memfd_create},
    unistd::ftruncate,
};
use vmalab::{Device, Mapping, Prot, Remains, Sharing, page_size};

/// A descriptor of a memfd of `pages` pages, in the place of the node.
fn memfd(pages: usize) -> Device {
    let fd: OwnedFd = memfd_create(c"vmalab", MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&fd, (pages * page_size()) as i64).unwrap();
    fd.into()
}

/// A shared mapping of `pages` pages, with the number of its page (from 1) in all bytes of each.
fn striped(pages: usize) -> Mapping {
    let mapping = memfd(pages)
        .map()
        .length(pages * page_size())
        .shared()
        .unwrap();
    for page in 0..pages {
        mapping.fill(bytes(page..page + 1), page as u8 + 1).unwrap();
    }
    mapping
}

fn bytes(pages: Range<usize>) -> Range<usize> {
    pages.start * page_size()..pages.end * page_size()
}

/// The stripes that a mapping has, and whether every byte is right.
fn stripes(mapping: &Mapping) -> Vec<u8> {
    let mut all = vec![0; mapping.len()];
    mapping.read_at(0, &mut all).unwrap();
    let mut stripes = Vec::new();
    for page in all.chunks(page_size()) {
        assert!(page.iter().all(|byte| *byte == page[0]), "a torn page");
        stripes.push(page[0]);
    }
    stripes
}

/// Whether the page at `addr` is mapped; no access is made.
fn mapped(addr: *mut u8) -> bool {
    // SAFETY: msync of a range that is not mapped answers ENOMEM and does nothing.
    unsafe { libc::msync(addr.cast(), page_size(), libc::MS_ASYNC) == 0 }
}

#[test]
fn the_middle_goes_and_both_sides_stay() {
    let whole = striped(5);
    let start = whole.as_ptr();
    let Remains { head, tail } = whole.unmap_range(bytes(1..3)).unwrap();
    let (head, tail) = (head.unwrap(), tail.unwrap());

    assert_eq!(stripes(&head), [1]);
    assert_eq!(stripes(&tail), [4, 5]);
    assert_eq!((head.offset(), tail.offset()), (0, 3 * page_size() as u64));
    assert_eq!(head.as_ptr(), start);
    assert_eq!(tail.as_ptr(), start.wrapping_add(3 * page_size()));
    assert!(!mapped(start.wrapping_add(page_size())));
    assert!(!mapped(start.wrapping_add(2 * page_size())));

    drop(head);
    assert!(!mapped(start));
    assert_eq!(stripes(&tail), [4, 5], "dropping the one leaves the other");
}

#[test]
fn the_ends_and_the_whole() {
    let Remains { head, tail } = striped(3).unmap_range(bytes(0..1)).unwrap();
    assert!(head.is_none());
    assert_eq!(stripes(&tail.unwrap()), [2, 3]);

    let Remains { head, tail } = striped(3).unmap_range(bytes(2..3)).unwrap();
    assert_eq!(stripes(&head.unwrap()), [1, 2]);
    assert!(tail.is_none());

    let Remains { head, tail } = striped(3).unmap_range(bytes(0..3)).unwrap();
    assert!(head.is_none() && tail.is_none());
}

#[test]
fn a_refused_range_gives_the_mapping_back() {
    let page = page_size();
    for range in [
        0..0,
        page..page,
        1..page,
        0..page + 1,
        page..4 * page,
        2 * page..page,
    ] {
        let error = striped(3).unmap_range(range.clone()).unwrap_err();
        assert_eq!(error.error().errno(), libc::EINVAL, "{range:?}");
        assert!(
            error
                .to_string()
                .contains("must begin and end at multiples")
        );
        assert_eq!(stripes(&error.into_mapping()), [1, 2, 3]);
    }
}

#[test]
fn a_length_is_rounded_up_to_pages() {
    let mapping = memfd(2).map().length(page_size() + 1).shared().unwrap();
    assert_eq!(mapping.len(), 2 * page_size());
    mapping.write_at(2 * page_size() - 1, &[7]).unwrap();
}

#[test]
fn lengths_and_offsets_that_cannot_be() {
    let device = memfd(1);
    let errno = |length, offset| {
        device
            .map()
            .length(length)
            .offset(offset)
            .shared()
            .unwrap_err()
            .errno()
    };
    assert_eq!(errno(0, 0), libc::EINVAL);
    assert_eq!(errno(1, 1), libc::EINVAL);
    assert_eq!(errno(usize::MAX, 0), libc::ENOMEM);
    assert_eq!(errno(1 << 62, 0), libc::ENOMEM);
    assert_eq!(errno(1, u64::MAX), libc::EOVERFLOW);
}

#[test]
fn shared_is_seen_and_private_is_not() {
    let device = memfd(1);
    let map = || device.map().length(page_size());
    let (one, other) = (map().shared().unwrap(), map().shared().unwrap());
    let private = map().private().unwrap();
    assert_eq!(
        (one.sharing(), private.sharing()),
        (Sharing::Shared, Sharing::Private)
    );

    one.write_at(3, b"seen").unwrap();
    private.write_at(3, b"mine").unwrap();
    let mut text = [0; 4];
    other.read_at(3, &mut text).unwrap();
    assert_eq!(&text, b"seen");
    private.read_at(3, &mut text).unwrap();
    assert_eq!(&text, b"mine");
}

#[test]
fn copies_stay_inside_and_keep_to_the_protection() {
    let page = page_size();
    let mut mapping = striped(1);
    for (at, count) in [(page, 1), (page - 1, 2), (usize::MAX, 2), (0, page + 1)] {
        let mut buffer = vec![0; count];
        assert_eq!(
            mapping.read_at(at, &mut buffer).unwrap_err().errno(),
            libc::EINVAL
        );
        assert_eq!(
            mapping.write_at(at, &buffer).unwrap_err().errno(),
            libc::EINVAL
        );
    }
    mapping.read_at(page, &mut []).unwrap();

    mapping.protect(Prot::READ).unwrap();
    assert_eq!(mapping.write_at(0, &[0]).unwrap_err().errno(), libc::EACCES);
    assert_eq!(mapping.fill(0..1, 0).unwrap_err().errno(), libc::EACCES);
    assert_eq!(stripes(&mapping), [1]);
    mapping.protect(Prot::empty()).unwrap();
    assert_eq!(
        mapping.read_at(0, &mut [0]).unwrap_err().errno(),
        libc::EACCES
    );
}

#[test]
fn an_exact_place_is_taken_or_refused() {
    let (device, taken) = (memfd(2), striped(2));
    let map = || device.map().length(page_size());
    let addr = taken.as_ptr().addr();

    assert_eq!(
        map().exactly_at(addr).shared().unwrap_err().errno(),
        libc::EEXIST
    );
    assert_eq!(stripes(&taken), [1, 2]);
    assert_ne!(map().hint(addr).shared().unwrap().as_ptr().addr(), addr);

    let Remains { tail, .. } = taken.unmap_range(bytes(0..1)).unwrap();
    let again = map().exactly_at(addr).shared().unwrap();
    assert_eq!(again.as_ptr().addr(), addr);
    assert_eq!(stripes(&tail.unwrap()), [2]);
}

#[test]
fn fixed_replaces_what_is_there() {
    let (device, mine) = (memfd(1), striped(3));
    let middle = mine.as_ptr().addr() + page_size();
    let Remains { head, tail } = mine.unmap_range(bytes(1..2)).unwrap();
    // SAFETY: nobody owns the hole that was just made.
    let map = unsafe {
        device
            .map()
            .length(page_size())
            .hint(middle)
            .custom_flags(libc::MAP_FIXED)
    };
    let filled = map.shared().unwrap();
    assert_eq!(filled.as_ptr().addr(), middle);
    assert_eq!(stripes(&filled), [0]);
    assert_eq!(stripes(&head.unwrap()), [1]);
    assert_eq!(stripes(&tail.unwrap()), [3]);
}

#[test]
fn raw_parts_go_there_and_back() {
    let mapping = striped(2);
    let raw = mapping.into_raw_parts();
    assert!(mapped(raw.addr));
    // SAFETY: these parts are the only owner.
    let mapping = unsafe { Mapping::from_raw_parts(raw) };
    assert_eq!(stripes(&mapping), [1, 2]);
    // SAFETY: nobody else knows the memfd.
    assert_eq!(unsafe { mapping.as_slice() }[page_size()], 2);
    mapping.unmap().unwrap();
    assert!(!mapped(raw.addr));
}

#[test]
fn threads_may_write_at_once() {
    let mapping = striped(1);
    let all = 0..page_size();
    thread::scope(|scope| {
        for byte in [0x55, 0xaa] {
            let (mapping, all) = (&mapping, all.clone());
            scope.spawn(move || (0..50).for_each(|_| mapping.fill(all.clone(), byte).unwrap()));
        }
    });
    let mut bytes = vec![0; page_size()];
    mapping.read_at(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| [0x55, 0xaa].contains(byte)));
}

#[test]
fn a_read_only_descriptor_maps_privately_for_writing_only() {
    let file = memfd(1);
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let device = Device::open_read_only(path).unwrap();
    let map = || device.map().length(page_size());

    let error = map().shared().unwrap_err();
    assert_eq!(error.errno(), libc::EACCES);
    assert!(error.to_string().contains("map it privately"), "{error}");
    map().private().unwrap().write_at(0, &[1]).unwrap();

    let mut shared = map().prot(Prot::READ).shared().unwrap();
    assert_eq!(
        shared.protect(Prot::WRITE).unwrap_err().errno(),
        libc::EACCES
    );
    assert_eq!(shared.prot(), Prot::READ);
}

#[test]
fn a_clone_is_the_same_object() {
    let device = memfd(1);
    let other = device.try_clone().unwrap();
    let (one, two) = (
        device.map().length(1).shared().unwrap(),
        other.map().length(1).shared().unwrap(),
    );
    drop((device, other));
    one.write_at(9, &[9]).unwrap();
    let mut byte = [0];
    two.read_at(9, &mut byte).unwrap();
    assert_eq!(byte, [9]);
}
