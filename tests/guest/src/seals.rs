// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What an object is sealed against: `VMALAB_IOC_ADD_SEALS`, and `F_ADD_SEALS` of a memfd.

use nix::{
    errno::Errno,
    sys::uio::{pread, pwrite},
};
use vmalab::{Device, Seals};

use crate::{
    lab::Lab,
    mem::*,
    run::{Skip, Test, Verdict, child},
};

pub(crate) const TESTS: &[Test] = &[
    Test::both("seals::are_added_and_stay", are_added_and_stay),
    Test::both("seals::shrink_and_grow", shrink_and_grow),
    Test::both("seals::write", write),
    Test::both("seals::writers_keep_it_from_being_sealed", writers_first),
    Test::both(
        "seals::direct_io_keeps_it_from_being_sealed",
        direct_io_first,
    ),
    Test::both("seals::readers_do_not", readers),
    Test::both("seals::future_write", future_write),
    Test::device("seals::both_generations_of_mmap", both_generations),
    Test::device("seals::only_a_writer_adds_them", only_a_writer),
];

fn are_added_and_stay(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    assert_eq!(lab.seals(&object), Seals::empty());
    lab.seal(&object, Seals::GROW).unwrap();
    lab.seal(&object, Seals::empty()).unwrap();
    lab.seal(&object, Seals::SHRINK | Seals::GROW).unwrap();
    assert_eq!(lab.seals(&object), Seals::SHRINK | Seals::GROW);
    assert_eq!(
        lab.seal(&object, Seals::from_bits_retain(0x40)),
        Err(Errno::EINVAL)
    );
    lab.seal(&object, Seals::SEAL).unwrap();
    for seals in [Seals::WRITE, Seals::GROW, Seals::SEAL, Seals::empty()] {
        assert_eq!(lab.seal(&object, seals), Err(Errno::EPERM));
    }
    assert_eq!(
        lab.seals(&object),
        Seals::SHRINK | Seals::GROW | Seals::SEAL
    );
    // For all who have it.
    let other = object.try_clone().unwrap();
    assert_eq!(lab.try_resize(&other, 1), Err(Errno::EPERM));
    Ok(())
}

fn shrink_and_grow(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    let addr = map(&object, SHARED, 0, 4);
    letters(addr, 4, 'A');
    lab.seal(&object, Seals::SHRINK).unwrap();
    assert_eq!(lab.try_resize(&object, 3), Err(Errno::EPERM));
    assert_eq!(lab.try_resize(&object, 4), Ok(()));
    assert_eq!(lab.try_resize(&object, 5), Ok(()));
    lab.seal(&object, Seals::GROW).unwrap();
    assert_eq!(lab.try_resize(&object, 6), Err(Errno::EPERM));
    let allocate = |from, pages| lab.fallocate(&object, 0, from * PAGE, pages * PAGE);
    assert_eq!(allocate(4, 2), Err(Errno::EPERM));
    assert_eq!(allocate(3, 2), Ok(()));
    lab.check_pages(&object, 5);
    letters(addr, 1, 'x');
    assert_eq!(look(addr, 4), "xBCD");
    Ok(())
}

fn write(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    assert_eq!(pwrite(&object, &[b'A'; 2 * PAGE], 0), Ok(2 * PAGE));
    let private = map(&object, PRIVATE, 0, 4);
    lab.seal(&object, Seals::WRITE).unwrap();
    assert_eq!(pwrite(&object, b"x", 0), Err(Errno::EPERM));
    assert_eq!(
        lab.fallocate(&object, 3, 0, PAGE),
        Err(Errno::EPERM),
        "a hole"
    );
    assert_eq!(pread(&object, &mut [0; 8], 0), Ok(8));

    assert_eq!(try_map(&object, 0, 4, RW, SHARED, 0), Err(Errno::EPERM));
    let shared = try_map(&object, 0, 4, RO, SHARED, 0).unwrap();
    assert_eq!(look(shared, 4), "AA00");
    assert_eq!(protect(shared, 4, RW), Err(Errno::EACCES));
    // What is private is not the object.
    letters(private, 4, 'a');
    letters(map(&object, PRIVATE, 0, 4), 4, 'b');
    assert_eq!(
        (look(private, 4), look(shared, 4)),
        ("abcd".into(), "AA00".into())
    );
    // Its size is another thing, and what is there is not what is written.
    lab.resize(&object, 1);
    assert_eq!(look(shared, 4), "A!!!");
    lab.resize(&object, 3);
    assert_eq!(lab.fallocate(&object, 0, 0, 3 * PAGE), Ok(()));
    assert_eq!(look(shared, 4), "A00!");
    Ok(())
}

fn writers_first(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    let busy = Err(Errno::EBUSY);
    let addr = map(&object, SHARED, 0, 4);
    assert_eq!(lab.seal(&object, Seals::WRITE), busy);
    // mprotect could give it back.
    protect(addr, 4, RO).unwrap();
    assert_eq!(lab.seal(&object, Seals::WRITE | Seals::GROW), busy);
    assert_eq!(lab.seals(&object), Seals::empty(), "all or none");
    // In pieces, in another process, elsewhere.
    unmap(addr + PAGE, 1);
    child(|| {
        unmap(addr, 4);
        assert_eq!(lab.seal(&object, Seals::WRITE), busy);
    });
    unmap(addr, 1);
    assert_eq!(lab.seal(&object, Seals::WRITE), busy);
    let moved = remap(addr + 2 * PAGE, 2, 4, libc::MREMAP_MAYMOVE, 0).unwrap();
    assert_eq!(lab.seal(&object, Seals::WRITE), busy);
    // A failed try leaves nothing behind.
    letters(map(&object, SHARED, 0, 1), 1, 'A');
    protect(moved, 4, RW).unwrap();
    unmap(moved, 4);
    assert_eq!(lab.seal(&object, Seals::WRITE), busy);
    Ok(())
}

