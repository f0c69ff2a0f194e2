// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Template`]: the parent's handle on a process that forks a child for each batch.
//!
//! The template is forked once and does nothing but wait, so every child begins with the same address
//! space, whatever the parent allocates meanwhile.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, read};

use super::child;
use super::device::Watched;
use super::wire::{Call, MAX_AREAS, MAX_OPS, Shared, Trouble};
use crate::oracle::OracleError;

pub(super) struct Template {
    shared: NonNull<Shared>,
    pid: Pid,
    /// Orders go out here, and answers come.
    control: UnixStream,
}

// SAFETY: the mapping is for whoever has the handle, and nothing about it belongs to a thread: neither the process
// nor the socket does.
unsafe impl Send for Template {}

impl Template {
    /// Forks a template, which has the devices in its own memory from then on.
    pub(super) fn start(devices: &mut [Watched]) -> Result<Self, OracleError> {
        let len = NonZeroUsize::new(size_of::<Shared>()).expect("it has fields");
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // Most of it is never used.
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel likes it replaces nothing.
        let shared = unsafe { mmap_anonymous(None, len, prot, flags) }
            .map_err(|errno| OracleError::system("cannot map memory to share", errno))?
            .cast::<Shared>();
        let pair = UnixStream::pair();
        let (ours, theirs) = pair.map_err(|error| OracleError::system("socketpair", error))?;
        // SAFETY: what the new process calls is async-signal-safe; child.rs says how.
        match unsafe { fork() }.map_err(|errno| OracleError::system("fork", errno))? {
            ForkResult::Child => {
                // The template must see the end of its orders when the parent is gone.
                // SAFETY: the descriptor is ours to close, and its owner is never dropped: the
                // template does not return.
                unsafe { libc::close(ours.as_raw_fd()) };
                // SAFETY: the mapping is shared and inherited; a fork has one thread.
                unsafe { child::template(shared.as_ptr(), devices, theirs.as_raw_fd()) }
            }
            ForkResult::Parent { child } => Ok(Self {
                shared,
                pid: child,
                control: ours,
            }),
        }
    }

    /// The shared memory. Between two orders it is ours alone.
    pub(super) fn shared(&mut self) -> &mut Shared {
        // SAFETY: the mapping lives as long as `self` and is of that type, for which all bytes are
        // valid. The other side only touches it between order and answer, while `self.order` holds
        // `&mut self`.
        unsafe { self.shared.as_mut() }
    }

    /// Puts calls into the shared memory.
    ///
    /// # Panics
    /// If there are more than [`MAX_OPS`].
    pub(super) fn set_calls(&mut self, calls: impl ExactSizeIterator<Item = Call>) {
        assert!(
            calls.len() <= MAX_OPS,
            "more operations than a batch can hold"
        );
        let shared = self.shared();
        shared.n_calls = calls.len() as u32;
        for (slot, call) in shared.calls.iter_mut().zip(calls) {
            *slot = call;
        }
    }

