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
//!   are pages. Past the end of the object there is nothing to copy either. Areas of which it is told to
//!   take no notice of the pages (`VM_PFNMAP`, `VM_IO`) are closed to debuggers, as such areas are with
//!   most drivers.
//! - `name`: an area with a file is shown with the path of the file whatever this hook says. But an
//!   area that has a name is in each core dump.
//! - `pagesize`: an area has no size of pages that would hold for all of it.
//! - `set_policy`, `get_policy`: the kernel keeps the policy of an area itself, and pages that are first touched
//!   through the area are allocated by it. A memfd keeps it with its pages, for all areas, in a structure that
//!   is not for modules (`shared_policy`).

use crate::{
    folio::Folio,
    hook::{Call, Found, Hook},
    object::Object,
    steer::area_flags,
    vm_ops::{
        self, vm_operations_table, Area, AreaDesc, Fault, HugeFault, HugeFaultAnswer, MapPages,
        MapPagesAnswer, Mapped, MkwriteAnswer, PageMkwrite, PfnMkwrite, VmFault, VmOperations,
    },
};
use core::ops::Range;
use kernel::{
    mm::virt::{flags, vm_flags_t, VmaNew, VmaRef},
    prelude::*,
    sync::{Arc, ArcBorrow},
};

/// The hooks. The areas hold their object.
///
/// The kernel treats areas with some of the hooks differently, so there is a table for each
/// combination: `PREPARED` is for areas from `.mmap_prepare`, `TRACKED` has `page_mkwrite` and
/// `pfn_mkwrite`, for which all pages are mapped read-only at first, `HUGE` has `huge_fault`.
pub(crate) struct ObjectAreas<const PREPARED: bool, const TRACKED: bool, const HUGE: bool>;

vm_operations_table!(ObjectAreas<false, false, false>);
vm_operations_table!(ObjectAreas<false, false, true>);
vm_operations_table!(ObjectAreas<false, true, false>);
vm_operations_table!(ObjectAreas<false, true, true>);
vm_operations_table!(ObjectAreas<true, false, false>);
vm_operations_table!(ObjectAreas<true, false, true>);
vm_operations_table!(ObjectAreas<true, true, false>);
vm_operations_table!(ObjectAreas<true, true, true>);

/// `.mmap`: a new area, shared or private, with any protection, of any part of the object and of what
/// is past its end.
pub(crate) fn mmap(object: ArcBorrow<'_, Object>, vma: &VmaNew) -> Result {
    let call = || Call {
        hook: Hook::Mmap,
        range: vma.start()..vma.end(),
        index: vm_ops::index(vma),
        flags: vma.flags(),
        argument: 0,
    };
    object.on(Hook::Mmap, call, || {
        if forbids_writing(&object, vma.flags())? {
            vma.try_clear_maywrite()?;
        }
        area_flags(object.area())?.apply(vma)?;
        object.map_by_frame(vma.flags() & flags::PFNMAP != 0)?;
        object.stats().add(|s| &s.areas, 1);
        match (
            object.wants(Hook::PageMkwrite),
            object.wants(Hook::HugeFault),
        ) {
            (false, false) => {
                vm_ops::install::<ObjectAreas<false, false, false>>(vma, object.into())
            }
            (false, true) => vm_ops::install::<ObjectAreas<false, false, true>>(vma, object.into()),
            (true, false) => vm_ops::install::<ObjectAreas<false, true, false>>(vma, object.into()),
            (true, true) => vm_ops::install::<ObjectAreas<false, true, true>>(vma, object.into()),
        }
        Ok(())
    })
}

/// Whether a new area must never become writable, because the object is sealed; as
/// `memfd_check_seals_mmap` in the kernel.
///
/// # Errors
///
/// EPERM if it is to be writable from the begin.
fn forbids_writing(object: &Object, wanted: vm_flags_t) -> Result<bool> {
    if wanted & flags::SHARED == 0 || !object.is_write_sealed() {
        return Ok(false);
    }
    if wanted & flags::WRITE != 0 {
        return Err(EPERM);
    }
    Ok(true)
}

