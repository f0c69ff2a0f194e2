// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the kernel's `mm/vma.c` costs: operations one after the other, without looking in between.
//!
//! A library of [`Build::bare`](super::Build::bare) is the one to measure.

use std::mem::MaybeUninit;

use vmalab_model::{Break, Counters, File, Limits, Op};

use super::{VmaC, broke, counters, ffi, file, limits, operation};

/// Operations as the library takes them.
pub struct Program(Vec<ffi::Op>);

impl Program {
    /// Translates.
    ///
    /// # Errors
    /// There is an operation that the library does not know.
    pub fn new(ops: &[Op]) -> Result<Self, String> {
        Ok(Self(ops.iter().map(operation).collect::<Result<_, _>>()?))
    }
}

impl VmaC {
    /// Starts anew in an empty address space with these limits and files, of which the library has room for
    /// 16.
    pub fn reset(&mut self, limits_of_it: &Limits, files: &[File]) {
        let limits = limits(limits_of_it, Break::default());
        let files: Vec<_> = files.iter().map(file).collect();
        // SAFETY: both outlive the call, and `&mut self` says that nobody else uses this copy.
        unsafe { (self.calls.reset)(&limits, files.as_ptr(), files.len() as u32) };
    }

    /// Carries the operations out. Gives the counters afterwards.
    ///
    /// # Errors
    /// Some failed, or did what a kernel never does.
    pub fn perform(&mut self, program: &Program) -> Result<Counters, String> {
        let ops = &program.0;
        let mut seen = MaybeUninit::uninit();
        // SAFETY: `ops` and `seen` outlive the call, which fills `seen` in. `&mut self` says that nobody
        // else uses this copy of the library.
        let seen: ffi::Seen = unsafe {
            (self.calls.perform)(ops.as_ptr(), ops.len() as u32, seen.as_mut_ptr());
            seen.assume_init()
        };
        broke(&seen)?;
        match seen.result {
            0 => Ok(counters(&seen.counters)),
            failed => Err(format!("{failed} of {} operations failed", ops.len())),
        }
    }

    /// Looks for the first area that ends above each address (`find_vma`). Gives the sum of where they
    /// start.
    ///
    /// # Errors
    /// Something was hit that a kernel never hits.
    pub fn find(&mut self, addrs: &[u64]) -> Result<u64, String> {
        let mut seen = MaybeUninit::uninit();
        // SAFETY: as in `perform`.
        let seen: ffi::Seen = unsafe {
            (self.calls.find)(addrs.as_ptr(), addrs.len() as u32, seen.as_mut_ptr());
            seen.assume_init()
        };
        broke(&seen)?;
        Ok(seen.result as u64)
    }

    /// The bytes of all areas, nodes of the maple tree, `anon_vma`s and so on, as they are compiled here.
    pub fn memory(&mut self) -> u64 {
        // SAFETY: `&mut self` says that nobody else uses this copy of the library.
        unsafe { (self.calls.memory)() }
    }
}
