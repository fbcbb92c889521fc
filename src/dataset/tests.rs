//! Rows and their order do not depend on the form that images come in, nor on the place where they are kept.

use std::fs::File;
use std::sync::Arc;

use tempfile::{NamedTempFile, TempDir};

use super::rows::{INDEX_BYTES, Row};
use super::*;
use crate::image::{AxisOrder, Image, ImageColumn, Pixels};
use crate::train::Trainer;

fn builder(holdout: f64) -> DatasetBuilder {
    let options = TrainOptions { holdout, ..TrainOptions::default() };
    DatasetBuilder::new(&options, Limits::default(), false)
}

fn grey(values: [u8; 4]) -> Image {
    Image::try_new(ImageShape::new(2, 2, 1), Pixels::U8(values.to_vec())).unwrap()
}

fn all(dataset: &Dataset) -> (Vec<f32>, Vec<f32>) {
    let training: Vec<usize> = (0..dataset.training_rows()).collect();
    (dataset.held_out(0..dataset.held_out_rows()).unwrap(), dataset.training(&training).unwrap())
}

/// Keeps an image as a column's would be.
fn keep(builder: &mut DatasetBuilder, image: &Image) -> Result<()> {
    let row = Row::new(image, builder.shape(), builder.options.seed);
    builder.keep(&row, 7)
}

/// A host that grants so many bytes and then a file in a folder.
#[derive(Debug)]
struct Host {
    left: usize,
    dir: Arc<TempDir>,
}

impl Resources for Host {
    fn grow(&mut self, bytes: usize) -> Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| Error::Resources("no memory".to_owned()))?;
        Ok(())
    }

    fn shrink(&mut self, bytes: usize) {
        self.left += bytes;
    }

    fn file(&mut self) -> Result<SpillFile> {
        let file = NamedTempFile::new_in(self.dir.path()).map_err(|e| Error::io(self.dir.path(), e))?;
        let writer = file.reopen().map_err(|e| Error::io(file.path(), e))?;
        let path = file.path().to_owned();
        Ok(SpillFile::new(&path, Box::new(writer), Box::new(file)))
    }
}

/// A builder with so many bytes of memory, and the folder of its file.
fn limited(holdout: f64, bytes: usize) -> (DatasetBuilder, Arc<TempDir>) {
    let dir = Arc::new(TempDir::new().unwrap());
    let options = TrainOptions { holdout, ..TrainOptions::default() };
    let host = Host { left: bytes, dir: Arc::clone(&dir) };
    (DatasetBuilder::with_resources(&options, Limits::default(), false, Box::new(host)), dir)
}

fn files(dir: &TempDir) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Images of 40×40 as they come in the worst case: bytes, then floats; grey, then RGB, then both in turn.
fn mixed(row: usize) -> Image {
    let channels = if row < 100 || row.is_multiple_of(3) { 1 } else { 3 };
    let values: Vec<u8> = (0..1600 * channels).map(|i| ((row * 31 + i * i) % 251) as u8).collect();
    let pixels = match row.is_multiple_of(2) || row < 50 {
        true => Pixels::U8(values),
        false => Pixels::F32(values.iter().map(|v| f32::from(*v) / 255.0).collect()),
    };
    Image::try_new(ImageShape::new(40, 40, channels), pixels).unwrap()
}

#[test]
fn order_and_split_depend_on_pixels_and_seed_only() {
    let build = |rows: Vec<u8>, seed: u64| {
        let mut builder = builder(0.25);
        builder.options.seed = seed;
        for row in rows {
            keep(&mut builder, &grey([row, 1, 2, 3])).unwrap();
        }
        builder.finish().unwrap()
    };
    let forward = all(&build((0..40).collect(), 0));
    assert_eq!(forward.0.len(), 40, "a quarter of 40 rows of 4 values");
    assert_eq!(forward, all(&build((0..40).rev().collect(), 0)));
    assert_ne!(forward, all(&build((0..40).collect(), 1)));
    // So does what tells the images from others; one pixel of one row changes it.
    let of = |rows: Vec<u8>| build(rows, 0).fingerprint().clone();
    assert_eq!(of((0..40).collect()), of((0..40).rev().collect()));
    let other = of((1..41).collect());
    assert_eq!((other.rows, other.held_out), (40, 10));
    assert_ne!(other.hash, of((0..40).collect()).hash);
}

#[test]
fn bytes_and_floats_of_the_same_pixels_are_the_same_rows() {
    let mut bytes = builder(0.2);
    let mut floats = builder(0.2);
    for i in 0..20_u8 {
        let values = [i, 2 * i, 255, 0];
        keep(&mut bytes, &grey(values)).unwrap();
        let floating = Pixels::F32(values.iter().map(|v| f32::from(*v) / 255.0).collect());
        keep(&mut floats, &Image::try_new(ImageShape::new(2, 2, 1), floating).unwrap()).unwrap();
    }
    assert_eq!(all(&bytes.finish().unwrap()), all(&floats.finish().unwrap()));
}

