//! A warning about integers that are so small in all images that they hardly mean levels of brightness.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use arrow::datatypes::{DataType, Field};

use crate::image::Pixels;
use crate::image::tensor::{child_of, levels};

/// No image, or black ones only.
const BLACK: u8 = 0;
/// Values above 0 and none above the limit.
const DARK: u8 = 1;
/// A value above the limit.
const BRIGHT: u8 = 2;

/// The most warnings of a process.
const MOST_WARNED: usize = 1_000;

/// The columns that were warned about: one warning a column, however many batches it has.
static WARNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Notes the brightness of a column's images, and warns when the column is dropped.
///
/// After the first bright image, which is usually the first, no value is looked at.
#[derive(Debug)]
pub(super) struct DarkWatch {
    column: String,
    /// The part of the column that holds the values, as SQL has it.
    values: String,
    /// Whether the values are of 16 bits, of which bytes are the smallest part.
    deep: bool,
    lists: usize,
    seen: AtomicU8,
}

impl DarkWatch {
    /// The watch over a column of lists of integers; Booleans and floats need none.
    pub(super) fn new(field: &Field) -> Option<Self> {
        let data_type = match field.data_type() {
            DataType::Dictionary(_, values) => values,
            data_type => data_type,
        };
        let column = field.name().clone();
        let plain = column.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit());
        let name = if plain { column.clone() } else { format!("\"{}\"", column.replace('"', "\"\"")) };
        let (values, data_type) = match data_type {
            DataType::Struct(fields) => (format!("{name}['data']"), child_of(fields, "data")?.data_type()),
            data_type => (name, data_type),
        };
        let (levels, leaf) = levels(data_type);
        let deep = leaf == &DataType::UInt16;
        leaf.is_integer().then(|| Self { column, values, deep, lists: levels.len(), seen: AtomicU8::new(BLACK) })
    }

    /// Notes the values of one image.
    pub(super) fn note(&self, pixels: &Pixels) {
        if self.seen.load(Ordering::Relaxed) == BRIGHT {
            return;
        }
        let seen = match pixels {
            Pixels::U8(values) => brightness(values, 0, 1),
            Pixels::F32(values) => brightness(values, 0.0, 255.0 / 65_535.0),
        };
        self.seen.fetch_max(seen, Ordering::Relaxed);
    }

    /// The warning, if there is reason for one.
    fn warning(&self) -> Option<String> {
        let (limit, range, meaning, cast) = match self.deep {
            true => ("at most 255", "0 to 65535", "bytes", "UInt8"),
            false => ("0 or 1", "0 to 255", "black and white", "Boolean"),
        };
        let lists = "List(".repeat(self.lists) + cast + &")".repeat(self.lists);
        (self.seen.load(Ordering::Relaxed) == DARK).then(|| {
            format!(
                "all pixel values of column '{}' in a batch are {limit}, read as {range} they are near black: if they \
                 mean {meaning}, write arrow_cast({values}, '{lists}'), of a tensor \
                 image_decode(arrow_cast({values}, '{lists}'), height, width, channels)",
                self.column,
                values = self.values
            )
        })
    }
}

/// BRIGHT, if a value is above the limit; else DARK, if one is not black.
fn brightness<T: Copy + PartialOrd>(values: &[T], black: T, limit: T) -> u8 {
    if values.iter().any(|value| *value > limit) {
        BRIGHT
    } else if values.iter().any(|value| *value > black) {
        DARK
    } else {
        BLACK
    }
}

impl Drop for DarkWatch {
    fn drop(&mut self) {
        let Some(warning) = self.warning() else { return };
        if WARNED.lock().is_ok_and(|mut warned| warned.len() < MOST_WARNED && warned.insert(warning.clone())) {
            log::warn!("{warning}");
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn watch(data_type: DataType) -> Option<DarkWatch> {
        let list = DataType::List(Field::new("item", data_type, true).into());
        DarkWatch::new(&Field::new("mask", DataType::List(Field::new("item", list, true).into()), true))
    }

    #[rstest]
    #[case::mask(DataType::Int64, vec![0, 1, 1].into(), true)]
    #[case::black(DataType::UInt8, vec![0, 0].into(), false)]
    #[case::levels(DataType::UInt8, vec![1, 2].into(), false)]
    #[case::bytes_in_words(DataType::UInt16, vec![0.0, 255.0 / 65_535.0].into(), true)]
    #[case::words(DataType::UInt16, vec![0.0, 256.0 / 65_535.0].into(), false)]
    fn small_integers_are_told(#[case] data_type: DataType, #[case] pixels: Pixels, #[case] told: bool) {
        let watch = watch(data_type).unwrap();
        watch.note(&pixels);
        watch.note(&Pixels::U8(vec![0]));
        assert_eq!(watch.warning().is_some(), told);
    }

    #[test]
    fn one_bright_image_is_enough() {
        let watch = watch(DataType::UInt8).unwrap();
        for values in [vec![0, 1], vec![7], vec![1]] {
            watch.note(&Pixels::U8(values));
        }
        assert_eq!(watch.warning(), None);
    }

    #[test]
    fn the_warning_names_the_column_and_the_cast() {
        let watch = watch(DataType::UInt8).unwrap();
        watch.note(&Pixels::U8(vec![1]));
        let warning = watch.warning().unwrap();
        assert!(
            warning.starts_with("all pixel values of column 'mask' in a batch are 0 or 1, read as 0 to 255 they"),
            "{warning}"
        );
        assert!(warning.contains("write arrow_cast(mask, 'List(List(Boolean))'), of a tensor"), "{warning}");
    }

    #[test]
    fn the_values_of_a_tensor_stand_in_a_field() {
        let list = DataType::List(Field::new("item", DataType::UInt16, true).into());
        let data = Field::new("data", list, true);
        let watch = DarkWatch::new(&Field::new("image", DataType::Struct(vec![data].into()), true)).unwrap();
        watch.note(&Pixels::F32(vec![1.0 / 65_535.0]));
        let warning = watch.warning().unwrap();
        assert!(warning.contains("image_decode(arrow_cast(image['data'], 'List(UInt8)'), height"), "{warning}");
    }

    #[test]
    fn booleans_and_floats_need_no_warning() {
        assert!(watch(DataType::Boolean).is_none() && watch(DataType::Float32).is_none());
    }
}
