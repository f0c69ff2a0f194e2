// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What is left when a driver refuses half way, drawn. Each was seen of the kernel's own code.

use vmalab_model::{
    Asked, Backing, Errno, File, Limits, MapFlags, MremapFlags, Op, PAGE_SIZE, Prot, Rules, VmFlags,
};

use crate::world::{BASE, World};

impl World {
    /// The device refuses the `nth` call of a hook from now on.
    fn steer(&mut self, hook: Asked, nth: u32) -> Result<u64, Errno> {
        let file = Backing::File(self.device);
        self.apply(&Op::Steer {
            file,
            hook,
            nth,
            error: Errno::EBUSY,
        })
    }

    fn accounted(&self) -> Vec<bool> {
        let areas = self.space.areas();
        let accounted = areas.map(|vma| vma.flags.contains(VmFlags::ACCOUNT));
        accounted.collect()
    }
}

#[test]
fn the_second_cut_of_an_munmap_is_refused_and_the_first_stays() {
    let mut w = World::new();
    w.draw_in("Dddddddd");
    w.steer(Asked::MaySplit, 2).unwrap();
    assert_eq!(w.unmap(2, 5), Err(Errno::EBUSY));
    assert_eq!(w.draw(), "DdDddddd");
    assert_eq!(
        w.hooks(),
        "may_split 0-8 at 2, open 0-2, may_split 2-8 at 5"
    );
    // Only once.
    w.unmap(2, 5).unwrap();
    assert_eq!(w.draw(), "Dd...Ddd");
}

#[test]
fn a_new_area_that_is_refused_goes_again() {
    let mut w = World::with(
        Rules::V7_2,
        Limits::default(),
        File {
            prepares: true,
            ..File::device(64)
        },
    );
    w.draw_in("Aaaaaa");
    w.steer(Asked::Mapped, 1).unwrap();
    assert_eq!(w.map('d', 2, 4), Err(Errno::EBUSY));
    assert_eq!(w.draw(), "Aa..Aa");
    assert_eq!(w.hooks(), "mmap 2-4, mapped 2-4, close 2-4");
    assert_eq!(w.space.counters().total_vm, 4);
}

/// The pages have moved, and both areas stay; the source counts against the commit limit no more.
#[test]
fn a_source_that_cannot_be_unmapped_stays_without_its_charge() {
    let mut w = World::new();
    let mut args = w.args('d', 0, 4);
    args.flags = MapFlags::PRIVATE | MapFlags::FIXED;
    w.apply(&Op::Mmap(args)).unwrap();
    assert_eq!(w.accounted(), [true]);
    // Asked twice before anything moves, and then for the first cut.
    w.steer(Asked::MaySplit, 3).unwrap();
    let moved = w.apply(&Op::Mremap {
        addr: BASE + PAGE_SIZE,
        old_len: 2 * PAGE_SIZE,
        new_len: 2 * PAGE_SIZE,
        flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
        new_addr: BASE + 8 * PAGE_SIZE,
    });
    assert_eq!(moved, Ok(BASE + 8 * PAGE_SIZE));
    assert_eq!(w.draw(), "Dddd....Dd");
    assert_eq!(w.accounted(), [false, true]);
}

#[test]
fn what_was_protected_before_a_refusal_stays_so() {
    let mut w = World::new();
    w.draw_in("DddXxxDdd");
    w.steer(Asked::Mprotect, 2).unwrap();
    let protect = Op::Mprotect {
        addr: BASE,
        len: 9 * PAGE_SIZE,
        prot: Prot::READ,
    };
    assert_eq!(w.apply(&protect), Err(Errno::EBUSY));
    let writable = w
        .space
        .areas()
        .map(|vma| vma.flags.contains(VmFlags::WRITE));
    assert_eq!(Vec::from_iter(writable), [false, false, true]);
}

#[test]
fn a_driver_forgets_what_it_was_told_before() {
    let mut w = World::new();
    w.draw_in("Dddd");
    w.steer(Asked::MaySplit, 1).unwrap();
    w.steer(Asked::Mremap, 1).unwrap();
    w.unmap(1, 2).unwrap();
    w.steer(Asked::MaySplit, 1).unwrap();
    w.steer(Asked::MaySplit, 0).unwrap();
    w.unmap(2, 3).unwrap();
    assert_eq!(w.draw(), "D..D");
}

#[test]
fn only_drivers_can_be_told() {
    let mut w = World::new();
    let steer = |file| Op::Steer {
        file,
        hook: Asked::Mmap,
        nth: 1,
        error: Errno::EBUSY,
    };
    assert_eq!(w.apply(&steer(Backing::None)), Err(Errno::EBADF));
    let file = w.args('f', 0, 1).backing;
    assert_eq!(w.apply(&steer(file)), Err(Errno::ENOTTY));
}
