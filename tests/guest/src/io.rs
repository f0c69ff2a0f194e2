// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! read, write and their kin: the bytes without a mapping.

use std::{
    fs::{File, OpenOptions},
    io::{IoSlice, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::OpenOptionsExt,
    },
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::{
    errno::Errno,
    sys::uio::{pread, preadv, pwrite, pwritev},
    unistd::{Whence, lseek, pipe, read, write},
};
use vmalab::Device;

use crate::{
    lab::Lab,
    mem::*,
    run::{Test, Verdict},
};

pub(crate) const TESTS: &[Test] = &[
    Test::both("io::bytes_at_offsets", bytes_at_offsets),
    Test::both("io::reading_allocates_nothing", reading_allocates_nothing),
    Test::both("io::position", position),
    Test::both("io::vectors", vectors),
    Test::both("io::the_end", the_end),
    Test::both("io::its_own_mapping_as_buffer", own_mapping_as_buffer),
    Test::both("io::bad_buffers", bad_buffers),
    Test::both("io::splice_and_sendfile", splice_and_sendfile),
    Test::both("io::readers_and_writers_at_once", readers_and_writers),
    Test::device("io::writes_end_at_the_end", writes_end_at_the_end),
    Test::device("io::only_what_the_descriptor_allows", descriptor_allows),
    Test::device("io::while_shrinking", while_shrinking),
];

fn bytes_at_offsets(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    let addr = map(&object, SHARED, 0, 4);
    letters(addr, 1, 'A');
    // Over two borders of pages, from the middle of one on.
    let bytes: Vec<u8> = (0..2 * PAGE).map(|at| at as u8).collect();
    assert_eq!(pwrite(&object, &bytes, 100), Ok(2 * PAGE));
    assert_eq!(read_by_kernel(addr + 99, 1), Ok(vec![b'A']));
    assert_eq!(read_by_kernel(addr + 100, PAGE), Ok(bytes[..PAGE].into()));
    assert_eq!(
        read_by_kernel(addr + 100 + PAGE, PAGE),
        Ok(bytes[PAGE..].into())
    );
    assert_eq!(read_by_kernel(addr + 100 + 2 * PAGE, 1), Ok(vec![0]));
    lab.check_pages(&object, 3);

    letters(addr + PAGE, 1, 'x');
    let mut back = vec![0xff; 4 * PAGE];
    assert_eq!(pread(&object, &mut back, 0), Ok(4 * PAGE));
    assert_eq!(back[..100], [b'A'; 100]);
    assert_eq!(back[100..PAGE], bytes[..PAGE - 100]);
    assert_eq!(back[PAGE..2 * PAGE], [b'x'; PAGE]);
    assert_eq!(back[2 * PAGE..100 + 2 * PAGE], bytes[2 * PAGE - 100..]);
    assert_eq!(back[100 + 2 * PAGE..], [0; 2 * PAGE - 100]);

    // A private copy is no part of it, and does not follow.
    let private = map(&object, PRIVATE, 0, 4);
    letters(private + 3 * PAGE, 1, 'p');
    assert_eq!(pwrite(&object, &[b'S'; PAGE], 3 * PAGE as i64), Ok(PAGE));
    assert_eq!(
        (look(addr + 3 * PAGE, 1), look(private + 3 * PAGE, 1)),
        ("S".into(), "p".into())
    );
    Ok(())
}

fn reading_allocates_nothing(lab: &Lab) -> Verdict {
    let object = lab.open(64);
    let mut bytes = vec![0xff; 64 * PAGE];
    assert_eq!(pread(&object, &mut bytes, 0), Ok(64 * PAGE));
    assert!(bytes.iter().all(|byte| *byte == 0));
    lab.check_pages(&object, 0);
    assert_eq!(pwrite(&object, b"x", 5 * PAGE as i64), Ok(1));
    lab.check_pages(&object, 1);
    Ok(())
}

/// One position for all descriptors that were duplicated, moved by read, write and lseek.
fn position(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    let other = object.try_clone().unwrap();
    assert_eq!(write(&object, b"hello"), Ok(5));
    assert_eq!(lseek(&other, 0, Whence::SeekCur), Ok(5));
    assert_eq!(write(&other, b" world"), Ok(6));
    assert_eq!(lseek(&object, 3, Whence::SeekSet), Ok(3));
    let mut bytes = [0; 8];
    assert_eq!(read(&other, &mut bytes), Ok(8));
    assert_eq!(&bytes, b"lo world");
    assert_eq!(lseek(&object, 0, Whence::SeekCur), Ok(11));
    // Reading and writing at an offset leaves it.
    assert_eq!(pwrite(&object, b"J", 0), Ok(1));
    assert_eq!(lseek(&object, 0, Whence::SeekCur), Ok(11));
    assert_eq!(lseek(&object, -1, Whence::SeekEnd), Ok(2 * PAGE as i64 - 1));
    assert_eq!(read(&object, &mut bytes), Ok(1));
    assert_eq!(read(&object, &mut bytes), Ok(0));
    assert_eq!(lseek(&object, 7, Whence::SeekEnd), Ok(2 * PAGE as i64 + 7));
    assert_eq!(read(&object, &mut bytes), Ok(0));
    assert_eq!(lseek(&object, -1, Whence::SeekSet), Err(Errno::EINVAL));
    assert_eq!(pread(&object, &mut bytes, -1), Err(Errno::EINVAL));
    assert_eq!(pread(&object, &mut bytes, i64::MAX - 8), Ok(0));
    assert_eq!(
        read_by_kernel(map(&object, SHARED, 0, 1), 11),
        Ok(b"Jello world".into())
    );
    Ok(())
}

fn vectors(lab: &Lab) -> Verdict {
    let object = lab.open(3);
    let at = PAGE as i64 - 3;
    let parts = [
        IoSlice::new(b"ab"),
        IoSlice::new(b""),
        IoSlice::new(b"cdef"),
    ];
    assert_eq!(pwritev(&object, &parts, at), Ok(6));
    let (mut one, mut other) = ([0; 5], [0xff; 3]);
    let mut parts = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)];
    assert_eq!(preadv(&object, &mut parts, at - 1), Ok(8));
    assert_eq!((&one, &other), (b"\0abcd", b"ef\0"));
    Ok(())
}

