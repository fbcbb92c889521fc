//! Random numbers: a stream for each purpose of each epoch, so that none depends on how many another drew.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::step::Generators;

/// The purposes of random numbers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Weights,
    Shuffle,
    Prior,
    Evaluation,
    Noise,
    Posterior,
    Directions,
    Pretraining,
    Augmentation,
}

/// The stream of a purpose in an epoch.
pub(super) fn generator(seed: u64, purpose: Purpose, epoch: usize) -> ChaCha8Rng {
    // Purposes that were added later have streams far off, so that a seed gives the numbers that it gave before.
    let purpose = purpose as u64;
    let far = purpose / 4;
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream((far << 60) + epoch as u64 * 4 + purpose % 4);
    generator
}

impl Generators {
    /// The streams of an epoch's steps.
    pub(super) fn new(seed: u64, epoch: usize) -> Self {
        let of = |purpose| generator(seed, purpose, epoch);
        Self {
            prior: of(Purpose::Prior),
            noise: of(Purpose::Noise),
            posterior: of(Purpose::Posterior),
            directions: of(Purpose::Directions),
            augmentation: of(Purpose::Augmentation),
        }
    }
}
