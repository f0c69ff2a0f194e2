// SPDX-License-Identifier: GPL-2.0-only

//! Steering: which flags new areas of an object get, and rules by which its hooks answer otherwise than
//! they would.
//!
//! # Locks
//!
//! The rules of an object have a spinlock. It is taken in any hook, thus within all locks that those are
//! called with, in `map_pages` under RCU; nothing is taken within it, and nothing allocated or freed.
//! An object without rules costs its hooks one look at a mask.
//!
//! # Nobody is held for ever
//!
//! - Rules that have an access tried again fire no more than [`VMALAB_MAX_REPEATS`] times, and not for a
//!   task that is being killed.
//! - A delay is at most [`VMALAB_MAX_DELAY_US`], all those of a rule together [`VMALAB_MAX_DELAYS_US`], and
//!   a task that is being killed, or exits, does not wait. So somebody who waits for the address space of a
//!   program that delays itself (`ps`, for its command line) waits for ten seconds for each of the rules that
//!   the program has added, and no longer, however many areas it has.

use crate::{
    helpers,
    hook::{Answer, Call, Hook},
    ioctl::{check_writable, Argument, Versioned},
    object::Object,
    uapi::*,
    vm_ops::{AreaFlags, FaultFlags},
};
use core::{mem::take, ops::Range};
use kernel::{
    fs::File,
    mm::virt::{flags, vm_flags_t},
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        new_spinlock, ArcBorrow, SpinLock,
    },
};

/// What a rule answers in place of a hook.
#[derive(Clone, Copy)]
pub(crate) enum Steered {
    /// An error number.
    Error(Error),
    /// The program gets SIGBUS.
    Sigbus,
    /// The program gets SIGSEGV.
    Sigsegv,
    /// There is no memory.
    Oom,
    /// The memory has failed: the program gets SIGBUS of another kind.
    Hwpoison,
    /// The access is to be tried again.
    NoPage,
    /// The same, and the lock is let go of before.
    Retry,
    /// Another hook is asked.
    Nothing,
}

impl Steered {
    /// What `rule` answers; `None` if the answer is the usual one.
    ///
    /// # Errors
    ///
    /// EINVAL if the hook has no such answer, or there is nothing that the rule would do.
    fn of(rule: &vmalab_rule) -> Result<Option<Self>> {
        let bit = |hook| 1_u32 << hook;
        let faults = bit(VMALAB_HOOK_FAULT)
            | bit(VMALAB_HOOK_HUGE_FAULT)
            | bit(VMALAB_HOOK_MAP_PAGES)
            | bit(VMALAB_HOOK_PAGE_MKWRITE)
            | bit(VMALAB_HOOK_PFN_MKWRITE);
        let (steered, hooks) = match rule.answer {
            // To wait is all that it does; and in `map_pages` nobody may.
            VMALAB_ANSWER_USUAL if rule.delay_us > 0 => (None, !bit(VMALAB_HOOK_MAP_PAGES)),
            VMALAB_ANSWER_ERRNO => (
                // No number of the kernel's own.
                match i32::try_from(rule.error) {
                    Ok(error @ 1..=LAST_ERRNO) => Some(Self::Error(Error::from_errno(-error))),
                    _ => return Err(EINVAL),
                },
                bit(VMALAB_HOOK_MMAP)
                    | bit(VMALAB_HOOK_MAPPED)
                    | bit(VMALAB_HOOK_MAY_SPLIT)
                    | bit(VMALAB_HOOK_MREMAP)
                    | bit(VMALAB_HOOK_MPROTECT),
            ),
            VMALAB_ANSWER_SIGBUS => (Some(Self::Sigbus), faults),
            VMALAB_ANSWER_SIGSEGV => (Some(Self::Sigsegv), faults),
            VMALAB_ANSWER_OOM => (Some(Self::Oom), faults),
            VMALAB_ANSWER_HWPOISON => (Some(Self::Hwpoison), faults),
            VMALAB_ANSWER_NOPAGE => (Some(Self::NoPage), faults),
            VMALAB_ANSWER_RETRY => (Some(Self::Retry), bit(VMALAB_HOOK_FAULT)),
            VMALAB_ANSWER_NOTHING => (
                Some(Self::Nothing),
                bit(VMALAB_HOOK_MAP_PAGES) | bit(VMALAB_HOOK_HUGE_FAULT),
            ),
            _ => return Err(EINVAL),
        };
        let may_wait = rule.hook != VMALAB_HOOK_MAP_PAGES;
        if rule.hook >= VMALAB_NR_HOOKS
            || hooks & bit(rule.hook) == 0
            || rule.delay_us > 0 && !may_wait
            || rule.error != 0 && rule.answer != VMALAB_ANSWER_ERRNO
        {
            return Err(EINVAL);
        }
        Ok(steered)
    }

