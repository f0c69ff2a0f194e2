// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Rules`]: what differs between kernels, as data.
//!
//! No other file asks which kernel it imitates. A difference between two eras is a field here, with
//! the version in which it changed; an era is a constant that fills all fields in.

/// The rules of one era.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The era's name, as in `V7_2`.
    pub name: &'static str,
    /// The kernel version from which on these rules are known to hold: major, minor, patch.
    pub since: (u16, u16, u16),
    /// An area that was written to merges into a neighbour that was not, which takes its `anon_vma`
    /// over (`is_mergeable_anon_vma`). Since 6.16; before, only the neighbour's own `anon_vma` could
    /// cover the new part, although the opposite had been intended since 2.6.39.
    pub merge_into_unwritten: bool,
    /// `mremap` with `MREMAP_DONTUNMAP` treats the source as an area of its own: a locked range is cut
    /// out, so that it alone is unlocked, and leaves `locked_vm` (`needs_pre_split`); the copy never
    /// merges with the source (`copy_vma`); and a source that lost its pages gets the page offset of
    /// one that never had any (`dontunmap_complete`). Since a version after 6.18. Before, all of the
    /// source area was unlocked, and `locked_vm` kept it.
    pub dontunmap_is_clean: bool,
    /// A deliberate error, for testing testers. `None` in every era.
    pub mistake: Option<Mistake>,
}

/// A rule that is deliberately wrong, so that a tester can prove that it notices. Never part of an era.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mistake {
    /// The upper piece of a split keeps the offset of the whole.
    SplitLosesOffset,
    /// A split calls `open` on neither piece.
    SplitForgetsOpen,
    /// Unmapping a range in which nothing is mapped is EINVAL.
    MunmapOfHoleFails,
    /// A length of 0 unmaps nothing and succeeds.
    MunmapOfNothingWorks,
    /// At the limit any split of munmap is refused, as before 2.6.33.
    LimitAtEverySplit,
    /// The limit on the number of areas is one lower.
    MapCountOffByOne,
    /// `close` is called in descending order of addresses.
    CloseBackwards,
    /// A new range never merges with the area above it.
    NoMergeForward,
    /// A new range merges with neighbours whatever their offsets are.
    MergeIgnoresOffset,
    /// A `close` hook does not stop a merge from removing the area.
    MergeIgnoresClose,
    /// Private areas merge though they have different `anon_vma`s.
    MergeIgnoresAnonVma,
    /// A new range of locked memory is not counted.
    LockedNotCounted,
    /// `MAP_FIXED` counts what it replaces twice.
    ReplacedCountedTwice,
    /// `MAP_FIXED_NOREPLACE` replaces.
    NoreplaceReplaces,
    /// Addresses are chosen without a thought of stacks that may grow.
    NoGuardGap,
}

impl Mistake {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::SplitLosesOffset,
        Self::SplitForgetsOpen,
        Self::MunmapOfHoleFails,
        Self::MunmapOfNothingWorks,
        Self::LimitAtEverySplit,
        Self::MapCountOffByOne,
        Self::CloseBackwards,
        Self::NoMergeForward,
        Self::MergeIgnoresOffset,
        Self::MergeIgnoresClose,
        Self::MergeIgnoresAnonVma,
        Self::LockedNotCounted,
        Self::ReplacedCountedTwice,
        Self::NoreplaceReplaces,
        Self::NoGuardGap,
    ];
}

impl Rules {
    /// Linux 6.12. Its `mremap` is not modelled: `AddressSpace::mremap` follows 6.17.
    pub const V6_12: Self = Self {
        name: "V6_12",
        since: (6, 12, 0),
        merge_into_unwritten: false,
        dontunmap_is_clean: false,
        mistake: None,
    };

    /// Linux 6.18.
    pub const V6_18: Self = Self {
        name: "V6_18",
        since: (6, 18, 0),
        merge_into_unwritten: true,
        ..Self::V6_12
    };

    /// Linux 7.2.
    pub const V7_2: Self = Self {
        name: "V7_2",
        since: (7, 2, 0),
        dontunmap_is_clean: true,
        ..Self::V6_18
    };

    const ALL: &'static [Self] = &[Self::V6_12, Self::V6_18, Self::V7_2];

    /// All eras, oldest first.
    pub const fn all() -> &'static [Self] {
        Self::ALL
    }

    /// The newest era that is not newer than a kernel, given its release as `uname -r` prints it
    /// (`"6.18.44-cloud"`). `None` for a kernel older than all eras, or for what is not a release.
    ///
    /// ```
    /// use vmalab_model::Rules;
    /// assert_eq!(Rules::for_kernel("6.18.44-cloud").unwrap().name, "V6_18");
    /// assert_eq!(Rules::for_kernel("6.17.2").unwrap().name, "V6_12");
    /// assert_eq!(Rules::for_kernel("7.3.0-rc7").unwrap().name, "V7_2");
    /// assert!(Rules::for_kernel("2.4.0").is_none());
    /// ```
    pub fn for_kernel(release: &str) -> Option<&'static Self> {
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map_while(|part| part.parse::<u16>().ok());
        let version = (
            numbers.next()?,
            numbers.next()?,
            numbers.next().unwrap_or(0),
        );
        Self::ALL.iter().rev().find(|rules| rules.since <= version)
    }

    /// The era of that name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|rules| rules.name == name)
    }

    /// These rules with one of them broken.
    pub const fn with_mistake(mut self, mistake: Mistake) -> Self {
        self.mistake = Some(mistake);
        self
    }

    pub(crate) fn errs(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }
}
