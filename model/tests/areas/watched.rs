// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What a userfaultfd is told of `munmap`, and when: it differs where the call fails half way.

use vmalab_model::{Errno, File, Limits, Op, PAGE_SIZE, Rules, UffdEvent};

use crate::world::{BASE, World};

const fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

/// Pages `watched` of four and a sealed area behind them, if the era has such; `from..to` goes. Gives the answer
/// and what is told.
fn unmap(rules: Rules, room: u64, from: u64, to: u64) -> (Result<u64, Errno>, Vec<UffdEvent>) {
    let mut w = World::with(rules, Limits::default(), File::device(64));
    w.draw_in("AaaaRr");
    let watch = Op::UffdRegister {
        addr: at(0),
        len: 4 * PAGE_SIZE,
    };
    w.apply(&watch).unwrap();
    if rules.mseal {
        let seal = Op::Mseal {
            addr: at(4),
            len: 2 * PAGE_SIZE,
            flags: 0,
        };
        w.apply(&seal).unwrap();
    }
    w.space.limits_mut().max_map_count = w.space.counters().map_count + room;
    let op = Op::Munmap {
        addr: at(from),
        len: (to - from) * PAGE_SIZE,
    };
    let result = w.space.execute(&op);
    (result, w.space.events().to_vec())
}

fn told(from: u64, to: u64) -> Vec<UffdEvent> {
    let (start, end) = (at(from), at(to));
    vec![UffdEvent::Unmap { start, end }]
}

#[test]
fn what_succeeds_is_told_once() {
    for &rules in Rules::all() {
        if rules.since < Rules::V4_12.since {
            continue;
        }
        for (from, to) in [(1, 3), (0, 4), (0, 2)] {
            let seen = unmap(rules, 1, from, to);
            assert_eq!(seen, (Ok(0), told(from, to)), "{}", rules.name);
        }
    }
}

#[test]
fn what_fails_is_told_or_not() {
    let no = Err(Errno::ENOMEM);
    // No room for a hole: told before that was looked at, until 4.13.
    for (rules, events) in [
        (Rules::V4_12, told(1, 3)),
        (Rules::V5_10, vec![]),
        (Rules::V6_1, vec![]),
        (Rules::V6_12, vec![]),
        (Rules::V7_2, vec![]),
    ] {
        assert_eq!(unmap(rules, 0, 1, 3), (no, events), "{}", rules.name);
    }
    // What comes first is told by the time that a seal is found.
    for rules in [Rules::V6_12, Rules::V6_18, Rules::V7_2] {
        let seen = unmap(rules, 1, 2, 6);
        assert_eq!(seen, (Err(Errno::EPERM), told(2, 6)), "{}", rules.name);
        assert_eq!(unmap(rules, 1, 4, 6), (Err(Errno::EPERM), vec![]));
    }
}
