// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`VmaC`]: the kernel's own `mm/vma.c`, with its maple tree, in this process.
//!
//! `differ/vmac/` builds it from a kernel tree into a shared object, which is loaded here. What is real in
//! it and what is not stands at the top of `vmac.c` there. It sees all that there is: exact flags, page
//! offsets of anonymous memory, each hook call with its arguments, the commit charge. After every
//! operation it also checks what no model tells: that all counters equal a recount, that every area hangs
//! in the reverse maps with the range it has, that no assertion of the kernel's was hit; and after every
//! batch, that nothing leaked. A failed check is a finding; so is an operation that runs into a signal, or
//! that does not come back.

mod ffi;
mod isolated;
mod rate;
mod worlds;

pub use isolated::Isolated;
pub use rate::Program;

use std::ffi::{CStr, c_char};
use std::fmt;
use std::fs::File as OsFile;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::num::{NonZeroU8, NonZeroU32};
use std::os::fd::IntoRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use libloading::Library;
use nix::sys::memfd::{MFdFlags, memfd_create};
use vmalab_model::file::{Kind, MaySplit, WriteSeal};
use vmalab_model::limits::Overcommit;
use vmalab_model::{
    Allocation, AnonVma, Area, Asked, Backing, Break, Counters, Errno, File, FileId, Hook,
    HookCall, Limits, Name, NewName, Object, Op, PAGE_SHIFT, VmFlags,
};

use crate::generate::Generator;
use crate::known;
use crate::oracle::{Fields, Observation, Oracle, OracleError, Sees, World};
use crate::runner::BATCH;

/// The worlds of each [`VmaC`].
pub fn worlds() -> Vec<World> {
    worlds::all()
}

/// Names the kernel tree to build from.
pub const SOURCE: &str = "VMALAB_LINUX_SRC";
/// Where the kernel tree is inside the Debian root of `qemu-image/enter`.
const SOURCE_IN_ROOT: &str = "/vmalab/linux";

/// What to build the library from.
#[derive(Clone, Debug)]
pub struct Build {
    /// The kernel tree.
    pub source: PathBuf,
    /// This file instead of its `mm/vma.c`.
    pub vma_c: Option<PathBuf>,
    /// With ASan, UBSan and the kernel's own debugging checks. The program that loads it must run with
    /// the sanitizers' [runtimes] preloaded.
    pub sanitize: bool,
    /// With flags for the edges of `mm/vma.c`, which tell what was reached of it. It takes clang.
    pub counted: bool,
    /// Without what the comparison adds to the kernel's code, and without what Debian's kernels leave out
    /// (`CONFIG_DEBUG_VM`): to be measured.
    pub bare: bool,
}

impl Build {
    /// From the tree that [`SOURCE`] names, or the one that is there inside the Debian root.
    ///
    /// # Errors
    /// [`OracleError::Environment`] if there is none.
    pub fn from_environment() -> Result<Self, OracleError> {
        let source = match std::env::var_os(SOURCE) {
            Some(source) => source.into(),
            None => PathBuf::from(SOURCE_IN_ROOT),
        };
        if !source.join("mm/vma.c").exists() {
            return Err(OracleError::Environment(format!(
                "there is no kernel source in {}: name a tree of Linux 7.2 or 7.3 by {SOURCE}",
                source.display()
            )));
        }
        Ok(Self {
            source,
            vma_c: None,
            sanitize: false,
            counted: false,
            bare: false,
        })
    }

    /// Compiles it to `out`, a few seconds.
    ///
    /// # Errors
    /// [`OracleError::Environment`] with what the compiler said.
    pub fn run(&self, out: &Path) -> Result<(), OracleError> {
        self.script(out, false)
    }

    /// Compiles it to `out`, unless it is there and nothing of what it is made of has changed. Of several
    /// processes that want it, one does.
    ///
    /// # Errors
    /// [`OracleError::Environment`] with what the compiler said.
    pub fn once(&self, out: &Path) -> Result<(), OracleError> {
        self.script(out, true)
    }

