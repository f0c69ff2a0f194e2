// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Making one area of two or three: `vma_merge_new_range`, `vma_merge_existing_range`, `vma_expand`,
//! `vma_modify`, `can_vma_merge_left` and `_right`, `is_mergeable_vma`, `is_mergeable_anon_vma`
//! (mm/vma.c).
//!
//! These are since 6.12. Until 6.11 one function, `vma_merge`, told eight cases apart, and from 6.1 on
//! `mmap_region` merged what is new by itself; until 6.2 the change was made by `__vma_adjust`.

use crate::{
    AddressSpace, Allocation, AnonVma, Container, Errno, Object, VmFlags, Vma, rules::Mistake,
};

/// Areas with one of these never merge (`VM_SPECIAL`).
pub(crate) const SPECIAL: VmFlags =
    VmFlags(VmFlags::IO.0 | VmFlags::DONTEXPAND.0 | VmFlags::PFNMAP.0 | VmFlags::MIXEDMAP.0);

/// What a merged area has if one of its parts has it, and what so does not keep areas from merging
/// (`VM_STICKY`, `VM_IGNORE_MERGE`). Of these, soft-dirty bits are not modelled.
pub(crate) const STICKY: VmFlags = VmFlags::MAYBE_GUARD;

impl<C: Container> AddressSpace<C> {
    /// Tries to make the range `new`, where nothing is mapped, part of its neighbours
    /// (`vma_merge_new_range`). Gives the area that holds it then.
    ///
    /// ```text
    ///          left              right              both
    /// before  |prev|            .      |next|      |prev|    |next|
    /// new          |***|          |***|                 |****|
    /// after   |--prev---|         |---next---|     |-----prev------|
    /// ```
    ///
    /// On both sides, `next` is removed: only if it has no `close` hook, which would have to be
    /// called though nothing goes away. Else it is left as it is, and `prev` alone grows.
    pub(crate) fn merge_new_range(
        &mut self,
        new: &Vma,
        prev: Option<&Vma>,
        next: Option<&Vma>,
    ) -> Result<Option<Vma>, Errno> {
        if self.never_merges(new.flags) {
            return Ok(None);
        }
        let left = prev.filter(|prev| self.can_merge_left(prev, new));
        let right = next.filter(|next| {
            self.can_merge_right(new, next)
                && left.is_none_or(|prev| self.anon_vmas_meet(prev, next))
        });
        self.expand(new, left, right)
    }

    /// [`merge_new_range`](Self::merge_new_range) as `__mmap_region` did it before that was shared: if
    /// the area above fits, the one below must fit it, too, as if it were what is new.
    pub(crate) fn merge_above_first(
        &mut self,
        new: &Vma,
        prev: Option<&Vma>,
        next: Option<&Vma>,
    ) -> Result<Option<Vma>, Errno> {
        if self.never_merges(new.flags) {
            return Ok(None);
        }
        let right = next.filter(|next| self.can_merge_right(new, next));
        let like = Vma {
            anon_vma: right.and_then(|next| next.anon_vma),
            ..*new
        };
        let left = prev.filter(|prev| self.can_merge_left(prev, &like));
        self.expand(new, left, right)
    }

    /// Makes the range part of the areas on its left and its right (`vma_expand`).
    ///
    /// # Errors
    /// ENOMEM: the tree of areas has no memory (`vmg_nomem`). Where the `anon_vma` has none, there is
    /// just no merge.
    fn expand(
        &mut self,
        new: &Vma,
        left: Option<&Vma>,
        right: Option<&Vma>,
    ) -> Result<Option<Vma>, Errno> {
        let removed = left.and(right).filter(|next| self.may_vanish(next));
        let Some(target) = left.or(right) else {
            return Ok(None);
        };
        let other = removed.and_then(|next| next.anon_vma).or(new.anon_vma);
        if self.dup_anon_vma(target, other).is_err() {
            return Ok(None);
        }
        self.allocate(Allocation::Tree)?;
        match (left, right) {
            (Some(prev), _) => {
                let mut merged = *prev;
                merged.end = new.end;
                merged.inherit_sticky(new);
                if let Some(next) = removed {
                    merged.end = next.end;
                    merged.inherit_sticky(next);
                    merged.inherit_anon_vma(next);
                    self.shmem.lose(next.object);
                    self.counters.map_count -= 1;
                }
                merged.inherit_anon_vma(new);
                self.areas.join(merged);
                Ok(Some(merged))
            }
            (None, Some(next)) => {
                let mut merged = *next;
                merged.start = new.start;
                merged.pgoff = next.pgoff.wrapping_sub(new.pages());
                merged.inherit_sticky(new);
                merged.inherit_anon_vma(new);
                self.areas.join(merged);
                Ok(Some(merged))
            }
            (None, None) => Ok(None),
        }
    }

