//! The tiles of `image_stitch`, a mosaic a group.
//!
//! A group keeps its tiles until its image is made, so that it takes the memory of the tiles, and the order in which they
//! come does not matter. Its state holds the tiles' shape, their places and their values.

use std::borrow::Borrow;
use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, LargeListArray, PrimitiveArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Int64Type, UInt8Type};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use wae_core::image::{Image, Limits, Mosaic, Pixels};
use wae_core::{ImageColumn, ImageShape};

use super::NAME;
use crate::aggregate::lists;
use crate::error::{Place, exec_error, row_error};
use crate::tensors::Tensors;

/// The end of the message for images that are too many. All groups end at once where their rows come in another order.
const FEWER_GROUPS: &str = "rows in the order of the group (WITH ORDER), or fewer groups";

/// The type of the values of stitched images.
pub(super) fn value_type(field: &Field) -> Result<DataType> {
    let data = match field.data_type() {
        DataType::Struct(fields) => fields.first().map(|data| data.data_type()),
        _ => None,
    };
    match data {
        Some(DataType::List(item)) => Ok(item.data_type().clone()),
        _ => exec_err!("{NAME}: a tensor of variable shape expected, got {}", field.data_type()),
    }
}

/// The tiles of each group.
#[derive(Debug)]
pub(super) struct Groups {
    /// The field of the tiles.
    tile: FieldRef,
    /// The field of the result.
    field: FieldRef,
    mosaics: Vec<Mosaic>,
}

impl Groups {
    /// No group yet, of tiles and images of these fields.
    pub(super) fn new(tile: FieldRef, field: FieldRef) -> Self {
        Self { tile, field, mosaics: Vec::new() }
    }

    /// Adds the tiles of a batch, each to the group that `group` gives.
    fn update(&mut self, values: &[ArrayRef], group: impl Fn(usize) -> Option<usize>) -> Result<()> {
        let [tiles, ys, xs] = values else { return exec_err!("{NAME}: 3 columns expected, got {}", values.len()) };
        if values.iter().any(|values| values.data_type().is_null()) {
            return Ok(());
        }
        let tiles = ImageColumn::of_numbers(&self.tile, tiles).map_err(|e| exec_error(NAME, &e))?;
        let ys = integers(ys)?;
        let xs = integers(xs)?;
        for row in (0..tiles.len()).filter(|row| !tiles.is_null(*row) && ys.is_valid(*row) && xs.is_valid(*row)) {
            let Some(group) = group(row) else { continue };
            let y = ys.value(row);
            let x = xs.value(row);
            let (Ok(top), Ok(left)) = (usize::try_from(y), usize::try_from(x)) else {
                let reason = format!("y and x must be at least 0, got y {y} and x {x}");
                return Err(row_error(NAME, Place::Row(row), reason));
            };
            let tile = tiles.image(row, None, &Limits::default());
            tile.and_then(|tile| self.mosaics[group].push((top, left), tile))
                .map_err(|e| row_error(NAME, Place::Row(row), e))?;
        }
        Ok(())
    }

    /// Adds the tiles of states, each to the group that `group` gives.
    fn merge(&mut self, states: &[ArrayRef], group: impl Fn(usize) -> Option<usize>) -> Result<()> {
        let shapes = lists::<Int64Type>(NAME, states, 0)?;
        let places = lists::<Int64Type>(NAME, states, 1)?;
        for row in (0..shapes.len()).filter(|row| !shapes[*row].is_empty()) {
            let Some(group) = group(row) else { continue };
            let shape = shape(shapes[row].values())?;
            let values = values(states, row)?;
            for (tile, [y, x]) in places[row].values().as_chunks::<2>().0.iter().enumerate() {
                let tile = Image::try_new(shape, part(&values, shape.len().saturating_mul(tile), shape.len())?);
                tile.and_then(|tile| self.mosaics[group].push((*y as usize, *x as usize), tile))
                    .map_err(|e| exec_error(NAME, &e))?;
            }
        }
        Ok(())
    }

    /// The images of groups. Each group's tiles are dropped, if they are given away, before the next image is made.
    fn images(&self, mosaics: impl IntoIterator<Item = impl Borrow<Mosaic>>) -> Result<ArrayRef> {
        let mut images = Tensors::new(NAME).expecting(FEWER_GROUPS);
        for mosaic in mosaics {
            images.push(mosaic.borrow().image().map_err(|e| exec_error(NAME, &e))?)?;
        }
        images.finish(&self.field)
    }

    /// The states of groups.
    fn states(&self, mosaics: Vec<Mosaic>) -> Result<Vec<ArrayRef>> {
        let sides = |s: ImageShape| [s.height(), s.width(), s.channels()].map(|side| side as i64).to_vec();
        let shapes = mosaics.iter().map(|mosaic| mosaic.shape().map_or(Vec::new(), sides));
        let shapes = large_list::<Int64Type>(shapes)?;
        let place = |(y, x): &(usize, usize)| [*y as i64, *x as i64];
        let places = large_list::<Int64Type>(mosaics.iter().map(|m| m.places().iter().flat_map(place).collect()))?;
        let values = match value_type(&self.field)? {
            DataType::UInt8 => large_list::<UInt8Type>(mosaics.into_iter().map(|mosaic| bytes(mosaic.values()))),
            _ => large_list::<Float32Type>(mosaics.into_iter().map(|mosaic| floats(mosaic.values()))),
        };
        Ok(vec![shapes, places, values?])
    }

