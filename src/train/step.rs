//! One step on a batch: the objective, its gradient, Adam.

use candle_core::{DType, Device, Var};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::config::{Config, EncoderKind, Objective};
use crate::error::{Error, Result};
use crate::model::{CodeMap, Codes, TrainingNetwork, truncated_normal};
use crate::objective::cost::CostFunction;
use crate::objective::{kl, mmd, prior, sinkhorn, sliced, widest};
use crate::ops::{Target, Tensor, to_vec};

/// Standard deviations beyond which input noise is drawn again, as TensorFlow's truncated normal does.
const NOISE_LIMIT: f64 = 2.0;

/// The parts of a training step that do not change between steps.
#[derive(Debug)]
pub(super) struct Step {
    config: Config,
    cost: CostFunction,
    codes: CodeMap,
    log_variance_penalty: f64,
    noise: f64,
}

/// The random numbers of a step, on the network's device.
#[derive(Debug)]
pub(super) struct Draws {
    /// Draws from the prior, (n, Z).
    pub(super) prior: Tensor,
    /// Input noise, (n, H, W, C), if there is any.
    pub(super) noise: Option<Tensor>,
    /// A Gaussian encoder's e, (n, Z).
    pub(super) posterior: Option<Tensor>,
    /// The sliced distance's directions, (L, Z).
    pub(super) directions: Option<Tensor>,
}

impl Draws {
    /// Draws from the prior alone, (n, Z).
    pub(super) fn of_prior(prior: Vec<f32>, dim: usize, target: &Target) -> Result<Self> {
        let rows = prior.len() / dim;
        let prior = target.tensor(prior, &[rows, dim])?;
        Ok(Self { prior, noise: None, posterior: None, directions: None })
    }
}

/// The terms of a step's loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Losses {
    /// The cost an image.
    pub(super) cost: f64,
    /// The divergence; `None` where the objective has none.
    pub(super) divergence: Option<f64>,
    /// The whole loss, which is minimised.
    pub(super) loss: f64,
}

impl Losses {
    pub(super) fn are_finite(&self) -> bool {
        self.cost.is_finite() && self.loss.is_finite() && self.divergence.is_none_or(f64::is_finite)
    }
}

/// The terms of a step's loss as scalars that a GPU may still be computing.
#[derive(Debug)]
pub(super) struct PendingLosses {
    cost: Tensor,
    divergence: Option<Tensor>,
    lambda: f64,
    /// The weighted penalty.
    penalty: Option<Tensor>,
}

impl PendingLosses {
    /// The numbers. This waits for a GPU.
    pub(super) fn read(&self) -> Result<Losses> {
        let cost = number(&self.cost)?;
        let divergence = self.divergence.as_ref().map(number).transpose()?;
        let penalty = self.penalty.as_ref().map(number).transpose()?;
        let loss = cost + self.lambda * divergence.unwrap_or(0.0) + penalty.unwrap_or(0.0);
        Ok(Losses { cost, divergence, loss })
    }
}

/// The number that a scalar tensor holds.
pub(super) fn number(scalar: &Tensor) -> Result<f64> {
    // Converted on the CPU: Metal has no f64.
    Ok(scalar.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar()?)
}

impl Step {
    pub(super) fn new(config: Config, noise: f64, log_variance_penalty: f64) -> Self {
        let cost = CostFunction::of(&config);
        let codes = CodeMap::of(&config);
        Self { config, cost, codes, log_variance_penalty, noise }
    }

    /// The random numbers of a step on `rows` images.
    pub(super) fn draw(&self, rows: usize, generators: &mut Generators, target: &Target) -> Result<Draws> {
        let dim = self.config.latent_dim();
        let image = self.config.image();
        let noise = (self.noise > 0.0).then(|| {
            let mut draw = || (self.noise * truncated_normal(NOISE_LIMIT, &mut generators.noise)) as f32;
            let values = (0..rows * image.len()).map(|_| draw()).collect();
            target.tensor(values, &[rows, image.height(), image.width(), image.channels()])
        });
        let posterior = (self.config.encoder() == EncoderKind::Gaussian).then(|| {
            let values = (0..rows * dim).map(|_| StandardNormal.sample(&mut generators.posterior)).collect();
            target.tensor(values, &[rows, dim])
        });
        let directions = matches!(self.config.objective(), Objective::Sliced { .. }).then(|| {
            let values = sliced::directions(dim, &mut generators.directions);
            target.tensor(values, &[sliced::DIRECTIONS, dim])
        });
        let prior = prior::sample_with(self.config.prior(), rows, dim, &mut generators.prior);
        Ok(Draws {
            prior: target.tensor(prior, &[rows, dim])?,
            noise: noise.transpose()?,
            posterior: posterior.transpose()?,
            directions: directions.transpose()?,
        })
    }

    /// Forward, the objective and its gradient, backward, Adam; for WAE-GAN then a step of the discriminator on the
    /// same codes. On the CPU, weights are left as they were where the loss is not finite.
    pub(super) fn run(
        &self,
        network: &mut TrainingNetwork,
        images: &Tensor,
        draws: &Draws,
        lambda: f64,
        rates: Rates,
    ) -> Result<PendingLosses> {
        let (pending, codes) = self.gradients(network, images, draws, lambda)?;
        if network.target().device().is_cpu() && !pending.read()?.are_finite() {
            return Ok(pending);
        }
        network.step(rates.network)?;
        if matches!(self.config.objective(), Objective::Gan { .. }) {
            network.step_adversary(&codes, &draws.prior, rates.adversary)?;
        }
        Ok(pending)
    }

