// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`shrink`]: the fewest and simplest operations that show the same.
//!
//! First whole runs of operations are left out (delta debugging). Where that gets stuck, or few are left, what the
//! kernel chose the address of is asked for there: else each such address depends on all that was mapped before.
//! Then the arguments of each operation are made simpler: aligned, shorter, with fewer flags, without a file; then
//! pages of the arena go. What is kept still shows the same; but for the addresses, which are asked for in the first
//! rounds alone, each step makes some number smaller and none larger, so that it ends.

use std::time::Instant;

use vmalab_model::{Errno, MapFlags, MremapFlags, Op, PAGE_SIZE};

use crate::call::{Call, Kind, NO_FILE};
use crate::oracle::World;

/// What a sequence shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shows {
    /// The same, after so many operations as there are results.
    Same(Vec<Result<u64, Errno>>),
    /// Something else, by the operation of that place: what it shows later is not known.
    Other(usize),
    /// Nothing.
    Nothing,
}

/// How often an operation that shows something else is left out of a candidate. What is wrong shows in
/// many ways, and in others once some operations are gone.
const LEFT_OUT: u32 = 40;
/// In so many rounds chosen addresses are asked for.
const ROUNDS_OF_ADDRESSES: u32 = 3;
/// Of so few operations each address is tried by itself.
const FEW: usize = 64;

/// Makes a sequence small. `shows` plays one.
///
/// Stops at `until` with what there is by then.
///
/// # Errors
/// Those of `shows`.
pub fn shrink<E>(
    ops: &[Op],
    world: &World,
    until: Instant,
    shows: impl FnMut(&[Op]) -> Result<Shows, E>,
) -> Result<Vec<Op>, E> {
    let mut shrinker = Shrinker {
        ops: ops.to_vec(),
        results: Vec::new(),
        world,
        until,
        shows,
    };
    // It is known what it shows, but not yet what each operation gave.
    shrinker.take(ops.to_vec())?;
    for round in 0.. {
        let before = shrinker.ops.clone();
        // Where long runs can be left out as it is, that is quicker.
        shrinker.fewer_operations(before.len() / 32)?;
        if round < ROUNDS_OF_ADDRESSES && shrinker.ops.len() > before.len() / 4 {
            shrinker.asked_for_addresses()?;
        }
        shrinker.fewer_operations(1)?;
        if round < ROUNDS_OF_ADDRESSES {
            shrinker.asked_for_addresses()?;
            shrinker.addresses_in_the_arena()?;
            shrinker.fewer_operations(1)?;
        }
        shrinker.simpler_arguments()?;
        shrinker.fewer_pages()?;
        if shrinker.ops == before || shrinker.is_late() {
            break;
        }
    }
    Ok(shrinker.ops)
}

struct Shrinker<'a, F> {
    ops: Vec<Op>,
    /// What each of them gave.
    results: Vec<Result<u64, Errno>>,
    world: &'a World,
    until: Instant,
    shows: F,
}

