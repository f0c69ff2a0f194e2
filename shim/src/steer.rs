// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Steering: the flags of new areas, and rules by which hooks answer otherwise than they would.

use std::{fmt, ops::Range, time::Duration};

use nix::errno::Errno;

use crate::{Device, Error, Hook, error::Action, sys};

bitflags::bitflags! {
    /// What the areas of an object are like: flags that they get when they are mapped, as a driver may
    /// give them to memory of its own. See [`Device::set_area_flags`].
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
    pub struct AreaFlags: u64 {
        /// Pages are put into the page table by the driver (`VM_MIXEDMAP`, `vm_insert_page`).
        const MIXEDMAP = sys::VMALAB_AREA_MIXEDMAP as u64;
        /// Frame numbers are (`VM_PFNMAP`, `vmf_insert_pfn`): the kernel lends such memory to nobody, so
        /// that `process_vm_readv` and direct I/O fail with `EFAULT`. A private mapping of it that may
        /// become writable is refused with `EINVAL`. The first mapping of an object decides whether all are
        /// of this kind, or none: `EBUSY` from then on for the others.
        const PFNMAP = sys::VMALAB_AREA_PFNMAP as u64;
        /// It must not be looked at (`VM_IO`): it is neither dumped nor lent.
        const IO = sys::VMALAB_AREA_IO as u64;
        /// `mremap` makes it no longer (`VM_DONTEXPAND`): `EFAULT`.
        const DONTEXPAND = sys::VMALAB_AREA_DONTEXPAND as u64;
        /// A child does not have it (`VM_DONTCOPY`).
        const DONTCOPY = sys::VMALAB_AREA_DONTCOPY as u64;
        /// It is not in a core dump (`VM_DONTDUMP`).
        const DONTDUMP = sys::VMALAB_AREA_DONTDUMP as u64;
        /// It can never be made readable; mapping it with [`Prot::READ`](crate::Prot::READ) is refused
        /// with `EPERM`.
        const NEVER_READ = sys::VMALAB_AREA_NEVER_READ as u64;
        /// The same for writing.
        const NEVER_WRITE = sys::VMALAB_AREA_NEVER_WRITE as u64;
        /// The same for execution.
        const NEVER_EXEC = sys::VMALAB_AREA_NEVER_EXEC as u64;
    }
}

/// Steering.
impl Device {
    /// Sets the flags that areas of the object get which are mapped from now on: `flags`, and no other.
    /// Areas that are there keep theirs. Mirrors `VMALAB_IOC_SET_NEW_AREAS`.
    ///
    /// # Errors
    /// `EINVAL` for both of `PFNMAP` and `MIXEDMAP`; `EBADF` if the descriptor is open for reading only;
    /// `ENOTTY` if the descriptor is not one of the node, or the module is too old.
    pub fn set_area_flags(&self, flags: AreaFlags) -> Result<(), Error> {
        let mut argument = sys::vmalab_new_areas {
            flags: flags.bits(),
            reserved: 0,
        };
        // SAFETY: the request reads exactly one vmalab_new_areas.
        let done = unsafe { self.ioctl(sys::VMALAB_IOC_SET_NEW_AREAS, &mut argument) };
        done.map_err(|errno| Error::new(Action::SetArea(flags), errno))
    }

    /// The flags that new areas of the object get. Mirrors `VMALAB_IOC_GET_NEW_AREAS`.
    ///
    /// # Errors
    /// `ENOTTY` if the descriptor is not one of the node, or the module is too old.
    pub fn area_flags(&self) -> Result<AreaFlags, Error> {
        let mut argument = sys::vmalab_new_areas::default();
        // SAFETY: the request reads and writes exactly one vmalab_new_areas.
        let done = unsafe { self.ioctl(sys::VMALAB_IOC_GET_NEW_AREAS, &mut argument) };
        done.map(|()| AreaFlags::from_bits_retain(argument.flags))
            .map_err(|errno| Error::new(Action::GetArea, errno))
    }

