//! Keys of `preprocessor_config.json` (transformers) and of `pretrained_cfg` in `config.json` (timm).

use serde_json::Value;

use super::{Crop, IMAGENET, Preprocessing, Resize, ResizeAndCrop};
use crate::error::{Error, Result};
use crate::image::{Filter, MAX_SIDE};

/// The side from which on transformers' ConvNextImageProcessor, which its ResNets have, resizes without a crop.
const WITHOUT_CROP: usize = 384;
/// The share of the side that it crops to where the file does not say.
const CROP_SHARE: f64 = 224.0 / 256.0;

/// The preprocessing of `preprocessor_config.json`.
pub(super) fn transformers(file: &Value) -> Result<Preprocessing> {
    const FILE: &str = "preprocessor_config.json";
    let refused = |key: &str, expected: &str| refused(FILE, file, key, expected);
    let kind = file.get("image_processor_type").or_else(|| file.get("feature_extractor_type"));
    let kind = kind.and_then(Value::as_str).unwrap_or_default();
    let is_known = ["ViT", "Bit", "ConvNext", "DeiT"].iter().any(|known| kind.starts_with(known));
    if !is_known {
        return Err(refused("image_processor_type", "ViT's, Bit's, ConvNext's or DeiT's image processor"));
    }
    let does = |key: &str, usual: bool| file.get(key).map_or(Some(usual), Value::as_bool);
    let is_rescaled = does("do_rescale", true) == Some(true);
    let factor = file.get("rescale_factor").map_or(Some(1.0 / 255.0), Value::as_f64);
    if !is_rescaled || factor.is_none_or(|factor| (factor * 255.0 - 1.0).abs() > 1e-6) {
        return Err(refused("rescale_factor", "1/255, and do_rescale true"));
    }
    let (mean, deviation) = match does("do_normalize", true) {
        Some(false) => ([0.0; 3], [1.0; 3]),
        _ => (colours(FILE, file, "image_mean")?, deviation(FILE, file, "image_std")?),
    };
    let mut geometry = ResizeAndCrop { resize: None, crop: None };
    let mut filter = Filter::Bicubic;
    if does("do_resize", true) != Some(false) {
        filter = match file.get("resample").and_then(Value::as_u64) {
            Some(1) => Filter::Lanczos,
            Some(2) => Filter::Bilinear,
            Some(3) => Filter::Bicubic,
            _ => return Err(refused("resample", "1 (Lanczos), 2 (bilinear) or 3 (bicubic)")),
        };
        geometry = resize_of_transformers(file, kind)?;
    }
    // The processors of transformers differ in what they do where the file does not say.
    let crops = ["Bit", "DeiT"].iter().any(|kinds| kind.starts_with(kinds));
    if does("do_center_crop", crops) == Some(true) {
        let (height, width) = sides(FILE, file, "crop_size")?;
        geometry.crop = Some(Crop { height, width, rounds_to_even: false });
    }
    checked(FILE, Preprocessing { geometry: Some(geometry), filter, mean, deviation, is_from_files: true })
}

/// The resize, and the crop of a ConvNextImageProcessor, by the key `size`: a number is the shorter side, or of ViT's
/// processors both.
fn resize_of_transformers(file: &Value, kind: &str) -> Result<ResizeAndCrop> {
    const FILE: &str = "preprocessor_config.json";
    let size = file.get("size").unwrap_or(&Value::Null);
    let is_square = kind.starts_with("ViT") || kind.starts_with("DeiT");
    if size.get("height").is_some() || (size.is_number() && is_square) {
        let (height, width) = sides(FILE, file, "size")?;
        return Ok(ResizeAndCrop { resize: Some(Resize::Exact(height, width)), crop: None });
    }
    let shortest = side(size).or_else(|| side(size.get("shortest_edge")?));
    let Some(shortest) = shortest else {
        return Err(refused(FILE, file, "size", "a side, a height and a width, or a shortest_edge"));
    };
    if !kind.starts_with("ConvNext") {
        return Ok(ResizeAndCrop { resize: Some(Resize::Shortest(shortest)), crop: None });
    }
    if shortest >= WITHOUT_CROP {
        return Ok(ResizeAndCrop { resize: Some(Resize::Exact(shortest, shortest)), crop: None });
    }
    let share = share(FILE, file)?.unwrap_or(CROP_SHARE);
    let crop = Crop { height: shortest, width: shortest, rounds_to_even: false };
    Ok(ResizeAndCrop { resize: Some(Resize::Shortest((shortest as f64 / share) as usize)), crop: Some(crop) })
}

