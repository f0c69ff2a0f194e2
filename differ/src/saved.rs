// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Saved`]: how far a campaign got, in a file from which it goes on.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::generate;
use crate::reach::Reach;
use crate::report::About;
use crate::runner::Stats;

/// Raised when old files can no longer be read.
const FORMAT: u32 = 2;

/// How far a campaign got.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    format: u32,
    generator: u32,
    /// From which all operations follow.
    pub seed: u64,
    era: String,
    oracle: String,
    /// With the options that say what is done, but for how much.
    #[serde(default)]
    command: String,
    /// The first batch of the campaign.
    pub first_batch: u64,
    next_batch: u64,
    ops: u64,
    batches: u64,
    seconds: f64,
    #[serde(default)]
    pages: u64,
    most_areas: usize,
    /// The outcomes that were reached, by number; edges belong to a library.
    outcomes: Vec<usize>,
    worlds: BTreeMap<String, u64>,
    results: Vec<(String, i32, u64)>,
    hooks: BTreeMap<String, u64>,
    known: BTreeMap<String, u64>,
}

impl Saved {
    /// Of a campaign that has come so far.
    pub fn new(about: &About, stats: &Stats) -> Self {
        let named = |map: &BTreeMap<&'static str, u64>| {
            let named = map.iter().map(|(&name, &count)| (name.to_owned(), count));
            named.collect()
        };
        Self {
            format: FORMAT,
            generator: generate::VERSION,
            seed: about.seed,
            era: about.era.clone(),
            oracle: about.oracle.clone(),
            command: about.command.clone(),
            first_batch: about.first_batch,
            next_batch: stats.next_batch,
            ops: stats.ops,
            batches: stats.batches,
            seconds: stats.elapsed.as_secs_f64(),
            pages: stats.pages,
            most_areas: stats.most_areas,
            outcomes: stats.reach.numbers(),
            worlds: stats.worlds.clone(),
            results: stats
                .results
                .iter()
                .map(|(&(kind, errno), &count)| (kind.to_owned(), errno, count))
                .collect(),
            hooks: named(&stats.hooks),
            known: named(&stats.known),
        }
    }

    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// Why it cannot be read, or is not such a file.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the file: as a whole, or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_string_pretty(self)? + "\n")?;
        fs::rename(new, path)
    }

    /// What was done, if it was the same that is to go on.
    ///
    /// # Errors
    /// What is not the same.
    pub fn stats(&self, about: &About) -> Result<Stats, String> {
        let same = [
            ("format", self.format.to_string(), FORMAT.to_string()),
            (
                "generator's version",
                self.generator.to_string(),
                generate::VERSION.to_string(),
            ),
            ("seed", self.seed.to_string(), about.seed.to_string()),
            (
                "first batch",
                self.first_batch.to_string(),
                about.first_batch.to_string(),
            ),
            ("era", self.era.clone(), about.era.clone()),
            ("oracle", self.oracle.clone(), about.oracle.clone()),
            ("command", self.command.clone(), about.command.clone()),
        ];
        for (what, saved, now) in same {
            if saved != now {
                return Err(format!(
                    "it was begun with the {what} {saved}, and this is {now}"
                ));
            }
        }
        // The names are few, and live as long as the program does anyway.
        let forever = |name: &String| -> &'static str { Box::leak(name.clone().into_boxed_str()) };
        let named = |map: &BTreeMap<String, u64>| {
            let named = map.iter().map(|(name, &count)| (forever(name), count));
            named.collect()
        };
        Ok(Stats {
            ops: self.ops,
            batches: self.batches,
            worlds: self.worlds.clone(),
            results: self
                .results
                .iter()
                .map(|(kind, errno, count)| ((forever(kind), *errno), *count))
                .collect(),
            hooks: named(&self.hooks),
            known: named(&self.known),
            unfinished: Vec::new(),
            pages: self.pages,
            most_areas: self.most_areas,
            reach: Reach::of_numbers(&self.outcomes),
            next_batch: self.next_batch,
            elapsed: Duration::try_from_secs_f64(self.seconds).unwrap_or_default(),
        })
    }
}
