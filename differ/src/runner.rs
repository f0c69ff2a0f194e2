// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Runner`]: generates, predicts, asks the oracle, compares; stops at the first finding.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use vmalab_model::{AddressSpace, Errno, Hook, Op, Outcome, Rules};

use crate::call::{Call, SIGNATURES};
use crate::compare::{Comparer, Difference};
use crate::contents::Contents;
use crate::generate::Generator;
use crate::known::{self, KNOWN, Known};
use crate::oracle::{Fields, Observation, Oracle, OracleError, World};
use crate::reach::Reach;
use crate::shrink::{Shows, shrink};

/// Operations in one batch. A batch is what one child process does.
pub const BATCH: u64 = 256;
/// How long a finding is made simpler.
pub const SHRINK_FOR: Duration = Duration::from_secs(20);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The rules of the model.
    pub rules: Rules,
    /// From which all else follows.
    pub seed: u64,
    /// The first batch.
    pub first_batch: u64,
    /// How many operations.
    pub ops: u64,
}

/// What was done so far.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Operations compared.
    pub ops: u64,
    /// Batches.
    pub batches: u64,
    /// Batches in each world, by its name.
    pub worlds: BTreeMap<String, u64>,
    /// Operations of each kind by their result, 0 or an errno: `("munmap", 22)`.
    pub results: BTreeMap<(&'static str, i32), u64>,
    /// Hook calls that were predicted and compared, by the hook's name.
    pub hooks: BTreeMap<&'static str, u64>,
    /// Pages whose contents were compared.
    pub pages: u64,
    /// The largest number of areas in the windows.
    pub most_areas: usize,
    /// What was reached of all that can happen.
    pub reach: Reach,
    /// How often each of [`KNOWN`] came, by name.
    pub known: BTreeMap<&'static str, u64>,
    /// Why an oracle could not go on, where another one found something all the same.
    pub unfinished: Vec<String>,
    /// All batches before this one are done.
    pub next_batch: u64,
    /// Time spent.
    pub elapsed: Duration,
}

impl Stats {
    /// Operations a second.
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 {
            self.ops as f64 / seconds
        } else {
            0.0
        }
    }

    /// Takes what others did in as well. The time spent is not added up, and the next batch is as it was.
    pub fn add(&mut self, other: &Self) {
        self.ops += other.ops;
        self.batches += other.batches;
        for (world, count) in &other.worlds {
            *self.worlds.entry(world.clone()).or_default() += count;
        }
        for (result, count) in &other.results {
            *self.results.entry(*result).or_default() += count;
        }
        for (hook, count) in &other.hooks {
            *self.hooks.entry(hook).or_default() += count;
        }
        self.pages += other.pages;
        self.most_areas = self.most_areas.max(other.most_areas);
        for (name, count) in &other.known {
            *self.known.entry(name).or_default() += count;
        }
        self.unfinished.extend_from_slice(&other.unfinished);
        self.reach.merge(&other.reach);
    }
}

/// What [`Stats`] has by names, of one batch: by numbers, since each operation counts.
struct Tally {
    /// By [`place`] and errno.
    results: Vec<u64>,
    /// The places in `results` that are not 0.
    some: Vec<usize>,
    hooks: [u64; HOOKS.len()],
    most_areas: usize,
}

/// Errnos that are told apart.
const ERRNOS: usize = 134;

impl Tally {
    fn new() -> Self {
        Self {
            results: vec![0; (SIGNATURES.len() + 1) * ERRNOS],
            some: Vec::new(),
            hooks: [0; HOOKS.len()],
            most_areas: 0,
        }
    }

    fn count(&mut self, op: &Op, outcome: &Outcome) {
        let errno = outcome.result.map_or_else(Errno::number, |_| 0) as usize;
        let place = place(op) * ERRNOS + errno.min(ERRNOS - 1);
        if self.results[place] == 0 {
            self.some.push(place);
        }
        self.results[place] += 1;
        for call in &outcome.hooks {
            self.hooks[hook_place(&call.hook)] += 1;
        }
        self.most_areas = self.most_areas.max(outcome.layout.len());
    }

