// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The memory that parent, template and child share: orders one way, records the other.
//!
//! Plain integers in fixed arrays, mapped before the first fork, so that the child allocates nothing.
//! Nobody reads what another still writes: control goes to and fro over a socket, and only the side
//! that has it touches this memory.

use vmalab::sys::vmalab_area;

use crate::contents;

/// Most operations in one batch. A campaign's have 256; a sequence that is played may be much longer.
pub(super) const MAX_OPS: usize = contents::NUMBERED;
/// Most areas in the records of one batch, all snapshots together.
pub(super) const MAX_AREAS: usize = 1 << 20;
/// Most bytes of `/proc/self/smaps` at the start.
pub(super) const MAX_TEXT: usize = 1 << 20;
/// Most windows.
pub(super) const MAX_WINDOWS: usize = 4;
/// Segments of System V shared memory.
pub(super) const MAX_SEGMENTS: usize = 2;
/// Most hook calls in one batch.
pub(super) const MAX_HOOKS: usize = 1 << 17;
/// Most pages that are read in one batch.
pub(super) const MAX_CONTENTS: usize = 1 << 16;
/// Most areas that the device is asked for at once.
pub(super) const MAX_LOOK: usize = 4096;
/// Most resource limits.
pub(super) const MAX_RLIMITS: usize = 4;
/// Bytes of the stack of signal handlers: the state of the largest processor, and some.
pub(super) const SIGNAL_STACK: usize = 64 << 10;

/// One system call, as the child issues it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Call {
    /// Its number.
    pub(super) nr: i64,
    /// Its arguments.
    pub(super) args: [u64; 6],
    /// Afterwards the areas are looked at that touch this range: `[start, end)` in bytes.
    pub(super) look: [u64; 2],
    /// What to touch by an instruction afterwards, if anything.
    pub(super) touch: Option<Touch>,
    /// Whether `look` counts from the address that the call gives. If it fails, it is looked everywhere.
    pub(super) look_at_result: u32,
}

/// A byte that the process reads, or writes to, by itself.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Touch {
    /// Its address.
    pub(super) addr: u64,
    /// Whether it is written to.
    pub(super) write: bool,
}

/// Instead of the number of a call: fork, and go on in the child.
pub(super) const FORK: i64 = -1;

/// Instead of the number of a call: tell the driver behind the descriptor to refuse. The other arguments are
/// the hook, at which call, with which error.
pub(super) const STEER: i64 = -2;

/// Everywhere, for [`Call::look`].
pub(super) const EVERYWHERE: [u64; 2] = [0, u64::MAX];

/// One area as `/proc` shows it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawArea {
    /// First byte.
    pub(super) start: u64,
    /// One past the last byte.
    pub(super) end: u64,
    /// `PROCMAP_QUERY_VMA_*`: read 1, write 2, execute 4, shared 8. The device tells `VM_*`, all of them.
    pub(super) flags: u64,
    /// Offset in the file, in bytes. The device also tells that of anonymous memory.
    pub(super) offset: u64,
    /// The file's device, as [`device_number`] makes it; 0 without a file.
    pub(super) device: u64,
    /// The file's inode; 0 without a file.
    pub(super) inode: u64,
    /// Whether it is of a segment of System V shared memory. Its inode is its identifier, on the file system of memfds
    /// and of shared anonymous memory, where any other file may have the same: only the name tells.
    pub(super) segment: u64,
    /// A number for its `anon_vma` among the areas that were looked at together, 0 for none; from the device.
    pub(super) anon_vma: u64,
    /// `VM_*`, as far as `smaps` shows them: of a record with [`Record::known`].
    pub(super) exact: u64,
    /// The number that ends its name, 0 without one; of such a record, too.
    pub(super) name: u64,
}

/// A hook call as the device tells it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct RawHook {
    /// When, in nanoseconds.
    pub(super) time: u64,
    /// Whose, by its place among the files.
    pub(super) file: u32,
    /// `enum vmalab_hook`.
    pub(super) hook: u32,
    /// What it answered, as an errno; 0: nothing against it.
    pub(super) error: u32,
    pub(super) unused: u32,
    /// What it is about: the area, or a part of it.
    pub(super) start: u64,
    pub(super) end: u64,
    /// Where that is in the file, in bytes.
    pub(super) offset: u64,
    /// What else it is about.
    pub(super) argument: u64,
}

