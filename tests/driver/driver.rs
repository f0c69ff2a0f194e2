// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! A second driver over `vm_ops`, as small as one can be that gives each answer once.
//!
//! Which page of `/dev/vmalab-driver` is touched decides how the fault is answered: see [`Pages`]. The
//! tests in `tests/guest/src/driver.rs` know the same list.

mod areas;
mod folio;
mod helpers;
mod misc;
mod page_cache;
mod vm_ops;

use core::ops::Range;
use folio::{Alloc, Folio};
use kernel::{
    fs::File,
    miscdevice::{MiscDevice, MiscDeviceRegistration},
    mm::virt::{flags, vm_flags_t, VmaNew},
    page::PAGE_SIZE,
    prelude::*,
    sync::{Arc, ArcBorrow},
};
use page_cache::PageCache;
#[cfg(CONFIG_NUMA)]
use vm_ops::Policy;
use vm_ops::{
    vm_operations_table, Access, Area, AreaDesc, AreaFlags, Fault, HugeFault, HugeFaultAnswer,
    MkwriteAnswer, PageMkwrite, VmFault, VmOperations,
};

module! {
    type: Driver,
    name: "vmalab_driver",
    authors: ["The vmalab developers"],
    description: "Tries vm_ops of vmalab in another driver",
    license: "GPL",
}

#[pin_data]
struct Driver {
    #[pin]
    _node: misc::Registration<Node>,
    #[pin]
    _prepare_node: misc::Registration<PrepareNode>,
}

impl kernel::InPlaceModule for Driver {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // Nobody opens the one before the other is there: the tests come later.
            _node <- misc::Registration::register(),
            _prepare_node <- misc::Registration::register(),
        })
    }
}

struct Node;

#[vtable]
impl misc::Device for Node {
    const NAME: &'static CStr = c"vmalab-driver";
    const MODE: u16 = 0o600;

    fn page_cache<'a>(pages: &'a ArcBorrow<'_, Pages>) -> &'a PageCache {
        &pages.cache
    }
}

#[vtable]
impl MiscDevice for Node {
    type Ptr = Arc<Pages>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Pages>> {
        Ok(Arc::new(Pages::new()?, GFP_KERNEL)?)
    }

    fn mmap(pages: ArcBorrow<'_, Pages>, _file: &File, vma: &VmaNew) -> Result {
        if vm_ops::index(vma) >= FRAMES.start {
            if pages.frames.is_none() {
                return Err(ENOMEM);
            }
            AreaFlags::new(flags::PFNMAP, 0)?.apply(vma)?;
            vm_ops::install::<FrameAreas>(vma, pages.into());
            return Ok(());
        }
        // For `insert_pages` and `insert_pfn`.
        vma.set_mixedmap();
        vm_ops::install::<PageAreas>(vma, pages.into());
        Ok(())
    }
}

/// `/dev/vmalab-driver-prepare`, with the newer generation of the mmap handler, and areas that hold nothing.
struct PrepareNode;

#[vtable]
impl misc::Device for PrepareNode {
    const NAME: &'static CStr = c"vmalab-driver-prepare";
    const MODE: u16 = 0o600;

    fn page_cache<'a>(cache: &'a ArcBorrow<'_, PageCache>) -> &'a PageCache {
        cache
    }

    fn mmap_prepare<'a>(_: ArcBorrow<'a, PageCache>, desc: &mut AreaDesc<'a>) -> Result {
        desc.install::<FreshAreas>(());
        Ok(())
    }
}

#[vtable]
impl MiscDevice for PrepareNode {
    type Ptr = Arc<PageCache>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Arc<PageCache>> {
        Ok(Arc::new(PageCache::new()?, GFP_KERNEL)?)
    }
}

/// Each touch of the first page brings another page of zeros; there is nothing else.
struct FreshAreas;

vm_operations_table!(FreshAreas);

#[vtable]
impl VmOperations for FreshAreas {
    type Data = ();

    const PREPARED: bool = true;

    fn fault(fault: Fault<'_, Self>) -> VmFault {
        if fault.index() != 0 {
            return VmFault::SIGBUS;
        }
        let folio = Folio::zeroed(fault.alloc(), 0);
        match folio {
            Ok(folio) => fault.give(folio),
            Err(_) => VmFault::OOM,
        }
    }
}

/// What a file maps: a page for each way to answer.
struct Pages {
    cache: PageCache,
    folios: [Folio; 7],
    /// As many frames as one entry of the page table stands for, if there was such a piece of memory.
    frames: Option<Folio>,
}

/// The kernel is given the page.
const GIVE: usize = 0;
/// It is inserted by the driver.
const INSERT: usize = 1;
/// These are inserted when one of them is touched.
const INSERT_PAGES: Range<usize> = 2..5;
/// Its frame number is inserted.
const INSERT_PFN: usize = 5;
/// The fault is started again once, if it may be.
const RETRY: usize = 6;
/// SIGSEGV. All pages after it are SIGBUS.
const SEGV: usize = 7;
/// These are mapped by their frame numbers, as the memory of a device would be, all at once where they may.
const FRAMES: Range<usize> = 512..1024;

