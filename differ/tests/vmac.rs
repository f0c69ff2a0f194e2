// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The kernel's `mm/vma.c` and the model agree; and one line of `mm/vma.c` changed is found within a
//! minute, and so is each deliberate mistake of the model, among them the errors that some kernel once had.
//!
//! The first few changed lines are tried each time, all of them by `-- --include-ignored`.
//!
//! Without a kernel source (`VMALAB_LINUX_SRC`) or a C compiler these are ignored, and the reason is
//! printed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use libtest_mimic::{Arguments, Failed, Trial};
use vmalab_differ::generate::Generator;
use vmalab_differ::known::{self, By, KNOWN};
use vmalab_differ::oracle::Oracle;
use vmalab_differ::runner::{BATCH, End, Finding, Plan, Runner, Stats, What};
use vmalab_differ::sequence::Sequence;
use vmalab_differ::small::{self, Extra, alphabet, state_of};
use vmalab_differ::vmac::{Build, Isolated, VmaC, fail_allocations, runtimes};
use vmalab_model::{AddressSpace, Mistake, Op, Rules};

/// Says to a copy of this program: play on that library, and print what was found.
const PLAY: &str = "VMALAB_TEST_PLAY";
/// With it: so many operations. Else as many as there is time for.
const OPS: &str = "VMALAB_TEST_OPS";
/// So many of the changed lines are tried each time.
const EACH_TIME: usize = 12;
/// Seconds that a changed line or a mistake may stay unnoticed.
const LIMIT: u32 = 60;

/// A line of `mm/vma.c` with an error in it.
struct Bug {
    name: &'static str,
    /// As 7.2 has it, or 7.3 where that is otherwise: the first that is there.
    changes: &'static [Change],
}

