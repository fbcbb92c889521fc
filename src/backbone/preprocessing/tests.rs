//! Both libraries' keys, and the geometry of images by hand. Agreement with the libraries is in `backbone/tests.rs`.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn text(read: fn(&Value) -> Result<Preprocessing>, file: &Value) -> String {
    read(file).map_or_else(|e| e.to_string(), |found| found.to_string())
}

const NORM: &str = "mean [0.5, 0.5, 0.5], deviation [0.25, 0.25, 0.25]";

/// A file of transformers with these keys beside mean and deviation.
fn transformers(kind: &str, keys: Value) -> Value {
    let mut file = json!({"image_processor_type": kind, "resample": 3,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]});
    let object = file.as_object_mut().unwrap();
    keys.as_object().unwrap().iter().for_each(|(key, value)| {
        object.insert(key.clone(), value.clone());
    });
    file
}

#[rstest]
#[case::vit("ViTImageProcessor", json!({"size": {"height": 30, "width": 40}}), "to 30 × 40, bicubic; ", Some((30, 40)))]
#[case::old_vit("ViTFeatureExtractor", json!({"size": 9, "resample": 2}), "to 9 × 9, bilinear; ", Some((9, 9)))]
#[case::dino(
    "BitImageProcessor",
    json!({"size": {"shortest_edge": 256}, "do_center_crop": true, "crop_size": {"height": 224, "width": 200}}),
    "shorter side to 256, bicubic; centre 224 × 200; ",
    Some((224, 200))
)]
#[case::uncropped("BitImageProcessorFast", json!({"size": 256, "resample": 1, "do_center_crop": false}), "shorter side to 256, lanczos; ", None)]
#[case::resnet(
    "ConvNextFeatureExtractor",
    json!({"size": 224, "crop_pct": 0.875}),
    "shorter side to 256, bicubic; centre 224 × 224; ",
    Some((224, 224))
)]
#[case::large("ConvNextImageProcessor", json!({"size": 384}), "to 384 × 384, bicubic; ", Some((384, 384)))]
#[case::as_it_is("ViTImageProcessor", json!({"do_resize": false}), "", None)]
fn keys_of_transformers(
    #[case] kind: &str,
    #[case] keys: Value,
    #[case] expected: &str,
    #[case] size: Option<(usize, usize)>,
) {
    let file = transformers(kind, keys);
    assert_eq!(text(files::transformers, &file), format!("{expected}{NORM}"));
    assert_eq!(files::transformers(&file).unwrap().input_size(), size);
}

#[rstest]
#[case("CLIPImageProcessor", json!({"size": 224}), "'image_processor_type' \"CLIPImageProcessor\", expected ViT's")]
#[case("ViTImageProcessor", json!({"size": {"longest_edge": 9}}), "'size' {\"longest_edge\":9}, expected a side")]
#[case("ViTImageProcessor", json!({"size": 0}), "'size' 0, expected a side, or a height and a width")]
#[case("ViTImageProcessor", json!({"size": 1_000_000}), "'size' 1000000, expected a side")]
#[case("ViTImageProcessor", json!({"size": 9, "resample": 0}), "'resample' 0, expected 1 (Lanczos)")]
#[case("ViTImageProcessor", json!({"size": 9, "rescale_factor": 1}), "'rescale_factor' 1, expected 1/255")]
#[case("ViTImageProcessor", json!({"size": 9, "do_rescale": false}), "expected 1/255, and do_rescale true")]
#[case("ViTImageProcessor", json!({"size": 9, "image_std": [0, 1, 1]}), "[0,1,1], expected three numbers above 0")]
#[case("ViTImageProcessor", json!({"size": 9, "image_mean": [0.5]}), "'image_mean' [0.5], expected three numbers")]
#[case("BitImageProcessor", json!({"size": 9, "do_center_crop": true, "crop_size": 10}), "10 from images of 9 × 9")]
#[case("ConvNextImageProcessor", json!({"size": 9, "crop_pct": 1.5}), "'crop_pct' 1.5, expected a number above")]
fn refused_keys_of_transformers(#[case] kind: &str, #[case] keys: Value, #[case] expected: &str) {
    let error = text(files::transformers, &transformers(kind, keys));
    assert!(error.starts_with("preprocessor_config.json ") && error.contains(expected), "{error}");
}

