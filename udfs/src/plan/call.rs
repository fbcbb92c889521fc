//! Calls of functions over a pass, in expressions: how to find them, and what takes their place.

use std::iter;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Case, Expr, LogicalPlan, ScalarUDF, lit};

use super::need::Need;
use crate::models::pin::Pin;
use crate::options::WaeOptions;
use crate::scalar::function::KernelFunction;
use crate::scalar::image_features_pass::{self, ImageFeaturesPass};
use crate::scalar::pass::Outputs;
use crate::scalar::planned_image::PlannedImage;
use crate::scalar::wae_pass::{self, WaePass};
use crate::weights::PinnedNetwork;

/// The beginning of the names of columns of passes.
pub(super) const COLUMN: &str = "__wae_pass_";

/// The network of a pass, in one version.
#[derive(Debug, Clone)]
enum Network {
    /// A model.
    Model(Pin),
    /// A pretrained network, with the arguments that say which it is and how it computes, and the options to find it.
    Pretrained { args: Vec<Expr>, options: WaeOptions, network: PinnedNetwork },
}

impl Network {
    /// The network of a call, once planning has pinned its version; `None` of a call without an image.
    fn of(function: &KernelFunction, args: &[Expr]) -> Option<Self> {
        match function.pinned() {
            Some(pin) => (function.outputs(args) != Outputs::NONE).then(|| Self::Model(pin.clone())),
            None => {
                let args = function.pretrained(args)?.to_vec();
                let network = function.network().clone();
                Some(Self::Pretrained { args, options: function.options().clone(), network })
            }
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Model(a), Self::Model(b)) => a.sha256() == b.sha256() && a.options() == b.options(),
            (Self::Pretrained { args: a, options: x, .. }, Self::Pretrained { args: b, options: y, .. }) => {
                a == b && x == y
            }
            _ => false,
        }
    }
}

/// A pass of an image through one version of a network.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) image: Expr,
    image_type: PlannedImage,
    /// The path of the image's file, for messages.
    path: Option<Expr>,
    network: Network,
}

impl Key {
    /// The pass of the same image in another node; `there` gives an expression as it is written there. A path that has
    /// no column there is left out.
    pub(super) fn moved(&self, there: impl Fn(&Expr) -> Option<Expr>) -> Option<Self> {
        let path = self.path.as_ref().and_then(&there);
        Some(Self { image: there(&self.image)?, path, ..self.clone() })
    }

    /// Whether both go through one version of one network.
    pub(super) fn same_network(&self, other: &Self) -> bool {
        self.network.is(&other.network)
    }
}

/// A call that a pass answers.
#[derive(Debug)]
pub(super) struct PassCall {
    pub(super) key: Key,
    pub(super) outputs: Outputs,
    pub(super) function: String,
    /// When the call is computed at all, in the expression that it is.
    pub(super) need: Need,
}

impl PassCall {
    /// The call that an expression is, without those among its arguments.
    ///
    /// A pass that DataFusion moved into the expression above it is one too. Left alone are calls that no version is
    /// pinned to yet, those on literals, on volatile expressions and on the result of another call, which has to become
    /// a pass first.
    pub(super) fn find(expr: &Expr) -> Option<Self> {
        if let Some((condition, pass)) = guarded(expr) {
            return Self::find(pass).map(|call| Self { need: Need::When(condition.clone()), ..call });
        }
        Self::of(expr).filter(|call| shareable(&call.key.image))
    }

    /// The call that an expression is, whatever its image is.
    fn of(expr: &Expr) -> Option<Self> {
        let Expr::ScalarFunction(call) = expr else { return None };
        let function = call.func.inner().downcast_ref::<KernelFunction>()?;
        let network = Network::of(function, &call.args)?;
        let outputs = function.outputs(&call.args);
        let (args, path) = function.split(&call.args);
        let image = args.first()?;
        let name = match args.last() {
            Some(Expr::Literal(name, _)) if call.name() == wae_pass::NAME => name.try_as_str().flatten(),
            _ => None,
        };
        let function_name = name.unwrap_or_else(|| call.name()).to_owned();
        let image_type = function.image().clone();
        let key = Key { image: image.clone(), image_type, path: path.cloned(), network };
        Some(Self { key, outputs, function: function_name, need: Need::Always })
    }

    /// All calls in an expression.
    pub(super) fn all(expr: &Expr) -> Vec<Self> {
        let mut calls = Vec::new();
        let found = expr.apply(|expr| {
            let jump = guarded(expr).is_some();
            calls.extend(Self::find(expr));
            Ok(if jump { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Continue })
        });
        // The closure cannot fail.
        debug_assert!(found.is_ok());
        calls
    }
}

/// Whether a pass of this expression can be a column of its own.
fn shareable(image: &Expr) -> bool {
    !is_pass(image)
        && image.any_column_refs()
        && !image.is_volatile()
        && !image.contains_outer()
        && !image.exists(|e| Ok(holds_subquery(e) || PassCall::find(e).is_some())).unwrap_or(true)
}

