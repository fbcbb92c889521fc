//! Decoded images with random access, in an order and a split that depend on their pixels and a seed only.
//!
//! A source's rows arrive in any order, from any number of partitions. So that training does not depend on that, rows are
//! put in the order of a seeded hash of their pixels; the first `holdout` share of them is held out for calibration. Exact
//! duplicates share a hash, so that none is trained on while its twin is held out.

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::config::TrainOptions;
use crate::error::{Error, Result};
use crate::image::{Image, ImageColumn, ImageShape, Limits, Pixels, Preprocess};

/// Rows decoded at a time, so that memory is counted before more is taken.
const CHUNK: usize = 256;

/// Collects the images of a source, in any order and from any number of columns.
#[derive(Debug)]
pub struct DatasetBuilder {
    preprocess: Option<Preprocess>,
    holdout: f64,
    seed: u64,
    limits: Limits,
    skip_unreadable: bool,
    shape: Option<ImageShape>,
    pixels: Store,
    skipped: u64,
}

/// What the rows' values are kept as: bytes while every image had bytes, four times as large otherwise.
#[derive(Debug)]
enum Store {
    U8(Vec<u8>),
    F32(Vec<f32>),
}

impl DatasetBuilder {
    /// An empty collection. With `skip_unreadable`, an image that cannot be read is skipped and counted like a NULL.
    pub fn new(options: &TrainOptions, limits: Limits, skip_unreadable: bool) -> Self {
        Self {
            preprocess: options.preprocess.clone(),
            holdout: options.holdout,
            seed: options.seed,
            limits,
            skip_unreadable,
            shape: None,
            pixels: Store::U8(Vec::new()),
            skipped: 0,
        }
    }

    /// Decodes a column in parallel and keeps its images, resized and cropped where the options say so.
    ///
    /// Grey images among RGB ones become RGB, which loses nothing.
    ///
    /// # Errors
    /// [`Error::Row`] for an image that cannot be read, and for one of another size than those before it.
    pub fn push(&mut self, column: &ImageColumn) -> Result<()> {
        for start in (0..column.len()).step_by(CHUNK) {
            let rows = start..(start + CHUNK).min(column.len());
            let images: Vec<(usize, Option<Result<Image>>)> =
                rows.into_par_iter().map(|row| (row, self.decode(column, row))).collect();
            for (row, image) in images {
                match image {
                    None => self.skipped += 1,
                    Some(Err(_)) if self.skip_unreadable => self.skipped += 1,
                    Some(image) => self.keep(&image?).map_err(|e| e.in_row(row))?,
                }
            }
        }
        Ok(())
    }

    fn decode(&self, column: &ImageColumn, row: usize) -> Option<Result<Image>> {
        if column.is_null(row) {
            return None;
        }
        let image = column.image(row, None, &self.limits);
        let image = image.and_then(|image| match &self.preprocess {
            Some(preprocess) => preprocess.apply(image),
            None => Ok(image),
        });
        Some(image.map_err(|e| e.in_row(row)))
    }

    fn keep(&mut self, image: &Image) -> Result<()> {
        let got = image.shape();
        let shape = *self.shape.get_or_insert(got);
        let same_size = (got.height(), got.width()) == (shape.height(), shape.width());
        let copies = match (shape.channels(), got.channels()) {
            (a, b) if same_size && a == b => 1,
            (3, 1) if same_size => 3,
            (1, 3) if same_size => {
                self.shape = Some(got);
                self.pixels.repeat(3);
                1
            }
            _ => {
                return Err(Error::Data(format!(
                    "image has shape {got}, those before it {shape}: all must have one size; resize them with the option \
                     size => '{}x{}'",
                    shape.height(),
                    shape.width()
                )));
            }
        };
        self.pixels.extend(image, copies);
        Ok(())
    }

    /// Bytes of memory that the images hold.
    pub fn memory(&self) -> usize {
        match &self.pixels {
            Store::U8(values) => values.capacity(),
            Store::F32(values) => values.capacity() * size_of::<f32>(),
        }
    }