impl<E, F: FnMut(&[Op]) -> Result<Shows, E>> Shrinker<'_, F> {
    fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Takes a candidate if it shows the same, at once or without what shows something else before.
    fn take(&mut self, mut candidate: Vec<Op>) -> Result<bool, E> {
        for _ in 0..LEFT_OUT {
            match (self.shows)(&candidate)? {
                Shows::Same(results) => {
                    candidate.truncate(results.len());
                    self.ops = candidate;
                    self.results = results;
                    return Ok(true);
                }
                Shows::Other(place) if !self.is_late() => drop(candidate.remove(place)),
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Asks for the addresses that the kernel chose: for all; of few, for each.
    fn asked_for_addresses(&mut self) -> Result<(), E> {
        let asked = |(op, result): (&Op, &Result<u64, Errno>)| match *result {
            Ok(addr) => asking_for(op, addr),
            Err(_) => *op,
        };
        let all: Vec<Op> = self.ops.iter().zip(&self.results).map(asked).collect();
        if all == self.ops || self.is_late() || self.take(all)? || self.ops.len() > FEW {
            return Ok(());
        }
        for at in 0..self.ops.len() {
            // One that was taken may be shorter.
            let (Some(op), Some(&Ok(addr))) = (self.ops.get(at), self.results.get(at)) else {
                continue;
            };
            let mut candidate = self.ops.clone();
            candidate[at] = asking_for(op, addr);
            if candidate != self.ops && !self.is_late() {
                self.take(candidate)?;
            }
        }
        Ok(())
    }

    /// Moves what lies where the kernel chooses addresses to the arena, together: to its begin, or behind all else
    /// there.
    fn addresses_in_the_arena(&mut self) -> Result<(), E> {
        let (arena, Some(chosen)) = (self.world.arena.clone(), self.world.chosen.clone()) else {
            return Ok(());
        };
        let addrs = |ops: &[Op]| -> Vec<u64> {
            let calls: Vec<Call> = ops.iter().map(Call::from).collect();
            let args = calls.iter().flat_map(|call| call.args());
            let addrs = args.filter(|(_, kind, _)| *kind == Kind::Addr);
            addrs.map(|(.., value)| value).collect()
        };
        let all = addrs(&self.ops);
        let Some(lowest) = all
            .iter()
            .copied()
            .filter(|addr| chosen.contains(addr))
            .min()
        else {
            return Ok(());
        };
        let highest = all
            .iter()
            .copied()
            .filter(|addr| arena.contains(addr))
            .max();
        let behind = highest.map(|addr| (addr & !(PAGE_SIZE - 1)) + 8 * PAGE_SIZE);
        for to in [Some(arena.start), behind].into_iter().flatten() {
            let moved = |op: &Op| {
                let mut call = Call::from(op);
                for (index, (_, kind)) in call.signature.args.iter().enumerate() {
                    if *kind == Kind::Addr && chosen.contains(&call.args[index]) {
                        call.args[index] = to + (call.args[index] - (lowest & !(PAGE_SIZE - 1)));
                    }
                }
                Op::from(&call)
            };
            let candidate: Vec<Op> = self.ops.iter().map(moved).collect();
            if self.is_late() || self.take(candidate)? {
                break;
            }
        }
        Ok(())
    }

    /// Leaves runs of operations out, long ones first, none shorter than that, as long as one can be.
    fn fewer_operations(&mut self, shortest: usize) -> Result<(), E> {
        let mut chunk = self.ops.len().div_ceil(2);
        while chunk >= shortest.max(1) {
            let mut at = 0;
            let mut taken = false;
            while at < self.ops.len() && !self.is_late() {
                let mut candidate = self.ops.clone();
                candidate.drain(at..(at + chunk).min(candidate.len()));
                if self.take(candidate)? {
                    taken = true;
                } else {
                    at += chunk;
                }
            }
            // One less may make another one superfluous.
            if !(taken && chunk == 1) {
                chunk /= 2;
            }
        }
        Ok(())
    }

    /// Cuts pages out of the arena: what is above moves down, what spans them becomes shorter.
    fn fewer_pages(&mut self) -> Result<(), E> {
        let arena = self.world.arena.clone();
        for number in (0..(arena.end - arena.start) / PAGE_SIZE).rev() {
            let page = arena.start + number * PAGE_SIZE;
            if self.is_late() {
                break;
            }
            for offsets in [true, false] {
                let cut: Vec<Op> = self
                    .ops
                    .iter()
                    .map(|op| without_page(op, page, self.world, offsets))
                    .collect();
                if cut != self.ops && self.take(cut)? {
                    break;
                }
            }
        }
        Ok(())
    }

    fn simpler_arguments(&mut self) -> Result<(), E> {
        let mut at = 0;
        while at < self.ops.len() {
            let mut number = 0;
            loop {
                if at >= self.ops.len() || self.is_late() {
                    return Ok(());
                }
                let Some(simpler) = simpler(&self.ops[at]).into_iter().nth(number) else {
                    break;
                };
                let mut candidate = self.ops.clone();
                candidate[at] = simpler;
                // What was refused before may be taken now.
                number = if self.take(candidate)? { 0 } else { number + 1 };
            }
            at += 1;
        }
        Ok(())
    }
}

/// An operation that asks for the address that the kernel chose, if it did.
fn asking_for(op: &Op, chosen: u64) -> Op {
    let mut asking = *op;
    match &mut asking {
        Op::Mmap(args) if !args.flags.intersects(FIXED) => {
            args.addr = chosen;
            args.flags |= MapFlags::FIXED;
        }
        Op::Mremap {
            addr,
            flags,
            new_addr,
            ..
        } if *addr != chosen && !flags.contains(MremapFlags::FIXED) => {
            *flags |= MremapFlags::FIXED;
            *new_addr = chosen;
        }
        Op::Shmat { addr, .. } => *addr = chosen,
        _ => {}
    }
    asking
}

/// With these the address is not the kernel's choice.
const FIXED: MapFlags = MapFlags(MapFlags::FIXED.0 | MapFlags::FIXED_NOREPLACE.0);

/// An operation without a page of the arena. The offsets in files that follow the addresses go with
/// them, if so wanted.
fn without_page(op: &Op, page: u64, world: &World, offsets: bool) -> Op {
    let arena = &world.arena;
    let moved = |addr: u64| {
        if addr > page && addr <= arena.end + arena.end - arena.start {
            addr - PAGE_SIZE
        } else {
            addr
        }
    };
    let mut call = Call::from(op);
    let mut last = None;
    for (index, (_, kind)) in call.signature.args.iter().enumerate() {
        let value = call.args[index];
        call.args[index] = match (kind, last) {
            (Kind::Addr, _) => {
                last = Some(value);
                moved(value)
            }
            (Kind::Len, Some(addr)) if value > PAGE_SIZE && arena.contains(&addr) => {
                let end = addr.saturating_add(value);
                (moved(end) - moved(addr)).max(1)
            }
            (Kind::Offset, Some(addr)) if offsets && arena.contains(&addr) => {
                if value == addr - arena.start {
                    moved(addr) - arena.start
                } else {
                    value
                }
            }
            _ => value,
        };
    }
    Op::from(&call)
}

/// Each is the operation with one argument simpler, the boldest first.
fn simpler(op: &Op) -> Vec<Op> {
    let call = Call::from(op);
    let mut all = Vec::new();
    let mut with = |changes: &[(usize, u64)]| {
        let mut changed = call;
        for &(index, value) in changes {
            changed.args[index] = value;
        }
        let changed = Op::from(&changed);
        if changed != *op {
            all.push(changed);
        }
    };
    let mask = PAGE_SIZE - 1;
    for (index, (_, kind, value)) in call.args().enumerate() {
        match kind {
            Kind::Addr => with(&[(index, value & !mask)]),
            Kind::Len => {
                if value > PAGE_SIZE {
                    with(&[(index, PAGE_SIZE)]);
                    with(&[(index, (value / 2) & !mask)]);
                    with(&[(index, value - PAGE_SIZE)]);
                }
                if value & mask != 0 && value > PAGE_SIZE {
                    with(&[(index, value & !mask)]);
                }
            }
            Kind::Offset | Kind::Number => {
                with(&[(index, 0)]);
                with(&[(index, (value / 2) & !mask)]);
                with(&[(index, value.saturating_sub(PAGE_SIZE))]);
                with(&[(index, value & !mask)]);
            }
            Kind::File if value != NO_FILE => {
                let named = |name| call.signature.args.iter().position(|arg| arg.0 == name);
                if let (Some(flags), Some(offset)) = (named("flags"), named("offset")) {
                    let anonymous = call.args[flags] | u64::from(MapFlags::ANONYMOUS.0);
                    with(&[(index, NO_FILE), (flags, anonymous), (offset, 0)]);
                }
                with(&[(index, 0)]);
            }
            Kind::Access => with(&[(index, 0)]),
            // Advice is but a name.
            Kind::File | Kind::Advice => {}
            Kind::Signed => {
                if value != u64::MAX {
                    with(&[(index, 0)]);
                }
            }
            _ if kind.is_flags() => {
                for bit in 0..u64::BITS {
                    if value & (1 << bit) != 0 {
                        with(&[(index, value & !(1 << bit))]);
                    }
                }
            }
            _ => {}
        }
    }
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Oracle as _;
    use crate::peer::Peer;
    use std::convert::Infallible;
    use std::time::Duration;
    use vmalab_model::{AddressSpace, Backing, Mmap, Prot, Rules};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// Two operations among many are what it takes; and of them, one bit and an overlap.
    #[test]
    fn only_what_matters_is_left() {
        let peer = Peer::new(Rules::V7_2);
        let world = &peer.worlds()[0];
        let arena = world.arena.start;
        let mmap = |page: u64, pages: u64, prot| {
            Op::Mmap(Mmap {
                addr: arena + page * PAGE_SIZE,
                len: pages * PAGE_SIZE,
                prot,
                flags: MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
                backing: Backing::File(vmalab_model::FileId(1)),
                offset: page * PAGE_SIZE,
            })
        };
        let mut ops: Vec<Op> = (0..1000).map(|i| mmap(i % 30, 2, Prot::READ)).collect();
        ops[700] = mmap(9, 7, Prot::READ | Prot::EXEC);
        ops[950] = Op::Munmap {
            addr: arena + 12 * PAGE_SIZE + 5,
            len: 3 * PAGE_SIZE,
        };
        // A hole in what is executable.
        let shows = |ops: &[Op]| {
            let mut executable = None;
            for (index, op) in ops.iter().enumerate() {
                match *op {
                    Op::Mmap(args) if args.prot.contains(Prot::EXEC) => {
                        executable = Some(args.addr..args.addr + args.len)
                    }
                    Op::Munmap { addr, .. }
                        if executable
                            .as_ref()
                            .is_some_and(|range| addr > range.start && range.contains(&addr)) =>
                    {
                        return Ok::<_, Infallible>(Shows::Same(vec![Ok(0); index + 1]));
                    }
                    _ => {}
                }
            }
            Ok(Shows::Nothing)
        };
        let short = shrink(&ops, world, soon(), shows).unwrap();
        let [Op::Mmap(map), Op::Munmap { addr, len }] = short[..] else {
            panic!("{short:#x?}");
        };
        assert_eq!(
            (map.addr, map.prot, map.flags),
            (arena, Prot::EXEC, MapFlags::empty())
        );
        assert_eq!((map.backing, map.offset), (Backing::None, 0));
        assert_eq!(
            (map.len, addr, len),
            (2 * PAGE_SIZE, arena + PAGE_SIZE, PAGE_SIZE)
        );
    }

    /// The last of many mappings, each of which the kernel put below the one before: the others are what its
    /// address comes from, until it is asked for.
    #[test]
    fn an_address_that_was_chosen_is_asked_for() {
        let peer = Peer::new(Rules::V7_2);
        let world = &peer.worlds()[0];
        let prots = [Prot::READ, Prot::WRITE].into_iter().cycle();
        let mut ops: Vec<Op> = prots
            .take(16)
            .map(|prot| {
                Op::Mmap(Mmap {
                    addr: 0,
                    len: PAGE_SIZE,
                    prot,
                    flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS,
                    backing: Backing::None,
                    offset: 0,
                })
            })
            .collect();
        ops.push(Op::Mprotect {
            addr: world.limits.mmap_base - 16 * PAGE_SIZE,
            len: PAGE_SIZE,
            prot: Prot::EXEC,
        });
        // Something is protected otherwise.
        let shows = |ops: &[Op]| {
            let mut space: AddressSpace = AddressSpace::new(Rules::V7_2, world.limits);
            let results: Vec<_> = ops.iter().map(|op| space.apply(op).result).collect();
            Ok::<_, Infallible>(match (ops.last(), results.last()) {
                (Some(Op::Mprotect { .. }), Some(Ok(_))) => Shows::Same(results),
                _ => Shows::Nothing,
            })
        };
        let short = shrink(&ops, world, soon(), shows).unwrap();
        let [Op::Mmap(map), Op::Mprotect { addr, .. }] = short[..] else {
            panic!("{short:#x?}");
        };
        assert_eq!((map.addr, addr), (world.arena.start, world.arena.start));
    }

    #[test]
    fn it_stops_in_time() {
        let peer = Peer::new(Rules::V7_2);
        let ops = [Op::Fork; 9];
        let short = shrink(&ops, &peer.worlds()[0], Instant::now(), |ops| {
            Ok::<_, Infallible>(Shows::Same(vec![Ok(0); ops.len()]))
        });
        assert_eq!(short.unwrap(), ops);
    }
}
