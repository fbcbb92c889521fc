//! Networks of every family and naming against PyTorch's values, and checkpoints that are refused.
//!
//! `fixtures/backbones/make.py` writes them. `WAE_BACKBONES` names a folder of others, such as networks of real sizes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rstest::rstest;
use safetensors::tensor::SafeTensors;
use serde_json::json;

use super::*;
use crate::checkpoint::tensor_values;
use crate::device::{Device, Precision};
use crate::image::{ImageShape, Pixels};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/backbones")
}

fn open(name: &str) -> Backbone {
    Backbone::open(&fixtures().join(name), Device::Cpu).unwrap()
}

/// The image of the script's `picture`.
fn picture(height: usize, width: usize) -> Image {
    let value = |i: usize| {
        let y = i / 3 / width;
        let x = i / 3 % width;
        let c = i % 3;
        ((3 * y * y + 5 * x * y + 2 * x * x + 7 * x * (c + 1)) / 16 + 50 * c) as u8
    };
    let pixels = Pixels::U8((0..height * width * 3).map(value).collect());
    Image::try_new(ImageShape::new(height, width, 3), pixels).unwrap()
}

/// `12x34` as (12, 34).
fn size(text: &str) -> (usize, usize) {
    let (height, width) = text.split_once('x').unwrap();
    (height.parse().unwrap(), width.parse().unwrap())
}

/// The largest max|a − b| / max|b| of a network's layers, and the layer.
fn largest_error(folder: &Path) -> (f32, String) {
    let weights = PretrainedWeights::open(folder).or_else(|_| {
        // values.safetensors stands beside weights of another name.
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut weights = files.filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
        PretrainedWeights::open(&weights.find(|path| !path.ends_with("values.safetensors")).unwrap())
    });
    let backbone = Backbone::try_new(&weights.unwrap(), Device::Cpu).unwrap();
    let bytes = std::fs::read(folder.join("values.safetensors")).unwrap();
    let values = SafeTensors::deserialize(&bytes).unwrap();
    let mut worst = (0.0, String::new());
    for (key, view) in values.iter() {
        let (how, layer) = key.split_once('/').unwrap();
        let (image, size) = match how.strip_prefix("files ") {
            Some(source) => (size(source), None),
            None => (size(how), Some(size(how))),
        };
        let layer = backbone.layer_selection(Some(layer)).unwrap();
        let features = &backbone.features(&[picture(image.0, image.1)], &layer, size).unwrap()[0];
        let expected = tensor_values(key, &view).unwrap();
        let map = features.shape().as_map();
        let shape = match features.shape() {
            FeatureShape::Map(_) => vec![map.height(), map.width(), map.channels()],
            FeatureShape::Vector(channels) => vec![channels],
        };
        assert_eq!(shape, view.shape(), "{} {key}", folder.display());
        let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let error = features.values().iter().zip(&expected).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) / largest;
        assert!(!error.is_nan());
        if error >= worst.0 {
            worst = (error, key.to_owned());
        }
    }
    worst
}

/// ReLU6 cuts differences off, but its networks have no gates that damp them.
fn tolerance(name: &str) -> f32 {
    if name.contains("lite") { 1e-4 } else { 1e-5 }
}

#[rstest]
#[case("resnet-timm")]
#[case("resnet-torchvision")]
#[case("resnet-transformers")]
#[case("resnet-transformers-early")]
#[case("vit-timm")]
#[case("vit-transformers")]
#[case("dinov2-transformers")]
#[case("dinov2-registers-timm")]
#[case("dinov2-registers-transformers")]
#[case("efficientnet-timm")]
#[case("efficientnet-tensorflow")]
#[case("efficientnet-lite")]
fn layers_are_those_of_pytorch(#[case] name: &str) {
    let (error, key) = largest_error(&fixtures().join(name));
    eprintln!("{name}: {error:.1e} at {key}");
    assert!(error <= tolerance(name), "{name}: {error} at {key}");
}

