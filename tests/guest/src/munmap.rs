// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Partial munmap: what goes, what stays, and what the kernel asks the driver on the way.

use std::fs;

use nix::errno::Errno;

use crate::{
    lab::Lab,
    mem::*,
    run::{Skip, Test, Verdict},
};

pub(crate) const TESTS: &[Test] = &[
    Test::both("munmap::head_middle_and_tail", head_middle_and_tail),
    Test::both("munmap::untouched_pages", untouched_pages),
    Test::both("munmap::across_areas_and_holes", across_areas_and_holes),
    Test::both("munmap::private_copies_stay", private_copies_stay),
    Test::both("munmap::every_range_of_six_pages", every_range),
    Test::both("munmap::a_hole_faults", a_hole_faults),
    Test::both("munmap::wrong_arguments", wrong_arguments),
    Test::both("munmap::at_the_limit_of_areas", at_the_limit_of_areas),
    Test::both("munmap::a_sealed_area_stays", a_sealed_area_stays),
    Test::device("munmap::hook_calls", hook_calls),
];

/// The object of six pages with the letters A to F, and a mapping of it.
fn six(lab: &Lab, kind: i32) -> (vmalab::Device, usize) {
    let object = lab.open(6);
    let addr = map(&object, kind, 0, 6);
    letters(addr, 6, 'A');
    (object, addr)
}

fn head_middle_and_tail(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let (object, addr) = six(lab, kind);
        lab.check_areas(&object, 1);

        unmap(addr + 2 * PAGE, 2);
        assert_eq!(look(addr, 6), "AB..EF");
        assert_eq!(layout(addr, 6), [(0, 2, 0), (4, 6, 4)]);
        lab.check_areas(&object, 2);

        unmap(addr, 1);
        assert_eq!(look(addr, 6), ".B..EF");
        assert_eq!(layout(addr, 6), [(1, 2, 1), (4, 6, 4)]);
        lab.check_areas(&object, 2);

        unmap(addr + 5 * PAGE, 1);
        assert_eq!(look(addr, 6), ".B..E.");
        assert_eq!(layout(addr, 6), [(1, 2, 1), (4, 5, 4)]);
        lab.check_areas(&object, 2);

        // What was unmapped is still in the object.
        lab.check_pages(&object, 6);
        let again = map(&object, SHARED, 0, 6);
        assert_eq!(
            look(again, 6),
            if kind == SHARED { "ABCDEF" } else { "000000" }
        );
    }
    Ok(())
}

fn untouched_pages(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(6);
        let addr = map(&object, kind, 0, 6);
        unmap(addr + PAGE, 4);
        lab.check_pages(&object, 0);
        lab.check_areas(&object, 2);
        assert_eq!(look(addr, 6), "0....0");
        letters(addr + 5 * PAGE, 1, 'F');
        assert_eq!(look(addr, 6), "0....F");
    }
    Ok(())
}

fn across_areas_and_holes(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let (object, addr) = six(lab, kind);
        unmap(addr + 2 * PAGE, 1);
        unmap(addr + 4 * PAGE, 1);
        assert_eq!(look(addr, 6), "AB.D.F");
        lab.check_areas(&object, 3);
        // From inside the first area over both holes to the end.
        unmap(addr + PAGE, 5);
        assert_eq!(look(addr, 6), "A.....");
        lab.check_areas(&object, 1);
        // Nothing there: well done.
        unmap(addr + PAGE, 5);
        unmap(addr, 6);
        lab.check_areas(&object, 0);
    }
    Ok(())
}

fn private_copies_stay(lab: &Lab) -> Verdict {
    let (object, shared) = six(lab, SHARED);
    let private = map(&object, PRIVATE, 0, 6);
    letters(private, 2, 'x');
    letters(private + 4 * PAGE, 2, 'p');
    unmap(private + PAGE, 4);
    assert_eq!(look(private, 6), "x....q");
    assert_eq!(look(shared, 6), "ABCDEF");
    Ok(())
}

fn every_range(lab: &Lab) -> Verdict {
    for kind in KINDS {
        for start in 0..6 {
            for end in start + 1..=6 {
                let (object, addr) = six(lab, kind);
                unmap(addr + start * PAGE, end - start);
                let letter = |(page, letter)| {
                    if (start..end).contains(&page) {
                        '.'
                    } else {
                        letter
                    }
                };
                let expected: String = ('A'..='F').enumerate().map(letter).collect();
                assert_eq!(look(addr, 6), expected);
                lab.check_areas(&object, u64::from(start > 0) + u64::from(end < 6));
                unmap(addr, 6);
                lab.check_areas(&object, 0);
            }
        }
    }
    Ok(())
}

