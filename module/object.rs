// SPDX-License-Identifier: GPL-2.0-only

//! The memory object behind each open of the node.
//!
//! An object is a [`PageCache`] and its counts. The open file holds a reference to it, and so does each
//! area; each area also holds the open file, and the file holds the module. So the object lives
//! until the last descriptor and the last area are gone, and its pages go with it.
//!
//! It adds no lock to those of the page cache: the counts are atomic.

use crate::{
    folio::LockedFolio,
    hook::{
        Answer,
        Call,
        Hook, //
    },
    module_parameters,
    page_cache::{self, Account, PageCache},
    stats::Stats,
};
use kernel::{
    bindings,
    iov::{IovIterDest, IovIterSource},
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, //
    },
};

/// A memory object.
pub(crate) struct Object {
    cache: PageCache,
    stats: Stats,
    /// 1 if areas from now on are to have the hook `page_mkwrite`. It orders nothing.
    tracks_writes: Atomic<u32>,
}

impl Object {
    /// Makes an object without a page, of the size that the module's parameter `object_size` says.
    ///
    /// # Errors
    ///
    /// ENOSPC if there are as many objects as the module's parameter `max_objects` allows, EFBIG if the
    /// parameters contradict each other, ENOMEM.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let object = Self {
            cache: PageCache::new()?,
            stats: Stats::new(),
            tracks_writes: Atomic::new(0),
        };
        let max = limit(*module_parameters::max_objects.value());
        if !object.stats.add_up_to(|s| &s.objects, 1, max) {
            return Err(ENOSPC);
        }
        // From here on, whatever fails drops it, which takes this back.
        object.set_size(*module_parameters::object_size.value())?;
        Ok(Arc::new(object, GFP_KERNEL_ACCOUNT)?)
    }

    /// Its counts.
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Each call of a hook passes here: it is counted, and `answer` does what is to be done. `call` says
    /// more about it, if somebody wants to know.
    pub(crate) fn on<R: Answer>(
        &self,
        hook: Hook,
        _call: impl FnOnce() -> Call,
        answer: impl FnOnce() -> R,
    ) -> R {
        self.stats.count(hook);
        answer()
    }

    /// Whether areas from now on are to have the hook `page_mkwrite`.
    pub(crate) fn tracks_writes(&self) -> bool {
        self.tracks_writes.load(Relaxed) != 0
    }

    /// Changes what [`tracks_writes`](Self::tracks_writes) says; areas that are there stay as they are.
    pub(crate) fn track_writes(&self, yes: bool) {
        self.tracks_writes.store(yes.into(), Relaxed);
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
    /// EFBIG if it is larger than the module's parameter `max_object_size`.
    pub(crate) fn set_size(&self, bytes: u64) -> Result {
        if bytes > *module_parameters::max_object_size.value() {
            return Err(EFBIG);
        }
        let size = bytes
            .checked_next_multiple_of(PAGE_SIZE as u64)
            .ok_or(EFBIG)?;
        self.cache.lock().resize(size, self)
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
    /// ENOSPC at the end and past it, and if there are as many pages as `max_pages` allows; ENOMEM,
    /// EFAULT, EINTR.
    pub(crate) fn write(&self, at: u64, from: &mut IovIterSource<'_>) -> Result<usize> {
        let mut done = 0;
        while !from.is_empty() {
            let step = page_cache::fault_in(from)
                .and_then(|()| self.cache.lock().write(at + done as u64, from, self));
            match step {
                Ok(copied) => done += copied,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// The page at `index` (an offset in pages), locked; a new one, zeroed and charged to the memory
    /// cgroup of the running task, if it was not there.
    ///
    /// # Errors
    ///
    /// ENXIO past the end, ENOSPC if there are as many pages as `max_pages` allows, ENOMEM.
    pub(crate) fn page(&self, index: usize, gfp: bindings::gfp_t) -> Result<LockedFolio> {
        self.cache.lock_page(index, gfp, self)
    }
}

/// Pages are counted, and may be as many as the module's parameter `max_pages` says, in all objects.
impl Account for Object {
    fn charge(&self, pages: usize) -> Result {
        let max = limit(*module_parameters::max_pages.value());
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

/// The largest number that a parameter allows, of which 0 means that there is none.
fn limit(parameter: u64) -> u64 {
    if parameter == 0 {
        u64::MAX
    } else {
        parameter
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // Its pages go right after this.
        self.stats.sub(|s| &s.pages, self.stats.pages.get());
        self.stats.sub(|s| &s.objects, self.stats.objects.get());
    }
}
