//! `image_tiles(image, size [, stride])`: the tiles that cover an image, each with its place.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, ListArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::ScalarUDF;
use wae_core::ImageShape;
use wae_core::image::{Image, Pixels, TileGrid};

use crate::documentation::{ANY_IMAGE_ARGUMENT, FunctionDocumentation};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::ScalarKernel;
use crate::scalar::row_args::size_of;
use crate::tensors::{Size, Tensors};

pub(crate) const NAME: &str = "image_tiles";
/// The positions of `size` and `stride`.
const SIZE: usize = 1;
const STRIDE: usize = 2;
/// Images that are decoded at a time.
const IMAGES: usize = 4;

/// The function under a session's options.
pub(crate) fn image_tiles_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&ImageTiles, options)
}

/// (H, W, C) -> tiles of (h, w, C).
#[derive(Debug)]
struct ImageTiles;

impl ScalarKernel for ImageTiles {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn required(&self) -> usize {
        2
    }

    fn model_position(&self, _: usize, _: &dyn Fn(usize) -> bool) -> Option<usize> {
        None
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        let size = match args.size(SIZE)?.filter(|_| args.is_fixed(SIZE)) {
            Some((height, width)) => Size::Known(height, width),
            None if args.is_placeholder(SIZE) => Size::Prepared,
            None => Size::PerRow,
        };
        args.size(STRIDE)?;
        let tile = args.tensor_form()?.field("image", size);
        let place = |name| Field::new(name, DataType::Int64, true);
        let tile = DataType::Struct(vec![place("y"), place("x"), tile].into());
        Ok(Field::new(NAME, DataType::List(Arc::new(Field::new_list_field(tile, true))), true))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let limits = batch.options().limits();
        let Some(column) = batch.images_of_numbers()? else { return Ok(batch.nulls()) };
        let sizes = batch.sizes(SIZE, "size")?.unwrap_or_else(|| vec![None; batch.rows()]);
        let strides = batch.sizes(STRIDE, "stride")?;
        let mut lists = TileLists::new(batch.rows());
        let tiles_of = |row: usize| {
            let Some(size) = sizes[row] else { return Ok(None) };
            let Some(stride) = strides.as_ref().map_or(sizes[row], |strides| strides[row]) else { return Ok(None) };
            Tiles::cut(&column.image(row, None, &limits)?, size, stride).map(Some)
        };
        batch.map_chunks(&column, IMAGES, tiles_of, |rows, tiles| {
            for (row, tiles) in rows.iter().zip(tiles) {
                if let Some(tiles) = tiles {
                    lists.put(*row, tiles)?;
                }
            }
            Ok(())
        })?;
        lists.finish(batch.return_field())
    }
}

/// How many times as many values as an image its tiles have, from the values of the arguments that have one; `None` if
/// these do not tell.
pub(crate) fn overlap(literals: &[Option<&ScalarValue>]) -> Option<usize> {
    let Some(stride) = literals.get(STRIDE) else { return Some(1) };
    let (tall, wide) = size_of((*literals.get(SIZE)?)?).ok()??;
    let (down, right) = size_of((*stride)?).ok()??;
    Some(tall.div_ceil(down) * wide.div_ceil(right))
}

/// The tiles of an image.
struct Tiles {
    grid: TileGrid,
    shape: ImageShape,
    values: Pixels,
}

impl Tiles {
    fn cut(image: &Image, size: (usize, usize), stride: (usize, usize)) -> wae_core::Result<Self> {
        let grid = TileGrid::try_new(image.shape(), size, stride)?;
        let values = grid.cut(image)?;
        Ok(Self { grid, shape: ImageShape::new(size.0, size.1, image.shape().channels()), values })
    }
}

/// A column of lists of tiles while it is made, row by row.
struct TileLists {
    /// The number of tiles of each row; `None` where the row is NULL.
    counts: Vec<Option<usize>>,
    ys: Vec<i64>,
    xs: Vec<i64>,
    tiles: Tensors,
}

