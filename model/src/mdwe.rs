// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Memory-Deny-Write-Execute: `prctl_set_mdwe` (kernel/sys.c), `map_deny_write_exec` (mm/vma.h;
//! before 6.12 include/linux/mman.h), since 6.3.

use crate::{AddressSpace, Container, Errno, MdweFlags, VmFlags};

impl<C: Container> AddressSpace<C> {
    /// `prctl(PR_SET_MDWE)`. It cannot be taken back.
    ///
    /// # Errors
    ///
    /// EINVAL: bits that are unknown or make no sense. EPERM: other bits are set already.
    pub(crate) fn set_mdwe(&mut self, bits: MdweFlags) -> Result<(), Errno> {
        let refuse = MdweFlags::REFUSE_EXEC_GAIN;
        let known = bits == MdweFlags::empty()
            || bits == refuse
            || (bits == refuse | MdweFlags::NO_INHERIT && self.rules.mdwe_no_inherit);
        if !self.rules.mdwe || !known {
            return Err(Errno::EINVAL);
        }
        if self.mdwe != MdweFlags::empty() && self.mdwe != bits {
            return Err(Errno::EPERM);
        }
        self.mdwe = bits;
        Ok(())
    }

    /// What a forked child keeps of it.
    pub(crate) fn inherit_mdwe(&mut self) {
        if self.mdwe.contains(MdweFlags::NO_INHERIT) {
            self.mdwe = MdweFlags::empty();
        }
    }

    /// Whether an area may not get these flags (`map_deny_write_exec`). One that comes into being has
    /// them already.
    pub(crate) fn denies_write_exec(&self, old: VmFlags, new: VmFlags) -> bool {
        self.mdwe.contains(MdweFlags::REFUSE_EXEC_GAIN)
            && new.contains(VmFlags::EXEC)
            && (new.contains(VmFlags::WRITE) || !old.contains(VmFlags::EXEC))
    }
}
