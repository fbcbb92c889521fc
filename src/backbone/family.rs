//! Families.
pub(super) const KNOWN: &str = "networks that work: ResNet-18 to 152 and wide ResNets (timm, torchvision, transformers), ViT and DINOv2 (timm, transformers), EfficientNet and EfficientNet-Lite (timm)";
