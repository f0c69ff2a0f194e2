// SPDX-License-Identifier: GPL-2.0-only

//! What `/dev/vmalab` does at each hook of its areas.
//!
//! Areas are counted: one more when an area comes into being (in the mmap handler, or in `mapped`) and
//! by `open`, one less by `close`. That comes out right because an area with a `close` hook is never
//! removed by a merge (`can_merge_remove_vma` in `mm/vma.c`). What the kernel does merge changes no
//! count: a new mapping that only makes its neighbour longer calls neither `.mmap` nor any hook, and
//! an area that is moved next to a neighbour that takes it in calls no `open` for the copy and `close`
//! for the original.
//!
//! # Hooks that are not there
//!
//! - `access`: the kernel asks for it only where it finds no page, and all that is behind these areas
//!   are pages. Past the end of the object there is nothing to copy either.
//! - `name`: an area with a file is shown with the path of the file whatever this hook says. But an
//!   area that has a name is in each core dump.
//! - `huge_fault`, `pagesize`, `pfn_mkwrite`: the pages are all of one size, and all of them are pages.
//! - `set_policy`, `get_policy`: the kernel keeps the policy of an area itself.

use crate::{
    object::Object,
    stats::{Counter, Stats},
    vm_ops::{
        self, vm_operations_table, Area, AreaDesc, Fault, MapPages, MapPagesAnswer, Mapped,
        MkwriteAnswer, PageMkwrite, VmFault, VmOperations,
    },
};
use core::ops::Range;
use kernel::{
    mm::virt::{vm_flags_t, VmaNew},
    prelude::*,
    sync::{Arc, ArcBorrow},
};

/// The hooks. The areas hold their object.
///
/// The kernel treats areas with some of the hooks differently, so there are four tables: `PREPARED` is
/// for areas from `.mmap_prepare`, `TRACKED` has `page_mkwrite`, for which all pages are mapped
/// read-only at first.
pub(crate) struct ObjectAreas<const PREPARED: bool, const TRACKED: bool>;

vm_operations_table!(ObjectAreas<false, false>);
vm_operations_table!(ObjectAreas<false, true>);
vm_operations_table!(ObjectAreas<true, false>);
vm_operations_table!(ObjectAreas<true, true>);

/// `.mmap`: a new area, shared or private, with any protection, of any part of the object and of what
/// is past its end.
pub(crate) fn mmap(object: ArcBorrow<'_, Object>, vma: &VmaNew) {
    object.stats().add(|s| &s.mmap, 1);
    object.stats().add(|s| &s.areas, 1);
    if object.tracks_writes() {
        vm_ops::install::<ObjectAreas<false, true>>(vma, object.into());
    } else {
        vm_ops::install::<ObjectAreas<false, false>>(vma, object.into());
    }
}

/// `.mmap_prepare`: the same, before it is known whether there will be a new area.
pub(crate) fn mmap_prepare<'a>(object: ArcBorrow<'a, Object>, desc: &mut AreaDesc<'a>) {
    // A count of calls is no state that would have to be taken back.
    object.stats().add(|s| &s.mmap, 1);
    if object.tracks_writes() {
        desc.install::<ObjectAreas<true, true>>(object);
    } else {
        desc.install::<ObjectAreas<true, false>>(object);
    }
}

/// Counts a call of a hook.
fn count<T: VmOperations<Data = Arc<Object>>>(area: &Area<T>, hook: fn(&Stats) -> &Counter) {
    area.data().stats().add(hook, 1);
}

#[vtable]
impl<const PREPARED: bool, const TRACKED: bool> VmOperations for ObjectAreas<PREPARED, TRACKED>
where
    Self: vm_ops::HasTable,
{
    type Data = Arc<Object>;

    const PREPARED: bool = PREPARED;
    const HAS_PAGE_MKWRITE: bool = TRACKED;

    fn open(area: &Area<Self>) {
        count(area, |s| &s.open);
        count(area, |s| &s.areas);
    }

    fn close(area: &Area<Self>) {
        count(area, |s| &s.close);
        area.data().stats().sub(|s| &s.areas, 1);
    }

    fn mapped(area: Mapped<'_, Self>) -> Result {
        area.data().stats().add(|s| &s.mapped, 1);
        area.data().stats().add(|s| &s.areas, 1);
        Ok(())
    }

    fn may_split(area: &Area<Self>, _addr: usize) -> Result {
        count(area, |s| &s.may_split);
        Ok(())
    }

    fn mremap(area: &Area<Self>) -> Result {
        count(area, |s| &s.mremap);
        Ok(())
    }

    fn mprotect(area: &Area<Self>, _range: Range<usize>, _flags: vm_flags_t) -> Result {
        count(area, |s| &s.mprotect);
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

    fn map_pages(around: MapPages<'_, Self>) -> MapPagesAnswer {
        count(around.area(), |s| &s.map_pages);
        around.map_cached()
    }

    fn page_mkwrite(fault: PageMkwrite<'_, Self>) -> MkwriteAnswer {
        count(fault.area(), |s| &s.page_mkwrite);
        // Whether the page is still in the object, the kernel looks under its lock.
        MkwriteAnswer::ALLOW
    }
}
