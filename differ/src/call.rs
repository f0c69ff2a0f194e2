// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Call`]: an operation as a name and numbers, each of a [`Kind`].
//!
//! Whatever prints operations, reads them, makes them simpler or puts them into a program of C goes by
//! the table that stands here, and knows nothing of single operations.

use std::num::NonZeroU8;

use vmalab_model::{
    Advice, Allocation, Asked, Backing, Errno, FileId, MapFlags, MdweFlags, MlockFlags,
    MlockallFlags, Mmap, MremapFlags, Name, NewName, Op, Prot, ShmFlags,
};

use crate::oracle::{NamedFile, World};

/// What an argument means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An address, in bytes.
    Addr,
    /// A length from the last address on, in bytes.
    Len,
    /// An offset in a file, in bytes.
    Offset,
    /// `PROT_*`.
    Prot,
    /// `MAP_*`.
    MapFlags,
    /// `MREMAP_*`.
    MremapFlags,
    /// `MLOCK_*`.
    MlockFlags,
    /// `MCL_*`.
    MlockallFlags,
    /// `PR_MDWE_*`.
    MdweFlags,
    /// `SHM_*`.
    ShmFlags,
    /// `MADV_*`, one of them.
    Advice,
    /// A file by its place in the world, or [`NO_FILE`].
    File,
    /// `write`, else `read`.
    Access,
    /// A hook that can refuse.
    Hook,
    /// An error, by its number.
    Errno,
    /// A number.
    Number,
    /// A number that may be negative.
    Signed,
}

/// A text that cannot be a name.
const INVALID_NAME: u64 = 256;

/// The descriptor -1.
pub const NO_FILE: u64 = u64::MAX;

/// The name of an operation and what it takes.
#[derive(Debug)]
pub struct Signature {
    /// The system call, or what comes nearest.
    pub name: &'static str,
    /// Name and kind of each argument.
    pub args: &'static [(&'static str, Kind)],
    /// Its place in [`SIGNATURES`].
    pub place: usize,
}

macro_rules! signatures {
    ($($constant:ident = $name:ident($($arg:ident: $kind:ident),*);)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Place {
            $($constant,)*
        }

        $(const $constant: &Signature = &Signature {
            name: stringify!($name),
            args: &[$((stringify!($arg), Kind::$kind)),*],
            place: Place::$constant as usize,
        };)*

        /// All operations that can be written.
        pub const SIGNATURES: &[&Signature] = &[$($constant),*];
    };
}

signatures! {
    MMAP = mmap(addr: Addr, len: Len, prot: Prot, flags: MapFlags, file: File, offset: Offset);
    MUNMAP = munmap(addr: Addr, len: Len);
    MPROTECT = mprotect(addr: Addr, len: Len, prot: Prot);
    PKEY_MPROTECT = pkey_mprotect(addr: Addr, len: Len, prot: Prot, pkey: Signed);
    PKEY_ALLOC = pkey_alloc(flags: Number, rights: Number);
    PKEY_FREE = pkey_free(pkey: Signed);
    MREMAP = mremap(addr: Addr, len: Len, new_len: Len, flags: MremapFlags, new_addr: Addr);
    MLOCK = mlock(addr: Addr, len: Len);
    MLOCK2 = mlock2(addr: Addr, len: Len, flags: MlockFlags);
    MUNLOCK = munlock(addr: Addr, len: Len);
    MLOCKALL = mlockall(flags: MlockallFlags);
    MUNLOCKALL = munlockall();
    MADVISE = madvise(addr: Addr, len: Len, advice: Advice);
    MSEAL = mseal(addr: Addr, len: Len, flags: Number);
    BRK = brk(addr: Addr);
    REMAP_FILE_PAGES = remap_file_pages(addr: Addr, len: Len, prot: Prot, pgoff: Number, flags: MapFlags);
    SET_MDWE = set_mdwe(bits: MdweFlags);
    SET_NAME = set_name(addr: Addr, len: Len, name: Number);
    MBIND = mbind(addr: Addr, len: Len, mode: Number, nodes: Number, flags: Number);
    SHMAT = shmat(segment: File, addr: Addr, flags: ShmFlags);
    SHMDT = shmdt(addr: Addr);
    FORK = fork();
    STEER = steer(file: File, hook: Hook, nth: Number, error: Errno);
    UFFD_REGISTER = uffd_register(addr: Addr, len: Len);
    UFFD_UNREGISTER = uffd_unregister(addr: Addr, len: Len);
    TOUCH = touch(addr: Addr, access: Access);
    FAIL_AREA = fail_area(nth: Number);
    FAIL_TREE = fail_tree(nth: Number);
    FAIL_POLICY = fail_policy(nth: Number);
    FAIL_USERFAULTFD = fail_userfaultfd(nth: Number);
    FAIL_ANON_VMA = fail_anon_vma(nth: Number);
}

