//! A trained model applied to images: slices in, slices out, no graph.
//!
//! Norms are folded into the weights before them, `γ·(w·x − μ)/√(σ² + ε) + β = (w·γ/√(σ² + ε))·x + (β − μ·γ/√(σ² + ε))`,
//! and the weights are packed once, when the model is loaded.

use half::bf16;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::architecture::{Activation, Architecture, Direction, LayerSpec, Role, Tail, head_width, largest_activation};
use super::code::CodeMap;
use crate::calibrate::{Calibration, LatentStatistics};
use crate::checkpoint::{ModelFile, Tensors};
use crate::config::{Config, Cost};
use crate::error::{Error, Result};
use crate::kernels::{DownWeights, EPSILON, Epilogue, UpWeights, has_bf16};
use crate::objective::cost::CostFunction;

/// The most images that pass through the layers together: enough to fill every register tile.
const IMAGES: usize = 120;
/// The most values that a layer of them may have, unless one image alone has more: 256 MB.
const ACTIVATION: usize = 1 << 26;
/// Values a task where a precision is converted.
const CONVERTED: usize = 1 << 13;

/// What a model computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Values of 32 bits.
    #[default]
    F32,
    /// Values and weights of 16 bits between the first and the last layer, with sums in f32: on processors with AVX512_BF16,
    /// 1.5 to 2 times as fast on wide networks, with costs that change by about a hundredth.
    /// Calibration stays that of f32, so that p-values hold approximately. Elsewhere f32 is used.
    Bf16,
}

/// A trained model, ready to encode, decode and score.
///
/// It holds its weights packed for the machine it was loaded on, and computes on rayon's threads. An image's result is the
/// same bits whatever images stand beside it. Share it behind an [`std::sync::Arc`].
#[derive(Debug)]
pub struct Wae {
    config: Config,
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
    codes: CodeMap,
    cost: CostFunction,
    latent: Option<LatentStatistics>,
    calibration: Option<Calibration>,
}

#[derive(Debug)]
struct Layer {
    weights: Weights,
    shift: Vec<f32>,
    activation: Activation,
}

#[derive(Debug)]
enum Weights {
    Down(DownWeights),
    Up(UpWeights),
    DownBf16(DownWeights<bf16>),
    UpBf16(UpWeights<bf16>),
}

/// Activations between layers, (N, H, W, C).
enum Values {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Wae {
    /// Folds and packs the weights of a model file.
    ///
    /// # Errors
    /// [`Error::Model`] if the file lacks a tensor; a [`ModelFile`] that was read from bytes has all of them.
    pub fn try_new(file: &ModelFile) -> Result<Self> {
        Self::with_precision(file, Precision::F32)
    }

    /// As [`Self::try_new`], computing in the precision given. Where the processor has no instructions for bf16, f32 is used
    /// and the log says so.
    ///
    /// # Errors
    /// Those of [`Self::try_new`].
    pub fn with_precision(file: &ModelFile, precision: Precision) -> Result<Self> {
        let bf16 = precision == Precision::Bf16 && has_bf16();
        if precision == Precision::Bf16 && !bf16 {
            log::warn!("this processor has no AVX512_BF16: precision bf16 computes in f32");
        }
        let precision = if bf16 { Precision::Bf16 } else { Precision::F32 };
        let wae = Self::from_tensors(file.config().clone(), file.tensors(), precision)?;
        Ok(Self { latent: file.latent().cloned(), calibration: file.calibration().cloned(), ..wae })
    }

