// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The command as a user types it: its exit status, its reports, and that a finding can be repeated.
//!
//! What needs a kernel that the model knows is ignored on others, and the reason is printed.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe};
use serde_json::Value;

fn main() {
    let arguments = Arguments::from_args();
    let probe = vmalab(&["diff", "--ops", "1", "--seed", "1", "--limit", "never"]);
    let missing = !probe.status.success();
    if missing {
        eprintln!("ignored: {}", text(&probe.stderr));
    }
    let needs_kernel =
        |name, test: fn() -> Result<(), Failed>| Trial::test(name, test).with_ignored_flag(missing);
    let trials = vec![
        Trial::test("usage_errors_are_2", || holds(usage_errors_are_2)),
        Trial::test("eras_name_the_running_kernel", || holds(eras)),
        Trial::test("stats_without_the_module_say_what_to_do", || holds(stats)),
        Trial::test("a_campaign_goes_on_where_it_stopped", || holds(campaign)),
        Trial::test("shards_do_what_one_run_does", || holds(shards)),
        Trial::test("small_worlds_are_played_whole", || holds(worlds)),
        Trial::test("what_is_known_is_listed", || holds(known)),
        Trial::test("exported_cases_are_as_the_schema_says", || holds(export)),
        Trial::test("a_broken_pipe_is_no_panic", || holds(broken_pipe)),
        Trial::test("what_strace_saw_can_be_replayed", || holds(record)),
        Trial::test("man_pages_are_of_all_subcommands", || holds(man)),
        Trial::test("a_sequence_that_cannot_be_read_says_where", || {
            holds(unreadable)
        }),
        Trial::test("a_recording_that_agrees_is_0", || holds(recording_agrees)),
        Trial::test(
            "a_doctored_recording_is_1_and_the_difference_is_drawn",
            || holds(recording_differs),
        ),
        Trial::test("what_is_no_recording_is_2", || holds(no_recording)),
        needs_kernel("agreement_is_0_and_leaves_a_report", || holds(agreement)),
        needs_kernel("a_finding_is_1_and_can_be_repeated", || holds(finding)),
        needs_kernel("ctrl_c_ends_with_what_was_done", || holds(ctrl_c)),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// It panics if it does not.
fn holds(test: fn()) -> Result<(), Failed> {
    test();
    Ok(())
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmalab"));
    command.args(arguments);
    command
}

fn vmalab(arguments: &[&str]) -> Output {
    command(arguments).output().expect("vmalab starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An empty directory of a test.
fn scratch(name: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn usage_errors_are_2() {
    for (arguments, says) in [
        (&["diff", "--ops", "many"][..], "--ops"),
        (&["diff", "--era", "V0"], "there is no era V0"),
        (&["diff", "--device", "/nowhere"], "/nowhere"),
        (&["diff", "--shard", "0/2"], "--seed"),
        (&["diff", "--device", "/dev/null"], "/dev/null"),
        (&["frobnicate"], "frobnicate"),
    ] {
        let output = vmalab(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
}

fn eras() {
    let output = vmalab(&["eras", "--json"]);
    let eras: Value = serde_json::from_slice(&output.stdout).unwrap();
    let release = nix::sys::utsname::uname().unwrap();
    assert_eq!(eras["kernel"], release.release().to_str().unwrap());
    assert!(
        eras["eras"]
            .as_array()
            .unwrap()
            .iter()
            .any(|era| era["name"] == "V7_2")
    );
}

/// As any command whose reader has seen enough.
fn broken_pipe() {
    let (read, write) = pipe().unwrap();
    drop(read);
    let mut known = command(&["known"]);
    let known = known.stdout(write).stderr(Stdio::piped()).spawn();
    let output = known.and_then(Child::wait_with_output).unwrap();
    assert_eq!(output.status.signal(), Some(Signal::SIGPIPE as i32));
    assert_eq!(text(&output.stderr), "");
}

fn stats() {
    let output = vmalab(&["stats", "--device", "/nowhere"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("insmod"),
        "{}",
        text(&output.stderr)
    );
}

/// The figures of a report.
fn figures(output: &Output) -> BTreeMap<String, Value> {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap().iter();
    rows.map(|row| {
        (
            row["name"].as_str().unwrap().to_owned(),
            row["value"].clone(),
        )
    })
    .collect()
}

const MODEL: [&str; 8] = [
    "diff", "--oracle", "model", "--json", "--jobs", "2", "--ops", "30000",
];

fn campaign() {
    let state = concat!(env!("CARGO_TARGET_TMPDIR"), "/campaign.json");
    let _ = std::fs::remove_file(state);
    let run = |more: &[&str]| vmalab(&[&MODEL[..], &["--resume", state], more].concat());
    // It ends with what is under way.
    let first = figures(&run(&["--seed", "5", "--time", "0s"]));
    assert!(first["ops"].as_u64().unwrap() < 30_000, "{first:?}");
    let all = figures(&run(&[]));
    // It has met more than in its first moments, and what it met then is not forgotten.
    let outcomes = |figures: &BTreeMap<String, Value>| figures["distinct outcomes"].as_u64();
    assert!(outcomes(&first) > Some(50) && outcomes(&all) > outcomes(&first));
    let once = figures(&vmalab(&[&MODEL[..], &["--seed", "5"]].concat()));
    for (name, value) in &once {
        if name != "rate" {
            assert_eq!(all.get(name), Some(value), "{name}");
        }
    }
    let other = run(&["--seed", "6"]);
    assert_eq!(other.status.code(), Some(2));
    let said = text(&other.stderr);
    assert!(
        said.contains("begun with the seed 5, and this is 6"),
        "{said}"
    );
    // Other options make other operations, or look otherwise.
    let other = run(&["--deprecated"]);
    assert_eq!(other.status.code(), Some(2));
    let said = text(&other.stderr);
    assert!(said.contains("and this is vmalab diff"), "{said}");
}

fn shards() {
    let run = |more: &[&str]| figures(&vmalab(&[&MODEL[..], &["--seed", "5"], more].concat()));
    let whole = run(&[]);
    let parts = ["0/3", "1/3", "2/3"].map(|shard| run(&["--shard", shard]));
    for name in ["ops", "batches", "munmap: ok", "hook close"] {
        let of = |figures: &BTreeMap<String, Value>| figures[name].as_u64().unwrap();
        assert_eq!(parts.iter().map(of).sum::<u64>(), of(&whole), "{name}");
    }
    let bad = vmalab(&[&MODEL[..], &["--shard", "3/3"]].concat());
    assert_eq!(bad.status.code(), Some(2));
}

fn worlds() {
    let small = ["worlds", "--oracle", "model", "--ops", "2", "--pages", "2"];
    let output = vmalab(&small);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        said.contains("length 2: 625 sequences") && said.contains("no divergence"),
        "{said}"
    );
    let directory = scratch("worlds");
    let wrong = ["--mistake", "NoMergeForward", "--out", &directory];
    // With several threads any of them may be the first.
    let found = vmalab(&[&small[..], &["--jobs", "1"], &wrong].concat());
    assert_eq!(found.status.code(), Some(1), "{}", text(&found.stderr));
    assert!(text(&found.stdout).contains("DIVERGENCE"));
    // All that a finding of `diff` has; and so has what a replay finds. The last page has both.
    let ops = format!("{directory}/finding-worlds-0-1.ops");
    let replay = ["replay", &ops, "--oracle", "model"];
    let replayed = vmalab(&[&replay[..], &wrong].concat());
    assert_eq!(
        replayed.status.code(),
        Some(1),
        "{}",
        text(&replayed.stderr)
    );
    for finding in ["worlds-0-1", "replay-worlds-0-1"] {
        let read = |extension| {
            let path = format!("{directory}/finding-{finding}.{extension}");
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        assert!(read("ops").contains("mmap(arena+0x0, "));
        assert!(read("c").contains("int main"));
        assert!(read("html").contains("<svg "));
    }
    let all = std::fs::read_to_string(format!("{directory}/index.html")).unwrap();
    assert!(all.contains("<h1>2 findings</h1>") && all.contains("vmalab worlds --ops 2 --pages 2"));
    assert_eq!(all.matches("<article ").count(), 2);
    // Of several directories on one page.
    let page = format!("{directory}/all.html");
    let report = vmalab(&["report", &directory, &directory, "--out", &page]);
    assert_eq!(report.status.code(), Some(0), "{}", text(&report.stderr));
    let pages = std::fs::read_to_string(page).unwrap();
    assert_eq!(pages.matches("<article ").count(), 4);
    assert!(pages.matches("<svg ").count() >= 4 && !pages.contains("src="));
}

fn known() {
    let output = vmalab(&["known", "--json"]);
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = text(&vmalab(&["known"]).stdout);
    let list = list.as_array().unwrap();
    assert!(list.len() >= 6);
    for known in list {
        for part in ["name", "reason"] {
            assert!(text.contains(known[part].as_str().unwrap()), "{known}");
        }
    }
}

fn export() {
    let directory = scratch("export");
    let output = vmalab(&["export", &directory, "--cases", "30", "--seed", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let read = |name: &str| -> Value {
        let text = std::fs::read(format!("{directory}/{name}")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    let schema = jsonschema::validator_for(&read("schema.json")).unwrap();
    let case = |number| read(&format!("case-{number:05}.json"));
    for number in 0..30 {
        if let Err(error) = schema.validate(&case(number)) {
            panic!("case {number}, {}: {error}", error.instance_path());
        }
    }
    // It is not one that all files fit.
    let spoiled = [
        ("/format", Value::from(2)),
        ("/calls/0/call", "mseal".into()),
        ("/calls/0/args/0", 4096.into()),
        ("/calls/0/args/0", "arena + 1".into()),
        ("/expected/0/eras/0/since", Vec::<u64>::new().into()),
        ("/expected/0/outcomes/0/areas", "none".into()),
    ];
    for (place, value) in spoiled {
        let mut case = case(0);
        *case.pointer_mut(place).expect("it is there") = value;
        assert!(!schema.is_valid(&case), "{place}");
    }
    // Nothing is written over.
    let again = vmalab(&["export", &directory]);
    assert_eq!(again.status.code(), Some(2));
}

/// What a dynamic linker does, of which `true` does nothing more.
fn record() {
    let directory = scratch("record");
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/true.strace");
    let ops = format!("{directory}/true.ops");
    let recorded = vmalab(&["record", "--from", trace, "--out", &ops]);
    assert_eq!(
        recorded.status.code(),
        Some(0),
        "{}",
        text(&recorded.stderr)
    );
    let said = text(&recorded.stdout);
    assert!(said.contains("10 operations in "), "{said}");
    assert!(
        said.contains("Left out: 2 calls about memory that was there before"),
        "{said}"
    );
    let replayed = vmalab(&["replay", &ops, "--oracle", "model"]);
    assert_eq!(
        replayed.status.code(),
        Some(0),
        "{}",
        text(&replayed.stderr)
    );
    assert!(text(&replayed.stdout).contains("all 10 operations did as predicted"));
    // For machines, the same.
    let json = format!("{directory}/true.json");
    vmalab(&["record", "--from", trace, "--out", &json, "--json"]);
    let file = std::fs::read_to_string(&json).expect("it was written");
    let file: Value = serde_json::from_str(&file).expect("it is JSON");
    assert_eq!(file["ops"].as_array().map(Vec::len), Some(10));
    let replayed = text(&vmalab(&["replay", &json, "--oracle", "model"]).stdout);
    assert!(replayed.contains("all 10 operations did as predicted"));
    // A real program, where strace is.
    let real = vmalab(&["record", "--", "/bin/true"]);
    let error = text(&real.stderr);
    if error.contains("apt install strace") {
        eprintln!("not recorded by strace, which is not there");
        assert_eq!(real.status.code(), Some(2));
    } else {
        assert_eq!(real.status.code(), Some(0), "{error}");
        assert!(text(&real.stdout).contains("munmap(arena+"));
    }
    assert_eq!(vmalab(&["record"]).status.code(), Some(2));
}

fn man() {
    let directory = scratch("man");
    let output = vmalab(&["man", &directory]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let help = text(&vmalab(&["--help"]).stdout);
    let (_, commands) = help.split_once("Commands:\n").expect("a list");
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let names: Vec<_> = commands
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        let page = std::fs::read_to_string(format!("{directory}/vmalab-{name}.1"));
        let page = page.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            page.contains(".TH ") && page.contains(".SH OPTIONS"),
            "{page}"
        );
    }
    let page = std::fs::read_to_string(format!("{directory}/vmalab.1")).unwrap();
    assert!(page.contains("Exit status"), "{page}");
}

fn unreadable() {
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/unreadable.ops");
    std::fs::write(path, "fork()\nmunmap(arena+0x1000 0x1000)\n").unwrap();
    let output = vmalab(&["replay", path, "--oracle", "model"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.contains("unreadable.ops: line 2, column 8: "),
        "{said}"
    );
}

/// The header and the first sequence of what Linux 7.2 answered, a line each.
fn recorded() -> Vec<String> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/vectors/anon.7.2.jsonl.xz"
    );
    let mut packed = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut bytes = Vec::new();
    lzma_rs::xz_decompress(&mut packed, &mut bytes).unwrap();
    let lines: Vec<String> = text(&bytes).lines().map(String::from).collect();
    let next = |line: &String| line.contains("\"seq\":") && !line.contains("\"op\":");
    let second = (2..lines.len()).find(|at| next(&lines[*at])).unwrap();
    lines[..second].to_vec()
}

/// Packs lines as a recording; gives its path.
fn packed(name: &str, lines: &[String]) -> String {
    let path = format!("{}/{name}.jsonl.xz", env!("CARGO_TARGET_TMPDIR"));
    let mut file = std::fs::File::create(&path).unwrap();
    lzma_rs::xz_compress(&mut lines.join("\n").as_bytes(), &mut file).unwrap();
    path
}

fn recording_agrees() {
    let lines = recorded();
    let path = packed("agrees", &lines);
    let output = vmalab(&["replay", &path]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let all = lines.len() - 2;
    let expected =
        format!("kernel 7.2 -> rules V7_2: {all} of {all} operations agree, in 1 sequences");
    assert!(said.contains(&expected), "{said}");
}

fn recording_differs() {
    let mut lines = recorded();
    // The last operation after which there are areas: the first of them becomes a page longer.
    let at = (2..lines.len()).rev().find(|at| {
        let line: Value = serde_json::from_str(&lines[*at]).unwrap();
        line["areas"]
            .as_array()
            .is_some_and(|areas| areas.len() > 1)
    });
    let at = at.expect("areas");
    let mut line: Value = serde_json::from_str(&lines[at]).unwrap();
    let end = line["areas"][0][1].as_str().unwrap();
    let end = u64::from_str_radix(end.trim_start_matches("0x"), 16).unwrap();
    line["areas"][0][1] = format!("{:#x}", end + 0x1000).into();
    lines[at] = line.to_string();
    let path = packed("doctored", &lines);

    let output = vmalab(&["replay", &path]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("operation {}: ", at - 2)), "{said}");
    assert!(said.contains("other areas"), "{said}");
    let row = |name: &str| {
        let mut drawn = said.lines().filter(|line| line.contains('['));
        let row = drawn.find(|line| line.starts_with(name));
        row.map(|row| row[name.len()..].trim().to_string())
            .unwrap_or_else(|| panic!("no row {name}: {said}"))
    };
    row("before");
    assert_ne!(row("recorded"), row("predicted"), "{said}");

    let output = vmalab(&["replay", &path, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["differ"], &report["era"]),
        (&1.into(), &"V7_2".into())
    );
    assert_eq!(report["first"]["operation"], at - 2);
    assert_ne!(report["first"]["recorded"], report["first"]["predicted"]);

    // What a kernel answered is not what another one would have.
    let whole = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/vectors/huge.2.6.11.jsonl.xz"
    );
    let output = vmalab(&["replay", whole, "--era", "V7_2"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("sequences differ"), "{said}");
}

fn no_recording() {
    let lines = recorded();
    let mut broken = lines.clone();
    broken[4].truncate(20);
    let cut = packed("cut", &lines);
    let half = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &half[..half.len() / 2]).unwrap();
    for (path, says) in [
        (cut, "is not a file of xz"),
        (
            packed("no-header", &lines[1..]),
            "does not begin with the header",
        ),
        (packed("broken", &broken), "line 5 cannot be understood"),
    ] {
        let output = vmalab(&["replay", &path]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says), "{said}");
    }
}

fn agreement() {
    let output = vmalab(&["diff", "--ops", "1000", "--seed", "1", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!([&report["passed"], &report["failed"]], [1, 0]);
    // What no program shows of the running kernel is said each time.
    let known = report["known"].as_array().unwrap();
    assert!(
        known
            .iter()
            .any(|known| known["name"] == "flags that no program asked for")
    );
    let skips = report["skips"].as_array().unwrap().len();
    assert_eq!(report["skipped"], skips);
    let rows = report["rows"].as_array().unwrap();
    let value = |name: &str| {
        rows.iter()
            .find(|row| row["name"] == name)
            .map(|row| &row["value"])
    };
    assert_eq!(value("ops").unwrap(), 1000);
    assert!(value("rate").unwrap().as_f64().unwrap() > 0.0);
    assert!(value("munmap: ok").unwrap().as_u64().unwrap() > 100);
}

fn finding() {
    let out = env!("CARGO_TARGET_TMPDIR");
    let with_mistake = [
        "--out",
        out,
        "--seed",
        "4",
        "--mistake",
        "SplitLosesOffset",
        "--limit",
        "never",
        "--deprecated",
        "--text",
    ];
    let first = vmalab(&[&["diff"], &with_mistake[..]].concat());
    assert_eq!(first.status.code(), Some(1), "{}", text(&first.stderr));
    let first = text(&first.stdout);
    let (_, finding) = first.split_once("DIVERGENCE").expect("a finding");
    for part in ["predicted", "observed", "before", ": predicted 0x"] {
        assert!(finding.contains(part), "{part}: {finding}");
    }
    // The command that it prints finds the same again.
    let (_, repeat) = finding.split_once("to repeat it:").expect("a command");
    let repeat = repeat.lines().nth(1).expect("a line of its own");
    for option in ["--deprecated", "--text", "--limit never"] {
        assert!(repeat.contains(option), "{repeat}");
    }
    let mut words: Vec<&str> = repeat.split_whitespace().skip(1).collect();
    words.extend(["--out", out]);
    let again = vmalab(&words);
    assert_eq!(
        again.status.code(),
        Some(1),
        "{words:?}: {}",
        text(&again.stdout)
    );
    let again = text(&again.stdout);
    let (_, again) = again.split_once("DIVERGENCE").expect("a finding");
    assert_eq!(finding, again);
    // So does the sequence that it wrote; the model by the correct rules has nothing to say against it.
    let written = |extension: &str| {
        let words = finding.split_whitespace();
        let mut files = words.filter(|word| word.ends_with(extension));
        files.next().expect("it is named").to_owned()
    };
    let ops = written(".ops");
    let mistake = &with_mistake[4..];
    let replayed = vmalab(&[&["replay", &ops, "--out", out], mistake].concat());
    assert_eq!(
        replayed.status.code(),
        Some(1),
        "{}",
        text(&replayed.stdout)
    );
    assert!(text(&replayed.stdout).contains("DIVERGENCE"));
    for oracle in ["host", "model"] {
        let right = vmalab(&["replay", &ops, "--oracle", oracle, "--limit", "never"]);
        assert_eq!(right.status.code(), Some(0), "{}", text(&right.stderr));
    }
    let shrunk = vmalab(&[&["shrink", &ops], mistake].concat());
    assert_eq!(shrunk.status.code(), Some(1), "{}", text(&shrunk.stderr));
    // The page is whole in itself.
    let page = std::fs::read_to_string(written(".html")).unwrap();
    assert!(page.contains("<svg ") && page.contains("mmap(arena+0x0, "));
    assert!(!page.contains("src=") && !page.contains("href="));
    assert!(
        std::fs::read_to_string(written(".c"))
            .unwrap()
            .contains("int main")
    );
}

fn ctrl_c() {
    let directory = scratch("ctrl_c");
    let (report, state) = (format!("{directory}/report"), format!("{directory}/state"));
    let run = [
        "diff", "--seed", "1", "--limit", "never", "--resume", &state,
    ];
    let mut child = command(&run);
    let child = child
        .args(["--ops", "1000000000", "--report", &report])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Before the handler is set the signal ends the program at once: not what is tried here.
    let status = format!("/proc/{}/status", child.id());
    let caught = || {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .unwrap_or("0");
        u64::from_str_radix(mask.trim(), 16).unwrap_or(0) & (1 << (Signal::SIGINT as u32 - 1)) != 0
    };
    while !caught() {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("result  stopped"),
        "{}",
        text(&output.stdout)
    );
    // The report says how far it got, and from there the same command goes on to the end.
    let stopped = ops(&std::fs::read(&report).unwrap());
    assert!(stopped >= 256 && stopped % 256 == 0, "{stopped}");
    let rest = (stopped + 1000).to_string();
    let ended = vmalab(&[&run[..], &["--ops", &rest, "--json"]].concat());
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    assert_eq!(ops(&ended.stdout), stopped + 1000);
}

/// How many operations were compared, by a report.
fn ops(report: &[u8]) -> u64 {
    let report: Value = serde_json::from_slice(report).unwrap();
    let mut rows = report["rows"].as_array().unwrap().iter();
    let row = rows.find(|row| row["name"] == "ops").unwrap();
    row["value"].as_u64().unwrap()
}
