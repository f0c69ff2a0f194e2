// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Protection keys, on a processor that has them.

use vmalab_model::{
    Errno, File, Limits, Mmap, MremapFlags, Op, PAGE_SIZE, Prot, Rules, Signal, VmFlags,
};

use super::world::{BASE, World};

const RW: Prot = Prot(Prot::READ.0 | Prot::WRITE.0);
/// `PKEY_DISABLE_ACCESS`, `PKEY_DISABLE_WRITE`.
const NO_ACCESS: u64 = 1;
const NO_WRITE: u64 = 2;

fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

fn world(rules: Rules) -> World {
    let limits = Limits {
        pkeys: true,
        ..Limits::default()
    };
    World::with(rules, limits, File::device(64))
}

fn alloc(w: &mut World, rights: u64) -> Result<u64, Errno> {
    w.apply(&Op::PkeyAlloc { flags: 0, rights })
}

fn free(w: &mut World, pkey: i32) -> Result<u64, Errno> {
    w.apply(&Op::PkeyFree { pkey })
}

fn protect(w: &mut World, from: u64, to: u64, prot: Prot, pkey: i32) -> Result<u64, Errno> {
    w.apply(&Op::PkeyMprotect {
        addr: at(from),
        len: (to - from) * PAGE_SIZE,
        prot,
        pkey,
    })
}

/// The keys of the areas.
fn keys(w: &World) -> Vec<u8> {
    w.space.areas().map(|vma| vma.flags.key()).collect()
}

#[test]
fn a_key_is_part_of_an_area() {
    let mut w = world(Rules::V7_2);
    w.draw_in("Aaaaaa");
    assert_eq!((alloc(&mut w, 0), alloc(&mut w, 0)), (Ok(1), Ok(2)));
    assert_eq!(protect(&mut w, 1, 3, RW, 1), Ok(0));
    assert_eq!(protect(&mut w, 3, 5, RW, 2), Ok(0));
    assert_eq!((w.draw().as_str(), keys(&w)), ("AAaAaA", vec![0, 1, 2, 0]));
    // Plain mprotect keeps it, and so do a move and a fork.
    assert_eq!(protect(&mut w, 0, 6, Prot::READ, -1), Ok(0));
    assert_eq!((w.draw().as_str(), keys(&w)), ("RRrRrR", vec![0, 1, 2, 0]));
    let relocate = Op::Mremap {
        addr: at(1),
        old_len: 2 * PAGE_SIZE,
        new_len: 2 * PAGE_SIZE,
        flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
        new_addr: at(8),
    };
    assert_eq!(w.apply(&relocate), Ok(at(8)));
    w.apply(&Op::Fork).unwrap();
    assert_eq!(keys(&w), [0, 2, 0, 1]);
    // The same key merges again.
    assert_eq!(protect(&mut w, 3, 6, Prot::READ, 0), Ok(0));
    assert_eq!((w.draw().as_str(), keys(&w)), ("R..Rrr..Rr", vec![0, 0, 1]));
}

#[test]
fn keys_are_had_and_given_back() {
    let mut w = world(Rules::V7_2);
    let bad = |flags, rights| Op::PkeyAlloc { flags, rights };
    assert_eq!(w.apply(&bad(1, 0)), Err(Errno::EINVAL));
    assert_eq!(w.apply(&bad(0, 4)), Err(Errno::EINVAL));
    for key in 1..16 {
        assert_eq!(alloc(&mut w, 0), Ok(key));
    }
    assert_eq!(alloc(&mut w, 0), Err(Errno::ENOSPC));
    for pkey in [-1, 16, 100] {
        assert_eq!(free(&mut w, pkey), Err(Errno::EINVAL));
    }
    assert_eq!(free(&mut w, 5), Ok(0));
    assert_eq!(free(&mut w, 5), Err(Errno::EINVAL));
    w.draw_in("Aa");
    assert_eq!(protect(&mut w, 0, 2, RW, 5), Err(Errno::EINVAL));
    assert_eq!(alloc(&mut w, 0), Ok(5));
    // None is left for what is only executable, which is like all else then.
    assert_eq!(protect(&mut w, 0, 2, Prot::EXEC, -1), Ok(0));
    assert_eq!(keys(&w), [0]);
    assert_eq!(w.touch(0, false), Ok(()));

    // A processor without them.
    let mut w = World::new();
    assert_eq!(alloc(&mut w, 0), Err(Errno::ENOSPC));
    assert_eq!(free(&mut w, 0), Err(Errno::EINVAL));
}

