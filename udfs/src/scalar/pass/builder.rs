//! The computation of a pass.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Field, Fields};
use datafusion::common::Result;
use wae_core::Wae;
use wae_core::image::PixelSlice;

use super::{Outputs, Pass, PassOutput};
use crate::columns::{buffer, fixed_size_list, scatter};
use crate::decoded::Decoded;
use crate::models::LoadedModel;

/// The outputs of a batch while they are computed; the columns of those not needed stay empty.
pub(crate) struct PassBuilder<'a> {
    function: &'a str,
    model: &'a LoadedModel,
    outputs: Outputs,
    latent: Vec<f32>,
    reconstruction: Decoded,
    cost: Vec<f32>,
    anomaly: Vec<f32>,
    field: Vec<f32>,
    parts: Vec<f32>,
    cost_map: Vec<f32>,
}

impl<'a> PassBuilder<'a> {
    /// Room for the outputs of so many rows.
    ///
    /// # Errors
    /// An execution error where memory has no room.
    pub(crate) fn try_new(function: &'a str, rows: usize, outputs: Outputs, model: &'a LoadedModel) -> Result<Self> {
        let config = model.wae().config();
        let (map_height, map_width) = config.map_size();
        let places = map_height * map_width;
        let width = |output: PassOutput, width: usize| if outputs.contains(output) { width } else { 0 };
        Ok(Self {
            function,
            model,
            outputs,
            latent: buffer(function, rows, width(PassOutput::Latent, config.latent_dim()))?,
            reconstruction: Decoded::with_rows(function, width(PassOutput::Reconstruction, rows), model)?,
            cost: buffer(function, rows, width(PassOutput::Cost, 1))?,
            anomaly: buffer(function, rows, width(PassOutput::Anomaly, 1))?,
            field: buffer(function, rows, width(PassOutput::Field, places))?,
            parts: buffer(function, rows, width(PassOutput::Parts, 1))?,
            cost_map: buffer(function, rows, width(PassOutput::CostMap, places))?,
        })
    }

    /// Computes rows from their images, (N, H, W, C).
    pub(crate) fn fill(&mut self, wae: &Wae, rows: &[usize], images: PixelSlice<'_>) -> wae_core::Result<()> {
        let codes = wae.encode(images)?; // (N, Z)
        scatter(&mut self.latent, rows, &codes);
        let of_pairs = [&self.cost, &self.anomaly, &self.field, &self.parts, &self.cost_map];
        if self.reconstruction.is_empty() && of_pairs.into_iter().all(Vec::is_empty) {
            return Ok(());
        }
        let reconstructions = wae.decode(&codes)?; // (N, H, W, C)
        if !self.cost.is_empty() {
            scatter(&mut self.cost, rows, &wae.costs(images, &reconstructions)?);
        }
        // The score is the largest place of the field: where both are taken, the field is computed once.
        if !self.field.is_empty() || !self.parts.is_empty() {
            let fields = wae.anomaly_fields(images, &reconstructions)?;
            scatter(&mut self.anomaly, rows, &fields.largest);
            scatter(&mut self.field, rows, &fields.values);
            scatter(&mut self.parts, rows, &fields.of_parts);
        } else if !self.anomaly.is_empty() {
            scatter(&mut self.anomaly, rows, &wae.anomalies(images, &reconstructions)?);
        }
        if !self.cost_map.is_empty() {
            scatter(&mut self.cost_map, rows, &wae.cost_maps(images, &reconstructions)?);
        }
        if !self.reconstruction.is_empty() {
            self.reconstruction.put(rows, &Decoded::of(self.model, &reconstructions));
        }
        Ok(())
    }

    /// The pass; `valid` tells the rows that have an image.
    pub(crate) fn finish(mut self, valid: NullBuffer) -> Result<Pass<'a>> {
        let fields: Fields = self.outputs.iter().map(|output| output.field(Some(self.model))).collect();
        let columns = self.outputs.iter().zip(&fields).map(|(output, field)| self.column(output, field, valid.clone()));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        Ok(Pass { function: self.function, outputs: StructArray::try_new(fields, columns, Some(valid))? })
    }

    /// Takes the values of an output as a column.
    fn column(&mut self, output: PassOutput, field: &Field, nulls: NullBuffer) -> Result<ArrayRef> {
        match output {
            PassOutput::Latent => fixed_size_list(field, numbers(&mut self.latent, None), nulls),
            PassOutput::Reconstruction => {
                let values = std::mem::replace(&mut self.reconstruction, Decoded::Bytes(Vec::new()));
                fixed_size_list(field, values.into_array(), nulls)
            }
            PassOutput::Cost => Ok(numbers(&mut self.cost, Some(nulls))),
            PassOutput::Anomaly => Ok(numbers(&mut self.anomaly, Some(nulls))),
            PassOutput::Field => fixed_size_list(field, numbers(&mut self.field, None), nulls),
            PassOutput::Parts => Ok(numbers(&mut self.parts, Some(nulls))),
            PassOutput::CostMap => fixed_size_list(field, numbers(&mut self.cost_map, None), nulls),
        }
    }
}

/// Takes values as an array.
fn numbers(values: &mut Vec<f32>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(Float32Array::new(std::mem::take(values).into(), nulls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_take_their_places() {
        let mut values = [0; 6];
        scatter(&mut values, &[0, 2], &[1, 2, 5, 6]);
        assert_eq!(values, [1, 2, 0, 0, 5, 6]);
        scatter(&mut [], &[0, 2], &[1, 2, 5, 6]);
    }
}
