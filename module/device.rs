// SPDX-License-Identifier: GPL-2.0-only

//! `/dev/vmalab`: open, mmap and the ioctls of `uapi/vmalab.h`.
//!
//! The node cannot be read, written or sought: EINVAL, EINVAL, ESPIPE.
//!
//! # Why `.mmap` and not `.mmap_prepare`
//!
//! The kernel has two generations of the handler, and a file has one of them. `.mmap` runs once for
//! each new area, as the last thing that can fail; a range that only makes a neighbour longer does
//! not call it. So it is the place to count areas, and the kernel crate's `miscdevice` has it.
//! `.mmap_prepare` runs for each call of mmap, before the kernel knows whether there will be a new
//! area, and must not change anything; `vm_operations.mapped` tells of the area then.

use crate::{
    area,
    misc,
    object::Object,
    page_cache::PageCache,
    stats,
    uapi::*, //
};
use kernel::{
    fs::{
        file::flags,
        File, //
    },
    ioctl::{
        _IOC_DIR,
        _IOC_NR,
        _IOC_SIZE,
        _IOC_TYPE, //
    },
    miscdevice::{
        MiscDevice,
        MiscDeviceRegistration, //
    },
    mm::virt::VmaNew,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};
use zerocopy::Immutable;

/// The node.
pub(crate) struct Node;

impl misc::Device for Node {
    const NAME: &'static CStr = c"vmalab";

    // It gives nobody more than a memfd does.
    const MODE: u16 = 0o666;

    fn page_cache<'a>(object: &'a ArcBorrow<'_, Object>) -> &'a PageCache {
        object.cache()
    }
}

#[vtable]
impl MiscDevice for Node {
    type Ptr = Arc<Object>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Object>> {
        Object::new()
    }

    fn mmap(object: ArcBorrow<'_, Object>, _file: &File, vma: &VmaNew) -> Result {
        area::mmap(object, vma);
        Ok(())
    }

    /// `compat_ioctl` is the same: the structures have the same layout for 32-bit programs.
    fn ioctl(object: ArcBorrow<'_, Object>, file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let user = Argument { cmd, arg };

        if user.is(VMALAB_IOC_STATS) {
            let mut stats = user.read::<vmalab_stats>()?;
            get_stats(&object, &mut stats)?;
            user.write(&stats)?;
        } else if user.is(VMALAB_IOC_GET_SIZE) {
            let mut size = user.read::<vmalab_size>()?;
            size.check()?;
            size.size = object.size();
            user.write(&size)?;
        } else if user.is(VMALAB_IOC_SET_SIZE) {
            let size = user.read::<vmalab_size>()?;
            size.check()?;
            set_size(&object, file, size.size)?;
        } else {
            return Err(ENOTTY);
        }
        Ok(0)
    }
}

/// `VMALAB_IOC_STATS`.
fn get_stats(object: &Object, stats: &mut vmalab_stats) -> Result {
    if stats.reserved != 0 {
        return Err(EINVAL);
    }
    match stats.scope {
        VMALAB_SCOPE_OBJECT => object.stats().read_into(stats),
        VMALAB_SCOPE_MODULE => stats::MODULE.read_into(stats),
        _ => return Err(EINVAL),
    }
    Ok(())
}

/// `VMALAB_IOC_SET_SIZE`.
fn set_size(object: &Object, file: &File, size: u64) -> Result {
    if file.flags() & flags::O_ACCMODE == flags::O_RDONLY {
        return Err(EBADF);
    }
    object.set_size(size)
}

impl vmalab_size {
    /// There are no flags yet.
    fn check(&self) -> Result {
        if self.flags != 0 || self.reserved != 0 {
            return Err(EINVAL);
        }
        Ok(())
    }
}

/// A structure of which there may be longer versions than this module knows, and older, shorter ones.
trait Versioned: FromBytes + IntoBytes + Immutable {
    /// The size of the first version, in bytes.
    const FIRST: usize;
}

// While there is one version of each, the first is all of it.
impl Versioned for vmalab_stats {
    const FIRST: usize = size_of::<Self>();
}

impl Versioned for vmalab_size {
    const FIRST: usize = size_of::<Self>();
}

/// The argument of an ioctl: a pointer to a structure, and in the number the size that the caller
/// knows it with.
struct Argument {
    cmd: u32,
    arg: usize,
}

impl Argument {
    /// Whether the request is `cmd`, in whatever version of its structure.
    fn is(&self, cmd: u32) -> bool {
        let parts = |cmd| (_IOC_TYPE(cmd), _IOC_NR(cmd), _IOC_DIR(cmd));
        parts(self.cmd) == parts(cmd)
    }

    fn user(&self) -> UserSlice {
        UserSlice::new(UserPtr::from_addr(self.arg), _IOC_SIZE(self.cmd))
    }

    /// Reads the structure. What an older caller does not have is zero; what a newer one has besides
    /// must be zero.
    ///
    /// As the kernel's `copy_struct_from_user`.
    ///
    /// # Errors
    ///
    /// EINVAL if it is shorter than the first version, EFAULT, E2BIG.
    fn read<T: Versioned>(&self) -> Result<T> {
        let size = _IOC_SIZE(self.cmd);
        if size < T::FIRST {
            return Err(EINVAL);
        }
        let mut reader = self.user().reader();
        let mut value = T::new_zeroed();
        reader.read_slice(&mut value.as_mut_bytes()[..size.min(size_of::<T>())])?;

        let mut rest = [0; 64];
        while !reader.is_empty() {
            let part = &mut rest[..reader.len().min(64)];
            reader.read_slice(part)?;
            if part.iter().any(|&byte| byte != 0) {
                return Err(E2BIG);
            }
        }
        Ok(value)
    }

    /// Writes the structure back, or as much of it as the caller knows. What a newer caller has
    /// besides is zero already.
    fn write<T: Versioned>(&self, value: &T) -> Result {
        let size = _IOC_SIZE(self.cmd).min(size_of::<T>());
        self.user().writer().write_slice(&value.as_bytes()[..size])
    }
}