    /// Whether the same comes again after this answer, if nobody else is asked.
    fn repeats(self) -> bool {
        matches!(self, Self::NoPage | Self::Retry | Self::Oom)
    }
}

/// EHWPOISON, the last that user space knows.
const LAST_ERRNO: i32 = kernel::bindings::EHWPOISON as i32;

/// Whether all that a rule delays comes to an end soon enough.
fn delays_end(rule: &vmalab_rule) -> bool {
    let all = u64::from(rule.delay_us).checked_mul(rule.times);
    rule.delay_us == 0
        || rule.times > 0 && all.is_some_and(|all| all <= u64::from(VMALAB_MAX_DELAYS_US))
}

/// A rule, and what has become of it.
struct Rule {
    raw: vmalab_rule,
    steered: Option<Steered>,
}

impl Rule {
    /// # Errors
    ///
    /// EINVAL; EPERM for what the kernel tells the administrator as an error of the machine, if this is
    /// not one.
    fn new(raw: vmalab_rule) -> Result<Self> {
        let steered = Steered::of(&raw)?;
        let whole = |bytes: u64| bytes % PAGE_SIZE as u64 == 0;
        let repeats = steered.is_some_and(Steered::repeats);
        if raw.nth == 0
            || !whole(raw.offset)
            || !whole(raw.length)
            || raw.offset.checked_add(raw.length).is_none()
            || raw.delay_us > VMALAB_MAX_DELAY_US
            || !delays_end(&raw)
            || repeats && !(1..=u64::from(VMALAB_MAX_REPEATS)).contains(&raw.times)
            || raw.reserved != 0
        {
            return Err(EINVAL);
        }
        // SAFETY: It only asks about the running task.
        if matches!(steered, Some(Steered::Hwpoison)) && !unsafe { helpers::vmalab_is_admin() } {
            return Err(EPERM);
        }
        let raw = vmalab_rule {
            n_calls: 0,
            n_fired: 0,
            ..raw
        };
        Ok(Self { raw, steered })
    }

    /// Whether a call is one of those that the rule counts.
    fn is_about(&self, call: &Call) -> bool {
        let first = self.raw.offset / PAGE_SIZE as u64;
        let end = match self.raw.length {
            0 => u64::MAX,
            length => first + length / PAGE_SIZE as u64,
        };
        let Range { start, end: last } = call.pages();
        call.hook as u32 == self.raw.hook && start < end && last > first
    }

    /// Counts the call, and says whether the rule is for it.
    fn counts(&mut self, call: &Call) -> bool {
        self.raw.n_calls += 1;
        // A retry that the kernel does not allow would not be one.
        if matches!(self.steered, Some(Steered::Retry)) && !call.may_retry() {
            return false;
        }
        let since = self.raw.n_calls.checked_sub(self.raw.nth);
        since.is_some_and(|since| self.raw.times == 0 || since < self.raw.times)
    }
}

/// The rules of an object.
pub(crate) struct Rules {
    /// The hooks that rules are about, as a mask: written under the lock, read without. Who reads it
    /// while a rule comes or goes may see either.
    hooks: Atomic<u32>,
    list: Pin<KBox<SpinLock<List>>>,
}

struct List {
    rules: KVec<Rule>,
    /// The number of the next one; 0 if there are no more numbers.
    next: u32,
}

