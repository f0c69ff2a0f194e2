// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The running kernel and the model agree; and where the model is made wrong, that is found.
//!
//! Without an oracle (a kernel older than the eras of the model, no `/proc`, …) these are ignored, and
//! the reason is printed.

use std::env;
use std::fs;
use std::num::NonZeroU8;
use std::ops::ControlFlow;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sched::{CloneFlags, CpuSet, sched_getcpu, sched_setaffinity, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use nix::unistd::Pid;
use vmalab_differ::compare::Comparer;
use vmalab_differ::host::{Host, HostOptions, Tight};
use vmalab_differ::jobs;
use vmalab_differ::oracle::{Fields, Observation, Oracle, OracleError};
use vmalab_differ::program::program;
use vmalab_differ::runner::{Case, End, Plan, Runner, Stats, What};
use vmalab_model::{
    Advice, Backing, Errno, FileId, MapFlags, Mistake, MlockFlags, Mmap, Name, NewName, Op,
    Outcome, Prot, Rules, Signal, VmFlags,
};

/// Which identifier the next segment of System V shared memory has. Kernels have it that can restore processes, and the
/// administrator may write to it.
const NEXT_SEGMENT: &str = "/proc/sys/kernel/shm_next_id";

/// Says to a copy of this program, which was started with the legacy layout, that it is one.
const LEGACY: &str = "VMALAB_TEST_LEGACY";

/// Only a driver's hooks show the first four, the others take long here; mistakes.rs and vmac.rs have
/// them.
const ELSEWHERE: [Mistake; 8] = [
    Mistake::SplitForgetsOpen,
    Mistake::CloseBackwards,
    Mistake::MergeIgnoresClose,
    Mistake::FailedSplitCloses,
    Mistake::FailedMunmapUnlocks,
    Mistake::MremapIgnoresUnmap,
    Mistake::MremapToNothingWorks,
    Mistake::BrkUnbounded,
];

/// What a program of C can show: it has no limits but its own, and no drivers.
const SHOWN: [Mistake; 13] = [
    Mistake::SplitLosesOffset,
    Mistake::MunmapOfHoleFails,
    Mistake::MunmapOfNothingWorks,
    Mistake::NoMergeForward,
    Mistake::MergeIgnoresOffset,
    Mistake::MergeIgnoresAnonVma,
    Mistake::LockedNotCounted,
    Mistake::NoreplaceReplaces,
    Mistake::MergeUnderflowsOffset,
    Mistake::NextKeepsOldFlags,
    Mistake::NoUnwrittenMerge,
    Mistake::NextRemovedTwice,
    Mistake::MremapGrowsFromPart,
];

fn main() {
    if env::var_os(LEGACY).is_some() {
        legacy();
        return;
    }
    let arguments = Arguments::from_args();
    let missing = rules().err();
    if let Some(reason) = &missing {
        eprintln!("ignored: {reason}");
    }
    let trial = |name: String, test: fn() -> Result<(), Failed>| {
        Trial::test(name, test).with_ignored_flag(missing.is_some())
    };
    let mut trials = vec![
        trial("agrees".into(), agrees),
        trial("agrees_with_a_close_look".into(), agrees_with_a_close_look),
        trial("agrees_with_the_text_of_maps".into(), agrees_with_the_text),
        trial("sees_exact_flags".into(), sees_exact_flags),
        trial("stacks_end_at_their_limit".into(), stacks),
        trial("sees_contents".into(), sees_contents),
        trial("sees_signals".into(), sees_signals),
        trial("sees_the_peak".into(), sees_the_peak),
        trial("agrees_with_the_legacy_layout".into(), legacy_layout),
        trial("a_child_that_dies_is_reported".into(), a_child_that_dies),
        trial("children_are_alike".into(), children_are_alike),
        trial("agrees_side_by_side".into(), side_by_side),
        trial("a_long_sequence_can_be_played".into(), long_sequence),
    ];
    let why_not = std::thread::spawn(chosen_segments).join();
    let why_not = why_not.expect("it does not panic").err();
    if let Some(why_not) = &why_not {
        eprintln!("ignored: tells_segments_from_other_memory: {why_not}");
    }
    let ignored = missing.is_some() || why_not.is_some();
    let trial = Trial::test("tells_segments_from_other_memory", segments);
    trials.push(trial.with_ignored_flag(ignored));
    for &mistake in Mistake::ALL {
        if !ELSEWHERE.contains(&mistake) {
            let test = move || finds(mistake);
            let trial = Trial::test(format!("finds_{mistake:?}"), test);
            trials.push(trial.with_ignored_flag(missing.is_some()));
        }
    }
    for mistake in SHOWN {
        let trial = Trial::test(format!("a_program_shows_{mistake:?}"), move || {
            shows(mistake)
        });
        trials.push(trial.with_ignored_flag(missing.is_some()));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// The rules of the running kernel, if all is there to compare them with it.
fn rules() -> Result<Rules, String> {
    let host = Host::new(options(Tight::Never)).map_err(|error| error.to_string())?;
    let rules = Rules::for_kernel(host.release());
    rules
        .copied()
        .ok_or_else(|| format!("no era of the model is as old as {}", host.release()))
}

fn options(tight: Tight) -> HostOptions {
    HostOptions {
        tight,
        ..HostOptions::default()
    }
}

fn run(options: HostOptions, rules: Rules, ops: u64) -> Result<(Stats, End), Failed> {
    let mut host = Host::new(options)?;
    let plan = Plan {
        rules,
        seed: 1,
        first_batch: 0,
        ops,
    };
    Ok(Runner::new(&mut host, rules)?.run(&plan, |_| ControlFlow::Continue(()))?)
}

fn must_agree(options: HostOptions, ops: u64) -> Result<(), Failed> {
    let (stats, end) = run(options, rules()?, ops)?;
    match end {
        End::Agreed => {}
        End::Found(finding) => return Err(format!("{:#x?}", finding.short).into()),
        End::Stopped => return Err("stopped".into()),
    }
    // Not vacuous: pages were read, and each kind of operation has both succeeded and failed.
    if stats.pages < ops {
        return Err(format!("{} pages were compared", stats.pages).into());
    }
    for kind in ["mmap", "munmap", "touch to read", "touch to write"] {
        let (mut ok, mut failed) = (0, 0);
        for ((_, errno), count) in stats.results.iter().filter(|((of, _), _)| *of == kind) {
            *(if *errno == 0 { &mut ok } else { &mut failed }) += count;
        }
        if ok < ops / 100 || failed < ops / 1000 {
            return Err(format!("{kind}: {ok} successes and {failed} failures").into());
        }
    }
    Ok(())
}

fn agrees() -> Result<(), Failed> {
    must_agree(options(Tight::Fill), 50_000)
}

/// Several share one campaign out; a finding is told in the world of the one that found it.
fn side_by_side() -> Result<(), Failed> {
    let mut hosts = Vec::new();
    for _ in 0..3 {
        hosts.push(Host::new(options(Tight::Fill))?);
    }
    let mut plan = Plan {
        rules: rules()?,
        seed: 2,
        first_batch: 0,
        ops: 40_000,
    };
    let (stats, end) = jobs::run(&mut hosts, &plan, &[], |_| ControlFlow::Continue(()))?;
    if !matches!(end, End::Agreed) || stats.ops != plan.ops {
        return Err(format!("{} operations: {end:#x?}", stats.ops).into());
    }
    plan.rules = plan.rules.with_mistake(Mistake::SplitLosesOffset);
    let (_, end) = jobs::run(&mut hosts, &plan, &[], |_| ControlFlow::Continue(()))?;
    let End::Found(finding) = end else {
        return Err(format!("{end:?}").into());
    };
    let whose = &mut hosts[finding.oracle];
    let Case { world, ops, .. } = &finding.short;
    let again = Runner::new(whose, plan.rules)?.replay(*world, ops)?;
    if again.is_none() {
        return Err(format!("{:#x?}", finding.short).into());
    }
    Ok(())
}

fn agrees_with_a_close_look() -> Result<(), Failed> {
    let closely = HostOptions {
        counters_every: 1,
        layout_every: 1,
        flags_every: 1,
        ..options(Tight::Never)
    };
    must_agree(closely, 2_500)
}

fn agrees_with_the_text() -> Result<(), Failed> {
    must_agree(
        HostOptions {
            text: true,
            ..options(Tight::Fill)
        },
        5_000,
    )
}

/// All flags of areas and, where the kernel has them, names; and any that is not as predicted is a difference.
fn sees_exact_flags() -> Result<(), Failed> {
    let mut host = Host::new(options(Tight::Never))?;
    let addr = host.worlds()[0].arena.start;
    let len = 0x3000;
    let mmap = Op::Mmap(Mmap {
        addr,
        len,
        prot: Prot::READ | Prot::WRITE,
        flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED,
        backing: Backing::None,
        offset: 0,
    });
    let advise = |advice| Op::Madvise { addr, len, advice };
    let ops = [
        mmap,
        Op::Mlock {
            addr,
            len,
            flags: MlockFlags::ONFAULT,
        },
        advise(Advice::DONTFORK),
        advise(Advice::SEQUENTIAL),
        Op::SetName {
            addr,
            len,
            name: NewName::Some(Name(NonZeroU8::MIN)),
        },
    ];
    host.look_closely(true);
    let mut seen = Vec::new();
    host.run(0, &ops, &mut seen)?;
    let last = seen.last().ok_or("nothing was seen")?;
    let flags = VmFlags::READ
        | VmFlags::WRITE
        | VmFlags::MAYREAD
        | VmFlags::MAYWRITE
        | VmFlags::MAYEXEC
        | VmFlags::LOCKED
        | VmFlags::DONTCOPY
        | VmFlags::SEQ_READ
        | VmFlags::ACCOUNT;
    let area = last.outcome.layout.first().ok_or("there is no area")?;
    // Kernels before 6.3 have no name for this one.
    let unnamed = VmFlags::LOCKONFAULT;
    if area.flags.without(unnamed) != flags || !last.flags.contains(flags) {
        return Err(format!("{:?} of {:?}", area.flags, last.flags).into());
    }
    let names = host.sees().fields.contains(Fields::NAMES);
    if last.fields.contains(Fields::NAMES) != names || area.name.is_some() != names {
        return Err(format!("{:?}, {:?}", area.name, last.fields).into());
    }
    let mut changed = Vec::new();
    for (_, flag) in VmFlags::NAMED {
        if last.flags.contains(*flag) {
            let mut other = last.outcome.clone();
            other.layout[0].flags.0 ^= flag.0;
            changed.push(other);
        }
    }
    if names {
        let mut other = last.outcome.clone();
        other.layout[0].name = None;
        changed.push(other);
    }
    for other in &changed {
        if Comparer::new(host.sees()).compare(other, last).is_none() {
            return Err(format!("{:?} is overlooked", other.layout[0]).into());
        }
    }
    if changed.len() < 20
        || Comparer::new(host.sees())
            .compare(&last.outcome, last)
            .is_some()
    {
        return Err(format!("{} flags", changed.len()).into());
    }
    // Not only where it looks closely: at the end of a batch, too.
    host.look_closely(false);
    host.run(0, &ops, &mut seen)?;
    let known: Vec<bool> = seen.iter().map(|seen| seen.flags.contains(flags)).collect();
    if known != [false, false, false, false, true] {
        return Err(format!("{known:?}").into());
    }
    Ok(())
}

/// A stack grows to any size in the usual world, and to three pages where resources are short.
fn stacks() -> Result<(), Failed> {
    const PAGE: u64 = 0x1000;
    let mut host = Host::new(options(Tight::Never))?;
    let top = host.worlds()[0].arena.start + 20 * PAGE;
    let touch = |pages: u64| Op::Touch {
        addr: top - pages * PAGE,
        write: true,
    };
    let ops = [
        Op::Mmap(Mmap {
            addr: top - PAGE,
            len: PAGE,
            prot: Prot::READ | Prot::WRITE,
            flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED | MapFlags::GROWSDOWN,
            backing: Backing::None,
            offset: 0,
        }),
        touch(3),
        touch(4),
    ];
    let mut seen = Vec::new();
    for (world, last) in [(0, Ok(0)), (1, Err(Errno::EFAULT))] {
        host.run(world, &ops, &mut seen)?;
        let results: Vec<_> = seen.iter().map(|seen| seen.outcome.result).collect();
        if results[1..] != [Ok(0), last] {
            return Err(format!("{}: {results:?}", host.worlds()[world].name).into());
        }
    }
    Ok(())
}

/// A page that was written to, one that was given back, and which page of a file is mapped, private or not.
fn sees_contents() -> Result<(), Failed> {
    const PAGE: u64 = 0x1000;
    let mut host = Host::new(options(Tight::Never))?;
    let addr = host.worlds()[0].arena.start;
    let map = |page: u64, sharing, backing, offset: u64| {
        Op::Mmap(Mmap {
            addr: addr + page * PAGE,
            len: 2 * PAGE,
            prot: Prot::READ | Prot::WRITE,
            flags: sharing | MapFlags::FIXED,
            backing,
            offset: offset * PAGE,
        })
    };
    let memfd = Backing::File(FileId(0));
    let ops = [
        map(0, MapFlags::PRIVATE | MapFlags::ANONYMOUS, Backing::None, 0),
        map(4, MapFlags::PRIVATE, memfd, 3),
        map(8, MapFlags::SHARED, memfd, 4),
        Op::Touch { addr, write: true },
        Op::Madvise {
            addr,
            len: PAGE,
            advice: Advice::DONTNEED,
        },
    ];
    host.look_closely(true);
    let mut seen = Vec::new();
    host.run(0, &ops, &mut seen)?;
    if !host.sees().fields.contains(Fields::CONTENTS) {
        return Err("contents are not seen".into());
    }
    let held = |step: usize, page: u64| {
        let pages = seen[step].contents.iter();
        let mut held = pages.filter(|(at, _)| *at == addr + page * PAGE);
        held.next().map(|(_, word)| *word)
    };
    let zero = Some(0);
    let right = held(2, 0) == zero
        && held(3, 0).is_some()
        && held(3, 0) != zero
        && held(3, 1) == zero
        && held(4, 0) == zero
        && held(4, 4).is_some()
        && held(4, 4) != held(4, 5)
        && held(4, 5) == held(4, 8)
        && held(4, 8) != held(4, 9);
    if !right {
        return Err(format!("{seen:x?}").into());
    }
    Ok(())
}

/// Has the calling thread's segments in a namespace of their own, where it may say which identifier is next.
fn chosen_segments() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWIPC).map_err(|errno| format!("unshare: {errno}"))?;
    let file = fs::OpenOptions::new().write(true).open(NEXT_SEGMENT);
    file.map(drop)
        .map_err(|error| format!("{NEXT_SEGMENT}: {error}"))
}

/// A segment's inode is its identifier, whatever else has the same: a memory file of the oracle's, or memory that a child
/// shares later.
fn segments() -> Result<(), Failed> {
    // What this thread and its children make has numbers one after the other.
    let mut one = CpuSet::new();
    one.set(sched_getcpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &one)?;
    chosen_segments()?;
    let inode =
        || -> nix::Result<u64> { Ok(fstat(memfd_create(c"number", MFdFlags::empty())?)?.st_ino) };
    for later in [2, 120] {
        // Numbers are given to a processor by the thousand.
        let mut now = inode()?;
        while now % 1024 > 512 {
            now = inode()?;
        }
        let chosen = now + later;
        fs::write(NEXT_SEGMENT, chosen.to_string())?;
        let mut host = Host::new(options(Tight::Never))?;
        let ids = fs::read_to_string("/proc/sysvipc/shm")?;
        let ids = ids
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1));
        if !ids.into_iter().any(|id| id == chosen.to_string()) {
            return Err(format!("there is no segment {chosen}").into());
        }
        let rules = rules()?;
        let plan = Plan {
            rules,
            seed: 1,
            first_batch: 0,
            ops: 10_000,
        };
        let (_, end) = Runner::new(&mut host, rules)?.run(&plan, |_| ControlFlow::Continue(()))?;
        if let End::Found(finding) = end {
            return Err(format!("{later}: {:#x?}", finding.short).into());
        }
        if inode()? <= chosen {
            return Err(format!("nothing has had the number {chosen}").into());
        }
    }
    Ok(())
}

