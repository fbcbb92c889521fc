//! The options of a training: each is a field of [`TrainOptions`] and a row of the table [`OPTIONS`], in `table.rs`.
//!
//! From the row come the name ([`OPTION_NAMES`]) and the documentation in the SQL reference; the reading of SQL and
//! JSON ([`TrainOptions::try_from_options`]); the checks of a field that was set in code ([`TrainOptions::validate`]);
//! the value in a model file, and its comparison when a training is resumed. The default is the field's; the reference
//! shows it.
//!
//! # How to add an option
//! 1. Add a public field to [`TrainOptions`], with a line of documentation, and its default to `TrainOptions::default`.
//! 2. Add a row to [`OPTIONS`], at its place in the reference:
//!    - `name`, as SQL writes it, and `documentation`: the meaning and the allowed values, in Markdown;
//!    - `set` reads a value into the field. The methods of `Given` (`given.rs`) read numbers, choices, lists and sides,
//!      and refuse a value by naming those that are allowed: `option 'noise' must be a number from 0 to 1, got 2`;
//!    - `json` is the inverse of `set`: the field's value as `set` takes it, or null where there is none;
//!    - `goes_with`, if some objectives have no use for the option;
//!    - the base of the row. `..TrainOption::FIXED`: a model file holds the value, and a resumed training must have the
//!      same. `..TrainOption::CHANGEABLE`: a resumed training may have another. `..TrainOption::NEW`: a model file does
//!      not hold it. An option that becomes a part of [`Config`](super::Config) takes `NEW`, and `config` says where.
//! 3. Add a good and a bad value to `SAMPLES` in `tests.rs`. The tests fail for a field without a row, and for a row
//!    without samples.
//! 4. Write the SQL reference anew: the test that holds it current says how.
//!
//! An option that is chosen by name has an enum with a constant `ALL`, its values under their names, as [`Schedule`]
//! has. SQL, Python and the model file need no change.

mod backbone;
mod choices;
mod fit;
mod given;
mod interval;
mod parse;
mod preset;
mod row;
mod schedule;
mod table;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

pub use self::backbone::BackboneChoice;
pub use self::choices::{Augmentation, Initialisation, InputChoice, NetworkChoice, ObjectiveChoice};
pub(crate) use self::fit::AUTO_COMPONENTS;
pub use self::interval::CheckpointInterval;
pub use self::preset::Preset;
pub use self::row::TrainOption;
pub use self::schedule::{LambdaSchedule, Schedule};
pub use self::table::OPTIONS;
use super::{ADVERSARY_WIDTHS, Cost, EncoderKind, IMQ_SCALES, KernelKind, Prior, ScoreScale};
use crate::device::{Device, Precision};
use crate::error::{Error, Result, unknown_name};
use crate::image::{AxisOrder, Preprocess};

/// The seed of every random choice when none is given.
pub const DEFAULT_SEED: u64 = 0;

/// The names of all options, sorted.
pub static OPTION_NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut names: Vec<_> = OPTIONS.iter().map(|option| option.name).collect();
    names.sort_unstable();
    names
});

impl TrainOption {
    /// The option of a name.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name, with the list of valid ones.
    pub fn find(name: &str) -> Result<&'static Self> {
        let unknown = || Error::Config(unknown_name("option", name, &OPTION_NAMES));
        OPTIONS.iter().find(|option| option.name == name).ok_or_else(unknown)
    }
}

