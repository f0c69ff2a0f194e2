// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The kernel takes the pages by itself (get_user_pages), for this process and for others.

use std::{
    fs::File,
    io::{IoSlice, IoSliceMut, Read},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    process::exit,
};

use nix::{
    errno::Errno,
    sys::{
        ptrace,
        signal::{Signal, raise},
        uio::{RemoteIoVec, process_vm_readv, process_vm_writev},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, getppid},
};

use crate::{
    lab::Lab,
    mem::*,
    run::{Skip, Test, Verdict, child},
};

pub(crate) const TESTS: &[Test] = &[
    Test::both("gup::another_process_reads_and_writes", another_process),
    Test::both("gup::proc_mem", proc_mem),
    Test::both(
        "gup::a_debugger_sets_a_breakpoint",
        a_debugger_sets_a_breakpoint,
    ),
    Test::both("gup::vmsplice_holds_the_page", vmsplice_holds_the_page),
    Test::both("gup::file_to_mapping_and_back", file_to_mapping_and_back),
    Test::both("gup::direct_io", direct_io),
];

fn another_process(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(3);
        let addr = map(&object, kind, 0, 3);
        letters(addr, 1, 'A');
        child(|| {
            let parent = getppid();
            let at = |page, len| {
                [RemoteIoVec {
                    base: addr + page * PAGE,
                    len,
                }]
            };
            let mut bytes = [1; 2 * PAGE];
            let got =
                process_vm_readv(parent, &mut [IoSliceMut::new(&mut bytes)], &at(0, 2 * PAGE));
            assert_eq!(got, Ok(2 * PAGE));
            assert_eq!((bytes[PAGE - 1], bytes[PAGE]), (b'A', 0));
            let put = process_vm_writev(parent, &[IoSlice::new(&[b'B'; PAGE])], &at(1, PAGE));
            assert_eq!(put, Ok(PAGE));
        });
        assert_eq!(look(addr, 3), "AB0");

        unmap(addr + PAGE, 1);
        let hole = [RemoteIoVec {
            base: addr + PAGE,
            len: 1,
        }];
        let got = process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut [0])], &hole);
        assert_eq!(got, Err(Errno::EFAULT));
        lab.resize(&object, 2);
        let past = [RemoteIoVec {
            base: addr + 2 * PAGE,
            len: 1,
        }];
        let got = process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut [0])], &past);
        assert_eq!(got, Err(Errno::EFAULT));
    }
    Ok(())
}

fn proc_mem(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    let shared = map(&object, SHARED, 0, 2);
    letters(shared, 2, 'A');
    let private = map(&object, PRIVATE, 0, 2);
    let memory = File::options()
        .read(true)
        .write(true)
        .open("/proc/self/mem")
        .unwrap();
    memory.write_all_at(&[b'x'; PAGE], private as u64).unwrap();
    memory
        .write_all_at(&[b'y'; PAGE], (shared + PAGE) as u64)
        .unwrap();
    assert_eq!(
        (look(shared, 2), look(private, 2)),
        ("Ay".into(), "xy".into())
    );
    let mut bytes = [0; PAGE];
    memory.read_exact_at(&mut bytes, shared as u64).unwrap();
    assert_eq!(bytes, [b'A'; PAGE]);
    Ok(())
}

/// A debugger may write where the process itself may not, and a private copy takes it.
fn a_debugger_sets_a_breakpoint(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    let shared = map(&object, SHARED, 0, 2);
    letters(shared, 2, 'A');
    let private = try_map(&object, 0, 2, RO, PRIVATE, 0).unwrap();
    let read_only = try_map(&object, 0, 2, RO, SHARED, 0).unwrap();
    // SAFETY: this process has one thread.
    let debugged = match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            ptrace::traceme().unwrap();
            raise(Signal::SIGSTOP).unwrap();
            exit((look(private, 2) != "?B" || look(shared, 2) != "AB").into());
        }
        ForkResult::Parent { child } => child,
    };
    assert_eq!(
        waitpid(debugged, None),
        Ok(WaitStatus::Stopped(debugged, Signal::SIGSTOP))
    );
    let word = i64::from_ne_bytes(*b"breakpnt");
    ptrace::write(debugged, pointer(private).cast(), word).unwrap();
    assert_eq!(ptrace::read(debugged, pointer(private).cast()), Ok(word));
    // Not into the object, for this descriptor could, but this mapping cannot.
    assert_eq!(
        ptrace::write(debugged, pointer(read_only).cast(), word),
        Err(Errno::EIO)
    );
    ptrace::cont(debugged, None).unwrap();
    assert_eq!(waitpid(debugged, None), Ok(WaitStatus::Exited(debugged, 0)));
    assert_eq!(
        (look(shared, 2), look(private, 2)),
        ("AB".into(), "AB".into())
    );
    Ok(())
}

fn vmsplice_holds_the_page(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    let addr = map(&object, SHARED, 0, 2);
    letters(addr, 2, 'A');
    let (reader, writer) = lend(addr + PAGE);
    // The page outlives its area, its place in the object, and the object.
    unmap(addr, 2);
    lab.resize(&object, 0);
    drop(object);
    drop(writer);
    let mut bytes = Vec::new();
    File::from(reader).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, [b'B'; PAGE]);
    Ok(())
}

fn file_to_mapping_and_back(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(3);
        let addr = map(&object, kind, 0, 3);
        let exe = File::open("/proc/self/exe").unwrap();
        // SAFETY: the kernel writes to our own mapping.
        let got = unsafe { libc::pread(exe.as_raw_fd(), pointer(addr).cast(), 2 * PAGE, 0) };
        assert_eq!(Errno::result(got), Ok(2 * PAGE as isize));
        let mut expected = [0; 2 * PAGE];
        exe.read_exact_at(&mut expected, 0).unwrap();
        assert_eq!(read_by_kernel(addr, PAGE).unwrap(), expected[..PAGE]);
        assert_eq!(read_by_kernel(addr + PAGE, PAGE).unwrap(), expected[PAGE..]);
        lab.check_pages(&object, 2);

        // Into a hole it stops short.
        unmap(addr + PAGE, 1);
        // SAFETY: the kernel checks the addresses.
        let got = unsafe { libc::pread(exe.as_raw_fd(), pointer(addr).cast(), 3 * PAGE, 0) };
        assert_eq!(Errno::result(got), Ok(PAGE as isize));
    }
    Ok(())
}

/// Direct I/O pins the pages and lets the device (here: the file system) write to them.
fn direct_io(lab: &Lab) -> Verdict {
    let path = std::env::temp_dir().join(format!("vmalab-direct-{}", std::process::id()));
    std::fs::write(&path, [b'D'; 2 * PAGE]).unwrap();
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path);
    std::fs::remove_file(&path).unwrap();
    let file =
        file.map_err(|error| Skip::new(format!("no O_DIRECT in the temporary folder: {error}")))?;
    for kind in KINDS {
        let object = lab.open(2);
        let addr = map(&object, kind, 0, 2);
        // SAFETY: the kernel writes to our own mapping.
        let got = unsafe { libc::pread(file.as_raw_fd(), pointer(addr).cast(), 2 * PAGE, 0) };
        assert_eq!(Errno::result(got), Ok(2 * PAGE as isize));
        assert_eq!(look(addr, 2), "DD");
    }
    Ok(())
}