fn the_end(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    let mut bytes = [0xff; PAGE];
    assert_eq!(pread(&object, &mut bytes, 2 * PAGE as i64 - 10), Ok(10));
    assert_eq!(bytes[..11], [&[0; 10][..], &[0xff]].concat());
    assert_eq!(pread(&object, &mut bytes, 2 * PAGE as i64), Ok(0));
    assert_eq!(pwrite(&object, &[], 5 * PAGE as i64), Ok(0));
    // A smaller end cuts off, a larger one brings zeros.
    assert_eq!(pwrite(&object, &[b'x'; 2 * PAGE], 0), Ok(2 * PAGE));
    lab.resize(&object, 1);
    assert_eq!(pread(&object, &mut bytes, PAGE as i64 - 1), Ok(1));
    lab.resize(&object, 2);
    assert_eq!(pread(&object, &mut bytes, PAGE as i64), Ok(PAGE));
    assert_eq!(bytes, [0; PAGE]);
    Ok(())
}

/// read(2) or write(2) at an offset, with any address.
fn raw(
    call: unsafe extern "C" fn(i32, *mut libc::c_void, usize, i64) -> isize,
    fd: impl AsFd,
    addr: usize,
    length: usize,
    at: usize,
) -> Result<usize, Errno> {
    // SAFETY: the kernel checks the address, which is of a test's own mapping.
    let done = unsafe {
        call(
            fd.as_fd().as_raw_fd(),
            pointer(addr).cast(),
            length,
            at as i64,
        )
    };
    Errno::result(done).map(|done| done as usize)
}

unsafe extern "C" fn pread_raw(
    fd: i32,
    buffer: *mut libc::c_void,
    length: usize,
    at: i64,
) -> isize {
    // SAFETY: as in `raw`.
    unsafe { libc::pread(fd, buffer, length, at) }
}

