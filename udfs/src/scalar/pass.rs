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

mod builder;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, StructArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Float32Type};
use datafusion::common::{Result, exec_err};

pub(crate) use self::builder::PassBuilder;
use crate::columns::{code_field, map_field};
use crate::decoded::decoded_field;
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

    /// The pass that a column holds, with the outputs that a call takes from it.
    ///
    /// # Errors
    /// An execution error where one is missing, or is not of the type that the model's passes have: a query wrote the
    /// struct itself.
    pub(crate) fn try_of_model(
        function: &'a str,
        array: &ArrayRef,
        outputs: Outputs,
        model: &LoadedModel,
    ) -> Result<Self> {
        let pass = Self::try_from_array(function, array)?;
        for output in outputs.iter() {
            let expected = output.field(Some(model));
            let found = pass.stored(output.name())?.data_type();
            if !found.equals_datatype(expected.data_type()) {
                return exec_err!(
                    "{function}: the field {} of the struct is {found}, of model '{}' it is {}; expected an image in the \
                     place of the struct",
                    expected.name(),
                    model.name(),
                    expected.data_type()
                );
            }
        }
        Ok(pass)
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
        let column = self.column(output.name())?;
        match column.as_primitive_opt::<Float32Type>() {
            Some(numbers) => Ok(numbers.clone()),
            None => exec_err!("{}: numbers of Float32 expected, got {}", self.function, column.data_type()),
        }
    }

    /// An output as the struct holds it.
    fn stored(&self, output: &str) -> Result<&ArrayRef> {
        match self.outputs.column_by_name(&format!("{PREFIX}{output}")) {
            Some(column) => Ok(column),
            None => exec_err!("{}: a pass without {output} where it is needed", self.function),
        }
    }

    /// An output, NULL where the pass is.
    fn column(&self, output: &str) -> Result<ArrayRef> {
        let column = self.stored(output)?;
        let nulls = NullBuffer::union(self.outputs.nulls(), column.nulls());
        if nulls.as_ref() == column.nulls() {
            return Ok(Arc::clone(column));
        }
        Ok(make_array(column.to_data().into_builder().nulls(nulls).build()?))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Fields;
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
}