/// The border, 8 of 20 rows, falls among twins: five pictures of four copies each.
#[test]
fn duplicates_fall_on_one_side() {
    let mut builder = builder(0.4);
    for i in 0..20 {
        keep(&mut builder, &grey([i / 4, 0, 0, 0])).unwrap();
    }
    let (held_out, training) = all(&builder.finish().unwrap());
    assert_eq!((held_out.len(), training.len()), (32, 48));
    let held_out: Vec<f32> = held_out.into_iter().step_by(4).collect();
    assert!(training.iter().step_by(4).all(|v| !held_out.contains(v)));
}

/// A picture with more copies than rows are to be held out: both sides keep the table's mix, in whatever order rows come.
#[test]
fn a_picture_that_is_most_of_a_table_is_divided() {
    let build = |rows: &mut dyn Iterator<Item = u8>| {
        let mut builder = builder(0.1);
        rows.for_each(|row| keep(&mut builder, &grey([row.saturating_sub(180), 0, 0, 0])).unwrap());
        let dataset = builder.finish().unwrap();
        assert_eq!((dataset.held_out_rows(), dataset.training_rows()), (20, 180));
        all(&dataset)
    };
    let forward = build(&mut (0..200));
    let black = forward.0.iter().step_by(4).filter(|v| **v == 0.0).count();
    assert_eq!(black, 18, "of 20 held-out rows; 181 of all 200 are black");
    assert_eq!(forward, build(&mut (0..200).rev()));
}

#[test]
fn grey_becomes_rgb_where_both_come() {
    let mut first = builder(0.0);
    let rgb = Image::try_new(ImageShape::new(2, 2, 3), Pixels::U8((0..12).collect())).unwrap();
    keep(&mut first, &grey([1, 2, 3, 4])).unwrap();
    keep(&mut first, &rgb).unwrap();
    let mut second = builder(0.0);
    keep(&mut second, &rgb).unwrap();
    keep(&mut second, &grey([1, 2, 3, 4])).unwrap();
    let first = first.finish().unwrap();
    let second = second.finish().unwrap();
    assert_eq!(first.shape(), ImageShape::new(2, 2, 3));
    assert_eq!(all(&first), all(&second));
}

#[test]
fn another_size_and_too_few_rows_are_errors() {
    let mut builder = builder(0.0);
    keep(&mut builder, &grey([0; 4])).unwrap();
    let other = Image::try_new(ImageShape::new(1, 2, 1), Pixels::U8(vec![0, 0])).unwrap();
    let error = keep(&mut builder, &other).unwrap_err().to_string();
    assert!(error.starts_with("row 7: image has shape [1, 2, 1], those before it [2, 2, 1]"), "{error}");
    let error = builder.finish().unwrap_err().to_string();
    assert_eq!(error, "training needs at least 2 rows beside the held-out ones, got 1 of which 0 are held out");
}

#[test]
fn a_file_gives_the_rows_that_memory_gives() {
    let mut memory = builder(0.1);
    (0..900).for_each(|row| keep(&mut memory, &mixed(row)).unwrap());
    let memory = memory.finish().unwrap();
    assert_eq!(memory.shape(), ImageShape::new(40, 40, 3));
    // Three blocks of a megabyte, then the file; and the file from the first row on.
    for bytes in [3 << 20, 0] {
        let (mut file, dir) = limited(0.1, bytes);
        for row in (0..900).rev() {
            keep(&mut file, &mixed(row)).unwrap();
        }
        let file = file.finish().unwrap();
        let written: u64 = files(&dir).iter().map(|path| path.metadata().unwrap().len()).sum();
        assert!(written > 5 << 20, "{written}");
        assert!(all(&file) == all(&memory), "{bytes} bytes of memory");
        assert_eq!(file.training(&[5, 3, 5]).unwrap(), memory.training(&[5, 3, 5]).unwrap());
        drop(file);
        assert!(files(&dir).is_empty());
    }
}

#[test]
fn a_training_from_a_file_gives_the_same_tensors() {
    let options = [("network", "4,8".into()), ("epochs", 2.into()), ("batch_size", 64.into())];
    let options = TrainOptions::try_from_options(options).unwrap();
    let train = |mut builder: DatasetBuilder| {
        (0..200).for_each(|row| keep(&mut builder, &mixed(row)).unwrap());
        let mut trainer = Trainer::try_new(options.clone(), builder.finish().unwrap()).unwrap();
        trainer.epochs().for_each(|epoch| assert!(epoch.is_ok(), "{epoch:?}"));
        let model = trainer.model().unwrap();
        (model.tensors().clone(), model.calibration().cloned())
    };
    let (file, dir) = limited(0.1, 0);
    let from_memory = train(builder(0.1));
    assert!(train(file) == from_memory);
    assert!(files(&dir).is_empty());
}