/// An operation as a name and numbers.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Which, and what the numbers mean.
    pub signature: &'static Signature,
    /// As many as the signature has; the others are 0.
    pub args: [u64; 6],
}

impl Call {
    /// Each argument with its name and kind.
    pub fn args(&self) -> impl Iterator<Item = (&'static str, Kind, u64)> {
        let named = self.signature.args.iter();
        named
            .zip(self.args)
            .map(|(&(name, kind), value)| (name, kind, value))
    }

    /// The operation of that name.
    pub fn signature(name: &str) -> Option<&'static Signature> {
        SIGNATURES
            .iter()
            .copied()
            .find(|signature| signature.name == name)
    }

    /// As `strace` would print it, each argument by `word`.
    pub fn text(&self, word: impl Fn(Kind, u64) -> String) -> String {
        let words: Vec<_> = self
            .args()
            .map(|(_, kind, value)| word(kind, value))
            .collect();
        format!("{}({})", self.signature.name, words.join(", "))
    }
}

impl From<&Op> for Call {
    fn from(op: &Op) -> Self {
        let call = |signature, given: &[u64]| {
            let mut args = [0; 6];
            args[..given.len()].copy_from_slice(given);
            Call { signature, args }
        };
        match *op {
            Op::Mmap(Mmap {
                addr,
                len,
                prot,
                flags,
                backing,
                offset,
            }) => {
                let file = number_of(backing);
                let (prot, flags) = (prot.0.into(), flags.0.into());
                call(MMAP, &[addr, len, prot, flags, file, offset])
            }
            Op::Munmap { addr, len } => call(MUNMAP, &[addr, len]),
            Op::Mprotect { addr, len, prot } => call(MPROTECT, &[addr, len, prot.0.into()]),
            Op::PkeyMprotect {
                addr,
                len,
                prot,
                pkey,
            } => {
                let pkey = i64::from(pkey) as u64;
                call(PKEY_MPROTECT, &[addr, len, prot.0.into(), pkey])
            }
            Op::PkeyAlloc { flags, rights } => call(PKEY_ALLOC, &[flags, rights]),
            Op::PkeyFree { pkey } => call(PKEY_FREE, &[i64::from(pkey) as u64]),
            Op::Mremap {
                addr,
                old_len,
                new_len,
                flags,
                new_addr,
            } => call(MREMAP, &[addr, old_len, new_len, flags.0.into(), new_addr]),
            Op::Mlock { addr, len, flags } if flags == MlockFlags::empty() => {
                call(MLOCK, &[addr, len])
            }
            Op::Mlock { addr, len, flags } => call(MLOCK2, &[addr, len, flags.0.into()]),
            Op::Munlock { addr, len } => call(MUNLOCK, &[addr, len]),
            Op::Mlockall { flags } => call(MLOCKALL, &[flags.0.into()]),
            Op::Munlockall => call(MUNLOCKALL, &[]),
            Op::Madvise { addr, len, advice } => call(MADVISE, &[addr, len, advice.0.into()]),
            Op::Mseal { addr, len, flags } => call(MSEAL, &[addr, len, flags]),
            Op::Brk { addr } => call(BRK, &[addr]),
            Op::RemapFilePages {
                addr,
                len,
                prot,
                pgoff,
                flags,
            } => call(
                REMAP_FILE_PAGES,
                &[addr, len, prot.0.into(), pgoff, flags.0.into()],
            ),
            Op::SetMdwe { bits } => call(SET_MDWE, &[bits.0]),
            Op::SetName { addr, len, name } => {
                let name = match name {
                    NewName::None => 0,
                    NewName::Some(Name(number)) => number.get().into(),
                    NewName::Invalid => INVALID_NAME,
                };
                call(SET_NAME, &[addr, len, name])
            }
            Op::Mbind {
                addr,
                len,
                mode,
                nodes,
                flags,
            } => call(MBIND, &[addr, len, mode.into(), nodes, flags.into()]),
            Op::Shmat {
                segment,
                addr,
                flags,
            } => call(SHMAT, &[segment.0.into(), addr, flags.0.into()]),
            Op::Shmdt { addr } => call(SHMDT, &[addr]),
            Op::Fork => call(FORK, &[]),
            Op::Steer {
                file,
                hook,
                nth,
                error,
            } => {
                let hook = Asked::ALL.iter().position(|one| *one == hook);
                let hook = hook.expect("all are there") as u64;
                let error = error.number() as u64;
                call(STEER, &[number_of(file), hook, nth.into(), error])
            }
            Op::UffdRegister { addr, len } => call(UFFD_REGISTER, &[addr, len]),
            Op::UffdUnregister { addr, len } => call(UFFD_UNREGISTER, &[addr, len]),
            Op::Touch { addr, write } => call(TOUCH, &[addr, write.into()]),
            Op::FailAllocation { what, nth } => {
                let signature = match what {
                    Allocation::Area => FAIL_AREA,
                    Allocation::Tree => FAIL_TREE,
                    Allocation::AnonVma => FAIL_ANON_VMA,
                    Allocation::Policy => FAIL_POLICY,
                    Allocation::Userfaultfd => FAIL_USERFAULTFD,
                };
                call(signature, &[nth.into()])
            }
        }
    }
}

