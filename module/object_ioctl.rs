// SPDX-License-Identifier: GPL-2.0-only

//! The ioctls about a single object: holes, seals, which pages were written, and its name.

use crate::{
    ioctl::{
        check_writable,
        Argument,
        Versioned, //
    },
    object::Object,
    objects::{self, Name},
    uapi::*,
};
use core::ops::Range;
use kernel::{
    bindings,
    fs::{
        file::flags,
        File, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::ArcBorrow,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};

impl Versioned for vmalab_fallocate {}
impl Versioned for vmalab_seals {}
impl Versioned for vmalab_written {}
impl Versioned for vmalab_name {}

/// `VMALAB_IOC_FALLOCATE`. Checks come in the order of `vfs_fallocate`.
pub(crate) fn fallocate(
    object: ArcBorrow<'_, Object>,
    file: &File,
    argument: &Argument,
) -> Result<isize> {
    let wanted = argument.read::<vmalab_fallocate>()?;
    if wanted.length == 0 || wanted.reserved != 0 {
        return Err(EINVAL);
    }
    let end = wanted.offset.checked_add(wanted.length).ok_or(EFBIG)?;
    let range = wanted.offset..end;
    match wanted.mode {
        VMALAB_FALLOCATE_ALLOCATE | VMALAB_FALLOCATE_KEEP_SIZE => {
            check_writable(file)?;
            object.allocate(range, wanted.mode == VMALAB_FALLOCATE_ALLOCATE)?;
        }
        VMALAB_FALLOCATE_PUNCH_HOLE => {
            check_writable(file)?;
            object.punch_hole(range)?;
        }
        _ => return Err(Error::from_errno(-(bindings::EOPNOTSUPP as i32))),
    }
    Ok(0)
}

/// `VMALAB_IOC_ADD_SEALS`.
pub(crate) fn add_seals(
    object: ArcBorrow<'_, Object>,
    file: &File,
    argument: &Argument,
) -> Result<isize> {
    const ALL: u32 = VMALAB_SEAL_SEAL
        | VMALAB_SEAL_SHRINK
        | VMALAB_SEAL_GROW
        | VMALAB_SEAL_WRITE
        | VMALAB_SEAL_FUTURE_WRITE;

    let wanted = argument.read::<vmalab_seals>()?;
    if wanted.seals & !ALL != 0 || wanted.reserved != 0 {
        return Err(EINVAL);
    }
    // As with a memfd, it is not EBADF.
    check_writable(file).map_err(|_| EPERM)?;
    object.add_seals(wanted.seals)?;
    Ok(0)
}

/// `VMALAB_IOC_GET_SEALS`.
pub(crate) fn get_seals(
    object: ArcBorrow<'_, Object>,
    _file: &File,
    argument: &Argument,
) -> Result<isize> {
    let mut answer = argument.read::<vmalab_seals>()?;
    if answer.reserved != 0 {
        return Err(EINVAL);
    }
    answer.seals = object.seals();
    argument.write(&answer)
}

/// `VMALAB_IOC_WRITTEN`.
pub(crate) fn written(
    object: ArcBorrow<'_, Object>,
    file: &File,
    argument: &Argument,
) -> Result<isize> {
    /// That many ranges are enough for one call: who has space for more calls again.
    const BATCH: usize = 256;

    let page = PAGE_SIZE as u64;
    let mut wanted = argument.read::<vmalab_written>()?;
    if wanted.flags & !VMALAB_WRITTEN_CLEAR != 0
        || wanted.n_ranges == 0
        || wanted.offset % page != 0
        || wanted.length % page != 0
    {
        return Err(EINVAL);
    }
    // Also to look makes others fault again.
    check_writable(file)?;
    let clear = wanted.flags & VMALAB_WRITTEN_CLEAR != 0;
    let end = wanted.offset.checked_add(wanted.length).ok_or(EINVAL)?;
    // Nothing is past the end of the object.
    let last = end.min(object.size()).max(wanted.offset);
    let pages = (wanted.offset / page) as usize..(last / page) as usize;

    let mut ranges: KVec<vmalab_range> = KVec::with_capacity(
        BATCH.min(wanted.n_ranges as usize),
        GFP_KERNEL_ACCOUNT | __GFP_NOWARN,
    )?;
    let next = object.cache().written(pages.clone(), clear, |found| {
        let range = bytes(found);
        if let Some(before) = ranges.last_mut() {
            if before.offset + before.length == range.offset {
                before.length += range.length;
                return true;
            }
        }
        ranges.push_within_capacity(range).is_ok()
    });

    wanted.n_ranges = ranges.len() as u32;
    wanted.offset = if next == pages.end {
        end
    } else {
        next as u64 * page
    };
    wanted.length = end - wanted.offset;

    let user = UserPtr::from_addr(wanted.ranges as usize);
    let written = UserSlice::new(user, size_of_val(&*ranges))
        .writer()
        .write_slice(ranges.as_bytes())
        .and_then(|()| argument.write(&wanted));
    if written.is_err() && clear {
        for range in &ranges {
            let (offset, length) = (range.offset / page, range.length / page);
            object
                .cache()
                .mark_written(offset as usize..(offset + length) as usize);
        }
    }
    written
}

/// `VMALAB_IOC_SET_NAME`.
pub(crate) fn set_name(
    object: ArcBorrow<'_, Object>,
    file: &File,
    argument: &Argument,
) -> Result<isize> {
    let wanted = argument.read::<vmalab_name>()?;
    let mode = u16::try_from(wanted.mode).map_err(|_| EINVAL)?;
    if mode & !0o666 != 0 || wanted.flags != 0 {
        return Err(EINVAL);
    }
    let name = Name::new(wanted.name)?;
    check_writable(file)?;
    objects::set_name(&object, name, mode)?;
    Ok(0)
}

/// `VMALAB_IOC_OPEN_NAME`.
pub(crate) fn open_name(
    _object: ArcBorrow<'_, Object>,
    file: &File,
    argument: &Argument,
) -> Result<isize> {
    let wanted = argument.read::<vmalab_name>()?;
    let access = wanted.flags & flags::O_ACCMODE;
    if wanted.mode != 0
        || wanted.flags & !(flags::O_ACCMODE | flags::O_CLOEXEC) != 0
        || access == flags::O_ACCMODE
    {
        return Err(EINVAL);
    }
    let name = Name::new(wanted.name)?.ok_or(ENOENT)?;
    objects::open_named(file, &name, wanted.flags)
}

/// Pages, in bytes.
fn bytes(pages: Range<usize>) -> vmalab_range {
    vmalab_range {
        offset: (pages.start * PAGE_SIZE) as u64,
        length: (pages.len() * PAGE_SIZE) as u64,
    }
}
