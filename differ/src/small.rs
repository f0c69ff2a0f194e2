// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`explore`]: every sequence of up to so many operations over so few pages, of a small alphabet.
//!
//! Where nothing is random, nothing is overlooked: within its bounds this is a proof. The pages are the
//! first ones of the arena. A letter is an operation with its range: four kinds of area are mapped in
//! each place, and what is there is unmapped, protected, written to, moved.
//!
//! ```text
//! {} ──mmap──> {Aa.} ──mprotect──> {AR.} ──munmap──> …     a state, and each letter applied to it once
//! ```
//!
//! A letter may also be an operation of which a hook refuses, or an allocation fails: it is three operations
//! then, so that nothing of that is pending afterwards. And in a world with few areas the limit is hit.
//!
//! Two sequences are *symmetric* if they lead to the same state: the same areas with the same flags,
//! offsets, objects and `anon_vma`s, the same counters, in the model and in the kernel alike, where
//! objects and `anon_vma`s count by which areas share them. What follows one follows the other, so only the
//! first of them, in the order of the alphabet, is continued. That nothing is lost by this is tested in smaller worlds,
//! where no sequence is left out: what follows a state does not depend on the way to it.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vmalab_model::{
    AddressSpace, Allocation, Asked, Backing, Errno, FileId, MapFlags, Mmap, MremapFlags, Object,
    Op, Outcome, PAGE_SIZE, Prot, Rules,
};

use crate::compare::Comparer;
use crate::known::{self, Known};
use crate::oracle::{Observation, Oracle, OracleError, World};
use crate::runner::{Case, Runner, SHRINK_FOR, predict, restore};

/// How large a world is, and what is done in it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The rules of the model.
    pub rules: Rules,
    /// The world of the oracles in which it happens, by its place among theirs.
    pub world: usize,
    /// How many letters at most.
    pub length: u32,
    /// The alphabet: the operations that each letter is, one after the other.
    pub letters: Vec<Vec<Op>>,
    /// What is known to differ, usually [`KNOWN`](crate::known::KNOWN). What would follow it is left out.
    pub known: &'static [Known],
    /// Whether symmetric sequences are left out.
    pub symmetric_once: bool,
    /// This part of that many: the longest sequences are shared out among machines.
    pub shard: (u64, u64),
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Letters of the alphabet.
    pub letters: u64,
    /// All sequences there are, of each length from 1 on.
    pub sequences: Vec<u128>,
    /// States from which the sequences of each length went on, from length 0 on.
    pub states: Vec<u64>,
    /// Letters that were compared, of each length from 1 on.
    pub compared: Vec<u64>,
    /// Of those, the ones of which a driver refused something.
    pub refused: u64,
    /// The ones that were answered ENOMEM, because an allocation was told to fail.
    pub starved: u64,
    /// The ones of `mmap` and `munmap` that were answered ENOMEM, because there were too many areas.
    pub full: u64,
    /// Operations that were played, with those that lead to a state.
    pub played: u64,
    /// How often what is known came, by name; in sequences that are played again, each time.
    pub known: BTreeMap<&'static str, u64>,
    /// Time spent.
    pub elapsed: Duration,
}

/// How it ended.
#[derive(Clone, Debug)]
pub enum End {
    /// All was compared, and agreed.
    Agreed,
    /// It was stopped from outside; what was done agreed.
    Stopped,
    /// Something was found: as it was found, and made simple.
    Found(Box<(Case, Case)>),
}

/// Kinds of area that are mapped, each by how it is shared and of what it is: private memory, a shared
/// file, a shared device with every hook, a private file.
pub const KINDS: [(MapFlags, &str); 4] = [
    (MapFlags::PRIVATE, ""),
    (MapFlags::SHARED, "memfd"),
    (MapFlags::SHARED, "device"),
    (MapFlags::PRIVATE, "memfd"),
];

/// Which letters there are beside the usual ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// `mlock` and `munlock` of each range.
    pub locks: bool,
    /// Each operation once more where a hook of a driver refuses, and where one of its first allocations of a
    /// kind fails.
    pub fails: bool,
}