/// What stands for a file.
fn number_of(backing: Backing) -> u64 {
    match backing {
        Backing::None => NO_FILE,
        Backing::File(id) => id.0.into(),
    }
}

fn backing(number: u64) -> Backing {
    match number {
        NO_FILE => Backing::None,
        id => Backing::File(FileId(id as u16)),
    }
}

impl From<&Call> for Op {
    fn from(call: &Call) -> Self {
        let [addr, len, third, fourth, fifth, sixth] = call.args;
        let prot = Prot(third as u32);
        match call.signature.name {
            "mmap" => Op::Mmap(Mmap {
                addr,
                len,
                prot,
                flags: MapFlags(fourth as u32),
                backing: backing(fifth),
                offset: sixth,
            }),
            "munmap" => Op::Munmap { addr, len },
            "mprotect" => Op::Mprotect { addr, len, prot },
            "pkey_mprotect" => Op::PkeyMprotect {
                addr,
                len,
                prot,
                pkey: fourth as i32,
            },
            "pkey_alloc" => Op::PkeyAlloc {
                flags: addr,
                rights: len,
            },
            "pkey_free" => Op::PkeyFree { pkey: addr as i32 },
            "mremap" => Op::Mremap {
                addr,
                old_len: len,
                new_len: third,
                flags: MremapFlags(fourth as u32),
                new_addr: fifth,
            },
            // The older call has no third argument: 0.
            "mlock" | "mlock2" => Op::Mlock {
                addr,
                len,
                flags: MlockFlags(third as u32),
            },
            "munlock" => Op::Munlock { addr, len },
            "mlockall" => Op::Mlockall {
                flags: MlockallFlags(addr as u32),
            },
            "munlockall" => Op::Munlockall,
            "madvise" => Op::Madvise {
                addr,
                len,
                advice: Advice(third as u32),
            },
            "mseal" => Op::Mseal {
                addr,
                len,
                flags: third,
            },
            "brk" => Op::Brk { addr },
            "remap_file_pages" => Op::RemapFilePages {
                addr,
                len,
                prot,
                pgoff: fourth,
                flags: MapFlags(fifth as u32),
            },
            "set_mdwe" => Op::SetMdwe {
                bits: MdweFlags(addr),
            },
            "set_name" => Op::SetName {
                addr,
                len,
                name: match u8::try_from(third).map(NonZeroU8::new) {
                    Ok(None) => NewName::None,
                    Ok(Some(number)) => NewName::Some(Name(number)),
                    Err(_) => NewName::Invalid,
                },
            },
            "mbind" => Op::Mbind {
                addr,
                len,
                mode: third as u32,
                nodes: fourth,
                flags: fifth as u32,
            },
            "shmat" => Op::Shmat {
                segment: FileId(addr as u16),
                addr: len,
                flags: ShmFlags(third as u32),
            },
            "shmdt" => Op::Shmdt { addr },
            "fork" => Op::Fork,
            "steer" => Op::Steer {
                file: backing(addr),
                hook: *Asked::ALL.get(len as usize).unwrap_or(&Asked::Mmap),
                nth: third as u32,
                error: i32::try_from(fourth)
                    .ok()
                    .and_then(Errno::from_number)
                    .unwrap_or(Errno::EINVAL),
            },
            "uffd_register" => Op::UffdRegister { addr, len },
            "uffd_unregister" => Op::UffdUnregister { addr, len },
            "touch" => Op::Touch {
                addr,
                write: len != 0,
            },
            "fail_area" => fail_allocation(Allocation::Area, addr),
            "fail_tree" => fail_allocation(Allocation::Tree, addr),
            "fail_anon_vma" => fail_allocation(Allocation::AnonVma, addr),
            "fail_policy" => fail_allocation(Allocation::Policy, addr),
            "fail_userfaultfd" => fail_allocation(Allocation::Userfaultfd, addr),
            name => unreachable!("{name} has a signature and no operation"),
        }
    }
}

