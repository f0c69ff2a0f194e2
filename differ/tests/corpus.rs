// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The sequences of `tests/corpus` do on every oracle what the model says: what was once found, what readers of
//! the kernel's code ask about, what real programs do. One that names a mistake of the model shows it.
//!
//! Where there is no kernel source, or a kernel older than all eras, that oracle is ignored, and the reason is
//! printed.

use std::fs;
use std::path::Path;

use libtest_mimic::{Arguments, Failed, Trial};
use vmalab_differ::host::{Host, HostOptions, Tight};
use vmalab_differ::oracle::Oracle;
use vmalab_differ::peer::Peer;
use vmalab_differ::runner::Runner;
use vmalab_differ::sequence::Sequence;
use vmalab_differ::vmac::{self, Build, VmaC};
use vmalab_model::{Mistake, Op, Rules};

fn main() {
    let arguments = Arguments::from_args();
    let source = Build::from_environment().err().map(|why| why.to_string());
    let kernel = host()
        .err()
        .map(|why| why.message().unwrap_or("").to_owned());
    for why in [&source, &kernel].into_iter().flatten() {
        eprintln!("ignored: {why}");
    }
    let trials = vec![
        Trial::test("on_the_model", on_the_model),
        Trial::test("on_vmac", on_vmac).with_ignored_flag(source.is_some()),
        Trial::test("on_the_running_kernel", on_the_host).with_ignored_flag(kernel.is_some()),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// By its own rules and, so that eras are not forgotten, by each other's: nothing panics there.
fn on_the_model() -> Result<(), Failed> {
    let peer = || Peer::with_worlds(Rules::V7_2, vmac::worlds());
    let (played, mistakes) = play(&mut peer(), Rules::V7_2)?;
    assert_eq!(played, all()?.len());
    // Each mistake of the model has a sequence.
    assert_eq!(mistakes, Mistake::ALL.len());
    for rules in Rules::all() {
        let mut other = Peer::with_worlds(*rules, vmac::worlds());
        play(&mut other, *rules)?;
    }
    Ok(())
}

fn on_vmac() -> Result<(), Failed> {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libvmac.so");
    Build::from_environment()?.once(&library)?;
    let mut vmac = VmaC::new(&library)?;
    let rules = *Rules::for_kernel(vmac.kernel()).ok_or("no era is as old as this source")?;
    let (played, mistakes) = play(&mut vmac, rules)?;
    assert_eq!(played, all()?.len());
    assert_eq!(mistakes, Mistake::ALL.len());
    Ok(())
}

/// The host has no devices, and other limits.
fn on_the_host() -> Result<(), Failed> {
    let (mut host, rules) = host()?;
    let (played, mistakes) = play(&mut host, rules)?;
    assert!(played >= 15 && mistakes >= 5, "{played}, {mistakes}");
    Ok(())
}

fn host() -> Result<(Host, Rules), Failed> {
    let host = Host::new(HostOptions {
        tight: Tight::Never,
        ..HostOptions::default()
    })?;
    let rules = Rules::for_kernel(host.release());
    let rules = *rules.ok_or_else(|| format!("{} is older than all eras", host.release()))?;
    Ok((host, rules))
}

/// The name and the text of each.
fn all() -> Result<Vec<(String, String)>, Failed> {
    let mut all = Vec::new();
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/corpus"))? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        all.push((name.into_owned(), fs::read_to_string(&path)?));
    }
    all.sort();
    Ok(all)
}

/// Plays all for which the oracle has the world and the files: how many, and how many mistakes they showed.
fn play<O: Oracle>(oracle: &mut O, rules: Rules) -> Result<(usize, usize), Failed> {
    let (mut played, mut mistakes) = (0, 0);
    for (name, text) in all()? {
        let sequence = Sequence::parse(&text).map_err(|error| format!("{name}: {error}"))?;
        let worlds = oracle.worlds();
        let found = sequence.world_of(worlds).and_then(|world| {
            let ops = sequence.ops(&worlds[world])?;
            Ok((world, ops))
        });
        let (world, ops) = match found {
            Ok(found) => found,
            Err(error) => {
                println!("{name} is left out: {error}");
                continue;
            }
        };
        played += 1;
        if let Some(what) = shows(oracle, rules, world, &ops)? {
            return Err(format!("{name}: {what}").into());
        }
        let mistake = text
            .lines()
            .find_map(|line| line.strip_prefix("# mistake "));
        let Some(mistake) = mistake else { continue };
        let mistake = Mistake::ALL
            .iter()
            .find(|one| format!("{one:?}") == mistake);
        let mistake = *mistake.ok_or_else(|| format!("{name} names no mistake"))?;
        let wrong = rules.with_mistake(mistake);
        mistakes += usize::from(shows(oracle, wrong, world, &ops)?.is_some());
    }
    println!("{played} were played, and {mistakes} mistakes shown");
    Ok((played, mistakes))
}

/// What a sequence shows, if anything.
fn shows<O: Oracle>(
    oracle: &mut O,
    rules: Rules,
    world: usize,
    ops: &[Op],
) -> Result<Option<String>, Failed> {
    let case = Runner::new(oracle, rules)?.replay(world, ops)?;
    Ok(case.map(|case| vmalab_differ::page::what(&case)))
}
