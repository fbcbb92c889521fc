//! The identity of a set of images.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// The identity of a set of images, without the images: their number, and a hash over the hashes of their pixels in the
/// set's order, which depends on the seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fingerprint {
    pub(crate) rows: u64,
    pub(crate) held_out: u64,
    /// XXH3's 128 bits, in hexadecimal.
    pub(crate) hash: String,
}

impl Fingerprint {
    /// The fingerprint of rows with these hashes, in order, the held-out ones first.
    pub(super) fn of(keys: impl ExactSizeIterator<Item = u64>, held_out: usize) -> Self {
        let rows = keys.len() as u64;
        let mut hash = Xxh3::new();
        keys.for_each(|key| hash.update(&key.to_le_bytes()));
        Self { rows, held_out: held_out as u64, hash: format!("{:032x}", hash.digest128()) }
    }
}
