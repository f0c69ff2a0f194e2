// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What older kernels did otherwise, as their source says: each difference on both of its sides.

use vmalab_model::file::{Hooks, Kind};
use vmalab_model::limits::Overcommit;
use vmalab_model::mempolicy::{mode, pages};
use vmalab_model::{
    AddressSpace, Advice, Allocation, Area, Backing, Break, Errno, File, Limits, MapFlags,
    MlockFlags, Mmap, Object, Op, PAGE_SIZE, Prot, Rules, VmFlags,
};

use super::world::{BASE, World};

fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

fn world(rules: Rules) -> World {
    World::with(rules, Limits::default(), File::device(64))
}

fn within(rules: Rules, limits: Limits) -> World {
    World::with(rules, limits, File::device(64))
}

/// Maps like [`World::map`], with more flags.
fn map_with(
    w: &mut World,
    letter: char,
    from: u64,
    to: u64,
    flags: MapFlags,
) -> Result<u64, Errno> {
    let mut args = w.args(letter, from, to);
    args.flags |= flags;
    w.apply(&Op::Mmap(args))
}

fn mbind(from: u64, to: u64, mode: u32, nodes: u64, flags: u32) -> Op {
    Op::Mbind {
        addr: at(from),
        len: (to - from) * PAGE_SIZE,
        mode,
        nodes,
        flags,
    }
}

// Drivers

/// A driver without `close`, so that its areas merge.
fn open_ended() -> File {
    File {
        hooks: Hooks {
            close: false,
            ..Hooks::ALL
        },
        ..File::device(64)
    }
}

#[test]
fn a_driver_once_heard_of_each_mapping() {
    for (rules, hooks) in [
        (Rules::V2_6_11, "mmap 2-4"),
        (Rules::V4_9, ""),
        (Rules::V7_2, ""),
    ] {
        let mut w = World::with(rules, Limits::default(), open_ended());
        w.draw_in("Dd");
        w.map('d', 2, 4).unwrap();
        assert_eq!(w.draw(), "Dddd", "{}", rules.name);
        assert_eq!(w.hooks(), hooks, "{}", rules.name);
    }
}

/// What the driver made of the flags may fit its neighbour; but only one below has the kernel think of that. In 2.6.11
/// the driver was asked before all merging.
#[test]
fn a_driver_that_changes_flags_was_asked_for_merging_twice() {
    let device = File {
        sets: VmFlags::DONTDUMP,
        ..open_ended()
    };
    for (rules, up, down) in [
        (Rules::V2_6_11, "Dddd", "Dddd"),
        (Rules::V4_9, "DdDd", "DdDd"),
        (Rules::V5_10, "Dddd", "DdDd"),
        (Rules::V6_1, "Dddd", "DdDd"),
        (Rules::V6_12, "Dddd", "DdDd"),
        (Rules::V6_18, "DdDd", "DdDd"),
    ] {
        let mut w = World::with(rules, Limits::default(), device);
        w.map('d', 0, 2).unwrap();
        w.map('d', 2, 4).unwrap();
        assert_eq!(
            (w.draw().as_str(), w.hooks()),
            (up, "mmap 2-4".into()),
            "{}",
            rules.name
        );
        let mut w = World::with(rules, Limits::default(), device);
        w.map('d', 2, 4).unwrap();
        w.map('d', 0, 2).unwrap();
        assert_eq!(w.draw(), down, "{}", rules.name);
    }
}

#[test]
fn no_driver_prepared_before_6_16() {
    let device = File {
        prepares: true,
        ..open_ended()
    };
    for (rules, hooks) in [(Rules::V6_12, ""), (Rules::V6_18, "mmap 2-4")] {
        let mut w = World::with(rules, Limits::default(), device);
        w.draw_in("Dd");
        w.map('d', 2, 4).unwrap();
        assert_eq!(w.hooks(), hooks, "{}", rules.name);
    }
}

