// SPDX-License-Identifier: GPL-2.0-only

//! The hooks that the kernel calls on a driver's areas: `vm_operations_struct`, in safe Rust.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)
//!
//! A driver says *what* happens at each hook by implementing [`VmOperations`], and takes an area over
//! in its mmap handler with [`install`]. Everything that is unsafe about it stays in this module.
//! Three rules make that work:
//!
//! - **One table per implementor, in a `static`.** The address of the table is how the kernel, and
//!   this module, tell whose area it is. [`vm_operations_table!`] makes it. A hook that is not
//!   implemented is NULL in the table, which is not the same as an empty one: the kernel refuses some
//!   merges of areas that have a `close` hook, for example.
//! - **An area owns its data.** Each area holds one [`AreaData`], as a rule an `Arc`. When the kernel
//!   copies an area (it splits one, moves one, forks) the copy gets its own reference, and when an
//!   area goes away its reference goes, too: this module does that, at `open` and at `close`. So what
//!   a hook is given is alive, whatever happened to the descriptor.
//! - **An area is known by its table and its data, never by its address.** The kernel moves areas
//!   between structures: when the head of an area is cut off, it is the *new* structure that stays at
//!   the low address. [`Area`] is what remains when both have been proven.
//!
//! # Adding a hook
//!
//! One method in [`VmOperations`], one function in [`Table`] that turns the kernel's arguments into
//! the method's, one line in [`Table::new`].
//!
//! # Examples
//!
//! A driver that serves the same page of zeros everywhere, and no more than `limit` pages of it:
//!
//! ```ignore
//! use crate::{folio::Folio, vm_ops::{self, *}};
//! use kernel::{mm::virt::VmaNew, prelude::*, sync::Arc};
//!
//! struct Zeros {
//!     page: Folio,
//!     limit: usize,
//! }
//!
//! struct ZeroAreas;
//!
//! #[vtable]
//! impl VmOperations for ZeroAreas {
//!     type Data = Arc<Zeros>;
//!
//!     fn fault(fault: Fault<'_, Self>) -> VmFault {
//!         let zeros = fault.area().data();
//!         if fault.index() >= zeros.limit {
//!             return VmFault::SIGBUS;
//!         }
//!         let page = zeros.page.clone();
//!         fault.give(page)
//!     }
//! }
//!
//! vm_operations_table!(ZeroAreas);
//!
//! // In the driver's `MiscDevice` implementation:
//! fn mmap(zeros: ArcBorrow<'_, Zeros>, _file: &File, vma: &VmaNew) -> Result {
//!     // No writable page is shared: the page of zeros stays one.
//!     vma.try_clear_maywrite()?;
//!     vm_ops::install::<ZeroAreas>(vma, zeros.into());
//!     Ok(())
//! }
//! ```

#![allow(
    dead_code,
    unused_imports,
    reason = "a driver uses the part of this that it needs"
)]

mod area;
mod fault;

pub(crate) use self::{
    area::{install, Area, AreaData},
    fault::{Fault, FaultFlags, VmFault},
};

use core::marker::PhantomData;
use kernel::{
    bindings,
    error::VTABLE_DEFAULT_ERROR,
    ffi,
    prelude::*,
    types::ForeignOwnable, //
};

