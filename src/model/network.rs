//! The auto-encoder in training, and the discriminator of WAE-GAN: chains of layers with one optimiser each.

mod adversary;
mod discriminator;
mod optimizer;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use self::adversary::Adversary;
use super::layer::{self, TrainingLayer};
use crate::architecture::{Architecture, Direction, LayerSpec, Role};
use crate::checkpoint::{TensorData, Tensors};
use crate::config::{Config, Initialisation};
use crate::error::{Error, Result};
use crate::image::ImageShape;
use crate::kernels::AdamStep;
use crate::objective::adversary as losses;
use crate::ops::{Target, Tensor};

/// The standard deviation of the authors' initial weights (`configs.py`, `init_std`).
const INITIAL_DEVIATION: f64 = 0.009_999_9;

/// Encoder, decoder and discriminator with their gradients.
#[derive(Debug)]
pub(crate) struct TrainingNetwork {
    encoder: Vec<TrainingLayer>,
    decoder: Vec<TrainingLayer>,
    /// The shape of an image.
    image: ImageShape,
    /// The discriminator, where the objective has one.
    adversary: Option<Adversary>,
    steps: u64,
    adversary_steps: u64,
    target: Target,
}

impl TrainingNetwork {
    /// Layers with initial weights: norms begin with 1 and 0.
    pub(crate) fn initialise(
        config: &Config,
        target: &Target,
        initialisation: Initialisation,
        generator: &mut ChaCha8Rng,
    ) -> Result<Self> {
        Self::build(config, target, |spec, role, shape| {
            let len = shape.iter().product();
            Ok(match (role, initialisation) {
                (Role::Weight | Role::Bias, Initialisation::PyTorch) => {
                    let bound = 1.0 / (spec.fan_in() as f32).sqrt();
                    (0..len).map(|_| generator.random_range(-bound..bound)).collect()
                }
                (Role::Weight, Initialisation::Normal) => {
                    let truncated = !spec.is_linear() && spec.direction == Direction::Down;
                    let limit = if truncated { 2.0 } else { f64::INFINITY };
                    (0..len).map(|_| (INITIAL_DEVIATION * truncated_normal(limit, generator)) as f32).collect()
                }
                (Role::Gamma | Role::RunningVariance, _) => vec![1.0; len],
                (Role::Bias | Role::Beta | Role::RunningMean, _) => vec![0.0; len],
            })
        })
    }

    /// Layers with the tensors of a model file.
    pub(crate) fn from_tensors(config: &Config, target: &Target, tensors: &Tensors) -> Result<Self> {
        Self::build(config, target, |spec, role, _| {
            let name =
                spec.tensors().into_iter().find(|(r, ..)| *r == role).map(|(_, name, _)| name).unwrap_or_default();
            let tensor = tensors.get(&name).ok_or_else(|| Error::model_tensor(&name, "is missing"))?;
            Ok(spec.read_layout(role, &tensor.values))
        })
    }

