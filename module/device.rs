// SPDX-License-Identifier: GPL-2.0-only

//! The nodes: open and mmap. The ioctls are in `ioctl.rs`.
//!
//! They can also be read and written, as a block device can: a file has a position, there is nothing
//! past the end, and writing does not move it.
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
    ioctl::ioctl,
    misc,
    object::Object,
    objects,
    page_cache::PageCache,
    vm_ops::AreaDesc, //
};
use kernel::{
    fs::{
        File,
        Kiocb, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    miscdevice::{
        MiscDevice,
        MiscDeviceRegistration, //
    },
    mm::virt::VmaNew,
    prelude::*,
    seq_file::SeqFile,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Arc,
        ArcBorrow, //
    },
    types::ForeignOwnable,
};

/// The mode of the nodes. They give everybody what a memfd gives, and memory that is never swapped, of which
/// there is no more than `max_pages`.
const MODE: u16 = 0o666;

/// Whether the nodes can be opened, 1 or 0.
///
/// The kernel takes away a module whose `init` fails, users or not. With two nodes, the second may fail
/// to come into being when the first is there. So neither can be opened before both are:
/// `misc_deregister` waits for an open that is under way, and that one fails.
///
/// What is left is the kernel's: after such a failure, the opener still looks up in our table which module
/// to let go of (`do_dentry_open`), and does not hold off the end of one whose `init` has failed. Nothing
/// that a driver does can close that gap of some instructions.
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
    objects::open()
}

/// `/dev/vmalab`.
pub(crate) struct Node;

#[vtable]
impl misc::Device for Node {
    const NAME: &'static CStr = c"vmalab";
    const MODE: u16 = MODE;
    const HUGE_PAGES: bool = true;

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
        area::mmap(object, vma)
    }

    fn release(object: Arc<Object>, _file: &File) {
        objects::close(&object);
    }

    fn show_fdinfo(object: ArcBorrow<'_, Object>, out: &SeqFile, _file: &File) {
        objects::show_fdinfo(&object, out);
    }

    fn read_iter(kiocb: Kiocb<'_, Arc<Object>>, to: &mut IovIterDest<'_>) -> Result<usize> {
        read(kiocb, to)
    }

    fn write_iter(kiocb: Kiocb<'_, Arc<Object>>, from: &mut IovIterSource<'_>) -> Result<usize> {
        write(kiocb, from)
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
    const HUGE_PAGES: bool = true;

    fn page_cache<'a>(object: &'a ArcBorrow<'_, Object>) -> &'a PageCache {
        object.cache()
    }

    fn mmap_prepare<'a>(object: ArcBorrow<'a, Object>, desc: &mut AreaDesc<'a>) -> Result {
        area::mmap_prepare(object, desc)
    }
}

#[vtable]
impl MiscDevice for PrepareNode {
    type Ptr = Arc<Object>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Object>> {
        open()
    }

    fn release(object: Arc<Object>, _file: &File) {
        objects::close(&object);
    }

    fn show_fdinfo(object: ArcBorrow<'_, Object>, out: &SeqFile, _file: &File) {
        objects::show_fdinfo(&object, out);
    }

    fn read_iter(kiocb: Kiocb<'_, Arc<Object>>, to: &mut IovIterDest<'_>) -> Result<usize> {
        read(kiocb, to)
    }

    fn write_iter(kiocb: Kiocb<'_, Arc<Object>>, from: &mut IovIterSource<'_>) -> Result<usize> {
        write(kiocb, from)
    }

    fn ioctl(object: ArcBorrow<'_, Object>, file: &File, cmd: u32, arg: usize) -> Result<isize> {
        ioctl(object, file, cmd, arg)
    }
}

/// What reads from both nodes do.
fn read(mut kiocb: Kiocb<'_, Arc<Object>>, to: &mut IovIterDest<'_>) -> Result<usize> {
    let done = kiocb.file().read(position(&kiocb)?, to)?;
    *kiocb.ki_pos_mut() += done as i64;
    Ok(done)
}

/// What writes to both nodes do.
fn write(mut kiocb: Kiocb<'_, Arc<Object>>, from: &mut IovIterSource<'_>) -> Result<usize> {
    if misc::appends(&kiocb) {
        // There is no space after the end, so that it does not matter that it may move.
        *kiocb.ki_pos_mut() = kiocb.file().size() as i64;
    }
    let done = kiocb.file().write(position(&kiocb)?, from)?;
    *kiocb.ki_pos_mut() += done as i64;
    Ok(done)
}

/// Where to read or write, in bytes.
fn position<T: ForeignOwnable>(kiocb: &Kiocb<'_, T>) -> Result<u64> {
    u64::try_from(kiocb.ki_pos()).map_err(|_| EINVAL)
}
