// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Maps /dev/vmalab, writes, unmaps the middle, forks, and checks what is left, in the child and in
//! the parent. Exits with 0 only if all of it holds.

use std::{
    fs::File,
    io::Read,
    os::fd::AsRawFd,
    process::{ExitCode, exit},
};

use nix::{
    errno::Errno,
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, fork, pipe},
};
use vmalab::{Device, Mapping, Remains, Sharing, page_size};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const PAGES: usize = 6;

fn main() -> ExitCode {
    let rounds = round(Sharing::Shared, "ab..ef").and_then(|()| round(Sharing::Private, "AB..EF"));
    match rounds {
        Ok(()) => {
            println!("all of it holds");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// One round; `parent_after` is what the parent sees after the child has written.
fn round(sharing: Sharing, parent_after: &str) -> Result {
    let page = page_size();
    let device = Device::open()?;
    device.set_size((PAGES * page) as u64)?;
    let options = device.map().length(PAGES * page);
    let mapping = match sharing {
        Sharing::Shared => options.shared()?,
        Sharing::Private => options.private()?,
    };
    let start = mapping.as_ptr();

    println!("{sharing:?}: {PAGES} pages, written, the middle unmapped, forked");
    write_letters(&mapping, b'A')?;
    look("whole", start, "ABCDEF")?;
    areas(&device, 1)?;

    let Remains { head, tail } = mapping.unmap_range(2 * page..4 * page)?;
    let (head, tail) = (head.ok_or("no head")?, tail.ok_or("no tail")?);
    look("cut", start, "AB..EF")?;
    areas(&device, 2)?;

    // SAFETY: this program has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let result = areas(&device, 4)
                .and_then(|()| look("child", start, "AB..EF"))
                .and_then(|()| write_letters(&head, b'a'))
                .and_then(|()| write_letters(&tail, b'e'))
                .and_then(|()| look("child", start, "ab..ef"));
            if let Err(error) = &result {
                eprintln!("child: {error}");
            }
            exit(result.is_err().into());
        }
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => {}
            other => return Err(format!("the child ended with {other:?}").into()),
        },
    }
    look("parent", start, parent_after)?;
    areas(&device, 2)?;

    drop((head, tail));
    look("gone", start, "......")?;
    areas(&device, 0)
}

/// Fills each page with a letter, from `first` on.
fn write_letters(mapping: &Mapping, first: u8) -> Result {
    for (letter, at) in (first..).zip((0..mapping.len()).step_by(page_size())) {
        mapping.fill(at..at + page_size(), letter)?;
    }
    Ok(())
}

/// Draws the pages, and compares them with what they should be.
fn look(who: &str, start: *mut u8, expected: &str) -> Result {
    let mut seen = String::new();
    for page in 0..PAGES {
        seen.push(look_at(start.wrapping_add(page * page_size()))?);
    }
    let drawing: String = seen
        .chars()
        .flat_map(|letter| [' ', letter, ' ', '|'])
        .collect();
    println!("    {who:<7}|{drawing}");
    if seen == expected {
        Ok(())
    } else {
        Err(format!("{who}: {seen} should be {expected}").into())
    }
}

/// The letter that fills a page, '?' if it is torn, '.' if there is no page. The kernel reads the
/// page into a pipe for us: write(2) answers EFAULT where we would die.
fn look_at(addr: *mut u8) -> Result<char> {
    let (reader, writer) = pipe()?;
    // SAFETY: write only reads, and the kernel checks the address.
    match unsafe { libc::write(writer.as_raw_fd(), addr.cast(), page_size()) } {
        -1 if Errno::last() == Errno::EFAULT => return Ok('.'),
        -1 => return Err(Errno::last().into()),
        _ => drop(writer),
    }
    let mut bytes = Vec::new();
    File::from(reader).read_to_end(&mut bytes)?;
    let whole = bytes.len() == page_size() && bytes.iter().all(|byte| *byte == bytes[0]);
    Ok(if whole { bytes[0].into() } else { '?' })
}

/// Compares the number of areas that the module counts.
fn areas(device: &Device, expected: u64) -> Result {
    let seen = device.stats()?.areas;
    if seen == expected {
        Ok(())
    } else {
        Err(format!("{seen} areas, not {expected}").into())
    }
}