    pub(crate) fn from_tensors(config: Config, tensors: &Tensors, precision: Precision) -> Result<Self> {
        let architecture = Architecture::new(&config);
        let layers = |specs: &[LayerSpec]| {
            specs
                .iter()
                .map(|spec| Layer::try_new(spec, tensors, precision, config.image().channels()))
                .collect::<Result<_>>()
        };
        Ok(Self {
            encoder: layers(&architecture.encoder)?,
            decoder: layers(&architecture.decoder)?,
            codes: CodeMap::of(&config),
            cost: CostFunction::of(&config),
            config,
            latent: None,
            calibration: None,
        })
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the file says where the training codes lie.
    pub fn has_latent_statistics(&self) -> bool {
        self.latent.is_some()
    }

    /// The scores of the held-out rows, if the model has any.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// Latent codes of images: where the prior lives, and of a Gaussian encoder the mean.
    ///
    /// # Shapes
    /// (N, H, W, C), values in [0, 1] → (N, Z).
    ///
    /// # Errors
    /// [`Error::Data`] if the number of values is no multiple of H·W·C.
    pub fn encode(&self, images: &[f32]) -> Result<Vec<f32>> {
        Ok(self.codes.deterministic(self.encode_head(images)?))
    }

    /// What the encoder's head puts out: (N, H, W, C) → (N, Z), or (N, 2Z) of a Gaussian encoder.
    pub(crate) fn encode_head(&self, images: &[f32]) -> Result<Vec<f32>> {
        apply(&self.encoder, images_a_pass(&self.config), images, self.config.image().len(), head_width(&self.config))
    }

    /// Images of latent codes.
    ///
    /// # Shapes
    /// (N, Z) → (N, H, W, C), values in [0, 1].
    ///
    /// # Errors
    /// [`Error::Data`] if the number of values is no multiple of Z.
    pub fn decode(&self, codes: &[f32]) -> Result<Vec<f32>> {
        apply(&self.decoder, images_a_pass(&self.config), codes, self.config.latent_dim(), self.config.image().len())
    }

    /// The reconstruction cost c(x, y) of each image: for the squared cost, Σ over pixels and channels of (x − y)².
    ///
    /// # Shapes
    /// (N, H, W, C) twice → (N,).
    ///
    /// # Errors
    /// [`Error::Data`] if the two differ in length or are no whole number of images.
    pub fn costs(&self, images: &[f32], reconstructions: &[f32]) -> Result<Vec<f32>> {
        self.of_pairs(images, reconstructions, |x, y| self.cost.value(x, y) as f32)
    }

    /// How unlike its reconstruction each image is, [`Score::AnomalyScore`](crate::calibrate::Score) before it is scaled: the
    /// structural cost Σ (x − y)² + ½ DSSIM, whichever cost the model was trained with.
    ///
    /// # Shapes
    /// (N, H, W, C) twice → (N,).
    ///
    /// # Errors
    /// Those of [`Self::costs`].
    pub fn anomalies(&self, images: &[f32], reconstructions: &[f32]) -> Result<Vec<f32>> {
        let structural = CostFunction::new(Cost::Structural, self.config.image());
        self.of_pairs(images, reconstructions, |x, y| structural.value(x, y) as f32)
    }

    /// What each pixel adds to the reconstruction cost, summed over channels; of l2, to its square.
    ///
    /// # Shapes
    /// (N, H, W, C) twice → (N, H, W).
    ///
    /// # Errors
    /// Those of [`Self::costs`].
    pub fn anomaly_maps(&self, images: &[f32], reconstructions: &[f32]) -> Result<Vec<f32>> {
        let channels = self.config.image().channels();
        let map = |x: &[f32], y: &[f32]| -> Vec<f32> {
            self.cost.terms(x, y).chunks_exact(channels).map(|terms| terms.iter().sum()).collect()
        };
        Ok(self.of_pairs(images, reconstructions, map)?.concat())
    }

    /// How far each code is from the training codes, if the file says where they lie.
    ///
    /// # Shapes
    /// (N, Z) → (N,).
    pub fn latent_distances(&self, codes: &[f32]) -> Option<Vec<f32>> {
        self.latent.as_ref().map(|latent| latent.distances(codes))
    }

    /// A value of each image and its reconstruction.
    fn of_pairs<T: Send>(
        &self,
        images: &[f32],
        reconstructions: &[f32],
        value: impl Fn(&[f32], &[f32]) -> T + Sync,
    ) -> Result<Vec<T>> {
        let len = self.config.image().len();
        if images.len() != reconstructions.len() || !images.len().is_multiple_of(len) {
            return Err(Error::Data(format!(
                "{} and {} values are not two equal numbers of images of {len} values",
                images.len(),
                reconstructions.len()
            )));
        }
        let pairs = images.par_chunks(len).zip(reconstructions.par_chunks(len));
        Ok(pairs.map(|(x, y)| value(x, y)).collect())
    }

    /// Bytes of memory that the packed weights hold.
    pub fn memory(&self) -> usize {
        let weights = |layer: &Layer| match &layer.weights {
            Weights::Down(weights) => weights.memory(),
            Weights::Up(weights) => weights.memory(),
            Weights::DownBf16(weights) => weights.memory(),
            Weights::UpBf16(weights) => weights.memory(),
        };
        self.encoder.iter().chain(&self.decoder).map(weights).sum()
    }
}

/// Images that pass through the layers together.
pub(super) fn images_a_pass(config: &Config) -> usize {
    (ACTIVATION / largest_activation(config).max(1)).clamp(1, IMAGES)
}

fn apply(layers: &[Layer], images: usize, input: &[f32], input_len: usize, output_len: usize) -> Result<Vec<f32>> {
    if !input.len().is_multiple_of(input_len) {
        return Err(Error::Data(format!("{} values are no multiple of the {input_len} that a row has", input.len())));
    }
    let mut output = Vec::with_capacity(input.len() / input_len * output_len);
    for rows in input.chunks(images * input_len) {
        let mut values = Values::F32(rows.to_vec());
        for layer in layers {
            values = layer.apply(values);
        }
        output.extend(values.into_f32());
    }
    Ok(output)
}

impl Layer {
    fn try_new(spec: &LayerSpec, tensors: &Tensors, precision: Precision, image_channels: usize) -> Result<Self> {
        let tensor = |wanted: Role| -> Result<Vec<f32>> {
            let found = spec.tensors().into_iter().find(|(role, ..)| *role == wanted);
            let (_, name, _) = found.ok_or_else(|| Error::Model(format!("{} has no {wanted:?}", spec.name)))?;
            let tensor = tensors.get(&name).ok_or_else(|| Error::Model(format!("tensor '{name}' is missing")))?;
            Ok(spec.read_layout(wanted, &tensor.values))
        };
        let (scale, shift, activation) = match spec.tail {
            Tail::Bias(activation) => (None, tensor(Role::Bias)?, activation),
            Tail::Norm => {
                let (mean, variance) = (tensor(Role::RunningMean)?, tensor(Role::RunningVariance)?);
                let (gamma, beta) = (tensor(Role::Gamma)?, tensor(Role::Beta)?);
                let deviation = |v: f32| (f64::from(v) + EPSILON).sqrt();
                let scale: Vec<f32> =
                    gamma.iter().zip(&variance).map(|(g, v)| (f64::from(*g) / deviation(*v)) as f32).collect();
                let shift = (0..beta.len()).map(|c| beta[c] - mean[c] * scale[c]).collect();
                (Some(scale), shift, Activation::Relu)
            }
        };
        let (g, scale) = (spec.geometry, scale.as_deref());
        let weights = tensor(Role::Weight)?;
        let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
        let largest = weights.iter().fold(0.0_f32, |m, w| m.max(w.abs()));
        // An infinite weight times a zero of the padding would be NaN in some tiles and left out in others.
        if !finite(&shift) || !scale.unwrap_or_default().iter().all(|s| (s * largest).is_finite()) {
            return Err(Error::Model(format!("the norm of {} does not fit into 32 bits", spec.name)));
        }
        // Latent codes, pixels and the logits of pixels are worth 32 bits: linear layers, the first and the last.
        let narrow = precision == Precision::Bf16 && spec.tail == Tail::Norm && g.large_channels != image_channels;
        let weights = match spec.direction {
            Direction::Down => match narrow.then(|| DownWeights::new_bf16(g, &weights, scale)).flatten() {
                Some(packed) => Weights::DownBf16(packed),
                None => Weights::Down(DownWeights::new(g, &weights, scale)),
            },
            Direction::Up => match narrow.then(|| UpWeights::new_bf16(g, &weights, scale)).flatten() {
                Some(packed) => Weights::UpBf16(packed),
                None => Weights::Up(UpWeights::new(g, &weights, scale)),
            },
        };
        Ok(Self { weights, shift, activation })
    }

