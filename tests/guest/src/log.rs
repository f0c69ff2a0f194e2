// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the kernel logs: `/dev/kmsg`, as in Documentation/ABI/testing/dev-kmsg.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
};

/// KERN_WARNING.
const WARNING: u32 = 4;

/// Lines that loading any module from outside the kernel tree gives, once after boot, and one that only
/// says that the host was busy.
const EXPECTED: [&str; 3] = [
    "loading out-of-tree module taints kernel",
    "module verification failed: signature and/or required key missing",
    "hrtimer: interrupt took",
];

/// What is in the first lines of the kernel's reports of bugs: KASAN, SLUB, lockdep, RCU, hung tasks, counts of
/// pages below zero, …
const REPORTS: [&str; 16] = [
    "BUG:",
    "BUG ",
    "WARNING:",
    "KASAN:",
    "UBSAN:",
    "INFO:",
    "Oops",
    "general protection fault",
    "Bad page",
    "pagealloc:",
    "possible recursive",
    "possible circular",
    "possible irq",
    "refcount_t:",
    "ODEBUG:",
    "vmstat_refresh:",
];

/// What the kernel says by itself where an allocation fails: that it has no memory for a module's jump labels
/// (`jump_label_module_notify`).
const OF_FAILING: &str = "WARNING: kernel/jump_label.c";

/// Has the kernel add up its counts of pages, of which it logs those that are below zero. Only root can.
pub(crate) fn check_counts() {
    let _ = fs::read("/proc/sys/vm/stat_refresh");
}

/// Whether the line tells of a bug of the kernel's.
pub(crate) fn is_report(line: &str) -> bool {
    REPORTS.iter().any(|report| line.contains(report)) && !line.contains(OF_FAILING)
}

pub(crate) struct KernelLog(File);

impl KernelLog {
    /// `None` if this user may not read the log.
    pub(crate) fn from_now_on() -> Option<Self> {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .ok()?;
        file.seek(SeekFrom::End(0)).ok()?;
        Some(Self(file))
    }

    /// The lines at warning level or above since the last look.
    pub(crate) fn warnings(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(0) => return lines,
                Ok(length) => lines.extend(warning(&String::from_utf8_lossy(&record[..length]))),
                // Overwritten before we came: a loss is worth a complaint.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {
                    lines.push("records were lost".into());
                }
                Err(_) => return lines,
            }
        }
    }
}

/// The text of a record "priority,sequence,time,flags;text", if it is a warning or worse.
fn warning(record: &str) -> Option<String> {
    let (prefix, text) = record.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    let text = text.lines().next().unwrap_or_default();
    let expected = EXPECTED.iter().any(|line| text.contains(line));
    // The level is in the lowest three bits; the rest is the facility, and 0 the kernel's.
    (priority <= WARNING && !expected).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::is_report;

    #[test]
    fn reports_of_bugs() {
        for line in [
            "BUG: KASAN: slab-use-after-free in fault+0x1/0x2",
            "BUG kmalloc-128 (Not tainted): Redzone overwritten",
            "BUG: Bad page state in process a  pfn:1234",
            "pagealloc: memory corruption",
            "UBSAN: array-index-out-of-bounds in mm/vma.c:1:2",
            "WARNING: mm/vma.c:10 at vma_merge+0x1/0x2, CPU#0: a/1",
            "WARNING: possible irq lock inversion dependency detected",
            "INFO: task a:1 blocked for more than 120 seconds.",
            "ODEBUG: free active (active state 0) object",
            "vmstat_refresh: nr_dirty -1",
        ] {
            assert!(is_report(line), "{line}");
        }
        for line in [
            "Memory cgroup out of memory: Killed process 1 (a)",
            "MCE: Killing a:1 due to hardware memory corruption fault at 7f",
            "Huh VM_FAULT_OOM leaked out to the #PF handler. Retrying PF",
            "FAULT_INJECTION: forcing a failure.",
            "WARNING: kernel/jump_label.c:800 at jump_label_module_notify+0x1/0x2, CPU#0: a/1",
        ] {
            assert!(!is_report(line), "{line}");
        }
    }
}