#[test]
fn what_fork_leaves_out_once_never_merged() {
    let device = File {
        sets: VmFlags::DONTCOPY,
        ..open_ended()
    };
    for (rules, drawn) in [(Rules::V2_6_11, "DdDd"), (Rules::V5_10, "Dddd")] {
        let mut w = World::with(rules, Limits::default(), device);
        w.map('d', 0, 2).unwrap();
        w.map('d', 2, 4).unwrap();
        assert_eq!(w.draw(), drawn, "{}", rules.name);
    }
}

#[test]
fn what_never_merges_was_locked_once() {
    for (rules, locked) in [(Rules::V2_6_11, 4), (Rules::V4_9, 0), (Rules::V7_2, 0)] {
        let mut w = world(rules);
        map_with(&mut w, 'x', 0, 4, MapFlags::LOCKED).unwrap();
        assert_eq!(w.space.counters().locked_vm, locked, "{}", rules.name);
        w.unmap(0, 2).unwrap();
        assert_eq!(w.space.counters().locked_vm, locked / 2, "{}", rules.name);
    }
}

// Files

#[test]
fn what_cannot_be_mapped_is_found_out_first_or_last() {
    for (rules, of_nothing) in [
        (Rules::V2_6_11, Err(Errno::ENODEV)),
        (Rules::V4_9, Err(Errno::EINVAL)),
    ] {
        let mut w = world(rules);
        let file = w.space.add_file(File {
            kind: Kind::Unmappable,
            read: false,
            ..File::regular(4)
        });
        let mut args = Mmap {
            backing: Backing::File(file),
            ..w.args('f', 0, 0)
        };
        assert_eq!(w.apply(&Op::Mmap(args)), of_nothing, "{}", rules.name);
        // That it cannot be read is found out before, or not at all.
        args.len = PAGE_SIZE;
        let of_page = match of_nothing {
            Err(Errno::ENODEV) => Errno::ENODEV,
            _ => Errno::EACCES,
        };
        assert_eq!(w.apply(&Op::Mmap(args)), Err(of_page), "{}", rules.name);
    }
}

#[test]
fn a_file_on_noexec_could_be_made_executable() {
    for (rules, later) in [
        (Rules::V2_6_11, Ok(0)),
        (Rules::V4_9, Err(Errno::EACCES)),
        (Rules::V7_2, Err(Errno::EACCES)),
    ] {
        let mut w = world(rules);
        let file = w.space.add_file(File {
            noexec: true,
            ..File::regular(4)
        });
        let mut args = Mmap {
            backing: Backing::File(file),
            prot: Prot::READ | Prot::EXEC,
            ..w.args('f', 0, 1)
        };
        assert_eq!(w.apply(&Op::Mmap(args)), Err(Errno::EPERM));
        args.prot = Prot::READ;
        w.apply(&Op::Mmap(args)).unwrap();
        let op = Op::Mprotect {
            addr: at(0),
            len: PAGE_SIZE,
            prot: Prot::READ | Prot::EXEC,
        };
        assert_eq!(w.apply(&op), later, "{}", rules.name);
    }
}

#[test]
fn files_once_had_no_largest_size() {
    let far = 1 << 63;
    for (rules, answer) in [
        (Rules::V2_6_11, Ok(at(0))),
        (Rules::V4_12, Ok(at(0))),
        (Rules::V5_10, Err(Errno::EOVERFLOW)),
        (Rules::V7_2, Err(Errno::EOVERFLOW)),
    ] {
        let mut w = world(rules);
        let args = Mmap {
            offset: far,
            ..w.args('f', 0, 1)
        };
        assert_eq!(w.apply(&Op::Mmap(args)), answer, "{}", rules.name);
        if answer.is_ok() {
            assert_eq!(w.touch(0, false), Err(Errno::EFAULT));
        }
    }
}

