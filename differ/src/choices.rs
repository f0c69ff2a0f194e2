// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Choices`]: what the generator's choices follow from, a seed or bytes.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A source of choices.
pub(crate) enum Choices {
    /// ChaCha8, whose values are stable.
    Random(Box<ChaCha8Rng>),
    /// Bytes that a fuzzer makes. Each choice takes one, or as many as it has answers for, so that what a
    /// fuzzer changes changes one choice. When all are taken, it is the first answer always.
    Bytes {
        /// All of them.
        bytes: Vec<u8>,
        /// How many were taken.
        taken: usize,
    },
}

impl Choices {
    /// The seed is the key, the batch the stream.
    pub(crate) fn seeded(seed: u64, batch: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(batch);
        Self::Random(Box::new(rng))
    }

    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::Bytes {
            bytes: bytes.into(),
            taken: 0,
        }
    }

    /// Whether no choice is left.
    pub(crate) fn is_exhausted(&self) -> bool {
        matches!(self, Self::Bytes { bytes, taken } if *taken >= bytes.len())
    }

    /// A number from 0 to `n - 1`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        match self {
            // `n` is small as a rule, so that the bias of multiplication does not matter. What is wrong on
            // purpose may make an area of any size.
            Self::Random(rng) => ((u128::from(rng.next_u32()) * u128::from(n)) >> 32) as u64,
            Self::Bytes { bytes, taken } => {
                let mut value = 0;
                let mut answers = 1;
                while answers < n {
                    let byte = bytes.get(*taken).copied().unwrap_or(0);
                    value = (value << 8) | u64::from(byte);
                    *taken += 1;
                    answers = answers.saturating_mul(256);
                }
                value % n.max(1)
            }
        }
    }

    /// One of them.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::Choices;

    #[test]
    fn bytes_are_taken_one_for_each_choice() {
        let mut choices = Choices::of(&[7, 1, 2, 9]);
        assert_eq!(choices.below(1), 0);
        assert_eq!(choices.below(5), 2);
        assert_eq!(choices.below(4096), 0x102);
        assert!(!choices.is_exhausted());
        assert_eq!(choices.pick(&[10, 20, 30]), 10);
        assert!(choices.is_exhausted());
        assert_eq!(choices.below(100), 0);
        assert!(!Choices::seeded(1, 2).is_exhausted());
    }
}