/// One of 5,000 operations is played in one process; one that is too long for that is refused.
fn long_sequence() -> Result<(), Failed> {
    const PAGE: u64 = 0x1000;
    let mut host = Host::new(options(Tight::Never))?;
    let first = host.worlds()[0].arena.start;
    let map = |page: u64| {
        Op::Mmap(Mmap {
            addr: first + page % 32 * PAGE,
            len: PAGE,
            prot: if page % 2 == 0 {
                Prot::READ
            } else {
                Prot::empty()
            },
            flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED,
            backing: Backing::None,
            offset: 0,
        })
    };
    let ops: Vec<Op> = (0..5_000).map(map).collect();
    let mut runner = Runner::new(&mut host, rules()?)?;
    if let Some(case) = runner.replay(0, &ops)? {
        return Err(format!("{:#x?}", case.what).into());
    }
    let many: Vec<Op> = (0..20_000).map(map).collect();
    match runner.replay(0, &many) {
        Err(OracleError::Environment(what)) if what.contains("20000 operations") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

/// Which signal a touch raises, and for which reason; and none where it does not.
fn sees_signals() -> Result<(), Failed> {
    const PAGE: u64 = 0x1000;
    let mut host = Host::new(options(Tight::Never))?;
    let addr = host.worlds()[0].arena.start;
    let map = |page: u64, prot, flags, backing| {
        Op::Mmap(Mmap {
            addr: addr + page * PAGE,
            len: PAGE,
            prot,
            flags: flags | MapFlags::FIXED,
            backing,
            offset: 20 * PAGE,
        })
    };
    let anonymous = MapFlags::PRIVATE | MapFlags::ANONYMOUS;
    let short = Backing::File(FileId(1));
    let mut ops = vec![
        map(0, Prot::READ, anonymous, Backing::None),
        map(2, Prot::READ | Prot::WRITE, MapFlags::SHARED, short),
        map(4, Prot::empty(), anonymous, Backing::None),
    ];
    let touched = [
        (addr, false, None),
        (addr, true, Some(Signal::Denied)),
        (addr + PAGE, false, Some(Signal::Unmapped)),
        (addr + 2 * PAGE, true, Some(Signal::BeyondEnd)),
        (addr + 4 * PAGE, false, Some(Signal::Denied)),
        (1 << 60, false, Some(Signal::NoAddress)),
        (u64::MAX, true, Some(Signal::Unmapped)),
    ];
    let maps = ops.len();
    ops.extend(touched.map(|(addr, write, _)| Op::Touch { addr, write }));
    // In a child of a child, too.
    ops.push(Op::Fork);
    ops.push(Op::Touch { addr, write: true });
    let mut seen = Vec::new();
    host.run(0, &ops, &mut seen)?;
    let signals: Vec<_> = seen.iter().map(|seen| seen.outcome.signal).collect();
    let expected = touched.map(|(.., signal)| signal);
    if signals[maps..maps + touched.len()] != expected
        || signals.last() != Some(&Some(Signal::Denied))
        || !seen
            .iter()
            .all(|seen| seen.fields.contains(Fields::SIGNALS))
    {
        return Err(format!("{signals:?}").into());
    }
    let denied = seen.last().ok_or("nothing was seen")?;
    let mut other = denied.outcome.clone();
    other.signal = Some(Signal::Unmapped);
    overlooked(&host, &other, denied)
}

/// `VmPeak` stays when memory goes, and begins anew with a fork.
fn sees_the_peak() -> Result<(), Failed> {
    let mut host = Host::new(options(Tight::Never))?;
    let before = host.worlds()[0].counters.total_vm;
    let (addr, len) = (host.worlds()[0].arena.start, 0x9000);
    let ops = [
        Op::Mmap(Mmap {
            addr,
            len,
            prot: Prot::READ,
            flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED,
            backing: Backing::None,
            offset: 0,
        }),
        Op::Munmap { addr, len },
        Op::Fork,
    ];
    host.look_closely(true);
    let mut seen = Vec::new();
    host.run(0, &ops, &mut seen)?;
    let peaks: Vec<_> = seen.iter().map(|seen| seen.outcome.peak_vm).collect();
    if peaks != [before + 9, before + 9, before]
        || !seen.iter().all(|seen| seen.fields.contains(Fields::PEAK))
    {
        return Err(format!("{before}, then {peaks:?}").into());
    }
    let mut other = seen[1].outcome.clone();
    other.peak_vm -= 1;
    overlooked(&host, &other, &seen[1])
}

/// Fails if another outcome than what was seen is taken for it.
fn overlooked(host: &Host, other: &Outcome, seen: &Observation) -> Result<(), Failed> {
    if Comparer::new(host.sees()).compare(other, seen).is_none() {
        return Err(format!("{other:?} is overlooked").into());
    }
    Ok(())
}

/// A copy of this program that is started with the legacy layout agrees with the model.
fn legacy_layout() -> Result<(), Failed> {
    let mut copy = Command::new(env::current_exe()?);
    copy.env(LEGACY, "1");
    let persona = libc::ADDR_COMPAT_LAYOUT | libc::ADDR_NO_RANDOMIZE;
    // SAFETY: what is called between fork and exec is one system call.
    unsafe {
        copy.pre_exec(move || match libc::personality(persona as libc::c_ulong) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let output = copy.output()?;
    if !output.status.success() {
        return Err(format!("{output:?}").into());
    }
    Ok(())
}

/// As that copy: addresses go up, from what the model was told on.
fn legacy() {
    let goes_up = || -> Result<(), Failed> {
        let mut host = Host::new(options(Tight::Never))?;
        let limits = host.worlds()[0].limits;
        let map = |pages: u64, prot| {
            Op::Mmap(Mmap {
                addr: 0,
                len: pages * 0x1000,
                prot,
                flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS,
                backing: Backing::None,
                offset: 0,
            })
        };
        let mut seen = Vec::new();
        host.run(0, &[map(3, Prot::READ), map(1, Prot::WRITE)], &mut seen)?;
        let results = [0, 1].map(|index: usize| seen[index].outcome.result);
        let base = limits.mmap_legacy_base;
        if !limits.legacy_layout || results != [Ok(base), Ok(base + 0x3000)] {
            return Err(format!("{limits:x?}: {results:x?}").into());
        }
        must_agree(options(Tight::Fill), 20_000)
    };
    goes_up().expect("it agrees");
}

/// It takes its own code away.
fn a_child_that_dies() -> Result<(), Failed> {
    let mut host = Host::new(options(Tight::Never))?;
    let end = host.worlds()[0].limits.task_size;
    let harmless = Op::Munmap {
        addr: host.worlds()[0].arena.start,
        len: 0x1000,
    };
    let ops = [harmless, Op::Munmap { addr: 0, len: end }, harmless];
    let mut seen = Vec::new();
    match host.run(0, &ops, &mut seen) {
        Err(OracleError::Broke { index: 1, what }) if what.contains("SIGSEGV") => {}
        other => return Err(format!("{other:?}").into()),
    }
    if seen.len() != 1 {
        return Err(format!("{} observations", seen.len()).into());
    }
    // The next batch has a child of its own.
    Ok(host.run(0, &[harmless], &mut seen)?)
}

/// What one batch leaves behind, the next does not see.
fn children_are_alike() -> Result<(), Failed> {
    let mut host = Host::new(options(Tight::Never))?;
    let mmap = Op::Mmap(Mmap {
        addr: 0,
        len: 0x5000,
        prot: Prot::READ,
        flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS,
        backing: Backing::None,
        offset: 0,
    });
    let mut seen = Vec::new();
    host.run(0, &[mmap], &mut seen)?;
    let first = seen[0].outcome.clone();
    // This program's own memory changes; the template's does not.
    let _ballast = vec![1u8; 64 << 20];
    host.run(0, &[mmap], &mut seen)?;
    if seen[0].outcome != first {
        return Err(format!("{first:#x?}\nthen\n{:#x?}", seen[0].outcome).into());
    }
    Ok(())
}

/// A program of C shows the mistake. Not each way in which one is found can be shown: another seed finds others.
fn shows(mistake: Mistake) -> Result<(), Failed> {
    for seed in 1..=4 {
        match shows_by(mistake, seed)? {
            None => return Ok(()),
            Some(why) => println!("seed {seed}: {why}"),
        }
    }
    Err("not with any of the seeds".into())
}

/// It compiles without a warning, says that the kernel does otherwise than was expected, and is content if what the
/// kernel does was expected. Or why there is no program.
fn shows_by(mistake: Mistake, seed: u64) -> Result<Option<String>, Failed> {
    let rules = rules()?.with_mistake(mistake);
    let mut host = Host::new(options(Tight::Never))?;
    let worlds = host.worlds().to_vec();
    let plan = Plan {
        rules,
        seed,
        first_batch: 0,
        ops: 10_000,
    };
    let end = Runner::new(&mut host, rules)?
        .run(&plan, |_| ControlFlow::Continue(()))?
        .1;
    let End::Found(finding) = end else {
        return Err("overlooked".into());
    };
    let mut case = finding.short;
    let text = match program(&case, &worlds, "a test") {
        Ok(text) => text,
        Err(why) => return Ok(Some(why.to_string())),
    };
    let (status, said) = compile_and_run(&format!("{mistake:?}"), &text)?;
    if status != Some(1) || !said.contains("expected") {
        return Err(format!("{status:?}, {said}\n{text}").into());
    }
    if let What::Differs(differs) = &mut case.what {
        let observed = &differs.observed;
        let counters = differs.predicted.counters;
        differs.predicted = observed.outcome.clone();
        if !observed.fields.contains(Fields::COUNTERS) {
            differs.predicted.counters = counters;
        }
    }
    // Which flag it would look at, only the difference tells.
    let Ok(text) = program(&case, &worlds, "a test") else {
        return Ok(None);
    };
    let (status, said) = compile_and_run(&format!("{mistake:?}-right"), &text)?;
    if status != Some(0) {
        return Err(format!("right: {status:?}, {said}\n{text}").into());
    }
    Ok(None)
}

/// Its exit status, and what it printed.
fn compile_and_run(name: &str, text: &str) -> Result<(Option<i32>, String), Failed> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let source = path.with_extension("c");
    fs::write(&source, text)?;
    let compiler = Command::new("gcc")
        .args(["-Wall", "-Wextra", "-Werror", "-O1", "-o"])
        .args([&path, &source])
        .output()?;
    if !compiler.status.success() {
        let said = String::from_utf8_lossy(&compiler.stderr);
        return Err(format!("{said}\n{text}").into());
    }
    let output = Command::new(&path).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output.status.code(), said))
}

fn finds(mistake: Mistake) -> Result<(), Failed> {
    match run(options(Tight::Fill), rules()?.with_mistake(mistake), 60_000)? {
        (_, End::Found(_)) => Ok(()),
        (stats, _) => Err(format!("overlooked in {} operations", stats.ops).into()),
    }
}
