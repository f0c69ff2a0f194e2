// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What areas this process has, exactly, and what `munmap` would do to them.

use std::{fmt, fs, ops::Range};

use nix::errno::Errno;

use crate::{Device, Error, Hook, HookSet, error::Action, sys};

/// The areas of this process and its counters at one moment: `struct vmalab_areas`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The areas, by address.
    pub areas: Vec<Area>,
    /// The counters.
    pub counters: Counters,
}

/// An area of this process (`vm_area_struct`), whoever's it is.
///
/// The numbers of `anon_vma`s, files and objects tell one from another within one [`Snapshot`], and
/// mean nothing else: each kind counts from 1 in the order in which they appear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Area {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// `vm_flags`, all of them, as the running kernel numbers them.
    pub flags: u64,
    /// The offset of `start` in what is mapped, in pages (`vm_pgoff`). Of private anonymous memory it is
    /// the number of the page where it was mapped at first, which `/proc` does not tell.
    pub page_offset: u64,
    /// Its file, if it has one.
    pub file: Option<AreaFile>,
    /// What private pages of it hang on, once there was one.
    pub anon_vma: Option<AnonVma>,
    /// It has other `anon_vma`s besides, from before a fork; so it merges less.
    pub forked: bool,
    /// It may not be changed or removed (`mseal`).
    pub sealed: bool,
    /// A userfaultfd watches it.
    pub watched: bool,
    /// It has a `vm_operations_struct`.
    pub has_operations: bool,
    /// Which hooks are in it.
    pub hooks: HookSet,
    /// The object that it maps, if it is an area of this module: 1 is that of the [`Device`] that was
    /// asked.
    pub object: Option<u32>,
}

/// The file of an [`Area`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AreaFile {
    /// Which open file (`struct file`): two opens of one path are two, two descriptors of one open are one.
    pub number: u32,
    /// The major and minor number of the device of its inode.
    pub device: (u32, u32),
    /// The number of its inode.
    pub inode: u64,
}

/// The `anon_vma` of an [`Area`]: two areas with different ones never merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AnonVma {
    /// Which.
    pub number: u32,
    /// Its root, which is that of the first of all processes that share such pages by forks.
    pub root: u32,
}

/// The counters of this process's memory, and its bounds (`mm_struct`). Memory is counted in pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Counters {
    /// How many areas there are.
    pub map_count: u64,
    /// `VmSize`.
    pub total_vm: u64,
    /// `VmLck`.
    pub locked_vm: u64,
    /// `VmPin`.
    pub pinned_vm: u64,
    /// `VmData`.
    pub data_vm: u64,
    /// `VmExe` and `VmLib` together.
    pub exec_vm: u64,
    /// `VmStk`.
    pub stack_vm: u64,
    /// The highest that [`total_vm`](Self::total_vm) was before it last went down; `VmPeak` is the larger
    /// of the two.
    pub hiwater_vm: u64,
    /// Flags that each new area gets (`mlockall`).
    pub def_flags: u64,
    /// Where addresses end.
    pub task_size: u64,
    /// From where addresses are chosen downwards.
    pub mmap_base: u64,
    /// Where the heap begins.
    pub start_brk: u64,
    /// Where the heap ends.
    pub brk: u64,
    /// Where the stack began.
    pub start_stack: u64,
}

/// What `munmap` would do: `struct vmalab_unmapping`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unmapping {
    /// The errno that it would fail with.
    pub errno: Option<i32>,
    /// What it would do one after the other, up to the error if there is one.
    pub steps: Vec<Step>,
    /// By how much it would change the counters. After an error only the splits stay, and what was
    /// detached is attached again.
    pub change: Change,
}

/// By how much counters would change: see [`Counters`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct Change {
    pub map_count: i64,
    pub total_vm: i64,
    pub locked_vm: i64,
    pub data_vm: i64,
    pub exec_vm: i64,
    pub stack_vm: i64,
    /// Pages that count against the commit limit (`Committed_AS`).
    pub accounted: i64,
}

/// A step of an [`Unmapping`], about an area or what splits left of it: `struct vmalab_step`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Step {
    /// What is done.
    pub kind: StepKind,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// The offset of `start`, as [`Area::page_offset`].
    pub page_offset: u64,
    /// The object that is mapped there, as [`Area::object`].
    pub object: Option<u32>,
}

