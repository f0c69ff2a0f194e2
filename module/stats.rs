// SPDX-License-Identifier: GPL-2.0-only

//! What is alive, and how often each hook was called: per object, and for the whole module.

use crate::uapi::vmalab_stats;
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

    /// Where the count is, for debugfs to read.
    pub(crate) const fn as_ptr(&self) -> *mut u64 {
        self.0.as_ptr()
    }
}

/// All counts of one scope. The first three go up and down, the others up only.
pub(crate) struct Stats {
    /// Live objects.
    pub(crate) objects: Counter,
    /// Live areas that map them.
    pub(crate) areas: Counter,
    /// Pages that they hold.
    pub(crate) pages: Counter,
    /// Calls of the mmap handler, `.mmap` or `.mmap_prepare`.
    pub(crate) mmap: Counter,
    /// Calls of the hook `open`.
    pub(crate) open: Counter,
    /// Calls of the hook `close`.
    pub(crate) close: Counter,
    /// Calls of the hook `may_split`.
    pub(crate) may_split: Counter,
    /// Calls of the hook `fault`.
    pub(crate) fault: Counter,
    /// Calls of the hook `mapped`.
    pub(crate) mapped: Counter,
    /// Calls of the hook `mremap`.
    pub(crate) mremap: Counter,
    /// Calls of the hook `mprotect`.
    pub(crate) mprotect: Counter,
    /// Calls of the hook `map_pages`.
    pub(crate) map_pages: Counter,
    /// Calls of the hook `page_mkwrite`.
    pub(crate) page_mkwrite: Counter,
}

impl Stats {
    /// All zero.
    pub(crate) const fn new() -> Self {
        Self {
            objects: Counter::new(),
            areas: Counter::new(),
            pages: Counter::new(),
            mmap: Counter::new(),
            open: Counter::new(),
            close: Counter::new(),
            may_split: Counter::new(),
            fault: Counter::new(),
            mapped: Counter::new(),
            mremap: Counter::new(),
            mprotect: Counter::new(),
            map_pages: Counter::new(),
            page_mkwrite: Counter::new(),
        }
    }

    /// Each count with its name in debugfs.
    pub(crate) fn each(&self) -> [(&'static CStr, &Counter); 13] {
        [
            (c"objects", &self.objects),
            (c"areas", &self.areas),
            (c"pages", &self.pages),
            (c"n_mmap", &self.mmap),
            (c"n_open", &self.open),
            (c"n_close", &self.close),
            (c"n_may_split", &self.may_split),
            (c"n_fault", &self.fault),
            (c"n_mapped", &self.mapped),
            (c"n_mremap", &self.mremap),
            (c"n_mprotect", &self.mprotect),
            (c"n_map_pages", &self.map_pages),
            (c"n_page_mkwrite", &self.page_mkwrite),
        ]
    }

    /// Adds to one of the counts, here and in the module's.
    pub(crate) fn add(&self, count: fn(&Self) -> &Counter, n: u64) {
        for stats in [self, &MODULE] {
            count(stats).0.add(n, Relaxed);
        }
    }

    /// Takes away from one of the counts, here and in the module's.
    pub(crate) fn sub(&self, count: fn(&Self) -> &Counter, n: u64) {
        self.add(count, n.wrapping_neg());
    }

    /// All counts, one after the other: while others count on, they need not fit together.
    pub(crate) fn read_into(&self, out: &mut vmalab_stats) {
        out.objects = self.objects.get();
        out.areas = self.areas.get();
        out.pages = self.pages.get();
        out.n_mmap = self.mmap.get();
        out.n_open = self.open.get();
        out.n_close = self.close.get();
        out.n_may_split = self.may_split.get();
        out.n_fault = self.fault.get();
        out.n_mapped = self.mapped.get();
        out.n_mremap = self.mremap.get();
        out.n_mprotect = self.mprotect.get();
        out.n_map_pages = self.map_pages.get();
        out.n_page_mkwrite = self.page_mkwrite.get();
    }
}