/// The letters over so many pages: `mmap` of each kind in each range, and of each range `munmap`,
/// `mprotect` to reading and back; `mremap` of each to each place; a write to each page.
///
/// # Errors
/// A file that the world does not have.
pub fn alphabet(world: &World, pages: u64, extra: Extra) -> Result<Vec<Vec<Op>>, OracleError> {
    let ops = usual(world, pages, extra.locks)?;
    let mut letters: Vec<_> = ops.iter().map(|&op| vec![op]).collect();
    if extra.fails {
        let device = file(world, "device")?;
        letters.extend(ops.iter().flat_map(|op| failing(op, device)));
    }
    Ok(letters)
}

/// The file of that name.
fn file(world: &World, name: &str) -> Result<Backing, OracleError> {
    let place = world.files.iter().position(|file| file.name == name);
    let place =
        place.ok_or_else(|| OracleError::Environment(format!("the world has no file {name}")))?;
    Ok(Backing::File(FileId(place as u16)))
}

/// An operation in each way in which something of it can fail.
fn failing(op: &Op, device: Backing) -> Vec<Vec<Op>> {
    // How often each hook can be asked.
    let hooks: &[(Asked, u32)] = match op {
        Op::Mmap(args) if args.backing == device => &[(Asked::Mmap, 1), (Asked::MaySplit, 2)],
        Op::Mmap(_) | Op::Munmap { .. } => &[(Asked::MaySplit, 2)],
        Op::Mprotect { .. } => &[(Asked::MaySplit, 2), (Asked::Mprotect, 2)],
        Op::Mremap { .. } => &[(Asked::MaySplit, 2), (Asked::Mremap, 1)],
        Op::Mlock { .. } | Op::Munlock { .. } => &[(Asked::MaySplit, 2)],
        _ => &[],
    };
    let steer = |hook, nth| Op::Steer {
        file: device,
        hook,
        nth,
        error: Errno::EBUSY,
    };
    let mut ways = Vec::new();
    for &(hook, calls) in hooks {
        for nth in 1..=calls {
            ways.push(vec![steer(hook, nth), *op, steer(hook, 0)]);
        }
    }
    for what in [Allocation::Area, Allocation::Tree, Allocation::AnonVma] {
        for nth in 1..=2 {
            let fail = |nth| Op::FailAllocation { what, nth };
            ways.push(vec![fail(nth), *op, fail(0)]);
        }
    }
    ways
}

/// The operations that just happen.
fn usual(world: &World, pages: u64, locks: bool) -> Result<Vec<Op>, OracleError> {
    let at = |page: u64| world.arena.start + page * PAGE_SIZE;
    let ranges = || (0..pages).flat_map(|from| (from + 1..=pages).map(move |to| (from, to)));
    let mut letters = Vec::new();
    for (sharing, name) in KINDS {
        let backing = match name {
            "" => Backing::None,
            _ => file(world, name)?,
        };
        for (from, to) in ranges() {
            let mut flags = sharing | MapFlags::FIXED;
            if backing == Backing::None {
                flags |= MapFlags::ANONYMOUS;
            }
            letters.push(Op::Mmap(Mmap {
                addr: at(from),
                len: (to - from) * PAGE_SIZE,
                prot: Prot::READ | Prot::WRITE,
                flags,
                backing,
                // Neighbours fit together.
                offset: match backing {
                    Backing::None => 0,
                    Backing::File(_) => from * PAGE_SIZE,
                },
            }));
        }
    }
    for (from, to) in ranges() {
        let (addr, len) = (at(from), (to - from) * PAGE_SIZE);
        letters.push(Op::Munmap { addr, len });
        for prot in [Prot::READ, Prot::READ | Prot::WRITE] {
            letters.push(Op::Mprotect { addr, len, prot });
        }
        if locks {
            let flags = Default::default();
            letters.push(Op::Mlock { addr, len, flags });
            letters.push(Op::Munlock { addr, len });
        }
        for place in 0..=pages - (to - from) {
            if place != from {
                letters.push(Op::Mremap {
                    addr,
                    old_len: len,
                    new_len: len,
                    flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
                    new_addr: at(place),
                });
            }
        }
    }
    letters.extend((0..pages).map(|page| Op::Touch {
        addr: at(page),
        write: true,
    }));
    Ok(letters)
}