    /// Begins a rule: calls of `hook` from now on are answered otherwise than they would be. See
    /// [`Rule`].
    pub fn steer(&self, hook: Hook) -> Rule<'_> {
        Rule {
            device: self,
            raw: sys::vmalab_rule {
                hook: hook as u32,
                nth: 1,
                ..Default::default()
            },
        }
    }

    /// Adds a rule that is given as the structure of the header, and gives it its number. [`steer`](Self::steer)
    /// is more convenient.
    ///
    /// # Errors
    /// Those of [`Rule::once`].
    pub fn add_rule(&self, rule: &mut sys::vmalab_rule) -> Result<RuleId, Error> {
        // SAFETY: the request reads and writes exactly one vmalab_rule.
        let done = unsafe { self.ioctl(sys::VMALAB_IOC_ADD_RULE, rule) };
        let name = Hook::from_number(rule.hook).map_or("a hook", Hook::name);
        done.map(|()| RuleId(rule.id))
            .map_err(|errno| Error::new(Action::AddRule(name), errno))
    }

    /// Removes all rules of the object. Mirrors `VMALAB_IOC_CLEAR_RULES`.
    ///
    /// # Errors
    /// `EBADF` if the descriptor is open for reading only; `ENOTTY` if the descriptor is not one of the
    /// node, or the module is too old.
    pub fn clear_rules(&self) -> Result<(), Error> {
        self.remove_rules(0)
    }

    /// Removes one rule.
    ///
    /// # Errors
    /// `ENOENT` if it is gone already; those of [`clear_rules`](Self::clear_rules).
    pub fn clear_rule(&self, rule: RuleId) -> Result<(), Error> {
        self.remove_rules(rule.0)
    }

    fn remove_rules(&self, id: u32) -> Result<(), Error> {
        let mut argument = sys::vmalab_rule {
            id,
            ..Default::default()
        };
        // SAFETY: the request reads exactly one vmalab_rule.
        let done = unsafe { self.ioctl(sys::VMALAB_IOC_CLEAR_RULES, &mut argument) };
        done.map_err(|errno| Error::new(Action::ClearRules, errno))
    }

    /// How often a rule has been used. Mirrors `VMALAB_IOC_GET_RULE`.
    ///
    /// # Errors
    /// `ENOENT` if it has been removed; `ENOTTY` if the descriptor is not one of the node, or the module
    /// is too old.
    pub fn rule_counts(&self, rule: RuleId) -> Result<RuleCounts, Error> {
        let mut argument = sys::vmalab_rule {
            id: rule.0,
            ..Default::default()
        };
        // SAFETY: the request reads and writes exactly one vmalab_rule.
        let done = unsafe { self.ioctl(sys::VMALAB_IOC_GET_RULE, &mut argument) };
        done.map(|()| RuleCounts {
            calls: argument.n_calls,
            fired: argument.n_fired,
        })
        .map_err(|errno| Error::new(Action::GetRule, errno))
    }
}

/// A rule in the making: which calls of a hook are answered otherwise, and how.
///
/// Say which calls ([`nth`](Self::nth), [`within`](Self::within)), what they answer (one of
/// [`errno`](Self::errno), [`sigbus`](Self::sigbus), …, and [`delay`](Self::delay)), and for how many of
/// them, which adds the rule: [`once`](Self::once), [`times`](Self::times), [`always`](Self::always).
///
/// ```no_run
/// use vmalab::{Device, Hook};
///
/// // The second may_split of one munmap fails, and the first split stays.
/// let device = Device::open()?;
/// let mapping = device.map().length(4 * 4096).shared()?;
/// device.steer(Hook::MaySplit).nth(2).errno(libc::EINVAL).once()?;
/// let error = mapping.unmap_range(4096..2 * 4096).unwrap_err();
/// assert_eq!(error.error().errno(), libc::EINVAL);
/// assert_eq!(device.stats()?.areas, 2);
/// # Ok::<(), vmalab::Error>(())
/// ```
///
/// A call is about pages of the object: those of the whole area for `mmap`, `open`, `close`, `mapped` and
/// `mremap`, those of the part for `mprotect`, the first one after the split for `may_split`, the touched
/// one for a fault, and for `map_pages` those around it.
#[derive(Clone, Copy)]
#[must_use = "`once`, `times` or `always` adds the rule"]
pub struct Rule<'a> {
    device: &'a Device,
    raw: sys::vmalab_rule,
}

