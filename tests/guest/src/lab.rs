// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What a test is given: objects to map, and what can be asked of them, device or memfd.

use std::{cell::RefCell, os::fd::OwnedFd, path::PathBuf};

use nix::{
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::fstat,
    },
    unistd::ftruncate,
};
use vmalab::{Device, HookCounts};

use crate::{mem::PAGE, report::Row};

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
}

/// What a test is given.
#[derive(Clone)]
pub(crate) struct Lab {
    pub(crate) subject: Subject,
    pub(crate) module: Option<PathBuf>,
    pub(crate) driver: Option<PathBuf>,
    rows: RefCell<Vec<Row>>,
}

impl Lab {
    pub(crate) fn new(subject: Subject, module: Option<PathBuf>, driver: Option<PathBuf>) -> Self {
        Self {
            subject,
            module,
            driver,
            rows: RefCell::default(),
        }
    }

    /// A new object of `pages` pages.
    pub(crate) fn open(&self, pages: usize) -> Device {
        let device = match self.subject {
            Subject::Device => Device::open().unwrap(),
            Subject::Memfd => {
                let fd: OwnedFd = memfd_create(c"vmalab", MFdFlags::MFD_CLOEXEC).unwrap();
                fd.into()
            }
        };
        self.resize(&device, pages);
        device
    }

    /// Sets the size of the object.
    pub(crate) fn resize(&self, device: &Device, pages: usize) {
        match self.subject {
            Subject::Device => device.set_size((pages * PAGE) as u64).unwrap(),
            Subject::Memfd => ftruncate(device, (pages * PAGE) as i64).unwrap(),
        }
    }

    /// The pages that the object holds.
    #[track_caller]
    pub(crate) fn check_pages(&self, device: &Device, expected: u64) {
        let pages = match self.subject {
            Subject::Device => device.stats().unwrap().pages,
            Subject::Memfd => fstat(device).unwrap().st_blocks as u64 * 512 / PAGE as u64,
        };
        assert_eq!(pages, expected, "pages that the object holds");
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
