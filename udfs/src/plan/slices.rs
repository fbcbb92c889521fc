//! The parts of a batch that a [`WaePassExec`](super::WaePassExec) computes at a time.
//!
//! A pass takes `wae.batch_size` rows. The tiles of an image take as much memory as its pixels, which a file holds in a
//! tenth of that, and many times as much where they overlap. Images are tiled together while their tiles have at most
//! [`TILED`] bytes. An image with more, or of a size that is not known, is tiled alone. A batch of photographs is read
//! in small parts, too. Where the tiles become rows, those of one photograph come in several batches, so that no node
//! above has a copy of all of them.

use std::sync::Arc;

use arrow::array::{Array, AsArray, ListArray, RecordBatch};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::projection::ProjectionExpr;
use wae_core::ImageColumn;

use crate::scalar::function::KernelFunction;
use crate::scalar::image_tiles;

/// Bytes of the tiles that are made at a time.
const TILED: usize = 32 << 20;
/// Bytes of the tiles in a batch that becomes rows.
const UNNESTED: usize = 16 << 20;
/// Rows of images to tile that are read at a time.
const READ: usize = 8;
/// Bytes of the tiles of an image whose size is not known: no other image is tiled with it.
const UNKNOWN: usize = usize::MAX;

/// Whether an expression makes tiles.
pub(super) fn makes_tiles(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.exists(|expr| Ok(tiles_call(expr).is_some())).unwrap_or(false)
}

/// The call that an expression is, and its function, if it makes tiles.
fn tiles_call(expr: &Arc<dyn PhysicalExpr>) -> Option<(&ScalarFunctionExpr, &KernelFunction)> {
    let call = expr.downcast_ref::<ScalarFunctionExpr>().filter(|call| call.name() == image_tiles::NAME)?;
    Some((call, call.fun().inner().downcast_ref::<KernelFunction>()?))
}

/// The images of a call that makes tiles.
#[derive(Debug)]
struct TiledImages {
    image: Arc<dyn PhysicalExpr>,
    /// The image's field, with the type that planning found.
    field: FieldRef,
    /// How many times as many bytes as the image its tiles have, if planning knows their size and stride.
    overlap: Option<usize>,
}

impl TiledImages {
    /// The images of a call over columns of a schema, if it is one that makes tiles.
    fn of(expr: &Arc<dyn PhysicalExpr>, input: &Schema) -> Option<Self> {
        let (call, function) = tiles_call(expr)?;
        let (args, _) = function.split(call.args());
        let image = args.first()?;
        let field = image.return_field(input).ok()?;
        let field = function.image().restore(&[field]).first().map(Arc::clone)?;
        let literals: Vec<_> = args.iter().map(|arg| arg.downcast_ref::<Literal>().map(Literal::value)).collect();
        Some(Self { image: Arc::clone(image), field, overlap: image_tiles::overlap(&literals) })
    }

    /// The bytes of the tiles of each row's image.
    fn bytes(&self, batch: &RecordBatch) -> Vec<usize> {
        let bytes = self.overlap.and_then(|overlap| {
            let images = self.image_bytes(batch)?.into_iter();
            Some(images.map(|bytes| bytes.saturating_mul(overlap)).collect())
        });
        bytes.unwrap_or_else(|| vec![UNKNOWN; batch.num_rows()])
    }

    /// The bytes of each row's image, if they can be told before it is read.
    fn image_bytes(&self, batch: &RecordBatch) -> Option<Vec<usize>> {
        if let DataType::FixedSizeList(item, length) = self.field.data_type()
            && let Some(width) = item.data_type().primitive_width()
        {
            return Some(vec![width * *length as usize; batch.num_rows()]);
        }
        // An image that a function of this crate makes is not made twice.
        let is_computed = |expr: &Arc<dyn PhysicalExpr>| {
            let call = expr.downcast_ref::<ScalarFunctionExpr>();
            Ok(call.is_some_and(|call| call.fun().inner().is::<KernelFunction>()))
        };
        if self.image.exists(is_computed).ok()? {
            return None;
        }
        let images = self.image.evaluate(batch).ok()?.into_array(batch.num_rows()).ok()?;
        let images = ImageColumn::of_numbers(&self.field, &images).ok()?;
        Some((0..images.len()).map(|row| images.declared_bytes(row)).collect())
    }
}

