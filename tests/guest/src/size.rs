// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The size of an object: SIGBUS past its end, growing and shrinking.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::errno::Errno;
use vmalab::Device;

use crate::{
    lab::Lab,
    mem::*,
    run::{Test, Verdict, child},
};

pub(crate) const TESTS: &[Test] = &[
    Test::both("size::past_the_end_is_sigbus", past_the_end_is_sigbus),
    Test::both("size::sigbus_kills", sigbus_kills),
    Test::both("size::growing_brings_zeros", growing_brings_zeros),
    Test::both("size::shrinking_takes_pages_out_of_all_areas", shrinking),
    Test::both(
        "size::shrinking_takes_private_copies_too",
        shrinking_private,
    ),
    Test::both(
        "size::shrinking_while_others_touch",
        shrinking_while_others_touch,
    ),
    Test::device("size::set_and_told", set_and_told),
    Test::device("size::only_a_writer_sets_it", only_a_writer_sets_it),
];

fn past_the_end_is_sigbus(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(2);
        let addr = map(&object, kind, 0, 4);
        let past = Some((libc::SIGBUS, BUS_ADRERR, true));
        assert_eq!(fault(addr + 2 * PAGE, Access::Read), past);
        assert_eq!(fault(addr + 2 * PAGE, Access::Write), past);
        assert_eq!(fault(addr + 4 * PAGE - 1, Access::Read), past);
        assert_eq!(fault(addr + 2 * PAGE - 1, Access::Write), None);
        letters(addr, 2, 'A');
        assert_eq!(look(addr, 4), "AB!!");
        lab.check_pages(&object, 2);
        // The kernel's own access answers EFAULT.
        assert_eq!(write_from_kernel(addr + 3 * PAGE, b"x"), Err(Errno::EFAULT));
        // An area that lies past the end as a whole.
        let beyond = map(&object, kind, 7, 1);
        assert_eq!(look(beyond, 1), "!");
        unmap(addr + 3 * PAGE, 1);
        assert_eq!(look(addr, 4), "AB!.");
    }
    Ok(())
}

fn sigbus_kills(lab: &Lab) -> Verdict {
    use nix::sys::{signal::Signal, wait::WaitStatus};
    let object = lab.open(1);
    let addr = map(&object, SHARED, 0, 2);
    // SAFETY: the access ends the child, and that is what is tested.
    let status = crate::run::child_status(|| unsafe { pointer(addr + PAGE).write_volatile(1) });
    assert!(
        matches!(status, WaitStatus::Signaled(_, Signal::SIGBUS, _)),
        "{status:?}"
    );
    Ok(())
}

fn growing_brings_zeros(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(1);
        let addr = map(&object, kind, 0, 4);
        letters(addr, 1, 'A');
        assert_eq!(look(addr, 4), "A!!!");
        lab.resize(&object, 3);
        assert_eq!(look(addr, 4), "A00!");
        letters(addr + 2 * PAGE, 1, 'C');
        assert_eq!(look(addr, 4), "A0C!");
    }
    Ok(())
}

fn shrinking(lab: &Lab) -> Verdict {
    let object = lab.open(6);
    let addr = map(&object, SHARED, 0, 6);
    let part = map(&object, SHARED, 3, 3);
    letters(addr, 6, 'A');
    unmap(addr + PAGE, 1);
    child(|| {
        lab.resize(&object, 4);
        assert_eq!(
            (look(addr, 6), look(part, 3)),
            ("A.CD!!".into(), "D!!".into())
        );
    });
    // Here they were in the page tables, too.
    assert_eq!(
        (look(addr, 6), look(part, 3)),
        ("A.CD!!".into(), "D!!".into())
    );
    lab.check_pages(&object, 4);

    lab.resize(&object, 6);
    assert_eq!(
        (look(addr, 6), look(part, 3)),
        ("A.CD00".into(), "D00".into())
    );
    lab.resize(&object, 0);
    assert_eq!(
        (look(addr, 6), look(part, 3)),
        ("!.!!!!".into(), "!!!".into())
    );
    lab.check_pages(&object, 0);
    Ok(())
}

fn shrinking_private(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    let addr = map(&object, PRIVATE, 0, 4);
    letters(addr, 4, 'A');
    lab.resize(&object, 2);
    assert_eq!(look(addr, 4), "AB!!");
    lab.resize(&object, 4);
    assert_eq!(look(addr, 4), "AB00");
    Ok(())
}

fn shrinking_while_others_touch(lab: &Lab) -> Verdict {
    const PAGES: usize = 16;
    let object = lab.open(PAGES);
    let shared = map(&object, SHARED, 0, PAGES);
    let private = map(&object, PRIVATE, 0, PAGES);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..4 {
            let (done, addr) = (&done, if thread % 2 == 0 { shared } else { private });
            scope.spawn(move || {
                for step in (thread..).step_by(7) {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    // EFAULT or not: both are right, the moment decides.
                    let _ = write_from_kernel(addr + step % PAGES * PAGE, b"x");
                }
            });
        }
        for step in 0..2000 {
            lab.resize(&object, 1 + step * 5 % PAGES);
        }
        done.store(true, Ordering::Relaxed);
    });
    lab.resize(&object, 1);
    look(shared, PAGES);
    lab.check_pages(&object, 1);
    lab.resize(&object, PAGES);
    assert_eq!(look(shared + PAGE, PAGES - 1), "0".repeat(PAGES - 1));
    assert_eq!(look(private + PAGE, PAGES - 1), "0".repeat(PAGES - 1));
    Ok(())
}

fn set_and_told(lab: &Lab) -> Verdict {
    let device = lab.open(3);
    assert_eq!(device.size(), Ok(3 * PAGE as u64));
    device.set_size(PAGE as u64 + 1).unwrap();
    assert_eq!(device.size(), Ok(2 * PAGE as u64));
    device.set_size(0).unwrap();
    assert_eq!(device.size(), Ok(0));
    for size in [u64::MAX, u64::MAX - PAGE as u64 + 1, 1 << 63, (1 << 63) - 1] {
        assert_eq!(
            device.set_size(size).unwrap_err().errno(),
            libc::EFBIG,
            "{size:#x}"
        );
    }
    assert_eq!(device.size(), Ok(0));
    Ok(())
}

fn only_a_writer_sets_it(_lab: &Lab) -> Verdict {
    let device = Device::open_read_only("/dev/vmalab").unwrap();
    let size = device.size().unwrap();
    let error = device.set_size(PAGE as u64).unwrap_err();
    assert_eq!(error.errno(), libc::EBADF);
    assert!(
        error.to_string().contains("open the node for writing"),
        "{error}"
    );
    assert_eq!(device.size(), Ok(size));
    Ok(())
}
