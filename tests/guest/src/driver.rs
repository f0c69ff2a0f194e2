// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The driver of tests/driver, which takes `vm_ops` of the module as it is, and answers each page in
//! another way.

use std::{
    fs::{self, File, OpenOptions},
    os::{fd::AsFd, unix::fs::FileExt},
};

use nix::{
    errno::Errno,
    kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module},
    sys::resource::{UsageWho, getrusage},
};

use crate::{
    core::{Core, mark},
    folio::huge_pages,
    lab::Lab,
    mem::*,
    run::{Skip, Test, Verdict, child},
};

pub(crate) const TESTS: &[Test] = &[
    Test::device("driver::each_answer_to_a_fault", answers),
    Test::device("driver::huge_frames", huge_frames),
    Test::device("driver::hooks_that_refuse", refusals),
    Test::device("driver::a_name_is_in_each_core", a_name),
    Test::device("driver::areas_that_hold_nothing", areas_that_hold_nothing),
    Test::device("driver::loaded_as_long_as_mapped", loaded),
];

// The pages, as tests/driver/driver.rs has them.
const INSERT: usize = 1;
const SEGV: usize = 7;
const PAGES: usize = 10;
/// Where the frames begin, and how many there are: as many as one entry of the page table stands for.
const FRAMES: usize = 512;

/// The loaded driver; dropping it removes it.
struct Loaded;

impl Loaded {
    fn load(lab: &Lab) -> Result<Self, Skip> {
        let Some(path) = &lab.driver else {
            return Err(Skip::new("it needs --driver vmalab_driver.ko to load it"));
        };
        let file = File::open(path)
            .map_err(|error| Skip(format!("cannot open {}: {error}", path.display())))?;
        finit_module(file.as_fd(), c"", ModuleInitFlags::empty()).unwrap();
        Ok(Self)
    }

    fn open(&self) -> File {
        self.open_node("/dev/vmalab-driver")
    }

    fn open_node(&self, path: &str) -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.open(path).unwrap()
    }

    fn remove() -> Result<(), Errno> {
        delete_module(c"vmalab_driver", DeleteModuleFlags::O_NONBLOCK)
    }
}

