// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Watching an object: which calls the kernel makes, in which order and with which arguments, and
//! that nothing is lost, broken or kept without being said.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    kmod::{DeleteModuleFlags, delete_module},
    sys::{
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, getpid, gettid, pipe},
};
use vmalab::{Device, Event, Hook, HookSet, Watch, sys};

use crate::{
    cgroup::Cgroup,
    lab::Lab,
    mem::*,
    run::{Skip, Test, Verdict, child, child_status},
};

pub(crate) const TESTS: &[Test] = &[
    Test::device("watch::munmap_of_a_middle", munmap_of_a_middle),
    Test::device("watch::munmap_of_head_and_tail", munmap_of_head_and_tail),
    Test::device("watch::both_nodes", both_nodes),
    Test::device("watch::forks", forks),
    Test::device("watch::mremap", mremap),
    Test::device("watch::mprotect", mprotect),
    Test::device("watch::faults", faults),
    Test::device("watch::writes_are_tracked", writes_are_tracked),
    Test::device("watch::only_what_is_wanted", only_what_is_wanted),
    Test::device("watch::overflow_is_told", overflow_is_told),
    Test::device("watch::waiting", waiting),
    Test::device("watch::edge_triggered", edge_triggered),
    Test::device("watch::blocking_reads", blocking_reads),
    Test::device("watch::whole_records_only", whole_records_only),
    Test::device("watch::the_mapped_ring_says_the_same", mapped_says_the_same),
    Test::device("watch::into_the_watched_object", into_the_watched_object),
    Test::device("watch::who_may_map_what", who_may_map_what),
    Test::device("watch::a_wrong_tail", a_wrong_tail),
    Test::device("watch::a_killed_reader", a_killed_reader),
    Test::device("watch::outlives_the_object", outlives_the_object),
    Test::device("watch::keeps_the_module", keeps_the_module),
    Test::device("watch::from_many_threads", from_many_threads),
    Test::device("watch::several_watches", several_watches),
    Test::device("watch::what_is_refused", what_is_refused),
    Test::device("watch::pid_namespaces", pid_namespaces),
    Test::device("watch::rings_are_charged", rings_are_charged).logs(),
    Test::device("watch::the_tracepoint", the_tracepoint),
    Test::device("watch::the_format_of_the_tracepoint", the_format),
    Test::device("watch::counted_by_perf", counted_by_perf),
    Test::device("watch::cost_of_a_fault", cost_of_a_fault),
];

/// `VM_FAULT_*` and `FAULT_FLAG_*` of the kernel, as far as they are seen here.
const SIGBUS: i32 = 0x2;
const NOPAGE: i32 = 0x100;
const LOCKED: i32 = 0x200;
const FLAG_WRITE: u64 = 0x1;
/// FAULT_FLAG_VMA_LOCK: with the lock of the area alone, not that of all.
const FLAG_VMA_LOCK: u64 = 1 << 12;

/// `VM_*` of the kernel.
const VM_WRITE: u64 = 0x2;
const VM_SHARED: u64 = 0x8;

fn read(addr: usize) {
    // SAFETY: the callers give addresses that they have mapped.
    unsafe { pointer(addr).read_volatile() };
}

fn write(addr: usize) {
    // SAFETY: as in `read`.
    unsafe { pointer(addr).write_volatile(b'w') };
}

fn watch(object: &Device) -> Watch {
    object.watch().open().unwrap()
}

/// An event in pages from `addr`: hook, begin-end, the page of the object, and what else there is.
fn show(event: &Event, addr: usize) -> String {
    let page = |at: usize| (at as isize - addr as isize) / PAGE as isize;
    let (start, end) = (page(event.range.start), page(event.range.end));
    let index = event.offset / PAGE as u64;
    let name = event.hook.name();
    assert_eq!(event.offset % PAGE as u64, 0);
    assert_eq!(event.pid, getpid().as_raw() as u32);
    match event.hook {
        Hook::MaySplit => {
            let at = page(event.argument as usize);
            format!("{name} {start}-{end} +{index} at {at}")
        }
        _ => format!("{name} {start}-{end} +{index}"),
    }
}

/// What happened since the last time, and that all of it went well.
fn did(watch: &Watch, addr: usize) -> Vec<String> {
    let events = watch.take().unwrap();
    assert!(
        events.is_sorted_by_key(|event| event.time),
        "the time goes back"
    );
    for event in &events {
        let fault = matches!(event.hook, Hook::Fault | Hook::MapPages | Hook::PageMkwrite);
        assert!(fault || event.result == 0, "{event}");
    }
    events.iter().map(|event| show(event, addr)).collect()
}

fn munmap_of_a_middle(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(16);
        let watch = watch(&object);
        let addr = try_map(&object, 0, 6, RW, kind, 2).unwrap();
        assert_eq!(did(&watch, addr), ["mmap 0-6 +2"]);
        unmap(addr + 2 * PAGE, 2);
        // The copy is the head at first, and the tail then; the area that is left goes.
        assert_eq!(
            did(&watch, addr),
            [
                "may_split 0-6 +2 at 2",
                "open 0-2 +2",
                "may_split 2-6 +4 at 4",
                "open 4-6 +6",
                "close 2-4 +4",
            ]
        );
        // A hole on top of it: both parts go, in the order of their addresses.
        unmap(addr, 6);
        assert_eq!(did(&watch, addr), ["close 0-2 +2", "close 4-6 +6"]);
        unmap(addr, 6);
        assert_eq!(did(&watch, addr), [""; 0]);
    }
    Ok(())
}

fn munmap_of_head_and_tail(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(16);
        let addr = map(&object, kind, 0, 6);
        let watch = watch(&object);
        unmap(addr, 1);
        assert_eq!(
            did(&watch, addr),
            ["may_split 0-6 +0 at 1", "open 1-6 +1", "close 0-1 +0"]
        );
        unmap(addr + 5 * PAGE, 1);
        assert_eq!(
            did(&watch, addr),
            ["may_split 1-6 +1 at 5", "open 1-5 +1", "close 5-6 +5"]
        );
        // The bytes of the sequence go on over several readings.
        unmap(addr, 6);
        let last = watch.take().unwrap();
        assert_eq!((last.len(), last[0].sequence), (1, 6));
        assert_eq!(show(&last[0], addr), "close 1-5 +1");
    }
    Ok(())
}

