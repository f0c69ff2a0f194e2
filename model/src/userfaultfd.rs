// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! A userfaultfd that watches for missing pages, and asks to be told of what happens to its areas:
//! `userfaultfd_register`, `userfaultfd_unregister`, `userfaultfd_unmap_prep` and `_complete`,
//! `mremap_userfaultfd_prep` and `_complete`, `userfaultfd_remove` (mm/userfaultfd.c, before 7.2
//! fs/userfaultfd.c).
//!
//! There is one for the process. An area that it watches has [`VmFlags::UFFD_MISSING`]; that alone keeps
//! it from merging with one that is not watched.
//!
//! There is one since 4.3, and it tells of what happens to its areas since 4.11.

use alloc::vec::Vec;

use crate::file::Kind;
use crate::merge::SPECIAL;
use crate::rules::Userfaultfd;
use crate::{AddressSpace, Allocation, Container, Errno, Object, PAGE_SIZE, VmFlags, Vma};

/// What a userfaultfd delivers of operations on its areas (`struct uffd_msg`).
///
/// ```
/// use vmalab_model::{AddressSpace, Errno, Limits, Mmap, Op, Rules, UffdEvent};
///
/// // At the limit no hole can be punched. Until 4.13 one was told of it all the same.
/// for (rules, told) in [(Rules::V4_12, 1), (Rules::V7_2, 0)] {
///     let limits = Limits { max_map_count: 1, ..Limits::default() };
///     let mut space: AddressSpace = AddressSpace::new(rules, limits);
///     space.apply(&Op::Mmap(Mmap::anonymous(0x10000, 0x8000)));
///     space.apply(&Op::UffdRegister { addr: 0x10000, len: 0x8000 });
///     let outcome = space.apply(&Op::Munmap { addr: 0x12000, len: 0x2000 });
///     assert_eq!(outcome.result, Err(Errno::ENOMEM));
///     let hole = UffdEvent::Unmap { start: 0x12000, end: 0x14000 };
///     assert_eq!(outcome.events, vec![hole; told]);
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UffdEvent {
    /// `UFFD_EVENT_UNMAP`: the range was unmapped, or would have been.
    Unmap {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// `UFFD_EVENT_REMAP`: an area moved.
    Remap {
        /// Where it was.
        from: u64,
        /// Where it is.
        to: u64,
        /// How many bytes it had.
        len: u64,
    },
    /// `UFFD_EVENT_REMOVE`: pages were dropped (`MADV_DONTNEED`).
    Remove {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
}

/// Events that wait for the end of an operation, in the order in which they will be delivered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    /// Unmappings that made room for a move (`uf_unmap_early`).
    early: Vec<UffdEvent>,
    /// The move itself.
    remap: Option<UffdEvent>,
    /// All other unmappings (`uf_unmap`).
    unmaps: Vec<UffdEvent>,
    /// The unmapping that is under way is nobody's concern.
    untold: bool,
}

impl<C: Container> AddressSpace<C> {
    /// Watches for missing pages in a range (`UFFDIO_REGISTER`). What was registered before an error
    /// stays so.
    ///
    /// # Errors
    ///
    /// EINVAL: unaligned, empty, out of range, nothing mapped, or memory that cannot be watched. EPERM:
    /// memory that may not become writable. ENOMEM: no room for a split. ENOSYS: there is no userfaultfd yet.
    pub(crate) fn uffd_register(&mut self, addr: u64, len: u64) -> Result<(), Errno> {
        let end = self.uffd_range(addr, len)?;
        for vma in self.areas.iter_from(addr) {
            if vma.start >= end {
                break;
            }
            if !self.can_userfault(vma) {
                return Err(Errno::EINVAL);
            }
            if self.rules.uffd_needs_maywrite && !vma.flags.contains(VmFlags::MAYWRITE) {
                return Err(Errno::EPERM);
            }
        }
        self.uffd_change(addr, end, true)
    }

    /// Watches a range no more (`UFFDIO_UNREGISTER`).
    ///
    /// # Errors
    ///
    /// As [`uffd_register`](Self::uffd_register), but for EPERM.
    pub(crate) fn uffd_unregister(&mut self, addr: u64, len: u64) -> Result<(), Errno> {
        let end = self.uffd_range(addr, len)?;
        for vma in self.areas.iter_from(addr) {
            if vma.start >= end {
                break;
            }
            if !self.can_userfault(vma) {
                return Err(Errno::EINVAL);
            }
        }
        self.uffd_change(addr, end, false)
    }

    /// `validate_range`, and that there is an area. Gives the end.
    fn uffd_range(&mut self, addr: u64, len: u64) -> Result<u64, Errno> {
        if self.rules.userfaultfd == Userfaultfd::Unknown {
            return Err(Errno::ENOSYS);
        }
        let task_size = self.limits.task_size;
        if addr % PAGE_SIZE != 0
            || len % PAGE_SIZE != 0
            || len == 0
            || addr < self.limits.mmap_min_addr
            || addr >= task_size
            || len > task_size - addr
            || !self.is_mapped(addr, addr + len)
        {
            return Err(Errno::EINVAL);
        }
        Ok(addr + len)
    }

    /// `userfaultfd_register_range`, and its counterpart.
    fn uffd_change(&mut self, addr: u64, end: u64, watch: bool) -> Result<(), Errno> {
        let mut at = addr;
        let mut prev = self.areas.prev(addr).copied();
        while let Some(&vma) = self.areas.find(at).filter(|vma| vma.start < end) {
            let mut now = vma;
            if vma.flags.contains(VmFlags::UFFD_MISSING) != watch {
                if vma.start < at {
                    prev = Some(vma);
                }
                at = at.max(vma.start);
                let flags = if watch {
                    vma.flags | VmFlags::UFFD_MISSING
                } else {
                    vma.flags.without(VmFlags::UFFD_MISSING)
                };
                now = self.uffd_change_area(prev, &vma, at, vma.end.min(end), flags)?;
            }
            prev = Some(now);
            at = now.end;
        }
        Ok(())
    }

    fn uffd_change_area(
        &mut self,
        prev: Option<Vma>,
        vma: &Vma,
        start: u64,
        end: u64,
        flags: VmFlags,
    ) -> Result<Vma, Errno> {
        if !self.rules.uffd_merges_by_area_offset || start == vma.start {
            return self.modify_flags(prev.as_ref(), vma, start, end, flags);
        }
        let new = Vma {
            start,
            end,
            pgoff: vma.pgoff,
            flags,
            ..*vma
        };
        match self.merge_existing_range(prev.as_ref(), vma, &new) {
            Ok(Some(merged)) => return Ok(merged),
            Err(error) if self.rules.failed_merge_is_an_error => return Err(error),
            Ok(None) | Err(_) => {}
        }
        let pgoff = vma.pgoff_at(start);
        self.cut_out(vma, Vma { pgoff, ..new })
    }

    /// Whether an area of the range is watched.
    pub(crate) fn uffd_watches(&self, start: u64, end: u64) -> bool {
        self.areas
            .iter_from(start)
            .take_while(|vma| vma.start < end)
            .any(|vma| vma.flags.contains(VmFlags::UFFD_MISSING))
    }

    /// A range is about to be unmapped (`userfaultfd_unmap_prep`).
    ///
    /// # Errors
    ///
    /// ENOMEM: nothing is told.
    pub(crate) fn uffd_unmaps(&mut self, start: u64, end: u64) -> Result<(), Errno> {
        let event = UffdEvent::Unmap { start, end };
        if !self.uffd.untold && self.uffd_watches(start, end) && !self.uffd.unmaps.contains(&event)
        {
            self.allocate(Allocation::Userfaultfd)?;
            self.uffd.unmaps.push(event);
        }
        Ok(())
    }

    /// `munmap` of which nobody is told (`do_munmap` without a list for it).
    pub(crate) fn munmap_untold(&mut self, addr: u64, len: u64) -> Result<(), Errno> {
        self.uffd.untold = true;
        let result = self.munmap(addr, len);
        self.uffd.untold = false;
        result
    }

    /// How many unmappings wait, to be given to [`uffd_early`](Self::uffd_early).
    pub(crate) fn uffd_mark(&self) -> usize {
        self.uffd.unmaps.len()
    }

    /// The unmappings since the mark made room for a move, and are delivered before it.
    pub(crate) fn uffd_early(&mut self, mark: usize) {
        let Pending { early, unmaps, .. } = &mut self.uffd;
        early.extend(unmaps.drain(mark..));
    }

    /// An area that is watched moves (`mremap_userfaultfd_prep`).
    pub(crate) fn uffd_remaps(&mut self, from: u64, to: u64, len: u64) {
        if !self.rules.uffd_tells {
            return;
        }
        self.uffd.remap = Some(UffdEvent::Remap { from, to, len });
    }

    /// The operation is over: a move is told if it succeeded, unmappings in any case
    /// (`userfaultfd_unmap_complete`, `mremap_userfaultfd_complete`).
    pub(crate) fn uffd_complete(&mut self, succeeded: bool) {
        let Pending {
            early,
            remap,
            unmaps,
            ..
        } = &mut self.uffd;
        if early.is_empty() && remap.is_none() && unmaps.is_empty() {
            return;
        }
        self.uffd_events.append(early);
        self.uffd_events.extend(remap.take().filter(|_| succeeded));
        self.uffd_events.append(unmaps);
    }

    /// `vma_can_userfault`
    fn can_userfault(&self, vma: &Vma) -> bool {
        let huge = vma.flags.contains(VmFlags::HUGETLB);
        if self.rules.userfaultfd == Userfaultfd::Anonymous {
            // No driver behind it, and huge pages have one.
            return vma.object == Object::Anon && !huge;
        }
        let ordinary = huge || !vma.flags.intersects(SPECIAL | VmFlags::DROPPABLE);
        let memory = match vma.object {
            Object::Anon | Object::Shmem(_) => true,
            // Not what is attached, whose driver stands between.
            Object::File(id) => {
                let file = self.file(id);
                file.kind == Kind::Shmem && file.attached.is_none()
            }
            Object::Other => false,
        };
        ordinary && (memory || huge)
    }
}
