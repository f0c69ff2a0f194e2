// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Where the kernel puts what it may put anywhere, and the most pages there ever were.

use vmalab_model::{
    AddressSpace, Backing, File, Limits, MapFlags, Mmap, MremapFlags, Op, PAGE_SIZE, PMD_SIZE,
    Prot, Rules,
};

const TOP: u64 = 0x7000_0000_0000;
const BOTTOM: u64 = 0x2000_0000_0000;

fn space(rules: Rules, legacy_layout: bool) -> AddressSpace {
    AddressSpace::new(
        rules,
        Limits {
            mmap_base: TOP,
            mmap_legacy_base: BOTTOM,
            legacy_layout,
            ..Limits::default()
        },
    )
}

fn anywhere(len: u64, backing: Backing) -> Mmap {
    Mmap {
        addr: 0,
        len,
        prot: Prot::READ | Prot::WRITE,
        flags: match backing {
            Backing::None => MapFlags::PRIVATE | MapFlags::ANONYMOUS,
            Backing::File(_) => MapFlags::PRIVATE,
        },
        backing,
        offset: 0,
    }
}

/// Upwards from the legacy base, into the first gap that is large enough.
#[test]
fn the_legacy_layout_goes_up() {
    for &rules in Rules::all() {
        let mut space = space(rules, true);
        let mut map = |len| space.execute(&Op::Mmap(anywhere(len, Backing::None)));
        assert_eq!(map(PAGE_SIZE), Ok(BOTTOM), "{}", rules.name);
        assert_eq!(map(3 * PAGE_SIZE), Ok(BOTTOM + PAGE_SIZE));
        let hole = Op::Munmap {
            addr: BOTTOM + PAGE_SIZE,
            len: PAGE_SIZE,
        };
        space.execute(&hole).unwrap();
        let mut map = |len| space.execute(&Op::Mmap(anywhere(len, Backing::None)));
        assert_eq!(map(2 * PAGE_SIZE), Ok(BOTTOM + 4 * PAGE_SIZE));
        // Rounded down before it comes here, but for 2.6.11.
        let hint = if rules.first_fit_upwards {
            0x10_1000
        } else {
            0x10_0000
        };
        let hinted = Mmap {
            addr: BOTTOM + 0x10_0001,
            ..anywhere(PAGE_SIZE, Backing::None)
        };
        assert_eq!(
            space.execute(&Op::Mmap(hinted)),
            Ok(BOTTOM + hint),
            "{}",
            rules.name
        );
    }
    let mut space = space(Rules::V4_9, false);
    let map = Op::Mmap(anywhere(PAGE_SIZE, Backing::None));
    assert_eq!(space.execute(&map), Ok(TOP - PAGE_SIZE));
}

/// Aligned as well, at the lowest place that is.
#[test]
fn huge_pages_in_the_legacy_layout() {
    let mut space = space(Rules::V7_2, true);
    let mut map = |len| space.execute(&Op::Mmap(anywhere(len, Backing::None)));
    assert_eq!(map(PAGE_SIZE), Ok(BOTTOM));
    assert_eq!(map(PMD_SIZE), Ok(BOTTOM + PMD_SIZE));
    assert_eq!(map(PMD_SIZE), Ok(BOTTOM + 2 * PMD_SIZE));
}

/// So that a huge page of the file can be one of the process.
#[test]
fn files_are_aligned_where_their_file_system_wants_it() {
    for (rules, wanted, addr) in [
        (Rules::V5_10, true, TOP - PMD_SIZE - PAGE_SIZE),
        (Rules::V6_1, true, TOP - 2 * PMD_SIZE),
        (Rules::V7_2, true, TOP - 2 * PMD_SIZE),
        (Rules::V7_2, false, TOP - PMD_SIZE - PAGE_SIZE),
    ] {
        let mut space = space(rules, false);
        let file = space.add_file(File {
            aligns_huge: wanted,
            ..File::regular(4096)
        });
        space
            .execute(&Op::Mmap(anywhere(PAGE_SIZE, Backing::None)))
            .unwrap();
        let op = Op::Mmap(anywhere(PMD_SIZE, Backing::File(file)));
        assert_eq!(space.execute(&op), Ok(addr), "{}", rules.name);
        // What is not large enough for one is put anywhere.
        let op = Op::Mmap(anywhere(PMD_SIZE / 2, Backing::File(file)));
        let small = space.execute(&op).unwrap();
        assert_ne!(small % PMD_SIZE, 0, "{}", rules.name);
    }
    // Where the room begins with a huge page, its end was wasted until 6.7.
    for (rules, addr) in [
        (Rules::V6_1, TOP - 2 * PMD_SIZE),
        (Rules::V6_12, TOP - PMD_SIZE),
    ] {
        let mut space = space(rules, false);
        let file = space.add_file(File {
            aligns_huge: true,
            ..File::regular(4096)
        });
        let op = Op::Mmap(anywhere(PMD_SIZE, Backing::File(file)));
        assert_eq!(space.execute(&op), Ok(addr), "{}", rules.name);
    }
}

/// What goes has counted; what is there twice while it moves has not; and a child begins anew. There is
/// no such count in 2.6.11.
#[test]
fn the_peak_is_remembered() {
    for &rules in &Rules::all()[1..] {
        let mut space = space(rules, false);
        let len = 4 * PAGE_SIZE;
        let addr = space
            .execute(&Op::Mmap(anywhere(len, Backing::None)))
            .unwrap();
        space
            .execute(&Op::Mremap {
                addr,
                old_len: len,
                new_len: len,
                flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
                new_addr: BOTTOM,
            })
            .unwrap();
        assert_eq!(space.peak_vm(), 4, "{}", rules.name);
        let over = Mmap {
            addr: BOTTOM,
            flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED,
            ..anywhere(len, Backing::None)
        };
        space.execute(&Op::Mmap(over)).unwrap();
        assert_eq!(space.peak_vm(), 4, "{}", rules.name);
        let unmap = Op::Munmap {
            addr: BOTTOM,
            len: 3 * PAGE_SIZE,
        };
        space.execute(&unmap).unwrap();
        assert_eq!(space.peak_vm(), 4, "{}", rules.name);
        space.execute(&Op::Fork).unwrap();
        assert_eq!(space.peak_vm(), space.counters().total_vm, "{}", rules.name);
    }
}