    /// Adds all to the statistics, and begins anew.
    fn drain_into(&mut self, stats: &mut Stats) {
        for place in self.some.drain(..) {
            let result = (name_of(place / ERRNOS), (place % ERRNOS) as i32);
            let count = std::mem::take(&mut self.results[place]);
            stats.ops += count;
            *stats.results.entry(result).or_default() += count;
        }
        for (name, count) in HOOKS.iter().zip(&mut self.hooks) {
            if *count > 0 {
                *stats.hooks.entry(name).or_default() += std::mem::take(count);
            }
        }
        stats.most_areas = stats.most_areas.max(self.most_areas);
    }
}

/// Why a run stopped before its end.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Whose it is, by its place among the oracles that run side by side ([`crate::jobs`]): its worlds have addresses of
    /// their own.
    pub oracle: usize,
    /// The batch.
    pub batch: u64,
    /// As it was found.
    pub full: Case,
    /// The fewest and simplest operations that were found to show the same.
    pub short: Case,
}

/// A sequence whose last operation shows something.
#[derive(Clone, Debug)]
pub struct Case {
    /// The world it plays in, by its place among the oracle's.
    pub world: usize,
    /// All operations up to the one that shows it.
    pub ops: Vec<Op>,
    /// What it shows.
    pub what: What,
}