fn both_nodes(lab: &Lab) -> Verdict {
    let path = sys::VMALAB_PREPARE_PATH.to_str().unwrap();
    let prepared = Device::open_at(path).unwrap();
    lab.resize(&prepared, 16);
    let place = map_anonymous(0, 8, libc::PROT_NONE, 0).unwrap();
    let map_at = |object: &Device, page: usize| {
        let addr = place + page * PAGE;
        try_map(object, addr, 2, RW, SHARED | libc::MAP_FIXED, page).unwrap();
    };
    let seen = watch(&prepared);
    map_at(&prepared, 0);
    assert_eq!(did(&seen, place), ["mmap 0-2 +0", "mapped 0-2 +0"]);
    // It only makes the area longer: the newer handler is asked all the same.
    map_at(&prepared, 2);
    assert_eq!(did(&seen, place), ["mmap 2-4 +2"]);
    // What was there is gone before the handler is asked; the new range makes the rest longer.
    map_at(&prepared, 0);
    assert_eq!(
        did(&seen, place),
        [
            "may_split 0-4 +0 at 2",
            "open 2-4 +2",
            "close 0-2 +0",
            "mmap 0-2 +0",
        ]
    );
    unmap(place, 8);
    drop(seen);

    let object = lab.open(16);
    let seen = watch(&object);
    let place = map_anonymous(0, 8, libc::PROT_NONE, 0).unwrap();
    let map_at = |page: usize| {
        let addr = place + page * PAGE;
        try_map(&object, addr, 2, RW, SHARED | libc::MAP_FIXED, page).unwrap();
    };
    map_at(0);
    assert_eq!(did(&seen, place), ["mmap 0-2 +0"]);
    map_at(2);
    assert_eq!(did(&seen, place), [""; 0]);
    map_at(1);
    let events = did(&seen, place);
    assert!(
        events.contains(&"may_split 0-4 +0 at 1".to_owned()),
        "{events:?}"
    );
    Ok(())
}

fn forks(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(16);
        let addr = map(&object, kind, 0, 6);
        unmap(addr + 2 * PAGE, 1);
        let watch = watch(&object);
        let mut of_child = 0;
        child(|| {
            // The copies are the parent's doing.
            let events = watch.take().unwrap();
            let parent = nix::unistd::getppid().as_raw() as u32;
            assert!(events.iter().all(|event| event.pid == parent));
            assert_eq!(
                events.iter().map(|event| event.hook).collect::<Vec<_>>(),
                [Hook::Open, Hook::Open]
            );
            assert_eq!(events[0].range, addr..addr + 2 * PAGE);
            assert_eq!(events[1].range, addr + 3 * PAGE..addr + 6 * PAGE);
            assert_eq!((events[0].offset, events[1].offset), (0, 3 * PAGE as u64));
            write(addr);
            let events = watch.take().unwrap();
            assert_eq!(events[0].pid, getpid().as_raw() as u32);
            assert_eq!(events[0].tid, gettid().as_raw() as u32);
            of_child = 1;
        });
        assert_eq!(of_child, 0, "the child's memory is its own");
        // What the end of the child closed.
        let events = watch.take().unwrap();
        let hooks: Vec<_> = events.iter().map(|event| event.hook).collect();
        assert_eq!(hooks, [Hook::Close, Hook::Close]);
        assert!(
            events
                .iter()
                .all(|event| event.pid != 0 && event.pid != getpid().as_raw() as u32)
        );
        // Not copied at all.
        advise(addr, 2, libc::MADV_DONTFORK).unwrap();
        watch.take().unwrap();
        child(|| assert_eq!(watch.take().unwrap().len(), 1));
    }
    Ok(())
}

fn mremap(lab: &Lab) -> Verdict {
    const FIXED: i32 = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    for kind in KINDS {
        let object = lab.open(16);
        let addr = map_anonymous(0, 32, libc::PROT_NONE, 0).unwrap();
        unmap(addr, 32);
        try_map(&object, addr, 4, RW, kind | libc::MAP_FIXED, 1).unwrap();
        letters(addr, 4, 'A');
        let watch = watch(&object);
        // Longer in place is no hook's business; shorter is an munmap.
        remap(addr, 4, 6, 0, 0).unwrap();
        assert_eq!(did(&watch, addr), [""; 0]);
        remap(addr, 6, 4, 0, 0).unwrap();
        assert_eq!(
            did(&watch, addr),
            ["may_split 0-6 +1 at 4", "open 0-4 +1", "close 4-6 +5"]
        );
        remap(addr, 4, 4, FIXED, addr + 8 * PAGE).unwrap();
        assert_eq!(
            did(&watch, addr),
            ["open 8-12 +1", "mremap 8-12 +1", "close 0-4 +1"]
        );
        if kind == SHARED {
            // The old area stays.
            let flags = FIXED | libc::MREMAP_DONTUNMAP;
            match remap(addr + 8 * PAGE, 4, 4, flags, addr + 16 * PAGE) {
                Ok(_) => {
                    assert_eq!(did(&watch, addr), ["open 16-20 +1", "mremap 16-20 +1"]);
                    lab.check_areas(&object, 2);
                }
                // Before 5.13 it was for anonymous memory only.
                Err(errno) => assert_eq!(errno, Errno::EINVAL),
            }
        }
    }
    Ok(())
}

fn mprotect(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(16);
        let addr = map(&object, kind, 0, 6);
        let watch = watch(&object);
        protect(addr, 2, RO).unwrap();
        let events = watch.take().unwrap();
        let shown: Vec<_> = events.iter().map(|event| show(event, addr)).collect();
        assert_eq!(
            shown,
            ["mprotect 0-2 +0", "may_split 0-6 +0 at 2", "open 2-6 +2"]
        );
        // The flags before, and those to be.
        assert_eq!(events[0].flags & VM_WRITE, VM_WRITE);
        assert_eq!(events[0].argument & VM_WRITE, 0);
        assert_eq!(events[0].flags & VM_SHARED != 0, kind == SHARED);
        protect(addr, 6, RO).unwrap();
        let events = did(&watch, addr);
        assert_eq!(events[..2], ["mprotect 0-2 +0", "mprotect 2-6 +2"]);
    }
    Ok(())
}

