// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The tester can fail: each deliberate mistake of the model is found within 30,000 operations, here by
//! an oracle that sees everything. `host.rs` does the same with the running kernel.

use std::ops::ControlFlow;

use vmalab_differ::peer::Peer;
use vmalab_differ::runner::{End, Plan, Runner, What};
use vmalab_model::{Mistake, Op, Rules};

fn run(rules: Rules, seed: u64) -> End {
    let mut oracle = Peer::new(Rules::V7_2);
    let plan = Plan {
        rules,
        seed,
        first_batch: 0,
        ops: 30_000,
    };
    let mut runner = Runner::new(&mut oracle, rules).unwrap();
    let (stats, end) = runner.run(&plan, |_| ControlFlow::Continue(())).unwrap();
    assert!(matches!(end, End::Found(_)) || stats.ops == 30_000);
    end
}

#[test]
fn each_mistake_is_found_within_thirty_thousand_operations() {
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
    let End::Found(finding) = run(Rules::V7_2.with_mistake(Mistake::SplitLosesOffset), 1) else {
        panic!("nothing was found");
    };
    let What::Differs(differs) = &finding.what else {
        panic!("{:?}", finding.what);
    };
    assert!(differs.difference.field.ends_with("offset"));
    // An area, and what splits it.
    let short = finding.short.expect("shorter");
    assert_eq!(short.len(), 2, "{short:#x?}");
    assert!(matches!(short[0], Op::Mmap(_)));
}

#[test]
fn a_seed_gives_the_same_operations_each_time() {
    let ops = |seed| {
        let End::Found(finding) = run(Rules::V7_2.with_mistake(Mistake::SplitForgetsOpen), seed)
        else {
            panic!("nothing was found");
        };
        (finding.batch, finding.ops)
    };
    assert_eq!(ops(1), ops(1));
    assert_ne!(ops(1), ops(2));
}
