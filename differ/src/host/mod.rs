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
//! reading, but for `VmPeak`, and each hook call by a ring in memory.
//!
//! A touch is a system call that copies a byte from there or to there, and then an instruction, whose signal a
//! handler takes down.
//!
//! Children are forked from a *template* that was forked once, so they all begin with one layout.
//!
//! The template plugs every gap above the one from which the kernel chooses addresses, with areas that
//! merge with nothing. So what the kernel chooses is right below the lowest plug, in a known window, and
//! does not depend on what this program happens to have mapped. By the legacy layout, which a process has from
//! exec on, it is right above the highest plug.

mod call;
mod child;
mod decode;
mod device;
mod files;
mod guard;
mod machine;
mod place;
pub(crate) mod smaps;
mod template;
mod wire;
mod worlds;

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use vmalab_model::file::{Kind, WriteSeal};
use vmalab_model::{File, FileId, Op};

use self::device::Watched;
use self::files::{
    FILE_PAGES, Open, SEGMENT_PAGES, SHORT_FILE_PAGES, Segment, identity, memfd, number_pages,
    numbers, open_again, root, seal, segments,
};
use self::guard::Guard;
use self::template::Template;
use self::wire::{Call, MAX_OPS, RawArea};
use crate::oracle::{Fields, NamedFile, Observation, Oracle, OracleError, Sees, World};

/// How long a batch may take. Even an emulated machine needs a hundredth of it.
const LIMIT: Duration = Duration::from_secs(60);

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
        let sealed = |nth, how| {
            let fd = memfd(FILE_PAGES)?;
            number_pages(&fd, nth, FILE_PAGES)?;
            seal(fd, how)
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
                    open_again(&fd, OpenOptions::new().read(true))?
                },
                read_only,
            ),
            (
                "write_only_memfd",
                open_again(&memfd(FILE_PAGES)?, OpenOptions::new().write(true))?,
                File {
                    read: false,
                    ..File::memfd(FILE_PAGES)
                },
            ),
            (
                "sealed_memfd",
                sealed(4, libc::F_SEAL_WRITE)?,
                File::sealed_memfd(FILE_PAGES, WriteSeal::Write),
            ),
            (
                "memfd_sealed_for_the_future",
                sealed(5, libc::F_SEAL_FUTURE_WRITE)?,
                File::sealed_memfd(FILE_PAGES, WriteSeal::FutureWrite),
            ),
            (
                "directory",
                root()?,
                File {
                    kind: Kind::Unmappable,
                    write: false,
                    ..File::regular(0)
                },
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

    fn has_devices(&self) -> bool {
        !self.devices.is_empty()
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
        let mut counters = Fields::MAP_COUNT | Fields::COUNTERS;
        if !self.has_devices() {
            counters |= Fields::PEAK;
        }
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
        if ops.len() > MAX_OPS {
            return Err(OracleError::Environment(format!(
                "there are {} operations, and one child of the running kernel does {MAX_OPS} at most",
                ops.len()
            )));
        }
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
            let file = &named.file;
            let writable = file.read && file.write && file.write_seal == WriteSeal::None;
            if file.kind == Kind::Shmem && writable {
                number_pages(&open.fd, place, file.pages)?;
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