/// `.mmap_prepare`: the same, before it is known whether there will be a new area.
pub(crate) fn mmap_prepare<'a>(object: ArcBorrow<'a, Object>, desc: &mut AreaDesc<'a>) -> Result {
    let call = Call {
        hook: Hook::Mmap,
        range: desc.range(),
        index: desc.index(),
        flags: desc.flags(),
        argument: 0,
    };
    // A count of calls is no state that would have to be taken back, nor is how the object is mapped, which
    // the first attempt decides.
    object.on(
        Hook::Mmap,
        || call,
        || {
            if forbids_writing(&object, desc.flags())? {
                desc.try_clear_maywrite()?;
            }
            area_flags(object.area())?.apply_to(desc)?;
            object.map_by_frame(desc.flags() & flags::PFNMAP != 0)?;
            match (
                object.wants(Hook::PageMkwrite),
                object.wants(Hook::HugeFault),
            ) {
                (false, false) => desc.install::<ObjectAreas<true, false, false>>(object),
                (false, true) => desc.install::<ObjectAreas<true, false, true>>(object),
                (true, false) => desc.install::<ObjectAreas<true, true, false>>(object),
                (true, true) => desc.install::<ObjectAreas<true, true, true>>(object),
            }
            Ok(())
        },
    )
}

/// The object that an area maps, if the area is one of ours.
pub(crate) fn object(vma: &VmaRef) -> Option<ArcBorrow<'_, Object>> {
    fn of<T: VmOperations<Data = Arc<Object>>>(vma: &VmaRef) -> Option<ArcBorrow<'_, Object>> {
        Area::<T>::of(vma).map(Area::data)
    }
    of::<ObjectAreas<false, false, false>>(vma)
        .or_else(|| of::<ObjectAreas<false, false, true>>(vma))
        .or_else(|| of::<ObjectAreas<false, true, false>>(vma))
        .or_else(|| of::<ObjectAreas<false, true, true>>(vma))
        .or_else(|| of::<ObjectAreas<true, false, false>>(vma))
        .or_else(|| of::<ObjectAreas<true, false, true>>(vma))
        .or_else(|| of::<ObjectAreas<true, true, false>>(vma))
        .or_else(|| of::<ObjectAreas<true, true, true>>(vma))
}

#[vtable]
impl<const PREPARED: bool, const TRACKED: bool, const HUGE: bool> VmOperations
    for ObjectAreas<PREPARED, TRACKED, HUGE>