impl Rules {
    /// No rules.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new() -> Result<Self> {
        let list = List {
            rules: KVec::new(),
            next: 1,
        };
        Ok(Self {
            hooks: Atomic::new(0),
            list: KBox::pin_init(new_spinlock!(list, "vmalab_rules"), GFP_KERNEL_ACCOUNT)?,
        })
    }

    /// Whether there are rules about a hook.
    pub(crate) fn steer(&self, hook: Hook) -> bool {
        self.hooks.load(Relaxed) & 1 << hook as u32 != 0
    }

    /// What is answered to a call in place of the usual answer, if anything. It waits here, if a rule says
    /// so.
    pub(crate) fn decide<R: Answer>(&self, call: &Call) -> Option<R> {
        let (steered, delay_us) = self.fire(call)?;
        if delay_us > 0 {
            // SAFETY: No rule has a delay where nobody may sleep.
            unsafe { helpers::vmalab_delay(delay_us) };
        }
        steered.map(R::steered)
    }

    /// The answer and the delay of the first rule that is for a call.
    fn fire(&self, call: &Call) -> Option<(Option<Steered>, u32)> {
        // SAFETY: It only asks about the running task.
        let dying = unsafe { helpers::vmalab_is_dying() };
        let mut list = self.list.lock();
        let mut fired = None;
        for rule in list.rules.iter_mut().filter(|rule| rule.is_about(call)) {
            let repeats = rule.steered.is_some_and(Steered::repeats);
            if rule.counts(call) && fired.is_none() && !(dying && repeats) {
                rule.raw.n_fired += 1;
                fired = Some((rule.steered, rule.raw.delay_us));
            }
        }
        fired
    }

    /// Adds a rule, and gives it its number.
    ///
    /// # Errors
    ///
    /// ENOSPC if there are as many as there may be, or have been as many as there are numbers; ENOMEM.
    fn add(&self, mut rule: Rule) -> Result<u32> {
        // Memory for all that there may be: nothing is allocated under the lock. Whichever is not needed is
        // freed after it.
        let mut room = KVec::with_capacity(VMALAB_MAX_RULES as usize, GFP_KERNEL_ACCOUNT)?;
        let mut list = self.list.lock();
        if list.rules.capacity() == 0 {
            core::mem::swap(&mut list.rules, &mut room);
        }
        let id = list.next;
        rule.raw.id = id;
        if list.rules.len() >= VMALAB_MAX_RULES as usize || id == 0 {
            return Err(ENOSPC);
        }
        list.rules.push_within_capacity(rule).map_err(|_| ENOSPC)?;
        list.next = id.wrapping_add(1);
        self.hooks.store(list.hooks(), Relaxed);
        Ok(id)
    }

    /// Removes one rule, or all if `id` is 0.
    ///
    /// # Errors
    ///
    /// ENOENT if there is none of that number.
    fn clear(&self, id: u32) -> Result {
        let mut old = KVec::new();
        let mut list = self.list.lock();
        if id == 0 {
            old = take(&mut list.rules);
        } else {
            let place = list.rules.iter().position(|rule| rule.raw.id == id);
            list.rules
                .remove(place.ok_or(ENOENT)?)
                .map_err(|_| ENOENT)?;
        }
        self.hooks.store(list.hooks(), Relaxed);
        drop(list);
        // Its memory is freed without the lock.
        drop(old);
        Ok(())
    }

    /// A rule as it is now.
    ///
    /// # Errors
    ///
    /// ENOENT if there is none of that number.
    fn get(&self, id: u32) -> Result<vmalab_rule> {
        let list = self.list.lock();
        let rule = list.rules.iter().find(|rule| rule.raw.id == id);
        Ok(rule.ok_or(ENOENT)?.raw)
    }
}

impl List {
    fn hooks(&self) -> u32 {
        let bits = self.rules.iter().map(|rule| 1 << rule.raw.hook);
        bits.fold(0, core::ops::BitOr::bitor)
    }
}

/// `VMALAB_IOC_ADD_RULE`.
pub(crate) fn add_rule(
    object: ArcBorrow<'_, Object>,
    file: &File,
    argument: &Argument,
) -> Result<isize> {
    let mut raw = argument.read::<vmalab_rule>()?;
    if raw.id != 0 || raw.n_calls != 0 || raw.n_fired != 0 {
        return Err(EINVAL);
    }
    check_writable(file)?;
    raw.id = object.rules().add(Rule::new(raw)?)?;
    argument.write(&raw)
}