/// Networks of their real sizes, where there are any.
#[test]
fn layers_of_other_networks_are_those_of_pytorch() {
    let Some(folder) = std::env::var_os("WAE_BACKBONES") else { return };
    let mut failed = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let (error, key) = largest_error(&path);
        eprintln!("{name}: {error:.1e} at {key}");
        if error > tolerance(&name) {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// The same network by composed operations, as a GPU computes it.
#[rstest]
#[case("resnet-timm", "layer2+layer3")]
#[case("dinov2-registers-timm", "blocks.0+tokens")]
#[case("efficientnet-tensorflow", "blocks.4+blocks.6")]
#[case("efficientnet-tensorflow", "pooled")]
fn composed_operations_agree(#[case] name: &str, #[case] layer: &str) {
    let weights = PretrainedWeights::open(&fixtures().join(name)).unwrap();
    let features = |target: Target| {
        let backbone = Backbone::of_target(&weights, target).unwrap();
        let layer = backbone.layer_selection(Some(layer)).unwrap();
        backbone.features(&[picture(35, 42), picture(40, 40)], &layer, Some((35, 42))).unwrap()
    };
    let kernels = features(Target::cpu());
    let composed = features(Target::composed(Precision::F32));
    for (a, b) in kernels.iter().zip(&composed) {
        let largest = b.values().iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let near = a.values().iter().zip(b.values()).all(|(a, b)| (a - b).abs() <= 1e-5 * largest);
        assert!(near, "{name} {layer}");
    }
}

/// More images than a pass has, each the same bits as alone.
#[rstest]
#[case("resnet-timm")]
#[case("vit-timm")]
#[case("efficientnet-timm")]
fn an_image_does_not_depend_on_those_beside_it(#[case] name: &str) {
    let backbone = open(name);
    let layer = backbone.layer_selection(None).unwrap();
    let images: Vec<Image> = (0..IMAGES + 3).map(|i| picture(30 + i, 50)).collect();
    let together = backbone.features(&images, &layer, Some((35, 42))).unwrap();
    assert_eq!(together.len(), images.len());
    for (image, expected) in images.iter().zip(&together).skip(IMAGES - 1) {
        assert_eq!(&backbone.features(std::slice::from_ref(image), &layer, Some((35, 42))).unwrap()[0], expected);
    }
    assert!(backbone.features(&[], &layer, None).unwrap().is_empty());
}

#[test]
fn layers_have_names_shapes_and_defaults() {
    let backbone = open("resnet-timm");
    assert_eq!(backbone.layers(), ["layer1", "layer2", "layer3", "layer4", "pooled"]);
    let usual = backbone.layer_selection(None).unwrap();
    assert_eq!(usual, backbone.layer_selection(Some(" layer2 + layer3 ")).unwrap());
    assert_eq!(usual.name(), "layer2+layer3");
    let map = FeatureShape::Map(ImageShape::new(28, 28, 20));
    assert_eq!(backbone.shape_of(&usual, (224, 224)).unwrap(), map);
    let pooled = backbone.layer_selection(Some("pooled")).unwrap();
    assert_eq!(backbone.shape_of(&pooled, (64, 9)).unwrap(), FeatureShape::Vector(12));
    assert_eq!(open("vit-timm").layers(), ["blocks.0", "blocks.1", "tokens", "cls"]);
    assert_eq!(open("vit-timm").layer_selection(None).unwrap().name(), "tokens");
    let efficientnet = open("efficientnet-lite");
    assert_eq!(efficientnet.layer_selection(None).unwrap().name(), "blocks.4+blocks.6");
    assert_eq!(efficientnet.layers().last().unwrap(), "pooled");
    assert_eq!(backbone.preprocessing().input_size(), Some((35, 35)));
    assert_eq!(
        [backbone.family(), open("vit-timm").family(), efficientnet.family()],
        ["ResNet", "ViT", "EfficientNet"]
    );
    assert_eq!(backbone.sha256().len(), 64);
    assert!(backbone.name().ends_with("resnet-timm") && backbone.memory() > 4 * 64 * 147);
}

#[rstest]
#[case("layer5", "there is no layer 'layer5', expected one or several joined by '+' of [\"layer1\", \"layer2\"")]
#[case("", "there is no layer ''")]
#[case("layer2+", "there is no layer ''")]
#[case("layer2+layer2", "layer 'layer2' stands twice in 'layer2+layer2'")]
#[case("layer2+pooled", "'layer2+pooled' joins maps and vectors, expected layers of one kind")]
fn layers_that_there_are_not(#[case] layer: &str, #[case] expected: &str) {
    let error = open("resnet-timm").layer_selection(Some(layer)).unwrap_err().to_string();
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn sizes_that_a_network_cannot_take() {
    let vit = open("vit-timm");
    let tokens = vit.layer_selection(None).unwrap();
    let error = |size| vit.shape_of(&tokens, size).unwrap_err().to_string();
    assert_eq!(error((36, 42)), "images of 36 × 42 are no whole patches of 7 × 7, expected a size such as 35 × 42");
    assert_eq!(error((0, 42)), "the height must be between 1 and 4096, got 0");
    assert_eq!(error((7, 4097)), "the width must be between 1 and 4096, got 4097");
    assert_eq!(error((2100, 2100)), "images of 2100 × 2100 have 90000 patches, expected at most 16384");
    let error = vit.features(&[picture(9, 9)], &tokens, Some((9, 9))).unwrap_err().to_string();
    assert!(error.contains("no whole patches"), "{error}");
    let resnet = open("resnet-timm");
    let layer = resnet.layer_selection(None).unwrap();
    assert!(resnet.features(&[picture(1, 1)], &layer, Some((1, 1))).is_ok(), "one pixel is an image");
    let two = resnet.working_memory(&layer, (224, 224), 2).unwrap();
    assert!(resnet.working_memory(&layer, (224, 224), 1).unwrap() < two);
}

#[test]
fn a_bad_image_is_named_by_its_row() {
    let backbone = open("resnet-timm");
    let layer = backbone.layer_selection(None).unwrap();
    let grey = Image::try_new(ImageShape::new(1, 1, 1), Pixels::U8(vec![0])).unwrap();
    let error = backbone.features(&[picture(9, 9), grey], &layer, Some((9, 9))).unwrap_err().to_string();
    assert_eq!(error, "row 1: the image has 1 channels, expected red, green and blue");
    let plain =
        Backbone::open(&fixtures().join("resnet-torchvision/resnet50-0676ba61.safetensors"), Device::Cpu).unwrap();
    assert!(!plain.preprocessing().is_from_files());
    let error = plain.features(&[picture(9, 9)], &layer, None).unwrap_err().to_string();
    assert!(error.ends_with("so that 'size' must be given"), "{error}");
}

/// Weights of zeros, `name 1,2; name 3`, each with its shape, beside a config.json.
fn weights(tensors: &str, config: Option<serde_json::Value>) -> Result<Backbone> {
    let mut end = 0;
    let mut header = serde_json::Map::new();
    for tensor in tensors.split("; ") {
        let (name, shape) = tensor.split_once(' ').unwrap();
        let shape: Vec<usize> = shape.split(',').map(|side| side.parse().unwrap()).collect();
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(name.to_owned(), json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = serde_json::Value::from(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; end]].concat();
    let mut files = BTreeMap::from([("model.safetensors".to_owned(), file)]);
    files.extend(config.map(|config| ("config.json".to_owned(), config.to_string().into_bytes())));
    let sizes = files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect();
    let files = WeightFiles::new("net", sizes, None, move |name| Ok(files[name].clone()));
    Backbone::try_new(&PretrainedWeights::read(&files)?, Device::Cpu)
}

#[rstest]
#[case("SE", "layer1.0.se.fc1.weight")]
#[case("deep stem", "conv1.0.weight")]
#[case("SwiGLU", "blocks.0.mlp.w12.weight")]
#[case("SwiGLU", "encoder.layer.0.mlp.weights_in.weight")]
#[case("CLIP", "norm_pre.weight")]
#[case("CLIP", "vision_model.embeddings.class_embedding")]
#[case("ConvNeXt", "stages.0.blocks.0.conv_dw.weight")]
#[case("ConvNeXt", "convnext.encoder.stages.0.layers.0.dwconv.weight")]
#[case("VGG", "features.0.weight")]
#[case("torchvision", "features.0.0.weight")]
#[case("EfficientNet under the names of transformers", "efficientnet.embeddings.convolution.weight")]
#[case("efficientnet-pytorch", "_conv_stem.weight")]
#[case("Swin", "layers.0.blocks.0.attn.relative_position_bias_table")]
#[case("BEiT", "blocks.0.attn.q_bias")]
fn other_networks_are_refused_by_name(#[case] expected: &str, #[case] tensor: &str) {
    let error = weights(&format!("{tensor} 1"), None).unwrap_err().to_string();
    let is_named = error.starts_with("weights 'net': this is ") && error.contains(expected);
    assert!(is_named && error.contains("those that work are ResNet-18"), "{error}");
}

const RESNEXT: &str = "layer1.0.conv1.weight 8,4,1,1; layer1.0.conv2.weight 8,2,3,3";
const STEM: &str = "conv_stem.weight 8,3,3,3; blocks.1.0.conv_dw.weight 8,1,3,3";
const PATCH: &str = "blocks.0.attn.qkv.weight 1; patch_embed.proj.weight 40,3,7,7";
const WIDE: &str = "blocks.0.attn.qkv.weight 1; patch_embed.proj.weight 192,3,7,7";
const OF_TRANSFORMERS: &str =
    "embeddings.patch_embeddings.projection.weight 192,3,7,7; encoder.layer.0.attention.attention.query.weight 1";

#[rstest]
#[case::groups(RESNEXT, json!({}), "this is a ResNeXt, which is not read; those that work")]
#[case::architecture(RESNEXT, json!({"architecture": "seresnet50"}), "architecture 'seresnet50', which is no ResNet that is read")]
#[case::family(RESNEXT, json!({"model_type": "vit"}), "has model_type 'vit', but the tensors are those of ResNet")]
#[case::first_stage("layer1.0.conv1.weight 1", json!({"downsample_in_first_stage": true}), "describes another ResNet")]
#[case::activation("layer1.0.conv1.weight 1", json!({"hidden_act": "gelu"}), "config.json describes another ResNet")]
#[case::unknown("a 1; b 1", json!({}), "this network is not known, its tensors are [\"a\", \"b\"]")]
#[case::padding(STEM, json!({}), "an EfficientNet needs its config.json with timm's 'architecture'")]
#[case::mobilenet(STEM, json!({"architecture": "mobilenetv2_100"}), "'mobilenetv2_100', which is no EfficientNet that is read")]
#[case::norm(STEM, json!({"architecture": "efficientnet_b0"}), "tensor 'bn1.weight' is missing in 'net'")]
#[case::heads(PATCH, json!({}), "no tensor says how many heads there are")]
#[case::heads_of_transformers(OF_TRANSFORMERS, json!({}), "a ViT needs its config.json")]
#[case::epsilon(OF_TRANSFORMERS, json!({"num_attention_heads": 3}), "a ViT needs its config.json")]
#[case::division(PATCH, json!({"model_args": {"num_heads": 3}}), "3 heads do not divide tokens of 40 values")]
#[case::function(PATCH, json!({"hidden_act": "quick_gelu"}), "hidden_act 'quick_gelu' or SwiGLU, expected 'gelu'")]
#[case::swiglu(PATCH, json!({"use_swiglu_ffn": true}), "or SwiGLU, expected 'gelu' without")]
#[case::no_architecture(WIDE, json!({}), "a ViT needs its config.json")]
#[case::unread_argument(WIDE, json!({"model_args": {"act_layer": "relu"}}), "'act_layer' among its model_args")]
#[case::no_class(WIDE, json!({"architecture": "vit_tiny_patch16_224"}), "tensor 'cls_token' is missing in 'net'")]
fn networks_that_their_files_do_not_describe(
    #[case] tensors: &str,
    #[case] config: serde_json::Value,
    #[case] expected: &str,
) {
    let error = weights(tensors, Some(config)).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[rstest]
#[case("patch_embed.proj.weight 192,3,7,8", "has shape [192, 3, 7, 8], expected [C, 3, p, p]")]
#[case("patch_embed.proj.weight 192,1,7,7", "has shape [192, 1, 7, 7], expected [C, 3, p, p]")]
#[case("patch_embed.proj.weight 40000,3,1,1", "has 40000 channels, expected 1 to 16384")]
#[case("patch_embed.proj.weight 192,3,7,7; cls_token 1,1,192; pos_embed 1,7,192", "has 7 positions, expected a square")]
#[case("patch_embed.proj.weight 192,3,7,7; cls_token 1,1,192; pos_embed 1,1,192", "has 1 positions, expected a square")]
#[case("patch_embed.proj.weight 192,3,7,7; cls_token 1,1,192; pos_embed 5,192", "expected [1, n, 192]")]
fn vits_of_wrong_shapes(#[case] tensors: &str, #[case] expected: &str) {
    let config = json!({"architecture": "vit_tiny_patch16_224"});
    let error = weights(&format!("blocks.0.attn.qkv.weight 1; {tensors}"), Some(config)).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

/// Bytes of the header changed at random: a network, or an error, never a panic or a shape that is not computed.
#[rstest]
#[case("resnet-timm")]
#[case("vit-timm")]
#[case("dinov2-registers-timm")]
#[case("efficientnet-lite")]
fn damaged_headers_are_errors(#[case] name: &str) {
    use rand::{RngExt, SeedableRng};
    let folder = fixtures().join(name);
    let read = |file: &str| std::fs::read(folder.join(file)).unwrap();
    let model = read("model.safetensors");
    let config = read("config.json");
    let header = 8 + u64::from_le_bytes(*model.first_chunk().unwrap()) as usize;
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let mut refused = 0;
    for _ in 0..150 {
        let mut files = BTreeMap::from([("model.safetensors", model.clone()), ("config.json", config.clone())]);
        let (file, end) =
            if generator.random_bool(0.8) { ("model.safetensors", header) } else { ("config.json", config.len()) };
        for _ in 0..generator.random_range(1..3) {
            let at = generator.random_range(0..end);
            files.get_mut(file).unwrap()[at] = b"0123456789[]{}:,abw"[generator.random_range(0..19)];
        }
        let sizes = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.len() as u64)).collect();
        let files = WeightFiles::new("net", sizes, None, move |name| Ok(files[name].clone()));
        let backbone = PretrainedWeights::read(&files).and_then(|weights| Backbone::try_new(&weights, Device::Cpu));
        let Ok(backbone) = backbone else {
            refused += 1;
            continue;
        };
        let layer = backbone.layer_selection(None).unwrap();
        let size = (35, 42);
        if let (Ok(shape), Ok(features)) =
            (backbone.shape_of(&layer, size), backbone.features(&[picture(9, 9)], &layer, Some(size)))
        {
            assert_eq!(features[0].shape(), shape);
        }
    }
    assert!(refused > 75, "{refused}");
}
