// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Protection keys: `pkey_alloc(2)`, `pkey_free(2)` (mm/mprotect.c), `mm_pkey_alloc`, `mm_pkey_is_allocated`
//! (arch/x86/include/asm/pkeys.h), `__execute_only_pkey`, `__arch_override_mprotect_pkey` (arch/x86/mm/pkeys.c), and
//! what the one thread may do by its register (PKRU).
//!
//! The names are those of 4.9 and later. Nothing but these calls changes the register.

use crate::mprotect::ACCESS;
use crate::rules::KeyZero;
use crate::{AddressSpace, Container, Errno, Prot, VmFlags};

/// How many keys there are (`arch_max_pkey`).
const KEYS: u8 = 16;
/// `PKEY_DISABLE_ACCESS`, `PKEY_DISABLE_WRITE`.
const NO_ACCESS: u64 = 1;
const NO_WRITE: u64 = 2;

const fn bit(key: u8) -> u16 {
    1 << key
}

/// Which keys a process has (`mm->context`), and its thread's rights. A bit for each key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    allocated: u16,
    /// That of memory that is only executable, once there is some.
    execute_only: Option<u8>,
    no_access: u16,
    no_write: u16,
}

impl Keys {
    /// After `execve` (`init_pkru_value`).
    pub(crate) const INITIAL: Self = Self {
        allocated: 1,
        execute_only: None,
        no_access: !1,
        no_write: 0,
    };

    /// `arch_set_user_pkey_access`
    fn set_access(&mut self, key: u8, rights: u64) {
        let bit = bit(key);
        self.no_access &= !bit;
        self.no_write &= !bit;
        if rights & NO_ACCESS != 0 {
            self.no_access |= bit;
        }
        if rights & NO_WRITE != 0 {
            self.no_write |= bit;
        }
    }

    /// `mm_pkey_alloc`
    fn allocate(&mut self) -> Option<u8> {
        let key = (0..KEYS).find(|&key| self.allocated & bit(key) == 0)?;
        self.allocated |= bit(key);
        Some(key)
    }
}

impl<C: Container> AddressSpace<C> {
    /// `pkey_alloc(2)`. Gives the key.
    ///
    /// # Errors
    ///
    /// ENOSYS: there is no such call yet. EINVAL: flags, or rights that there are not. ENOSPC: no key is left, or the
    /// processor has none.
    pub(crate) fn pkey_alloc(&mut self, flags: u64, rights: u64) -> Result<u64, Errno> {
        if !self.rules.pkeys {
            return Err(Errno::ENOSYS);
        }
        if flags != 0 || rights & !(NO_ACCESS | NO_WRITE) != 0 {
            return Err(Errno::EINVAL);
        }
        if !self.limits.pkeys {
            return Err(Errno::ENOSPC);
        }
        let key = self.keys.allocate().ok_or(Errno::ENOSPC)?;
        self.keys.set_access(key, rights);
        Ok(key.into())
    }

    /// `pkey_free(2)`. Areas keep it, and the thread its rights.
    ///
    /// # Errors
    ///
    /// ENOSYS: there is no such call yet. EINVAL: a key that is not allocated.
    pub(crate) fn pkey_free(&mut self, key: i32) -> Result<(), Errno> {
        if !self.rules.pkeys {
            return Err(Errno::ENOSYS);
        }
        let kept = key == 0 && self.rules.key_zero != KeyZero::Ordinary;
        if kept || !self.is_allocated(key) {
            return Err(Errno::EINVAL);
        }
        self.keys.allocated &= !bit(key as u8);
        Ok(())
    }

    /// Whether a program may name the key (`mm_pkey_is_allocated`).
    pub(crate) fn is_allocated(&self, key: i32) -> bool {
        let Some(key) = u8::try_from(key).ok().filter(|&key| key < KEYS) else {
            return false;
        };
        let reserved =
            self.rules.execute_only_key_is_reserved && self.keys.execute_only == Some(key);
        let refused = key == 0 && self.rules.key_zero == KeyZero::Refused;
        self.limits.pkeys && !reserved && !refused && self.keys.allocated & bit(key) != 0
    }

    /// The key of memory that is only executable, if one is left for it (`execute_only_pkey`).
    fn execute_only_key(&mut self) -> u8 {
        if !self.rules.pkeys || !self.limits.pkeys {
            return 0;
        }
        let key = match self.keys.execute_only {
            Some(key) if self.keys.no_access & bit(key) != 0 => return key,
            Some(key) => key,
            None => match self.keys.allocate() {
                Some(key) => key,
                None => return 0,
            },
        };
        self.keys.set_access(key, NO_ACCESS);
        self.keys.execute_only = Some(key);
        key
    }

    /// The flags that say which key a new mapping gets (`do_mmap`).
    pub(crate) fn key_of_mapping(&mut self, prot: Prot) -> VmFlags {
        if prot == Prot::EXEC {
            VmFlags::of_key(self.execute_only_key())
        } else {
            VmFlags::empty()
        }
    }

    /// The flags that say which key an area gets with that protection (`arch_override_mprotect_pkey`).
    pub(crate) fn override_key(&mut self, old: VmFlags, prot: Prot, asked: Option<i32>) -> VmFlags {
        if let Some(key) = asked {
            return VmFlags::of_key(key as u8);
        }
        let was_execute_only =
            old.only(ACCESS) == VmFlags::EXEC && Some(old.key()) == self.keys.execute_only;
        let leaves = if self.rules.execute_only_key_is_reserved {
            prot != Prot::EXEC
        } else {
            prot.intersects(Prot::READ | Prot::WRITE)
        };
        if was_execute_only && leaves {
            return VmFlags::empty();
        }
        if prot == Prot::EXEC {
            let key = self.execute_only_key();
            if key > 0 {
                return VmFlags::of_key(key);
            }
        }
        old.only(VmFlags::PKEY)
    }

    /// Whether the thread may read or write what has those flags, as far as keys go (`arch_vma_access_permitted`).
    pub(crate) fn key_permits(&self, flags: VmFlags, write: bool) -> bool {
        let bit = bit(flags.key());
        !self.limits.pkeys
            || self.keys.no_access & bit == 0 && !(write && self.keys.no_write & bit != 0)
    }

    /// What a forked child has of them (`arch_dup_pkeys`): the register in any case.
    pub(crate) fn inherit_keys(&mut self) {
        if !self.rules.fork_copies_keys {
            self.keys.allocated = Keys::INITIAL.allocated;
            self.keys.execute_only = None;
        }
    }
}
