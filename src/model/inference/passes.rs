//! Passes of rows through a network, as many rows at a time as fit.

use std::ops::Range;

use crate::architecture::largest_activation;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::ops::MOST_VALUES;

/// The most images of a pass: enough to fill every register tile.
pub(super) const IMAGES: usize = 120;
/// The most values of a layer in a pass, unless one image alone has more: 256 MB.
const ACTIVATION: usize = 1 << 26;

/// The number of images of a pass.
pub(in crate::model) fn images_a_pass(config: &Config) -> usize {
    images_that_fit(config).min(IMAGES)
}

/// Images whose largest layer is within bounds.
fn images_that_fit(config: &Config) -> usize {
    (ACTIVATION / largest_activation(config).max(1)).max(1)
}

/// The number of images of a pass on a GPU, whose operations have at most [`MOST_VALUES`] values: half of that, as a
/// layer may be padded. A batch that its memory has no room for is halved.
pub(super) fn images_on_a_gpu(config: &Config) -> usize {
    // The structural cost multiplies with a matrix of height × height values for each image.
    let largest = largest_activation(config).max(config.image().height().pow(2));
    (MOST_VALUES / 2 / largest.max(1)).max(1)
}

/// Passes `len` values, in rows of `input_len`, through a network that gives `output_len` values for each row. `pass`
/// computes `rows` rows at a time, given the range of their values.
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