    /// Gives an order and waits for it to be done. Kills a child that takes longer than `limit`.
    ///
    /// # Errors
    /// [`OracleError::Broke`] if the child died or was killed; the records up to there are valid.
    pub(super) fn order(&mut self, order: u8, limit: Duration) -> Result<(), OracleError> {
        self.shared().child_pid = 0;
        self.shared().status = 0;
        // That it is gone is an error here, and no signal, whatever the program does about those.
        let (control, no_signal) = (self.control.as_raw_fd(), libc::MSG_NOSIGNAL);
        // SAFETY: the descriptor is open, and the byte is there.
        let sent = unsafe { libc::send(control, (&raw const order).cast(), 1, no_signal) };
        Errno::result(sent).map_err(|errno| self.gone(errno))?;
        let mut hung = false;
        if !self.wait(limit)? {
            hung = true;
            // SAFETY: a single aligned integer, read while the template may have the memory; it was
            // written before the child could hang, or is still 0.
            let pid = unsafe { (&raw const (*self.shared.as_ptr()).child_pid).read_volatile() };
            if pid > 0 {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            if pid <= 0 || !self.wait(Duration::from_secs(10))? {
                let _ = kill(self.pid, Signal::SIGKILL);
                return Err(OracleError::Environment(format!(
                    "the process that forks the children has not answered for {limit:?}"
                )));
            }
        }
        let mut answer = [0];
        let got = read(&self.control, &mut answer).map_err(|errno| self.gone(errno))?;
        if got != 1 {
            return Err(self.gone("end of file"));
        }
        self.verdict(hung, limit)
    }

    /// Whether an answer came in time.
    fn wait(&self, limit: Duration) -> Result<bool, OracleError> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.control.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) if end <= Instant::now() => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(OracleError::system("poll", errno)),
            }
        }
    }

    /// What became of the child.
    fn verdict(&mut self, hung: bool, limit: Duration) -> Result<(), OracleError> {
        let shared = self.shared();
        let index = (shared.begun as usize).saturating_sub(1);
        let pid = Pid::from_raw(shared.child_pid);
        let errno = Errno::from_raw(shared.trouble_errno);
        let broke = |what: String| Err(OracleError::Broke { index, what });
        if shared.child_pid < 0 {
            let errno = Errno::from_raw(-shared.child_pid);
            return Err(OracleError::system("fork", errno));
        }
        if hung {
            return broke(format!(
                "it took longer than {limit:?}; the process was killed"
            ));
        }
        match WaitStatus::from_raw(pid, shared.status) {
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return broke(format!("the process died of {signal}"));
            }
            Ok(WaitStatus::Exited(_, 0)) => {}
            status => return broke(format!("the process ended with {status:?}")),
        }
        let trouble = shared.trouble;
        let read = |what: &str| broke(format!("{what} could not be read: {errno}"));
        let environment = |what: &str| Err(OracleError::system(what, errno));
        if trouble == Trouble::None as u32 {
            Ok(())
        } else if trouble == Trouble::OpenMaps as u32 {
            environment("cannot open /proc/self/maps (is /proc mounted?)")
        } else if trouble == Trouble::OpenStatus as u32 {
            environment("cannot open /proc/self/status (is /proc mounted?)")
        } else if trouble == Trouble::ReadSmaps as u32 {
            environment("cannot read /proc/self/smaps")
        } else if trouble == Trouble::SetLimit as u32 {
            environment("cannot write vm.max_map_count")
        } else if trouble == Trouble::ReadMaps as u32 {
            read("/proc/self/maps")
        } else if trouble == Trouble::ReadStatus as u32 {
            read("/proc/self/status")
        } else if trouble == Trouble::Device as u32 {
            read("what the device has seen")
        } else if trouble == Trouble::TooManyHooks as u32 {
            broke("there are more hook calls than this program has room for".into())
        } else if trouble == Trouble::ReadContents as u32 {
            read("memory")
        } else {
            Err(OracleError::Environment(format!(
                "after all operations together there are more than {MAX_AREAS} areas to look at, for which there is \
                 no room: play fewer at a time"
            )))
        }
    }

    fn gone(&self, why: impl std::fmt::Display) -> OracleError {
        OracleError::system("the process that forks the children is gone", why)
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
        // SAFETY: nobody has a reference into the mapping: `shared` borrows `self`.
        let _ = unsafe { munmap(self.shared.cast(), size_of::<Shared>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{SigHandler, signal};

    #[test]
    fn one_that_is_gone_is_an_error_and_no_signal() {
        // SAFETY: no handler is called; a test that writes to a broken pipe fails either way.
        unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.unwrap();
        let mut template = Template::start(&mut []).unwrap();
        kill(template.pid, Signal::SIGKILL).unwrap();
        for _ in 0..2 {
            let done = template.order(child::RUN, Duration::from_secs(60));
            let Err(OracleError::Environment(what)) = done else {
                panic!("{done:?}");
            };
            assert!(what.contains("is gone"), "{what}");
        }
    }
}
