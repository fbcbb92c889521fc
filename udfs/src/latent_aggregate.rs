//! What aggregates of latent codes have in common: finding the model, pinning its version, keeping a bounded subsample.
//!
//! An aggregate does not see the session's options when it runs, so that the optimiser's simplification must have put the
//! model into the call ([`LatentAggregate::pinned`]), as it does for scalar functions (`function.rs`). Where DataFusion
//! does not simplify aggregates, as in a window, the call is refused.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef, Float32Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, Expr, Signature};
use wae_core::Config;
use wae_core::objective::two_sample::Subsample;

use crate::aggregate::{check_arity, list_state, list_value, lists, refuse_distinct};
use crate::function::{default_model, literal_model, signature};
use crate::models::{self, LoadedModel};
use crate::options::WaeOptions;
use crate::pin::Pin;
use crate::vectors::{Vectors, coerce_vector, vector_width};

const PARAMETERS: &[&str] = &["latent", "model"];

/// The description of the argument that holds a latent code.
pub(crate) const LATENT_ARGUMENT: &str =
    "The latent code: a FixedSizeList, List or LargeList of numbers, as many as the model's latent dimension.";

/// One statistic of latent codes: its name and its computation.
pub(crate) trait LatentStatistic: Debug + Send + Sync + 'static {
    /// The SQL name.
    const NAME: &'static str;
    /// Most codes that are kept.
    const ROWS: usize;

    /// The reference page.
    fn documentation() -> &'static Documentation;

    /// The statistic of codes, (n, d_z).
    fn of(config: &Config, codes: &[f32]) -> Option<f64>;
}

/// A [`LatentStatistic`] as DataFusion calls it.
pub(crate) struct LatentAggregate<K> {
    signature: Signature,
    pinned: Option<Pin>,
    statistic: PhantomData<K>,
}

impl<K: LatentStatistic> LatentAggregate<K> {
    /// The aggregate.
    pub(crate) fn new() -> Self {
        Self { signature: signature(PARAMETERS), pinned: None, statistic: PhantomData }
    }

    /// The same, computed by one version of a model.
    pub(crate) fn pinned(pin: Pin) -> Self {
        Self { pinned: Some(pin), ..Self::new() }
    }

    /// The version of the model that the aggregate holds, if planning got so far.
    pub(crate) fn pin(&self) -> Option<&Pin> {
        self.pinned.as_ref()
    }
}

impl<K: LatentStatistic> AggregateUDFImpl for LatentAggregate<K> {
    fn name(&self) -> &str {
        K::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        check_arity(K::NAME, PARAMETERS, 1, types.len())?;
        let coerce = |(i, t): (usize, &DataType)| if i == 0 { coerce_vector(t, &DataType::Float32) } else { t.clone() };
        Ok(types.iter().enumerate().map(coerce).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        check_arity(K::NAME, PARAMETERS, 1, types.len())?;
        vector_width(K::NAME, PARAMETERS[0], &types[0])?;
        Ok(DataType::Float64)
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        match self.pinned {
            Some(_) => None,
            None => Some(Box::new(pin::<K>)),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        refuse_distinct(K::NAME, &args)?;
        let Some(pin) = &self.pinned else {
            return plan_err!("{}: no model was found at planning, expected an aggregate outside a window", K::NAME);
        };
        let model = pin.model(K::NAME)?;
        let codes = Subsample::new(model.wae().config().latent_dim(), K::ROWS);
        Ok(Box::new(Codes::<K> { model, codes, statistic: PhantomData }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![list_state(args.name, "codes", DataType::Float32)])
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(K::documentation())
    }
}

/// Puts the model of a call into it.
fn pin<K: LatentStatistic>(mut call: AggregateFunction, info: &SimplifyContext) -> Result<Expr> {
    let options = WaeOptions::of(info.config_options());
    let name = match call.params.args.get(1) {
        None => default_model(K::NAME, &options)?,
        Some(Expr::Literal(value, _)) => literal_model(K::NAME, value)?,
        // It gets its value before the query runs, and the call is simplified again.
        Some(Expr::Placeholder(_)) => return Ok(Expr::AggregateFunction(call)),
        Some(other) => {
            let got = info.get_data_type(other)?;
            return plan_err!(
                "{}: model must be a string literal or a prepared parameter, got an expression of type {got}",
                K::NAME
            );
        }
    };
    let model = models::load_for_statement(K::NAME, name, &options, info)?;
    let (expected, name) = (model.wae().config().latent_dim(), model.name());
    let width = vector_width(K::NAME, PARAMETERS[0], &info.get_data_type(&call.params.args[0])?)?;
    if let Some(got) = width.filter(|width| *width != expected) {
        return plan_err!("{}: latent has {got} values, model '{name}' takes {expected}", K::NAME);
    }
    call.func = Arc::new(AggregateUDF::from(LatentAggregate::<K>::pinned(Pin::new(model, options))));
    Ok(Expr::AggregateFunction(call))
}

impl<K: LatentStatistic> Debug for LatentAggregate<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pinned = self.pinned.as_ref().map(|m| (m.name(), m.sha256()));
        f.debug_struct(K::NAME).field("pinned", &pinned).finish()
    }
}

impl<K: LatentStatistic> PartialEq for LatentAggregate<K> {
    fn eq(&self, other: &Self) -> bool {
        let version = |this: &Self| this.pinned.as_ref().map(|m| m.sha256().to_owned());
        version(self) == version(other)
    }
}

impl<K: LatentStatistic> Eq for LatentAggregate<K> {}

impl<K: LatentStatistic> Hash for LatentAggregate<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        K::NAME.hash(state);
        self.pinned.as_ref().map(|m| m.sha256()).hash(state);
    }
}

#[derive(Debug)]
struct Codes<K> {
    model: Arc<LoadedModel>,
    codes: Subsample,
    statistic: PhantomData<K>,
}

impl<K: LatentStatistic> Accumulator for Codes<K> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let model = (self.model.name(), self.model.wae().config().latent_dim());
        let vectors = Vectors::try_new(K::NAME, &values[0])?;
        for row in 0..vectors.len() {
            if let Some(code) = vectors.code(K::NAME, PARAMETERS[0], row, model)? {
                self.codes.push(&code);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(K::of(self.model.wae().config(), &self.codes.codes())))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.codes.memory()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![list_value::<Float32Type>(self.codes.codes())?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let dim = self.model.wae().config().latent_dim();
        for codes in lists::<Float32Type>(K::NAME, states, 0)? {
            codes.values().chunks_exact(dim).for_each(|code| self.codes.push(code));
        }
        Ok(())
    }
}
