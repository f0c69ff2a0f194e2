// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What is in the pages: zeros at first, then what was written, for those who share it.

use std::thread;

use crate::{
    lab::Lab,
    mem::*,
    run::{Test, Verdict},
};

pub(crate) const TESTS: &[Test] = &[
    Test::both("contents::pages_begin_as_zeros", pages_begin_as_zeros),
    Test::both(
        "contents::pages_are_allocated_when_touched",
        pages_are_allocated_when_touched,
    ),
    Test::both(
        "contents::shared_writes_are_seen_by_all",
        shared_writes_are_seen_by_all,
    ),
    Test::both(
        "contents::private_writes_are_seen_by_none",
        private_writes_are_seen_by_none,
    ),
    Test::both(
        "contents::private_sees_the_object_until_it_writes",
        private_follows_the_object,
    ),
    Test::both("contents::offsets_are_the_pages_of_the_object", offsets),
    Test::both(
        "contents::threads_may_fault_at_once",
        threads_may_fault_at_once,
    ),
];

fn pages_begin_as_zeros(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(4);
        // The pages of a freed object must not come back with its contents.
        let before = map(&object, SHARED, 0, 4);
        letters(before, 4, 'A');
        unmap(before, 4);
        drop(object);
        let object = lab.open(4);
        assert_eq!(look(map(&object, kind, 0, 4), 4), "0000");
    }
    Ok(())
}

fn pages_are_allocated_when_touched(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(8);
        let addr = map(&object, kind, 0, 8);
        lab.check_pages(&object, 0);
        letters(addr + 3 * PAGE, 1, 'A');
        assert_eq!(fault(addr + 5 * PAGE, Access::Read), None);
        lab.check_pages(&object, 2);
        assert_eq!(look(addr, 8), "000A0000");
        lab.check_pages(&object, 8);
    }
    Ok(())
}

fn shared_writes_are_seen_by_all(lab: &Lab) -> Verdict {
    let object = lab.open(3);
    let (one, other) = (map(&object, SHARED, 0, 3), map(&object, SHARED, 0, 3));
    letters(one, 2, 'A');
    letters(other + 2 * PAGE, 1, 'X');
    assert_eq!((look(one, 3), look(other, 3)), ("ABX".into(), "ABX".into()));
    lab.check_pages(&object, 3);
    lab.check_areas(&object, 2);
    Ok(())
}

fn private_writes_are_seen_by_none(lab: &Lab) -> Verdict {
    let object = lab.open(3);
    let (mine, other) = (map(&object, PRIVATE, 0, 3), map(&object, PRIVATE, 0, 3));
    let shared = map(&object, SHARED, 0, 3);
    letters(shared, 3, 'A');
    letters(mine, 2, 'X');
    assert_eq!(look(mine, 3), "XYC");
    assert_eq!(
        (look(other, 3), look(shared, 3)),
        ("ABC".into(), "ABC".into())
    );
    lab.check_pages(&object, 3);
    Ok(())
}

fn private_follows_the_object(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    let (private, shared) = (map(&object, PRIVATE, 0, 2), map(&object, SHARED, 0, 2));
    letters(shared, 2, 'A');
    assert_eq!(look(private, 2), "AB");
    letters(private, 1, 'x');
    letters(shared, 2, 'C');
    assert_eq!(look(private, 2), "xD");
    Ok(())
}

fn offsets(lab: &Lab) -> Verdict {
    let object = lab.open(6);
    letters(map(&object, SHARED, 0, 6), 6, 'A');
    for kind in KINDS {
        let part = map(&object, kind, 2, 3);
        assert_eq!(look(part, 3), "CDE");
        assert_eq!(layout(part, 3), [(0, 3, 2)]);
    }
    let odd = try_map(&object, 0, 1, RW, SHARED, usize::MAX / PAGE);
    assert_eq!(odd, Err(nix::errno::Errno::EOVERFLOW));
    Ok(())
}

fn threads_may_fault_at_once(lab: &Lab) -> Verdict {
    const PAGES: usize = 256;
    const THREADS: usize = 8;
    for kind in KINDS {
        let object = lab.open(PAGES);
        let addr = map(&object, kind, 0, PAGES);
        // All threads touch all pages, each its own byte of them, and in another order.
        thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    for step in 0..PAGES {
                        let page = (step * (2 * thread + 1) + thread * 31) % PAGES;
                        let byte = pointer(addr + page * PAGE + thread);
                        // SAFETY: inside the mapping, and no other thread has this byte.
                        unsafe { byte.write_volatile(thread as u8 + 1) };
                    }
                });
            }
        });
        for page in 0..PAGES {
            let bytes = read_by_kernel(addr + page * PAGE, THREADS + 1).unwrap();
            assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 0], "page {page}");
        }
        lab.check_pages(&object, PAGES as u64);
    }
    Ok(())
}