unsafe extern "C" fn pwrite_raw(
    fd: i32,
    buffer: *mut libc::c_void,
    length: usize,
    at: i64,
) -> isize {
    // SAFETY: as in `raw`.
    unsafe { libc::pwrite(fd, buffer, length, at) }
}

/// The pages that are read or written are those of the buffer, which must be faulted in on the way.
fn own_mapping_as_buffer(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(4);
        assert_eq!(pwrite(&object, &[b'A'; PAGE], 0), Ok(PAGE));
        let addr = map(&object, kind, 0, 4);
        // Not touched yet; page 0 into itself, then over the next ones.
        assert_eq!(raw(pwrite_raw, &object, addr, PAGE, 0), Ok(PAGE));
        assert_eq!(raw(pwrite_raw, &object, addr, PAGE, PAGE), Ok(PAGE));
        assert_eq!(look(addr, 4), "AA00");
        assert_eq!(
            raw(pread_raw, &object, addr + 2 * PAGE, 2 * PAGE, 0),
            Ok(2 * PAGE)
        );
        assert_eq!(look(addr, 4), "AAAA");
        // Absent pages on both sides: all of it, on top of itself.
        lab.resize(&object, 0);
        lab.resize(&object, 4);
        assert_eq!(raw(pwrite_raw, &object, addr, 4 * PAGE, 0), Ok(4 * PAGE));
        assert_eq!(raw(pread_raw, &object, addr, 4 * PAGE, 0), Ok(4 * PAGE));
        assert_eq!(look(addr, 4), "0000");
    }
    Ok(())
}

fn bad_buffers(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    assert_eq!(pwrite(&object, &[b'A'; 2 * PAGE], 0), Ok(2 * PAGE));
    let none = map_anonymous(0, 1, libc::PROT_NONE, 0).unwrap();
    let pair = map_anonymous(0, 2, RW, 0).unwrap();
    unmap(pair + PAGE, 1);
    for bad in [none, pair + PAGE, 8] {
        assert_eq!(raw(pread_raw, &object, bad, 8, 0), Err(Errno::EFAULT));
        // In a hole, too.
        assert_eq!(
            raw(pread_raw, &object, bad, 8, 3 * PAGE),
            Err(Errno::EFAULT)
        );
        assert_eq!(raw(pwrite_raw, &object, bad, 8, 0), Err(Errno::EFAULT));
    }
    // What could be copied is.
    assert_eq!(raw(pread_raw, &object, pair, 2 * PAGE, 0), Ok(PAGE));
    assert_eq!(look(pair, 1), "A");
    letters(pair, 1, 'B');
    assert_eq!(raw(pwrite_raw, &object, pair, 2 * PAGE, 0), Ok(PAGE));
    let addr = map(&object, SHARED, 0, 4);
    assert_eq!(look(addr, 4), "BA00");
    Ok(())
}

fn splice_and_sendfile(lab: &Lab) -> Verdict {
    let (object, other) = (lab.open(4), lab.open(4));
    let addr = map(&object, SHARED, 0, 4);
    letters(addr, 2, 'A');
    let mut at = 0;
    // SAFETY: both are open, and the offset may be written to.
    let sent = unsafe { libc::sendfile(other.as_raw_fd(), object.as_raw_fd(), &mut at, 3 * PAGE) };
    assert_eq!(
        (Errno::result(sent), at),
        (Ok(3 * PAGE as isize), 3 * PAGE as i64)
    );
    assert_eq!(look(map(&other, SHARED, 0, 4), 4), "AB00");

    let (reader, writer) = pipe().unwrap();
    assert_eq!(write(&writer, b"spliced"), Ok(7));
    let mut at = 2 * PAGE as i64 - 3;
    let (from, to) = (reader.as_raw_fd(), object.as_raw_fd());
    // SAFETY: as above.
    let moved = unsafe { libc::splice(from, std::ptr::null_mut(), to, &mut at, 7, 0) };
    assert_eq!(Errno::result(moved), Ok(7));
    assert_eq!(
        read_by_kernel(addr + 2 * PAGE - 4, 9),
        Ok(b"Bspliced\0".into())
    );
    Ok(())
}

