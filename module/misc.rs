// SPDX-License-Identifier: GPL-2.0-only

//! Misc devices that keep their module loaded, and whose files map a page cache of their own.
//!
//! C header: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h)
//!
//! [`kernel::miscdevice`] makes the `file_operations` of a device, and these things are missing there:
//!
//! - It sets no `owner`. So nothing keeps the module loaded while a file is open or mapped, and the
//!   first call after `rmmod` jumps into memory that is gone.
//! - A driver cannot point `f_mapping` to a page cache of its own: see `page_cache.rs`.
//! - There is no `mmap_prepare`.
//! - There is no `fsync`, without which msync of a shared area is refused.
//! - There is no `llseek`, and no splicing. A device that can be read or written has a position here, in
//!   what it maps, and `sendfile` works on it.
//! - There is no `get_unmapped_area`: a mapping begins where it may, not where huge pages fit.
//!
//! This registers a copy of the table that has all of them. Everything else is left to the kernel crate;
//! with an `owner` there, the first half of this file can go.

use crate::{helpers, page_cache::PageCache, vm_ops::AreaDesc, THIS_MODULE};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    bindings,
    error::{from_err_ptr, to_result, VTABLE_DEFAULT_ERROR},
    ffi,
    fs::{File, Kiocb},
    miscdevice::{MiscDevice, MiscDeviceOptions},
    prelude::*,
    sync::aref::ARef,
    types::{ForeignOwnable, Opaque},
};

/// A misc device each of whose files has its own page cache.
#[vtable]
pub(crate) trait Device: MiscDevice {
    /// How the node is called.
    const NAME: &'static CStr;

    /// The permission bits of the node.
    const MODE: u16;

    /// The page cache that a file maps, which is a part of its private data.
    fn page_cache<'a>(this: &'a <Self::Ptr as ForeignOwnable>::Borrowed<'_>) -> &'a PageCache;

    /// Whether a mapping that is to be anywhere begins where huge pages fit, if it is long enough for one.
    const HUGE_PAGES: bool = false;

    /// The newer generation of the mmap handler, for a device that has no [`MiscDevice::mmap`]: see
    /// `vm_ops.rs`. It is called with the mmap lock held, for writing, must change nothing but `desc`,
    /// and an error is the result of mmap.
    fn mmap_prepare<'a>(
        _this: <Self::Ptr as ForeignOwnable>::Borrowed<'a>,
        _desc: &mut AreaDesc<'a>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// Whether a write is to go to the end, wherever the position is: `O_APPEND`, `RWF_APPEND`.
#[allow(dead_code, reason = "a driver uses the part of this that it needs")]
pub(crate) fn appends<T: ForeignOwnable>(kiocb: &Kiocb<'_, T>) -> bool {
    // SAFETY: A `Kiocb` is a valid `struct kiocb`.
    unsafe { helpers::vmalab_kiocb_append(kiocb.as_raw()) }
}

/// Opens what `file` is of once more, without looking at the rights of the task again: it is up to the
/// caller that `flags` (of `open(2)`) give no access that `file` does not have.
///
/// # Errors
///
/// Those of `open(2)`.
#[allow(dead_code, reason = "a driver uses the part of this that it needs")]
pub(crate) fn open_again(file: &File, flags: u32) -> Result<ARef<File>> {
    // SAFETY: A `File` is a valid `struct file` that was opened.
    let raw = from_err_ptr(unsafe { helpers::vmalab_open_again(file.as_ptr(), flags) })?;
    let raw = NonNull::new(raw).ok_or(ENFILE)?;
    // SAFETY: The file is new and comes with a reference. No task has a descriptor of it yet, hence none
    // is in the middle of using its position.
    Ok(unsafe { ARef::from_raw(raw.cast::<File>()) })
}

/// What is registered for a device: the tables of the kernel crate, and what they lack.
struct Tables<T>(PhantomData<T>);

impl<T: Device> Tables<T> {
    /// What the kernel crate would register.
    const GENERATED: bindings::miscdevice = MiscDeviceOptions { name: T::NAME }.into_raw::<T>();

    /// Its table.
    const GENERATED_FOPS: bindings::file_operations = {
        // SAFETY: `into_raw` points `fops` to a constant.
        unsafe { *Self::GENERATED.fops }
    };

