// SPDX-License-Identifier: GPL-2.0-only

//! An address space, to look at: all its areas, whoever's they are, and its counters.
//!
//! C headers: [`include/linux/mm.h`](srctree/include/linux/mm.h),
//! [`include/linux/mm_types.h`](srctree/include/linux/mm_types.h)
//!
//! [`kernel::mm`] looks an area up by an address, and takes the mmap lock for reading only. That is not
//! enough for a consistent reading: munmap takes areas out with the lock held for writing, but their
//! pages off `total_vm`, `exec_vm`, `stack_vm` and `data_vm` when it holds it for reading any more
//! (`vms_complete_munmap_vmas` in `mm/vma.c`). So [`AddressSpace`] takes it for writing. Then it may also
//! ask a driver whether an area could be split.
//!
//! Nothing can be changed through what is here.
//!
//! # Locks
//!
//! The mmap lock, for writing; below it, and only within [`AnyArea::anon_vma`], the `page_table_lock`
//! of the mm. User memory must not be touched while an [`AddressSpace`] lives: a fault takes the mmap
//! lock.
//!
//! # Identities
//!
//! Some of the kernel's objects have no number, and their addresses must not be told. [`Identity`] is
//! such an address, and all that can be done with it is to compare it with another one.

#![allow(dead_code, reason = "a driver uses the part of this that it needs")]

use crate::helpers;
use core::{marker::PhantomData, num::NonZeroUsize, ops::Range, ptr::addr_of};
use kernel::{
    bindings,
    error::to_result,
    mm::{
        virt::{vm_flags_t, VmaRef},
        MmWithUser,
    },
    prelude::*,
    types::NotThreadSafe,
};

/// Which object of the kernel's: it can be compared, and that is all.
///
/// It says nothing after the [`AddressSpace`] that it is from has gone, but in comparison with others
/// that are from the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity(NonZeroUsize);

impl Identity {
    /// NULL has none.
    fn of(address: usize) -> Option<Self> {
        NonZeroUsize::new(address).map(Self)
    }

    /// That of something of the module's own.
    pub(crate) fn of_ref<T>(object: &T) -> Self {
        Self(core::ptr::NonNull::from(object).addr())
    }
}

/// An address space that nobody changes, but for faults in areas that are there already.
///
/// # Invariants
///
/// This owns the mmap lock of `mm`, for writing.
pub(crate) struct AddressSpace<'a> {
    mm: &'a MmWithUser,
    // The lock has to be given back by the thread that took it.
    _nts: NotThreadSafe,
}

impl<'a> AddressSpace<'a> {
    /// Waits for all others who read or change the address space.
    ///
    /// # Errors
    ///
    /// EINTR if the task is killed meanwhile.
    pub(crate) fn lock(mm: &'a MmWithUser) -> Result<Self> {
        // SAFETY: The reference says that it is an mm with users.
        to_result(unsafe { helpers::vmalab_mmap_write_lock_killable(mm.as_raw()) })?;
        // INVARIANT: It was just taken.
        Ok(Self {
            mm,
            _nts: NotThreadSafe,
        })
    }

    /// The first area that ends above `addr`: `find_vma`.
    pub(crate) fn find(&self, addr: usize) -> Option<AnyArea<'_>> {
        // SAFETY: By the type invariants, the lock is held.
        let vma = unsafe { bindings::find_vma(self.mm.as_raw(), addr) };
        // SAFETY: It is an area of this address space, or NULL.
        unsafe { AnyArea::from_raw(vma) }
    }

    /// The areas that overlap `range`, by address.
    pub(crate) fn areas(&self, range: Range<usize>) -> Areas<'_> {
        let mut vmi = bindings::vma_iterator::default();
        // SAFETY: The iterator is there to be written to, and the mm is alive.
        unsafe { helpers::vmalab_vma_iter_init(&mut vmi, self.mm.as_raw(), range.start) };
        // INVARIANT: It was just made, and `self` is borrowed.
        Areas {
            vmi,
            // Nothing overlaps an empty range, which the kernel's iterator does not know.
            end: if range.is_empty() { 0 } else { range.end },
            _space: PhantomData,
        }
    }

    /// The address without what the processor ignores of it, as munmap takes it.
    pub(crate) fn untagged(&self, addr: usize) -> usize {
        // SAFETY: By the type invariants, the lock is held.
        unsafe { helpers::vmalab_untagged_addr(self.mm.as_raw(), addr) }
    }

    /// How many areas there are (`map_count`).
    pub(crate) fn map_count(&self) -> usize {
        // SAFETY: The mm is alive. By the type invariants, the lock is held that protects it.
        unsafe { (*self.mm.as_raw()).__bindgen_anon_1.map_count as usize }
    }

    /// The counters and bounds.
    pub(crate) fn counters(&self) -> Counters {
        let mm = self.mm.as_raw();
        // SAFETY: The mm is alive. By the type invariants, the lock is held that protects all of these
        // from changes, but for two. `pinned_vm` is atomic. `hiwater_vm` only ever rises, a word at a
        // time, and the kernel reads it in the same way.
        unsafe {
            let mm = addr_of!((*mm).__bindgen_anon_1);
            Counters {
                map_count: (*mm).map_count as usize,
                total_vm: (*mm).total_vm,
                locked_vm: (*mm).locked_vm,
                pinned_vm: helpers::vmalab_pinned_vm(self.mm.as_raw()) as usize,
                data_vm: (*mm).data_vm,
                exec_vm: (*mm).exec_vm,
                stack_vm: (*mm).stack_vm,
                hiwater_vm: addr_of!((*mm).hiwater_vm).read_volatile(),
                def_flags: (*mm).__bindgen_anon_2.def_flags,
                task_size: (*mm).task_size,
                mmap_base: (*mm).mmap_base,
                start_brk: (*mm).start_brk,
                brk: (*mm).brk,
                start_stack: (*mm).start_stack,
            }
        }
    }
}