fn faults(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(16);
        let addr = map(&object, kind, 0, 32);
        let watch = watch(&object);
        // (hook, result, whether it was a write, page)
        let seen = || -> Vec<(Hook, i32, bool, usize)> {
            let events = watch.take().unwrap();
            let show = |event: &Event| {
                let page = (event.range.start - addr) / PAGE;
                assert_eq!(event.offset, (page * PAGE) as u64);
                assert_eq!(event.tid, gettid().as_raw() as u32);
                let write = event.argument & FLAG_WRITE != 0;
                (event.hook, event.result, write, page)
            };
            let one = |event: &&Event| event.hook != Hook::MapPages;
            let pages = |event: &Event| event.range.len() / PAGE;
            assert!(events.iter().filter(one).all(|event| pages(event) == 1));
            events.iter().map(show).collect()
        };
        write(addr + 3 * PAGE);
        // A private area gets its anon_vma under the mmap lock, before its first copy.
        write(addr + 2 * PAGE);
        let events = watch.take().unwrap();
        let locks = events
            .iter()
            .map(|event| event.argument & FLAG_VMA_LOCK != 0);
        assert!(locks.last().unwrap(), "{events:?}");
        let faults = events
            .iter()
            .filter(|event| event.argument & FLAG_VMA_LOCK != 0);
        assert!(kind == PRIVATE || faults.count() == events.len());
        write(addr + 5 * PAGE);
        assert_eq!(seen(), [(Hook::Fault, LOCKED, true, 5)]);
        read(addr + 4 * PAGE);
        let events = seen();
        assert_eq!(events.len(), 2, "{events:?}");
        // Where the neighbourhood begins depends on the address.
        assert_eq!((events[0].0, events[0].2), (Hook::MapPages, false));
        assert!(events[0].3 <= 4);
        assert_eq!(events[1], (Hook::Fault, LOCKED, false, 4));
        // It is there: mapped by the first hook, and there is no need of the other.
        let again = map(&object, kind, 0, 16);
        watch.take().unwrap();
        read(again + 4 * PAGE);
        let events = watch.take().unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].hook, events[0].result), (Hook::MapPages, NOPAGE));
        let page = again + 4 * PAGE;
        assert!(events[0].range.contains(&page), "{}", events[0]);
        // Past the end.
        let killed = fault(addr + 20 * PAGE, Access::Write);
        assert_eq!(killed, Some((libc::SIGBUS, BUS_ADRERR, true)));
        let events = watch.take().unwrap();
        let event = events
            .iter()
            .find(|event| event.hook == Hook::Fault)
            .unwrap();
        assert_eq!(event.result, SIGBUS);
        assert_eq!(event.offset, 20 * PAGE as u64);
    }
    Ok(())
}

fn writes_are_tracked(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    object.set_hooks(HookSet::PageMkwrite).unwrap();
    let addr = map(&object, SHARED, 0, 4);
    let watch = watch(&object);
    write(addr + PAGE);
    assert_eq!(did(&watch, addr), ["fault 1-2 +1", "page_mkwrite 1-2 +1"]);
    write(addr + PAGE);
    assert_eq!(did(&watch, addr), [""; 0]);
    Ok(())
}

fn only_what_is_wanted(lab: &Lab) -> Verdict {
    let object = lab.open(16);
    let addr = map(&object, SHARED, 0, 6);
    let watch = object.watch().hooks(Hook::Close).open().unwrap();
    unmap(addr + PAGE, 1);
    assert_eq!(did(&watch, addr), ["close 1-2 +1"]);
    watch.set_hooks(HookSet::Open | HookSet::MaySplit).unwrap();
    unmap(addr + 3 * PAGE, 1);
    assert_eq!(
        did(&watch, addr),
        [
            "may_split 2-6 +2 at 3",
            "open 2-3 +2",
            "may_split 3-6 +3 at 4",
            "open 4-6 +4"
        ]
    );
    // What is there stays when nothing more is wanted, and what is not wanted has no number.
    unmap(addr + 4 * PAGE, 1);
    watch.set_hooks(HookSet::empty()).unwrap();
    assert_eq!(watch.state().unwrap().hooks, HookSet::empty());
    unmap(addr, 6);
    assert_eq!(did(&watch, addr).len(), 2);
    assert_eq!(watch.state().unwrap().recorded, 7);
    watch.set_hooks(HookSet::Mmap).unwrap();
    let addr = map(&object, SHARED, 0, 1);
    let events = watch.take().unwrap();
    assert_eq!((events.len(), events[0].sequence), (1, 7));
    assert_eq!(show(&events[0], addr), "mmap 0-1 +0");
    Ok(())
}

fn sequences(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.sequence).collect()
}

fn overflow_is_told(lab: &Lab) -> Verdict {
    let object = lab.open(64);
    let addr = map(&object, SHARED, 0, 64);
    let options = object.watch().hooks(Hook::Fault);
    let watch = options.clone().records(4).open().unwrap();
    let mapped = watch.map().unwrap();
    let one = options.records(1).open().unwrap();
    for page in 0..10 {
        write(addr + page * PAGE);
    }
    let state = watch.state().unwrap();
    assert_eq!((state.recorded, state.lost, state.records), (4, 6, 4));
    assert_eq!(mapped.lost(), 6);
    let events = watch.take().unwrap();
    assert_eq!(sequences(&events), [0, 1, 2, 3]);
    assert_eq!(events[3].offset, 3 * PAGE as u64, "the old ones are kept");
    for page in 10..12 {
        write(addr + page * PAGE);
    }
    assert_eq!(sequences(&watch.take().unwrap()), [10, 11]);
    let state = watch.state().unwrap();
    assert_eq!((state.recorded, state.lost), (6, 6));

    assert_eq!(sequences(&one.take().unwrap()), [0]);
    write(addr + 12 * PAGE);
    assert_eq!(sequences(&one.take().unwrap()), [12]);
    assert_eq!(one.state().unwrap().lost, 11);
    Ok(())
}

fn waiting(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    let addr = map(&object, SHARED, 0, 4);
    let watch = watch(&object);
    assert_eq!(watch.wait(Some(Duration::ZERO)), Ok(false));
    let begin = Instant::now();
    assert_eq!(watch.wait(Some(Duration::from_millis(30))), Ok(false));
    assert!(begin.elapsed() >= Duration::from_millis(30));
    for page in 0..3 {
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(20));
                write(addr + page * PAGE);
            });
            assert_eq!(watch.wait(Some(Duration::from_secs(30))), Ok(true));
        });
        assert_eq!(watch.take().unwrap().len(), 1);
    }
    // The iterator waits, too, and ends when there was nothing for some time.
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            write(addr + 3 * PAGE);
        });
        let mut events = watch.events();
        assert_eq!(events.next().unwrap().unwrap().hook, Hook::Fault);
        let mut events = events.timeout(Duration::from_millis(20));
        assert!(events.next().is_none());
    });
    Ok(())
}