/// A column decoded in chunks: what is in work and the index are asked for too, and given back but for the index.
#[test]
fn a_column_takes_what_it_was_granted() {
    use arrow::array::{ArrayRef, FixedSizeListArray, UInt8Array};
    use arrow::datatypes::{DataType, Field};

    let values = UInt8Array::from_iter_values((0..300 * 4800).map(|i| (i * 7 % 253) as u8));
    let item = Arc::new(Field::new("item", DataType::UInt8, true));
    let images: ArrayRef = Arc::new(FixedSizeListArray::try_new(item, 4800, Arc::new(values), None).unwrap());
    let field = Field::new("image", images.data_type().clone(), true);
    let shape = Some(ImageShape::new(40, 40, 3));
    let column = ImageColumn::try_new_in_order(&field, &images, shape, AxisOrder::Hwc).unwrap();
    let chunk = 256 * 4800 * 4 + 300 * INDEX_BYTES;
    let pushed = |bytes: usize| {
        let (mut builder, dir) = limited(0.0, bytes);
        (builder.push(&column).map(|()| all(&builder.finish().unwrap())), files(&dir).len())
    };
    let mut memory = builder(0.0);
    memory.push(&column).unwrap();
    let memory = all(&memory.finish().unwrap());
    // Room for two blocks beside the rows in work; for one, of which the second chunk needs the place; for none.
    for bytes in [chunk + (2 << 20), chunk + (1 << 20), chunk] {
        assert!(pushed(bytes).0.unwrap() == memory, "{bytes}");
    }
    let (error, left) = pushed(chunk / 2);
    assert_eq!((error.unwrap_err().to_string(), left), ("no memory".to_owned(), 0));
}

#[test]
fn nothing_is_kept_of_an_image_that_will_be_refused() {
    let image = Image::try_new(ImageShape::new(64, 64, 1), Pixels::U8(vec![1; 4096])).unwrap();
    let row = Row::new(&image, Some(ImageShape::new(32, 32, 1)), 0);
    assert_eq!(row.memory(), 0);
    assert_eq!(Row::new(&image, Some(ImageShape::new(64, 64, 3)), 0).memory(), 4096);
}

/// A file that takes no more bytes, whose device is full in truth.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    #[derive(Debug)]
    struct Full;
    impl Resources for Full {
        fn grow(&mut self, _: usize) -> Result<()> {
            Err(Error::Resources("no memory".to_owned()))
        }
        fn shrink(&mut self, _: usize) {}
        fn file(&mut self) -> Result<SpillFile> {
            let path = std::path::Path::new("/dev/full");
            let file = File::options().write(true).open(path).map_err(|e| Error::io(path, e))?;
            Ok(SpillFile::new(path, Box::new(file), Box::new(())))
        }
    }
    let options = TrainOptions::default();
    let mut builder = DatasetBuilder::with_resources(&options, Limits::default(), false, Box::new(Full));
    let error = (0..1000).find_map(|row| keep(&mut builder, &mixed(row)).err()).unwrap();
    let message = "/dev/full: cannot write the training images: No space left on device";
    assert!(matches!(error, Error::Io { .. }) && error.to_string().starts_with(message), "{error}");
    // What lies in the buffer is written at the end.
    let mut builder = DatasetBuilder::with_resources(&options, Limits::default(), false, Box::new(Full));
    (0..3).for_each(|row| keep(&mut builder, &mixed(row)).unwrap());
    assert!(builder.finish().unwrap_err().to_string().starts_with(message));
}

#[test]
fn a_file_that_was_cut_is_an_error() {
    let (mut builder, dir) = limited(0.2, 0);
    (0..200).for_each(|row| keep(&mut builder, &mixed(row)).unwrap());
    let dataset = builder.finish().unwrap();
    let path = files(&dir).remove(0);
    File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
    let options = TrainOptions { holdout: 0.2, ..TrainOptions::default() };
    let all: Vec<usize> = (0..dataset.training_rows()).collect();
    for error in [dataset.training(&all).unwrap_err(), dataset.held_out(0..9).unwrap_err()] {
        let message = format!("{}: cannot read ", path.display());
        assert!(matches!(error, Error::Io { .. }) && error.to_string().starts_with(&message), "{error}");
    }
    let mut trainer = Trainer::try_new(options, dataset).unwrap();
    let error = trainer.epochs().next().unwrap().unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(matches!(trainer.model().unwrap_err(), Error::Io { .. }));
}
