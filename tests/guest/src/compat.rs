// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Requests of programs of 32 bits (`compat_ioctl`): the structures are the same, and what is a pointer is
//! widened by the kernel.

use std::{
    arch::asm,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use nix::{errno::Errno, sys::wait::WaitStatus};
use vmalab::{Device, HookSet, sys};

use crate::{
    lab::Lab,
    mem::*,
    run::{Skip, Test, Verdict, child_status},
};

pub(crate) const TESTS: &[Test] = &[Test::device("compat::requests_of_32_bits", requests)];

/// ioctl(2), as a program of 32 bits calls it.
fn ioctl(fd: impl AsFd, number: u32, argument: u32) -> Result<i32, Errno> {
    /// In arch/x86/entry/syscalls/syscall_32.tbl.
    const IOCTL: u64 = 54;
    let fd = u64::from(fd.as_fd().as_raw_fd() as u32);
    let result: u64;
    // SAFETY: the first argument is in a register that the compiler keeps for itself, which has its value back
    // after the call; the kernel may change those from r8 to r11. The request gets memory of its size.
    unsafe {
        asm!(
            "xchg rbx, {fd}",
            "int 0x80",
            "xchg rbx, {fd}",
            fd = inout(reg) fd => _,
            inlateout("rax") IOCTL => result,
            in("rcx") u64::from(number),
            in("rdx") u64::from(argument),
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    match result as i32 {
        error if error < 0 => Err(Errno::from_raw(-error)),
        value => Ok(value),
    }
}

/// A structure where such a program can have one.
struct Low<T>(*mut T);

impl<T> Low<T> {
    fn new(value: T) -> Self {
        let place = map_anonymous(0, 1, RW, libc::MAP_32BIT).unwrap();
        let place = pointer(place).cast::<T>();
        // SAFETY: it is a page of its own.
        unsafe { place.write(value) };
        Self(place)
    }

    fn request(&self, fd: impl AsFd, number: u32) -> Result<i32, Errno> {
        ioctl(
            fd,
            number,
            u32::try_from(self.0.expose_provenance()).unwrap(),
        )
    }

    fn get(&self) -> &T {
        // SAFETY: it was written in `new`, and what the kernel makes of it has any bits.
        unsafe { &*self.0 }
    }
}

fn requests(_lab: &Lab) -> Verdict {
    let unknown = 0x54ff;
    let tried = child_status(|| {
        let object = Device::open().unwrap();
        assert_eq!(ioctl(&object, unknown, 0), Err(Errno::ENOTTY));
    });
    if matches!(tried, WaitStatus::Signaled(..)) {
        return Err(Skip::new("this kernel runs no programs of 32 bits"));
    }
    assert!(matches!(tried, WaitStatus::Exited(_, 0)), "{tried:?}");
    for node in ["/dev/vmalab", "/dev/vmalab-prepare"] {
        let object = Device::open_at(node).unwrap();
        let size = Low::new(sys::vmalab_size {
            size: 5 * PAGE as u64,
            flags: 0,
            reserved: 0,
        });
        assert_eq!(size.request(&object, sys::VMALAB_IOC_SET_SIZE), Ok(0));
        assert_eq!(object.size().unwrap(), 5 * PAGE as u64);
        letters(map(&object, SHARED, 0, 5), 3, 'A');

        // SAFETY: zeros are what the request expects.
        let stats = Low::new(unsafe { std::mem::zeroed::<sys::vmalab_stats>() });
        assert_eq!(stats.request(&object, sys::VMALAB_IOC_STATS), Ok(0));
        assert_eq!((stats.get().areas, stats.get().pages), (1, 3));

        // One with a pointer in it.
        let ranges = Low::new(
            [sys::vmalab_range {
                offset: 0,
                length: 0,
            }; 4],
        );
        let written = Low::new(sys::vmalab_written {
            offset: 0,
            length: 5 * PAGE as u64,
            ranges: ranges.0.expose_provenance() as u64,
            n_ranges: 4,
            flags: 0,
        });
        assert_eq!(written.request(&object, sys::VMALAB_IOC_WRITTEN), Ok(0));
        let pages = ranges.get()[..written.get().n_ranges as usize].iter();
        assert_eq!(
            pages.map(|range| range.length).sum::<u64>(),
            3 * PAGE as u64
        );

        // One that gives a descriptor, and those of that.
        let watch = Low::new(sys::vmalab_watch {
            hooks: HookSet::Fault.bits(),
            records: 16,
            flags: 0,
        });
        let fd = watch.request(&object, sys::VMALAB_IOC_WATCH).unwrap();
        // SAFETY: it is new, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        letters(map(&object, SHARED, 0, 5) + 4 * PAGE, 1, 'E');
        // SAFETY: as above.
        let state = Low::new(unsafe { std::mem::zeroed::<sys::vmalab_watch_state>() });
        assert_eq!(state.request(&fd, sys::VMALAB_IOC_WATCH_STATE), Ok(0));
        assert_eq!((state.get().recorded, state.get().records), (1, 16));
        assert_eq!(ioctl(&fd, unknown, 0), Err(Errno::ENOTTY));
        assert_eq!(
            ioctl(&object, sys::VMALAB_IOC_STATS, 16),
            Err(Errno::EFAULT)
        );
    }
    Ok(())
}
