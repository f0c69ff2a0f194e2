// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Objects of other kinds: in larger pieces, mapped by frame numbers, watched and steered.

use std::time::Duration;

use nix::errno::Errno;
use vmalab::{AreaFlags, Device, Hook, HookSet, Watch};

use super::{calls::errno, *};

/// Where 2 MiB are mapped, by one entry of the page table, if there is memory for it.
pub(super) const HUGE: usize = 1 << 44;
/// How many pages these are.
pub(super) const OF_HUGE: usize = 512;

/// Somebody watches all hooks, and there are rules.
pub(super) fn watched(device: &Device) -> Option<Watch> {
    for hook in [Hook::Fault, Hook::PageMkwrite] {
        device
            .steer(hook)
            .delay(Duration::from_micros(1))
            .times(1000)
            .unwrap();
        device.steer(hook).nth(1 << 40).sigbus().once().unwrap();
    }
    Some(device.watch().records(64).open().unwrap())
}

pub(super) fn mixed(device: &Device) -> Option<Watch> {
    device.set_area_flags(AreaFlags::MIXEDMAP).unwrap();
    None
}

pub(super) fn by_frame(device: &Device) -> Option<Watch> {
    device.set_area_flags(AreaFlags::PFNMAP).unwrap();
    device.set_hooks(HookSet::PageMkwrite).unwrap();
    None
}

/// Of 64 KiB: the first touch of an object has brought all of it.
pub(super) fn in_pieces(device: &Device) -> Option<Watch> {
    device.set_folio_size((PAGES * PAGE) as u64).unwrap();
    None
}

/// The same, by frame.
pub(super) fn by_frame_in_pieces(device: &Device) -> Option<Watch> {
    in_pieces(device);
    by_frame(device)
}

/// Maps the second piece of 2 MiB and touches it, with these hooks.
fn huge(stage: &Stage, kind: i32, hooks: HookSet) -> Result<(), Errno> {
    errno(stage.device.set_folio_size((OF_HUGE * PAGE) as u64))?;
    errno(stage.device.set_hooks(hooks))?;
    errno(stage.device.set_size((2 * OF_HUGE * PAGE) as u64))?;
    let flags = kind | libc::MAP_FIXED_NOREPLACE;
    try_map(&stage.device, HUGE, OF_HUGE, RW, flags, OF_HUGE)?;
    advise(HUGE + 7 * PAGE, 1, libc::MADV_POPULATE_WRITE)
}

pub(super) fn pieces() -> Vec<Call> {
    let mut calls = Vec::new();
    for (kind, name) in [(SHARED, "shared"), (PRIVATE, "private")] {
        for (how, advice) in [
            ("read", libc::MADV_POPULATE_READ),
            ("write", libc::MADV_POPULATE_WRITE),
        ] {
            calls.push(call(format!("{how} a new piece, {name}"), move |stage| {
                errno(stage.device.set_size((2 * PAGES * PAGE) as u64))?;
                let flags = kind | libc::MAP_FIXED;
                try_map(&stage.device, stage.place, PAGES, RW, flags, PAGES)?;
                advise(stage.place + 3 * PAGE, 1, advice)
            }));
        }
        let name = format!("2 MiB by fault, {name}");
        calls.push(call(name, move |stage| huge(stage, kind, HookSet::empty())));
    }
    calls.push(call("2 MiB by huge_fault", |stage| {
        huge(stage, SHARED, HookSet::HugeFault)
    }));
    calls.push(call("2 MiB that are tracked", |stage| {
        huge(stage, SHARED, HookSet::PageMkwrite)
    }));
    calls.push(call("munmap of the middle of 2 MiB", |stage| {
        huge(stage, SHARED, HookSet::empty())?;
        try_unmap(HUGE + 8 * PAGE, 8 * PAGE)
    }));
    // What cannot be split becomes zeros.
    calls.push(call("a hole in 2 MiB", |stage| {
        huge(stage, SHARED, HookSet::empty())?;
        let hole = (OF_HUGE + 3) * PAGE..(OF_HUGE + 5) * PAGE;
        errno(stage.device.punch_hole(hole.start as u64..hole.end as u64))
    }));
    calls.push(call("an end within 2 MiB", |stage| {
        huge(stage, SHARED, HookSet::empty())?;
        errno(stage.device.set_size(((OF_HUGE + 9) * PAGE) as u64))
    }));
    calls.push(call("a hole in a piece", |stage| {
        let hole = (5 * PAGE) as u64..(7 * PAGE) as u64;
        errno(stage.device.punch_hole(hole))
    }));
    calls.push(call("an end within a piece", |stage| {
        errno(stage.device.set_size((6 * PAGE) as u64))
    }));
    calls.push(call("write(2) to a new piece", |stage| {
        errno(stage.device.set_size((2 * PAGES * PAGE) as u64))?;
        let (fd, at) = (stage.device.as_raw_fd(), (PAGES * PAGE) as i64);
        // SAFETY: the buffer is that long.
        let done = unsafe { libc::pwrite(fd, pointer(stage.argument).cast(), 4 * PAGE, at) };
        Errno::result(done).map(drop)
    }));
    calls.push(call(
        "VMALAB_IOC_WRITTEN of a piece",
        super::calls::take_written,
    ));
    calls
}

