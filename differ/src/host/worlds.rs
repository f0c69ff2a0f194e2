// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Which worlds there are on this machine, and the templates from which their children are forked.

use std::ops::Range;

use vmalab_model::{Area, Limits, Object, PAGE_SIZE, VmFlags};

use super::decode::{areas, counters};
use super::place::{CHOSEN, FILLER, fill, heap, look, plug};
use super::template::Template;
use super::wire::MAX_SEGMENTS;
use super::{Host, LIMIT, Place, Setting, Tight, child, device, machine, smaps};
use crate::oracle::{Heap, NamedFile, OracleError, World};

/// Where operations with an address of their own happen: far from all else.
const ARENA: u64 = 0x100_0000_0000;
/// Its size in pages.
pub(super) const ARENA_PAGES: u64 = 32;
/// From here on the kernel chooses addresses below 2 GiB.
const LOW: u64 = 0x4000_0000;
/// How many areas there is room for in a world that is nearly full.
const ROOM: u64 = 10;
/// How large a stack may be where resources are short, in pages.
const STACK: u64 = 3;
/// The largest limit that is filled up.
const MOST_TO_FILL: u64 = 100_000;

/// A template that was started, and what of its children's addresses is known.
struct Start {
    template: Template,
    /// Where the kernel chooses addresses, and where those below 2 GiB.
    chosen: Option<Range<u64>>,
    low: Option<Range<u64>>,
    heap: Option<Heap>,
}

impl Host {
    /// Starts the templates and describes the worlds.
    pub(super) fn settle(&mut self, files: Vec<NamedFile>) -> Result<(), OracleError> {
        let limits = machine::limits()?;
        let start = self.start_template()?;
        if start.chosen.is_none() {
            self.skipped.push(
                "addresses chosen by the kernel: it chooses them neither from the top down here, nor as \
                 the legacy layout does"
                    .into(),
            );
        }
        if !self.options.deprecated {
            self.skipped.push(
                "remap_file_pages, and mremap with an old length of 0: the kernel logs a warning at the \
                 first time, so they have to be asked for"
                    .into(),
            );
        }
        if start.low.is_none() {
            self.skipped.push(
                "MAP_32BIT: its addresses are random here (run it without address randomisation), or taken"
                    .into(),
            );
        }
        if !machine::huge_pool_is_empty() {
            self.skipped.push(
                "MAP_HUGETLB: there are huge pages in the pool here, or other ones than of 2 MiB, or \
                 a kernel without CONFIG_HUGETLBFS"
                    .into(),
            );
        }
        if !machine::reads_memory() {
            self.skipped
                .push("what pages hold: process_vm_readv is not allowed here".into());
        }
        if !limits.anon_vma_name {
            self.skipped.push(
                "names of anonymous memory: this kernel is built without CONFIG_ANON_VMA_NAME"
                    .into(),
            );
        }
        if !limits.pkeys {
            self.skipped
                .push("protection keys: this processor has none, or this kernel".into());
        }
        if !machine::one_node() {
            self.skipped.push(
                "memory policies: this machine has more than one memory node, or a kernel without \
                 CONFIG_NUMA"
                    .into(),
            );
        }
        let mut plain = self.describe("plain", start, files.clone(), limits)?;
        plain.every = 1;
        self.add(plain.clone(), Vec::new(), None);

        let mut poor = World {
            name: "near the resource limits".into(),
            every: 8,
            ..plain.clone()
        };
        let counters = poor.counters;
        let bound = |limit: &mut u64, pages: u64| *limit = (*limit).min(pages * PAGE_SIZE);
        bound(&mut poor.limits.address_space, counters.total_vm + 4 * ROOM);
        if self.options.data_limit {
            bound(&mut poor.limits.data, counters.data_vm + 2 * ROOM);
        } else {
            self.skipped.push(
                "RLIMIT_DATA: the kernel logs a warning when it is first exceeded, so it has to be \
                 asked for"
                    .into(),
            );
        }
        bound(&mut poor.limits.memlock, counters.locked_vm + ROOM);
        bound(&mut poor.limits.stack, STACK);
        let rlimits = [
            (libc::RLIMIT_AS, poor.limits.address_space),
            (libc::RLIMIT_DATA, poor.limits.data),
            (libc::RLIMIT_MEMLOCK, poor.limits.memlock),
            (libc::RLIMIT_STACK, poor.limits.stack),
        ];
        let rlimits = rlimits.map(|(resource, limit)| [resource.into(), limit, limit]);
        self.add(poor, rlimits.to_vec(), None);

        match self.options.tight {
            Tight::Never => {}
            Tight::Sysctl => {
                let mut world = World {
                    name: "near the limit, by sysctl".into(),
                    every: 8,
                    ..plain
                };
                let restored = world.limits.max_map_count;
                world.limits.max_map_count = world.areas.len() as u64 + ROOM;
                let lowered = world.limits.max_map_count;
                self.add(world, Vec::new(), Some([lowered, restored]));
            }
            Tight::Fill if limits.max_map_count > MOST_TO_FILL => self.skipped.push(format!(
                "the limit on the number of areas: vm.max_map_count is {}, more than can be filled \
                 in good time ({MOST_TO_FILL})",
                limits.max_map_count
            )),
            Tight::Fill if self.has_devices() => self.skipped.push(
                "the limit on the number of areas: the device tells of all areas between the windows at \
                 once, so that filling up what is between them would take too long; lower the limit instead"
                    .into(),
            ),
            Tight::Fill if !self.query => self.skipped.push(
                "the limit on the number of areas: the kernel has no PROCMAP_QUERY, and to read a \
                 full /proc/self/maps after each operation takes too long"
                    .into(),
            ),
            Tight::Fill => {
                let start = self.start_template()?;
                let name = "near the limit, by filling";
                let mut world = self.describe(name, start, files, limits)?;
                world.every = 64;
                // The model does not know of the filler, which would be locked, too.
                world.locks_all = false;
                let used = world.areas.len() as u64;
                let filler = limits.max_map_count.saturating_sub(used + ROOM) / 2 * 2;
                let place = self.places.last_mut().expect("describe has added it");
                fill(place, filler)?;
                world.limits.max_map_count -= filler;
                self.add(world, Vec::new(), None);
            }
        }
        Ok(())
    }

