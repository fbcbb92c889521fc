//! The passes that nodes of a plan ask of their inputs.

use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::below::{below, by_position, canonical, is_over, survives};
use super::call::{self, Key, PassCall};
use super::need::{Need, need};
use crate::scalar::pass::Outputs;

/// A pass that a node would take if its input had it.
#[derive(Debug, Clone)]
pub(super) struct Demand {
    pub(super) key: Key,
    pub(super) outputs: Outputs,
    pub(super) need: Need,
    /// The function that messages name.
    pub(super) function: String,
}

impl Demand {
    /// The same demand on the input of a node with one input.
    pub(super) fn below(&self, plan: &LogicalPlan) -> Option<Self> {
        let key = self.key.moved(|expr| below(plan, expr))?;
        let need = match &self.need {
            Need::When(condition) => below(plan, condition).map_or(Need::Always, Need::When),
            need => need.clone(),
        };
        Some(Self { key, need, ..self.clone() })
    }

    /// The same demand on a side of a join, or an input of a union, in all rows; `there` gives an expression as it is
    /// written there.
    pub(super) fn on(&self, there: impl Fn(&Expr) -> Option<Expr>) -> Option<Self> {
        Some(Self { key: self.key.moved(there)?, need: Need::Always, ..self.clone() })
    }
}

/// A pass that is wanted of a node's input, by the node itself or from above.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) demand: Demand,
    /// The ways in which the node writes the image.
    images: Vec<Expr>,
    /// Whether the node needs it, so that it is computed here unless it was below.
    own: bool,
    pub(super) column: Option<Column>,
}

/// All that is wanted of a node's input, each pass once.
#[derive(Debug, Default)]
pub(super) struct Wanted(pub(super) Vec<Asked>);

impl Wanted {
    /// The passes that a node's own expressions ask of its input.
    pub(super) fn by(exprs: &[Expr], input: &LogicalPlan) -> Self {
        let mut wanted = Self::default();
        for PassCall { key, outputs, function, .. } in exprs.iter().flat_map(PassCall::all) {
            wanted.add(Demand { key, outputs, need: Need::Never, function }, true, input);
        }
        for asked in &mut wanted.0 {
            let of_call = |expr: &Expr| PassCall::find(expr).filter(|call| asked.is(&call.key)).map(|call| call.need);
            let calls: Vec<_> = exprs.iter().flat_map(PassCall::all).filter(|call| asked.is(&call.key)).collect();
            // The condition of a pass that an earlier round of the optimiser put here says it all.
            asked.demand.need = match calls.iter().all(|call| matches!(call.need, Need::When(_))) {
                true => calls.into_iter().fold(Need::Never, |all, call| all.or(call.need)),
                false => exprs.iter().fold(Need::Never, |all, expr| all.or(need(expr, &of_call))),
            };
        }
        wanted
    }

    /// Adds a demand, to one of the same pass if there is one; gives its position.
    pub(super) fn add(&mut self, demand: Demand, own: bool, input: &LogicalPlan) -> usize {
        let image = canonical(&demand.key.image, input);
        let same = |a: &Asked| a.demand.key.same_network(&demand.key) && canonical(&a.demand.key.image, input) == image;
        match self.0.iter().position(same) {
            Some(i) => {
                let asked = &mut self.0[i];
                asked.demand.outputs = asked.demand.outputs.union(demand.outputs);
                asked.demand.need = std::mem::replace(&mut asked.demand.need, Need::Never).or(demand.need);
                asked.own |= own;
                asked.images.push(demand.key.image);
                i
            }
            None => {
                let images = vec![demand.key.image.clone()];
                self.0.push(Asked { demand, images, own, column: None });
                self.0.len() - 1
            }
        }
    }

    /// Adds what is wanted from above a node with one input; gives the positions of those that can be.
    pub(super) fn add_from_above(&mut self, demands: &[Demand], plan: &LogicalPlan) -> Vec<Option<usize>> {
        let inputs = plan.inputs();
        let add = |demand: &Demand| Some(self.add(demand.below(plan)?, false, inputs.first()?));
        demands.iter().map(add).collect()
    }

    pub(super) fn demands(&self) -> Vec<Demand> {
        self.0.iter().map(|asked| asked.demand.clone()).collect()
    }

    /// Takes the columns in which the input has passes.
    pub(super) fn provide(&mut self, columns: Vec<Option<Column>>) {
        for (asked, column) in self.0.iter_mut().zip(columns) {
            asked.column = column;
        }
    }

    /// Those that have to be computed here and are not yet.
    pub(super) fn missing(&self) -> Vec<usize> {
        (0..self.0.len()).filter(|i| self.0[*i].own && self.0[*i].column.is_none()).collect()
    }

    /// Those missing that an expression calls.
    pub(super) fn missing_in(&self, expr: &Expr) -> Vec<usize> {
        let calls = PassCall::all(expr);
        let called = |i: &usize| calls.iter().any(|call| self.0[*i].is(&call.key));
        self.missing().into_iter().filter(called).collect()
    }

    /// Puts the columns in place of the calls that they answer.
    pub(super) fn replace(&self, expr: Expr) -> Result<Expr> {
        call::replace(expr, &|key| self.0.iter().find(|asked| asked.is(key))?.column.clone())
    }
}

impl Asked {
    fn is(&self, key: &Key) -> bool {
        self.demand.key.same_network(key) && self.images.contains(&key.image)
    }
}

/// The outputs that the calls of a pass take somewhere below a plan's output, if there is one whose pass a column can
/// carry up to it.
pub(super) fn taken_below(plan: &LogicalPlan, key: &Key) -> Option<Outputs> {
    let union = |a: Option<Outputs>, b: Option<Outputs>| a.into_iter().chain(b).reduce(Outputs::union);
    match plan {
        LogicalPlan::Union(node) => node.inputs.iter().try_fold(Outputs::NONE, |all, input| {
            let key = key.moved(|expr| by_position(expr, &node.schema, input.schema()))?;
            Some(all.union(taken_below(input, &key)?))
        }),
        LogicalPlan::Join(node) => {
            let left = is_over(&key.image, node.left.schema());
            let side = if left { &node.left } else { &node.right };
            if !is_over(&key.image, side.schema()) || !survives(node.join_type, left, &key.image) {
                return None;
            }
            let exprs = node.on.iter().map(|(l, r)| if left { l } else { r }).chain(&node.filter);
            let image = canonical(&key.image, side);
            let same = |call: &PassCall| call.key.same_network(key) && canonical(&call.key.image, side) == image;
            let own = exprs.flat_map(PassCall::all).filter(same).map(|call| call.outputs);
            union(own.reduce(Outputs::union), taken_below(side, key))
        }
        other => {
            let lower = key.moved(|expr| below(other, expr))?;
            let inputs = other.inputs();
            let input = inputs.first()?;
            let lowest = canonical(&lower.image, input);
            let same = |call: &PassCall| call.key.same_network(key) && canonical(&call.key.image, input) == lowest;
            let exprs = other.expressions();
            let own = exprs.iter().filter(|e| !call::is_definition(e)).flat_map(PassCall::all).filter(same);
            union(own.map(|call| call.outputs).reduce(Outputs::union), taken_below(input, &lower))
        }
    }
}