    /// An area without an `anon_vma` gets that of what is merged with it (`dup_anon_vma`). Only asks for
    /// the memory.
    fn dup_anon_vma(&mut self, target: &Vma, source: Option<AnonVma>) -> Result<(), Errno> {
        match (target.anon_vma, source) {
            (None, Some(_)) if self.rules.fork_makes_anon_vmas => {
                self.allocate(Allocation::AnonVma)
            }
            _ => Ok(()),
        }
    }

    /// Tries to merge a range of the area `middle`, which is about to get the flags of `new`, with
    /// what is before or behind it (`vma_merge_existing_range`). Gives the area that holds it then.
    ///
    /// ```text
    ///           left                   right                   both
    /// before  |prev|--middle--|     |--middle--|next|     |prev|middle|next|
    /// new          |****|                |*****|               |******|
    /// after   |--prev---|-mid-|     |-mid-|---next--|     |------prev------|
    /// ```
    ///
    /// # Errors
    /// ENOMEM: there is no memory for a merge that could be. Nothing has changed.
    pub(crate) fn merge_existing_range(
        &mut self,
        prev: Option<&Vma>,
        middle: &Vma,
        new: &Vma,
    ) -> Result<Option<Vma>, Errno> {
        self.went_back = false;
        let left_side = new.start == middle.start;
        let right_side = new.end == middle.end;
        if self.never_merges(new.flags) {
            return Ok(None);
        }
        let left = prev.filter(|prev| left_side && self.can_merge_left(prev, new));
        let right = if right_side {
            self.areas.find(new.end)
        } else {
            None
        };
        let right = right.filter(|next| {
            self.can_merge_right(new, next)
                && left.is_none_or(|prev| self.anon_vmas_meet(prev, next))
        });
        let mut right = right.copied();
        if left.is_none() && right.is_none() {
            return Ok(None);
        }
        let whole = left_side && right_side;
        if whole && !self.may_vanish(middle) {
            self.went_back = left.is_some();
            return Ok(None);
        }
        if left.is_some() {
            right = right.filter(|next| self.may_vanish(next));
        }
        if let Some(target) = left.or(right.as_ref()) {
            let beyond = left.and(right).and_then(|next| next.anon_vma);
            self.dup_anon_vma(target, beyond.or(middle.anon_vma))?;
            self.allocate(Allocation::Tree)?;
        }
        let mut merged = match (left, right) {
            (Some(prev), right) => Vma {
                end: right.map_or(new.end, |next| next.end),
                ..*prev
            },
            (None, Some(next)) => Vma {
                start: new.start,
                pgoff: next.pgoff.wrapping_sub(new.pages()),
                flags: if self.rules.errs(Mistake::NextKeepsOldFlags) {
                    middle.flags
                } else {
                    next.flags
                },
                ..next
            },
            (None, None) => unreachable!("one side merges"),
        };
        merged.inherit_sticky(new);
        if let (Some(_), Some(next)) = (left, right) {
            merged.inherit_sticky(&next);
        }
        match (left, right) {
            (Some(_), Some(next)) if next.anon_vma.is_some() => merged.inherit_anon_vma(&next),
            _ => merged.inherit_anon_vma(middle),
        }
        if whole {
            let both = left.is_some() && right.is_some();
            for _ in 0..if both { 2 } else { 1 } {
                self.shmem.lose(merged.object);
                self.counters.map_count -= 1;
            }
            self.areas.join(merged);
            if both && self.rules.errs(Mistake::NextRemovedTwice) {
                self.remove_next(merged.end);
            }
        } else if let Some(prev) = left {
            let rest = middle.part(new.end..middle.end);
            self.areas.replace(middle.start, rest);
            self.areas.replace(prev.start, merged);
        } else {
            let rest = middle.part(middle.start..new.start);
            self.areas.replace(middle.start, rest);
            self.areas.replace(new.end, merged);
        }
        Ok(Some(merged))
    }

    /// Gives a range of the area `vma` other flags: merges it with its neighbours, or cuts it out
    /// (`vma_modify_flags`). Gives the area that holds it.
    pub(crate) fn modify_flags(
        &mut self,
        prev: Option<&Vma>,
        vma: &Vma,
        start: u64,
        end: u64,
        flags: VmFlags,
    ) -> Result<Vma, Errno> {
        let new = Vma {
            flags,
            ..vma.part(start..end)
        };
        self.modify(prev, vma, new)
    }

    /// Makes a range of the area `vma` what `new` is (`vma_modify`).
    pub(crate) fn modify(&mut self, prev: Option<&Vma>, vma: &Vma, new: Vma) -> Result<Vma, Errno> {
        match self.merge_existing_range(prev, vma, &new) {
            Ok(Some(merged)) => return Ok(merged),
            Err(error) if self.rules.failed_merge_is_an_error => return Err(error),
            Ok(None) | Err(_) => {}
        }
        self.cut_out(vma, new)
    }

    /// Makes the range `new` of the area `vma` an area of its own, by at most two splits.
    pub(crate) fn cut_out(&mut self, vma: &Vma, new: Vma) -> Result<Vma, Errno> {
        let Vma { start, end, .. } = new;
        if vma.start < start {
            self.split(vma.start, start, true)?;
        }
        if vma.end > end {
            self.split(start, end, false)?;
        }
        self.areas.replace(start, new);
        Ok(new)
    }

