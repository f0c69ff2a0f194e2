// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Pages are charged to a memory cgroup, and its limit hits the one who exceeds it.

use std::{
    fs,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::PathBuf,
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::{
        signal::Signal,
        uio::pwrite,
        wait::{WaitStatus, waitpid},
    },
    unistd::{Pid, pipe},
};
use vmalab::{Device, sys};

use crate::{
    lab::{Lab, Subject},
    mem::*,
    run::{Skip, Test, Verdict, child, child_status, start_child},
};

pub(crate) const TESTS: &[Test] = &[
    Test::both(
        "cgroup::pages_are_charged_and_given_back",
        charged_and_given_back,
    ),
    Test::both(
        "cgroup::the_first_to_touch_is_charged",
        the_first_to_touch_is_charged,
    ),
    Test::both("cgroup::over_the_limit_the_right_one_dies", |lab| {
        over_the_limit(lab, by_touching)
    })
    .logs(),
    Test::both("cgroup::over_the_limit_by_write", |lab| {
        over_the_limit(lab, by_writing)
    })
    .logs(),
    Test::both("cgroup::over_the_limit_by_fallocate", |lab| {
        over_the_limit(lab, by_allocating)
    })
    .logs(),
    Test::device("cgroup::over_the_limit_in_huge_pages", |lab| {
        over_the_limit(lab, in_huge_pages)
    })
    .logs(),
    Test::both(
        "cgroup::over_the_limit_by_a_passed_descriptor",
        by_a_passed_descriptor,
    )
    .logs(),
];

