// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Pages allocated ahead, and holes: `VMALAB_IOC_FALLOCATE`, and fallocate(2) of a memfd.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::{errno::Errno, sys::uio::pread};
use vmalab::{Device, sys};

use crate::{
    lab::Lab,
    mem::*,
    run::{Test, Verdict},
};

pub(crate) const TESTS: &[Test] = &[
    Test::both("holes::whole_pages", whole_pages),
    Test::both("holes::parts_of_pages", parts_of_pages),
    Test::both("holes::allocated_ahead", allocated_ahead),
    Test::both("holes::allocated_past_the_end", allocated_past_the_end),
    Test::both("holes::wrong_arguments", wrong_arguments),
    Test::both("holes::while_others_touch", while_others_touch),
    Test::device("holes::only_up_to_the_end", only_up_to_the_end),
    Test::device("holes::only_a_writer_makes_them", only_a_writer),
];

const ALLOCATE: u32 = sys::VMALAB_FALLOCATE_ALLOCATE;
const KEEP_SIZE: u32 = sys::VMALAB_FALLOCATE_KEEP_SIZE;
const PUNCH_HOLE: u32 = sys::VMALAB_FALLOCATE_PUNCH_HOLE;

fn whole_pages(lab: &Lab) -> Verdict {
    let object = lab.open(6);
    let (shared, private) = (map(&object, SHARED, 0, 6), map(&object, PRIVATE, 0, 6));
    letters(shared, 6, 'A');
    letters(private + 2 * PAGE, 1, 'x');
    assert_eq!(look(private, 6), "ABxDEF");
    lab.fallocate(&object, PUNCH_HOLE, PAGE, 3 * PAGE).unwrap();
    lab.check_pages(&object, 3);
    // The copy is its own page; what was only mapped is not.
    assert_eq!(
        (look(shared, 6), look(private, 6)),
        ("A000EF".into(), "A0x0EF".into())
    );

    letters(shared + PAGE, 1, 'b');
    assert_eq!(
        (look(shared, 6), look(private, 6)),
        ("Ab00EF".into(), "Abx0EF".into())
    );
    // All of it and more; the size stays.
    lab.fallocate(&object, PUNCH_HOLE, 0, 100 * PAGE).unwrap();
    lab.check_pages(&object, 0);
    assert_eq!(
        (look(shared, 6), look(private, 6)),
        ("000000".into(), "00x000".into())
    );
    Ok(())
}

fn parts_of_pages(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    let addr = map(&object, SHARED, 0, 4);
    letters(addr, 4, 'A');
    // Within a page; then from the middle of one to the middle of another.
    lab.fallocate(&object, PUNCH_HOLE, 10, 20).unwrap();
    lab.fallocate(&object, PUNCH_HOLE, PAGE + 100, 2 * PAGE)
        .unwrap();
    lab.check_pages(&object, 3);
    let mut bytes = vec![0xff; 4 * PAGE];
    assert_eq!(pread(&object, &mut bytes, 0), Ok(4 * PAGE));
    let expected = |at| match at {
        10..30 => 0,
        0..PAGE => b'A',
        at if (PAGE + 100..3 * PAGE + 100).contains(&at) => 0,
        at => b'A' + (at / PAGE) as u8,
    };
    for (at, byte) in bytes.into_iter().enumerate() {
        assert_eq!(byte, expected(at), "byte {at}");
    }
    assert_eq!(look(addr, 4), "??0?");
    // A part of a page that is not there does not make it.
    lab.fallocate(&object, PUNCH_HOLE, 2 * PAGE + 5, 5).unwrap();
    Ok(())
}

fn allocated_ahead(lab: &Lab) -> Verdict {
    let object = lab.open(8);
    let addr = map(&object, SHARED, 0, 8);
    letters(addr + 3 * PAGE, 1, 'D');
    lab.fallocate(&object, ALLOCATE, 2 * PAGE + 1, 3 * PAGE)
        .unwrap();
    lab.check_pages(&object, 4);
    assert_eq!(look(addr + 2 * PAGE, 4), "0D00");
    lab.fallocate(&object, ALLOCATE, 0, 8 * PAGE).unwrap();
    lab.check_pages(&object, 8);
    let faults = lab.hooks(&object).map(|hooks| hooks.fault);
    assert_eq!(look(addr, 8), "000D0000");
    assert_eq!(
        lab.hooks(&object).map(|hooks| hooks.fault),
        faults,
        "all were there already"
    );
    Ok(())
}

