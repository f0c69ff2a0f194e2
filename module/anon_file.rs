// SPDX-License-Identifier: GPL-2.0-only

//! Files without a node, for what an ioctl gives back as a new descriptor: `anon_inode_getfile`.
//!
//! C header: [`include/linux/anon_inodes.h`](srctree/include/linux/anon_inodes.h)
//!
//! Such a file keeps its module loaded, as the kernel takes a reference to the `owner` of its table
//! when the file is made, and gives it back after `release`.

use crate::{helpers, THIS_MODULE};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    bindings,
    error::{from_err_ptr, from_result},
    ffi,
    fs::File,
    mm::virt::VmaNew,
    prelude::*,
    sync::{aref::ARef, poll::PollTable},
    types::ForeignOwnable,
    uaccess::{UserPtr, UserSlice, UserSliceWriter},
};

/// What a file of this kind does. All of it may be called by several tasks at once, which may sleep.
///
/// The file holds it, and drops it when it is closed for the last time.
pub(crate) trait AnonFile: Sized + Send + Sync + 'static {
    /// The name in `/proc/PID/fd`, where it has `anon_inode:` before it.
    const NAME: &'static CStr;

    /// `read(2)`: says how many bytes were written to `to`. The position is not used.
    fn read(&self, file: &File, to: UserSliceWriter) -> Result<usize>;

    /// `poll(2)`: registers with what will tell of a change, and says what holds already, as a mask of
    /// `POLL*`.
    fn poll(&self, file: &File, table: PollTable<'_>) -> u32;

    /// `mmap(2)`, with the mmap lock held for writing.
    fn mmap(&self, vma: &VmaNew) -> Result;

    /// `ioctl(2)`, for programs of both widths.
    fn ioctl(&self, cmd: u32, arg: usize) -> Result<isize>;
}

/// Makes a file that holds `this`. `flags` are those of `open(2)`: the access mode, O_NONBLOCK.
///
/// # Errors
///
/// ENFILE, ENOMEM; ENOENT if the module is about to be removed.
pub(crate) fn create<T: AnonFile>(this: KBox<T>, flags: u32) -> Result<ARef<File>> {
    let this = this.into_foreign();
    // SAFETY: The name is a string and the table a constant. A file of a module that is going away is
    // not made.
    let raw = from_err_ptr(unsafe {
        helpers::vmalab_anon_inode_getfile(
            T::NAME.as_char_ptr(),
            &Functions::<T>::TABLE,
            this,
            flags as ffi::c_int,
        )
    });
    let file = raw.and_then(|raw| NonNull::new(raw).ok_or(ENOMEM));
    match file {
        // SAFETY: The file is new, and its reference ours. Nobody can have begun to use its position.
        Ok(file) => Ok(unsafe { ARef::from_raw(file.cast()) }),
        Err(error) => {
            // SAFETY: There is no file, so that the pointer is still ours alone.
            drop(unsafe { KBox::<T>::from_foreign(this) });
            Err(error)
        }
    }
}

/// The table of `T`'s files.
struct Functions<T>(PhantomData<T>);

impl<T: AnonFile> Functions<T> {
    const TABLE: bindings::file_operations = bindings::file_operations {
        owner: THIS_MODULE.as_ptr(),
        release: Some(Self::release),
        read: Some(Self::read),
        poll: Some(Self::poll),
        mmap: Some(Self::mmap),
        unlocked_ioctl: Some(Self::ioctl),
        // The structures of both widths are the same; the pointer is widened by the kernel.
        #[cfg(CONFIG_COMPAT)]
        compat_ioctl: bindings::compat_ptr_ioctl,
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `file` is one of [`create::<T>`](create), and not released for 'a.
    unsafe fn this<'a>(file: *mut bindings::file) -> &'a T {
        // SAFETY: The caller's promise: it is what `create` has stored. It is never borrowed mutably.
        unsafe { KBox::<T>::borrow((*file).private_data) }
    }

    /// # Safety
    ///
    /// Called by the kernel as `file_operations.release` for a file of [`create::<T>`](create).
    unsafe extern "C" fn release(
        _inode: *mut bindings::inode,
        file: *mut bindings::file,
    ) -> ffi::c_int {
        // SAFETY: As in `this`; it is the last that the kernel calls for the file.
        drop(unsafe { KBox::<T>::from_foreign((*file).private_data) });
        0
    }

    /// # Safety
    ///
    /// Called by the kernel as `file_operations.read` for a file of [`create::<T>`](create).
    unsafe extern "C" fn read(
        file: *mut bindings::file,
        to: *mut ffi::c_char,
        length: usize,
        _position: *mut bindings::loff_t,
    ) -> isize {
        let to = UserSlice::new(UserPtr::from_ptr(to.cast()), length).writer();
        // SAFETY: The file is open while it is read, and nobody uses its position.
        let (this, file) = unsafe { (Self::this(file), File::from_raw_file(file)) };
        from_result(|| Ok(this.read(file, to)? as isize))
    }

    /// # Safety
    ///
    /// Called by the kernel as `file_operations.poll` for a file of [`create::<T>`](create).
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table,
    ) -> bindings::__poll_t {
        // SAFETY: The file is open while it is polled, nobody uses its position, and the table is NULL
        // or valid during the call.
        let (this, file, table) = unsafe {
            (
                Self::this(file),
                File::from_raw_file(file),
                PollTable::from_raw(table),
            )
        };
        this.poll(file, table)
    }

    /// # Safety
    ///
    /// Called by the kernel as `file_operations.mmap` for a file of [`create::<T>`](create).
    unsafe extern "C" fn mmap(
        file: *mut bindings::file,
        vma: *mut bindings::vm_area_struct,
    ) -> ffi::c_int {
        // SAFETY: The file is open while it is mapped, and the area is in the making.
        let (this, vma) = unsafe { (Self::this(file), VmaNew::from_raw(vma)) };
        from_result(|| this.mmap(vma).map(|()| 0))
    }

    /// # Safety
    ///
    /// Called by the kernel as `file_operations.unlocked_ioctl` for a file of
    /// [`create::<T>`](create).
    unsafe extern "C" fn ioctl(
        file: *mut bindings::file,
        cmd: ffi::c_uint,
        arg: ffi::c_ulong,
    ) -> ffi::c_long {
        // SAFETY: The file is open during the call.
        let this = unsafe { Self::this(file) };
        from_result(|| this.ioctl(cmd, arg))
    }
}