/// What is done in a [`Step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StepKind {
    /// It ends here: the area is sealed, or a hole would take one area more than there may be.
    Refuse {
        /// The error.
        errno: i32,
    },
    /// The area is cut in two.
    Split {
        /// Where.
        at: usize,
        /// Whether the lower piece is the new area, else the upper one.
        new_below: bool,
    },
    /// It will go away.
    Detach,
    /// Its pages are counted as locked no more.
    Unlock,
    /// The userfaultfd that watches it is told, if it asked to be.
    Announce,
    /// The pages of the range are unmapped.
    Clear,
    /// A hook is called.
    Call {
        /// Which: `may_split` before a split, `open` for the new piece, or `close`.
        hook: Hook,
        /// `may_split`: where the area is to be cut.
        at: usize,
        /// `may_split`: the error that it answers, which ends it all.
        errno: Option<i32>,
    },
    /// One that this library does not know, by its number.
    Other(u32),
}

impl Device {
    /// All areas of this process and its counters, at one moment. Mirrors `VMALAB_IOC_AREAS`.
    ///
    /// Any descriptor of the node will do; it is only for the numbering of objects.
    ///
    /// ```no_run
    /// let device = vmalab::Device::open()?;
    /// let mapping = device.map().length(3 * 4096).shared()?;
    /// let rest = mapping.unmap_range(4096..2 * 4096)?;
    /// let seen = device.areas()?;
    /// assert_eq!(seen.areas.len() as u64, seen.counters.map_count);
    /// assert_eq!(seen.areas.iter().filter(|area| area.object == Some(1)).count(), 2);
    /// # Ok::<(), vmalab::Error>(())
    /// ```
    ///
    /// # Errors
    /// `ENOTTY` if the descriptor is not one of the node, or the module is too old; `ENOMEM`;
    /// `EOVERFLOW` if there are more than a million.
    pub fn areas(&self) -> Result<Snapshot, Error> {
        self.areas_in(0..usize::MAX)
    }

    /// As [`areas`](Self::areas), of the areas alone that overlap a range of addresses.
    ///
    /// # Errors
    /// Those of [`areas`](Self::areas), and `EINVAL` if the range ends before it begins.
    pub fn areas_in(&self, range: Range<usize>) -> Result<Snapshot, Error> {
        let mut counters = Counters::default();
        let areas: Vec<sys::vmalab_area> = records(Action::Areas, |areas| {
            let answer = self.read_areas(range.clone(), areas)?;
            counters = answer.into();
            Ok((answer.filled, answer.count))
        })?;
        Ok(Snapshot {
            areas: areas.into_iter().map(Area::from).collect(),
            counters,
        })
    }

    /// As [`areas_in`](Self::areas_in), into an array of the caller's: as many as fit, and in the answer
    /// how many that are, how many there are, and the counters. Allocates nothing, so that it
    /// can be asked without changing the answer.
    ///
    /// # Errors
    /// Those of [`areas_in`](Self::areas_in).
    pub fn read_areas(
        &self,
        range: Range<usize>,
        areas: &mut [sys::vmalab_area],
    ) -> Result<sys::vmalab_areas, Error> {
        let mut request = sys::vmalab_areas {
            start: range.start as u64,
            end: range.end as u64,
            areas: areas.as_mut_ptr().expose_provenance() as u64,
            capacity: u32::try_from(areas.len()).unwrap_or(u32::MAX),
            area_size: size_of::<sys::vmalab_area>() as u32,
            ..Default::default()
        };
        // SAFETY: as in `stats_of`, with one vmalab_areas. The module writes no more than `capacity`
        // structures of that size to the array, which are plain numbers.
        unsafe { self.ioctl(sys::VMALAB_IOC_AREAS, &mut request) }
            .map_err(|errno| Error::new(Action::Areas, errno))?;
        Ok(request)
    }

