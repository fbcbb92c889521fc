//! The configuration of a model: image shape, network, prior, cost and objective.
//!
//! A [`Config`] is stored as JSON in every model file, and each tensor's shape follows from it. It is checked once, in
//! [`Config::try_new`]: a value of the type is valid. The options of a training are [`TrainOptions`].

mod architecture;
mod backbone;
mod input;
mod network;
mod objective;
mod options;
mod score;

use serde::{Deserialize, Serialize};

pub use self::backbone::BackboneConfig;
pub use self::input::{FEATURE_CHANNELS, Input};
pub use self::network::{Convolutions, Network};
pub use self::objective::{ADVERSARY_WIDTHS, Cost, EncoderKind, IMQ_SCALES, KernelKind, Objective, Prior, PriorKind};
pub(crate) use self::options::AUTO_COMPONENTS;
pub use self::options::{
    Augmentation, BackboneChoice, CheckpointInterval, DEFAULT_SEED, Initialisation, InputChoice, LambdaSchedule,
    NetworkChoice, OPTION_NAMES, OPTIONS, ObjectiveChoice, Preset, Schedule, TrainOption, TrainOptions,
};
pub use self::score::{Score, ScoreScale};
use crate::architecture::parameters;
use crate::error::{Error, Result};
use crate::image::{ImageShape, Preprocess};

/// Bounds that keep a hostile configuration from asking for memory or time without end.
pub(crate) mod bounds {
    pub const SIDE: usize = crate::image::MAX_SIDE;
    pub const CHANNELS: usize = 16;
    pub const LATENT: usize = 4096;
    pub const LAYERS: usize = 12;
    pub const WIDTH: usize = 8192;
    pub const KERNEL: usize = 7;
    pub const SCALES: usize = 64;
    /// Trainable numbers of one network: nearly seven times those of the paper's CelebA network.
    pub const PARAMETERS: usize = 1 << 28;
    /// Weights of the encoder and the decoder as inference packs them: 4 GB.
    pub const PACKED: usize = 1 << 30;
    /// Values of the largest layer of one image: 512 MB.
    pub const ACTIVATION: usize = 1 << 27;
    /// σ_z, and the factors of a kernel's bandwidth.
    pub const SCALE: std::ops::RangeInclusive<f64> = 1e-6..=1e6;
    pub const LAMBDA: f64 = 1e12;
}

/// The configuration of a model, valid by construction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Config(Parts);

/// The parts of a [`Config`] before they are checked. Their JSON is the `config` of a model file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parts {
    /// The shape of an image as the network sees it.
    pub image: ImageShape,
    /// d_z, the number of values in a latent code.
    pub latent_dim: usize,
    /// The encoder's and the decoder's layers.
    pub network: Network,
    /// The kind of encoder: its codes are points or distributions.
    pub encoder: EncoderKind,
    /// The prior over codes.
    pub prior: Prior,
    /// The reconstruction cost.
    pub cost: Cost,
    /// The divergence and its weight.
    pub objective: Objective,
    /// Cropping and resizing before the network sees an image, in training and in scoring alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocess: Option<Preprocess>,
    /// The score of the model's verdicts; the cost in a file of format `wae/1`.
    #[serde(default, skip_serializing_if = "Score::is_cost")]
    pub score: Score,
    /// The scales of the anomaly map; none in a file of format `wae/1`, which has no such map.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub score_scales: Vec<ScoreScale>,
    /// The kind of input other than images: values that are whitened before the network sees them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Input>,
    /// The pretrained network whose features the input is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<BackboneConfig>,
}

