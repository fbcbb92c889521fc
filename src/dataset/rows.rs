//! Rows of values in a [`Store`]: each is kept in the form that it came in, and converted when it is read.
//!
//! A byte takes a quarter of the float that it stands for, and a grey image a third of the RGB one that it becomes
//! among others: nothing that is kept is ever written anew.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::resources::Resources;
use super::store::{Store, StoreWriter};
use crate::config::InputChoice;
use crate::error::{Error, Result};
use crate::image::{Image, ImageShape, Pixels};

/// Bytes of memory a row beside its values: two keys while rows come; then the order, and the order of an epoch.
pub(super) const INDEX_BYTES: usize = 4 * size_of::<u64>();

/// The type that a row's values are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// v, meaning v / 255.
    U8,
    /// In [0, 1].
    F32,
}

impl Value {
    fn size(self) -> usize {
        match self {
            Self::U8 => size_of::<u8>(),
            Self::F32 => size_of::<f32>(),
        }
    }
}

/// An image as it is kept.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) shape: ImageShape,
    value: Value,
    bytes: Vec<u8>,
    key: u64,
    /// The key of the image as RGB: that of a grey image differs from its key.
    rgb_key: u64,
}

impl Row {
    /// The row of an image, with the hashes of its values in [0, 1], which do not depend on the type they are kept in.
    /// An image of another size than `expected` will be refused: its row has a shape and no values.
    pub(super) fn new(image: &Image, expected: Option<ImageShape>, seed: u64) -> Self {
        let shape = image.shape();
        if expected.is_some_and(|expected| size(expected) != size(shape)) {
            return Self { shape, value: Value::U8, bytes: Vec::new(), key: 0, rgb_key: 0 };
        }
        let floats = floats(image);
        let (value, bytes) = match image.pixels() {
            Pixels::U8(values) => (Value::U8, values.clone()),
            Pixels::F32(values) => (Value::F32, to_bytes(values, 1)),
        };
        let key = key(&floats, seed);
        let rgb_key = if shape.channels() == 1 { xxh3_64_with_seed(&to_bytes(&floats, 3), seed) } else { key };
        Self { shape, value, bytes, key, rgb_key }
    }

    /// The row of features that a pretrained network gave, under the hash of the image as the network saw it
    /// ([`image_key`]).
    pub(super) fn of_features(shape: ImageShape, features: &[f32], key: u64) -> Self {
        Self { shape, value: Value::F32, bytes: to_bytes(features, 1), key, rgb_key: key }
    }

    /// Bytes of its values.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.bytes.len()
    }
}

/// The hash of an image's values in [0, 1].
pub(super) fn image_key(image: &Image, seed: u64) -> u64 {
    key(&floats(image), seed)
}

fn key(floats: &[f32], seed: u64) -> u64 {
    xxh3_64_with_seed(&to_bytes(floats, 1), seed)
}

fn floats(image: &Image) -> Vec<f32> {
    let mut floats = vec![0.0; image.shape().len()];
    image.write_to(&mut floats);
    floats
}

fn size(shape: ImageShape) -> (usize, usize) {
    (shape.height(), shape.width())
}

/// The bytes of values, each of them `copies` times.
fn to_bytes(values: &[f32], copies: usize) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * copies * size_of::<f32>()];
    for (bytes, value) in bytes.chunks_exact_mut(copies * size_of::<f32>()).zip(values) {
        bytes.chunks_exact_mut(size_of::<f32>()).for_each(|bytes| bytes.copy_from_slice(&value.to_le_bytes()));
    }
    bytes
}

/// Consecutive rows of one type and number of channels.
#[derive(Debug, Clone, Copy)]
struct RowRun {
    first: usize,
    offset: u64,
    value: Value,
    channels: usize,
}

/// Incoming rows.
#[derive(Debug)]
pub(super) struct RowsWriter {
    store: StoreWriter,
    input: InputChoice,
    shape: Option<ImageShape>,
    runs: Vec<RowRun>,
    keys: Vec<u64>,
    /// The keys of grey rows as RGB; emptied once the first RGB image says which are needed.
    rgb_keys: Vec<u64>,
}

impl RowsWriter {
    /// No rows yet.
    pub(super) fn new(resources: Box<dyn Resources>, input: InputChoice) -> Self {
        let store = StoreWriter::new(resources);
        Self { store, input, shape: None, runs: Vec::new(), keys: Vec::new(), rgb_keys: Vec::new() }
    }

