// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Uses the model with nothing beneath it but the kernel: no standard library, no C library, an
//! allocator and a panic handler of its own. Exits 0 if the model says what it should.
//!
//! `cargo run --release --manifest-path tests/no-std/Cargo.toml`
#![no_std]
#![no_main]

use core::alloc::{GlobalAlloc, Layout};
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::panic::PanicInfo;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use vmalab_model::{
    AddressSpace, Backing, File, Hook, Limits, MapFlags, Mmap, Op, PAGE_SIZE, Prot, Rules,
};

// The kernel enters with the stack at a multiple of 16, where a function expects a return address.
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "call {start}",
    start = sym start,
);

extern "C" fn start() -> ! {
    check();
    write("no-std: the model works without a standard library\n");
    exit(0)
}

/// Maps a device and memory, punches a hole, and looks.
fn check() {
    let mut space: AddressSpace = AddressSpace::new(Rules::V7_2, Limits::default());
    let device = space.add_file(File::device(16));
    let map = |addr, backing, flags| {
        Op::Mmap(Mmap {
            addr,
            len: 8 * PAGE_SIZE,
            prot: Prot::READ | Prot::WRITE,
            flags: MapFlags::FIXED | flags,
            backing,
            offset: 0,
        })
    };
    let base = 0x10_0000;
    let above = base + 8 * PAGE_SIZE;
    let outcome = space.apply(&map(base, Backing::File(device), MapFlags::SHARED));
    assert_eq!(outcome.result, Ok(base));
    let anonymous = MapFlags::PRIVATE | MapFlags::ANONYMOUS;
    let outcome = space.apply(&map(above, Backing::None, anonymous));
    assert_eq!(outcome.result, Ok(above));

    // |--device--|--memory--|
    //     |************|
    let outcome = space.apply(&Op::Munmap {
        addr: base + 4 * PAGE_SIZE,
        len: 8 * PAGE_SIZE,
    });
    assert_eq!(outcome.result, Ok(0));
    let ends: [(u64, u64); 2] = [
        (base, base + 4 * PAGE_SIZE),
        (above + 4 * PAGE_SIZE, above + 8 * PAGE_SIZE),
    ];
    assert!(
        outcome
            .layout
            .iter()
            .map(|area| (area.start, area.end))
            .eq(ends)
    );
    assert_eq!(outcome.counters.map_count, 2);
    assert_eq!(outcome.counters.total_vm, 8);
    let [ask, open, close] = outcome.hooks[..] else {
        panic!("three hook calls, not {:?}", outcome.hooks)
    };
    assert!(matches!(ask.hook, Hook::MaySplit { .. }));
    assert_eq!(open.hook, Hook::Open);
    assert_eq!(
        (close.hook, close.start),
        (Hook::Close, base + 4 * PAGE_SIZE)
    );
    assert_eq!(space.check_invariants(), Ok(()));
}

/// Hands out memory from a fixed piece and takes none back.
struct Bump {
    memory: UnsafeCell<[u8; SIZE]>,
    used: AtomicUsize,
}

const SIZE: usize = 1 << 20;

// SAFETY: `used` is atomic, and no two callers get overlapping parts of `memory`.
unsafe impl Sync for Bump {}

// SAFETY: Each part of `memory` is handed out once, aligned and inside, or null is returned.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let base = self.memory.get().addr();
        let mut start = 0;
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                start = (base + used).next_multiple_of(layout.align()) - base;
                start.checked_add(layout.size()).filter(|&end| end <= SIZE)
            });
        match taken {
            Ok(_) => self.memory.get().cast::<u8>().wrapping_add(start),
            Err(_) => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: Bump = Bump {
    memory: UnsafeCell::new([0; SIZE]),
    used: AtomicUsize::new(0),
};

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    struct Stderr;
    impl core::fmt::Write for Stderr {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            write(text);
            Ok(())
        }
    }
    let _ = core::fmt::Write::write_fmt(&mut Stderr, format_args!("no-std: {info}\n"));
    exit(1)
}

/// What the compiler takes for granted of a C library, and what the precompiled `alloc` refers to for
/// unwinding, which never happens here.
///
/// # Safety
/// The compiler calls these as the C standard says: the ranges are valid and, for memcpy, apart.
mod runtime {
    use core::arch::asm;

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        // SAFETY: The caller says that both ranges are valid and do not overlap.
        unsafe {
            asm!(
                "rep movsb",
                inout("rcx") len => _,
                inout("rsi") from => _,
                inout("rdi") to => _,
                options(nostack, preserves_flags),
            );
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        if to.addr().wrapping_sub(from.addr()) >= len {
            // SAFETY: Copied upwards, no byte is overwritten before it was read.
            return unsafe { memcpy(to, from, len) };
        }
        // SAFETY: The caller says that both ranges are valid; copied downwards, no byte is overwritten
        // before it was read. `len` is above 0 here. The direction flag is put back.
        unsafe {
            asm!(
                "std",
                "rep movsb",
                "cld",
                inout("rcx") len => _,
                inout("rsi") from.wrapping_add(len).wrapping_sub(1) => _,
                inout("rdi") to.wrapping_add(len).wrapping_sub(1) => _,
                options(nostack),
            );
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
        // SAFETY: The caller says that the range is valid.
        unsafe {
            asm!(
                "rep stosb",
                inout("rcx") len => _,
                inout("rdi") to => _,
                in("al") byte as u8,
                options(nostack, preserves_flags),
            );
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
        for index in 0..len {
            // SAFETY: The caller says that both ranges are valid. Volatile, so that the compiler does
            // not make a call of memcmp of it.
            let (a, b) = unsafe { (a.add(index).read_volatile(), b.add(index).read_volatile()) };
            if a != b {
                return i32::from(a) - i32::from(b);
            }
        }
        0
    }

    #[unsafe(no_mangle)]
    extern "C" fn rust_eh_personality() {}

    #[unsafe(no_mangle)]
    extern "C" fn _Unwind_Resume() -> ! {
        super::exit(2)
    }
}

/// `write(2)` to standard error.
fn write(text: &str) {
    // SAFETY: The kernel reads `text`, which lives, and changes nothing but the named registers.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") 1_usize => _,
            in("rdi") 2,
            in("rsi") text.as_ptr(),
            in("rdx") text.len(),
            out("rcx") _,
            out("r11") _,
            options(nostack, readonly),
        );
    }
}

/// `exit_group(2)`
fn exit(code: i32) -> ! {
    // SAFETY: The call ends the process and does not return.
    unsafe {
        asm!(
            "syscall",
            in("rax") 231,
            in("rdi") code,
            options(noreturn, nostack),
        )
    }
}