    /// Our copy of the table.
    const FOPS: bindings::file_operations = bindings::file_operations {
        owner: THIS_MODULE.as_ptr(),
        open: Some(Self::open),
        mmap_prepare: if T::HAS_MMAP_PREPARE {
            assert!(!T::HAS_MMAP, "the kernel refuses a file with both");
            Some(Self::mmap_prepare)
        } else {
            None
        },
        // Memory has nothing behind it that would have to be brought up to date.
        fsync: Some(bindings::noop_fsync),
        // It asks `f_mapping` for the size.
        llseek: if T::HAS_READ_ITER || T::HAS_WRITE_ITER {
            Some(bindings::generic_file_llseek)
        } else {
            None
        },
        splice_read: if T::HAS_READ_ITER {
            Some(bindings::copy_splice_read)
        } else {
            None
        },
        splice_write: if T::HAS_WRITE_ITER {
            Some(bindings::iter_file_splice_write)
        } else {
            None
        },
        // The function itself, since the kernel knows it: several areas of a file with another one are not
        // moved at once (`vma_multi_allowed`).
        #[cfg(CONFIG_TRANSPARENT_HUGEPAGE)]
        get_unmapped_area: if T::HUGE_PAGES {
            Some(bindings::thp_get_unmapped_area)
        } else {
            None
        },
        ..Self::GENERATED_FOPS
    };

    /// What is registered.
    const MISC: bindings::miscdevice = bindings::miscdevice {
        fops: &Self::FOPS,
        mode: T::MODE,
        ..Self::GENERATED
    };

    /// # Safety
    ///
    /// Called by the kernel as `file_operations.open`, for the device that was registered with this
    /// table.
    unsafe extern "C" fn open(
        inode: *mut bindings::inode,
        file: *mut bindings::file,
    ) -> ffi::c_int {
        let Some(open) = Self::GENERATED_FOPS.open else {
            return ENXIO.to_errno();
        };
        // SAFETY: The promise of our caller. The generated function takes the `miscdevice` in
        // `private_data` for a `MiscDeviceRegistration<T>`, which is the same by its layout, and ours
        // is registered and pinned, too.
        let result = unsafe { open(inode, file) };
        if result != 0 {
            return result;
        }

        // SAFETY: On success the generated function has stored the private data of the file, which
        // lives until `release`.
        let this = unsafe { <T::Ptr as ForeignOwnable>::borrow((*file).private_data) };
        let mapping = T::page_cache(&this).as_ptr();
        // SAFETY: A file that is being opened belongs to us alone. The cache is a part of the private
        // data: it lives until `release`, after which the kernel does not use `f_mapping`.
        unsafe { (*file).f_mapping = mapping };
        // Two threads that read or write one after the other at the position of the file do not get the
        // same bytes: the kernel takes the lock of the position, as it does for regular files.
        //
        // SAFETY: As above.
        unsafe { helpers::vmalab_file_atomic_pos(file) };
        0
    }

    /// # Safety
    ///
    /// Called by the kernel as `file_operations.mmap_prepare`, for a file of the device that was
    /// registered with this table.
    unsafe extern "C" fn mmap_prepare(desc: *mut bindings::vm_area_desc) -> ffi::c_int {
        // SAFETY: The kernel passes a valid description. Its file is ours, so that the private data is
        // what the generated `open` has stored; it is never borrowed mutably. Both live until mmap is
        // done, which is longer than 'a is used for: the caller of mmap holds the file.
        let (this, mut desc) = unsafe {
            (
                <T::Ptr as ForeignOwnable>::borrow((*(*desc).file).private_data),
                AreaDesc::from_raw(desc),
            )
        };
        match T::mmap_prepare(this, &mut desc) {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }
}

/// A misc device, registered as long as this lives.
///
/// As soon as the node is there it can be opened, and a module whose `init` fails after that goes away in
/// spite of its users. So make it the last thing that `init` does, or have `open` fail until then.
///
/// # Invariants
///
/// `misc` is registered.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: Device> {
    #[pin]
    misc: Opaque<bindings::miscdevice>,
    _device: PhantomData<T>,
}

// SAFETY: A device may be deregistered by another thread than the one that registered it.
unsafe impl<T: Device> Send for Registration<T> {}
// SAFETY: There is nothing that can be done through a shared reference.
unsafe impl<T: Device> Sync for Registration<T> {}

impl<T: Device> Registration<T> {
    /// Registers the device.
    pub(crate) fn register() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            misc <- Opaque::try_ffi_init(|slot: *mut bindings::miscdevice| {
                // SAFETY: `slot` is there to be written to.
                unsafe { slot.write(Tables::<T>::MISC) };
                // SAFETY: `slot` was just filled in. It is pinned, and deregistered before it goes.
                // INVARIANT: That it is registered now.
                to_result(unsafe { bindings::misc_register(slot) })
            }),
            _device: PhantomData,
        })
    }
}

#[pinned_drop]
impl<T: Device> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants, it is registered.
        unsafe { bindings::misc_deregister(self.misc.get()) };
    }
}
