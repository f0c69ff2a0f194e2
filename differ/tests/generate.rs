// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The generator makes what is refused for a reason of its own, and what is rare: each of those is seen to be
//! answered as it should be.

use vmalab_differ::generate::Generator;
use vmalab_differ::oracle::World;
use vmalab_differ::runner::BATCH;
use vmalab_differ::vmac;
use vmalab_model::file::Kind;
use vmalab_model::mempolicy::pages;
use vmalab_model::{AddressSpace, Backing, Errno, File, MapFlags, Mmap, Op, Rules};

/// Long enough: a few batches of each world show all.
const BATCHES: u64 = 1_000;

/// What a call is, and how it is answered by the rules of 7.2.
type Case = (&'static str, fn(&Call) -> bool, Result<(), Errno>);

/// A call, and the file that it maps.
struct Call {
    op: Op,
    file: Option<File>,
}

impl Call {
    fn map(&self) -> Option<&Mmap> {
        match &self.op {
            Op::Mmap(map) => Some(map),
            _ => None,
        }
    }

    /// Whether it maps a file that is such.
    fn maps(&self, such: fn(&File) -> bool) -> bool {
        self.map().is_some() && self.file.as_ref().is_some_and(such)
    }

    /// Whether it maps with all of these flags, of that sharing.
    fn shares(&self, sharing: MapFlags, flags: MapFlags) -> bool {
        self.map().is_some_and(|map| {
            map.flags.0 & MapFlags::TYPE.0 == sharing.0 && map.flags.contains(flags)
        })
    }

    /// Whether it sets a policy with exactly these flags.
    fn binds(&self, which: u32) -> bool {
        matches!(self.op, Op::Mbind { flags, .. } if flags == which)
    }
}

const UNKNOWN: MapFlags = MapFlags(1 << 25);

const CASES: [Case; 19] = [
    (
        "a file without a way to map it",
        |call| call.maps(|file| file.kind == Kind::Unmappable),
        Err(Errno::ENODEV),
    ),
    (
        "a file that cannot be read",
        |call| call.maps(|file| !file.read && file.write),
        Err(Errno::EACCES),
    ),
    (
        "a shared stack",
        |call| call.file.is_none() && call.shares(MapFlags::SHARED, MapFlags::GROWSDOWN),
        Err(Errno::EINVAL),
    ),
    (
        "huge pages of a file that has none",
        |call| call.file.is_some() && call.shares(MapFlags::PRIVATE, MapFlags::HUGETLB),
        Err(Errno::EINVAL),
    ),
    (
        "flags that are known",
        |call| call.shares(MapFlags::SHARED_VALIDATE, MapFlags::UNINITIALIZED),
        Ok(()),
    ),
    (
        "a flag that is not known",
        |call| call.shares(MapFlags::SHARED_VALIDATE, UNKNOWN),
        Err(Errno::EOPNOTSUPP),
    ),
    (
        "a flag that is not known, ignored",
        |call| call.shares(MapFlags::SHARED, UNKNOWN),
        Ok(()),
    ),
    (
        "MAP_SYNC of a file that does not know it",
        |call| call.shares(MapFlags::SHARED_VALIDATE, MapFlags::SYNC),
        Err(Errno::EOPNOTSUPP),
    ),
    (
        "MAP_SYNC, ignored",
        |call| call.file.is_some() && call.shares(MapFlags::SHARED, MapFlags::SYNC),
        Ok(()),
    ),
    (
        "MAP_SHARED_VALIDATE of no file",
        |call| call.file.is_none() && call.shares(MapFlags::SHARED_VALIDATE, MapFlags::ANONYMOUS),
        Err(Errno::EINVAL),
    ),
    (
        "MAP_ABOVE4G where the kernel chooses",
        |call| {
            let fixed = MapFlags::FIXED | MapFlags::FIXED_NOREPLACE;
            let chosen = |map: &&Mmap| map.addr == 0 && !map.flags.intersects(fixed);
            let map = call.map().filter(chosen);
            map.is_some_and(|map| map.flags.contains(MapFlags::ABOVE4G))
        },
        Ok(()),
    ),
    ("MPOL_MF_STRICT", |call| call.binds(pages::STRICT), Ok(())),
    ("MPOL_MF_MOVE", |call| call.binds(pages::MOVE), Ok(())),
    (
        "MPOL_MF_MOVE, strictly",
        |call| call.binds(pages::STRICT | pages::MOVE),
        Ok(()),
    ),
    (
        "MPOL_MF_MOVE_ALL",
        |call| call.binds(pages::MOVE_ALL),
        Ok(()),
    ),
    (
        "MPOL_MF_MOVE_ALL, strictly",
        |call| call.binds(pages::STRICT | pages::MOVE_ALL),
        Ok(()),
    ),
    (
        "MPOL_MF_MOVE_ALL without the capability",
        |call| call.binds(pages::MOVE_ALL),
        Err(Errno::EPERM),
    ),
    (
        "MPOL_MF_MOVE over a hole",
        |call| call.binds(pages::MOVE),
        Err(Errno::EFAULT),
    ),
    (
        "a flag that mbind does not know",
        |call| call.binds(1 << 10),
        Err(Errno::EINVAL),
    ),
];

fn start(world: &World) -> AddressSpace {
    let mut space = AddressSpace::new(Rules::V7_2, world.limits);
    for named in &world.files {
        space.add_file(named.file);
    }
    if let Some(heap) = &world.heap {
        space.set_break(heap.start);
    }
    for area in &world.areas {
        space.restore(*area, false).expect("a world is sound");
    }
    space
}

#[test]
fn what_is_refused_and_what_is_rare_is_made() {
    let worlds = vmac::worlds();
    let mut missing = CASES.to_vec();
    for batch in 0..BATCHES {
        let world = &worlds[batch as usize % worlds.len()];
        let mut space = start(world);
        let mut generator = Generator::new(1, batch, world);
        for _ in 0..BATCH {
            let op = generator.op();
            let mut outcome = space.apply(&op);
            let file = match op {
                Op::Mmap(Mmap {
                    flags,
                    backing: Backing::File(id),
                    ..
                }) if !flags.contains(MapFlags::ANONYMOUS) => {
                    Some(world.files[usize::from(id.0)].file)
                }
                _ => None,
            };
            let call = Call { op, file };
            let result = outcome.result.map(|_| ());
            missing.retain(|(_, is, answer)| !(is(&call) && result == *answer));
            outcome.layout.retain(|area| world.observes(area));
            generator.learn(&outcome);
        }
        if missing.is_empty() {
            println!("in {} batches", batch + 1);
            return;
        }
    }
    let missing: Vec<_> = missing
        .iter()
        .map(|(name, _, answer)| (name, answer))
        .collect();
    panic!("not in {BATCHES} batches: {missing:#?}");
}