impl Case {
    /// What a simpler case must have in common with this one: the kind of the last operation, and what
    /// about it is not as predicted.
    fn essence(&self) -> (Option<&'static str>, String) {
        let aspect = match &self.what {
            What::Differs(differs) => differs.difference.aspect(),
            What::Broke(what) => what.split(|c: char| c.is_ascii_digit()).collect(),
        };
        (self.ops.last().map(kind), aspect)
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub enum What {
    /// The last operation's outcome is not the predicted one.
    Differs(Box<Differs>),
    /// The oracle broke at the last operation: the process died, hung, or answered nonsense.
    Broke(String),
}

/// A prediction and an observation that are not the same.
#[derive(Clone, Debug)]
pub struct Differs {
    /// In which field.
    pub difference: Difference,
    /// The outcome before (predicted and observed alike), or the start.
    pub before: Outcome,
    /// The model's.
    pub predicted: Outcome,
    /// The oracle's.
    pub observed: Observation,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub enum End {
    /// All operations were compared, and all agreed.
    Agreed,
    /// It was stopped from outside; what was done agreed.
    Stopped,
    /// Something was found.
    Found(Box<Finding>),
}

/// Runs a [`Plan`] on an oracle.
pub struct Runner<'a, O: Oracle + ?Sized> {
    oracle: &'a mut O,
    rules: Rules,
    known: &'static [Known],
    /// The model of each world's start.
    starts: Vec<AddressSpace>,
    predicted: Vec<Outcome>,
    seen: Vec<Observation>,
    /// Pages whose contents were compared.
    pages: u64,
}

impl<'a, O: Oracle + ?Sized> Runner<'a, O> {
    /// Sets the model up with the worlds of the oracle.
    ///
    /// # Errors
    /// [`OracleError::Environment`] if the model cannot take the areas of a world, or counts them
    /// otherwise than the oracle does.
    pub fn new(oracle: &'a mut O, rules: Rules) -> Result<Self, OracleError> {
        let starts = oracle.worlds().iter().map(|world| restore(world, rules));
        let starts = starts.collect::<Result<_, _>>()?;
        Ok(Self {
            oracle,
            rules,
            known: KNOWN,
            starts,
            predicted: Vec::new(),
            seen: Vec::new(),
            pages: 0,
        })
    }

    /// With another list of what is known.
    pub fn knowing(mut self, known: &'static [Known]) -> Self {
        self.known = known;
        self
    }

    /// Runs the plan. `progress` is told after each batch, and may stop the run.
    ///
    /// # Errors
    /// [`OracleError::Environment`] if the oracle cannot go on for a reason of its own.
    pub fn run(
        &mut self,
        plan: &Plan,
        mut progress: impl FnMut(&Stats) -> ControlFlow<()>,
    ) -> Result<(Stats, End), OracleError> {
        let begin = Instant::now();
        let mut stats = Stats::default();
        let mut ops = Vec::new();
        let mut skipped = 0;
        let mut tally = Tally::new();
        self.pages = 0;
        for batch in plan.first_batch.. {
            let n = (plan.ops - stats.ops - skipped).min(BATCH);
            if n == 0 {
                return Ok((stats, End::Agreed));
            }
            let world = self.world_of(batch);
            let generator = Generator::new(plan.seed, batch, &self.oracle.worlds()[world]);
            let found = match self.generate(generator, world, n, &mut ops) {
                Ok(()) => self.ask(world, &ops)?,
                Err(what) => Some((ops.len().saturating_sub(1), What::Broke(what))),
            };
            let compared = found.as_ref().map_or(ops.len(), |(index, _)| *index);
            let mut areas = 0;
            for (op, outcome) in ops.iter().zip(&self.predicted).take(compared) {
                tally.count(op, outcome);
                stats.reach.add(op, areas, outcome);
                areas = outcome.layout.len();
            }
            tally.drain_into(&mut stats);
            stats.reach.add_edges(self.oracle.edges());
            for (name, count) in self.oracle.excused() {
                *stats.known.entry(name).or_default() += count;
            }
            stats.batches += 1;
            stats.pages = self.pages;
            let name = &self.oracle.worlds()[world].name;
            *stats.worlds.entry(name.clone()).or_default() += 1;
            stats.elapsed = begin.elapsed();
            if let Some(found) = found {
                // What was found late may have happened earlier.
                self.oracle.look_closely(true);
                let (index, what) = self.play(world, &ops)?.unwrap_or(found);
                ops.truncate(index + 1);
                let full = Case {
                    world,
                    ops: std::mem::take(&mut ops),
                    what,
                };
                let description = &self.oracle.worlds()[world];
                let known = known::find(self.known, &self.oracle.name(), &full, description);
                if let Some(known) = known {
                    *stats.known.entry(known.name).or_default() += 1;
                    self.oracle.look_closely(false);
                    // What follows in the batch depends on it.
                    skipped += n - compared as u64;
                    continue;
                }
                let short = self.shrink(&full, SHRINK_FOR);
                self.oracle.look_closely(false);
                let short = short?;
                let finding = Finding {
                    oracle: 0,
                    batch,
                    full,
                    short,
                };
                return Ok((stats, End::Found(Box::new(finding))));
            }
            if progress(&stats).is_break() {
                return Ok((stats, End::Stopped));
            }
        }
        unreachable!("there are more batches than operations")
    }

    /// The world in which a batch plays: the last one whose turn it is. Each one's turn comes early.
    fn world_of(&self, batch: u64) -> usize {
        let worlds = self.oracle.worlds().iter().enumerate();
        let mut turns = worlds.filter(|(index, world)| batch % world.every == *index as u64);
        turns.next_back().map_or(0, |(index, _)| index)
    }

    /// Makes a batch of `n` operations at most and predicts it: later operations aim at what earlier ones left.
    ///
    /// # Errors
    /// What the model, or the generator, panicked with at the last operation.
    fn generate(
        &mut self,
        mut generator: Generator,
        world: usize,
        n: u64,
        ops: &mut Vec<Op>,
    ) -> Result<(), String> {
        let description = &self.oracle.worlds()[world];
        let mut model = self.starts[world].clone();
        ops.clear();
        self.predicted.resize_with(n as usize, Outcome::default);
        let predicted = &mut self.predicted;
        let done = unless_it_panics(|| {
            for outcome in predicted {
                if generator.is_exhausted() {
                    break;
                }
                let op = generator.op();
                ops.push(op);
                predict(&mut model, description, &op, outcome);
                generator.learn(outcome);
            }
        });
        self.predicted.truncate(ops.len());
        done
    }

    /// Plays what bytes say, to their end or for a batch: the first byte names the world, the others are the
    /// generator's choices ([`Generator::from_bytes`]). Gives what it shows, if anything that is not known.
    ///
    /// # Errors
    /// [`OracleError::Environment`] if the oracle cannot go on for a reason of its own.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Option<Case>, OracleError> {
        let Some((&first, bytes)) = bytes.split_first() else {
            return Ok(None);
        };
        let world = usize::from(first) % self.oracle.worlds().len();
        let generator = Generator::from_bytes(bytes, &self.oracle.worlds()[world]);
        let mut ops = Vec::new();
        let found = match self.generate(generator, world, BATCH, &mut ops) {
            Ok(()) => self.ask(world, &ops)?,
            Err(what) => Some((ops.len().saturating_sub(1), What::Broke(what))),
        };
        let Some((index, what)) = found else {
            return Ok(None);
        };
        ops.truncate(index + 1);
        let case = Case { world, ops, what };
        let name = self.oracle.name();
        let world = &self.oracle.worlds()[world];
        let known = known::find(self.known, &name, &case, world).is_some();
        Ok((!known).then_some(case))
    }

    /// Plays operations in a world, looking closely: what they show, if anything.
    ///
    /// # Errors
    /// [`OracleError::Environment`] if the oracle cannot go on for a reason of its own.
    pub fn replay(&mut self, world: usize, ops: &[Op]) -> Result<Option<Case>, OracleError> {
        self.oracle.look_closely(true);
        let found = self.case(world, ops);
        self.oracle.look_closely(false);
        found
    }

    fn case(&mut self, world: usize, ops: &[Op]) -> Result<Option<Case>, OracleError> {
        let found = self.play(world, ops)?;
        Ok(found.map(|(index, what)| Case {
            world,
            // None, if already what the world starts with breaks.
            ops: ops[..ops.len().min(index + 1)].to_vec(),
            what,
        }))
    }

    /// What was predicted of the operations that were last played, and what was seen: of fewer, if the
    /// oracle broke.
    pub fn steps(&self) -> (&[Outcome], &[Observation]) {
        (&self.predicted, &self.seen)
    }

    /// The simplest case that shows the same as this one, as far as it is found in that time. It plays in
    /// the usual world, if it can.
    ///
    /// # Errors
    /// [`OracleError::Environment`] if the oracle cannot go on for a reason of its own.
    pub fn shrink(&mut self, case: &Case, time: Duration) -> Result<Case, OracleError> {
        let until = Instant::now() + time;
        self.oracle.look_closely(true);
        let short = self.shrink_until(case, until);
        self.oracle.look_closely(false);
        short
    }

    fn shrink_until(&mut self, case: &Case, until: Instant) -> Result<Case, OracleError> {
        let essence = case.essence();
        let mut best = case.clone();
        if case.world != 0 {
            let usual = self.case(0, &case.ops)?;
            best = usual
                .filter(|usual| usual.essence() == essence)
                .unwrap_or(best);
        }
        let world = self.oracle.worlds()[best.world].clone();
        let ops = best.ops.clone();
        shrink(&ops, &world, until, |ops| -> Result<_, OracleError> {
            let found = self.case(best.world, ops)?;
            let results = |n: usize| self.predicted[..n].iter().map(|outcome| outcome.result);
            Ok(match found {
                None => Shows::Nothing,
                Some(found) if found.essence() != essence => found
                    .ops
                    .len()
                    .checked_sub(1)
                    .map_or(Shows::Nothing, Shows::Other),
                Some(found) => {
                    best = found;
                    Shows::Same(results(best.ops.len()).collect())
                }
            })
        })?;
        Ok(best)
    }

    /// Predicts operations in a world and plays them: the first finding and where it is.
    fn play(&mut self, world: usize, ops: &[Op]) -> Result<Option<(usize, What)>, OracleError> {
        let description = &self.oracle.worlds()[world];
        let mut model = self.starts[world].clone();
        self.predicted.resize_with(ops.len(), Outcome::default);
        let mut begun = 0;
        let predicted = &mut self.predicted;
        let done = unless_it_panics(|| {
            for (op, outcome) in ops.iter().zip(predicted) {
                begun += 1;
                predict(&mut model, description, op, outcome);
            }
        });
        if let Err(what) = done {
            return Ok(Some((begun - 1, What::Broke(what))));
        }
        self.ask(world, ops)
    }

    /// Plays operations that are predicted: the first finding and where it is.
    fn ask(&mut self, world: usize, ops: &[Op]) -> Result<Option<(usize, What)>, OracleError> {
        let (oracle, seen) = (&mut *self.oracle, &mut self.seen);
        let run = unless_it_panics(|| oracle.run(world, ops, seen)).unwrap_or_else(|what| {
            // Of what it saw before, nothing is to be relied on.
            self.seen.clear();
            let index = ops.len().saturating_sub(1);
            Err(OracleError::Broke { index, what })
        });
        let broke = match run {
            Ok(()) => None,
            Err(OracleError::Broke { index, what }) => Some((index, what)),
            Err(environment) => return Err(environment),
        };
        let sees = self.oracle.sees();
        let files = &self.oracle.worlds()[world].files;
        let mut comparer = Comparer::new(sees);
        let mut contents = Contents::default();
        for (index, (predicted, seen)) in self.predicted.iter().zip(&self.seen).enumerate() {
            let mut difference = comparer.compare(predicted, seen);
            if sees.fields.contains(Fields::CONTENTS) {
                let before = match index {
                    0 => &[][..],
                    _ => &self.predicted[index - 1].layout,
                };
                contents.apply(index, &ops[index], before, predicted);
                let pages = &mut self.pages;
                difference = difference.or_else(|| contents.compare(predicted, seen, files, pages));
            }
            if let Some(difference) = difference {
                let before = match index {
                    0 => Outcome::default(),
                    _ => self.predicted[index - 1].clone(),
                };
                let differs = Differs {
                    difference,
                    before,
                    predicted: predicted.clone(),
                    observed: seen.clone(),
                };
                return Ok(Some((index, What::Differs(Box::new(differs)))));
            }
        }
        Ok(broke.map(|(index, what)| (index, What::Broke(what))))
    }

    /// What the oracle set right since it was last asked, and how often.
    pub fn excused(&mut self) -> BTreeMap<&'static str, u64> {
        self.oracle.excused().into_iter().collect()
    }

