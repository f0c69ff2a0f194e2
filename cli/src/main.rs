// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The command line.
fn main() {}
