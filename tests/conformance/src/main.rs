// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `conformance [--era NAME] CASE.json…`: plays cases (`docs/CONFORMANCE.md`) on the system that it runs
//! on, and says what that answered otherwise than Linux does.
//!
//! The same as `runner.c` beside it, for who would rather start from Rust. All cases are played in this
//! process, each in an emptied arena, and each ends at its first difference.
//!
//! Exit status: 0 no difference, 1 some, 2 they could not be played.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;

use serde::Deserialize;

const ARENA: u64 = 0x100_0000_0000;
const PAGE: u64 = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    format: u32,
    #[serde(rename = "name")]
    _name: String,
    page_size: u64,
    pages: u64,
    files: Vec<CaseFile>,
    calls: Vec<Call>,
    expected: Vec<Expected>,
}

#[derive(Deserialize)]
struct CaseFile {
    name: String,
    pages: u64,
    writable: bool,
}

#[derive(Deserialize)]
struct Call {
    call: String,
    args: Vec<String>,
    text: String,
}

#[derive(Deserialize)]
struct Expected {
    eras: Vec<Era>,
    outcomes: Vec<Answer>,
}

#[derive(Deserialize)]
struct Era {
    name: String,
    since: [u64; 3],
}

#[derive(Debug, Deserialize, PartialEq)]
struct Answer {
    result: String,
    areas: Vec<Area>,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Area {
    start: u64,
    end: u64,
    perms: String,
    object: String,
    offset: String,
}

/// An open file, by its name in the case, and the inode that areas of it show.
struct Open {
    name: String,
    fd: OwnedFd,
    inode: String,
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What became of the calls of one name.
#[derive(Default)]
struct Row {
    compared: u32,
    wrong_result: u32,
    wrong_areas: u32,
}

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::from(2)
        }
    }
}

/// How many cases differ.
fn run() -> Result<u32> {
    let mut era = None;
    let mut paths = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match &*word {
            "--era" => era = Some(words.next().ok_or("which era?")?),
            _ => paths.push(word),
        }
    }
    let scratch = memfd(c"scratch", 1)?;
    let mut table: BTreeMap<String, Row> = BTreeMap::new();
    let mut bad = 0;
    for path in &paths {
        let case: Case = serde_json::from_str(&fs::read_to_string(path)?)?;
        if (case.format, case.page_size) != (1, PAGE) {
            return Err(format!("{path}: another format, or another size of pages").into());
        }
        let expected = choose(&case, era.as_deref())?;
        bad += u32::from(!play(path, &case, expected, &scratch, &mut table)?);
    }
    println!("call       compared  wrong result  wrong areas");
    for (call, row) in table {
        let Row {
            compared,
            wrong_result,
            wrong_areas,
        } = row;
        println!("{call:<10} {compared:>8} {wrong_result:>13} {wrong_areas:>12}");
    }
    println!("{bad} of {} cases differ", paths.len());
    Ok(bad)
}

/// The answers of the era, or of the newest that is not newer than the kernel.
fn choose<'a>(case: &'a Case, era: Option<&str>) -> Result<&'a [Answer]> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|part| part.parse().ok());
    let running = [(); 3].map(|()| numbers.next().unwrap_or(0u64));
    let all = case.expected.iter().flat_map(|expected| {
        let outcomes = &*expected.outcomes;
        expected.eras.iter().map(move |era| (era, outcomes))
    });
    let chosen = match era {
        Some(name) => all.into_iter().find(|(era, _)| era.name == name),
        None => all
            .filter(|(era, _)| era.since <= running)
            .max_by_key(|(era, _)| era.since),
    };
    let (_, outcomes) = chosen.ok_or("no case says what this kernel answers")?;
    Ok(outcomes)
}

/// Plays one case, and says whether all was as expected.
fn play(
    path: &str,
    case: &Case,
    expected: &[Answer],
    scratch: &OwnedFd,
    table: &mut BTreeMap<String, Row>,
) -> Result<bool> {
    let size = case.pages * PAGE;
    call(libc::SYS_munmap, &[ARENA, size])?;
    let files = case.files.iter().map(open).collect::<Result<Vec<_>>>()?;
    for (index, (asked, expected)) in case.calls.iter().zip(expected).enumerate() {
        let seen = Answer {
            result: answer(asked, &files, scratch)?,
            areas: look(&files, size)?,
        };
        let row = table.entry(asked.call.clone()).or_default();
        row.compared += 1;
        if seen == *expected {
            continue;
        }
        if seen.result == expected.result {
            row.wrong_areas += 1;
        } else {
            row.wrong_result += 1;
        }
        println!("{path}, call {index}: {}", asked.text);
        println!("  expected {expected:?}\n  seen     {seen:?}");
        return Ok(false);
    }
    Ok(true)
}

/// A system call.
fn call(number: libc::c_long, args: &[u64]) -> io::Result<u64> {
    let arg = |index| args.get(index).copied().unwrap_or(0);
    // SAFETY: the kernel checks arguments, and what the cases map and unmap is in the arena or right
    // behind it, where nothing of this program is.
    let got = unsafe { libc::syscall(number, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) };
    if got == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(got as u64)
    }
}

