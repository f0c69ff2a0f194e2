// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Small worlds: nothing is lost where symmetric sequences are left out.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use vmalab_differ::known::{By, Known};
use vmalab_differ::oracle::Oracle;
use vmalab_differ::peer::Peer;
use vmalab_differ::small::{End, Extra, Plan, Stats, alphabet, explore, state_of};
use vmalab_model::{AddressSpace, Mistake, Rules};

fn plan(peer: &Peer, rules: Rules, pages: u64, length: u32, symmetric_once: bool) -> Plan {
    Plan {
        rules,
        world: 0,
        length,
        known: &[],
        letters: alphabet(&peer.worlds()[0], pages, Extra::default()).unwrap(),
        symmetric_once,
        shard: (0, 1),
    }
}

fn run(rules: Rules, pages: u64, length: u32, symmetric_once: bool) -> (Stats, End) {
    let mut peers = [Peer::new(Rules::V7_2), Peer::new(Rules::V7_2)];
    let plan = plan(&peers[0], rules, pages, length, symmetric_once);
    explore(&mut peers, &plan, |_, _, _| ControlFlow::Continue(())).unwrap()
}

#[test]
fn a_small_world_agrees_and_is_counted() {
    let (all, end) = run(Rules::V7_2, 2, 3, false);
    assert!(matches!(end, End::Agreed));
    // Three ranges: four kinds, munmap, two protections; two moves and two writes.
    let letters = 3 * 7 + 2 + 2;
    assert_eq!(all.letters, letters);
    assert_eq!(all.compared, [letters, letters.pow(2), letters.pow(3)]);
    assert_eq!(all.states, [1, letters, letters.pow(2)]);
    let (once, end) = run(Rules::V7_2, 2, 3, true);
    assert!(matches!(end, End::Agreed));
    assert!(once.states[2] < all.states[2] / 2, "{once:?}");
    assert_eq!(once.sequences, all.sequences);
}

/// What an operation does follows from the state alone, however it was come to: of all sequences, none
/// left out, those that come to one state have the same outcome with each letter, and come to the same
/// states after it.
#[test]
fn what_follows_a_state_does_not_depend_on_the_way_to_it() {
    let peer = Peer::new(Rules::V7_2);
    let world = &peer.worlds()[0];
    let letters = alphabet(world, 3, Extra::default()).unwrap();
    let mut start: AddressSpace = AddressSpace::new(Rules::V7_2, world.limits);
    for file in &world.files {
        start.add_file(file.file);
    }
    let mut followed = BTreeMap::new();
    let mut ways = 0;
    let mut queue = vec![(start, 0)];
    while let Some((model, length)) = queue.pop() {
        let state = state_of(&model, &[]);
        for (number, letter) in letters.iter().enumerate() {
            let mut next = model.clone();
            let mut outcome = next.apply(&letter[0]);
            // The most that there ever was: nothing follows from it, and the oracle in the process does not tell it.
            outcome.peak_vm = 0;
            let follows = (state_of(&next, &[]), format!("{outcome:?}"));
            let known = followed
                .entry((state, number))
                .or_insert_with(|| follows.clone());
            assert_eq!(*known, follows, "{letter:?}");
            ways += 1;
            if length < 2 {
                queue.push((next, length + 1));
            }
        }
    }
    assert!(
        ways > 3 * followed.len(),
        "{ways} ways, {} pairs",
        followed.len()
    );
}

/// Whatever is found among all sequences is found among those that are not left out, and with no fewer
/// operations.
#[test]
fn each_mistake_that_all_sequences_show_is_found() {
    let mut found = 0;
    for &mistake in Mistake::ALL {
        let rules = Rules::V7_2.with_mistake(mistake);
        let [all, once] = [false, true].map(|once| match run(rules, 2, 3, once).1 {
            End::Found(found) => Some(found.0.ops.len()),
            End::Agreed => None,
            End::Stopped => panic!("nobody stopped it"),
        });
        assert_eq!(all, once, "{mistake:?}");
        found += u32::from(all.is_some());
    }
    assert!(found >= 5, "{found}");
}

/// What is known is counted, and the other sequences are played on.
#[test]
fn what_is_known_does_not_end_it() {
    const HOLES: &[Known] = &[Known {
        name: "holes",
        reason: "a test",
        oracle: "model",
        by: By::Comparison {
            aspect: "result",
            shown_by: |_, _| true,
        },
    }];
    let played = |known| {
        let mut peers = [Peer::new(Rules::V7_2)];
        let rules = Rules::V7_2.with_mistake(Mistake::MunmapOfHoleFails);
        let plan = Plan {
            known,
            ..plan(&peers[0], rules, 2, 3, true)
        };
        explore(&mut peers, &plan, |_, _, _| ControlFlow::Continue(())).unwrap()
    };
    let (stats, end) = played(HOLES);
    assert!(matches!(end, End::Agreed), "{end:?}");
    assert!(stats.known["holes"] > 0, "{stats:?}");
    let (stats, end) = played(&[]);
    assert!(matches!(end, End::Found(_)));
    assert!(stats.known.is_empty());
}

/// The parts of all shards are the whole.
#[test]
fn shards_are_the_whole() {
    let compared = |shard| {
        let mut peers = [Peer::new(Rules::V7_2)];
        let plan = Plan {
            shard,
            ..plan(&peers[0], Rules::V7_2, 2, 3, true)
        };
        let (stats, end) = explore(&mut peers, &plan, |_, _, _| ControlFlow::Continue(())).unwrap();
        assert!(matches!(end, End::Agreed));
        *stats.compared.last().unwrap()
    };
    let whole = compared((0, 1));
    assert_eq!((0..3).map(|part| compared((part, 3))).sum::<u64>(), whole);
}