    /// Puts the rows in order and holds out a share of them.
    ///
    /// # Errors
    /// [`Error::Data`] if fewer than two rows are left to train on.
    pub fn finish(self) -> Result<Dataset> {
        let Some(shape) = self.shape else {
            return Err(Error::Data(format!("no image to train on: {} rows were NULL or unreadable", self.skipped)));
        };
        let rows = self.pixels.len() / shape.len();
        let Ok(count) = u32::try_from(rows) else {
            return Err(Error::Data(format!("{rows} images came, expected at most {}", u32::MAX)));
        };
        let keys: Vec<u64> =
            (0..rows).into_par_iter().map(|row| self.pixels.key(row, shape.len(), self.seed)).collect();
        let mut order: Vec<u32> = (0..count).collect();
        order.par_sort_by_key(|row| (keys[*row as usize], *row));
        let key = |i: usize| keys[order[i] as usize];
        let mut held_out = (rows as f64 * self.holdout).round() as usize;
        while (1..rows).contains(&held_out) && key(held_out - 1) == key(held_out) {
            held_out += 1; // a twin goes where its twin is
        }
        if rows < held_out + 2 {
            return Err(Error::Data(format!(
                "training needs at least 2 rows beside the held-out ones, got {rows} of which {held_out} are held out"
            )));
        }
        let made_with = (self.preprocess, self.holdout, self.seed);
        Ok(Dataset { shape, pixels: self.pixels, order, held_out, skipped: self.skipped, made_with })
    }
}

/// Images split into training rows and held-out rows.
#[derive(Debug)]
pub struct Dataset {
    shape: ImageShape,
    pixels: Store,
    /// Held-out rows first, then training rows.
    order: Vec<u32>,
    held_out: usize,
    skipped: u64,
    made_with: (Option<Preprocess>, f64, u64),
}

impl Dataset {
    /// The shape of every image, after resizing and cropping.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// Whether the images were prepared and split as these options say.
    pub(crate) fn was_made_with(&self, options: &TrainOptions) -> bool {
        self.made_with == (options.preprocess.clone(), options.holdout, options.seed)
    }

    /// The number of training rows.
    pub fn training_rows(&self) -> usize {
        self.order.len() - self.held_out
    }

    /// The number of held-out rows.
    pub fn held_out_rows(&self) -> usize {
        self.held_out
    }

    /// Rows of the source that held no readable image.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Training rows by position, in [0, 1].
    ///
    /// # Shapes
    /// (N, H, W, C).
    pub fn training(&self, rows: &[usize]) -> Vec<f32> {
        self.read(rows.iter().map(|row| self.order[self.held_out + row]))
    }

    /// The same as bytes, where every image had bytes.
    #[cfg(feature = "cuda")]
    pub(crate) fn training_bytes(&self, rows: &[usize]) -> Option<Vec<u8>> {
        let (Store::U8(values), len) = (&self.pixels, self.shape.len()) else { return None };
        let row = |row: &usize| self.order[self.held_out + row] as usize * len;
        Some(rows.iter().map(row).flat_map(|start| values[start..start + len].iter().copied()).collect())
    }

    /// A range of held-out rows, in [0, 1].
    ///
    /// # Shapes
    /// (N, H, W, C).
    pub fn held_out(&self, rows: std::ops::Range<usize>) -> Vec<f32> {
        self.read(self.order[..self.held_out][rows].iter().copied())
    }

    fn read(&self, rows: impl Iterator<Item = u32>) -> Vec<f32> {
        let len = self.shape.len();
        let mut values = Vec::with_capacity(rows.size_hint().0 * len);
        for row in rows {
            self.pixels.append_to(row as usize, len, &mut values);
        }
        values
    }
}

