// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The model's page tables against those of the running kernel, by `VmPTE` of this process. It has one
//! thread: another one would need tables of its own at any time.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use libtest_mimic::{Arguments, Trial};
use nix::sys::mman::{self, ProtFlags};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use vmalab_model::page_table::{Level, PageTables};
use vmalab_model::{AddressSpace, Backing, Limits, MapFlags, Mmap, Op, PAGE_SIZE, Prot, Rules};

/// Where no program, library or stack is, and a table of each level begins.
const ARENA: u64 = 0x2000_0000_0000;

/// `VmPTE`, in bytes. Takes no memory of its own.
fn vm_pte(status: &File) -> u64 {
    let mut bytes = [0; 4096];
    let len = status.read_at(&mut bytes, 0).unwrap();
    let text = std::str::from_utf8(&bytes[..len]).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmPTE:"));
    let number = line.unwrap().trim().strip_suffix(" kB").unwrap();
    number.parse::<u64>().unwrap() * 1024
}

fn map(addr: u64, len: u64) {
    let flags =
        mman::MapFlags::MAP_PRIVATE | mman::MapFlags::MAP_FIXED | mman::MapFlags::MAP_NORESERVE;
    // SAFETY: nothing else is in the arena.
    unsafe {
        mman::mmap_anonymous(
            NonZeroUsize::new(addr as usize),
            NonZeroUsize::new(len as usize).unwrap(),
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            flags,
        )
    }
    .unwrap();
}

fn pointer(addr: u64) -> NonNull<u8> {
    NonNull::new(std::ptr::with_exposed_provenance_mut(addr as usize)).unwrap()
}

/// An address near the begin or the end of a table, of any level.
fn address(random: &mut ChaCha8Rng) -> u64 {
    let spans = [PAGE_SIZE].into_iter().chain(Level::ALL.map(Level::span));
    let offset: u64 = spans
        .zip([5, 3, 3, 2])
        .map(|(span, most)| u64::from(random.next_u32()) % most * span)
        .sum();
    let back = u64::from(random.next_u32()) % 3 * PAGE_SIZE;
    ARENA + offset.saturating_sub(back)
}

fn main() {
    let mut arguments = Arguments::from_args();
    // Then it runs in this thread.
    arguments.test_threads = Some(1);
    let trial = Trial::test("as_the_kernel_counts", || {
        as_the_kernel_counts();
        Ok(())
    });
    libtest_mimic::run(&arguments, vec![trial]).exit();
}

/// `/proc/PID/status` counts the tables of all levels together since 4.15.
fn as_the_kernel_counts() {
    nix::sys::prctl::set_thp_disable(true).expect("no huge pages for this process");
    let status = File::open("/proc/self/status").unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut space: AddressSpace = AddressSpace::new(Rules::V7_2, Limits::default());
    let mut tables = PageTables::default();
    let mut mapped = false;
    let (mut freed, mut kept) = (0, 0);

    for step in 0..20_000 {
        let before = vm_pte(&status);
        let predicted = tables.bytes();
        let (addr, end) = (address(&mut random), address(&mut random));
        let (addr, end) = (addr.min(end), addr.max(end) + PAGE_SIZE);
        let len = end - addr;
        match random.next_u32() % 8 {
            0 | 1 => {
                // Of what it replaces, the tables go as by munmap.
                tables.unmap_region(&space, addr..end);
                map(addr, len);
                let outcome = space.apply(&Op::Mmap(Mmap {
                    addr,
                    len,
                    prot: Prot::READ | Prot::WRITE,
                    flags: MapFlags::PRIVATE
                        | MapFlags::ANONYMOUS
                        | MapFlags::FIXED
                        | MapFlags::NORESERVE,
                    backing: Backing::None,
                    offset: 0,
                }));
                outcome.result.unwrap();
                mapped = true;
            }
            2 | 3 => {
                let gone = tables.unmap_region(&space, addr..end);
                freed += gone.len();
                kept += usize::from(gone.is_empty());
                // SAFETY: nothing but this test uses the arena.
                unsafe { mman::munmap(pointer(addr).cast(), len as usize) }.unwrap();
                space.apply(&Op::Munmap { addr, len }).result.unwrap();
            }
            _ if mapped => {
                let is_mapped = space
                    .areas()
                    .any(|vma| (vma.start..vma.end).contains(&addr));
                if is_mapped {
                    // SAFETY: it is mapped, and writable.
                    unsafe { pointer(addr).write_volatile(1) };
                    tables.fault(addr);
                }
            }
            _ => {}
        }
        let observed = vm_pte(&status).wrapping_sub(before);
        assert_eq!(
            observed as i64,
            tables.bytes().wrapping_sub(predicted) as i64,
            "step {step}: {addr:#x}-{end:#x}"
        );
    }
    // SAFETY: as above.
    unsafe { mman::munmap(pointer(ARENA).cast(), 4 << 40) }.unwrap();
    assert!(
        freed > 1000 && kept > 1000,
        "{freed} freed, {kept} times none"
    );
}
