// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What is measured, and how.

use std::{fs::File, io, os::unix::fs::FileExt};

use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, fork},
};

use vmalab::sys;

use crate::memory::{HUGE, Kind, Mapping, Object, PAGE, device};

/// How much memory each figure is of, in pages: two page tables.
pub(crate) const PAGES: usize = 1024;

/// A figure: the clock's ticks for all of it, or `None` where there is no such thing.
type Figure = io::Result<Option<u64>>;

/// What is measured.
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    /// By what a figure is divided.
    pub(crate) per: Per,
    pub(crate) run: fn(Kind, &Order) -> Figure,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Per {
    /// By the number of pages.
    Page(usize),
    Call,
}

impl Per {
    pub(crate) fn divide(self, ticks: u64) -> f64 {
        match self {
            Self::Page(pages) => ticks as f64 / pages as f64,
            Self::Call => ticks as f64,
        }
    }
}

const ALL: Per = Per::Page(PAGES);
/// One page of each 64 KiB.
const SPARSE: usize = 16;

/// All of it, in the order of the table.
pub(crate) const MEASURES: &[Measure] = &[
    measure("mmap", Per::Call, mmap),
    measure("first write, in order", ALL, first_write),
    measure("first write, at random", ALL, first_write_random),
    measure(
        "first write, one page of 16",
        Per::Page(PAGES / SPARSE),
        first_write_sparse,
    ),
    measure("first read, in order", ALL, first_read),
    measure("read what is there, in order", ALL, read_present),
    measure("read what is there, at random", ALL, read_present_random),
    measure("write what is there, in order", ALL, write_present),
    measure("write what is there, at random", ALL, write_present_random),
    measure("munmap", ALL, unmap),
    measure("munmap and give the memory back", ALL, unmap_and_free),
    measure("fork, shared", Per::Call, fork_shared),
    measure("fork, private copies", Per::Call, fork_private),
    measure("mprotect", ALL, protect),
    measure("mremap to elsewhere", ALL, remap),
    measure("2 MiB pages: first write", ALL, huge_first_write),
    measure("2 MiB pages: read what is there", ALL, huge_read_present),
    measure("2 MiB pages: munmap", ALL, huge_unmap),
    measure(
        "2 MiB pages: munmap half of each",
        Per::Page(PAGES / 2),
        huge_unmap_half,
    ),
    measure("write(2) to what is not there", ALL, write_call),
    measure("read(2) of what is there", ALL, read_call),
];

const fn measure(name: &'static str, per: Per, run: fn(Kind, &Order) -> Figure) -> Measure {
    Measure { name, per, run }
}

/// Virtual time: with -icount, the instructions that the processor has executed.
fn now() -> u64 {
    // SAFETY: every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

fn timed(step: impl FnOnce() -> io::Result<()>) -> Figure {
    let begin = now();
    step()?;
    Ok(Some(now() - begin))
}

/// All pages in an order that is always the same, and of which the kernel can guess nothing.
pub(crate) struct Order(Vec<u32>);

impl Order {
    pub(crate) fn new() -> Self {
        let mut pages: Vec<u32> = (0..PAGES as u32).collect();
        // Fisher and Yates, with the generator of Marsaglia (xorshift64).
        let mut state = 88_172_645_463_325_252_u64;
        for last in (1..PAGES).rev() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            pages.swap(last, (state % (last as u64 + 1)) as usize);
        }
        Self(pages)
    }

    fn each(&self, mut step: impl FnMut(usize)) {
        for &page in &self.0 {
            step(page as usize);
        }
    }
}

/// New memory of the kind, and a mapping of it in which nothing was touched.
struct Fresh {
    mapping: Mapping,
    object: Option<Object>,
}

impl Fresh {
    fn new(kind: Kind) -> io::Result<Self> {
        let object = kind.object(PAGES)?;
        let mapping = Mapping::shared(kind, object.as_ref(), PAGES)?;
        Ok(Self { mapping, object })
    }

    /// All of it is there, and mapped.
    fn filled(kind: Kind) -> io::Result<Self> {
        let fresh = Self::new(kind)?;
        fresh.mapping.fill();
        Ok(fresh)
    }

    /// All of it is there, and nothing of it is mapped; there is no such thing as private memory of
    /// this kind.
    fn present(kind: Kind) -> io::Result<Option<Self>> {
        if kind == Kind::Anonymous {
            return Ok(None);
        }
        let fresh = Self::filled(kind)?;
        // This takes it out of the page table only.
        fresh.mapping.advise(libc::MADV_DONTNEED)?;
        Ok(Some(fresh))
    }

    /// Times a step on the mapping; who watches the object must have been told of it.
    fn timed(&self, step: impl FnOnce(&Mapping) -> io::Result<()>) -> Figure {
        let ticks = timed(|| step(&self.mapping))?;
        self.object.as_ref().map_or(Ok(()), Object::check_watch)?;
        Ok(ticks)
    }
}

