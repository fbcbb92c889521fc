//! How a model is trained: the options of `wae_train`, parsed once, at the edge.

mod given;
mod interval;
mod parse;
mod preset;
mod schedule;
mod used;

pub use self::interval::CheckpointInterval;
pub use self::preset::Preset;
pub use self::schedule::{LambdaSchedule, Schedule};
use super::{ADVERSARY_WIDTHS, Config, Cost, EncoderKind, IMQ_SCALES, KernelKind, Network, Objective, Parts, Prior};
use crate::device::{Device, Precision};
use crate::error::{Error, Result};
use crate::image::{ImageShape, Preprocess};

/// The seed of every random choice when none is given.
pub const DEFAULT_SEED: u64 = 0;

/// Every option that [`TrainOptions::try_from_options`] takes.
pub const OPTION_NAMES: [&str; 32] = [
    "adversary_learning_rate",
    "adversary_widths",
    "batch_size",
    "checkpoint_every",
    "cost",
    "crop",
    "device",
    "encoder",
    "epochs",
    "holdout",
    "init",
    "kernel",
    "lambda",
    "lambda_schedule",
    "latent_dim",
    "learning_rate",
    "log_p",
    "log_variance_penalty",
    "network",
    "noise",
    "objective",
    "overwrite",
    "precision",
    "preset",
    "pretrain",
    "prior",
    "prior_scale",
    "resume",
    "scales",
    "schedule",
    "seed",
    "size",
];

/// The largest batch of `sinkhorn`, which keeps tables of all pairs: three of 128 MB.
const SINKHORN_BATCH: usize = 4096;

/// Which network to train.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NetworkChoice {
    /// Fitted to the image size, [`Network::auto`].
    #[default]
    Auto,
    /// [`Network::small`].
    Small,
    /// [`Network::mnist`].
    Mnist,
    /// [`Network::celeba`].
    Celeba,
    /// The encoder's widths; the decoder mirrors them.
    Widths(Vec<usize>),
}

/// Which objective to train with, [`Objective`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ObjectiveChoice {
    /// WAE-MMD.
    #[default]
    Mmd,
    /// WAE-GAN.
    Gan,
    /// The adversarial auto-encoder: `gan` with the squared cost.
    Aae,
    /// The variational auto-encoder.
    Vae,
    /// No divergence.
    Ae,
    /// The sliced Wasserstein distance.
    Sliced,
    /// The Sinkhorn divergence.
    Sinkhorn,
}

impl ObjectiveChoice {
    /// Every objective under its name, as `objective =>` takes it.
    pub(crate) const ALL: [(&'static str, Self); 7] = [
        ("mmd", Self::Mmd),
        ("gan", Self::Gan),
        ("aae", Self::Aae),
        ("vae", Self::Vae),
        ("ae", Self::Ae),
        ("sliced", Self::Sliced),
        ("sinkhorn", Self::Sinkhorn),
    ];
}

/// Where weights begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Initialisation {
    /// PyTorch's default: U(−1/√fan_in, 1/√fan_in), biases too.
    #[default]
    PyTorch,
    /// The authors', under the presets: N(0, 0.0099999²), truncated at two deviations for the encoder's convolutions,
    /// biases 0.
    Normal,
}

