// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Host`]: the running kernel as an oracle.
//!
//! ```text
//! parent ── order ──> template ── fork ──> child: call, look, call, look, …
//!    ^ <── answer ──────┘ waits                │
//!    └───────────── shared memory <────────────┘
//! ```
//!
//! Each batch runs in a child of its own, which looks at itself after every call: at its areas through
//! `PROCMAP_QUERY` (since 6.11; 0.3 µs an area) or the text of `/proc/self/maps`, in the windows only,
//! and at its counters through `/proc/self/status` (3 µs). All areas are counted at the end of a batch.
//! Where it looks at all windows it reads the pages, too (`contents.rs`), and a few times in a batch the
//! exact flags and names in `/proc/self/smaps` (2 µs an area of the process).
//!
//! With the device it asks that instead, which tells all there is to know of areas and counters in one
//! reading, and each hook call by a ring in memory.
//!
//! Children are forked from a *template* that was forked once, so they all begin with one layout.
//!
//! The template plugs every gap above the one from which the kernel chooses addresses, with areas that
//! merge with nothing. So what the kernel chooses is right below the lowest plug, in a known window, and
//! does not depend on what this program happens to have mapped.

mod child;
mod device;
mod guard;
mod machine;
pub(crate) mod smaps;
mod template;
mod wire;

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io::{IoSliceMut, Write as _};
use std::num::{NonZeroU8, NonZeroU32};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{fstat, major, minor};
use nix::sys::uio::{RemoteIoVec, process_vm_readv, pwrite};
use nix::unistd::{Pid, ftruncate};
use vmalab_model::file::Kind;
use vmalab_model::{
    AnonVma, Area, Backing, Break, Counters, Errno, File, FileId, Limits, MapFlags, MlockFlags,
    Mmap, Name, NewName, Object, Op, PAGE_SIZE, VmFlags,
};

use self::device::Watched;
use self::guard::Guard;
use self::template::Template;
use self::wire::{Call, EVERYWHERE, FORK, MAX_OPS, RawArea, Record, STEER, Shared, device_number};
use crate::contents;
use crate::oracle::{Fields, Heap, NamedFile, Observation, Oracle, OracleError, Sees, World};

/// Where operations with an address of their own happen: far from all else.
const ARENA: u64 = 0x100_0000_0000;
/// Its size in pages.
const ARENA_PAGES: u64 = 32;
/// Where areas are piled up until the limit is near.
const FILLER: u64 = 0x200_0000_0000;
/// From here on the kernel chooses addresses below 2 GiB.
const LOW: u64 = 0x4000_0000;
/// How far the heap may grow, in pages.
const HEAP_PAGES: u64 = 64;
/// How far below the lowest plug the kernel's choices are looked for.
const CHOSEN: u64 = 64 << 20;
/// How many areas there is room for in a world that is nearly full.
const ROOM: u64 = 10;
/// How large a stack may be where resources are short, in pages.
const STACK: u64 = 3;
/// The largest limit that is filled up.
const MOST_TO_FILL: u64 = 100_000;
/// How long a batch may take. Even an emulated machine needs a hundredth of it.
const LIMIT: Duration = Duration::from_secs(60);
/// Pages of the larger files.
const FILE_PAGES: u64 = 64;
/// Pages of the file that ends before the arena does.
const SHORT_FILE_PAGES: u64 = 10;

/// The sets of the first two memory nodes, and the names: the children have them where this process has.
static NODES: [u64; 4] = [0, 1, 2, 3];
static NAMES: [&CStr; 4] = [c"name 0", c"name 1", c"name 2", c"name 3"];

/// Bytes of all numbers that operations write.
const NUMBERS: u64 = 8 * MAX_OPS as u64;

/// Pages of a segment.
const SEGMENT_PAGES: u64 = 5;

/// How to come near the limit on the number of areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tight {
    /// Not at all.
    Never,
    /// By filling the address space. Each such batch costs about 60 ms.
    Fill,
    /// By writing to `vm.max_map_count` while the batch runs. This is seen by all processes of the
    /// machine, so it is only for a machine that does nothing else.
    Sysctl,
}