/// Where nothing is mapped. It maps no page: it costs the same for any length.
fn mmap(kind: Kind, _: &Order) -> Figure {
    if kind == Kind::Zero {
        return Ok(None);
    }
    let Fresh { mapping, object } = &Fresh::new(kind)?;
    mapping.unmap()?;
    timed(|| mapping.map_over(object.as_ref()))
}

fn first_write(kind: Kind, _: &Order) -> Figure {
    Fresh::new(kind)?.timed(|mapping| {
        mapping.fill();
        Ok(())
    })
}

fn first_write_random(kind: Kind, order: &Order) -> Figure {
    Fresh::new(kind)?.timed(|mapping| {
        order.each(|page| mapping.write(page));
        Ok(())
    })
}

fn first_write_sparse(kind: Kind, _: &Order) -> Figure {
    let Fresh { mapping, .. } = &Fresh::new(kind)?;
    timed(|| {
        (0..PAGES)
            .step_by(SPARSE)
            .for_each(|page| mapping.write(page));
        Ok(())
    })
}

fn first_read(kind: Kind, _: &Order) -> Figure {
    let Fresh { mapping, .. } = &Fresh::new(kind)?;
    timed(|| {
        (0..PAGES).for_each(|page| mapping.read(page));
        Ok(())
    })
}

fn of_present(kind: Kind, step: impl FnOnce(&Mapping)) -> Figure {
    let Some(fresh) = Fresh::present(kind)? else {
        return Ok(None);
    };
    fresh.timed(|mapping| {
        step(mapping);
        Ok(())
    })
}

fn read_present(kind: Kind, _: &Order) -> Figure {
    of_present(kind, |mapping| {
        (0..PAGES).for_each(|page| mapping.read(page))
    })
}

fn read_present_random(kind: Kind, order: &Order) -> Figure {
    of_present(kind, |mapping| order.each(|page| mapping.read(page)))
}

fn write_present(kind: Kind, _: &Order) -> Figure {
    of_present(kind, Mapping::fill)
}

fn write_present_random(kind: Kind, order: &Order) -> Figure {
    of_present(kind, |mapping| order.each(|page| mapping.write(page)))
}

/// The memory stays, if it is of a kind that can stay.
fn unmap(kind: Kind, _: &Order) -> Figure {
    let fresh = Fresh::filled(kind)?;
    let _keeps_it = match kind {
        Kind::Anonymous => None,
        _ => Some(fresh.mapping.again()?),
    };
    fresh.timed(Mapping::unmap)
}

/// The memory goes with its last mapping and its descriptor.
fn unmap_and_free(kind: Kind, _: &Order) -> Figure {
    let Fresh { mapping, object } = Fresh::filled(kind)?;
    timed(|| {
        mapping.unmap()?;
        drop(object);
        Ok(())
    })
}

fn forked() -> Figure {
    timed(|| {
        // SAFETY: there is one thread, and the child does nothing but end.
        match unsafe { fork() }? {
            // SAFETY: it only ends the child.
            ForkResult::Child => unsafe { libc::_exit(0) },
            ForkResult::Parent { child } => match waitpid(child, None)? {
                WaitStatus::Exited(_, 0) => Ok(()),
                status => Err(io::Error::other(format!("the child ended with {status:?}"))),
            },
        }
    })
}

fn fork_shared(kind: Kind, _: &Order) -> Figure {
    if kind == Kind::Anonymous {
        return Ok(None);
    }
    let _fresh = Fresh::filled(kind)?;
    forked()
}

fn fork_private(kind: Kind, _: &Order) -> Figure {
    let object = kind.object(PAGES)?;
    let copies = match (kind, &object) {
        (Kind::Zero, _) => return Ok(None),
        (_, Some(object)) => Mapping::private(object, PAGES)?,
        (_, None) => Mapping::shared(kind, None, PAGES)?,
    };
    copies.fill();
    forked()
}

/// There and back.
fn protect(kind: Kind, _: &Order) -> Figure {
    let Fresh { mapping, .. } = &Fresh::filled(kind)?;
    timed(|| {
        mapping.protect(libc::PROT_READ)?;
        mapping.protect(libc::PROT_READ | libc::PROT_WRITE)
    })
}

/// To an address at which it is elsewhere in its page tables: where it is not, the kernel moves whole
/// tables.
fn remap(kind: Kind, _: &Order) -> Figure {
    let place = Mapping::shared(Kind::Anonymous, None, PAGES + 1)?;
    let Fresh { mapping, .. } = &Fresh::filled(kind)?;
    timed(|| mapping.move_to(&place, 1))
}