    fn build(
        config: &Config,
        target: &Target,
        mut values: impl FnMut(&LayerSpec, Role, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let architecture = Architecture::new(config);
        let channels = config.image().channels();
        let mut layers = |specs: Vec<LayerSpec>| {
            let layer = |spec: LayerSpec| {
                let precision = spec.precision(target.precision(), channels);
                TrainingLayer::build(spec, target, precision, &mut values)
            };
            specs.into_iter().map(layer).collect::<Result<Vec<_>>>()
        };
        let encoder = layers(architecture.encoder)?;
        let decoder = layers(architecture.decoder)?;
        Ok(Self {
            encoder,
            decoder,
            image: config.image(),
            adversary: Adversary::build(config, target, architecture.adversary, &mut values)?,
            steps: 0,
            adversary_steps: 0,
            target: target.clone(),
        })
    }

    /// The device of its tensors, with the operations there.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The encoder's output for images in training mode: (N, H, W, C) → (N, Z), or (N, 2Z) of a Gaussian encoder.
    pub(crate) fn encode(&mut self, images: &Tensor) -> Result<Tensor> {
        Ok(layer::forward(&mut self.encoder, images.clone())?.flatten_from(1)?)
    }

    /// Images of codes in training mode: (N, Z) → (N, H, W, C).
    pub(crate) fn decode(&mut self, codes: &Tensor) -> Result<Tensor> {
        let images = layer::forward(&mut self.decoder, codes.clone())?;
        // Of dense layers, the last puts out (N, 1, 1, H·W·C).
        Ok(images.reshape(((), self.image.height(), self.image.width(), self.image.channels()))?)
    }

    /// The encoder's loss against the discriminator, of codes (N, Z): a scalar, differentiable by the codes.
    pub(crate) fn adversary_loss(&self, codes: &Tensor) -> Result<Tensor> {
        losses::encoder_loss(&self.adversary_logits(codes)?)
    }

    /// The discriminator's logits of codes: (N, Z) → (N,), differentiable by the codes.
    pub(crate) fn adversary_logits(&self, codes: &Tensor) -> Result<Tensor> {
        let adversary = self.adversary.as_ref();
        adversary.ok_or_else(|| Error::Training("the objective has no discriminator".to_owned()))?.logits(codes)
    }

    /// The backward pass through the decoder. Gives the gradient of the codes, (N, Z).
    pub(crate) fn decode_backward(&mut self, gradient: Tensor) -> Result<Tensor> {
        let codes = layer::backward(&mut self.decoder, gradient, true)?;
        let codes = codes.ok_or_else(|| Error::Training("the decoder gave no gradient".to_owned()))?;
        Ok(codes.flatten_from(1)?)
    }

    /// The backward pass through the encoder.
    pub(crate) fn encode_backward(&mut self, gradient: Tensor) -> Result<()> {
        layer::backward(&mut self.encoder, gradient, false).map(drop)
    }

    /// A step of Adam on encoder and decoder with the gradients of the last pass. A parameter without one stays as it
    /// is.
    pub(crate) fn step(&mut self, learning_rate: f64) -> Result<()> {
        self.steps += 1;
        let step = adam(self.steps, learning_rate);
        let trained = self.encoder.iter_mut().chain(&mut self.decoder).flat_map(TrainingLayer::trained);
        self.target.operations().adam.adam(step, &mut trained.collect::<Vec<_>>())
    }

    /// A step of Adam on the discriminator, on codes and draws, (N, Z) each; gives its loss before the step, a scalar.
    pub(crate) fn step_adversary(&mut self, codes: &Tensor, draws: &Tensor, learning_rate: f64) -> Result<Tensor> {
        self.adversary_steps += 1;
        let step = adam(self.adversary_steps, learning_rate);
        let adversary = self.adversary.as_mut();
        let adversary = adversary.ok_or_else(|| Error::Training("the objective has no discriminator".to_owned()))?;
        adversary.step(step, self.target.operations(), codes, draws)
    }

    /// Steps of Adam on encoder and decoder so far.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Forgets Adam's moments and count, as after pre-training.
    pub(crate) fn reset_optimizer(&mut self) -> Result<()> {
        self.steps = 0;
        self.encoder.iter_mut().chain(&mut self.decoder).try_for_each(TrainingLayer::reset_moments)
    }

    /// The tensors of a model file.
    pub(crate) fn tensors(&self) -> Result<Tensors> {
        let mut tensors = Tensors::new();
        for layer in self.layers() {
            for (role, name, shape) in layer.spec().tensors() {
                let values = layer.values(role)?;
                tensors.insert(name, TensorData { shape, values: layer.spec().write_layout(role, &values) });
            }
        }
        if let Some(adversary) = &self.adversary {
            tensors.extend(adversary.tensors()?);
        }
        Ok(tensors)
    }

    /// The gradients of the last pass under the names and in the order of a model file.
    #[cfg(test)]
    pub(crate) fn gradients(&self) -> Result<Tensors> {
        let mut tensors = Tensors::new();
        for layer in self.layers() {
            for (role, name, shape) in layer.spec().tensors() {
                if let Some(values) = layer.gradient(role)? {
                    tensors.insert(name, TensorData { shape, values: layer.spec().write_layout(role, &values) });
                }
            }
        }
        Ok(tensors)
    }

    fn layers(&self) -> impl Iterator<Item = &TrainingLayer> {
        self.encoder.iter().chain(&self.decoder)
    }
}

/// A GPU's memory goes back to the driver when the training is over.
impl Drop for TrainingNetwork {
    fn drop(&mut self) {
        self.encoder.clear();
        self.decoder.clear();
        self.adversary = None;
        self.target.release_memory();
    }
}

/// β as in the authors' configs.py, ε as in PyTorch.
fn adam(step: u64, learning_rate: f64) -> AdamStep {
    AdamStep::new(step, learning_rate, 0.5, 0.999, 1e-8)
}

/// A standard normal number of a size of at most `limit`: a larger one is drawn again.
pub(crate) fn truncated_normal(limit: f64, generator: &mut ChaCha8Rng) -> f64 {
    loop {
        let value: f64 = StandardNormal.sample(generator);
        if value.abs() <= limit {
            return value;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::config::TrainOptions;
    use crate::image::ImageShape;

    fn initial(config: &Config, initialisation: Initialisation) -> Result<TrainingNetwork> {
        TrainingNetwork::initialise(config, &Target::cpu(), initialisation, &mut ChaCha8Rng::seed_from_u64(0))
    }

    /// PyTorch's bounds, 1/√fan_in: of a convolution k²·C_in, of a transposed one k²·C_out, of a linear layer its
    /// inputs.
    #[test]
    fn initial_weights_fill_pytorchs_bounds() {
        let options = TrainOptions::try_from_options([("network", "8,16".into())]).unwrap();
        let config = options.config(ImageShape::new(28, 28, 3)).unwrap();
        let network = initial(&config, Initialisation::PyTorch).unwrap();
        let tensors = network.tensors().unwrap();
        for (name, fan_in) in [
            ("encoder.0.conv.weight", 16 * 3),
            ("encoder.1.conv.weight", 16 * 8),
            ("encoder.head.weight", 7 * 7 * 16),
            ("encoder.head.bias", 7 * 7 * 16),
            ("decoder.stem.weight", 64),
            ("decoder.0.conv.weight", 16 * 8),
            ("decoder.out.conv.weight", 16 * 3),
        ] {
            let bound = 1.0 / (fan_in as f32).sqrt();
            let largest = tensors[name].values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            assert!(largest <= bound && largest > 0.9 * bound, "{name}: {largest}, bound {bound}");
        }
        assert!(tensors["encoder.0.norm.weight"].values.iter().all(|v| *v == 1.0));
        assert!(tensors["encoder.0.norm.running_mean"].values.iter().all(|v| *v == 0.0));
    }

    /// The authors' N(0, 0.0099999²): truncated for convolutions, whole for transposed ones and linear layers, no bias.
    #[test]
    fn initial_weights_of_the_presets() {
        let options = TrainOptions::try_from_options([("network", "64,64".into())]).unwrap();
        let config = options.config(ImageShape::new(28, 28, 1)).unwrap();
        let tensors = initial(&config, Initialisation::Normal).unwrap().tensors().unwrap();
        let of = |name: &str| {
            let values = &tensors[name].values;
            let deviation = (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
            (deviation, values.iter().fold(0.0_f32, |m, v| m.max(v.abs())))
        };
        let (deviation, largest) = of("encoder.1.conv.weight");
        // A normal variable cut at two deviations keeps 0.8796 of its deviation.
        assert!((deviation / 0.0088 - 1.0).abs() < 0.01 && largest <= 0.02, "{deviation}, {largest}");
        for name in ["encoder.head.weight", "decoder.0.conv.weight"] {
            let (deviation, largest) = of(name);
            assert!((deviation / 0.01 - 1.0).abs() < 0.02 && largest > 0.03, "{name}: {deviation}, {largest}");
        }
        assert!(tensors["encoder.head.bias"].values.iter().all(|v| *v == 0.0));
    }
}