/// There is as much of the object as was mapped of it, and the mapping begins behind.
#[test]
fn shared_memory_began_at_the_offset_given() {
    for (rules, offset, touched) in [
        (Rules::V2_6_11, 3 * PAGE_SIZE, Err(Errno::EFAULT)),
        (Rules::V4_9, 0, Ok(())),
    ] {
        let mut w = world(rules);
        let args = Mmap {
            flags: MapFlags::SHARED | MapFlags::ANONYMOUS | MapFlags::FIXED,
            offset: 3 * PAGE_SIZE,
            ..w.args('a', 0, 2)
        };
        w.apply(&Op::Mmap(args)).unwrap();
        assert_eq!(w.space.find_vma(at(0)).unwrap().area().offset, offset);
        assert_eq!(w.touch(0, true), touched, "{}", rules.name);
    }
}

#[test]
fn flags_mean_nothing_before_they_are_known() {
    let flags = |rules, more| {
        let mut w = world(rules);
        map_with(&mut w, 'a', 0, 1, more).map(|_| w.space.find_vma(at(0)).unwrap().flags)
    };
    // Of what is mapped privately, it is remembered and no more.
    assert!(
        !flags(Rules::V4_12, MapFlags::SYNC)
            .unwrap()
            .contains(VmFlags::SYNC)
    );
    assert!(
        flags(Rules::V5_10, MapFlags::SYNC)
            .unwrap()
            .contains(VmFlags::SYNC)
    );
    assert!(flags(Rules::V2_6_11, MapFlags::HUGETLB).is_ok());
    assert_eq!(flags(Rules::V4_9, MapFlags::HUGETLB), Err(Errno::EINVAL));

    let above = Mmap {
        addr: 0,
        len: PAGE_SIZE,
        prot: Prot::READ,
        flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::ABOVE4G,
        backing: Backing::None,
        offset: 0,
    };
    let low = Limits {
        mmap_base: 1 << 31,
        ..Limits::default()
    };
    let chosen = |rules| within(rules, low).apply(&Op::Mmap(above)).unwrap();
    assert!(chosen(Rules::V6_1) < 1 << 32);
    assert!(chosen(Rules::V6_12) >= 1 << 32);
    // And is not among the flags of old, which are always taken.
    let checked = |rules| {
        let mut w = world(rules);
        let mut args = w.args('f', 0, 1);
        args.flags = MapFlags::SHARED_VALIDATE | MapFlags::FIXED | MapFlags::ABOVE4G;
        w.apply(&Op::Mmap(args)).map(drop)
    };
    assert_eq!(checked(Rules::V6_1), Err(Errno::EOPNOTSUPP));
    assert_eq!(checked(Rules::V6_12), Ok(()));
}

// Policies

#[test]
fn pages_of_others_are_moved_by_the_capable() {
    let weak = Limits {
        cap_sys_nice: false,
        ..Limits::default()
    };
    let ask = |rules, limits, flags| {
        let mut w = within(rules, limits);
        w.draw_in("Aaaa");
        w.apply(&mbind(0, 4, mode::BIND, 1, flags))
    };
    let strong = Limits::default();
    for rules in [Rules::V4_9, Rules::V7_2] {
        assert_eq!(ask(rules, strong, pages::MOVE_ALL | pages::STRICT), Ok(0));
        assert_eq!(ask(rules, weak, pages::MOVE_ALL), Err(Errno::EPERM));
        assert_eq!(ask(rules, weak, pages::MOVE), Ok(0));
        assert_eq!(ask(rules, weak, pages::MOVE_ALL << 1), Err(Errno::EINVAL));
    }
    assert_eq!(ask(Rules::V2_6_11, strong, pages::STRICT), Ok(0));
    assert_eq!(ask(Rules::V2_6_11, strong, pages::MOVE), Err(Errno::EINVAL));
    assert_eq!(
        ask(Rules::V2_6_11, strong, pages::MOVE_ALL),
        Err(Errno::EINVAL)
    );
}

