//! One step on a batch: the objective, its gradient, Adam.

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::config::{Config, EncoderKind, Objective, PriorKind};
use crate::error::{Error, Result};
use crate::model::{CodeMap, Network, truncated_normal};
use crate::objective::cost::CostFunction;
use crate::objective::{adversary, kl, mmd, prior, sinkhorn, sliced};
use crate::ops::{self, Number, Target, Tensor};
use crate::train::codes::Codes;

/// Standard deviations beyond which input noise is drawn again, as TensorFlow's truncated normal does.
const NOISE_LIMIT: f64 = 2.0;

/// What is fixed over a training.
#[derive(Debug)]
pub(super) struct Step {
    config: Config,
    cost: CostFunction,
    codes: CodeMap,
    log_variance_penalty: f64,
    noise: f64,
}

/// The random numbers of a step.
#[derive(Debug, Default)]
pub(super) struct Draws {
    /// Draws from the prior, (n, Z).
    pub(super) prior: Vec<f32>,
    /// Input noise, (n, H, W, C); empty for none.
    pub(super) noise: Vec<f32>,
    /// A Gaussian encoder's e, (n, Z); empty for a deterministic one.
    pub(super) posterior: Vec<f32>,
    /// The sliced distance's directions, (L, Z); empty for other objectives.
    pub(super) directions: Vec<f32>,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Values {
    /// The cost an image.
    pub(super) cost: f64,
    /// The divergence; `None` where the objective has none.
    pub(super) divergence: Option<f64>,
    /// All that is minimised.
    pub(super) loss: f64,
}

impl Values {
    pub(super) fn are_finite(&self) -> bool {
        self.cost.is_finite() && self.loss.is_finite() && self.divergence.is_none_or(f64::is_finite)
    }
}

/// What a step comes to. A GPU may still be computing it.
#[derive(Debug)]
pub(super) struct Pending {
    cost: Number,
    divergence: Option<Number>,
    lambda: f64,
    /// The weighted penalty.
    penalty: f64,
}

impl Pending {
    /// The values, once they are there.
    pub(super) fn read(&self) -> Result<Values> {
        let (cost, divergence) = (self.cost.read()?, self.divergence.as_ref().map(Number::read).transpose()?);
        Ok(Values { cost, divergence, loss: cost + self.lambda * divergence.unwrap_or(0.0) + self.penalty })
    }

    /// Whether a value that is there already is not finite.
    fn has_diverged(&self) -> bool {
        let known = [self.cost.known(), self.divergence.as_ref().and_then(Number::known), Some(self.penalty)];
        known.into_iter().flatten().any(|value| !value.is_finite())
    }
}

/// A divergence with its gradients, before λ.
#[derive(Debug, Default)]
struct Divergence {
    value: Option<Number>,
    /// By the codes, (n, Z).
    by_code: Option<Tensor>,
    /// By the head's output, (n, 2Z).
    by_head: Option<Vec<f32>>,
}

impl Step {
    pub(super) fn new(config: Config, noise: f64, log_variance_penalty: f64) -> Self {
        let (cost, codes) = (CostFunction::of(&config), CodeMap::of(&config));
        Self { config, cost, codes, log_variance_penalty, noise }
    }

    /// The random numbers of a step on `rows` images.
    pub(super) fn draw(&self, rows: usize, generators: &mut Generators) -> Draws {
        let (dim, pixels) = (self.config.latent_dim(), self.config.image().len());
        let mut noise = |_| (self.noise * truncated_normal(NOISE_LIMIT, &mut generators.noise)) as f32;
        let noise = if self.noise > 0.0 { (0..rows * pixels).map(&mut noise).collect() } else { Vec::new() };
        let posterior = match self.config.encoder() {
            EncoderKind::Deterministic => Vec::new(),
            EncoderKind::Gaussian => {
                (0..rows * dim).map(|_| StandardNormal.sample(&mut generators.posterior)).collect()
            }
        };
        let directions = match self.config.objective() {
            Objective::Sliced { .. } => sliced::directions(dim, &mut generators.directions),
            _ => Vec::new(),
        };
        let prior = prior::sample_with(self.config.prior(), rows, dim, &mut generators.prior);
        Draws { prior, noise, posterior, directions }
    }