pub(super) fn frames() -> Vec<Call> {
    vec![
        call("mmap and read", |stage| {
            let fixed = SHARED | libc::MAP_FIXED;
            try_map(&stage.device, stage.place, PAGES, RW, fixed, 0)?;
            // SAFETY: it is mapped.
            unsafe { pointer(stage.place).read_volatile() };
            Ok(())
        }),
        call("the processor writes", |stage| {
            // SAFETY: the stage maps it.
            unsafe { pointer(stage.shared + 11 * PAGE).write_volatile(1) };
            Ok(())
        }),
        // Read first, so that the write asks pfn_mkwrite.
        call("the processor reads, and writes", |stage| {
            let at = pointer(stage.shared + 10 * PAGE);
            // SAFETY: the stage maps it.
            unsafe {
                at.read_volatile();
                at.write_volatile(1);
            }
            Ok(())
        }),
        call("the kernel writes", |stage| {
            let to = pointer(stage.shared + 12 * PAGE).cast();
            // SAFETY: the stage maps so much.
            let done = unsafe { libc::read(stage.zeros.as_raw_fd(), to, 2 * PAGE) };
            Errno::result(done).map(drop)
        }),
        call("munmap of the middle", |stage| {
            try_unmap(stage.shared + 4 * PAGE, 4 * PAGE)
        }),
        call("mremap to elsewhere", |stage| {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            remap(stage.shared, PAGES, PAGES, flags, stage.place).map(drop)
        }),
        call("mprotect of the middle", |stage| {
            protect(stage.shared + 4 * PAGE, 4, RO)
        }),
        call("a smaller size", |stage| {
            errno(stage.device.set_size((6 * PAGE) as u64))
        }),
    ]
}

/// Maps a second piece of so many pages at `at`: none of it is mapped yet, and all of it is there, if
/// `is_there`.
fn second_piece(stage: &Stage, at: usize, pages: usize, is_there: bool) -> Result<(), Errno> {
    errno(stage.device.set_folio_size((pages * PAGE) as u64))?;
    errno(stage.device.set_size((2 * pages * PAGE) as u64))?;
    if is_there {
        let (fd, from) = (stage.device.as_raw_fd(), pointer(stage.argument).cast());
        // SAFETY: the buffer is that long.
        Errno::result(unsafe { libc::pwrite(fd, from, 1, (pages * PAGE) as i64) })?;
    }
    let flags = SHARED | libc::MAP_FIXED;
    try_map(&stage.device, at, pages, RW, flags, pages).map(drop)
}

/// What takes a larger piece apart: a frame of it is mapped.
pub(super) fn frames_of_pieces() -> Vec<Call> {
    /// Which page of the piece is touched.
    const PAGE_OF_IT: usize = 3;
    let touch = |at: usize| {
        // SAFETY: it is mapped, and nobody minds what it shows.
        unsafe { pointer(at + PAGE_OF_IT * PAGE).write_volatile(1) };
    };
    let mut calls = Vec::new();
    for (name, is_there) in [("a new piece", false), ("a piece that is there", true)] {
        calls.push(call(format!("the processor reads {name}"), move |stage| {
            second_piece(stage, stage.place, PAGES, is_there)?;
            // SAFETY: it is mapped.
            unsafe { pointer(stage.place + PAGE_OF_IT * PAGE).read_volatile() };
            Ok(())
        }));
        calls.push(call(
            format!("the processor writes to {name}"),
            move |stage| {
                second_piece(stage, stage.place, PAGES, is_there)?;
                touch(stage.place);
                Ok(())
            },
        ));
        calls.push(call(format!("the kernel writes to {name}"), move |stage| {
            second_piece(stage, stage.place, PAGES, is_there)?;
            let to = pointer(stage.place + PAGE_OF_IT * PAGE).cast();
            // SAFETY: so much is mapped.
            let done = unsafe { libc::read(stage.zeros.as_raw_fd(), to, 2 * PAGE) };
            Errno::result(done).map(drop)
        }));
    }
    calls.push(call("the processor writes to 2 MiB", move |stage| {
        second_piece(stage, HUGE, OF_HUGE, true)?;
        touch(HUGE);
        Ok(())
    }));
    calls.push(call("a hole in the rest of a piece", move |stage| {
        second_piece(stage, stage.place, PAGES, true)?;
        touch(stage.place);
        let hole = (PAGES + 9) * PAGE..(PAGES + 11) * PAGE;
        errno(stage.device.punch_hole(hole.start as u64..hole.end as u64))
    }));
    calls.push(call("an end within the rest of a piece", move |stage| {
        second_piece(stage, stage.place, PAGES, true)?;
        touch(stage.place);
        errno(stage.device.set_size(((PAGES + 10) * PAGE) as u64))
    }));
    calls
}