impl Drop for AddressSpace<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, we hold the lock; it cannot have been sent to another thread.
        unsafe { helpers::vmalab_mmap_write_unlock(self.mm.as_raw()) };
    }
}

/// The end of the addresses that the running task may use (`TASK_SIZE`).
pub(crate) fn task_size() -> usize {
    // SAFETY: It has no condition.
    unsafe { helpers::vmalab_task_size() }
}

/// Counters and bounds of an address space: the fields of `mm_struct` that are called so. What counts
/// memory counts pages; what bounds it is an address.
#[allow(missing_docs, reason = "they are the kernel's own")]
pub(crate) struct Counters {
    pub(crate) map_count: usize,
    pub(crate) total_vm: usize,
    pub(crate) locked_vm: usize,
    pub(crate) pinned_vm: usize,
    pub(crate) data_vm: usize,
    pub(crate) exec_vm: usize,
    pub(crate) stack_vm: usize,
    pub(crate) hiwater_vm: usize,
    pub(crate) def_flags: vm_flags_t,
    pub(crate) task_size: usize,
    pub(crate) mmap_base: usize,
    pub(crate) start_brk: usize,
    pub(crate) brk: usize,
    pub(crate) start_stack: usize,
}

/// The areas of a range.
///
/// # Invariants
///
/// `vmi` is an iterator over an address space whose lock is held, for writing, during 'a.
pub(crate) struct Areas<'a> {
    vmi: bindings::vma_iterator,
    end: usize,
    _space: PhantomData<&'a AddressSpace<'a>>,
}

impl<'a> Iterator for Areas<'a> {
    type Item = AnyArea<'a>;

    fn next(&mut self) -> Option<AnyArea<'a>> {
        if self.end == 0 {
            return None;
        }
        // SAFETY: By the type invariants, the iterator is valid, and the areas cannot have changed since
        // its last step.
        let vma = unsafe { helpers::vmalab_vma_find(&mut self.vmi, self.end) };
        // SAFETY: It is an area of an address space that is locked during 'a, or NULL.
        let area = unsafe { AnyArea::from_raw(vma) };
        if area.is_none() {
            self.end = 0;
        }
        area
    }
}

/// What pages of an area count as, besides being part of `total_vm`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Nothing.
    Plain,
    /// `exec_vm`
    Exec,
    /// `stack_vm`
    Stack,
    /// `data_vm`
    Data,
}

/// What private pages of an area hang on.
pub(crate) struct AnonVma {
    /// The `anon_vma`.
    pub(crate) own: Identity,
    /// Its root: that of the first process of which this one is a fork with pages of it.
    pub(crate) root: Identity,
}

/// The file of an area.
pub(crate) struct MappedFile {
    /// Which open file (`struct file`).
    pub(crate) identity: Identity,
    /// The device of its inode, as `/proc/PID/maps` shows it.
    pub(crate) device: (u32, u32),
    /// The number of its inode there.
    pub(crate) inode: u64,
}

/// An area of a locked address space, whoever's it is.
///
/// # Invariants
///
/// The mmap lock is held, for writing, during 'a.
#[derive(Clone, Copy)]
pub(crate) struct AnyArea<'a>(&'a VmaRef);

impl<'a> AnyArea<'a> {
    /// # Safety
    ///
    /// `vma` is NULL, or an area of an address space whose mmap lock is held for writing during 'a.
    unsafe fn from_raw(vma: *mut bindings::vm_area_struct) -> Option<Self> {
        if vma.is_null() {
            return None;
        }
        // SAFETY: The caller's promise. INVARIANT: The same.
        Some(Self(unsafe { VmaRef::from_raw(vma) }))
    }

