// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Operations and layouts for people: calls as `strace` prints them, areas as drawings.

use std::fmt::Write as _;
use std::ops::Range;

use vmalab_model::{Area, Hook, HookCall, Name, Object, Op, PAGE_SIZE, VmFlags};

use crate::call::Call;
use crate::oracle::NamedFile;

/// An operation as `strace` would print it; the files by their names.
pub fn op(op: &Op, files: &[NamedFile]) -> String {
    Call::from(op).text(|kind, value| kind.word(value, files, None))
}

/// The text of a name, of which only the number is known elsewhere.
pub(crate) fn name(name: Name) -> String {
    format!("name {}", name.0)
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
    let Some((start, pages)) = frame(window, rows) else {
        return String::new();
    };
    let end = start + pages * PAGE_SIZE;

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
            row[2 * from as usize] = b'[';
            if row[2 * to as usize] == b' ' {
                row[2 * to as usize] = b']';
            }
        }
        let row = String::from_utf8_lossy(&row).into_owned();
        let _ = writeln!(text, "{name:width$}  {}", row.trim_end());
    }
    text
}

/// The same as a picture (SVG) for a page of HTML: a row of boxes each, in full by their titles.
pub fn picture(window: &Range<u64>, rows: &[(&str, &[Area])], files: &[NamedFile]) -> String {
    const PAGE: u64 = 28;
    const LEFT: u64 = 90;
    const ROW: u64 = 40;
    let Some((start, pages)) = frame(window, rows) else {
        return String::new();
    };
    let end = start + pages * PAGE_SIZE;
    let (width, height) = (LEFT + pages * PAGE + 10, ROW * rows.len() as u64 + 30);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"monospace\" font-size=\"12\">\n"
    );
    for page in 0..=pages {
        let x = LEFT + page * PAGE;
        if page % 4 == 0 && page < pages {
            let _ = writeln!(svg, "<text x=\"{x}\" y=\"14\">{page}</text>");
        }
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" x2=\"{x}\" y1=\"18\" y2=\"{}\" stroke=\"#ddd\"/>",
            height - 8
        );
    }
    for (row, (name, areas)) in (0..).zip(rows) {
        let y = 24 + row * ROW;
        let _ = writeln!(svg, "<text x=\"0\" y=\"{}\">{name}</text>", y + 18);
        for area in areas
            .iter()
            .filter(|area| area.end > start && area.start < end)
        {
            let from = (area.start.max(start) - start) / PAGE_SIZE;
            let to = (area.end.min(end) - start) / PAGE_SIZE;
            let x = LEFT + from * PAGE;
            let letter = char::from(letter(area));
            let title = escaped(&format!("{}\n{:?}", self::area(area, files), area.flags));
            let _ = writeln!(
                svg,
                "<g><title>{title}</title><rect x=\"{}\" y=\"{y}\" width=\"{}\" height=\"26\" rx=\"3\" \
                 fill=\"{}\" stroke=\"#333\"/><text x=\"{}\" y=\"{}\">{letter}</text></g>",
                x + 1,
                (to - from) * PAGE - 2,
                colour(area),
                x + 10,
                y + 18,
            );
        }
    }
    svg += "</svg>\n";
    svg
}

/// Text in HTML.
pub fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

fn colour(area: &Area) -> &'static str {
    let writable = area.flags.contains(VmFlags::WRITE);
    match (letter(area).to_ascii_lowercase(), writable) {
        (b'a', true) => "#cfe2ff",
        (b'a', false) => "#e9f1ff",
        (b's', true) => "#d5f0d5",
        (b's', false) => "#edf8ed",
        (b'o', _) => "#e0e0e0",
        (_, true) => "#ffe3b8",
        (_, false) => "#fff3df",
    }
}

/// The first page and the number of pages that are drawn of a window: no more than what is used, and no
/// more than fits a wide terminal.
fn frame(window: &Range<u64>, rows: &[(&str, &[Area])]) -> Option<(u64, u64)> {
    let inside = |area: &&Area| area.start < window.end && area.end > window.start;
    let areas = || {
        rows.iter()
            .flat_map(|(_, areas)| areas.iter().filter(inside))
    };
    let end = areas().map(|area| area.end.min(window.end)).max()?;
    let first = areas().map(|area| area.start.max(window.start)).min()?;
    let start = if (end - window.start) / PAGE_SIZE <= 64 {
        window.start
    } else {
        first
    };
    Some((start, ((end - start) / PAGE_SIZE).min(64)))
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
    let answer = call
        .error
        .map_or(String::new(), |error| format!(" = {error}"));
    format!("{name}.{hook}({start:x}-{end:x} +{offset:#x}{more}){answer}")
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
    use vmalab_model::{Backing, FileId, MapFlags, Mmap, Prot};

    #[test]
    fn rows_are_aligned() {
        let area = |from: u64, to: u64, object| Area {
            start: from << 12,
            end: to << 12,
            flags: VmFlags::MAYSHARE,
            offset: 0,
            object,
            anon_vma: None,
            name: None,
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
    fn a_picture_has_a_box_for_each_area() {
        let area = |from: u64, to: u64| Area {
            start: from << 12,
            end: to << 12,
            flags: VmFlags::READ,
            offset: 0,
            object: Object::Anon,
            anon_vma: None,
            name: None,
        };
        let areas = [area(0, 2), area(3, 4), area(100, 101)];
        let svg = picture(&(0..16 << 12), &[("before", &areas), ("after", &[])], &[]);
        assert_eq!(svg.matches("<rect ").count(), 2);
        assert!(
            svg.contains("<title>0-2000 r--p anonymous\nREAD</title>"),
            "{svg}"
        );
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(picture(&(0..4096), &[("before", &[])], &[]), "");
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
