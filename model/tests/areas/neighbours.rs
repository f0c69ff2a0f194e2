// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Areas that are left side by side though they would merge: that it is noticed, and where it has a reason.

use vmalab_model::{Errno, File, Limits, Mistake, Op, Rules};

use crate::world::World;

/// What [`World::apply`] would have complained of.
fn complaint(w: &mut World, op: &Op) -> Option<String> {
    let before = w.space.clone();
    let result = w.space.apply(op).result;
    w.space.check_merged(&before, op, result).err()
}

#[test]
fn a_merge_that_is_skipped_is_noticed() {
    for (mistake, first, written, second) in [
        (Mistake::NoMergeForward, 2, None, 0),
        (Mistake::NoUnwrittenMerge, 0, Some(1), 2),
    ] {
        for rules in [Rules::V7_2.with_mistake(mistake), Rules::V7_2] {
            let mut w = World::with(rules, Limits::default(), File::device(64));
            w.map('a', first, first + 2).unwrap();
            if let Some(page) = written {
                w.touch(page, true).unwrap();
            }
            let op = Op::Mmap(w.args('a', second, second + 2));
            let complaint = complaint(&mut w, &op);
            assert_eq!(
                complaint.is_some_and(|text| text.contains("left at 0x102000 what would merge")),
                rules.mistake.is_some(),
                "{mistake:?}"
            );
            let drawn = if rules.mistake.is_some() {
                "AaAa"
            } else {
                "Aaaa"
            };
            assert_eq!(w.draw(), drawn);
        }
    }
}

/// What was there before an operation is not its doing; and what fails may leave it.
#[test]
fn neighbours_with_a_reason() {
    let mut w = World::new();
    w.draw_in("Aaaa");
    w.seal(0, 4);
    // Cut out and put back sealed: nothing merges it again.
    assert_eq!(w.draw(), "Aaaa");
    let mut w = World::with(
        Rules::V7_2,
        Limits::default(),
        File {
            mmap_error: Some(Errno::EBUSY),
            ..File::device(64)
        },
    );
    w.draw_in("Aaaaaa");
    w.space.limits_mut().address_space = 6 * vmalab_model::PAGE_SIZE;
    let too_much = Op::Mmap(w.args('a', 4, 8));
    assert_eq!(complaint(&mut w, &too_much), None);
    assert_eq!(w.draw(), "AaaaAa", "the cut stays");
    let other = Op::Mmap(w.args('r', 8, 9));
    assert_eq!(complaint(&mut w, &other), None);
    let same = Op::Munmap {
        addr: 0x10_8000,
        len: 0x1000,
    };
    assert_eq!(complaint(&mut w, &same), None);
}
