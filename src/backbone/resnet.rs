//! ResNet-18 to ResNet-152 and wide ResNets (He, Zhang, Ren and Sun, CVPR 2016, arXiv 1512.03385).
//!
//! ```text
//! stem:   7 × 7 / 2, norm, ReLU, largest of 3 × 3 / 2
//! block:  y = ReLU(f(x) + shortcut(x))     f: 3 × 3, 3 × 3, or 1 × 1, 3 × 3, 1 × 1, each with its norm
//! layers: layer1 (1/4 of the image's side), layer2 (1/8), layer3 (1/16), layer4 (1/32); pooled is the mean of layer4
//! ```
//!
//! Depth, widths and the kind of the blocks are read off the tensors.

use super::FeatureShape;
use super::architecture::BackboneArchitecture;
use super::family::{Family, FrozenNetwork, KNOWN, Kept, number_behind, starts_with_one};
use super::layers::LayerReader;
use super::names::Naming;
use super::weights::PretrainedWeights;
use crate::error::{Error, Result};
use crate::kernels::Nonlinearity;
use crate::ops::frozen::{FrozenConvolution, POOL, Window, max_pool, mean_of_places};
use crate::ops::{Target, Tensor};
use crate::shape::ImageShape;

pub(super) const FAMILY: Family = Family {
    name: "ResNet",
    is_one: |weights| weights.has("layer1.0.conv1.weight"),
    is_architecture: |name| ARCHITECTURES.contains(&name),
    model_types: &["resnet"],
    architecture,
};

