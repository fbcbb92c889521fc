//! Rows through a network, as many at a time as there is room for.

use std::ops::Range;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::architecture::largest_activation;
use crate::ops::MOST_VALUES;

/// The most images that pass through the layers together: enough to fill every register tile.
pub(super) const IMAGES: usize = 120;
/// The most values that a layer of them may have, unless one image alone has more: 256 MB.
const ACTIVATION: usize = 1 << 26;

/// Images that pass through the layers together.
pub(in crate::model) fn images_a_pass(config: &Config) -> usize {
    images_that_fit(config).min(IMAGES)
}

/// Images whose largest layer is within bounds.
fn images_that_fit(config: &Config) -> usize {
    (ACTIVATION / largest_activation(config).max(1)).max(1)
}

/// The same on a GPU, whose operations have at most [`MOST_VALUES`] values: half of that, as a layer may be padded. A batch that its
/// memory has no room for is halved.
pub(super) fn images_on_a_gpu(config: &Config) -> usize {
    // The structural cost multiplies with a matrix of height × height values for each image.
    let largest = largest_activation(config).max(config.image().height().pow(2));
    (MOST_VALUES / 2 / largest.max(1)).max(1)
}

/// Rows of `input_len` values, `len` values in all, through a network, which puts out `output_len` for each: so many rows at a
/// time by `pass`, which is told where their values lie.
pub(super) fn apply(
    len: usize,
    rows: usize,
    (input_len, output_len): (usize, usize),
    pass: impl Fn(Range<usize>) -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    if !len.is_multiple_of(input_len) {
        return Err(Error::Data(format!("{len} values are no multiple of the {input_len} that a row has")));
    }
    let mut output = Vec::with_capacity(len / input_len * output_len);
    for start in (0..len).step_by(rows * input_len) {
        output.extend(pass(start..(start + rows * input_len).min(len))?);
    }
    Ok(output)
}
