// SPDX-License-Identifier: GPL-2.0-only

//! The hooks that the kernel calls on a driver's areas: `vm_operations_struct`, in safe Rust.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)
//!
//! A driver says *what* happens at each hook by implementing [`VmOperations`], and takes an area over
//! in its mmap handler, with [`install`] in `.mmap`, with [`AreaDesc::install`] in `.mmap_prepare`.
//! Everything that is unsafe about it stays in this module, but for the promises that only a driver
//! can give, about frame numbers that have no page.
//!
//! The file that is mapped must keep its module loaded (`file_operations.owner`), as those that `misc.rs`
//! registers do: an area holds its file, and has no other hold on the functions in its table.
//!
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
//! # Both generations of the mmap handler
//!
//! A file has `.mmap` or `.mmap_prepare`, and its areas come into being in different ways
//! (`Documentation/filesystems/mmap_prepare.rst`):
//!
//! - `.mmap` runs once for each new area, and the area holds its data when it returns.
//! - `.mmap_prepare` runs for each call of mmap, before the kernel knows whether there will be a new
//!   area, and must not change anything. If there is one, the hook `mapped` tells of it, and it is
//!   there that the area gets its data.
//!
//! The kernel refuses a table with `mapped` from `.mmap`. So a table is for one of the two, which
//! [`VmOperations::PREPARED`] says. A driver with both has two implementors, which may be one generic
//! type.
//!
//! # What is left out
//!
//! `find_normal_page`, of which the kernel says that nobody new should use it, and `uffd_ops`, which
//! is not a hook but a table of its own.
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
mod desc;
mod fault;
mod flags;
mod huge_fault;
mod map_pages;
mod mkwrite;
mod other;

pub(crate) use self::{
    area::{index, install, Area, AreaData},
    desc::{AreaDesc, Mapped},
    fault::{Fault, FaultFlags, FaultInfo, VmFault},
    flags::AreaFlags,
    huge_fault::{HugeFault, HugeFaultAnswer},
    map_pages::{MapPages, MapPagesAnswer},
    mkwrite::{MkwriteAnswer, PageMkwrite, PfnMkwrite},
    other::{Access, Policy},
};

use core::{marker::PhantomData, ops::Range};
use kernel::{
    bindings,
    error::VTABLE_DEFAULT_ERROR,
    ffi,
    mm::virt::vm_flags_t,
    prelude::*,
    types::ForeignOwnable, //
};

