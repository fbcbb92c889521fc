//! EfficientNet and EfficientNet-Lite (Tan and Le, ICML 2019, arXiv 1905.11946), under timm's names.
//!
//! ```text
//! stem:   3 × 3 / 2, norm, SiLU
//! block:  y = project(gate ⊙ depthwise(expand(x))) (+ x)     gate = σ(W₂ SiLU(W₁ mean(x)))
//! layers: blocks.0 to blocks.6; pooled is the mean behind the head, 1 × 1
//! ```
//!
//! Lite ones have ReLU6 in place of SiLU, and no gates. Weights that come from TensorFlow (`tf_...`) were trained with
//! its padding and with norms of ε = 10⁻³. No tensor tells them from timm's own, so that `config.json` has to: with the
//! wrong ones features are off by up to 0.9 of their size.

use super::FeatureShape;
use super::architecture::BackboneArchitecture;
use super::family::{Family, FrozenNetwork, Kept, number_behind, starts_with_one};
use super::layers::LayerReader;
use super::weights::PretrainedWeights;
use crate::error::{Error, Result};
use crate::kernels::Nonlinearity;
use crate::ops::frozen::{FrozenConvolution, FrozenDepthwise, Padding, Window, mean_of_places, scale_channels};
use crate::ops::{Target, Tensor};
use crate::shape::ImageShape;

pub(super) const FAMILY: Family = Family {
    name: "EfficientNet",
    is_one: |weights| weights.has("conv_stem.weight") && weights.has("blocks.1.0.conv_dw.weight"),
    is_architecture: |name| is_architecture(name.strip_prefix("tf_").unwrap_or(name)),
    model_types: &[],
    architecture,
};

/// Strides of the stages of every member.
const STRIDES: [usize; 7] = [1, 2, 2, 2, 1, 2, 1];
/// Tensors behind the layers: the classifier.
const UNUSED: [&str; 1] = ["classifier."];

/// Whether timm's name, without `tf_`, is that of a member: `efficientnet_b0` to `_b8`, `_l2`, `_lite0` to `_lite4`.
fn is_architecture(name: &str) -> bool {
    let Some(member) = name.strip_prefix("efficientnet_") else { return false };
    let number = |prefix: &str| member.strip_prefix(prefix).and_then(|number| number.parse::<u8>().ok());
    member == "l2" || number("lite").is_some_and(|n| n <= 4) || number("b").is_some_and(|n| n <= 8)
}

#[derive(Debug)]
pub(super) struct EfficientNet {
    stem: FrozenConvolution,
    stages: Vec<Vec<Block>>,
    /// None of a part of a network.
    head: Option<FrozenConvolution>,
}

#[derive(Debug)]
struct Block {
    expand: Option<FrozenConvolution>,
    depthwise: FrozenDepthwise,
    gate: Option<(FrozenConvolution, FrozenConvolution)>,
    project: FrozenConvolution,
    /// Whether the input is added to the output.
    is_residual: bool,
}

/// The parts that differ between the members.
struct Kind<'a> {
    reader: LayerReader<'a>,
    padding: Padding,
    function: Nonlinearity,
}

/// The facts that timm's name of the network says.
fn architecture(weights: &PretrainedWeights) -> Result<BackboneArchitecture> {
    let Some(architecture) = weights.config().architecture() else {
        return Err(Error::Model(format!(
            "weights '{}': an EfficientNet needs its config.json with timm's 'architecture': padding and epsilon \
             differ between efficientnet_... and tf_efficientnet_..., and no tensor says which it is",
            weights.name()
        )));
    };
    let tensorflow = architecture.starts_with("tf_");
    Ok(BackboneArchitecture::EfficientNet { tensorflow, lite: architecture.contains("lite") })
}