    fn apply(&self, input: Values) -> Values {
        let epilogue = Epilogue { shift: Some(&self.shift), relu: self.activation == Activation::Relu };
        let mut output = match &self.weights {
            Weights::Down(weights) => Values::F32(weights.apply(&input.into_f32(), epilogue)),
            Weights::Up(weights) => Values::F32(weights.apply(&input.into_f32(), epilogue)),
            Weights::DownBf16(weights) => Values::Bf16(weights.apply(&input.into_bf16(), epilogue)),
            Weights::UpBf16(weights) => Values::Bf16(weights.apply(&input.into_bf16(), epilogue)),
        };
        if self.activation == Activation::Sigmoid {
            let mut values = output.into_f32();
            crate::kernels::sigmoid(&mut values);
            output = Values::F32(values);
        }
        output
    }
}

impl Values {
    fn into_f32(self) -> Vec<f32> {
        match self {
            Self::F32(values) => values,
            Self::Bf16(values) => values.par_iter().with_min_len(CONVERTED).map(|v| v.to_f32()).collect(),
        }
    }

    fn into_bf16(self) -> Vec<bf16> {
        match self {
            Self::F32(values) => values.par_iter().with_min_len(CONVERTED).map(|v| bf16::from_f32(*v)).collect(),
            Self::Bf16(values) => values,
        }
    }
}