fn fail_allocation(what: Allocation, nth: u64) -> Op {
    let nth = nth as u32;
    Op::FailAllocation { what, nth }
}

/// An argument as it is written: a number, or by what it is near to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The number.
    Number(u64),
    /// So far from there.
    At(Anchor, i64),
    /// A file by its name.
    File(String),
}

/// What every world has, at another address in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The begin of [`World::arena`].
    Arena,
    /// The begin of the window of [`World::heap`].
    Heap,
    /// The end of [`World::chosen`]: the kernel chooses from the top down.
    Chosen,
}

impl Anchor {
    const ALL: [(&'static str, Self); 3] = [
        ("arena", Self::Arena),
        ("heap", Self::Heap),
        ("chosen", Self::Chosen),
    ];

    /// Where it is in that world, if it is known there.
    pub fn place(self, world: &World) -> Option<u64> {
        match self {
            Self::Arena => Some(world.arena.start),
            Self::Heap => world.heap.as_ref().map(|heap| heap.window.start),
            Self::Chosen => world.chosen.as_ref().map(|chosen| chosen.end),
        }
    }

    /// The one that an address is within or beside, and how far from it.
    pub fn near(addr: u64, world: &World) -> Option<(Self, i64)> {
        const BESIDE: u64 = 1 << 20;
        let heap = world.heap.as_ref().map(|heap| heap.window.clone());
        let windows = [Some(world.arena.clone()), heap, world.chosen.clone()];
        for ((_, anchor), window) in Self::ALL.into_iter().zip(windows) {
            let Some(window) = window else { continue };
            if addr >= window.start.saturating_sub(BESIDE) && addr <= window.end + BESIDE {
                return Some((anchor, addr.wrapping_sub(anchor.place(world)?) as i64));
            }
        }
        None
    }
}

impl Kind {
    /// The names of flags, and what each begins with in C.
    fn names(self) -> Option<(&'static str, Vec<(&'static str, u64)>)> {
        macro_rules! all {
            ($prefix:literal, $flags:ident) => {
                Some((
                    $prefix,
                    $flags::NAMED
                        .iter()
                        .map(|&(name, flag)| (name, flag.0 as u64))
                        .collect(),
                ))
            };
        }
        match self {
            Self::Prot => all!("PROT_", Prot),
            Self::MapFlags => all!("MAP_", MapFlags),
            Self::MremapFlags => all!("MREMAP_", MremapFlags),
            Self::MlockFlags => all!("MLOCK_", MlockFlags),
            Self::MlockallFlags => all!("MCL_", MlockallFlags),
            Self::MdweFlags => all!("PR_MDWE_", MdweFlags),
            Self::ShmFlags => all!("SHM_", ShmFlags),
            _ => None,
        }
    }