/// What can be chosen about a [`Host`].
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Nodes of `vmalab.ko`, to have mappings of theirs among the others, and to look through them.
    pub devices: Vec<PathBuf>,
    /// How to come near the limit on the number of areas.
    pub tight: Tight,
    /// The counters are read after every n-th operation, and after the last of a batch.
    pub counters_every: u32,
    /// All areas of the windows are looked at after every n-th operation, and after the last of a
    /// batch; in between, the areas that touch the operation's range or are next to it.
    pub layout_every: u32,
    /// The exact flags and the names of areas are read after every n-th operation, and after the last of
    /// a batch; in between, whether they are readable, writable, executable and shared.
    pub flags_every: u32,
    /// Run near RLIMIT_DATA, too. When that is first exceeded, the kernel logs a warning.
    pub data_limit: bool,
    /// Try what is deprecated, too: `remap_file_pages`, and `mremap` with an old length of 0. The kernel logs
    /// a warning at the first time of each since it was booted.
    pub deprecated: bool,
    /// Read `/proc/self/maps` as text even where PROCMAP_QUERY works.
    pub text: bool,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            devices: Vec::new(),
            tight: Tight::Fill,
            counters_every: 4,
            layout_every: 16,
            flags_every: 128,
            data_limit: false,
            deprecated: false,
            text: false,
        }
    }
}

/// A file of the run.
struct Open {
    fd: OwnedFd,
    /// Its device and inode.
    identity: (u64, u64),
}

/// A segment of System V shared memory.
struct Segment {
    id: i32,
}

/// A template that was started, and what of its children's addresses is known.
struct Start {
    template: Template,
    /// Where the kernel chooses addresses, and where those below 2 GiB.
    chosen: Option<Range<u64>>,
    low: Option<Range<u64>>,
    heap: Option<Heap>,
}

/// A template and what is known of its children.
struct Place {
    template: Template,
    /// All areas of a child before its first operation, but for the filler.
    start: Vec<RawArea>,
    /// Pages of the filler, which the model does not know of.
    filler_pages: u64,
}

/// How the children of a world are set up.
struct Setting {
    /// Index in [`Host::places`].
    place: usize,
    /// Resource, soft and hard limit.
    rlimits: Vec<[u64; 3]>,
    /// `vm.max_map_count` before and after the batch.
    sysctl: Option<[u64; 2]>,
}

/// The running kernel.
pub struct Host {
    release: String,
    options: HostOptions,
    query: bool,
    files: Vec<Open>,
    /// Those of the files that are devices.
    devices: Vec<Watched>,
    /// Segments of System V shared memory: the last of the worlds' files.
    segments: Vec<Segment>,
    /// What each operation of a batch writes, and then a byte to copy to.
    scratch: OwnedFd,
    limit_file: Option<OwnedFd>,
    places: Vec<Place>,
    worlds: Vec<World>,
    /// Of each world, in the same order.
    settings: Vec<Setting>,
    skipped: Vec<String>,
    closely: bool,
    /// The objects of anonymous memory that this batch has seen: device and inode.
    inodes: Vec<(u64, u64)>,
    /// Restores `vm.max_map_count`; it ends after the templates, which are dropped before it.
    _guard: Option<Guard>,
}

impl Host {
    /// Opens the files and starts the templates.
    ///
    /// # Errors
    /// [`OracleError::Environment`] if the device cannot be opened, `/proc` is not there, or memory or
    /// processes are short.
    pub fn new(options: HostOptions) -> Result<Self, OracleError> {
        let read_only = File {
            write: false,
            ..File::memfd(FILE_PAGES)
        };
        let mut all = vec![
            ("memfd", memfd(FILE_PAGES)?, File::memfd(FILE_PAGES)),
            (
                "short_memfd",
                memfd(SHORT_FILE_PAGES)?,
                File::memfd(SHORT_FILE_PAGES),
            ),
            (
                "read_only_memfd",
                {
                    let fd = memfd(FILE_PAGES)?;
                    number_pages(&fd, 2, FILE_PAGES)?;
                    for_reading(&fd)?
                },
                read_only,
            ),
        ];
        let mut devices = Vec::new();
        for path in &options.devices {
            let (watched, fd, file) = device::open(path, FileId(all.len() as u16))?;
            devices.push(watched);
            let name = if file.prepares {
                "device_with_mmap_prepare"
            } else {
                "device"
            };
            all.push((name, fd, file));
        }
        let mut files = Vec::new();
        let mut named = Vec::new();
        for (name, fd, file) in all {
            files.push(Open {
                identity: identity(&fd)?,
                fd,
            });
            named.push(NamedFile {
                name: name.into(),
                file,
            });
        }
        let segments = segments();
        let mut skipped = Vec::new();
        match &segments {
            Ok(segments) => named.extend(segments.iter().zip(1..).map(|(_, number)| NamedFile {
                name: format!("segment_{number}"),
                file: File::segment(SEGMENT_PAGES),
            })),
            Err(errno) => skipped.push(format!("System V shared memory: shmget: {errno}")),
        }
        let scratch = numbers()?;
        let limit_file: Option<OwnedFd> = match options.tight {
            Tight::Sysctl => Some(
                OpenOptions::new()
                    .write(true)
                    .open("/proc/sys/vm/max_map_count")
                    .map_err(|error| OracleError::system("cannot write vm.max_map_count", error))?
                    .into(),
            ),
            _ => None,
        };
        let guard = match &limit_file {
            Some(file) => Some(Guard::start(
                file.as_fd(),
                machine::limits()?.max_map_count,
            )?),
            None => None,
        };
        let mut host = Self {
            release: machine::release()?,
            query: !options.text,
            devices,
            options,
            files,
            segments: segments.unwrap_or_default(),
            scratch,
            limit_file,
            places: Vec::new(),
            worlds: Vec::new(),
            settings: Vec::new(),
            closely: false,
            skipped,
            inodes: Vec::new(),
            _guard: guard,
        };
        host.settle(named)?;
        Ok(host)
    }

