// SPDX-License-Identifier: GPL-2.0-only

//! All live objects: by number, and by name.
//!
//! An object is here as long as it has an open file; each area holds the file that it came from, so that
//! no object that is mapped is missing. A name goes with its object.
//!
//! # Names and rights
//!
//! A name is a way to a descriptor that others could have passed on, and gives no more than that:
//!
//! - who gives a name can write to the object, and says who may open it by this name, as the mode of a
//!   file says it; the owner is who has made the object;
//! - who opens it needs a descriptor of the node, and gets no access that this one does not have: so
//!   whoever may not open the node, or only for reading, gets no further by knowing a name.
//!
//! # Locks
//!
//! One mutex. Nothing is allocated under it, no object dropped, and no lock waited for but the spinlocks of
//! page caches: so a shrinker may take it, whatever else its task holds.

use crate::{
    misc,
    object::Object,
    shrinker::Scanned, //
};
use kernel::{
    fs::{
        file::{
            flags,
            FileDescriptorReservation, //
        },
        File,
    },
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode, //
    },
    seq_file::SeqFile,
    seq_print,
    sync::{
        global_lock,
        Arc, //
    },
};

global_lock! {
    // SAFETY: The module initialises it before anything of it can be called: see `init`.
    unsafe(uninit) static ALL: Mutex<Option<Objects>> = None;
}

/// The objects, by their numbers.
struct Objects {
    by_number: RBTree<u64, Entry>,
    names: RBTree<Name, u64>,
    /// Objects that tasks are about to open by name, by the number of the task: see [`open_named`].
    opening: RBTree<i32, Claim>,
    /// The number of the object where the shrinker goes on.
    next_ahead: u64,
}

struct Entry {
    object: Arc<Object>,
    /// How many open files it has.
    files: usize,
    name: Option<Name>,
}

/// The name of an object: printable characters of ASCII, and zeros behind them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name([u8; Self::SIZE]);

impl Name {
    /// With the zero at the end.
    const SIZE: usize = crate::uapi::VMALAB_NAME_SIZE as usize;

    /// A name, or nothing if there are only zeros.
    ///
    /// # Errors
    ///
    /// EINVAL for anything else than such characters with zeros behind them, at least one.
    pub(crate) fn new(bytes: [u8; Self::SIZE]) -> Result<Option<Self>> {
        let length = bytes.iter().take_while(|byte| **byte != 0).count();
        let (name, rest) = bytes.split_at(length);
        if rest.is_empty()
            || rest.iter().any(|byte| *byte != 0)
            || !name.iter().all(u8::is_ascii_graphic)
        {
            return Err(EINVAL);
        }
        Ok((length > 0).then_some(Self(bytes)))
    }

    fn as_str(&self) -> &str {
        let length = self.0.iter().take_while(|byte| **byte != 0).count();
        core::str::from_utf8(&self.0[..length]).unwrap_or("")
    }
}

/// One more file of an object, as long as it is not there yet. Must not be dropped under the lock.
struct Claim(Option<Arc<Object>>);

impl Claim {
    /// There is a file now.
    fn into_object(mut self) -> Option<Arc<Object>> {
        self.0.take()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(object) = &self.0 {
            close(object);
        }
    }
}

/// To be called once, before anything else of this file.
pub(crate) fn init() {
    // SAFETY: The module calls this once, before there is a node that could be opened.
    unsafe { ALL.init() };
    *ALL.lock() = Some(Objects {
        by_number: RBTree::new(),
        names: RBTree::new(),
        opening: RBTree::new(),
        next_ahead: 0,
    });
}

/// Does something with all of them, under the lock. What it removes it gives back, to be dropped without.
fn with<R>(what: impl FnOnce(&mut Objects) -> Result<R>) -> Result<R> {
    ALL.lock().as_mut().ok_or(ENXIO).and_then(what)
}

/// The object of a file that is being opened: a new one, or the one that this task opens by name.
///
/// # Errors
///
/// Those of [`Object::new`].
pub(crate) fn open() -> Result<Arc<Object>> {
    let task = kernel::current!().pid();
    let claim = with(|all| Ok(all.opening.remove(&task)))?;
    if let Some(object) = claim.and_then(Claim::into_object) {
        return Ok(object);
    }
    let object = Object::new()?;
    let entry = Entry {
        object: object.clone(),
        files: 1,
        name: None,
    };
    let node = RBTreeNode::new(object.number(), entry, GFP_KERNEL_ACCOUNT)?;
    with(|all| Ok(all.by_number.insert(node)))?;
    Ok(object)
}

/// A file of the object is gone.
pub(crate) fn close(object: &Object) {
    let gone = with(|all| {
        let number = object.number();
        let entry = all.by_number.get_mut(&number).ok_or(ENOENT)?;
        entry.files -= 1;
        if entry.files > 0 {
            return Ok(None);
        }
        if let Some(name) = entry.name {
            all.names.remove(&name);
        }
        Ok(all.by_number.remove(&number))
    });
    drop(gone);
}

