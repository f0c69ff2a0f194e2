// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The expectations of the guest tests hold for a memfd on this machine.

use std::process::Command;

#[test]
fn a_memfd_meets_the_expectations() {
    let program = env!("CARGO_BIN_EXE_vmalab-guest-tests");
    let output = Command::new(program)
        .args(["--subject", "memfd"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Nothing to do would be a success, too.
    assert!(text.matches("... ok").count() > 40, "{text}");
}
