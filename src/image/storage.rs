//! Typed views of the Arrow arrays that hold images: lists around pixel values, encoded bytes, paths.
//!
//! Every view is built by a checked downcast, so that reading a row needs none.

use std::ops::Range;

use arrow::array::{
    AnyDictionaryArray, Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, FixedSizeListArray, LargeBinaryArray,
    LargeListArray, LargeListViewArray, LargeStringArray, ListArray, ListViewArray, StringArray, StringViewArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};

use super::Pixels;
use super::meaning::Meaning;
use super::values::PixelValues;
use crate::error::{Error, Result};

/// One level of lists of any kind.
#[derive(Debug)]
pub(super) enum Lists {
    Fixed(FixedSizeListArray),
    List(ListArray),
    Large(LargeListArray),
    View(ListViewArray),
    LargeView(LargeListViewArray),
}

impl Lists {
    pub(super) fn try_new(array: &dyn Array) -> Option<Self> {
        match array.data_type() {
            DataType::FixedSizeList(..) => array.as_fixed_size_list_opt().cloned().map(Self::Fixed),
            DataType::List(_) => array.as_list_opt().cloned().map(Self::List),
            DataType::LargeList(_) => array.as_list_opt().cloned().map(Self::Large),
            DataType::ListView(_) => array.as_list_view_opt().cloned().map(Self::View),
            DataType::LargeListView(_) => array.as_list_view_opt().cloned().map(Self::LargeView),
            _ => None,
        }
    }

    fn values(&self) -> &ArrayRef {
        match self {
            Self::Fixed(lists) => lists.values(),
            Self::List(lists) => lists.values(),
            Self::Large(lists) => lists.values(),
            Self::View(lists) => lists.values(),
            Self::LargeView(lists) => lists.values(),
        }
    }

    /// Whether list `index` is NULL.
    pub(super) fn is_null(&self, index: usize) -> bool {
        match self {
            Self::Fixed(lists) => lists.is_null(index),
            Self::List(lists) => lists.is_null(index),
            Self::Large(lists) => lists.is_null(index),
            Self::View(lists) => lists.is_null(index),
            Self::LargeView(lists) => lists.is_null(index),
        }
    }

    /// The place of the items of list `index` among the values. Arrow guarantees offsets that are within them and not
    /// negative.
    fn range(&self, index: usize) -> Range<usize> {
        match self {
            Self::Fixed(lists) => {
                // Not value_offset(): that is an i32, and a column may hold more than 2³¹ pixels.
                let size = usize::try_from(lists.value_length()).unwrap_or_default();
                index * size..(index + 1) * size
            }
            Self::List(lists) => span(lists.offsets().get(index), lists.offsets().get(index + 1)),
            Self::Large(lists) => span(lists.offsets().get(index), lists.offsets().get(index + 1)),
            Self::View(lists) => sized(lists.offsets().get(index), lists.sizes().get(index)),
            Self::LargeView(lists) => sized(lists.offsets().get(index), lists.sizes().get(index)),
        }
    }

    /// The integers of list `index` as sizes; `None` if one of them is NULL, negative or no integer.
    pub(super) fn sizes(&self, index: usize) -> Option<Vec<usize>> {
        let range = self.range(index);
        let values = self.values();
        let within = range.end <= values.len();
        let sizes = within.then(|| cast(&values.slice(range.start, range.len()), &DataType::Int64).ok()).flatten()?;
        let sizes = sizes.as_primitive_opt::<Int64Type>()?;
        sizes.iter().map(|size| size.and_then(|size| usize::try_from(size).ok())).collect()
    }
}

fn position<T: Copy + TryInto<usize>>(offset: Option<&T>) -> usize {
    offset.and_then(|offset| (*offset).try_into().ok()).unwrap_or_default()
}

fn span<T: Copy + TryInto<usize>>(start: Option<&T>, end: Option<&T>) -> Range<usize> {
    position(start)..position(end)
}

fn sized<T: Copy + TryInto<usize>>(start: Option<&T>, size: Option<&T>) -> Range<usize> {
    let start = position(start);
    start..start.saturating_add(position(size))
}

/// The lists around pixel values, outermost first, and the values themselves.
#[derive(Debug)]
pub(super) struct NestedValues {
    levels: Vec<Lists>,
    values: PixelValues,
    meaning: Meaning,
}

impl NestedValues {
    /// `None` for anything but lists of Booleans, integers or floats.
    pub(super) fn try_new(array: &ArrayRef, meaning: Meaning) -> Option<Self> {
        let mut levels = Vec::new();
        let mut array = array;
        while let Some(lists) = Lists::try_new(array) {
            levels.push(lists);
            array = levels.last()?.values();
        }
        Some(Self { values: PixelValues::try_new(array)?, levels, meaning })
    }

    /// Whether the outermost list `index` is NULL.
    pub(super) fn is_null(&self, index: usize) -> bool {
        self.levels.first().is_some_and(|lists| lists.is_null(index))
    }

    /// The meaning of the values.
    pub(super) fn meaning(&self) -> Meaning {
        self.meaning
    }

    /// Whether the values come out as bytes.
    pub(super) fn has_bytes(&self) -> bool {
        self.values.has_bytes()
    }