/// The parts of the batches of an input.
#[derive(Debug)]
pub(super) struct Slices {
    /// Most rows of a part.
    rows: usize,
    tiled: Vec<TiledImages>,
}

impl Slices {
    /// The parts for passes over an input, of at most `rows` rows.
    pub(super) fn new(passes: &[ProjectionExpr], input: &Schema, rows: usize) -> Self {
        let mut tiled = Vec::new();
        for pass in passes {
            // The closure cannot fail.
            let _ = pass.expr.apply(|expr| {
                tiled.extend(TiledImages::of(expr, input));
                Ok(TreeNodeRecursion::Continue)
            });
        }
        Self { rows, tiled }
    }

    /// The number of rows in which the input is to be read.
    pub(super) fn rows_read(&self) -> usize {
        if self.tiled.is_empty() { self.rows } else { self.rows.min(READ) }
    }

    /// A batch in parts; the values are shared.
    pub(super) fn of(&self, batch: RecordBatch) -> impl Iterator<Item = RecordBatch> + use<> {
        let count = batch.num_rows();
        let lengths = match self.tiled.is_empty() {
            true => (0..count).step_by(self.rows).map(|start| self.rows.min(count - start)).collect(),
            false => lengths(&self.bytes(&batch), self.rows),
        };
        let mut start = 0;
        lengths.into_iter().map(move |length| {
            let part = batch.slice(start, length);
            start += length;
            part
        })
    }

    /// The bytes of the tiles of each row's images.
    fn bytes(&self, batch: &RecordBatch) -> Vec<usize> {
        let mut bytes = vec![0_usize; batch.num_rows()];
        for tiled in &self.tiled {
            bytes.iter_mut().zip(tiled.bytes(batch)).for_each(|(sum, bytes)| *sum = sum.saturating_add(bytes));
        }
        bytes
    }
}

/// A batch in pieces whose lists of tiles have few bytes, if a column of them is unnested above: a longer list is split
/// into several rows, which unnest to the same rows.
pub(super) fn pieces(batch: RecordBatch, unnested: Option<usize>) -> Result<Vec<RecordBatch>> {
    let list = |column| batch.column(column).as_list_opt::<i32>().map(|list| (column, list.clone()));
    let Some((lists, list)) = unnested.and_then(list).filter(|(_, list)| !list.values().is_empty()) else {
        return Ok(vec![batch]);
    };
    let tile = list.values().to_data().get_slice_memory_size()? / list.values().len();
    let most = (UNNESTED / tile.max(1)).max(1);
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut tiles = 0;
    for row in 0..batch.num_rows() {
        let length = list.value(row).len();
        if tiles + length > most && row > start {
            pieces.push(batch.slice(start, row - start));
            start = row;
            tiles = 0;
        }
        if length > most {
            for first in (0..length).step_by(most) {
                pieces.push(with_part(&batch.slice(row, 1), lists, first, most.min(length - first))?);
            }
            start = row + 1;
        } else {
            tiles += length;
        }
    }
    if start < batch.num_rows() {
        pieces.push(batch.slice(start, batch.num_rows() - start));
    }
    Ok(pieces)
}

/// A batch of one row with a part of its list, whose values are shared.
fn with_part(row: &RecordBatch, lists: usize, first: usize, length: usize) -> Result<RecordBatch> {
    let list = row.column(lists).as_list::<i32>();
    let DataType::List(item) = list.data_type() else { return Ok(row.clone()) };
    let values = list.value(0).slice(first, length);
    let part = ListArray::try_new(Arc::clone(item), OffsetBuffer::from_lengths([length]), values, None)?;
    let mut columns = row.columns().to_vec();
    columns[lists] = Arc::new(part);
    Ok(RecordBatch::try_new(row.schema(), columns)?)
}

