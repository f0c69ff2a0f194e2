// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Part`]: one of the two programs that are counted, function by function.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

/// Of the lines and branches on the paths that must be reached, so many in a hundred must be.
const LEAST_LINES: f64 = 95.0;
const LEAST_BRANCHES: f64 = 90.0;

/// The kernel's file, of which what is reached is counted.
pub(crate) const KERNEL: &str = "mm/vma.c";

/// What was reached of a function.
pub(crate) struct Function {
    pub(crate) file: String,
    pub(crate) name: String,
    lines: u64,
    reached: u64,
    branches: u64,
    taken: u64,
    /// Runs of lines that were not reached, by what the list calls them.
    unreached: Vec<String>,
    /// Lines with branches that were not taken.
    untaken: Vec<u64>,
}

impl Function {
    pub(crate) fn new(file: &str, name: &str) -> Self {
        Self {
            file: file.into(),
            name: name.into(),
            lines: 0,
            reached: 0,
            branches: 0,
            taken: 0,
            unreached: Vec::new(),
            untaken: Vec::new(),
        }
    }

    /// Takes a branch in that line.
    pub(crate) fn branch(&mut self, line: u64, taken: bool) {
        self.branches += 1;
        if taken {
            self.taken += 1;
        } else if self.untaken.last() != Some(&line) {
            self.untaken.push(line);
        }
    }

    /// By what the list of paths calls it: the kernel's by its name, the model's by its file.
    fn path(&self) -> &str {
        match &*self.file {
            KERNEL => &self.name,
            file => file,
        }
    }

    /// Takes its lines, in order, and whether each was reached. `place` calls a run from its first line to its
    /// last by a name.
    pub(crate) fn count(&mut self, lines: &[(u64, bool)], place: impl Fn(u64, u64) -> String) {
        self.lines = lines.len() as u64;
        for run in lines.chunk_by(|(_, one), (_, next)| one == next) {
            if run[0].1 {
                self.reached += run.len() as u64;
            } else {
                self.unreached.push(place(run[0].0, run[run.len() - 1].0));
            }
        }
    }
}

/// Lines or branches: all of them, and those that were reached.
#[derive(Clone, Copy)]
struct Share(u64, u64);

impl Share {
    fn percent(self) -> f64 {
        100.0 * self.1 as f64 / self.0.max(1) as f64
    }
}

/// The functions of one program.
pub(crate) struct Part {
    name: &'static str,
    /// What its branches are called.
    branches: &'static str,
    functions: Vec<Function>,
    /// By number: those that must be reached.
    on_paths: BTreeSet<usize>,
}

impl Part {
    pub(crate) fn new(
        name: &'static str,
        branches: &'static str,
        functions: Vec<Function>,
        paths: &BTreeSet<String>,
    ) -> Self {
        let listed = |one: &Function| paths.contains(one.path());
        let numbers = (0..functions.len()).filter(|&number| listed(&functions[number]));
        Self {
            name,
            branches,
            on_paths: numbers.collect(),
            functions,
        }
    }

    /// Whether a function or file of that name is on the paths here.
    pub(crate) fn names(&self, path: &str) -> bool {
        self.on_paths()
            .any(|one| one.name == path || one.file == path)
    }

    /// Whether that place is one that was not reached.
    pub(crate) fn has(&self, place: &str) -> bool {
        self.on_paths()
            .any(|one| one.unreached.iter().any(|here| here == place))
    }

    fn on_paths(&self) -> impl Iterator<Item = &Function> {
        self.on_paths.iter().map(|&number| &self.functions[number])
    }

    fn lines(&self) -> Share {
        let sum = |of: fn(&Function) -> u64| self.on_paths().map(of).sum();
        Share(sum(|one| one.lines), sum(|one| one.reached))
    }

    fn taken(&self) -> Share {
        let sum = |of: fn(&Function) -> u64| self.on_paths().map(of).sum();
        Share(sum(|one| one.branches), sum(|one| one.taken))
    }

    /// What is not as it must be.
    pub(crate) fn problems(&self, reasons: &BTreeMap<String, String>) -> Vec<String> {
        let mut problems = Vec::new();
        for place in self.on_paths().flat_map(|one| &one.unreached) {
            if !reasons.contains_key(place) {
                problems.push(format!("{place}: not reached, and not explained"));
            }
        }
        for (what, share, least) in [
            ("lines", self.lines(), LEAST_LINES),
            (self.branches, self.taken(), LEAST_BRANCHES),
        ] {
            if share.percent() < least {
                let percent = share.percent();
                problems.push(format!(
                    "{}: {percent:.1} % of the {what}, not {least} %",
                    self.name
                ));
            }
        }
        problems
    }

    /// All of it for a reader: what must be reached is marked by a star.
    pub(crate) fn table(&self, reasons: &BTreeMap<String, String>) -> String {
        let (lines, taken) = (self.lines(), self.taken());
        let mut text = format!(
            "{}: {} of {} lines ({:.1} %), {} of {} {} ({:.1} %) of the functions with a star\n\n",
            self.name,
            lines.1,
            lines.0,
            lines.percent(),
            taken.1,
            taken.0,
            self.branches,
            taken.percent(),
        );
        let _ = writeln!(
            text,
            "  {:<58}{:>13}{:>13}",
            "function", "lines", self.branches
        );
        for (number, one) in self.functions.iter().enumerate() {
            let must = self.on_paths.contains(&number);
            let lines = format!("{}/{}", one.reached, one.lines);
            let taken = format!("{}/{}", one.taken, one.branches);
            let name = match &*one.file {
                KERNEL => one.name.clone(),
                file => format!("{}: {}", file.trim_start_matches("model/src/"), one.name),
            };
            let star = if must { '*' } else { ' ' };
            let _ = writeln!(text, "{star} {name:<58}{lines:>13}{taken:>13}");
            for place in one.unreached.iter().filter(|_| must) {
                let reason = reasons.get(place).map_or("not explained", String::as_str);
                let _ = writeln!(text, "      {place}\n        {reason}");
            }
            if must && !one.untaken.is_empty() {
                let lines: Vec<String> = one.untaken.iter().map(u64::to_string).collect();
                let lines = lines.join(" ");
                let _ = writeln!(text, "      not all {} taken in {lines}", self.branches);
            }
        }
        text.push('\n');
        text
    }

    pub(crate) fn json(&self, reasons: &BTreeMap<String, String>) -> Value {
        let row = |(number, one): (usize, &Function)| {
            let explained = one
                .unreached
                .iter()
                .map(|place| json!([place, reasons.get(place)]));
            json!({
                "file": one.file, "name": one.name, "must": self.on_paths.contains(&number),
                "lines": one.lines, "reached": one.reached,
                self.branches: one.branches, "taken": one.taken,
                "unreached": explained.collect::<Vec<_>>(), "not_all_taken_in": one.untaken,
            })
        };
        let (lines, taken) = (self.lines(), self.taken());
        json!({
            "name": self.name,
            "lines": {"all": lines.0, "reached": lines.1, "percent": lines.percent()},
            self.branches: {"all": taken.0, "reached": taken.1, "percent": taken.percent()},
            "functions": self.functions.iter().enumerate().map(row).collect::<Vec<_>>(),
        })
    }
}
