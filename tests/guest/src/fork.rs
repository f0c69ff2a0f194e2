// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! fork: the child has areas of its own over the same object.

use nix::sys::{signal::Signal, wait::WaitStatus};

use crate::{
    lab::Lab,
    mem::*,
    run::{Test, Verdict, child, child_status},
};

pub(crate) const TESTS: &[Test] = &[
    Test::both("fork::shared_is_shared", shared_is_shared),
    Test::both(
        "fork::private_is_copied_on_write",
        private_is_copied_on_write,
    ),
    Test::both("fork::after_a_partial_munmap", after_a_partial_munmap),
    Test::both(
        "fork::the_child_unmaps_for_itself",
        the_child_unmaps_for_itself,
    ),
    Test::both("fork::a_killed_child_lets_go", a_killed_child_lets_go),
    Test::both("fork::grandchildren", grandchildren),
    Test::both("fork::dontfork_and_wipe", dontfork),
];

fn shared_is_shared(lab: &Lab) -> Verdict {
    let object = lab.open(3);
    let addr = map(&object, SHARED, 0, 3);
    letters(addr, 1, 'A');
    child(|| {
        lab.check_areas(&object, 2);
        assert_eq!(look(addr, 1), "A");
        letters(addr, 2, 'X');
    });
    lab.check_areas(&object, 1);
    assert_eq!(look(addr, 3), "XY0");
    lab.check_pages(&object, 3);
    Ok(())
}

fn private_is_copied_on_write(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    let shared = map(&object, SHARED, 0, 4);
    letters(shared, 4, 'A');
    let addr = map(&object, PRIVATE, 0, 4);
    letters(addr, 2, 'P');
    child(|| {
        // Copied before the fork, or not yet: it is as it was.
        assert_eq!(look(addr, 4), "PQCD");
        letters(addr + PAGE, 2, 'x');
        assert_eq!(look(addr, 4), "PxyD");
    });
    assert_eq!(look(addr, 4), "PQCD");
    letters(addr, 1, 'Z');
    assert_eq!(look(addr, 4), "ZQCD");
    assert_eq!(look(shared, 4), "ABCD");
    lab.check_pages(&object, 4);
    Ok(())
}

fn after_a_partial_munmap(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(6);
        let addr = map(&object, kind, 0, 6);
        letters(addr, 6, 'A');
        unmap(addr + 2 * PAGE, 2);
        child(|| {
            lab.check_areas(&object, 4);
            assert_eq!(look(addr, 6), "AB..EF");
            letters(addr + 4 * PAGE, 1, 'x');
        });
        lab.check_areas(&object, 2);
        assert_eq!(
            look(addr, 6),
            if kind == SHARED { "AB..xF" } else { "AB..EF" }
        );
    }
    Ok(())
}

fn the_child_unmaps_for_itself(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(6);
        let addr = map(&object, kind, 0, 6);
        letters(addr, 6, 'A');
        child(|| {
            unmap(addr + PAGE, 4);
            assert_eq!(look(addr, 6), "A....F");
            lab.check_areas(&object, 3);
        });
        assert_eq!(look(addr, 6), "ABCDEF");
        assert_eq!(layout(addr, 6), [(0, 6, 0)]);
        lab.check_areas(&object, 1);
    }
    Ok(())
}

fn a_killed_child_lets_go(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    let addr = map(&object, SHARED, 0, 4);
    let status = child_status(|| {
        unmap(addr + PAGE, 1);
        lab.check_areas(&object, 3);
        nix::sys::signal::raise(Signal::SIGKILL).unwrap();
    });
    assert!(
        matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
        "{status:?}"
    );
    lab.check_areas(&object, 1);
    Ok(())
}

fn grandchildren(lab: &Lab) -> Verdict {
    let object = lab.open(3);
    let addr = map(&object, PRIVATE, 0, 3);
    letters(addr, 1, 'A');
    child(|| {
        letters(addr + PAGE, 1, 'B');
        child(|| {
            letters(addr + 2 * PAGE, 1, 'C');
            assert_eq!(look(addr, 3), "ABC");
            lab.check_areas(&object, 3);
        });
        assert_eq!(look(addr, 3), "AB0");
    });
    assert_eq!(look(addr, 3), "A00");
    Ok(())
}

fn dontfork(lab: &Lab) -> Verdict {
    let object = lab.open(3);
    let addr = map(&object, SHARED, 0, 3);
    letters(addr, 3, 'A');
    advise(addr + PAGE, 1, libc::MADV_DONTFORK).unwrap();
    child(|| assert_eq!(look(addr, 3), "A.C"));
    assert_eq!(look(addr, 3), "ABC");
    // To wipe is for private anonymous memory only.
    assert_eq!(
        advise(addr, 1, libc::MADV_WIPEONFORK),
        Err(nix::errno::Errno::EINVAL)
    );
    Ok(())
}
