//! Application of a trained model to images, from slices to slices, without a graph.
//!
//! Norms are folded into the weights before them, and the weights are packed, or sent to a GPU, once, when the model is
//! loaded.

mod features;
mod passes;

use std::sync::Once;

use rayon::prelude::*;

use self::features::Share;
use self::passes::apply;
pub(super) use self::passes::images_a_pass;
use self::passes::images_on_a_gpu;
use super::code::CodeMap;
use super::folded::Folded;
use super::packed::{PackedLayer, pass};
use super::scorer::Scorer;
use crate::architecture::{Architecture, LayerSpec, head_width};
use crate::backbone::FeatureExtractor;
use crate::calibrate::{AnomalyFields, AnomalyStatistics, Calibration, Covariance, LatentStatistics, Scale};
use crate::checkpoint::{ModelFile, Tensors};
use crate::config::{Config, Cost};
use crate::device::{Device, Precision};
use crate::error::{Error, Result};
use crate::image::PixelSlice;
use crate::kernels::has_bf16;
use crate::objective::cost::CostFunction;
use crate::ops::Target;
use crate::whitening::Whitening;

/// A trained model, ready to encode, decode and score.
///
/// It holds its weights packed for the machine it was loaded on, and computes on rayon's threads, or it holds them on a
/// GPU. On the processor, an image's result is the same bits whatever images stand beside it. Share it behind an
/// [`std::sync::Arc`].
#[derive(Debug)]
pub struct Wae {
    config: Config,
    engine: Engine,
    codes: CodeMap,
    cost: CostFunction,
    latent: Option<LatentStatistics>,
    anomaly: Option<AnomalyStatistics>,
    scale: Option<Scale>,
    calibration: Option<Calibration>,
    whitening: Option<Whitening>,
    extractor: Option<FeatureExtractor>,
}

/// The weights in the form in which they are applied.
#[derive(Debug)]
enum Engine {
    /// Packed for the CPU's kernels, which read and write slices.
    Packed { encoder: Vec<PackedLayer>, decoder: Vec<PackedLayer> },
    /// Tensors on a device.
    Tensors(Scorer),
}

impl Wae {
    /// Folds the norms of a model file into its weights, and packs these for the processor or uploads them to a GPU.
    ///
    /// A processor without instructions for bf16 computes in f32, and the log says so once a process. Threads that
    /// score with the model on a GPU share its weights and its stream; the GPU's memory is freed with the model, and
    /// given back to the driver then.
    ///
    /// # Errors
    /// [`Error::Device`] if the device cannot be opened; [`Error::Model`] if the weights do not fit into 32 bits once
    /// the norms are folded in, or if the file lacks a tensor, which none does that was read from bytes.
    pub fn try_new(file: &ModelFile, device: Device, precision: Precision) -> Result<Self> {
        let target = Target::open(device, precision)?;
        let wae = Self::from_tensors_in(file.config().clone(), file.tensors(), &target, precision)?;
        Ok(Self {
            latent: file.latent().cloned(),
            anomaly: file.anomaly().cloned(),
            scale: file.anomaly_scale(),
            calibration: file.calibration().cloned(),
            whitening: file.whitening().cloned(),
            extractor: file.backbone().extractor(file.config(), device)?,
            ..wae
        })
    }

    /// A model in the precision of a training's target: f32 on the CPU.
    pub(crate) fn from_tensors(config: Config, tensors: &Tensors, target: &Target) -> Result<Self> {
        Self::from_tensors_in(config, tensors, target, target.precision())
    }

    fn from_tensors_in(config: Config, tensors: &Tensors, target: &Target, precision: Precision) -> Result<Self> {
        let architecture = Architecture::new(&config);
        let engine = if target.has_kernels() {
            let precision = cpu_precision(precision);
            let layers = |specs: &[LayerSpec]| -> Result<Vec<PackedLayer>> {
                let folded = folded(specs, tensors, precision, &config)?;
                Ok(folded.into_iter().map(|(layer, precision)| PackedLayer::new(&layer, precision)).collect())
            };
            Engine::Packed { encoder: layers(&architecture.encoder)?, decoder: layers(&architecture.decoder)? }
        } else {
            let encoder = folded(&architecture.encoder, tensors, target.precision(), &config)?;
            let decoder = folded(&architecture.decoder, tensors, target.precision(), &config)?;
            Engine::Tensors(Scorer::try_new(target, &encoder, &decoder)?)
        };
        Ok(Self::new(config, engine))
    }

