// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Segments of System V shared memory: `shmat(2)` and `shmdt(2)`, `do_shmat` and `ksys_shmdt` (ipc/shm.c).
//!
//! Who attaches a segment gets a file of its own for it, so that two attachments never merge, and the pieces of
//! one do not merge again, for they have a `close` hook. Who detaches names the address alone; so all areas
//! are walked for those that look as if they had begun there:
//!
//! ```text
//!  shmdt(a)   a
//!             |--0--|--1--|  .  |--3--|     offsets in the segment, in pages
//!                            ^ unmapped      page n of it at a + n: a piece of what was attached there
//! ```
//!
//! The same in all eras, under the name of `sys_shmdt` until 4.16.

use crate::file::{File, Hooks, Kind};
use crate::{
    AddressSpace, Container, Errno, FileId, MapFlags, Object, PAGE_SHIFT, PAGE_SIZE, Prot,
    ShmFlags, Vma,
};

impl<C: Container> AddressSpace<C> {
    /// `shmat(2)`. Gives the address.
    ///
    /// # Errors
    ///
    /// EINVAL: no such segment, an address that is not aligned, or where something is, or none where it must
    /// be. All that `mmap` answers.
    pub(crate) fn shmat(
        &mut self,
        segment: FileId,
        addr: u64,
        how: ShmFlags,
    ) -> Result<u64, Errno> {
        let remap = how.contains(ShmFlags::REMAP);
        let mut flags = MapFlags::SHARED;
        let mut at = addr;
        if addr != 0 {
            at &= !(PAGE_SIZE - 1);
            if at != addr && (!how.contains(ShmFlags::RND) || (at == 0 && remap)) {
                return Err(Errno::EINVAL);
            }
            flags |= MapFlags::FIXED;
        } else if remap {
            return Err(Errno::EINVAL);
        }
        let mut prot = Prot::READ;
        if !how.contains(ShmFlags::RDONLY) {
            prot |= Prot::WRITE;
        }
        if how.contains(ShmFlags::EXEC) {
            prot |= Prot::EXEC;
        }
        let known = self.files.get(usize::from(segment.0));
        let file = *known
            .filter(|file| file.kind == Kind::Segment)
            .ok_or(Errno::EINVAL)?;
        let len = file.pages << PAGE_SHIFT;
        if at != 0 && !remap {
            let end = at.checked_add(len).ok_or(Errno::EINVAL)?;
            if self.is_mapped(at, end) {
                return Err(Errno::EINVAL);
            }
        }
        let attached = File {
            kind: Kind::Shmem,
            write: prot.contains(Prot::WRITE),
            hooks: Hooks {
                close: true,
                ..Hooks::NONE
            },
            prepares: false,
            chooses_address: true,
            attached: Some(segment),
            ..file
        };
        let id = self.file_of_attachment(attached)?;
        let last = self.files.len();
        let result = self.do_mmap(Object::File(id), Some(attached), at, len, prot, flags, 0);
        if result.is_err() && usize::from(id.0) + 1 == last {
            self.files.pop();
        }
        result
    }

    /// Makes the file of an attachment known, in the place of one that nobody has attached any more if there are very
    /// many.
    ///
    /// # Errors
    ///
    /// ENOMEM: all are attached.
    fn file_of_attachment(&mut self, file: File) -> Result<FileId, Errno> {
        if self.files.len() <= usize::from(u16::MAX) {
            return Ok(self.add_file(file));
        }
        let mut used = alloc::vec![false; self.files.len()];
        for vma in self.areas.iter_from(0) {
            if let Object::File(id) = vma.object {
                used[usize::from(id.0)] = true;
            }
        }
        let free = |(index, used): (usize, &bool)| {
            (!used && self.files[index].attached.is_some()).then_some(index)
        };
        let index = used
            .iter()
            .enumerate()
            .find_map(free)
            .ok_or(Errno::ENOMEM)?;
        self.files[index] = file;
        Ok(FileId(index as u16))
    }

    /// `shmdt(2)`.
    ///
    /// # Errors
    ///
    /// EINVAL: unaligned, or nothing is attached there. What cannot be unmapped stays, and is no error.
    pub(crate) fn shmdt(&mut self, addr: u64) -> Result<(), Errno> {
        if addr % PAGE_SIZE != 0 {
            return Err(Errno::EINVAL);
        }
        let begins_there =
            |vma: &Vma| vma.start >= addr && (vma.start - addr) >> PAGE_SHIFT == vma.pgoff;
        let first = self
            .areas
            .iter_from(addr)
            .find(|vma| self.attached(vma).is_some() && begins_there(vma))
            .copied()
            .ok_or(Errno::EINVAL)?;
        let size = self.attached(&first).map_or(0, |file| file.pages) << PAGE_SHIFT;
        let mut next = Some(first);
        while let Some(vma) = next {
            // The first one may even lie beyond where the segment would end.
            if vma.start != first.start && vma.end - addr > size {
                break;
            }
            if vma.object == first.object && begins_there(&vma) {
                // Nobody is told.
                let _ = self.munmap_untold(vma.start, vma.end - vma.start);
            }
            next = self.areas.find(vma.end).copied();
        }
        Ok(())
    }

    /// The file behind an area of a segment.
    fn attached(&self, vma: &Vma) -> Option<&File> {
        match vma.object {
            Object::File(id) => Some(self.file(id)).filter(|file| file.attached.is_some()),
            _ => None,
        }
    }
}
