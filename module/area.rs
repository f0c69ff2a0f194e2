// SPDX-License-Identifier: GPL-2.0-only

//! What `/dev/vmalab` does at each hook of its areas.
//!
//! Areas are counted: one more by the mmap handler and by `open`, one less by `close`. That comes out
//! right because an area with a `close` hook is never removed by a merge (`can_merge_remove_vma` in
//! `mm/vma.c`). What the kernel does merge changes no count: a new mapping that only makes its
//! neighbour longer calls neither the mmap handler nor any hook, and an area that is moved next to a
//! neighbour that takes it in calls no `open` for the copy and `close` for the original.

use crate::{
    object::Object,
    stats::{Counter, Stats},
    vm_ops::{self, vm_operations_table, Area, Fault, VmFault, VmOperations},
};
use kernel::{
    mm::virt::VmaNew,
    prelude::*,
    sync::{Arc, ArcBorrow},
};

/// The hooks. The areas hold their object.
pub(crate) struct ObjectAreas;

/// The mmap handler: a new area, shared or private, with any protection, of any part of the object
/// and of what is past its end.
pub(crate) fn mmap(object: ArcBorrow<'_, Object>, vma: &VmaNew) {
    object.stats().add(|s| &s.mmap, 1);
    object.stats().add(|s| &s.areas, 1);
    vm_ops::install::<ObjectAreas>(vma, object.into());
}

/// Counts a call of a hook.
fn count(area: &Area<ObjectAreas>, hook: fn(&Stats) -> &Counter) {
    area.data().stats().add(hook, 1);
}

vm_operations_table!(ObjectAreas);

#[vtable]
impl VmOperations for ObjectAreas {
    type Data = Arc<Object>;

    fn open(area: &Area<Self>) {
        count(area, |s| &s.open);
        count(area, |s| &s.areas);
    }

    fn close(area: &Area<Self>) {
        count(area, |s| &s.close);
        area.data().stats().sub(|s| &s.areas, 1);
    }

    fn may_split(area: &Area<Self>, _addr: usize) -> Result {
        count(area, |s| &s.may_split);
        Ok(())
    }

    fn fault(fault: Fault<'_, Self>) -> VmFault {
        count(fault.area(), |s| &s.fault);
        // The page stays locked until it is in the page table, so that a shrinking object cannot
        // miss it.
        match fault.area().data().page(fault.index(), fault.gfp()) {
            Ok(page) => fault.give_locked(page),
            Err(error) => error.into(),
        }
    }
}
