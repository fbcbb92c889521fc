//! Values of the options that are chosen by name: the network, the objective and the initial weights.

/// The network to train.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NetworkChoice {
    /// Fitted to the image size, [`Network::auto`](crate::config::Network::auto).
    #[default]
    Auto,
    /// [`Network::small`](crate::config::Network::small).
    Small,
    /// [`Network::mnist`](crate::config::Network::mnist).
    Mnist,
    /// [`Network::celeba`](crate::config::Network::celeba).
    Celeba,
    /// The encoder's widths; the decoder mirrors them.
    Widths(Vec<usize>),
}

impl NetworkChoice {
    /// Every network that has a name, under that name.
    pub(super) const NAMED: [(&'static str, Self); 4] =
        [("auto", Self::Auto), ("small", Self::Small), ("mnist", Self::Mnist), ("celeba", Self::Celeba)];

    /// The text that `network =>` takes.
    pub(super) fn to_text(&self) -> String {
        match self {
            Self::Widths(widths) => widths_text(widths),
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