    /// Bytes of the values under list `index`; 0 where its lists cannot be read.
    pub(super) fn bytes(&self, index: usize) -> usize {
        let mut lengths = vec![None; self.levels.len()];
        let mut spans = Vec::new();
        match collect(&self.levels, index..index + 1, &mut lengths, &mut spans, self.meaning) {
            Ok(()) => spans.iter().map(Range::len).sum::<usize>() * if self.has_bytes() { 1 } else { size_of::<f32>() },
            Err(_) => 0,
        }
    }

    /// The values under list `index`, and the length of the lists on each level.
    ///
    /// # Errors
    /// [`Error::Data`] on a null inside, on lists of unequal length on one level, on a value outside its range.
    pub(super) fn read(&self, index: usize) -> Result<(Vec<usize>, Pixels)> {
        let mut lengths = vec![None; self.levels.len()];
        let mut spans = Vec::new();
        collect(&self.levels, index..index + 1, &mut lengths, &mut spans, self.meaning)?;
        let values = self.values.gather(&spans, self.meaning)?;
        Ok((lengths.into_iter().map(Option::unwrap_or_default).collect(), values))
    }
}

/// Walks down the lists of `range`, notes each level's length and the spans of values at the bottom.
fn collect(
    levels: &[Lists],
    range: Range<usize>,
    lengths: &mut [Option<usize>],
    spans: &mut Vec<Range<usize>>,
    meaning: Meaning,
) -> Result<()> {
    let (Some((level, levels)), Some((length, lengths))) = (levels.split_first(), lengths.split_first_mut()) else {
        // Neighbours are merged, so that an image whose lists lie side by side is copied in one piece.
        match spans.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => spans.push(range),
        }
        return Ok(());
    };
    for index in range {
        if level.is_null(index) {
            let row = meaning.row();
            let expected = if meaning == Meaning::Features { "values" } else { "pixel values" };
            return Err(Error::Data(format!("{row} contains a null list, expected {expected} everywhere")));
        }
        let inner = level.range(index);
        match *length {
            Some(length) if length != inner.len() => {
                return Err(Error::Data(format!(
                    "{} has lists of {length} and of {} values on one level, expected equal lengths",
                    meaning.row(),
                    inner.len()
                )));
            }
            _ => *length = Some(inner.len()),
        }
        collect(levels, inner, lengths, spans, meaning)?;
    }
    Ok(())
}

/// Encoded images.
#[derive(Debug)]
pub(super) enum Bytes {
    /// A column of type Null: none in any row.
    Null,
    Binary(BinaryArray),
    Large(LargeBinaryArray),
    View(BinaryViewArray),
}

impl Bytes {
    /// `None` for anything but Binary, LargeBinary, BinaryView and Null.
    pub(super) fn try_new(array: &dyn Array) -> Option<Self> {
        match array.data_type() {
            DataType::Null => Some(Self::Null),
            DataType::Binary => array.as_binary_opt().cloned().map(Self::Binary),
            DataType::LargeBinary => array.as_binary_opt().cloned().map(Self::Large),
            DataType::BinaryView => array.as_binary_view_opt().cloned().map(Self::View),
            _ => None,
        }
    }

    /// The bytes of row `index`, unless they are NULL. The row must exist.
    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        match self {
            Self::Null => None,
            Self::Binary(array) => array.is_valid(index).then(|| array.value(index)),
            Self::Large(array) => array.is_valid(index).then(|| array.value(index)),
            Self::View(array) => array.is_valid(index).then(|| array.value(index)),
        }
    }
}

/// Paths beside images.
#[derive(Debug)]
pub(super) enum Texts {
    Utf8(StringArray),
    Large(LargeStringArray),
    View(StringViewArray),
    Dictionary { keys: Vec<Option<usize>>, values: Box<Texts> },
}

impl Texts {
    /// `None` for anything but text, or a dictionary of it.
    pub(super) fn try_new(array: &dyn Array) -> Option<Self> {
        if let Some(dictionary) = array.as_any_dictionary_opt() {
            let values = Box::new(Self::try_new(dictionary.values())?);
            return Some(Self::Dictionary { keys: dictionary_keys(dictionary), values });
        }
        match array.data_type() {
            DataType::Utf8 => array.as_string_opt().cloned().map(Self::Utf8),
            DataType::LargeUtf8 => array.as_string_opt().cloned().map(Self::Large),
            DataType::Utf8View => array.as_string_view_opt().cloned().map(Self::View),
            _ => None,
        }
    }

    /// The text of row `index`, unless it is NULL or empty. The row must exist.
    pub(super) fn get(&self, index: usize) -> Option<&str> {
        let text = match self {
            Self::Utf8(array) => array.is_valid(index).then(|| array.value(index)),
            Self::Large(array) => array.is_valid(index).then(|| array.value(index)),
            Self::View(array) => array.is_valid(index).then(|| array.value(index)),
            Self::Dictionary { keys, values } => keys.get(index).copied().flatten().and_then(|key| values.get(key)),
        };
        text.filter(|text| !text.is_empty())
    }
}

/// The place of each row of a dictionary among its values.
pub(super) fn dictionary_keys(dictionary: &dyn AnyDictionaryArray) -> Vec<Option<usize>> {
    let keys = dictionary.keys();
    if dictionary.values().is_empty() {
        return vec![None; keys.len()];
    }
    let normalized = dictionary.normalized_keys().into_iter().enumerate();
    normalized.map(|(row, key)| keys.is_valid(row).then_some(key)).collect()
}
