// SPDX-License-Identifier: GPL-2.0-only

//! The nodes: open, mmap and the ioctls of `uapi/vmalab.h`.
//!
//! They cannot be read, written or sought: EINVAL, EINVAL, ESPIPE.
//!
//! # Two nodes
//!
//! The kernel has two generations of the mmap handler, a file has one of them, and they differ in what
//! a driver, and user space, can see. So there is a node for each:
//!
//! - `/dev/vmalab` has `.mmap`. It runs once for each new area, as the last thing that can fail, when the
//!   old areas there are gone; a range that only makes a neighbour longer does not call it.
//! - `/dev/vmalab-prepare` has `.mmap_prepare`. It runs for each call of mmap, before the kernel tries to
//!   merge, and must not change anything; `vm_operations.mapped` tells of the area, if there is a new
//!   one.
//!
//! All else is the same.

use crate::{
    area,
    misc,
    object::Object,
    page_cache::PageCache,
    stats,
    uapi::*,
    vm_ops::AreaDesc, //
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
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Arc,
        ArcBorrow, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};
use zerocopy::Immutable;

/// The mode of the nodes: they give nobody more than a memfd does.
const MODE: u16 = 0o666;

/// Whether the nodes can be opened, 1 or 0.
///
/// The kernel takes away a module whose `init` fails, users or not. With two nodes, the second may fail
/// to come into being when the first is there. So neither can be opened before both are. That is
/// enough: `misc_deregister` waits for an open that is under way, and that one fails.
static OPEN: Atomic<u32> = Atomic::new(0);

/// All nodes are there, and nothing of the module's `init` can fail any more.
pub(crate) fn allow_open() {
    OPEN.store(1, Release);
}

/// What all nodes do when they are opened.
fn open() -> Result<Arc<Object>> {
    if OPEN.load(Acquire) == 0 {
        return Err(ENXIO);
    }
    Object::new()
}

/// `/dev/vmalab`.
pub(crate) struct Node;

#[vtable]
impl misc::Device for Node {
    const NAME: &'static CStr = c"vmalab";
    const MODE: u16 = MODE;

    fn page_cache<'a>(object: &'a ArcBorrow<'_, Object>) -> &'a PageCache {
        object.cache()
    }
}

#[vtable]
impl MiscDevice for Node {
    type Ptr = Arc<Object>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Object>> {
        open()
    }

    fn mmap(object: ArcBorrow<'_, Object>, _file: &File, vma: &VmaNew) -> Result {
        area::mmap(object, vma);
        Ok(())
    }

    fn ioctl(object: ArcBorrow<'_, Object>, file: &File, cmd: u32, arg: usize) -> Result<isize> {
        ioctl(object, file, cmd, arg)
    }
}

/// `/dev/vmalab-prepare`.
pub(crate) struct PrepareNode;

#[vtable]
impl misc::Device for PrepareNode {
    const NAME: &'static CStr = c"vmalab-prepare";
    const MODE: u16 = MODE;

    fn page_cache<'a>(object: &'a ArcBorrow<'_, Object>) -> &'a PageCache {
        object.cache()
    }

    fn mmap_prepare<'a>(object: ArcBorrow<'a, Object>, desc: &mut AreaDesc<'a>) -> Result {
        area::mmap_prepare(object, desc);
        Ok(())
    }
}

#[vtable]
impl MiscDevice for PrepareNode {
    type Ptr = Arc<Object>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Object>> {
        open()
    }

    fn ioctl(object: ArcBorrow<'_, Object>, file: &File, cmd: u32, arg: usize) -> Result<isize> {
        ioctl(object, file, cmd, arg)
    }
}

/// The ioctls of both nodes. `compat_ioctl` is the same: the structures have the same layout for 32-bit
/// programs.
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
    } else if user.is(VMALAB_IOC_SET_HOOKS) {
        let hooks = user.read::<vmalab_hooks>()?;
        set_hooks(&object, file, &hooks)?;
    } else {
        return Err(ENOTTY);
    }
    Ok(0)
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
    check_writable(file)?;
    object.set_size(size)
}

/// What changes the object for all needs a descriptor that is open for writing.
fn check_writable(file: &File) -> Result {
    if file.flags() & flags::O_ACCMODE == flags::O_RDONLY {
        return Err(EBADF);
    }
    Ok(())
}

/// `VMALAB_IOC_SET_HOOKS`.
fn set_hooks(object: &Object, file: &File, hooks: &vmalab_hooks) -> Result {
    let page_mkwrite = u64::from(VMALAB_HOOK_PAGE_MKWRITE);

    if hooks.hooks & !page_mkwrite != 0 || hooks.reserved != 0 {
        return Err(EINVAL);
    }
    check_writable(file)?;
    object.track_writes(hooks.hooks & page_mkwrite != 0);
    Ok(())
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

impl Versioned for vmalab_stats {
    const FIRST: usize = core::mem::offset_of!(vmalab_stats, n_mapped);
}

// While there is one version of the others, the first is all of it.

impl Versioned for vmalab_size {
    const FIRST: usize = size_of::<Self>();
}

impl Versioned for vmalab_hooks {
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