/// The world in which two areas are the limit, if it is among these.
pub fn narrow(worlds: &[World]) -> Option<usize> {
    worlds
        .iter()
        .position(|world| world.limits.max_map_count == 2)
}

/// A way to a state: its letters.
type Path = Vec<u16>;

/// What a worker found behind its share of the states.
struct Behind {
    /// The states that come of each, in order.
    next: Vec<(u128, Path)>,
    compared: u64,
    refused: u64,
    starved: u64,
    full: u64,
    played: u64,
    known: BTreeMap<&'static str, u64>,
    found: Option<Case>,
}

/// Plays all sequences in a world of the oracles, one thread for each. `progress` is told how
/// many letters of how many (of this length) were compared, and may stop it.
///
/// # Errors
/// [`OracleError::Environment`] if one of the oracles cannot go on for a reason of its own.
///
/// # Panics
/// If there is no oracle, or no such world, or a thread panics.
pub fn explore<O: Oracle + Send>(
    oracles: &mut [O],
    plan: &Plan,
    progress: impl Fn(u32, u64, u64) -> ControlFlow<()> + Sync,
) -> Result<(Stats, End), OracleError> {
    let begin = Instant::now();
    let letters = plan.letters.len() as u64;
    let mut stats = Stats {
        letters,
        ..Stats::default()
    };
    let mut states: Vec<Path> = vec![Path::new()];
    let mut known = HashMap::new();
    let start = restore(&oracles[0].worlds()[plan.world], plan.rules)?;
    known.insert(state_of(&start, &vec![0; start.areas().count()]), ());
    let stop = AtomicBool::new(false);
    let mut end = End::Agreed;
    for length in 1..=plan.length {
        let last = length == plan.length;
        // The states are needed by all shards, the longest sequences by one alone.
        let (part, parts) = if last { plan.shard } else { (0, 1) };
        let count = states.len() as u64;
        let mine = count * part / parts..count * (part + 1) / parts;
        let mine = &states[mine.start as usize..mine.end as usize];
        let all = mine.len() as u64 * letters;
        let done = AtomicU64::new(0);
        let tell = |compared: u64| {
            let all_done = done.fetch_add(compared, Ordering::Relaxed) + compared;
            if progress(length, all_done, all).is_break() {
                stop.store(true, Ordering::Relaxed);
            }
            stop.load(Ordering::Relaxed)
        };
        let share = mine.len().div_ceil(oracles.len()).max(1);
        let results: Vec<Result<Behind, OracleError>> = thread::scope(|scope| {
            let (tell, stop) = (&tell, &stop);
            let threads: Vec<_> = oracles
                .iter_mut()
                .zip(mine.chunks(share))
                .map(|(oracle, share)| {
                    scope.spawn(move || {
                        let behind = Worker::new(oracle, plan)?.behind(share, !last, tell);
                        if !matches!(&behind, Ok(behind) if behind.found.is_none()) {
                            stop.store(true, Ordering::Relaxed);
                        }
                        behind
                    })
                })
                .collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
            threads.into_iter().map(join).collect()
        });
        stats.states.push(count);
        stats.sequences.push(u128::from(letters).pow(length));
        let mut compared = 0;
        let mut next = Vec::new();
        let mut error = None;
        for result in results {
            let behind = match result {
                Ok(behind) => behind,
                Err(other) => {
                    error = error.or(Some(other));
                    continue;
                }
            };
            for (name, count) in behind.known {
                *stats.known.entry(name).or_default() += count;
            }
            compared += behind.compared;
            stats.refused += behind.refused;
            stats.starved += behind.starved;
            stats.full += behind.full;
            stats.played += behind.played;
            for (key, path) in behind.next {
                if !plan.symmetric_once {
                    next.push(path);
                } else if let Entry::Vacant(entry) = known.entry(key) {
                    entry.insert(());
                    next.push(path);
                }
            }
            if let (Some(case), false) = (behind.found, matches!(end, End::Found(_))) {
                let oracle = &mut oracles[0];
                let short = Runner::new(oracle, plan.rules)?.shrink(&case, SHRINK_FOR)?;
                end = End::Found(Box::new((case, short)));
            }
        }
        // A finding is told even if another oracle could not go on.
        if let (Some(error), false) = (error, matches!(end, End::Found(_))) {
            return Err(error);
        }
        stats.compared.push(compared);
        if matches!(end, End::Agreed) && stop.load(Ordering::Relaxed) {
            end = End::Stopped;
        }
        if !matches!(end, End::Agreed) {
            break;
        }
        states = next;
    }
    stats.elapsed = begin.elapsed();
    Ok((stats, end))
}