    /// The names of [`Asked::ALL`].
    const HOOKS: [&'static str; 5] = ["mmap", "may_split", "mapped", "mremap", "mprotect"];

    /// All errors that a mapping call can have.
    fn errors() -> impl Iterator<Item = Errno> {
        (1..4096).filter_map(Errno::from_number)
    }

    /// Whether it is a set of bits, each of which may be left out.
    pub fn is_flags(self) -> bool {
        self.names().is_some()
    }

    /// As a reader likes it, with files by name. Addresses are relative to what the world has, if one
    /// is given.
    pub fn word(self, value: u64, files: &[NamedFile], world: Option<&World>) -> String {
        if let Some((prefix, names)) = self.names() {
            return flags(value, prefix, &names);
        }
        match self {
            Self::Addr => match world.and_then(|world| Anchor::near(value, world)) {
                Some((anchor, distance)) => {
                    let known = Anchor::ALL.iter().find(|(_, one)| *one == anchor);
                    let name = known.expect("all are there").0;
                    let sign = if distance < 0 { '-' } else { '+' };
                    format!("{name}{sign}{:#x}", distance.unsigned_abs())
                }
                None => format!("{value:#x}"),
            },
            Self::File => match files.get(value as usize) {
                Some(file) if value != NO_FILE => file.name.clone(),
                _ => "-1".into(),
            },
            Self::Access if value == 0 => "read".into(),
            Self::Access => "write".into(),
            Self::Advice => {
                let advice = Advice(value as u32);
                let prefix = if Advice::ALL.contains(&advice) {
                    "MADV_"
                } else {
                    ""
                };
                format!("{prefix}{advice:?}")
            }
            Self::Signed => format!("{}", value as i64),
            Self::Hook => match Self::HOOKS.get(value as usize) {
                Some(name) => (*name).into(),
                None => format!("{value:#x}"),
            },
            Self::Errno => match i32::try_from(value).ok().and_then(Errno::from_number) {
                Some(error) => error.to_string(),
                None => format!("{value:#x}"),
            },
            _ => format!("{value:#x}"),
        }
    }

    /// Reads what [`word`](Self::word) writes, and plain numbers.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn read(self, word: &str) -> Result<Value, String> {
        if let Some((prefix, names)) = self.names() {
            let mut value = 0;
            for part in word.split('|').map(str::trim) {
                let named = part
                    .strip_prefix(prefix)
                    .and_then(|name| names.iter().find(|(known, _)| *known == name));
                value |= match (named, number(part)) {
                    (Some((_, flag)), _) => *flag,
                    (None, Some(number)) => number,
                    (None, None) if part == "PROT_NONE" && self == Self::Prot => 0,
                    (None, None) => {
                        let all: Vec<_> = names
                            .iter()
                            .map(|(name, _)| format!("{prefix}{name}"))
                            .collect();
                        return Err(format!(
                            "expected a number or one of {}, found `{part}`",
                            all.join(", ")
                        ));
                    }
                };
            }
            return Ok(Value::Number(value));
        }
        let expected = |what: &str| Err(format!("expected {what}, found `{word}`"));
        match self {
            Self::Addr => {
                for (name, anchor) in Anchor::ALL {
                    let Some(rest) = word.strip_prefix(name) else {
                        continue;
                    };
                    let distance = match (rest.chars().next(), number(rest.get(1..).unwrap_or("")))
                    {
                        (None, _) => Some(0),
                        (Some('+'), Some(distance)) => i64::try_from(distance).ok(),
                        (Some('-'), Some(distance)) => {
                            i64::try_from(distance).ok().map(|distance| -distance)
                        }
                        _ => None,
                    };
                    return match distance {
                        Some(distance) => Ok(Value::At(anchor, distance)),
                        None => expected(&format!("{name}, {name}+NUMBER or {name}-NUMBER")),
                    };
                }
                match number(word) {
                    Some(number) => Ok(Value::Number(number)),
                    None => expected("an address: a number, or one from arena, heap or chosen on"),
                }
            }
            Self::File => match word {
                "-1" => Ok(Value::Number(NO_FILE)),
                _ if word.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                    Ok(Value::File(word.into()))
                }
                _ => expected("-1 or the name of a file"),
            },
            Self::Access => match word {
                "read" => Ok(Value::Number(0)),
                "write" => Ok(Value::Number(1)),
                _ => expected("read or write"),
            },
            Self::Advice => {
                let named = |advice: &&Advice| word == format!("MADV_{advice:?}");
                match (Advice::ALL.iter().find(named), number(word)) {
                    (Some(advice), _) => Ok(Value::Number(advice.0.into())),
                    (None, Some(number)) => Ok(Value::Number(number)),
                    (None, None) => expected("a number or a piece of advice, as MADV_DONTNEED"),
                }
            }
            Self::Hook => match Self::HOOKS.iter().position(|name| *name == word) {
                Some(place) => Ok(Value::Number(place as u64)),
                None => expected(&format!("one of {}", Self::HOOKS.join(", "))),
            },
            Self::Errno => match Self::errors().find(|error| error.to_string() == word) {
                Some(error) => Ok(Value::Number(error.number() as u64)),
                None => expected("an error that a mapping call can have, as ENOMEM"),
            },
            Self::Signed => {
                let value = match word.strip_prefix('-') {
                    Some(rest) => number(rest).map(|number| number.wrapping_neg()),
                    None => number(word),
                };
                match value {
                    Some(value) => Ok(Value::Number(value)),
                    None => expected("a number"),
                }
            }
            _ => match number(word) {
                Some(number) => Ok(Value::Number(number)),
                None => expected("a number"),
            },
        }
    }
}

