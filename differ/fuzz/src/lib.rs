// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the targets share: the oracle, and what becomes of a finding.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use vmalab_differ::oracle::Oracle;
use vmalab_differ::page::what;
use vmalab_differ::report::case_text;
use vmalab_differ::runner::{Case, Runner};
use vmalab_differ::sequence::to_text;
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
    VmaC::new(&library).unwrap_or_else(|error| panic!("{error}"))
}

/// The rules of the kernel that the library has.
///
/// # Panics
/// If no era is as old as it.
pub fn rules(oracle: &VmaC) -> Rules {
    *Rules::for_kernel(oracle.kernel()).expect("an era is as old as this kernel")
}

/// Makes a finding short, prints it, and writes the sequence for `vmalab replay`.
///
/// # Panics
/// Always: this is how libFuzzer learns of it.
pub fn report<O: Oracle>(runner: &mut Runner<'_, O>, bytes: &[u8], case: &Case) -> ! {
    let short = runner.shrink(case, SHRINK_FOR).unwrap_or(case.clone());
    println!("{}", case_text(&short, runner.worlds()));
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let out = env::var_os(OUT).map_or_else(PathBuf::new, PathBuf::from);
    let path = out.join(format!("finding-{:016x}.ops", hasher.finish()));
    let world = &runner.worlds()[short.world];
    let text = to_text(world, runner.rules().name, &short.ops, &what(&short));
    match fs::write(&path, text) {
        Ok(()) => panic!(
            "a divergence: vmalab replay --oracle vmac {}",
            path.display()
        ),
        Err(error) => panic!("a divergence, and cannot write {}: {error}", path.display()),
    }
}
