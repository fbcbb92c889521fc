//! The terms of the loss: the cost, the divergence between codes and prior, and its weight λ.

use serde::{Deserialize, Serialize};

use super::{bounds, name_of, within};
use crate::error::{Error, Result};
use crate::image::ImageShape;

/// The seven bandwidth factors s of the inverse multiquadratics kernel in the authors' code (`wae.py`, `mmd_penalty`).
pub const IMQ_SCALES: [f64; 7] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// The hidden widths of the paper's MNIST discriminator (authors' `configs.py`).
pub const ADVERSARY_WIDTHS: [usize; 4] = [512; 4];

/// The kind of code: a point or a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncoderKind {
    /// z = E(x).
    #[default]
    Deterministic,
    /// z ~ N(μ(x), diag σ²(x)): the head puts out means, then log-variances. Scores use the mean.
    Gaussian,
}

impl EncoderKind {
    /// Every kind under its name, as `encoder =>` takes it.
    pub(crate) const ALL: [(&'static str, Self); 2] =
        [("deterministic", Self::Deterministic), ("gaussian", Self::Gaussian)];
}

/// The family of the prior P_Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PriorKind {
    /// N(0, σ_z² I).
    #[default]
    Normal,
    /// Uniform on the sphere of radius σ_z; the encoder's output is normalised to it.
    Sphere,
    /// Uniform on [−σ_z, σ_z]^d; the encoder's output is mapped to it by tanh.
    Uniform,
}

impl PriorKind {
    /// Every family under its name, as `prior =>` takes it.
    pub(crate) const ALL: [(&'static str, Self); 3] =
        [("normal", Self::Normal), ("sphere", Self::Sphere), ("uniform", Self::Uniform)];
}

/// The prior P_Z over latent codes, with its scale σ_z in latent units.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prior {
    /// Its family.
    pub kind: PriorKind,
    /// σ_z > 0: it stands in the prior's samples, the kernel's bandwidth, log p(z), KL and the encoder's range alike.
    pub scale: f64,
}

impl Default for Prior {
    fn default() -> Self {
        Self { kind: PriorKind::Normal, scale: 1.0 }
    }
}

impl Prior {
    /// C, the base of every bandwidth: 2·d_z·σ_z² for normal, the expected squared distance of two draws; 2σ_z² for
    /// sphere, the same; d_z·σ_z² for uniform (authors' `wae.py`, `mmd_penalty`).
    pub(crate) fn bandwidth(&self, latent_dim: usize) -> f64 {
        let d = latent_dim as f64;
        let variance = self.scale * self.scale;
        match self.kind {
            PriorKind::Normal => 2.0 * d * variance,
            PriorKind::Sphere => 2.0 * variance,
            PriorKind::Uniform => d * variance,
        }
    }
}

/// The reconstruction cost c(x, G(E(x))) of an image, pixels in [0, 1]: always a sum, never a mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cost {
    /// Σ (x − y)² over pixels and channels.
    #[default]
    Squared,
    /// √(1e-8 + Σ (x − y)²).
    L2,
    /// Σ |x − y|.
    L1,
    /// Σ (x − y)² + ½ DSSIM, the structural dissimilarity of 7×7 neighbourhoods: patterns count beside brightness.
    Structural,
}

impl Cost {
    /// Every cost under its name, as `cost =>` takes it.
    pub(crate) const ALL: [(&'static str, Self); 4] =
        [("squared", Self::Squared), ("l2", Self::L2), ("l1", Self::L1), ("structural", Self::Structural)];

    /// The cost's name, as `cost =>` takes it.
    pub fn name(self) -> &'static str {
        name_of(&Self::ALL, self)
    }

    /// The size of this cost beside the squared cost of a 28×28 image, a factor on λ.
    ///
    /// The authors weigh squared, l2 and l1 by 0.05, 0.2 and 0.02 (`wae.py`, `reconstruction_loss`), so that one λ
    /// serves all three: 1, ¼ and 5/2. A sum grows with the number of pixels, a root with its root. The structural cost
    /// of a reconstructed garment is about four times its squared cost (measured: three on MNIST, five on
    /// Fashion-MNIST).
    fn unit(self, image: ImageShape) -> f64 {
        let pixels = image.len() as f64 / 784.0;
        match self {
            Self::Squared => pixels,
            Self::L2 => 0.25 * pixels.sqrt(),
            Self::L1 => 2.5 * pixels,
            Self::Structural => 4.0 * pixels,
        }
    }
}

/// The kernel of the maximum mean discrepancy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelKind {
    /// Inverse multiquadratics, summed over scales: Σ_s sC / (sC + ‖a − b‖²).
    #[default]
    Imq,
    /// Gaussian: exp(−‖a − b‖² / C).
    Rbf,
}

impl KernelKind {
    /// Every kernel under its name, as `kernel =>` takes it.
    pub(crate) const ALL: [(&'static str, Self); 2] = [("imq", Self::Imq), ("rbf", Self::Rbf)];
}

/// The divergence D_Z between the codes and the prior, and its weight λ ≥ 0, in units of the cost a unit of divergence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Objective {
    /// WAE-MMD (paper, algorithm 2).
    Mmd {
        /// The kernel.
        kernel: KernelKind,
        /// Its bandwidth factors s; unused by the Gaussian kernel.
        scales: Vec<f64>,
        /// λ.
        lambda: f64,
    },
    /// WAE-GAN (paper, algorithm 1): a discriminator tells codes from draws; the divergence is −log D. With the squared
    /// cost it is the adversarial auto-encoder.
    Gan {
        /// The discriminator's hidden widths.
        adversary_widths: Vec<usize>,
        /// Whether log p(z) is added to its logit, so that the network is left with −log q(z).
        log_p: bool,
        /// λ.
        lambda: f64,
    },
    /// The variational auto-encoder with a Gaussian decoder: KL(Q(Z|x), P_Z), mean over images. λ is twice the variance
    /// of the decoder's pixels.
    Vae {
        /// λ.
        lambda: f64,
    },
    /// An auto-encoder: no divergence.
    Ae {},
    /// The sliced 2-Wasserstein distance, squared, over 64 random directions a step.
    Sliced {
        /// λ.
        lambda: f64,
    },
    /// The Sinkhorn divergence of the ground cost ‖a − b‖²/C with ε = 0.05.
    Sinkhorn {
        /// λ.
        lambda: f64,
    },
}

impl Objective {
    /// λ that gives the divergence about the weight that MMD has in the paper's MNIST experiment.
    ///
    /// | objective | λ |
    /// |---|---|
    /// | mmd | 200 · u · 7/k(z, z) |
    /// | gan | 2 · u |
    /// | vae | u at 28×28: a decoder whose pixels have variance ½ |
    /// | sliced | 200 · u / σ_z² |
    /// | sinkhorn | 400 · u |
    /// | ae | 0 |
    ///
    /// Where: 200 is the authors' λ = 10 after their factor of 0.05 on the cost is taken out; u is the size of the cost
    /// beside the squared cost of a 28×28 image, H·W·C/784 for the squared cost; k(z, z) is the kernel's largest value,
    /// 7 for seven IMQ scales and 1 for a Gaussian. Of 1, 2, 5, 20 and 100 for gan, 2 left the codes of Fashion-MNIST
    /// nearest to the prior.
    pub fn auto_lambda(&self, cost: Cost, image: ImageShape, prior: Prior) -> f64 {
        let unit = cost.unit(image);
        match self {
            Self::Mmd { kernel, scales, .. } => {
                let largest = match kernel {
                    KernelKind::Imq => scales.len().max(1) as f64,
                    KernelKind::Rbf => 1.0,
                };
                200.0 * unit * 7.0 / largest
            }
            Self::Gan { .. } => 2.0 * unit,
            Self::Vae { .. } => cost.unit(ImageShape::new(28, 28, 1)),
            Self::Sliced { .. } => 200.0 * unit / (prior.scale * prior.scale),
            Self::Sinkhorn { .. } => 400.0 * unit,
            Self::Ae {} => 0.0,
        }
    }