    /// Whether two areas would be one if either were new beside the other, and nothing of both had to be
    /// closed.
    pub(crate) fn would_merge(&self, below: &Vma, above: &Vma) -> bool {
        !self.never_merges(below.flags)
            && self.may_vanish(below)
            && self.can_merge_left(below, above)
            && self.can_merge_right(below, above)
    }

    /// `can_vma_merge_left`
    fn can_merge_left(&self, prev: &Vma, new: &Vma) -> bool {
        prev.end == new.start
            && self.is_mergeable(prev, new)
            && self.anon_vma_mergeable(prev, new)
            && self.moved_alike(prev, new)
            && (prev.pgoff_at(prev.end) == new.pgoff
                || self.rules.errs(Mistake::MergeIgnoresOffset))
    }

    /// `can_vma_merge_right`, without the regard to the left side.
    fn can_merge_right(&self, new: &Vma, next: &Vma) -> bool {
        new.end == next.start
            && !self.rules.errs(Mistake::NoMergeForward)
            && self.is_mergeable(next, new)
            && self.anon_vma_mergeable(next, new)
            && self.moved_alike(next, new)
            && (new.pgoff_at(new.end) == next.pgoff
                || self.rules.errs(Mistake::MergeIgnoresOffset)
                || (self.rules.errs(Mistake::MergeUnderflowsOffset)
                    && (new.pgoff..new.pgoff_at(new.end)).contains(&next.pgoff)))
    }

    /// What [`Mistake::NextRemovedTwice`] removes.
    fn remove_next(&mut self, from: u64) {
        if let Some(&Vma { start, end, .. }) = self.areas.find(from) {
            self.areas.remove_range(start..end, |_| {});
            self.counters.map_count -= 1;
        }
    }

    /// `is_mergeable_anon_vma`: not through fork, where one `anon_vma`'s lock would come to cover the
    /// pages of many processes.
    fn anon_vma_mergeable(&self, target: &Vma, source: &Vma) -> bool {
        match (target.anon_vma, source.anon_vma) {
            (None, Some(_)) => {
                self.rules.merge_into_unwritten
                    && !source.forked
                    && !self.rules.errs(Mistake::NoUnwrittenMerge)
            }
            (Some(_), None) => !target.forked && !self.rules.errs(Mistake::NoUnwrittenMerge),
            (a, b) => a == b || self.rules.errs(Mistake::MergeIgnoresAnonVma),
        }
    }

    /// Whether private pages of a file, if there are any, have the same way behind them
    /// (`needs_adjacent_anon_pgoff`). Anonymous memory has its page offset for that.
    fn moved_alike(&self, target: &Vma, source: &Vma) -> bool {
        let private = source.has_file()
            && source.flags.contains(VmFlags::MAYWRITE)
            && !source.flags.contains(VmFlags::SHARED);
        !self.rules.private_pages_know_their_place || !private || target.moved == source.moved
    }

    /// Whether an area has a flag of `VM_SPECIAL`.
    fn never_merges(&self, flags: VmFlags) -> bool {
        flags.intersects(SPECIAL)
            || (self.rules.dontcopy_is_special && flags.contains(VmFlags::DONTCOPY))
    }

    /// Whether a merge may join its neighbours on both sides: not if each has an `anon_vma` of its own
    /// (`can_vma_merge_right`).
    fn anon_vmas_meet(&self, prev: &Vma, next: &Vma) -> bool {
        prev.anon_vma.is_none()
            || next.anon_vma.is_none()
            || prev.anon_vma == next.anon_vma
            || self.rules.errs(Mistake::MergeIgnoresAnonVma)
    }

    /// `is_mergeable_vma`. Of what was there before the run it is not known what it is, so it merges
    /// with nothing.
    fn is_mergeable(&self, a: &Vma, b: &Vma) -> bool {
        a.flags.without(STICKY) == b.flags.without(STICKY)
            && a.name == b.name
            && a.policy == b.policy
            && a.object == b.object
            && a.object != Object::Other
            && (!self.rules.close_forbids_merging || self.may_vanish(a))
    }

    /// `can_merge_remove_vma`
    pub(crate) fn may_vanish(&self, vma: &Vma) -> bool {
        match vma.object {
            Object::File(id) => {
                !self.file(id).hooks.close || self.rules.errs(Mistake::MergeIgnoresClose)
            }
            _ => true,
        }
    }
}

impl Vma {
    fn inherit_sticky(&mut self, from: &Self) {
        self.flags |= VmFlags(from.flags.0 & STICKY.0);
    }

    /// `dup_anon_vma`
    fn inherit_anon_vma(&mut self, from: &Self) {
        if self.anon_vma.is_none() {
            self.anon_vma = from.anon_vma;
            self.forked = from.forked;
        }
    }
}