#[rstest]
#[case(json!({"input_size": [3, 224, 224]}), "shorter side to 256, bicubic; centre 224 × 224; ")]
#[case(
    json!({"input_size": [3, 260, 260], "crop_pct": 0.89, "interpolation": "bilinear", "crop_mode": "center"}),
    "shorter side to 292, bilinear; centre 260 × 260; "
)]
#[case(
    json!({"input_size": [3, 30, 40], "crop_pct": 1.0, "crop_mode": "squash"}),
    "to 30 × 40, bicubic; centre 30 × 40; "
)]
fn keys_of_timm(#[case] mut file: Value, #[case] expected: &str) {
    let imagenet = "mean [0.485, 0.456, 0.406], deviation [0.229, 0.224, 0.225]";
    assert_eq!(text(files::timm, &file), format!("{expected}{imagenet}"));
    file["mean"] = json!([0.5, 0.5, 0.5]);
    file["std"] = json!([0.25, 0.25, 0.25]);
    assert_eq!(text(files::timm, &file), format!("{expected}{NORM}"));
}

#[rstest]
#[case(json!({}), "'input_size' null, expected [3, height, width]")]
#[case(json!({"input_size": [1, 28, 28]}), "'input_size' [1,28,28], expected [3, height, width]")]
#[case(json!({"input_size": [3, 28, 56]}), "expected a square")]
#[case(json!({"input_size": [3, 28, 28], "crop_mode": "border"}), "'crop_mode' \"border\", expected center or squash")]
#[case(json!({"input_size": [3, 28, 28], "interpolation": "random"}), "expected bilinear, bicubic or lanczos")]
fn refused_keys_of_timm(#[case] file: Value, #[case] expected: &str) {
    let error = text(files::timm, &file);
    assert!(error.starts_with("config.json has ") && error.contains(expected), "{error}");
}

/// 5 × 9 pixels to a shorter side of 10: ⌊10·9/5⌋ = 18.
#[test]
fn the_shorter_side_leads() {
    let output = |height, width| Resize::Shortest(10).output(ImageShape::new(height, width, 3));
    assert_eq!((output(5, 9), output(9, 5), output(7, 7), output(3, 10)), ((10, 18), (18, 10), (10, 10), (10, 33)));
}

/// A margin of 3 begins at 1.5, which Python rounds to 2; one of 1 begins at 0.5, which it rounds to 0.
#[test]
fn the_centre_as_each_library_rounds_it() {
    let row = Image::try_new(ImageShape::new(1, 5, 3), Pixels::U8((0..15).collect())).unwrap();
    let first = |width: usize, rounds_to_even: bool| {
        Crop { height: 1, width, rounds_to_even }.apply(&row).unwrap().to_u8()[0] / 3
    };
    assert_eq!((first(2, true), first(2, false), first(4, true), first(4, false)), (2, 1, 0, 0));
    let error = Crop { height: 2, width: 2, rounds_to_even: true }.apply(&row).unwrap_err().to_string();
    assert_eq!(error, "the image has 1 × 5 pixels once resized, too few for the centre of 2 × 2");
}

#[test]
fn an_image_is_cropped_and_normalised_or_taken_whole() {
    let file = json!({"input_size": [3, 1, 1], "crop_pct": 1.0, "mean": [0.0, 0.2, 0.4], "std": [1.0, 0.5, 0.1]});
    let preprocessing = files::timm(&file).unwrap();
    let image = Image::try_new(ImageShape::new(1, 1, 3), Pixels::F32(vec![0.5, 0.5, 0.5])).unwrap();
    let prepared = preprocessing.apply(&image, None).unwrap();
    assert_eq!(prepared.size, (1, 1));
    assert!(prepared.values.iter().zip([0.5, 0.6, 1.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{prepared:?}");
    let wide =
        Image::try_new(ImageShape::new(1, 4, 3), Pixels::U8(vec![0, 0, 0, 9, 9, 9, 9, 9, 9, 255, 255, 255])).unwrap();
    let whole = preprocessing.apply(&wide, Some((1, 4))).unwrap();
    assert_eq!((whole.size, whole.values[0], whole.values[9]), ((1, 4), 0.0, 1.0), "borders are seen");
    let grey = Image::try_new(ImageShape::new(1, 1, 1), Pixels::U8(vec![0])).unwrap();
    let error = preprocessing.apply(&grey, None).unwrap_err().to_string();
    assert_eq!(error, "the image has 1 channels, expected red, green and blue");
}

#[test]
fn a_size_takes_the_place_of_resize_and_crop() {
    let size = json!({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}});
    let found = files::transformers(&transformers("BitImageProcessor", size)).unwrap();
    assert_eq!(found.resized(None), found);
    let resized = found.resized(Some((28, 42)));
    assert_eq!(resized.to_string(), format!("to 28 × 42, bicubic; {NORM}"));
    assert_eq!(resized.input_size(), Some((28, 42)));
}
