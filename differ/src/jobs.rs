// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`run`]: one [`Plan`], shared out among several oracles of one kind, each in a thread of its own.
//!
//! Batches do not depend on each other, so whoever is free takes the next few. Those that were taken are
//! finished, whatever happens: then all batches up to [`Stats::next_batch`] are done, and the finding of
//! the lowest batch is the one that is told, however many threads there are.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::oracle::{Oracle, OracleError};
use crate::runner::{BATCH, End, Plan, Runner, Stats};

/// So many batches are taken at a time.
const TAKEN: u64 = 16;

/// What the threads have in common.
struct Shared<'a, F> {
    plan: &'a Plan,
    /// Batches that were taken.
    taken: AtomicU64,
    /// No more are to be taken.
    stop: AtomicBool,
    /// Operations that were compared.
    done: AtomicU64,
    progress: F,
    begin: Instant,
}

/// Runs the plan. `progress` is told how many operations were compared, by any of the threads, and may
/// stop the run.
///
/// # Errors
/// [`OracleError::Environment`] if one of the oracles cannot go on for a reason of its own.
///
/// # Panics
/// If a thread panics.
pub fn run<O: Oracle + Send>(
    oracles: &mut [O],
    plan: &Plan,
    progress: impl Fn(u64) -> ControlFlow<()> + Sync,
) -> Result<(Stats, End), OracleError> {
    let shared = Shared::new(plan, progress);
    let results = thread::scope(|scope| {
        let shared = &shared;
        let threads: Vec<_> = oracles
            .iter_mut()
            .map(|oracle| scope.spawn(move || shared.work(oracle)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
        threads.into_iter().map(join).collect()
    });
    shared.merge(results)
}

/// The same with one oracle, in this thread.
///
/// # Errors
/// As there.
pub fn run_here<O: Oracle + ?Sized>(
    oracle: &mut O,
    plan: &Plan,
    progress: impl Fn(u64) -> ControlFlow<()> + Sync,
) -> Result<(Stats, End), OracleError> {
    let shared = Shared::new(plan, progress);
    let result = shared.work(oracle);
    shared.merge(vec![result])
}

impl<'a, F: Fn(u64) -> ControlFlow<()>> Shared<'a, F> {
    fn new(plan: &'a Plan, progress: F) -> Self {
        Self {
            plan,
            taken: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            done: AtomicU64::new(0),
            progress,
            begin: Instant::now(),
        }
    }

    /// Takes batches until there are no more.
    fn work<O: Oracle + ?Sized>(&self, oracle: &mut O) -> Result<(Stats, End), OracleError> {
        let result = self.take_all(oracle);
        if !matches!(result, Ok((_, End::Agreed))) {
            self.stop.store(true, Ordering::Relaxed);
        }
        result
    }

    fn take_all<O: Oracle + ?Sized>(&self, oracle: &mut O) -> Result<(Stats, End), OracleError> {
        let mut runner = Runner::new(oracle, self.plan.rules)?;
        let mut all = Stats::default();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok((all, End::Stopped));
            }
            let first = self.taken.fetch_add(TAKEN, Ordering::Relaxed);
            let ops = self.plan.ops.saturating_sub(first.saturating_mul(BATCH));
            if ops == 0 {
                return Ok((all, End::Agreed));
            }
            let part = Plan {
                first_batch: self.plan.first_batch + first,
                ops: ops.min(TAKEN * BATCH),
                ..self.plan.clone()
            };
            let mut told = 0;
            let (stats, end) = runner.run(&part, |stats| {
                let more = stats.ops - told;
                told = stats.ops;
                let done = self.done.fetch_add(more, Ordering::Relaxed) + more;
                if (self.progress)(done).is_break() {
                    self.stop.store(true, Ordering::Relaxed);
                }
                ControlFlow::Continue(())
            })?;
            all.add(&stats);
            if !matches!(end, End::Agreed) {
                return Ok((all, end));
            }
        }
    }

    fn merge(
        &self,
        results: Vec<Result<(Stats, End), OracleError>>,
    ) -> Result<(Stats, End), OracleError> {
        let mut all = Stats::default();
        let mut end = End::Agreed;
        for result in results {
            let (stats, one) = result?;
            all.add(&stats);
            end = match (end, one) {
                (End::Found(a), End::Found(b)) if b.batch < a.batch => End::Found(b),
                (End::Found(a), _) => End::Found(a),
                (_, End::Found(b)) => End::Found(b),
                (End::Agreed, End::Agreed) => End::Agreed,
                _ => End::Stopped,
            };
        }
        let batches = self.plan.ops.div_ceil(BATCH);
        let taken = self.taken.load(Ordering::Relaxed).min(batches);
        if taken == batches && matches!(end, End::Stopped) {
            // It was too late to stop.
            end = End::Agreed;
        }
        all.elapsed = self.begin.elapsed();
        all.next_batch = match &end {
            End::Found(finding) => finding.batch,
            _ => self.plan.first_batch + taken,
        };
        Ok((all, end))
    }
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

    /// What is stopped and goes on where it stopped does what is done at once.
    #[test]
    fn what_is_stopped_can_go_on() {
        let plan = |first_batch, ops| Plan {
            rules: Rules::V7_2,
            seed: 1,
            first_batch,
            ops,
        };
        let total = 100 * BATCH;
        let mut oracles = [Peer::new(Rules::V7_2), Peer::new(Rules::V7_2)];
        let mut all = Stats::default();
        let mut next = 0;
        let mut slices = 0;
        loop {
            let rest = plan(next, total - next * BATCH);
            let stop = |_| ControlFlow::Break(());
            let (stats, end) = run(&mut oracles, &rest, stop).unwrap();
            all.add(&stats);
            next = stats.next_batch;
            slices += 1;
            match end {
                End::Stopped => {}
                End::Agreed => break,
                End::Found(finding) => panic!("{finding:?}"),
            }
        }
        assert!(slices > 2);
        assert_eq!(next, 100);
        let (once, _) = play(1, total, Rules::V7_2);
        assert_eq!((all.ops, all.batches), (total, 100));
        assert_eq!((all.results, all.hooks), (once.results, once.hooks));
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