    /// The objective on a batch, with its gradients left in the network, and the codes, (n, Z).
    ///
    /// The network goes forward and backward by itself; between the encoder's head and the codes lies a graph of
    /// candle's:
    ///
    /// ```text
    /// ∂L/∂head = ∂/∂head [⟨∂cost/∂codes, codes⟩ + λ · divergence(codes) + penalty]
    /// ```
    ///
    /// Where: ∂cost/∂codes, the result of the decoder's backward pass, is held constant.
    pub(super) fn gradients(
        &self,
        network: &mut TrainingNetwork,
        images: &Tensor,
        draws: &Draws,
        lambda: f64,
    ) -> Result<(PendingLosses, Tensor)> {
        let noisy = match &draws.noise {
            Some(noise) => images.add(noise)?,
            None => images.clone(),
        };
        let head = Var::from_tensor(&network.encode(&noisy)?)?; // (N, Z) or (N, 2Z)
        let codes = self.codes.codes(&head, draws.posterior.as_ref())?;
        let values = codes.codes.detach(); // (N, Z)
        let reconstructions = network.decode(&values)?; // (N, H, W, C)
        // Noise is the encoder's alone: the image to rebuild is the clean one.
        let (cost, by_image) = network.target().operations().pointwise.cost(&self.cost, images, &reconstructions)?;
        let divergence = self.divergence(network, &codes, draws)?;
        let penalty = self.penalty(&codes)?;

        let by_code = network.decode_backward(by_image)?; // (N, Z)
        let mut objective = widest(&codes.codes.mul(&by_code)?.sum_all()?)?;
        if let Some(divergence) = &divergence {
            objective = (objective + divergence.affine(lambda, 0.0)?)?;
        }
        if let Some(penalty) = &penalty {
            objective = (objective + penalty)?;
        }
        let gradients = objective.backward()?;
        let by_head = gradients.get(&head).ok_or_else(|| Error::Training("the codes gave no gradient".to_owned()))?;
        network.encode_backward(by_head.contiguous()?)?;

        let [divergence, penalty] = [divergence, penalty].map(|term| term.map(|term| term.detach()));
        Ok((PendingLosses { cost, divergence, lambda, penalty }, values))
    }

    /// D_Z of codes from draws, a scalar of which candle knows the gradient; `None` for `ae`.
    ///
    /// An objective on codes is a line here, and a file in `objective/`.
    fn divergence(&self, network: &TrainingNetwork, codes: &Codes, draws: &Draws) -> Result<Option<Tensor>> {
        let q = &codes.codes;
        let p = &draws.prior;
        let prior = self.config.prior();
        let missing = |what: &str| Error::Training(format!("the objective has no {what}"));
        Ok(Some(match self.config.objective() {
            Objective::Mmd { .. } => mmd::divergence(&mmd::Kernel::of(&self.config), q, p)?
                .ok_or_else(|| Error::Training("a batch of 1 row has no divergence".to_owned()))?,
            Objective::Sliced { .. } => {
                sliced::distance(q, p, draws.directions.as_ref().ok_or_else(|| missing("directions"))?)?
            }
            Objective::Sinkhorn { .. } => sinkhorn::divergence(q, p, prior.bandwidth(self.config.latent_dim()))?,
            Objective::Gan { .. } => network.adversary_loss(q)?,
            Objective::Vae { .. } => {
                let gaussian = codes.gaussian.as_ref().ok_or_else(|| missing("Gaussian encoder"))?;
                kl::divergence(&gaussian.means, &gaussian.log_variances, prior.scale)?
            }
            Objective::Ae {} => return Ok(None),
        }))
    }

    /// The weighted penalty that keeps a Gaussian encoder's variances from vanishing where the divergence does not.
    fn penalty(&self, codes: &Codes) -> Result<Option<Tensor>> {
        let is_vae = matches!(self.config.objective(), Objective::Vae { .. });
        match &codes.gaussian {
            Some(gaussian) if !is_vae => {
                Ok(Some(kl::penalty(&gaussian.log_variances)?.affine(self.log_variance_penalty, 0.0)?))
            }
            _ => Ok(None),
        }
    }

    /// The divergence of codes in scoring mode from draws, for a report, from the head's output, (n, Z) or (n, 2Z).
    pub(super) fn evaluate(&self, network: &TrainingNetwork, head: Vec<f32>, draws: &Draws) -> Result<Option<f64>> {
        let rows = draws.prior.dim(0)?;
        let width = head.len() / rows.max(1);
        let head = network.target().tensor(head, &[rows, width])?;
        let codes = self.codes.codes(&head, None)?;
        if let Objective::Mmd { .. } = self.config.objective() {
            // There are more rows than in a step: this uses all of the CPU's threads, and memory for a row each.
            let q = to_vec(&codes.codes)?;
            let p = to_vec(&draws.prior)?;
            return Ok(mmd::value(&mmd::Kernel::of(&self.config), &q, &p, self.config.latent_dim()));
        }
        self.divergence(network, &codes, draws)?.as_ref().map(number).transpose()
    }
}

/// The learning rates of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    pub(super) network: f64,
    pub(super) adversary: f64,
}

/// A stream of random numbers for each purpose.
#[derive(Debug)]
pub(super) struct Generators {
    pub(super) prior: ChaCha8Rng,
    pub(super) noise: ChaCha8Rng,
    pub(super) posterior: ChaCha8Rng,
    pub(super) directions: ChaCha8Rng,
    pub(super) augmentation: ChaCha8Rng,
}
