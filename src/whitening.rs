//! Whitening of features: what the network sees of them is uncorrelated, centred, and of one scale.
//!
//! ```text
//! w_j = ⟨p_j, x − μ⟩ / σ_j,   j = 1..k;      x ≈ μ + Σ_j σ_j w_j p_j
//! ```
//!
//! Where: x are the C channels of a place (a vector is one place), μ their mean over all places of the training rows,
//! p_j the j-th principal direction of their covariance, and σ_j the deviation along it, the root of its eigenvalue.
//! The covariance is divided by the number of places less one. Directions are orthonormal, and the sign of each makes
//! its largest entry positive. Channels that do not vary have no part in any direction.
//!
//! Held-out rows have no part in the statistics.

mod principal;

use std::sync::Arc;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use self::principal::principal_directions;
use crate::config::AUTO_COMPONENTS;
use crate::error::{Error, Result};
use crate::kernels::{DownWeights, Epilogue, Geometry};

/// The least deviation along a direction that counts as varying, beside that of the first: below are rounding errors of
/// values of 32 bits.
const VARYING: f64 = 1e-6;
/// The most channels that a message names.
const NAMED: usize = 8;
/// Values that a task centres.
const CENTRED: usize = 1 << 14;

/// Mean, principal directions and deviations of the channels of features.
///
/// # Example
/// ```
/// use wae_core::Whitening;
///
/// // One direction of two channels, (3, 4)/5, with deviation 2.
/// let whitening = Whitening::try_new(vec![1.0, 1.0], vec![0.6, 0.8], vec![2.0])?;
/// let whitened = whitening.apply(&[4.0, 5.0, 1.0, 1.0]);
/// assert!((whitened[0] - 2.5).abs() < 1e-6 && whitened[1] == 0.0);
/// assert!((whitening.undo(&whitened)[1] - 5.0).abs() < 1e-6);
/// # Ok::<(), wae_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Whitening {
    /// μ, (C,).
    mean: Vec<f32>,
    /// The directions as columns, (C, k).
    projection: Vec<f32>,
    /// σ, (k,).
    deviation: Vec<f32>,
    forward: Arc<DownWeights>,
    backward: Arc<DownWeights>,
}

impl PartialEq for Whitening {
    fn eq(&self, other: &Self) -> bool {
        self.mean == other.mean && self.projection == other.projection && self.deviation == other.deviation
    }
}

impl Whitening {
    /// A whitening of `mean`, (C,), `projection`, (C, k), and `deviation`, (k,).
    ///
    /// # Errors
    /// [`Error::Model`] if the lengths do not fit each other, or if a value is not finite; or if a deviation is not
    /// positive, or so small or large that features would not fit into 32 bits.
    pub fn try_new(mean: Vec<f32>, projection: Vec<f32>, deviation: Vec<f32>) -> Result<Self> {
        let channels = mean.len();
        let components = deviation.len();
        if channels == 0 || components == 0 || projection.len() != channels * components {
            return Err(Error::Model(format!(
                "a whitening of {channels} channels to {components} components has {} values in its projection",
                projection.len()
            )));
        }
        if let Some(deviation) = deviation.iter().find(|d| !(d.is_finite() && **d > 0.0)) {
            return Err(Error::Model(format!("a deviation of features is {deviation}, expected numbers above 0")));
        }
        let forward: Vec<f32> = projection.iter().zip(deviation.iter().cycle()).map(|(p, d)| p / d).collect();
        let back = |i: usize| projection[i % channels * components + i / channels] * deviation[i / channels];
        let backward: Vec<f32> = (0..projection.len()).map(back).collect(); // (k, C)
        if !mean.iter().chain(&forward).chain(&backward).all(|v| v.is_finite()) {
            return Err(Error::Model("the whitening of features does not fit into 32 bits".to_owned()));
        }
        let pack = |inputs, outputs, weights: &[f32]| {
            Arc::new(DownWeights::new(Geometry::linear(inputs, outputs), weights, None))
        };
        Ok(Self {
            forward: pack(channels, components, &forward),
            backward: pack(components, channels, &backward),
            mean,
            projection,
            deviation,
        })
    }

    /// The whitening of rows of features to so many components; where the number is left open, to 100, or fewer if the
    /// channels are fewer or vary less. `blocks` gives all values twice, whole places at a time.
    ///
    /// # Shapes
    /// Each block is (places, C).
    ///
    /// # Errors
    /// Those of a block; [`Error::Data`] if no channel varies, or in fewer directions than the components asked for.
    pub(crate) fn fit<I>(channels: usize, components: Option<usize>, blocks: impl Fn() -> I) -> Result<Self>
    where
        I: Iterator<Item = Result<Vec<f32>>>,
    {
        let statistics = ChannelStatistics::of(channels, blocks())?;
        statistics.log_constant();
        if statistics.varying == 0 {
            return Err(Error::Data(format!(
                "none of the {channels} channels of the features varies among the training rows, expected at least one"
            )));
        }
        let scatter = statistics.scatter(blocks())?;
        let most = components.unwrap_or(AUTO_COMPONENTS).min(statistics.varying);
        // One more than asked for shows nothing: directions that do not vary are counted among those found.
        let directions = principal_directions(&scatter, channels, most)?;
        let places = (statistics.places as f64 - 1.0).max(1.0);
        let deviations: Vec<f64> = directions.variances.iter().map(|v| (v.max(0.0) / places).sqrt()).collect();
        let first = deviations.first().copied().unwrap_or(0.0);
        let varying = deviations.iter().take_while(|d| **d > VARYING * first).count();
        if let Some(asked) = components.filter(|asked| *asked > varying) {
            return Err(Error::Data(format!(
                "components is {asked}, and the training rows vary in {varying} directions, expected at most {varying}"
            )));
        }
        statistics.log_faint(&scatter, VARYING * first * places.sqrt());
        let projection = (0..channels).flat_map(|c| (0..varying).map(move |j| (j, c)));
        let projection = projection.map(|(j, c)| directions.vectors[j * channels + c] as f32).collect();
        let mean = statistics.means.iter().map(|mean| *mean as f32).collect();
        let deviation = deviations[..varying].iter().map(|d| *d as f32).collect();
        Self::try_new(mean, projection, deviation).map_err(|e| Error::Data(e.to_string()))
    }

