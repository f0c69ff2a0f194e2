// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The one error type: what failed, why, and what to do.

use std::{fmt, io, ops::Range, path::PathBuf};

use nix::errno::Errno;

use crate::{AreaFlags, HookSet, Seals, page_size, sys};

/// A failed call: what was tried, the error number, and advice.
///
/// ```
/// let error = vmalab::Device::open_at("/nowhere/vmalab").unwrap_err();
/// assert_eq!(error.errno(), libc::ENOENT);
/// assert!(error.to_string().contains("insmod vmalab.ko"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    action: Action,
    errno: Errno,
}

/// What was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Open(PathBuf),
    Duplicate,
    Stats,
    GetSize,
    SetSize(u64),
    SetHooks(HookSet),
    Watch,
    ReadWatch,
    MapWatch,
    SetArea(AreaFlags),
    GetArea,
    /// For the hook of this name.
    AddRule(&'static str),
    ClearRules,
    GetRule,
    Read {
        offset: u64,
        length: usize,
    },
    Write {
        offset: u64,
        length: usize,
    },
    Areas,
    WouldUnmap {
        addr: usize,
        length: usize,
    },
    MaxMapCount,
    Fallocate {
        mode: u32,
        range: Range<u64>,
    },
    AddSeals(Seals),
    GetSeals,
    Written(Range<u64>),
    SetName(String),
    OpenName(String),
    GetFolioSize,
    SetFolioSize(u64),
    Map {
        length: usize,
        offset: u64,
    },
    /// In bytes from the begin of a mapping of `length` bytes.
    Unmap {
        range: Range<usize>,
        length: usize,
    },
    Protect,
    /// In bytes from the begin of a mapping of `length` bytes.
    Copy {
        offset: usize,
        count: usize,
        length: usize,
    },
}

impl Error {
    pub(crate) fn new(action: Action, errno: Errno) -> Self {
        Self { action, errno }
    }

    /// The error number as in `errno(3)`: the kernel's answer, or the one that it would have given
    /// where this crate refused the call itself.
    pub fn errno(&self) -> i32 {
        self.errno as i32
    }

