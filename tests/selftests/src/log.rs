// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the kernel logged while a suite ran.

use std::collections::{BTreeMap, BTreeSet};

/// Lines at warning level or above, without what differs from run to run: by setting and suite.
pub(crate) type Warnings = BTreeMap<(String, String), BTreeSet<String>>;

/// What `run` logs before each suite.
const MARK: &str = "selftests: ";
/// These say nothing of a suite: that modules are not Debian's, and that the host was busy.
const IGNORED: [&str; 3] = [
    "loading out-of-tree module taints kernel",
    "module verification failed",
    "hrtimer: interrupt took",
];

/// Reads the raw log: `<facility*8+level>[time] text`.
pub(crate) fn read(log: &str) -> Warnings {
    let mut warnings = Warnings::new();
    let mut suite = None;
    for line in log.lines() {
        let Some((level, text)) = record(line) else {
            continue;
        };
        if let Some((setting, name)) = text
            .strip_prefix(MARK)
            .and_then(|mark| mark.split_once(' '))
        {
            suite = Some((name.to_owned(), setting.to_owned()));
        } else if let Some(suite) = suite.as_ref().filter(|_| level <= 4) {
            if !IGNORED.iter().any(|ignored| text.contains(ignored)) {
                warnings
                    .entry(suite.clone())
                    .or_default()
                    .insert(without_numbers(text));
            }
        }
    }
    warnings
}

fn record(line: &str) -> Option<(u32, &str)> {
    let (level, text) = line.strip_prefix('<')?.split_once('>')?;
    let text = text.trim_start();
    let text = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.1.trim_start(),
        None => text,
    };
    Some((level.parse::<u32>().ok()? % 8, text))
}

/// Process numbers, addresses and amounts, as `N`.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        let hexadecimal = word
            .trim_start_matches("0x")
            .chars()
            .all(|c| c.is_ascii_hexdigit());
        if hexadecimal && word.chars().any(|c| c.is_ascii_digit()) {
            out.push('N');
        } else {
            out.push_str(&word);
        }
        word.clear();
        out.push(c);
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_belong_to_the_suite_before_them() {
        let log = "<4>[ 1.0] before all\n<6>[    2.0] selftests: vmalab cow\n<6>[ 2.1] fine\n\
                   <4>[ 2.2] cow[123]: at 7f12ab\n<14>[ 2.3] selftests: vmalab merge\n<3>[ 2.4] BUG: bad\n";
        let warnings = read(log);
        let lines = |suite: &str| warnings[&(suite.to_owned(), "vmalab".to_owned())].clone();
        assert_eq!(Vec::from_iter(lines("cow")), ["cow[N]: at N"]);
        assert_eq!(Vec::from_iter(lines("merge")), ["BUG: bad"]);
        assert_eq!(warnings.len(), 2);
    }
}