/// In this function, the first occurrence of the second becomes the third.
type Change = (&'static str, &'static str, &'static str);

const fn bug(name: &'static str, changes: &'static [Change]) -> Bug {
    Bug { name, changes }
}

const BUGS: &[Bug] = &[
    bug(
        "offset_of_next",
        &[
            ("can_vma_merge_before", "+ pglen", "+ 0"),
            (
                "can_vma_merge_before",
                "if (vmg_end_pgoff",
                "if (0 && vmg_end_pgoff",
            ),
        ],
    ),
    bug(
        "no_unfaulted_merge",
        &[("is_mergeable_anon_vma", "return !", "return 0 && !")],
    ),
    bug(
        "removed_despite_close",
        &[("can_merge_remove_vma", "return ", "return 1 || ")],
    ),
    bug(
        "split_offset",
        &[
            ("__split_vma", "vm_pgoff += ", "vm_pgoff -= "),
            ("__split_vma", "vma_add_pgoff(new", "vma_sub_pgoff(new"),
        ],
    ),
    bug(
        "split_opens_the_old_one",
        &[("__split_vma", "open(new)", "open(vma)")],
    ),
    bug(
        "limit_of_holes",
        &[("vms_gather_munmap_vmas", "map_count >=", "map_count >")],
    ),
    bug(
        "seal_overlooked",
        &[("vms_gather_munmap_vmas", "vma_is_sealed(next)", "0")],
    ),
    bug(
        "left_detached",
        &[("reattach_vmas", "vma_mark_attached(vma)", "(void)vma")],
    ),
    bug(
        "file_leaked",
        &[("remove_vma", "if (vma->vm_file)", "if (0)")],
    ),
    bug(
        "old_areas_close_late",
        &[("vms_clean_up_area", "vma_close(vma)", "(void)vma")],
    ),
    bug(
        "charged_twice",
        &[
            (
                "__mmap_setup",
                "charged -= vms->nr_accounted",
                "charged -= 0",
            ),
            ("__mmap_setup", "pglen - vms->nr_accounted", "pglen"),
        ],
    ),
    bug(
        "charge_kept",
        &[("__mmap_region", "if (map.charged)", "if (0)")],
    ),
    bug(
        "no_reattach",
        &[("vms_abort_munmap_vmas", "if (vms->clear_ptes)", "if (0)")],
    ),
    bug(
        "offset_of_prev",
        &[
            ("can_vma_merge_after", "==", ">="),
            (
                "can_vma_merge_after",
                "vma_end_pgoff(vmg->prev) !=",
                "vma_end_pgoff(vmg->prev) <",
            ),
        ],
    ),
    bug(
        "flags_ignored",
        &[("is_mergeable_vma", "!vma_flags_empty(", "0 && (")],
    ),
    bug(
        "both_sides_anon_vma",
        &[("can_vma_merge_right", "return !prev", "return 1 || !prev")],
    ),
    bug(
        "anon_vma_lost_in_merge",
        &[("dup_anon_vma", "if (src->", "if (0 && src->")],
    ),
    bug(
        "next_not_removed",
        &[(
            "vma_expand",
            "__remove_next = true",
            "__remove_next = false",
        )],
    ),
    bug("split_unasked", &[("__split_vma", "if (err)", "if (0)")]),
    bug(
        "locked_miscounted",
        &[(
            "vms_gather_munmap_vmas",
            "locked_vm += nrpages",
            "locked_vm += 1",
        )],
    ),
    bug(
        "map_count_kept",
        &[("vms_complete_munmap_vmas", "-= vms->vma_count", "-= 1")],
    ),
    bug(
        "nothing_unmapped",
        &[("do_vmi_munmap", "end == start", "0")],
    ),
    bug(
        "old_pages_in_the_limit",
        &[("__mmap_setup", "pglen - vms->nr_pages", "pglen")],
    ),
    bug(
        "locked_uncounted",
        &[("__mmap_complete", "+= map->pglen", "+= 0")],
    ),
    bug(
        "stack_offset",
        &[
            ("expand_downwards", "vm_pgoff -= grow", "vm_pgoff -= 0"),
            ("expand_downwards", "vma_sub_pgoff(vma, grow)", "(void)0"),
        ],
    ),
    bug(
        "stack_limit",
        &[("acct_stack_growth", "size > rlimit", "size >= rlimit")],
    ),
    bug(
        "stack_guard",
        &[(
            "unmapped_area_topdown",
            "vm_start_gap(tmp) < gap_end",
            "tmp->vm_start < gap_end",
        )],
    ),
    bug(
        "anon_vma_not_shared",
        &[("reusable_anon_vma", "return anon_vma", "return NULL")],
    ),
    bug(
        "shrunk_middle_offset",
        &[
            ("vmg_adjust_set_range", "+ PHYS_PFN", "- PHYS_PFN"),
            (
                "vmg_adjust_set_range",
                "vma_add_pgoff(middle",
                "vma_sub_pgoff(middle",
            ),
        ],
    ),
    bug(
        "grown_next_offset",
        &[
            ("vmg_adjust_set_range", "- PHYS_PFN", "+ PHYS_PFN"),
            (
                "vmg_adjust_set_range",
                "vma_sub_pgoff(next",
                "vma_add_pgoff(next",
            ),
        ],
    ),
    bug(
        "merged_next_offset",
        &[
            (
                "vma_merge_existing_range",
                "next->vm_pgoff - pglen",
                "next->vm_pgoff",
            ),
            (
                "vma_merge_existing_range",
                "vma_start_pgoff(next) - pglen",
                "vma_start_pgoff(next)",
            ),
        ],
    ),
    bug(
        "merged_anon_vma",
        &[(
            "vma_merge_existing_range",
            "next->anon_vma ? next : middle",
            "middle",
        )],
    ),
    bug(
        "tail_not_split",
        &[("vma_modify", "vma->vm_end > end", "0")],
    ),
    bug("limit_of_splits", &[("split_vma", ">=", ">")]),
];

/// Code that ruins memory or does not come to its end, and what is said of it.
const BROKEN: [(Bug, &str); 6] = [
    (
        bug(
            "writes_behind_an_area",
            &[(
                "__split_vma",
                "new->vm_end = addr;",
                "new->vm_end = addr; *(char *)(new + 1) = 1;",
            )],
        ),
        "something was written behind a vm_area_struct",
    ),
    (
        bug(
            "frees_an_area_twice",
            &[(
                "remove_vma",
                "vm_area_free(vma);",
                "vm_area_free(vma); vm_area_free(vma);",
            )],
        ),
        "a vm_area_struct is freed that is free",
    ),
    (
        bug(
            "loops",
            &[(
                "vms_gather_munmap_vmas",
                "\n\tint error",
                "\n\tfor (;;) ;\n\tint error",
            )],
        ),
        "it does not come back: a loop without end",
    ),
    (
        bug(
            "takes_all_memory",
            &[(
                "vms_gather_munmap_vmas",
                "\n\tint error",
                "\n\tfor (;;) kmem_cache_alloc(anon_vma_cachep, GFP_KERNEL);\n\tint error",
            )],
        ),
        "VMAC_BLOCKS",
    ),
    (
        bug(
            "crashes",
            &[("__split_vma", "vm_ops->open(new)", "vm_ops->open(NULL)")],
        ),
        "signal 11",
    ),
    (
        bug(
            "calls_itself",
            &[(
                "vma_merge_new_range",
                "\n\tstruct vm_area_struct",
                "\n\tif (vmg->prev) { volatile char frame[4096]; frame[0] = 0; vma_merge_new_range(vmg); frame[1] = 0; }\n\tstruct vm_area_struct",
            )],
        ),
        "signal 11",
    ),
];

fn main() {
    if let Some(library) = env::var_os(PLAY) {
        play(Path::new(&library));
        return;
    }
    let arguments = Arguments::from_args();
    let missing = Build::from_environment().err();
    if let Some(reason) = &missing {
        eprintln!("ignored: {reason}");
    }
    let ignored = missing.is_some();
    let mut trials = vec![
        Trial::test("agrees", agrees).with_ignored_flag(ignored),
        Trial::test(
            "failing_allocations_leave_all_in_order",
            failing_allocations,
        )
        .with_ignored_flag(ignored),
        Trial::test("what_is_known_is_counted_by_its_cause", known_causes)
            .with_ignored_flag(ignored),
        Trial::test("edges_are_counted", edges).with_ignored_flag(ignored || !has_clang()),
        Trial::test("agrees_with_sanitizers", agrees_with_sanitizers).with_ignored_flag(ignored),
        Trial::test("isolated_sees_the_same", isolated_sees_the_same).with_ignored_flag(ignored),
        Trial::test("two_side_by_side_agree", two_side_by_side_agree).with_ignored_flag(ignored),
        // It takes long: with -- --include-ignored.
        Trial::test("ten_thousand_operations_come_down_to_a_few", comes_down)
            .with_ignored_flag(true),
        Trial::test("small_worlds_agree_and_lose_nothing", small_worlds).with_ignored_flag(ignored),
        Trial::test("small_worlds_that_fail_agree", small_worlds_that_fail)
            .with_ignored_flag(ignored),
    ];
    for (bug, says) in &BROKEN {
        let trial = Trial::test(format!("survives_what_{}", bug.name), || breaks(bug, says));
        trials.push(trial.with_ignored_flag(ignored));
    }
    for (index, bug) in BUGS.iter().enumerate() {
        let trial = Trial::test(format!("finds_{}", bug.name), || finds(bug));
        trials.push(trial.with_ignored_flag(ignored || index >= EACH_TIME));
    }
    for &mistake in Mistake::ALL {
        let trial = Trial::test(format!("notices_{mistake:?}"), move || notices(mistake));
        trials.push(trial.with_ignored_flag(ignored));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// A place for a file of a test.
fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The oracle. All tests share it: each is a process of its own with some runners.
fn library() -> Result<PathBuf, Failed> {
    let library = scratch("libvmac.so");
    Build::from_environment()?.once(&library)?;
    Ok(library)
}

/// The rules of the tree's version.
fn rules(oracle: &VmaC) -> Result<Rules, Failed> {
    let rules = Rules::for_kernel(oracle.kernel());
    Ok(*rules.ok_or("no era is as old as this kernel")?)
}

fn run(library: &Path, seed: u64, ops: u64) -> Result<(Stats, End), Failed> {
    let mut oracle = VmaC::new(library)?;
    let plan = Plan {
        rules: rules(&oracle)?,
        seed,
        first_batch: 0,
        ops,
    };
    Ok(Runner::new(&mut oracle, plan.rules)?.run(&plan, |_| ControlFlow::Continue(()))?)
}

fn has_clang() -> bool {
    let clang = Command::new("clang").arg("--version").output();
    if clang.is_err() {
        eprintln!("ignored: there is no clang, by which edges are counted");
    }
    clang.is_ok()
}

/// A library that keeps flags tells more of them the more it plays; one that does not has none.
fn edges() -> Result<(), Failed> {
    let counted = scratch("libvmac-counted.so");
    let build = Build {
        counted: true,
        ..Build::from_environment()?
    };
    build.once(&counted)?;
    let few = must_agree(&counted, 1, BATCH)?.reach.edges();
    let many = must_agree(&counted, 1, 40 * BATCH)?.reach.edges();
    let ((few, all), (many, same)) = few.zip(many).ok_or("it does not count")?;
    println!("{few} edges of {all}, then {many}");
    // Those of mm/vma.c alone: there are thousands in all of the library.
    if all != same || !(500..4000).contains(&all) || few < 100 || many <= few || many >= all {
        return Err(format!("{few} edges of {all}, then {many} of {same}").into());
    }
    let none = must_agree(&library()?, 1, BATCH)?.reach;
    if none.edges().is_some() || none.outcomes() < 40 {
        return Err(none.text().into());
    }
    Ok(())
}

fn must_agree(library: &Path, seed: u64, ops: u64) -> Result<Stats, Failed> {
    match run(library, seed, ops)? {
        (stats, End::Agreed) => Ok(stats),
        (_, End::Found(finding)) => Err(format!("{:#x?}", finding.short).into()),
        (_, End::Stopped) => Err("stopped".into()),
    }
}

/// Each kind of operation, as the statistics call it, and the least share of successes and failures in
/// ten thousand.
const KINDS: [(&str, u64, u64); 13] = [
    ("mmap", 100, 10),
    ("munmap", 100, 10),
    ("mprotect", 100, 10),
    ("mremap", 100, 10),
    ("mlock", 20, 10),
    ("mlock2", 10, 10),
    ("munlock", 20, 10),
    ("madvise", 100, 10),
    ("set_name", 2, 10),
    ("mbind", 10, 10),
    ("fork", 10, 0),
    ("touch to read", 100, 10),
    ("touch to write", 100, 10),
];

fn agrees() -> Result<(), Failed> {
    let library = library()?;
    let stats = must_agree(
        &library,
        1,
        if cfg!(debug_assertions) {
            50_000
        } else {
            500_000
        },
    )?;
    // Not vacuous: each kind of operation has both succeeded and failed, and each hook was called.
    for (kind, least_ok, least_failed) in KINDS {
        let (mut ok, mut failed) = (0, 0);
        for ((_, errno), count) in stats.results.iter().filter(|((of, _), _)| *of == kind) {
            *(if *errno == 0 { &mut ok } else { &mut failed }) += count;
        }
        if ok * 10_000 < stats.ops * least_ok || failed * 10_000 < stats.ops * least_failed {
            return Err(format!("{kind}: {ok} successes and {failed} failures").into());
        }
    }
    for hook in [
        "mmap",
        "open",
        "close",
        "may_split",
        "mapped",
        "mremap",
        "mprotect",
    ] {
        if stats
            .hooks
            .get(hook)
            .is_none_or(|&calls| calls < stats.ops / 100)
        {
            return Err(format!("{hook}: {:?} calls", stats.hooks.get(hook)).into());
        }
    }
    Ok(())
}

/// The model does not know of them, but whatever fails half way: counters, reverse maps and the tree
/// agree with the areas, and in the end nothing is left over.
fn failing_allocations() -> Result<(), Failed> {
    let library = library()?;
    let mut oracle = VmaC::new(&library)?;
    let batches = if cfg!(debug_assertions) { 100 } else { 4_000 };
    let failures = fail_allocations(&mut oracle, 11, batches)?;
    println!("{failures} allocations failed");
    if failures < 1_000 {
        return Err(format!("only {failures} allocations failed").into());
    }
    Ok(())
}

/// In which kernels something is wrong.
type Comes = fn(&Rules) -> bool;

/// What is known to be wrong, in which kernels, and a sequence in which it comes once there, and nothing else.
const EXCUSED: [(&str, Comes, &str); 6] = [
    (
        known::CHARGE_OF_MMAP,
        |rules| rules.failed_mmap_forgets_charge,
        "mmap(arena+0x0, 0x2000, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0x0)
        steer(device, mmap, 0x1, EINVAL)
        mmap(arena+0x0, 0x1000, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED, device, 0x0)",
    ),
    (
        known::CHARGE_OF_MREMAP,
        |rules| rules.mremap_charges_what_shrank,
        "mmap(arena+0x0, 0x2000, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0x0)
        mremap(arena+0x0, 0x2000, 0x1000, MREMAP_MAYMOVE|MREMAP_FIXED, arena+0x8000)",
    ),
    (
        known::CHARGE_OF_MREMAP,
        |rules| rules.mremap_charges_what_stays,
        "mmap(arena+0x0, 0x3000, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0x0)
        fail_area(0x2)
        mremap(arena+0x1000, 0x1000, 0x1000, MREMAP_MAYMOVE|MREMAP_FIXED, arena+0x8000)",
    ),
    (
        known::CHARGE_OF_STACK,
        |_| true,
        "mmap(arena+0x10000, 0x2000, PROT_READ|PROT_WRITE,
            MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS|MAP_GROWSDOWN|MAP_NORESERVE, -1, 0x0)
        touch(arena+0xf000, write)",
    ),
    (
        known::LOCKED_IN_AN_INT,
        |rules| rules.mlock_counts_in_an_int,
        "mmap(arena+0x0, 0x80000000000, PROT_NONE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0x0)
        mlock(arena+0x0, 0x80000000000)",
    ),
    (
        known::TREE_WITHOUT_MEMORY,
        |_| true,
        "mmap(arena+0x1000, 0x2000, PROT_READ|PROT_WRITE, MAP_PRIVATE, short_memfd, 0x1000)
        munmap(arena+0x1000, 0x1000)
        touch(arena+0x2000, write)
        mmap(arena+0x0, 0x1000, PROT_READ|PROT_WRITE, MAP_PRIVATE, short_memfd, 0x0)
        fail_anon_vma(0x1)
        mmap(arena+0x1000, 0x1000, PROT_READ|PROT_WRITE, MAP_PRIVATE, short_memfd, 0x1000)",
    ),
];

/// It is counted by its cause, whoever plays it; without it nothing is.
fn known_causes() -> Result<(), Failed> {
    let mut oracle = VmaC::new(&library()?)?;
    let rules = rules(&oracle)?;
    let by_oracle = KNOWN.iter().filter(|known| matches!(known.by, By::Oracle));
    let known: BTreeSet<_> = by_oracle.map(|known| known.name).collect();
    assert_eq!(known, EXCUSED.iter().map(|(cause, ..)| *cause).collect());
    for (cause, comes, text) in EXCUSED {
        let sequence = Sequence::parse(&text.replace(",\n", ","))?;
        let ops = sequence.ops(&oracle.worlds()[0])?;
        let mut runner = Runner::new(&mut oracle, rules)?;
        if let Some(case) = runner.replay(0, &ops)? {
            return Err(format!("{cause}: {:#x?}", case.what).into());
        }
        let excused = runner.excused();
        let once = comes(&rules).then_some((cause, 1));
        assert_eq!(excused, BTreeMap::from_iter(once), "{cause}");
        runner.replay(0, &ops[..1])?;
        assert_eq!(runner.excused(), BTreeMap::new(), "{cause}");
    }
    Ok(())
}

/// The kernel's code answers otherwise than a model that errs.
fn notices(mistake: Mistake) -> Result<(), Failed> {
    let mut oracle = VmaC::new(&library()?)?;
    let plan = Plan {
        rules: rules(&oracle)?.with_mistake(mistake),
        seed: 1,
        first_batch: 0,
        ops: u64::MAX / 2,
    };
    let end = Instant::now() + Duration::from_secs(LIMIT.into());
    let in_time = |_: &Stats| match Instant::now() < end {
        true => ControlFlow::Continue(()),
        false => ControlFlow::Break(()),
    };
    let mut runner = Runner::new(&mut oracle, plan.rules)?;
    let (stats, End::Found(finding)) = runner.run(&plan, in_time)? else {
        return Err("overlooked for a minute".into());
    };
    println!("{mistake:?}: {}", told(&stats, &finding));
    Ok(())
}

/// What was found, in a line.
fn told(stats: &Stats, finding: &Finding) -> String {
    let what = match &finding.short.what {
        What::Differs(differs) => differs.difference.to_string(),
        What::Broke(what) => what.clone(),
    };
    format!(
        "found with seed 1 in {} operations, {:.1?}; {} are enough: {what}",
        stats.ops,
        stats.elapsed,
        finding.short.ops.len()
    )
}

fn two_side_by_side_agree() -> Result<(), Failed> {
    let library = library()?;
    std::thread::scope(|scope| {
        let other = scope.spawn(|| must_agree(&library, 2, 50_000).map(|_| ()));
        must_agree(&library, 3, 50_000)?;
        other.join().expect("it does not panic")
    })
}

/// Builds the oracle with the bug in it, and lets a process of its own look for it: a broken kernel may
/// hang.
fn finds(bug: &Bug) -> Result<(), Failed> {
    let library = build(bug)?;
    let output = Command::new(env::current_exe()?)
        .env(PLAY, &library)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !said.starts_with("found") {
        return Err(format!(
            "{}: {said}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    println!("{}: {}", bug.name, said.trim_end());
    Ok(())
}

/// A finding like any other, in this process, which then goes on with another library.
fn breaks(bug: &Bug, says: &str) -> Result<(), Failed> {
    let (stats, End::Found(finding)) = run(&build(bug)?, 1, u64::MAX / 2)? else {
        return Err("overlooked".into());
    };
    println!("{}: {}", bug.name, told(&stats, &finding));
    for case in [&finding.full, &finding.short] {
        match &case.what {
            What::Broke(what) if what.contains(says) => {}
            what => return Err(format!("{what:#x?}").into()),
        }
    }
    if finding.short.ops.len() > 5 {
        return Err(format!("{:#x?}", finding.short.ops).into());
    }
    must_agree(&library()?, 1, 10 * BATCH).map(|_| ())
}

/// With AddressSanitizer, UndefinedBehaviorSanitizer and the kernel's own checks nothing is found.
fn agrees_with_sanitizers() -> Result<(), Failed> {
    let mut build = Build::from_environment()?;
    build.sanitize = true;
    let library = scratch("libvmac-sanitized.so");
    build.once(&library)?;
    // In a process of its own that has what they need.
    let output = Command::new(env::current_exe()?)
        .env(PLAY, &library)
        .env(OPS, "4000")
        .env("LD_PRELOAD", runtimes()?)
        .env("ASAN_OPTIONS", "handle_segv=0:detect_leaks=0")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !said.starts_with("overlooked") {
        return Err(format!("{output:?}").into());
    }
    Ok(())
}

/// In a process of its own everything looks as it does here.
fn isolated_sees_the_same() -> Result<(), Failed> {
    let library = library()?;
    let mut here = VmaC::new(&library)?;
    let mut there = Isolated::new(VmaC::new(&library)?);
    let (mut seen_here, mut seen_there) = (Vec::new(), Vec::new());
    let mut excused = 0;
    for world in 0..here.worlds().len() {
        for batch in 0..10 {
            let mut generator = Generator::new(5, batch, &here.worlds()[world]);
            let ops: Vec<Op> = (0..BATCH).map(|_| generator.op()).collect();
            here.run(world, &ops, &mut seen_here)?;
            there.run(world, &ops, &mut seen_there)?;
            if format!("{seen_here:?}") != format!("{seen_there:?}") {
                return Err(format!("batch {batch} of the world {world}").into());
            }
            let known = here.excused();
            assert_eq!(known, there.excused());
            excused += known.len();
        }
    }
    assert!(excused > 0, "nothing was set right in any batch");
    Ok(())
}

/// One line of `mm/vma.c` changed shows in a few operations, as it did in a sequence of ten thousand.
fn comes_down() -> Result<(), Failed> {
    let bug = BUGS.iter().find(|bug| bug.name == "seal_overlooked");
    let library = build(bug.expect("it is in the list"))?;
    let mut oracle = VmaC::new(&library)?;
    let rules = rules(&oracle)?;
    let mut runner = Runner::new(&mut oracle, rules)?;
    // Batches that do not show it, one after the other, and then one that does.
    let world = runner.worlds()[0].clone();
    let mut ops = Vec::new();
    let (mut batch, mut done) = (0, false);
    while !done {
        let mut generator = Generator::new(5, batch, &world);
        let before = ops.len();
        ops.extend((0..BATCH).map(|_| generator.op()));
        // Not for the rest of the sequence.
        ops.retain(|op| !matches!(op, Op::Mlockall { .. } | Op::SetMdwe { .. }));
        batch += 1;
        let shows = runner.replay(0, &ops)?.is_some();
        done = shows && before >= 10_000;
        if shows && !done {
            ops.truncate(before);
        }
    }
    let case = runner.replay(0, &ops)?.ok_or("it showed")?;
    let begin = Instant::now();
    let short = runner.shrink(&case, Duration::from_secs(60))?;
    println!(
        "{} operations, then {} after {:.1?}: {:x?}",
        case.ops.len(),
        short.ops.len(),
        begin.elapsed(),
        short.ops
    );
    if case.ops.len() < 10_000 || short.ops.len() > 3 {
        return Err(format!("{} of {}", short.ops.len(), case.ops.len()).into());
    }
    Ok(())
}

/// Also the kernel does with a letter what follows from the state alone: of all sequences, those that
/// come to one state see the same with each letter.
fn small_worlds() -> Result<(), Failed> {
    let library = library()?;
    let mut oracle = VmaC::new(&library)?;
    let rules = rules(&oracle)?;
    let world = oracle.worlds()[0].clone();
    let extra = Extra {
        locks: true,
        ..Extra::default()
    };
    let letters = alphabet(&world, 2, extra)?;
    let mut seen = Vec::new();
    let mut followed = BTreeMap::new();
    let mut ways = 0;
    let mut queue = vec![Vec::new()];
    while let Some(ops) = queue.pop() {
        let mut model: AddressSpace = AddressSpace::new(rules, world.limits);
        for file in &world.files {
            model.add_file(file.file);
        }
        for op in &ops {
            model.apply(op);
        }
        oracle.run(0, &ops, &mut seen)?;
        let anon_vmas = seen.last().map_or(&[][..], |last| &last.anon_vmas);
        let state = state_of(&model, anon_vmas);
        for (number, letter) in letters.iter().enumerate() {
            let mut longer = ops.clone();
            longer.extend(letter);
            oracle.run(0, &longer, &mut seen)?;
            let mut next = model.clone();
            next.apply(&letter[0]);
            let last = seen.last().ok_or("nothing was seen")?;
            let follows = (
                state_of(&next, &last.anon_vmas),
                format!("{:?}", last.outcome),
            );
            let known = followed
                .entry((state, number))
                .or_insert_with(|| follows.clone());
            if *known != follows {
                return Err(format!("{longer:x?}: {known:?}, then {follows:?}").into());
            }
            ways += 1;
            if ops.len() < 2 {
                queue.push(longer);
            }
        }
    }
    println!(
        "{ways} ways to {} pairs of a state and a letter",
        followed.len()
    );
    let plan = small::Plan {
        rules,
        world: 0,
        length: 3,
        letters,
        known: KNOWN,
        symmetric_once: true,
        shard: (0, 1),
    };
    let (stats, end) = small::explore(&mut [oracle], &plan, |_, _, _| ControlFlow::Continue(()))?;
    match end {
        small::End::Agreed => {}
        end => return Err(format!("{end:#x?}").into()),
    }
    let pairs: u64 = stats.compared.iter().sum();
    if pairs != followed.len() as u64 {
        return Err(format!("{pairs} pairs were compared of {}", followed.len()).into());
    }
    Ok(())
}

/// Where hooks refuse and allocations fail, and where two areas are the limit: each of these is hit.
fn small_worlds_that_fail() -> Result<(), Failed> {
    let mut oracles = [VmaC::new(&library()?)?];
    let rules = rules(&oracles[0])?;
    let worlds = oracles[0].worlds().to_vec();
    let narrow = small::narrow(&worlds).ok_or("there is no such world")?;
    for (world, pages, fails) in [(0, 2, true), (narrow, 3, false)] {
        let extra = Extra {
            fails,
            ..Extra::default()
        };
        let plan = small::Plan {
            rules,
            world,
            length: 3,
            letters: alphabet(&worlds[world], pages, extra)?,
            known: KNOWN,
            symmetric_once: true,
            shard: (0, 1),
        };
        let go_on = |_, _, _| ControlFlow::Continue(());
        let (stats, end) = small::explore(&mut oracles, &plan, go_on)?;
        if !matches!(end, small::End::Agreed) {
            return Err(format!("{end:#x?}").into());
        }
        println!("{}: {stats:?}", worlds[world].name);
        let hit = match fails {
            true => stats.refused > 100 && stats.starved > 100 && stats.full == 0,
            false => stats.full > 100,
        };
        if !hit {
            return Err(format!("{stats:?} in the world {}", worlds[world].name).into());
        }
    }
    Ok(())
}

/// Builds the oracle with the bug in it.
fn build(bug: &Bug) -> Result<PathBuf, Failed> {
    let mut build = Build::from_environment()?;
    let original = fs::read_to_string(build.source.join("mm/vma.c"))?;
    let changed = scratch(&format!("vma-{}.c", bug.name));
    let text = insert(bug, &original)?;
    // Written anew, it would be compiled anew.
    if fs::read_to_string(&changed).ok().as_ref() != Some(&text) {
        fs::write(&changed, text)?;
    }
    build.vma_c = Some(changed);
    let library = scratch(&format!("libvmac-{}.so", bug.name));
    build.once(&library)?;
    Ok(library)
}

/// The text of `mm/vma.c` with the bug in it.
fn insert(bug: &Bug, text: &str) -> Result<String, Failed> {
    let mut lacks = Vec::new();
    for change in bug.changes {
        match make(change, text) {
            Ok(changed) => return Ok(changed),
            Err(what) => lacks.push(what),
        }
    }
    Err(lacks.join(", and ").into())
}

/// The text with that change, or what it lacks.
fn make(&(function, find, replace): &Change, text: &str) -> Result<String, String> {
    // The definition: its opening brace is at the left margin before any semicolon.
    let call = format!("{function}(");
    let body = text
        .match_indices(&call)
        .map(|(at, _)| at)
        .filter(|&at| !text[..at].ends_with('_'))
        .find(|&at| {
            let brace = text[at..].find("\n{");
            brace.is_some_and(|brace| !text[at..at + brace].contains([';', '}']))
        })
        .ok_or_else(|| format!("mm/vma.c has no {function}"))?;
    let end = body + text[body..].find("\n}").unwrap_or(0);
    let at = text[body..end]
        .find(find)
        .ok_or_else(|| format!("{function} has no `{find}`"))?;
    let (before, after) = text.split_at(body + at);
    Ok(format!("{before}{replace}{}", &after[find.len()..]))
}

/// Prints what is found on that library.
fn play(library: &Path) {
    // SAFETY: alarm() has no preconditions. It ends this process if the broken kernel hangs.
    unsafe { libc::alarm(LIMIT) };
    let ops = env::var(OPS).ok().and_then(|ops| ops.parse().ok());
    match run(library, 1, ops.unwrap_or(u64::MAX / 2)) {
        Ok((stats, End::Found(finding))) => println!("{}", told(&stats, &finding)),
        Ok((stats, _)) => println!("overlooked in {} operations", stats.ops),
        Err(error) => println!("failed: {error:?}"),
    }
}