    /// The name of the oracle.
    pub fn oracle(&self) -> String {
        self.oracle.name()
    }

    /// The worlds of the oracle.
    pub fn worlds(&self) -> &[World] {
        self.oracle.worlds()
    }

    /// The rules of the model.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }
}

/// A panic is a finding, too.
///
/// # Errors
/// What it says.
fn unless_it_panics<T>(what: impl FnOnce() -> T) -> Result<T, String> {
    // What is left half done is not looked at, or made anew.
    catch_unwind(AssertUnwindSafe(what)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        format!("a panic: {}", text.unwrap_or("without a word"))
    })
}

/// The model of a world's start.
pub(crate) fn restore(world: &World, rules: Rules) -> Result<AddressSpace, OracleError> {
    let mut model = AddressSpace::new(rules, world.limits);
    for file in &world.files {
        model.add_file(file.file);
    }
    if let Some(heap) = &world.heap {
        model.set_break(heap.start);
    }
    for area in &world.areas {
        model.restore(*area, false).map_err(|error| {
            let what = format!("the model cannot take the area at {:#x}", area.start);
            OracleError::system(&what, error)
        })?;
    }
    if model.counters() != world.counters {
        return Err(OracleError::Environment(format!(
            "before the first operation the model counts {:?}, and the oracle {:?}",
            model.counters(),
            world.counters
        )));
    }
    Ok(model)
}