    /// Forward, the objective and its gradient, backward, Adam; for WAE-GAN then a step of the discriminator on the same
    /// codes. Where a value that is known by then is not finite, the weights are left as they were.
    pub(super) fn run(
        &self,
        network: &mut Network,
        images: &Tensor,
        draws: &Draws,
        lambda: f64,
        rates: Rates,
    ) -> Result<Pending> {
        let (pending, codes) = self.gradients(network, images, draws, lambda)?;
        if !pending.has_diverged() {
            network.step(rates.network)?;
            if matches!(self.config.objective(), Objective::Gan { .. }) {
                self.discriminator_gradients(network, &codes.values()?, &draws.prior)?;
                network.step_adversary(rates.adversary)?;
            }
        }
        Ok(pending)
    }

    /// The objective on a batch, with its gradients left in the network, and the codes.
    pub(super) fn gradients(
        &self,
        network: &mut Network,
        images: &Tensor,
        draws: &Draws,
        lambda: f64,
    ) -> Result<(Pending, Codes)> {
        let target = network.target().clone();
        let noisy = self.noisy(images, draws, &target)?;
        let head = network.encode(&noisy)?; // (N, Z) or (N, 2Z)
        let codes = Codes::new(&self.codes, head, &draws.posterior, &target)?;
        let reconstructions = network.decode(codes.tensor())?; // (N, H, W, C)
        // Noise is the encoder's alone: the image to rebuild is the clean one.
        let (cost, by_image) = ops::cost(&self.cost, images, &reconstructions)?;
        let divergence = self.divergence(network, &codes, draws)?;
        let (penalty, by_penalty) = self.penalty(&codes)?;

        let mut by_code = network.decode_backward(by_image)?; // (N, Z)
        if let Some(term) = &divergence.by_code {
            by_code = ops::add_scaled(&by_code, lambda, term)?;
        }
        let weighted =
            |gradient: Vec<f32>, weight: f64| -> Vec<f32> { gradient.into_iter().map(|g| g * weight as f32).collect() };
        // A VAE has no penalty.
        let by_head = match divergence.by_head {
            Some(gradient) => Some(weighted(gradient, lambda)),
            None => by_penalty.map(|gradient| weighted(gradient, self.log_variance_penalty)),
        };
        let gradient = codes.backward(&self.codes, &draws.posterior, by_code, by_head, &target)?;
        network.encode_backward(gradient)?;

        let penalty = self.log_variance_penalty * penalty;
        Ok((Pending { cost, divergence: divergence.value, lambda, penalty }, codes))
    }

    fn noisy(&self, images: &Tensor, draws: &Draws, target: &Target) -> Result<Tensor> {
        if draws.noise.is_empty() {
            return Ok(images.clone());
        }
        ops::add_scaled(images, 1.0, &target.tensor(&draws.noise, images.dims())?)
    }

    fn divergence(&self, network: &mut Network, codes: &Codes, draws: &Draws) -> Result<Divergence> {
        let (p, dim, shape) = (draws.prior.as_slice(), self.config.latent_dim(), codes.tensor().dims());
        let of_codes = |network: &Network, (value, gradient)| {
            let by_code = Some(network.target().tensor(gradient, shape)?);
            Ok(Divergence { value: Some(Number::Known(value)), by_code, by_head: None })
        };
        match self.config.objective() {
            Objective::Mmd { .. } => {
                let both = ops::mmd(&mmd::Kernel::of(&self.config), codes.tensor(), p, dim)?;
                let none = || Error::Training("a batch of 1 row has no divergence".to_owned());
                let (value, gradient) = both.ok_or_else(none)?;
                Ok(Divergence { value: Some(value), by_code: Some(gradient), by_head: None })
            }
            Objective::Sliced { .. } => {
                of_codes(network, sliced::value_and_gradient(&codes.values()?, p, dim, &draws.directions))
            }
            Objective::Sinkhorn { .. } => {
                let bandwidth = self.config.prior().bandwidth(dim);
                of_codes(network, sinkhorn::value_and_gradient(&codes.values()?, p, dim, bandwidth))
            }
            Objective::Gan { .. } => {
                let q = codes.values()?;
                let (value, by_logit) = adversary::encoder_loss(&self.logits(network, &q)?);
                let gradient = self.logits_backward(network, &q, by_logit)?;
                of_codes(network, (value, gradient))
            }
            Objective::Vae { .. } => {
                let (value, gradient) = kl::divergence(codes.gaussian_head()?, dim, self.config.prior().scale);
                Ok(Divergence { value: Some(Number::Known(value)), by_code: None, by_head: Some(gradient) })
            }
            Objective::Ae {} => Ok(Divergence::default()),
        }
    }