/// timm's names. Others, such as `resnetaa50` and `resnext50_32x4d`, differ in what tensors do not show, or in these.
const ARCHITECTURES: [&str; 8] =
    ["resnet18", "resnet26", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"];
/// Tensors behind the layers: the classifier.
const UNUSED: [&str; 2] = ["fc.", "classifier."];
/// ε of the norms in all three libraries.
const EPSILON: f64 = 1e-5;
const STAGES: usize = 4;

#[derive(Debug)]
pub(super) struct ResNet {
    stem: FrozenConvolution,
    stages: Vec<Vec<Block>>,
}

#[derive(Debug)]
struct Block {
    convolutions: Vec<FrozenConvolution>,
    shortcut: Option<FrozenConvolution>,
}

/// The facts that `config.json` says: timm and torchvision stride in the window of 3 × 3; transformers may do so in the
/// first.
fn architecture(weights: &PretrainedWeights) -> Result<BackboneArchitecture> {
    let config = weights.config();
    let refused = |problem: &str| Error::Model(format!("weights '{}': {problem}", weights.name()));
    if weights.naming() == Naming::HuggingFace && config.is_empty() {
        return Err(refused(
            "a ResNet of transformers needs its config.json: no tensor says which convolution of a block has the \
             stride",
        ));
    }
    if config.is_true("downsample_in_first_stage")? || config.text("hidden_act")?.is_some_and(|name| name != "relu") {
        return Err(refused(
            "config.json describes another ResNet; expected ReLU, and a first stage that keeps the size",
        ));
    }
    let side = |name: &str, side: usize| weights.shape(name).ok().and_then(|shape| shape.get(side).copied());
    if side("layer1.0.conv2.weight", 1) != side("layer1.0.conv1.weight", 0) {
        return Err(refused(&format!("this is a ResNeXt, which is not read; {KNOWN}")));
    }
    Ok(BackboneArchitecture::ResNet { strides_first: config.is_true("downsample_in_bottleneck")? })
}

impl ResNet {
    pub(super) fn try_new(weights: &PretrainedWeights, strides_first: bool, target: &Target) -> Result<Self> {
        let reader = LayerReader { target, parameters: weights.parameters(), epsilon: EPSILON };
        let stem = reader.convolution(("conv1", "bn1"), 3, Window::symmetric(7, 2), Nonlinearity::Relu)?;
        let mut channels = stem.outputs();
        let mut stages = Vec::with_capacity(STAGES);
        for stage in 1..=STAGES {
            if weights.ends_before(&format!("layer{stage}.")) {
                break;
            }
            let mut blocks = Vec::new();
            for i in 0..weights.count(&format!("layer{stage}.")).max(1) {
                let stride = if stage > 1 && i == 0 { 2 } else { 1 };
                let block = Block::read(&reader, &format!("layer{stage}.{i}"), channels, stride, strides_first)?;
                channels = block.outputs();
                blocks.push(block);
            }
            stages.push(blocks);
        }
        reader.parameters.finish("a ResNet", &UNUSED)?;
        Ok(Self { stem, stages })
    }

    fn convolutions(&self) -> impl Iterator<Item = &FrozenConvolution> {
        let blocks = self.stages.iter().flatten();
        std::iter::once(&self.stem).chain(blocks.flat_map(|block| block.convolutions.iter().chain(&block.shortcut)))
    }

    /// (height, width) and channels of a stage.
    fn map(&self, stage: usize, (height, width): (usize, usize)) -> ImageShape {
        let stem = POOL.output(self.stem.window().output((height, width)));
        let side = |side: usize| side.div_ceil(1 << stage);
        let channels = self.stages[stage].last().map_or(0, Block::outputs);
        ImageShape::new(side(stem.0), side(stem.1), channels)
    }
}

impl Block {
    /// Reads a block whose first or second convolution has the stride: three where there is a third.
    fn read(reader: &LayerReader<'_>, name: &str, inputs: usize, stride: usize, strides_first: bool) -> Result<Self> {
        let is_bottleneck = reader.parameters.weights().has(&format!("{name}.conv3.weight"));
        let kernels: &[usize] = if is_bottleneck { &[1, 3, 1] } else { &[3, 3] };
        let strided = usize::from(is_bottleneck && !strides_first);
        let mut channels = inputs;
        let mut convolutions = Vec::with_capacity(kernels.len());
        for (i, kernel) in kernels.iter().enumerate() {
            let window = Window::symmetric(*kernel, if i == strided { stride } else { 1 });
            let window = if *kernel == 1 && window.stride == 1 { Window::POINT } else { window };
            let names = (format!("{name}.conv{}", i + 1), format!("{name}.bn{}", i + 1));
            let layer = reader.convolution((&names.0, &names.1), channels, window, Nonlinearity::Relu)?;
            channels = layer.outputs();
            convolutions.push(layer);
        }
        let names = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
        let is_there = reader.parameters.weights().has_prefix(&format!("{}.", names.0));
        let shortcut = if is_there || stride > 1 || channels != inputs {
            let window = if stride == 1 { Window::POINT } else { Window::symmetric(1, stride) };
            Some(reader.convolution((&names.0, &names.1), inputs, window, Nonlinearity::Identity)?)
        } else {
            None
        };
        match &shortcut {
            Some(shortcut) if shortcut.outputs() != channels => {
                let got = shortcut.outputs();
                Err(Error::model_tensor(names.0, format!("gives {got} channels, expected {channels}")))
            }
            _ => Ok(Self { convolutions, shortcut }),
        }
    }

    fn outputs(&self) -> usize {
        self.convolutions.last().map_or(0, FrozenConvolution::outputs)
    }

    /// The residual is added before the last ReLU.
    fn apply(&self, target: &Target, x: &Tensor) -> Result<Tensor> {
        let residual = match &self.shortcut {
            Some(shortcut) => shortcut.apply(target, x, None)?,
            None => x.clone(),
        };
        let mut y = x.clone();
        for (i, layer) in self.convolutions.iter().enumerate() {
            let is_last = i + 1 == self.convolutions.len();
            y = layer.apply(target, &y, is_last.then_some(&residual))?;
        }
        Ok(y)
    }
}

impl FrozenNetwork for ResNet {
    fn layers(&self) -> Vec<String> {
        let stages = (1..=self.stages.len()).map(|stage| format!("layer{stage}"));
        stages.chain((self.stages.len() == STAGES).then(|| "pooled".to_owned())).collect()
    }

    fn default_layers(&self) -> &'static str {
        "layer2+layer3"
    }

    fn check_size(&self, _: (usize, usize)) -> Result<()> {
        Ok(())
    }

    fn shape_of(&self, layer: usize, size: (usize, usize)) -> FeatureShape {
        let map = self.map(layer.min(STAGES - 1), size);
        if layer < STAGES { FeatureShape::Map(map) } else { FeatureShape::Vector(map.channels()) }
    }

    fn values_at_work(&self, size: (usize, usize)) -> usize {
        let (height, width) = self.stem.window().output(size);
        // The stem's windows, 7 × 7 × 3 values each, beside its output; or a block's input, output and two between.
        let stem = height * width * (7 * 7 * 3 + self.stem.outputs());
        let stages = (0..self.stages.len()).map(|stage| 4 * self.map(stage, size).len());
        stages.fold(stem, usize::max)
    }

    fn forward(&self, target: &Target, images: &Tensor, kept: &mut Kept) -> Result<()> {
        let mut x = max_pool(target, &self.stem.apply(target, images, None)?)?;
        for (i, stage) in self.stages.iter().enumerate().take(kept.last() + 1) {
            for block in stage {
                x = block.apply(target, &x)?;
            }
            kept.keep(i, &x);
        }
        if kept.wants(STAGES) {
            kept.keep(STAGES, &mean_of_places(target, &x)?);
        }
        Ok(())
    }

    fn memory(&self) -> usize {
        self.convolutions().map(FrozenConvolution::memory).sum()
    }

    fn uses(&self, tensor: &str, last: usize) -> bool {
        let stage = number_behind("layer", tensor);
        stage.is_some_and(|stage| stage <= last + 1) || starts_with_one(tensor, &["conv1.", "bn1."])
    }
}
