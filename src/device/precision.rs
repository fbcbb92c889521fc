//! The numbers that a model computes with.

use serde::{Deserialize, Serialize};

/// The numbers that a model computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Values of 32 bits.
    #[default]
    F32,
    /// On a GPU, values of 32 bits, of which products use the first 19 (NVIDIA's TF32): several times as fast. On the
    /// processor, the same as f32.
    Tf32,
    /// Values and weights of 16 bits between the first and the last layer, with sums in f32: on processors with
    /// AVX512_BF16, 1.5 to 2 times as fast on wide networks, with costs that change by about a hundredth. Calibration
    /// stays that of f32, so that p-values hold approximately. A processor without AVX512_BF16 computes in f32 instead,
    /// and the log says so once a process. On a GPU, training computes in bf16 too, on weights that are kept in 32
    /// bits.
    Bf16,
}

impl Precision {
    /// Every precision under its name.
    pub const ALL: [(&'static str, Self); 3] = [("f32", Self::F32), ("tf32", Self::Tf32), ("bf16", Self::Bf16)];

    /// The name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, precision)| *precision == self).map_or("", |(name, _)| name)
    }
}
