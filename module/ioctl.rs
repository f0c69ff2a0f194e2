// SPDX-License-Identifier: GPL-2.0-only

//! The ioctls of `uapi/vmalab.h`: which function answers which request, and how the structures come in
//! and go out, whatever version of them the caller was built with.

use crate::{
    look,
    object::Object,
    object_ioctl,
    stats,
    steer,
    uapi::*,
    watch, //
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
    prelude::*,
    sync::ArcBorrow,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};
use zerocopy::Immutable;

/// Answers one request; a value that is not negative is the value of the ioctl.
pub(crate) type Handler = fn(ArcBorrow<'_, Object>, &File, &Argument) -> Result<isize>;

/// All requests.
static REQUESTS: [(u32, Handler); 20] = [
    (VMALAB_IOC_STATS, get_stats),
    (VMALAB_IOC_GET_SIZE, get_size),
    (VMALAB_IOC_SET_SIZE, set_size),
    (VMALAB_IOC_SET_HOOKS, set_hooks),
    (VMALAB_IOC_FALLOCATE, object_ioctl::fallocate),
    (VMALAB_IOC_ADD_SEALS, object_ioctl::add_seals),
    (VMALAB_IOC_GET_SEALS, object_ioctl::get_seals),
    (VMALAB_IOC_WRITTEN, object_ioctl::written),
    (VMALAB_IOC_SET_NAME, object_ioctl::set_name),
    (VMALAB_IOC_OPEN_NAME, object_ioctl::open_name),
    (VMALAB_IOC_AREAS, look::areas),
    (VMALAB_IOC_WOULD_UNMAP, look::unmap),
    (VMALAB_IOC_WATCH, watch),
    (VMALAB_IOC_GET_FOLIO_SIZE, get_folio_size),
    (VMALAB_IOC_SET_FOLIO_SIZE, set_folio_size),
    (VMALAB_IOC_SET_NEW_AREAS, steer::set_area),
    (VMALAB_IOC_GET_NEW_AREAS, steer::get_area),
    (VMALAB_IOC_ADD_RULE, steer::add_rule),
    (VMALAB_IOC_CLEAR_RULES, steer::clear_rules),
    (VMALAB_IOC_GET_RULE, steer::get_rule),
];

/// `ioctl` of all nodes. `compat_ioctl` is the same: the structures have the same layout for 32-bit
/// programs.
pub(crate) fn ioctl(
    object: ArcBorrow<'_, Object>,
    file: &File,
    cmd: u32,
    arg: usize,
) -> Result<isize> {
    let argument = Argument::new(cmd, arg);
    let (_, handler) = REQUESTS
        .iter()
        .find(|(request, _)| argument.is(*request))
        .ok_or(ENOTTY)?;
    handler(object, file, &argument)
}

/// `VMALAB_IOC_STATS`.
fn get_stats(object: ArcBorrow<'_, Object>, _file: &File, argument: &Argument) -> Result<isize> {
    let mut stats = argument.read::<vmalab_stats>()?;
    if stats.reserved != 0 {
        return Err(EINVAL);
    }
    match stats.scope {
        VMALAB_SCOPE_OBJECT => object.stats().read_into(&mut stats),
        VMALAB_SCOPE_MODULE => stats::MODULE.read_into(&mut stats),
        _ => return Err(EINVAL),
    }
    argument.write(&stats)
}

/// `VMALAB_IOC_GET_SIZE`.
fn get_size(object: ArcBorrow<'_, Object>, _file: &File, argument: &Argument) -> Result<isize> {
    let mut size = argument.read::<vmalab_size>()?;
    size.check()?;
    size.size = object.size();
    argument.write(&size)
}

/// `VMALAB_IOC_SET_SIZE`.
fn set_size(object: ArcBorrow<'_, Object>, file: &File, argument: &Argument) -> Result<isize> {
    let size = argument.read::<vmalab_size>()?;
    size.check()?;
    check_writable(file)?;
    object.set_size(size.size)?;
    Ok(0)
}

/// `VMALAB_IOC_SET_HOOKS`.
fn set_hooks(object: ArcBorrow<'_, Object>, file: &File, argument: &Argument) -> Result<isize> {
    let hooks = argument.read::<vmalab_hooks>()?;
    if hooks.hooks & !u64::from(VMALAB_OPTIONAL_HOOKS) != 0 || hooks.reserved != 0 {
        return Err(EINVAL);
    }
    check_writable(file)?;
    object.set_hooks(hooks.hooks);
    Ok(0)
}

/// `VMALAB_IOC_GET_FOLIO_SIZE`.
fn get_folio_size(
    object: ArcBorrow<'_, Object>,
    _file: &File,
    argument: &Argument,
) -> Result<isize> {
    let mut size = argument.read::<vmalab_size>()?;
    size.check()?;
    size.size = object.folio_size();
    argument.write(&size)
}

/// `VMALAB_IOC_SET_FOLIO_SIZE`.
fn set_folio_size(
    object: ArcBorrow<'_, Object>,
    file: &File,
    argument: &Argument,
) -> Result<isize> {
    let size = argument.read::<vmalab_size>()?;
    size.check()?;
    check_writable(file)?;
    object.set_folio_size(size.size)?;
    Ok(0)
}

/// `VMALAB_IOC_WATCH`.
fn watch(object: ArcBorrow<'_, Object>, file: &File, argument: &Argument) -> Result<isize> {
    let wanted = argument.read::<vmalab_watch>()?;
    check_writable(file)?;
    watch::open(object.watchers(), &wanted)
}

/// What changes the object for all needs a descriptor that is open for writing.
pub(crate) fn check_writable(file: &File) -> Result {
    if file.flags() & flags::O_ACCMODE == flags::O_RDONLY {
        return Err(EBADF);
    }
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
pub(crate) trait Versioned: FromBytes + IntoBytes + Immutable + Sized {
    /// The size of the first version, in bytes: all of it, while there is one version.
    const FIRST: usize = size_of::<Self>();
}

impl Versioned for vmalab_stats {
    // Who only asks what is alive.
    const FIRST: usize = core::mem::offset_of!(Self, n_calls);
}
impl Versioned for vmalab_size {}
impl Versioned for vmalab_hooks {}

/// The argument of an ioctl: a pointer to a structure, and in the number the size that the caller
/// knows it with.
pub(crate) struct Argument {
    cmd: u32,
    arg: usize,
}

impl Argument {
    /// The two that an ioctl comes with.
    pub(crate) fn new(cmd: u32, arg: usize) -> Self {
        Self { cmd, arg }
    }

    /// Whether the request is `cmd`, in whatever version of its structure.
    pub(crate) fn is(&self, cmd: u32) -> bool {
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
    pub(crate) fn read<T: Versioned>(&self) -> Result<T> {
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

    /// Writes the structure back, or as much of it as the caller knows, and gives 0, the value of such
    /// an ioctl. What a newer caller has besides is zero already.
    ///
    /// # Errors
    ///
    /// EFAULT.
    pub(crate) fn write<T: Versioned>(&self, value: &T) -> Result<isize> {
        let size = _IOC_SIZE(self.cmd).min(size_of::<T>());
        self.user()
            .writer()
            .write_slice(&value.as_bytes()[..size])?;
        Ok(0)
    }
}