impl TileLists {
    fn new(rows: usize) -> Self {
        Self { counts: vec![None; rows], ys: Vec::new(), xs: Vec::new(), tiles: Tensors::new(NAME) }
    }

    /// Puts the tiles of a row in place; rows come in order.
    fn put(&mut self, row: usize, tiles: Tiles) -> Result<()> {
        self.counts[row] = Some(tiles.grid.len());
        self.ys.extend(tiles.grid.places().map(|(y, _)| y as i64));
        self.xs.extend(tiles.grid.places().map(|(_, x)| x as i64));
        self.tiles.extend(tiles.shape, tiles.grid.len(), tiles.values)
    }

    fn finish(self, field: &Field) -> Result<ArrayRef> {
        let DataType::List(item) = field.data_type() else {
            return exec_err!("{NAME}: a list expected, got {}", field.data_type());
        };
        let tiles = self.tiles.finish(tile_field(item)?)?;
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(self.ys)), Arc::new(Int64Array::from(self.xs)), tiles];
        let tiles = StructArray::try_new(struct_fields(item)?.clone(), columns, None)?;
        let offsets = OffsetBuffer::from_lengths(self.counts.iter().map(|count| count.unwrap_or(0)));
        let nulls: NullBuffer = self.counts.iter().map(Option::is_some).collect::<Vec<_>>().into();
        Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, Arc::new(tiles), Some(nulls))?))
    }
}

fn struct_fields(item: &FieldRef) -> Result<&Fields> {
    match item.data_type() {
        DataType::Struct(fields) => Ok(fields),
        other => exec_err!("{NAME}: structs expected, got {other}"),
    }
}

/// The field of a tile in a list of them.
fn tile_field(item: &FieldRef) -> Result<&Field> {
    match struct_fields(item)?.last() {
        Some(tile) => Ok(tile),
        None => exec_err!("{NAME}: structs of tiles expected"),
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "image_tiles(image, size [, stride])",
    description: "The tiles that cover an image, row by row: a list of structs of y, x (the place of a tile's first \
         pixel) and image, for unnest. The last tiles of a row and of a column end at the border, so that all have the \
         size. An image smaller than a tile is an error, and NULL with `wae.on_error = 'null'`, so that unnest leaves \
         it out; NULL where an argument is. Tiles of UInt8, or of Float32 for an image of floats, whose numbers may \
         have any range.",
    arguments: &[
        ("image", ANY_IMAGE_ARGUMENT),
        ("size", "The size of a tile: a number of pixels, or a text such as '224x308', height x width."),
        (
            "stride",
            "The pixels from one tile to the next, in the same forms; by default the size. Tiles overlap where it is \
             smaller, and leave pixels between them out where it is larger.",
        ),
    ],
    example: "SELECT path, tile['y'], tile['x'], wae_anomaly_score(tile['image'], 'wood') FROM (SELECT path, \
         unnest(image_tiles(bytes, 256)) AS tile FROM read_images('photos/*.jpg'));",
    related: &["image_stitch", "image_crop", "image_resize"],
};

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::side_by_side(Some("256"), None, Some(1))]
    #[case::overlapping(Some("256"), Some("32"), Some(64))]
    #[case::sides(Some("100x60"), Some("30x60"), Some(4))]
    #[case::apart(Some("8"), Some("9"), Some(1))]
    #[case::size_of_a_row(None, Some("8"), None)]
    fn overlap_counts_the_tiles_over_a_pixel(
        #[case] size: Option<&str>,
        #[case] stride: Option<&str>,
        #[case] expected: Option<usize>,
    ) {
        let size = size.map(ScalarValue::from);
        let stride = stride.map(ScalarValue::from);
        let mut literals = vec![None, size.as_ref()];
        literals.extend(stride.as_ref().map(Some));
        assert_eq!(overlap(&literals), expected);
        assert_eq!(overlap(&[None, size.as_ref(), None]), None);
    }
}
