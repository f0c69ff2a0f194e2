// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What a test is given: objects to map, and what can be asked of them, device or memfd.

use std::{
    cell::RefCell,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::fstat,
    },
    unistd::ftruncate,
};
use vmalab::{Device, HookCounts, Seals};

use crate::{
    mem::PAGE,
    report::Row,
    run::{Skip, Verdict},
};

/// What the error number of the library is for the tests.
fn errno(error: vmalab::Error) -> Errno {
    Errno::from_raw(error.errno())
}

/// What is tested.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Subject {
    /// `/dev/vmalab`
    Device,
    /// A memfd, to check the expectations.
    Memfd,
}

impl Subject {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Memfd => "memfd",
        }
    }

    /// fallocate(2), in bytes: for threads, which cannot share a [`Lab`].
    pub(crate) fn fallocate(
        self,
        device: &Device,
        mode: u32,
        from: usize,
        length: usize,
    ) -> Result<(), Errno> {
        match self {
            Self::Device => device
                .fallocate(mode, from as u64..(from + length) as u64)
                .map_err(errno),
            Self::Memfd => {
                let (fd, mode) = (device.as_raw_fd(), mode as i32);
                // SAFETY: it takes numbers only.
                let done = unsafe { libc::fallocate(fd, mode, from as i64, length as i64) };
                Errno::result(done).map(drop)
            }
        }
    }
}

/// What a test is given.
#[derive(Clone)]
pub(crate) struct Lab {
    pub(crate) subject: Subject,
    pub(crate) module: Option<PathBuf>,
    pub(crate) driver: Option<PathBuf>,
    /// The kernel checks itself, which takes it many times as long.
    pub(crate) debug_kernel: bool,
    /// How many random ioctls.
    pub(crate) calls: u32,
    /// How long to let threads loose on shared objects.
    pub(crate) time: Duration,
    /// In pieces of how many bytes objects allocate memory.
    folio_size: u64,
    rows: RefCell<Vec<Row>>,
}

impl Lab {
    pub(crate) fn new(
        subject: Subject,
        module: Option<PathBuf>,
        driver: Option<PathBuf>,
        debug_kernel: bool,
        calls: u32,
        time: Duration,
        folio_size: u64,
    ) -> Self {
        Self {
            subject,
            module,
            driver,
            debug_kernel,
            calls,
            time,
            folio_size,
            rows: RefCell::default(),
        }
    }

    /// A new object of `pages` pages.
    pub(crate) fn open(&self, pages: usize) -> Device {
        let device = match self.subject {
            Subject::Device => {
                let device = Device::open().unwrap();
                device.set_folio_size(self.folio_size).unwrap();
                device
            }
            Subject::Memfd => {
                let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
                let fd: OwnedFd = memfd_create(c"vmalab", flags).unwrap();
                fd.into()
            }
        };
        self.resize(&device, pages);
        device
    }

    /// How many of something that takes long: as usual, or for a kernel that takes many times as long.
    pub(crate) fn many<T>(&self, usual: T, on_debug_kernel: T) -> T {
        if self.debug_kernel {
            on_debug_kernel
        } else {
            usual
        }
    }

    /// Something that looks for bugs is not there: a reason to skip, but not on the kernel that is made for it.
    #[track_caller]
    pub(crate) fn not_there(&self, reason: impl Into<String>) -> Skip {
        let reason = reason.into();
        assert!(!self.debug_kernel, "on the debug kernel: {reason}");
        Skip(reason)
    }

    /// Sets the size of the object.
    #[track_caller]
    pub(crate) fn resize(&self, device: &Device, pages: usize) {
        self.try_resize(device, pages).unwrap();
    }

    /// Sets the size of the object, or does not.
    pub(crate) fn try_resize(&self, device: &Device, pages: usize) -> Result<(), Errno> {
        match self.subject {
            Subject::Device => device.set_size((pages * PAGE) as u64).map_err(errno),
            Subject::Memfd => ftruncate(device, (pages * PAGE) as i64),
        }
    }

    /// fallocate(2), in bytes.
    pub(crate) fn fallocate(
        &self,
        device: &Device,
        mode: u32,
        from: usize,
        length: usize,
    ) -> Result<(), Errno> {
        self.subject.fallocate(device, mode, from, length)
    }

    /// Adds seals.
    pub(crate) fn seal(&self, device: &Device, seals: Seals) -> Result<(), Errno> {
        match self.subject {
            Subject::Device => device.add_seals(seals).map_err(errno),
            Subject::Memfd => {
                // SAFETY: it takes numbers only.
                let done =
                    unsafe { libc::fcntl(device.as_raw_fd(), libc::F_ADD_SEALS, seals.bits()) };
                Errno::result(done).map(drop)
            }
        }
    }

    /// The seals.
    pub(crate) fn seals(&self, device: &Device) -> Seals {
        match self.subject {
            Subject::Device => device.seals().unwrap(),
            Subject::Memfd => {
                // SAFETY: it takes numbers only.
                let seals = unsafe { libc::fcntl(device.as_raw_fd(), libc::F_GET_SEALS) };
                Seals::from_bits_retain(Errno::result(seals).unwrap() as u32)
            }
        }
    }

    /// Whether a touch allocates one page only, as tests expect that look closely.
    pub(crate) fn single_pages(&self) -> Verdict {
        if self.folio_size == PAGE as u64 {
            return Ok(());
        }
        Err(Skip(format!(
            "it is about single pages, and these come in pieces of {} bytes",
            self.folio_size
        )))
    }

    /// The pages that the object holds; in larger pieces, there may be more of them, but not past the
    /// end.
    #[track_caller]
    pub(crate) fn check_pages(&self, device: &Device, expected: u64) {
        let pages = match self.subject {
            Subject::Device => device.stats().unwrap().pages,
            Subject::Memfd => fstat(device).unwrap().st_blocks as u64 * 512 / PAGE as u64,
        };
        if self.folio_size == PAGE as u64 {
            assert_eq!(pages, expected, "pages that the object holds");
        } else {
            let most = device.size().unwrap() / PAGE as u64;
            assert!(
                (expected..=most).contains(&pages),
                "{pages} pages that the object holds, not {expected} to {most}"
            );
        }
    }

    /// The areas that map the object, in all processes. Nobody counts those of a memfd.
    #[track_caller]
    pub(crate) fn check_areas(&self, device: &Device, expected: u64) {
        if self.subject == Subject::Device {
            assert_eq!(
                device.stats().unwrap().areas,
                expected,
                "areas of the object"
            );
        }
    }

    /// The hook calls of the object; none for a memfd.
    pub(crate) fn hooks(&self, device: &Device) -> Option<HookCounts> {
        (self.subject == Subject::Device).then(|| device.stats().unwrap().hooks)
    }

    /// Puts a figure into the report.
    pub(crate) fn row(&self, name: &str, value: f64, unit: &str) {
        let subject = self.subject.name().to_owned();
        self.rows.borrow_mut().push(Row {
            name: name.into(),
            subject,
            value,
            unit: unit.into(),
        });
    }

    pub(crate) fn take_rows(&self) -> Vec<Row> {
        self.rows.take()
    }
}
