// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`run`]: one [`Plan`], shared out among several oracles of one kind, each in a thread of its own.
//!
//! Batches do not depend on each other, so whoever is free takes the next few. Those that were taken are
//! finished, whatever happens: then all batches up to [`Stats::next_batch`] are done, and the finding of
//! the lowest batch is the one that is told, however many threads there are.

use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::oracle::{Oracle, OracleError};
use crate::reach::Reach;
use crate::runner::{BATCH, End, Finding, Plan, Runner, Stats};

/// So many batches are taken at a time.
pub const TAKEN: u64 = 16;

/// The batches that a thread has taken and not finished: a note that outlives the process, where it lies in memory
/// that another one sees. All zero is none.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct UnderWay(AtomicU64);

impl UnderWay {
    /// The first of them, if there are any.
    pub fn first(&self) -> Option<u64> {
        self.0.load(Ordering::Relaxed).checked_sub(1)
    }

    fn set(&self, first: Option<u64>) {
        let noted = first.map_or(0, |first| first + 1);
        self.0.store(noted, Ordering::Relaxed);
    }
}

/// How many oracles so many operations give something to do.
pub fn most(ops: u64) -> u64 {
    ops.div_ceil(TAKEN * BATCH).max(1)
}

/// How far all threads together have come.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Operations that were compared.
    pub ops: u64,
    /// What they reached.
    pub reach: Reach,
}

/// What the threads have in common.
struct Shared<'a, F> {
    plan: &'a Plan,
    /// Batches that were taken.
    taken: AtomicU64,
    /// No more are to be taken.
    stop: AtomicBool,
    done: Mutex<Progress>,
    progress: F,
    begin: Instant,
}

/// What one thread did.
struct Done {
    stats: Stats,
    end: Result<End, OracleError>,
    /// The first of the batches that it took last, if it did not come to their end.
    unfinished: Option<u64>,
}