impl Behind {
    /// How a letter failed, if it did.
    fn count(&mut self, letter: &[Op], outcomes: &[Outcome]) {
        let no_memory = |outcome: &Outcome| outcome.result == Err(Errno::ENOMEM);
        let told = matches!(letter[0], Op::FailAllocation { .. });
        let hooks = outcomes.iter().flat_map(|outcome| &outcome.hooks);
        self.refused += u64::from(hooks.clone().any(|call| call.error.is_some()));
        self.starved += u64::from(told && outcomes.iter().any(no_memory));
        // Others are answered that of holes, too.
        let maps = matches!(letter[0], Op::Mmap(_) | Op::Munmap { .. });
        self.full += u64::from(maps && outcomes.iter().any(no_memory));
    }
}

struct Worker<'a, O: Oracle> {
    oracle: &'a mut O,
    plan: &'a Plan,
    world: World,
    start: AddressSpace,
    /// Of the sequence that is played.
    seen: Vec<Observation>,
    /// Of its last letter.
    predicted: Vec<Outcome>,
}

impl<'a, O: Oracle> Worker<'a, O> {
    fn new(oracle: &'a mut O, plan: &'a Plan) -> Result<Self, OracleError> {
        let world = oracle.worlds()[plan.world].clone();
        let start = restore(&world, plan.rules)?;
        Ok(Self {
            oracle,
            plan,
            world,
            start,
            seen: Vec::new(),
            predicted: Vec::new(),
        })
    }

    /// Applies each letter to each of these states, until something is found or it is told to stop.
    fn behind(
        &mut self,
        states: &[Path],
        collect: bool,
        tell: impl Fn(u64) -> bool,
    ) -> Result<Behind, OracleError> {
        let mut behind = Behind {
            next: Vec::new(),
            compared: 0,
            refused: 0,
            starved: 0,
            full: 0,
            played: 0,
            known: BTreeMap::new(),
            found: None,
        };
        let mut ops = Vec::new();
        for state in states {
            ops.clear();
            let letters = &self.plan.letters;
            ops.extend(
                state
                    .iter()
                    .flat_map(|&letter| &letters[usize::from(letter)]),
            );
            // The prefix was compared when its last letter was.
            let mut model = self.start.clone();
            let mut outcome = Outcome::default();
            for op in &ops {
                predict(&mut model, &self.world, op, &mut outcome);
            }
            let prefix = ops.len();
            for (number, letter) in (0..).zip(letters) {
                ops.extend(letter);
                let mut after = model.clone();
                self.predicted.resize_with(letter.len(), Outcome::default);
                for (op, outcome) in letter.iter().zip(&mut self.predicted) {
                    predict(&mut after, &self.world, op, outcome);
                }
                behind.compared += 1;
                behind.count(letter, &self.predicted);
                behind.played += ops.len() as u64;
                if let Some(case) = self.differs(&ops)? {
                    let name = self.oracle.name();
                    if let Some(known) = known::find(self.plan.known, &name, &case, &self.world) {
                        *behind.known.entry(known.name).or_default() += 1;
                        ops.truncate(prefix);
                        continue;
                    }
                    behind.found = Some(case);
                    return Ok(behind);
                }
                if collect {
                    let path = state.iter().copied().chain([number]).collect();
                    let last = self.seen.last().expect("it was played and agreed");
                    behind.next.push((state_of(&after, &last.anon_vmas), path));
                }
                ops.truncate(prefix);
            }
            if tell(letters.len() as u64) {
                break;
            }
        }
        for (name, count) in self.oracle.excused() {
            *behind.known.entry(name).or_default() += count;
        }
        Ok(behind)
    }

