// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Peer`]: the model itself as an oracle.
//!
//! It sees everything, so it shows what two eras do differently, and that a mistake in a rule is found
//! even where no kernel can show it to us: which hook is called when, say.

use vmalab_model::file::MaySplit;
use vmalab_model::{Area, Break, File, Limits, Op, PAGE_SIZE, Rules, VmFlags};

use crate::oracle::{Fields, Heap, NamedFile, Observation, Oracle, OracleError, Sees, World};
use crate::runner::restore;

/// A model by rules of its own.
pub struct Peer {
    rules: Rules,
    worlds: Vec<World>,
}

impl Peer {
    /// With a device among the files, and worlds near the limits, as [`Host`](crate::host::Host) has
    /// them.
    pub fn new(rules: Rules) -> Self {
        let limits = Limits {
            anon_vma_name: true,
            ..Limits::default()
        };
        let arena = 0x100_0000_0000;
        let heap = 0x180_0000_0000;
        let low = 0x4000_0000;
        let file = |name: &str, file| NamedFile {
            name: name.into(),
            file,
        };
        let plain = World {
            low: Some(low..low + (64 << 20)),
            deprecated: true,
            policies: true,
            huge: true,
            fails: false,
            steers: true,
            name: "plain".into(),
            every: 1,
            areas: Vec::new(),
            counters: Default::default(),
            files: vec![
                file("memfd", File::memfd(64)),
                file("short_memfd", File::memfd(10)),
                file("device", File::device(64)),
            ],
            limits,
            arena: arena..arena + 32 * PAGE_SIZE,
            heap: Some(Heap {
                start: Break {
                    start: heap,
                    end: heap,
                    program_data: PAGE_SIZE,
                    data_start: heap - 2 * PAGE_SIZE,
                    code_end: heap - 2 * PAGE_SIZE,
                },
                window: heap..heap + 64 * PAGE_SIZE,
            }),
            locks_all: true,
            chosen: Some(limits.mmap_base - (64 << 20)..limits.mmap_base),
        };
        let crowded = World {
            name: "near the limit on areas".into(),
            every: 8,
            limits: Limits {
                max_map_count: 10,
                ..limits
            },
            ..plain.clone()
        };
        let poor = World {
            name: "near the resource limits".into(),
            every: 8,
            limits: Limits {
                address_space: 40 * PAGE_SIZE,
                data: 20 * PAGE_SIZE,
                memlock: 10 * PAGE_SIZE,
                cap_ipc_lock: false,
                ..limits
            },
            ..plain.clone()
        };
        let coarse = World {
            name: "with a driver of large pages".into(),
            every: 8,
            files: vec![file(
                "device_with_large_pages",
                File {
                    may_split: MaySplit::Aligned(2 * PAGE_SIZE),
                    ..File::device(64)
                },
            )],
            ..plain.clone()
        };
        Self::with_worlds(rules, vec![plain, crowded, poor, coarse])
    }

    /// With other worlds.
    pub fn with_worlds(rules: Rules, worlds: Vec<World>) -> Self {
        Self { rules, worlds }
    }
}

impl Oracle for Peer {
    fn name(&self) -> String {
        format!("model by the rules {}", self.rules.name)
    }

    fn sees(&self) -> Sees {
        Sees {
            fields: Fields::all() - Fields::CONTENTS,
            flags: VmFlags(u64::MAX),
        }
    }

    fn worlds(&self) -> &[World] {
        &self.worlds
    }

    fn run(
        &mut self,
        world: usize,
        ops: &[Op],
        seen: &mut Vec<Observation>,
    ) -> Result<(), OracleError> {
        let world = &self.worlds[world];
        let mut model = restore(world, self.rules)?;
        seen.resize_with(ops.len(), Observation::default);
        for (op, seen) in ops.iter().zip(seen) {
            seen.fields = Fields::all();
            model.apply_into(op, 0..u64::MAX, &mut seen.outcome);
            seen.outcome
                .layout
                .retain(|area: &Area| world.observes(area));
        }
        Ok(())
    }
}