/// As `Fresh::new`, where pages of 2 MiB are wanted; there is none of pieces that are smaller.
fn huge(kind: Kind) -> io::Result<Option<Fresh>> {
    let object = match kind {
        Kind::Pieces | Kind::Watched => return Ok(None),
        Kind::Device => Some(device(sys::VMALAB_PATH, PAGES * PAGE, HUGE)?.into()),
        Kind::Prepared => Some(device(sys::VMALAB_PREPARE_PATH, PAGES * PAGE, HUGE)?.into()),
        kind => kind.object(PAGES)?,
    };
    let mapping = Mapping::shared(kind, object.as_ref(), PAGES)?;
    mapping.advise(libc::MADV_HUGEPAGE)?;
    Ok(Some(Fresh { mapping, object }))
}

/// As `huge`, all of it being there; none if the kernel gave small pages.
fn huge_filled(kind: Kind) -> io::Result<Option<Fresh>> {
    let Some(fresh) = huge(kind)? else {
        return Ok(None);
    };
    fresh.mapping.fill();
    if huge_pages(&fresh.mapping)? {
        Ok(Some(fresh))
    } else {
        Ok(None)
    }
}

/// Whether all of the mapping is mapped in 2 MiB at once: /proc/self/smaps.
fn huge_pages(mapping: &Mapping) -> io::Result<bool> {
    let begin = format!("{:x}-", mapping.addr());
    let smaps = std::fs::read_to_string("/proc/self/smaps")?;
    let area = smaps.lines().skip_while(|line| !line.starts_with(&begin));
    let sizes = area
        .skip(1)
        .take_while(|line| !line.starts_with("VmFlags"))
        .filter_map(|line| {
            let (key, size) = line.split_once(':')?;
            let mapped = ["AnonHugePages", "ShmemPmdMapped", "FilePmdMapped"].contains(&key);
            let kilobytes = size.trim().strip_suffix(" kB")?;
            mapped.then(|| kilobytes.parse::<usize>().ok()).flatten()
        });
    Ok(sizes.sum::<usize>() == mapping.pages() * PAGE / 1024)
}

fn huge_first_write(kind: Kind, order: &Order) -> Figure {
    if huge_filled(kind)?.is_none() {
        return Ok(None);
    }
    let Some(Fresh { mapping, .. }) = &huge(kind)? else {
        return Ok(None);
    };
    let _ = order;
    timed(|| {
        mapping.fill();
        Ok(())
    })
}

fn huge_read_present(kind: Kind, _: &Order) -> Figure {
    if kind == Kind::Anonymous {
        return Ok(None);
    }
    let Some(Fresh { mapping, .. }) = &huge_filled(kind)? else {
        return Ok(None);
    };
    mapping.advise(libc::MADV_DONTNEED)?;
    timed(|| {
        (0..PAGES).for_each(|page| mapping.read(page));
        Ok(())
    })
}

fn huge_unmap(kind: Kind, _: &Order) -> Figure {
    let Some(Fresh { mapping, .. }) = &huge_filled(kind)? else {
        return Ok(None);
    };
    let _keeps_it = match kind {
        Kind::Anonymous => None,
        _ => Some(mapping.again()?),
    };
    timed(|| mapping.unmap())
}

/// The second half of each 2 MiB: what stands for all of it in the page table has to be split.
fn huge_unmap_half(kind: Kind, _: &Order) -> Figure {
    let Some(Fresh { mapping, .. }) = &huge_filled(kind)? else {
        return Ok(None);
    };
    timed(|| {
        for begin in (0..mapping.bytes()).step_by(HUGE) {
            mapping.unmap_part(begin + HUGE / 2, HUGE / 2)?;
        }
        Ok(())
    })
}

/// In pieces of 64 KiB.
const PIECE: usize = 16 * PAGE;

fn write_call(kind: Kind, _: &Order) -> Figure {
    let Some(object) = kind.object(PAGES)? else {
        return Ok(None);
    };
    let file = File::from(object.into_fd());
    let bytes = vec![1; PIECE];
    none_if_refused(timed(|| {
        for offset in (0..PAGES * PAGE).step_by(PIECE) {
            file.write_all_at(&bytes, offset as u64)?;
        }
        Ok(())
    }))
}

fn read_call(kind: Kind, _: &Order) -> Figure {
    let fresh = Fresh::filled(kind)?;
    let Some(object) = fresh.object else {
        return Ok(None);
    };
    let file = File::from(object.into_fd());
    let mut bytes = vec![1; PIECE];
    none_if_refused(timed(|| {
        for offset in (0..PAGES * PAGE).step_by(PIECE) {
            file.read_exact_at(&mut bytes, offset as u64)?;
        }
        Ok(())
    }))
}

/// A file that cannot be read and written has no figure.
fn none_if_refused(figure: Figure) -> Figure {
    match figure {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
        figure => figure,
    }
}
