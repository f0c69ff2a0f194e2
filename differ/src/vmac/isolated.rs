// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Isolated`]: [`VmaC`], of which each batch runs in a process of its own.
//!
//! ```text
//! parent ── fork ──> child: operation, answer, operation, answer, …
//!    ^                         │
//!    └─── answers, words ──────┘ two files in memory
//! ```
//!
//! So whatever the kernel's code does to the process is a finding at the operation that was under way, also
//! what nothing leads out of: the C library that aborts, a sanitizer that ends the program. The child writes
//! down the library's answers as they are, and the parent, which never runs any of that code, understands
//! them. It takes about a millisecond for each batch.

use std::ffi::CString;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, BufReader, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, dup2_stderr, fork};
use vmalab_model::Op;

use super::{VmaC, at_the_end, broke, ffi, leaked, operation};
use crate::death;
use crate::oracle::{Observation, Oracle, OracleError, Sees, World};

/// The kernel's `mm/vma.c`, where it can do no harm. For a process with one thread: the child of one with more
/// may wait for ever for a lock that another thread had.
pub struct Isolated(VmaC);

impl Isolated {
    /// That library, in which nothing must have been run yet if its heap is to be trusted.
    pub fn new(vmac: VmaC) -> Self {
        Self(vmac)
    }

    /// What the child does. Returns early only if it cannot write, which leaves an answer too few.
    fn answer(&mut self, world: usize, ops: &[Op], mut answers: &File) -> io::Result<()> {
        if let Err(why) = self.0.begin(world) {
            answers.write_all(&[CANNOT_BEGIN])?;
            return answers.write_all(why.to_string().as_bytes());
        }
        answers.write_all(&[BEGUN])?;
        for op in ops {
            // What cannot be asked is left to the parent to say.
            let Ok(op) = operation(op) else {
                return Ok(());
            };
            let (_, raw) = self.0.ask(&op);
            prove_heap();
            answers.write_all(&to_bytes(&raw))?;
            if !raw.broke.is_null() {
                return Ok(());
            }
        }
        let raw = self.0.exit();
        prove_heap();
        answers.write_all(&to_bytes(&raw))
    }

    /// What the child answered: `None` if it did not come to its end.
    ///
    /// # Errors
    /// Those of [`Oracle::run`].
    fn understand(
        &mut self,
        world: usize,
        ops: &[Op],
        seen: &mut Vec<Observation>,
        answers: File,
    ) -> Result<Option<()>, OracleError> {
        let mut answers = Answers(BufReader::new(answers));
        match answers.array::<u8>(1).as_deref() {
            Some([BEGUN]) => {}
            Some(_) => {
                let mut why = String::new();
                let read = answers.0.read_to_string(&mut why);
                read.map_err(|error| OracleError::system("cannot read an answer", error))?;
                return Err(OracleError::Environment(why));
            }
            None => return Ok(None),
        }
        for (index, op) in ops.iter().enumerate() {
            let broke = |what| OracleError::Broke { index, what };
            let op = operation(op).map_err(broke)?;
            let Some(answer) = answers.next() else {
                return Ok(None);
            };
            let mut observation = Observation::default();
            let taken = self.0.take(op.kind, &answer.raw, &mut observation);
            taken.map_err(broke)?;
            let world = &self.0.worlds[world];
            let layout = &mut observation.outcome.layout;
            layout.retain(|area| world.observes(area));
            seen.push(observation);
        }
        let Some(last) = answers.next() else {
            return Ok(None);
        };
        let index = ops.len().saturating_sub(1);
        leaked(&last.raw).map_err(|what| OracleError::Broke { index, what })?;
        Ok(Some(()))
    }
}

/// The first byte of the answers.
const BEGUN: u8 = 1;
/// The same, if the reason follows.
const CANNOT_BEGIN: u8 = 0;

impl Oracle for Isolated {
    fn name(&self) -> String {
        self.0.name()
    }

    fn sees(&self) -> Sees {
        self.0.sees()
    }

    fn worlds(&self) -> &[World] {
        self.0.worlds()
    }

    fn excused(&mut self) -> Vec<(&'static str, u64)> {
        self.0.excused()
    }

    fn look_closely(&mut self, closely: bool) {
        self.0.look_closely(closely);
    }

    fn run(
        &mut self,
        world: usize,
        ops: &[Op],
        seen: &mut Vec<Observation>,
    ) -> Result<(), OracleError> {
        seen.clear();
        let mut answers = in_memory()?;
        let mut words = in_memory()?;
        // SAFETY: this process has one thread, as `Isolated` asks for, so that the child can do all that it
        // can, and the child does not return.
        let child = match unsafe { fork() } {
            Ok(ForkResult::Child) => child(&words, || self.answer(world, ops, &answers)),
            Ok(ForkResult::Parent { child }) => child,
            Err(errno) => return Err(OracleError::system("fork", errno)),
        };
        let status = loop {
            match waitpid(child, None) {
                Err(Errno::EINTR) => {}
                status => break status,
            }
        };
        let status = status.map_err(|errno| OracleError::system("waitpid", errno))?;
        let unreadable = |error| OracleError::system("cannot read an answer", error);
        answers.rewind().map_err(unreadable)?;
        if self.understand(world, ops, seen, answers)?.is_some() {
            return Ok(());
        }
        let mut said = Vec::new();
        words.rewind().map_err(unreadable)?;
        words.read_to_end(&mut said).map_err(unreadable)?;
        let mut what = death::told(status, &String::from_utf8_lossy(&said));
        let mut index = seen.len();
        if index == ops.len() {
            what = at_the_end(&what);
            index = index.saturating_sub(1);
        }
        Err(OracleError::Broke { index, what })
    }
}