/// The preprocessing of timm's `pretrained_cfg`.
pub(super) fn timm(file: &Value) -> Result<Preprocessing> {
    const FILE: &str = "config.json";
    let refused = |key: &str, expected: &str| refused(FILE, file, key, expected);
    let (height, width) = match file.get("input_size").and_then(Value::as_array).map(Vec::as_slice) {
        Some([channels, height, width]) if channels.as_u64() == Some(3) => side(height).zip(side(width)),
        _ => None,
    }
    .ok_or_else(|| refused("input_size", "[3, height, width]"))?;
    let filter = match file.get("interpolation").and_then(Value::as_str).unwrap_or("bicubic") {
        "bilinear" => Filter::Bilinear,
        "bicubic" => Filter::Bicubic,
        "lanczos" => Filter::Lanczos,
        _ => return Err(refused("interpolation", "bilinear, bicubic or lanczos")),
    };
    let share = share(FILE, file)?.unwrap_or(0.875);
    let scaled = |side: usize| (side as f64 / share).floor() as usize;
    let resize = match file.get("crop_mode").and_then(Value::as_str).unwrap_or("center") {
        "squash" => Resize::Exact(scaled(height), scaled(width)),
        "center" if scaled(height) == scaled(width) => Resize::Shortest(scaled(height)),
        "center" => return Err(refused("input_size", "a square: timm crops other shapes in another way")),
        _ => return Err(refused("crop_mode", "center or squash")),
    };
    let crop = Some(Crop { height, width, rounds_to_even: true });
    let has = |key: &str| file.get(key).is_some_and(|value| !value.is_null());
    let mean = if has("mean") { colours(FILE, file, "mean")? } else { IMAGENET.0 };
    let deviation = if has("std") { deviation(FILE, file, "std")? } else { IMAGENET.1 };
    let geometry = Some(ResizeAndCrop { resize: Some(resize), crop });
    checked(FILE, Preprocessing { geometry, filter, mean, deviation, is_from_files: true })
}

/// Refuses a crop that is larger than what is resized for it.
fn checked(file: &str, preprocessing: Preprocessing) -> Result<Preprocessing> {
    let geometry = preprocessing.geometry;
    if let Some((Some(crop), Some(resize))) = geometry.map(|geometry| (geometry.crop, geometry.resize)) {
        let (height, width) = match resize {
            Resize::Shortest(side) => (side, side),
            Resize::Exact(height, width) => (height, width),
        };
        if crop.height > height || crop.width > width {
            return Err(Error::Model(format!(
                "{file} crops {} × {} from images of {height} × {width}, expected a smaller crop",
                crop.height, crop.width
            )));
        }
    }
    Ok(preprocessing)
}

/// The error for a key that has another value than expected.
fn refused(file: &str, value: &Value, key: &str, expected: &str) -> Error {
    let got = value.get(key).unwrap_or(&Value::Null);
    Error::Model(format!("{file} has '{key}' {got}, expected {expected}"))
}

/// A side in pixels, within bounds.
fn side(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|side| usize::try_from(side).ok()).filter(|side| (1..=MAX_SIDE).contains(side))
}

/// A height and a width: a number is both.
fn sides(file: &str, value: &Value, key: &str) -> Result<(usize, usize)> {
    let size = value.get(key).unwrap_or(&Value::Null);
    let both = side(size).map(|side| (side, side));
    let each = || side(size.get("height")?).zip(side(size.get("width")?));
    both.or_else(each).ok_or_else(|| refused(file, value, key, "a side, or a height and a width"))
}

/// The share of the side that is cropped to, above 0 and at most 1.
fn share(file: &str, value: &Value) -> Result<Option<f64>> {
    match value.get("crop_pct") {
        None | Some(Value::Null) => Ok(None),
        Some(share) => match share.as_f64() {
            Some(share) if share > 0.01 && share <= 1.0 => Ok(Some(share)),
            _ => Err(refused(file, value, "crop_pct", "a number above 0.01 and at most 1")),
        },
    }
}

/// Three numbers, for red, green and blue.
fn colours(file: &str, value: &Value, key: &str) -> Result<[f32; 3]> {
    let numbers = value.get(key).and_then(Value::as_array).map(Vec::as_slice);
    let number = |value: &Value| value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
    let three = match numbers {
        Some([red, green, blue]) => number(red).zip(number(green)).zip(number(blue)),
        _ => None,
    };
    let three = three.map(|((red, green), blue)| [red, green, blue]);
    three.ok_or_else(|| refused(file, value, key, "three numbers"))
}

/// Three numbers above 0.
fn deviation(file: &str, value: &Value, key: &str) -> Result<[f32; 3]> {
    let deviation = colours(file, value, key)?;
    match deviation.iter().all(|number| *number > 0.0) {
        true => Ok(deviation),
        false => Err(refused(file, value, key, "three numbers above 0")),
    }
}
