//! The images on the page: the strangest, with reconstructions and anomaly maps, and samples from the prior.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Float32Type, Schema, UInt8Type};
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::prelude::col;
use maud::{Markup, html};
use wae_core::image::{Pixels, encode, resize};
use wae_core::{Image, ImageColumn, ImageShape};

use super::anomaly_map::{coloured, largest, legend};
use super::chart::number;
use super::facts::{Model, numbers};
use super::level::Level;
use super::outline::Outline;
use super::scan::Scan;
use super::{Session, batch, engine_error};

/// Images drawn from the prior.
pub(super) const SAMPLES: usize = 32;
/// The seed of those draws.
pub(super) const SEED: u64 = 0;
/// The longer side of an image on the page, in pixels; larger ones are made smaller.
pub(super) const SIDE: usize = 192;
/// The sentence in the place of pictures of features.
pub(super) const NO_PICTURES: &str = "The model is of features, of which there are no pictures.";
/// Characters of a label under an image.
const LABEL: usize = 48;

/// One of the strangest images.
struct Picture {
    image: String,
    /// None of features, of which there are no pictures.
    reconstruction: Option<String>,
    map: String,
    outline: Outline,
    /// The largest value of the map, its row and its column.
    largest: (f32, usize, usize),
    score: f32,
    p: Option<f64>,
    is_outlier: bool,
    label: Option<String>,
}

/// The strangest images.
pub(super) struct Gallery {
    pictures: Vec<Picture>,
    /// The value that the maps' last colour stands for.
    most: f32,
    /// The unit of that value, in words.
    unit: &'static str,
    legend: String,
    /// The sentence in the place of pictures, where there are none.
    without: &'static str,
}

/// Reconstructs the strangest images of a scan.
pub(super) async fn strangest(
    session: &Session<'_>,
    model: &Model,
    level: Option<Level>,
    scan: &Scan,
) -> Result<Gallery> {
    let mut gallery = Gallery {
        pictures: Vec::new(),
        most: 0.0,
        unit: model.map_unit(),
        without: "The table holds no image.",
        legend: data_uri(&legend(64).map_err(engine_error)?)?,
    };
    if model.config().row_input().is_some() {
        gallery.without = NO_PICTURES;
        return Ok(gallery);
    }
    let Some((field, images)) = scan.images()? else { return Ok(gallery) };
    let batch = reconstruct(session, model, level, &field, images).await?;
    let maps = maps(&batch)?;
    // One scale for all, so that maps compare.
    gallery.most = match model.has_anomaly_map() {
        true => 1.0,
        false => maps.iter().flatten().copied().fold(0.0, f32::max),
    };
    gallery.pictures = pictures(&batch, &maps, gallery.most, model, scan)?;
    Ok(gallery)
}

/// The pictures of a scan's strangest images, whose maps' last colour stands for `most`.
fn pictures(batch: &RecordBatch, maps: &[Vec<f32>], most: f32, model: &Model, scan: &Scan) -> Result<Vec<Picture>> {
    let originals = inputs(batch, model)?;
    let reconstructions: Vec<Option<String>> = match model.config().input() {
        None => {
            let images = decoded(batch, "reconstruction", model)?;
            images.iter().map(|image| data_uri(image).map(Some)).collect::<Result<_>>()?
        }
        Some(_) => vec![None; originals.len()],
    };
    let p_values = if model.held_out().is_some() { numbers(batch, "p")? } else { vec![None; originals.len()] };
    let masks = masks(batch)?;
    let (height, width) = model.config().map_size();
    let mut pictures = Vec::with_capacity(originals.len());
    for ((((image, reconstruction), map), mask), (strange, p)) in
        originals.iter().zip(reconstructions).zip(maps).zip(&masks).zip(scan.strangest.iter().zip(p_values))
    {
        let coloured = coloured(map, height, width, most).map_err(engine_error)?;
        pictures.push(Picture {
            image: data_uri(image)?,
            reconstruction,
            map: data_uri(&coloured)?,
            outline: Outline::new(mask, width),
            largest: largest(map, width),
            score: strange.score,
            p,
            is_outlier: strange.is_outlier == Some(true),
            label: strange.label.clone(),
        });
    }
    Ok(pictures)
}

