// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Campaign`]: two processes, one that does the work and one that waits for it. What kills the first is told
//! by the second.
//!
//! ```text
//! supervisor ── fork ──> worker, with its threads
//!     ^                     │
//!     ├── notes in memory ──┤ the batches under way, how many operations, what was kept; to stop
//!     └── what it says ─────┘ a pipe in the place of its standard error, which is passed on
//! ```
//!
//! The supervisor alone is told by Ctrl-C, and it tells the worker: so it is told once, whoever sends it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, dup2_stderr, fork, pipe2};

use crate::death;
use crate::jobs::UnderWay;
use crate::oracle::OracleError;
use crate::saved::Saved;

/// Most threads of a worker.
pub const MAX_JOBS: usize = 1024;
/// So much of what the worker said last is remembered, in bytes.
const REMEMBERED: usize = 64 << 10;
/// What ends a program that is not told to do otherwise, and asks this one to stop.
const INTERRUPTS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
/// As a shell tells that a program was ended by SIGINT.
pub const INTERRUPTED: i32 = 130;

/// What both processes see. All zero is the begin.
#[repr(C)]
struct Notes {
    stop: AtomicBool,
    over: AtomicBool,
    ops: AtomicU64,
    /// How often something was kept: the last is in the file with that number, modulo their number.
    kept: AtomicU32,
    under_way: [UnderWay; MAX_JOBS],
}

/// A campaign of two processes: made before there are any.
pub struct Campaign {
    notes: &'static Notes,
    kept: [File; 2],
}

/// Which of the two processes goes on.
pub enum Role {
    /// The one that does the work. Its standard error is passed on by the other one; this is the original.
    Worker(File),
    /// The one that has waited.
    Supervisor(End),
}

/// How the worker ended.
pub enum End {
    /// It came to its end, with that exit status.
    Over(u8),
    /// It was ended by somebody: by who reads what it prints and has seen enough (SIGPIPE), by a machine without memory
    /// or by who knows it (SIGKILL). Nothing that it does sends these.
    Ended(Signal),
    /// It died, and this says how, and of what.
    Died(String),
}

impl Campaign {
    /// One that has not begun.
    ///
    /// # Errors
    /// [`OracleError::Environment`] if there is no memory.
    pub fn new() -> Result<Self, OracleError> {
        let len = NonZeroUsize::new(size_of::<Notes>()).expect("it has fields");
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping where the kernel likes it replaces nothing.
        let notes = unsafe { mmap_anonymous(None, len, prot, MapFlags::MAP_SHARED) };
        let notes = notes.map_err(|errno| OracleError::system("cannot share memory", errno))?;
        // SAFETY: it is as large and aligned to a page, zeros are atomics, and it is never unmapped.
        let notes = unsafe { notes.cast::<Notes>().as_ref() };
        let file = || {
            memfd_create(c"vmalab", MFdFlags::MFD_CLOEXEC)
                .map(File::from)
                .map_err(|errno| OracleError::system("memfd_create", errno))
        };
        Ok(Self {
            notes,
            kept: [file()?, file()?],
        })
    }

    /// Whether the worker is to stop: it was asked to.
    pub fn stop(&self) -> &AtomicBool {
        &self.notes.stop
    }

    /// The batches that are under way, for each thread.
    pub fn under_way(&self) -> &[UnderWay] {
        &self.notes.under_way
    }

    /// How many operations were compared, those of earlier runs included.
    pub fn ops(&self) -> &AtomicU64 {
        &self.notes.ops
    }

