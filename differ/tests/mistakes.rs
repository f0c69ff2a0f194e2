// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The tester can fail: each deliberate mistake of the model is found within 300,000 operations, here by
//! an oracle that sees everything. `vmac.rs` does the same with the kernel's own code, `host.rs` with the
//! running kernel.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use vmalab_differ::generate::Generator;
use vmalab_differ::known::{By, Known};
use vmalab_differ::oracle::World;
use vmalab_differ::peer::Peer;
use vmalab_differ::runner::{BATCH, End, Plan, Runner, What};
use vmalab_model::{AddressSpace, Mistake, Op, PAGE_SIZE, Rules};

fn run(rules: Rules, seed: u64) -> End {
    let mut oracle = Peer::new(Rules::V7_2);
    let plan = Plan {
        rules,
        seed,
        first_batch: 0,
        ops: 300_000,
    };
    let mut runner = Runner::new(&mut oracle, rules).unwrap();
    let (stats, end) = runner.run(&plan, |_| ControlFlow::Continue(())).unwrap();
    assert!(matches!(end, End::Found(_)) || stats.ops == 300_000);
    end
}

#[test]
fn each_mistake_is_found() {
    let overlooked: Vec<_> = Mistake::ALL
        .iter()
        .flat_map(|&mistake| (1..=3).map(move |seed| (mistake, seed)))
        .filter(|&(mistake, seed)| {
            !matches!(run(Rules::V7_2.with_mistake(mistake), seed), End::Found(_))
        })
        .collect();
    assert_eq!(overlooked, []);
}

#[test]
fn the_rules_agree_with_themselves() {
    assert!(matches!(run(Rules::V7_2, 1), End::Agreed));
}

#[test]
fn a_finding_is_made_short() {
    let End::Found(finding) = run(Rules::V7_2.with_mistake(Mistake::SplitLosesOffset), 2) else {
        panic!("nothing was found");
    };
    let [full, short] = [&finding.full, &finding.short].map(|case| match &case.what {
        What::Differs(differs) => differs.difference.aspect(),
        what => panic!("{what:?}"),
    });
    assert_eq!((&*full, &*short), ("area at offset", "area at offset"));
    // An area of two pages, and what splits it; of three, if that puts something else in the second one's place.
    let ops = &finding.short.ops;
    let [Op::Mmap(map), _] = ops[..] else {
        panic!("{ops:#x?}");
    };
    assert!(map.len <= 3 * PAGE_SIZE, "{ops:#x?}");
}

/// What shows at the end of ten thousand operations shows in a few.
#[test]
fn ten_thousand_operations_come_down_to_a_few() {
    for mistake in [Mistake::SplitLosesOffset, Mistake::CloseBackwards] {
        let rules = Rules::V7_2.with_mistake(mistake);
        let mut oracle = Peer::new(Rules::V7_2);
        let mut runner = Runner::new(&mut oracle, rules).unwrap();
        let ops = long_sequence(&runner.worlds()[0], rules, 4);
        let case = runner.replay(0, &ops).unwrap().expect("it shows");
        assert_eq!(case.ops.len(), ops.len());
        let begin = Instant::now();
        let short = runner.shrink(&case, Duration::from_secs(60)).unwrap();
        println!(
            "{mistake:?}: {} operations, then {} after {:.1?}: {:x?}",
            case.ops.len(),
            short.ops.len(),
            begin.elapsed(),
            short.ops
        );
        // A few seconds; this may be a busy machine.
        assert!(begin.elapsed() < Duration::from_secs(30), "{mistake:?}");
        assert!(short.ops.len() <= 4, "{mistake:?}: {:#x?}", short.ops);
        // It shows the same, and the correct rules do not.
        assert!(
            runner.replay(0, &short.ops).unwrap().is_some(),
            "{mistake:?}"
        );
        let mut right = Runner::new(&mut oracle, Rules::V7_2).unwrap();
        assert!(right.replay(0, &short.ops).unwrap().is_none());
    }
}