/// What the model says, in the windows.
pub(crate) fn predict(model: &mut AddressSpace, world: &World, op: &Op, outcome: &mut Outcome) {
    model.apply_into(op, world.hull(), outcome);
    outcome.layout.retain(|area| world.observes(area));
}

/// What an operation is called in the statistics.
fn kind(op: &Op) -> &'static str {
    name_of(place(op))
}

/// The number of that name.
fn place(op: &Op) -> usize {
    match op {
        Op::Touch { write: true, .. } => SIGNATURES.len(),
        _ => Call::from(op).signature.place,
    }
}

fn name_of(place: usize) -> &'static str {
    match SIGNATURES.get(place) {
        Some(signature) if signature.name == "touch" => "touch to read",
        Some(signature) => signature.name,
        None => "touch to write",
    }
}

/// The hooks, as the statistics call them.
const HOOKS: [&str; 8] = [
    "mmap",
    "open",
    "close",
    "may_split",
    "mapped",
    "mremap",
    "mprotect",
    "fault",
];

/// The place of a hook's name in [`HOOKS`].
fn hook_place(hook: &Hook) -> usize {
    match hook {
        Hook::Mmap => 0,
        Hook::Open => 1,
        Hook::Close => 2,
        Hook::MaySplit { .. } => 3,
        Hook::Mapped => 4,
        Hook::Mremap => 5,
        Hook::Mprotect { .. } => 6,
        Hook::Fault { .. } => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Sees;
    use crate::peer::Peer;

    /// It trips over some sequences.
    struct Clumsy {
        peer: Peer,
        over: fn(&[Op]) -> bool,
    }

    impl Oracle for Clumsy {
        fn name(&self) -> String {
            self.peer.name()
        }
        fn sees(&self) -> Sees {
            self.peer.sees()
        }
        fn worlds(&self) -> &[World] {
            self.peer.worlds()
        }
        fn run(
            &mut self,
            world: usize,
            ops: &[Op],
            seen: &mut Vec<Observation>,
        ) -> Result<(), OracleError> {
            assert!(!(self.over)(ops), "it tripped");
            self.peer.run(world, ops, seen)
        }
    }

    fn found(over: fn(&[Op]) -> bool) -> Finding {
        let mut clumsy = Clumsy {
            peer: Peer::new(Rules::V7_2),
            over,
        };
        let plan = Plan {
            rules: Rules::V7_2,
            seed: 1,
            first_batch: 7,
            ops: 50_000,
        };
        let mut runner = Runner::new(&mut clumsy, plan.rules).unwrap();
        let (stats, end) = runner.run(&plan, |_| ControlFlow::Continue(())).unwrap();
        let End::Found(finding) = end else {
            panic!("nothing was found in {} operations", stats.ops);
        };
        let short = &finding.short;
        assert!(matches!(&short.what, What::Broke(what) if what == "a panic: it tripped"));
        assert!(finding.batch >= 7);
        *finding
    }

    #[test]
    fn a_panic_is_a_finding() {
        let short = found(|ops| ops.contains(&Op::Fork)).short;
        assert!(short.ops.contains(&Op::Fork) && short.ops.len() <= 2);
    }

    /// Also before the first operation.
    #[test]
    fn what_the_world_starts_with_may_break() {
        assert!(found(|_| true).short.ops.len() <= 1);
    }
}
