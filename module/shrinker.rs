// SPDX-License-Identifier: GPL-2.0-only

//! Shrinkers: what a driver gives back when the system needs memory.
//!
//! C header: [`include/linux/shrinker.h`](srctree/include/linux/shrinker.h)
//!
//! The kernel asks in the middle of an allocation, in whatever task that is, and whatever locks that task
//! holds. So a shrinker must not allocate memory, and not wait for a lock under which anybody does; it may
//! try to take it.

use crate::helpers;
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{bindings, ffi, prelude::*};

/// What can be given back.
pub(crate) trait Shrinker: 'static {
    /// How it is called in `/sys/kernel/debug/shrinker/`.
    const NAME: &'static CStr;

    /// What it takes to make one anew: 0 if no I/O (`struct shrinker`, `seeks`). Of those, the kernel has half of
    /// all looked at whenever it is short of memory, of others a few at first. And it may kill somebody before
    /// it comes to the rest, since what a shrinker could free it does not count as memory that can be reclaimed
    /// (`zone_reclaimable_pages`).
    const SEEKS: ffi::c_int;

    /// About how many things could be freed. It is asked often: it should look at a number.
    fn count() -> usize;

    /// Looks at `wanted` things, or about as many, and frees those that can be freed. Whole pages are to be
    /// [`accounted`] for.
    fn scan(wanted: usize) -> Scanned;
}

/// What a shrinker has done.
#[derive(Default)]
pub(crate) struct Scanned {
    /// How many things it has looked at: none if it cannot do anything now.
    pub(crate) scanned: usize,
    /// How many of them it has freed.
    pub(crate) freed: usize,
}

/// Tells who reclaims memory in this task that so many pages were freed, which do not come from the slab:
/// else it does not see that there is progress, and has a process killed (`mm_account_reclaimed_pages`).
pub(crate) fn accounted(pages: usize) {
    // SAFETY: It looks at the running task only.
    unsafe { helpers::vmalab_account_reclaimed(pages) };
}

/// How many pages the memory of the system has: what can be given to programs at most.
pub(crate) fn memory() -> usize {
    // SAFETY: It reads a number.
    unsafe { helpers::vmalab_totalram_pages() }
}

/// A shrinker, registered as long as this lives.
///
/// # Invariants
///
/// The pointer is from `shrinker_alloc`, and registered.
pub(crate) struct Registration<T: Shrinker>(NonNull<bindings::shrinker>, PhantomData<fn() -> T>);

// SAFETY: A shrinker may be removed by another thread than the one that registered it.
unsafe impl<T: Shrinker> Send for Registration<T> {}
// SAFETY: There is nothing that can be done through a shared reference.
unsafe impl<T: Shrinker> Sync for Registration<T> {}

impl<T: Shrinker> Registration<T> {
    /// Registers the shrinker.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn register() -> Result<Self> {
        // SAFETY: The format takes one string, and that is what it gets.
        let raw =
            unsafe { bindings::shrinker_alloc(0, c"%s".as_char_ptr(), T::NAME.as_char_ptr()) };
        let shrinker = NonNull::new(raw).ok_or(ENOMEM)?;
        // SAFETY: It is new, and nobody else knows it before it is registered. The functions are of this
        // module, which removes it before it goes.
        unsafe {
            (*raw).count_objects = Some(Self::count);
            (*raw).scan_objects = Some(Self::scan);
            (*raw).seeks = T::SEEKS;
            bindings::shrinker_register(raw);
        }
        // INVARIANT: It is registered now.
        Ok(Self(shrinker, PhantomData))
    }

    /// # Safety
    ///
    /// Called by the kernel as `shrinker.count_objects`.
    unsafe extern "C" fn count(
        _shrinker: *mut bindings::shrinker,
        _control: *mut bindings::shrink_control,
    ) -> ffi::c_ulong {
        // The two largest numbers mean something else, and there cannot be as many.
        T::count().min(isize::MAX as usize)
    }

    /// # Safety
    ///
    /// Called by the kernel as `shrinker.scan_objects`.
    unsafe extern "C" fn scan(
        _shrinker: *mut bindings::shrinker,
        control: *mut bindings::shrink_control,
    ) -> ffi::c_ulong {
        // SAFETY: The kernel passes a valid structure, which is ours for this call.
        let control = unsafe { &mut *control };
        let done = T::scan(control.nr_to_scan);
        if done.scanned == 0 {
            // SHRINK_STOP: not now.
            return ffi::c_ulong::MAX;
        }
        control.nr_scanned = done.scanned;
        done.freed
    }
}

impl<T: Shrinker> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, it is registered. This waits for calls that are under way.
        unsafe { bindings::shrinker_free(self.0.as_ptr()) };
    }
}
