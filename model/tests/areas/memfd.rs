// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Memory files that are sealed against writing, by the kernels.

use vmalab_model::file::WriteSeal;
use vmalab_model::{
    Advice, Backing, Errno, File, Limits, MapFlags, Mmap, Op, PAGE_SIZE, Prot, Rules, VmFlags,
};

use super::world::{BASE, World};

const RW: Prot = Prot(Prot::READ.0 | Prot::WRITE.0);

fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

/// With a memory file that is sealed so, as `d`.
fn sealed(rules: Rules, write_seal: WriteSeal) -> World {
    let file = File::sealed_memfd(64, write_seal);
    World::with(rules, Limits::default(), file)
}

fn shared(w: &World, from: u64, to: u64, prot: Prot) -> Op {
    Op::Mmap(Mmap {
        prot,
        ..w.args('d', from, to)
    })
}

/// What a shared mapping in the middle of other memory answers, and what is there then.
fn over(rules: Rules, seal: WriteSeal, prot: Prot) -> (Result<u64, Errno>, String) {
    let mut w = sealed(rules, seal);
    w.draw_in("Aaaa");
    let op = shared(&w, 1, 3, prot);
    (w.apply(&op), w.draw())
}

#[test]
fn a_seal_against_writing() {
    let refused = |drawn: &str| (Err(Errno::EPERM), drawn.to_string());
    let mapped = || (Ok(at(1)), "ADdA".to_string());
    for (rules, writing, reading) in [
        // There is no such seal.
        (Rules::V2_6_11, mapped(), mapped()),
        (Rules::V4_9, refused("A..A"), refused("A..A")),
        (Rules::V4_12, refused("A..A"), refused("A..A")),
        (Rules::V5_10, refused("Aaaa"), mapped()),
        (Rules::V6_1, refused("Aaaa"), mapped()),
        (Rules::V6_12, refused("Aaaa"), mapped()),
        (Rules::V7_2, refused("Aaaa"), mapped()),
    ] {
        assert_eq!(over(rules, WriteSeal::Write, RW), writing, "{}", rules.name);
        let read = over(rules, WriteSeal::Write, Prot::READ);
        assert_eq!(read, reading, "{}", rules.name);
    }
}

#[test]
fn a_seal_for_the_future() {
    let refused = |drawn: &str| (Err(Errno::EPERM), drawn.to_string());
    let mapped = || (Ok(at(1)), "ADdA".to_string());
    for (rules, writing) in [
        (Rules::V4_12, mapped()),
        (Rules::V5_10, refused("A..A")),
        (Rules::V6_1, refused("A..A")),
        (Rules::V6_12, refused("Aaaa")),
        (Rules::V7_2, refused("Aaaa")),
    ] {
        let write = over(rules, WriteSeal::FutureWrite, RW);
        assert_eq!(write, writing, "{}", rules.name);
        let read = over(rules, WriteSeal::FutureWrite, Prot::READ);
        assert_eq!(read, mapped(), "{}", rules.name);
    }
}

/// It never becomes writable, by whatever call, and merges with its like.
#[test]
fn what_is_sealed_is_read() {
    for seal in [WriteSeal::Write, WriteSeal::FutureWrite] {
        for rules in [Rules::V5_10, Rules::V7_2] {
            let mut w = sealed(rules, seal);
            for (from, to) in [(0, 2), (4, 6), (2, 4)] {
                let op = shared(&w, from, to, Prot::READ);
                w.apply(&op).unwrap();
            }
            assert_eq!(w.draw(), "Dddddd");
            let flags = w.space.areas().next().unwrap().flags;
            assert!(flags.contains(VmFlags::SHARED | VmFlags::MAYREAD));
            assert!(!flags.contains(VmFlags::MAYWRITE));
            let protect = Op::Mprotect {
                addr: at(0),
                len: PAGE_SIZE,
                prot: RW,
            };
            assert_eq!(w.apply(&protect), Err(Errno::EACCES));
            // Pages cannot be punched out of it, either.
            let remove = Op::Madvise {
                addr: at(0),
                len: PAGE_SIZE,
                advice: Advice::REMOVE,
            };
            assert_eq!(w.apply(&remove), Err(Errno::EACCES));
            let remap = Op::RemapFilePages {
                addr: at(0),
                len: PAGE_SIZE,
                prot: Prot::empty(),
                pgoff: 9,
                flags: MapFlags::empty(),
            };
            assert_eq!(w.apply(&remap), Ok(0));
            assert_eq!(w.draw(), "DDdddd");
            assert_eq!(w.apply(&protect), Err(Errno::EACCES));
        }
    }
}

/// Privately, or opened for reading alone, it is a file like any other.
#[test]
fn a_seal_is_of_what_is_shared_for_writing() {
    for &rules in Rules::all() {
        for write_seal in [WriteSeal::Write, WriteSeal::FutureWrite] {
            let mut w = sealed(rules, write_seal);
            let private = Mmap {
                flags: MapFlags::PRIVATE | MapFlags::FIXED,
                ..w.args('d', 0, 2)
            };
            assert_eq!(w.apply(&Op::Mmap(private)), Ok(at(0)), "{}", rules.name);
            assert_eq!(w.touch(0, true), Ok(()));

            let reading = w.space.add_file(File {
                write: false,
                ..File::sealed_memfd(64, write_seal)
            });
            let mut args = Mmap {
                prot: Prot::READ,
                backing: Backing::File(reading),
                ..w.args('d', 4, 6)
            };
            assert_eq!(w.apply(&Op::Mmap(args)), Ok(at(4)), "{}", rules.name);
            args.prot = RW;
            assert_eq!(w.apply(&Op::Mmap(args)), Err(Errno::EACCES));
        }
    }
}
