// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the rules say of themselves: each field when it changed, and the eras as it says.

use vmalab_model::{Field, Rules};

type Version = (u16, u16, u16);

/// A version in a text: two or three numbers with dots between them.
fn version(word: &str) -> Option<Version> {
    let word = word.trim_end_matches(|c: char| !c.is_ascii_digit());
    let numbers: Option<Vec<u16>> = word.split('.').map(|part| part.parse().ok()).collect();
    match *numbers? {
        [major, minor] => Some((major, minor, 0)),
        [major, minor, patch] => Some((major, minor, patch)),
        _ => None,
    }
}

/// What a text says of a version: that something is so from it on, or that it is the last one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Date {
    Since(Version),
    Until(Version),
}

impl Date {
    /// Whether it lies between two eras: the first has what is before it, the second what is after.
    fn between(self, one: &Rules, other: &Rules) -> bool {
        match self {
            Self::Since(version) => one.since < version && version <= other.since,
            Self::Until(version) => one.since <= version && version < other.since,
        }
    }
}

/// The dates of a text: `since 6.1`, `until 4.11`, `from 4.11 to 5.16`, `before 2.6.33`.
fn dates(text: &str) -> Vec<Date> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let after = |at: usize| words.get(at + 1).and_then(|word| version(word));
    let mut dates = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let word = word.trim_start_matches('(').to_lowercase();
        let date = match word.as_str() {
            "since" | "from" | "before" => after(at).map(Date::Since),
            "until" | "to" => after(at).map(Date::Until),
            _ => None,
        };
        dates.extend(date);
    }
    dates
}

/// The eras between which a field changes, and those that follow each other.
fn pairs() -> impl Iterator<Item = (&'static Rules, &'static Rules)> {
    Rules::all().windows(2).map(|pair| (&pair[0], &pair[1]))
}

fn fields() -> impl Iterator<Item = &'static Field> {
    Rules::FIELDS.iter().filter(|field| field.name != "mistake")
}

#[test]
fn each_field_says_when() {
    let undated: Vec<&str> = fields()
        .filter(|field| dates(field.doc).is_empty())
        .map(|field| field.name)
        .collect();
    assert_eq!(undated, [""; 0]);
}

/// Where two eras differ in a field, it says that this changed between them.
#[test]
fn the_eras_change_when_the_fields_say() {
    let mut wrong = Vec::new();
    for field in fields() {
        let dates = dates(field.doc);
        for (one, other) in pairs() {
            if field.differs(one, other) && !dates.iter().any(|date| date.between(one, other)) {
                wrong.push(format!(
                    "{} between {} and {}",
                    field.name, one.name, other.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// And what a sentence that begins so says of a version is so.
#[test]
fn the_fields_change_when_they_say() {
    let mut wrong = Vec::new();
    for field in fields() {
        for sentence in field.doc.split(". ").flat_map(|part| part.split(".\n")) {
            let sentence = sentence.trim();
            if !["Since ", "Until ", "From "]
                .iter()
                .any(|word| sentence.starts_with(word))
            {
                continue;
            }
            // What comes after a semicolon or in brackets is told beside it.
            let headline = sentence.split([';', '(']).next().unwrap_or(sentence);
            for date in dates(headline) {
                let around = pairs().find(|(one, other)| date.between(one, other));
                if around.is_some_and(|(one, other)| !field.differs(one, other)) {
                    wrong.push(format!("{}: {headline}", field.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Each field says why: what changed by its subject, or the function or flag in which it shows.
#[test]
fn each_field_says_why() {
    let silent: Vec<&str> = fields()
        .filter(|field| !field.doc.contains(['"', '`']))
        .map(|field| field.name)
        .collect();
    assert_eq!(silent, [""; 0]);
}