/// Pages that the kernel holds on to for writing, as io_uring does with buffers.
fn direct_io_first(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    let addr = map(&object, SHARED, 0, 4);
    let ring = Ring::new().map_err(|errno| Skip(format!("no io_uring: {errno}")))?;
    ring.register(addr, 2)
        .map_err(|errno| Skip(format!("no buffers for io_uring: {errno}")))?;
    unmap(addr, 4);
    assert_eq!(lab.seal(&object, Seals::WRITE), Err(Errno::EBUSY));
    assert_eq!(lab.seals(&object), Seals::empty());
    ring.unregister().unwrap();
    lab.seal(&object, Seals::WRITE).unwrap();
    Ok(())
}

/// However many they are, and however often they map a page (`GUP_PIN_COUNTING_BIAS`).
fn readers(lab: &Lab) -> Verdict {
    let object = lab.open(1);
    assert_eq!(pwrite(&object, b"r", 0), Ok(1));
    for _ in 0..1100 {
        let addr = try_map(&object, 0, 1, RO, PRIVATE, 0).unwrap();
        assert_eq!(read_by_kernel(addr, 1), Ok(b"r".into()));
    }
    lab.seal(&object, Seals::WRITE).unwrap();
    Ok(())
}

fn future_write(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    let here = map(&object, SHARED, 0, 4);
    let later = try_map(&object, 0, 4, RO, SHARED, 0).unwrap();
    letters(here, 2, 'A');
    lab.seal(&object, Seals::FUTURE_WRITE).unwrap();
    letters(here + PAGE, 2, 'x');
    assert_eq!(look(here, 4), "Axy0");
    // What was mapped before may be made writable still.
    protect(later, 4, RW).unwrap();
    letters(later + 3 * PAGE, 1, 'z');
    assert_eq!(look(here, 4), "Axyz");

    assert_eq!(pwrite(&object, b"x", 0), Err(Errno::EPERM));
    assert_eq!(
        lab.fallocate(&object, 3, 0, PAGE),
        Err(Errno::EPERM),
        "a hole"
    );
    let far = map_anonymous(0, 8, libc::PROT_NONE, 0).unwrap() + PAGE;
    let fixed = SHARED | libc::MAP_FIXED;
    assert_eq!(try_map(&object, far, 4, RW, fixed, 0), Err(Errno::EPERM));
    let read_only = try_map(&object, far, 4, RO, fixed, 0).unwrap();
    assert_eq!(protect(read_only, 4, RW), Err(Errno::EACCES));
    assert_eq!(look(read_only, 4), "Axyz");
    letters(map(&object, PRIVATE, 0, 4), 4, 'p');
    assert_eq!(look(read_only, 4), "Axyz");
    child(|| letters(here, 1, 'c'));
    assert_eq!(look(read_only, 4), "cxyz");
    Ok(())
}

/// A range that makes an area longer does not come to `.mmap`, which so cannot refuse it: as with
/// mremap, who may write to an area may write to a longer one. `.mmap_prepare` is always asked.
fn both_generations(_lab: &Lab) -> Verdict {
    for (node, longer) in [
        ("/dev/vmalab", Ok(())),
        ("/dev/vmalab-prepare", Err(Errno::EPERM)),
    ] {
        let object = Device::open_at(node).unwrap();
        object.set_size(8 * PAGE as u64).unwrap();
        let place = map_anonymous(0, 8, libc::PROT_NONE, 0).unwrap();
        let fixed = SHARED | libc::MAP_FIXED;
        try_map(&object, place, 2, RW, fixed, 0).unwrap();
        object.add_seals(Seals::FUTURE_WRITE).unwrap();
        let next = try_map(&object, place + 2 * PAGE, 2, RW, fixed, 2).map(drop);
        assert_eq!(next, longer, "{node}");
        let elsewhere = try_map(&object, place + 6 * PAGE, 2, RW, fixed, 2).map(drop);
        assert_eq!(elsewhere, Err(Errno::EPERM), "{node}");
        let read_only = try_map(&object, place + 4 * PAGE, 2, RO, fixed, 4).unwrap();
        assert_eq!(protect(read_only, 2, RW), Err(Errno::EACCES), "{node}");
        assert_eq!(
            remap(place, 2, 4, libc::MREMAP_MAYMOVE, 0).map(drop),
            Ok(())
        );
    }
    Ok(())
}

fn only_a_writer(_lab: &Lab) -> Verdict {
    let device = Device::open_read_only("/dev/vmalab").unwrap();
    let error = device.add_seals(Seals::GROW).unwrap_err();
    assert_eq!(error.errno(), libc::EPERM);
    assert_eq!(device.seals(), Ok(Seals::empty()));
    // The errors say what to do.
    let device = Device::open().unwrap();
    let mapping = device.map().length(PAGE).shared().unwrap();
    let error = device.add_seals(Seals::WRITE).unwrap_err();
    assert!(
        error.to_string().contains("unmap all shared mappings"),
        "{error}"
    );
    drop(mapping);
    device.add_seals(Seals::WRITE).unwrap();
    let error = device.map().length(PAGE).shared().unwrap_err();
    assert!(
        error.to_string().contains("sealed against writing"),
        "{error}"
    );
    let error = device.write_at(b"x", 0).unwrap_err();
    assert!(error.to_string().contains("use another object"), "{error}");
    Ok(())
}