    /// C, the number of channels.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// k, the number of components.
    pub fn components(&self) -> usize {
        self.deviation.len()
    }

    /// μ, (C,).
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The directions as columns, (C, k).
    pub fn projection(&self) -> &[f32] {
        &self.projection
    }

    /// σ, (k,).
    pub fn deviation(&self) -> &[f32] {
        &self.deviation
    }

    /// Whitens features. A row's result is the same bits whatever rows stand beside it.
    ///
    /// # Shapes
    /// (N, H, W, C) → (N, H, W, k).
    pub fn apply(&self, raw: &[f32]) -> Vec<f32> {
        let mut centred = raw.to_vec();
        let places = (CENTRED / self.channels()).max(1) * self.channels();
        centred.par_chunks_mut(places).for_each(|values| {
            values.iter_mut().zip(self.mean.iter().cycle()).for_each(|(value, mean)| *value -= mean);
        });
        self.forward.apply(&centred, Epilogue::default())
    }

    /// The features that whitened values stand for, in the units that they came in.
    ///
    /// # Shapes
    /// (N, H, W, k) → (N, H, W, C).
    pub fn undo(&self, whitened: &[f32]) -> Vec<f32> {
        self.backward.apply(whitened, Epilogue { shift: Some(&self.mean), ..Epilogue::default() })
    }
}

/// The means of channels, and which of them vary.
struct ChannelStatistics {
    places: u64,
    means: Vec<f64>,
    constant: Vec<bool>,
    /// Channels that vary.
    varying: usize,
}

impl ChannelStatistics {
    fn of(channels: usize, blocks: impl Iterator<Item = Result<Vec<f32>>>) -> Result<Self> {
        let mut places = 0;
        let mut sums = vec![0.0; channels];
        let mut ends = vec![(f32::INFINITY, f32::NEG_INFINITY); channels];
        for block in blocks {
            for place in block?.chunks_exact(channels) {
                places += 1;
                for ((sum, (least, most)), value) in sums.iter_mut().zip(&mut ends).zip(place) {
                    *sum += f64::from(*value);
                    (*least, *most) = (least.min(*value), most.max(*value));
                }
            }
        }
        let constant: Vec<bool> = ends.iter().map(|(least, most)| least >= most).collect();
        // Of a constant channel the mean is its value, without the rounding of a sum.
        let mean = |((sum, (least, _)), constant): ((&f64, &(f32, f32)), &bool)| match constant {
            true if least.is_finite() => f64::from(*least),
            _ => sum / f64::max(places as f64, 1.0),
        };
        let means = sums.iter().zip(&ends).zip(&constant).map(mean).collect();
        let varying = constant.iter().filter(|constant| !**constant).count();
        Ok(Self { places, means, constant, varying })
    }

    /// Σ (x − μ)(x − μ)ᵀ over all places, (C, C).
    fn scatter(&self, blocks: impl Iterator<Item = Result<Vec<f32>>>) -> Result<Vec<f64>> {
        let channels = self.means.len();
        let mut scatter = vec![0.0; channels * channels];
        for block in blocks {
            let block = block?;
            let centred: Vec<f64> =
                block.iter().zip(self.means.iter().cycle()).map(|(value, mean)| f64::from(*value) - mean).collect();
            let centred = Tensor::from_vec(centred, ((), channels), &Device::Cpu)?;
            let products: Vec<f64> = centred.t()?.matmul(&centred)?.flatten_all()?.to_vec1()?;
            scatter.par_iter_mut().zip(products).with_min_len(CENTRED).for_each(|(sum, product)| *sum += product);
        }
        Ok(scatter)
    }

    fn log_constant(&self) {
        if self.varying < self.constant.len() {
            log::warn!("{} have one value in all training rows, and no part in the model", named(&self.constant));
        }
    }

    /// Says which channels vary, and so little beside the others that no direction has them.
    fn log_faint(&self, scatter: &[f64], least: f64) {
        let variances = scatter.iter().step_by(self.constant.len() + 1);
        let faint: Vec<bool> = variances.zip(&self.constant).map(|(v, c)| !c && v.max(0.0).sqrt() <= least).collect();
        if faint.contains(&true) {
            log::warn!(
                "{} vary so little beside the others that they have no part in the model: bring the channels to one scale",
                named(&faint)
            );
        }
    }
}

/// Channels by number, a few of them.
fn named(channels: &[bool]) -> String {
    let numbers: Vec<String> = (0..channels.len()).filter(|c| channels[*c]).map(|c| c.to_string()).collect();
    let more = if numbers.len() > NAMED { ", ..." } else { "" };
    let first = numbers.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    format!("{} of {} channels of the features ({first}{more}, counted from 0)", numbers.len(), channels.len())
}

#[cfg(test)]
mod tests;
