//! Tables of images that are the same on every machine: PNG files in Parquet.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{BinaryArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::parquet::arrow::ArrowWriter;
use rayon::prelude::*;
use wae_core::image::{Pixels, encode};
use wae_core::{Image, ImageShape};

use super::Result;

/// The shape of each image.
pub const SHAPE: ImageShape = ImageShape::new(64, 64, 3);

/// Images a row group: a reader holds one in memory, here about 20 MB.
const ROW_GROUP: usize = 2048;

/// Writes a table with one column `image` of so many rows, unless it is there.
pub fn table(path: &Path, rows: usize) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    fs::create_dir_all(path.parent().ok_or("no folder")?)?;
    let unfinished = path.with_extension("unfinished");
    let schema = Arc::new(Schema::new(vec![Field::new("image", DataType::Binary, false)]));
    let mut writer = ArrowWriter::try_new(File::create(&unfinished)?, Arc::clone(&schema), None)?;
    for start in (0..rows).step_by(ROW_GROUP) {
        let numbers = start..(start + ROW_GROUP).min(rows);
        let images: Vec<Vec<u8>> =
            numbers.into_par_iter().map(|number| encode(&image(number)?, "png")).collect::<wae_core::Result<_>>()?;
        let images = BinaryArray::from_iter_values(images);
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(images)])?)?;
        writer.flush()?;
    }
    writer.close()?;
    Ok(fs::rename(unfinished, path)?)
}

/// A disc of one colour before another, each with a gradient and a little noise.
fn image(number: usize) -> wae_core::Result<Image> {
    let mut state = number as u64;
    let mut random = || {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize
    };
    let height = SHAPE.height();
    let width = SHAPE.width();
    let y0 = random() % height;
    let x0 = random() % width;
    let radius = 8 + random() % 16;
    let colours: [[usize; 3]; 2] = std::array::from_fn(|_| std::array::from_fn(|_| random() % 192));
    let mut values = Vec::with_capacity(SHAPE.len());
    for y in 0..height {
        for x in 0..width {
            let inside = y.abs_diff(y0).pow(2) + x.abs_diff(x0).pow(2) < radius * radius;
            let noise = random();
            for (channel, colour) in colours[usize::from(inside)].iter().enumerate() {
                // At most 191 + 31 + 15.
                values.push((colour + (x + y) / 4 + (noise >> (8 * channel)) % 16) as u8);
            }
        }
    }
    Image::try_new(SHAPE, Pixels::U8(values))
}