    fn script(&self, out: &Path, once: bool) -> Result<(), OracleError> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/vmac/build");
        let mut command = Command::new(script);
        command.arg(out).env(SOURCE, &self.source);
        if let Some(vma_c) = &self.vma_c {
            command.env("VMA_C", vma_c);
        }
        if self.sanitize {
            command.env("SANITIZE", "1");
        }
        if self.counted {
            command.env("COUNTED", "1").env("CC", "clang");
        }
        if self.bare {
            command.env("BARE", "1");
        }
        if once {
            command.env("ONCE", "1");
        }
        let output = command
            .output()
            .map_err(|error| OracleError::system(&format!("cannot run {script}"), error))?;
        if output.status.success() {
            return Ok(());
        }
        Err(OracleError::Environment(format!(
            "cannot build the oracle from {}:\n{}",
            self.source.display(),
            String::from_utf8_lossy(&output.stderr)
        )))
    }
}

/// What a program that loads a library with sanitizers has in `LD_PRELOAD`.
///
/// # Errors
/// [`OracleError::Environment`] if there is no C compiler.
pub fn runtimes() -> Result<String, OracleError> {
    let compiler = std::env::var_os("CC").unwrap_or("gcc".into());
    let runtime = |name| {
        let asked = format!("-print-file-name={name}");
        let output = Command::new(&compiler).arg(asked).output();
        let output =
            output.map_err(|error| OracleError::system("cannot run the compiler", error))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    Ok(runtime("libasan.so")? + " " + &runtime("libubsan.so")?)
}

/// What the library sets right, in the order of the counts.
const EXCUSED: [&str; 5] = [
    known::CHARGE_OF_MMAP,
    known::CHARGE_OF_MREMAP,
    known::CHARGE_OF_STACK,
    known::LOCKED_IN_AN_INT,
    known::TREE_WITHOUT_MEMORY,
];

/// All but what the library has none of: signals, and the high-water mark.
const SEEN: Fields = Fields::all()
    .difference(Fields::SIGNALS)
    .difference(Fields::PEAK);

/// How much processor time an operation may take before it is said not to come back, in milliseconds; it is
/// noticed by twice that. One that does takes a microsecond, or a few.
const PATIENCE: u32 = 1_000;
/// The same where one is known not to, which many simpler sequences will not do either.
const PATIENCE_CLOSELY: u32 = 25;

/// The kernel's `mm/vma.c`. Each one has a library of its own, so that several can run side by side, each in
/// its thread.
pub struct VmaC {
    name: String,
    kernel: String,
    calls: ffi::Calls,
    worlds: Vec<World>,
    files: Vec<Vec<ffi::File>>,
    /// How often each of [`EXCUSED`] came since somebody asked.
    excused: [u64; EXCUSED.len()],
}

impl VmaC {
    /// Loads a copy of the library.
    ///
    /// # Errors
    /// [`OracleError::Environment`] if it cannot be loaded, or was built by another version.
    pub fn new(path: &Path) -> Result<Self, OracleError> {
        let copy = private_copy(path).map_err(|error| cannot_load(path, &error))?;
        // Open for ever: the loader knows a library by its path, which names the descriptor.
        let copy = format!("/proc/self/fd/{}", copy.into_raw_fd());
        Self::load(path, copy.as_ref())
    }

    /// Loads the library itself, so that sanitizers and debuggers know the lines of what runs: once in a
    /// process.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if it is not the first time.
    pub fn in_place(path: &Path) -> Result<Self, OracleError> {
        static LOADED: AtomicBool = AtomicBool::new(false);
        if LOADED.swap(true, Ordering::Relaxed) {
            return Err(cannot_load(path, &"there is one in place already"));
        }
        let itself = path.canonicalize();
        Self::load(path, &itself.map_err(|error| cannot_load(path, &error))?)
    }

    /// `loaded` has the contents of `path`.
    fn load(path: &Path, loaded: &Path) -> Result<Self, OracleError> {
        let failed = |error: &dyn fmt::Display| cannot_load(path, error);
        // SAFETY: the library has no initializers but those of the C runtime.
        let library = unsafe { Library::new(loaded) };
        // It stays loaded: the signal handlers that it installs stay, too.
        let library = ManuallyDrop::new(library.map_err(|e| failed(&e))?);
        // SAFETY: the types are those of vmac.h, which the check of the version below stands for.
        let (abi, calls) = unsafe {
            let abi = library.get::<unsafe extern "C" fn() -> u32>(b"vmac_abi\0");
            let calls = || {
                Ok::<_, libloading::Error>(ffi::Calls {
                    reset: *library.get(b"vmac_reset\0")?,
                    set_patience: *library.get(b"vmac_set_patience\0")?,
                    restore: *library.get(b"vmac_restore\0")?,
                    apply: *library.get(b"vmac_apply\0")?,
                    exit: *library.get(b"vmac_exit\0")?,
                    perform: *library.get(b"vmac_perform\0")?,
                    find: *library.get(b"vmac_find\0")?,
                    memory: *library.get(b"vmac_memory\0")?,
                    reached: library.get(b"vmac_reached\0").ok().map(|reached| *reached),
                })
            };
            (abi.map(|abi| abi()), calls())
        };
        let abi = abi.map_err(|e| failed(&e))?;
        if abi != ffi::ABI {
            return Err(failed(&format!(
                "it has the interface {abi}, and this program {}: build it anew",
                ffi::ABI
            )));
        }
        // SAFETY: it gives a C string that is part of the library, which stays loaded.
        let kernel = unsafe {
            library
                .get::<unsafe extern "C" fn() -> *const c_char>(b"vmac_kernel\0")
                .map(|kernel| CStr::from_ptr(kernel()))
        };
        let kernel = kernel.map_err(|e| failed(&e))?.to_string_lossy();
        let worlds = worlds::all();
        let files = worlds
            .iter()
            .map(|world| world.files.iter().map(|named| file(&named.file)).collect())
            .collect();
        Ok(Self {
            name: format!("vmac (mm/vma.c of Linux {kernel})"),
            kernel: kernel.into_owned(),
            calls: calls.map_err(|e| failed(&e))?,
            worlds,
            files,
            excused: [0; EXCUSED.len()],
        })
    }

    /// The version of the kernel tree that it was built from, as in `7.2.12`.
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// Starts anew in that world, by its place among [`Oracle::worlds`].
    ///
    /// # Errors
    /// [`OracleError::Environment`] if the library cannot make it.
    ///
    /// # Panics
    /// If there is no such world.
    pub fn begin(&mut self, world: usize) -> Result<(), OracleError> {
        let heap = &self.worlds[world].heap;
        let heap = heap.as_ref().map_or(Break::default(), |heap| heap.start);
        let limits = limits(&self.worlds[world].limits, heap);
        let files = &self.files[world];
        // SAFETY: both outlive the call, and `&mut self` says that nobody else uses this copy.
        unsafe { (self.calls.reset)(&limits, files.as_ptr(), files.len() as u32) };
        for area in &self.worlds[world].areas {
            let area = ffi::Area {
                start: area.start,
                end: area.end,
                flags: area.flags.0,
                pgoff: area.offset >> PAGE_SHIFT,
                object: match area.object {
                    Object::File(id) => id.0.into(),
                    _ => ffi::ANON,
                },
                anon_vma: 0,
                name: 0,
                unused: 0,
            };
            let mut seen = MaybeUninit::uninit();
            // SAFETY: as above; the call fills `seen` in.
            let seen: ffi::Seen = unsafe {
                (self.calls.restore)(&area, seen.as_mut_ptr());
                seen.assume_init()
            };
            broke(&seen).map_err(|what| OracleError::system("cannot make the world", what))?;
        }
        Ok(())
    }

    /// One operation more since [`begin`](Self::begin), and all that there is to see.
    ///
    /// # Errors
    /// What a kernel never does. Then [`begin`](Self::begin) anew.
    pub fn apply(&mut self, op: &Op, seen: &mut Observation) -> Result<(), String> {
        self.call(&operation(op)?, seen).map(|_| ())
    }

    /// As [`apply`](Self::apply), but the allocation number `fail_at` fails, 1 being the first, whatever it
    /// is of. Gives whether there were so many.
    ///
    /// # Errors
    /// As there.
    pub fn apply_failing(
        &mut self,
        op: &Op,
        fail_at: u32,
        seen: &mut Observation,
    ) -> Result<bool, String> {
        self.call(&fail(ffi::FAIL_ANY, fail_at), seen)?;
        self.call(&operation(op)?, seen)
    }

    /// Unmaps everything, as when the process ends.
    ///
    /// # Errors
    /// Something is left over.
    pub fn end(&mut self) -> Result<(), String> {
        leaked(&self.exit())
    }

    fn call(&mut self, op: &ffi::Op, seen: &mut Observation) -> Result<bool, String> {
        let (failed, raw) = self.ask(op);
        self.take(op.kind, &raw, seen)?;
        Ok(failed)
    }

    /// Does one operation; gives also whether an allocation failed as it was told to.
    fn ask(&mut self, op: &ffi::Op) -> (bool, ffi::Seen) {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: `op` and `raw` outlive the call, which fills `raw` in. `&mut self` says that nobody
        // else uses this copy of the library.
        unsafe {
            let failed = (self.calls.apply)(op, raw.as_mut_ptr());
            (failed != 0, raw.assume_init())
        }
    }

    /// Unmaps everything.
    fn exit(&mut self) -> ffi::Seen {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: as in `ask`.
        unsafe {
            (self.calls.exit)(raw.as_mut_ptr());
            raw.assume_init()
        }
    }

    /// What was seen of an operation of that kind, counted and in the model's words.
    fn take(&mut self, kind: u32, raw: &ffi::Seen, seen: &mut Observation) -> Result<(), String> {
        let came = [
            raw.lost != 0 && kind == ffi::MMAP,
            raw.lost != 0 && kind == ffi::MREMAP,
            raw.lost != 0 && kind == ffi::TOUCH,
            raw.excused & ffi::EXCUSED_LOCKED != 0,
            raw.excused & ffi::EXCUSED_TREE != 0,
        ];
        for (count, came) in self.excused.iter_mut().zip(came) {
            *count += u64::from(came);
        }
        broke(raw)?;
        observe(raw, seen)
    }
}

impl Oracle for VmaC {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sees(&self) -> Sees {
        Sees {
            fields: SEEN - Fields::CONTENTS,
            flags: VmFlags(u64::MAX),
        }
    }

    fn worlds(&self) -> &[World] {
        &self.worlds
    }

    fn excused(&mut self) -> Vec<(&'static str, u64)> {
        let counts = EXCUSED.into_iter().zip(std::mem::take(&mut self.excused));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    fn look_closely(&mut self, closely: bool) {
        let patience = if closely { PATIENCE_CLOSELY } else { PATIENCE };
        // SAFETY: `&mut self` says that nobody else uses this copy of the library.
        unsafe { (self.calls.set_patience)(patience) };
    }

    fn edges(&self) -> &[u8] {
        let Some(reached) = self.calls.reached else {
            return &[];
        };
        let mut count = 0;
        // SAFETY: the flags are as many bytes of the library, which stays loaded, and writes them in calls
        // alone: for those it takes `&mut self`.
        unsafe {
            let first = reached(&mut count);
            std::slice::from_raw_parts(first, count as usize)
        }
    }

    fn run(
        &mut self,
        world: usize,
        ops: &[Op],
        seen: &mut Vec<Observation>,
    ) -> Result<(), OracleError> {
        self.begin(world)?;
        seen.resize_with(ops.len(), Observation::default);
        for (index, op) in ops.iter().enumerate() {
            if let Err(what) = self.apply(op, &mut seen[index]) {
                seen.truncate(index);
                return Err(OracleError::Broke { index, what });
            }
            let world = &self.worlds[world];
            let layout = &mut seen[index].outcome.layout;
            layout.retain(|area| world.observes(area));
        }
        self.end().map_err(|what| OracleError::Broke {
            index: ops.len().saturating_sub(1),
            what,
        })
    }
}

/// Random operations in every world, in which one of the first allocations of each fails, whatever it is of. No
/// model says what follows, but whatever fails half way: counters, reverse maps and the tree agree with the
/// areas, and in the end nothing is left over. Gives how many allocations failed.
///
/// # Errors
/// What is not in order, and the batch up to there.
pub fn fail_allocations(oracle: &mut VmaC, seed: u64, batches: u64) -> Result<u64, String> {
    let mut failures = 0;
    for batch in 0..batches {
        let world = (batch % oracle.worlds.len() as u64) as usize;
        let generator = Generator::new(seed, batch, &oracle.worlds[world]);
        let failed = fail_in_batch(oracle, world, generator);
        failures += failed.map_err(|what| format!("batch {batch}:\n{what}"))?;
    }
    Ok(failures)
}

/// As [`fail_allocations`], with the operations that bytes say, as [`Runner::decode`] understands them.
///
/// # Errors
/// As there.
///
/// [`Runner::decode`]: crate::runner::Runner::decode
pub fn fail_allocations_of(oracle: &mut VmaC, bytes: &[u8]) -> Result<u64, String> {
    let Some((&first, bytes)) = bytes.split_first() else {
        return Ok(0);
    };
    let world = usize::from(first) % oracle.worlds.len();
    let generator = Generator::from_bytes(bytes, &oracle.worlds[world]);
    fail_in_batch(oracle, world, generator)
}

fn fail_in_batch(oracle: &mut VmaC, world: usize, mut generator: Generator) -> Result<u64, String> {
    oracle.begin(world).map_err(|error| error.to_string())?;
    let mut failures = 0;
    let mut seen = Observation::default();
    let mut history = Vec::new();
    let told = |history: &[(Op, u32)], what: &str| {
        let lines = history.iter();
        let lines = lines.map(|(op, fail_at)| format!("{op:x?}, failing at {fail_at}\n"));
        format!("{}{what}", lines.collect::<String>())
    };
    for step in 0..BATCH {
        if generator.is_exhausted() {
            break;
        }
        let op = generator.op();
        let fail_at = (step % 7) as u32;
        history.push((op, fail_at));
        let failed = oracle.apply_failing(&op, fail_at, &mut seen);
        failures += u64::from(failed.map_err(|what| told(&history, &what))?);
        generator.learn(&seen.outcome);
    }
    oracle.end().map_err(|what| told(&history, &what))?;
    Ok(failures)
}

fn cannot_load(path: &Path, error: &dyn fmt::Display) -> OracleError {
    OracleError::system(&format!("cannot load {}", path.display()), error)
}

/// A file of its own with the same contents: a library is loaded once per file.
fn private_copy(path: &Path) -> io::Result<OsFile> {
    let copy = memfd_create(c"libvmac.so", MFdFlags::MFD_CLOEXEC)?;
    let mut copy = OsFile::from(copy);
    io::copy(&mut OsFile::open(path)?, &mut copy)?;
    Ok(copy)
}

/// What is left over after all was unmapped.
fn leaked(seen: &ffi::Seen) -> Result<(), String> {
    broke(seen).map_err(|what| at_the_end(&what))
}

/// What came not of an operation, but when all was unmapped after the last.
fn at_the_end(what: &str) -> String {
    format!("when all was unmapped: {what}")
}

/// What the library found wrong.
fn broke(seen: &ffi::Seen) -> Result<(), String> {
    if seen.broke.is_null() {
        return Ok(());
    }
    // SAFETY: it is a C string of the library, which holds until the next call.
    let what = unsafe { CStr::from_ptr(seen.broke) };
    Err(what.to_string_lossy().into_owned())
}

fn operation(op: &Op) -> Result<ffi::Op, String> {
    Ok(match *op {
        Op::Mmap(ref args) => ffi::Op {
            kind: ffi::MMAP,
            prot: args.prot.0,
            flags: args.flags.0,
            file: match args.backing {
                Backing::None => -1,
                Backing::File(id) => id.0.into(),
            },
            addr: args.addr,
            len: args.len,
            offset: args.offset,
            ..ffi::Op::default()
        },
        Op::Munmap { addr, len } => ffi::Op {
            kind: ffi::MUNMAP,
            addr,
            len,
            ..ffi::Op::default()
        },
        Op::Touch { addr, write } => ffi::Op {
            kind: ffi::TOUCH,
            addr,
            flags: write.into(),
            ..ffi::Op::default()
        },
        Op::Mprotect { addr, len, prot } => ffi::Op {
            kind: ffi::MPROTECT,
            addr,
            len,
            prot: prot.0,
            ..ffi::Op::default()
        },
        Op::Mremap {
            addr,
            old_len,
            new_len,
            flags,
            new_addr,
        } => ffi::Op {
            kind: ffi::MREMAP,
            addr,
            len: old_len,
            new_len,
            flags: flags.0,
            new_addr,
            ..ffi::Op::default()
        },
        Op::Mlock { addr, len, flags } => ffi::Op {
            kind: ffi::MLOCK,
            addr,
            len,
            flags: flags.0,
            ..ffi::Op::default()
        },
        Op::Munlock { addr, len } => ffi::Op {
            kind: ffi::MUNLOCK,
            addr,
            len,
            ..ffi::Op::default()
        },
        Op::Madvise { addr, len, advice } => ffi::Op {
            kind: ffi::MADVISE,
            addr,
            len,
            flags: advice.0,
            ..ffi::Op::default()
        },
        Op::Fork => ffi::Op {
            kind: ffi::FORK,
            ..ffi::Op::default()
        },
        Op::Brk { addr } => ffi::Op {
            kind: ffi::BRK,
            addr,
            ..ffi::Op::default()
        },
        Op::Mlockall { flags } => ffi::Op {
            kind: ffi::MLOCKALL,
            flags: flags.0,
            ..ffi::Op::default()
        },
        Op::Munlockall => ffi::Op {
            kind: ffi::MUNLOCKALL,
            ..ffi::Op::default()
        },
        Op::Mseal { addr, len, flags } => ffi::Op {
            kind: ffi::MSEAL,
            addr,
            len,
            offset: flags,
            ..ffi::Op::default()
        },
        Op::RemapFilePages {
            addr,
            len,
            prot,
            pgoff,
            flags,
        } => ffi::Op {
            kind: ffi::REMAP_FILE_PAGES,
            addr,
            len,
            prot: prot.0,
            offset: pgoff,
            flags: flags.0,
            ..ffi::Op::default()
        },
        Op::PkeyMprotect {
            addr,
            len,
            prot,
            pkey,
        } => ffi::Op {
            kind: ffi::PKEY_MPROTECT,
            addr,
            len,
            prot: prot.0,
            file: pkey,
            ..ffi::Op::default()
        },
        Op::PkeyAlloc { flags, rights } => ffi::Op {
            kind: ffi::PKEY_ALLOC,
            offset: flags,
            len: rights,
            ..ffi::Op::default()
        },
        Op::PkeyFree { pkey } => ffi::Op {
            kind: ffi::PKEY_FREE,
            file: pkey,
            ..ffi::Op::default()
        },
        Op::SetName { addr, len, name } => ffi::Op {
            kind: ffi::SET_NAME,
            addr,
            len,
            offset: match name {
                NewName::None => 0,
                NewName::Some(Name(number)) => number.get().into(),
                NewName::Invalid => ffi::INVALID_NAME,
            },
            ..ffi::Op::default()
        },
        Op::Mbind {
            addr,
            len,
            mode,
            nodes,
            flags,
        } => ffi::Op {
            kind: ffi::MBIND,
            addr,
            len,
            prot: mode,
            offset: nodes,
            flags,
            ..ffi::Op::default()
        },
        Op::Steer {
            file,
            hook,
            nth,
            error,
        } => ffi::Op {
            kind: ffi::STEER,
            file: match file {
                Backing::None => -1,
                Backing::File(id) => id.0.into(),
            },
            prot: match hook {
                Asked::Mmap => ffi::HOOK_MMAP,
                Asked::MaySplit => ffi::HOOK_MAY_SPLIT,
                Asked::Mapped => ffi::HOOK_MAPPED,
                Asked::Mremap => ffi::HOOK_MREMAP,
                Asked::Mprotect => ffi::HOOK_MPROTECT,
            },
            len: nth.into(),
            flags: error.number() as u32,
            ..ffi::Op::default()
        },
        Op::SetMdwe { bits } => ffi::Op {
            kind: ffi::MDWE,
            offset: bits.0,
            ..ffi::Op::default()
        },
        Op::FailAllocation { what, nth } => fail(
            match what {
                Allocation::Area => ffi::FAIL_AREA,
                Allocation::Tree => ffi::FAIL_TREE,
                Allocation::AnonVma => ffi::FAIL_ANON_VMA,
                Allocation::Policy | Allocation::Userfaultfd => {
                    return Err("neither policies nor a userfaultfd take memory here".into());
                }
            },
            nth,
        ),
        Op::Shmat { .. } | Op::Shmdt { .. } => {
            return Err("there are no segments here".into());
        }
        Op::UffdRegister { .. } | Op::UffdUnregister { .. } => {
            return Err("userfaultfd does nothing here".into());
        }
    })
}

fn fail(what: u32, nth: u32) -> ffi::Op {
    ffi::Op {
        kind: ffi::FAIL,
        flags: what,
        offset: nth.into(),
        ..ffi::Op::default()
    }
}

/// Fills an observation in.
fn observe(raw: &ffi::Seen, observation: &mut Observation) -> Result<(), String> {
    observation.fields = SEEN;
    observation.looked = 0..u64::MAX;
    let outcome = &mut observation.outcome;
    outcome.result = match u64::try_from(raw.result) {
        Ok(value) => Ok(value),
        Err(_) => Err(errno(raw.result.unsigned_abs())?),
    };
    outcome.counters = counters(&raw.counters);
    outcome.committed = raw.counters.committed;
    outcome.layout.clear();
    outcome.hooks.clear();
    // SAFETY: the library wrote so many, and does not touch them until the next call. It gives a pointer
    // that is not null, even to none.
    let (areas, hooks, discarded) = unsafe {
        (
            std::slice::from_raw_parts(raw.areas, raw.n_areas as usize),
            std::slice::from_raw_parts(raw.hooks, raw.n_hooks as usize),
            std::slice::from_raw_parts(raw.discarded, raw.n_discarded as usize),
        )
    };
    outcome.layout.extend(areas.iter().map(|area| Area {
        start: area.start,
        end: area.end,
        flags: VmFlags(area.flags),
        offset: area.pgoff << PAGE_SHIFT,
        object: object(area.object),
        anon_vma: NonZeroU32::new(area.anon_vma).map(AnonVma),
        name: NonZeroU8::new(area.name as u8).map(Name),
    }));
    observation.anon_vmas.clear();
    let anon_vmas = areas.iter().map(|area| area.anon_vma);
    observation.anon_vmas.extend(anon_vmas);
    outcome.discarded.clear();
    outcome
        .discarded
        .extend(discarded.iter().map(|[start, end]| *start..*end));
    for hook in hooks {
        outcome.hooks.push(HookCall {
            hook: match hook.kind {
                ffi::HOOK_MMAP => Hook::Mmap,
                ffi::HOOK_OPEN => Hook::Open,
                ffi::HOOK_CLOSE => Hook::Close,
                ffi::HOOK_MAY_SPLIT => Hook::MaySplit { addr: hook.addr },
                ffi::HOOK_MAPPED => Hook::Mapped,
                ffi::HOOK_MREMAP => Hook::Mremap,
                ffi::HOOK_MPROTECT => Hook::Mprotect {
                    start: hook.addr,
                    end: hook.to,
                    flags: VmFlags(hook.flags),
                },
                other => return Err(format!("there is no hook {other}")),
            },
            file: FileId(hook.file as u16),
            start: hook.start,
            end: hook.end,
            offset: hook.pgoff << PAGE_SHIFT,
            error: match hook.error {
                0 => None,
                number => Some(errno(number.into())?),
            },
        });
    }
    Ok(())
}

fn errno(number: u64) -> Result<Errno, String> {
    let errno = i32::try_from(number).ok().and_then(Errno::from_number);
    errno.ok_or_else(|| format!("it returned the error {number}"))
}

fn counters(count: &ffi::Counters) -> Counters {
    Counters {
        map_count: count.map_count,
        total_vm: count.total_vm,
        locked_vm: count.locked_vm,
        data_vm: count.data_vm,
        stack_vm: count.stack_vm,
        exec_vm: count.exec_vm,
    }
}

fn object(number: i32) -> Object {
    match number {
        0.. => Object::File(FileId(number as u16)),
        ffi::ANON => Object::Anon,
        _ => Object::Shmem((ffi::SHMEM - number) as u32),
    }
}

fn file(file: &File) -> ffi::File {
    let number = |error: Option<Errno>| error.map_or(0, |error| error.number() as u32);
    let (may_split, may_split_arg) = match file.may_split {
        MaySplit::Anywhere => (ffi::ANYWHERE, 0),
        MaySplit::Aligned(size) => (ffi::ALIGNED, size),
        MaySplit::Never(error) => (ffi::NEVER, error.number() as u64),
    };
    ffi::File {
        kind: match file.kind {
            Kind::Regular => ffi::REGULAR,
            Kind::Shmem => ffi::MEMFD,
            Kind::Unmappable => ffi::UNMAPPABLE,
            _ => ffi::DEVICE,
        },
        read: file.read,
        write: file.write,
        noexec: file.noexec,
        prepares: file.prepares,
        hook_mmap: file.hooks.mmap,
        hook_open: file.hooks.open,
        hook_close: file.hooks.close,
        hook_may_split: file.hooks.may_split,
        hook_mapped: file.hooks.mapped,
        hook_mremap: file.hooks.mremap,
        hook_mprotect: file.hooks.mprotect,
        chooses_address: file.chooses_address,
        seals: match file.write_seal {
            WriteSeal::None => 0,
            WriteSeal::Write => libc::F_SEAL_WRITE as u8,
            WriteSeal::FutureWrite => libc::F_SEAL_FUTURE_WRITE as u8,
        },
        unused: [0; 3],
        mmap_error: number(file.mmap_error),
        mremap_error: number(file.mremap_error),
        mprotect_error: number(file.mprotect_error),
        may_split,
        may_split_arg,
        pages: file.pages,
        sets: file.sets.0,
    }
}

fn limits(limits: &Limits, heap: Break) -> ffi::Limits {
    ffi::Limits {
        task_size: limits.task_size,
        mmap_min_addr: limits.mmap_min_addr,
        mmap_base: limits.mmap_base,
        mmap_legacy_base: limits.mmap_legacy_base,
        stack_guard_gap: limits.stack_guard_gap,
        max_map_count: limits.max_map_count,
        commit: match limits.overcommit {
            Overcommit::Guess { total } => total,
            Overcommit::Always | Overcommit::Never { .. } => u64::MAX,
        },
        commit_limit: match limits.overcommit {
            Overcommit::Never { limit, .. } => limit,
            _ => u64::MAX,
        },
        user_reserve: match limits.overcommit {
            Overcommit::Never { reserve, .. } => reserve,
            _ => 0,
        },
        address_space: limits.address_space,
        data: limits.data,
        stack: limits.stack,
        memlock: limits.memlock,
        start_brk: heap.start,
        brk: heap.end,
        program_data: heap.program_data,
        cap_ipc_lock: limits.cap_ipc_lock,
        cap_sys_rawio: limits.cap_sys_rawio,
        cap_sys_nice: limits.cap_sys_nice,
        pkeys: limits.pkeys,
        unused: [0; 4],
    }
}