/// What a driver does at each hook of its areas.
///
/// No hook has to be implemented. The kernel holds locks around each call:
///
/// | hook | called with | may sleep |
/// | --- | --- | --- |
/// | `open`, `may_split`, `mremap`, `mprotect`, `set_policy` | the mmap lock, for writing | yes |
/// | `mapped` | the mmap lock, for writing | yes |
/// | `close` | the mmap lock, for writing, or for reading if it is munmap that removes the area | yes |
/// | `fault`, `huge_fault` | the mmap lock, for reading; the lock of the area instead, if there is a `map_pages` (always possible in `huge_fault`) | yes |
/// | `page_mkwrite`, `pfn_mkwrite` | as `fault` | yes |
/// | `map_pages` | as `fault`, and RCU, for reading | **no** |
/// | `access` | the mmap lock, for reading | yes |
/// | `pagesize`, `name` | the mmap lock or the lock of the area, for reading, the latter with RCU | **no** |
/// | `get_policy` | the mmap lock or the lock of the area, for reading; perhaps the lock of a page table | **no** |
///
/// (For writing means the lock of the area, too, which the kernel takes before it changes it.) So a
/// hook must not take the mmap lock, and must not touch user memory, which may take it.
#[vtable]
pub(crate) trait VmOperations: HasTable + 'static {
    /// What each area holds: see [`AreaData`].
    type Data: AreaData;

    /// Whether the areas come from `.mmap_prepare`: see [the module](self).
    const PREPARED: bool = false;

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
    /// It runs once for each area that came through `.mmap`, `mapped` or `open`, also if `mapped` has
    /// failed.
    fn close(_area: &Area<Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// There is a new area, of which only `.mmap_prepare` was told before; not if the range made a
    /// neighbour longer. Only if [`PREPARED`](Self::PREPARED).
    ///
    /// An error removes the area again, by way of `close`, and is the result of mmap. What was mapped
    /// there before is gone in any case.
    fn mapped(_area: Mapped<'_, Self>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// An area is about to be split at `addr`: an error forbids it, and is the result of the
    /// operation that wanted the split.
    ///
    /// It may run without a split following, as other things can fail after it.
    fn may_split(_area: &Area<Self>, _addr: usize) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// An area has been moved by `mremap`: `area` is the one at the new place, and it has the pages
    /// already. It is a copy, for which `open` has run, or a neighbour that has become longer. The one at
    /// the old place goes with a `close`, or stays, if that was wanted (`MREMAP_DONTUNMAP`). Growing or shrinking in place does not come here.
    ///
    /// An error has the kernel move the pages back and remove the new area, and is the result.
    fn mremap(_area: &Area<Self>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The flags of the part `range` of the area are about to become `flags`: see
    /// [`kernel::mm::virt::flags`]. An error forbids it, and is the result of mprotect, for which the
    /// areas below are changed already.
    ///
    /// The area must not be changed, and is not split yet.
    fn mprotect(_area: &Area<Self>, _range: Range<usize>, _flags: vm_flags_t) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// A page is touched that the page table does not have: see [`Fault`].
    ///
    /// Without this hook every touch is SIGBUS.
    fn fault(_fault: Fault<'_, Self>) -> VmFault {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// As `fault`, before it, where an entry of the page table that stands for many pages would fit
    /// into the area; or such an entry is there, and written to for the first time.
    fn huge_fault(_fault: HugeFault<'_, Self>) -> HugeFaultAnswer {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// A page is read that the page table does not have: map what is at hand around it, without
    /// waiting for anything. If the page itself is not mapped by that, `fault` is called.
    ///
    /// An area that has this hook has its faults handled under the lock of the area alone: those of
    /// several threads do not wait for each other, nor for an mmap elsewhere.
    fn map_pages(_around: MapPages<'_, Self>) -> MapPagesAnswer {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The size of the pages in which the area is mapped, in bytes: a power of two. For
    /// `/proc/PID/smaps`, and for userfaultfd, which takes it for granted.
    fn pagesize(_area: &Area<Self>) -> usize {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// A page that is mapped for reading is about to be mapped for writing, in a shared area.
    ///
    /// An area that has this hook or `pfn_mkwrite` has each page mapped for reading only, until it is
    /// written to.
    fn page_mkwrite(_fault: PageMkwrite<'_, Self>) -> MkwriteAnswer {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// As `page_mkwrite`, for what was mapped by its frame number.
    fn pfn_mkwrite(_fault: PfnMkwrite<'_, Self>) -> MkwriteAnswer {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Another process, as a debugger, accesses bytes from `addr` on, and there are no pages that the
    /// kernel could copy from or to: it has asked `fault` before. Gives how many bytes were copied,
    /// which may be fewer than wanted; an error, or none, ends the access.
    fn access(_area: &Area<Self>, _addr: usize, _access: Access<'_>) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The name of the area in `/proc/PID/maps`. The kernel shows it only for an area without a file,
    /// but with a name, an area is in each core dump, whatever its flags.
    fn name(_area: &Area<Self>) -> Option<&CStr> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// `mbind` gives the area a memory policy, or takes it away: an error forbids it. The kernel keeps
    /// the policy in the area.
    ///
    /// The policy itself is not given: a module cannot hold one, as what gives it back
    /// (`__mpol_put`) is exported to KVM alone.
    #[cfg(CONFIG_NUMA)]
    fn set_policy(_area: &Area<Self>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Which memory policy holds for `addr`. Without this hook it is [`Policy::Area`].
    #[cfg(CONFIG_NUMA)]
    fn get_policy(_area: &Area<Self>, _addr: usize) -> Policy {
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
        /// The function, if the hook is implemented.
        macro_rules! hook {
            ($wanted:expr, $hook:ident) => {
                if $wanted {
                    Some(Self::$hook)
                } else {
                    None
                }
            };
        }
        // INVARIANT: Only functions of this type are put in.
        Self {
            raw: bindings::vm_operations_struct {
                open: hook!(counted || T::HAS_OPEN, open),
                close: hook!(counted || T::HAS_CLOSE, close),
                mapped: hook!(T::PREPARED && (counted || T::HAS_MAPPED), mapped),
                may_split: hook!(T::HAS_MAY_SPLIT, may_split),
                mremap: hook!(T::HAS_MREMAP, mremap),
                mprotect: hook!(T::HAS_MPROTECT, mprotect),
                fault: hook!(T::HAS_FAULT, fault),
                huge_fault: hook!(T::HAS_HUGE_FAULT, huge_fault),
                map_pages: hook!(T::HAS_MAP_PAGES, map_pages),
                pagesize: hook!(T::HAS_PAGESIZE, pagesize),
                page_mkwrite: hook!(T::HAS_PAGE_MKWRITE, page_mkwrite),
                pfn_mkwrite: hook!(T::HAS_PFN_MKWRITE, pfn_mkwrite),
                access: hook!(T::HAS_ACCESS, access),
                name: hook!(T::HAS_NAME, name),
                #[cfg(CONFIG_NUMA)]
                set_policy: hook!(T::HAS_SET_POLICY, set_policy),
                #[cfg(CONFIG_NUMA)]
                get_policy: hook!(T::HAS_GET_POLICY, get_policy),
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
        T::fault(unsafe { Fault::from_raw(vmf) }).bits()
    }

    /// # Safety
    ///
    /// Called by the kernel as `vm_operations_struct.mapped`, for an area that has this table.
    unsafe extern "C" fn mapped(
        start: ffi::c_ulong,
        end: ffi::c_ulong,
        pgoff: ffi::c_ulong,
        _file: *const bindings::file,
        private_data: *mut *mut ffi::c_void,
    ) -> ffi::c_int {
        // SAFETY: The kernel passes a copy of the new area's `vm_private_data`. It is what
        // `AreaDesc::install` has put there, which lives until mmap is done.
        let (data, foreign) = unsafe {
            let foreign = *private_data;
            (<T::Data as ForeignOwnable>::borrow(foreign), foreign)
        };

        if T::Data::COUNTED {
            // The reference that the area has from here on. The pointer to it is the one that the
            // area has already, by the contract of `duplicate`; so it need not be stored, and does
            // belong to the area if the kernel removes it after an error.
            let own = T::Data::duplicate(data).into_foreign();
            debug_assert!(core::ptr::eq(own, foreign));
        }
        if T::HAS_MAPPED {
            // SAFETY: As above; by now the area holds the data itself.
            let data = unsafe { <T::Data as ForeignOwnable>::borrow(foreign) };
            match T::mapped(Mapped::new(start..end, pgoff, data)) {
                Ok(()) => 0,
                Err(error) => error.to_errno(),
            }
        } else {
            0
        }
    }

    /// # Safety
    ///
    /// Called by the kernel as `vm_operations_struct.mremap`, for an area that has this table.
    unsafe extern "C" fn mremap(vma: *mut bindings::vm_area_struct) -> ffi::c_int {
        // SAFETY: The kernel calls this with the mmap lock held, on an area with this table, which
        // holds its data.
        let area = unsafe { Area::<T>::from_raw(vma) };

        match T::mremap(area) {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Called by the kernel as `vm_operations_struct.mprotect`, for an area that has this table.
    unsafe extern "C" fn mprotect(
        vma: *mut bindings::vm_area_struct,
        start: ffi::c_ulong,
        end: ffi::c_ulong,
        flags: ffi::c_ulong,
    ) -> ffi::c_int {
        // SAFETY: The kernel calls this with the mmap lock held, on an area with this table, which
        // holds its data.
        let area = unsafe { Area::<T>::from_raw(vma) };

        match T::mprotect(area, start..end, flags) {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Called by the kernel as `vm_operations_struct.huge_fault`, for an area that has this table.
    unsafe extern "C" fn huge_fault(
        vmf: *mut bindings::vm_fault,
        order: ffi::c_uint,
    ) -> bindings::vm_fault_t {
        // SAFETY: The kernel calls this with a fault in an area with this table, which holds its
        // data, and with the lock held that the fault names.
        let fault = unsafe { HugeFault::from_raw(vmf, order) };
        T::huge_fault(fault).bits()
    }

    /// # Safety
    ///
    /// Called by the kernel as `vm_operations_struct.map_pages`, for an area that has this table.
    unsafe extern "C" fn map_pages(
        vmf: *mut bindings::vm_fault,
        first: ffi::c_ulong,
        last: ffi::c_ulong,
    ) -> bindings::vm_fault_t {
        // SAFETY: The kernel calls this with a fault in an area with this table, which holds its
        // data, and with the lock held that the fault names.
        let around = unsafe { MapPages::from_raw(vmf, first, last) };
        T::map_pages(around).bits()
    }

    /// # Safety
    ///
    /// Called by the kernel as `vm_operations_struct.pagesize`, for an area that has this table.
    unsafe extern "C" fn pagesize(vma: *mut bindings::vm_area_struct) -> ffi::c_ulong {
        // SAFETY: The kernel calls this with the mmap lock or the area's own held, on an area with this
        // table, which holds its data.
        T::pagesize(unsafe { Area::<T>::from_raw(vma) })
    }

    /// # Safety
    ///
    /// Called by the kernel as `vm_operations_struct.page_mkwrite`, for an area that has this table.
    unsafe extern "C" fn page_mkwrite(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: The kernel calls this with a fault in an area with this table, which holds its
        // data, and with the lock held that the fault names.
        T::page_mkwrite(unsafe { PageMkwrite::from_raw(vmf) }).bits()
    }

    /// # Safety
    ///
    /// Called by the kernel as `vm_operations_struct.pfn_mkwrite`, for an area that has this table.
    unsafe extern "C" fn pfn_mkwrite(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: The kernel calls this with a fault in an area with this table, which holds its
        // data, and with the lock held that the fault names.
        T::pfn_mkwrite(unsafe { PfnMkwrite::from_raw(vmf) }).bits()
    }

    /// # Safety
    ///
    /// Called by the kernel as `vm_operations_struct.access`, for an area that has this table.
    unsafe extern "C" fn access(
        vma: *mut bindings::vm_area_struct,
        addr: ffi::c_ulong,
        buf: *mut ffi::c_void,
        len: ffi::c_int,
        write: ffi::c_int,
    ) -> ffi::c_int {
        // SAFETY: The kernel calls this with the mmap lock held, on an area with this table, which
        // holds its data.
        let area = unsafe { Area::<T>::from_raw(vma) };
        // SAFETY: The buffer is the kernel's own, and for this call: `len` bytes to be read if it is a
        // write, else to be written.
        let access = unsafe { Access::from_raw(buf, len, write) };

        match T::access(area, addr, access) {
            // More than was wanted cannot have been copied; it would be a bug that must not have
            // the kernel go past its buffer.
            Ok(copied) => copied.min(len as usize) as ffi::c_int,
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Called by the kernel as `vm_operations_struct.name`, for an area that has this table.
    unsafe extern "C" fn name(vma: *mut bindings::vm_area_struct) -> *const ffi::c_char {
        // SAFETY: The kernel calls this with the mmap lock or the area's own held, on an area with this
        // table, which holds its data. It looks at the name under the same lock.
        let area = unsafe { Area::<T>::from_raw(vma) };

        T::name(area).map_or(core::ptr::null(), |name| name.as_char_ptr())
    }

    /// # Safety
    ///
    /// Called by the kernel as `vm_operations_struct.set_policy`, for an area that has this table.
    #[cfg(CONFIG_NUMA)]
    unsafe extern "C" fn set_policy(
        vma: *mut bindings::vm_area_struct,
        _new: *mut bindings::mempolicy,
    ) -> ffi::c_int {
        // SAFETY: The kernel calls this with the mmap lock held, on an area with this table, which
        // holds its data.
        let area = unsafe { Area::<T>::from_raw(vma) };

        match T::set_policy(area) {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Called by the kernel as `vm_operations_struct.get_policy`, for an area that has this table.
    #[cfg(CONFIG_NUMA)]
    unsafe extern "C" fn get_policy(
        vma: *mut bindings::vm_area_struct,
        addr: ffi::c_ulong,
        _ilx: *mut ffi::c_ulong,
    ) -> *mut bindings::mempolicy {
        // SAFETY: The kernel calls this with the mmap lock or the area's own held, on an area with this
        // table, which holds its data.
        let area = unsafe { Area::<T>::from_raw(vma) };

        match T::get_policy(area, addr) {
            Policy::Area => area.policy(),
            Policy::Task => core::ptr::null_mut(),
        }
    }
}