/// The options of a training, a field each.
///
/// [`TrainOptions::try_from_options`] reads them by name. In code, set the fields that differ from the default and take
/// the rest from `..Default::default()`: a later version may have more fields. (The struct is not `#[non_exhaustive]`,
/// because the compiler would then refuse this form outside the crate.) [`Trainer`](crate::Trainer) checks every field
/// ([`TrainOptions::validate`]), and that the options fit the images ([`TrainOptions::config`]).
///
/// # Example
/// ```
/// use wae_core::TrainOptions;
/// use wae_core::config::{NetworkChoice, ObjectiveChoice};
///
/// let options = TrainOptions {
///     epochs: 5,
///     objective: ObjectiveChoice::Sliced,
///     network: NetworkChoice::Widths(vec![32, 64]),
///     ..Default::default()
/// };
/// options.validate()?;
/// # Ok::<(), wae_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOptions {
    /// Passes over the training rows (20).
    pub epochs: usize,
    /// Images a step (100, the paper's).
    pub batch_size: usize,
    /// Adam's initial learning rate (1e-3, the paper's for MNIST; β = 0.5, 0.999).
    pub learning_rate: f64,
    /// The factor on the learning rate over the epochs.
    pub schedule: Schedule,
    /// The network.
    pub network: NetworkChoice,
    /// Side of the convolution kernel; 4, or 5 for celeba, when `None`.
    pub kernel_size: Option<usize>,
    /// d_z; 8 up to 32×32 grey and 64 beyond when `None`; of features, 64 for maps, and for vectors a quarter of the
    /// components, up to 64.
    pub latent_dim: Option<usize>,
    /// The objective.
    pub objective: ObjectiveChoice,
    /// λ; [`Objective::auto_lambda`](super::Objective::auto_lambda) when `None`.
    pub lambda: Option<f64>,
    /// λ over the steps.
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
    /// The kind of code, a point or a distribution; a distribution for `vae` and a point elsewhere when `None`.
    pub encoder: Option<EncoderKind>,
    /// λ_p ≥ 0 of λ_p · mean Σ_d |log σ_d²|, which keeps a Gaussian encoder's variance from vanishing (0.1; not for
    /// `vae`).
    pub log_variance_penalty: f64,
    /// Standard deviation of the truncated normal noise on the encoder's input in training, in pixel units (0).
    pub noise: f64,
    /// Random changes of the images of a training step (none).
    pub augment: Vec<Augmentation>,
    /// Whether the encoder is first trained to match the prior's mean and covariance.
    pub pretrain: bool,
    /// The distribution of initial weights; the option `preset` sets it.
    pub initialisation: Initialisation,
    /// The experiment that these options came from; the option `preset` sets the others too.
    pub preset: Option<Preset>,
    /// Resizing and cropping before the network sees an image.
    pub preprocess: Option<Preprocess>,
    /// The order of the axes of images in lists and tensors that do not name it.
    pub layout: Option<AxisOrder>,
    /// The scales of the anomaly map; when `None`, [`ScoreScale::OF_IMAGES`] or [`ScoreScale::OF_FEATURES`].
    pub score_scales: Option<Vec<ScoreScale>>,
    /// The kind of values that the model is trained on; features under a `backbone`, whatever stands here.
    pub input: InputChoice,
    /// The pretrained network whose features of images the model is trained on.
    pub backbone: Option<BackboneChoice>,
    /// Its layers, one or several joined by `+`; when `None`, those of its family that suit anomaly detection.
    pub layer: Option<String>,
    /// Whether the model file holds its weights up to the layers (true), and not their SHA-256 alone.
    pub embed: bool,
    /// Principal directions that features are whitened to; when `None`, 100, or fewer where the channels are fewer or
    /// vary less.
    pub components: Option<usize>,
    /// Share of the rows kept for calibration, in [0, 1) (0.1).
    pub holdout: f64,
    /// The seed of initial weights, shuffles, prior samples and the held-out split (0).
    pub seed: u64,
    /// When a checkpoint is written (never).
    pub checkpoint_every: CheckpointInterval,
    /// Whether training goes on from the last checkpoint of the same name, if there is one; the plugin looks for it.
    pub resume: bool,
    /// The name of the model whose weights training begins with;
    /// [`Trainer::from_model`](crate::Trainer::from_model) takes the model.
    pub init: Option<String>,
    /// Whether the plugin may replace a model of the same name.
    pub overwrite: bool,
    /// The device to train on; [`Device::Auto`] when `None`.
    pub device: Option<Device>,
    /// The precision on a GPU; f32 when `None`. The processor trains in f32.
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
            augment: Vec::new(),
            pretrain: false,
            initialisation: Initialisation::default(),
            preset: None,
            preprocess: None,
            layout: None,
            score_scales: None,
            input: InputChoice::default(),
            backbone: None,
            layer: None,
            embed: true,
            components: None,
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