    /// Adds a world in the newest place.
    fn add(&mut self, world: World, rlimits: Vec<[u64; 3]>, sysctl: Option<[u64; 2]>) {
        self.worlds.push(world);
        self.settings.push(Setting {
            place: self.places.len() - 1,
            rlimits,
            sysctl,
        });
    }

    /// A new template in which the kernel chooses addresses from a known window.
    fn start_template(&mut self) -> Result<Start, OracleError> {
        let mut template = Template::start(&mut self.devices)?;
        let shared = template.shared();
        shared.counters_every = self.options.counters_every.max(1);
        shared.query = self.query.into();
        shared.want_contents = machine::reads_memory().into();
        shared.memory = self.files[0].identity.0;
        shared.segments = [u64::MAX; MAX_SEGMENTS];
        for (slot, segment) in shared.segments.iter_mut().zip(&self.segments) {
            *slot = segment.id as u64;
        }
        shared.limit_fd = -1;
        shared.all[0] = [0, u64::MAX];
        match look(&mut template) {
            // No such ioctl: a kernel before 6.11.
            Err(OracleError::Broke { .. }) if self.query => {
                self.query = false;
                template.shared().query = 0;
                look(&mut template)?;
            }
            looked => drop(looked?),
        }
        let chosen = plug(&mut template, machine::is_legacy()?)?;
        let heap = heap(&mut template)?;
        let low = LOW..LOW + CHOSEN;
        let is_free = !look(&mut template)?
            .iter()
            .any(|area| area.start < low.end && area.end > low.start);
        let low = (is_free && !machine::is_randomized()).then_some(low);
        let shared = template.shared();
        let mut windows = Vec::from_iter(chosen.clone());
        windows.extend(low.clone());
        windows.push(ARENA..ARENA + ARENA_PAGES * PAGE_SIZE);
        windows.extend(heap.as_ref().map(|heap| heap.window.clone()));
        windows.sort_by_key(|window| window.start);
        for (slot, window) in shared.windows.iter_mut().zip(windows) {
            *slot = [window.start, window.end];
        }
        Ok(Start {
            template,
            chosen,
            low,
            heap,
        })
    }

    /// The world in which the children of a template begin; keeps the template.
    fn describe(
        &mut self,
        name: &str,
        start: Start,
        files: Vec<NamedFile>,
        limits: Limits,
    ) -> Result<World, OracleError> {
        let Start {
            mut template,
            chosen,
            low,
            heap,
        } = start;
        let shared = template.shared();
        shared.n_calls = 0;
        shared.want_whole = 1;
        shared.want_smaps = u32::from(!self.has_devices());
        template.order(child::RUN, LIMIT)?;
        let shared = template.shared();
        shared.want_smaps = 0;
        let mut text = &shared.text[..shared.n_text as usize];
        let mut flags = Vec::new();
        while let Some((entry, used)) = smaps::entry(text) {
            flags.push((entry.start, entry.flags().0));
            text = &text[used..];
        }
        let record = shared.records[0];
        let start = areas(shared, &record).to_vec();

        let mut world = World {
            deprecated: self.options.deprecated,
            policies: machine::one_node(),
            huge: machine::huge_pool_is_empty(),
            fails: false,
            steers: self.has_devices(),
            low,
            name: name.into(),
            every: 0,
            areas: Vec::new(),
            counters: counters(&record, 0),
            files,
            limits: Limits {
                mmap_base: limits.mmap_base,
                ..limits
            },
            arena: ARENA..ARENA + ARENA_PAGES * PAGE_SIZE,
            heap,
            locks_all: true,
            chosen,
        };
        if let Some(chosen) = &world.chosen {
            // All that is nearer is plugged.
            if world.limits.legacy_layout {
                world.limits.mmap_legacy_base = chosen.start;
            } else {
                world.limits.mmap_base = chosen.end;
            }
        }
        world.counters.map_count = start.len() as u64;
        for raw in &start {
            let known = flags.iter().find(|(start, _)| *start == raw.start);
            let flags = match known {
                _ if self.has_devices() => VmFlags(raw.flags & device::SEEN_FLAGS.0),
                Some(&(_, flags)) => flags,
                None => {
                    return Err(OracleError::Environment(
                        "/proc/self/maps and smaps do not agree".into(),
                    ));
                }
            };
            let object = Object::Other;
            world.areas.push(Area {
                start: raw.start,
                end: raw.end,
                flags,
                offset: 0,
                object,
                anon_vma: None,
                name: None,
            });
        }
        let filler = FILLER..FILLER + MOST_TO_FILL * PAGE_SIZE;
        for area in &world.areas {
            if world.observes(area) || (area.start < filler.end && area.end > filler.start) {
                return Err(OracleError::Environment(format!(
                    "this program has memory at {:#x}, where operations are to happen; run it with \
                     address randomisation off (setarch -R)",
                    area.start
                )));
            }
        }
        self.places.push(Place {
            template,
            start,
            filler_pages: 0,
        });
        Ok(world)
    }
}
