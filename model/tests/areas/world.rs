// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! A small address space that is drawn one letter a page: the first page of an area as a capital, a
//! hole as a dot.
//!
//! Letters: `a` private anonymous memory, writable; `r` the same, read-only; `d` a device with all
//! hooks; `f` a file without hooks; `x` a device with hooks that forbids growing (`VM_DONTEXPAND`).
//! Files are mapped shared, each page at its own number as the offset.

use std::fmt::Write as _;

use vmalab_model::{
    AddressSpace, Area, Backing, Errno, File, FileId, Hook, HookCall, Limits, MapFlags, Mmap,
    Object, Op, PAGE_SIZE, Prot, Rules, Signal, VmFlags,
};

pub(crate) const BASE: u64 = 0x10_0000;
/// Pages that are drawn.
const WIDTH: u64 = 16;

pub(crate) struct World {
    pub(crate) space: AddressSpace,
    pub(crate) device: FileId,
    file: FileId,
    fixed: FileId,
    /// The hook calls of the last operation.
    pub(crate) calls: Vec<HookCall>,
    /// What it would have raised.
    pub(crate) signal: Option<Signal>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Rules::V7_2, Limits::default(), File::device(64))
    }

    pub(crate) fn with(rules: Rules, limits: Limits, device: File) -> Self {
        let mut space = AddressSpace::new(rules, limits);
        let device = space.add_file(device);
        let file = space.add_file(File::regular(64));
        let fixed = space.add_file(File {
            sets: VmFlags::DONTEXPAND,
            ..File::device(64)
        });
        Self {
            space,
            device,
            file,
            fixed,
            calls: Vec::new(),
            signal: None,
        }
    }

    /// Applies an operation, and checks what must always hold.
    pub(crate) fn apply(&mut self, op: &Op) -> Result<u64, Errno> {
        let before = self.space.clone();
        let outcome = self.space.apply(op);
        self.space.check_invariants().unwrap();
        self.space
            .check_merged(&before, op, outcome.result)
            .unwrap();
        self.calls = outcome.hooks;
        self.signal = outcome.signal;
        outcome.result
    }

    /// The arguments that map pages `from..to` of that letter.
    pub(crate) fn args(&self, letter: char, from: u64, to: u64) -> Mmap {
        let (flags, backing) = match letter {
            'a' | 'r' => (MapFlags::PRIVATE | MapFlags::ANONYMOUS, Backing::None),
            'd' => (MapFlags::SHARED, Backing::File(self.device)),
            'f' => (MapFlags::SHARED, Backing::File(self.file)),
            'x' => (MapFlags::SHARED, Backing::File(self.fixed)),
            _ => panic!("no such letter: {letter}"),
        };
        Mmap {
            addr: BASE + from * PAGE_SIZE,
            len: (to - from) * PAGE_SIZE,
            prot: if letter == 'r' {
                Prot::READ
            } else {
                Prot::READ | Prot::WRITE
            },
            flags: flags | MapFlags::FIXED,
            backing,
            offset: from * PAGE_SIZE,
        }
    }

    pub(crate) fn map(&mut self, letter: char, from: u64, to: u64) -> Result<(), Errno> {
        let args = self.args(letter, from, to);
        self.apply(&Op::Mmap(args)).map(drop)
    }

    /// Maps what is drawn.
    pub(crate) fn draw_in(&mut self, picture: &str) {
        let letters: Vec<char> = picture.chars().collect();
        let mut from = 0;
        while from < letters.len() {
            let mut to = from + 1;
            while to < letters.len() && letters[to].is_ascii_lowercase() {
                to += 1;
            }
            if letters[from] != '.' {
                let letter = letters[from].to_ascii_lowercase();
                self.map(letter, from as u64, to as u64).unwrap();
            }
            from = to;
        }
        assert_eq!(self.draw(), picture, "neighbours merged");
    }

    pub(crate) fn unmap(&mut self, from: u64, to: u64) -> Result<(), Errno> {
        self.apply(&Op::Munmap {
            addr: BASE + from * PAGE_SIZE,
            len: (to - from) * PAGE_SIZE,
        })
        .map(drop)
    }

    pub(crate) fn touch(&mut self, page: u64, write: bool) -> Result<(), Errno> {
        self.apply(&Op::Touch {
            addr: BASE + page * PAGE_SIZE,
            write,
        })
        .map(drop)
    }

    /// Marks all areas that hold pages `from..to` as sealed, by putting them back so.
    pub(crate) fn seal(&mut self, from: u64, to: u64) {
        let area = self
            .space
            .areas()
            .map(|vma| vma.area())
            .find(|area| area.start == BASE + from * PAGE_SIZE)
            .unwrap();
        self.unmap(from, to).unwrap();
        self.space
            .restore(
                Area {
                    flags: area.flags | VmFlags::SEALED,
                    ..area
                },
                false,
            )
            .unwrap();
    }

    pub(crate) fn draw(&self) -> String {
        let mut picture = vec!['.'; WIDTH as usize];
        for vma in self.space.areas() {
            let letter = match vma.object {
                Object::Anon if vma.flags.contains(VmFlags::WRITE) => 'a',
                Object::Anon => 'r',
                Object::File(id) if id == self.device => 'd',
                Object::File(id) if id == self.file => 'f',
                Object::File(_) => 'x',
                Object::Shmem(_) | Object::Other => '?',
            };
            for page in (vma.start - BASE) / PAGE_SIZE..(vma.end - BASE) / PAGE_SIZE {
                let first = vma.start == BASE + page * PAGE_SIZE;
                picture[page as usize] = if first {
                    letter.to_ascii_uppercase()
                } else {
                    letter
                };
            }
        }
        String::from_iter(picture).trim_end_matches('.').into()
    }

    /// The hook calls of the last operation, in pages.
    pub(crate) fn hooks(&self) -> String {
        let mut text = String::new();
        for call in &self.calls {
            let page = |addr: u64| (addr - BASE) / PAGE_SIZE;
            let (from, to) = (page(call.start), page(call.end));
            let sep = if text.is_empty() { "" } else { ", " };
            match call.hook {
                Hook::Mmap => write!(text, "{sep}mmap {from}-{to}"),
                Hook::Open => write!(text, "{sep}open {from}-{to}"),
                Hook::Close => write!(text, "{sep}close {from}-{to}"),
                Hook::MaySplit { addr } => {
                    write!(text, "{sep}may_split {from}-{to} at {}", page(addr))
                }
                Hook::Mapped => write!(text, "{sep}mapped {from}-{to}"),
                Hook::Mremap => write!(text, "{sep}mremap {from}-{to}"),
                Hook::Mprotect { start, end, .. } => {
                    write!(
                        text,
                        "{sep}mprotect {}-{} of {from}-{to}",
                        page(start),
                        page(end)
                    )
                }
                Hook::Fault { addr, .. } => write!(text, "{sep}fault {}", page(addr)),
            }
            .unwrap();
            // Other pages than those of the same numbers.
            if call.offset != from * PAGE_SIZE {
                write!(text, " of page {}", call.offset / PAGE_SIZE).unwrap();
            }
        }
        text
    }
}