    /// λ, the weight of the divergence; 0 where there is none.
    pub fn lambda(&self) -> f64 {
        match self {
            Self::Mmd { lambda, .. }
            | Self::Gan { lambda, .. }
            | Self::Vae { lambda }
            | Self::Sliced { lambda }
            | Self::Sinkhorn { lambda } => *lambda,
            Self::Ae {} => 0.0,
        }
    }

    /// The same objective with another λ; `ae` has none.
    pub fn with_lambda(mut self, value: f64) -> Self {
        match &mut self {
            Self::Mmd { lambda, .. }
            | Self::Gan { lambda, .. }
            | Self::Vae { lambda }
            | Self::Sliced { lambda }
            | Self::Sinkhorn { lambda } => *lambda = value,
            Self::Ae {} => {}
        }
        self
    }

    /// The objective's name, as `objective =>` takes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mmd { .. } => "mmd",
            Self::Gan { .. } => "gan",
            Self::Vae { .. } => "vae",
            Self::Ae {} => "ae",
            Self::Sliced { .. } => "sliced",
            Self::Sinkhorn { .. } => "sinkhorn",
        }
    }

    /// The discriminator's hidden widths, where there is one.
    pub(crate) fn adversary_widths(&self) -> Option<&[usize]> {
        match self {
            Self::Gan { adversary_widths, .. } => Some(adversary_widths),
            _ => None,
        }
    }