fn edge_triggered(lab: &Lab) -> Verdict {
    let object = lab.open(64);
    let addr = map(&object, SHARED, 0, 64);
    let watch = watch(&object);
    // SAFETY: a new descriptor, or an error, which the assertion finds.
    let epoll = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
    assert!(epoll.as_raw_fd() >= 0);
    let mut event = libc::epoll_event {
        events: (libc::EPOLLIN | libc::EPOLLET) as u32,
        u64: 7,
    };
    let (epoll, fd) = (epoll.as_raw_fd(), watch.as_fd().as_raw_fd());
    // SAFETY: both descriptors are open.
    let done = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) };
    assert_eq!(done, 0);
    let ready = |timeout| {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: there is room for one.
        let number = unsafe { libc::epoll_wait(epoll, &mut event, 1, timeout) };
        (number, event.events as i32 & libc::EPOLLIN != 0)
    };
    assert_eq!(ready(0), (0, false));
    for round in 0..20 {
        write(addr + round * PAGE);
        assert_eq!(ready(1000), (1, true), "round {round}");
        assert_eq!(ready(0), (0, false), "told once");
        // Half of them read the memory only, of which the kernel does not hear.
        let number = match round % 2 {
            0 => watch.take().unwrap().len(),
            _ => watch.map().unwrap().count(),
        };
        assert_eq!(number, 1, "round {round}");
    }
    Ok(())
}

/// A watch as the kernel gives it, without the shim.
fn raw_watch(object: &Device, mut watch: sys::vmalab_watch) -> Result<OwnedFd, Errno> {
    // SAFETY: the request reads one vmalab_watch.
    let number =
        unsafe { libc::ioctl(object.as_raw_fd(), sys::VMALAB_IOC_WATCH.into(), &mut watch) };
    // SAFETY: it is a new descriptor.
    Errno::result(number).map(|number| unsafe { OwnedFd::from_raw_fd(number) })
}

const FAULTS: sys::vmalab_watch = sys::vmalab_watch {
    hooks: 1 << sys::VMALAB_HOOK_FAULT,
    records: 64,
    flags: 0,
};

fn read_bytes(fd: &OwnedFd, bytes: &mut [u8]) -> Result<usize, Errno> {
    nix::unistd::read(fd, bytes)
}

const SIZE: usize = size_of::<sys::vmalab_event>();

extern "C" fn ignore(_signal: i32) {}

fn blocking_reads(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    let addr = map(&object, SHARED, 0, 4);
    let fd = raw_watch(&object, FAULTS).unwrap();
    // SAFETY: it only asks.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    let mut bytes = [0; 2 * SIZE];
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(30));
            write(addr);
        });
        assert_eq!(read_bytes(&fd, &mut bytes), Ok(SIZE));
    });
    // By a signal, without SA_RESTART.
    child(|| {
        let action = libc::sigaction {
            sa_sigaction: ignore as *const () as usize,
            // SAFETY: no handler data and no flags.
            ..unsafe { std::mem::zeroed() }
        };
        // SAFETY: the handler does nothing.
        unsafe {
            libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
            libc::alarm(1);
        }
        assert_eq!(read_bytes(&fd, &mut [0; SIZE]), Err(Errno::EINTR));
    });
    // Two wait for one: the other goes on to wait.
    let seen = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                assert_eq!(read_bytes(&fd, &mut [0; SIZE]), Ok(SIZE));
                seen.fetch_add(1, Ordering::Relaxed);
            });
        }
        thread::sleep(Duration::from_millis(30));
        write(addr + PAGE);
        let deadline = Instant::now() + Duration::from_secs(30);
        while seen.load(Ordering::Relaxed) == 0 && Instant::now() < deadline {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(30));
        assert_eq!(seen.load(Ordering::Relaxed), 1);
        write(addr + 2 * PAGE);
    });
    // O_NONBLOCK from the begin, or later.
    let nonblock = raw_watch(
        &object,
        sys::vmalab_watch {
            flags: sys::VMALAB_WATCH_NONBLOCK,
            ..FAULTS
        },
    )
    .unwrap();
    assert_eq!(read_bytes(&nonblock, &mut bytes), Err(Errno::EAGAIN));
    // SAFETY: it is our descriptor.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    assert_eq!(read_bytes(&fd, &mut bytes), Err(Errno::EAGAIN));
    Ok(())
}

fn whole_records_only(lab: &Lab) -> Verdict {
    let object = lab.open(64);
    let addr = map(&object, SHARED, 0, 64);
    let fd = raw_watch(&object, FAULTS).unwrap();
    let mut bytes = [0xff; 4 * SIZE];
    for short in [0, 1, SIZE - 1] {
        assert_eq!(read_bytes(&fd, &mut bytes[..short]), Err(Errno::EINVAL));
    }
    for page in 0..8 {
        write(addr + page * PAGE);
    }
    assert_eq!(read_bytes(&fd, &mut bytes[..SIZE - 1]), Err(Errno::EINVAL));
    assert_eq!(read_bytes(&fd, &mut bytes[..2 * SIZE + 71]), Ok(2 * SIZE));
    assert!(bytes[2 * SIZE..].iter().all(|byte| *byte == 0xff));
    assert_eq!(bytes[SIZE..SIZE + 8], 1_u64.to_ne_bytes());
    // Nothing is taken by a reader who gets nothing, and as much as he gets else.
    let pair = map_anonymous(0, 2, RW, 0).unwrap();
    unmap(pair + PAGE, 1);
    // SAFETY: the kernel checks the address.
    let read_at = |addr: usize| unsafe {
        Errno::result(libc::read(fd.as_raw_fd(), pointer(addr).cast(), 4 * SIZE))
    };
    assert_eq!(read_at(8), Err(Errno::EFAULT));
    assert_eq!(read_at(pair + PAGE), Err(Errno::EFAULT));
    assert_eq!(read_at(pair + PAGE - SIZE + 1), Err(Errno::EFAULT));
    assert_eq!(read_at(pair + PAGE - SIZE - 1), Ok(SIZE as isize));
    assert_eq!(read_bytes(&fd, &mut bytes), Ok(4 * SIZE));
    assert_eq!(bytes[..8], 3_u64.to_ne_bytes());
    // No other call reads or writes it.
    assert_eq!(nix::unistd::write(&fd, &[0; SIZE]), Err(Errno::EINVAL));
    let mut one = [0; SIZE];
    let at = nix::sys::uio::pread(&fd, &mut one, 0);
    assert_eq!(at, Err(Errno::ESPIPE));
    Ok(())
}