    /// The kernel's release, as `uname -r` prints it.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// What this machine does not let us check, and why.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Starts the templates and describes the worlds.
    fn settle(&mut self, files: Vec<NamedFile>) -> Result<(), OracleError> {
        let limits = machine::limits()?;
        let start = self.start_template()?;
        if start.chosen.is_none() {
            self.skipped.push(
                "addresses chosen by the kernel: it does not choose them from the top down here"
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
        if !reads_memory() {
            self.skipped
                .push("what pages hold: process_vm_readv is not allowed here".into());
        }
        if !limits.anon_vma_name {
            self.skipped.push(
                "names of anonymous memory: this kernel is built without CONFIG_ANON_VMA_NAME"
                    .into(),
            );
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
        shared.want_contents = reads_memory().into();
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
        let chosen = plug(&mut template)?;
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
            world.limits.mmap_base = chosen.end;
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

    /// The system call that an operation is.
    fn call(&self, index: usize, op: &Op, windows: &[Range<u64>]) -> Result<Call, OracleError> {
        let scratch = self.scratch.as_raw_fd() as u64;
        let (nr, args) = match *op {
            Op::Mmap(Mmap {
                addr,
                len,
                prot,
                flags,
                backing,
                offset,
            }) => {
                let (prot, flags) = (prot.0.into(), flags.0.into());
                let fd = self.descriptor(backing);
                (libc::SYS_mmap, [addr, len, prot, flags, fd, offset])
            }
            Op::Munmap { addr, len } => (libc::SYS_munmap, [addr, len, 0, 0, 0, 0]),
            Op::Mprotect { addr, len, prot } => {
                (libc::SYS_mprotect, [addr, len, prot.0.into(), 0, 0, 0])
            }
            Op::Mremap {
                addr,
                old_len,
                new_len,
                flags,
                new_addr,
            } => (
                libc::SYS_mremap,
                [addr, old_len, new_len, flags.0.into(), new_addr, 0],
            ),
            Op::Mlock { addr, len, flags } if flags == MlockFlags::empty() => {
                (libc::SYS_mlock, [addr, len, 0, 0, 0, 0])
            }
            Op::Mlock { addr, len, flags } => {
                (libc::SYS_mlock2, [addr, len, flags.0.into(), 0, 0, 0])
            }
            Op::Munlock { addr, len } => (libc::SYS_munlock, [addr, len, 0, 0, 0, 0]),
            Op::Madvise { addr, len, advice } => {
                (libc::SYS_madvise, [addr, len, advice.0.into(), 0, 0, 0])
            }
            Op::PkeyMprotect {
                addr,
                len,
                prot,
                pkey,
            } => (
                libc::SYS_pkey_mprotect,
                [addr, len, prot.0.into(), i64::from(pkey) as u64, 0, 0],
            ),
            Op::Mlockall { flags } => (libc::SYS_mlockall, [flags.0.into(), 0, 0, 0, 0, 0]),
            Op::Munlockall => (libc::SYS_munlockall, [0; 6]),
            Op::Mseal { addr, len, flags } => (libc::SYS_mseal, [addr, len, flags, 0, 0, 0]),
            Op::Brk { addr } => (libc::SYS_brk, [addr, 0, 0, 0, 0, 0]),
            Op::RemapFilePages {
                addr,
                len,
                prot,
                pgoff,
                flags,
            } => (
                libc::SYS_remap_file_pages,
                [addr, len, prot.0.into(), pgoff, flags.0.into(), 0],
            ),
            Op::Shmat {
                segment,
                addr,
                flags,
            } => {
                let first = self.files.len();
                let index = usize::from(segment.0).wrapping_sub(first);
                let id = self.segments.get(index).map_or(-1, |segment| segment.id);
                (
                    libc::SYS_shmat,
                    [i64::from(id) as u64, addr, flags.0.into(), 0, 0, 0],
                )
            }
            Op::Shmdt { addr } => (libc::SYS_shmdt, [addr, 0, 0, 0, 0, 0]),
            Op::SetName { addr, len, name } => {
                let text = match name {
                    NewName::None => 0,
                    NewName::Some(Name(number)) => {
                        NAMES[usize::from(number.get()) % NAMES.len()].as_ptr() as u64
                    }
                    NewName::Invalid => c"[]".as_ptr() as u64,
                };
                let (option, what) = (libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME);
                (
                    libc::SYS_prctl,
                    [option as u64, what as u64, addr, len, text, 0],
                )
            }
            Op::Mbind {
                addr,
                len,
                mode,
                nodes,
                flags,
            } => {
                let nodes = NODES.get(nodes as usize).ok_or_else(|| {
                    OracleError::Environment("there are two memory nodes at most".into())
                })?;
                // The kernel takes one bit less than it is told of.
                let bits = u64::from(u64::BITS);
                (
                    libc::SYS_mbind,
                    [
                        addr,
                        len,
                        mode.into(),
                        std::ptr::from_ref(nodes) as u64,
                        bits,
                        flags.into(),
                    ],
                )
            }
            Op::SetMdwe { bits } => (
                libc::SYS_prctl,
                [libc::PR_SET_MDWE as u64, bits.0, 0, 0, 0, 0],
            ),
            Op::Fork => (FORK, [0; 6]),
            Op::FailAllocation { .. } => {
                return Err(OracleError::Environment(
                    "this oracle lets no allocation fail".into(),
                ));
            }
            Op::Steer {
                file,
                hook,
                nth,
                error,
            } => (
                STEER,
                [
                    self.descriptor(file),
                    device::hook_number(hook).into(),
                    nth.into(),
                    error.number() as u64,
                    0,
                    0,
                ],
            ),
            Op::UffdRegister { .. } | Op::UffdUnregister { .. } => {
                // The child has one thread, so that there would be nobody to listen.
                return Err(OracleError::Environment(
                    "this oracle registers nothing with a userfaultfd".into(),
                ));
            }
            // To read from a file is to write to memory.
            Op::Touch { addr, write: true } => {
                let (page, offset) = (addr & !(PAGE_SIZE - 1), 8 * index as u64);
                (libc::SYS_pread64, [scratch, page, 8, offset, 0, 0])
            }
            Op::Touch { addr, write: false } => {
                (libc::SYS_pwrite64, [scratch, addr, 1, NUMBERS, 0, 0])
            }
        };
        let (look, look_at_result) = self.look(op, windows);
        Ok(Call {
            nr,
            args,
            look,
            look_at_result,
        })
    }

    /// What a program has for a file.
    fn descriptor(&self, backing: Backing) -> u64 {
        let file = match backing {
            Backing::File(FileId(id)) => self.files.get(usize::from(id)),
            Backing::None => None,
        };
        let fd = file.map_or(-1, |file| file.fd.as_raw_fd());
        i64::from(fd) as u64
    }

    fn has_devices(&self) -> bool {
        !self.devices.is_empty()
    }

    /// Where to look after an operation: from the byte before its range to the byte after, so that
    /// neighbours are seen, too. All areas are looked at if that is not inside a window, where an area may
    /// lie that began in one.
    fn look(&self, op: &Op, windows: &[Range<u64>]) -> ([u64; 2], u32) {
        let (addr, len) = match *op {
            Op::Mmap(Mmap {
                addr, len, flags, ..
            }) => {
                if flags.intersects(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE) {
                    (Some(addr), len)
                } else {
                    (None, len)
                }
            }
            Op::Munmap { addr, len } => (Some(addr), len),
            Op::Mprotect { addr, len, .. }
            | Op::PkeyMprotect { addr, len, .. }
            | Op::Mseal { addr, len, .. }
            | Op::RemapFilePages { addr, len, .. }
            | Op::Mlock { addr, len, .. }
            | Op::Munlock { addr, len }
            | Op::SetName { addr, len, .. }
            | Op::Mbind { addr, len, .. }
            | Op::Madvise { addr, len, .. } => (Some(addr), len),
            Op::Touch { addr, .. } => (Some(addr), 1),
            // Anywhere; two places; all; nothing.
            Op::Shmat { .. }
            | Op::Shmdt { .. }
            | Op::Brk { .. }
            | Op::Mlockall { .. }
            | Op::Munlockall
            | Op::FailAllocation { .. }
            | Op::Steer { .. }
            | Op::SetMdwe { .. } => {
                return (EVERYWHERE, 0);
            }
            Op::Mremap { .. } | Op::Fork | Op::UffdRegister { .. } | Op::UffdUnregister { .. } => {
                return (EVERYWHERE, 0);
            }
        };
        let addr_or_0 = addr.unwrap_or(0);
        let inside =
            |window: &Range<u64>| window.contains(&addr_or_0) && len <= window.end - addr_or_0;
        if self.closely
            || len > ARENA_PAGES * PAGE_SIZE
            || addr.is_some() && !windows.iter().any(inside)
        {
            return (EVERYWHERE, 0);
        }
        (
            [addr_or_0.wrapping_sub(1), addr_or_0.wrapping_add(len + 1)],
            addr.is_none().into(),
        )
    }
}

impl Oracle for Host {
    fn name(&self) -> String {
        let reads = if self.has_devices() {
            "the device"
        } else if self.query {
            "PROCMAP_QUERY"
        } else {
            "/proc/self/maps"
        };
        format!("host: Linux {}, areas from {reads}", self.release)
    }

    fn sees(&self) -> Sees {
        let counters = Fields::MAP_COUNT | Fields::COUNTERS;
        let names = if self.worlds[0].limits.anon_vma_name {
            Fields::NAMES
        } else {
            Fields::empty()
        };
        Sees {
            fields: self.fields() | counters | names,
            flags: if self.has_devices() {
                device::SEEN_FLAGS
            } else {
                smaps::shown()
            },
        }
    }

    fn worlds(&self) -> &[World] {
        &self.worlds
    }

    fn look_closely(&mut self, closely: bool) {
        self.closely = closely;
    }

    fn run(
        &mut self,
        world: usize,
        ops: &[Op],
        seen: &mut Vec<Observation>,
    ) -> Result<(), OracleError> {
        seen.resize_with(ops.len(), Observation::default);
        let windows = self.worlds[world].windows();
        let calls = ops.iter().enumerate();
        let calls = calls.map(|(index, op)| self.call(index, op, &windows));
        let calls: Vec<Call> = calls.collect::<Result<_, _>>()?;
        let (counters_every, layout_every, flags_every) = if self.closely {
            (1, 1, 1)
        } else {
            let options = &self.options;
            let flags_every = options.flags_every.max(1);
            (options.counters_every, options.layout_every, flags_every)
        };
        let setting = &self.settings[world];
        let Place {
            template,
            filler_pages,
            ..
        } = &mut self.places[setting.place];
        let filler_pages = *filler_pages;
        template.set_calls(calls.into_iter());
        let shared = template.shared();
        shared.counters_every = counters_every;
        shared.layout_every = layout_every;
        // The device tells them anyway, and a filler is too long a text.
        let told = self.options.devices.is_empty() && filler_pages == 0;
        shared.flags_every = if told { flags_every } else { 0 };
        shared.n_rlimits = setting.rlimits.len() as u32;
        for (slot, rlimit) in shared.rlimits.iter_mut().zip(&setting.rlimits) {
            *slot = *rlimit;
        }
        let files = self.files.iter().zip(&self.worlds[world].files);
        for (place, (open, named)) in files.enumerate() {
            if named.file.kind == Kind::Shmem && named.file.write {
                number_pages(&open.fd, place, named.file.pages)?;
            }
        }
        shared.limit_fd = -1;
        if let (Some(limits), Some(fd)) = (setting.sysctl, &self.limit_file) {
            shared.limit_fd = fd.as_raw_fd();
            for (text, limit) in shared.limit_text.iter_mut().zip(limits) {
                *text = [0; 24];
                let digits = limit.to_string();
                text[..digits.len()].copy_from_slice(digits.as_bytes());
            }
        }
        let done = template.order(child::RUN, LIMIT);
        let n = (template.shared().n_records as usize).saturating_sub(1);
        if done.is_err() {
            seen.truncate(n);
        }
        self.decode(world, ops, seen)?;
        done
    }
}

impl Host {
    /// What is seen of every operation.
    fn fields(&self) -> Fields {
        let fields = Fields::RESULT
            | Fields::RANGES
            | Fields::FLAGS
            | Fields::OBJECTS
            | Fields::OFFSETS
            | Fields::CONTENTS;
        if self.has_devices() {
            fields | Fields::ANON_OFFSETS | Fields::ANON_VMAS | Fields::HOOKS
        } else {
            fields
        }
    }

    /// Puts the records into the model's words.
    fn decode(
        &mut self,
        world: usize,
        ops: &[Op],
        seen: &mut [Observation],
    ) -> Result<(), OracleError> {
        self.inodes.clear();
        let fields = self.fields();
        let exact = self.has_devices();
        let place = self.settings[world].place;
        let Place {
            template,
            start,
            filler_pages,
        } = &mut self.places[place];
        let shared = template.shared();
        if shared.n_records == 0 {
            return Ok(());
        }
        let now = areas(shared, &shared.records[0]);
        if !now.iter().map(place_of).eq(start.iter().map(place_of)) {
            return Err(OracleError::Broke {
                index: 0,
                what: "the child did not begin with the areas that all children begin with".into(),
            });
        }
        let world = &self.worlds[world];
        let windows = world.windows();
        let names = world.limits.anon_vma_name;
        for (index, (op, seen)) in ops.iter().zip(seen).enumerate() {
            let record = shared.records[index + 1];
            seen.fields = fields;
            seen.flags = match record.known {
                _ if exact => device::SEEN_FLAGS,
                0 => SEEN_FLAGS,
                known => VmFlags(known),
            };
            if record.has_names != 0 && names {
                seen.fields |= Fields::NAMES;
            }
            seen.looked = record.looked[0]..record.looked[1];
            let outcome = &mut seen.outcome;
            outcome.result = if record.ret >= 0 {
                let touch = matches!(op, Op::Touch { .. });
                Ok(if touch { 0 } else { record.ret as u64 })
            } else {
                let errno = -record.ret as i32;
                Err(Errno::from_number(errno).ok_or_else(|| OracleError::Broke {
                    index,
                    what: format!(
                        "the answer was {}, which no model knows",
                        nix::errno::Errno::from_raw(errno)
                    ),
                })?)
            };
            outcome.hooks.clear();
            outcome.layout.clear();
            for raw in areas(shared, &record) {
                if record.whole != 0
                    && !windows
                        .iter()
                        .any(|w| raw.start < w.end && raw.end > w.start)
                {
                    continue;
                }
                outcome.layout.push(Area {
                    start: raw.start,
                    end: raw.end,
                    flags: if exact {
                        VmFlags(raw.flags & device::SEEN_FLAGS.0)
                    } else if record.known != 0 {
                        VmFlags(raw.exact)
                    } else {
                        vm_flags(raw.flags)
                    },
                    offset: raw.offset,
                    object: object(raw, &self.files, &self.segments, &mut self.inodes),
                    anon_vma: NonZeroU32::new(raw.anon_vma as u32).map(AnonVma),
                    name: NonZeroU8::new(raw.name as u8).map(Name),
                });
            }
            if record.has_counters != 0 {
                seen.fields |= Fields::COUNTERS;
                outcome.counters = counters(&record, *filler_pages);
            }
            if record.map_count != 0 {
                seen.fields |= Fields::MAP_COUNT;
                outcome.counters.map_count = record.map_count;
            }
            seen.contents.clear();
            if record.n_pages > 0 {
                let first = record.first_page as usize;
                let pages = &shared.contents[first..first + record.n_pages as usize];
                seen.contents
                    .extend(pages.iter().map(|&[page, word]| (page, word)));
            }
            let first = record.first_hook as usize;
            let calls = &mut shared.hooks[first..first + record.n_hooks as usize];
            // Each device has a ring of its own.
            calls.sort_by_key(|call| call.time);
            for raw in &*calls {
                let call = device::call(raw);
                let call = call.map_err(|what| OracleError::Broke { index, what })?;
                outcome.hooks.push(call);
            }
        }
        Ok(())
    }
}

/// The flags that `/proc/PID/maps` shows.
const SEEN_FLAGS: VmFlags =
    VmFlags(VmFlags::READ.0 | VmFlags::WRITE.0 | VmFlags::EXEC.0 | VmFlags::MAYSHARE.0);

/// The areas of a record.
fn areas<'a>(shared: &'a Shared, record: &Record) -> &'a [RawArea] {
    let first = record.first_area as usize;
    &shared.areas[first..first + record.n_areas as usize]
}

fn vm_flags(shown: u64) -> VmFlags {
    // Read, write and execute have the values of their VM_ flags.
    let shared = if shown & 8 != 0 {
        VmFlags::MAYSHARE
    } else {
        VmFlags::empty()
    };
    VmFlags(shown & 7) | shared
}

/// What an area maps, by device and inode.
fn object(
    raw: &RawArea,
    files: &[Open],
    segments: &[Segment],
    inodes: &mut Vec<(u64, u64)>,
) -> Object {
    // The first segment of a machine has the inode 0.
    if raw.inode == 0 && raw.device == 0 {
        return Object::Anon;
    }
    let identity = (raw.device, raw.inode);
    if let Some(index) = files.iter().position(|file| file.identity == identity) {
        return Object::File(FileId(index as u16));
    }
    // A segment's inode is its number, on the file system of memfds.
    let number = |segment: &Segment| (files[0].identity.0, segment.id as u64);
    if let Some(index) = segments
        .iter()
        .position(|segment| number(segment) == identity)
    {
        return Object::File(FileId((files.len() + index) as u16));
    }
    // Of shared anonymous memory, or of huge pages.
    let known = inodes.iter().position(|&known| known == identity);
    let number = known.unwrap_or_else(|| {
        inodes.push(identity);
        inodes.len() - 1
    });
    Object::Shmem(number as u32)
}

/// What all children begin with alike.
fn place_of(area: &RawArea) -> (u64, u64, u64) {
    (area.start, area.end, area.flags)
}

fn counters(record: &Record, filler_pages: u64) -> Counters {
    let [size, locked, data, stack, exec] = record.counters;
    Counters {
        map_count: 0,
        total_vm: size - filler_pages,
        locked_vm: locked,
        data_vm: data,
        stack_vm: stack,
        exec_vm: exec,
    }
}

/// All areas of a child that does nothing.
fn look(template: &mut Template) -> Result<Vec<RawArea>, OracleError> {
    let shared = template.shared();
    shared.n_calls = 0;
    shared.want_whole = 1;
    template.order(child::RUN, LIMIT)?;
    let shared = template.shared();
    Ok(areas(shared, &shared.records[0]).to_vec())
}

/// Two segments, which go with this process.
fn segments() -> nix::Result<Vec<Segment>> {
    (0..2)
        .map(|_| {
            let bytes = (SEGMENT_PAGES * PAGE_SIZE) as usize;
            // SAFETY: neither call touches memory that is anybody's.
            let (id, kept) = unsafe {
                let id = nix::errno::Errno::result(libc::shmget(libc::IPC_PRIVATE, bytes, 0o700))?;
                (id, libc::shmat(id, std::ptr::null(), libc::SHM_RDONLY))
            };
            // What is removed lives as long as it is attached somewhere, and can still be attached.
            // SAFETY: the structure is not asked for.
            unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
            if kept as isize == -1 {
                return Err(nix::errno::Errno::last());
            }
            Ok(Segment { id })
        })
        .collect()
}

/// Where the heap of a template's children ends, and where it may grow, if there is room above it.
fn heap(template: &mut Template) -> Result<Option<Heap>, OracleError> {
    let query = Call {
        nr: libc::SYS_brk,
        args: [0; 6],
        look: EVERYWHERE,
        look_at_result: 0,
    };
    let end = place(template, &[query])?[0] as u64;
    let [code_end, data_start, data_end, start] = machine::program_and_heap()?;
    let window = end.next_multiple_of(PAGE_SIZE);
    let window = window..window + HEAP_PAGES * PAGE_SIZE;
    let free = !look(template)?
        .iter()
        .any(|area| area.start < window.end + (1 << 20) && area.end > window.start);
    Ok((free && start <= end).then_some(Heap {
        start: Break {
            start,
            end,
            program_data: data_end - data_start,
            data_start,
            code_end,
        },
        window,
    }))
}

/// Has the template itself do calls: what they answer.
fn place(template: &mut Template, calls: &[Call]) -> Result<Vec<i64>, OracleError> {
    template.set_calls(calls.iter().copied());
    template.order(child::PLACE, LIMIT)?;
    let shared = template.shared();
    Ok(shared.records[1..=calls.len()]
        .iter()
        .map(|record| record.ret)
        .collect())
}

/// A call of mmap for memory of which nothing is ever touched, and which merges with nothing.
fn plug_call(addr: u64, len: u64) -> Call {
    let fixed = if addr == 0 {
        0
    } else {
        libc::MAP_FIXED_NOREPLACE
    };
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    let args = [addr, len, libc::PROT_NONE as u64, flags as u64, u64::MAX, 0];
    Call {
        nr: libc::SYS_mmap,
        args,
        look: EVERYWHERE,
        look_at_result: 0,
    }
}

/// Plugs the gaps from which the kernel chooses addresses, until it chooses from a large one. Gives the
/// window right below the last plug.
fn plug(template: &mut Template) -> Result<Option<Range<u64>>, OracleError> {
    for _ in 0..64 {
        template.shared().want_whole = 0;
        let addr = place(template, &[plug_call(0, PAGE_SIZE)])?[0];
        let Ok(addr) = u64::try_from(addr) else {
            return Ok(None);
        };
        let areas = look(template)?;
        let below = areas
            .iter()
            .filter(|area| area.end <= addr)
            .map(|area| area.end)
            .max();
        let below = below.unwrap_or(0);
        if addr - below > 1 << 30 {
            return Ok(Some(addr - CHOSEN..addr));
        }
        if addr == below {
            // From the bottom up, as in the legacy layout; or the gap was one page.
            continue;
        }
        if place(template, &[plug_call(below, addr - below)])?[0] < 0 {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Piles up areas: one mapping of which every second page is protected otherwise.
fn fill(place_: &mut Place, areas: u64) -> Result<(), OracleError> {
    let template = &mut place_.template;
    let mut call = plug_call(FILLER, areas * PAGE_SIZE);
    call.args[3] = call.args[3] & !(libc::MAP_SHARED as u64) | libc::MAP_PRIVATE as u64;
    let mut calls = vec![call];
    calls.extend((0..areas / 2).map(|pair| Call {
        nr: libc::SYS_mprotect,
        args: [
            FILLER + 2 * pair * PAGE_SIZE,
            PAGE_SIZE,
            libc::PROT_READ as u64,
            0,
            0,
            0,
        ],
        look: EVERYWHERE,
        look_at_result: 0,
    }));
    let shared = template.shared();
    let every = std::mem::replace(&mut shared.counters_every, u32::MAX);
    shared.want_whole = 0;
    for calls in calls.chunks(MAX_OPS) {
        if let Some(error) = place(template, calls)?.into_iter().find(|&ret| ret < 0) {
            let errno = nix::errno::Errno::from_raw(-error as i32);
            return Err(OracleError::system("cannot fill the address space", errno));
        }
    }
    let shared = template.shared();
    shared.counters_every = every;
    shared.want_whole = 1;
    shared.all = [
        [0, FILLER],
        [FILLER + areas * PAGE_SIZE, u64::MAX],
        [0, 0],
        [0, 0],
    ];
    place_.filler_pages = areas;
    Ok(())
}

/// What each operation of a batch writes to memory, in a file.
fn numbers() -> Result<OwnedFd, OracleError> {
    let fd = memfd(NUMBERS.div_ceil(PAGE_SIZE) + 1)?;
    let numbers: Vec<u8> = (0..MAX_OPS)
        .flat_map(|index| contents::number(index).to_ne_bytes())
        .collect();
    let mut file = std::fs::File::from(fd);
    file.write_all(&numbers)
        .map_err(|error| OracleError::system("cannot write to a memfd", error))?;
    Ok(file.into())
}

/// Whether this process may read memory by `process_vm_readv`, if only its own.
fn reads_memory() -> bool {
    let (from, mut to) = ([1u8], [0u8]);
    let mut local = [IoSliceMut::new(&mut to)];
    let remote = [RemoteIoVec {
        base: from.as_ptr() as usize,
        len: 1,
    }];
    process_vm_readv(Pid::this(), &mut local, &remote) == Ok(1)
}

/// A memory file of so many pages.
fn memfd(pages: u64) -> Result<OwnedFd, OracleError> {
    let failed = |errno| OracleError::system("memfd_create", errno);
    let fd = memfd_create(c"vmalab", MFdFlags::MFD_CLOEXEC).map_err(failed)?;
    ftruncate(&fd, (pages * PAGE_SIZE) as i64).map_err(failed)?;
    Ok(fd)
}

/// Writes to each page which one it is, of the file in that place.
fn number_pages(fd: &OwnedFd, place: usize, pages: u64) -> Result<(), OracleError> {
    for page in 0..pages {
        let number = contents::pattern(place, page).to_ne_bytes();
        pwrite(fd, &number, (page * PAGE_SIZE) as i64)
            .map_err(|errno| OracleError::system("cannot write to a memfd", errno))?;
    }
    Ok(())
}

/// The same file, opened for reading only.
fn for_reading(fd: &OwnedFd) -> Result<OwnedFd, OracleError> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let file = std::fs::File::open(path).map_err(|error| {
        OracleError::system("cannot open a memfd again (is /proc mounted?)", error)
    })?;
    Ok(file.into())
}

/// Device and inode, as `/proc` shows them of an area.
fn identity(fd: &OwnedFd) -> Result<(u64, u64), OracleError> {
    let stat = fstat(fd).map_err(|errno| OracleError::system("fstat", errno))?;
    let device = device_number(major(stat.st_dev) as u32, minor(stat.st_dev) as u32);
    Ok((device, stat.st_ino))
}