fn allocated_past_the_end(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    let addr = map(&object, SHARED, 0, 6);
    letters(addr, 2, 'A');
    assert_eq!(look(addr, 6), "AB!!!!");
    lab.fallocate(&object, ALLOCATE, 3 * PAGE, PAGE).unwrap();
    assert_eq!(look(addr, 6), "AB00!!");
    lab.check_pages(&object, 4);
    Ok(())
}

fn wrong_arguments(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    for mode in [ALLOCATE, KEEP_SIZE, PUNCH_HOLE] {
        assert_eq!(lab.fallocate(&object, mode, 0, 0), Err(Errno::EINVAL));
    }
    // Without FALLOC_FL_KEEP_SIZE; FALLOC_FL_COLLAPSE_RANGE; nothing that there is.
    for mode in [2, 8, 1 << 20] {
        assert_eq!(
            lab.fallocate(&object, mode, 0, PAGE),
            Err(Errno::EOPNOTSUPP),
            "{mode}"
        );
    }
    let most = i64::MAX as usize;
    assert_eq!(
        lab.fallocate(&object, ALLOCATE, most, most),
        Err(Errno::EFBIG)
    );
    lab.check_pages(&object, 0);
    Ok(())
}

/// Faults, reads, writes and the end of the object at the same time; no page is lost or counted twice.
fn while_others_touch(lab: &Lab) -> Verdict {
    const PAGES: usize = 16;
    let object = lab.open(PAGES);
    let (shared, private) = (
        map(&object, SHARED, 0, PAGES),
        map(&object, PRIVATE, 0, PAGES),
    );
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for (thread, addr) in [shared, private].into_iter().enumerate() {
            let (done, object, subject) = (&done, &object, lab.subject);
            scope.spawn(move || {
                for step in (thread..).step_by(7) {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let at = step % PAGES * PAGE;
                    assert_eq!(write_from_kernel(addr + at, b"x"), Ok(()));
                    let again = (step * 5) % PAGES * PAGE;
                    subject.fallocate(object, ALLOCATE, again, PAGE).unwrap();
                    assert_eq!(pread(object, &mut [0; 8], at as i64), Ok(8));
                }
            });
        }
        for step in 0..2000 {
            let at = step * 3 % PAGES * PAGE + step % 2 * 100;
            lab.fallocate(&object, PUNCH_HOLE, at, 4 * PAGE).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    lab.fallocate(&object, PUNCH_HOLE, 0, PAGES * PAGE).unwrap();
    lab.check_pages(&object, 0);
    assert_eq!(look(shared, PAGES), "0".repeat(PAGES));
    lab.check_pages(&object, PAGES as u64);
    Ok(())
}

/// A memfd would allocate pages past the end.
fn only_up_to_the_end(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    lab.fallocate(&object, KEEP_SIZE, PAGE, 5 * PAGE).unwrap();
    lab.fallocate(&object, KEEP_SIZE, 5 * PAGE, 5 * PAGE)
        .unwrap();
    lab.check_pages(&object, 1);
    assert_eq!(object.size(), Ok(2 * PAGE as u64));
    // Rounded up to whole pages.
    object.allocate(0..2 * PAGE as u64 + 1).unwrap();
    assert_eq!(object.size(), Ok(3 * PAGE as u64));
    lab.check_pages(&object, 3);
    let error = object.allocate(1 << 60..(1 << 60) + 1).unwrap_err();
    assert_eq!(error.errno(), libc::EFBIG);
    let error = object.allocate(u64::MAX..u64::MAX).unwrap_err();
    assert_eq!(error.errno(), libc::EINVAL);
    assert_eq!(object.size(), Ok(3 * PAGE as u64));
    Ok(())
}

fn only_a_writer(_lab: &Lab) -> Verdict {
    let device = Device::open_read_only("/dev/vmalab").unwrap();
    for result in [device.allocate(0..1), device.punch_hole(0..1)] {
        assert_eq!(result.unwrap_err().errno(), libc::EBADF);
    }
    Ok(())
}
