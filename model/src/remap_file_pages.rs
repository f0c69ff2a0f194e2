// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `remap_file_pages(2)`: the system call (mm/mmap.c) has been an emulation by `mmap` since 4.0.
//!
//! Before, it filled the page tables of one area with other pages of its file and left the area as it
//! was, but for a flag (`VM_NONLINEAR`). Which pages those are is not modelled, nor the flag: of these
//! kernels only the answer is.

use crate::{
    AddressSpace, Container, Errno, File, MapFlags, Object, PAGE_SHIFT, PAGE_SIZE, Prot, VmFlags,
};

impl<C: Container> AddressSpace<C> {
    /// `remap_file_pages(2)`.
    ///
    /// # Errors
    ///
    /// EINVAL: arguments that make no sense, or a range that is not shared memory of one file with one
    /// kind of access; all that `mmap` answers.
    pub(crate) fn remap_file_pages(
        &mut self,
        addr: u64,
        len: u64,
        prot: Prot,
        pgoff: u64,
        flags: MapFlags,
    ) -> Result<(), Errno> {
        let start = addr & !(PAGE_SIZE - 1);
        let len = len & !(PAGE_SIZE - 1);
        let end = start.wrapping_add(len);
        if prot != Prot::empty() || end <= start || pgoff.checked_add(len >> PAGE_SHIFT).is_none() {
            return Err(Errno::EINVAL);
        }
        let first = *self
            .areas
            .find(start)
            .filter(|vma| vma.start <= start && vma.flags.contains(VmFlags::SHARED))
            .ok_or(Errno::EINVAL)?;
        if !self.rules.remap_file_pages_is_mmap {
            return if end <= first.end {
                Ok(())
            } else {
                Err(Errno::EINVAL)
            };
        }
        // Areas that belong together, and only do not merge.
        let mut at = first.end;
        while at < end {
            let next = self.areas.find(at).filter(|next| {
                next.start == at && next.object == first.object && next.flags == first.flags
            });
            at = next.ok_or(Errno::EINVAL)?.end;
        }
        // VM_READ, WRITE and EXEC have the values of their PROT_ flags.
        let prot = Prot((first.flags.0 & 7) as u32);
        let mut flags = MapFlags(flags.0 & MapFlags::NONBLOCK.0)
            | MapFlags::SHARED
            | MapFlags::FIXED
            | MapFlags::POPULATE;
        if first.flags.contains(VmFlags::LOCKED) {
            flags |= MapFlags::LOCKED;
        }
        let file = match first.object {
            Object::File(id) => *self.file(id),
            Object::Shmem(_) if first.flags.contains(VmFlags::HUGETLB) => File::hugetlb(0),
            Object::Shmem(number) => File::memfd(self.shmem.pages(number).unwrap_or(0)),
            Object::Anon | Object::Other => File::regular(0),
        };
        // The object is held while its areas go.
        self.shmem.gain(first.object);
        let result = self.do_mmap(first.object, Some(file), start, len, prot, flags, pgoff);
        let freed = self.shmem.lose(first.object);
        self.uncharge(freed);
        result.map(drop)
    }
}
