// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What a suite said with the module, against what it said without it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::tap::{Case, Outcome, Run};

/// Where one setting differs from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    pub(crate) suite: String,
    /// The setting that differs.
    pub(crate) setting: String,
    /// The number and name of the case, or `the whole suite`.
    pub(crate) case: String,
    /// What came out in the setting it is compared with, and what here.
    pub(crate) was: Outcome,
    pub(crate) is: Outcome,
    /// What the suite said about it, here or, if it says nothing here, there.
    pub(crate) remark: String,
    /// Why it is so: from the list of known differences.
    pub(crate) reason: Option<String>,
}

impl Difference {
    /// The kernel logged something that it does not log in the other setting.
    pub(crate) fn logged(suite: &str, setting: &str, line: &str) -> Difference {
        Difference {
            suite: suite.to_owned(),
            setting: setting.to_owned(),
            case: format!("kernel log: {line}"),
            was: Outcome::Pass,
            is: Outcome::Fail,
            remark: String::new(),
            reason: None,
        }
    }
}

/// The case that stands for how the suite as a whole ended.
pub(crate) const WHOLE: &str = "the whole suite";

/// All differences of `subject` from `reference`.
pub(crate) fn differences(
    suite: &str,
    setting: &str,
    reference: &Run,
    subject: &Run,
) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut add = |case: String, was, is, remark: String| {
        found.push(Difference {
            suite: suite.to_owned(),
            setting: setting.to_owned(),
            case,
            was,
            is,
            remark,
            reason: None,
        });
    };
    let numbers: BTreeMap<u32, ()> = reference
        .cases
        .keys()
        .chain(subject.cases.keys())
        .map(|&number| (number, ()))
        .collect();
    for &number in numbers.keys() {
        let (was, is) = (reference.cases.get(&number), subject.cases.get(&number));
        let outcome = |case: Option<&Case>| case.map_or(Outcome::Missing, |case| case.outcome);
        if outcome(was) == outcome(is) {
            continue;
        }
        // A skipped case may have a reason for a name.
        let named = [was, is]
            .into_iter()
            .flatten()
            .find(|case| case.outcome != Outcome::Skip);
        let name = named.or(is).or(was).map_or("", |case| &case.name);
        let remark = match is {
            Some(case) if case.outcome == Outcome::Skip => case.name.clone(),
            Some(case) if case.outcome == Outcome::Fail => case.remarks.join("; "),
            Some(_) => was.map_or(String::new(), |case| case.remarks.join("; ")),
            None => subject.last.clone(),
        };
        add(
            format!("{number} {name}"),
            outcome(was),
            outcome(is),
            remark,
        );
    }
    // That it failed as a whole says nothing more, if cases of it differ.
    if reference.end != subject.end && found_nothing(&numbers, reference, subject) {
        add(
            WHOLE.to_owned(),
            reference.end,
            subject.end,
            subject.last.clone(),
        );
    }
    found
}

fn found_nothing(numbers: &BTreeMap<u32, ()>, reference: &Run, subject: &Run) -> bool {
    let outcome = |run: &Run, number| run.cases.get(number).map(|case| case.outcome);
    numbers
        .keys()
        .all(|number| outcome(reference, number) == outcome(subject, number))
}

/// A difference that is known, and why it is there.
#[derive(Debug)]
pub(crate) struct Known {
    suite: String,
    /// Of the suite's settings that are compared.
    settings: Vec<String>,
    /// A part of the case's name, or `*`.
    case: String,
    /// What comes out there.
    is: Outcome,
    /// Only on some runs.
    sometimes: bool,
    pub(crate) reason: String,
    pub(crate) seen: bool,
}

impl Known {
    /// Reads lines `SUITE SETTING,… pass|fail|skip|missing[?] CASE… | REASON`.
    ///
    /// # Errors
    ///
    /// The line that is none.
    pub(crate) fn read_all(text: &str) -> Result<Vec<Known>, String> {
        let lines = text.lines().map(str::trim);
        lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(Known::read)
            .collect()
    }

