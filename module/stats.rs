// SPDX-License-Identifier: GPL-2.0-only

//! What is alive, and how often each hook was called: per object, and for the whole module.

use crate::{
    hook::Hook,
    uapi::vmalab_stats, //
};
use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

/// The counts of the whole module, since it was loaded.
pub(crate) static MODULE: Stats = Stats::new();

/// A count. It says how many, and orders nothing: hence the relaxed accesses.
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// The count now.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Adds to the count, if that does not make it larger than `max`; says whether it did.
    fn add_up_to(&self, n: u64, max: u64) -> bool {
        let mut old = self.get();
        loop {
            // What does not fit is never in the count, not even for a moment: it would keep out what does.
            let new = match old.checked_add(n) {
                Some(new) if new <= max => new,
                _ => return false,
            };
            match self.0.cmpxchg(old, new, Relaxed) {
                Ok(_) => return true,
                Err(other) => old = other,
            }
        }
    }

    /// Where the count is, for debugfs to read.
    pub(crate) const fn as_ptr(&self) -> *mut u64 {
        self.0.as_ptr()
    }
}

/// All counts of one scope.
pub(crate) struct Stats {
    /// Live objects.
    pub(crate) objects: Counter,
    /// Live areas that map them.
    pub(crate) areas: Counter,
    /// Pages that they hold.
    pub(crate) pages: Counter,
    /// Calls of each hook, by its number. These only go up.
    calls: [Counter; Hook::ALL.len()],
}

impl Stats {
    /// All zero.
    pub(crate) const fn new() -> Self {
        Self {
            objects: Counter::new(),
            areas: Counter::new(),
            pages: Counter::new(),
            calls: [const { Counter::new() }; Hook::ALL.len()],
        }
    }

    /// Each count with its name in debugfs.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'static CStr, &Counter)> {
        let alive = [
            (c"objects", &self.objects),
            (c"areas", &self.areas),
            (c"pages", &self.pages),
        ];
        let names = Hook::ALL.iter().map(|(_, name)| *name);
        Iterator::chain(alive.into_iter(), names.zip(&self.calls))
    }

    /// The counts of calls, with the names that they have in debugfs.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (&'static CStr, u64)> + '_ {
        let names = Hook::ALL.iter().map(|(_, name)| *name);
        names.zip(self.calls.iter().map(Counter::get))
    }

    /// Counts a call of a hook, here and in the module's.
    pub(crate) fn count(&self, hook: Hook) {
        for stats in [self, &MODULE] {
            stats.calls[hook as usize].0.add(1, Relaxed);
        }
    }

    /// Adds to one of the counts of what is alive, here and in the module's.
    pub(crate) fn add(&self, count: fn(&Self) -> &Counter, n: u64) {
        for stats in [self, &MODULE] {
            count(stats).0.add(n, Relaxed);
        }
    }

    /// Takes away from one of the counts of what is alive, here and in the module's.
    pub(crate) fn sub(&self, count: fn(&Self) -> &Counter, n: u64) {
        self.add(count, n.wrapping_neg());
    }

    /// As [`add`](Self::add), if the module's count is not larger than `max` after it; says whether it
    /// did.
    pub(crate) fn add_up_to(&self, count: fn(&Self) -> &Counter, n: u64, max: u64) -> bool {
        let fits = count(&MODULE).add_up_to(n, max);
        if fits {
            count(self).0.add(n, Relaxed);
        }
        fits
    }

    /// All counts, one after the other: while others count on, they need not fit together.
    pub(crate) fn read_into(&self, out: &mut vmalab_stats) {
        out.objects = self.objects.get();
        out.areas = self.areas.get();
        out.pages = self.pages.get();
        for (out, calls) in out.n_calls.iter_mut().zip(&self.calls) {
            *out = calls.get();
        }
    }
}
