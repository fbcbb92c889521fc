//! Aggregates of latent codes as DataFusion calls them: one wrapper finds the model, pins its version and keeps a
//! bounded subsample for all.
//!
//! An aggregate does not see the session's options when it runs, so that the optimiser's simplification must have put
//! the model into the call ([`LatentAggregate::pinned`]), as it does for scalar functions (`scalar/function.rs`). Where
//! DataFusion does not simplify aggregates, as in a window, the call is refused.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef, Float32Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, Expr, Signature, Volatility,
};
use wae_core::Config;
use wae_core::objective::two_sample::Subsample;

use crate::aggregate::{list_state, list_value, lists, refuse_distinct};
use crate::documentation::{FunctionDocumentation, example_vector};
use crate::models::argument::{default_model, literal_model};
use crate::models::pin::Pin;
use crate::models::{self, LoadedModel};
use crate::options::WaeOptions;
use crate::vectors::{Vectors, coerce_vector, vector_width};

/// The name of the first parameter, for messages.
const LATENT: &str = "latent";

/// A statistic of latent codes: its entry in the reference and its computation.
pub(crate) trait LatentStatistic: Debug + Send + Sync {
    /// The entry in the SQL reference, of parameters (latent, model).
    fn documentation(&self) -> &'static FunctionDocumentation;

    /// Most codes that are kept.
    fn rows(&self) -> usize;

    /// The statistic of codes, (n, d_z).
    fn of(&self, config: &Config, codes: &[f32]) -> Option<f64>;
}

/// A [`LatentStatistic`] as DataFusion calls it.
#[derive(Clone)]
pub(crate) struct LatentAggregate {
    statistic: &'static dyn LatentStatistic,
    signature: Signature,
    documentation: Arc<Documentation>,
    pinned: Option<Pin>,
}

impl LatentAggregate {
    /// The aggregate.
    pub(crate) fn new(statistic: &'static dyn LatentStatistic) -> Self {
        let documentation = statistic.documentation();
        Self {
            statistic,
            signature: documentation
                .signature(Volatility::Stable, &[example_vector(DataType::Float32), DataType::Utf8]),
            documentation: Arc::new(documentation.page()),
            pinned: None,
        }
    }

    /// The same, computed by one version of a model.
    pub(crate) fn pin(self, pin: Pin) -> Self {
        Self { pinned: Some(pin), ..self }
    }

    /// The version of the model that the aggregate holds, if planning got so far.
    pub(crate) fn pinned(&self) -> Option<&Pin> {
        self.pinned.as_ref()
    }

    /// Puts the model of a call into it.
    fn simplified(&self, mut call: AggregateFunction, info: &SimplifyContext) -> Result<Expr> {
        let function = self.name();
        let options = WaeOptions::of(info.config_options());
        let name = match call.params.args.get(1) {
            None => default_model(function, &options)?,
            Some(Expr::Literal(value, _)) => literal_model(function, value)?,
            // It gets its value before the query runs, and the call is simplified again.
            Some(Expr::Placeholder(_)) => return Ok(Expr::AggregateFunction(call)),
            Some(other) => {
                let got = info.get_data_type(other)?;
                return plan_err!(
                    "{function}: model must be a string literal or a prepared parameter, got an expression of type {got}"
                );
            }
        };
        let model = models::load_for_statement(function, name, &options, info)?;
        let expected = model.wae().config().latent_dim();
        let width = vector_width(function, LATENT, &info.get_data_type(&call.params.args[0])?)?;
        if let Some(got) = width.filter(|width| *width != expected) {
            let name = model.name();
            return plan_err!("{function}: latent has {got} values, model '{name}' takes {expected}");
        }
        call.func = Arc::new(AggregateUDF::from(self.clone().pin(Pin::new(model, options))));
        Ok(Expr::AggregateFunction(call))
    }
}

impl AggregateUDFImpl for LatentAggregate {
    fn name(&self) -> &str {
        self.statistic.documentation().name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let coerce = |(i, t): (usize, &DataType)| if i == 0 { coerce_vector(t, &DataType::Float32) } else { t.clone() };
        Ok(types.iter().enumerate().map(coerce).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.statistic.documentation().check_arity(1, types.len())?;
        vector_width(self.name(), LATENT, &types[0])?;
        Ok(DataType::Float64)
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        match self.pinned {
            Some(_) => None,
            None => {
                let aggregate = self.clone();
                Some(Box::new(move |call, info| aggregate.simplified(call, info)))
            }
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        refuse_distinct(self.name(), &args)?;
        let Some(pin) = &self.pinned else {
            return plan_err!(
                "{}: no model was found at planning, expected an aggregate outside a window",
                self.name()
            );
        };
        let model = pin.model(self.name())?;
        let codes = Subsample::new(model.wae().config().latent_dim(), self.statistic.rows());
        Ok(Box::new(Codes { model, codes, statistic: self.statistic }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![list_state(args.name, "codes", DataType::Float32)])
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

impl Debug for LatentAggregate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pinned = self.pinned.as_ref().map(|m| (m.name(), m.sha256()));
        f.debug_struct(self.name()).field("pinned", &pinned).finish()
    }
}

impl PartialEq for LatentAggregate {
    fn eq(&self, other: &Self) -> bool {
        let version = |this: &Self| this.pinned.as_ref().map(|m| m.sha256().to_owned());
        self.name() == other.name() && version(self) == version(other)
    }
}

impl Eq for LatentAggregate {}

impl Hash for LatentAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
        self.pinned.as_ref().map(|m| m.sha256()).hash(state);
    }
}

#[derive(Debug)]
struct Codes {
    model: Arc<LoadedModel>,
    codes: Subsample,
    statistic: &'static dyn LatentStatistic,
}

impl Accumulator for Codes {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let model = (self.model.name(), self.model.wae().config().latent_dim());
        let function = self.statistic.documentation().name;
        let vectors = Vectors::try_new(function, &values[0])?;
        for row in 0..vectors.len() {
            if let Some(code) = vectors.code(function, LATENT, row, model)? {
                self.codes.push(&code);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.statistic.of(self.model.wae().config(), &self.codes.codes())))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.codes.memory()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![list_value::<Float32Type>(self.codes.codes())?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let dim = self.model.wae().config().latent_dim();
        for codes in lists::<Float32Type>(self.statistic.documentation().name, states, 0)? {
            codes.values().chunks_exact(dim).for_each(|code| self.codes.push(code));
        }
        Ok(())
    }
}
