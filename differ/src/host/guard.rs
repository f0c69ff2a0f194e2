// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Guard`]: a process that sets `vm.max_map_count` right again when this one is gone, however it went.
//!
//! The template lowers the limit before each child and restores it after. If it is killed in between, with
//! the whole process group say, nobody of that group is left to restore it: the guard is in a session of
//! its own, and waits for the end of all who hold the other end of its pipe.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe2};

use crate::oracle::OracleError;

/// The parent's handle. Dropped after all templates, which inherit `alive`.
pub(super) struct Guard {
    alive: Option<OwnedFd>,
    pid: Pid,
}

impl Guard {
    /// Starts a guard that will write this number to `limit`, open for writing.
    pub(super) fn start(limit: BorrowedFd<'_>, restored: u64) -> Result<Self, OracleError> {
        let text = restored.to_string();
        let pipe = pipe2(OFlag::O_CLOEXEC);
        let (gone, alive) = pipe.map_err(|errno| OracleError::system("pipe", errno))?;
        // SAFETY: what the new process calls is async-signal-safe.
        match unsafe { fork() }.map_err(|errno| OracleError::system("fork", errno))? {
            ForkResult::Child => watch(
                gone.as_raw_fd(),
                alive.as_raw_fd(),
                limit.as_raw_fd(),
                text.as_bytes(),
            ),
            ForkResult::Parent { child } => Ok(Self {
                alive: Some(alive),
                pid: child,
            }),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.alive.take());
        let _ = waitpid(self.pid, None);
    }
}

/// Waits for the end of file and writes: system calls alone, for this is a fork of a program that may have
/// threads.
fn watch(gone: RawFd, alive: RawFd, limit: RawFd, text: &[u8]) -> ! {
    let mut byte = 0u8;
    // SAFETY: the descriptors are inherited, and their owners are never dropped in this process, which
    // does not return; the buffers are as long as is said.
    unsafe {
        libc::close(alive);
        libc::setsid();
        while libc::read(gone, (&raw mut byte).cast(), 1) < 0 && Errno::last() == Errno::EINTR {}
        libc::pwrite(limit, text.as_ptr().cast(), text.len(), 0);
        libc::_exit(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::sys::signal::{Signal, raise};
    use nix::unistd::read;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    fn text(file: &File) -> String {
        let mut text = [0; 16];
        let length = file.read_at(&mut text, 0).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    fn lowered() -> File {
        let file = File::from(memfd_create(c"limit", MFdFlags::empty()).unwrap());
        file.write_at(b"00042", 0).unwrap();
        file
    }

    #[test]
    fn the_limit_is_restored_at_the_end() {
        let file = lowered();
        let guard = Guard::start(file.as_fd(), 65530).unwrap();
        assert_eq!(text(&file), "00042");
        drop(guard);
        assert_eq!(text(&file), "65530");
    }

    #[test]
    fn the_limit_is_restored_where_nobody_is_left() {
        let file = lowered();
        // Open as long as the child or its guard lives.
        let (ended, lives) = pipe2(OFlag::O_CLOEXEC).unwrap();
        // SAFETY: the child starts a guard, for which the allocator of a fork is good enough, and dies.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let guard = Guard::start(file.as_fd(), 65530);
                let started = guard.is_ok();
                std::mem::forget(guard);
                if started {
                    let _ = raise(Signal::SIGKILL);
                }
                // SAFETY: it ends this process and nothing else.
                unsafe { libc::_exit(1) }
            }
            ForkResult::Parent { child } => {
                drop(lives);
                assert_eq!(read(&ended, &mut [0]), Ok(0));
                let status = waitpid(child, None).unwrap();
                let killed = nix::sys::wait::WaitStatus::Signaled(child, Signal::SIGKILL, false);
                assert_eq!(status, killed);
                assert_eq!(text(&file), "65530");
            }
        }
    }
}