#[test]
fn a_policy_began_in_holes() {
    for (rules, ok) in [(Rules::V2_6_11, true), (Rules::V4_9, false)] {
        let answer = if ok { Ok(0) } else { Err(Errno::EFAULT) };
        let mut w = world(rules);
        w.draw_in("....Aaaa");
        // Wholly in a hole; from a hole; and where nothing is above.
        assert_eq!(
            w.apply(&mbind(0, 2, mode::BIND, 1, 0)),
            answer,
            "{}",
            rules.name
        );
        assert_eq!(
            w.apply(&mbind(2, 6, mode::BIND, 1, 0)),
            answer,
            "{}",
            rules.name
        );
        assert_eq!(w.draw(), if ok { "....AaAa" } else { "....Aaaa" });
        assert_eq!(w.apply(&mbind(9, 10, mode::BIND, 1, 0)), Err(Errno::EFAULT));
    }
}

#[test]
fn a_policy_cut_even_what_had_it() {
    for (rules, drawn) in [(Rules::V2_6_11, "AAaA"), (Rules::V4_9, "Aaaa")] {
        let mut w = world(rules);
        w.draw_in("Aaaa");
        w.apply(&mbind(1, 3, mode::DEFAULT, 0, 0)).unwrap();
        assert_eq!(w.draw(), drawn, "{}", rules.name);
    }
}

#[test]
fn a_policy_needed_all_its_nodes() {
    for (rules, answer) in [(Rules::V2_6_11, Err(Errno::EINVAL)), (Rules::V4_9, Ok(0))] {
        let mut w = world(rules);
        w.draw_in("Aaaa");
        assert_eq!(
            w.apply(&mbind(0, 4, mode::BIND, 3, 0)),
            answer,
            "{}",
            rules.name
        );
    }
}

// Limits

#[test]
fn the_break_was_bounded_otherwise() {
    //      code  data  -gap-  heap
    //  0    |2    |3-4         |8-10
    let heap = Break {
        start: at(8),
        end: at(10),
        program_data: PAGE_SIZE,
        data_start: at(3),
        code_end: at(2),
    };
    let limits = Limits {
        data: 5 * PAGE_SIZE,
        ..Limits::default()
    };
    let brk = |rules, limits, to| {
        let mut w = within(rules, limits);
        w.space.set_break(heap);
        w.map('a', 8, 10).unwrap();
        let answer = w.apply(&Op::Brk { addr: at(to) }).unwrap();
        (answer - BASE) / PAGE_SIZE
    };
    let free = Limits::default();
    for rules in [Rules::V4_9, Rules::V7_2] {
        // Two pages of heap, one of data: two more are within the limit of five.
        assert_eq!(brk(rules, limits, 12), 12, "{}", rules.name);
        assert_eq!(brk(rules, limits, 13), 10, "{}", rules.name);
        assert_eq!(brk(rules, free, 7), 10, "{}", rules.name);
    }
    // From page 3 on there are more than five already, which keeps it from growing alone.
    assert_eq!(brk(Rules::V2_6_11, limits, 11), 10);
    assert_eq!(brk(Rules::V2_6_11, limits, 9), 9);
    let tight = Limits { data: 0, ..free };
    assert_eq!(brk(Rules::V4_9, tight, 9), 10);
    // And it goes down to the code.
    assert_eq!(brk(Rules::V2_6_11, free, 3), 3);
    assert_eq!(brk(Rules::V2_6_11, free, 1), 10);
}

#[test]
fn the_limit_on_data_was_of_the_heap_alone() {
    let limits = Limits {
        data: 4 * PAGE_SIZE,
        ..Limits::default()
    };
    for (rules, fifth) in [
        (Rules::V2_6_11, Ok(())),
        (Rules::V4_9, Err(Errno::ENOMEM)),
        (Rules::V7_2, Err(Errno::ENOMEM)),
    ] {
        let mut w = within(rules, limits);
        w.map('a', 0, 4).unwrap();
        assert_eq!(w.map('a', 4, 5), fifth, "{}", rules.name);
        // What is not private and writable is free of it.
        w.map('r', 5, 9).unwrap();
        w.map('f', 9, 12).unwrap();
    }
}

