//! The parts of a batch that a [`WaePassExec`](super::WaePassExec) computes at a time.
//!
//! A pass takes `wae.batch_size` rows. The tiles of an image take as much memory as the image, which a file holds in a
//! tenth of it: so many images are tiled at a time as have [`TILED`] bytes of pixels together, one if it has more. A batch
//! of photographs is read in small parts, too. Where the tiles become rows, those of one photograph come in several
//! batches, so that no node above has a copy of all of them.

use std::sync::Arc;

use arrow::array::{Array, AsArray, ListArray, RecordBatch};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::projection::ProjectionExpr;
use wae_core::ImageColumn;

use crate::scalar::function::KernelFunction;
use crate::scalar::image_tiles;

/// Bytes of pixels that are tiled at a time.
const TILED: usize = 32 << 20;
/// Bytes of the tiles in a batch that becomes rows.
const UNNESTED: usize = 16 << 20;
/// Rows of images to tile that are read at a time.
const READ: usize = 8;

/// Whether an expression makes tiles.
pub(super) fn makes_tiles(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.exists(|expr| Ok(is_tiles(expr))).unwrap_or(false)
}

fn is_tiles(expr: &Arc<dyn PhysicalExpr>) -> bool {
    let call = expr.downcast_ref::<ScalarFunctionExpr>();
    call.is_some_and(|call| call.fun().inner().is::<KernelFunction>() && call.name() == image_tiles::NAME)
}

/// The parts of the batches of an input.
#[derive(Debug)]
pub(super) struct Slices {
    /// Most rows of a part.
    rows: usize,
    /// The columns of the input that images are tiled of, with their places.
    tiled: Vec<(usize, FieldRef)>,
}

impl Slices {
    /// The parts for passes over an input, of at most `rows` rows.
    pub(super) fn new(passes: &[ProjectionExpr], input: &Schema, rows: usize) -> Self {
        let mut columns = Vec::new();
        for pass in passes.iter().filter(|pass| makes_tiles(&pass.expr)) {
            // The closure cannot fail.
            let _ = pass.expr.apply(|expr| {
                columns.extend(expr.downcast_ref::<Column>().map(Column::index));
                Ok(TreeNodeRecursion::Continue)
            });
        }
        columns.sort_unstable();
        columns.dedup();
        let field = |column: usize| Some((column, Arc::clone(input.fields().get(column)?)));
        Self { rows, tiled: columns.into_iter().filter_map(field).collect() }
    }

    /// Rows that the input is read by.
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

    /// The bytes of pixels of each row's images.
    fn bytes(&self, batch: &RecordBatch) -> Vec<usize> {
        let column = |(column, field): &(usize, FieldRef)| ImageColumn::of_numbers(field, batch.column(*column)).ok();
        let columns: Vec<ImageColumn> = self.tiled.iter().filter_map(column).collect();
        (0..batch.num_rows()).map(|row| columns.iter().map(|column| column.declared_bytes(row)).sum()).collect()
    }
}

/// A batch in pieces whose lists of tiles have few bytes, if a column of them is unnested above: a longer list is split
/// into several rows, which unnest to the same rows.
pub(super) fn pieces(batch: RecordBatch, unnested: Option<usize>) -> Result<Vec<RecordBatch>> {
    let list = |column| batch.column(column).as_list_opt::<i32>().map(|list| (column, list.clone()));
    let Some((lists, list)) = unnested.and_then(list).filter(|(_, list)| !list.values().is_empty()) else {
        return Ok(vec![batch]);
    };
    let tile = list.values().get_array_memory_size() / list.values().len();
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
    #[case::photograph(&[40], &[&[15], &[15], &[10]])]
    #[case::between_others(&[2, 0, 17, 3], &[&[2, 0], &[15], &[2], &[3]])]
    #[case::small(&[1, 2, 3], &[&[1, 2, 3]])]
    #[case::full(&[9, 9, 6], &[&[9], &[9, 6]])]
    #[case::none(&[0, 0], &[&[0, 0]])]
    fn pieces_unnest_to_the_same_rows(#[case] counts: &[usize], #[case] expected: &[&[usize]]) {
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
    #[case::none(&[], 256, &[])]
    fn parts_have_few_bytes_or_one_row(#[case] bytes: &[usize], #[case] rows: usize, #[case] expected: &[usize]) {
        assert_eq!(lengths(bytes, rows), expected);
    }
}