impl Config {
    /// Checks the parts of a configuration against each other and against the bounds on every number.
    ///
    /// # Errors
    /// [`Error::Config`], naming the first part that is out of bounds.
    pub fn try_new(parts: Parts) -> Result<Self> {
        let image = parts.image;
        within("height", image.height(), bounds::SIDE)?;
        within("width", image.width(), bounds::SIDE)?;
        match &parts.input {
            Some(input) => input.validate(&parts)?,
            None => within("channels", image.channels(), bounds::CHANNELS)?,
        }
        if let Some(backbone) = &parts.backbone {
            backbone.validate(&parts)?;
        }
        within("latent_dim", parts.latent_dim, bounds::LATENT)?;
        parts.network.validate()?;
        parts.objective.validate(parts.encoder, parts.prior.kind)?;
        if !bounds::SCALE.contains(&parts.prior.scale) {
            return Err(Error::Config(format!(
                "prior_scale must be a number from 1e-6 to 1e6, got {}",
                parts.prior.scale
            )));
        }
        if let Some(preprocess) = &parts.preprocess {
            preprocess.validate(image)?;
        }
        ScoreScale::check(&parts.score_scales)?;
        if parts.score == Score::AnomalyScore && parts.score_scales.is_empty() {
            return Err(Error::Config("score 'anomaly_score' takes score_scales, got none".to_owned()));
        }
        let config = Self(parts);
        let parameters = crate::architecture::parameters(&config);
        if parameters > bounds::PARAMETERS {
            return Err(Error::Config(format!(
                "this network has {parameters} parameters, expected at most {}",
                bounds::PARAMETERS
            )));
        }
        let packed = crate::architecture::packed_values(&config);
        if packed > bounds::PACKED {
            return Err(Error::Config(format!(
                "the weights of this network take {packed} values in memory, expected at most {}",
                bounds::PACKED
            )));
        }
        let largest = crate::architecture::largest_activation(&config);
        if largest > bounds::ACTIVATION {
            return Err(Error::Config(format!(
                "a layer of this network has {largest} values an image, expected at most {}",
                bounds::ACTIVATION
            )));
        }
        Ok(config)
    }

    /// The shape of an image as the network sees it, (H, W, C).
    pub fn image(&self) -> ImageShape {
        self.0.image
    }

    /// The kind of input other than images: what is whitened before the model sees it.
    pub fn input(&self) -> Option<Input> {
        self.0.input
    }

    /// The kind of rows other than images: as [`Self::input`], but none where a pretrained network makes features of
    /// images.
    pub fn row_input(&self) -> Option<Input> {
        self.0.input.filter(|_| self.0.backbone.is_none())
    }

    /// The pretrained network whose features the input is.
    pub fn backbone(&self) -> Option<&BackboneConfig> {
        self.0.backbone.as_ref()
    }

    /// Height and width of a map of an image: those that the model sees, or that its pretrained network does.
    pub fn map_size(&self) -> (usize, usize) {
        self.0.backbone.as_ref().map_or((self.0.image.height(), self.0.image.width()), |backbone| backbone.size)
    }

    /// The shape of a row before it is whitened, (H, W, C); of images, the shape that the network sees, and of those
    /// that a pretrained network sees, the shape of its features.
    pub fn source(&self) -> ImageShape {
        match self.0.input {
            Some(Input::Features { channels, .. }) => self.0.image.with_channels(channels),
            None => self.0.image,
        }
    }

    /// The shape of an image as whoever makes features of it sees it: the pretrained network, or the model itself; of
    /// rows of features, their shape.
    pub fn row_shape(&self) -> ImageShape {
        match &self.0.backbone {
            Some(BackboneConfig { size: (height, width), .. }) => ImageShape::new(*height, *width, 3),
            None => self.source(),
        }
    }

    /// Trainable values of the encoder and the decoder.
    pub fn parameters(&self) -> usize {
        parameters(self)
    }

    /// d_z, the number of values in a latent code.
    pub fn latent_dim(&self) -> usize {
        self.0.latent_dim
    }

    /// The encoder's and the decoder's layers.
    pub fn network(&self) -> &Network {
        &self.0.network
    }

    /// The kind of encoder: its codes are points or distributions.
    pub fn encoder(&self) -> EncoderKind {
        self.0.encoder
    }

    /// The prior over codes.
    pub fn prior(&self) -> Prior {
        self.0.prior
    }

    /// The reconstruction cost.
    pub fn cost(&self) -> Cost {
        self.0.cost
    }

    /// The divergence and its weight.
    pub fn objective(&self) -> &Objective {
        &self.0.objective
    }

    /// Cropping and resizing before the network sees an image.
    pub fn preprocess(&self) -> Option<&Preprocess> {
        self.0.preprocess.as_ref()
    }

    /// The score of the model's verdicts.
    pub fn score(&self) -> Score {
        self.0.score
    }

    /// The scales of the anomaly map; none of a model of an older version, which has no such map.
    pub fn score_scales(&self) -> &[ScoreScale] {
        &self.0.score_scales
    }
}

impl TryFrom<Parts> for Config {
    type Error = Error;

    fn try_from(parts: Parts) -> Result<Self> {
        Self::try_new(parts)
    }
}

