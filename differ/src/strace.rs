// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Recorded`]: what a real program did, as `strace` saw it, as a sequence to replay.
//!
//! ```text
//! strace -f -o FILE -e trace=%memory,clone,clone3,execve COMMAND
//! ```
//!
//! A program's memory lies far apart, and a world has few pages. So each stretch that no call cuts becomes one
//! page: which areas touch, which are cut where, and which files fit together stays as it was; lengths do not.
//! What the kernel chose an address for goes to that address. Files become one memory file, each at an offset
//! of its own. What the program was started with is not there: calls about that alone are left out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use vmalab_model::{MapFlags, MremapFlags, Op, PAGE_SIZE};

use crate::call::{Call, Kind, NO_FILE, Value};
use crate::oracle::World;

/// Flags that the kernel has ignored for long, and that the C library still gives.
const IGNORED: [&str; 3] = ["MAP_DENYWRITE", "MAP_EXECUTABLE", "MAP_FILE"];

/// The option `-e` of `strace`, for all that counts.
pub const CALLS: &str = "trace=%memory,clone,clone3,execve";

/// What was recorded, as far as it can be replayed.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// Operations in the world that was given.
    pub ops: Vec<Op>,
    /// Calls that are left out, by the reason.
    pub left_out: BTreeMap<&'static str, u64>,
}

/// One call of the program that is kept.
struct Kept {
    call: Call,
    /// The memory that it is about, and of `mremap` what that became.
    about: Range<u64>,
    to: Option<Range<u64>>,
    /// Which file, and how far the address is from the offset in it: what has both in common fits together.
    file: Option<(String, u64)>,
}

/// A line of the trace.
struct Line<'a> {
    pid: &'a str,
    name: &'a str,
    args: Vec<&'a str>,
    result: &'a str,
}

/// Reads a trace; `world` is that in which it is to be replayed.
///
/// # Errors
/// The line that is not one of strace's.
pub fn read(trace: &str, world: &World) -> Result<Recorded, String> {
    let mut reader = Reader::default();
    for (number, text) in (1..).zip(whole_lines(trace)) {
        let line = line(&text).map_err(|what| format!("line {number}: {what}"))?;
        let Some(line) = line else { continue };
        if let Err(why) = reader.take(&line) {
            *reader.left_out.entry(why).or_default() += 1;
        }
    }
    let (ops, rest) = place(&reader.kept, reader.break_start, world);
    let mut left_out = reader.left_out;
    if rest > 0 {
        left_out.insert("after the world was full", rest);
    }
    Ok(Recorded { ops, left_out })
}

/// The lines, with calls that others came between put together.
fn whole_lines(trace: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut begun: HashMap<&str, &str> = HashMap::new();
    for text in trace.lines() {
        let (pid, rest) = pid(text);
        if let Some(first) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(pid, first.trim_end());
        } else if let Some((_, last)) = rest
            .strip_prefix("<... ")
            .and_then(|rest| rest.split_once(" resumed>"))
        {
            let first = begun.remove(pid).unwrap_or("");
            lines.push(format!("{pid} {first}{last}"));
        } else {
            lines.push(text.into());
        }
    }
    lines
}

/// Who called, and the rest of the line: `1234  mmap(…`, `[pid 1234] mmap(…`, or no number.
fn pid(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let (pid, rest) = match text.strip_prefix("[pid ") {
        Some(rest) => rest.split_once(']').unwrap_or((rest, "")),
        None => text.split_once(' ').unwrap_or((text, "")),
    };
    let pid = pid.trim();
    if !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()) {
        (pid, rest.trim_start())
    } else {
        ("", text)
    }
}

/// A line that is about a call. `None` for comments, signals, ends of processes, and what has no result.
fn line(text: &str) -> Result<Option<Line<'_>>, String> {
    let (pid, rest) = pid(text);
    if rest.is_empty()
        || rest.starts_with('#')
        || rest.starts_with("---")
        || rest.starts_with("+++")
    {
        return Ok(None);
    }
    let expected = || format!("expected a call as strace prints it, found `{rest}`");
    let (name, rest) = rest.split_once('(').ok_or_else(expected)?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(expected());
    }
    let Some((args, result)) = rest.rsplit_once(" = ") else {
        return Ok(None);
    };
    let args = args.trim_end().strip_suffix(')').ok_or_else(expected)?;
    Ok(Some(Line {
        pid,
        name,
        args: arguments(args),
        result: result.split_whitespace().next().unwrap_or(""),
    }))
}

