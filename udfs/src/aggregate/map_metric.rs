//! Aggregates of maps beside masks: how well a map shows where the defects are.
//!
//! The shapes of both stand in the metadata of their fields, which expressions and stages of a cluster drop. So the rule of
//! image arguments ([`crate::plan`]) finds them in the columns that they come from, and the call keeps them.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, UInt32Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_datafusion_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Documentation, Signature, Volatility};
use rayon::prelude::*;
use wae_core::image::Limits;
use wae_core::localization::{DefectMask, PixelCurve};
use wae_core::{Error, ImageColumn};

use crate::aggregate::{list_state, list_value, lists, refuse_distinct};
use crate::columns::{features_type, image_type};
use crate::documentation::{FunctionDocumentation, example_vector};
use crate::error::{Place, exec_error, row_error};
use crate::scalar::planned_image::PlannedImage;

/// The description of the argument that holds a map.
pub(crate) const MAP_ARGUMENT: &str = "The anomaly of each place, higher for a defect: a tensor of two dimensions, or lists of lists, of \
     finite floats, such as `wae_anomaly_map` gives. Compared as Float32.";

/// The description of the argument that holds a mask.
pub(crate) const MASK_ARGUMENT: &str = "Where the defects are: an image of any form and size, 0 where there is none. It is compared at the \
     map's size, by the pixel in which the middle of each place lies. For images without a defect that have no mask, write \
     `coalesce(mask, image_encode([[0]]))`, or for tensors their own zeros.";

/// Rows whose maps and masks are read at a time.
const ROWS: usize = 64;

/// A metric of maps beside masks: its entry in the reference and its computation.
pub(crate) trait MapMetric: Debug + Send + Sync {
    /// The entry in the SQL reference, of parameters (map, mask).
    fn documentation(&self) -> &'static FunctionDocumentation;

    /// Adds the places of an image.
    fn add(&self, curve: &mut PixelCurve, map: &[f32], mask: &DefectMask);

    /// The rate of false positives up to which the area is taken.
    fn limit(&self) -> f64;
}

/// A [`MapMetric`] as DataFusion calls it.
#[derive(Debug, Clone)]
pub(crate) struct MapAggregate {
    metric: &'static dyn MapMetric,
    signature: Signature,
    documentation: Documentation,
    /// The types of the map and of the mask.
    types: [PlannedImage; 2],
}

impl MapAggregate {
    /// The aggregate.
    pub(crate) fn new(metric: &'static dyn MapMetric) -> Self {
        let documentation = metric.documentation();
        let examples = [example_vector(example_vector(DataType::Float32)), DataType::Binary];
        let signature = documentation.signature(Volatility::Immutable, &examples);
        Self { metric, signature, documentation: documentation.page(), types: Default::default() }
    }

    /// The same aggregate, of a map and a mask whose types planning has found.
    pub(crate) fn of_types(&self, types: [PlannedImage; 2]) -> Self {
        Self { types, ..self.clone() }
    }

    /// Whether planning has looked for the types.
    pub(crate) fn is_planned(&self) -> bool {
        self.types.iter().all(PlannedImage::is_planned)
    }

    /// The fields of the map and of the mask, with the types that planning found.
    fn fields(&self, fields: &[FieldRef]) -> Result<[FieldRef; 2]> {
        let [map, mask] = fields else {
            return plan_err!("{} takes 2 arguments (map, mask), got {}", self.name(), fields.len());
        };
        let restored = |planned: &PlannedImage, field: &FieldRef| Arc::clone(&planned.restore(&[Arc::clone(field)])[0]);
        Ok([restored(&self.types[0], map), restored(&self.types[1], mask)])
    }

    /// Bytes that a call carries to another node, beside the function's name.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Strings as keys and values: writing them cannot fail.
        if self.is_planned() { serde_json::to_vec(&self.types).unwrap_or_default() } else { Vec::new() }
    }

    /// The aggregate of a call that came from another node with these bytes.
    ///
    /// # Errors
    /// A plan error if they cannot be read.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(self.clone());
        }
        let types = serde_json::from_slice(bytes).map_err(|e| {
            plan_datafusion_err!(
                "{}: the call cannot be read ({e}), expected one that a node with this version of the plugin planned",
                self.name()
            )
        })?;
        Ok(self.of_types(types))
    }
}

impl PartialEq for MapAggregate {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.types == other.types
    }
}

impl Eq for MapAggregate {}

impl Hash for MapAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
        self.types.hash(state);
    }
}