/// Whether an expression is a call on the result of another, which becomes a pass first.
fn waits(expr: &Expr) -> bool {
    let is_call = |e: &Expr| Ok(PassCall::find(e).is_some());
    PassCall::of(expr).is_some_and(|call| call.key.image.exists(is_call).unwrap_or(false))
}

fn holds_subquery(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) | Expr::Unnest(_)
    )
}

/// Whether an expression is a column that holds passes, or a pass itself.
fn is_pass(expr: &Expr) -> bool {
    match expr {
        Expr::Column(column) => column.name.starts_with(COLUMN),
        Expr::Alias(alias) => is_pass(&alias.expr),
        other => is_pass_call(other) || guarded(other).is_some(),
    }
}

fn is_pass_call(expr: &Expr) -> bool {
    let Expr::ScalarFunction(call) = expr else { return false };
    call.func.inner().downcast_ref::<KernelFunction>().is_some_and(KernelFunction::is_pass)
}

/// The condition and the pass of a CASE with one branch and no ELSE.
fn guarded(expr: &Expr) -> Option<(&Expr, &Expr)> {
    match expr {
        Expr::Case(Case { expr: None, when_then_expr, else_expr: None }) => match when_then_expr.as_slice() {
            [(when, then)] if is_pass_call(then) => Some((when, then)),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a projection's expression is a pass in its place: computed into a column of its own.
pub(super) fn is_definition(expr: &Expr) -> bool {
    matches!(expr, Expr::Alias(alias) if alias.name.starts_with(COLUMN) && PassCall::find(&alias.expr).is_some())
}

/// The number of calls in a plan that no pass answers yet, those that wait for another included.
pub(super) fn count(plan: &LogicalPlan) -> usize {
    let mut count = 0;
    let counted = plan.apply_with_subqueries(|node| {
        // Conditions that a scan may use are copies of those in a filter.
        if !matches!(node, LogicalPlan::TableScan(_)) {
            node.apply_expressions(|expr| {
                count += if is_definition(expr) { 0 } else { PassCall::all(expr).len() };
                expr.apply(|expr| {
                    count += usize::from(waits(expr));
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(counted.is_ok());
    count
}

/// The first number that no column of a plan's passes has.
pub(super) fn next_column(plan: &LogicalPlan) -> usize {
    let own = plan.schema().fields().iter().filter_map(|f| f.name().strip_prefix(COLUMN)?.parse::<usize>().ok());
    let next = own.max().map_or(1, |n| n + 1);
    plan.inputs().into_iter().map(next_column).fold(next, usize::max)
}

/// The expression that computes a pass, where `need` says so.
///
/// # Errors
/// Those of reading the weights of a pretrained network, if the call does not hold it.
pub(super) fn pass(key: &Key, outputs: Outputs, function: &str, need: Need) -> Result<Expr> {
    let (udf, network) = match &key.network {
        Network::Model(pin) => {
            let udf = KernelFunction::new(&WaePass, pin.options()).pin(pin.clone());
            (udf, vec![lit(pin.name()), lit(outputs.names()), lit(function)])
        }
        Network::Pretrained { args, options, network } => {
            let udf = KernelFunction::new(&ImageFeaturesPass, options).with_network(network.clone());
            (udf, image_features_pass::arguments(args, options, network)?)
        }
    };
    let udf = udf.of_image(key.image_type.clone(), key.path.is_some());
    let args = iter::once(key.image.clone()).chain(network).chain(key.path.clone()).collect();
    let call = Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(udf)), args));
    Ok(match need {
        Need::When(condition) => Expr::Case(Case::new(None, vec![(Box::new(condition), Box::new(call))], None)),
        Need::Always | Need::Never => call,
    })
}

/// A call with a column of passes in place of its image, and of the path of its file.
fn over_pass(call: ScalarFunction, column: Column) -> ScalarFunction {
    let Some(function) = call.func.inner().downcast_ref::<KernelFunction>() else { return call };
    let mut args = function.split(&call.args).0.to_vec();
    if let Some(image) = args.first_mut() {
        *image = Expr::Column(column);
    }
    let function = function.of_image(PlannedImage::Planned(None), false);
    ScalarFunction::new_udf(Arc::new(ScalarUDF::from(function)), args)
}

/// Puts columns of passes in place of the images that calls take; `column` gives the one of a pass, if there is one.
pub(super) fn replace(expr: Expr, column: &dyn Fn(&Key) -> Option<Column>) -> Result<Expr> {
    let replaced = expr.transform_down(|expr| {
        let Some(column) = PassCall::find(&expr).and_then(|call| column(&call.key)) else {
            return Ok(Transformed::no(expr));
        };
        Ok(Transformed::yes(match expr {
            expr if is_pass(&expr) => Expr::Column(column),
            Expr::ScalarFunction(call) => Expr::ScalarFunction(over_pass(call, column)),
            other => other,
        }))
    })?;
    Ok(replaced.data)
}