/// Valgrind sets the soft limit to 0, to have no heap but its own.
#[test]
fn a_limit_of_nothing_is_the_hard_one() {
    let limits = Limits {
        data: 0,
        data_max: 4 * PAGE_SIZE,
        ..Limits::default()
    };
    let mut w = within(Rules::V7_2, limits);
    w.map('a', 0, 4).unwrap();
    assert_eq!(w.map('a', 4, 5), Err(Errno::ENOMEM));
    w.space.set_break(Break::empty(at(8)));
    assert_eq!(w.apply(&Op::Brk { addr: at(9) }), Ok(at(8)));
}

#[test]
fn all_there_is_was_too_much() {
    let limits = Limits {
        overcommit: Overcommit::Guess { total: 4 },
        ..Limits::default()
    };
    for (rules, all) in [
        (Rules::V2_6_11, Err(Errno::ENOMEM)),
        (Rules::V4_12, Err(Errno::ENOMEM)),
        (Rules::V5_10, Ok(())),
    ] {
        let mut w = within(rules, limits);
        assert_eq!(w.map('a', 0, 4), all, "{}", rules.name);
        assert_eq!(w.map('a', 4, 7), Ok(()));
        assert_eq!(w.map('a', 8, 13), Err(Errno::ENOMEM));
    }
}

#[test]
fn what_is_locked_already_counted_twice() {
    let limits = Limits {
        memlock: 4 * PAGE_SIZE,
        cap_ipc_lock: false,
        ..Limits::default()
    };
    for (rules, again) in [(Rules::V2_6_11, Err(Errno::ENOMEM)), (Rules::V4_9, Ok(0))] {
        let mut w = within(rules, limits);
        w.map('a', 0, 4).unwrap();
        let lock = Op::Mlock {
            addr: at(0),
            len: 3 * PAGE_SIZE,
            flags: MlockFlags::empty(),
        };
        assert_eq!(w.apply(&lock), Ok(0));
        assert_eq!(w.apply(&lock), again, "{}", rules.name);
    }
}

// Stacks

#[test]
fn a_guard_page_was_free() {
    let limits = Limits {
        stack: 3 * PAGE_SIZE,
        ..Limits::default()
    };
    // From page 14 on a stack of two pages; another one is used, and in 4.9 one more below it not.
    let lowest = 13;
    for (rules, start) in [(Rules::V2_6_11, 13), (Rules::V4_9, 12), (Rules::V4_12, 13)] {
        let mut w = within(rules, limits);
        map_with(&mut w, 'a', 14, 16, MapFlags::GROWSDOWN).unwrap();
        assert_eq!(
            w.touch(lowest - 1, true),
            Err(Errno::EFAULT),
            "{}",
            rules.name
        );
        assert_eq!(w.touch(lowest, true), Ok(()), "{}", rules.name);
        assert_eq!(w.space.find_vma(at(0)).unwrap().start, at(start));
    }
}

#[test]
fn a_stack_grew_below_the_least_address() {
    let floor = 4 * PAGE_SIZE;
    let grows = |rules, cap_sys_rawio| {
        let limits = Limits {
            mmap_min_addr: floor,
            cap_sys_rawio,
            stack_guard_gap: 0,
            ..Limits::default()
        };
        let mut space: AddressSpace = AddressSpace::new(rules, limits);
        space.apply(&Op::Mmap(Mmap {
            addr: floor,
            len: PAGE_SIZE,
            prot: Prot::READ | Prot::WRITE,
            flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED | MapFlags::GROWSDOWN,
            backing: Backing::None,
            offset: 0,
        }));
        let addr = floor - PAGE_SIZE;
        space.execute(&Op::Touch { addr, write: true }).is_ok()
    };
    for (rules, root, others) in [
        (Rules::V2_6_11, true, true),
        (Rules::V4_9, true, false),
        (Rules::V4_12, true, false),
        (Rules::V5_10, false, false),
    ] {
        assert_eq!(grows(rules, true), root, "{}", rules.name);
        assert_eq!(grows(rules, false), others, "{}", rules.name);
    }
}