/// The arguments, of which some have commas inside.
fn arguments(text: &str) -> Vec<&str> {
    let mut args = Vec::new();
    let (mut depth, mut quoted, mut start) = (0u32, false, 0);
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' if quoted => drop(bytes.next()),
            b'"' => quoted = !quoted,
            b'{' | b'[' | b'<' if !quoted => depth += 1,
            b'}' | b']' | b'>' if !quoted => depth = depth.saturating_sub(1),
            b',' if !quoted && depth == 0 => {
                args.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text.trim().is_empty() {
        args.push(text[start..].trim());
    }
    args
}

/// Calls about a range of memory, which they say first.
const RANGES: [&str; 10] = [
    "munmap",
    "mprotect",
    "pkey_mprotect",
    "mremap",
    "mlock",
    "mlock2",
    "munlock",
    "madvise",
    "mseal",
    "remap_file_pages",
];

#[derive(Default)]
struct Reader {
    /// Whose memory it is.
    threads: BTreeSet<String>,
    /// What was ever mapped.
    mapped: Vec<Range<u64>>,
    /// Where the break was at first.
    break_start: Option<u64>,
    kept: Vec<Kept>,
    left_out: BTreeMap<&'static str, u64>,
}

impl Reader {
    /// Keeps the call, or says why not.
    fn take(&mut self, line: &Line<'_>) -> Result<(), &'static str> {
        if self.threads.is_empty() {
            self.threads.insert(line.pid.into());
        }
        if !self.threads.contains(line.pid) {
            return Err("of another process");
        }
        match line.name {
            "execve" | "execveat" if line.result == "0" => {
                *self = Self {
                    threads: BTreeSet::from([line.pid.into()]),
                    ..Self::default()
                };
                return Ok(());
            }
            "clone" | "clone3" => {
                if line.args.iter().any(|arg| arg.contains("CLONE_VM")) {
                    self.threads.insert(line.result.into());
                }
                return Ok(());
            }
            "execve" | "execveat" | "fork" | "vfork" => return Ok(()),
            "brk" => return self.take_break(line),
            _ => {}
        }
        if line.name != "mmap" && !RANGES.contains(&line.name) {
            return Err("of another kind");
        }
        let (mut call, file) = call(line)?;
        let [addr, len, new_len, flags, ..] = call.args;
        let result = number(line.result);
        let mut about = range(addr, len)?;
        if line.name == "mmap" {
            if flags & u64::from(MapFlags::HUGETLB.0) != 0 {
                return Err("of huge pages");
            }
            // A failure says nothing of where it would have been.
            call.args[0] = result.ok_or("that failed to map anything")?;
            call.args[3] &= !u64::from(MapFlags::FIXED_NOREPLACE.0);
            call.args[3] |= u64::from(MapFlags::FIXED.0);
            about = range(call.args[0], len)?;
            self.mapped.push(about.clone());
        } else if !self.mapped.iter().any(|one| touch(one, &about)) {
            return Err("about memory that was there before, or the heap");
        }
        let mut to = None;
        if let ("mremap", Some(place)) = (line.name, result) {
            let moved = range(place, new_len)?;
            if place != addr {
                call.args[3] |= u64::from((MremapFlags::MAYMOVE | MremapFlags::FIXED).0);
                call.args[4] = place;
            }
            self.mapped.push(moved.clone());
            to = Some(moved);
        }
        let file = file.map(|name| (name, call.args[0].wrapping_sub(call.args[5])));
        self.kept.push(Kept {
            call,
            about,
            to,
            file,
        });
        Ok(())
    }

    fn take_break(&mut self, line: &Line<'_>) -> Result<(), &'static str> {
        let end = number(line.result).ok_or("that failed to map anything")?;
        let start = *self.break_start.get_or_insert(end);
        if line.args != ["NULL"] || end != start {
            self.kept.push(Kept {
                call: Call {
                    signature: Call::signature("brk").expect("there is one"),
                    args: [end, 0, 0, 0, 0, 0],
                },
                about: 0..0,
                to: None,
                file: None,
            });
        }
        Ok(())
    }
}

/// The call with its numbers, and the file that it names.
fn call(line: &Line<'_>) -> Result<(Call, Option<String>), &'static str> {
    const UNKNOWN: &str = "with an argument that is not known here";
    let signature = Call::signature(line.name).ok_or("of another kind")?;
    let mut args = [0; 6];
    let mut file = None;
    // The last argument of mremap is there only where the flags ask for it.
    let words = line.args.iter().zip(signature.args).zip(&mut args);
    for ((word, (_, kind)), slot) in words {
        *slot = match kind {
            Kind::File if word.starts_with('-') => NO_FILE,
            Kind::File => {
                file = Some((*word).to_owned());
                0
            }
            _ => argument(*kind, word).ok_or(UNKNOWN)?,
        };
    }
    Ok((Call { signature, args }, file))
}

/// An argument that is no file.
fn argument(kind: Kind, word: &str) -> Option<u64> {
    if word == "NULL" {
        return Some(0);
    }
    let words = word.split('|').filter(|word| !IGNORED.contains(word));
    let word = words.collect::<Vec<_>>().join("|");
    match kind.read(&word) {
        Ok(Value::Number(number)) => Some(number),
        _ => None,
    }
}

/// A result that is an address or 0; errors are negative.
fn number(word: &str) -> Option<u64> {
    match argument(Kind::Number, word) {
        Some(number) if number < 1 << 63 => Some(number),
        _ => None,
    }
}

/// In whole pages.
fn range(addr: u64, len: u64) -> Result<Range<u64>, &'static str> {
    let mask = PAGE_SIZE - 1;
    match addr.checked_add(len).and_then(|end| end.checked_add(mask)) {
        Some(end) => Ok(addr & !mask..end & !mask),
        None => Err("with an argument that is not known here"),
    }
}

/// Whether they have anything in common, or meet.
fn touch(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start <= other.end && other.start <= one.end
}

/// As many of the calls as there is room for, in the pages of the world; and how many others there are.
fn place(kept: &[Kept], break_start: Option<u64>, world: &World) -> (Vec<Op>, u64) {
    let pages = (world.arena.end - world.arena.start) / PAGE_SIZE;
    let heap = world.heap.as_ref();
    let heap_pages = heap.map_or(0, |heap| (heap.window.end - heap.window.start) / PAGE_SIZE);
    let places = |count: usize| {
        let (cuts, mut breaks) = cuts(&kept[..count], pages);
        breaks.extend(break_start);
        (cuts, breaks)
    };
    let fits = |count| {
        let (cuts, breaks) = places(count);
        cuts.len() as u64 <= pages + 1 && breaks.len() as u64 <= heap_pages
    };
    let mut count = 0;
    while count < kept.len() && fits(count + 1) {
        count += 1;
    }
    let (cuts, breaks) = places(count);
    let page = |addr: u64| cuts.iter().take_while(|&&cut| cut < addr).count() as u64 * PAGE_SIZE;
    let memfd = world.files.iter().position(|file| file.name == "memfd");
    let memfd = memfd.unwrap_or(0) as u64;
    let mut fitting: Vec<(String, u64)> = Vec::new();
    let moved = |one: &Kept| {
        let mut call = one.call;
        let name = call.signature.name;
        if name == "brk" {
            let place = breaks.iter().position(|&end| end == call.args[0]);
            let start = heap.map_or(0, |heap| heap.window.start);
            call.args[0] = start + place.unwrap_or(0) as u64 * PAGE_SIZE;
            return Op::from(&call);
        }
        let in_page = call.args[0] % PAGE_SIZE;
        let length = |range: &Range<u64>| page(range.end) - page(range.start);
        call.args[0] = world.arena.start + page(one.about.start) + in_page;
        call.args[1] = length(&one.about);
        match &one.to {
            Some(to) => {
                call.args[2] = length(to);
                if call.args[4] != 0 {
                    call.args[4] = world.arena.start + page(to.start);
                }
            }
            None if name == "mremap" => call.args[2] = call.args[2].min(pages * PAGE_SIZE),
            None => {}
        }
        if let Some(file) = &one.file {
            let class = match fitting.iter().position(|known| known == file) {
                Some(class) => class,
                None => {
                    fitting.push(file.clone());
                    fitting.len() - 1
                }
            };
            call.args[4] = memfd;
            call.args[5] = page(one.about.start) + class as u64 * PAGE_SIZE;
        }
        Op::from(&call)
    };
    let ops = kept[..count].iter().map(moved).collect();
    (ops, (kept.len() - count) as u64)
}

/// Where any of the calls cuts memory, and where the break is put. More cuts than fit are not all of them.
fn cuts(kept: &[Kept], pages: u64) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let mut cuts = BTreeSet::new();
    let mut breaks = BTreeSet::new();
    for one in kept {
        if one.call.signature.name == "brk" {
            breaks.insert(one.call.args[0]);
            continue;
        }
        for range in [Some(&one.about), one.to.as_ref()].into_iter().flatten() {
            cuts.extend([range.start, range.end]);
        }
    }
    // What moves has the same cuts where it came from and where it went.
    loop {
        let before = cuts.len();
        for one in kept {
            let Some(to) = &one.to else { continue };
            let length = (one.about.end - one.about.start).min(to.end - to.start);
            for (from, to) in [(one.about.start, to.start), (to.start, one.about.start)] {
                let inside: Vec<u64> = cuts.range(from..from + length).copied().collect();
                cuts.extend(inside.iter().map(|cut| cut - from + to));
            }
        }
        if cuts.len() == before || cuts.len() as u64 > pages + 1 {
            return (cuts, breaks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Oracle as _;
    use crate::peer::Peer;
    use crate::runner::Runner;
    use crate::sequence::to_text;
    use vmalab_model::Rules;

    fn text(trace: &str) -> (Vec<String>, BTreeMap<&'static str, u64>) {
        let peer = Peer::new(Rules::V7_2);
        let world = &peer.worlds()[0];
        let recorded = read(trace, world).unwrap();
        let text = to_text(world, None, &recorded.ops, "");
        let lines = text.lines().skip(1).map(str::to_owned).collect();
        (lines, recorded.left_out)
    }

    /// As a dynamic linker maps a library: lengths go, what is cut and what fits together stays.
    #[test]
    fn each_stretch_becomes_a_page() {
        let (lines, left_out) = text(
            "execve(\"/bin/true\", [\"true\", \"a, b\"], 0x7ffc /* 9 vars */) = 0\n\
             brk(NULL) = 0x555000\n\
             mmap(NULL, 200000, PROT_READ, MAP_PRIVATE|MAP_DENYWRITE, 3, 0) = 0x7f0000000000\n\
             mmap(0x7f0000010000, 65536, PROT_READ|PROT_EXEC, MAP_PRIVATE|MAP_FIXED, 3, 0x10000) = 0x7f0000010000\n\
             mprotect(0x7f0000010000, 4096, PROT_READ) = 0\n\
             mprotect(0x555000, 4096, PROT_READ) = 0\n\
             brk(0x576000) = 0x576000\n\
             munmap(0x7f0000000000, 200000) = 0\n\
             exit_group(0) = ?\n\
             +++ exited with 0 +++\n",
        );
        assert_eq!(
            lines,
            [
                "mmap(arena+0x0, 0x4000, PROT_READ, MAP_PRIVATE|MAP_FIXED, memfd, 0x0)",
                "mmap(arena+0x1000, 0x2000, PROT_READ|PROT_EXEC, MAP_PRIVATE|MAP_FIXED, memfd, 0x1000)",
                "mprotect(arena+0x1000, 0x1000, PROT_READ)",
                "brk(heap+0x1000)",
                "munmap(arena+0x0, 0x4000)",
            ]
        );
        assert_eq!(
            left_out["about memory that was there before, or the heap"],
            1
        );
    }

    /// What moves is cut in the same way on both sides, calls that were interrupted are put together, and only
    /// threads share memory.
    #[test]
    fn moves_threads_and_interruptions() {
        let (lines, left_out) = text(
            "7 mmap(NULL, 12288, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x10000\n\
             7 clone3({flags=CLONE_VM|CLONE_FS, exit_signal=0} => {parent_tid=[8]}, 88) = 8\n\
             7 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD) = 9\n\
             7 mremap(0x10000, 12288, 12288, MREMAP_MAYMOVE <unfinished ...>\n\
             9 munmap(0x10000, 4096) = 0\n\
             7 <... mremap resumed>) = 0x90000\n\
             8 munmap(0x91000, 4096) = 0\n\
             8 munmap(0x91001, 4096) = -1 EINVAL (Invalid argument)\n",
        );
        assert_eq!(
            lines,
            [
                "mmap(arena+0x0, 0x3000, PROT_NONE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0x0)",
                "mremap(arena+0x0, 0x3000, 0x3000, MREMAP_MAYMOVE|MREMAP_FIXED, arena+0x4000)",
                "munmap(arena+0x5000, 0x1000)",
                "munmap(arena+0x5001, 0x2000)",
            ]
        );
        assert_eq!(left_out, BTreeMap::from([("of another process", 1)]));
    }

    /// What does not fit is counted; the rest is a sequence that plays.
    #[test]
    fn a_full_world_is_told() {
        let lines = (0..100).map(|i: u64| {
            let at = 0x10000 + i * 0x3000;
            format!("mmap(NULL, 8192, PROT_READ, MAP_SHARED, {i}, 0) = {at:#x}")
        });
        let trace = lines.collect::<Vec<_>>().join("\n");
        let mut peer = Peer::new(Rules::V7_2);
        let recorded = read(&trace, &peer.worlds()[0]).unwrap();
        assert_eq!(recorded.ops.len(), 16);
        assert_eq!(recorded.left_out["after the world was full"], 84);
        let mut runner = Runner::new(&mut peer, Rules::V7_2).unwrap();
        assert!(runner.replay(0, &recorded.ops).unwrap().is_none());
        let last = runner.steps().1.last().unwrap();
        assert_eq!(last.outcome.layout.len(), 16);
    }

    #[test]
    fn what_is_no_trace_is_told() {
        let peer = Peer::new(Rules::V7_2);
        let read = |trace| read(trace, &peer.worlds()[0]).unwrap_err();
        assert!(read("brk(NULL) = 0x1000\nnonsense\n").starts_with("line 2: expected a call"));
    }
}