    /// What `munmap(addr, length)` would do now: the very steps, the hook calls of drivers, the error.
    /// Nothing is done. Mirrors `VMALAB_IOC_WOULD_UNMAP`.
    ///
    /// What cannot be known before is whether the kernel will have memory for it.
    ///
    /// ```no_run
    /// use vmalab::StepKind;
    ///
    /// let device = vmalab::Device::open()?;
    /// let mapping = device.map().length(3 * 4096).shared()?;
    /// let would = device.would_unmap(mapping.as_ptr() as usize + 4096, 4096)?;
    /// assert_eq!(would.errno, None);
    /// let splits = would.steps.iter().filter(|step| matches!(step.kind, StepKind::Split { .. }));
    /// assert_eq!(splits.count(), 2);
    /// # Ok::<(), vmalab::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`areas`](Self::areas), and those of reading `/proc/sys/vm/max_map_count`. That munmap
    /// would fail is none.
    pub fn would_unmap(&self, addr: usize, length: usize) -> Result<Unmapping, Error> {
        self.would_unmap_within(addr, length, max_map_count()?)
    }

    /// As [`would_unmap`](Self::would_unmap), if no more than `max_map_count` areas were allowed.
    ///
    /// # Errors
    /// Those of [`areas`](Self::areas).
    pub fn would_unmap_within(
        &self,
        addr: usize,
        length: usize,
        max_map_count: u64,
    ) -> Result<Unmapping, Error> {
        let mut unmapping = Unmapping::default();
        let action = Action::WouldUnmap { addr, length };
        let steps: Vec<sys::vmalab_step> = records(action, |steps| {
            let answer = self.read_unmap_steps(addr, length, max_map_count, steps)?;
            unmapping.errno = errno(answer.error);
            unmapping.change = answer.into();
            Ok((answer.filled, answer.count))
        })?;
        unmapping.steps = steps.into_iter().map(Step::from).collect();
        Ok(unmapping)
    }

    /// As [`would_unmap_within`](Self::would_unmap_within), into an array of the caller's, as
    /// [`read_areas`](Self::read_areas).
    ///
    /// # Errors
    /// Those of [`areas`](Self::areas).
    pub fn read_unmap_steps(
        &self,
        addr: usize,
        length: usize,
        max_map_count: u64,
        steps: &mut [sys::vmalab_step],
    ) -> Result<sys::vmalab_unmapping, Error> {
        let mut request = sys::vmalab_unmapping {
            addr: addr as u64,
            len: length as u64,
            max_map_count,
            steps: steps.as_mut_ptr().expose_provenance() as u64,
            capacity: u32::try_from(steps.len()).unwrap_or(u32::MAX),
            step_size: size_of::<sys::vmalab_step>() as u32,
            ..Default::default()
        };
        // SAFETY: as in `read_areas`, with one vmalab_unmapping.
        unsafe { self.ioctl(sys::VMALAB_IOC_WOULD_UNMAP, &mut request) }
            .map_err(|errno| Error::new(Action::WouldUnmap { addr, length }, errno))?;
        Ok(request)
    }
}

/// Calls `read` with an array, a larger one if it was too small, until all is in it. `read` gives how
/// many were written, and how many there are.
fn records<T: Clone + Default>(
    action: Action,
    mut read: impl FnMut(&mut [T]) -> Result<(u32, u64), Error>,
) -> Result<Vec<T>, Error> {
    const MAX: usize = sys::VMALAB_MAX_RECORDS as usize;
    let mut records = vec![T::default(); 64];
    loop {
        let (filled, count) = read(&mut records)?;
        if count <= u64::from(filled) {
            records.truncate(filled as usize);
            return Ok(records);
        }
        if records.len() == MAX {
            return Err(Error::new(action, Errno::EOVERFLOW));
        }
        // Some more: the array may be an area itself, and other threads go on.
        let more = usize::try_from(count + count / 8 + 8).unwrap_or(MAX);
        records.resize(more.min(MAX), T::default());
    }
}

fn max_map_count() -> Result<u64, Error> {
    let error = |errno| Error::new(Action::MaxMapCount, errno);
    let text = fs::read_to_string("/proc/sys/vm/max_map_count")
        .map_err(|io| error(io.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))?;
    text.trim().parse().map_err(|_| error(Errno::EINVAL))
}

/// 0 is none.
fn errno(number: u32) -> Option<i32> {
    (number != 0).then_some(number as i32)
}