/// Does a call of a case: its answer in the words of the cases.
fn answer(asked: &Call, files: &[Open], scratch: &OwnedFd) -> Result<String> {
    let mut args = Vec::new();
    for word in &asked.args {
        let hex = |digits| u64::from_str_radix(digits, 16);
        args.push(if let Some(digits) = word.strip_prefix("arena+0x") {
            ARENA + hex(digits)?
        } else if let Some(digits) = word.strip_prefix("0x") {
            hex(digits)?
        } else if let Some(file) = files.iter().find(|file| file.name == *word) {
            file.fd.as_raw_fd() as u64
        } else {
            // -1, or how to touch.
            u64::MAX
        });
    }
    let fd = scratch.as_raw_fd() as u64;
    let touch = asked.call == "touch";
    let got = match &*asked.call {
        "mmap" => call(libc::SYS_mmap, &args),
        "munmap" => call(libc::SYS_munmap, &args),
        "mprotect" => call(libc::SYS_mprotect, &args),
        "mremap" => call(libc::SYS_mremap, &args),
        "mlock" => call(libc::SYS_mlock, &args),
        "mlock2" => call(libc::SYS_mlock2, &args),
        "munlock" => call(libc::SYS_munlock, &args),
        "madvise" => call(libc::SYS_madvise, &args),
        // To write to memory is to read from a file.
        "touch" if asked.args[1] == "write" => call(libc::SYS_pread64, &[fd, args[0], 1, 0]),
        "touch" => call(libc::SYS_pwrite64, &[fd, args[0], 1, 0]),
        other => return Err(format!("no such call: {other}").into()),
    };
    Ok(match got {
        Ok(_) if touch => "0x0".into(),
        Ok(value) if value >= ARENA => format!("arena+{:#x}", value - ARENA),
        Ok(value) => format!("{value:#x}"),
        Err(error) => errno_name(error.raw_os_error().unwrap_or(0)),
    })
}

fn errno_name(number: i32) -> String {
    let names = [
        ("EPERM", libc::EPERM),
        ("EBADF", libc::EBADF),
        ("EAGAIN", libc::EAGAIN),
        ("ENOMEM", libc::ENOMEM),
        ("EACCES", libc::EACCES),
        ("EFAULT", libc::EFAULT),
        ("EBUSY", libc::EBUSY),
        ("EEXIST", libc::EEXIST),
        ("ENODEV", libc::ENODEV),
        ("EINVAL", libc::EINVAL),
        ("EOVERFLOW", libc::EOVERFLOW),
        ("EOPNOTSUPP", libc::EOPNOTSUPP),
        ("ENOSYS", libc::ENOSYS),
    ];
    let known = names.iter().find(|(_, errno)| *errno == number);
    known.map_or_else(|| format!("errno {number}"), |(name, _)| (*name).into())
}

/// The areas in the arena, from `/proc/self/maps`.
fn look(files: &[Open], size: u64) -> Result<Vec<Area>> {
    let mut areas = Vec::new();
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [range, perms, offset, _, inode, ..] = words[..] else {
            return Err(format!("a line of /proc/self/maps: {line}").into());
        };
        let (start, end) = range.split_once('-').ok_or("a range in /proc/self/maps")?;
        let start = u64::from_str_radix(start, 16)?;
        let end = u64::from_str_radix(end, 16)?;
        if start >= ARENA + size || end <= ARENA {
            continue;
        }
        let file = files.iter().find(|file| file.inode == inode);
        let offset = u64::from_str_radix(offset, 16)?;
        areas.push(Area {
            start: start.wrapping_sub(ARENA) / PAGE,
            end: (end - ARENA) / PAGE,
            perms: perms.into(),
            object: match file {
                Some(file) => file.name.clone(),
                None if inode == "0" => "anonymous".into(),
                None => "shared".into(),
            },
            offset: format!("{:#x}", if inode == "0" { 0 } else { offset }),
        });
    }
    Ok(areas)
}

fn memfd(name: &CStr, pages: u64) -> Result<OwnedFd> {
    let fd = call(libc::SYS_memfd_create, &[name.as_ptr() as u64, 0])?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    call(libc::SYS_ftruncate, &[fd.as_raw_fd() as u64, pages * PAGE])?;
    Ok(fd)
}

fn open(file: &CaseFile) -> Result<Open> {
    let mut fd = memfd(&CString::new(&*file.name)?, file.pages)?;
    if !file.writable {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        fd = fs::File::open(path)?.into();
    }
    // The inode as /proc/self/maps shows it: mapped for a moment.
    let (prot, flags) = (libc::PROT_READ, libc::MAP_SHARED | libc::MAP_FIXED);
    let raw = fd.as_raw_fd() as u64;
    call(
        libc::SYS_mmap,
        &[ARENA, PAGE, prot as u64, flags as u64, raw, 0],
    )?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let begin = format!("{ARENA:x}-");
    let line = maps.lines().find(|line| line.starts_with(&begin));
    let inode = line.and_then(|line| line.split_ascii_whitespace().nth(4));
    let inode = inode.ok_or("a file that was mapped is not in /proc/self/maps")?;
    call(libc::SYS_munmap, &[ARENA, PAGE])?;
    Ok(Open {
        name: file.name.clone(),
        fd,
        inode: inode.into(),
    })
}