/// The tests use it in a child process, with which all that would keep it loaded is gone.
impl Drop for Loaded {
    fn drop(&mut self) {
        let removed = Self::remove();
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

fn answers(lab: &Lab) -> Verdict {
    let driver = Loaded::load(lab)?;
    child(|| each_answer(&driver));
    Ok(())
}

fn each_answer(driver: &Loaded) {
    for kind in KINDS {
        let file = driver.open();
        let addr = map(&file, kind, 0, PAGES);
        assert_eq!(look(addr, PAGES), "0000000!!!");
        // Who accesses them himself learns which signal it is.
        let signal =
            |page: usize| fault(addr + page * PAGE, Access::Read).map(|(signal, ..)| signal);
        assert_eq!(signal(SEGV), Some(libc::SIGSEGV));
        assert_eq!(signal(SEGV + 1), Some(libc::SIGBUS));

        // Mapped for reading by now, and written to. One page of a shared area stays as it is.
        let written: Vec<usize> = (0..SEGV).filter(|page| *page != INSERT).collect();
        for page in &written {
            letters(addr + page * PAGE, 1, 'A');
        }
        let result = write_from_kernel(addr + INSERT * PAGE, b"x");
        if kind == SHARED {
            assert_eq!(result, Err(Errno::EFAULT));
            // The pages are the file's.
            assert_eq!(look(map(&file, SHARED, 0, PAGES), SEGV), "A0AAAAA");
        } else {
            assert_eq!(result, Ok(()));
            assert_eq!(look(map(&file, SHARED, 0, PAGES), SEGV), "0000000");
        }
        child(|| assert_eq!(look(addr, 1), "A"));

        // Written to first.
        let again = map(&file, kind, 0, PAGES);
        for page in 0..SEGV {
            letters(again + page * PAGE, 1, 'a');
        }
        assert_eq!(look(again, SEGV), "aaaaaaa");
        // A part of the neighbourhood only.
        let part = map(&file, kind, 3, 2);
        assert_eq!(
            fault(part, Access::Read).map(|(signal, ..)| signal),
            Some(libc::SIGBUS)
        );
        unmap(addr, PAGES);
        unmap(again, PAGES);
    }
}

fn huge_frames(lab: &Lab) -> Verdict {
    huge_pages()?;
    let driver = Loaded::load(lab)?;
    child(|| frames(&driver));
    Ok(())
}

/// The first number of a page, as the processor reads it.
fn number(addr: usize) -> u32 {
    // SAFETY: the callers give pages that are mapped and readable.
    unsafe { pointer(addr).cast::<u32>().read_volatile() }
}

fn set_number(addr: usize, number: u32) {
    // SAFETY: the callers give pages that are mapped and writable, to which nothing refers.
    unsafe { pointer(addr).cast::<u32>().write_volatile(number) };
}

fn frames(driver: &Loaded) {
    let file = driver.open();
    let place = map_anonymous(0, 4 * FRAMES, libc::PROT_NONE, 0)
        .unwrap()
        .next_multiple_of(FRAMES * PAGE);
    let at = |addr| try_map(&file, addr, FRAMES, RW, SHARED | libc::MAP_FIXED, FRAMES).unwrap();
    let faults = |step: &dyn Fn()| {
        let count = || {
            let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
            usage.minor_page_faults()
        };
        let before = count();
        step();
        count() - before
    };
    let page = |addr: usize, page: usize| addr + page * PAGE;

    // All of it at once, when it is read first, and when it is written to.
    let addr = at(place);
    let read = faults(&|| (0..FRAMES).for_each(|n| assert_eq!(number(page(addr, n)), 0)));
    assert_eq!(read, 1);
    let write = faults(&|| (0..FRAMES).for_each(|n| set_number(page(addr, n), n as u32)));
    assert!(write <= 1, "{write} faults");
    // Where the area does not begin where an entry does: page by page.
    let other = at(place + FRAMES * PAGE + PAGE);
    let same = || (0..FRAMES).for_each(|n| assert_eq!(number(page(other, n)), n as u32));
    assert_eq!(faults(&same), FRAMES as i64);
    unmap(other, FRAMES);

    // A hole and another protection cut the entry; what it showed comes back page by page.
    unmap(page(addr, 100), 1);
    protect(page(addr, 200), 10, RO).unwrap();
    for n in (0..100).chain(101..FRAMES) {
        assert_eq!(number(page(addr, n)), n as u32);
    }
    let signal = |n, access| fault(page(addr, n), access).map(|(signal, ..)| signal);
    assert_eq!(signal(205, Access::Write), Some(libc::SIGSEGV));
    assert_eq!(signal(300, Access::Write), None);

    // A fork maps the same frames, and the areas keep them.
    drop(file);
    child(|| {
        assert_eq!(number(page(addr, 301)), 301);
        set_number(page(addr, 301), 7);
    });
    assert_eq!(number(page(addr, 301)), 7);

    // A frame is not copied when it is written to.
    let private = try_map(driver.open(), 0, FRAMES, RW, PRIVATE, FRAMES);
    assert_eq!(private, Err(Errno::EINVAL));
}

fn refusals(lab: &Lab) -> Verdict {
    let driver = Loaded::load(lab)?;
    child(|| each_refusal(&driver));
    Ok(())
}

fn each_refusal(driver: &Loaded) {
    let file = driver.open();
    let place = map_anonymous(0, 16, libc::PROT_NONE, 0)
        .unwrap()
        .next_multiple_of(2 * PAGE);
    let addr = try_map(&file, place, PAGES, RW, SHARED | libc::MAP_FIXED, 0).unwrap();
    letters(addr, 1, 'A');

    // may_split: at every second page only.
    assert_eq!(try_unmap(addr + PAGE, PAGE), Err(Errno::EINVAL));
    assert_eq!(try_unmap(addr + 8 * PAGE, 2 * PAGE), Ok(()));
    // mremap: refused when the pages have been moved, and they are moved back.
    let moved = remap(
        addr,
        8,
        8,
        libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
        map_anonymous(0, 8, RW, 0).unwrap(),
    );
    assert_eq!(moved, Err(Errno::EBUSY));
    assert_eq!(look(addr, 2), "A0");
    // mprotect
    assert_eq!(protect(addr, 8, RW | libc::PROT_EXEC), Err(Errno::EPERM));
    assert_eq!(protect(addr, 8, RO), Ok(()));

    // access: what a debugger reads where there is no page. It may not write there.
    let memory = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/proc/self/mem")
        .unwrap();
    let mut bytes = [0; 4];
    memory
        .read_exact_at(&mut bytes, (addr + SEGV * PAGE) as u64)
        .unwrap();
    assert_eq!(&bytes, b"aaaa");
    let refused = memory
        .write_at(b"x", (addr + SEGV * PAGE) as u64)
        .unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EIO));
    // What the driver did not write is zeros.
    let rest = map(&file, SHARED, SEGV + 1, 1);
    memory.read_exact_at(&mut bytes, rest as u64).unwrap();
    assert_eq!(bytes, [0; 4]);