impl EfficientNet {
    pub(super) fn try_new(
        weights: &PretrainedWeights,
        is_tensorflow: bool,
        is_lite: bool,
        target: &Target,
    ) -> Result<Self> {
        let reader =
            LayerReader { target, parameters: weights.parameters(), epsilon: if is_tensorflow { 1e-3 } else { 1e-5 } };
        let kind = Kind {
            reader,
            padding: if is_tensorflow { Padding::Same } else { Padding::Symmetric },
            function: if is_lite { Nonlinearity::Relu6 } else { Nonlinearity::Silu },
        };
        let stem = kind.reader.convolution(("conv_stem", "bn1"), 3, kind.window(3, 2), kind.function)?;
        let mut channels = stem.outputs();
        let mut stages = Vec::with_capacity(STRIDES.len());
        for (stage, stride) in STRIDES.into_iter().enumerate() {
            if weights.ends_before(&format!("blocks.{stage}.")) {
                break;
            }
            let mut blocks = Vec::new();
            for i in 0..weights.count(&format!("blocks.{stage}.")).max(1) {
                let stride = if i == 0 { stride } else { 1 };
                let block = Block::read(&kind, &format!("blocks.{stage}.{i}"), channels, stride, !is_lite)?;
                channels = block.project.outputs();
                blocks.push(block);
            }
            stages.push(blocks);
        }
        let head = if stages.len() < STRIDES.len() || weights.ends_before("conv_head.") {
            None
        } else {
            Some(kind.reader.convolution(("conv_head", "bn2"), channels, Window::POINT, kind.function)?)
        };
        kind.reader.parameters.finish(if is_lite { "an EfficientNet-Lite" } else { "an EfficientNet" }, &UNUSED)?;
        Ok(Self { stem, stages, head })
    }

    /// The map behind a stage.
    fn map(&self, stage: usize, size: (usize, usize)) -> ImageShape {
        let blocks = self.stages.iter().take(stage + 1).flatten();
        let stem = self.stem.window().output(size);
        let (height, width) = blocks.fold(stem, |size, block| block.depthwise.window().output(size));
        let channels = self.stages[stage].last().map_or(0, |block| block.project.outputs());
        ImageShape::new(height, width, channels)
    }
}

impl Kind<'_> {
    fn window(&self, kernel: usize, stride: usize) -> Window {
        Window { kernel, stride, padding: self.padding }
    }
}

impl Block {
    /// Reads a block: its convolutions are `conv_pw`, `conv_dw`, `conv_pwl`, or without an expansion `conv_dw`,
    /// `conv_pw`; their norms are `bn1`, `bn2`, `bn3` in this order.
    fn read(kind: &Kind<'_>, name: &str, inputs: usize, stride: usize, has_gate: bool) -> Result<Self> {
        let reader = &kind.reader;
        let weights = reader.parameters.weights();
        let part = |part: &str| format!("{name}.{part}");
        let expands = weights.has(&part("conv_pwl.weight"));
        let expand = if expands {
            let names = (part("conv_pw"), part("bn1"));
            Some(reader.convolution((&names.0, &names.1), inputs, Window::POINT, kind.function)?)
        } else {
            None
        };
        let channels = expand.as_ref().map_or(inputs, FrozenConvolution::outputs);
        let names = (part("conv_dw"), part(if expands { "bn2" } else { "bn1" }));
        let kernel = weights.shape(&format!("{}.weight", names.0))?.last().copied().unwrap_or(0);
        if kernel != 3 && kernel != 5 {
            return Err(Error::model_tensor(names.0, format!("has a window of {kernel}, expected 3 or 5")));
        }
        let depthwise = reader.depthwise((&names.0, &names.1), channels, kind.window(kernel, stride), kind.function)?;
        let gate = if has_gate {
            let reduce = reader.point(&part("se.conv_reduce"), channels, Nonlinearity::Silu)?;
            let expand = reader.point(&part("se.conv_expand"), reduce.outputs(), Nonlinearity::Sigmoid)?;
            Some((reduce, expand))
        } else {
            None
        };
        if let Some((_, expand)) = &gate
            && expand.outputs() != channels
        {
            let problem = format!("gives {} channels, expected {channels}", expand.outputs());
            return Err(Error::model_tensor(part("se.conv_expand"), problem));
        }
        let names = if expands { (part("conv_pwl"), part("bn3")) } else { (part("conv_pw"), part("bn2")) };
        let project = reader.convolution((&names.0, &names.1), channels, Window::POINT, Nonlinearity::Identity)?;
        let is_residual = stride == 1 && project.outputs() == inputs;
        Ok(Self { expand, depthwise, gate, project, is_residual })
    }