impl AggregateUDFImpl for MapAggregate {
    fn name(&self) -> &str {
        self.metric.documentation().name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.metric.documentation().check_arity(2, types.len())?;
        Ok(DataType::Float64)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        let data_type = self.return_type(&fields.iter().map(|f| f.data_type().clone()).collect::<Vec<_>>())?;
        let name = self.name();
        let fields = self.fields(fields)?;
        let map = features_type(&fields[0]).or_else(|message| plan_err!("{name}: map: {message}"))?;
        // A flat list may be a map whose type an expression lost: planning looks for it.
        if let Some(shape) = map.shape().filter(|shape| self.is_planned() && shape.channels() != 1) {
            return plan_err!("{name}: {}", no_map(shape.channels()));
        }
        let mask = image_type(&fields[1]).or_else(|message| plan_err!("{name}: mask: {message}"))?;
        mask.check_order().or_else(|error| plan_err!("{name}: mask: {error}"))?;
        Ok(Arc::new(Field::new(name, data_type, true)))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        refuse_distinct(self.name(), &args)?;
        let [map, mask] = self.fields(args.expr_fields)?;
        Ok(Box::new(Places { metric: self.metric, map, mask, curve: PixelCurve::default() }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = |name, item| list_state(args.name, name, item);
        let dropped = Field::new(format_state_name(args.name, "dropped"), DataType::UInt32, true);
        Ok(vec![
            list("keys", DataType::UInt32),
            list("normal", DataType::UInt64),
            list("defective", DataType::Float64),
            Arc::new(dropped),
        ])
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

fn no_map(values: usize) -> String {
    format!(
        "map holds {values} values a place, expected one: a tensor of two dimensions or lists of lists, such as \
         wae_anomaly_map gives"
    )
}

/// The values of all maps, at defects and elsewhere.
#[derive(Debug)]
struct Places {
    metric: &'static dyn MapMetric,
    map: FieldRef,
    mask: FieldRef,
    curve: PixelCurve,
}

impl Places {
    fn name(&self) -> &'static str {
        self.metric.documentation().name
    }
}

impl Accumulator for Places {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let name = self.name();
        let maps = ImageColumn::of_features(&self.map, &values[0], None).map_err(|e| exec_error(name, &e))?;
        // A mask whose type an expression lost may be a flat list of the map's size.
        let size = features_type(&self.map).ok().and_then(|map| map.shape());
        let masks = ImageColumn::of_masks(&self.mask, &values[1], size).map_err(|e| exec_error(name, &e))?;
        let rows: Vec<usize> = (0..maps.len()).filter(|row| !maps.is_null(*row) && !masks.is_null(*row)).collect();
        for rows in rows.chunks(ROWS) {
            let read: Vec<_> = rows.par_iter().map(|row| read(&maps, &masks, *row)).collect();
            for (row, read) in rows.iter().zip(read) {
                let (map, mask) = read.map_err(|e| row_error(name, Place::of_image(*row, &masks, None), e))?;
                self.metric.add(&mut self.curve, &map, &mask);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let limit = self.metric.limit();
        if let Some(uncertainty) = self.curve.uncertainty(limit).filter(|uncertainty| *uncertainty > 0.0) {
            // A twentieth more, so that two digits are not below the bound.
            let bound = uncertainty * 1.05;
            log::warn!("{}: more distinct values than are kept: the result is within {bound:.1e}", self.name());
        }
        Ok(ScalarValue::Float64(self.curve.area(limit)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.curve.memory()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (keys, normal, defective, dropped) = std::mem::take(&mut self.curve).into_parts();
        Ok(vec![
            list_value::<UInt32Type>(keys)?,
            list_value::<UInt64Type>(normal)?,
            list_value::<Float64Type>(defective)?,
            ScalarValue::UInt32(Some(dropped)),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let name = self.name();
        let keys = lists::<UInt32Type>(name, states, 0)?;
        let normal = lists::<UInt64Type>(name, states, 1)?;
        let defective = lists::<Float64Type>(name, states, 2)?;
        let Some(dropped) = states.get(3).and_then(|dropped| dropped.as_primitive_opt::<UInt32Type>()) else {
            return exec_err!("{name}: a state without its number of bits");
        };
        for (row, keys) in keys.iter().enumerate() {
            let defective = defective[row].values();
            let curve = PixelCurve::try_from_parts(keys.values(), normal[row].values(), defective, dropped.value(row));
            self.curve.merge(curve.map_err(|e| exec_error(name, &e))?);
        }
        Ok(())
    }
}

/// The map of a row, (H, W), and its mask at the map's size.
fn read(maps: &ImageColumn, masks: &ImageColumn, row: usize) -> wae_core::Result<(Vec<f32>, DefectMask)> {
    let limits = Limits::default();
    let map = maps.image(row, None, &limits)?;
    let shape = map.shape();
    if shape.channels() != 1 {
        return Err(Error::Data(no_map(shape.channels())));
    }
    let mut values = vec![0.0; shape.len()];
    map.write_to(&mut values);
    let mask = DefectMask::of_image(&masks.image(row, None, &limits)?);
    Ok((values, mask.at_size(shape.height(), shape.width())))
}