/// What is seen after one call. Record 0 is what is seen before the first.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Record {
    /// The value, or a negative errno.
    pub(super) ret: i64,
    /// Index of its first area in [`Shared::areas`].
    pub(super) first_area: u32,
    /// How many areas.
    pub(super) n_areas: u32,
    /// Whether `counters` were read.
    pub(super) has_counters: u32,
    /// Whether all areas of the process were listed, not only those in the windows.
    pub(super) whole: u32,
    /// Which addresses were looked at, of those in the windows.
    pub(super) looked: [u64; 2],
    /// `VmSize`, `VmLck`, `VmData`, `VmStk`, `VmExe` + `VmLib`, in pages.
    pub(super) counters: [u64; 5],
    /// `VmPeak`, in pages; 0 if that was not seen.
    pub(super) peak: u64,
    /// The signal that the process got which touched memory by itself, and its `si_code`; 0 without one.
    pub(super) signal: [i32; 2],
    /// How many areas the process has; 0 if that was not seen.
    pub(super) map_count: u64,
    /// Which of the areas' exact flags were seen; 0 if none.
    pub(super) known: u64,
    /// Whether the areas' names were seen.
    pub(super) has_names: u32,
    /// Index of its first hook call in [`Shared::hooks`].
    pub(super) first_hook: u32,
    /// How many.
    pub(super) n_hooks: u32,
    /// Index of the first page that was read, in [`Shared::contents`].
    pub(super) first_page: u32,
    /// How many.
    pub(super) n_pages: u32,
}

/// Where the child got stuck, if it did. Values of [`Shared::trouble`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It did not.
    None = 0,
    /// `/proc/self/maps` could not be opened.
    OpenMaps = 1,
    /// `/proc/self/status` could not be opened.
    OpenStatus = 2,
    /// The areas could not be read.
    ReadMaps = 3,
    /// The counters could not be read.
    ReadStatus = 4,
    /// `/proc/self/smaps` could not be read, is too long, or lacks an area that `maps` has.
    ReadSmaps = 5,
    /// The device did not answer.
    Device = 6,
    /// [`Shared::areas`] is full.
    TooManyAreas = 7,
    /// The limit on areas, or a resource limit, could not be set.
    SetLimit = 8,
    /// [`Shared::hooks`] is full, or a ring was.
    TooManyHooks = 9,
    /// Memory could not be read.
    ReadContents = 10,
}

/// The memory itself.
#[repr(C)]
pub(super) struct Shared {
    /// How many of `calls` are to be done.
    pub(super) n_calls: u32,
    /// Counters are read after every n-th call, and after the last.
    pub(super) counters_every: u32,
    /// After every n-th call it is looked everywhere, whatever the call says, and after the last.
    pub(super) layout_every: u32,
    /// After every n-th call the exact flags are read, and after the last; 0: never.
    pub(super) flags_every: u32,
    /// How many of `rlimits` the child sets.
    pub(super) n_rlimits: u32,
    /// Resource, soft and hard limit.
    pub(super) rlimits: [[u64; 3]; MAX_RLIMITS],
    /// Whether `smaps` is wanted after the last call.
    pub(super) want_smaps: u32,
    /// Whether all areas are listed before the first and after the last call.
    pub(super) want_whole: u32,
    /// Whether pages are read where all windows are looked at.
    pub(super) want_contents: u32,
    /// Whether areas are read by PROCMAP_QUERY, else as text.
    pub(super) query: u32,
    /// The file system of memory, as [`device_number`] makes it.
    pub(super) memory: u64,
    /// The identifiers of the segments; the largest number where there is none.
    pub(super) segments: [u64; MAX_SEGMENTS],
    /// `/proc/sys/vm/max_map_count` opened for writing, or -1: the limit stays.
    pub(super) limit_fd: i32,
    /// Digits that the template writes there before the child, and after it.
    pub(super) limit_text: [[u8; 24]; 2],
    /// `[start, end)` in bytes of what is listed after each call; empty ones end the list.
    pub(super) windows: [[u64; 2]; MAX_WINDOWS],
    /// The same for listing all.
    pub(super) all: [[u64; 2]; MAX_WINDOWS],

    /// The child's process id, from the template.
    pub(super) child_pid: i32,
    /// The child's wait status, from the template.
    pub(super) status: i32,
    /// A [`Trouble`].
    pub(super) trouble: u32,
    /// The errno that goes with it.
    pub(super) trouble_errno: i32,
    /// Calls begun.
    pub(super) begun: u32,
    /// Records complete.
    pub(super) n_records: u32,
    /// Areas used.
    pub(super) n_areas: u32,
    /// Bytes of `text` used.
    pub(super) n_text: u32,
    /// Hook calls used.
    pub(super) n_hooks: u32,
    /// Pages used.
    pub(super) n_contents: u32,

    /// The stack of signal handlers: the usual one would grow.
    pub(super) signal_stack: [u128; SIGNAL_STACK / 16],
    /// The orders.
    pub(super) calls: [Call; MAX_OPS],
    /// The answers.
    pub(super) records: [Record; MAX_OPS + 1],
    /// The areas of all records.
    pub(super) areas: [RawArea; MAX_AREAS],
    /// The hook calls of all records.
    pub(super) hooks: [RawHook; MAX_HOOKS],
    /// Addresses of pages, and their first eight bytes.
    pub(super) contents: [[u64; 2]; MAX_CONTENTS],
    /// Room for what the device tells of areas.
    pub(super) look: [vmalab_area; MAX_LOOK],
    /// `/proc/self/smaps`; before that, room to read `/proc/self/maps` and `status`.
    pub(super) text: [u8; MAX_TEXT],
}

/// One number for a device, whichever way its two halves came.
pub(super) const fn device_number(major: u32, minor: u32) -> u64 {
    ((major as u64) << 32) | minor as u64
}
