//! A pass of an image through the network: the outputs that functions are made from.
//!
//! A pass is computed once a row, whatever number of functions use it. As a column it is a struct with the outputs that
//! a query needs together, NULL where the image is NULL or could not be read:
//!
//! | output | field of the struct | from |
//! |---|---|---|
//! | latent code z = E(x) | `wae.latent`: FixedSizeList of Float32 | the encoder |
//! | reconstruction G(z) | `wae.reconstruction`: FixedSizeList of UInt8, of features of Float32 | encoder and decoder |
//! | reconstruction cost c(x, G(z)) | `wae.cost`: Float32 | encoder and decoder |
//! | anomaly score as p-values rank it | `wae.anomaly`: Float32 | encoder and decoder |
//! | the same at each place | `wae.field`: FixedSizeList of Float32 | encoder and decoder |
//! | its largest value at the scales of parts | `wae.parts`: Float32 | encoder and decoder |
//! | each pixel's term of the cost | `wae.cost_map`: FixedSizeList of Float32 | encoder and decoder |
//!
//! A further output is a variant of [`PassOutput`] with its field, its values in [`PassBuilder`], and a method of
//! [`Pass`].
//!
//! A pass through a pretrained network has the field `wae.features` alone, in the shape of the layers that it gives.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, StructArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, Float32Type};
use datafusion::common::{Result, exec_err};
use wae_core::Wae;
use wae_core::image::PixelSlice;

use crate::columns::{buffer, code_field, fixed_size_list, map_field, scatter};
use crate::decoded::{Decoded, decoded_field};
use crate::models::LoadedModel;

/// The beginning of the names of a pass's fields, which tells it from an image that is a struct.
const PREFIX: &str = "wae.";
/// The output of a pass through a pretrained network.
const FEATURES: &str = "features";

/// An output of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PassOutput {
    Latent,
    Reconstruction,
    Cost,
    Anomaly,
    Field,
    Parts,
    CostMap,
}

impl PassOutput {
    const ALL: [Self; 7] =
        [Self::Latent, Self::Reconstruction, Self::Cost, Self::Anomaly, Self::Field, Self::Parts, Self::CostMap];

    fn name(self) -> &'static str {
        match self {
            Self::Latent => "latent",
            Self::Reconstruction => "reconstruction",
            Self::Cost => "cost",
            Self::Anomaly => "anomaly",
            Self::Field => "field",
            Self::Parts => "parts",
            Self::CostMap => "cost_map",
        }
    }

    /// Its field of the struct.
    fn field(self, model: Option<&LoadedModel>) -> Field {
        let name = format!("{PREFIX}{}", self.name());
        match self {
            Self::Latent => code_field(&name, model),
            Self::Reconstruction => decoded_field(&name, model),
            Self::Cost | Self::Anomaly | Self::Parts => Field::new(name, DataType::Float32, true),
            Self::Field | Self::CostMap => map_field(&name, model),
        }
    }
}

/// A set of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Outputs(u8);

impl Outputs {
    /// No output: the function takes no image.
    pub(crate) const NONE: Self = Self(0);
    /// The latent code.
    pub(crate) const LATENT: Self = Self::of(PassOutput::Latent);
    /// The reconstruction, as bytes or in the units of features.
    pub(crate) const RECONSTRUCTION: Self = Self::of(PassOutput::Reconstruction);
    /// The reconstruction cost.
    pub(crate) const COST: Self = Self::of(PassOutput::Cost);
    /// The anomaly score as p-values rank it.
    pub(crate) const ANOMALY: Self = Self::of(PassOutput::Anomaly);
    /// The same at each place.
    pub(crate) const FIELD: Self = Self::of(PassOutput::Field);
    /// The largest of these at the scales that look at parts of the image.
    pub(crate) const PARTS: Self = Self::of(PassOutput::Parts);
    /// Each pixel's term of the reconstruction cost.
    pub(crate) const COST_MAP: Self = Self::of(PassOutput::CostMap);

    const fn of(output: PassOutput) -> Self {
        Self(1 << output as u8)
    }

    /// Those of either.
    pub(crate) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn contains(self, output: PassOutput) -> bool {
        self.0 & Self::of(output).0 != 0
    }

    fn iter(self) -> impl Iterator<Item = PassOutput> {
        PassOutput::ALL.into_iter().filter(move |output| self.contains(*output))
    }

    /// Their names, as [`Self::parse`] reads them.
    pub(crate) fn names(self) -> String {
        self.iter().map(PassOutput::name).collect::<Vec<_>>().join(",")
    }

    /// The outputs of names with commas between them; `None` if one is unknown or there is none.
    pub(crate) fn parse(names: &str) -> Option<Self> {
        names.split(',').try_fold(Self::NONE, |outputs, name| {
            let output = PassOutput::ALL.into_iter().find(|output| output.name() == name)?;
            Some(outputs.union(Self::of(output)))
        })
    }

    /// The type of a pass with these outputs.
    pub(crate) fn data_type(self, model: Option<&LoadedModel>) -> DataType {
        DataType::Struct(self.iter().map(|output| output.field(model)).collect())
    }
}

/// The outputs of a batch of images.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    /// The function that takes them, for messages.
    function: &'a str,
    outputs: StructArray,
}

impl<'a> Pass<'a> {
    /// Whether values of a type are passes.
    pub(crate) fn is(data_type: &DataType) -> bool {
        let DataType::Struct(fields) = data_type else { return false };
        let is_output = |name: &str| name == FEATURES || Outputs::parse(name).is_some();
        let known = |name: &str| name.strip_prefix(PREFIX).is_some_and(is_output);
        !fields.is_empty() && fields.iter().all(|field| known(field.name()))
    }

