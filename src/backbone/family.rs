//! Families of networks: how a checkpoint is recognised, and which networks are refused by name.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::architecture::BackboneArchitecture;
use super::weights::PretrainedWeights;
use super::{FeatureShape, efficientnet, resnet, vit};
use crate::error::{Error, Result};
use crate::ops::{Target, Tensor};

/// The networks that work, for messages.
pub(super) const KNOWN: &str = "those that work are ResNet-18 to ResNet-152 and wide ResNets (timm, torchvision \
    and transformers), ViT and DINOv2 (timm, transformers), EfficientNet and EfficientNet-Lite (timm)";

/// The families, of which the first that recognises a checkpoint builds its network.
const FAMILIES: [Family; 3] = [resnet::FAMILY, vit::FAMILY, efficientnet::FAMILY];

/// Networks that are known and not read, each with beginnings of names that only its tensors have.
const OTHERS: [(&str, &[&str]); 11] = [
    ("a ResNet with squeeze-and-excitation (SE)", &["layer1.0.se.", "layer1.0.attn."]),
    ("a ResNet with a deep stem or averaging shortcuts (C, D)", &["conv1.0.", "layer2.0.downsample.2."]),
    ("a ViT with SwiGLU", &["blocks.0.mlp.w12.", "blocks.0.mlp.weights_in.", "blocks.0.mlp.fc1_g."]),
    ("CLIP", &["norm_pre.", "vision_model.", "visual.", "text_model."]),
    ("ConvNeXt", &["stages.0.blocks.0.conv_dw.", "convnext.", "convnextv2.", "encoder.stages.0.layers.0.dwconv."]),
    ("VGG", &["features.0.weight"]),
    ("an EfficientNet or a MobileNet under torchvision's names", &["features.0.0.weight"]),
    ("an EfficientNet under the names of transformers", &["efficientnet.", "encoder.blocks.0.depthwise_conv."]),
    ("an EfficientNet under the names of efficientnet-pytorch", &["_conv_stem.", "_blocks.0."]),
    ("Swin", &["layers.0.blocks.0.attn.relative_position", "swin."]),
    ("BEiT or EVA", &["blocks.0.attn.q_bias", "blocks.0.gamma_1", "beit."]),
];

/// A family of networks.
pub(super) struct Family {
    /// Its name, for messages.
    pub(super) name: &'static str,
    /// Whether a checkpoint is of the family, by its tensors.
    pub(super) is_one: fn(&PretrainedWeights) -> bool,
    /// Whether `config.json` names a network of the family in timm's words, its `architecture`.
    pub(super) is_architecture: fn(&str) -> bool,
    /// The values of `model_type` that transformers has for the family.
    pub(super) model_types: &'static [&'static str],
    /// Reads the facts that no tensor shows from the files of JSON.
    pub(super) architecture: fn(&PretrainedWeights) -> Result<BackboneArchitecture>,
}

/// A network with fixed weights, whose layers have names.
pub(super) trait FrozenNetwork: Debug + Send + Sync {
    /// The names of its layers, in the order in which they are computed.
    fn layers(&self) -> Vec<String>;

    /// The layers that suit anomaly detection, as a user writes them.
    fn default_layers(&self) -> &'static str;

    /// Refuses images of a (height, width) that the network cannot take.
    fn check_size(&self, size: (usize, usize)) -> Result<()>;

    /// The shape of a layer, by its index, for images of a (height, width) that has been checked.
    fn shape_of(&self, layer: usize, size: (usize, usize)) -> FeatureShape;

    /// The most values that an image has in memory at one time.
    fn values_at_work(&self, size: (usize, usize)) -> usize;

    /// Computes normalised images, (N, H, W, 3), up to the last layer that is kept.
    fn forward(&self, target: &Target, images: &Tensor, kept: &mut Kept) -> Result<()>;

    /// Bytes of the weights.
    fn memory(&self) -> usize;

    /// Whether a tensor, by timm's name, has a part in the layers up to `last`.
    fn uses(&self, tensor: &str, last: usize) -> bool;
}

/// The number in a name such as `blocks.3.norm1.weight`, behind `prefix`.
pub(super) fn number_behind(prefix: &str, tensor: &str) -> Option<usize> {
    tensor.strip_prefix(prefix)?.split('.').next()?.parse().ok()
}

/// Whether a name begins with one of these.
pub(super) fn starts_with_one(tensor: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| tensor.starts_with(prefix))
}

/// The layers that a call asks for, by their indices, and their tensors once they are computed.
#[derive(Debug)]
pub(super) struct Kept(BTreeMap<usize, Option<Tensor>>);

impl Kept {
    pub(super) fn new(layers: &[usize]) -> Self {
        Self(layers.iter().map(|layer| (*layer, None)).collect())
    }

    /// The last layer: the network computes no further.
    pub(super) fn last(&self) -> usize {
        self.0.keys().next_back().copied().unwrap_or(0)
    }

    /// Whether a layer is asked for.
    pub(super) fn wants(&self, layer: usize) -> bool {
        self.0.contains_key(&layer)
    }

    /// Keeps a layer if it is asked for.
    pub(super) fn keep(&mut self, layer: usize, values: &Tensor) {
        if let Some(kept) = self.0.get_mut(&layer) {
            *kept = Some(values.clone());
        }
    }

    /// A layer that has been computed.
    pub(super) fn get(&self, layer: usize) -> Result<&Tensor> {
        let computed = self.0.get(&layer).and_then(Option::as_ref);
        computed.ok_or_else(|| Error::Data(format!("layer {layer} was not computed")))
    }
}

/// The architecture of a checkpoint.
///
/// # Errors
/// [`Error::Model`] if it is none that works: the error names it where it is known.
pub(super) fn recognise(weights: &PretrainedWeights) -> Result<BackboneArchitecture> {
    let refused = |what: &str| Error::Model(format!("weights '{}': {what}; {KNOWN}", weights.name()));
    let is_other = |(_, prefixes): &&(&str, &[&str])| prefixes.iter().any(|prefix| weights.has_prefix(prefix));
    if let Some((name, _)) = OTHERS.iter().find(is_other) {
        return Err(refused(&format!("this is {name}, which is not read")));
    }
    let Some(family) = FAMILIES.iter().find(|family| (family.is_one)(weights)) else {
        return Err(refused(&format!("this network is not known, its tensors are {:?}, ...", weights.first_names())));
    };
    let config = weights.config();
    if let Some(named) = config.architecture()
        && !(family.is_architecture)(named)
    {
        let name = family.name;
        return Err(refused(&format!("config.json names the architecture '{named}', which is no {name} that is read")));
    }
    if let Some(key) = config.unread_argument() {
        return Err(refused(&format!("config.json has '{key}' among its model_args, which is not read")));
    }
    if let Some(named) = config.model_type()?
        && !family.model_types.contains(&named)
    {
        let name = family.name;
        return Err(refused(&format!("config.json has model_type '{named}', but the tensors are those of {name}")));
    }
    (family.architecture)(weights)
}