    /// As the kernel crate knows it.
    pub(crate) fn vma(self) -> &'a VmaRef {
        self.0
    }

    /// First byte.
    pub(crate) fn start(self) -> usize {
        self.0.start()
    }

    /// One past the last byte.
    pub(crate) fn end(self) -> usize {
        self.0.end()
    }

    /// All its flags.
    pub(crate) fn flags(self) -> vm_flags_t {
        // SAFETY: By the type invariants, nobody writes to the area.
        unsafe { helpers::vmalab_vma_flags(self.0.as_ptr()) }
    }

    /// The offset of its first page in what it maps, in pages (`vm_pgoff`). Of private anonymous memory
    /// it is the number of the page that it was mapped at first.
    pub(crate) fn index(self) -> usize {
        // SAFETY: By the type invariants, nobody writes to the field.
        unsafe { (*self.0.as_ptr()).vm_pgoff }
    }

    /// What its pages count as.
    pub(crate) fn class(self) -> Class {
        // SAFETY: By the type invariants, nobody writes to the area.
        match unsafe { helpers::vmalab_vma_class(self.0.as_ptr()) } {
            1 => Class::Exec,
            2 => Class::Stack,
            3 => Class::Data,
            _ => Class::Plain,
        }
    }

    /// Whether it may not be changed (`mseal`).
    pub(crate) fn is_sealed(self) -> bool {
        // SAFETY: By the type invariants, nobody writes to the area.
        unsafe { helpers::vmalab_vma_is_sealed(self.0.as_ptr()) }
    }

    /// Whether its pages are locked in memory (`mlock`).
    pub(crate) fn is_locked(self) -> bool {
        // SAFETY: By the type invariants, nobody writes to the area.
        unsafe { helpers::vmalab_vma_is_locked(self.0.as_ptr()) }
    }

    /// Whether a userfaultfd watches it.
    pub(crate) fn is_watched(self) -> bool {
        // SAFETY: By the type invariants, nobody writes to the area.
        unsafe { helpers::vmalab_userfaultfd_armed(self.0.as_ptr()) }
    }

    /// Its `anon_vma`, if it has one yet; and whether it has others besides, from before a fork.
    ///
    /// Faults go on in other threads, and may give it one right after.
    pub(crate) fn anon_vma(self) -> (Option<AnonVma>, bool) {
        let (mut own, mut root) = (0, 0);
        // SAFETY: By the type invariants, the area stays as it is, and so does its mm.
        let others = unsafe { helpers::vmalab_vma_anon_vma(self.0.as_ptr(), &mut own, &mut root) };
        let anon_vma = Identity::of(own)
            .zip(Identity::of(root))
            .map(|(own, root)| AnonVma { own, root });
        (anon_vma, others)
    }

    /// Its file, if it has one.
    pub(crate) fn file(self) -> Option<MappedFile> {
        // SAFETY: By the type invariants, nobody writes to the field.
        let file = unsafe { (*self.0.as_ptr()).vm_file };
        let identity = Identity::of(file.addr())?;
        let (mut major, mut minor, mut inode) = (0, 0, 0);
        // SAFETY: It is not NULL, and the area has a reference to it.
        unsafe { helpers::vmalab_file_inode(file, &mut major, &mut minor, &mut inode) };
        Some(MappedFile {
            identity,
            device: (major, minor),
            inode,
        })
    }

    /// Its table of hooks, if it has one, to see which there are.
    pub(crate) fn operations(self) -> Option<&'a bindings::vm_operations_struct> {
        // SAFETY: By the type invariants, nobody writes to the field. It is NULL, or a table that is
        // never changed, and lives as long as the file of the area, or as the kernel itself.
        unsafe { (*self.0.as_ptr()).vm_ops.as_ref() }
    }

    /// What the driver says to a split at `at`, which is a page's address inside the area; the hook
    /// `may_split` is called, if there is one.
    ///
    /// It is there to be asked "any time before splitting", and no split needs to follow
    /// (`vm_operations_struct` in `linux/mm.h`): `__split_vma` itself can fail after it.
    pub(crate) fn may_split(self, at: usize) -> Result {
        let Some(may_split) = self.operations().and_then(|ops| ops.may_split) else {
            return Ok(());
        };
        if at <= self.start() || at >= self.end() {
            return Err(EINVAL);
        }
        // SAFETY: It is the hook of this area, and the mmap lock is held for writing, as the hook may
        // expect. The address is inside.
        to_result(unsafe { may_split(self.0.as_ptr(), at) })
    }
}
