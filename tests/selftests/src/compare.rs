// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What a suite said with the module, against what it said without it.

use std::collections::{BTreeMap, BTreeSet};

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
    /// The kernel complained, or the suite was ended by a signal or by its time bound: no list excuses that.
    pub(crate) grave: bool,
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
            grave: true,
        }
    }
}

/// The case that stands for how the suite as a whole ended.
pub(crate) const WHOLE: &str = "the whole suite";

/// From this exit status on, a suite did not end by itself: it took longer than its time bound (124), or a
/// signal ended it.
const ENDED: i32 = 124;

/// By what the cases of two runs are held against each other: the number, which is 0 if it is by name only,
/// and the name.
type Key<'a> = (u32, &'a str);

fn cases(run: &Run, by_name: bool) -> BTreeMap<Key<'_>, &Case> {
    let mut cases = BTreeMap::new();
    for (&number, case) in &run.cases {
        let key = if by_name {
            (0, &*case.name)
        } else {
            (number, "")
        };
        // Of two with one name, a failure counts.
        let known: Option<&&Case> = cases.get(&key);
        if known.is_none_or(|known| known.outcome != Outcome::Fail) {
            cases.insert(key, case);
        }
    }
    cases
}

/// All differences of `subject` from `reference`; of a suite that comes to other cases now and then, by their
/// names.
pub(crate) fn differences(
    suite: &str,
    setting: &str,
    reference: &Run,
    subject: &Run,
    by_name: bool,
) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut add = |case: String, was, is, remark: String, grave| {
        found.push(Difference {
            suite: suite.to_owned(),
            setting: setting.to_owned(),
            case,
            was,
            is,
            remark,
            reason: None,
            grave,
        });
    };
    let (of_reference, of_subject) = (cases(reference, by_name), cases(subject, by_name));
    let keys: BTreeSet<_> = of_reference.keys().chain(of_subject.keys()).collect();
    let mut differs = false;
    for key in keys {
        let (was, is) = (of_reference.get(key).copied(), of_subject.get(key).copied());
        let outcome = |case: Option<&Case>| case.map_or(Outcome::Missing, |case| case.outcome);
        if outcome(was) == outcome(is) {
            continue;
        }
        differs = true;
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
        let case = if by_name {
            name.to_owned()
        } else {
            format!("{} {name}", key.0)
        };
        add(case, outcome(was), outcome(is), remark, false);
    }
    // That it failed as a whole says nothing more, if cases of it differ; that it was ended does.
    let grave = subject.status >= ENDED && reference.status < ENDED;
    if grave || reference.end != subject.end && !differs {
        let last = format!("status {}: {}", subject.status, subject.last);
        add(WHOLE.to_owned(), reference.end, subject.end, last, grave);
    }
    found
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
        lines(text)
            .filter(|line| by_name(line).is_none())
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
        !difference.grave
            && self.suite == difference.suite
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

/// The lines of a list, without its comments.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The suite of a line `SUITE by-name`.
fn by_name(line: &str) -> Option<&str> {
    line.strip_suffix(" by-name").map(str::trim)
}

/// The suites whose cases are known by their names, from lines `SUITE by-name`.
pub(crate) fn compared_by_name(text: &str) -> BTreeSet<String> {
    lines(text).filter_map(by_name).map(str::to_owned).collect()
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
        assert!(differences("s", "vmalab", &both, &both, false).is_empty());
    }

    #[test]
    fn each_case_that_differs() {
        let was = run("ok 1 a\nok 2 b\nok 3 c\nnot ok 4 d\n", 1);
        let is = run("ok 1 a\n# it was 7\nnot ok 2 b\nok 3 # SKIP no\n", 139);
        let found = differences("s", "vmalab", &was, &is, false);
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
                (WHOLE, Outcome::Fail, Outcome::Fail, "status 139: it was 7"),
            ]
        );
    }

    #[test]
    fn a_suite_without_cases_differs_as_a_whole() {
        let found = differences("s", "vmalab", &run("", 0), &run("no\n", 1), false);
        assert_eq!(
            (found[0].case.as_str(), found[0].remark.as_str()),
            (WHOLE, "status 1: no")
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
            false,
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

    #[test]
    fn no_list_excuses_a_crash_or_what_the_kernel_says() {
        let text = "s vmalab fail * | any\ns vmalab missing * | any\ns vmalab fail kernel log | any\n\
                    s vmalab fail mremap | any\n";
        let mut known = Known::read_all(text).unwrap();
        let mut explained = |mut found: Vec<Difference>| {
            explain(&mut found, &mut known);
            let reason = |d: Difference| (d.case, d.reason.is_some());
            found.into_iter().map(reason).collect::<Vec<_>>()
        };
        let line = Difference::logged("s", "vmalab", "BUG: KASAN: use-after-free in mremap_to");
        let case = line.case.clone();
        assert_eq!(explained(vec![line]), [(case, false)]);

        let was = run("ok 1 a\nok 2 b\n", 0);
        for status in [124, 134, 139] {
            let is = run("ok 1 a\n", status);
            assert_eq!(
                explained(differences("s", "vmalab", &was, &is, false)),
                [("2 b".to_owned(), true), (WHOLE.to_owned(), false)],
                "status {status}"
            );
        }
        // Where it crashes as well without the device, there is nothing to say.
        let crashed = run("ok 1 a\nok 2 b\n", 139);
        assert!(differences("s", "vmalab", &crashed, &crashed, false).is_empty());
        let gives_up = run("ok 1 a\n", 1);
        let found = differences("s", "vmalab", &was, &gives_up, false);
        assert_eq!(explained(found), [("2 b".to_owned(), true)]);
    }

    #[test]
    fn by_name_a_line_more_moves_nothing() {
        let text = "s by-name\ns vmalab fail not merged | it is so\n";
        assert_eq!(Vec::from_iter(compared_by_name(text)), ["s"]);
        assert_eq!(Known::read_all(text).unwrap().len(), 1);
        assert!(Known::read_all("s by-name | so").is_err());

        let was = run("ok 1 a\nok 2 b\nnot ok 3 c\n", 1);
        let is = run("ok 1 a\nnot ok 2 not merged\nok 3 b\nnot ok 4 c\n", 1);
        let found = differences("s", "vmalab", &was, &is, true);
        let short: Vec<_> = found.iter().map(|d| (&*d.case, d.was, d.is)).collect();
        assert_eq!(short, [("not merged", Outcome::Missing, Outcome::Fail)]);
        // Of a name that comes twice, the failure counts, wherever it stands.
        let twice = run("not ok 1 a\nok 2 a\nok 3 b\nnot ok 4 c\n", 1);
        let found = differences("s", "vmalab", &was, &twice, true);
        let short: Vec<_> = found.iter().map(|d| (&*d.case, d.was, d.is)).collect();
        assert_eq!(short, [("a", Outcome::Pass, Outcome::Fail)]);
    }
}