    fn apply(&self, target: &Target, x: &Tensor) -> Result<Tensor> {
        let expanded = self.expand.as_ref().map(|expand| expand.apply(target, x, None)).transpose()?;
        let mut y = self.depthwise.apply(expanded.as_ref().unwrap_or(x))?;
        if let Some((reduce, expand)) = &self.gate {
            let gate = reduce.apply(target, &mean_of_places(target, &y)?, None)?;
            y = scale_channels(target, &y, &expand.apply(target, &gate, None)?)?;
        }
        self.project.apply(target, &y, self.is_residual.then_some(x))
    }

    /// The widest map of the block has these channels.
    fn widest(&self) -> usize {
        self.depthwise.channels()
    }

    fn memory(&self) -> usize {
        let gate = self.gate.iter().flat_map(|(reduce, expand)| [reduce, expand]);
        let layers = self.expand.iter().chain(gate).chain([&self.project]);
        layers.map(FrozenConvolution::memory).sum::<usize>() + self.depthwise.memory()
    }
}

impl FrozenNetwork for EfficientNet {
    fn layers(&self) -> Vec<String> {
        let stages = (0..self.stages.len()).map(|stage| format!("blocks.{stage}"));
        stages.chain(self.head.iter().map(|_| "pooled".to_owned())).collect()
    }

    fn default_layers(&self) -> &'static str {
        "blocks.4+blocks.6"
    }

    fn check_size(&self, _: (usize, usize)) -> Result<()> {
        Ok(())
    }

    fn shape_of(&self, layer: usize, size: (usize, usize)) -> FeatureShape {
        match &self.head {
            Some(head) if layer >= STRIDES.len() => FeatureShape::Vector(head.outputs()),
            _ => FeatureShape::Map(self.map(layer, size)),
        }
    }

    fn values_at_work(&self, size: (usize, usize)) -> usize {
        let mut size = self.stem.window().output(size);
        // The stem's windows, 3 × 3 × 3 values each, beside its output; or two of a block's widest maps, and its input.
        let mut largest = size.0 * size.1 * (27 + self.stem.outputs());
        for block in self.stages.iter().flatten() {
            largest = largest.max(3 * size.0 * size.1 * block.widest());
            size = block.depthwise.window().output(size);
        }
        largest.max(2 * size.0 * size.1 * self.head.as_ref().map_or(0, FrozenConvolution::outputs))
    }

    fn forward(&self, target: &Target, images: &Tensor, kept: &mut Kept) -> Result<()> {
        let mut x = self.stem.apply(target, images, None)?;
        for (i, stage) in self.stages.iter().enumerate().take(kept.last() + 1) {
            for block in stage {
                x = block.apply(target, &x)?;
            }
            kept.keep(i, &x);
        }
        if let Some(head) = self.head.as_ref().filter(|_| kept.wants(STRIDES.len())) {
            let head = head.apply(target, &x, None)?;
            kept.keep(STRIDES.len(), &mean_of_places(target, &head)?);
        }
        Ok(())
    }

    fn memory(&self) -> usize {
        let blocks = self.stages.iter().flatten().map(Block::memory).sum::<usize>();
        blocks + self.stem.memory() + self.head.as_ref().map_or(0, FrozenConvolution::memory)
    }

    fn uses(&self, tensor: &str, last: usize) -> bool {
        match number_behind("blocks.", tensor) {
            Some(stage) => stage <= last,
            None if starts_with_one(tensor, &["conv_head.", "bn2."]) => last >= STRIDES.len(),
            None => starts_with_one(tensor, &["conv_stem.", "bn1."]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_by_their_names() {
        let is_member = FAMILY.is_architecture;
        for name in ["efficientnet_b0", "tf_efficientnet_b8", "tf_efficientnet_l2", "efficientnet_lite4"] {
            assert!(is_member(name), "{name}");
        }
        for name in [
            "efficientnet_b0_gn",
            "efficientnet_es",
            "tf_efficientnetv2_s",
            "mobilenetv2_100",
            "efficientnet_b1_pruned",
        ] {
            assert!(!is_member(name), "{name}");
        }
    }
}
