// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`run`]: one [`Plan`], shared out among several oracles of one kind, each in a thread of its own.
//!
//! Batches do not depend on each other, so each oracle gets a row of them. The finding of the lowest
//! batch is the one that is told.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::oracle::{Oracle, OracleError};
use crate::runner::{BATCH, End, Plan, Runner, Stats};

/// Runs the plan. `progress` is told how many operations were compared, by any of the threads, and may
/// stop the run.
///
/// # Errors
/// [`OracleError::Environment`] if one of the oracles cannot go on for a reason of its own.
///
/// # Panics
/// If there is no oracle, or a thread panics.
pub fn run<O: Oracle + Send>(
    oracles: &mut [O],
    plan: &Plan,
    progress: impl Fn(u64) -> ControlFlow<()> + Sync,
) -> Result<(Stats, End), OracleError> {
    let begin = Instant::now();
    let stop = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    let (stop, done, progress) = (&stop, &done, &progress);
    let share = plan.ops.div_ceil(BATCH).div_ceil(oracles.len() as u64) * BATCH;
    let results: Vec<Result<(Stats, End), OracleError>> = thread::scope(|scope| {
        let threads: Vec<_> = oracles
            .iter_mut()
            .zip(0..)
            .map(|(oracle, index)| {
                let first = (share * index).min(plan.ops);
                let part = Plan {
                    first_batch: plan.first_batch + share * index / BATCH,
                    ops: share.min(plan.ops - first),
                    ..plan.clone()
                };
                scope.spawn(move || {
                    let mut told = 0;
                    let result = Runner::new(oracle, part.rules)?.run(&part, |stats| {
                        let now = done.fetch_add(stats.ops - told, Ordering::Relaxed);
                        let all = now + stats.ops - told;
                        told = stats.ops;
                        if progress(all).is_break() {
                            stop.store(true, Ordering::Relaxed);
                        }
                        match stop.load(Ordering::Relaxed) {
                            true => ControlFlow::Break(()),
                            false => ControlFlow::Continue(()),
                        }
                    });
                    if !matches!(result, Ok((_, End::Agreed))) {
                        stop.store(true, Ordering::Relaxed);
                    }
                    result
                })
            })
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
        threads.into_iter().map(join).collect()
    });

    let mut all = Stats::default();
    let mut end = End::Agreed;
    for result in results {
        let (stats, one) = result?;
        all.add(&stats);
        // In order of batches: the first finding is the lowest.
        match (&end, &one) {
            (End::Found(_), _) | (_, End::Agreed) => {}
            _ => end = one,
        }
    }
    all.elapsed = begin.elapsed();
    Ok((all, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Peer;
    use vmalab_model::{Mistake, Rules};

    fn play(jobs: usize, ops: u64, rules: Rules) -> (Stats, End) {
        let mut oracles: Vec<_> = (0..jobs).map(|_| Peer::new(Rules::V7_2)).collect();
        let plan = Plan {
            rules,
            seed: 1,
            first_batch: 0,
            ops,
        };
        run(&mut oracles, &plan, |_| ControlFlow::Continue(())).unwrap()
    }

    #[test]
    fn several_do_what_one_does() {
        // Not a whole number of batches; more oracles than batches.
        for (jobs, ops) in [(2, 10 * BATCH + 7), (3, 2 * BATCH), (4, 5)] {
            let (one, end) = play(1, ops, Rules::V7_2);
            assert!(matches!(end, End::Agreed));
            let (several, end) = play(jobs, ops, Rules::V7_2);
            assert!(matches!(end, End::Agreed));
            assert_eq!(several.ops, ops);
            assert_eq!(several.batches, one.batches);
            assert_eq!(several.results, one.results);
            assert_eq!(several.hooks, one.hooks);
        }
    }

    #[test]
    fn the_lowest_batch_is_told() {
        let wrong = Rules::V7_2.with_mistake(Mistake::SplitLosesOffset);
        let batch = |jobs| match play(jobs, 100 * BATCH, wrong).1 {
            End::Found(finding) => finding.batch,
            end => panic!("{end:?}"),
        };
        assert_eq!(batch(1), batch(2));
    }
}
