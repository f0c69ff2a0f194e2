// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `/proc/PID/smaps`, which tells the flags of areas and their names (`show_smap_vma_flags`,
//! `show_map_vma`). A child reads it between fork and exit, so that nothing here allocates.

use vmalab_model::VmFlags;

/// How it calls the flags. One for which a kernel has no name yet is "??".
pub(crate) const SHOWN: &[(&str, VmFlags)] = &[
    ("rd", VmFlags::READ),
    ("wr", VmFlags::WRITE),
    ("ex", VmFlags::EXEC),
    ("sh", VmFlags::SHARED),
    ("mr", VmFlags::MAYREAD),
    ("mw", VmFlags::MAYWRITE),
    ("me", VmFlags::MAYEXEC),
    ("ms", VmFlags::MAYSHARE),
    ("gd", VmFlags::GROWSDOWN),
    ("um", VmFlags::UFFD_MISSING),
    ("pf", VmFlags::PFNMAP),
    ("gu", VmFlags::MAYBE_GUARD),
    ("uw", VmFlags::UFFD_WP),
    ("lo", VmFlags::LOCKED),
    ("io", VmFlags::IO),
    ("sr", VmFlags::SEQ_READ),
    ("rr", VmFlags::RAND_READ),
    ("dc", VmFlags::DONTCOPY),
    ("de", VmFlags::DONTEXPAND),
    ("lf", VmFlags::LOCKONFAULT),
    ("ac", VmFlags::ACCOUNT),
    ("nr", VmFlags::NORESERVE),
    ("ht", VmFlags::HUGETLB),
    ("sf", VmFlags::SYNC),
    ("wf", VmFlags::WIPEONFORK),
    ("dd", VmFlags::DONTDUMP),
    ("mm", VmFlags::MIXEDMAP),
    ("hg", VmFlags::HUGEPAGE),
    ("nh", VmFlags::NOHUGEPAGE),
    ("mg", VmFlags::MERGEABLE),
    ("dp", VmFlags::DROPPABLE),
    ("sl", VmFlags::SEALED),
];

/// Those that no supported kernel shows as "??": they have had their names since 4.14 and before.
const ALWAYS_NAMED: VmFlags = shown().without(
    VmFlags::MAYBE_GUARD
        .union(VmFlags::LOCKONFAULT)
        .union(VmFlags::DROPPABLE)
        .union(VmFlags::SEALED),
);

/// All flags of [`SHOWN`], and the key.
pub(crate) const fn shown() -> VmFlags {
    let mut all = VmFlags::PKEY.0;
    let mut index = 0;
    while index < SHOWN.len() {
        all |= SHOWN[index].1.0;
        index += 1;
    }
    VmFlags(all)
}

/// What it tells of an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// First byte.
    pub(super) start: u64,
    /// One past the last byte.
    pub(super) end: u64,
    head: &'a [u8],
    words: &'a [u8],
    /// The number of its protection key, where the processor has them.
    key: u8,
}

impl Entry<'_> {
    /// The flags, and which are known by that: of the others it may have one that the kernel has no name for.
    pub(super) fn flags(&self) -> (VmFlags, VmFlags) {
        let (mut flags, mut known) = (VmFlags::empty(), shown());
        for word in self.words.split(|&byte| byte == b' ') {
            if word == b"??" {
                known = ALWAYS_NAMED;
            }
            if let Some((_, flag)) = SHOWN.iter().find(|(name, _)| name.as_bytes() == word) {
                flags |= *flag;
            }
        }
        (flags | VmFlags::of_key(self.key), known | VmFlags::PKEY)
    }

    /// The number that ends the name of anonymous memory, 0 without one. `None`: the kernel's own name is
    /// shown instead (`[heap]`, `[stack]`).
    pub(super) fn name(&self) -> Option<u64> {
        let Some(title) = self.head.strip_suffix(b"]") else {
            return Some(0);
        };
        let begin = title.iter().rposition(|&byte| byte == b'[')?;
        let title = title.get(begin + 1..)?;
        if !title.starts_with(b"anon:") && !title.starts_with(b"anon_shmem:") {
            return None;
        }
        let digits = title.iter().rposition(|byte| !byte.is_ascii_digit())?;
        number(title.get(digits + 1..)?, 10)
    }
}

/// The first entry of a text of whole entries, and its length.
pub(super) fn entry(text: &[u8]) -> Option<(Entry<'_>, usize)> {
    let (head, mut used) = line(text, 0)?;
    let mut range = head.split(|&byte| byte == b'-' || byte == b' ');
    let (start, end) = (number(range.next()?, 16)?, number(range.next()?, 16)?);
    let mut key = 0;
    loop {
        let (words, next) = line(text, used)?;
        used = next;
        if let Some(number_of_key) = words.strip_prefix(b"ProtectionKey:") {
            key = number(number_of_key.trim_ascii(), 10)? as u8;
        } else if let Some(words) = words.strip_prefix(b"VmFlags:") {
            let entry = Entry {
                start,
                end,
                head,
                words,
                key,
            };
            return Some((entry, used));
        }
    }
}

/// The line that begins there, and where the next one begins.
fn line(text: &[u8], from: usize) -> Option<(&[u8], usize)> {
    let rest = text.get(from..)?;
    // SAFETY: so many bytes are there. It reads them, and nothing else.
    let end = unsafe { libc::memchr(rest.as_ptr().cast(), b'\n'.into(), rest.len()) };
    if end.is_null() {
        return None;
    }
    let len = end as usize - rest.as_ptr() as usize;
    Some((rest.get(..len)?, from + len + 1))
}

/// A number of digits only; 0 without one.
pub(super) fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let mut value = 0u64;
    for &digit in digits {
        value = value * u64::from(radix) + u64::from((digit as char).to_digit(radix)?);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_follow_each_other() {
        let text = b"10000-14000 rw-p 00000000 00:00 0                          [anon:name 2]
Size:                 16 kB
ProtectionKey:         5
VmFlags: rd wr mr mw me ac sd \n\
7f0000-7f1000 ---s 00000000 00:01 12                        /memfd:vmalab (deleted)
VmFlags: mr ?? lo \n";
        let (first, used) = entry(text).unwrap();
        let flags = VmFlags::READ | VmFlags::WRITE | VmFlags::ACCOUNT;
        let may = VmFlags::MAYREAD | VmFlags::MAYWRITE | VmFlags::MAYEXEC;
        assert_eq!((first.start, first.end), (0x10000, 0x14000));
        let key = VmFlags::PKEY_BIT0 | VmFlags::PKEY_BIT2;
        assert_eq!(first.flags(), (flags | may | key, shown()));
        assert_eq!(first.name(), Some(2));
        let (second, rest) = entry(&text[used..]).unwrap();
        assert_eq!((second.start, second.name()), (0x7f_0000, Some(0)));
        let (flags, known) = second.flags();
        assert_eq!(flags, VmFlags::MAYREAD | VmFlags::LOCKED);
        assert!(!known.contains(VmFlags::LOCKONFAULT) && known.contains(VmFlags::LOCKED));
        assert_eq!(used + rest, text.len());
        assert_eq!(entry(&text[used + rest..]), None);
        let heap = b"1000-2000 rw-p 00000000 00:00 0      [heap]\nVmFlags: rd \n";
        assert_eq!(entry(heap).unwrap().0.name(), None);
    }
}
