//! The parts of a batch that a [`WaePassExec`](super::WaePassExec) computes at a time.
//!
//! A pass takes `wae.batch_size` rows. The tiles of an image take as much memory as the image, which a file holds in a
//! tenth of it: so many images are tiled at a time as have [`TILED`] bytes of pixels together, one if it has more. A batch
//! of photographs is read in small parts, too.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};
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
    use rstest::rstest;

    use super::*;

    const MB: usize = 1 << 20;

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
