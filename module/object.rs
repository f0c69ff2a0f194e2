// SPDX-License-Identifier: GPL-2.0-only

//! The memory object behind each open of the node.
//!
//! An object is a [`PageCache`] and its counts. The open file holds a reference to it, and so does each
//! area; each area also holds the open file, and the file holds the module. So the object lives
//! until the last descriptor and the last area are gone, and its pages go with it.
//!
//! It adds no lock to those of the page cache but that of the rules, for which see `steer.rs`: the counts are
//! atomic, and the seals change under the lock of the cache only.

use crate::{
    folio::{Alloc, Folio, LockedFolio},
    hook::{
        Answer,
        Call,
        Hook, //
    },
    module_parameters,
    objects,
    page_cache::{self, Account, Frame, Locked, PageCache},
    shrinker::{self, Scanned, Shrinker},
    stats::Stats,
    steer::Rules,
    trace,
    uapi::*,
    watch::Watchers, //
};
use core::{cmp::Ordering, ops::Range};
use kernel::{
    ffi,
    iov::{IovIterDest, IovIterSource},
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        Arc, //
    },
};

/// The sum of [`Object::ahead`].
static AHEAD: Atomic<usize> = Atomic::new(0);

/// The shrinker: pages that were allocated ahead, and that nobody has used since.
pub(crate) struct Ahead;

impl Shrinker for Ahead {
    const NAME: &'static CStr = c"vmalab";
    // They are zeros.
    const SEEKS: ffi::c_int = 0;

    fn count() -> usize {
        AHEAD.load(Relaxed)
    }

    fn scan(wanted: usize) -> Scanned {
        let done = objects::drop_unused(wanted);
        shrinker::accounted(done.freed);
        done
    }
}

/// The number of the object that was made last.
static LAST: Atomic<u64> = Atomic::new(0);

/// Pages are mapped as such.
const PAGES: u32 = 1;
/// Pages are mapped by their frame numbers.
const FRAMES: u32 = 2;

/// A memory object.
pub(crate) struct Object {
    /// By which it is known; no other object ever has it.
    number: u64,
    cache: PageCache,
    stats: Stats,
    watchers: Arc<Watchers>,
    /// How many pages were allocated ahead and have not been looked at by the shrinker yet: at most. It is
    /// larger if some were removed in other ways.
    ahead: Atomic<usize>,
    /// Where the shrinker goes on.
    next_ahead: Atomic<usize>,
    /// `VMALAB_SEAL_*`. Bits are only ever added, under the lock of the cache. What that lock protects
    /// looks at them under it; a new area, under the mmap lock: see [`add_seals`](Self::add_seals).
    seals: Atomic<u32>,
    /// The optional hooks that areas from now on are to have, as a mask. It orders nothing.
    hooks: Atomic<u64>,
    /// The order of the folios in which pages from now on are allocated. It orders nothing either.
    folio_order: Atomic<u32>,
    /// The flags that areas from now on get, as `enum vmalab_area_flags` has them. It orders nothing.
    area: Atomic<u64>,
    rules: Rules,
    /// How pages are mapped: 0 as long as none was, then [`PAGES`] or [`FRAMES`] for good. It orders nothing.
    mapped: Atomic<u32>,
}