    /// What keeps a Gaussian encoder's variances from vanishing where the divergence does not.
    fn penalty(&self, codes: &Codes) -> Result<(f64, Option<Vec<f32>>)> {
        let is_vae = matches!(self.config.objective(), Objective::Vae { .. });
        if self.config.encoder() == EncoderKind::Deterministic || is_vae {
            return Ok((0.0, None));
        }
        let (value, gradient) = kl::penalty(codes.gaussian_head()?, self.config.latent_dim());
        Ok((value, Some(gradient)))
    }

    /// The discriminator's logits, with log p(z) where the objective says so.
    pub(super) fn logits(&self, network: &mut Network, codes: &[f32]) -> Result<Vec<f32>> {
        let dim = self.config.latent_dim();
        let codes_on_target = network.target().tensor(codes, &[codes.len() / dim, dim])?;
        let mut logits = network.logits(&codes_on_target)?;
        if let Some(scale) = self.log_p_scale() {
            let densities = adversary::log_density(codes, dim, scale);
            logits.iter_mut().zip(densities).for_each(|(t, log_p)| *t += log_p);
        }
        Ok(logits)
    }

    /// The gradient by the codes from the one by their logits.
    fn logits_backward(&self, network: &mut Network, codes: &[f32], by_logit: Vec<f32>) -> Result<Vec<f32>> {
        let gradient = network.logits_backward(by_logit.clone())?;
        let mut gradient = ops::with_values(&gradient, <[f32]>::to_vec)?;
        if let Some(scale) = self.log_p_scale() {
            // ∂ log p(z)/∂z = −z/σ².
            let (dim, variance) = (self.config.latent_dim(), (scale * scale) as f32);
            let rows = gradient.chunks_exact_mut(dim).zip(codes.chunks_exact(dim)).zip(by_logit);
            rows.for_each(|((g, z), by_logit)| g.iter_mut().zip(z).for_each(|(g, z)| *g -= by_logit * z / variance));
        }
        Ok(gradient)
    }

    fn log_p_scale(&self) -> Option<f64> {
        let prior = self.config.prior();
        match self.config.objective() {
            Objective::Gan { log_p: true, .. } if prior.kind == PriorKind::Normal => Some(prior.scale),
            _ => None,
        }
    }

    /// What the discriminator minimises on codes and draws, with its gradients left in the network.
    pub(super) fn discriminator_gradients(&self, network: &mut Network, q: &[f32], p: &[f32]) -> Result<f64> {
        let both: Vec<f32> = q.iter().chain(p).copied().collect();
        let logits = self.logits(network, &both)?;
        let (of_codes, of_draws) = logits.split_at(q.len() / self.config.latent_dim());
        let (value, gradient) = adversary::discriminator_loss(of_codes, of_draws);
        network.logits_backward(gradient)?;
        Ok(value)
    }

    /// The divergence of codes in scoring mode from draws, for a report: codes and draws (n, Z), the head's output for `vae`.
    pub(super) fn evaluate(&self, network: &mut Network, head: Vec<f32>, draws: &Draws) -> Result<Option<f64>> {
        let (dim, p) = (self.config.latent_dim(), draws.prior.as_slice());
        if let Objective::Vae { .. } = self.config.objective() {
            let head = self.codes.clipped(head);
            return Ok(Some(kl::divergence(&head, dim, self.config.prior().scale).0));
        }
        let q = self.codes.deterministic(head);
        Ok(match self.config.objective() {
            Objective::Mmd { .. } => mmd::value(&mmd::Kernel::of(&self.config), &q, p, dim),
            Objective::Sliced { .. } => Some(sliced::value_and_gradient(&q, p, dim, &draws.directions).0),
            Objective::Sinkhorn { .. } => Some(sinkhorn::value(&q, p, dim, self.config.prior().bandwidth(dim))),
            Objective::Gan { .. } => Some(adversary::encoder_loss(&self.logits(network, &q)?).0),
            Objective::Vae { .. } | Objective::Ae {} => None,
        })
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
}