/// The lengths of parts of at most so many rows, each of which has one row or at most [`TILED`] bytes.
fn lengths(bytes: &[usize], rows: usize) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut left = 0;
    for row in bytes {
        match lengths.last_mut() {
            Some(length) if *length < rows && *row <= left => *length += 1,
            _ => {
                left = TILED;
                lengths.push(1);
            }
        }
        left = left.saturating_sub(*row);
    }
    lengths
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, FixedSizeListArray, Int64Array, UInt8Array};
    use arrow::datatypes::{Field, Int64Type, UInt8Type};
    use rstest::rstest;

    use super::*;

    const MB: usize = 1 << 20;

    /// A batch of ids and of lists of tiles of 1 MB, as many as given.
    fn tiled(counts: &[usize]) -> RecordBatch {
        let tile = Arc::new(Field::new_list_field(DataType::UInt8, false));
        let count: usize = counts.iter().sum();
        let values = (0..count).flat_map(|i| std::iter::repeat_n(i as u8, MB)).collect::<Vec<_>>();
        let tiles = FixedSizeListArray::new(tile, MB as i32, Arc::new(UInt8Array::from(values)), None);
        let item = Arc::new(Field::new_list_field(tiles.data_type().clone(), false));
        let lists = ListArray::new(item, OffsetBuffer::from_lengths(counts.iter().copied()), Arc::new(tiles), None);
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..counts.len() as i64));
        let lists: ArrayRef = Arc::new(lists);
        RecordBatch::try_from_iter([("id", ids), ("tiles", lists)]).unwrap()
    }

    /// Ids and first bytes of the tiles, as unnesting gives them.
    fn unnested(batches: &[RecordBatch]) -> Vec<(i64, u8)> {
        let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)));
        let tiles = rows.flat_map(|(batch, row)| {
            let id = batch.column(0).as_primitive::<Int64Type>().value(row);
            let tiles = batch.column(1).as_list::<i32>().value(row);
            let first = |tile| tiles.as_fixed_size_list().value(tile).as_primitive::<UInt8Type>().value(0);
            (0..tiles.len()).map(|tile| (id, first(tile))).collect::<Vec<_>>()
        });
        tiles.collect()
    }

    #[rstest]
    #[case::photograph(&[40], vec![vec![16], vec![16], vec![8]])]
    #[case::between_others(&[2, 0, 17, 3], vec![vec![2, 0], vec![16], vec![1], vec![3]])]
    #[case::small(&[1, 2, 3], vec![vec![1, 2, 3]])]
    #[case::full(&[9, 9, 6], vec![vec![9], vec![9, 6]])]
    #[case::none(&[0, 0], vec![vec![0, 0]])]
    fn pieces_unnest_to_the_same_rows(#[case] counts: &[usize], #[case] expected: Vec<Vec<usize>>) {
        let batch = tiled(counts);
        let pieces = pieces(batch.clone(), Some(1)).unwrap();
        let lengths: Vec<Vec<usize>> = pieces
            .iter()
            .map(|piece| piece.column(1).as_list::<i32>().iter().map(|tiles| tiles.unwrap().len()).collect())
            .collect();
        assert_eq!(lengths, expected);
        assert_eq!(unnested(&pieces), unnested(&[batch]));
    }

    #[rstest]
    #[case::photographs(&[72 * MB, 72 * MB, 10 * MB], 256, &[1, 1, 1])]
    #[case::small(&[1000; 5], 2, &[2, 2, 1])]
    #[case::between(&[16 * MB, 16 * MB, 1, 0, 32 * MB], 256, &[2, 2, 1])]
    #[case::unreadable(&[0, 0], 256, &[2])]
    #[case::unknown(&[UNKNOWN; 3], 256, &[1, 1, 1])]
    #[case::none(&[], 256, &[])]
    fn parts_have_few_bytes_or_one_row(#[case] bytes: &[usize], #[case] rows: usize, #[case] expected: &[usize]) {
        assert_eq!(lengths(bytes, rows), expected);
    }
}