/// Gives the object a name, by which those may open it whom `mode` allows; or takes its name away.
///
/// # Errors
///
/// EEXIST if another object has this name, EBUSY if this one has a name, ENOMEM.
pub(crate) fn set_name(object: &Object, name: Option<Name>, mode: u16) -> Result {
    let number = object.number();
    let Some(name) = name else {
        return with(|all| {
            let entry = all.by_number.get_mut(&number).ok_or(ENOENT)?;
            if let Some(name) = entry.name.take() {
                all.names.remove(&name);
            }
            Ok(())
        });
    };
    let node = RBTreeNode::new(name, number, GFP_KERNEL_ACCOUNT)?;
    with(|all| {
        let entry = all.by_number.get_mut(&number).ok_or(ENOENT)?;
        if entry.name.is_some() {
            return Err(EBUSY);
        }
        if all.names.get(&name).is_some() {
            return Err(EEXIST);
        }
        object.cache().set_mode(mode);
        entry.name = Some(name);
        all.names.insert(node);
        Ok(())
    })
}

/// Opens the object with this name, with the access and the other flags of `open(2)` in `wanted`, and
/// gives a new descriptor, to a file of the same node as `file`.
///
/// # Errors
///
/// ENOENT if there is none; EACCES if its mode, or the access of `file`, does not allow it; EMFILE,
/// ENFILE, ENOMEM, and what a security module says.
pub(crate) fn open_named(file: &File, name: &Name, wanted: u32) -> Result<isize> {
    let access = wanted & flags::O_ACCMODE;
    let (read, write) = (access != flags::O_WRONLY, access != flags::O_RDONLY);
    let own = file.flags() & flags::O_ACCMODE;
    if read && own == flags::O_WRONLY || write && own == flags::O_RDONLY {
        return Err(EACCES);
    }

    let descriptor = FileDescriptorReservation::get_unused_fd_flags(wanted & flags::O_CLOEXEC)?;
    let claim = with(|all| {
        let number = *all.names.get(name).ok_or(ENOENT)?;
        let entry = all.by_number.get_mut(&number).ok_or(ENOENT)?;
        entry.files += 1;
        Ok(Claim(Some(entry.object.clone())))
    })?;
    if let Some(object) = &claim.0 {
        object.cache().check_access(read, write)?;
    }

    // The kernel calls `open` in this task. There it takes the claim; if it does not come so far, the
    // claim is dropped here.
    let task = kernel::current!().pid();
    let node = RBTreeNode::new(task, claim, GFP_KERNEL)?;
    with(|all| Ok(all.opening.insert(node)))?;
    let opened = misc::open_again(file, access);
    let left = with(|all| Ok(all.opening.remove(&task)))?;
    let opened = opened?;
    if left.is_some() {
        return Err(ENXIO);
    }
    let number = descriptor.reserved_fd();
    descriptor.fd_install(opened);
    Ok(number as isize)
}

/// Looks at `wanted` pages that were allocated ahead, or about as many, and frees those that nobody has used
/// since. For the shrinker: each call goes on where the last one has ended, and after the end from the front.
pub(crate) fn drop_unused(wanted: usize) -> Scanned {
    /// So many objects are looked at under one lock, at most. Most have no such page.
    const OBJECTS: usize = 512;

    let mut done = Scanned::default();
    let mut looked_at = 1;
    let _ = with(|all| {
        let first = all.next_ahead;
        let mut at = all.by_number.cursor_lower_bound_mut(&first);
        for _ in 0..OBJECTS {
            let Some(cursor) = at else {
                all.next_ahead = 0;
                break;
            };
            let (number, entry) = cursor.current();
            all.next_ahead = *number;
            let more = entry.object.drop_unused(wanted - done.scanned);
            done.scanned += more.scanned;
            done.freed += more.freed;
            if done.scanned >= wanted {
                // There may be more of it.
                break;
            }
            looked_at += 1;
            at = cursor.move_next();
        }
        // Others are still to be looked at, so that none found does not mean that there is none now. Who looks
        // in vain gets on as well.
        if first > 0 || all.next_ahead > 0 {
            done.scanned = done.scanned.max(looked_at);
        }
        Ok(())
    });
    done
}

/// What `/proc/PID/fdinfo` says of an object.
pub(crate) fn show_fdinfo(object: &Object, out: &SeqFile) {
    let _ = with(|all| {
        let entry = all.by_number.get(&object.number()).ok_or(ENOENT)?;
        entry.show(out, "\n", ":\t");
        Ok(())
    });
}

/// A line for each object.
pub(crate) fn show_all(out: &SeqFile) {
    let _ = with(|all| {
        for entry in all.by_number.values() {
            entry.show(out, " ", "=");
            for (name, calls) in entry.object.stats().calls() {
                seq_print!(out, " {name}={calls}");
            }
            seq_print!(out, "\n");
        }
        Ok(())
    });
}

impl Entry {
    /// Numbers and names only: nothing says where in the kernel anything is.
    fn show(&self, out: &SeqFile, between: &str, is: &str) {
        let (object, stats) = (&self.object, self.object.stats());
        let fields = [
            ("object", object.number()),
            ("size", object.size()),
            ("pages", stats.pages.get()),
            ("areas", stats.areas.get()),
            ("files", self.files as u64),
        ];
        for (field, value) in fields {
            seq_print!(out, "{field}{is}{value}{between}");
        }
        seq_print!(out, "hooks{is}{:#x}{between}", object.optional_hooks());
        seq_print!(out, "seals{is}{:#x}{between}", object.seals());
        let name = self.name.as_ref().map_or("", Name::as_str);
        seq_print!(out, "name{is}{name}");
        if between == "\n" {
            seq_print!(out, "\n");
        }
    }
}