/// What a driver does at each hook of its areas.
///
/// No hook has to be implemented. The kernel holds locks around each call:
///
/// | hook | called with | may sleep |
/// | --- | --- | --- |
/// | `open`, `may_split` | the mmap lock, for writing | yes |
/// | `close` | the mmap lock, for writing, or for reading if it is munmap that removes the area | yes |
/// | `fault` | the mmap lock, for reading | yes |
///
/// So a hook must not take the mmap lock, and must not touch user memory, which may take it.
#[vtable]
pub(crate) trait VmOperations: HasTable + 'static {
    /// What each area holds: see [`AreaData`].
    type Data: AreaData;

    /// An area has been copied, and `area` is the copy: by a split, by a move with `mremap`, by a
    /// fork. It holds its own data already. The first area of a mapping comes through the mmap
    /// handler, not through here.
    ///
    /// This cannot fail, since the kernel has no way back at this point. While an area is split,
    /// the copy overlaps the original for a moment.
    fn open(_area: &Area<Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// An area goes away; its pages are unmapped already. Its data is released after this.
    ///
    /// It runs once for each area that came through the mmap handler or `open`.
    fn close(_area: &Area<Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// An area is about to be split at `addr`: an error forbids it, and is the result of the
    /// operation that wanted the split.
    ///
    /// It may run without a split following, as other things can fail after it.
    fn may_split(_area: &Area<Self>, _addr: usize) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// A page is touched that the page table does not have: see [`Fault`].
    ///
    /// Without this hook every touch is SIGBUS.
    fn fault(_fault: Fault<'_, Self>) -> VmFault {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// Where the table of an implementor of [`VmOperations`] is.
///
/// Implemented by [`vm_operations_table!`] alone.
///
/// # Safety
///
/// `table` always returns the same `static`, which is not used for any other type. (A constant will
/// not do: the compiler may give it several addresses, or one address to two equal tables.)
pub(crate) unsafe trait HasTable: Sized {
    /// The one table of this type.
    fn table() -> &'static Table<Self>
    where
        Self: VmOperations;
}

/// Makes the one table of an implementor of [`VmOperations`].
macro_rules! vm_operations_table {
    ($ops:ty) => {
        // SAFETY: The table is a `static` that nothing but this function can name.
        unsafe impl $crate::vm_ops::HasTable for $ops {
            fn table() -> &'static $crate::vm_ops::Table<Self> {
                static TABLE: $crate::vm_ops::Table<$ops> = $crate::vm_ops::Table::new();
                &TABLE
            }
        }
    };
}
pub(crate) use vm_operations_table;

/// The `vm_operations_struct` of an implementor.
///
/// # Invariants
///
/// Each entry is NULL or the function of this module for that hook and this `T`.
#[repr(transparent)]
pub(crate) struct Table<T> {
    raw: bindings::vm_operations_struct,
    _ops: PhantomData<fn() -> T>,
}

// SAFETY: The table is never written, and holds nothing but pointers to functions and NULLs.
unsafe impl<T> Sync for Table<T> {}

impl<T: VmOperations> Table<T> {
    /// Makes the table; for [`vm_operations_table!`].
    pub(crate) const fn new() -> Self {
        // An area that counts references has to hear of its copies and of its end.
        let counted = T::Data::COUNTED;
        // INVARIANT: Only functions of this type are put in.
        Self {
            raw: bindings::vm_operations_struct {
                open: if counted || T::HAS_OPEN {
                    Some(Self::open)
                } else {
                    None
                },
                close: if counted || T::HAS_CLOSE {
                    Some(Self::close)
                } else {
                    None
                },
                may_split: if T::HAS_MAY_SPLIT {
                    Some(Self::may_split)
                } else {
                    None
                },
                fault: if T::HAS_FAULT {
                    Some(Self::fault)
                } else {
                    None
                },
                ..pin_init::zeroed()
            },
            _ops: PhantomData,
        }
    }

    /// The address by which the kernel knows the table.
    fn as_ptr(&self) -> *const bindings::vm_operations_struct {
        &self.raw
    }

    /// # Safety
    ///
    /// Called by the kernel as `vm_operations_struct.open`, for an area that has this table.
    unsafe extern "C" fn open(vma: *mut bindings::vm_area_struct) {
        // SAFETY: The kernel calls this with the mmap lock held for writing, on an area with this
        // table. It is a bitwise copy of an area that holds data, and that one keeps it alive, so
        // that it may be looked at through the copy.
        let area = unsafe { Area::<T>::from_raw(vma) };

        if T::Data::COUNTED {
            let own = T::Data::duplicate(area.data());
            // SAFETY: The kernel has not published the copy yet, or holds it locked for writing.
            // What is overwritten is the original's reference, which stays with the original.
            unsafe { (*vma).vm_private_data = own.into_foreign() };
        }
        if T::HAS_OPEN {
            T::open(area);
        }
    }

    /// # Safety
    ///
    /// Called by the kernel as `vm_operations_struct.close`, for an area that has this table.
    unsafe extern "C" fn close(vma: *mut bindings::vm_area_struct) {
        if T::HAS_CLOSE {
            // SAFETY: The kernel calls this with the mmap lock held, on an area with this table,
            // which holds its data until the end of this function.
            T::close(unsafe { Area::<T>::from_raw(vma) });
        }
        if T::Data::COUNTED {
            // SAFETY: The area is no longer reachable by anyone but the caller, who calls no hook
            // of it after this one.
            let data =
                unsafe { core::mem::replace(&mut (*vma).vm_private_data, core::ptr::null_mut()) };
            // SAFETY: The pointer is from `into_foreign`, in `install` or in `open`, and belongs to
            // this area alone. No `Area` of it is left.
            drop(unsafe { T::Data::from_foreign(data) });
        }
    }

    /// # Safety
    ///
    /// Called by the kernel as `vm_operations_struct.may_split`, for an area that has this table.
    unsafe extern "C" fn may_split(
        vma: *mut bindings::vm_area_struct,
        addr: ffi::c_ulong,
    ) -> ffi::c_int {
        // SAFETY: The kernel calls this with the mmap lock held, on an area with this table, which
        // holds its data.
        let area = unsafe { Area::<T>::from_raw(vma) };

        match T::may_split(area, addr) {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Called by the kernel as `vm_operations_struct.fault`, for an area that has this table.
    unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: The kernel calls this with a fault in an area with this table, which holds its
        // data, and with the lock held that the fault names.
        T::fault(unsafe { Fault::from_raw(vmf) }).into_raw()
    }
}