#[test]
fn a_thread_may_do_what_its_register_says() {
    let mut w = world(Rules::V7_2);
    w.draw_in("Aaa");
    assert_eq!(alloc(&mut w, NO_ACCESS), Ok(1));
    assert_eq!(alloc(&mut w, NO_WRITE), Ok(2));
    protect(&mut w, 0, 1, RW, 1).unwrap();
    protect(&mut w, 1, 2, RW, 2).unwrap();
    for (page, write, answer) in [
        (0, false, Err(Errno::EFAULT)),
        (0, true, Err(Errno::EFAULT)),
        (1, false, Ok(())),
        (1, true, Err(Errno::EFAULT)),
        (2, true, Ok(())),
    ] {
        assert_eq!(w.touch(page, write), answer, "{page} {write}");
        assert_eq!(w.signal, answer.err().map(|_| Signal::Key));
    }
    // Who locks has pages faulted in, which writes to them.
    let lock = |page| Op::Mlock {
        addr: at(page),
        len: PAGE_SIZE,
        flags: Default::default(),
    };
    assert_eq!(w.apply(&lock(1)), Err(Errno::ENOMEM));
    assert_eq!(w.apply(&lock(2)), Ok(0));
}

/// It gets a key at the first time, which no program can name.
#[test]
fn execute_only_memory_has_a_key_of_its_own() {
    let mut w = world(Rules::V7_2);
    w.draw_in("Aaaa");
    alloc(&mut w, 0).unwrap();
    assert_eq!(protect(&mut w, 0, 2, Prot::EXEC, -1), Ok(0));
    assert_eq!(keys(&w), [2, 0]);
    let map = Op::Mmap(Mmap {
        prot: Prot::EXEC,
        ..Mmap::anonymous(at(6), PAGE_SIZE)
    });
    w.apply(&map).unwrap();
    assert_eq!(keys(&w), [2, 0, 2]);
    assert_eq!(w.touch(0, false), Err(Errno::EFAULT));
    assert_eq!(w.signal, Some(Signal::Key));
    assert_eq!(protect(&mut w, 0, 1, RW, 2), Err(Errno::EINVAL));
    assert_eq!(free(&mut w, 2), Err(Errno::EINVAL));
    // With a key of the program's it can be read.
    assert_eq!(protect(&mut w, 0, 1, Prot::EXEC, 1), Ok(0));
    assert_eq!(keys(&w), [1, 2, 0, 2]);
    assert_eq!(w.touch(0, false), Ok(()));
    // Any other protection takes it away.
    assert_eq!(protect(&mut w, 1, 2, Prot::empty(), -1), Ok(0));
    assert_eq!(keys(&w), [1, 0, 0, 2]);
}

#[test]
fn keys_by_the_kernels() {
    let mut w = world(Rules::V2_6_11);
    assert_eq!(alloc(&mut w, 0), Err(Errno::ENOSYS));
    assert_eq!(free(&mut w, 1), Err(Errno::ENOSYS));
    let einval = Err(Errno::EINVAL);
    for (rules, named, freed, reserved, kept, inherited) in [
        (Rules::V4_9, Ok(0), einval, false, 1, 1),
        (Rules::V4_12, einval, einval, false, 1, 1),
        (Rules::V5_10, Ok(0), Ok(0), true, 0, 2),
        (Rules::V7_2, Ok(0), Ok(0), true, 0, 2),
    ] {
        let name = rules.name;
        let mut w = world(rules);
        w.draw_in("Aa");
        assert_eq!(protect(&mut w, 0, 2, Prot::READ, 0), named, "{name}");
        // What is only executable keeps its key when nobody may do anything with it.
        protect(&mut w, 0, 2, Prot::EXEC, -1).unwrap();
        protect(&mut w, 0, 2, Prot::empty(), -1).unwrap();
        assert_eq!(keys(&w), [kept], "{name}");
        protect(&mut w, 0, 2, Prot::READ, -1).unwrap();
        let readable = w.touch(0, false).is_ok();
        assert_eq!(readable, kept == 0, "{name}");
        assert_eq!(free(&mut w, 1).is_err(), reserved, "{name}");

        let mut w = world(rules);
        assert_eq!(alloc(&mut w, 0), Ok(1), "{name}");
        w.apply(&Op::Fork).unwrap();
        assert_eq!(alloc(&mut w, 0), Ok(inherited), "{name}");
        assert_eq!(free(&mut w, 0), freed, "{name}");
    }
}

#[test]
fn a_key_has_a_number() {
    for key in 0..16 {
        assert_eq!((VmFlags::of_key(key) | VmFlags::READ).key(), key);
    }
    let bits = VmFlags::PKEY_BIT0 | VmFlags::PKEY_BIT3;
    assert_eq!(VmFlags::of_key(9), bits);
}
