// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Pages are charged to a memory cgroup, and its limit hits the one who exceeds it.

use std::{fs, path::PathBuf};

use nix::{
    mount::{MsFlags, mount},
    sys::{signal::Signal, wait::WaitStatus},
    unistd::{Pid, pipe},
};

use crate::{
    lab::Lab,
    mem::*,
    run::{Skip, Test, Verdict, child, child_status},
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
    Test::both("cgroup::over_the_limit_the_right_one_dies", over_the_limit).logs(),
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

fn over_the_limit(lab: &Lab) -> Verdict {
    const PAGES: usize = 16384;
    let cgroup = Cgroup::new("limit")?;
    cgroup.set("memory.max", 16 * MIB);
    // Not there without swap.
    let _ = fs::write(cgroup.0.join("memory.swap.max"), "0");
    // The bystander has a mapping, too, and lives until the pipe is closed.
    let (reader, writer) = pipe().unwrap();
    let (ready, bystander_ready) = pipe().unwrap();
    // SAFETY: this process has one thread.
    let bystander = match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            drop(writer);
            cgroup.enter();
            let object = lab.open(16);
            letters(map(&object, SHARED, 0, 16), 16, 'A');
            nix::unistd::write(&bystander_ready, b"1").unwrap();
            let _ = nix::unistd::read(&reader, &mut [0]);
            std::process::exit(0);
        }
        nix::unistd::ForkResult::Parent { child } => child,
    };
    nix::unistd::read(&ready, &mut [0]).unwrap();
    let greedy = child_status(|| {
        cgroup.enter();
        let object = lab.open(PAGES);
        touch(map(&object, SHARED, 0, PAGES), PAGES);
    });
    assert!(
        matches!(greedy, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
        "{greedy:?}"
    );
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
    Ok(())
}