    fn new(config: Config, engine: Engine) -> Self {
        Self {
            engine,
            codes: CodeMap::of(&config),
            cost: CostFunction::of(&config),
            config,
            latent: None,
            anomaly: None,
            scale: None,
            calibration: None,
            whitening: None,
            extractor: None,
        }
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the model has statistics of the training codes.
    pub fn has_latent_statistics(&self) -> bool {
        self.latent.is_some()
    }

    /// The whitening of features, which comes before [`Self::encode`] and is undone after [`Self::decode`]; none of a
    /// model of images.
    pub fn whitening(&self) -> Option<&Whitening> {
        self.whitening.as_ref()
    }

    /// The scores of the held-out rows, if the model has any.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// Latent codes of images, on the prior's support; the mean for a Gaussian encoder.
    ///
    /// Images are slices or vectors: of floats in [0, 1], or of bytes, 0..=255, each of which gives the bits of the
    /// float v / 255. Bytes go to a GPU as bytes. Features are whitened before ([`Self::whitening`]), and of a model
    /// with a pretrained network, images become whitened features ([`Self::whitened_features`]).
    ///
    /// # Shapes
    /// (N, H, W, C) → (N, Z).
    ///
    /// # Errors
    /// [`Error::Data`] if the number of values is no multiple of H·W·C.
    pub fn encode<'a>(&self, images: impl Into<PixelSlice<'a>>) -> Result<Vec<f32>> {
        self.codes.deterministic(self.encode_head(images)?)
    }