impl Pages {
    fn new() -> Result<Self> {
        let how = Alloc::new(kernel::bindings::GFP_KERNEL_ACCOUNT);
        let zeroed = || Folio::zeroed(how, 0);
        Ok(Self {
            cache: PageCache::new()?,
            folios: [
                zeroed()?,
                zeroed()?,
                zeroed()?,
                zeroed()?,
                zeroed()?,
                zeroed()?,
                zeroed()?,
            ],
            frames: Folio::zeroed(how.optional(), Folio::MAX_ORDER).ok(),
        })
    }

    /// The number of the frame at an offset, which is in [`FRAMES`].
    fn frame(&self, index: usize) -> Option<usize> {
        let frames = self.frames.as_ref()?;
        FRAMES
            .contains(&index)
            .then(|| frames.pfn() + index - FRAMES.start)
    }
}

struct PageAreas;

vm_operations_table!(PageAreas);

#[vtable]
impl VmOperations for PageAreas {
    type Data = Arc<Pages>;

    fn fault(fault: Fault<'_, Self>) -> VmFault {
        let index = fault.index();
        let folios = &fault.area().data().folios;
        match index {
            GIVE => {
                let folio = folios[index].clone();
                fault.give(folio)
            }
            INSERT => {
                let folio = folios[index].clone();
                fault.insert(&folio)
            }
            _ if INSERT_PAGES.contains(&index) => {
                let first = fault.address() - (index - INSERT_PAGES.start) * PAGE_SIZE;
                let folios = [folios[2].clone(), folios[3].clone(), folios[4].clone()];
                fault.insert_pages(first, &folios)
            }
            INSERT_PFN => {
                let pfn = folios[index].pfn();
                // SAFETY: The page is the object's, and zeroed. The area holds the object until it is
                // unmapped, so that the page stays the object's while it is in a page table.
                unsafe { fault.insert_pfn(pfn) }
            }
            RETRY => {
                let folio = folios[index].clone();
                match fault.retry() {
                    Ok(answer) => answer,
                    Err(fault) => fault.give(folio),
                }
            }
            SEGV => VmFault::SIGSEGV,
            _ => VmFault::SIGBUS,
        }
    }

    fn page_mkwrite(fault: PageMkwrite<'_, Self>) -> MkwriteAnswer {
        // One page stays as it is; the others may be written to.
        if fault.index() == INSERT {
            return MkwriteAnswer::SIGBUS;
        }
        let folio = fault.folio().lock();
        fault.allow_locked(folio).unwrap_or(MkwriteAnswer::SIGBUS)
    }

    fn access(area: &Area<Self>, addr: usize, access: Access<'_>) -> Result<usize> {
        let index = area.index() + (addr - area.start()) / PAGE_SIZE;
        match access {
            // Where the process itself gets SIGSEGV, a debugger sees letters.
            Access::Read(bytes) if index == SEGV => {
                bytes.fill(b'a');
                Ok(bytes.len())
            }
            // And after it what a driver leaves as it was given, and takes for its own.
            Access::Read(bytes) if index == SEGV + 1 => Ok(bytes.len()),
            _ => Err(EIO),
        }
    }

    fn name(area: &Area<Self>) -> Option<&CStr> {
        // Of what begins at this page.
        (area.index() == RETRY).then_some(c"[vmalab-driver]")
    }

    fn pagesize(_area: &Area<Self>) -> usize {
        // It is not true, but can be seen.
        2 * PAGE_SIZE
    }

    fn may_split(_area: &Area<Self>, addr: usize) -> Result {
        // Only at every second page.
        if addr % (2 * PAGE_SIZE) == 0 {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }

    fn mremap(_area: &Area<Self>) -> Result {
        Err(EBUSY)
    }

    fn mprotect(_area: &Area<Self>, _range: Range<usize>, flags: vm_flags_t) -> Result {
        if flags & flags::EXEC != 0 {
            return Err(EPERM);
        }
        Ok(())
    }

    #[cfg(CONFIG_NUMA)]
    fn set_policy(area: &Area<Self>) -> Result {
        // Not for what begins at the begin.
        if area.index() == 0 {
            return Err(EDOM);
        }
        Ok(())
    }

    #[cfg(CONFIG_NUMA)]
    fn get_policy(area: &Area<Self>, _addr: usize) -> Policy {
        // What begins at an odd page has one that does not hold.
        if area.index() % 2 == 0 {
            Policy::Area
        } else {
            Policy::Task
        }
    }
}

struct FrameAreas;

vm_operations_table!(FrameAreas);

#[vtable]
impl VmOperations for FrameAreas {
    type Data = Arc<Pages>;

    fn fault(fault: Fault<'_, Self>) -> VmFault {
        match fault.area().data().frame(fault.index()) {
            // SAFETY: As for `INSERT_PFN`: the frame is the object's, zeroed, and for programs.
            Some(pfn) => unsafe { fault.insert_pfn(pfn) },
            None => VmFault::SIGBUS,
        }
    }

    fn huge_fault(fault: HugeFault<'_, Self>) -> HugeFaultAnswer {
        let pages = fault.area().data();
        let whole = fault
            .first()
            .filter(|first| *first == FRAMES.start && fault.order() == Folio::MAX_ORDER);
        match whole.and_then(|first| pages.frame(first)) {
            // SAFETY: As in `fault`, for each of them: so many there are.
            Some(pfn) => unsafe { fault.insert_pfn(pfn) },
            None => HugeFaultAnswer::FALLBACK,
        }
    }
}
