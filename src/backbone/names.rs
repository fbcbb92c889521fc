//! Names of tensors: those of torchvision, Hugging Face's transformers and timm, all as timm has them.

use serde::{Deserialize, Serialize};

/// The library whose names a checkpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Naming {
    /// timm's, which torchvision's are too where a network is read here.
    Timm,
    /// Those of transformers.
    #[serde(rename = "transformers")]
    HuggingFace,
}

/// Names of the whole network, which wrappers and training scripts put before the names of its parts.
const PREFIXES: [&str; 8] =
    ["module.", "model.", "backbone.", "base_model.", "resnet.", "vit.", "dinov2.", "dinov2_with_registers."];

/// Parts of the names of transformers' ViT and DINOv2, in the order in which they are replaced.
const VIT: [(&str, &str); 15] = [
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.mask_token", "mask_token"),
    ("embeddings.register_tokens", "reg_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("encoder.layer.", "blocks."),
    (".attention.attention.", ".attn."),
    (".attention.output.dense.", ".attn.proj."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
    (".layer_scale1.lambda1", ".ls1.gamma"),
    (".layer_scale2.lambda1", ".ls2.gamma"),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    ("layernorm.", "norm."),
];

/// A tensor's name as timm has it, and the library whose name it was, where it differs between libraries.
pub(super) fn timm_name(name: &str) -> (String, Option<Naming>) {
    let mut rest = name;
    while let Some(stripped) = PREFIXES.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = stripped;
    }
    if let Some(resnet) = resnet_of_transformers(rest) {
        return (resnet, Some(Naming::HuggingFace));
    }
    let is_vit =
        rest.starts_with("embeddings.") || rest.starts_with("encoder.layer.") || rest.starts_with("layernorm.");
    if is_vit {
        let renamed = VIT.iter().fold(rest.to_owned(), |name, (from, to)| name.replace(from, to));
        return (renamed, Some(Naming::HuggingFace));
    }
    (rest.to_owned(), None)
}

/// `encoder.stages.S.layers.B.layer.I.convolution.weight` is `layer(S+1).B.conv(I+1).weight`.
fn resnet_of_transformers(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let kind = |part: &str| match part {
        "convolution" => Some(("conv", 0)),
        "normalization" => Some(("bn", 1)),
        _ => None,
    };
    let next = |number: &str| Some(number.parse::<usize>().ok()?.saturating_add(1));
    match parts.as_slice() {
        ["embedder", "embedder", part, last] => Some(format!("{}1.{last}", kind(part)?.0)),
        ["encoder", "stages", s, "layers", b, "layer", i, part, last] => {
            Some(format!("layer{}.{b}.{}{}.{last}", next(s)?, kind(part)?.0, next(i)?))
        }
        ["encoder", "stages", s, "layers", b, "shortcut", part, last] => {
            Some(format!("layer{}.{b}.downsample.{}.{last}", next(s)?, kind(part)?.1))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("layer1.0.conv1.weight", "layer1.0.conv1.weight", None)]
    #[case("module.model.conv1.weight", "conv1.weight", None)]
    #[case("resnet.embedder.embedder.normalization.bias", "bn1.bias", Some(Naming::HuggingFace))]
    #[case("encoder.stages.2.layers.1.layer.0.convolution.weight", "layer3.1.conv1.weight", Some(Naming::HuggingFace))]
    #[case(
        "resnet.encoder.stages.1.layers.0.shortcut.normalization.running_mean",
        "layer2.0.downsample.1.running_mean",
        Some(Naming::HuggingFace)
    )]
    #[case("vit.encoder.layer.3.attention.attention.query.bias", "blocks.3.attn.query.bias", Some(Naming::HuggingFace))]
    #[case("encoder.layer.0.attention.output.dense.weight", "blocks.0.attn.proj.weight", Some(Naming::HuggingFace))]
    #[case("encoder.layer.0.output.dense.weight", "blocks.0.mlp.fc2.weight", Some(Naming::HuggingFace))]
    #[case("encoder.layer.0.layernorm_after.weight", "blocks.0.norm2.weight", Some(Naming::HuggingFace))]
    #[case("dinov2.encoder.layer.0.mlp.fc1.weight", "blocks.0.mlp.fc1.weight", Some(Naming::HuggingFace))]
    #[case("encoder.layer.0.layer_scale2.lambda1", "blocks.0.ls2.gamma", Some(Naming::HuggingFace))]
    #[case("layernorm.weight", "norm.weight", Some(Naming::HuggingFace))]
    #[case("embeddings.patch_embeddings.projection.bias", "patch_embed.proj.bias", Some(Naming::HuggingFace))]
    fn a_name_of_each_library(#[case] name: &str, #[case] timm: &str, #[case] naming: Option<Naming>) {
        assert_eq!(timm_name(name), (timm.to_owned(), naming));
    }
}