/// `VMALAB_IOC_CLEAR_RULES`.
pub(crate) fn clear_rules(
    object: ArcBorrow<'_, Object>,
    file: &File,
    argument: &Argument,
) -> Result<isize> {
    let raw = argument.read::<vmalab_rule>()?;
    check_writable(file)?;
    object.rules().clear(raw.id)?;
    Ok(0)
}

/// `VMALAB_IOC_GET_RULE`.
pub(crate) fn get_rule(
    object: ArcBorrow<'_, Object>,
    _file: &File,
    argument: &Argument,
) -> Result<isize> {
    let raw = argument.read::<vmalab_rule>()?;
    argument.write(&object.rules().get(raw.id)?)
}

/// `VMALAB_IOC_SET_NEW_AREAS`.
pub(crate) fn set_area(
    object: ArcBorrow<'_, Object>,
    file: &File,
    argument: &Argument,
) -> Result<isize> {
    let area = argument.read::<vmalab_new_areas>()?;
    if area.reserved != 0 {
        return Err(EINVAL);
    }
    area_flags(area.flags)?;
    check_writable(file)?;
    object.set_area(area.flags);
    Ok(0)
}

/// `VMALAB_IOC_GET_NEW_AREAS`.
pub(crate) fn get_area(
    object: ArcBorrow<'_, Object>,
    _file: &File,
    argument: &Argument,
) -> Result<isize> {
    let mut area = argument.read::<vmalab_new_areas>()?;
    if area.reserved != 0 {
        return Err(EINVAL);
    }
    area.flags = object.area();
    argument.write(&area)
}

/// The kernel's flags for the bits of `enum vmalab_area_flags`.
///
/// # Errors
///
/// EINVAL for a bit that is none of them, and for PFNMAP together with MIXEDMAP.
pub(crate) fn area_flags(bits: u64) -> Result<AreaFlags> {
    const SET: [(u32, vm_flags_t); 6] = [
        (VMALAB_AREA_MIXEDMAP, flags::MIXEDMAP),
        (VMALAB_AREA_PFNMAP, flags::PFNMAP),
        (VMALAB_AREA_IO, flags::IO),
        (VMALAB_AREA_DONTEXPAND, flags::DONTEXPAND),
        (VMALAB_AREA_DONTCOPY, flags::DONTCOPY),
        (VMALAB_AREA_DONTDUMP, flags::DONTDUMP),
    ];
    const CLEAR: [(u32, vm_flags_t); 3] = [
        (VMALAB_AREA_NEVER_READ, flags::MAYREAD),
        (VMALAB_AREA_NEVER_WRITE, flags::MAYWRITE),
        (VMALAB_AREA_NEVER_EXEC, flags::MAYEXEC),
    ];
    let mut rest = bits;
    let mut pick = |list: &[(u32, vm_flags_t)]| {
        list.iter().fold(0, |flags, (bit, flag)| {
            let bit = u64::from(*bit);
            let here = rest & bit != 0;
            rest &= !bit;
            if here {
                flags | flag
            } else {
                flags
            }
        })
    };
    let (set, clear) = (pick(&SET), pick(&CLEAR));
    if rest != 0 {
        return Err(EINVAL);
    }
    AreaFlags::new(set, clear)
}

impl Versioned for vmalab_rule {}
impl Versioned for vmalab_new_areas {}

impl Call {
    /// The pages of the object that it is about, for the range of a rule. A split is about the page from
    /// which on there is to be another area.
    fn pages(&self) -> Range<u64> {
        let pages = (self.range.end - self.range.start) / PAGE_SIZE;
        let (first, pages) = match self.hook {
            Hook::MaySplit => {
                let before = (self.argument as usize - self.range.start) / PAGE_SIZE;
                (self.index + before, 1)
            }
            _ => (self.index, pages),
        };
        first as u64..first as u64 + pages as u64
    }

    /// Whether it is a fault that may be retried.
    fn may_retry(&self) -> bool {
        self.hook == Hook::Fault && FaultFlags::from_bits(self.argument as u32).may_retry()
    }
}
