// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Contents`]: what pages hold, so that one is seen that moved elsewhere, was zeroed, or leaked.
//!
//! Each operation that writes to memory writes a number of its own to the begin of the page. From what the
//! model predicts (which ranges lose their pages, where a range moves to) follows which number every page
//! has, or none. Pages of files begin with a pattern that says which page of which file it is, so that it is
//! seen if another one is mapped there, too. What cannot be known is not compared: what the kernel may drop when it
//! likes, and a private page of a file that others write to, which may have been copied before.

use std::collections::BTreeMap;
use std::ops::Range;

use vmalab_model::file::Kind;
use vmalab_model::{Advice, Area, FileId, MremapFlags, Object, Op, Outcome, PAGE_SIZE, VmFlags};

use crate::compare::Difference;
use crate::oracle::{NamedFile, Observation};

/// So many operations of a batch have numbers that are known again.
pub(crate) const NUMBERED: usize = 1 << 14;

/// What the operation of that place in its batch writes, if it writes.
pub(crate) const fn number(index: usize) -> u64 {
    // Neither 0 nor what anything else would write.
    (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// What a page of a file holds at the start of a batch: which page it is, and of the file in which place.
pub(crate) const fn pattern(file: usize, page: u64) -> u64 {
    // Neither 0 nor a number of an operation, which are odd.
    (((file as u64 + 1) << 32) | (page + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) << 1
}

/// Which number each page has; `None`: it is not known.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Private pages that were written to, by their addresses. All others are as when they were mapped.
    private: BTreeMap<u64, Option<u64>>,
    /// Pages of objects, by their offsets in them.
    shared: BTreeMap<(Shared, u64), Option<u64>>,
}

/// An object, as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shared {
    Memory(u32),
    File(u16),
}

impl Shared {
    fn of(area: &Area) -> Option<Self> {
        match area.object {
            Object::Shmem(number) => Some(Self::Memory(number)),
            Object::File(id) => Some(Self::File(id.0)),
            Object::Anon | Object::Other => None,
        }
    }
}

fn pages(range: Range<u64>) -> impl Iterator<Item = u64> {
    (range.start..range.end).step_by(PAGE_SIZE as usize)
}

fn area_at(layout: &[Area], page: u64) -> Option<&Area> {
    let after = layout.partition_point(|area| area.end <= page);
    layout.get(after).filter(|area| area.start <= page)
}

/// The range of whole pages, as far as it is one.
fn whole(addr: u64, len: u64) -> Range<u64> {
    let end = addr.saturating_add(len).checked_next_multiple_of(PAGE_SIZE);
    addr..end.unwrap_or(addr)
}

impl Contents {
    /// An operation was predicted to do this, and there were these areas before.
    pub(crate) fn apply(&mut self, index: usize, op: &Op, before: &[Area], outcome: &Outcome) {
        // What may be dropped is dropped when the kernel likes.
        let later = matches!(
            op,
            Op::Madvise {
                advice: Advice::FREE,
                ..
            }
        );
        for range in &outcome.discarded {
            if later {
                self.doubt(range.clone());
            } else {
                self.forget(range);
            }
        }
        let done = outcome.result.is_ok();
        match *op {
            Op::Touch { addr, write: true } if done => {
                let page = addr & !(PAGE_SIZE - 1);
                if let Some(area) = area_at(&outcome.layout, page) {
                    self.write(area, page, Some(number(index)));
                }
            }
            Op::Mremap {
                addr,
                old_len,
                new_len,
                flags,
                new_addr,
            } => match outcome.result {
                Ok(to) => self.rename(whole(addr, old_len.min(new_len)), to),
                // Of several areas some have moved.
                Err(_) => {
                    self.doubt(whole(addr, old_len.max(new_len)));
                    if flags.intersects(MremapFlags::FIXED | MremapFlags::DONTUNMAP) {
                        self.doubt(whole(new_addr, old_len.max(new_len)));
                        let from = self.private.range(whole(addr, old_len));
                        let moved: Vec<_> = from.map(|(page, _)| page - addr).collect();
                        for offset in moved {
                            self.private.insert(new_addr.wrapping_add(offset), None);
                        }
                    }
                }
            },
            Op::Madvise {
                addr,
                len,
                advice: Advice::REMOVE,
            } => {
                let range = whole(addr, len);
                for area in before.iter().filter(|area| shares(area)) {
                    let part = area.start.max(range.start)..area.end.min(range.end);
                    for page in pages(part) {
                        self.write(area, page, done.then_some(0));
                    }
                }
            }
            Op::Fork => {
                let layout = &outcome.layout;
                self.private.retain(|&page, _| {
                    area_at(layout, page)
                        .is_some_and(|area| !area.flags.contains(VmFlags::WIPEONFORK))
                });
            }
            _ => {}
        }
    }

    fn write(&mut self, area: &Area, page: u64, number: Option<u64>) {
        match Shared::of(area).filter(|_| shares(area)) {
            Some(object) => {
                let offset = area.offset + (page - area.start);
                self.shared.insert((object, offset), number);
            }
            None => {
                self.private.insert(page, number);
            }
        }
    }

    /// Private pages go.
    fn forget(&mut self, range: &Range<u64>) {
        while let Some((&page, _)) = self.private.range(range.clone()).next() {
            self.private.remove(&page);
        }
    }

    /// It is not known what became of private pages.
    fn doubt(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        for (_, number) in self.private.range_mut(range) {
            *number = None;
        }
    }

    /// Private pages go elsewhere.
    fn rename(&mut self, range: Range<u64>, to: u64) {
        if range.is_empty() || range.start == to {
            return;
        }
        let moved: Vec<_> = self
            .private
            .range(range.clone())
            .map(|(&p, &n)| (p, n))
            .collect();
        self.forget(&range);
        for (page, number) in moved {
            self.private.insert(to + (page - range.start), number);
        }
    }

    /// What a page holds, if that is known.
    fn expected(&self, area: &Area, page: u64, files: &[NamedFile]) -> Option<u64> {
        if area.flags.contains(VmFlags::DROPPABLE) {
            return None;
        }
        let offset = area.offset + (page - area.start);
        let fresh = match area.object {
            Object::Anon | Object::Shmem(_) => Some(0),
            Object::File(FileId(id)) => {
                let place = usize::from(id);
                let patterned = files.get(place)?.file.kind == Kind::Shmem;
                patterned.then(|| pattern(place, offset / PAGE_SIZE))
            }
            Object::Other => None,
        };
        let private = || self.private.get(&page).copied();
        let Some(object) = Shared::of(area) else {
            return private().unwrap_or(fresh);
        };
        let written = self.shared.get(&(object, offset)).copied();
        if shares(area) {
            return written.unwrap_or(fresh);
        }
        // A private page of an object is a copy once it was written to, which filling memory in does, too.
        private().unwrap_or(if written.is_none() { fresh } else { None })
    }

    /// The first page that holds something else. Counts those that were compared.
    pub(crate) fn compare(
        &self,
        predicted: &Outcome,
        seen: &Observation,
        files: &[NamedFile],
        compared: &mut u64,
    ) -> Option<Difference> {
        seen.contents.iter().find_map(|&(page, observed)| {
            let area = area_at(&predicted.layout, page)?;
            let expected = self.expected(area, page, files)?;
            *compared += 1;
            // To say what a page holds is slow.
            if expected == observed {
                return None;
            }
            let name = format!("contents of the page at {page:#x}");
            Difference::new(name, describe(expected), describe(observed))
        })
    }
}

/// Whether what is written is seen by others who map the object.
fn shares(area: &Area) -> bool {
    area.flags.intersects(VmFlags::SHARED | VmFlags::MAYSHARE)
}

/// Who wrote that.
fn describe(value: u64) -> String {
    const FILES: usize = 8;
    const PAGES: u64 = 4096;
    if value == 0 {
        return "zeros".into();
    }
    if let Some(index) = (0..NUMBERED).find(|&index| number(index) == value) {
        return format!("what operation {index} wrote");
    }
    for file in 0..FILES {
        if let Some(page) = (0..PAGES).find(|&page| pattern(file, page) == value) {
            return format!("page {page} of file {file}");
        }
    }
    format!("{value:#x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmalab_model::File;

    const PAGE: u64 = 0x1_0000;

    fn area(object: Object, flags: VmFlags) -> Area {
        Area {
            start: PAGE,
            end: PAGE + 4 * PAGE_SIZE,
            flags,
            offset: 0,
            object,
            anon_vma: None,
            name: None,
        }
    }

    fn outcome(area: Area) -> Outcome {
        Outcome {
            layout: vec![area],
            ..Outcome::default()
        }
    }

    const WRITE: Op = Op::Touch {
        addr: PAGE + 5,
        write: true,
    };

    fn seen(page: u64, value: u64) -> Observation {
        Observation {
            contents: vec![(page, value)],
            ..Observation::default()
        }
    }

    #[test]
    fn private_pages_move_and_go() {
        let mut contents = Contents::default();
        let mut after = outcome(area(Object::Anon, VmFlags::WRITE));
        contents.apply(3, &WRITE, &[], &after);
        let shows = |contents: &Contents, after: &Outcome, page, value| {
            contents.compare(after, &seen(page, value), &[], &mut 0)
        };
        assert_eq!(shows(&contents, &after, PAGE, number(3)), None);
        let lost = shows(&contents, &after, PAGE, 0).unwrap();
        assert_eq!(lost.predicted, "what operation 3 wrote");
        assert_eq!(lost.observed, "zeros");
        // What nobody wrote to is empty.
        assert!(shows(&contents, &after, PAGE + PAGE_SIZE, 7).is_some());

        let target = PAGE + 2 * PAGE_SIZE;
        after.result = Ok(target);
        let relocate = Op::Mremap {
            addr: PAGE,
            old_len: PAGE_SIZE,
            new_len: PAGE_SIZE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: target,
        };
        contents.apply(4, &relocate, &[], &after);
        assert_eq!(shows(&contents, &after, target, number(3)), None);
        assert_eq!(shows(&contents, &after, PAGE, 0), None);
        after.discarded.push(target..target + PAGE_SIZE);
        contents.apply(5, &Op::Munlockall, &[], &after);
        assert!(shows(&contents, &after, target, number(3)).is_some());
    }

    #[test]
    fn pages_of_an_object_outlive_their_areas() {
        let mut contents = Contents::default();
        let shared = VmFlags::WRITE | VmFlags::SHARED | VmFlags::MAYSHARE;
        let mut after = outcome(area(Object::File(FileId(0)), shared));
        contents.apply(0, &WRITE, &[], &after);
        after.discarded.push(PAGE..PAGE + 4 * PAGE_SIZE);
        contents.apply(1, &Op::Munlockall, &[], &after);
        let files = [NamedFile {
            name: "memfd".into(),
            file: File::memfd(4),
        }];
        let compare = |value| contents.compare(&after, &seen(PAGE, value), &files, &mut 0);
        assert_eq!(compare(number(0)), None);
        assert!(compare(0).is_some());
    }

    #[test]
    fn pages_of_files_say_which_they_are() {
        let files = [NamedFile {
            name: "memfd".into(),
            file: File::memfd(9),
        }];
        let mut private = area(Object::File(FileId(0)), VmFlags::WRITE);
        private.offset = 3 * PAGE_SIZE;
        let mut after = outcome(private);
        let mut contents = Contents::default();
        let second = PAGE + PAGE_SIZE;
        let mut compared = 0;
        let mut compare = |contents: &Contents, after: &Outcome, value| {
            contents.compare(after, &seen(second, value), &files, &mut compared)
        };
        assert_eq!(compare(&contents, &after, pattern(0, 4)), None);
        let wrong = compare(&contents, &after, pattern(0, 5)).unwrap();
        assert_eq!(wrong.predicted, "page 4 of file 0");
        assert_eq!(wrong.observed, "page 5 of file 0");
        // Once others write to it, it is not known whether it was copied before.
        let write = Op::Touch {
            addr: second,
            write: true,
        };
        after.layout[0].flags |= VmFlags::SHARED;
        contents.apply(0, &write, &[], &after);
        assert!(compare(&contents, &after, pattern(0, 4)).is_some());
        after.layout[0].flags = VmFlags::WRITE;
        assert_eq!(compare(&contents, &after, 7), None);
        assert_eq!(compared, 3);
    }
}