/// The options of a training, each valid by itself; [`TrainOptions::config`] checks them together once the image shape is
/// known.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOptions {
    /// Passes over the training rows (20).
    pub epochs: usize,
    /// Images a step (100, the paper's).
    pub batch_size: usize,
    /// Adam's initial learning rate (1e-3, the paper's for MNIST; β = 0.5, 0.999).
    pub learning_rate: f64,
    /// What becomes of the learning rate.
    pub schedule: Schedule,
    /// The layers.
    pub network: NetworkChoice,
    /// Side of the convolution kernel; 4, or 5 for celeba, when `None`.
    pub kernel_size: Option<usize>,
    /// d_z; 8 up to 32×32 grey and 64 beyond when `None`.
    pub latent_dim: Option<usize>,
    /// What is minimised.
    pub objective: ObjectiveChoice,
    /// λ; [`Objective::auto_lambda`] when `None`.
    pub lambda: Option<f64>,
    /// What becomes of λ.
    pub lambda_schedule: LambdaSchedule,
    /// The kernel of MMD.
    pub kernel: KernelKind,
    /// Bandwidth factors of the IMQ kernel.
    pub scales: Vec<f64>,
    /// Hidden widths of the discriminator of `gan`.
    pub adversary_widths: Vec<usize>,
    /// The discriminator's learning rate; half of `learning_rate`, as in the authors' MNIST experiment, when `None`.
    pub adversary_learning_rate: Option<f64>,
    /// Whether log p(z) is added to the discriminator's logit.
    pub log_p: bool,
    /// The prior over codes.
    pub prior: Prior,
    /// The reconstruction cost.
    pub cost: Cost,
    /// Whether a code is a point or a distribution; a distribution for `vae` and a point elsewhere when `None`.
    pub encoder: Option<EncoderKind>,
    /// λ_p ≥ 0 of λ_p · mean Σ_d |log σ_d²|, which keeps a Gaussian encoder's variance from vanishing (0.1; not for `vae`).
    pub log_variance_penalty: f64,
    /// Standard deviation of the truncated normal noise on the encoder's input in training, in pixel units (0).
    pub noise: f64,
    /// Whether the encoder is first trained to match the prior's mean and covariance.
    pub pretrain: bool,
    /// Where weights begin.
    pub initialisation: Initialisation,
    /// The experiment that these options came from.
    pub preset: Option<Preset>,
    /// Resizing and cropping before the network sees an image.
    pub preprocess: Option<Preprocess>,
    /// Share of the rows kept for calibration, in [0, 1) (0.1).
    pub holdout: f64,
    /// The seed of initial weights, shuffles, prior samples and the held-out split (0).
    pub seed: u64,
    /// When a checkpoint is written (never).
    pub checkpoint_every: CheckpointInterval,
    /// Whether the last checkpoint of the same name is gone on from, if there is one.
    pub resume: bool,
    /// The model whose weights training begins with, which [`Trainer::from_model`](crate::Trainer::from_model) takes.
    pub init: Option<String>,
    /// Whether a model of the same name may be replaced.
    pub overwrite: bool,
    /// Where to train; [`Device::Auto`] when `None`.
    pub device: Option<Device>,
    /// What to compute in on a GPU; f32 when `None`. The processor trains in f32.
    pub precision: Option<Precision>,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            epochs: 20,
            batch_size: 100,
            learning_rate: 1e-3,
            schedule: Schedule::default(),
            network: NetworkChoice::default(),
            kernel_size: None,
            latent_dim: None,
            objective: ObjectiveChoice::default(),
            lambda: None,
            lambda_schedule: LambdaSchedule::default(),
            kernel: KernelKind::default(),
            scales: IMQ_SCALES.to_vec(),
            adversary_widths: ADVERSARY_WIDTHS.to_vec(),
            adversary_learning_rate: None,
            log_p: false,
            prior: Prior::default(),
            cost: Cost::default(),
            encoder: None,
            log_variance_penalty: 0.1,
            noise: 0.0,
            pretrain: false,
            initialisation: Initialisation::default(),
            preset: None,
            preprocess: None,
            holdout: 0.1,
            seed: DEFAULT_SEED,
            checkpoint_every: CheckpointInterval::Never,
            resume: false,
            init: None,
            overwrite: false,
            device: None,
            precision: None,
        }
    }
}

