//! ViT (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929) and DINOv2 (Oquab et al., TMLR 2024, arXiv 2304.07193), with
//! registers or without.
//!
//! ```text
//! tokens: class, registers, patches + positions
//! block:  x ← x + γ₁·attention(norm(x));  x ← x + γ₂·W₂ GELU(W₁ norm(x))
//! layers: blocks.i, patches' tokens behind block i; tokens and cls, the last block's, normed
//! ```
//!
//! Images may have any size that patches divide: positions are interpolated as timm does it for its names, and as
//! transformers does for its own. γ is folded into the weights before it.

mod reader;

use self::reader::Reader;
use super::FeatureShape;
use super::architecture::BackboneArchitecture;
use super::family::{Family, FrozenNetwork, Kept, number_behind, starts_with_one};
use super::layers::check_channels;
use super::names::Naming;
use super::positions::{Interpolation, interpolated};
use super::weights::PretrainedWeights;
use crate::error::{Error, Result};
use crate::ops::frozen::{FrozenConvolution, FrozenLayerNorm, attention};
use crate::ops::{Target, Tensor};
use crate::shape::ImageShape;

pub(super) const FAMILY: Family = Family {
    name: "ViT",
    is_one: |weights| weights.has("patch_embed.proj.weight") && weights.has_prefix("blocks.0.attn."),
    is_architecture: |name| name.starts_with("vit_") || name.starts_with("deit"),
    model_types: &["vit", "dinov2", "dinov2_with_registers"],
    architecture,
};

/// Tensors behind the layers, and the token of masked patches, which only training has.
const UNUSED: [&str; 5] = ["head.", "classifier.", "pooler.", "mask_token", "head_dist."];
/// ε of timm's norms.
const EPSILON: f64 = 1e-6;
/// Widths of timm's ViTs whose heads have 64 values each.
const WIDTHS: [usize; 4] = [192, 384, 768, 1024];
/// The most tokens of an image: attention takes the square of them.
const MAX_TOKENS: usize = 1 << 14;
/// The largest side of a patch.
const MAX_PATCH: usize = 64;

#[derive(Debug)]
pub(super) struct Vit {
    patch: FrozenConvolution,
    /// Class and registers with their positions, (tokens, C).
    prefix: Tensor,
    /// The patches' positions on the grid of the training, and its side.
    positions: Vec<f32>,
    side: usize,
    interpolation: Interpolation,
    blocks: Vec<Block>,
    /// That of the last block's tokens; none of a part of a network.
    norm: Option<FrozenLayerNorm>,
    heads: usize,
}

#[derive(Debug)]
struct Block {
    norm1: FrozenLayerNorm,
    qkv: FrozenConvolution,
    project: FrozenConvolution,
    norm2: FrozenLayerNorm,
    fc1: FrozenConvolution,
    fc2: FrozenConvolution,
}

impl Vit {
    /// Builds the network of so many heads, with this ε in its norms.
    pub(super) fn try_new(
        weights: &PretrainedWeights,
        (heads, epsilon): (usize, f64),
        names: Naming,
        target: &Target,
    ) -> Result<Self> {
        let (patch, width) = patch_and_width(weights)?;
        check_heads(weights, heads, width)?;
        let reader = Reader { target, parameters: weights.parameters(), width, epsilon, names };
        let embedding = reader.patches(patch)?;
        let (prefix, positions, side) = reader.positions()?;
        let blocks = (0..weights.count("blocks.")).map(|i| reader.block(i)).collect::<Result<Vec<_>>>()?;
        let norm = if weights.ends_before("norm.") { None } else { Some(reader.norm("norm")?) };
        reader.parameters.finish("a ViT", &UNUSED)?;
        let has_registers = weights.has("reg_token");
        let is_plain = names == Naming::HuggingFace && !has_registers;
        Ok(Self {
            patch: embedding,
            prefix: target.tensor(prefix.concat(), &[prefix.len(), width])?,
            positions,
            side,
            interpolation: if is_plain { Interpolation::Plain } else { Interpolation::Antialiased },
            blocks,
            norm,
            heads,
        })
    }

