// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The threads beside the workers: what changes an object under those who map it, and what looks at it.

use std::{
    ffi::CString,
    fs,
    os::fd::{AsFd, AsRawFd},
    thread,
    time::Duration,
};

use nix::{errno::Errno, sys::uio::pread};
use vmalab::{AreaFlags, Device, Event, Hook, HookSet, MappedWatch, Seals, Watch, sys};

use super::*;
use crate::{ioctl::REQUESTS, load};

const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

type Step<'a> = Box<dyn FnMut() + Send + 'a>;

/// The steps of all these threads.
pub(super) fn all<'a>(shared: &'a Shared<'_>, seed: usize) -> Vec<Step<'a>> {
    let objects = shared.objects;
    let random = |n| Random::new(seed + n);
    let mut resizing = random(0);
    let mut steering = random(1);
    let mut reclaiming = random(2);
    let mut sealing = random(3);
    let mut tries = 0;
    let mut recording = random(4);
    let mut watches: [Option<Reader>; OBJECTS] = Default::default();
    let mut asking = random(5);
    let victim = Device::open().unwrap();
    let paths = paths(objects);
    // From now on, the log does not say each time that caches were dropped.
    fs::write(DROP_CACHES, "4").unwrap();
    let steps: Vec<Step<'a>> = vec![
        Box::new(move || resize(shared, &mut resizing)),
        Box::new(move || steer(shared, &mut steering)),
        Box::new(move || reclaim(&mut reclaiming)),
        Box::new(move || seal(shared, &mut sealing, &mut tries)),
        Box::new(move || read_records(&mut watches, objects, &mut recording)),
        Box::new(move || ask(&victim, &mut asking)),
        Box::new(move || read_about(&paths, objects)),
        Box::new(|| {
            drop(Device::open().unwrap());
            assert_eq!(load::remove(), Err(Errno::EWOULDBLOCK));
        }),
    ];
    steps.into_iter().map(now_and_then).collect()
}