impl TrainOptions {
    /// Checks the ranges that the parser checks, for options that were put together in code.
    ///
    /// # Errors
    /// [`Error::TrainOption`], naming the first option out of range.
    pub fn validate(&self) -> Result<()> {
        let refuse = |name: &str, expected: &str, got: f64| {
            Err(Error::train_option(name, format!("must be {expected}, got {got}")))
        };
        if !(1..=100_000).contains(&self.epochs) {
            return refuse("epochs", "an integer between 1 and 100000", self.epochs as f64);
        }
        if !(2..=1 << 20).contains(&self.batch_size) {
            return refuse("batch_size", "an integer between 2 and 1048576", self.batch_size as f64);
        }
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            return refuse("learning_rate", "a number above 0 and at most 1", self.learning_rate);
        }
        if !(0.0..=1.0).contains(&self.noise) {
            return refuse("noise", "a number from 0 to 1", self.noise);
        }
        if !(0.0..=1e6).contains(&self.log_variance_penalty) {
            return refuse("log_variance_penalty", "a number from 0 to 1e6", self.log_variance_penalty);
        }
        if let Some(rate) = self.adversary_learning_rate.filter(|rate| !(*rate > 0.0 && *rate <= 1.0)) {
            return refuse("adversary_learning_rate", "a number above 0 and at most 1", rate);
        }
        if !(0.0..1.0).contains(&self.holdout) {
            return refuse("holdout", "a number from 0 to less than 1", self.holdout);
        }
        Ok(())
    }

    /// The configuration of the model that these options train on images of one shape.
    ///
    /// # Errors
    /// [`Error::Config`] if the options do not fit the images or each other.
    pub fn config(&self, source: ImageShape) -> Result<Config> {
        self.config_of_preprocessed(self.preprocess.as_ref().map_or(source, |p| p.output(source)))
    }

    /// The configuration for images that have been resized and cropped.
    pub(crate) fn config_of_preprocessed(&self, image: ImageShape) -> Result<Config> {
        let kernel = |default: usize| self.kernel_size.unwrap_or(default);
        let with_kernel = |network: Network| Network { kernel: kernel(network.kernel), ..network };
        let network = match &self.network {
            NetworkChoice::Auto => Network::auto(image, kernel(4)),
            NetworkChoice::Small => with_kernel(Network::small()),
            NetworkChoice::Mnist => with_kernel(Network::mnist()),
            NetworkChoice::Celeba => with_kernel(Network::celeba()),
            NetworkChoice::Widths(widths) => Network::mirrored(widths.clone(), kernel(4)),
        };
        let latent_dim = self.latent_dim.unwrap_or(if image.len() <= 32 * 32 { 8 } else { 64 });
        self.check_together()?;
        let objective = self.objective_without_lambda();
        let lambda = self.lambda.unwrap_or_else(|| objective.auto_lambda(self.cost, image, self.prior));
        Config::try_new(Parts {
            image,
            latent_dim,
            network,
            encoder: self.encoder(),
            prior: self.prior,
            cost: self.cost,
            objective: objective.with_lambda(lambda),
            preprocess: self.preprocess.clone(),
        })
    }

    /// Refuses what no configuration holds and yet does not go together.
    fn check_together(&self) -> Result<()> {
        if self.objective == ObjectiveChoice::Aae && self.cost != Cost::Squared {
            let got = self.cost.name();
            return Err(Error::Config(format!("objective 'aae' is 'gan' with cost 'squared', got cost '{got}'")));
        }
        if self.objective == ObjectiveChoice::Sinkhorn && self.batch_size > SINKHORN_BATCH {
            let got = self.batch_size;
            let message = format!("objective 'sinkhorn' takes a batch_size of at most {SINKHORN_BATCH}, got {got}");
            return Err(Error::Config(message));
        }
        self.objective_without_lambda().validate(self.encoder(), self.prior.kind)
    }

    /// What a code is, where the options leave it open.
    fn encoder(&self) -> EncoderKind {
        let vae = self.objective == ObjectiveChoice::Vae;
        self.encoder.unwrap_or(if vae { EncoderKind::Gaussian } else { EncoderKind::Deterministic })
    }

    fn objective_without_lambda(&self) -> Objective {
        let lambda = 0.0;
        match self.objective {
            ObjectiveChoice::Mmd => Objective::Mmd { kernel: self.kernel, scales: self.scales.clone(), lambda },
            ObjectiveChoice::Gan | ObjectiveChoice::Aae => {
                let adversary_widths = self.adversary_widths.clone();
                Objective::Gan { adversary_widths, log_p: self.log_p, lambda }
            }
            ObjectiveChoice::Vae => Objective::Vae { lambda },
            ObjectiveChoice::Ae => Objective::Ae {},
            ObjectiveChoice::Sliced => Objective::Sliced { lambda },
            ObjectiveChoice::Sinkhorn => Objective::Sinkhorn { lambda },
        }
    }

    /// The discriminator's learning rate.
    pub(crate) fn adversary_rate(&self) -> f64 {
        self.adversary_learning_rate.unwrap_or(0.5 * self.learning_rate)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case("epochs", json!(0), "option 'epochs' must be an integer between 1 and 100000, got 0")]
    #[case("epochs", json!(2.5), "option 'epochs' must be an integer between 1 and 100000, got 2.5")]
    #[case("schedule", json!("linear"), "option 'schedule' must be 'step' or 'manual' or 'smooth' or 'plateau' or 'constant', got \"linear\"")]
    #[case("holdout", json!(1.0), "option 'holdout' must be a number from 0 to less than 1, got 1.0")]
    #[case("network", json!("32,0"), "option 'network' must be 'auto', 'small', 'mnist', 'celeba' or widths such as '32,64,128', got \"32,0\"")]
    #[case("kernel", json!(8), "option 'kernel' must be an integer between 1 and 7, got 8")]
    #[case("kernel", json!("laplace"), "option 'kernel' must be 'imq' or 'rbf', got \"laplace\"")]
    #[case("size", json!("0x4"), "option 'size' must be a side such as 64, or height and width such as '48x64', got \"0x4\"")]
    #[case("scales", json!([1, -1]), "option 'scales' must be a list of numbers from 1e-6 to 1e6, such as '0.5, 1, 2', got [1,-1]")]
    #[case("checkpoint_every", json!("10"), "option 'checkpoint_every' must be a number of epochs from 0 to 100000, or a time of a second or more such as '10 minutes', got \"10\"")]
    #[case("checkpoint_every", json!("0 minutes"), "option 'checkpoint_every' must be a number of epochs from 0 to 100000, or a time of a second or more such as '10 minutes', got \"0 minutes\"")]
    #[case("init", json!(""), "option 'init' must be the name of a model, got \"\"")]
    #[case("overwrite", json!("yes"), "option 'overwrite' must be true or false, got \"yes\"")]
    #[case("lambda", json!(-1), "option 'lambda' must be 'auto' or a number from 0 to 1e12, got -1")]
    fn a_bad_value_says_what_was_expected(#[case] name: &str, #[case] value: Value, #[case] message: &str) {
        assert_eq!(TrainOptions::try_from_options([(name, value)]).unwrap_err().to_string(), message);
    }

    #[test]
    fn every_listed_option_is_known() {
        for name in OPTION_NAMES {
            let error = TrainOptions::try_from_options([(name, json!({}))]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("option '{name}' must be ")), "{error}");
        }
        assert!(OPTION_NAMES.is_sorted());
    }

    #[test]
    fn kernel_is_the_convolutions_or_the_divergences() {
        let options = TrainOptions::try_from_options([("kernel", json!("rbf"))]).unwrap();
        assert_eq!((options.kernel, options.kernel_size), (KernelKind::Rbf, None));
        let options = TrainOptions::try_from_options([("kernel", json!(3))]).unwrap();
        assert_eq!((options.kernel, options.kernel_size), (KernelKind::Imq, Some(3)));
    }

    #[rstest]
    #[case(json!(0), CheckpointInterval::Never)]
    #[case(json!(3), CheckpointInterval::Epochs(3))]
    #[case(json!("10 minutes"), CheckpointInterval::Time(Duration::from_secs(600)))]
    #[case(json!("1h 30m"), CheckpointInterval::Time(Duration::from_secs(5400)))]
    fn checkpoints_come_by_epochs_or_by_time(#[case] value: Value, #[case] expected: CheckpointInterval) {
        let options = TrainOptions::try_from_options([("checkpoint_every", value)]).unwrap();
        assert_eq!(options.checkpoint_every, expected);
        // What a model file says of it is what the option takes.
        let used = options.used()["checkpoint_every"].clone();
        assert_eq!(TrainOptions::try_from_options([("checkpoint_every", used)]).unwrap(), options);
    }

    #[test]
    fn defaults_follow_the_image() {
        let config = TrainOptions::default().config(ImageShape::new(28, 28, 1)).unwrap();
        assert_eq!((config.latent_dim(), config.objective().lambda()), (8, 200.0));
        let config = TrainOptions::default().config(ImageShape::new(64, 64, 3)).unwrap();
        assert_eq!(config.latent_dim(), 64);
    }

    #[rstest]
    #[case::gan(json!({"objective": "gan", "scales": "1"}), "option 'scales' does not go with objective 'gan'")]
    #[case::kernel(json!({"objective": "vae", "kernel": "rbf"}), "option 'kernel' does not go with objective 'vae'")]
    #[case::ae(json!({"objective": "ae", "lambda": 1}), "option 'lambda' does not go with objective 'ae'")]
    #[case::log_p(json!({"log_p": true}), "option 'log_p' does not go with objective 'mmd'")]
    #[case::penalty(json!({"objective": "vae", "log_variance_penalty": 1}), "option 'log_variance_penalty' does not go with objective 'vae'")]
    #[case::unknown(json!({"objective": "wgan"}), "option 'objective' must be 'mmd' or 'gan' or 'aae' or 'vae' or 'ae' or 'sliced' or 'sinkhorn', got \"wgan\"")]
    fn options_that_do_not_go_together(#[case] options: Value, #[case] message: &str) {
        let Value::Object(options) = options else { panic!("not an object") };
        assert_eq!(TrainOptions::try_from_options(options).unwrap_err().to_string(), message);
    }

    #[rstest]
    #[case::aae(json!({"objective": "aae", "cost": "l1"}), "objective 'aae' is 'gan' with cost 'squared', got cost 'l1'")]
    #[case::log_p(json!({"objective": "gan", "log_p": true, "prior": "sphere"}), "log_p goes with prior 'normal' only")]
    #[case::sinkhorn(json!({"objective": "sinkhorn", "batch_size": 5000}), "objective 'sinkhorn' takes a batch_size of at most 4096, got 5000")]
    fn options_that_no_model_has(#[case] options: Value, #[case] message: &str) {
        let Value::Object(options) = options else { panic!("not an object") };
        assert_eq!(TrainOptions::try_from_options(options).unwrap_err().to_string(), message);
    }

    #[test]
    fn vae_implies_a_gaussian_encoder() {
        let image = ImageShape::new(28, 28, 1);
        let options = TrainOptions::try_from_options([("objective", json!("vae"))]).unwrap();
        assert_eq!(options.config(image).unwrap().encoder(), EncoderKind::Gaussian);
        let given = [("objective", json!("vae")), ("encoder", json!("deterministic"))];
        let error = TrainOptions::try_from_options(given).unwrap_err().to_string();
        assert_eq!(error, "objective 'vae' takes encoder 'gaussian', got 'deterministic'");
        assert_eq!(TrainOptions::default().config(image).unwrap().encoder(), EncoderKind::Deterministic);
    }

    /// The paper's λ in this crate's units: 10/0.05, 100/0.05/4, 1/0.05/4 (reference/wae-facts).
    #[rstest]
    #[case("paper-mnist", "mmd", 200.0, 1e-3)]
    #[case("paper-mnist", "gan", 200.0, 1e-3)]
    #[case("paper-celeba", "mmd", 500.0, 1e-3)]
    #[case("paper-celeba", "gan", 5.0, 3e-4)]
    fn presets(#[case] preset: &str, #[case] objective: &str, #[case] lambda: f64, #[case] rate: f64) {
        let given = [("preset", json!(preset)), ("objective", json!(objective))];
        let options = TrainOptions::try_from_options(given).unwrap();
        assert_eq!((options.lambda, options.learning_rate), (Some(lambda), rate));
        let (noise, log_p) = if preset == "paper-mnist" { (0.01, false) } else { (0.005, objective == "gan") };
        assert_eq!((options.noise, options.log_p), (noise, log_p));
        assert_eq!((options.pretrain, options.initialisation), (true, Initialisation::Normal));
    }

    /// What is given beside a preset holds, whichever comes first.
    #[test]
    fn options_override_a_preset() {
        let given = [("epochs", json!(2)), ("preset", json!("paper-mnist")), ("noise", json!(0))];
        let options = TrainOptions::try_from_options(given).unwrap();
        assert_eq!((options.epochs, options.noise, options.latent_dim), (2, 0.0, Some(8)));
        // The other half of the preset's preprocessing stays, and λ follows the cost that is given.
        let given = [("preset", json!("paper-celeba")), ("size", json!(32)), ("cost", json!("l1"))];
        let options = TrainOptions::try_from_options(given).unwrap();
        assert_eq!(options.preprocess, Some(Preprocess::try_new(Some((140, 140)), Some((32, 32))).unwrap()));
        assert_eq!(options.lambda, None);
    }
}