/// The columns image, reconstruction, map, mask and p, in the order given. The mask is NULL of a model without anomaly
/// masks.
async fn reconstruct(
    session: &Session<'_>,
    model: &Model,
    level: Option<Level>,
    field: &Field,
    images: ArrayRef,
) -> Result<RecordBatch> {
    let order: ArrayRef = Arc::new(Int64Array::from_iter_values(0..images.len() as i64));
    let fields = vec![Field::new("position", DataType::Int64, false), field.clone().with_name("image")];
    let schema = Arc::new(Schema::new(fields));
    let rows = RecordBatch::try_new(schema, vec![order, images])?;
    let name = session.literal();
    let p = if model.held_out().is_some() { format!("wae_p_value(image, {name})") } else { "NULL".to_owned() };
    let map = if model.has_anomaly_map() { "wae_anomaly_map" } else { "wae_cost_map" };
    let reconstruction = match model.config().input() {
        None => format!("wae_reconstruct(image, {name}) AS reconstruction"),
        Some(_) => "NULL AS reconstruction".to_owned(),
    };
    let mask = match level.filter(|_| model.has_anomaly_masks()) {
        Some(level) => format!("wae_anomaly_mask(image, {}, {name})", level.alpha()),
        None => "NULL".to_owned(),
    };
    let columns: [&str; 6] = [
        "position",
        "image",
        &reconstruction,
        &format!("{map}(image, {name}) AS map"),
        &format!("{mask} AS mask"),
        &format!("{p} AS p"),
    ];
    // No table of the session, whose names are the user's.
    batch(session.ctx.read_batch(rows)?.select_exprs(&columns)?.sort_by(vec![col("position")])?).await
}

/// The anomaly maps, (H, W) each.
fn maps(batch: &RecordBatch) -> Result<Vec<Vec<f32>>> {
    let maps = batch.column_by_name("map").and_then(|column| column.as_fixed_size_list_opt());
    let maps = maps.ok_or_else(|| exec_datafusion_err!("report: no column 'map'"))?;
    Ok((0..maps.len()).map(|row| maps.value(row).as_primitive::<Float32Type>().values().to_vec()).collect())
}

/// The anomaly masks, (H, W) each; empty where there are none.
fn masks(batch: &RecordBatch) -> Result<Vec<Vec<u8>>> {
    let masks = batch.column_by_name("mask").ok_or_else(|| exec_datafusion_err!("report: no column 'mask'"))?;
    let Some(masks) = masks.as_fixed_size_list_opt() else { return Ok(vec![Vec::new(); masks.len()]) };
    Ok((0..masks.len()).map(|row| masks.value(row).as_primitive::<UInt8Type>().values().to_vec()).collect())
}

/// Draws from the prior, as `data:` URIs.
pub(super) async fn samples(session: &Session<'_>, model: &Model) -> Result<Vec<String>> {
    if model.config().input().is_some() {
        return Ok(Vec::new());
    }
    let model_name = session.literal();
    let sql = format!("SELECT image FROM wae_sample({SAMPLES}, model => {model_name}, seed => {SEED})");
    let batch = session.batch(&sql).await?;
    decoded(&batch, "image", model)?.iter().map(data_uri).collect()
}

/// The images of a column as the model sees them, or its pretrained network: cropped and resized where it does so.
fn inputs(batch: &RecordBatch, model: &Model) -> Result<Vec<Image>> {
    let config = model.config();
    let column = column(batch, "image", model)?;
    if let Some(backbone) = config.backbone() {
        let image = |row| column.image(row, Some(3), &model.limits).and_then(|image| backbone.resized(image));
        return (0..column.len()).map(image).collect::<wae_core::Result<_>>().map_err(engine_error);
    }
    let rows: Vec<usize> = (0..column.len()).collect();
    let values = column.read(&rows, config.image(), config.preprocess(), &model.limits).map_err(engine_error)?;
    let image = |pixels: &[f32]| Image::try_new(config.image(), Pixels::F32(pixels.to_vec()));
    values.chunks_exact(config.image().len()).map(image).collect::<wae_core::Result<_>>().map_err(engine_error)
}

/// The images of a column that the model has put out.
fn decoded(batch: &RecordBatch, name: &str, model: &Model) -> Result<Vec<Image>> {
    let column = column(batch, name, model)?;
    let image = |row| column.image(row, None, &model.limits).map_err(engine_error);
    (0..column.len()).map(image).collect()
}

fn column(batch: &RecordBatch, name: &str, model: &Model) -> Result<ImageColumn> {
    let missing = || exec_datafusion_err!("report: no column '{name}'");
    let (index, field) = batch.schema_ref().column_with_name(name).ok_or_else(missing)?;
    let config = model.config();
    let shape = config.backbone().is_none().then(|| config.image());
    ImageColumn::try_new(field, batch.column(index), shape).map_err(engine_error)
}

/// An image as a PNG inside the page, at most [`SIDE`] pixels long. Of other channels than PNG has, the mean is shown.
fn data_uri(image: &Image) -> Result<String> {
    let mut image = image.clone();
    if !matches!(image.shape().channels(), 1 | 3 | 4) {
        image = grey(&image).map_err(engine_error)?;
    }
    let height = image.shape().height();
    let width = image.shape().width();
    let longer = height.max(width);
    if longer > SIDE {
        let scaled = |side: usize| (side * SIDE / longer).max(1);
        image = resize(&image, scaled(height), scaled(width)).map_err(engine_error)?;
    }
    let png = encode(&image, "png").map_err(engine_error)?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(png)))
}

