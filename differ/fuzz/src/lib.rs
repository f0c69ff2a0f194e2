// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the targets share: the oracle, and what becomes of a finding.

use std::env;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use vmalab_differ::oracle::Oracle;
use vmalab_differ::page::{self, Origin};
use vmalab_differ::report::case_text;
use vmalab_differ::runner::{Case, Runner};
use vmalab_differ::vmac::VmaC;
use vmalab_model::Rules;

/// Names the library with `mm/vma.c`, if it is not `libvmac.so` beside the program.
pub const LIBRARY: &str = "VMALAB_LIBRARY";
/// Names the directory for findings, if it is not the current one.
pub const OUT: &str = "VMALAB_OUT";

/// How long a finding is made simpler.
const SHRINK_FOR: Duration = Duration::from_secs(10);

/// Loads the library.
///
/// # Panics
/// If there is none, or it is not of this version.
pub fn oracle() -> VmaC {
    let beside = || {
        let program = env::current_exe().expect("a program knows its path");
        program.with_file_name("libvmac.so")
    };
    let library = env::var_os(LIBRARY).map_or_else(beside, PathBuf::from);
    VmaC::in_place(&library).unwrap_or_else(|error| panic!("{error}"))
}

/// The rules of the kernel that the library has.
///
/// # Panics
/// If no era is as old as it.
pub fn rules(oracle: &VmaC) -> Rules {
    *Rules::for_kernel(oracle.kernel()).expect("an era is as old as this kernel")
}

/// Makes a finding short, prints it, and writes what `vmalab diff` writes of one.
///
/// # Panics
/// Always: this is how libFuzzer learns of it.
pub fn report<O: Oracle>(runner: &mut Runner<'_, O>, bytes: &[u8], case: &Case) -> ! {
    let short = runner.shrink(case, SHRINK_FOR).unwrap_or(case.clone());
    println!("{}", case_text(&short, runner.worlds()));
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let out = env::var_os(OUT).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let name = format!("{:016x}", hasher.finish());
    let command = format!(
        "vmalab replay --oracle vmac {}/finding-{name}.ops",
        out.display()
    );
    let origin = Origin {
        name,
        oracle: runner.oracle(),
        era: runner.rules().name.into(),
        found_in: format!(
            "{} bytes of libFuzzer's, {} operations, of which {} are enough",
            bytes.len(),
            case.ops.len(),
            short.ops.len()
        ),
        command: command.clone(),
    };
    match page::write(&out, &short, &origin, runner.worlds()) {
        Ok(_) => panic!("a divergence: {command}"),
        Err(error) => panic!(
            "a divergence, and cannot write to {}: {error}",
            out.display()
        ),
    }
}
