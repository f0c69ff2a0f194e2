// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What a test of the kernel's prints: TAP, as `tools/testing/selftests/kselftest.h` and
//! `kselftest_harness.h` write it, and an exit status.

use std::collections::BTreeMap;

use serde::Serialize;

/// How a case, or a whole suite, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// It held, or failed as the suite itself expects (`XFAIL`).
    Pass,
    /// It did not.
    Fail,
    /// It could not be tried.
    Skip,
    /// The suite ended before it came to this case.
    Missing,
}

impl Outcome {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Fail => "fail",
            Outcome::Skip => "skip",
            Outcome::Missing => "not reached",
        }
    }
}

/// One numbered line of a suite's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// What the suite calls it. One that is skipped often has a reason there instead.
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    /// The last remarks (`# …`) before the line: of a failure, mostly the reason.
    pub(crate) remarks: Vec<String>,
}

/// All that a suite said in one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// By number. The same program comes to the same cases in the same order, so the number says
    /// which case it is; names may have addresses in them.
    pub(crate) cases: BTreeMap<u32, Case>,
    /// By the exit status: 0, 4 for skipped, anything else. 124 and above is a time bound, or a signal.
    pub(crate) end: Outcome,
    pub(crate) status: i32,
    /// Why all of it was skipped or given up, if it says so; else its last line.
    pub(crate) last: String,
}

/// What a suite exits with if it cannot be run here (`KSFT_SKIP`).
const SKIP_STATUS: i32 = 4;
/// How many remarks are kept.
const REMARKS: usize = 4;

impl Run {
    /// Reads what a suite printed.
    pub(crate) fn parse(output: &str, status: i32) -> Run {
        let mut cases = BTreeMap::new();
        let mut remarks: Vec<String> = Vec::new();
        let mut last = String::new();

        for line in output.lines() {
            let line = line.trim_end();
            if let Some((number, mut case)) = case(line) {
                case.remarks = std::mem::take(&mut remarks);
                // A number that comes twice is of a child that went on in its parent's place: the
                // worse of the two is the outcome.
                match cases.get(&number) {
                    Some(Case {
                        outcome: Outcome::Fail,
                        ..
                    }) => {}
                    _ => {
                        cases.insert(number, case);
                    }
                }
            } else if !line.is_empty() && !bookkeeping(line) {
                let text = line.trim_start_matches(['#', ' ']).to_owned();
                if remarks.len() == REMARKS {
                    remarks.remove(0);
                }
                last.clone_from(&text);
                remarks.push(text);
            }
            if let Some(reason) = gives_up(line) {
                last = reason.to_owned();
            }
        }
        let end = match status {
            0 => Outcome::Pass,
            SKIP_STATUS => Outcome::Skip,
            _ => Outcome::Fail,
        };
        Run {
            cases,
            end,
            status,
            last,
        }
    }

    /// How many cases ended so; a suite without numbered lines is one case.
    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        if self.cases.is_empty() {
            return usize::from(self.end == outcome);
        }
        self.cases
            .values()
            .filter(|case| case.outcome == outcome)
            .count()
    }
}

/// `ok 3 name`, `not ok 4 name`, `ok 5 name # SKIP reason`, `ok 6 # SKIP reason`.
fn case(line: &str) -> Option<(u32, Case)> {
    let (held, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let number = number.parse().ok()?;
    let (name, directive) = match rest.split_once("# ") {
        Some((name, directive)) => (name.trim(), directive.trim()),
        None => (rest.trim(), ""),
    };
    let skipped = directive.starts_with("SKIP");
    let outcome = match held {
        true if skipped => Outcome::Skip,
        true => Outcome::Pass,
        false => Outcome::Fail,
    };
    let name = match name {
        "" => directive.trim_start_matches("SKIP").trim(),
        name => name,
    };
    let case = Case {
        name: name.to_owned(),
        outcome,
        remarks: Vec::new(),
    };
    Some((number, case))
}

/// Lines that say nothing of a case.
fn bookkeeping(line: &str) -> bool {
    line.starts_with("TAP version")
        || line.starts_with("1..")
        || line.starts_with("# Totals:")
        || line.contains("skipped test(s) detected")
        || line.starts_with("#  RUN ")
        || line.starts_with("#            OK")
}

/// The reason of a suite that ends as a whole.
fn gives_up(line: &str) -> Option<&str> {
    line.strip_prefix("Bail out! ").or_else(|| {
        let (plan, reason) = line.split_once("# SKIP ")?;
        (plan.trim() == "1..0").then_some(reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_and_what_was_said_before_them() {
        let run = Run::parse(
            "TAP version 13\n1..4\n# Starting\nok 1 first\n# x.c:3:y:Expected 1 == 2\nnot ok 2 second\n\
             ok 3 third # SKIP no such thing\nok 4 # SKIP nor this\n# Totals: pass:1 fail:1\n",
            1,
        );
        let outcomes: Vec<_> = run.cases.values().map(|case| case.outcome).collect();
        assert_eq!(
            outcomes,
            [Outcome::Pass, Outcome::Fail, Outcome::Skip, Outcome::Skip]
        );
        assert_eq!(run.cases[&2].remarks, ["x.c:3:y:Expected 1 == 2"]);
        assert_eq!(run.cases[&3].name, "third");
        assert_eq!(run.cases[&4].name, "nor this");
        assert_eq!(run.end, Outcome::Fail);
        assert_eq!((run.count(Outcome::Pass), run.count(Outcome::Skip)), (1, 2));
    }

    #[test]
    fn expected_failures_hold() {
        let run = Run::parse("ok 1 # XFAIL known\n", 0);
        assert_eq!(run.cases[&1].outcome, Outcome::Pass);
    }

    #[test]
    fn a_suite_that_is_skipped_says_why() {
        let run = Run::parse("TAP version 13\n1..0 # SKIP Cannot open '/dev/mem'\n", 4);
        assert!(run.cases.is_empty());
        assert_eq!(
            (run.end, run.last.as_str()),
            (Outcome::Skip, "Cannot open '/dev/mem'")
        );
        assert_eq!(run.count(Outcome::Skip), 1);
    }

    #[test]
    fn a_suite_without_numbers_is_one_case() {
        let run = Run::parse("testing...\ndone\n", 0);
        assert_eq!((run.count(Outcome::Pass), run.count(Outcome::Fail)), (1, 0));
        assert_eq!(Run::parse("", 139).count(Outcome::Fail), 1);
    }

    #[test]
    fn of_two_lines_with_one_number_the_failure_counts() {
        let run = Run::parse("not ok 1 a\nok 1 a\n", 0);
        assert_eq!(run.cases[&1].outcome, Outcome::Fail);
    }
}