    fn memory(&self) -> usize {
        size_of_val(self)
            + self.mosaics.capacity() * size_of::<Mosaic>()
            + self.mosaics.iter().map(Mosaic::memory).sum::<usize>()
    }
}

fn integers(array: &ArrayRef) -> Result<&PrimitiveArray<Int64Type>> {
    let integers = array.as_primitive_opt::<Int64Type>();
    integers.ok_or_else(|| exec_datafusion_err!("{NAME}: integers expected, got {}", array.data_type()))
}

/// The bytes of tiles, one tile after another.
fn bytes(tiles: &[Pixels]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(tiles.iter().map(Pixels::len).sum());
    for tile in tiles {
        if let Pixels::U8(values) = tile {
            bytes.extend_from_slice(values);
        }
    }
    bytes
}

/// The floats of tiles, one tile after another.
fn floats(tiles: &[Pixels]) -> Vec<f32> {
    let mut floats = Vec::with_capacity(tiles.iter().map(Pixels::len).sum());
    for tile in tiles {
        if let Pixels::F32(values) = tile {
            floats.extend_from_slice(values);
        }
    }
    floats
}

/// The shape of the tiles of a state.
fn shape(sides: &[i64]) -> Result<ImageShape> {
    match sides {
        [height, width, channels] => Ok(ImageShape::new(*height as usize, *width as usize, *channels as usize)),
        _ => exec_err!("{NAME}: a state without the shape of its tiles"),
    }
}

/// The values of the tiles of a state.
fn values(states: &[ArrayRef], row: usize) -> Result<ArrayRef> {
    let lists = states.get(2).and_then(|values| values.as_list_opt::<i64>());
    lists.map(|lists| lists.value(row)).ok_or_else(|| exec_datafusion_err!("{NAME}: a state without values"))
}

/// The values of one tile of a state.
fn part(values: &ArrayRef, first: usize, length: usize) -> Result<Pixels> {
    let range = first..first.saturating_add(length);
    let bytes = values.as_primitive_opt::<UInt8Type>().and_then(|values| values.values().get(range.clone()));
    let floats = values.as_primitive_opt::<Float32Type>().and_then(|values| values.values().get(range));
    match (bytes, floats) {
        (Some(bytes), _) => Ok(Pixels::U8(bytes.to_vec())),
        (_, Some(floats)) => Ok(Pixels::F32(floats.to_vec())),
        _ => exec_err!("{NAME}: a state without the values of its tiles"),
    }
}

/// A column of lists. The first list's memory is taken over, so that the state of one group is not copied.
fn large_list<T: ArrowPrimitiveType>(lists: impl Iterator<Item = Vec<T::Native>>) -> Result<ArrayRef> {
    let mut values = Vec::new();
    let mut lengths = Vec::new();
    for list in lists {
        lengths.push(list.len());
        match values.is_empty() {
            true => values = list,
            false => values.extend(list),
        }
    }
    let item = Arc::new(Field::new_list_field(T::DATA_TYPE, true));
    let values = PrimitiveArray::<T>::new(values.into(), None);
    Ok(Arc::new(LargeListArray::try_new(item, OffsetBuffer::from_lengths(lengths), Arc::new(values), None)?))
}

/// The group of a row, unless a filter leaves the row out.
fn filtered<'a>(group_indices: &'a [usize], filter: Option<&'a BooleanArray>) -> impl Fn(usize) -> Option<usize> + 'a {
    move |row| {
        let taken = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        group_indices.get(row).copied().filter(|_| taken)
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        groups: usize,
    ) -> Result<()> {
        self.mosaics.resize_with(groups, Mosaic::default);
        self.update(values, filtered(group_indices, filter))
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let mosaics = emit_to.take_needed(&mut self.mosaics);
        self.images(mosaics)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let mosaics = emit_to.take_needed(&mut self.mosaics);
        self.states(mosaics)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], groups: usize) -> Result<()> {
        self.mosaics.resize_with(groups, Mosaic::default);
        self.merge(states, filtered(group_indices, None))
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows: Vec<usize> = (0..values.first().map_or(0, |values| values.len())).collect();
        let mut alone = Self::new(Arc::clone(&self.tile), Arc::clone(&self.field));
        alone.update_batch(values, &rows, filter, rows.len())?;
        alone.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.memory()
    }
}

/// All rows, as one group.
#[derive(Debug)]
pub(super) struct OneGroup(Groups);

impl OneGroup {
    /// The group of no rows yet.
    pub(super) fn new(groups: Groups) -> Self {
        Self(Groups { mosaics: vec![Mosaic::default()], ..groups })
    }
}

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update(values, |_| Some(0))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.0.images(&self.0.mosaics)?, 0)
    }

    fn size(&self) -> usize {
        self.0.memory()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mosaics = std::mem::replace(&mut self.0.mosaics, vec![Mosaic::default()]);
        self.0.states(mosaics)?.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge(states, |_| Some(0))
    }
}