    fn patch_side(&self) -> usize {
        self.patch.window().kernel
    }

    /// Rows and columns of patches.
    fn grid(&self, (height, width): (usize, usize)) -> (usize, usize) {
        (height / self.patch_side(), width / self.patch_side())
    }

    /// The patches' tokens of all tokens, as a map, (N, h, w, C).
    fn map(&self, tokens: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
        let (images, _, channels) = tokens.dims3()?;
        let patches = tokens.narrow(1, self.prefix.dim(0)?, height * width)?.contiguous()?;
        Ok(patches.reshape((images, height, width, channels))?)
    }
}

/// The side of a patch and the values of a token.
fn patch_and_width(weights: &PretrainedWeights) -> Result<(usize, usize)> {
    const NAME: &str = "patch_embed.proj.weight";
    match *weights.shape(NAME)? {
        [width, 3, side, other] if side == other && (1..=MAX_PATCH).contains(&side) => {
            check_channels(NAME, width)?;
            Ok((side, width))
        }
        ref shape => {
            Err(Error::model_tensor(NAME, format!("has shape {shape:?}, expected [C, 3, p, p], p ≤ {MAX_PATCH}")))
        }
    }
}

/// Refuses heads that do not divide the values of a token.
fn check_heads(weights: &PretrainedWeights, heads: usize, width: usize) -> Result<()> {
    if heads > 0 && width.is_multiple_of(heads) {
        return Ok(());
    }
    let name = weights.name();
    Err(Error::Model(format!("weights '{name}': {heads} heads do not divide tokens of {width} values")))
}

/// Heads, and ε of the norms, which no tensor shows.
fn architecture(weights: &PretrainedWeights) -> Result<BackboneArchitecture> {
    let (_, width) = patch_and_width(weights)?;
    let config = weights.config();
    let name = weights.name();
    let refused = |problem: String| Error::Model(format!("weights '{name}': {problem}"));
    let function = config.text("hidden_act")?.unwrap_or("gelu");
    if function != "gelu" || config.is_true("use_swiglu_ffn")? {
        return Err(refused(format!("config.json has hidden_act '{function}' or SwiGLU, expected 'gelu' without")));
    }
    let (heads, epsilon) = match weights.naming() {
        Naming::HuggingFace => (config.count("num_attention_heads")?, config.fraction("layer_norm_eps")?),
        Naming::Timm => {
            // All of timm's of these widths have heads of 64 values; other libraries have others under the same names.
            let usual = (config.architecture().is_some() && WIDTHS.contains(&width)).then_some(width / 64);
            (config.count("num_heads")?.or(usual), Some(EPSILON))
        }
    };
    match (heads, epsilon) {
        (Some(heads), Some(epsilon)) => Ok(BackboneArchitecture::Vit { heads, epsilon, names: weights.naming() }),
        _ => Err(refused(
            "a ViT needs its config.json, with 'num_attention_heads' and 'layer_norm_eps' of transformers or \
             'num_heads' among timm's 'model_args': no tensor says how many heads there are"
                .to_owned(),
        )),
    }
}

impl Block {
    fn apply(&self, target: &Target, x: &Tensor, heads: usize) -> Result<Tensor> {
        let qkv = self.qkv.apply(target, &self.norm1.apply(target, x)?, None)?;
        let x = self.project.apply(target, &attention(target, &qkv, heads)?, Some(x))?;
        let hidden = self.fc1.apply(target, &self.norm2.apply(target, &x)?, None)?;
        self.fc2.apply(target, &hidden, Some(&x))
    }

    fn memory(&self) -> usize {
        [&self.qkv, &self.project, &self.fc1, &self.fc2].into_iter().map(FrozenConvolution::memory).sum()
    }
}

