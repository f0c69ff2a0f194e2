// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `mbind(2)`: `kernel_mbind`, `do_mbind`, `mpol_new`, `queue_pages_test_walk`, `mbind_range`
//! (mm/mempolicy.c), on a machine of one memory node.
//!
//! From where an area has its pages is a property as its flags are: areas of different policies do not merge,
//! and a range with another one is cut out. Where pages are, and whether they could be moved, is not modelled:
//! on a machine of one node they always are where they shall be.
//!
//! The names are those of 7.2; `mbind_range` merges since 2.6.34. 2.6.11 has `sys_mbind` and `check_range`, and
//! knows fewer policies ([`Rules::last_policy`](crate::Rules::last_policy)).

use core::num::NonZeroU8;

use crate::{AddressSpace, Allocation, Container, Errno, PAGE_SIZE, Vma};

/// The policy of an area (`struct mempolicy`). None is the default, which is that of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy(NonZeroU8);

/// `MPOL_*` as numbers that a program may give.
pub mod mode {
    use linux_raw_sys::mempolicy::{self, _bindgen_ty_1 as mpol};

    /// None of its own.
    pub const DEFAULT: u32 = mpol::MPOL_DEFAULT as u32;
    /// From this node, if there is any.
    pub const PREFERRED: u32 = mpol::MPOL_PREFERRED as u32;
    /// From these nodes alone.
    pub const BIND: u32 = mpol::MPOL_BIND as u32;
    /// From these nodes in turn.
    pub const INTERLEAVE: u32 = mpol::MPOL_INTERLEAVE as u32;
    /// From the node of the processor.
    pub const LOCAL: u32 = mpol::MPOL_LOCAL as u32;
    /// From these nodes, if there is any.
    pub const PREFERRED_MANY: u32 = mpol::MPOL_PREFERRED_MANY as u32;
    /// From these nodes in turn, by weight.
    pub const WEIGHTED_INTERLEAVE: u32 = mpol::MPOL_WEIGHTED_INTERLEAVE as u32;
    /// A flag: the nodes are not renumbered when those that are allowed change.
    pub const STATIC_NODES: u32 = mempolicy::MPOL_F_STATIC_NODES;
    /// A flag: the nodes are counted among those that are allowed.
    pub const RELATIVE_NODES: u32 = mempolicy::MPOL_F_RELATIVE_NODES;
}

/// `MPOL_MF_*`: what shall become of pages that are elsewhere, where none are.
pub mod pages {
    use linux_raw_sys::mempolicy;

    /// They are an error.
    pub const STRICT: u32 = mempolicy::MPOL_MF_STRICT;
    /// They are moved, if the process alone has them.
    pub const MOVE: u32 = mempolicy::MPOL_MF_MOVE;
    /// They are moved, whoever has them.
    pub const MOVE_ALL: u32 = mempolicy::MPOL_MF_MOVE_ALL;
}

