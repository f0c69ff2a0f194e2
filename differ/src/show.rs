// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Operations and layouts for people: calls as `strace` prints them, areas as drawings.

use std::fmt::Write as _;
use std::ops::Range;

use vmalab_model::{
    Advice, Area, Backing, Hook, HookCall, MapFlags, MlockFlags, Mmap, Object, Op, PAGE_SIZE, Prot,
    VmFlags,
};

use crate::oracle::NamedFile;

/// An operation as `strace` would print it; the files by their names.
pub fn op(op: &Op, files: &[NamedFile]) -> String {
    match *op {
        Op::Mmap(Mmap {
            addr,
            len,
            prot,
            flags,
            backing,
            offset,
        }) => {
            let fd = match backing {
                Backing::None => "-1".into(),
                Backing::File(id) => files
                    .get(usize::from(id.0))
                    .map_or_else(|| format!("{id:?}"), |file| file.name.clone()),
            };
            let (prot, flags) = (protection(prot), map_flags(flags));
            format!("mmap({addr:#x}, {len:#x}, {prot}, {flags}, {fd}, {offset:#x})")
        }
        Op::Munmap { addr, len } => format!("munmap({addr:#x}, {len:#x})"),
        Op::Mprotect { addr, len, prot } => {
            format!("mprotect({addr:#x}, {len:#x}, {})", protection(prot))
        }
        Op::Mremap {
            addr,
            old_len,
            new_len,
            flags,
            new_addr,
        } => {
            let flags = prefixed(&format!("{flags:?}"), "MREMAP_");
            format!("mremap({addr:#x}, {old_len:#x}, {new_len:#x}, {flags}, {new_addr:#x})")
        }
        Op::Mlock { addr, len, flags } if flags == MlockFlags::empty() => {
            format!("mlock({addr:#x}, {len:#x})")
        }
        Op::Mlock { addr, len, flags } => {
            let flags = prefixed(&format!("{flags:?}"), "MLOCK_");
            format!("mlock2({addr:#x}, {len:#x}, {flags})")
        }
        Op::Munlock { addr, len } => format!("munlock({addr:#x}, {len:#x})"),
        Op::Madvise { addr, len, advice } => {
            let advice = if Advice::ALL.contains(&advice) {
                format!("MADV_{advice:?}")
            } else {
                format!("{advice:?}")
            };
            format!("madvise({addr:#x}, {len:#x}, {advice})")
        }
        Op::PkeyMprotect {
            addr,
            len,
            prot,
            pkey,
        } => {
            let prot = protection(prot);
            format!("pkey_mprotect({addr:#x}, {len:#x}, {prot}, {pkey})")
        }
        Op::Mlockall { flags } => {
            format!("mlockall({})", prefixed(&format!("{flags:?}"), "MCL_"))
        }
        Op::Munlockall => "munlockall()".into(),
        Op::Mseal { addr, len, flags } => format!("mseal({addr:#x}, {len:#x}, {flags:#x})"),
        Op::Brk { addr } => format!("brk({addr:#x})"),
        Op::RemapFilePages {
            addr,
            len,
            prot,
            pgoff,
            flags,
        } => {
            let prot = if prot == Prot::empty() {
                "0".into()
            } else {
                protection(prot)
            };
            let flags = map_flags(flags);
            format!("remap_file_pages({addr:#x}, {len:#x}, {prot}, {pgoff:#x}, {flags})")
        }
        Op::SetMdwe { bits } => {
            let bits = prefixed(&format!("{bits:?}"), "PR_MDWE_");
            format!("prctl(PR_SET_MDWE, {bits})")
        }
        Op::Fork => "fork()".into(),
        Op::UffdRegister { addr, len } => format!("uffd_register({addr:#x}, {len:#x})"),
        Op::UffdUnregister { addr, len } => format!("uffd_unregister({addr:#x}, {len:#x})"),
        Op::Touch { addr, write: true } => format!("touch({addr:#x}, write)"),
        Op::Touch { addr, write: false } => format!("touch({addr:#x}, read)"),
    }
}

fn protection(prot: Prot) -> String {
    if prot == Prot::empty() {
        "PROT_NONE".into()
    } else {
        prefixed(&format!("{prot:?}"), "PROT_")
    }
}

fn map_flags(flags: MapFlags) -> String {
    prefixed(&format!("{flags:?}"), "MAP_")
}

/// `A|B` with a prefix on each name.
fn prefixed(names: &str, prefix: &str) -> String {
    let with = |name: &str| {
        if name.starts_with("0x") {
            name.into()
        } else {
            format!("{prefix}{name}")
        }
    };
    names.split('|').map(with).collect::<Vec<_>>().join("|")
}

