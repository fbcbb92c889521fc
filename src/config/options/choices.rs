//! Values of the options that are chosen by name: the network, the objective, the initial weights and the changes of
//! training images.

/// The network to train.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NetworkChoice {
    /// Fitted to the image size, [`Convolutions::auto`](crate::config::Convolutions::auto); to maps of features of 8 or
    /// more places a side, [`Convolutions::auto_of_features`](crate::config::Convolutions::auto_of_features); to vectors
    /// and smaller maps, dense layers.
    #[default]
    Auto,
    /// [`Convolutions::small`](crate::config::Convolutions::small).
    Small,
    /// [`Convolutions::mnist`](crate::config::Convolutions::mnist).
    Mnist,
    /// [`Convolutions::celeba`](crate::config::Convolutions::celeba).
    Celeba,
    /// The encoder's widths of convolutions; the decoder mirrors them.
    Widths(Vec<usize>),
    /// The encoder's widths of dense layers; the decoder mirrors them.
    Dense(Vec<usize>),
}

/// The beginning of the text of a network of dense layers, before its widths.
pub(super) const DENSE: &str = "dense:";

impl NetworkChoice {
    /// Every network that has a name alone, under that name.
    pub(super) const NAMED: [(&'static str, Self); 4] =
        [("auto", Self::Auto), ("small", Self::Small), ("mnist", Self::Mnist), ("celeba", Self::Celeba)];

    /// The text that `network =>` takes.
    pub(super) fn to_text(&self) -> String {
        match self {
            Self::Widths(widths) => widths_text(widths),
            Self::Dense(widths) => format!("{DENSE}{}", widths_text(widths)),
            other => Self::NAMED.iter().find(|(_, choice)| choice == other).map_or("", |(name, _)| name).to_owned(),
        }
    }
}

/// Widths of layers as an option takes them: `512,512`.
pub(super) fn widths_text(widths: &[usize]) -> String {
    widths.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The objective to train with, [`Objective`](crate::config::Objective).
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

    /// Whether a divergence is minimised beside the cost.
    pub(super) fn has_divergence(self) -> bool {
        self != Self::Ae
    }

    /// Whether a discriminator is trained beside the network.
    pub(super) fn has_adversary(self) -> bool {
        matches!(self, Self::Gan | Self::Aae)
    }
}

/// The kind of values that a model is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum InputChoice {
    /// Pixels in [0, 1], or integers that stand for them.
    #[default]
    Image,
    /// Numbers of any range, [`Input::Features`](crate::config::Input::Features).
    Features,
}

impl InputChoice {
    /// Every kind under its name, as `input =>` takes it.
    pub(crate) const ALL: [(&'static str, Self); 2] = [("image", Self::Image), ("features", Self::Features)];
}

/// The distribution that initial weights are drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Initialisation {
    /// PyTorch's default: U(−1/√fan_in, 1/√fan_in), biases too.
    #[default]
    PyTorch,
    /// The authors', under the presets: N(0, 0.0099999²), truncated at two deviations for the encoder's convolutions,
    /// biases 0.
    Normal,
}

/// A random change of the images of a training step (`augment`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Augmentation {
    /// Left and right change places, with probability ½.
    Flip,
    /// The image moves by up to 1/16 of its height and its width; its border is repeated.
    Shift,
    /// All values are multiplied by a factor from 0.9 to 1.1, and clamped to [0, 1].
    Brightness,
}

impl Augmentation {
    /// The sides of an image, in pixels, are divided by this for the largest shift.
    pub(crate) const SHIFT_PARTS: usize = 16;
    /// Every change under its name, as `augment =>` takes it.
    pub(crate) const ALL: [(&'static str, Self); 3] =
        [("flip", Self::Flip), ("shift", Self::Shift), ("brightness", Self::Brightness)];

    /// The text that `augment =>` takes; `None` for no change.
    pub(super) fn to_text(chosen: &[Self]) -> Option<String> {
        let names = Self::ALL.iter().filter(|(_, change)| chosen.contains(change)).map(|(name, _)| *name);
        (!chosen.is_empty()).then(|| names.collect::<Vec<_>>().join(","))
    }
}