impl<C: Container> AddressSpace<C> {
    /// `mbind(2)`; the nodes are bits, of which the machine has the lowest.
    ///
    /// # Errors
    ///
    /// EINVAL: arguments that make no sense, or no node that there is. EPERM: pages of others shall be moved. EFAULT:
    /// a hole, unless the policy is the default. ENOMEM: no room for a split. What the driver says.
    pub(crate) fn mbind(
        &mut self,
        addr: u64,
        len: u64,
        mode: u32,
        nodes: u64,
        flags: u32,
    ) -> Result<(), Errno> {
        let known = mode::STATIC_NODES | mode::RELATIVE_NODES;
        let how = if self.rules.last_policy < mode::LOCAL {
            0
        } else {
            mode & known
        };
        let mode = mode & !how;
        let mut known = pages::STRICT;
        if self.rules.mbind_moves {
            known |= pages::MOVE | pages::MOVE_ALL;
        }
        if mode > self.rules.last_policy
            || how == mode::STATIC_NODES | mode::RELATIVE_NODES
            || flags & !known != 0
        {
            return Err(Errno::EINVAL);
        }
        if flags & pages::MOVE_ALL != 0 && !self.limits.cap_sys_nice {
            return Err(Errno::EPERM);
        }
        if addr % PAGE_SIZE != 0 {
            return Err(Errno::EINVAL);
        }
        let len = len.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
        let end = addr.checked_add(len).ok_or(Errno::EINVAL)?;
        if end == addr {
            return Ok(());
        }
        if self.rules.mbind_needs_all_nodes && nodes & !1 != 0 {
            return Err(Errno::EINVAL);
        }
        let policy = Policy::new(mode, how, nodes)?;
        if policy.is_some() {
            self.allocate(Allocation::Policy)?;
        }
        let skip = policy.is_none() && self.rules.mbind_default_skips_holes;
        self.find_holes(addr, end, skip)?;

        let mut prev = self.areas.prev(addr).copied();
        let mut at = addr;
        while let Some(&vma) = self.areas.find(at).filter(|vma| vma.start < end) {
            if addr > vma.start {
                prev = Some(vma);
            }
            let new = Vma {
                policy,
                ..vma.part(vma.start.max(addr)..vma.end.min(end))
            };
            let now = if !self.rules.mbind_merges {
                self.cut_out(&vma, new)?
            } else if vma.policy == policy {
                vma
            } else {
                self.modify(prev.as_ref(), &vma, new)?
            };
            if now != vma && policy.is_some() && self.rules.mbind_copies_policy {
                self.allocate(Allocation::Policy).inspect_err(|_| {
                    // What merged has it already, and what was cut out keeps its own.
                    if (now.start, now.end) == (new.start, new.end) {
                        let old = Vma {
                            policy: vma.policy,
                            ..now
                        };
                        self.areas.replace(now.start, old);
                    }
                })?;
            }
            at = now.end;
            prev = Some(now);
        }
        Ok(())
    }

    /// `queue_pages_test_walk`: whether all of the range is mapped, or if that does not matter some of it.
    fn find_holes(&self, start: u64, end: u64, skip: bool) -> Result<(), Errno> {
        let mut at = start;
        let mut beyond = false;
        for vma in self.areas.iter_from(start) {
            beyond = vma.start >= end || vma.end >= end;
            let first = at == start;
            if first && self.rules.mbind_begins_in_hole {
                at = at.max(vma.start);
            }
            if vma.start >= end {
                break;
            }
            let head = first && !self.rules.mbind_sees_all_holes;
            if vma.start > at && (!skip || head) {
                return Err(Errno::EFAULT);
            }
            at = vma.end;
        }
        // What is mapped beyond the range once hid a hole at its end.
        let tail = at < end && (self.rules.mbind_sees_all_holes || !beyond);
        if at == start || (tail && !skip) {
            return Err(Errno::EFAULT);
        }
        Ok(())
    }
}

impl Policy {
    /// `mpol_new`, `mpol_set_nodemask`
    fn new(mode: u32, how: u32, nodes: u64) -> Result<Option<Self>, Errno> {
        let valid = match mode {
            mode::DEFAULT => {
                return if nodes == 0 {
                    Ok(None)
                } else {
                    Err(Errno::EINVAL)
                };
            }
            // Without a node, the next one.
            mode::PREFERRED if nodes == 0 => how == 0,
            mode::LOCAL => nodes == 0 && how == 0,
            // Counted among those that are allowed, any node is the only one.
            _ if how == mode::RELATIVE_NODES => nodes != 0,
            _ => nodes & 1 != 0,
        };
        if !valid {
            return Err(Errno::EINVAL);
        }
        let mode = if nodes == 0 { mode::LOCAL } else { mode };
        // Which nodes were asked for is remembered if it may matter later.
        let asked = if how == 0 { 0 } else { nodes & 3 };
        let number = 1 + mode + ((how >> 14) << 3) + ((asked as u32) << 5);
        Ok(NonZeroU8::new(number as u8).map(Self))
    }

    /// Its number, for oracles that have policies of their own.
    pub const fn number(self) -> u8 {
        self.0.get()
    }
}