/// Where the kernel chooses addresses, each operation moves all that come after it. Of this sequence few can be
/// left out as long as that is so.
#[test]
fn addresses_that_were_chosen_do_not_keep_a_sequence_long() {
    let rules = Rules::V7_2.with_mistake(Mistake::MergeIgnoresClose);
    let mut oracle = Peer::new(Rules::V7_2);
    let mut runner = Runner::new(&mut oracle, rules).unwrap();
    let ops = long_sequence(&runner.worlds()[0], rules, 3);
    let case = runner.replay(0, &ops).unwrap().expect("it shows");
    let short = runner.shrink(&case, Duration::from_secs(60)).unwrap();
    println!("{} operations, then {:x?}", ops.len(), short.ops);
    assert!(short.ops.len() <= 4, "{:#x?}", short.ops);
}

/// `make test` has it with optimisation, too: the model is some fifty times slower without.
const LONG: usize = if cfg!(debug_assertions) {
    1_000
} else {
    10_000
};

/// So many operations of which only the last one shows the mistake: those that would have before are
/// left out.
fn long_sequence(world: &World, rules: Rules, seed: u64) -> Vec<Op> {
    let mut models = [Rules::V7_2, rules].map(|rules| {
        let mut model: AddressSpace = AddressSpace::new(rules, world.limits);
        for file in &world.files {
            model.add_file(file.file);
        }
        model.set_break(world.heap.as_ref().expect("there is one").start);
        model
    });
    let mut ops = Vec::new();
    for batch in 0.. {
        let mut generator = Generator::new(seed, batch, world);
        for _ in 0..BATCH {
            let op = generator.op();
            // What is sealed stays: in the end there would be nothing left to show it.
            if matches!(op, Op::Mseal { .. }) {
                continue;
            }
            let mut next = models.clone();
            let [right, wrong] = next.each_mut().map(|model| model.apply(&op));
            if right == wrong {
                models = next;
                generator.learn(&right);
                ops.push(op);
            } else if ops.len() >= LONG {
                ops.push(op);
                return ops;
            }
        }
    }
    unreachable!("it shows now and then")
}

#[test]
fn what_is_known_is_counted_and_does_not_end_the_run() {
    const OFFSETS: &[Known] = &[Known {
        name: "offsets",
        reason: "a test",
        oracle: "model",
        by: By::Comparison {
            aspect: "area at offset",
            shown_by: |_, _| true,
        },
    }];
    let run = |rules: Rules| {
        let mut oracle = Peer::new(Rules::V7_2);
        let mut runner = Runner::new(&mut oracle, rules).unwrap().knowing(OFFSETS);
        let plan = Plan {
            rules,
            seed: 1,
            first_batch: 0,
            ops: 10_000,
        };
        runner.run(&plan, |_| ControlFlow::Continue(())).unwrap()
    };
    let (stats, end) = run(Rules::V7_2.with_mistake(Mistake::SplitLosesOffset));
    assert!(stats.known["offsets"] > 0, "{stats:?}");
    if let End::Found(finding) = end {
        let What::Differs(differs) = &finding.full.what else {
            panic!("{:?}", finding.full.what);
        };
        assert_ne!(differs.difference.aspect(), "area at offset");
    }
    // Nothing else is.
    let (stats, end) = run(Rules::V7_2.with_mistake(Mistake::MunmapOfHoleFails));
    assert!(matches!(end, End::Found(_)) && stats.known.is_empty());
}

#[test]
fn a_seed_gives_the_same_operations_each_time() {
    let ops = |seed| {
        let End::Found(finding) = run(Rules::V7_2.with_mistake(Mistake::SplitForgetsOpen), seed)
        else {
            panic!("nothing was found");
        };
        (finding.batch, finding.full.ops)
    };
    assert_eq!(ops(1), ops(1));
    assert_ne!(ops(1), ops(2));
}
