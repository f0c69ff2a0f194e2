// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! How much this process has allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, counted.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;
/// Bytes that are given out. Changed by the main thread alone.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
/// What the allocator keeps before each piece.
const HEADER: usize = size_of::<usize>();

/// Bytes that are given out, with what the allocator adds to each piece.
pub(crate) fn allocated() -> usize {
    ALLOCATED.load(Relaxed)
}

/// What a piece really takes.
fn size(piece: *mut u8) -> usize {
    // SAFETY: the piece is one of the system's allocator, or null.
    unsafe { libc::malloc_usable_size(piece.cast()) + HEADER }
}

// SAFETY: all is done by the system's allocator, with what it is given.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract.
        let piece = unsafe { System.alloc(layout) };
        ALLOCATED.store(allocated() + size(piece), Relaxed);
        piece
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        ALLOCATED.store(allocated() - size(piece), Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(piece, layout) };
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let before = size(piece);
        // SAFETY: the caller keeps the contract.
        let piece = unsafe { System.realloc(piece, layout, new_size) };
        ALLOCATED.store((allocated() + size(piece)).wrapping_sub(before), Relaxed);
        piece
    }
}
