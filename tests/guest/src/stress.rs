// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Everything at once: threads of two processes map, touch, unmap, move and fork areas of the same
//! objects, punch holes, lend pages and write to descriptors (`worker`); others change sizes, kinds of
//! pages and rules under them, seal, read what is told and recorded, take memory back, and try to remove
//! the module (`others`). It goes on for as long as `--seconds` says.
//!
//! Whatever comes out of a race, this holds:
//! - a byte of an object is zero, or what somebody wrote there: each page has one value that is ever
//!   written to it;
//! - what is sealed against writing does not change;
//! - records come in order;
//! - nothing is left in the end, and the kernel has logged nothing.

mod others;
mod worker;

use std::{
    os::fd::AsFd,
    sync::{
        RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        uio::{pread, pwrite},
        wait::{WaitStatus, waitpid},
    },
};
use vmalab::{AreaFlags, Device, Hook, HookSet, sys};

use crate::{
    lab::Lab,
    mem::*,
    run::{Test, Verdict, start_child},
};

pub(crate) const TESTS: &[Test] = &[Test::device("stress::all_at_once", all_at_once)];

/// Pages of each object: several pieces of 64 KiB, and of the third, two pieces of 2 MiB and a rest.
const PAGES: [usize; OBJECTS] = [64, 64, 1280, 64];
const OBJECTS: usize = 4;
/// The object that is mapped by frame numbers (`VM_PFNMAP`).
const FRAMES: usize = 3;
/// The number of the object that is sealed again and again, and its pages.
const SEALED: usize = OBJECTS;
const SEALED_PAGES: usize = 16;
/// The place to which areas are moved, of whatever object.
const ELSEWHERE: usize = OBJECTS + 1;

/// Threads of each process that map and touch.
const WORKERS: usize = 3;

/// In so much time, each hook is called.
const LONG: Duration = Duration::from_secs(60);

/// What rules have hooks fail with, so that it can be told from other failures.
const REFUSED: Errno = Errno::ENOTUNIQ;

/// Where a process maps an object: where one entry of the page table can stand for 2 MiB, and so low that
/// the kernel, which chooses addresses from the top, maps nothing there by itself.
fn place(object: usize) -> usize {
    (1 << 44) + object * (16 << 20)
}

/// The only byte that is ever written to a page of an object.
fn value(object: usize, page: usize) -> u8 {
    (1 + (object * 61 + page) % 255) as u8
}

/// Whether the bytes are zero, or those of their page.
#[track_caller]
fn check(object: usize, page: usize, bytes: &[u8]) {
    let own = value(object, page);
    let foreign = bytes.iter().find(|byte| ![0, own].contains(byte));
    assert_eq!(
        foreign, None,
        "object {object}, page {page}, whose bytes are 0 or {own}"
    );
}

/// Random numbers: xorshift.
struct Random(u64);

impl Random {
    fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A range of pages of an object: where it begins, and how many.
    fn range(&mut self, object: usize) -> (usize, usize) {
        let pages = PAGES[object];
        let from = self.below(pages);
        (from, 1 + self.below((pages - from).min(8)))
    }
}

/// What the threads of a process share.
struct Shared<'a> {
    objects: &'a [Device],
    /// A new one each time that it has been sealed.
    sealed: RwLock<Device>,
    /// How often it was.
    seals: AtomicU64,
}

impl Shared<'_> {
    /// The object of this number, and its pages.
    fn any(&self, random: &mut Random) -> (usize, &Device) {
        let object = random.below(OBJECTS);
        (object, &self.objects[object])
    }
}

/// All threads of one process, until the time is over; how many steps they made, and how often an object was
/// sealed.
fn run_wild(objects: &[Device], until: Instant, seed: usize) -> (u64, u64) {
    let shared = Shared {
        objects,
        sealed: RwLock::new(others::to_be_sealed(&mut Random::new(seed))),
        seals: AtomicU64::new(0),
    };
    let steps = |mut step: Box<dyn FnMut() + Send + '_>| {
        let mut steps = 0_u64;
        while Instant::now() < until {
            step();
            steps += 1;
        }
        steps
    };
    let steps = thread::scope(|scope| {
        let workers = (0..WORKERS).map(|n| worker::steps(&shared, Random::new(seed + n)));
        let others = others::all(&shared, seed + WORKERS);
        let threads: Vec<_> = workers
            .chain(others)
            .map(|step| scope.spawn(move || steps(step)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    (steps, shared.seals.load(Ordering::Relaxed))
}

fn all_at_once(lab: &Lab) -> Verdict {
    let prepare = sys::VMALAB_PREPARE_PATH.to_str().unwrap();
    let objects: Vec<_> = (0..OBJECTS)
        .map(|n| match n {
            0 => Device::open_at(prepare).unwrap(),
            _ => Device::open().unwrap(),
        })
        .collect();
    objects[FRAMES].set_area_flags(AreaFlags::PFNMAP).unwrap();
    for (object, pages) in objects.iter().zip(PAGES) {
        lab.resize(object, pages);
    }
    let until = Instant::now() + lab.time;
    let other = start_child(|| {
        run_wild(&objects, until, 100);
    });
    let (steps, seals) = run_wild(&objects, until, 0);
    assert_eq!(waitpid(other, None), Ok(WaitStatus::Exited(other, 0)));

    for (n, (object, pages)) in objects.iter().zip(PAGES).enumerate() {
        as_good_as_before(lab, n, object, pages);
    }
    lab.row("steps of one process, all at once", steps as f64, "steps");
    lab.row("objects sealed meanwhile", seals as f64, "objects");
    for hook in Hook::ALL {
        let calls = |object: &Device| object.stats().unwrap().hooks.of(*hook);
        let calls: u64 = objects.iter().map(calls).sum();
        let name = format!("{} meanwhile", hook.name());
        lab.row(&name, calls as f64, "calls");
        // There was a way to each.
        assert!(lab.time < LONG || calls > 0, "{name}: never");
    }
    Ok(())
}

/// What the object holds is its own, and it can be used as any other.
fn as_good_as_before(lab: &Lab, n: usize, object: &Device, pages: usize) {
    object.clear_rules().unwrap();
    object.set_hooks(HookSet::empty()).unwrap();
    object.set_folio_size(PAGE as u64).unwrap();
    if n != FRAMES {
        object.set_area_flags(AreaFlags::empty()).unwrap();
    }
    // What others look at in passing, as to move it, they let go of soon.
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(errno) = lab.try_resize(object, pages) {
        assert!(
            errno == Errno::EBUSY && Instant::now() < deadline,
            "{errno}"
        );
    }
    let addr = map(object, SHARED, 0, pages);
    let mut bytes = [0; PAGE];
    for page in 0..pages {
        let at = (page * PAGE) as i64;
        assert_eq!(pread(object.as_fd(), &mut bytes, at), Ok(PAGE));
        check(n, page, &bytes);
        bytes.fill(value(n, page));
        assert_eq!(pwrite(object.as_fd(), &bytes, at), Ok(PAGE));
        // Frames of a larger piece are not mapped.
        if n != FRAMES {
            assert_eq!(read_by_kernel(addr + page * PAGE, PAGE), Ok(bytes.into()));
        }
    }
    lab.check_pages(object, pages as u64);
    unmap(addr, pages);
}