    // pagesize
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = smaps.lines();
    let begin = format!("{addr:x}-");
    lines.find(|line| line.starts_with(&begin)).unwrap();
    let size = lines
        .find(|line| line.starts_with("KernelPageSize:"))
        .unwrap();
    assert_eq!(size.split_whitespace().nth(1), Some("8"));

    // set_policy and get_policy, if the kernel has NUMA.
    let bind = |addr: usize| bind(addr, 2, 0);
    let policy = |addr: usize| {
        let mut mode = -1;
        let none = std::ptr::null::<u64>();
        // SAFETY: it writes one word.
        let done = unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut mode,
                none,
                0,
                addr,
                MPOL_F_ADDR,
            )
        };
        Errno::result(done).map(|_| mode)
    };
    let refused = bind(addr);
    if refused == Err(Errno::ENOSYS) {
        return;
    }
    assert_eq!(refused, Err(Errno::EDOM));
    let (area, task) = (map(&file, SHARED, 2, 2), map(&file, SHARED, 5, 2));
    assert_eq!((bind(area), bind(task)), (Ok(()), Ok(())));
    assert_eq!((policy(area), policy(task)), (Ok(MPOL_BIND), Ok(0)));
}

// As in linux/mempolicy.h.
const MPOL_F_ADDR: i32 = 2;

fn loaded(lab: &Lab) -> Verdict {
    let driver = Loaded::load(lab)?;
    child(|| {
        let file = driver.open();
        let addr = map(&file, PRIVATE, 0, PAGES);
        drop(file);
        letters(addr, 1, 'A');
        assert_eq!(Loaded::remove(), Err(Errno::EWOULDBLOCK));
        child(|| {
            unmap(addr, PAGES);
            assert_eq!(Loaded::remove(), Err(Errno::EWOULDBLOCK));
        });
        assert_eq!(look(addr, 1), "A");
    });
    Ok(())
}

/// The page from which on an area has a name, as tests/driver/driver.rs has it.
const NAMED: usize = 6;

/// `always_dump_vma`: also if it was said that it is not to be.
fn a_name(lab: &Lab) -> Verdict {
    let driver = Loaded::load(lab)?;
    let core = Core::of(None, || {
        for (page, which) in [(0, b'u'), (NAMED, b'n')] {
            let addr = map(driver.open(), SHARED, page, 1);
            write_from_kernel(addr, &mark(which)).unwrap();
            advise(addr, 1, libc::MADV_DONTDUMP).unwrap();
        }
    })?;
    assert_eq!((core.has(b'u'), core.has(b'n')), (false, true));
    Ok(())
}

/// From `.mmap_prepare`, and without data: such an area has no hook but `fault`, so that the kernel merges it.
fn areas_that_hold_nothing(lab: &Lab) -> Verdict {
    let driver = Loaded::load(lab)?;
    child(|| {
        let file = driver.open_node("/dev/vmalab-driver-prepare");
        for kind in KINDS {
            let addr = map(&file, kind, 0, 4);
            letters(addr, 1, 'A');
            assert_eq!(look(addr, 4), "A!!!");
            assert_eq!(
                fault(addr + PAGE, Access::Read).map(|(signal, ..)| signal),
                Some(libc::SIGBUS)
            );
            // Another area has another page; so has a child, to which fork copies no page table of shared areas.
            let other = map(&file, kind, 0, 1);
            assert_eq!(look(other, 1), "0");
            child(|| assert_eq!(look(addr, 1), if kind == SHARED { "0" } else { "A" }));
            unmap(addr + PAGE, 1);
            protect(addr + 2 * PAGE, 1, RO).unwrap();
            assert_eq!(layout(addr, 4), [(0, 1, 0), (2, 3, 2), (3, 4, 3)]);
            protect(addr + 2 * PAGE, 1, RW).unwrap();
            assert_eq!(layout(addr, 4), [(0, 1, 0), (2, 4, 2)], "one again");
            unmap(addr, 4);
        }
    });
    Ok(())
}