// userfaultfd

#[test]
fn more_came_to_be_watched() {
    let watch = |rules, letter, flags: MapFlags| {
        let mut w = world(rules);
        map_with(&mut w, letter, 0, 2, flags).unwrap();
        w.apply(&Op::UffdRegister {
            addr: at(0),
            len: PAGE_SIZE,
        })
    };
    let none = MapFlags::empty();
    assert_eq!(watch(Rules::V2_6_11, 'a', none), Err(Errno::ENOSYS));
    assert_eq!(watch(Rules::V4_9, 'a', none), Ok(0));
    assert_eq!(watch(Rules::V4_9, 'd', none), Err(Errno::EINVAL));
    let shared = |rules| {
        let mut w = world(rules);
        let mut args = w.args('a', 0, 2);
        args.flags = MapFlags::SHARED | MapFlags::ANONYMOUS | MapFlags::FIXED;
        w.apply(&Op::Mmap(args)).unwrap();
        w.apply(&Op::UffdRegister {
            addr: at(0),
            len: PAGE_SIZE,
        })
    };
    assert_eq!(shared(Rules::V4_9), Err(Errno::EINVAL));
    assert_eq!(shared(Rules::V4_12), Ok(0));
    // A memory file is shared memory, and no other file is.
    let of = |kind, answer| {
        let mut w = world(Rules::V7_2);
        let file = w.space.add_file(File {
            kind,
            ..File::regular(4)
        });
        let args = Mmap {
            backing: Backing::File(file),
            ..w.args('f', 0, 2)
        };
        w.apply(&Op::Mmap(args)).unwrap();
        let watch = Op::UffdRegister {
            addr: at(0),
            len: PAGE_SIZE,
        };
        assert_eq!(w.apply(&watch), answer);
    };
    of(Kind::Shmem, Ok(0));
    of(Kind::Regular, Err(Errno::EINVAL));
}

#[test]
fn what_may_not_be_written_was_watched() {
    for (rules, answer) in [(Rules::V4_12, Ok(0)), (Rules::V5_10, Err(Errno::EPERM))] {
        let mut w = world(rules);
        let area = Area {
            start: at(0),
            end: at(2),
            flags: VmFlags::READ | VmFlags::MAYREAD,
            offset: at(0),
            object: Object::Anon,
            anon_vma: None,
            name: None,
        };
        w.space.restore(area, false).unwrap();
        let watch = Op::UffdRegister {
            addr: at(0),
            len: PAGE_SIZE,
        };
        assert_eq!(w.apply(&watch), answer, "{}", rules.name);
    }
}

#[test]
fn moves_of_what_is_watched_were_not_told() {
    for (rules, told) in [(Rules::V4_9, 0), (Rules::V4_12, 1)] {
        let mut w = world(rules);
        w.map('a', 0, 2).unwrap();
        w.apply(&Op::UffdRegister {
            addr: at(0),
            len: 2 * PAGE_SIZE,
        })
        .unwrap();
        w.space
            .execute(&Op::Madvise {
                addr: at(0),
                len: PAGE_SIZE,
                advice: Advice::DONTNEED,
            })
            .unwrap();
        assert_eq!(w.space.events().len(), told, "{}", rules.name);
    }
}

// Memory of the kernel's own

/// Without chains, an area is tied to its `anon_vma` by the area itself.
#[test]
fn a_piece_took_no_memory_to_be_tied() {
    for (rules, refused) in [(Rules::V2_6_11, false), (Rules::V4_9, true)] {
        let mut w = world(rules);
        w.draw_in("Aaaa");
        w.touch(0, true).unwrap();
        w.space.fail_nth_allocation(Allocation::AnonVma, 1);
        assert_eq!(w.unmap(1, 2).is_err(), refused, "{}", rules.name);
        assert_eq!(w.space.is_allocation_to_fail(), !refused);
    }
}