/// `A|B` with a prefix on each name, and what has none as a number.
fn flags(value: u64, prefix: &str, names: &[(&str, u64)]) -> String {
    let mut rest = value;
    let mut words = Vec::new();
    for &(name, flag) in names {
        if flag != 0 && rest & flag == flag {
            rest &= !flag;
            words.push(format!("{prefix}{name}"));
        }
    }
    if value == 0 && prefix == "PROT_" {
        return "PROT_NONE".into();
    }
    if rest != 0 || words.is_empty() {
        words.push(format!("{rest:#x}"));
    }
    words.join("|")
}

/// Decimal, or hexadecimal after `0x`.
fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

impl Value {
    /// The number that it is in that world.
    ///
    /// # Errors
    /// What the world does not have.
    pub fn resolve(&self, world: &World) -> Result<u64, String> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::At(anchor, distance) => match anchor.place(world) {
                Some(place) => Ok(place.wrapping_add_signed(*distance)),
                None => Err(match anchor {
                    Anchor::Arena => "there is no arena".into(),
                    Anchor::Heap => "the heap may not be moved here".into(),
                    Anchor::Chosen => {
                        "it is not known here where the kernel chooses addresses".into()
                    }
                }),
            },
            Self::File(name) => {
                let place = world.files.iter().position(|file| file.name == *name);
                place.map(|place| place as u64).ok_or_else(|| {
                    let names: Vec<_> = world.files.iter().map(|file| &*file.name).collect();
                    format!(
                        "there is no file `{name}` here; there are {}",
                        names.join(", ")
                    )
                })
            }
        }
    }
}