/// The life of the child: it says to `words` what it has to say, and ends.
fn child(words: &File, answer: impl FnOnce() -> io::Result<()>) -> ! {
    // Not longer than anybody asks for; an interrupt is the parent's to hear. Who cannot have that goes on.
    let _ = set_pdeathsig(Signal::SIGKILL);
    for number in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: to ignore a signal runs nothing.
        let _ = unsafe { signal(number, SigHandler::SigIgn) };
    }
    // There may be thousands of these deaths.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = dup2_stderr(words);
    let done = catch_unwind(AssertUnwindSafe(answer));
    let code = match done {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            eprintln!("cannot answer: {error}");
            2
        }
        // The panic has been told.
        Err(_) => 2,
    };
    // SAFETY: nothing of this process is needed any more, and what the parent registered for its own end is not
    // for this one.
    unsafe { libc::_exit(code) }
}

fn in_memory() -> Result<File, OracleError> {
    let file = memfd_create(c"vmalab", MFdFlags::MFD_CLOEXEC);
    let file = file.map_err(|errno| OracleError::system("memfd_create", errno))?;
    Ok(file.into())
}

/// Has the C library look at its heap, so that a chunk that was written over is noticed right after it was. More
/// than any list of small chunks has, less than what it maps by itself.
fn prove_heap() {
    const SIZE: usize = 64 << 10;
    // SAFETY: what was allocated is freed, and trimming gives back what nobody uses.
    unsafe {
        libc::free(black_box(libc::malloc(SIZE)));
        libc::malloc_trim(0);
    }
}

/// What the library answered: itself, the arrays that it points to, and what broke.
fn to_bytes(raw: &ffi::Seen) -> Vec<u8> {
    let what = broke(raw).err().unwrap_or_default();
    let mut bytes = Vec::new();
    push(&mut bytes, std::slice::from_ref(raw));
    if raw.broke.is_null() {
        // SAFETY: the library wrote so many of each, and does not touch them until the next call.
        unsafe {
            push(&mut bytes, array(raw.areas, raw.n_areas.into()));
            push(&mut bytes, array(raw.hooks, raw.n_hooks.into()));
            push(&mut bytes, array(raw.discarded, raw.n_discarded));
        }
    }
    push(&mut bytes, &[what.len() as u64]);
    push(&mut bytes, what.as_bytes());
    bytes
}

/// # Safety
/// As [`std::slice::from_raw_parts`] asks, unless the count is 0: what ends an address space shows none.
unsafe fn array<'a, T>(first: *const T, count: u64) -> &'a [T] {
    match count {
        0 => &[],
        // SAFETY: as the caller says.
        _ => unsafe { std::slice::from_raw_parts(first, count as usize) },
    }
}

fn push<T: Plain>(bytes: &mut Vec<u8>, values: &[T]) {
    // SAFETY: these are the values, and none of their bytes is padding.
    let raw = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
    bytes.extend_from_slice(raw);
}

/// What a child wrote.
struct Answers(BufReader<File>);

/// One answer, with what it points to.
struct Answer {
    raw: ffi::Seen,
    _areas: Vec<ffi::Area>,
    _hooks: Vec<ffi::Hook>,
    _discarded: Vec<[u64; 2]>,
    _broke: CString,
}

impl Answers {
    /// The next one, if it is there as a whole.
    fn next(&mut self) -> Option<Answer> {
        let mut raw = self.array::<ffi::Seen>(1)?.pop()?;
        let (mut areas, mut hooks, mut discarded) = (Vec::new(), Vec::new(), Vec::new());
        if raw.broke.is_null() {
            areas = self.array(raw.n_areas.into())?;
            hooks = self.array(raw.n_hooks.into())?;
            discarded = self.array(raw.n_discarded)?;
        }
        let length = self.array::<u64>(1)?.pop()?;
        let broke = CString::new(self.array::<u8>(length)?).ok()?;
        // Where these lay in the child is of no use here.
        raw.areas = areas.as_ptr();
        raw.hooks = hooks.as_ptr();
        raw.discarded = discarded.as_ptr();
        if !raw.broke.is_null() {
            raw.broke = broke.as_ptr();
        }
        Some(Answer {
            raw,
            _areas: areas,
            _hooks: hooks,
            _discarded: discarded,
            _broke: broke,
        })
    }

    /// So many values that were written by [`push`], if they are there.
    fn array<T: Plain>(&mut self, count: u64) -> Option<Vec<T>> {
        let mut values = Vec::new();
        for _ in 0..count {
            let mut value = MaybeUninit::<T>::zeroed();
            // SAFETY: all of its bytes are zero, and whatever they become is a value of the type.
            let bytes = unsafe {
                std::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>())
            };
            self.0.read_exact(bytes).ok()?;
            // SAFETY: as above.
            values.push(unsafe { value.assume_init() });
        }
        Some(values)
    }
}

/// # Safety
/// Any bytes are a value of the type, and no value has padding.
unsafe trait Plain {}

// SAFETY: integers.
unsafe impl Plain for u8 {}
// SAFETY: integers.
unsafe impl Plain for u64 {}
// SAFETY: integers.
unsafe impl Plain for [u64; 2] {}
// SAFETY: integers that lie side by side.
unsafe impl Plain for ffi::Area {}
// SAFETY: integers that lie side by side.
unsafe impl Plain for ffi::Hook {}
// SAFETY: integers and raw pointers, side by side.
unsafe impl Plain for ffi::Seen {}
