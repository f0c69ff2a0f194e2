// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `madvise(2)`, as far as it changes areas: `do_madvise`, `madvise_walk_vmas`,
//! `madvise_vma_behavior`, `madvise_update_vma` (mm/madvise.c).

use linux_raw_sys::general;

use crate::merge::SPECIAL;
use crate::{AddressSpace, Container, Errno, Object, PAGE_SIZE, UffdEvent, VmFlags, Vma};

/// A piece of advice (`MADV_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Advice {
    /// No special treatment.
    Normal = general::MADV_NORMAL,
    /// Expect random access.
    Random = general::MADV_RANDOM,
    /// Expect access in order.
    Sequential = general::MADV_SEQUENTIAL,
    /// The pages are not needed: drop them.
    DontNeed = general::MADV_DONTNEED,
    /// A forked child does not get the area.
    DontFork = general::MADV_DONTFORK,
    /// A forked child gets the area.
    DoFork = general::MADV_DOFORK,
    /// The area is left out of core dumps.
    DontDump = general::MADV_DONTDUMP,
    /// The area is part of core dumps.
    DoDump = general::MADV_DODUMP,
    /// A forked child finds zeros.
    WipeOnFork = general::MADV_WIPEONFORK,
    /// A forked child finds the contents.
    KeepOnFork = general::MADV_KEEPONFORK,
}

impl Advice {
    /// All that are modelled.
    pub const ALL: &'static [Self] = &[
        Self::Normal,
        Self::Random,
        Self::Sequential,
        Self::DontNeed,
        Self::DontFork,
        Self::DoFork,
        Self::DontDump,
        Self::DoDump,
        Self::WipeOnFork,
        Self::KeepOnFork,
    ];

    /// The advice of that number, if it is modelled.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|&advice| advice as u32 == number)
    }
}

impl<C: Container> AddressSpace<C> {
    /// `madvise(2)`. A hole in the range is ENOMEM, but what is mapped around it is treated.
    ///
    /// # Errors
    ///
    /// EINVAL: unaligned, wrapped around, or not for this kind of area. ENOMEM: a hole. EAGAIN: no room
    /// for a split.
    pub fn madvise(&mut self, addr: u64, len: u64, advice: Advice) -> Result<(), Errno> {
        self.uffd_events.clear();
        let known = advice as u32 <= self.rules.last_advice;
        if addr % PAGE_SIZE != 0 || (!known && self.rules.advice_checked_first) {
            return Err(Errno::EINVAL);
        }
        let end = len
            .checked_next_multiple_of(PAGE_SIZE)
            .and_then(|len| addr.checked_add(len))
            .ok_or(Errno::EINVAL)?;
        let mut hole = false;
        let mut at = addr;
        let mut prev = None;
        while at < end {
            let Some(&vma) = self.areas.find(at) else {
                return Err(Errno::ENOMEM);
            };
            if at == addr {
                prev = if addr > vma.start {
                    Some(vma)
                } else {
                    self.areas.prev(vma.start).copied()
                };
            }
            if vma.start > at {
                hole = true;
                at = vma.start;
                if at >= end {
                    break;
                }
            }
            let now = self.madvise_area(prev, &vma, at, vma.end.min(end), advice)?;
            at = now.end;
            prev = Some(now);
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// `madvise_vma_behavior`. Gives the area that now holds the range.
    fn madvise_area(
        &mut self,
        prev: Option<Vma>,
        vma: &Vma,
        start: u64,
        end: u64,
        advice: Advice,
    ) -> Result<Vma, Errno> {
        let old = vma.flags;
        let refused = match advice {
            _ if advice as u32 > self.rules.last_advice => true,
            Advice::DontNeed => old.intersects(VmFlags::PFNMAP | VmFlags::LOCKED),
            Advice::DoFork => old.intersects(SPECIAL),
            Advice::WipeOnFork => vma.object != Object::Anon || old.contains(VmFlags::SHARED),
            Advice::KeepOnFork => old.contains(VmFlags::DROPPABLE),
            Advice::DoDump => {
                (!old.contains(VmFlags::HUGETLB) && old.intersects(SPECIAL))
                    || old.contains(VmFlags::DROPPABLE)
            }
            _ => false,
        };
        if refused {
            return Err(Errno::EINVAL);
        }
        let access = VmFlags::RAND_READ | VmFlags::SEQ_READ;
        let flags = match advice {
            Advice::DontNeed => {
                if old.contains(VmFlags::UFFD_MISSING) {
                    self.uffd_events.push(UffdEvent::Remove { start, end });
                }
                return Ok(*vma);
            }
            Advice::Normal => old.without(access),
            Advice::Random => old.without(access) | VmFlags::RAND_READ,
            Advice::Sequential => old.without(access) | VmFlags::SEQ_READ,
            Advice::DontFork => old | VmFlags::DONTCOPY,
            Advice::DoFork => old.without(VmFlags::DONTCOPY),
            Advice::DontDump => old | VmFlags::DONTDUMP,
            Advice::DoDump => old.without(VmFlags::DONTDUMP),
            Advice::WipeOnFork => old | VmFlags::WIPEONFORK,
            Advice::KeepOnFork => old.without(VmFlags::WIPEONFORK),
        };
        if !self.rules.madvise_merges {
            let new = Vma {
                start,
                end,
                pgoff: vma.pgoff_at(start),
                flags,
                ..*vma
            };
            return self.cut_out(vma, new).map_err(|_| Errno::EAGAIN);
        }
        if flags == old {
            return Ok(*vma);
        }
        self.modify_flags(prev, vma, start, end, flags)
            .map_err(|error| match error {
                Errno::ENOMEM => Errno::EAGAIN,
                other => other,
            })
    }
}