/// Layouts of one window as rows of a table, one column a page:
///
/// ```text
///             0       4
/// before     [a a a[s s]. .
/// predicted  [a[a a[s]. . .
/// ```
///
/// `[` begins an area, `]` ends one that no other follows; the letter says what is mapped: `a` private
/// anonymous, `s` shared anonymous, `f`, `g`, … files (upper case: shared), `o` other.
pub fn drawing(window: &Range<u64>, rows: &[(&str, &[Area])]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let used = |(_, areas): &(&str, &[Area])| {
        areas
            .iter()
            .filter(|area| area.start < window.end && area.end > window.start)
            .map(|area| area.end.min(window.end))
            .max()
    };
    // No more than what is used, and no more than fits a wide terminal.
    let first = |(_, areas): &(&str, &[Area])| {
        areas
            .iter()
            .filter(|area| area.start < window.end && area.end > window.start)
            .map(|area| area.start.max(window.start))
            .min()
    };
    let Some(end) = rows.iter().filter_map(used).max() else {
        return String::new();
    };
    let start = rows.iter().filter_map(first).min().unwrap_or(window.start);
    let start = if (end - window.start) / PAGE_SIZE <= 64 {
        window.start
    } else {
        start
    };
    let pages = ((end - start) / PAGE_SIZE).min(64);

    let mut text = String::new();
    let mut ruler = String::new();
    for page in (0..pages).step_by(4) {
        let _ = write!(ruler, "{page:<8}");
    }
    let _ = writeln!(
        text,
        "{:width$}   {}  (pages from {start:#x})",
        "",
        ruler.trim_end()
    );
    for (name, areas) in rows {
        let mut row = vec![b' '; 2 * pages as usize + 1];
        for page in 0..pages {
            row[2 * page as usize + 1] = b'.';
        }
        for area in *areas {
            if area.end <= start || area.start >= end {
                continue;
            }
            let from = (area.start.max(start) - start) / PAGE_SIZE;
            let to = ((area.end - start) / PAGE_SIZE).min(pages);
            for page in from..to {
                row[2 * page as usize + 1] = letter(area);
            }
            if from < pages {
                row[2 * from as usize] = b'[';
            }
            if row[2 * to as usize] == b' ' {
                row[2 * to as usize] = b']';
            }
        }
        let row = String::from_utf8_lossy(&row).into_owned();
        let _ = writeln!(text, "{name:width$}  {}", row.trim_end());
    }
    text
}

fn letter(area: &Area) -> u8 {
    match area.object {
        Object::Anon => b'a',
        Object::Shmem(_) => b's',
        Object::File(id) => {
            let letter = b"fghijklmn"[usize::from(id.0).min(8)];
            if area.flags.contains(VmFlags::MAYSHARE) {
                letter.to_ascii_uppercase()
            } else {
                letter
            }
        }
        _ => b'o',
    }
}

/// One call of a hook: `device.may_split(7f0000000000-7f0000004000 +0x1000, at 7f0000002000)`.
pub fn hook_call(call: &HookCall, files: &[NamedFile]) -> String {
    let name = files
        .get(usize::from(call.file.0))
        .map_or_else(|| format!("{:?}", call.file), |file| file.name.clone());
    let (hook, more) = match call.hook {
        Hook::Mmap => ("mmap", String::new()),
        Hook::Open => ("open", String::new()),
        Hook::Close => ("close", String::new()),
        Hook::Mapped => ("mapped", String::new()),
        Hook::Mremap => ("mremap", String::new()),
        Hook::MaySplit { addr } => ("may_split", format!(", at {addr:x}")),
        Hook::Mprotect { start, end, flags } => {
            ("mprotect", format!(", {start:x}-{end:x} to {flags:?}"))
        }
        Hook::Fault { addr, write } => {
            let how = if write { "write" } else { "read" };
            ("fault", format!(", {addr:x} to {how}"))
        }
    };
    let HookCall {
        start, end, offset, ..
    } = call;
    format!("{name}.{hook}({start:x}-{end:x} +{offset:#x}{more})")
}

/// One area as a line of `/proc/PID/maps`.
pub fn area(area: &Area, files: &[NamedFile]) -> String {
    let bit = |flag, letter| {
        if area.flags.contains(flag) {
            letter
        } else {
            '-'
        }
    };
    let object = match area.object {
        Object::Anon => "anonymous".into(),
        Object::Shmem(number) => format!("shared anonymous #{number}"),
        Object::File(id) => files
            .get(usize::from(id.0))
            .map_or_else(|| format!("{id:?}"), |file| file.name.clone()),
        _ => "other".into(),
    };
    let offset = match area.object {
        Object::Anon => String::new(),
        _ => format!(" +{:#x}", area.offset),
    };
    format!(
        "{:x}-{:x} {}{}{}{} {object}{offset}",
        area.start,
        area.end,
        bit(VmFlags::READ, 'r'),
        bit(VmFlags::WRITE, 'w'),
        bit(VmFlags::EXEC, 'x'),
        if area.flags.contains(VmFlags::MAYSHARE) {
            's'
        } else {
            'p'
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmalab_model::FileId;

    #[test]
    fn rows_are_aligned() {
        let area = |from: u64, to: u64, object| Area {
            start: from << 12,
            end: to << 12,
            flags: VmFlags::MAYSHARE,
            offset: 0,
            object,
        };
        let before = [
            area(16, 19, Object::Anon),
            area(19, 21, Object::File(FileId(0))),
        ];
        let after = [area(16, 17, Object::Anon), area(18, 22, Object::Shmem(0))];
        let drawn = drawing(
            &(16 << 12..48 << 12),
            &[("before", &before), ("observed", &after)],
        );
        assert_eq!(
            drawn.lines().map(str::trim_end).collect::<Vec<_>>(),
            [
                "           0       4  (pages from 0x10000)",
                "before    [a a a[F F].",
                "observed  [a].[s s s s]",
            ]
        );
    }

    #[test]
    fn an_operation_reads_like_strace() {
        let mmap = Op::Mmap(Mmap {
            addr: 0x1000,
            len: 0x2000,
            prot: Prot::READ | Prot::WRITE,
            flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS,
            backing: Backing::None,
            offset: 0,
        });
        assert_eq!(
            op(&mmap, &[]),
            "mmap(0x1000, 0x2000, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0x0)"
        );
    }
}