    /// What the caller can do about it, if there is something to say beyond the error number.
    fn advice(&self) -> Option<String> {
        let text = match (&self.action, self.errno) {
            (Action::Open(_), Errno::ENOENT | Errno::ENXIO | Errno::ENODEV) => {
                "the module is not loaded: load it with `insmod vmalab.ko` as root, \
                 or try it in a guest with `make vm`"
            }
            (Action::Open(_), Errno::EACCES | Errno::EPERM) => {
                "this user may not open the node: run as root, \
                 or give the user access with chmod or a udev rule"
            }
            (Action::Open(_), Errno::ENOSPC) => {
                "there are as many objects as the module's parameter max_objects allows: \
                 close some, or load the module with a larger one"
            }
            (Action::Open(_) | Action::Duplicate, Errno::EMFILE) => {
                "this process has too many open descriptors: close some, or raise `ulimit -n`"
            }
            (Action::Open(_) | Action::Duplicate, Errno::ENFILE) => {
                "the system has too many open files: close some, or raise `sysctl fs.file-max`"
            }
            (
                Action::Stats
                | Action::GetSize
                | Action::SetSize(_)
                | Action::SetHooks(_)
                | Action::Areas
                | Action::WouldUnmap { .. }
                | Action::Fallocate { .. }
                | Action::AddSeals(_)
                | Action::GetSeals
                | Action::Written(_)
                | Action::SetName(_)
                | Action::OpenName(_)
                | Action::Watch
                | Action::GetFolioSize
                | Action::SetFolioSize(_),
                Errno::ENOTTY,
            ) => {
                "the descriptor is not one of /dev/vmalab, or the loaded module does not know \
                 this request: load the vmalab.ko that belongs to this library"
            }
            (
                Action::Stats
                | Action::GetSize
                | Action::SetSize(_)
                | Action::Areas
                | Action::WouldUnmap { .. },
                Errno::E2BIG,
            ) => {
                "the loaded module is older than this library: \
                 load the vmalab.ko that belongs to it"
            }
            (Action::Watch, Errno::EINVAL) => {
                "the number of records must be a power of two and at most 65536, \
                 and the loaded module must know the hooks"
            }
            (Action::Watch, Errno::EBUSY) => "eight watch this object already: close one of them",
            (Action::Watch, Errno::EBADF) => {
                "a watch tells where others map the object: \
                 it needs a descriptor that is open for writing"
            }
            (Action::ReadWatch, Errno::EIO) => {
                "somebody has mapped the ring and stored a wrong tail: \
                 put it between head - records and head"
            }
            (
                Action::SetArea(_)
                | Action::GetArea
                | Action::AddRule(_)
                | Action::ClearRules
                | Action::GetRule,
                Errno::ENOTTY,
            ) => {
                "the descriptor is not one of /dev/vmalab, or the loaded module cannot be steered yet: \
                 load the vmalab.ko that belongs to this library"
            }
            (Action::SetArea(_) | Action::AddRule(_) | Action::ClearRules, Errno::EBADF) => {
                "the descriptor is open for reading only: open the node for writing"
            }
            (Action::SetArea(_), Errno::EINVAL) => {
                "PFNMAP and MIXEDMAP exclude each other, or the loaded module is older than this library"
            }
            (Action::AddRule(_), Errno::EINVAL) => {
                "the hook cannot answer this; or the range is empty or not of whole pages, the delay is \
                 longer than a second, or ten for all calls, or of map_pages, nth is 0, or something would \
                 be tried again more than 1000 times"
            }
            (Action::AddRule(_), Errno::ENOSPC) => {
                "the object has 64 rules: remove some, or choose a wider range"
            }
            (Action::AddRule(_), Errno::EPERM) => {
                "failed memory is the administrator's to pretend: it needs CAP_SYS_ADMIN"
            }
            (Action::SetHooks(_), Errno::EINVAL) => {
                "one of them is not optional, or the loaded module is older than this library"
            }
            (Action::Areas | Action::WouldUnmap { .. }, Errno::ENOMEM) => {
                "the module needs some memory for each area, which counts as this process's: \
                 ask about a smaller range"
            }
            (Action::Areas, Errno::EOVERFLOW) => {
                "there are more areas than one answer may have: ask about smaller ranges"
            }
            (Action::MaxMapCount, _) => {
                "mount /proc, or say how many areas are allowed: `would_unmap_within`"
            }
            (
                Action::SetSize(_) | Action::Fallocate { .. } | Action::Write { .. },
                Errno::EPERM,
            ) => "the object is sealed against that: seals stay, so use another object",
            (Action::AddSeals(_), Errno::EPERM) => {
                "the object is sealed against more seals, or the descriptor is open for reading only"
            }
            (Action::AddSeals(_), Errno::EBUSY) => {
                "somebody can still write to it: unmap all shared mappings of a descriptor that is open \
                 for writing, and wait for direct I/O into them; or seal with FUTURE_WRITE"
            }
            (Action::Fallocate { .. }, Errno::EINVAL) => "the range must not be empty",
            (Action::Fallocate { .. }, Errno::ENOSPC) => {
                "the module's parameter max_pages allows no more pages: free some, or load the module \
                 with a larger one"
            }
            (Action::Fallocate { .. } | Action::Written(_), Errno::EBADF) => {
                "the descriptor is open for reading only: open the node for writing"
            }
            (Action::SetName(_) | Action::OpenName(_), Errno::EINVAL) => {
                "a name has 1 to 63 printable characters of ASCII, and a mode is within 0666"
            }
            (Action::SetName(_), Errno::EEXIST) => "another object has this name: choose another",
            (Action::SetName(_), Errno::EBUSY) => "the object has a name: remove that first",
            (Action::SetName(_), Errno::EBADF) => {
                "the descriptor is open for reading only: open the node for writing"
            }
            (Action::OpenName(_), Errno::ENOENT) => {
                "a name is gone with the last descriptor and mapping of its object: \
                 is the process that gave it still there?"
            }
            (Action::OpenName(_), Errno::EACCES) => {
                "the mode that was given with the name does not allow it to this user, \
                 or the node is open for less"
            }
            (Action::Written(_), Errno::EINVAL) => {
                return Some(format!(
                    "begin and length must be multiples of the page size, {}, and there must be space \
                     for a range",
                    page_size()
                ));
            }
            (Action::SetSize(_) | Action::Fallocate { .. }, Errno::EFBIG) => {
                "ask for less, or load the module with a larger max_object_size"
            }
            (Action::SetSize(_), Errno::EBUSY) => {
                "the kernel is using a page beside the new end for input or output: try again when \
                 that is done, or choose an end at a multiple of the folio size"
            }
            (Action::SetFolioSize(_), Errno::EINVAL) => {
                "it must be a power of two, from one page to 2 MiB"
            }
            (Action::SetSize(_) | Action::SetHooks(_) | Action::SetFolioSize(_), Errno::EBADF) => {
                "the descriptor is open for reading only: open the node for writing"
            }
            (Action::Read { .. }, Errno::EBADF) => {
                "the descriptor is open for writing only: open the node for reading"
            }
            (Action::Write { .. }, Errno::EBADF) => {
                "the descriptor is open for reading only: open the node for writing"
            }
            (Action::Write { .. }, Errno::ENOSPC) => {
                "it ends before that: set a larger size; or the module's parameter max_pages allows \
                 no more pages"
            }
            (Action::Map { length: 0, .. }, Errno::EINVAL) => "the length must not be 0",
            (Action::Map { .. }, Errno::EINVAL) => {
                return Some(format!(
                    "the offset and a requested address must be multiples of the page size, {}",
                    page_size()
                ));
            }
            (Action::Map { .. }, Errno::EPERM) => {
                "the object is sealed against writing: map it for reading only, or privately"
            }
            (Action::Map { .. }, Errno::EACCES) => {
                "a shared mapping for writing needs a descriptor that is open for writing, \
                 and every mapping one that is open for reading: open the node read-write, \
                 or map it privately"
            }
            (Action::Map { .. }, Errno::ENOMEM) => {
                "the process has as many areas as `sysctl vm.max_map_count` allows, or its \
                 address space (`ulimit -v`) or the memory is used up: unmap something, \
                 or raise the limit"
            }
            (Action::Map { .. }, Errno::EEXIST) => {
                "something is mapped at that address already: unmap it, or choose another"
            }
            (Action::Map { .. }, Errno::EAGAIN) => {
                "more memory would be locked than `ulimit -l` allows: raise it, or lock less"
            }
            (Action::Map { .. }, Errno::EOVERFLOW) => "offset plus length is too large",
            (Action::Map { .. }, Errno::ENODEV) => "a descriptor of this kind cannot be mapped",
            (Action::Unmap { .. }, Errno::EINVAL) => {
                return Some(format!(
                    "the range must not be empty, must lie inside the mapping, and must begin \
                     and end at multiples of the page size, {}",
                    page_size()
                ));
            }
            (Action::Unmap { .. }, Errno::ENOMEM) => {
                "taking a middle out makes one more area, and the process has as many as \
                 `sysctl vm.max_map_count` allows: unmap something whole first, \
                 or raise the limit"
            }
            (Action::Unmap { .. } | Action::Protect, Errno::EPERM) => {
                "the range is sealed (mseal): it stays as it is until the process ends"
            }
            (Action::Protect, Errno::EACCES) => {
                "a shared mapping of a descriptor that is open for reading only \
                 cannot be made writable"
            }
            (Action::Protect, Errno::ENOMEM) => {
                "the process has as many areas as `sysctl vm.max_map_count` allows, \
                 or the memory is used up: unmap something, or raise the limit"
            }
            (Action::Copy { .. }, Errno::EINVAL) => "stay inside the mapping",
            (Action::Copy { .. }, Errno::EACCES) => {
                "the mapping does not permit it: map it, or `protect` it, \
                 with Prot::READ to read and Prot::WRITE to write"
            }
            _ => return None,
        };
        Some(text.into())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(path) => write!(f, "cannot open {}", path.display()),
            Self::Duplicate => write!(f, "cannot duplicate the descriptor"),
            Self::Stats => write!(f, "cannot read the counts of vmalab"),
            Self::GetSize => write!(f, "cannot read the size of the object"),
            Self::SetSize(size) => write!(f, "cannot set the size of the object to {size} bytes"),
            Self::SetHooks(hooks) => {
                write!(f, "cannot set the optional hooks of new areas to {hooks:?}")
            }
            Self::Read { offset, length } => {
                write!(f, "cannot read {length} bytes at {offset} of the object")
            }
            Self::Write { offset, length } => {
                write!(f, "cannot write {length} bytes at {offset} of the object")
            }
            Self::Areas => write!(f, "cannot read the areas of this process"),
            Self::WouldUnmap { addr, length } => {
                write!(f, "cannot ask what munmap({addr:#x}, {length}) would do")
            }
            Self::MaxMapCount => write!(f, "cannot read /proc/sys/vm/max_map_count"),
            Self::Fallocate { mode, range } => {
                let what = if *mode == sys::VMALAB_FALLOCATE_PUNCH_HOLE {
                    "free"
                } else {
                    "allocate"
                };
                let Range { start, end } = range;
                write!(f, "cannot {what} bytes {start}..{end} of the object")
            }
            Self::AddSeals(seals) => write!(f, "cannot seal the object with {seals:?}"),
            Self::GetSeals => write!(f, "cannot read the seals of the object"),
            Self::Written(Range { start, end }) => {
                write!(
                    f,
                    "cannot tell which pages of bytes {start}..{end} were written"
                )
            }
            Self::SetName(name) if name.is_empty() => write!(f, "cannot name the object"),
            Self::SetName(name) => write!(f, "cannot name the object {name:?}"),
            Self::OpenName(name) => write!(f, "cannot open the object named {name:?}"),
            Self::Watch => write!(f, "cannot watch the object"),
            Self::ReadWatch => write!(f, "cannot read the events of the object"),
            Self::MapWatch => write!(f, "cannot map the ring of events"),
            Self::GetFolioSize => write!(f, "cannot read the folio size of the object"),
            Self::SetFolioSize(size) => {
                write!(f, "cannot set the folio size of the object to {size} bytes")
            }
            Self::SetArea(flags) => write!(f, "cannot set the flags of new areas to {flags:?}"),
            Self::GetArea => write!(f, "cannot read the flags of new areas"),
            Self::AddRule(hook) => write!(f, "cannot add a rule for {hook}"),
            Self::ClearRules => write!(f, "cannot remove the rules"),
            Self::GetRule => write!(f, "cannot read the rule"),
            Self::Map { length, offset } => {
                write!(f, "cannot map {length} bytes from offset {offset}")
            }
            Self::Unmap { range, length } => {
                let Range { start, end } = range;
                write!(
                    f,
                    "cannot unmap bytes {start}..{end} of a mapping of {length} bytes"
                )
            }
            Self::Protect => write!(f, "cannot change the protection of the mapping"),
            Self::Copy {
                offset,
                count,
                length,
            } => {
                write!(
                    f,
                    "cannot copy {count} bytes at {offset} of a mapping of {length} bytes"
                )
            }
        }
    }
}

/// As the text: a `main` that returns this error prints it so, and the advice is not lost.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} ({:?})",
            self.action,
            self.errno.desc(),
            self.errno
        )?;
        match self.advice() {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    /// Keeps the text; the kind is that of the error number.
    fn from(error: Error) -> Self {
        io::Error::new(io::Error::from(error.errno).kind(), error)
    }
}
