// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Shared anonymous memory: `shmem_zero_setup`, `shmem_acct_size`, `shmem_unacct_size` (mm/shmem.c). Each
//! mapping makes an object, which is charged as a whole and is gone with the last of its areas.
//!
//! The names are those of 7.2, and 2.6.11 had them already.

use alloc::collections::BTreeMap;

use crate::{AddressSpace, Container, Errno, Object, Vma};

/// An object that no file of the run is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shmem {
    /// How many pages it has.
    pub(crate) pages: u64,
    /// For how many it was charged.
    pub(crate) charged: u64,
    /// How many areas map it.
    areas: u64,
}

/// All of them, by their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    next: u32,
    known: BTreeMap<u32, Shmem>,
}

impl Objects {
    /// A new one, which no area maps yet.
    pub(crate) fn create(&mut self, pages: u64, charged: u64) -> Object {
        let number = self.next;
        self.next += 1;
        let object = Shmem {
            pages,
            charged,
            areas: 0,
        };
        self.known.insert(number, object);
        Object::Shmem(number)
    }

    /// That number is taken, by an object of which nothing else is known.
    pub(crate) fn avoid(&mut self, number: u32) {
        self.next = self.next.max(number.saturating_add(1));
    }

    /// How many pages it has, if that is known.
    pub(crate) fn pages(&self, number: u32) -> Option<u64> {
        self.known.get(&number).map(|object| object.pages)
    }

    /// What all of them are charged.
    pub(crate) fn charged(&self) -> u64 {
        self.known.values().map(|object| object.charged).sum()
    }

    /// One more area maps it, if it is one.
    #[inline]
    pub(crate) fn gain(&mut self, object: Object) {
        if let Object::Shmem(number) = object {
            if let Some(object) = self.known.get_mut(&number) {
                object.areas += 1;
            }
        }
    }

    /// An area maps it no more, if it is one. Gives the charge that goes with the last.
    #[inline]
    pub(crate) fn lose(&mut self, object: Object) -> u64 {
        match object {
            Object::Shmem(number) => self.lose_one(number),
            _ => 0,
        }
    }

    fn lose_one(&mut self, number: u32) -> u64 {
        let Some(object) = self.known.get_mut(&number) else {
            return 0;
        };
        object.areas = object.areas.saturating_sub(1);
        if object.areas > 0 {
            return 0;
        }
        let charged = object.charged;
        self.known.remove(&number);
        charged
    }

    /// Nothing was mapped of it after all.
    pub(crate) fn forget_unused(&mut self, object: Object) {
        if let Object::Shmem(number) = object {
            if self
                .known
                .get(&number)
                .is_some_and(|object| object.areas == 0)
            {
                self.known.remove(&number);
            }
        }
    }

    /// What a child maps of them, which has nothing to give back: the parent has them, too.
    pub(crate) fn of_child<'a>(&self, areas: impl Iterator<Item = &'a Vma>) -> Self {
        let mut child = Self {
            next: self.next,
            known: BTreeMap::new(),
        };
        for vma in areas {
            let Object::Shmem(number) = vma.object else {
                continue;
            };
            if let Some(&object) = self.known.get(&number) {
                let copy = Shmem {
                    charged: 0,
                    areas: 0,
                    ..object
                };
                child.known.entry(number).or_insert(copy).areas += 1;
            }
        }
        child
    }
}

impl<C: Container> AddressSpace<C> {
    /// `shmem_zero_setup`: every shared anonymous mapping is a new object.
    pub(crate) fn shmem_zero_setup(&mut self, new: &mut Vma, reserve: bool) -> Result<(), Errno> {
        let pages = new.pages();
        let charged = if reserve { pages } else { 0 };
        if reserve {
            self.charge(pages)?;
        }
        new.object = self.shmem.create(pages, charged);
        Ok(())
    }
}