impl Store {
    fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::F32(values) => values.len(),
        }
    }

    /// Adds an image, each of its values `copies` times.
    fn extend(&mut self, image: &Image, copies: usize) {
        match (&mut *self, image.pixels()) {
            (Self::U8(store), Pixels::U8(values)) => {
                store.extend(values.iter().flat_map(|v| std::iter::repeat_n(*v, copies)));
            }
            (Self::U8(store), Pixels::F32(_)) => {
                *self = Self::F32(store.iter().map(|v| f32::from(*v) / 255.0).collect());
                self.extend(image, copies);
            }
            (Self::F32(store), pixels) => match pixels {
                Pixels::U8(values) => {
                    store.extend(values.iter().flat_map(|v| std::iter::repeat_n(f32::from(*v) / 255.0, copies)));
                }
                Pixels::F32(values) => store.extend(values.iter().flat_map(|v| std::iter::repeat_n(*v, copies))),
            },
        }
    }

    /// Repeats every value: grey becomes RGB.
    fn repeat(&mut self, copies: usize) {
        match self {
            Self::U8(store) => *store = store.iter().flat_map(|v| std::iter::repeat_n(*v, copies)).collect(),
            Self::F32(store) => *store = store.iter().flat_map(|v| std::iter::repeat_n(*v, copies)).collect(),
        }
    }

    fn append_to(&self, row: usize, len: usize, to: &mut Vec<f32>) {
        let range = row * len..(row + 1) * len;
        match self {
            Self::U8(values) => to.extend(values[range].iter().map(|v| f32::from(*v) / 255.0)),
            Self::F32(values) => to.extend_from_slice(&values[range]),
        }
    }

    /// A hash of a row's values in [0, 1], the same whatever they are kept as.
    fn key(&self, row: usize, len: usize, seed: u64) -> u64 {
        let mut values = Vec::with_capacity(len);
        self.append_to(row, len, &mut values);
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        xxh3_64_with_seed(&bytes, seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder(holdout: f64) -> DatasetBuilder {
        let options = TrainOptions { holdout, ..TrainOptions::default() };
        DatasetBuilder::new(&options, Limits::default(), false)
    }

    fn grey(values: [u8; 4]) -> Image {
        Image::try_new(ImageShape::new(2, 2, 1), Pixels::U8(values.to_vec())).unwrap()
    }

    fn all(dataset: &Dataset) -> (Vec<f32>, Vec<f32>) {
        let training: Vec<usize> = (0..dataset.training_rows()).collect();
        (dataset.held_out(0..dataset.held_out_rows()), dataset.training(&training))
    }

    #[test]
    fn order_and_split_depend_on_pixels_and_seed_only() {
        let build = |rows: Vec<u8>, seed: u64| {
            let mut builder = builder(0.25);
            builder.seed = seed;
            for row in rows {
                builder.keep(&grey([row, 1, 2, 3])).unwrap();
            }
            builder.finish().unwrap()
        };
        let forward = all(&build((0..40).collect(), 0));
        assert_eq!(forward.0.len(), 40, "a quarter of 40 rows of 4 values");
        assert_eq!(forward, all(&build((0..40).rev().collect(), 0)));
        assert_ne!(forward, all(&build((0..40).collect(), 1)));
    }

    #[test]
    fn bytes_and_floats_of_the_same_pixels_are_the_same_rows() {
        let (mut bytes, mut floats) = (builder(0.2), builder(0.2));
        for i in 0..20_u8 {
            let values = [i, 2 * i, 255, 0];
            bytes.keep(&grey(values)).unwrap();
            let floating = Pixels::F32(values.iter().map(|v| f32::from(*v) / 255.0).collect());
            floats.keep(&Image::try_new(ImageShape::new(2, 2, 1), floating).unwrap()).unwrap();
        }
        assert_eq!(all(&bytes.finish().unwrap()), all(&floats.finish().unwrap()));
    }

    #[test]
    fn duplicates_fall_on_one_side() {
        let mut builder = builder(0.4); // the boundary, 8 of 20, falls among twins
        for i in 0..20 {
            builder.keep(&grey([i / 10, 0, 0, 0])).unwrap(); // ten times one image, ten times another
        }
        let (held_out, training) = all(&builder.finish().unwrap());
        assert_eq!((held_out.len(), training.len()), (40, 40));
        assert!(held_out.iter().step_by(4).all(|v| *v == held_out[0]));
    }

    #[test]
    fn grey_becomes_rgb_where_both_come() {
        let mut first = builder(0.0);
        let rgb = Image::try_new(ImageShape::new(2, 2, 3), Pixels::U8((0..12).collect())).unwrap();
        first.keep(&grey([1, 2, 3, 4])).unwrap();
        first.keep(&rgb).unwrap();
        let mut second = builder(0.0);
        second.keep(&rgb).unwrap();
        second.keep(&grey([1, 2, 3, 4])).unwrap();
        let (first, second) = (first.finish().unwrap(), second.finish().unwrap());
        assert_eq!(first.shape(), ImageShape::new(2, 2, 3));
        assert_eq!(all(&first), all(&second));
    }

    #[test]
    fn another_size_and_too_few_rows_are_errors() {
        let mut builder = builder(0.0);
        builder.keep(&grey([0; 4])).unwrap();
        let other = Image::try_new(ImageShape::new(1, 2, 1), Pixels::U8(vec![0, 0])).unwrap();
        let error = builder.keep(&other).unwrap_err().to_string();
        assert!(error.starts_with("image has shape [1, 2, 1], those before it [2, 2, 1]"), "{error}");
        let error = builder.finish().unwrap_err().to_string();
        assert_eq!(error, "training needs at least 2 rows beside the held-out ones, got 1 of which 0 are held out");
    }
}