fn mapped_says_the_same(lab: &Lab) -> Verdict {
    let object = lab.open(64);
    let addr = map(&object, SHARED, 0, 64);
    for records in [1, 2, 64, 128, 4096] {
        let options = object.watch().records(records);
        let (one, other) = (options.clone().open().unwrap(), options.open().unwrap());
        let mut mapped = other.map().unwrap();
        assert_eq!(mapped.next(), None);
        // Around the ring several times.
        let mut number = 0;
        for round in 0..300 {
            lab.resize(&object, 64);
            let page = addr + round % 64 * PAGE;
            advise(page, 1, libc::MADV_DONTNEED).unwrap();
            write(page);
            let events: Vec<Event> = mapped.by_ref().collect();
            number += events.len();
            assert_eq!(events, one.take().unwrap());
            assert_eq!(other.take().unwrap(), [], "the tail is the same");
        }
        assert!(number >= 300, "{number}");
        assert_eq!(mapped.lost(), one.state().unwrap().lost);
        drop(other);
        assert_eq!(mapped.next(), None, "it stays mapped");
    }
    Ok(())
}

/// A reader whose buffer is in the object: its own faults are recorded while it reads.
fn into_the_watched_object(lab: &Lab) -> Verdict {
    let object = lab.open(64);
    let addr = map(&object, SHARED, 0, 64);
    let watch = watch(&object);
    for page in 0..32 {
        write(addr + page * PAGE);
    }
    // Over the edge of two pages that are not there, one record before it.
    let to = pointer(addr + 41 * PAGE - SIZE);
    // SAFETY: the buffer is mapped, and nobody refers to it.
    let got = unsafe { libc::read(watch.as_fd().as_raw_fd(), to.cast(), 16 * SIZE) };
    assert_eq!(got, 16 * SIZE as isize);
    let events = watch.take().unwrap();
    assert_eq!(sequences(&events), (16..34).collect::<Vec<_>>());
    assert_eq!(events[16].offset, 40 * PAGE as u64);
    assert_eq!(events[17].offset, 41 * PAGE as u64);
    Ok(())
}

fn map_ring(
    watch: &Watch,
    page: usize,
    pages: usize,
    prot: i32,
    kind: i32,
) -> Result<usize, Errno> {
    try_map(watch.as_fd(), 0, pages, prot, kind, page)
}

fn who_may_map_what(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    let watch = object.watch().records(128).open().unwrap();
    // The tail, what the kernel says, 128 * 72 bytes.
    const PAGES: usize = 2 + 3;
    let all = map_ring(&watch, 0, PAGES, RO, SHARED).unwrap();
    let header = all + sys::VMALAB_WATCH_MMAP_RING as usize;
    // SAFETY: it is mapped.
    let ring = unsafe { pointer(header).cast::<sys::vmalab_ring>().read_volatile() };
    assert_eq!((ring.records, ring.record_size), (128, SIZE as u32));
    assert_eq!((ring.head, ring.lost, ring.reserved), (0, 0, 0));
    assert_eq!(ring.data_offset as usize % 8, 0);
    for (page, pages, kind) in [
        (0, PAGES + 1, SHARED),
        (PAGES, 1, SHARED),
        (PAGES + 1000, 1, SHARED),
        (0, 1, PRIVATE),
        (1, 1, PRIVATE),
        (i64::MAX as usize / PAGE, 1, SHARED),
    ] {
        let answer = map_ring(&watch, page, pages, RO, kind);
        assert!(
            matches!(answer, Err(Errno::EINVAL | Errno::EOVERFLOW)),
            "{page} {pages}: {answer:?}"
        );
    }
    for (page, pages) in [(0, 2), (1, 1), (2, 1), (0, PAGES)] {
        assert_eq!(
            map_ring(&watch, page, pages, RW, SHARED),
            Err(Errno::EACCES)
        );
    }
    // Not by a detour either.
    assert_eq!(protect(all, 1, RW), Err(Errno::EACCES));
    assert_eq!(protect(header, 1, RW), Err(Errno::EACCES));
    assert_eq!(write_from_kernel(header, &[1; 8]), Err(Errno::EFAULT));
    let grown = remap(all, PAGES, PAGES + 1, libc::MREMAP_MAYMOVE, 0);
    assert_eq!(grown, Err(Errno::EFAULT), "it cannot grow");
    let tail = map_ring(&watch, 0, 1, RW, SHARED).unwrap();
    write_from_kernel(tail, &0_u64.to_ne_bytes()).unwrap();
    // Every byte, by processor and kernel; after it was given back, too.
    advise(all, PAGES, libc::MADV_DONTNEED).unwrap();
    for page in 0..PAGES {
        assert_eq!(read_by_kernel(all + page * PAGE, PAGE).unwrap().len(), PAGE);
    }
    assert_eq!(read_by_kernel(all + 2 * PAGE, PAGE).unwrap(), [0; PAGE]);
    unmap(all + PAGE, 2);
    assert_eq!(look(all, PAGES), "0..00");
    // In a child, and when the descriptor is closed.
    drop(watch);
    drop(object);
    child(|| assert_eq!(look(all, PAGES), "0..00"));
    assert_eq!(look(all, PAGES), "0..00");
    Ok(())
}