impl From<Config> for Parts {
    fn from(config: Config) -> Self {
        config.0
    }
}

/// The name of a value, in a list of all values with their names.
pub(crate) fn name_of<T: Copy + PartialEq>(all: &[(&'static str, T)], value: T) -> &'static str {
    all.iter().find(|(_, other)| *other == value).map_or("", |(name, _)| name)
}

/// Refuses a value that is not in 1..=max.
fn within(name: &str, value: usize, max: usize) -> Result<()> {
    if (1..=max).contains(&value) {
        Ok(())
    } else {
        Err(Error::Config(format!("{name} must be between 1 and {max}, got {value}")))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    pub(crate) fn parts() -> Parts {
        Parts {
            image: ImageShape::new(28, 28, 1),
            latent_dim: 8,
            network: Convolutions::small().into(),
            encoder: EncoderKind::Deterministic,
            prior: Prior::default(),
            cost: Cost::Squared,
            objective: Objective::Mmd { kernel: KernelKind::Imq, scales: IMQ_SCALES.to_vec(), lambda: 200.0 },
            preprocess: None,
            score: Score::Cost,
            score_scales: Vec::new(),
            input: None,
            backbone: None,
        }
    }

    fn convolutions(parts: &mut Parts) -> &mut Convolutions {
        match &mut parts.network {
            Network::Convolutions(convolutions) => convolutions,
            Network::Dense(widths) => panic!("dense: {widths:?}"),
        }
    }

    /// Features of so many channels, whitened to so many components.
    fn features(parts: &mut Parts, channels: usize, components: usize) {
        parts.image = parts.image.with_channels(components);
        parts.input = Some(Input::Features { channels, layout: None });
    }

    #[test]
    fn json_of_features_is_that_of_the_format() {
        let mut parts = parts();
        features(&mut parts, 12, 3);
        parts.network = Network::Dense(vec![256, 128]);
        let config = Config::try_new(parts).unwrap();
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!(json["input"], serde_json::json!({"kind": "features", "channels": 12}));
        assert_eq!(json["network"], serde_json::json!({"dense": [256, 128]}));
        assert_eq!(config.source(), ImageShape::new(28, 28, 12));
        assert_eq!(serde_json::from_value::<Config>(json).unwrap(), config);
    }

    #[test]
    fn json_is_that_of_the_format() {
        let json = serde_json::to_value(Config::try_new(parts()).unwrap()).unwrap();
        let expected = serde_json::json!({
            "image": {"height": 28, "width": 28, "channels": 1}, "latent_dim": 8,
            "network": {"encoder_channels": [32, 64, 128], "decoder_channels": [128, 64, 32], "kernel": 4},
            "encoder": "deterministic", "prior": {"kind": "normal", "scale": 1.0}, "cost": "squared",
            "objective": {"kind": "mmd", "kernel": "imq", "scales": [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0], "lambda": 200.0}
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<Config>(json).unwrap(), Config::try_new(parts()).unwrap());
    }

    #[rstest]
    #[case::latent(|p: &mut Parts| p.latent_dim = 0, "latent_dim must be between 1 and 4096, got 0")]
    #[case::kernel(|p: &mut Parts| convolutions(p).kernel = 9, "kernel must be between 1 and 7, got 9")]
    #[case::width(|p: &mut Parts| convolutions(p).encoder_channels[1] = 1 << 40, "a width in encoder_channels must be between 1 and 8192")]
    #[case::layers(|p: &mut Parts| convolutions(p).decoder_channels.clear(), "the number of decoder_channels must be between 1 and 12, got 0")]
    #[case::activation(|p: &mut Parts| { p.image = ImageShape::new(4096, 4096, 1); p.network = Convolutions { encoder_channels: vec![8192, 1], decoder_channels: vec![1], kernel: 1 }.into() }, "values an image, expected at most 134217728")]
    #[case::parameters(|p: &mut Parts| convolutions(p).encoder_channels = vec![8192; 12], "parameters, expected at most")]
    #[case::packed(|p: &mut Parts| { p.image = ImageShape::new(4096, 4096, 1); p.latent_dim = 1; p.network = Convolutions { encoder_channels: vec![8], decoder_channels: vec![1; 10], kernel: 1 }.into() }, "take 2147484416 values in memory")]
    #[case::scale(|p: &mut Parts| p.prior.scale = f64::NAN, "prior_scale must be a number from 1e-6 to 1e6, got NaN")]
    #[case::lambda(|p: &mut Parts| p.objective = Objective::Mmd { kernel: KernelKind::Imq, scales: vec![1.0], lambda: -1.0 }, "lambda must be a number from 0 to 1e12, got -1")]
    #[case::vae(|p: &mut Parts| p.objective = Objective::Vae { lambda: 1.0 }, "objective 'vae' takes encoder 'gaussian', got 'deterministic'")]
    #[case::vae_prior(|p: &mut Parts| { p.objective = Objective::Vae { lambda: 1.0 }; p.encoder = EncoderKind::Gaussian; p.prior.kind = PriorKind::Sphere }, "objective 'vae' takes prior 'normal' only")]
    #[case::log_p(|p: &mut Parts| { p.objective = Objective::Gan { adversary_widths: vec![8], log_p: true, lambda: 1.0 }; p.prior.kind = PriorKind::Uniform }, "log_p goes with prior 'normal' only")]
    #[case::adversary(|p: &mut Parts| p.objective = Objective::Gan { adversary_widths: vec![8, 1 << 40], log_p: false, lambda: 1.0 }, "a width in adversary_widths must be between 1 and 8192")]
    #[case::score(|p: &mut Parts| p.score = Score::AnomalyScore, "score 'anomaly_score' takes score_scales, got none")]
    #[case::many_score_scales(|p: &mut Parts| p.score_scales = (1..10).map(ScoreScale::Part).collect(), "score_scales has 9 scales, expected at most 8")]
    #[case::score_scale_twice(|p: &mut Parts| p.score_scales = vec![ScoreScale::Whole; 2], "score_scales has the scale whole twice")]
    #[case::dense(|p: &mut Parts| p.network = Network::Dense(vec![256, 0]), "a width in dense must be between 1 and 8192, got 0")]
    #[case::no_dense(|p: &mut Parts| p.network = Network::Dense(vec![]), "the number of dense layers must be between 1 and 12, got 0")]
    #[case::wide_image(|p: &mut Parts| p.image = ImageShape::new(28, 28, 17), "channels must be between 1 and 16, got 17")]
    #[case::features(|p: &mut Parts| features(p, 4097, 1), "the channels of features must be between 1 and 4096, got 4097")]
    #[case::components(|p: &mut Parts| features(p, 12, 13), "the components of features must be between 1 and 12, got 13")]
    #[case::feature_values(|p: &mut Parts| { features(p, 4096, 1); p.image = ImageShape::new(256, 256, 1) }, "a row of features has 268435456 values, expected at most 134217728")]
    #[case::feature_cost(|p: &mut Parts| { features(p, 12, 3); p.cost = Cost::L1 }, "input 'features' takes cost 'squared', got cost 'l1'")]
    #[case::feature_size(|p: &mut Parts| { features(p, 12, 3); p.preprocess = Preprocess::try_new(None, Some((28, 28))).ok() }, "input 'features' takes no size and no crop")]
    #[case::scales(|p: &mut Parts| p.objective = Objective::Mmd { kernel: KernelKind::Imq, scales: vec![0.0], lambda: 1.0 }, "each of scales must be a number from 1e-6 to 1e6, got 0")]
    fn out_of_bounds_is_refused(#[case] spoil: fn(&mut Parts), #[case] message: &str) {
        let mut parts = parts();
        spoil(&mut parts);
        let error = Config::try_new(parts).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn json_of_scores() {
        let scored = Parts { score: Score::AnomalyScore, score_scales: ScoreScale::OF_IMAGES.to_vec(), ..parts() };
        let config = Config::try_new(scored).unwrap();
        let mut json = serde_json::to_value(&config).unwrap();
        assert_eq!(
            (&json["score"], &json["score_scales"]),
            (&"anomaly_score".into(), &serde_json::json!([16, "mean", "whole"]))
        );
        assert_eq!(serde_json::from_value::<Config>(json.clone()).unwrap(), config);
        for bad in [0.into(), 1025.into(), "half".into(), serde_json::json!(1.5)] {
            json["score_scales"] = serde_json::json!([bad]);
            let error = serde_json::from_value::<Config>(json.clone()).unwrap_err().to_string();
            let expected =
                format!("a scale of score_scales must be a number from 1 to 1024, 'mean' or 'whole', got {bad}");
            assert!(error.contains(&expected), "{error}");
        }
    }
}
