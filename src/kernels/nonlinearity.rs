//! The functions behind the layers of pretrained networks.

use rayon::prelude::*;

use super::backend::{Work, backend, dispatch};

/// Values a task.
const CHUNK: usize = 1 << 13;

/// A function of each value behind a layer of a pretrained network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nonlinearity {
    /// x.
    Identity,
    /// max(0, x).
    Relu,
    /// min(max(0, x), 6).
    Relu6,
    /// x / (1 + exp(−x)).
    Silu,
    /// x · ½ (1 + erf(x/√2)).
    Gelu,
    /// 1 / (1 + exp(−x)).
    Sigmoid,
}

impl Nonlinearity {
    /// Changes values in place, on rayon's threads. NaN stays.
    pub(crate) fn apply(self, values: &mut [f32]) {
        if self != Self::Identity {
            values.par_chunks_mut(CHUNK).for_each(|values| dispatch(backend(), Apply { function: self, values }));
        }
    }

    /// Changes values in place, within a kernel.
    #[inline(always)]
    pub(super) fn apply_here(self, values: &mut [f32]) {
        match self {
            Self::Identity => {}
            Self::Relu => values.iter_mut().for_each(|v| *v = if *v < 0.0 { 0.0 } else { *v }),
            Self::Relu6 => values.iter_mut().for_each(|v| *v = v.clamp(0.0, 6.0)),
            Self::Silu => values.iter_mut().for_each(|v| *v *= sigmoid(*v)),
            Self::Gelu => values.iter_mut().for_each(|v| *v = gelu(*v)),
            Self::Sigmoid => values.iter_mut().for_each(|v| *v = sigmoid(*v)),
        }
    }
}

struct Apply<'a> {
    function: Nonlinearity,
    values: &'a mut [f32],
}

impl Work for Apply<'_> {
    #[inline(always)]
    fn run(self) {
        self.function.apply_here(self.values);
    }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let e = exp_of_negative(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

/// With erf by Abramowitz and Stegun, 7.1.26, whose error is at most 1.5e-7: below the rounding of the layers before.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let polynomial = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_7) * t - 0.284_496_74) * t + 0.254_829_6) * t;
    let tail = 0.5 * polynomial * exp_of_negative(-z * z);
    x * (if x < 0.0 { tail } else { 1.0 - tail })
}

/// eˣ of x ≤ 0, without branches so that loops of it are vectorised: 2ⁿ by its bits, and a polynomial for the rest.
/// NaN stays.
#[inline(always)]
pub(super) fn exp_of_negative(x: f32) -> f32 {
    /// 1.5 · 2²³: adding it rounds to a whole number.
    const ROUND: f32 = 12_582_912.0;
    let y = (if x < -87.0 { -87.0 } else { x }) * std::f32::consts::LOG2_E;
    let rounded = y + ROUND;
    let f = (y - (rounded - ROUND)) * std::f32::consts::LN_2;
    let tail = 1.0 / 6.0 + f * (1.0 / 24.0 + f * (1.0 / 120.0 + f * (1.0 / 720.0)));
    let p = 1.0 + f * (1.0 + f * (0.5 + f * tail));
    // The whole number n stands in the last bits; what is before them is shifted out. Of NaN, p is NaN.
    p * f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(function: Nonlinearity, x: f32) -> f32 {
        let mut values = vec![x; 3];
        function.apply(&mut values);
        values[2]
    }

    /// Values of scipy.special.erf: Φ(1) = 0.8413447461, Φ(−2) = 0.0227501319.
    #[test]
    fn by_hand() {
        let near = |a: f32, b: f32| assert!((a - b).abs() < 3e-7 * b.abs().max(1.0), "{a}, expected {b}");
        near(applied(Nonlinearity::Gelu, 1.0), 0.841_344_8);
        near(applied(Nonlinearity::Gelu, -2.0), -2.0 * 0.022_750_132);
        near(applied(Nonlinearity::Gelu, 12.0), 12.0);
        near(applied(Nonlinearity::Gelu, -12.0), 0.0);
        near(applied(Nonlinearity::Silu, 1.0), 0.731_058_6);
        near(applied(Nonlinearity::Silu, -3.0), -0.142_277_6);
        near(applied(Nonlinearity::Sigmoid, -200.0), 0.0);
        assert_eq!(applied(Nonlinearity::Sigmoid, 0.0), 0.5);
        assert_eq!([-1.0, 3.0, 9.0].map(|x| applied(Nonlinearity::Relu6, x)), [0.0, 3.0, 6.0]);
        assert_eq!([-1.0, 3.0].map(|x| applied(Nonlinearity::Relu, x)), [0.0, 3.0]);
        assert_eq!(applied(Nonlinearity::Identity, -7.0), -7.0);
    }

    #[test]
    fn the_exponential_is_right_to_its_last_bits() {
        for i in 0..870_i16 {
            let x = -f32::from(i) / 10.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp_of_negative(x)) - expected).abs() / expected;
            assert!(error < 2e-7 + 1e-7 * f64::from(-x), "{x}: {error}");
        }
        assert_eq!(exp_of_negative(0.0), 1.0);
    }

    #[test]
    fn not_a_number_stays() {
        use Nonlinearity::{Gelu, Identity, Relu, Relu6, Sigmoid, Silu};
        for function in [Identity, Relu, Relu6, Silu, Gelu, Sigmoid] {
            assert!(applied(function, f32::NAN).is_nan(), "{function:?}");
        }
    }
}
