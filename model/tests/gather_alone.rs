// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The file of the first half of munmap, compiled without the crate around it, as a kernel module does.

#[allow(unreachable_pub, reason = "public in the crate, a private module here")]
#[path = "../src/gather.rs"]
mod gather;

use gather::{Extent, Gather, Refusal, Step, View, range};

/// An address space with one area.
struct One(Extent);

impl View for One {
    fn find(&self, addr: u64) -> Option<Extent> {
        Some(self.0).filter(|area| area.end > addr)
    }

    fn map_count(&self) -> u64 {
        1
    }
}

fn steps(view: &One, start: u64, end: u64, max_map_count: u64, strict: bool) -> Vec<Step> {
    let mut gather = Gather::new(start, end, max_map_count).limit_at_every_split(strict);
    std::iter::from_fn(|| gather.next(view)).collect()
}

#[test]
fn steps_of_one_area() {
    //  2        4        6        8
    //  |--------|********|--------|
    let mut view = One(Extent {
        start: 2,
        end: 8,
        sealed: false,
        locked: false,
        watched: false,
    });
    let head = Step::Split {
        area: 2,
        at: 4,
        new_below: true,
    };
    let tail = Step::Split {
        area: 4,
        at: 6,
        new_below: false,
    };
    let detach = |start, end| Step::Detach { start, end };
    assert_eq!(steps(&view, 4, 6, 9, false), [head, tail, detach(4, 6)]);
    assert_eq!(steps(&view, 4, 9, 9, false), [head, detach(4, 8)]);
    assert_eq!(steps(&view, 1, 9, 9, false), [detach(2, 8)]);
    assert_eq!(steps(&view, 8, 9, 9, false), []);
    assert_eq!(steps(&view, 0, 2, 9, false), []);

    // The other piece was the new one in old kernels.
    let mut old = Gather::new(4, 6, 9).new_piece_goes(true);
    let cut = |area, at, new_below| Step::Split {
        area,
        at,
        new_below,
    };
    assert_eq!(old.next(&view), Some(cut(2, 4, false)));
    assert_eq!(old.next(&view), Some(cut(4, 6, true)));

    // At the limit a hole is refused, a tail only by old kernels.
    let limit = Step::Refuse {
        area: 2,
        why: Refusal::Limit,
    };
    assert_eq!(steps(&view, 4, 6, 1, false), [limit]);
    assert_eq!(steps(&view, 4, 8, 1, false), [head, detach(4, 8)]);
    assert_eq!(steps(&view, 4, 8, 1, true), [limit]);
    assert_eq!(steps(&view, 2, 4, 1, true), [limit]);

    // What else goes with an area.
    (view.0.locked, view.0.watched) = (true, true);
    let unlock = Step::Unlock { start: 4, end: 8 };
    let announce = Step::Announce { start: 4, end: 8 };
    assert_eq!(
        steps(&view, 4, 9, 9, false),
        [head, detach(4, 8), unlock, announce]
    );

    view.0.sealed = true;
    let sealed = Step::Refuse {
        area: 2,
        why: Refusal::Sealed,
    };
    assert_eq!(steps(&view, 4, 6, 9, false), [sealed]);
    assert_eq!(steps(&view, 2, 8, 9, false), [sealed]);
}

#[test]
fn ranges() {
    //  The addresses end at 64, a page has 4 bytes.
    let pages = |addr, len| range(addr, len, 64, 4);
    assert_eq!(pages(8, 1), Ok((8, 12)));
    assert_eq!(pages(0, 64), Ok((0, 64)));
    assert_eq!(pages(60, 4), Ok((60, 64)));
    for (addr, len) in [(8, 0), (9, 4), (60, 5), (64, 1), (68, 1), (8, u64::MAX)] {
        assert_eq!(pages(addr, len), Err(Refusal::Range), "{addr}+{len}");
    }
}
