// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Failing`]: a container that runs out of memory on request.

use core::ops::Range;

use super::{BTree, Container, Gap, OutOfMemory};
use crate::Vma;

/// A container in which a chosen reservation fails, as an allocation does in the kernel under fault
/// injection (`fail-nth`).
///
/// ```
/// use vmalab_model::{Container, Failing};
///
/// let mut areas: Failing = Failing::default();
/// areas.fail_nth(2);
/// assert!(areas.reserve().is_ok());
/// assert!(areas.reserve().is_err());
/// assert!(areas.reserve().is_ok());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Failing<C = BTree> {
    inner: C,
    /// How many reservations from now on the one is that fails; 0: none.
    countdown: u64,
}

impl<C> Failing<C> {
    /// The `n`-th reservation from now on fails, and no other; 0: none does.
    pub fn fail_nth(&mut self, n: u64) {
        self.countdown = n;
    }

    /// Whether the reservation that is to fail is still to come.
    pub fn is_armed(&self) -> bool {
        self.countdown > 0
    }
}

impl<C: Container> Container for Failing<C> {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn reserve(&mut self) -> Result<(), OutOfMemory> {
        if self.countdown > 0 {
            self.countdown -= 1;
            if self.countdown == 0 {
                return Err(OutOfMemory);
            }
        }
        self.inner.reserve()
    }

    fn find(&self, addr: u64) -> Option<&Vma> {
        self.inner.find(addr)
    }

    fn prev(&self, addr: u64) -> Option<&Vma> {
        self.inner.prev(addr)
    }

    fn insert(&mut self, vma: Vma) {
        self.inner.insert(vma);
    }

    fn replace(&mut self, start: u64, vma: Vma) {
        self.inner.replace(start, vma);
    }

    fn split(&mut self, lower: Vma, upper: Vma) {
        self.inner.split(lower, upper);
    }

    fn join(&mut self, vma: Vma) {
        self.inner.join(vma);
    }

    fn remove_range(&mut self, range: Range<u64>) {
        self.inner.remove_range(range);
    }

    fn iter_from(&self, addr: u64) -> impl DoubleEndedIterator<Item = &Vma> {
        self.inner.iter_from(addr)
    }

    fn iter_below(&self, addr: u64) -> impl Iterator<Item = &Vma> {
        self.inner.iter_below(addr)
    }

    fn gaps_from(&self, addr: u64, len: u64) -> impl Iterator<Item = Gap<'_>> {
        self.inner.gaps_from(addr, len)
    }

    fn gaps_below(&self, addr: u64, len: u64) -> impl Iterator<Item = Gap<'_>> {
        self.inner.gaps_below(addr, len)
    }
}
