// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Has a template prepare the address space with which its children begin: where the kernel chooses addresses,
//! where the heap is, how much of the limit on areas is left.

use std::ops::Range;

use vmalab_model::{Break, PAGE_SIZE};

use super::decode::areas;
use super::template::Template;
use super::wire::{Call, EVERYWHERE, MAX_OPS, RawArea};
use super::{LIMIT, Place, child, machine};
use crate::oracle::{Heap, OracleError};

/// Where areas are piled up until the limit is near.
pub(super) const FILLER: u64 = 0x200_0000_0000;
/// How far the heap may grow, in pages.
const HEAP_PAGES: u64 = 64;
/// How far from the last plug the kernel's choices are looked for.
pub(super) const CHOSEN: u64 = 64 << 20;

/// All areas of a child that does nothing.
pub(super) fn look(template: &mut Template) -> Result<Vec<RawArea>, OracleError> {
    let shared = template.shared();
    shared.n_calls = 0;
    shared.want_whole = 1;
    template.order(child::RUN, LIMIT)?;
    let shared = template.shared();
    Ok(areas(shared, &shared.records[0]).to_vec())
}

/// Where the heap of a template's children ends, and where it may grow, if there is room above it.
pub(super) fn heap(template: &mut Template) -> Result<Option<Heap>, OracleError> {
    let query = Call {
        nr: libc::SYS_brk,
        args: [0; 6],
        touch: None,
        look: EVERYWHERE,
        look_at_result: 0,
    };
    let end = place(template, &[query])?[0] as u64;
    let [code_end, data_start, data_end, start] = machine::program_and_heap()?;
    let window = end.next_multiple_of(PAGE_SIZE);
    let window = window..window + HEAP_PAGES * PAGE_SIZE;
    let free = !look(template)?
        .iter()
        .any(|area| area.start < window.end + (1 << 20) && area.end > window.start);
    Ok((free && start <= end).then_some(Heap {
        start: Break {
            start,
            end,
            program_data: data_end - data_start,
            data_start,
            code_end,
        },
        window,
    }))
}

/// Has the template itself do calls: what they answer.
fn place(template: &mut Template, calls: &[Call]) -> Result<Vec<i64>, OracleError> {
    template.set_calls(calls.iter().copied());
    template.order(child::PLACE, LIMIT)?;
    let shared = template.shared();
    Ok(shared.records[1..=calls.len()]
        .iter()
        .map(|record| record.ret)
        .collect())
}

/// A call of mmap for memory of which nothing is ever touched, and which merges with nothing.
fn plug_call(addr: u64, len: u64) -> Call {
    let fixed = if addr == 0 {
        0
    } else {
        libc::MAP_FIXED_NOREPLACE
    };
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    let args = [addr, len, libc::PROT_NONE as u64, flags as u64, u64::MAX, 0];
    Call {
        nr: libc::SYS_mmap,
        args,
        touch: None,
        look: EVERYWHERE,
        look_at_result: 0,
    }
}

/// Plugs the gaps from which the kernel chooses addresses, until it chooses from a large one. Gives the
/// window right below the last plug; by the legacy layout, right above it.
pub(super) fn plug(
    template: &mut Template,
    legacy: bool,
) -> Result<Option<Range<u64>>, OracleError> {
    for _ in 0..64 {
        template.shared().want_whole = 0;
        let addr = place(template, &[plug_call(0, PAGE_SIZE)])?[0];
        let Ok(addr) = u64::try_from(addr) else {
            return Ok(None);
        };
        let areas = look(template)?;
        let gap = if legacy {
            let above = areas.iter().filter(|area| area.start > addr);
            let above = above.map(|area| area.start).min();
            addr + PAGE_SIZE..above.unwrap_or(addr + PAGE_SIZE)
        } else {
            let below = areas.iter().filter(|area| area.end <= addr);
            let below = below.map(|area| area.end).max();
            below.unwrap_or(0)..addr
        };
        if gap.end - gap.start > 1 << 30 {
            let next = place(template, &[plug_call(0, PAGE_SIZE)])?[0] as u64;
            return Ok(match legacy {
                true if next == gap.start => Some(next + PAGE_SIZE..next + PAGE_SIZE + CHOSEN),
                false if next == gap.end - PAGE_SIZE => Some(next - CHOSEN..next),
                // It is another layout than was thought.
                _ => None,
            });
        }
        // The gap may have been one page.
        if !gap.is_empty() && place(template, &[plug_call(gap.start, gap.end - gap.start)])?[0] < 0
        {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Piles up areas: one mapping of which every second page is protected otherwise.
pub(super) fn fill(place_: &mut Place, areas: u64) -> Result<(), OracleError> {
    let template = &mut place_.template;
    let mut call = plug_call(FILLER, areas * PAGE_SIZE);
    call.args[3] = call.args[3] & !(libc::MAP_SHARED as u64) | libc::MAP_PRIVATE as u64;
    let mut calls = vec![call];
    calls.extend((0..areas / 2).map(|pair| Call {
        nr: libc::SYS_mprotect,
        args: [
            FILLER + 2 * pair * PAGE_SIZE,
            PAGE_SIZE,
            libc::PROT_READ as u64,
            0,
            0,
            0,
        ],
        touch: None,
        look: EVERYWHERE,
        look_at_result: 0,
    }));
    let shared = template.shared();
    let every = std::mem::replace(&mut shared.counters_every, u32::MAX);
    shared.want_whole = 0;
    for calls in calls.chunks(MAX_OPS) {
        if let Some(error) = place(template, calls)?.into_iter().find(|&ret| ret < 0) {
            let errno = nix::errno::Errno::from_raw(-error as i32);
            return Err(OracleError::system("cannot fill the address space", errno));
        }
    }
    let shared = template.shared();
    shared.counters_every = every;
    shared.want_whole = 1;
    shared.all = [
        [0, FILLER],
        [FILLER + areas * PAGE_SIZE, u64::MAX],
        [0, 0],
        [0, 0],
    ];
    place_.filler_pages = areas;
    Ok(())
}