    /// Plays a sequence; its last letter is predicted.
    fn differs(&mut self, ops: &[Op]) -> Result<Option<Case>, OracleError> {
        let world = self.plan.world;
        let broke = match self.oracle.run(world, ops, &mut self.seen) {
            Ok(()) => false,
            Err(OracleError::Broke { .. }) => true,
            Err(environment) => return Err(environment),
        };
        let letter = ops.len() - self.predicted.len();
        let mut comparer = Comparer::new(self.oracle.sees());
        let seen = self.seen.get(letter..).unwrap_or(&[]);
        let mut pairs = self.predicted.iter().zip(seen);
        if !broke && pairs.all(|(predicted, seen)| comparer.compare(predicted, seen).is_none()) {
            return Ok(None);
        }
        // Once more, slowly; shared objects are told apart by all that came before.
        Runner::new(&mut *self.oracle, self.plan.rules)?.replay(world, ops)
    }
}

/// A number for a state: the same for symmetric ones, and else another one. `anon_vmas` are the
/// kernel's, as [`Observation::anon_vmas`] has them.
pub fn state_of(model: &AddressSpace, anon_vmas: &[u32]) -> u128 {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        let mut written = Vec::new();
        let mut objects = Vec::new();
        for vma in model.areas() {
            (vma.start, vma.end, vma.pgoff, vma.flags).hash(&mut hasher);
            (vma.moved, vma.forked).hash(&mut hasher);
            let anon_vma = vma.anon_vma.map(|one| name(&mut written, one));
            anon_vma.hash(&mut hasher);
            match vma.object {
                Object::Shmem(number) => (1, name(&mut objects, number)).hash(&mut hasher),
                other => (0, other).hash(&mut hasher),
            }
        }
        model.counters().hash(&mut hasher);
        // What the kernel shows is equal to what the model shows; its anon_vmas are what it adds.
        let mut shared = Vec::new();
        for &number in anon_vmas {
            (number != 0).hash(&mut hasher);
            name(&mut shared, number).hash(&mut hasher);
        }
        hasher.finish()
    };
    (u128::from(half(0)) << 64) | u128::from(half(1))
}

/// Its place among those that were seen, by which it counts.
fn name<T: PartialEq>(seen: &mut Vec<T>, one: T) -> usize {
    match seen.iter().position(|other| *other == one) {
        Some(place) => place,
        None => {
            seen.push(one);
            seen.len() - 1
        }
    }
}

/// The part `i/n` of the work, from 0 on.
///
/// # Errors
/// What was expected.
pub fn shard(text: &str) -> Result<(u64, u64), String> {
    let parts = text.split_once('/').and_then(|(part, parts)| {
        let (part, parts) = (part.parse().ok()?, parts.parse().ok()?);
        (part < parts).then_some((part, parts))
    });
    parts.ok_or_else(|| "expected PART/PARTS, from 0/PARTS on".into())
}

/// The places of the first items of each part, for `total` items.
pub fn part(total: u64, (part, parts): (u64, u64)) -> Range<u64> {
    let place = |part: u64| (u128::from(total) * u128::from(part) / u128::from(parts)) as u64;
    place(part)..place(part + 1)
}