fn grey(image: &Image) -> wae_core::Result<Image> {
    let shape = image.shape();
    let mut values = vec![0.0; shape.len()];
    image.write_to(&mut values);
    let mean = |pixel: &[f32]| pixel.iter().sum::<f32>() / pixel.len() as f32;
    let pixels = values.chunks_exact(shape.channels()).map(mean).collect();
    Image::try_new(ImageShape::new(shape.height(), shape.width(), 1), Pixels::F32(pixels))
}

impl Gallery {
    /// The images, or a sentence where there are none.
    pub(super) fn figures(&self) -> Markup {
        if self.pictures.is_empty() {
            return html! { p { (self.without) } };
        }
        html! {
            p.scale {
                "Anomaly maps: " (self.unit) ", from 0 "
                img src=(self.legend) width="160" height="12" alt="from black over purple and orange to light yellow";
                " to " (number(f64::from(self.most)))
            }
            ol.gallery {
                @for (i, picture) in self.pictures.iter().enumerate() { li { (picture.figure(i + 1)) } }
            }
        }
    }
}

impl Picture {
    fn figure(&self, rank: usize) -> Markup {
        let (value, row, column) = self.largest;
        let place = format!("largest value {} at row {row}, column {column}", number(f64::from(value)));
        html! {
            figure {
                div.triple {
                    @let label = self.label.as_deref().map(|label| format!(", {}", cut(label))).unwrap_or_default();
                    div.outlined {
                        img src=(self.image) alt={ "Image " (rank) (label) (self.outline.words()) };
                        (self.outline.drawing())
                    }
                    @if let Some(reconstruction) = &self.reconstruction {
                        img src=(reconstruction) alt={ "Reconstruction of image " (rank) };
                    }
                    img src=(self.map) alt={ "Anomaly map of image " (rank) ": " (place) };
                }
                figcaption {
                    @if let Some(label) = &self.label { span.label { (cut(label)) } }
                    span { "score " (number(f64::from(self.score))) }
                    @if let Some(p) = self.p { span { "p " (number(p)) } }
                    @if self.is_outlier { span.flag { "outlier" } }
                }
            }
        }
    }
}

/// A label, cut to [`LABEL`] characters.
fn cut(label: &str) -> String {
    if label.chars().count() <= LABEL {
        return label.to_owned();
    }
    // The end of a path says more than its beginning.
    let skipped = label.chars().count() + 1 - LABEL;
    ['…'].into_iter().chain(label.chars().skip(skipped)).collect()
}

/// Samples from the prior as a list.
pub(super) fn sample_list(samples: &[String]) -> Markup {
    html! {
        ul.samples {
            @for (i, sample) in samples.iter().enumerate() {
                li { img src=(sample) alt={ "Sample " (i + 1) " from the prior" }; }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use wae_core::image::{Limits, decode};

    use super::*;

    fn shown(shape: ImageShape) -> ImageShape {
        let image = Image::try_new(shape, Pixels::U8(vec![7; shape.len()])).unwrap();
        let uri = data_uri(&image).unwrap();
        let png = STANDARD.decode(uri.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        decode(&png, None, &Limits::default()).unwrap().shape()
    }

    #[test]
    fn images_are_bounded_and_of_channels_that_png_has() {
        assert_eq!(shown(ImageShape::new(28, 20, 1)), ImageShape::new(28, 20, 1));
        assert_eq!(shown(ImageShape::new(100, 384, 3)), ImageShape::new(50, 192, 3));
        assert_eq!(shown(ImageShape::new(1000, 1, 1)), ImageShape::new(192, 1, 1));
        assert_eq!(shown(ImageShape::new(4, 4, 5)), ImageShape::new(4, 4, 1));
    }

    #[test]
    fn captions_are_escaped_and_cut() {
        assert_eq!(cut(&"é".repeat(48)), "é".repeat(48));
        assert_eq!(cut(&format!("{}/end", "é".repeat(60))), format!("…{}/end", "é".repeat(43)));
        let picture = Picture {
            image: "data:1".to_owned(),
            reconstruction: Some("data:2".to_owned()),
            map: "data:3".to_owned(),
            outline: Outline::new(&[0, 255], 2),
            largest: (0.5, 3, 14),
            score: 12.345,
            p: Some(0.0024),
            is_outlier: true,
            label: Some("<script>\"'&".to_owned()),
        };
        let html = picture.figure(2).into_string();
        let alt = "alt=\"Image 2, &lt;script&gt;&quot;'&amp;, 1 of 2 places outlined\"";
        assert!(html.contains(alt) && html.contains("<path d=\"M1 0h1"), "{html}");
        assert!(html.contains("largest value 0.5000 at row 3, column 14") && !html.contains("<script"), "{html}");
        assert!(html.contains("score 12.35") || html.contains("score 12.34"), "{html}");
    }
}