    fn read(line: &str) -> Result<Known, String> {
        let parse = || {
            let (what, reason) = line.split_once(" | ")?;
            let mut words = what.split_whitespace();
            let suite = words.next()?.to_owned();
            let settings = words.next()?.split(',').map(str::to_owned).collect();
            let outcome = words.next()?;
            let is = match outcome.trim_end_matches('?') {
                "pass" => Outcome::Pass,
                "fail" => Outcome::Fail,
                "skip" => Outcome::Skip,
                "missing" => Outcome::Missing,
                _ => return None,
            };
            let case = words.collect::<Vec<_>>().join(" ");
            let sometimes = outcome.ends_with('?');
            (!case.is_empty()).then(|| Known {
                suite,
                settings,
                case,
                is,
                sometimes,
                reason: reason.trim().to_owned(),
                seen: false,
            })
        };
        parse().ok_or_else(|| format!("not a line of known differences: {line}"))
    }

    fn tells(&self, difference: &Difference) -> bool {
        self.suite == difference.suite
            && self.settings.contains(&difference.setting)
            && self.is == difference.is
            && (self.case == "*" || difference.case.contains(&self.case))
    }

    /// What is wrong with the line itself, after a run of the suites that `ran` tells of.
    pub(crate) fn stale(&self, ran: impl Fn(&str, &str) -> bool) -> Option<String> {
        let all_ran = self
            .settings
            .iter()
            .all(|setting| ran(&self.suite, setting));
        (!self.seen && !self.sometimes && all_ran).then(|| {
            format!(
                "`{} {} {} {}` is listed as a known difference, and is none any more",
                self.suite,
                self.settings.join(","),
                self.is.text(),
                self.case
            )
        })
    }
}

/// Gives each difference its reason, if it is known.
pub(crate) fn explain(differences: &mut [Difference], known: &mut [Known]) {
    for difference in differences {
        if let Some(known) = known.iter_mut().find(|known| known.tells(difference)) {
            known.seen = true;
            difference.reason = Some(known.reason.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(output: &str, status: i32) -> Run {
        Run::parse(output, status)
    }

    #[test]
    fn the_same_is_no_difference() {
        let both = run("ok 1 a\nnot ok 2 b\n", 1);
        assert!(differences("s", "vmalab", &both, &both).is_empty());
    }

    #[test]
    fn each_case_that_differs() {
        let was = run("ok 1 a\nok 2 b\nok 3 c\nnot ok 4 d\n", 1);
        let is = run("ok 1 a\n# it was 7\nnot ok 2 b\nok 3 # SKIP no\n", 139);
        let found = differences("s", "vmalab", &was, &is);
        let short: Vec<_> = found
            .iter()
            .map(|d| (d.case.as_str(), d.was, d.is, d.remark.as_str()))
            .collect();
        assert_eq!(
            short,
            [
                ("2 b", Outcome::Pass, Outcome::Fail, "it was 7"),
                ("3 c", Outcome::Pass, Outcome::Skip, "no"),
                ("4 d", Outcome::Fail, Outcome::Missing, "it was 7"),
            ]
        );
    }

    #[test]
    fn a_suite_without_cases_differs_as_a_whole() {
        let found = differences("s", "vmalab", &run("", 0), &run("no\n", 1));
        assert_eq!(
            (found[0].case.as_str(), found[0].remark.as_str()),
            (WHOLE, "no")
        );
    }

    #[test]
    fn a_known_difference_has_a_reason_and_must_be_there() {
        let text = "# suite …\ns vmalab,vmalab-prepare fail b | it is so\n\ns vmalab fail? zzz | at times\n";
        let mut known = Known::read_all(text).unwrap();
        let mut found = differences(
            "s",
            "vmalab",
            &run("ok 1 b\nok 2 c\n", 0),
            &run("not ok 1 b\nnot ok 2 c\n", 1),
        );
        explain(&mut found, &mut known);
        assert_eq!(found[0].reason.as_deref(), Some("it is so"));
        assert_eq!(found[1].reason, None);
        assert_eq!(
            known
                .iter()
                .filter_map(|known| known.stale(|_, _| true))
                .count(),
            0
        );

        let mut known = Known::read_all(text).unwrap();
        explain(&mut [], &mut known);
        assert_eq!(
            known
                .iter()
                .filter_map(|known| known.stale(|_, _| true))
                .count(),
            1
        );
        assert_eq!(
            known
                .iter()
                .filter_map(|known| known.stale(|_, _| false))
                .count(),
            0
        );
        assert!(Known::read_all("s vmalab explodes b | no").is_err());
        assert!(Known::read_all("s vmalab fail b").is_err());
    }
}