    /// The pass that a column holds.
    pub(crate) fn try_from_array(function: &'a str, array: &ArrayRef) -> Result<Self> {
        match array.as_struct_opt() {
            Some(array) => Ok(Self { function, outputs: array.clone() }),
            None => exec_err!("{function}: a pass expected, got {}", array.data_type()),
        }
    }

    /// The type of a pass through a pretrained network that gives features of a type.
    pub(crate) fn type_of_features(features: DataType) -> DataType {
        DataType::Struct(vec![Field::new(format!("{PREFIX}{FEATURES}"), features, true)].into())
    }

    /// The pass through a pretrained network that gave these features; it has such a type.
    pub(crate) fn of_features(pass: &DataType, features: ArrayRef) -> Result<ArrayRef> {
        let DataType::Struct(fields) = pass else { return exec_err!("a pass expected, got {pass}") };
        let nulls = features.nulls().cloned();
        Ok(Arc::new(StructArray::try_new(fields.clone(), vec![features], nulls)?))
    }

    /// The features of a pretrained network, (N, H, W, C) or (N, C).
    pub(crate) fn features(&self) -> Result<ArrayRef> {
        self.column(FEATURES)
    }

    /// The latent codes, (N, Z).
    pub(crate) fn latent(&self) -> Result<ArrayRef> {
        self.column(PassOutput::Latent.name())
    }

    /// The reconstructions as bytes or in the units of features, (N, H, W, C).
    pub(crate) fn reconstruction(&self) -> Result<ArrayRef> {
        self.column(PassOutput::Reconstruction.name())
    }

    /// The reconstruction costs, (N,).
    pub(crate) fn costs(&self) -> Result<Float32Array> {
        self.numbers(PassOutput::Cost)
    }

    /// The anomaly scores as p-values rank them, (N,).
    pub(crate) fn anomalies(&self) -> Result<Float32Array> {
        self.numbers(PassOutput::Anomaly)
    }

    /// The anomaly score at each place as p-values rank it, (N, H, W).
    pub(crate) fn field(&self) -> Result<ArrayRef> {
        self.column(PassOutput::Field.name())
    }

    /// The largest of these at the scales that look at parts of the image, (N,).
    pub(crate) fn parts(&self) -> Result<Float32Array> {
        self.numbers(PassOutput::Parts)
    }

    /// Each pixel's term of the reconstruction cost, (N, H, W).
    pub(crate) fn cost_map(&self) -> Result<ArrayRef> {
        self.column(PassOutput::CostMap.name())
    }

    /// The struct as a column.
    pub(crate) fn into_array(self) -> ArrayRef {
        Arc::new(self.outputs)
    }

    /// An output of one number a row.
    fn numbers(&self, output: PassOutput) -> Result<Float32Array> {
        Ok(self.column(output.name())?.as_primitive::<Float32Type>().clone())
    }

    /// An output, NULL where the pass is.
    fn column(&self, output: &str) -> Result<ArrayRef> {
        let Some(column) = self.outputs.column_by_name(&format!("{PREFIX}{output}")) else {
            return exec_err!("{}: a pass without {output} where it is needed", self.function);
        };
        let nulls = NullBuffer::union(self.outputs.nulls(), column.nulls());
        if nulls.as_ref() == column.nulls() {
            return Ok(Arc::clone(column));
        }
        Ok(make_array(column.to_data().into_builder().nulls(nulls).build()?))
    }
}

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
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("latent", Some(Outputs::LATENT))]
    #[case("cost,latent", Some(Outputs::LATENT.union(Outputs::COST)))]
    #[case("", None)]
    #[case("latent,", None)]
    #[case("code", None)]
    fn outputs_are_read_from_names(#[case] names: &str, #[case] outputs: Option<Outputs>) {
        assert_eq!(Outputs::parse(names), outputs);
        if let Some(outputs) = outputs {
            assert_eq!(Outputs::parse(&outputs.names()), Some(outputs));
        }
    }

    #[test]
    fn a_struct_of_another_kind_is_no_pass() {
        let of = |names: &[&str]| {
            DataType::Struct(names.iter().map(|name| Field::new(*name, DataType::Float32, true)).collect())
        };
        assert!(Pass::is(&of(&["wae.cost"])) && Pass::is(&of(&["wae.latent", "wae.cost"])));
        assert!(Pass::is(&Pass::type_of_features(DataType::Float32)));
        assert!(!Pass::is(&of(&["bytes", "path"])) && !Pass::is(&of(&["wae.cost", "path"])) && !Pass::is(&of(&[])));
        assert!(!Pass::is(&of(&["cost"])) && !Pass::is(&DataType::Float32));
    }

    #[test]
    fn an_output_is_null_where_the_pass_is() {
        let costs: ArrayRef = Arc::new(Float32Array::from(vec![Some(1.0), None, Some(3.0)]));
        let fields: Fields = vec![Field::new("wae.cost", DataType::Float32, true)].into();
        let nulls = NullBuffer::from(vec![true, true, false]);
        let array: ArrayRef = Arc::new(StructArray::new(fields, vec![costs], Some(nulls)));
        let pass = Pass::try_from_array("f", &array).unwrap();
        assert_eq!(pass.costs().unwrap(), Float32Array::from(vec![Some(1.0), None, None]));
        let error = pass.latent().unwrap_err().strip_backtrace();
        assert!(error.contains("f: a pass without latent where it is needed"), "{error}");
    }

    #[test]
    fn rows_take_their_places() {
        let mut values = [0; 6];
        scatter(&mut values, &[0, 2], &[1, 2, 5, 6]);
        assert_eq!(values, [1, 2, 0, 0, 5, 6]);
        scatter(&mut [], &[0, 2], &[1, 2, 5, 6]);
    }
}
