// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Where areas may be cut: what drivers, huge pages and the kernel's own areas say to it, in which era.

use vmalab_model::file::MaySplit;
use vmalab_model::{
    AddressSpace, Backing, Errno, File, Limits, MapFlags, Mmap, Op, PAGE_SIZE, PMD_SIZE, Prot,
    Rules,
};

const START: u64 = 4 * PMD_SIZE;

/// Maps four huge pages' worth of a file, or of the pool of huge pages.
fn mapped(rules: Rules, file: Option<File>) -> AddressSpace {
    let mut space = AddressSpace::new(rules, Limits::default());
    let (flags, backing) = match file {
        Some(file) => (MapFlags::SHARED, Backing::File(space.add_file(file))),
        None => (
            MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::HUGETLB | MapFlags::NORESERVE,
            Backing::None,
        ),
    };
    let map = Op::Mmap(Mmap {
        addr: START,
        len: 4 * PMD_SIZE,
        prot: Prot::READ | Prot::WRITE,
        flags: flags | MapFlags::FIXED,
        backing,
        offset: 0,
    });
    assert_eq!(space.apply(&map).result, Ok(START));
    space
}

/// Whether it can be cut there.
fn cut(space: &AddressSpace, at: u64) -> Result<(), Errno> {
    let mut space = space.clone();
    let cut = Op::Munmap {
        addr: START + at,
        len: 4 * PMD_SIZE - at,
    };
    let result = space.apply(&cut).result.map(drop);
    space.check_invariants().unwrap();
    let left = space.areas().map(|vma| vma.end).next();
    let end = if result.is_ok() { at } else { 4 * PMD_SIZE };
    assert_eq!(left, Some(START + end));
    result
}

#[test]
fn huge_pages_are_whole() {
    for &rules in Rules::all() {
        // Without a file they are had since there is `MAP_HUGETLB`.
        let of_none = rules.map_hugetlb.then_some(None);
        for file in [Some(File::hugetlb(4096))].into_iter().chain(of_none) {
            let space = mapped(rules, file);
            for at in [PAGE_SIZE, PMD_SIZE - PAGE_SIZE, PMD_SIZE + PAGE_SIZE] {
                assert_eq!(cut(&space, at), Err(Errno::EINVAL), "{}", rules.name);
            }
            assert_eq!(cut(&space, PMD_SIZE), Ok(()), "{}", rules.name);
            assert_eq!(cut(&space, 3 * PMD_SIZE), Ok(()), "{}", rules.name);
        }
    }
}

/// A driver has a say since 4.15.
#[test]
fn drivers_are_asked() {
    for &rules in Rules::all() {
        let asked = rules.asks_before_split;
        let only = |error| if asked { Err(error) } else { Ok(()) };
        let space = mapped(
            rules,
            Some(File {
                may_split: MaySplit::Aligned(2 * PAGE_SIZE),
                ..File::device(4096)
            }),
        );
        assert_eq!(cut(&space, PAGE_SIZE), only(Errno::EINVAL));
        assert_eq!(cut(&space, 2 * PAGE_SIZE), Ok(()));
        let space = mapped(
            rules,
            Some(File {
                may_split: MaySplit::Never(Errno::EBUSY),
                ..File::device(4096)
            }),
        );
        assert_eq!(cut(&space, 2 * PAGE_SIZE), only(Errno::EBUSY));
    }
}

/// What the kernel maps by itself is whole since 5.11.
#[test]
fn the_kernels_own_areas() {
    for &rules in Rules::all() {
        let expected = if rules.special_is_whole {
            Err(Errno::EINVAL)
        } else {
            Ok(())
        };
        let space = mapped(rules, Some(File::special()));
        assert_eq!(cut(&space, PAGE_SIZE), expected, "{}", rules.name);
    }
}