    /// Keeps how far it got, as a whole or not at all.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn keep(&self, saved: &Saved) -> io::Result<()> {
        let number = self.notes.kept.load(Ordering::Relaxed) + 1;
        let file = &self.kept[number as usize % self.kept.len()];
        file.set_len(0)?;
        file.write_all_at(&serde_json::to_vec(saved)?, 0)?;
        self.notes.kept.store(number, Ordering::Release);
        Ok(())
    }

    /// How far it got when that was last kept, if it was.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn kept(&self) -> io::Result<Option<Saved>> {
        let number = self.notes.kept.load(Ordering::Acquire);
        if number == 0 {
            return Ok(None);
        }
        let file = &self.kept[number as usize % self.kept.len()];
        let mut text = vec![0; file.metadata()?.len() as usize];
        file.read_exact_at(&mut text, 0)?;
        Ok(Some(serde_json::from_slice(&text)?))
    }

    /// The worker has come to its end: it does not die any more, it exits.
    pub fn over(&self) {
        self.notes.over.store(true, Ordering::Release);
    }

    /// Forks the worker, and waits for it in the process that was there before. To be called while there is one
    /// thread, and once. A second interrupt ends both at once: the worker may hang.
    ///
    /// # Errors
    /// [`OracleError::Environment`] if the kernel does not let us.
    pub fn fork(&self) -> Result<Role, OracleError> {
        let system = |what: &'static str| move |errno: Errno| OracleError::system(what, errno);
        let (words, their_words) = pipe2(OFlag::O_CLOEXEC).map_err(system("pipe"))?;
        STOP.store((&raw const self.notes.stop).cast_mut(), Ordering::Relaxed);
        // What comes meanwhile comes when both know who they are.
        let held = SigSet::from_iter(INTERRUPTS);
        held.thread_block().map_err(system("sigprocmask"))?;
        on_interrupts(SigHandler::Handler(interrupted))?;
        // SAFETY: there is one thread, so that the child can do all that it can.
        match unsafe { fork() }.map_err(system("fork"))? {
            ForkResult::Child => {
                on_interrupts(SigHandler::SigIgn)?;
                let _ = set_pdeathsig(Signal::SIGKILL);
                held.thread_unblock().map_err(system("sigprocmask"))?;
                let original = io::stderr().as_fd().try_clone_to_owned();
                let original = original.map_err(|error| OracleError::system("dup", error))?;
                dup2_stderr(their_words).map_err(system("dup2"))?;
                Ok(Role::Worker(original.into()))
            }
            ForkResult::Parent { child } => {
                WORKER.store(child.as_raw(), Ordering::Relaxed);
                held.thread_unblock().map_err(system("sigprocmask"))?;
                drop(their_words);
                let said = pass_on(words.into());
                // Its number is its own until nobody would end it any more.
                let dead = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
                let status = loop {
                    match waitid(Id::Pid(child), dead) {
                        Err(Errno::EINTR) => {}
                        status => break status.map_err(system("waitid"))?,
                    }
                };
                WORKER.store(0, Ordering::Relaxed);
                waitpid(child, None).map_err(system("waitpid"))?;
                Ok(Role::Supervisor(self.ended(status, &said)))
            }
        }
    }

    fn ended(&self, status: WaitStatus, said: &[u8]) -> End {
        match (status, self.notes.over.load(Ordering::Acquire)) {
            (WaitStatus::Exited(_, code), true) => End::Over(code as u8),
            (WaitStatus::Signaled(_, signal @ (Signal::SIGKILL | Signal::SIGPIPE), _), _) => {
                End::Ended(signal)
            }
            // All was told before; the status is what a shell makes of it.
            (WaitStatus::Signaled(_, signal, _), true) => End::Over(128 + signal as u8),
            _ => End::Died(death::told(status, &String::from_utf8_lossy(said))),
        }
    }
}

/// Passes on what the worker says until it is gone; gives the last of it.
fn pass_on(mut words: File) -> Vec<u8> {
    let mut said = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        match words.read(&mut bytes) {
            Ok(0) => return said,
            Ok(length) => {
                // Who does not want to hear it may still have the rest.
                let _ = io::stderr().write_all(&bytes[..length]);
                said.extend_from_slice(&bytes[..length]);
                let superfluous = said.len().saturating_sub(REMEMBERED);
                said.drain(..superfluous);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return said,
        }
    }
}

/// What [`interrupted`] sets, and whom it ends: 0 for nobody.
static STOP: AtomicPtr<AtomicBool> = AtomicPtr::new(std::ptr::null_mut());
static WORKER: AtomicI32 = AtomicI32::new(0);

/// The handler.
extern "C" fn interrupted(_: i32) {
    // SAFETY: it was set before this became the handler, to notes that are never unmapped.
    let stop = unsafe { &*STOP.load(Ordering::Relaxed) };
    if !stop.swap(true, Ordering::Relaxed) {
        return;
    }
    let worker = WORKER.load(Ordering::Relaxed);
    // SAFETY: both are async-signal-safe. The worker is a child that nobody has waited for yet, so that the number
    // is still its own.
    unsafe {
        if worker != 0 {
            libc::kill(worker, libc::SIGKILL);
        }
        libc::_exit(INTERRUPTED)
    }
}

fn on_interrupts(handler: SigHandler) -> Result<(), OracleError> {
    for signal in INTERRUPTS {
        let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: `interrupted` is async-signal-safe, and to ignore a signal runs nothing.
        let set = unsafe { sigaction(signal, &action) };
        set.map_err(|errno| OracleError::system("sigaction", errno))?;
    }
    Ok(())
}
