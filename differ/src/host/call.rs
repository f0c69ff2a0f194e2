// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Operations as the system calls that a child makes, and where it looks after each.

use std::ffi::CStr;
use std::ops::Range;
use std::os::fd::AsRawFd;

use vmalab_model::{Backing, FileId, MapFlags, MlockFlags, Mmap, Name, NewName, Op, PAGE_SIZE};

use super::files::NUMBERS;
use super::wire::{Call, EVERYWHERE, FORK, STEER, Touch};
use super::worlds::ARENA_PAGES;
use super::{Host, device};
use crate::oracle::OracleError;

/// The sets of the first two memory nodes, and the names: the children have them where this process has.
static NODES: [u64; 4] = [0, 1, 2, 3];
static NAMES: [&CStr; 4] = [c"name 0", c"name 1", c"name 2", c"name 3"];

impl Host {
    /// The system call that an operation is.
    pub(super) fn call(
        &self,
        index: usize,
        op: &Op,
        windows: &[Range<u64>],
    ) -> Result<Call, OracleError> {
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
            Op::PkeyAlloc { flags, rights } => (libc::SYS_pkey_alloc, [flags, rights, 0, 0, 0, 0]),
            Op::PkeyFree { pkey } => (libc::SYS_pkey_free, [i64::from(pkey) as u64, 0, 0, 0, 0, 0]),
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
        let touch = match *op {
            Op::Touch { addr, write } => Some(Touch { addr, write }),
            _ => None,
        };
        Ok(Call {
            nr,
            args,
            touch,
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
            | Op::PkeyAlloc { .. }
            | Op::PkeyFree { .. }
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