impl Rule<'_> {
    /// Begins with the `nth` call that the rule is about; 1 is the first, and the default.
    pub fn nth(self, nth: u64) -> Self {
        self.with(|raw| raw.nth = nth)
    }

    /// Only calls that are about `bytes` of the object, multiples of the page size. The default is all.
    pub fn within(self, bytes: Range<u64>) -> Self {
        self.with(|raw| {
            raw.offset = bytes.start;
            // An empty range is refused by the module, since 0 would be all of it.
            raw.length = match bytes.end.checked_sub(bytes.start) {
                Some(length) if length > 0 => length,
                _ => u64::MAX,
            };
        })
    }

    /// Waits before the answer, in microseconds of at most a second, and ten seconds for all calls of the
    /// rule together, so not [`always`](Self::always). Alone, the answer is the usual one.
    ///
    /// Not in `map_pages`, which must not wait; and `open` and `close` can do nothing else.
    pub fn delay(self, delay: Duration) -> Self {
        let delay = u32::try_from(delay.as_micros()).unwrap_or(u32::MAX);
        self.with(|raw| raw.delay_us = delay)
    }

    /// Fails with an error number: `mmap`, `mapped`, `may_split`, `mremap`, `mprotect`.
    pub fn errno(self, errno: i32) -> Self {
        self.with(|raw| raw.error = u32::try_from(errno).unwrap_or(u32::MAX))
            .answer(sys::VMALAB_ANSWER_ERRNO)
    }

    /// The program gets SIGBUS, a system call `EFAULT`. This and those below are for the hooks of a fault.
    pub fn sigbus(self) -> Self {
        self.answer(sys::VMALAB_ANSWER_SIGBUS)
    }

    /// The program gets SIGSEGV, a system call `EFAULT`.
    pub fn sigsegv(self) -> Self {
        self.answer(sys::VMALAB_ANSWER_SIGSEGV)
    }

    /// As if there were no memory: the program tries again, a system call fails.
    pub fn oom(self) -> Self {
        self.answer(sys::VMALAB_ANSWER_OOM)
    }

    /// As if the memory had failed: SIGBUS with `BUS_MCEERR_AR`. For the administrator only, since the
    /// kernel log tells of it.
    pub fn hwpoison(self) -> Self {
        self.answer(sys::VMALAB_ANSWER_HWPOISON)
    }

    /// The access is tried again.
    pub fn nopage(self) -> Self {
        self.answer(sys::VMALAB_ANSWER_NOPAGE)
    }

    /// `fault` lets go of its lock, and is tried again; only where the kernel allows that: once for an access,
    /// and once more if it was under the lock of the area alone at first.
    pub fn retry(self) -> Self {
        self.answer(sys::VMALAB_ANSWER_RETRY)
    }

    /// `map_pages` maps nothing, so that `fault` is asked; `huge_fault` gives nothing of that size.
    pub fn nothing(self) -> Self {
        self.answer(sys::VMALAB_ANSWER_NOTHING)
    }

    /// For one call; adds the rule. Mirrors `VMALAB_IOC_ADD_RULE`, as the next two do.
    ///
    /// # Errors
    /// `EINVAL` if the hook has no such answer, or a number is not as it must be; `ENOSPC` if the object
    /// has as many rules as it can have, 64; `EPERM` for `hwpoison` without `CAP_SYS_ADMIN`; `EBADF` if
    /// the descriptor is open for reading only; `ENOTTY` if the descriptor is not one of the node, or the
    /// module is too old.
    pub fn once(self) -> Result<RuleId, Error> {
        self.times(1)
    }

    /// For `times` calls, not 0: at most 1000 of those answers that have something tried again, and ten
    /// seconds of delays.
    ///
    /// # Errors
    /// Those of [`once`](Self::once).
    pub fn times(self, times: u64) -> Result<RuleId, Error> {
        if times == 0 {
            return Err(Error::new(Action::AddRule(self.hook()), Errno::EINVAL));
        }
        self.with(|raw| raw.times = times).add()
    }

    /// For all calls from then on; not for answers that have something tried again, nor with a delay.
    ///
    /// # Errors
    /// Those of [`once`](Self::once).
    pub fn always(self) -> Result<RuleId, Error> {
        self.with(|raw| raw.times = 0).add()
    }

    fn add(self) -> Result<RuleId, Error> {
        let Self { device, mut raw } = self;
        device.add_rule(&mut raw)
    }

    fn answer(self, answer: sys::vmalab_answer) -> Self {
        self.with(|raw| raw.answer = answer)
    }

    fn with(mut self, change: impl FnOnce(&mut sys::vmalab_rule)) -> Self {
        change(&mut self.raw);
        self
    }

    fn hook(&self) -> &'static str {
        Hook::from_number(self.raw.hook).map_or("a hook", Hook::name)
    }
}

impl fmt::Debug for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({}, {:?})", self.hook(), self.raw)
    }
}

/// A rule of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleId(u32);

impl RuleId {
    /// Its number in the object, as [`sys::vmalab_rule`] has it.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl From<u32> for RuleId {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

/// How often a rule has been used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RuleCounts {
    /// Calls that it was about.
    pub calls: u64,
    /// Those that it answered, or delayed.
    pub fired: u64,
}