/// 0 is none.
fn some(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

impl From<sys::vmalab_area> for Area {
    fn from(raw: sys::vmalab_area) -> Self {
        let is = |flag| raw.is & flag != 0;
        Self {
            start: raw.start as usize,
            end: raw.end as usize,
            flags: raw.flags,
            page_offset: raw.pgoff,
            file: some(raw.file).map(|number| AreaFile {
                number,
                device: (raw.dev_major, raw.dev_minor),
                inode: raw.ino,
            }),
            anon_vma: some(raw.anon_vma).map(|number| AnonVma {
                number,
                root: raw.anon_root,
            }),
            forked: is(sys::VMALAB_AREA_IS_FORKED),
            sealed: is(sys::VMALAB_AREA_IS_SEALED),
            watched: is(sys::VMALAB_AREA_IS_WATCHED),
            has_operations: is(sys::VMALAB_AREA_HAS_OPS),
            hooks: HookSet::from_bits_retain(raw.hooks),
            object: some(raw.object),
        }
    }
}

impl From<sys::vmalab_areas> for Counters {
    fn from(raw: sys::vmalab_areas) -> Self {
        Self {
            map_count: raw.map_count,
            total_vm: raw.total_vm,
            locked_vm: raw.locked_vm,
            pinned_vm: raw.pinned_vm,
            data_vm: raw.data_vm,
            exec_vm: raw.exec_vm,
            stack_vm: raw.stack_vm,
            hiwater_vm: raw.hiwater_vm,
            def_flags: raw.def_flags,
            task_size: raw.task_size,
            mmap_base: raw.mmap_base,
            start_brk: raw.start_brk,
            brk: raw.brk,
            start_stack: raw.start_stack,
        }
    }
}

impl From<sys::vmalab_unmapping> for Change {
    fn from(raw: sys::vmalab_unmapping) -> Self {
        Self {
            map_count: raw.map_count,
            total_vm: raw.total_vm,
            locked_vm: raw.locked_vm,
            data_vm: raw.data_vm,
            exec_vm: raw.exec_vm,
            stack_vm: raw.stack_vm,
            accounted: raw.accounted,
        }
    }
}

impl From<sys::vmalab_step> for Step {
    fn from(raw: sys::vmalab_step) -> Self {
        let at = raw.at as usize;
        let kind = match raw.kind {
            sys::VMALAB_STEP_REFUSE => StepKind::Refuse {
                errno: raw.error as i32,
            },
            sys::VMALAB_STEP_SPLIT => StepKind::Split {
                at,
                new_below: raw.new_below != 0,
            },
            sys::VMALAB_STEP_DETACH => StepKind::Detach,
            sys::VMALAB_STEP_UNLOCK => StepKind::Unlock,
            sys::VMALAB_STEP_ANNOUNCE => StepKind::Announce,
            sys::VMALAB_STEP_CLEAR => StepKind::Clear,
            sys::VMALAB_STEP_HOOK => match Hook::from_number(raw.hook) {
                Some(hook) => StepKind::Call {
                    hook,
                    at,
                    errno: errno(raw.error),
                },
                None => StepKind::Other(raw.kind),
            },
            other => StepKind::Other(other),
        };
        Self {
            kind,
            start: raw.start as usize,
            end: raw.end as usize,
            page_offset: raw.pgoff,
            object: some(raw.object),
        }
    }
}

/// A line: `split    7f0000000000-7f0000006000 at 7f0000002000, the lower piece is new`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end, .. } = *self;
        let name = match self.kind {
            StepKind::Refuse { .. } => "refuse",
            StepKind::Split { .. } => "split",
            StepKind::Detach => "detach",
            StepKind::Unlock => "unlock",
            StepKind::Announce => "announce",
            StepKind::Clear => "clear",
            StepKind::Call { hook, .. } => hook.name(),
            StepKind::Other(_) => "?",
        };
        write!(f, "{name:9} {start:x}-{end:x}")?;
        match self.kind {
            StepKind::Refuse { errno } => write!(f, ": {:?}", Errno::from_raw(errno)),
            StepKind::Split { at, new_below } => {
                let new = if new_below { "lower" } else { "upper" };
                write!(f, " at {at:x}, the {new} piece is new")
            }
            StepKind::Call {
                hook: Hook::MaySplit,
                at,
                errno,
            } => {
                write!(f, " at {at:x}")?;
                match errno {
                    Some(errno) => write!(f, ": {:?}", Errno::from_raw(errno)),
                    None => Ok(()),
                }
            }
            StepKind::Other(number) => write!(f, " {number}"),
            _ => Ok(()),
        }
    }
}