/// Whatever is stored there.
fn a_wrong_tail(lab: &Lab) -> Verdict {
    let object = lab.open(64);
    let addr = map(&object, SHARED, 0, 64);
    let watch = object
        .watch()
        .hooks(Hook::Fault)
        .records(16)
        .open()
        .unwrap();
    let tail = map_ring(&watch, 0, 1, RW, SHARED).unwrap();
    // SAFETY: the page is mapped as long as the test runs.
    let tail = unsafe { std::sync::atomic::AtomicU64::from_ptr(pointer(tail).cast()) };
    let touch = |page: usize| {
        advise(addr + page * PAGE, 1, libc::MADV_DONTNEED).unwrap();
        write(addr + page * PAGE);
    };
    (0..4).for_each(touch);
    for wrong in [5, 4 + 17, 1 << 32, 1 << 63, u64::MAX - 12, u64::MAX - 1000] {
        let lost = watch.state().unwrap().lost;
        tail.store(wrong, Ordering::Relaxed);
        touch(9);
        assert_eq!(watch.take().unwrap_err().errno(), libc::EIO, "{wrong:#x}");
        assert_eq!(watch.wait(Some(Duration::from_secs(10))), Ok(true));
        let state = watch.state().unwrap();
        assert_eq!((state.recorded, state.lost), (4, lost + 1), "{wrong:#x}");
    }
    // Right again: what was there is there.
    tail.store(2, Ordering::Release);
    assert_eq!(sequences(&watch.take().unwrap()), [2, 3]);
    assert_eq!(tail.load(Ordering::Acquire), 4);
    touch(10);
    assert_eq!(sequences(&watch.take().unwrap()), [10]);

    // At any moment.
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut state = 0x2545_f491_4f6c_dd1d_u64;
            while !done.load(Ordering::Relaxed) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let near = watch.state().unwrap().recorded.wrapping_add(state % 40);
                let value = if state & 0x1000 == 0 {
                    state
                } else {
                    near.wrapping_sub(20)
                };
                tail.store(value, Ordering::Relaxed);
            }
        });
        for round in 0..3000 {
            touch(round % 64);
            // EIO or not, the moment decides.
            let _ = watch.take();
        }
        done.store(true, Ordering::Relaxed);
    });
    let state = watch.state().unwrap();
    assert_eq!(state.recorded + state.lost, 11 + 3000);
    tail.store(state.recorded, Ordering::Relaxed);
    touch(1);
    assert_eq!(sequences(&watch.take().unwrap()), [3011]);
    Ok(())
}

fn a_killed_reader(lab: &Lab) -> Verdict {
    let object = lab.open(64);
    let addr = map(&object, SHARED, 0, 64);
    let fd = raw_watch(
        &object,
        sys::vmalab_watch {
            records: 4096,
            ..FAULTS
        },
    )
    .unwrap();
    for round in 0..10 {
        // SAFETY: this process has one thread.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let mut bytes = [0; 64 * SIZE];
                loop {
                    let _ = read_bytes(&fd, &mut bytes);
                }
            }
            ForkResult::Parent { child } => {
                for page in 0..64 * round {
                    advise(addr + page % 64 * PAGE, 1, libc::MADV_DONTNEED).unwrap();
                    write(addr + page % 64 * PAGE);
                }
                kill(child, Signal::SIGKILL).unwrap();
                waitpid(child, None).unwrap();
            }
        }
    }
    // Somebody else goes on.
    write(map(&object, SHARED, 0, 1));
    let mut bytes = [0; 64 * SIZE];
    assert!(read_bytes(&fd, &mut bytes).unwrap() >= SIZE);
    Ok(())
}

fn outlives_the_object(lab: &Lab) -> Verdict {
    let other = lab.open(1);
    let alive = || other.module_stats().unwrap();
    let object = lab.open(16);
    let watch = watch(&object);
    let mut mapped = watch.map().unwrap();
    let addr = map(&object, SHARED, 0, 16);
    letters(addr, 16, 'A');
    drop(object);
    assert_eq!((alive().objects, alive().pages), (2, 16));
    unmap(addr, 8);
    unmap(addr, 16);
    assert_eq!((alive().objects, alive().pages), (1, 0), "it is not kept");
    // What was recorded is there, and then comes the end.
    let events = watch.take().unwrap();
    assert_eq!(events.last().unwrap().hook, Hook::Close);
    assert_eq!(mapped.next(), None, "it was read already");
    assert_eq!(watch.wait(None), Ok(true));
    assert!(watch.events().next().is_none());
    assert!(watch.state().unwrap().recorded > 18);
    watch.set_hooks(HookSet::all()).unwrap();

    // One who waits is woken by the end.
    let object = lab.open(1);
    let watch = object.watch().open().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(30));
            drop(object);
        });
        assert!(watch.events().next().is_none());
    });
    Ok(())
}

fn keeps_the_module(lab: &Lab) -> Verdict {
    let remove = || delete_module(c"vmalab", DeleteModuleFlags::O_NONBLOCK);
    let object = lab.open(1);
    let watch = watch(&object);
    drop(object);
    assert_eq!(remove(), Err(Errno::EWOULDBLOCK));
    let mapped = watch.map().unwrap();
    drop(watch);
    assert_eq!(remove(), Err(Errno::EWOULDBLOCK));
    assert_eq!(mapped.lost(), 0);
    Ok(())
}

fn from_many_threads(lab: &Lab) -> Verdict {
    const THREADS: usize = 4;
    const PAGES: usize = 2000;
    let object = lab.open(THREADS * PAGES);
    let addr = map(&object, SHARED, 0, THREADS * PAGES);
    let options = object.watch().hooks(Hook::Fault);
    let watch = options.clone().records(1 << 13).open().unwrap();
    let small = options.records(64).open().unwrap();
    let mut small_events = Vec::new();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    for page in 0..PAGES {
                        write(addr + (thread * PAGES + page) * PAGE);
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut events = Vec::new();
            let mut mapped = small.map().unwrap();
            while !done.load(Ordering::Relaxed) {
                events.extend(mapped.by_ref());
            }
            events.extend(mapped.by_ref());
            events
        });
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        done.store(true, Ordering::Relaxed);
        small_events = reader.join().unwrap();
    });
    let events = watch.take().unwrap();
    assert_eq!(
        sequences(&events),
        (0..(THREADS * PAGES) as u64).collect::<Vec<_>>()
    );
    assert!(events.is_sorted_by_key(|event| event.time));
    let tids: BTreeSet<_> = events.iter().map(|event| event.tid).collect();
    assert_eq!(tids.len(), THREADS);
    let offsets: BTreeSet<_> = events.iter().map(|event| event.offset).collect();
    assert_eq!(offsets.len(), THREADS * PAGES, "each page once");
    // With the small ring: in order, and all that is missing is counted.
    let small_sequences = sequences(&small_events);
    assert!(small_sequences.is_sorted_by(|one, next| one < next));
    let state = small.state().unwrap();
    assert_eq!(state.recorded as usize, small_events.len());
    assert_eq!((state.recorded + state.lost) as usize, THREADS * PAGES);
    for event in &small_events {
        assert_eq!(event.offset, events[event.sequence as usize].offset);
    }
    Ok(())
}