    /// The output of the encoder's head: (N, H, W, C) → (N, Z), or (N, 2Z) of a Gaussian encoder.
    pub(crate) fn encode_head<'a>(&self, images: impl Into<PixelSlice<'a>>) -> Result<Vec<f32>> {
        let images = images.into();
        let lengths = (self.config.image().len(), head_width(&self.config));
        match &self.engine {
            Engine::Packed { encoder, .. } => apply(images.len(), images_a_pass(&self.config), lengths, |range| {
                Ok(pass(encoder, images.range(range).to_f32().into_owned()))
            }),
            Engine::Tensors(scorer) => {
                apply(images.len(), images_on_a_gpu(&self.config), lengths, |range| scorer.encode(images.range(range)))
            }
        }
    }

    /// Images of latent codes.
    ///
    /// # Shapes
    /// (N, Z) → (N, H, W, C), values in [0, 1]; of features, whitened values of any range.
    ///
    /// # Errors
    /// [`Error::Data`] if the number of values is no multiple of Z.
    pub fn decode(&self, codes: &[f32]) -> Result<Vec<f32>> {
        let lengths = (self.config.latent_dim(), self.config.image().len());
        match &self.engine {
            Engine::Packed { decoder, .. } => apply(codes.len(), images_a_pass(&self.config), lengths, |range| {
                Ok(pass(decoder, codes[range].to_vec()))
            }),
            Engine::Tensors(scorer) => {
                apply(codes.len(), images_on_a_gpu(&self.config), lengths, |range| scorer.decode(&codes[range]))
            }
        }
    }

    /// The reconstruction cost c(x, y) of each image: for the squared cost, Σ over pixels and channels of (x − y)².
    /// Images are as in [`Self::encode`].
    ///
    /// # Shapes
    /// (N, H, W, C) twice → (N,).
    ///
    /// # Errors
    /// [`Error::Data`] if the two differ in length or are no whole number of images.
    pub fn costs<'a>(&self, images: impl Into<PixelSlice<'a>>, reconstructions: &[f32]) -> Result<Vec<f32>> {
        self.costs_by(&self.cost, images.into(), reconstructions)
    }

    /// The anomaly score of each image before it is scaled, as p-values rank it: the largest value of
    /// [`Self::anomaly_fields`]. Of a model without such a map, of format `wae/1`, the structural cost
    /// Σ (x − y)² + ½ DSSIM.
    ///
    /// # Shapes
    /// (N, H, W, C) twice → (N,).
    ///
    /// # Errors
    /// Those of [`Self::costs`].
    pub fn anomalies<'a>(&self, images: impl Into<PixelSlice<'a>>, reconstructions: &[f32]) -> Result<Vec<f32>> {
        let images = images.into();
        match &self.anomaly {
            Some(anomaly) => {
                let terms = self.anomaly_terms(anomaly.covariance(), images, reconstructions)?;
                Ok(terms.par_chunks_exact(self.places()).map(|terms| anomaly.largest(terms)).collect())
            }
            None => self.costs_by(&self.structural(), images, reconstructions),
        }
    }

    /// The anomaly map of each image before it is scaled, f in [`AnomalyStatistics`]. Empty of a model without such a
    /// map.
    ///
    /// The map of a model with a pretrained network has the size of images as that sees them
    /// ([`Config::map_size`]): each place's value is repeated over its pixels, so that the maximum stays.
    ///
    /// # Shapes
    /// (N, H, W, C) twice → (N, H, W).
    ///
    /// # Errors
    /// Those of [`Self::costs`].
    pub fn anomaly_fields<'a>(
        &self,
        images: impl Into<PixelSlice<'a>>,
        reconstructions: &[f32],
    ) -> Result<AnomalyFields> {
        let Some(anomaly) = &self.anomaly else { return Ok(AnomalyFields::default()) };
        let terms = self.anomaly_terms(anomaly.covariance(), images.into(), reconstructions)?;
        let fields: Vec<_> = terms.par_chunks_exact(self.places()).map(|terms| anomaly.field(terms)).collect();
        let fields = AnomalyFields::of(fields);
        Ok(AnomalyFields { values: self.at_map_size(fields.values, Share::Repeated), ..fields })
    }

    /// The scale of reported anomaly scores and maps. `None` of a model of format `wae/1` without held-out rows.
    pub fn anomaly_scale(&self) -> Option<Scale> {
        self.scale
    }

    /// Whether the model has an anomaly map.
    pub fn has_anomaly_map(&self) -> bool {
        self.anomaly.is_some()
    }

    /// The model with the statistics of its anomaly map.
    pub(crate) fn with_anomaly(self, anomaly: AnomalyStatistics) -> Self {
        Self { anomaly: Some(anomaly), ..self }
    }

    /// The term t of each place in the anomaly map: of images Σ_c r² + ½ DSSIM, of features, whose residuals have a
    /// covariance, |L⁻¹ r|².
    ///
    /// # Shapes
    /// (N, H, W, C) twice → (N, H, W).
    pub(crate) fn anomaly_terms(
        &self,
        covariance: Option<&Covariance>,
        images: PixelSlice<'_>,
        reconstructions: &[f32],
    ) -> Result<Vec<f32>> {
        match covariance {
            Some(covariance) => {
                let terms = |x: &[f32], y: &[f32]| covariance.terms(x, y);
                Ok(self.of_pairs(images, reconstructions, terms)?.concat())
            }
            None => self.maps_by(&self.structural(), images, reconstructions),
        }
    }

    /// The number of places of a map.
    fn places(&self) -> usize {
        self.config.image().height() * self.config.image().width()
    }

    fn structural(&self) -> CostFunction {
        CostFunction::new(Cost::Structural, self.config.image())
    }

    /// The term of each pixel in the reconstruction cost, summed over channels; for l2, in its square. Of a model with
    /// a pretrained network, the map has the size of images as that sees them, and each place's term is shared evenly
    /// among its pixels, so that the sum stays.
    ///
    /// # Shapes
    /// (N, H, W, C) twice → (N, H, W).
    ///
    /// # Errors
    /// Those of [`Self::costs`].
    pub fn cost_maps<'a>(&self, images: impl Into<PixelSlice<'a>>, reconstructions: &[f32]) -> Result<Vec<f32>> {
        Ok(self.at_map_size(self.maps_by(&self.cost, images.into(), reconstructions)?, Share::Divided))
    }

    /// The term of each pixel in a cost, summed over channels.
    fn maps_by(&self, cost: &CostFunction, images: PixelSlice<'_>, reconstructions: &[f32]) -> Result<Vec<f32>> {
        let shape = self.config.image();
        match &self.engine {
            Engine::Packed { .. } => {
                let map = |x: &[f32], y: &[f32]| -> Vec<f32> {
                    cost.terms(x, y).chunks_exact(shape.channels()).map(|terms| terms.iter().sum()).collect()
                };
                Ok(self.of_pairs(images, reconstructions, map)?.concat())
            }
            Engine::Tensors(scorer) => {
                let lengths = (shape.len(), self.places());
                self.check_pairs(images, reconstructions)?;
                apply(images.len(), images_on_a_gpu(&self.config), lengths, |range| {
                    scorer.maps(cost, shape, images.range(range.clone()), &reconstructions[range])
                })
            }
        }
    }

    /// The Mahalanobis distance of each code from the training codes, if the model has their statistics.
    ///
    /// # Shapes
    /// (N, Z) → (N,).
    pub fn latent_distances(&self, codes: &[f32]) -> Option<Vec<f32>> {
        self.latent.as_ref().map(|latent| latent.distances(codes))
    }

    /// A cost of each image and its reconstruction.
    fn costs_by(&self, cost: &CostFunction, images: PixelSlice<'_>, reconstructions: &[f32]) -> Result<Vec<f32>> {
        match &self.engine {
            Engine::Packed { .. } => self.of_pairs(images, reconstructions, |x, y| cost.value(x, y) as f32),
            Engine::Tensors(scorer) => {
                self.check_pairs(images, reconstructions)?;
                let shape = self.config.image();
                apply(images.len(), images_on_a_gpu(&self.config), (shape.len(), 1), |range| {
                    scorer.costs(cost, shape, images.range(range.clone()), &reconstructions[range])
                })
            }
        }
    }

    /// A value of each image and its reconstruction, in memory.
    fn of_pairs<T: Send>(
        &self,
        images: PixelSlice<'_>,
        reconstructions: &[f32],
        value: impl Fn(&[f32], &[f32]) -> T + Sync,
    ) -> Result<Vec<T>> {
        self.check_pairs(images, reconstructions)?;
        let len = self.config.image().len();
        let pairs = reconstructions.par_chunks(len).enumerate();
        Ok(pairs.map(|(i, y)| value(&images.range(i * len..(i + 1) * len).to_f32(), y)).collect())
    }

    /// Refuses images and reconstructions that are not equal numbers of whole images.
    fn check_pairs(&self, images: PixelSlice<'_>, reconstructions: &[f32]) -> Result<()> {
        let len = self.config.image().len();
        if images.len() == reconstructions.len() && images.len().is_multiple_of(len) {
            return Ok(());
        }
        Err(Error::Data(format!(
            "{} and {} values are not two equal numbers of images of {len} values",
            images.len(),
            reconstructions.len()
        )))
    }

    /// Bytes of memory that the weights hold, in the machine or on the GPU; those of a pretrained network too.
    pub fn memory(&self) -> usize {
        let network = self.extractor.as_ref().map_or(0, |extractor| extractor.backbone().memory());
        network
            + match &self.engine {
                Engine::Packed { encoder, decoder } => encoder.iter().chain(decoder).map(PackedLayer::memory).sum(),
                Engine::Tensors(scorer) => scorer.memory(),
            }
    }
}

/// The precision, or f32 where the processor lacks it. The log says so once a process, and not once a model.
fn cpu_precision(precision: Precision) -> Precision {
    static SAID: Once = Once::new();
    if precision == Precision::Bf16 && !has_bf16() {
        SAID.call_once(|| {
            log::warn!(
                "precision bf16 computes in f32: this processor has no AVX512_BF16, or WAE_KERNELS names other instructions"
            );
        });
        return Precision::F32;
    }
    precision
}

/// Layers with their norms folded in, each with its precision.
fn folded(
    specs: &[LayerSpec],
    tensors: &Tensors,
    precision: Precision,
    config: &Config,
) -> Result<Vec<(Folded, Precision)>> {
    let channels = config.image().channels();
    specs.iter().map(|spec| Ok((Folded::try_new(spec, tensors)?, spec.precision(precision, channels)))).collect()
}

#[cfg(test)]
mod tests;