impl Object {
    /// Makes an object without a page, of the size that the module's parameter `object_size` says.
    ///
    /// # Errors
    ///
    /// ENOSPC if there are as many objects as the module's parameter `max_objects` allows, EFBIG if the
    /// parameters contradict each other, EINVAL if `folio_size` is no size of a folio, ENOMEM.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let number = LAST.fetch_add(1, Relaxed) + 1;
        let object = Self {
            number,
            cache: PageCache::new()?,
            stats: Stats::new(),
            watchers: Watchers::new(number)?,
            ahead: Atomic::new(0),
            next_ahead: Atomic::new(0),
            seals: Atomic::new(0),
            hooks: Atomic::new(0),
            folio_order: Atomic::new(folio_order(*module_parameters::folio_size.value())?),
            area: Atomic::new(0),
            rules: Rules::new()?,
            mapped: Atomic::new(0),
        };
        let max = match *module_parameters::max_objects.value() {
            0 => u64::MAX,
            max => max,
        };
        if !object.stats.add_up_to(|s| &s.objects, 1, max) {
            return Err(ENOSPC);
        }
        // From here on, whatever fails drops it, which takes this back.
        object.set_size(*module_parameters::object_size.value())?;
        Ok(Arc::new(object, GFP_KERNEL_ACCOUNT)?)
    }

    /// By which it is known; no other object ever has it.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Its counts.
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Each call of a hook passes here: it is counted, and `answer` does what is to be done, unless a rule
    /// answers in its place. `call` says more about it, if somebody wants to know.
    pub(crate) fn on<R: Answer>(
        &self,
        hook: Hook,
        call: impl FnOnce() -> Call,
        answer: impl FnOnce() -> R,
    ) -> R {
        self.stats.count(hook);
        // Without it, what recording costs while nobody watches can be measured (tests/bench-device).
        let watched = cfg!(not(vmalab_no_recording)) && self.watchers.want(hook);
        let told = watched || cfg!(not(vmalab_no_recording)) && trace::is_on();
        let steered = self.rules.steer(hook);
        let call = (told || steered).then(call);
        let decided = match &call {
            Some(call) if steered => self.rules.decide(call),
            _ => None,
        };
        // In one place only, so that it becomes a part of the caller's code.
        let answer = match decided {
            Some(decided) => decided,
            None => answer(),
        };
        match &call {
            Some(call) if told => self.tell(call, answer.code(), watched),
            _ => {}
        }
        answer
    }

    /// Tells those who watch, if somebody does, or trace of a call and its result.
    #[cold]
    fn tell(&self, call: &Call, result: i32, watched: bool) {
        let mut event = call.event(result);
        if watched {
            self.watchers.record(&mut event);
        }
        trace::hook(self.number, &event);
    }

    /// Those who watch it.
    pub(crate) fn watchers(&self) -> &Arc<Watchers> {
        &self.watchers
    }

    /// The rules for its hooks.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Pages are about to be mapped, by their frame numbers or not. It is the one or the other for all areas,
    /// as long as the object lives: see the top of `page_cache.rs`.
    ///
    /// # Errors
    ///
    /// EBUSY if it is the other.
    pub(crate) fn map_by_frame(&self, frames: bool) -> Result {
        let wanted = if frames { FRAMES } else { PAGES };
        match self.mapped.cmpxchg(0, wanted, Relaxed) {
            Err(other) if other != wanted => Err(EBUSY),
            _ => Ok(()),
        }
    }

    /// The flags that areas from now on get, as `enum vmalab_area_flags` has them.
    pub(crate) fn area(&self) -> u64 {
        self.area.load(Relaxed)
    }

    /// Changes what [`area`](Self::area) says; areas that are there stay as they are.
    pub(crate) fn set_area(&self, flags: u64) {
        self.area.store(flags, Relaxed);
    }

    /// Whether areas from now on are to have an optional hook.
    pub(crate) fn wants(&self, hook: Hook) -> bool {
        self.hooks.load(Relaxed) & 1 << hook as u32 != 0
    }

    /// Which optional hooks areas from now on are to have: a mask, as in `uapi/vmalab.h`.
    pub(crate) fn optional_hooks(&self) -> u64 {
        self.hooks.load(Relaxed)
    }

    /// Changes what [`wants`](Self::wants) says; areas that are there stay as they are.
    pub(crate) fn set_hooks(&self, hooks: u64) {
        self.hooks.store(hooks, Relaxed);
    }

    /// The size of the folios in which pages from now on are allocated, in bytes.
    pub(crate) fn folio_size(&self) -> u64 {
        (PAGE_SIZE as u64) << self.folio_order.load(Relaxed)
    }

    /// Whether a page from now on comes with all those for which one entry of the page table can stand.
    pub(crate) fn has_huge_pages(&self) -> bool {
        self.folio_order.load(Relaxed) == Folio::MAX_ORDER
    }

    /// Changes the size of folios, in bytes, or to that of a fresh object, if it is 0; those that are
    /// there stay as they are.
    ///
    /// # Errors
    ///
    /// EINVAL unless it is a power of two, from one page to as many as one entry of the page table can
    /// stand for.
    pub(crate) fn set_folio_size(&self, bytes: u64) -> Result {
        let bytes = if bytes == 0 {
            *module_parameters::folio_size.value()
        } else {
            bytes
        };
        self.folio_order.store(folio_order(bytes)?, Relaxed);
        Ok(())
    }

    /// Its pages.
    pub(crate) fn cache(&self) -> &PageCache {
        &self.cache
    }

    /// Its size in bytes: whole pages.
    pub(crate) fn size(&self) -> u64 {
        self.cache.size()
    }

    /// Changes its size to `bytes`, rounded up to whole pages. Pages past the new end are freed and
    /// taken out of every area when this returns.
    ///
    /// # Errors
    ///
    /// EFBIG if it is larger than the module's parameter `max_object_size`, EPERM if it is sealed
    /// against that.
    pub(crate) fn set_size(&self, bytes: u64) -> Result {
        let size = size_for(bytes)?;
        let cache = self.cache.lock();
        self.check_size(&cache, size)?;
        cache.resize(size, self)
    }

    /// Whether the seals allow this size.
    fn check_size(&self, cache: &Locked<'_>, size: u64) -> Result {
        let forbidden = match size.cmp(&cache.size()) {
            Ordering::Less => VMALAB_SEAL_SHRINK,
            Ordering::Equal => 0,
            Ordering::Greater => VMALAB_SEAL_GROW,
        };
        self.check_seals(forbidden)
    }

    /// Whether none of these seals is set.
    fn check_seals(&self, forbidden: u32) -> Result {
        if self.seals() & forbidden != 0 {
            return Err(EPERM);
        }
        Ok(())
    }

    /// What can no longer be done with it: `VMALAB_SEAL_*`.
    pub(crate) fn seals(&self) -> u32 {
        self.seals.load(Acquire)
    }

    /// Whether it can no longer be written to, in other ways than through areas that are there.
    pub(crate) fn is_write_sealed(&self) -> bool {
        self.seals() & WRITE_SEALS != 0
    }

    /// Adds seals; as `memfd_add_seals` in the kernel.
    ///
    /// A new shared area that is writable, or can become so, is counted by the kernel before the mmap
    /// handler looks at the seals, and the kernel refuses to count one while that is denied. So either the
    /// count is seen here, or the seal is seen there.
    ///
    /// # Errors
    ///
    /// EPERM if it is sealed against that. EBUSY if it is to be sealed against writing, and somebody can
    /// write to it without asking again.
    pub(crate) fn add_seals(&self, seals: u32) -> Result {
        let cache = self.cache.lock();
        self.check_seals(VMALAB_SEAL_SEAL)?;

        let _denied = if seals & !self.seals() & VMALAB_SEAL_WRITE != 0 {
            let denied = cache.deny_writable()?;
            if cache.has_pinned_pages() {
                return Err(EBUSY);
            }
            Some(denied)
        } else {
            None
        };
        self.seals.store(self.seals() | seals, Release);
        Ok(())
    }

    /// Frees the bytes of `range`: see [`Locked::punch_hole`].
    ///
    /// # Errors
    ///
    /// EPERM if it is sealed against writing.
    pub(crate) fn punch_hole(&self, range: Range<u64>) -> Result {
        let cache = self.cache.lock();
        self.check_seals(WRITE_SEALS)?;
        cache.punch_hole(range, self);
        Ok(())
    }

    /// Adds the pages that `range` touches, and grows as far as needed, if `grow` says so; if not, nothing
    /// is done past the end. See [`Locked::allocate`].
    ///
    /// # Errors
    ///
    /// Those of [`set_size`](Self::set_size); ENOSPC if there are as many pages as `max_pages` allows;
    /// ENOMEM, EINTR.
    pub(crate) fn allocate(&self, mut range: Range<u64>, grow: bool) -> Result {
        let cache = self.cache.lock();
        if grow && range.end > cache.size() {
            let size = size_for(range.end)?;
            self.check_size(&cache, size)?;
            cache.allocate(range, self, || self.count_ahead(1))?;
            cache.resize(size, self)
        } else {
            range.end = range.end.min(cache.size());
            cache.allocate(range, self, || self.count_ahead(1))
        }
    }

    fn count_ahead(&self, pages: usize) {
        self.ahead.add(pages, Relaxed);
        AHEAD.add(pages, Relaxed);
    }

    /// Looks at `wanted` pages that were allocated ahead, or fewer, and frees those that nobody has used
    /// since: see [`PageCache::drop_unused`].
    pub(crate) fn drop_unused(&self, wanted: usize) -> Scanned {
        let left = self.ahead.load(Relaxed);
        if left == 0 {
            return Scanned::default();
        }
        let first = self.next_ahead.load(Relaxed);
        let Some(done) = self.cache.drop_unused(first, wanted, self) else {
            return Scanned::default();
        };
        self.next_ahead.store(done.next, Relaxed);
        let settled = if first == 0 && done.next == 0 {
            // These were all: those that are not among them have gone in another way.
            left - (done.scanned - done.removed - done.used).min(left)
        } else {
            (done.removed + done.used).min(left)
        };
        self.count_ahead(settled.wrapping_neg());
        Scanned {
            scanned: done.scanned,
            freed: done.removed,
        }
    }

    /// Copies bytes from `at` on into `to`, up to the end, and says how many: see [`PageCache::read`].
    pub(crate) fn read(&self, at: u64, to: &mut IovIterDest<'_>) -> Result<usize> {
        self.cache.read(at, to)
    }

    /// Copies bytes from `from` to `at` on, and says how many; the end of the object ends it, or an error
    /// after the first byte. Two writes to one page do not mix, those to several pages may.
    ///
    /// # Errors
    ///
    /// ENOSPC at the end and past it, and if there are as many pages as `max_pages` allows; EPERM if it is
    /// sealed against writing; ENOMEM, EFAULT, EINTR.
    pub(crate) fn write(&self, at: u64, from: &mut IovIterSource<'_>) -> Result<usize> {
        let mut done = 0;
        while !from.is_empty() {
            let mut step = || {
                page_cache::fault_in(from)?;
                let cache = self.cache.lock();
                self.check_seals(WRITE_SEALS)?;
                cache.write(at + done as u64, from, self)
            };
            match step() {
                Ok(copied) => done += copied,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// The folio with the page at `index` (an offset in pages), locked; a new one, zeroed and charged to
    /// the memory cgroup of the running task, if it was not there.
    ///
    /// # Errors
    ///
    /// ENXIO past the end, ENOSPC if there are as many pages as `max_pages` allows, ENOMEM.
    pub(crate) fn page(&self, index: usize, how: Alloc<'_>) -> Result<LockedFolio> {
        self.cache.lock_page(index, how, self)
    }

    /// The same page, to be mapped by its frame number.
    ///
    /// # Errors
    ///
    /// As [`page`](Self::page).
    pub(crate) fn frame(&self, index: usize, how: Alloc<'_>) -> Result<Frame<'_>> {
        self.cache.frame(index, how, self)
    }
}

/// Pages are counted, and may be as many as the module's parameter `max_pages` says, in all objects: as many
/// as half of the memory, if it says nothing, as a tmpfs (`shmem_default_max_blocks`).
impl Account for Object {
    fn folio_order(&self) -> u32 {
        // A frame is mapped alone: see the top of `page_cache.rs`.
        if self.mapped.load(Relaxed) == FRAMES {
            return 0;
        }
        self.folio_order.load(Relaxed)
    }

    fn charge(&self, pages: usize) -> Result {
        let max = match *module_parameters::max_pages.value() {
            0 => (shrinker::memory() / 2) as u64,
            max => max,
        };
        if self.stats.add_up_to(|s| &s.pages, pages as u64, max) {
            Ok(())
        } else {
            Err(ENOSPC)
        }
    }

    fn uncharge(&self, pages: usize) {
        self.stats.sub(|s| &s.pages, pages as u64);
    }
}

/// What writes to an object in other ways than through areas that are there.
const WRITE_SEALS: u32 = VMALAB_SEAL_WRITE | VMALAB_SEAL_FUTURE_WRITE;

/// The size of an object of so many bytes: whole pages.
fn size_for(bytes: u64) -> Result<u64> {
    if bytes > *module_parameters::max_object_size.value() {
        return Err(EFBIG);
    }
    bytes
        .checked_next_multiple_of(PAGE_SIZE as u64)
        .ok_or(EFBIG)
}

impl Drop for Object {
    fn drop(&mut self) {
        self.watchers.finish();
        // Its pages go right after this.
        self.stats.sub(|s| &s.pages, self.stats.pages.get());
        self.stats.sub(|s| &s.objects, self.stats.objects.get());
        AHEAD.add(self.ahead.load(Relaxed).wrapping_neg(), Relaxed);
    }
}

/// The order of folios of `bytes`.
///
/// # Errors
///
/// EINVAL if there are none of this size.
pub(crate) fn folio_order(bytes: u64) -> Result<u32> {
    let pages = bytes / PAGE_SIZE as u64;
    if !bytes.is_power_of_two() || pages == 0 || pages > 1 << Folio::MAX_ORDER {
        return Err(EINVAL);
    }
    Ok(pages.ilog2())
}
