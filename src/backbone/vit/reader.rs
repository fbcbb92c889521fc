//! The parts of a ViT, read from a checkpoint.

use super::{Block, MAX_TOKENS};
use crate::backbone::layers::{check_channels, check_finite, ordered};
use crate::backbone::names::Naming;
use crate::backbone::weights::Parameters;
use crate::error::{Error, Result};
use crate::kernels::Nonlinearity;
use crate::ops::Target;
use crate::ops::frozen::{FrozenConvolution, FrozenLayerNorm, Padding, Window};

/// The most registers; published networks have 4 or 8.
const MAX_REGISTERS: usize = 64;

/// Reads the parts of a ViT.
pub(super) struct Reader<'a> {
    pub(super) target: &'a Target,
    pub(super) parameters: Parameters<'a>,
    pub(super) width: usize,
    pub(super) epsilon: f64,
    pub(super) names: Naming,
}

impl Reader<'_> {
    /// The layer from patches to tokens.
    pub(super) fn patches(&self, side: usize) -> Result<FrozenConvolution> {
        let width = self.width;
        let weights = self.parameters.take("patch_embed.proj.weight", &[width, 3, side, side])?;
        let bias = self.parameters.take_if_there("patch_embed.proj.bias", &[width])?;
        let weights = ordered(&weights, 3, width, side, |_| 1.0);
        let window = Window { kernel: side, stride: side, padding: Padding::None };
        let shift = bias.unwrap_or_else(|| vec![0.0; width]);
        FrozenConvolution::try_new(self.target, window, weights, shift, Nonlinearity::Identity)
    }

    /// The tokens before the patches, with their positions; the patches' positions; and the side of their grid.
    pub(super) fn positions(&self) -> Result<(Vec<Vec<f32>>, Vec<f32>, usize)> {
        let weights = self.parameters.weights();
        let width = self.width;
        let count = |name: &str| -> Result<usize> {
            match *weights.shape(name)? {
                [1, count, _] => Ok(count),
                ref other => Err(Error::model_tensor(name, format!("has shape {other:?}, expected [1, n, {width}]"))),
            }
        };
        let mut prefix = vec![self.parameters.take("cls_token", &[1, 1, width])?];
        if weights.has("reg_token") {
            let registers = count("reg_token")?;
            if registers > MAX_REGISTERS {
                let problem = format!("has {registers} registers, expected at most {MAX_REGISTERS}");
                return Err(Error::model_tensor("reg_token", problem));
            }
            let values = self.parameters.take("reg_token", &[1, registers, width])?;
            prefix.extend(values.chunks_exact(width).map(<[f32]>::to_vec));
        }
        let all = count("pos_embed")?;
        let positions = self.parameters.take("pos_embed", &[1, all, width])?;
        // Tokens with a position: all of timm's prefix or none of it, the class alone in transformers.
        let placed = match self.names {
            Naming::HuggingFace => 1,
            Naming::Timm if all >= prefix.len() && is_square(all - prefix.len()) => prefix.len(),
            Naming::Timm => 0,
        };
        let patches = all.saturating_sub(placed);
        if !is_square(patches) || !(1..=MAX_TOKENS).contains(&patches) {
            let problem = format!(
                "has {all} positions, expected a square of 1 to {MAX_TOKENS} patches and at most {placed} before"
            );
            return Err(Error::model_tensor("pos_embed", problem));
        }
        for (token, position) in prefix.iter_mut().zip(positions.chunks_exact(width)).take(placed) {
            token.iter_mut().zip(position).for_each(|(v, p)| *v += p);
        }
        Ok((prefix, positions[placed * width..].to_vec(), patches.isqrt()))
    }

    pub(super) fn norm(&self, name: &str) -> Result<FrozenLayerNorm> {
        let gamma = self.parameters.take(&format!("{name}.weight"), &[self.width])?;
        let beta = self.parameters.take(&format!("{name}.bias"), &[self.width])?;
        FrozenLayerNorm::try_new(self.target, gamma, beta, self.epsilon)
    }

    pub(super) fn block(&self, i: usize) -> Result<Block> {
        let part = |part: &str| format!("blocks.{i}.{part}");
        let width = self.width;
        let hidden = self.parameters.weights().shape(&part("mlp.fc1.weight"))?.first().copied().unwrap_or(0);
        check_channels(&part("mlp.fc1.weight"), hidden)?;
        let queries = [part("attn.query"), part("attn.key"), part("attn.value")];
        let joined = [part("attn.qkv")];
        let is_joined = self.parameters.weights().has(&format!("{}.weight", joined[0]));
        let qkv: &[String] = if is_joined { &joined } else { &queries };
        let identity = Nonlinearity::Identity;
        Ok(Block {
            norm1: self.norm(&part("norm1"))?,
            qkv: self.dense(qkv, width, 3 * width, None, identity)?,
            project: self.dense(&[part("attn.proj")], width, width, Some(part("ls1.gamma")), identity)?,
            norm2: self.norm(&part("norm2"))?,
            fc1: self.dense(&[part("mlp.fc1")], width, hidden, None, Nonlinearity::Gelu)?,
            fc2: self.dense(&[part("mlp.fc2")], hidden, width, Some(part("ls2.gamma")), identity)?,
        })
    }

    /// A dense layer whose outputs may be split over several tensors, scaled by `gamma` if there is such a tensor.
    fn dense(
        &self,
        names: &[String],
        inputs: usize,
        outputs: usize,
        gamma: Option<String>,
        function: Nonlinearity,
    ) -> Result<FrozenConvolution> {
        let each = outputs / names.len();
        let mut weights = Vec::with_capacity(inputs * outputs);
        let mut shift = Vec::with_capacity(outputs);
        for name in names {
            weights.extend(self.parameters.take(&format!("{name}.weight"), &[each, inputs])?);
            let bias = self.parameters.take_if_there(&format!("{name}.bias"), &[each])?;
            shift.extend(bias.unwrap_or_else(|| vec![0.0; each]));
        }
        let gamma = gamma.map(|name| self.parameters.take_if_there(&name, &[outputs])).transpose()?.flatten();
        let scale = |output: usize| gamma.as_ref().map_or(1.0, |gamma| gamma[output]);
        shift.iter_mut().enumerate().for_each(|(output, shift)| *shift *= scale(output));
        let weights = ordered(&weights, inputs, outputs, 1, scale);
        check_finite(&names[0], &weights)?;
        check_finite(&names[0], &shift)?;
        FrozenConvolution::try_new(self.target, Window::POINT, weights, shift, function)
    }
}

fn is_square(number: usize) -> bool {
    number.isqrt().pow(2) == number
}