/// A memory cgroup of our own, gone when dropped.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    pub(crate) fn new(name: &str) -> Result<Self, Skip> {
        let root = PathBuf::from("/sys/fs/cgroup");
        if !root.join("cgroup.controllers").exists() {
            let none: Option<&str> = None;
            mount(none, &root, Some("cgroup2"), MsFlags::empty(), none)
                .map_err(|errno| Skip(format!("no cgroup2 in {}: {errno}", root.display())))?;
        }
        fs::write(root.join("cgroup.subtree_control"), "+memory")
            .map_err(|error| Skip(format!("no memory controller: {error}")))?;
        let path = root.join(format!("vmalab-{name}-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| Skip(format!("no cgroup can be made: {error}")))?;
        let cgroup = Self(path);
        if !cgroup.0.join("memory.current").exists() {
            return Err(Skip::new("the memory controller is not ours to use"));
        }
        Ok(cgroup)
    }

    pub(crate) fn enter(&self) {
        fs::write(self.0.join("cgroup.procs"), Pid::this().to_string()).unwrap();
    }

    pub(crate) fn set(&self, file: &str, value: impl ToString) {
        fs::write(self.0.join(file), value.to_string()).unwrap();
    }

    /// In bytes.
    pub(crate) fn current(&self) -> u64 {
        fs::read_to_string(self.0.join("memory.current"))
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    fn event(&self, key: &str) -> u64 {
        let text = fs::read_to_string(self.0.join("memory.events")).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap();
        line.trim().parse().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

const MIB: u64 = 1 << 20;
/// The kernel charges each processor's stock of up to 64 pages ahead.
const TOLERANCE: u64 = MIB;

/// Touches pages by the processor.
fn touch(addr: usize, pages: usize) {
    for page in 0..pages {
        // SAFETY: the callers map that many pages.
        unsafe { pointer(addr + page * PAGE).write_volatile(1) };
    }
}

fn charged_and_given_back(lab: &Lab) -> Verdict {
    const PAGES: usize = 4096;
    let cgroup = Cgroup::new("charge")?;
    child(|| {
        cgroup.enter();
        let object = lab.open(PAGES);
        let addr = map(&object, SHARED, 0, PAGES);
        let before = cgroup.current();
        touch(addr, PAGES);
        let charged = cgroup.current() - before;
        let expected = (PAGES * PAGE) as u64;
        assert!(
            charged.abs_diff(expected) <= TOLERANCE,
            "{charged} charged, not {expected}"
        );

        lab.resize(&object, PAGES / 2);
        let left = cgroup.current() - before;
        assert!(
            left.abs_diff(expected / 2) <= TOLERANCE,
            "{left} left of half"
        );
        drop(object);
        unmap(addr, PAGES);
        let left = cgroup.current().saturating_sub(before);
        assert!(left <= TOLERANCE, "{left} left in the end");
    });
    Ok(())
}

/// Whoever opened the object: the cgroup of the task that faults a page in first pays for it.
fn the_first_to_touch_is_charged(lab: &Lab) -> Verdict {
    const PAGES: usize = 4096;
    let (opener, other) = (Cgroup::new("opener")?, Cgroup::new("other")?);
    child(|| {
        opener.enter();
        let object = lab.open(PAGES);
        let addr = map(&object, SHARED, 0, PAGES);
        child(|| {
            other.enter();
            let before = (opener.current(), other.current());
            touch(addr, PAGES / 2);
            let charged = (
                opener.current().saturating_sub(before.0),
                other.current().saturating_sub(before.1),
            );
            let expected = (PAGES / 2 * PAGE) as u64;
            assert!(
                charged.0 <= TOLERANCE && charged.1.abs_diff(expected) <= TOLERANCE,
                "the opener is charged {}, the one who touches {}, of {expected}",
                charged.0,
                charged.1
            );
        });
        // A page that is there costs nobody else anything.
        let before = opener.current();
        touch(addr, PAGES / 2);
        let charged = opener.current().saturating_sub(before);
        assert!(
            charged <= TOLERANCE,
            "{charged} charged for pages that were there"
        );
    });
    Ok(())
}

/// A new object of each node.
fn of_each_node(lab: &Lab, pages: usize) -> Vec<Device> {
    let mut objects = vec![lab.open(pages)];
    if lab.subject == Subject::Device {
        let path = sys::VMALAB_PREPARE_PATH.to_str().unwrap();
        let object = Device::open_at(path).unwrap();
        lab.resize(&object, pages);
        objects.push(object);
    }
    objects
}

/// A cgroup that may have 16 MiB.
fn small(name: &str) -> Result<Cgroup, Skip> {
    let cgroup = Cgroup::new(name)?;
    cgroup.set("memory.max", LIMIT);
    // Not there without swap.
    let _ = fs::write(cgroup.0.join("memory.swap.max"), "0");
    Ok(cgroup)
}

const LIMIT: u64 = 16 * MIB;
/// As many pages as are far over the limit.
const GREEDY: usize = 16384;

#[track_caller]
fn was_killed(status: WaitStatus) {
    assert!(
        matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
        "{status:?}"
    );
}

fn by_touching(_: &Lab, object: &Device) {
    touch(map(object, SHARED, 0, GREEDY), GREEDY);
}

/// Nothing of what is taken is mapped, and the kernel looks for who has most (`oom_badness`): it is told.
fn is_greedy() {
    fs::write("/proc/self/oom_score_adj", "1000").unwrap();
}

/// Charged while the lock of the object is held.
fn by_writing(_: &Lab, object: &Device) {
    is_greedy();
    let bytes = vec![b'w'; MIB as usize];
    for at in (0..GREEDY * PAGE).step_by(bytes.len()) {
        let _ = pwrite(object, &bytes, at as i64);
    }
}

/// Likewise, in one call.
fn by_allocating(lab: &Lab, object: &Device) {
    is_greedy();
    let _ = lab.fallocate(object, sys::VMALAB_FALLOCATE_ALLOCATE, 0, GREEDY * PAGE);
}

/// Where a piece is too much, single pages come first; only then somebody dies.
fn in_huge_pages(_: &Lab, object: &Device) {
    object.set_folio_size(2 * MIB).unwrap();
    touch(map(object, SHARED, 0, GREEDY), GREEDY);
}

/// Of two in a cgroup, the one who is greedy is killed; the other keeps what it has.
fn over_the_limit(lab: &Lab, be_greedy: fn(&Lab, &Device)) -> Verdict {
    for node in 0..of_each_node(lab, 0).len() {
        let cgroup = small("limit")?;
        // The bystander has a mapping, too, and lives until the pipe is closed.
        let (reader, writer) = pipe().unwrap();
        let (ready, bystander_ready) = pipe().unwrap();
        // SAFETY: this process has one thread.
        let bystander = match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                drop(writer);
                cgroup.enter();
                let object = &of_each_node(lab, 16)[node];
                let addr = map(object, SHARED, 0, 16);
                letters(addr, 16, 'A');
                nix::unistd::write(&bystander_ready, b"1").unwrap();
                let _ = nix::unistd::read(&reader, &mut [0]);
                std::process::exit(i32::from(look(addr, 16) != "ABCDEFGHIJKLMNOP"));
            }
            nix::unistd::ForkResult::Parent { child } => child,
        };
        nix::unistd::read(&ready, &mut [0]).unwrap();
        was_killed(child_status(|| {
            cgroup.enter();
            be_greedy(lab, &of_each_node(lab, GREEDY)[node]);
        }));
        assert_eq!(cgroup.event("oom_kill "), 1);
        assert_eq!(
            nix::sys::signal::kill(bystander, None),
            Ok(()),
            "the bystander lives"
        );
        assert_eq!(
            fs::read_to_string(cgroup.0.join("cgroup.procs"))
                .unwrap()
                .trim(),
            bystander.to_string()
        );
        drop(writer);
        let status = nix::sys::wait::waitpid(bystander, None);
        assert_eq!(status, Ok(WaitStatus::Exited(bystander, 0)));
    }
    Ok(())
}

/// Who was given the descriptor and touches too much dies, not who opened the object. What was touched
/// until then stays in the object, and the object can be used on.
fn by_a_passed_descriptor(lab: &Lab) -> Verdict {
    for object in of_each_node(lab, GREEDY) {
        let cgroup = small("passed")?;
        let opener = Pid::this();
        let greedy = start_child(|| {
            cgroup.enter();
            touch(map(taken_from(opener, &object), SHARED, 0, GREEDY), GREEDY);
        });
        was_killed(waitpid(greedy, None).unwrap());
        assert_eq!(cgroup.event("oom_kill "), 1);

        let addr = map(&object, SHARED, 0, GREEDY);
        // SAFETY: it is mapped.
        assert_eq!(unsafe { pointer(addr).read_volatile() }, 1);
        letters(addr + (GREEDY - 8) * PAGE, 8, 'A');
        assert_eq!(look(addr + (GREEDY - 8) * PAGE, 8), "ABCDEFGH");
        let charged = cgroup.current();
        assert!(
            charged > LIMIT / 2,
            "only {charged} left of what was touched"
        );
        lab.resize(&object, 1);
        lab.check_pages(&object, 1);
        let left = cgroup.current();
        assert!(left <= TOLERANCE, "{left} left of pages that are gone");
    }
    Ok(())
}

/// A descriptor of another process, as if it had been passed over a socket: pidfd_getfd(2).
fn taken_from(process: Pid, theirs: &Device) -> OwnedFd {
    // SAFETY: they make descriptors, which nobody else has.
    unsafe {
        let process = Errno::result(libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0));
        let process = OwnedFd::from_raw_fd(process.unwrap() as i32);
        let (from, fd) = (process.as_raw_fd(), theirs.as_raw_fd());
        let ours = Errno::result(libc::syscall(libc::SYS_pidfd_getfd, from, fd, 0));
        OwnedFd::from_raw_fd(ours.unwrap() as i32)
    }
}