fn several_watches(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    let mut watches: Vec<_> = (0..sys::VMALAB_MAX_WATCHES)
        .map(|_| watch(&object))
        .collect();
    let refused = object.watch().open().unwrap_err();
    assert_eq!(refused.errno(), libc::EBUSY);
    let addr = map(&object, SHARED, 0, 4);
    let all: Vec<_> = watches.iter().map(|watch| watch.take().unwrap()).collect();
    assert!(
        all.iter()
            .all(|events| *events == all[0] && events.len() == 1)
    );
    // The others do not notice that one goes.
    drop(watches.remove(3));
    watches.push(watch(&object));
    write(addr);
    assert!(watches.iter().all(|watch| watch.take().unwrap().len() == 1));
    let number = watches[0].state().unwrap().object;
    assert!(
        watches
            .iter()
            .all(|watch| watch.state().unwrap().object == number)
    );
    // Another object is another matter.
    let other = lab.open(1);
    let seen = watch(&other);
    assert_ne!(seen.state().unwrap().object, number);
    unmap(addr, 4);
    assert_eq!(seen.take().unwrap(), []);
    Ok(())
}

fn what_is_refused(lab: &Lab) -> Verdict {
    let object = lab.open(1);
    let refused = |watch| raw_watch(&object, watch).map(drop);
    for records in [0, 3, 5, 65535, 65537, 1 << 17, 1 << 31, u32::MAX] {
        let answer = refused(sys::vmalab_watch { records, ..FAULTS });
        assert_eq!(answer, Err(Errno::EINVAL), "{records}");
    }
    for bit in sys::VMALAB_NR_HOOKS..64 {
        let hooks = 1 << bit;
        assert_eq!(
            refused(sys::vmalab_watch { hooks, ..FAULTS }),
            Err(Errno::EINVAL)
        );
    }
    for bit in 1..32 {
        let flags = 1 << bit;
        assert_eq!(
            refused(sys::vmalab_watch { flags, ..FAULTS }),
            Err(Errno::EINVAL)
        );
    }
    assert_eq!(refused(sys::vmalab_watch { hooks: 0, ..FAULTS }), Ok(()));
    assert_eq!(
        refused(sys::vmalab_watch {
            records: 65536,
            ..FAULTS
        }),
        Ok(())
    );
    let read_only = Device::open_read_only("/dev/vmalab").unwrap();
    assert_eq!(read_only.watch().open().unwrap_err().errno(), libc::EBADF);
    // No descriptor is left over by what was refused.
    let watch = watch(&object);
    assert_eq!(
        watch
            .set_hooks(HookSet::from_bits_retain(1 << 40))
            .unwrap_err()
            .errno(),
        libc::EINVAL
    );
    assert_eq!(watch.state().unwrap().hooks, HookSet::all());
    let call = |number: u32, argument: usize| {
        let fd = watch.as_fd().as_raw_fd();
        // SAFETY: the numbers are of the device's type, whose calls check the address.
        Errno::result(unsafe { libc::ioctl(fd, number.into(), argument) })
    };
    assert_eq!(call(sys::VMALAB_IOC_WATCH_SET, 8), Err(Errno::EFAULT));
    assert_eq!(call(sys::VMALAB_IOC_WATCH_STATE, 8), Err(Errno::EFAULT));
    assert_eq!(call(sys::VMALAB_IOC_STATS, 8), Err(Errno::ENOTTY));
    let shorter = sys::VMALAB_IOC_WATCH_STATE - (1 << 16);
    assert_eq!(call(shorter, 8), Err(Errno::EINVAL));
    Ok(())
}

fn pid_namespaces(lab: &Lab) -> Verdict {
    let object = lab.open(8);
    let addr = map(&object, SHARED, 0, 8);
    let outside = object.watch().hooks(Hook::Fault).open().unwrap();
    let (go, done) = (pipe().unwrap(), pipe().unwrap());
    // SAFETY: this process has one thread.
    if let ForkResult::Child = unsafe { fork() }.unwrap() {
        drop(go.1);
        if nix::unistd::read(&go.0, &mut [0]) == Ok(1) {
            write(addr + 2 * PAGE);
            let _ = nix::unistd::write(&done.1, b"w");
        }
        std::process::exit(0);
    }
    child(|| {
        // SAFETY: it concerns the children of this child alone.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0);
        let status = child_status(|| {
            assert_eq!(getpid(), Pid::from_raw(1));
            write(addr);
            let events = outside.take().unwrap();
            assert_ne!(events[0].pid, 1, "as the maker of the watch sees it");
            assert_ne!(events[0].pid, 0);
            let inside = object.watch().hooks(Hook::Fault).open().unwrap();
            write(addr + PAGE);
            let events = inside.take().unwrap();
            assert_eq!((events[0].pid, events[0].tid), (1, 1));
            // What happens outside has no number here.
            nix::unistd::write(&go.1, b"w").unwrap();
            nix::unistd::read(&done.0, &mut [0]).unwrap();
            let events = inside.take().unwrap();
            assert_eq!((events[0].pid, events[0].tid), (0, 0));
        });
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    });
    drop(go);
    waitpid(None, None).unwrap();
    Ok(())
}