/// Most of the time is for the workers.
fn now_and_then(mut step: Step<'_>) -> Step<'_> {
    Box::new(move || {
        step();
        thread::sleep(Duration::from_millis(2));
    })
}

fn resize(shared: &Shared<'_>, random: &mut Random) {
    let (n, object) = shared.any(random);
    let pages = match random.below(3) {
        0 => PAGES[n],
        _ => random.below(PAGES[n] + 1),
    };
    match object.set_size((pages * PAGE) as u64) {
        Ok(()) => {}
        // Somebody holds a part of the piece in which it would end.
        Err(error) => assert_eq!(error.errno(), libc::EBUSY, "{error}"),
    }
}

/// Has hooks answer otherwise, new areas get other flags, and new memory come in other pieces.
fn steer(shared: &Shared<'_>, random: &mut Random) {
    let (n, object) = shared.any(random);
    match random.below(8) {
        0 => object.clear_rules().unwrap(),
        1 => {
            let sizes = [PAGE, 16 * PAGE, 512 * PAGE];
            object.set_folio_size(random.one_of(&sizes) as u64).unwrap();
        }
        2 if n != FRAMES => {
            let flags = [
                AreaFlags::empty(),
                AreaFlags::MIXEDMAP,
                AreaFlags::IO,
                AreaFlags::DONTEXPAND,
                AreaFlags::DONTCOPY | AreaFlags::DONTDUMP,
                AreaFlags::NEVER_EXEC,
            ];
            object.set_area_flags(random.one_of(&flags)).unwrap();
        }
        _ => {
            use Hook::*;
            let may_fail = [Mmap, Mapped, MaySplit, Mremap, Mprotect];
            let of_faults = [Fault, HugeFault, PageMkwrite, PfnMkwrite];
            let (kind, nth) = (random.below(6), 1 + random.below(3) as u64);
            let rule = match kind {
                0 | 1 => object.steer(random.one_of(&may_fail)).errno(REFUSED as i32),
                2 => object.steer(random.one_of(&of_faults)).sigbus(),
                3 => object.steer(random.one_of(&of_faults)).nopage(),
                4 => object.steer(Fault).retry(),
                _ => object
                    .steer(random.one_of(&[Open, Close, Fault, MaySplit, Mremap, Mprotect]))
                    .delay(Duration::from_micros(1 + random.below(200) as u64)),
            };
            match rule.nth(nth).once() {
                Ok(_) => {}
                Err(error) => assert_eq!(error.errno(), libc::ENOSPC, "{error}"),
            }
        }
    }
}

/// Has the kernel take back what it can, and move pages together.
fn reclaim(random: &mut Random) {
    match random.below(4) {
        0 => fs::write(DROP_CACHES, "1").unwrap(),
        1 => fs::write(DROP_CACHES, "2").unwrap(),
        // EAGAIN, EINTR: nothing that concerns anybody here.
        2 => drop(fs::write("/proc/sys/vm/compact_memory", "1")),
        _ => {}
    }
}

/// An object that nobody knows yet.
pub(super) fn to_be_sealed(random: &mut Random) -> Device {
    let paths = [sys::VMALAB_PATH, sys::VMALAB_PREPARE_PATH];
    let device = Device::open_at(random.one_of(&paths).to_str().unwrap()).unwrap();
    device
        .set_folio_size(random.one_of(&[PAGE, 16 * PAGE]) as u64)
        .unwrap();
    device.set_size((SEALED_PAGES * PAGE) as u64).unwrap();
    device
}

/// Tries to seal the object against writing, and then looks whether it changes.
fn seal(shared: &Shared<'_>, random: &mut Random, tries: &mut u32) {
    let device = shared.sealed.read().unwrap();
    let extent = Seals::SHRINK | Seals::GROW;
    let seals = random.one_of(&[Seals::WRITE, Seals::WRITE | extent]);
    *tries += 1;
    match device.add_seals(seals) {
        Ok(()) => {
            let contents = || {
                let mut bytes = [0; SEALED_PAGES * PAGE];
                assert_eq!(pread(&*device, &mut bytes, 0), Ok(bytes.len()));
                bytes
            };
            let before = contents();
            for (page, bytes) in before.chunks(PAGE).enumerate() {
                check(SEALED, page, bytes);
            }
            thread::yield_now();
            assert!(before == contents(), "it is sealed, and has changed");
            shared.seals.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => {
            assert_eq!(error.errno(), libc::EBUSY, "{error}");
            if *tries < 64 {
                return;
            }
        }
    }
    drop(device);
    *tries = 0;
    *shared.sealed.write().unwrap() = to_be_sealed(random);
}

/// Who reads what is recorded: by system calls, or from the ring.
struct Reader {
    watch: Watch,
    mapped: Option<MappedWatch>,
    /// The sequence and the time before which no record may come any more.
    next: (u64, Duration),
}

impl Reader {
    fn new(object: &Device, random: &mut Random) -> Option<Self> {
        // There may be too many of others.
        let watch = object.watch().records(64).open().ok()?;
        let mapped = match random.below(2) {
            0 => None,
            _ => Some(watch.map().unwrap()),
        };
        Some(Self {
            watch,
            mapped,
            next: Default::default(),
        })
    }

    /// Reads for some time.
    fn read(&mut self) {
        self.watch.wait(Some(Duration::from_millis(1))).unwrap();
        for _ in 0..128 {
            match &mut self.mapped {
                Some(ring) => match ring.next() {
                    Some(event) => self.take(event),
                    None => return,
                },
                None => {
                    for event in self.watch.take().unwrap() {
                        self.take(event);
                    }
                    return;
                }
            }
        }
    }

    fn take(&mut self, event: Event) {
        assert!(
            event.sequence >= self.next.0 && event.time >= self.next.1,
            "after {:?}: {event}",
            self.next
        );
        self.next = (event.sequence + 1, event.time);
    }
}

/// Reads what was recorded, now and then through a new watch, or of other hooks.
fn read_records(watches: &mut [Option<Reader>], objects: &[Device], random: &mut Random) {
    let n = random.below(objects.len());
    match &mut watches[n] {
        None => watches[n] = Reader::new(&objects[n], random),
        Some(reader) => {
            reader.read();
            reader.watch.state().unwrap();
            match random.below(32) {
                0 => watches[n] = None,
                1 => reader.watch.set_hooks(HookSet::Fault).unwrap(),
                2 => reader.watch.set_hooks(HookSet::all()).unwrap(),
                _ => {}
            }
        }
    }
}

/// A request of the device with an argument of a few small numbers; on an object of which nobody
/// expects anything.
fn ask(device: &Device, random: &mut Random) {
    let mut argument = [0_u64; 2048];
    for word in argument.iter_mut().take(random.below(8)) {
        *word = random.one_of(&[0, 1, 3, PAGE, 64 * PAGE, 0xff]) as u64;
    }
    let (_, request) = random.one_of(REQUESTS);
    // SAFETY: the structure of a request is smaller than the argument, and has no address in it that is
    // mapped: nothing is at the small ones.
    unsafe { libc::ioctl(device.as_raw_fd(), request.into(), argument.as_mut_ptr()) };
}

/// The files that tell of objects and areas.
fn paths(objects: &[Device]) -> Vec<CString> {
    let files = fs::read_dir("/sys/kernel/debug/vmalab")
        .into_iter()
        .flatten();
    let files = files.map(|entry| entry.unwrap().path().display().to_string());
    let fds = objects
        .iter()
        .map(|object| format!("/proc/self/fdinfo/{}", object.as_raw_fd()));
    let others = [
        "/proc/self/maps",
        "/proc/self/smaps",
        "/proc/self/numa_maps",
    ]
    .map(String::from);
    files
        .chain(fds)
        .chain(others)
        .map(|path| CString::new(path).unwrap())
        .collect()
}

/// Reads all that is told about the objects, and what areas there are.
fn read_about(paths: &[CString], objects: &[Device]) {
    let mut bytes = [0_u8; 4096];
    for path in paths {
        // SAFETY: the path is a string, the descriptor nobody else's, and the buffer as long as said.
        unsafe {
            let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            while libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) > 0 {}
            libc::close(fd);
        }
    }
    for (n, object) in objects.iter().enumerate() {
        let mut poll = libc::pollfd {
            fd: object.as_fd().as_raw_fd(),
            events: libc::POLLIN | libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: there is one.
        unsafe { libc::poll(&mut poll, 1, 0) };
        let stats = object.stats().unwrap();
        // Who fails to add a piece has counted its pages for a moment.
        let most = PAGES[n] + 2 * (WORKERS + 1) * 512;
        assert!(
            stats.objects == 1 && stats.pages <= most as u64,
            "{stats:?}"
        );
        object.module_stats().unwrap();

        let (begin, end) = (place(n), place(n + 1));
        object.areas_in(begin..end).unwrap();
        object.would_unmap(begin + PAGE, 32 * PAGE).unwrap();
    }
}