/// Runs the plan. `progress` is told how far all threads have come, and may stop the run. What is under way in the
/// thread of each oracle is noted in its place of `under_way`, as far as there is one.
///
/// # Errors
/// [`OracleError::Environment`] if one of the oracles cannot go on for a reason of its own, and no other one
/// found anything.
///
/// # Panics
/// If a thread panics.
pub fn run<O: Oracle + Send>(
    oracles: &mut [O],
    plan: &Plan,
    under_way: &[UnderWay],
    progress: impl Fn(&Progress) -> ControlFlow<()> + Sync,
) -> Result<(Stats, End), OracleError> {
    let shared = Shared::new(plan, progress);
    let notes = under_way.iter().map(Some).chain(std::iter::repeat(None));
    let results = thread::scope(|scope| {
        let shared = &shared;
        let threads: Vec<_> = oracles
            .iter_mut()
            .zip(notes)
            .map(|(oracle, note)| scope.spawn(move || shared.work(oracle, note)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
        threads.into_iter().map(join).collect()
    });
    shared.merge(results)
}

impl<'a, F: Fn(&Progress) -> ControlFlow<()>> Shared<'a, F> {
    fn new(plan: &'a Plan, progress: F) -> Self {
        Self {
            plan,
            taken: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            done: Mutex::new(Progress {
                ops: 0,
                reach: Reach::default(),
            }),
            progress,
            begin: Instant::now(),
        }
    }

    /// Takes batches until there are no more.
    fn work<O: Oracle>(&self, oracle: &mut O, note: Option<&UnderWay>) -> Done {
        let mut done = Done {
            stats: Stats::default(),
            end: Ok(End::Agreed),
            unfinished: None,
        };
        done.end = self.take_all(oracle, note, &mut done);
        if let Some(note) = note {
            note.set(None);
        }
        if !matches!(done.end, Ok(End::Agreed)) {
            self.stop.store(true, Ordering::Relaxed);
        }
        done
    }

    fn take_all<O: Oracle>(
        &self,
        oracle: &mut O,
        note: Option<&UnderWay>,
        all: &mut Done,
    ) -> Result<End, OracleError> {
        let mut runner = Runner::new(oracle, self.plan.rules)?;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(End::Stopped);
            }
            let first = self.taken.fetch_add(TAKEN, Ordering::Relaxed);
            let ops = self.plan.ops.saturating_sub(first.saturating_mul(BATCH));
            if ops == 0 {
                return Ok(End::Agreed);
            }
            all.unfinished = Some(self.plan.first_batch + first);
            if let Some(note) = note {
                note.set(all.unfinished);
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
                let mut done = self.done.lock().expect("no panic");
                done.ops += more;
                done.reach.merge(&stats.reach);
                if (self.progress)(&done).is_break() {
                    self.stop.store(true, Ordering::Relaxed);
                }
                ControlFlow::Continue(())
            })?;
            all.stats.add(&stats);
            all.unfinished = None;
            if !matches!(end, End::Agreed) {
                return Ok(end);
            }
        }
    }

    /// A finding is told even if another oracle could not go on.
    fn merge(&self, results: Vec<Done>) -> Result<(Stats, End), OracleError> {
        let mut all = Stats::default();
        let mut end = End::Agreed;
        let mut error = None;
        let mut unfinished = u64::MAX;
        for (oracle, done) in results.into_iter().enumerate() {
            all.add(&done.stats);
            let one = match done.end {
                Ok(End::Found(finding)) => End::Found(Box::new(Finding { oracle, ..*finding })),
                Ok(one) => one,
                Err(other) => {
                    all.unfinished.push(other.to_string());
                    unfinished = unfinished.min(done.unfinished.unwrap_or(u64::MAX));
                    error = error.or(Some(other));
                    continue;
                }
            };
            end = match (end, one) {
                (End::Found(a), End::Found(b)) if b.batch < a.batch => End::Found(b),
                (End::Found(a), _) => End::Found(a),
                (_, End::Found(b)) => End::Found(b),
                (End::Agreed, End::Agreed) => End::Agreed,
                _ => End::Stopped,
            };
        }
        if let (Some(error), false) = (error, matches!(end, End::Found(_))) {
            return Err(error);
        }
        let batches = self.plan.ops.div_ceil(BATCH);
        let taken = self.taken.load(Ordering::Relaxed).min(batches);
        if taken == batches && matches!(end, End::Stopped) {
            // It was too late to stop.
            end = End::Agreed;
        }
        all.elapsed = self.begin.elapsed();
        all.next_batch = match &end {
            End::Found(finding) => finding.batch.min(unfinished),
            _ => self.plan.first_batch + taken,
        };
        Ok((all, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{Observation, Sees, World};
    use crate::peer::Peer;
    use vmalab_model::{Mistake, Op, Rules};

    fn play(jobs: usize, ops: u64, rules: Rules) -> (Stats, End) {
        let mut oracles: Vec<_> = (0..jobs).map(|_| Peer::new(Rules::V7_2)).collect();
        let plan = Plan {
            rules,
            seed: 1,
            first_batch: 0,
            ops,
        };
        run(&mut oracles, &plan, &[], |_| ControlFlow::Continue(())).unwrap()
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
            let stop = |_: &Progress| ControlFlow::Break(());
            let (stats, end) = run(&mut oracles, &rest, &[], stop).unwrap();
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

    /// It answers as the model does, or cannot go on once another one has found something.
    struct Half<'a> {
        peer: Peer,
        fails: bool,
        found: &'a AtomicBool,
    }

    impl Oracle for Half<'_> {
        fn name(&self) -> String {
            self.peer.name()
        }

        fn sees(&self) -> Sees {
            self.peer.sees()
        }

        fn worlds(&self) -> &[World] {
            self.peer.worlds()
        }

        fn look_closely(&mut self, closely: bool) {
            self.found.fetch_or(closely, Ordering::Relaxed);
        }

        fn run(
            &mut self,
            world: usize,
            ops: &[Op],
            seen: &mut Vec<Observation>,
        ) -> Result<(), OracleError> {
            if !self.fails {
                return self.peer.run(world, ops, seen);
            }
            while !self.found.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            Err(OracleError::Environment("no more memory".into()))
        }
    }

    #[test]
    fn a_finding_is_told_even_if_another_oracle_cannot_go_on() {
        let found = AtomicBool::new(false);
        let mut oracles = [true, false].map(|fails| Half {
            peer: Peer::new(Rules::V7_2),
            fails,
            found: &found,
        });
        let plan = Plan {
            rules: Rules::V7_2.with_mistake(Mistake::SplitLosesOffset),
            seed: 1,
            first_batch: 0,
            ops: 1000 * BATCH,
        };
        let (stats, end) = run(&mut oracles, &plan, &[], |_| ControlFlow::Continue(())).unwrap();
        let End::Found(finding) = end else {
            panic!("{end:?}");
        };
        assert_eq!(stats.unfinished, ["no more memory"]);
        // What the other one had taken is to be done again.
        assert!(stats.next_batch <= finding.batch && stats.next_batch % TAKEN == 0);
        // Without a finding it is an error.
        found.store(true, Ordering::Relaxed);
        let right = Plan {
            rules: Rules::V7_2,
            ..plan
        };
        let result = run(&mut oracles, &right, &[], |_| ControlFlow::Continue(()));
        assert!(matches!(result, Err(OracleError::Environment(_))));
    }

    #[test]
    fn whose_a_finding_is_is_told() {
        let right = Rules::V7_2;
        let wrong = right.with_mistake(Mistake::SplitLosesOffset);
        let mut oracles = [right, right, wrong].map(Peer::new);
        let plan = Plan {
            rules: right,
            seed: 1,
            first_batch: 0,
            ops: 10_000 * BATCH,
        };
        let (_, end) = run(&mut oracles, &plan, &[], |_| ControlFlow::Continue(())).unwrap();
        assert!(matches!(end, End::Found(finding) if finding.oracle == 2));
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