fn a_hole_faults(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let (_object, addr) = six(lab, kind);
        unmap(addr + 2 * PAGE, 1);
        let nothing_there = Some((libc::SIGSEGV, SEGV_MAPERR, true));
        assert_eq!(fault(addr + 2 * PAGE + 8, Access::Read), nothing_there);
        assert_eq!(fault(addr + 2 * PAGE, Access::Write), nothing_there);
        assert_eq!(fault(addr + 2 * PAGE - 1, Access::Read), None);
        assert_eq!(fault(addr + 3 * PAGE, Access::Write), None);
    }
    Ok(())
}

fn wrong_arguments(lab: &Lab) -> Verdict {
    let (object, addr) = six(lab, SHARED);
    assert_eq!(try_unmap(addr + 1, PAGE), Err(Errno::EINVAL));
    assert_eq!(try_unmap(addr, 0), Err(Errno::EINVAL));
    assert_eq!(try_unmap(addr, usize::MAX - PAGE), Err(Errno::EINVAL));
    assert_eq!(look(addr, 6), "ABCDEF");
    lab.check_areas(&object, 1);
    // A length is rounded up.
    try_unmap(addr + 4 * PAGE, PAGE + 1).unwrap();
    assert_eq!(look(addr, 6), "ABCD..");
    Ok(())
}

/// vm.max_map_count, as it was again when this is dropped.
struct AreaLimit(String);

impl AreaLimit {
    const FILE: &str = "/proc/sys/vm/max_map_count";

    fn keep() -> Self {
        Self(fs::read_to_string(Self::FILE).unwrap())
    }

    fn now(&self) -> usize {
        fs::read_to_string(Self::FILE)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    fn set(&self, areas: usize) {
        fs::write(Self::FILE, areas.to_string()).unwrap();
    }
}

impl Drop for AreaLimit {
    fn drop(&mut self) {
        let _ = fs::write(Self::FILE, &self.0);
    }
}

fn at_the_limit_of_areas(lab: &Lab) -> Verdict {
    let setting = AreaLimit::keep();
    if lab.debug_kernel {
        setting.set(2000);
    }
    let limit = setting.now();
    if limit > 200_000 {
        return Err(Skip::new(format!(
            "vm.max_map_count is {limit}: too many to reach"
        )));
    }
    let (object, addr) = six(lab, SHARED);
    // Every second page is protected otherwise, so that each is an area.
    let filler = map_anonymous(0, 2 * limit, libc::PROT_NONE, libc::MAP_NORESERVE).unwrap();
    let full = (0..limit).find_map(|page| protect(filler + 2 * page * PAGE, 1, RO).err());
    assert_eq!(full, Some(Errno::ENOMEM));

    assert_eq!(try_unmap(addr + 2 * PAGE, PAGE), Err(Errno::ENOMEM));
    assert_eq!(look(addr, 6), "ABCDEF");
    lab.check_areas(&object, 1);
    // The ends need no further area.
    unmap(addr, 1);
    unmap(addr + 5 * PAGE, 1);
    assert_eq!(look(addr, 6), ".BCDE.");
    lab.check_areas(&object, 1);

    unmap(filler, 2 * limit);
    unmap(addr + 2 * PAGE, 1);
    assert_eq!(look(addr, 6), ".B.DE.");
    lab.check_areas(&object, 2);
    Ok(())
}

fn a_sealed_area_stays(lab: &Lab) -> Verdict {
    let (object, addr) = six(lab, SHARED);
    mseal(addr, 6).map_err(|errno| Skip::new(format!("mseal: {errno}")))?;
    for (page, pages) in [(0, 6), (0, 1), (2, 2), (5, 1)] {
        assert_eq!(
            try_unmap(addr + page * PAGE, pages * PAGE),
            Err(Errno::EPERM)
        );
    }
    assert_eq!(look(addr, 6), "ABCDEF");
    lab.check_areas(&object, 1);
    Ok(())
}

fn hook_calls(lab: &Lab) -> Verdict {
    // Pages to unmap of six, and how often: may_split, open, close.
    let cases = [
        ((0, 6), (0, 0, 1)),
        ((0, 2), (1, 1, 1)),
        ((4, 2), (1, 1, 1)),
        ((2, 2), (2, 2, 1)),
    ];
    for kind in KINDS {
        for ((page, pages), (may_split, open, close)) in cases {
            let (object, addr) = six(lab, kind);
            let before = lab.hooks(&object).unwrap();
            assert_eq!((before.mmap, before.open, before.close), (1, 0, 0));
            unmap(addr + page * PAGE, pages);
            let did = lab.hooks(&object).unwrap().since(before);
            assert_eq!(
                (did.mmap, did.may_split, did.open, did.close, did.fault),
                (0, may_split, open, close, 0),
                "unmapping {pages} of six pages from {page} on"
            );
        }
    }
    Ok(())
}
