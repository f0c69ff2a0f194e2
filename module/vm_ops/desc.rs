// SPDX-License-Identifier: GPL-2.0-only

//! Areas that do not exist yet: what `.mmap_prepare` and the hook `mapped` are told.

use super::{AreaData, VmOperations};
use core::{marker::PhantomData, ops::Range, ptr::NonNull};
use kernel::{
    bindings,
    mm::virt::{
        flags,
        vm_flags_t, //
    },
    prelude::*,
    types::ForeignOwnable, //
};

/// What is to be mapped (a `vm_area_desc`): the argument of `.mmap_prepare`.
///
/// # Invariants
///
/// `desc` is what the kernel passed to the `.mmap_prepare` of a file that lives for 'a, and 'a lasts
/// until the mmap is done.
pub(crate) struct AreaDesc<'a> {
    desc: NonNull<bindings::vm_area_desc>,
    // Invariant in 'a: data of a shorter life must not be installed.
    _file: PhantomData<fn(&'a ()) -> &'a ()>,
}

impl<'a> AreaDesc<'a> {
    /// # Safety
    ///
    /// The type invariants hold for `desc`, which is not NULL, and nobody else uses it while this is
    /// there.
    pub(crate) unsafe fn from_raw(desc: *mut bindings::vm_area_desc) -> Self {
        // INVARIANT: The caller's promise.
        Self {
            // SAFETY: The caller's promise.
            desc: unsafe { NonNull::new_unchecked(desc) },
            _file: PhantomData,
        }
    }

    fn raw(&self) -> &bindings::vm_area_desc {
        // SAFETY: By the type invariants, it is valid; only who borrows `self` mutably writes to it.
        unsafe { self.desc.as_ref() }
    }

    /// The addresses that are to be mapped.
    pub(crate) fn range(&self) -> Range<usize> {
        self.raw().start..self.raw().end
    }

    /// The offset of the first page in what is mapped, in pages.
    pub(crate) fn index(&self) -> usize {
        self.raw().pgoff
    }

    /// Changes the flags: for [`AreaFlags`](super::AreaFlags), which knows what an area may have.
    pub(super) fn set_flags(&mut self, flags: vm_flags_t) {
        // SAFETY: By the type invariants, it is valid, and we are the only ones to use it.
        unsafe { self.desc.as_mut() }.vma_flags.__vma_flags[0] = flags;
    }

    /// The flags that the area is to have: see [`kernel::mm::virt::flags`].
    pub(crate) fn flags(&self) -> vm_flags_t {
        // The others are beyond the first word.
        self.raw().vma_flags.__vma_flags[0]
    }

    /// The area cannot be made writable with mprotect: `VM_MAYWRITE` is cleared.
    ///
    /// # Errors
    ///
    /// EINVAL if it is to be writable from the begin, as
    /// [`VmaNew::try_clear_maywrite`](kernel::mm::virt::VmaNew::try_clear_maywrite).
    pub(crate) fn try_clear_maywrite(&mut self) -> Result {
        if self.flags() & flags::WRITE != 0 {
            return Err(EINVAL);
        }
        // SAFETY: By the type invariants, it is valid, and we are the only ones to use it. A driver may
        // take this flag away from what is not writable.
        unsafe { self.desc.as_mut() }.vma_flags.__vma_flags[0] &= !flags::MAYWRITE;
        Ok(())
    }

    /// The area, if there will be a new one, is `T`'s, and gets a reference to `data` of its own when
    /// it is there. If there is none, nothing happens.
    pub(crate) fn install<T: VmOperations>(
        &mut self,
        data: <T::Data as ForeignOwnable>::Borrowed<'a>,
    ) {
        const { assert!(T::PREPARED, "these areas are for `.mmap`") };

        // The pointer, without the reference: `mapped` makes one for the area.
        let foreign = T::Data::duplicate(data).into_foreign();
        // SAFETY: That is where the pointer is from. What it points to outlives this reference: it
        // was borrowed for 'a.
        drop(unsafe { T::Data::from_foreign(foreign) });

        // SAFETY: By the type invariants, it is valid, and we are the only ones to use it. The table is
        // a static, of a module that stays loaded as long as the file of the area is open.
        let desc = unsafe { self.desc.as_mut() };
        desc.vm_ops = T::table().as_ptr();
        desc.private_data = foreign;
    }
}

/// An area that has just come into being: the argument of the hook `mapped`.
pub(crate) struct Mapped<'a, T: VmOperations> {
    range: Range<usize>,
    index: usize,
    data: <T::Data as ForeignOwnable>::Borrowed<'a>,
}

impl<'a, T: VmOperations> Mapped<'a, T> {
    pub(super) fn new(
        range: Range<usize>,
        index: usize,
        data: <T::Data as ForeignOwnable>::Borrowed<'a>,
    ) -> Self {
        Self { range, index, data }
    }

    /// Its addresses.
    pub(crate) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The offset of its first page in what it maps, in pages.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Its data, of which it has a reference already.
    pub(crate) fn data(&self) -> &<T::Data as ForeignOwnable>::Borrowed<'a> {
        &self.data
    }
}