impl FrozenNetwork for Vit {
    fn layers(&self) -> Vec<String> {
        let blocks = (0..self.blocks.len()).map(|i| format!("blocks.{i}"));
        let normed = self.norm.iter().flat_map(|_| ["tokens".to_owned(), "cls".to_owned()]);
        blocks.chain(normed).collect()
    }

    fn default_layers(&self) -> &'static str {
        "tokens"
    }

    fn check_size(&self, (height, width): (usize, usize)) -> Result<()> {
        let side = self.patch_side();
        if !height.is_multiple_of(side) || !width.is_multiple_of(side) {
            let near = |size: usize| ((size + side / 2) / side).max(1) * side;
            return Err(Error::Config(format!(
                "images of {height} × {width} are no whole patches of {side} × {side}, expected a size such as {} × {}",
                near(height),
                near(width)
            )));
        }
        let tokens = height / side * (width / side);
        if tokens > MAX_TOKENS {
            let problem = format!("images of {height} × {width} have {tokens} patches, expected at most {MAX_TOKENS}");
            return Err(Error::Config(problem));
        }
        Ok(())
    }

    fn shape_of(&self, layer: usize, size: (usize, usize)) -> FeatureShape {
        let (height, width) = self.grid(size);
        let channels = self.patch.outputs();
        if layer > self.blocks.len() {
            return FeatureShape::Vector(channels);
        }
        FeatureShape::Map(ImageShape::new(height, width, channels))
    }

    fn values_at_work(&self, size: (usize, usize)) -> usize {
        let (height, width) = self.grid(size);
        let tokens = height * width + self.prefix.dims().first().copied().unwrap_or(1);
        let hidden = self.blocks.iter().map(|block| block.fc1.outputs()).max().unwrap_or(0);
        // Queries, keys and values, once more by heads, beside the scores of some queries; or the hidden layer.
        let attention = tokens * (6 * self.patch.outputs() + self.heads * 512);
        attention.max(tokens * (hidden + 3 * self.patch.outputs()))
    }

    fn forward(&self, target: &Target, images: &Tensor, kept: &mut Kept) -> Result<()> {
        let (count, height, width, _) = images.dims4()?;
        let grid = self.grid((height, width));
        let channels = self.patch.outputs();
        let patches = self.patch.apply(target, images, None)?.reshape((count, grid.0 * grid.1, channels))?;
        let positions = interpolated(&self.positions, self.side, grid, self.interpolation);
        let patches = patches.broadcast_add(&target.tensor(positions, &[grid.0 * grid.1, channels])?)?;
        let prefix = self.prefix.unsqueeze(0)?.broadcast_as((count, self.prefix.dim(0)?, channels))?.contiguous()?;
        let mut x = Tensor::cat(&[prefix, patches], 1)?;
        let last = self.blocks.len();
        for (i, block) in self.blocks.iter().enumerate().take(kept.last() + 1) {
            x = block.apply(target, &x, self.heads)?;
            if kept.wants(i) {
                kept.keep(i, &self.map(&x, grid)?);
            }
        }
        if let Some(norm) = self.norm.as_ref().filter(|_| kept.wants(last) || kept.wants(last + 1)) {
            let normed = norm.apply(target, &x)?;
            kept.keep(last, &self.map(&normed, grid)?);
            kept.keep(last + 1, &normed.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?);
        }
        Ok(())
    }

    fn memory(&self) -> usize {
        let blocks = self.blocks.iter().map(Block::memory).sum::<usize>();
        blocks + self.patch.memory() + self.positions.len() * size_of::<f32>()
    }

    fn uses(&self, tensor: &str, last: usize) -> bool {
        const FIRST: [&str; 4] = ["patch_embed.proj.", "cls_token", "reg_token", "pos_embed"];
        match number_behind("blocks.", tensor) {
            Some(block) => block <= last,
            None if tensor.starts_with("norm.") => last >= self.blocks.len(),
            None => starts_with_one(tensor, &FIRST),
        }
    }
}