    /// Checks the objective by itself and with the encoder and prior it stands beside.
    pub(super) fn validate(&self, encoder: EncoderKind, prior: PriorKind) -> Result<()> {
        let lambda = self.lambda();
        if !(0.0..=bounds::LAMBDA).contains(&lambda) {
            return Err(Error::Config(format!("lambda must be a number from 0 to 1e12, got {lambda}")));
        }
        match self {
            Self::Mmd { kernel, scales, .. } => validate_scales(*kernel, scales),
            Self::Gan { adversary_widths, log_p, .. } => {
                within("the number of adversary_widths", adversary_widths.len(), bounds::LAYERS)?;
                for width in adversary_widths {
                    within("a width in adversary_widths", *width, bounds::WIDTH)?;
                }
                if *log_p && prior != PriorKind::Normal {
                    return Err(Error::Config("log_p goes with prior 'normal' only".to_owned()));
                }
                Ok(())
            }
            Self::Vae { .. } if encoder != EncoderKind::Gaussian => {
                Err(Error::Config("objective 'vae' takes encoder 'gaussian', got 'deterministic'".to_owned()))
            }
            Self::Vae { .. } if prior != PriorKind::Normal => {
                Err(Error::Config("objective 'vae' takes prior 'normal' only".to_owned()))
            }
            Self::Vae { .. } | Self::Ae {} | Self::Sliced { .. } | Self::Sinkhorn { .. } => Ok(()),
        }
    }
}

fn validate_scales(kernel: KernelKind, scales: &[f64]) -> Result<()> {
    if kernel == KernelKind::Imq {
        within("the number of scales", scales.len(), bounds::SCALES)?;
    }
    match scales.iter().find(|s| !bounds::SCALE.contains(s)) {
        Some(s) => Err(Error::Config(format!("each of scales must be a number from 1e-6 to 1e6, got {s}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const MNIST: ImageShape = ImageShape::new(28, 28, 1);

    fn mmd(kernel: KernelKind, scales: &[f64]) -> Objective {
        Objective::Mmd { kernel, scales: scales.to_vec(), lambda: 0.0 }
    }

    /// The authors' λ = 10 in each cost's unit: 10/0.05, 10/0.2, 10/0.02.
    #[rstest]
    #[case(Cost::Squared, 200.0)]
    #[case(Cost::L2, 50.0)]
    #[case(Cost::L1, 500.0)]
    fn auto_lambda_is_the_authors_ten(#[case] cost: Cost, #[case] lambda: f64) {
        let objective = mmd(KernelKind::Imq, &IMQ_SCALES);
        assert_eq!(objective.auto_lambda(cost, MNIST, Prior::default()), lambda);
    }

    #[test]
    fn auto_lambda_follows_pixels_and_kernel() {
        let auto = |objective: Objective, image| objective.auto_lambda(Cost::Squared, image, Prior::default());
        assert_eq!(auto(mmd(KernelKind::Rbf, &IMQ_SCALES), MNIST), 1400.0);
        assert_eq!(auto(mmd(KernelKind::Imq, &[1.0]), ImageShape::new(28, 28, 3)), 4200.0);
        assert_eq!(auto(Objective::Vae { lambda: 0.0 }, ImageShape::new(56, 28, 1)), 1.0);
        let wide = Prior { kind: PriorKind::Normal, scale: 2.0 };
        assert_eq!(Objective::Sliced { lambda: 0.0 }.auto_lambda(Cost::Squared, MNIST, wide), 50.0);
    }

    /// σ_z stands in C, and each prior has its own C.
    #[rstest]
    #[case(PriorKind::Normal, 2.0 * 8.0 * 2.25)]
    #[case(PriorKind::Sphere, 2.0 * 2.25)]
    #[case(PriorKind::Uniform, 8.0 * 2.25)]
    fn bandwidths(#[case] kind: PriorKind, #[case] expected: f64) {
        assert_eq!(Prior { kind, scale: 1.5 }.bandwidth(8), expected);
    }

    #[rstest]
    #[case(r#"{"kind": "ae"}"#)]
    #[case(r#"{"kind": "vae", "lambda": 1.0}"#)]
    #[case(r#"{"kind": "gan", "adversary_widths": [512, 512], "log_p": true, "lambda": 20.0}"#)]
    #[case(r#"{"kind": "sliced", "lambda": 200.0}"#)]
    fn json_round_trips(#[case] json: &str) {
        let objective: Objective = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_value(&objective).unwrap(), serde_json::from_str::<serde_json::Value>(json).unwrap());
    }
}