fn rings_are_charged(lab: &Lab) -> Verdict {
    const MIB: u64 = 1 << 20;
    let cgroup = Cgroup::new("rings")?;
    child(|| {
        cgroup.enter();
        let object = lab.open(1);
        let before = cgroup.current();
        let watch = object.watch().records(65536).open().unwrap();
        let charged = cgroup.current().saturating_sub(before);
        let expected = 65536 * SIZE as u64;
        assert!(
            charged.abs_diff(expected) <= MIB,
            "{charged} charged for {expected}"
        );
        drop(watch);
        let left = cgroup.current().saturating_sub(before);
        assert!(left <= MIB, "{left} left");
    });
    // Over the limit it is as with all memory: who takes it dies.
    let small = Cgroup::new("small-rings")?;
    small.set("memory.max", MIB);
    let greedy = child_status(|| {
        small.enter();
        let _ = lab.open(1).watch().records(65536).open();
    });
    assert!(
        matches!(greedy, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
        "{greedy:?}"
    );
    Ok(())
}

/// A tracing instance of our own, gone when dropped.
struct Tracing(PathBuf);

impl Tracing {
    fn new() -> Result<Self, Skip> {
        let root = PathBuf::from("/sys/kernel/tracing");
        if !root.join("events/vmalab/vmalab_hook").exists() {
            let reason = "no tracepoint vmalab:vmalab_hook: this kernel does not trace, or tracefs is not mounted";
            return Err(Skip::new(reason));
        }
        let path = root.join(format!("instances/vmalab-{}", getpid()));
        fs::create_dir(&path).unwrap();
        Ok(Self(path))
    }

    fn switch(&self, on: bool) {
        let file = self.0.join("events/vmalab/vmalab_hook/enable");
        fs::write(file, if on { "1" } else { "0" }).unwrap();
    }

    /// What was traced, without what is the same for all events.
    fn lines(&self) -> Vec<String> {
        let mut text = String::new();
        let mut file = fs::File::open(self.0.join("trace")).unwrap();
        file.read_to_string(&mut text).unwrap();
        fs::write(self.0.join("trace"), "").unwrap();
        let event = |line: &str| {
            let (_, event) = line.split_once(" vmalab_hook: ")?;
            Some(event.to_owned())
        };
        text.lines().filter_map(event).collect()
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn the_tracepoint(lab: &Lab) -> Verdict {
    let tracing = Tracing::new()?;
    let object = lab.open(16);
    let number = watch(&object).state().unwrap().object;
    let addr = map(&object, SHARED, 0, 6);
    tracing.switch(true);
    unmap(addr + 2 * PAGE, 2);
    write(addr);
    tracing.switch(false);
    write(addr + PAGE);
    let at = |page: usize| addr + page * PAGE;
    let begins = [
        format!(
            "may_split object={number} range=0x{:x}-0x{:x} offset=0x0 argument=0x{:x} result=0 flags=",
            at(0),
            at(6),
            at(2)
        ),
        format!(
            "open object={number} range=0x{:x}-0x{:x} offset=0x0 argument=0x0 result=0 flags=",
            at(0),
            at(2)
        ),
        format!(
            "may_split object={number} range=0x{:x}-0x{:x} offset=0x2000 argument=0x{:x} result=0 flags=",
            at(2),
            at(6),
            at(4)
        ),
        format!(
            "open object={number} range=0x{:x}-0x{:x} offset=0x4000 argument=0x0 result=0 flags=",
            at(4),
            at(6)
        ),
        format!(
            "close object={number} range=0x{:x}-0x{:x} offset=0x2000 argument=0x0 result=0 flags=",
            at(2),
            at(4)
        ),
        format!(
            "fault object={number} range=0x{:x}-0x{:x} offset=0x0 argument=0x",
            at(0),
            at(1)
        ),
    ];
    let lines = tracing.lines();
    assert_eq!(lines.len(), begins.len(), "{lines:#?}");
    for (line, begin) in lines.iter().zip(&begins) {
        assert!(line.starts_with(begin), "{line}\nnot\n{begin}");
    }
    assert!(lines[0].contains("read|write"), "{}", lines[0]);
    assert!(lines[5].contains(" result=512 "), "{}", lines[5]);
    // Neither needs the other.
    let seen = watch(&object);
    tracing.switch(true);
    write(addr + 4 * PAGE);
    tracing.switch(false);
    assert_eq!((tracing.lines().len(), seen.take().unwrap().len()), (1, 1));
    Ok(())
}

/// perf and trace-cmd print by `format` alone, and know no name of the kernel's: all of them must have become
/// numbers.
fn the_format(_lab: &Lab) -> Verdict {
    let tracing = Tracing::new()?;
    let path = tracing.0.join("events/vmalab/vmalab_hook/format");
    let format = fs::read_to_string(path).unwrap();
    let (_, print) = format.split_once("print fmt: ").unwrap();
    for hook in Hook::ALL {
        let entry = format!("{{ {}, \"{}\" }}", *hook as u32, hook.name());
        assert!(print.contains(&entry), "no {entry} in {print}");
    }
    for prefix in ["VMALAB_", "VMA_", "VM_"] {
        assert!(!print.contains(prefix), "{prefix} in {print}");
    }
    Ok(())
}

/// perf_event_open(2) of the tracepoint, to count this thread's calls of hooks.
pub(crate) fn perf_counter() -> Result<fs::File, Skip> {
    const PERF_TYPE_TRACEPOINT: u64 = 2;
    const PERF_ATTR_SIZE_VER0: u64 = 64;
    let path = "/sys/kernel/tracing/events/vmalab/vmalab_hook/id";
    let id = fs::read_to_string(path).map_err(|error| Skip(format!("{path}: {error}")))?;
    let id: u64 = id.trim().parse().unwrap();
    // struct perf_event_attr: type and size, config, and zeros.
    let mut attr = [0_u64; PERF_ATTR_SIZE_VER0 as usize / 8];
    (attr[0], attr[1]) = (PERF_TYPE_TRACEPOINT | (PERF_ATTR_SIZE_VER0 << 32), id);
    // SAFETY: the structure is as long as it says; the descriptor is new, and nobody else's.
    unsafe {
        let (this, any, none, flags) = (0, -1, -1, 0);
        let fd = libc::syscall(libc::SYS_perf_event_open, &attr, this, any, none, flags);
        Ok(fs::File::from_raw_fd(Errno::result(fd).unwrap() as i32))
    }
}

fn counted_by_perf(lab: &Lab) -> Verdict {
    let mut counter = perf_counter()?;
    let mut calls = || {
        let mut count = [0; 8];
        counter.read_exact(&mut count).unwrap();
        u64::from_ne_bytes(count)
    };
    let object = lab.open(16);
    let addr = map(&object, SHARED, 0, 6);
    let before = calls();
    unmap(addr + 2 * PAGE, 2);
    assert_eq!(
        calls() - before,
        5,
        "may_split, open, may_split, open, close"
    );
    write(addr);
    write(addr + PAGE);
    assert_eq!(calls() - before, 7, "two faults");
    write(addr + PAGE);
    assert_eq!(calls() - before, 7, "none");
    Ok(())
}

/// For the report. What it is worth is measured elsewhere, where time is a count of instructions.
fn cost_of_a_fault(lab: &Lab) -> Verdict {
    const PAGES: usize = 4096;
    let object = lab.open(PAGES);
    let addr = map(&object, SHARED, 0, PAGES);
    let touch_all = || {
        advise(addr, PAGES, libc::MADV_DONTNEED).unwrap();
        let begin = Instant::now();
        for page in 0..PAGES {
            write(addr + page * PAGE);
        }
        begin.elapsed().as_nanos() as f64 / PAGES as f64
    };
    touch_all();
    let best = || (0..5).map(|_| touch_all()).fold(f64::INFINITY, f64::min);
    let off = best();
    let watch = object.watch().records(65536).open().unwrap();
    let on = best();
    assert_eq!(watch.state().unwrap().recorded as usize, 5 * PAGES);
    drop(watch);
    lab.row("a fault, nobody watches", off, "ns");
    lab.row("a fault, recorded", on, "ns");
    Ok(())
}
