// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Drivers that are told to refuse: one call of one hook, some time later. What is half done by then is
//! where kernels differ from what one would expect.

use crate::file::Kind;
use crate::{AddressSpace, Backing, Container, Errno, Hook, Object, Vma};

/// A hook that can refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// [`Hook::Mmap`]
    Mmap,
    /// [`Hook::MaySplit`]
    MaySplit,
    /// [`Hook::Mapped`]
    Mapped,
    /// [`Hook::Mremap`]
    Mremap,
    /// [`Hook::Mprotect`]
    Mprotect,
}

impl Asked {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Mmap,
        Self::MaySplit,
        Self::Mapped,
        Self::Mremap,
        Self::Mprotect,
    ];

    /// The one that a call is of, if it can refuse.
    pub fn of(hook: &Hook) -> Option<Self> {
        match hook {
            Hook::Mmap => Some(Self::Mmap),
            Hook::MaySplit { .. } => Some(Self::MaySplit),
            Hook::Mapped => Some(Self::Mapped),
            Hook::Mremap => Some(Self::Mremap),
            Hook::Mprotect { .. } => Some(Self::Mprotect),
            Hook::Open | Hook::Close | Hook::Fault { .. } => None,
        }
    }
}

/// What a driver was told ([`Op::Steer`](crate::Op::Steer)).
///
/// ```
/// use vmalab_model::{AddressSpace, Asked, Backing, Errno, File, Limits, Mmap, Op, Rules};
///
/// let mut space: AddressSpace = AddressSpace::new(Rules::V7_2, Limits::default());
/// let id = space.add_file(File::device(16));
/// space.apply(&Op::Mmap(Mmap::anonymous(0x10000, 0x4000)));
/// // The device will refuse to be mapped: what was in the way is gone by then.
/// let (file, hook, error) = (Backing::File(id), Asked::Mmap, Errno::EBUSY);
/// space.apply(&Op::Steer { file, hook, nth: 1, error });
/// let outcome = space.apply(&Op::Mmap(Mmap::shared(id, 0x11000, 0x2000, 0)));
/// assert_eq!(outcome.result, Err(Errno::EBUSY));
/// let left: Vec<_> = outcome.layout.iter().map(|area| area.start..area.end).collect();
/// assert_eq!(left, [0x10000..0x11000, 0x13000..0x14000]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steered {
    /// Which hook refuses.
    pub hook: Asked,
    /// At which call of it from now on; 1 is the next one.
    pub nth: u32,
    /// With which error.
    pub error: Errno,
}

impl<C: Container> AddressSpace<C> {
    /// The driver of a file forgets what it was told before. The `nth` call of a hook from now on is to fail,
    /// and no other; with 0, none is.
    ///
    /// # Errors
    ///
    /// EBADF: there is no such descriptor. ENOTTY: not of a driver that can be told.
    pub(crate) fn steer(
        &mut self,
        file: Backing,
        hook: Asked,
        nth: u32,
        error: Errno,
    ) -> Result<(), Errno> {
        let id = match file {
            Backing::File(id) if self.has_descriptor(id) => usize::from(id.0),
            _ => return Err(Errno::EBADF),
        };
        if self.files[id].kind != Kind::Device {
            return Err(Errno::ENOTTY);
        }
        self.files[id].steered = (nth != 0).then_some(Steered { hook, nth, error });
        Ok(())
    }

    /// Calls a hook that can refuse, if the driver has it. It answers what it `usually` does, unless it was
    /// told otherwise.
    pub(crate) fn ask(
        &mut self,
        hook: Hook,
        vma: &Vma,
        usually: Option<Errno>,
    ) -> Result<(), Errno> {
        let calls = self.hooks.len();
        self.call(hook, vma);
        let mut answer = usually;
        if let (Some(call), Object::File(id)) = (self.hooks.get_mut(calls), vma.object) {
            let steered = &mut self.files[usize::from(id.0)].steered;
            if let Some(rule) = steered
                .as_mut()
                .filter(|rule| Asked::of(&hook) == Some(rule.hook))
            {
                rule.nth -= 1;
                if rule.nth == 0 {
                    answer = Some(rule.error);
                    *steered = None;
                }
            }
            call.error = answer;
        }
        answer.map_or(Ok(()), Err)
    }
}
