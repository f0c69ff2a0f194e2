// SPDX-License-Identifier: GPL-2.0-only

//! Areas that are ours, and the data that they hold.

use super::VmOperations;
use core::marker::PhantomData;
use kernel::{
    bindings,
    mm::virt::{flags, vm_flags_t, VmaNew, VmaRef},
    page::PAGE_SHIFT,
    sync::{Arc, ArcBorrow},
    types::{ForeignOwnable, Opaque},
};

/// What an area can hold: something that fits into a pointer and that a copy of the area can have, too.
///
/// # Safety
///
/// If `data` was borrowed from the pointer `p`, the `into_foreign` of `duplicate(data)` is `p`: the
/// references of all copies are told apart by their number only.
pub(crate) unsafe trait AreaData: ForeignOwnable + Send + Sync + 'static {
    /// Whether each area has its own reference, to be given back when the area goes. The areas then
    /// have an `open` and a `close` hook in any case.
    const COUNTED: bool;

    /// Another reference to the same data, for a copy of the area. It cannot fail, so it must not
    /// allocate.
    fn duplicate(this: Self::Borrowed<'_>) -> Self;
}

// SAFETY: The pointer is to what is shared, for all references to it.
unsafe impl<T: Send + Sync + 'static> AreaData for Arc<T> {
    const COUNTED: bool = true;

    fn duplicate(this: ArcBorrow<'_, T>) -> Self {
        this.into()
    }
}

/// An area that holds nothing, for a driver to which all areas are the same.
// SAFETY: It is always the same pointer.
unsafe impl AreaData for () {
    const COUNTED: bool = false;

    fn duplicate((): ()) -> Self {}
}

/// An area (a `vm_area_struct`) that is `T`'s own.
///
/// It gives less than [`VmaRef`] on purpose. `VmaRef` promises an address space that is still in use,
/// and at `close` the process may be gone already.
///
/// # Invariants
///
/// The area has the table of `T` as its `vm_ops`, and `vm_private_data` is from the `into_foreign` of a
/// `T::Data` that lives at least as long as this reference. The mmap lock or the lock of the area is
/// held, or the area is no longer reachable by anyone but the caller.
#[repr(transparent)]
pub(crate) struct Area<T> {
    vma: Opaque<bindings::vm_area_struct>,
    _ops: PhantomData<fn() -> T>,
}

impl<T: VmOperations> Area<T> {
    /// # Safety
    ///
    /// The type invariants hold for `vma` during 'a.
    pub(super) unsafe fn from_raw<'a>(vma: *mut bindings::vm_area_struct) -> &'a Self {
        // SAFETY: The type is transparent. INVARIANT: The caller's promise.
        unsafe { &*vma.cast() }
    }

    /// Any area of any process, if it is one of ours: the only way to an [`Area`] outside of a hook.
    pub(crate) fn of(vma: &VmaRef) -> Option<&Self> {
        let raw = vma.as_ptr();
        // SAFETY: A `VmaRef` is a valid area with the mmap lock or its own lock held, which protects
        // both fields against changes.
        let (ops, data) = unsafe { ((*raw).vm_ops, (*raw).vm_private_data) };

        if !core::ptr::eq(ops, T::table().as_ptr()) || data.is_null() {
            return None;
        }
        // SAFETY: `install` and `AreaDesc::install` are the only ways to this table, and they store the
        // data with it. Both stay until `close`, after which the area has another table. A copy of an
        // area is not reachable by a `VmaRef` before its `open` has run, and a new area not before its
        // `mapped` has. INVARIANT: That proves the two conditions, and the
        // lock is held for as long as `vma` is borrowed.
        Some(unsafe { Self::from_raw(raw) })
    }

    /// The data of the area.
    pub(crate) fn data(&self) -> <T::Data as ForeignOwnable>::Borrowed<'_> {
        // SAFETY: By the type invariants, the pointer is from `into_foreign` of this type, and the
        // data lives for as long as `self` is borrowed. It is never borrowed mutably.
        unsafe { <T::Data as ForeignOwnable>::borrow((*self.vma.get()).vm_private_data) }
    }

    /// The first address of the area.
    pub(crate) fn start(&self) -> usize {
        // SAFETY: By the type invariants, nobody writes to the field.
        unsafe { (*self.vma.get()).__bindgen_anon_1.__bindgen_anon_1.vm_start }
    }

    /// The first address behind the area.
    pub(crate) fn end(&self) -> usize {
        // SAFETY: By the type invariants, nobody writes to the field.
        unsafe { (*self.vma.get()).__bindgen_anon_1.__bindgen_anon_1.vm_end }
    }

    /// How many pages the area has.
    pub(crate) fn pages(&self) -> usize {
        (self.end() - self.start()) >> PAGE_SHIFT
    }

    /// The offset of the area's first page in what it maps, in pages (`vm_pgoff`).
    pub(crate) fn index(&self) -> usize {
        // SAFETY: By the type invariants, nobody writes to the field.
        unsafe { (*self.vma.get()).vm_pgoff }
    }

    /// The flags of the area: see [`kernel::mm::virt::flags`].
    pub(crate) fn flags(&self) -> vm_flags_t {
        // SAFETY: By the type invariants, nobody writes to the field.
        unsafe { (*self.vma.get()).__bindgen_anon_2.vm_flags }
    }

    /// Whether writes to a page of the area go to a copy of it: the kernel's `is_cow_mapping`.
    pub(crate) fn is_private_writable(&self) -> bool {
        self.flags() & (flags::SHARED | flags::MAYWRITE) == flags::MAYWRITE
    }

    /// The memory policy that `mbind` gave to the area, or NULL.
    #[cfg(CONFIG_NUMA)]
    pub(super) fn policy(&self) -> *mut bindings::mempolicy {
        // SAFETY: By the type invariants, nobody writes to the field.
        unsafe { (*self.vma.get()).vm_policy }
    }

    /// The same, for who may know about it what every area is.
    pub(super) fn as_opaque(&self) -> &Opaque<bindings::vm_area_struct> {
        &self.vma
    }

    /// The area as the kernel knows it.
    pub(super) fn as_ptr(&self) -> *mut bindings::vm_area_struct {
        self.vma.get()
    }
}

/// The offset of an area's first page in what it maps, in pages (`vm_pgoff`), for an area that is not
/// anybody's yet.
pub(crate) fn index(vma: &VmaRef) -> usize {
    // SAFETY: A `VmaRef` is a valid area with a lock held, which protects the field against changes.
    unsafe { (*vma.as_ptr()).vm_pgoff }
}

/// Takes over a new area: `T`'s hooks are called for it from now on, and it holds `data`.
///
/// To be called from `.mmap`, as the last thing that it does: when the handler fails, the
/// kernel calls no hook for the area, and `data` would never be released.
pub(crate) fn install<T: VmOperations>(vma: &VmaNew, data: T::Data) {
    const { assert!(!T::PREPARED, "these areas are for `.mmap_prepare`") };
    let raw = vma.as_ptr();
    // SAFETY: A `VmaNew` is an area in the making, which nobody else can see yet. The table is a
    // static, of a module that stays loaded as long as the file of the area is open.
    unsafe {
        (*raw).vm_ops = T::table().as_ptr();
        (*raw).vm_private_data = data.into_foreign();
    }
}
