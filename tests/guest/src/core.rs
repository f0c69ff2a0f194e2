// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What of a process is in its core: `vma_dump_size` of fs/coredump.c.

use std::fs;

use nix::sys::{signal::Signal, wait::WaitStatus};

use crate::{
    mem::PAGE,
    run::{Skip, child_status},
};

/// What begins a page by which it is found in a core.
pub(crate) fn mark(which: u8) -> [u8; 16] {
    // Made of two halves, so that it is nowhere else.
    let mut text = *b"vmalab-mark-?-\0\0";
    text[12] = which;
    text
}

/// The core of a child that ends itself after `body`, with these bits of `/proc/PID/coredump_filter`, or those
/// that it has by itself. What the kernel cannot read is zeros there.
pub(crate) struct Core(Vec<u8>);

impl Core {
    pub(crate) fn of(filter: Option<&str>, body: impl FnOnce()) -> Result<Self, Skip> {
        const PATTERN: &str = "/proc/sys/kernel/core_pattern";
        let pattern = fs::read_to_string(PATTERN).unwrap();
        let core = std::env::temp_dir().join("vmalab-core");
        fs::write(PATTERN, core.to_str().unwrap()).unwrap();
        let status = child_status(|| {
            if let Some(filter) = filter {
                fs::write("/proc/self/coredump_filter", filter).unwrap();
            }
            let all = libc::rlimit {
                rlim_cur: libc::RLIM_INFINITY,
                rlim_max: libc::RLIM_INFINITY,
            };
            // SAFETY: it is the child's own limit.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &all) }, 0);
            body();
            std::process::abort();
        });
        fs::write(PATTERN, pattern).unwrap();
        let WaitStatus::Signaled(_, Signal::SIGABRT, dumped) = status else {
            panic!("{status:?}");
        };
        if !dumped {
            return Err(Skip::new("this kernel dumps no core"));
        }
        let bytes = fs::read(&core).unwrap();
        fs::remove_file(&core).unwrap();
        Ok(Self(bytes))
    }

    /// Whether a page with this mark is in it.
    pub(crate) fn has(&self, which: u8) -> bool {
        // At the begin of a page: not the text of this program.
        let is_it = |page: &[u8]| {
            page.starts_with(b"vmalab-mark-") && page.get(12..15) == Some(&[which, b'-', 0])
        };
        self.0.chunks(PAGE).any(is_it)
    }
}
