// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`told`]: how a process ended that did not come to its end, and what it said of it.

use nix::sys::wait::WaitStatus;

/// In a line, which has no address and no process in it: who dies of the same says the same.
pub(crate) fn told(status: WaitStatus, said: &str) -> String {
    let how = match status {
        WaitStatus::Signaled(_, signal, _) => format!("the process died of {signal}"),
        WaitStatus::Exited(_, code) => format!("the process ended itself, with the status {code}"),
        other => format!("the process is gone: {other:?}"),
    };
    match essence(said) {
        Some(words) => format!("{how}: {words}"),
        None => how,
    }
}

/// The line that says most: what UndefinedBehaviorSanitizer found, the summary of another sanitizer; else
/// the last one, for the C library aborts after one.
fn essence(said: &str) -> Option<&str> {
    let lines = || said.lines().map(str::trim);
    let found = lines().find(|line| line.contains(": runtime error: "));
    let summary = || lines().find_map(|line| line.strip_prefix("SUMMARY: "));
    let last = || lines().rfind(|line| !line.is_empty() && !line.starts_with("=="));
    found.or_else(summary).or_else(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;
    use nix::unistd::Pid;

    #[test]
    fn the_line_that_says_most_is_told() {
        let asan = "\
=================================================================
==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x50e0 at pc 0x7f1d
WRITE of size 4 at 0x50e0 thread T0
SUMMARY: AddressSanitizer: heap-use-after-free vma.c:458 in remove_vma
==7==ABORTING
";
        let ubsan = "\
vma.c:12:3: runtime error: shift exponent 64 is too large
SUMMARY: UndefinedBehaviorSanitizer: undefined-behavior vma.c:12:3
";
        let pid = Pid::from_raw(7);
        for (status, said, line) in [
            (
                WaitStatus::Exited(pid, 1),
                asan,
                "the process ended itself, with the status 1: \
                 AddressSanitizer: heap-use-after-free vma.c:458 in remove_vma",
            ),
            (
                WaitStatus::Exited(pid, 1),
                ubsan,
                "the process ended itself, with the status 1: \
                 vma.c:12:3: runtime error: shift exponent 64 is too large",
            ),
            (
                WaitStatus::Signaled(pid, Signal::SIGABRT, false),
                "something else\nmalloc(): corrupted top size\n",
                "the process died of SIGABRT: malloc(): corrupted top size",
            ),
            (
                WaitStatus::Signaled(pid, Signal::SIGSEGV, true),
                "\n",
                "the process died of SIGSEGV",
            ),
        ] {
            assert_eq!(told(status, said), line);
        }
    }
}