where
    Self: vm_ops::HasTable,
{
    type Data = Arc<Object>;

    const PREPARED: bool = PREPARED;
    const HAS_PAGE_MKWRITE: bool = TRACKED;
    const HAS_HUGE_FAULT: bool = HUGE;
    const HAS_PFN_MKWRITE: bool = TRACKED;

    fn open(area: &Area<Self>) {
        let object = area.data();
        object.on(
            Hook::Open,
            || Call::area(Hook::Open, area),
            || {
                object.stats().add(|s| &s.areas, 1);
            },
        );
    }

    fn close(area: &Area<Self>) {
        let object = area.data();
        object.on(
            Hook::Close,
            || Call::area(Hook::Close, area),
            || {
                object.stats().sub(|s| &s.areas, 1);
            },
        );
    }

    fn mapped(area: Mapped<'_, Self>) -> Result {
        let object = area.data();
        // Also if it comes to an error: `close` is called in any case.
        object.stats().add(|s| &s.areas, 1);
        let call = || Call {
            hook: Hook::Mapped,
            range: area.range(),
            index: area.index(),
            flags: 0,
            argument: 0,
        };
        object.on(Hook::Mapped, call, || Ok(()))
    }

    fn may_split(area: &Area<Self>, addr: usize) -> Result {
        let call = || Call::area(Hook::MaySplit, area).with(addr as u64);
        area.data().on(Hook::MaySplit, call, || Ok(()))
    }

    fn mremap(area: &Area<Self>) -> Result {
        let call = || Call::area(Hook::Mremap, area);
        area.data().on(Hook::Mremap, call, || Ok(()))
    }

    fn mprotect(area: &Area<Self>, range: Range<usize>, flags: vm_flags_t) -> Result {
        // The flags are a C long, 64 bits here.
        let call = || Call::part(Hook::Mprotect, area, range).with(flags as u64);
        area.data().on(Hook::Mprotect, call, || Ok(()))
    }

    fn fault(fault: Fault<'_, Self>) -> VmFault {
        let object = fault.area().data();
        let call = || Call::fault(Hook::Fault, &fault);
        let found = object.on(Hook::Fault, call, || {
            let (index, how) = (fault.index(), fault.alloc());
            let kind = fault.area().flags() & (flags::PFNMAP | flags::MIXEDMAP);
            if kind == flags::PFNMAP {
                return match object.frame(index, how) {
                    // SAFETY: The object is mapped by frames only: `map_by_frame` has seen to it.
                    Ok(frame) => Found::Answer(unsafe { fault.insert_frame(&frame) }),
                    Err(error) => error.into(),
                };
            }
            // The page stays locked until it is in the page table, so that a shrinking object cannot
            // miss it.
            match object.page(index, how) {
                // Where a write is to be asked for, the kernel does so for a page that it is given.
                Ok(page) if kind == flags::MIXEDMAP && !TRACKED => {
                    Found::Answer(fault.insert(&page))
                }
                Ok(page) => Found::Page(page),
                Err(error) => error.into(),
            }
        });
        // From here on the object may be gone: some answers let go of the lock that keeps the area.
        match found {
            Found::Page(page) if TRACKED => fault.give_one_locked(page),
            Found::Page(page) => fault.give_locked(page),
            // Rules say so only where it may be retried.
            Found::Retry => fault.retry().unwrap_or(VmFault::NOPAGE),
            Found::Answer(answer) => answer,
        }
    }

    fn huge_fault(fault: HugeFault<'_, Self>) -> HugeFaultAnswer {
        let call = || Call::huge(Hook::HugeFault, &fault);
        let object = fault.area().data();
        object.on(Hook::HugeFault, call, || {
            if fault.area().flags() & flags::PFNMAP != 0 {
                return HugeFaultAnswer::FALLBACK;
            }
            // Where each page is to be asked for before it is written to, and where each page is to be
            // copied, they come one by one.
            let alone = fault.flags().is_write() && (TRACKED || !fault.is_shared());
            let first = fault.first().filter(|_| !alone && object.has_huge_pages());
            let Some(first) = first.filter(|_| fault.order() == Folio::MAX_ORDER) else {
                return HugeFaultAnswer::FALLBACK;
            };
            // The folio stays locked until it is in the page table, as in `fault`.
            match object.page(fault.index(), fault.alloc()) {
                Ok(folio) if folio.indices().start == first => fault.insert_folio(&folio),
                // It is a smaller one, or there is none: `fault` will find out.
                _ => HugeFaultAnswer::FALLBACK,
            }
        })
    }

    fn map_pages(around: MapPages<'_, Self>) -> MapPagesAnswer {
        let call = || Call::around(Hook::MapPages, &around);
        let object = around.area().data();
        object.on(Hook::MapPages, call, || around.map_cached())
    }

    fn page_mkwrite(fault: PageMkwrite<'_, Self>) -> MkwriteAnswer {
        let call = || Call::fault(Hook::PageMkwrite, &fault);
        let object = fault.area().data();
        // Whether the page is still in the object, the kernel looks under its lock.
        object.on(Hook::PageMkwrite, call, || MkwriteAnswer::ALLOW)
    }

    fn pfn_mkwrite(fault: PfnMkwrite<'_, Self>) -> MkwriteAnswer {
        let call = || Call::fault(Hook::PfnMkwrite, &fault);
        let object = fault.area().data();
        // Whether the frame is still there, the kernel looks under the lock of the page table.
        object.on(Hook::PfnMkwrite, call, || MkwriteAnswer::ALLOW)
    }
}
