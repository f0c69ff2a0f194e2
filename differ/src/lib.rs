// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Generates operations on an address space, runs them on the model and on an oracle, and compares.
//!
//! ```text
//! seed ──> Generator ──> Op ──┬──> model ────> predicted Outcome ──┐
//!                             └──> Oracle ───> Observation ────────┴──> Comparer ──> Difference?
//! ```
//!
//! The [`runner`] plays batches of operations. Each starts in a [`World`](oracle::World) of the oracle:
//! the areas, files and limits that are there before the first operation. What an oracle does not see is
//! not compared, and the runner knows nothing of an oracle beyond the trait.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("vmalab-differ compares with Linux on x86-64");

pub mod call;
mod choices;
pub mod compare;
pub mod conformance;
mod contents;
mod death;
pub mod eras;
pub mod generate;
pub mod host;
pub mod index;
pub mod jobs;
pub mod known;
pub mod oracle;
pub mod page;
pub mod peer;
pub mod program;
pub mod reach;
pub mod report;
pub mod runner;
pub mod saved;
pub mod sequence;
pub mod show;
pub mod shrink;
pub mod small;
pub mod strace;
pub mod supervised;
pub mod vmac;