    /// The shape that every row is read as.
    pub(super) fn shape(&self) -> Option<ImageShape> {
        self.shape
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The store, through which other memory is asked for too.
    pub(super) fn store_mut(&mut self) -> &mut StoreWriter {
        &mut self.store
    }

    /// Adds a row of the same size as the others. Grey rows among RGB ones become RGB.
    ///
    /// # Errors
    /// [`Error::Data`] for another size.
    pub(super) fn push(&mut self, row: &Row) -> Result<()> {
        let shape = *self.shape.get_or_insert(row.shape);
        let same_size = size(row.shape) == size(shape);
        match (shape.channels(), row.shape.channels()) {
            (a, b) if same_size && a == b => {}
            _ if self.input == InputChoice::Features => {
                return Err(Error::Data(format!(
                    "features have shape {}, those before them {shape}: all must have one shape",
                    row.shape
                )));
            }
            (3, 1) if same_size => {}
            (1, 3) if same_size => {
                self.shape = Some(row.shape);
                self.keys = std::mem::take(&mut self.rgb_keys);
            }
            _ => {
                return Err(Error::Data(format!(
                    "image has shape {}, those before it {shape}: all must have one size; resize them with the option \
                     size => '{}x{}'",
                    row.shape,
                    shape.height(),
                    shape.width()
                )));
            }
        }
        if self.shape.is_some_and(|shape| shape.channels() == 1) {
            self.keys.push(row.key);
            self.rgb_keys.push(row.rgb_key);
        } else {
            self.keys.push(row.rgb_key);
        }
        let value = row.value;
        let channels = row.shape.channels();
        if self.runs.last().is_none_or(|run| (run.value, run.channels) != (value, channels)) {
            self.runs.push(RowRun { first: self.keys.len() - 1, offset: self.store.len(), value, channels });
        }
        self.store.append(&row.bytes)
    }

    /// The rows, to be read, and their keys.
    pub(super) fn finish(self, shape: ImageShape) -> Result<(Rows, Vec<u64>)> {
        Ok((Rows { shape, store: self.store.finish()?, runs: self.runs }, self.keys))
    }
}

/// Complete rows, to be read.
#[derive(Debug)]
pub(super) struct Rows {
    shape: ImageShape,
    store: Store,
    runs: Vec<RowRun>,
}

impl Rows {
    /// The shape of every row.
    pub(super) fn shape(&self) -> ImageShape {
        self.shape
    }

    /// The run that a row is in.
    fn run(&self, row: usize) -> Result<&RowRun> {
        let index = self.runs.partition_point(|run| run.first <= row);
        let run = index.checked_sub(1).and_then(|index| self.runs.get(index));
        run.ok_or_else(|| Error::Data(format!("there is no row {row} among the training images")))
    }

    /// Whether a row is kept as bytes of all channels.
    pub(super) fn has_bytes(&self, row: usize) -> bool {
        self.run(row).is_ok_and(|run| run.value == Value::U8 && run.channels == self.shape.channels())
    }

    /// Writes a row's bytes; only for rows that have them ([`Self::has_bytes`]).
    pub(super) fn read_bytes(&self, row: usize, out: &mut [u8]) -> Result<()> {
        let run = self.run(row)?;
        self.store.read_at(run.offset + (row - run.first) as u64 * out.len() as u64, out)
    }

    /// Writes a row's values in [0, 1]. `bytes` is scratch memory, which calls can share.
    pub(super) fn read(&self, row: usize, bytes: &mut Vec<u8>, out: &mut [f32]) -> Result<()> {
        let run = self.run(row)?;
        let len = self.shape.height() * self.shape.width() * run.channels * run.value.size();
        bytes.resize(len, 0);
        self.store.read_at(run.offset + (row - run.first) as u64 * len as u64, bytes)?;
        let copies = self.shape.channels() / run.channels;
        match run.value {
            Value::U8 => fill(out, copies, bytes.iter().map(|v| f32::from(*v) / 255.0)),
            Value::F32 => {
                let float = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                fill(out, copies, bytes.chunks_exact(size_of::<f32>()).map(float));
            }
        }
        Ok(())
    }
}

/// Writes each value `copies` times.
fn fill(out: &mut [f32], copies: usize, values: impl Iterator<Item = f32>) {
    if copies == 1 {
        out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
    } else {
        out.chunks_exact_mut(copies).zip(values).for_each(|(out, value)| out.fill(value));
    }
}