/// A write of one page is there as a whole or not at all, for other writes.
fn readers_and_writers(lab: &Lab) -> Verdict {
    const PAGES: usize = 8;
    let object = lab.open(PAGES);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..2_u8 {
            let (object, done) = (&object, &done);
            scope.spawn(move || {
                let page = [b'a' + writer; PAGE];
                for step in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let at = (step % PAGES * PAGE) as i64;
                    assert_eq!(pwrite(object, &page, at), Ok(PAGE));
                }
            });
        }
        let mut all = vec![0; PAGES * PAGE];
        for _ in 0..500 {
            assert_eq!(pread(&object, &mut all, 0), Ok(PAGES * PAGE));
            assert!(all.iter().all(|byte| [0, b'a', b'b'].contains(byte)));
        }
        done.store(true, Ordering::Relaxed);
    });
    // Nobody writes any more: no page is a mixture.
    let text = look(map(&object, SHARED, 0, PAGES), PAGES);
    assert!(!text.contains('?'), "{text}");
    Ok(())
}

/// A memfd would grow instead.
fn writes_end_at_the_end(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    let end = 2 * PAGE as i64;
    assert_eq!(pwrite(&object, &[b'x'; 100], end - 10), Ok(10));
    assert_eq!(pwrite(&object, b"x", end), Err(Errno::ENOSPC));
    assert_eq!(pwrite(&object, b"x", i64::MAX - 1), Err(Errno::ENOSPC));
    assert_eq!(object.size(), Ok(end as u64));
    lab.check_pages(&object, 1);
    let mut bytes = [0; 4];
    assert_eq!(object.read_at(&mut bytes, end as u64 - 2), Ok(2));
    assert_eq!(
        (bytes, object.write_at(b"y", end as u64 - 1)),
        (*b"xx\0\0", Ok(1))
    );
    let error = object.write_at(b"y", u64::MAX).unwrap_err();
    assert_eq!(error.errno(), libc::EINVAL);
    let error = object.write_at(b"y", end as u64).unwrap_err();
    assert!(error.to_string().contains("set a larger size"), "{error}");

    // Appending is writing at the end.
    let mut options = OpenOptions::new();
    let appending: File = options.read(true).append(true).open("/dev/vmalab").unwrap();
    assert_eq!(write(&appending, b"x"), Err(Errno::ENOSPC));
    assert_eq!(write(&appending, b""), Ok(0));
    // There is no way around the page cache.
    let direct = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open("/dev/vmalab");
    assert_eq!(direct.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    Ok(())
}

fn descriptor_allows(_lab: &Lab) -> Verdict {
    let readable = Device::open_read_only("/dev/vmalab").unwrap();
    assert_eq!(pwrite(&readable, b"x", 0), Err(Errno::EBADF));
    assert_eq!(pread(&readable, &mut [1; 8], 0), Ok(8));
    let writable = OpenOptions::new().write(true).open("/dev/vmalab").unwrap();
    assert_eq!(pread(&writable, &mut [1; 8], 0), Err(Errno::EBADF));
    assert_eq!(pwrite(&writable, b"x", 0), Ok(1));
    Ok(())
}

fn while_shrinking(lab: &Lab) -> Verdict {
    const PAGES: usize = 16;
    let object = lab.open(PAGES);
    let addr = map(&object, SHARED, 0, PAGES);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..2 {
            let (object, done) = (&object, &done);
            scope.spawn(move || {
                for step in (thread..).step_by(5) {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let at = step % PAGES * PAGE + PAGE / 2;
                    let written = raw(pwrite_raw, object, addr, PAGE, at);
                    assert!(
                        matches!(written, Ok(1..=PAGE) | Err(Errno::ENOSPC | Errno::EFAULT)),
                        "{written:?}"
                    );
                    let mut bytes = [0; PAGE];
                    assert!(pread(object, &mut bytes, at as i64).is_ok());
                }
            });
        }
        for step in 0..2000 {
            lab.resize(&object, step * 5 % PAGES);
        }
        done.store(true, Ordering::Relaxed);
    });
    lab.resize(&object, 1);
    lab.resize(&object, PAGES);
    assert_eq!(look(addr + PAGE, PAGES - 1), "0".repeat(PAGES - 1));
    Ok(())
}
