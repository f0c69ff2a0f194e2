// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Reach`]: how far into what can happen a run has come: which distinct outcomes operations had, and, where the
//! oracle says so, which edges of its code were taken.
//!
//! An outcome is the operation, its result (success, or which error) and its shape: how many areas more or less
//! there are, and whether a driver was called. A run that meets no new ones any more does what it did before.

use vmalab_model::{Errno, Op, Outcome};

use crate::call::{Call, SIGNATURES};

/// Results that are told apart: 0, and errnos below.
const RESULTS: usize = 256;
/// Shapes: so many areas more or less, with and without hook calls.
const SHAPES: usize = 2 * (2 * MOST + 1);
const MOST: usize = 3;

/// What was reached.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// One bit for each outcome, by [`number`].
    outcomes: Vec<u64>,
    /// One for each edge, not 0 if it was taken.
    edges: Vec<u8>,
}

impl Reach {
    /// Of an operation before which there were so many areas in the windows.
    pub fn add(&mut self, op: &Op, areas: usize, outcome: &Outcome) {
        self.set(number(op, areas, outcome));
    }

    fn set(&mut self, number: usize) {
        if self.outcomes.len() <= number / 64 {
            self.outcomes.resize(number / 64 + 1, 0);
        }
        self.outcomes[number / 64] |= 1 << (number % 64);
    }

    /// Of the code of an oracle: what [`Oracle::edges`](crate::oracle::Oracle::edges) gives.
    pub fn add_edges(&mut self, edges: &[u8]) {
        if self.edges.len() < edges.len() {
            self.edges.resize(edges.len(), 0);
        }
        for (all, one) in self.edges.iter_mut().zip(edges) {
            *all |= one;
        }
    }

    /// Takes what others reached in as well.
    pub fn merge(&mut self, other: &Self) {
        if self.outcomes.len() < other.outcomes.len() {
            self.outcomes.resize(other.outcomes.len(), 0);
        }
        for (all, one) in self.outcomes.iter_mut().zip(&other.outcomes) {
            *all |= one;
        }
        self.add_edges(&other.edges);
    }

    /// How many distinct outcomes.
    pub fn outcomes(&self) -> u64 {
        let bits = self
            .outcomes
            .iter()
            .map(|word| u64::from(word.count_ones()));
        bits.sum()
    }

    /// How many edges of how many, where the oracle tells.
    pub fn edges(&self) -> Option<(usize, usize)> {
        let taken = self.edges.iter().filter(|&&edge| edge != 0).count();
        (!self.edges.is_empty()).then_some((taken, self.edges.len()))
    }

    /// The outcomes as numbers, for [`saved`](crate::saved).
    pub(crate) fn numbers(&self) -> Vec<usize> {
        let all = 0..self.outcomes.len() * 64;
        all.filter(|number| self.outcomes[number / 64] & (1 << (number % 64)) != 0)
            .collect()
    }

    /// What [`numbers`](Self::numbers) gave.
    pub(crate) fn of_numbers(numbers: &[usize]) -> Self {
        let mut reach = Self::default();
        for &number in numbers {
            reach.set(number.min(SIGNATURES.len() * RESULTS * SHAPES));
        }
        reach
    }

    /// For people, in a few words.
    pub fn text(&self) -> String {
        let outcomes = self.outcomes();
        match self.edges() {
            None => format!("{outcomes} outcomes"),
            Some((taken, all)) => {
                let share = 100.0 * taken as f64 / all as f64;
                format!("{outcomes} outcomes, {share:.1} % of the edges")
            }
        }
    }
}

/// The number of an outcome.
fn number(op: &Op, areas: usize, outcome: &Outcome) -> usize {
    let kind = Call::from(op).signature.place;
    let result = outcome.result.map_or_else(Errno::number, |_| 0) as usize;
    let after = outcome.layout.len() + MOST;
    let more = after.saturating_sub(areas).min(2 * MOST);
    let shape = 2 * more + usize::from(!outcome.hooks.is_empty());
    (kind * RESULTS + result.min(RESULTS - 1)) * SHAPES + shape
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmalab_model::{Area, Object, VmFlags};

    fn outcome(areas: u64, result: Result<u64, Errno>) -> Outcome {
        let area = |start| Area {
            start,
            end: start + 1,
            flags: VmFlags::empty(),
            offset: 0,
            object: Object::Anon,
            anon_vma: None,
            name: None,
        };
        Outcome {
            result,
            layout: (0..areas).map(area).collect(),
            ..Outcome::default()
        }
    }

    #[test]
    fn what_is_the_same_counts_once() {
        let unmap = Op::Munmap { addr: 0, len: 1 };
        let other = Op::Munmap { addr: 7, len: 9 };
        let mut reach = Reach::default();
        for (op, areas, outcome, count) in [
            (unmap, 3, outcome(3, Ok(0)), 1),
            // Of others in number, but not in shape.
            (other, 5, outcome(5, Ok(0)), 1),
            (unmap, 3, outcome(4, Ok(0)), 2),
            (unmap, 3, outcome(3, Err(Errno::EINVAL)), 3),
            (Op::Fork, 3, outcome(3, Ok(0)), 4),
            // Far more or less are alike.
            (unmap, 20, outcome(10, Ok(0)), 5),
            (unmap, 20, outcome(9, Ok(0)), 5),
        ] {
            reach.add(&op, areas, &outcome);
            assert_eq!(reach.outcomes(), count, "{op:?}");
        }
        let mut all = Reach::of_numbers(&reach.numbers());
        assert_eq!(all.outcomes(), 5);
        all.merge(&reach);
        assert_eq!((all.outcomes(), all.edges()), (5, None));
    }

    #[test]
    fn edges_are_those_of_all_threads() {
        let mut one = Reach::default();
        one.add_edges(&[1, 0, 0, 0]);
        let mut other = Reach::default();
        other.add_edges(&[1, 1, 0, 0]);
        one.merge(&other);
        assert_eq!(one.edges(), Some((2, 4)));
        assert_eq!(one.text(), "0 outcomes, 50.0 % of the edges");
    }
}
