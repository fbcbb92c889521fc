//! One pass through the network a row: the optimiser's rule.
//!
//! DataFusion computes an expression once a node. A query such as
//!
//! ```sql
//! SELECT wae_encode(image) FROM t WHERE label < 3 AND wae_reconstruction_cost(image) > 20
//! ```
//!
//! would run the network in its filter, and for the rows that pass again in its projection. The rule computes a pass
//! (`crate::pass`) into a column, right below the lowest node that needs it, with the outputs of all calls above that
//! can take it from there, and the calls take their results from the column:
//!
//! ```text
//! Projection: wae_encode(__wae_pass_1)
//!   Filter: wae_reconstruction_cost(__wae_pass_1) > 20
//!     Projection: wae_pass(image, 'm', 'latent,cost', ..) AS __wae_pass_1
//!       Filter: label < 3
//!         TableScan: t
//! ```
//!
//! - A filter is split: conditions that need no pass come before it, and a pass before the conditions that need it.
//! - Where AND, OR, CASE or an aggregate's FILTER leaves rows out, the pass is computed under that condition
//!   ([`need`]).
//! - The column goes up through projections, filters, sorts, limits, windows, aliases, unions whose inputs all have it,
//!   joins from either side, and aggregations grouped by the image.
//!
//! The rewritten plan has DataFusion's own nodes and functions known by name only, so that it computes the same wherever
//! they are registered. `wae_pass` is volatile, since DataFusion moves filters below a projection whose expressions are
//! not, and copies the expressions into them. Where it joins a projection with the one above, the rule, which runs last
//! in each round of the optimiser, takes the pass out again. The second rule, of physical plans, makes a [`WaePassExec`]
//! of the projection.

mod below;
mod call;
mod demand;
mod exec;
mod need;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Aggregate, Expr, Filter, Join, LogicalPlan, Projection, Union};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::prelude::SessionContext;

use self::below::{by_position, is_over, survives};
use self::call::{COLUMN, Call};
use self::demand::{Demand, Wanted, taken_below};
pub use self::exec::WaePassExec;
use self::exec::WaePassPlanner;
use self::need::Need;

/// Adds the rules to a context, once.
pub(crate) fn register(ctx: &SessionContext) {
    let state = ctx.state_ref();
    let mut state = state.write();
    let mut builder = SessionStateBuilder::new_from_existing(state.clone());
    // A state keeps its id; the builder would give it another.
    builder = builder.with_session_id(state.session_id().to_owned());
    if !state.optimizers().iter().any(|rule| rule.name() == SharePasses.name()) {
        builder = builder.with_optimizer_rule(Arc::new(SharePasses));
    }
    let rules = state.physical_optimizers();
    if !rules.iter().any(|rule| rule.name() == WaePassPlanner.name()) {
        // First, before filters move below projections.
        let first: Arc<dyn PhysicalOptimizerRule + Send + Sync> = Arc::new(WaePassPlanner);
        builder = builder.with_physical_optimizer_rules([first].into_iter().chain(rules.iter().cloned()).collect());
    }
    *state = builder.build();
}

/// The rule of logical plans.
#[derive(Debug)]
struct SharePasses;

impl OptimizerRule for SharePasses {
    fn name(&self) -> &str {
        "wae_share_passes"
    }

    fn rewrite(&self, mut plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mut calls = call::count(&plan);
        if calls == 0 {
            return Ok(Transformed::no(plan));
        }
        // A call on the result of another becomes a pass in the next round.
        loop {
            plan = Rewriter { next: next_column(&plan) }.root(plan)?;
            let left = call::count(&plan);
            if left == 0 || left >= calls {
                return Ok(Transformed::yes(plan));
            }
            calls = left;
        }
    }
}

/// The first number that no column of a plan's passes has.
fn next_column(plan: &LogicalPlan) -> usize {
    let own = plan.schema().fields().iter().filter_map(|f| f.name().strip_prefix(COLUMN)?.parse::<usize>().ok());
    let next = own.max().map_or(1, |n| n + 1);
    plan.inputs().into_iter().map(next_column).fold(next, usize::max)
}

/// Rewrites a plan from its root; each node is asked for passes, and answers with columns.
struct Rewriter {
    next: usize,
}

type Answer = (LogicalPlan, Vec<Option<Column>>);

impl Rewriter {
    /// Rewrites a plan whose columns must stay as they are.
    fn root(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let schema = Arc::clone(plan.schema());
        let (plan, _) = self.rewrite(plan, &[])?;
        if plan.schema().fields().len() == schema.fields().len() {
            return Ok(plan);
        }
        project(plan, schema.columns().into_iter().map(Expr::Column).collect())
    }

    fn rewrite(&mut self, plan: LogicalPlan, demands: &[Demand]) -> Result<Answer> {
        let plan = plan.map_uncorrelated_subqueries(|subquery| Ok(Transformed::yes(self.root(subquery)?)))?.data;
        match plan {
            LogicalPlan::Filter(node) => self.filter(node, demands),
            LogicalPlan::Join(node) => self.join(node, demands),
            LogicalPlan::Union(node) => self.union(node, demands),
            LogicalPlan::Aggregate(node) if matches!(node.group_expr.as_slice(), [Expr::GroupingSet(_)]) => {
                self.opaque(LogicalPlan::Aggregate(node), demands)
            }
            LogicalPlan::Projection(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Repartition(_)
            | LogicalPlan::SubqueryAlias(_) => self.unary(plan, demands),
            other => self.opaque(other, demands),
        }
    }

    /// A node that is left as it is, and that no column goes through.
    fn opaque(&mut self, plan: LogicalPlan, demands: &[Demand]) -> Result<Answer> {
        let plan = plan.map_children(|input| Ok(Transformed::yes(self.root(input)?)))?.data;
        Ok((plan, vec![None; demands.len()]))
    }

    fn unary(&mut self, plan: LogicalPlan, demands: &[Demand]) -> Result<Answer> {
        let input = plan.inputs()[0].clone();
        let exprs = plan.expressions();
        let own: Vec<_> = exprs.iter().filter(|e| !call::is_definition(e)).cloned().collect();
        let mut wanted = Wanted::by(&own, &input);
        let places = wanted.add_from_above(demands, &plan);
        let input = self.feed(input, &mut wanted)?;
        let missing = wanted.missing();
        let input = self.compute(input, &mut wanted, missing)?;
        let names = NamePreserver::new_for_projection();
        let named = matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_));
        let rename = |expr: Expr| match call::is_definition(&expr) {
            true => Ok(expr),
            false if named => Ok(names.save(&expr).restore(wanted.replace(expr)?)),
            false => wanted.replace(expr),
        };
        let exprs = exprs.into_iter().map(rename).collect::<Result<Vec<_>>>()?;
        let columns = columns(&places, &wanted);
        carry(plan, exprs, input, columns)
    }

    fn filter(&mut self, filter: Filter, demands: &[Demand]) -> Result<Answer> {
        let mut conditions = split_conjunction_owned(filter.predicate.clone());
        let mut wanted = Wanted::by(&conditions, &filter.input);
        let plan = LogicalPlan::Filter(filter);
        let places = wanted.add_from_above(demands, &plan);
        let input = plan.inputs()[0].clone();
        let mut plan = self.feed(input, &mut wanted)?;
        if let LogicalPlan::TableScan(scan) = &mut plan {
            // What stands in the filter too is a hint to the scan, which would compute it for its own use.
            scan.filters.retain(|f| !conditions.contains(f) || Call::all(f).is_empty());
        }
        loop {
            conditions = conditions.into_iter().map(|c| wanted.replace(c)).collect::<Result<_>>()?;
            let (ready, waiting): (Vec<_>, Vec<_>) =
                conditions.into_iter().partition(|c| wanted.missing_in(c).is_empty());
            if let Some(predicate) = conjunction(ready) {
                plan = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?);
            }
            let Some(next) = waiting.iter().map(|c| wanted.missing_in(c)).min_by_key(Vec::len) else {
                return Ok((plan, columns(&places, &wanted)));
            };
            plan = self.compute(plan, &mut wanted, next)?;
            conditions = waiting;
        }
    }

    fn join(&mut self, join: Join, demands: &[Demand]) -> Result<Answer> {
        let (lefts, rights): (Vec<_>, Vec<_>) = join.on.iter().cloned().unzip();
        let mut left = Wanted::by(&lefts, &join.left);
        let mut right = Wanted::by(&rights, &join.right);
        // Without equal keys every pair of rows meets the filter, and a pass a row is cheaper than one a pair.
        let own = join.on.is_empty();
        for call in join.filter.iter().flat_map(Call::all) {
            let (key, outputs, function) = (call.key, call.outputs, call.function);
            let demand = Demand { key, outputs, need: Need::Always, function };
            if is_over(&demand.key.image, join.left.schema()) {
                left.add(demand, own, &join.left);
            } else if is_over(&demand.key.image, join.right.schema()) {
                right.add(demand, own, &join.right);
            }
        }
        let add = |demand: &Demand| {
            let image = &demand.key.image;
            let of_left = is_over(image, join.left.schema());
            let (side, wanted) = if of_left { (&join.left, &mut left) } else { (&join.right, &mut right) };
            let goes = is_over(image, side.schema()) && survives(join.join_type, of_left, image);
            goes.then(|| (of_left, wanted.add(demand.on(image.clone()), false, side)))
        };
        let places: Vec<_> = demands.iter().map(add).collect();
        let inputs = (self.side(&join.left, &mut left)?, self.side(&join.right, &mut right)?);
        let column = |place: Option<(bool, usize)>| {
            place.and_then(|(of_left, i)| if of_left { &left } else { &right }.0[i].column.clone())
        };
        let columns = places.into_iter().map(column).collect();
        let on = join.on.into_iter().map(|(l, r)| Ok((left.replace(l)?, right.replace(r)?)));
        let on = on.collect::<Result<Vec<_>>>()?;
        let filter = join.filter.map(|f| right.replace(left.replace(f)?)).transpose()?;
        let (kind, constraint, nulls) = (join.join_type, join.join_constraint, join.null_equality);
        let (l, r) = (Arc::new(inputs.0), Arc::new(inputs.1));
        let join = Join::try_new(l, r, on, filter, kind, constraint, nulls, join.null_aware)?;
        Ok((LogicalPlan::Join(join), columns))
    }

    fn side(&mut self, input: &LogicalPlan, wanted: &mut Wanted) -> Result<LogicalPlan> {
        let input = self.feed(input.clone(), wanted)?;
        let missing = wanted.missing();
        self.compute(input, wanted, missing)
    }

    /// A column goes through a union if every input has it.
    fn union(&mut self, union: Union, demands: &[Demand]) -> Result<Answer> {
        let plan = LogicalPlan::Union(union.clone());
        let carried: Vec<_> = demands
            .iter()
            .enumerate()
            .filter_map(|(i, demand)| {
                let outputs = taken_below(&plan, &demand.key)?.union(demand.outputs);
                Some((i, Demand { outputs, ..demand.clone() }, self.name()))
            })
            .collect();
        if carried.is_empty() {
            return self.opaque(plan, demands);
        }
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let mut wanted = Wanted::default();
            let places: Vec<_> = carried
                .iter()
                .filter_map(|(_, demand, name)| {
                    let image = by_position(&demand.key.image, &union.schema, input.schema())?;
                    Some((wanted.add(demand.on(image), true, input), name.clone()))
                })
                .collect();
            let mut exprs: Vec<_> = input.schema().columns().into_iter().map(Expr::Column).collect();
            let input = self.side(input, &mut wanted)?;
            exprs.extend(places.into_iter().filter_map(|(i, name)| {
                let column = wanted.0[i].column.clone()?;
                Some(Expr::Column(column).alias(name))
            }));
            inputs.push(Arc::new(project(input, exprs)?));
        }
        let mut columns = vec![None; demands.len()];
        let mut fields: Vec<_> = union.schema.iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
        for (i, _, name) in carried {
            let column = Column::new_unqualified(name);
            let first = inputs[0].schema();
            fields.push((None, Arc::clone(&first.fields()[first.index_of_column(&column)?])));
            columns[i] = Some(column);
        }
        let schema = DFSchema::new_with_metadata(fields, union.schema.metadata().clone())?;
        Ok((LogicalPlan::Union(Union { inputs, schema: Arc::new(schema) }), columns))
    }

    /// Rewrites an input and takes the passes that it has.
    fn feed(&mut self, input: LogicalPlan, wanted: &mut Wanted) -> Result<LogicalPlan> {
        let (input, columns) = self.rewrite(input, &wanted.demands())?;
        wanted.provide(columns);
        Ok(input)
    }

    /// Computes passes over a plan, as columns beside its own. A pass whose condition takes a result of another comes
    /// after that.
    fn compute(&mut self, mut plan: LogicalPlan, wanted: &mut Wanted, mut missing: Vec<usize>) -> Result<LogicalPlan> {
        while !missing.is_empty() {
            let mut wave = Vec::new();
            for &i in &missing {
                match wanted.0[i].demand.need.clone() {
                    Need::When(condition) => {
                        let condition = wanted.replace(condition)?;
                        if wanted.missing_in(&condition).is_empty() {
                            wave.push((i, Need::When(condition)));
                        }
                    }
                    need => wave.push((i, need)),
                }
            }
            if wave.is_empty() {
                wave = missing.iter().map(|i| (*i, Need::Always)).collect();
            }
            missing.retain(|i| wave.iter().all(|(done, _)| done != i));
            let mut exprs: Vec<_> = plan.schema().columns().into_iter().map(Expr::Column).collect();
            for (i, need) in wave {
                let (name, asked) = (self.name(), &mut wanted.0[i]);
                let Demand { key, outputs, function, .. } = &asked.demand;
                exprs.push(call::pass(key, *outputs, function, need).alias(name.clone()));
                asked.column = Some(Column::new_unqualified(name));
            }
            plan = project(plan, exprs)?;
        }
        Ok(plan)
    }

    fn name(&mut self) -> String {
        self.next += 1;
        format!("{COLUMN}{}", self.next - 1)
    }
}

fn project(plan: LogicalPlan, exprs: Vec<Expr>) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?))
}

/// The columns of what is wanted from above, in the input.
fn columns(places: &[Option<usize>], wanted: &Wanted) -> Vec<Option<Column>> {
    places.iter().map(|place| place.and_then(|i| wanted.0[i].column.clone())).collect()
}

/// Puts a node together again, such that it lets columns of its input through.
fn carry(
    plan: LogicalPlan,
    mut exprs: Vec<Expr>,
    input: LogicalPlan,
    mut columns: Vec<Option<Column>>,
) -> Result<Answer> {
    let mut carried: Vec<_> = columns.iter().flatten().cloned().map(Expr::Column).collect();
    carried.dedup();
    let plan = match plan {
        LogicalPlan::Projection(_) => {
            exprs.extend(carried);
            project(input, exprs)?
        }
        LogicalPlan::Aggregate(node) => {
            // One image, one pass: the groups stay the same.
            let aggregates = exprs.split_off(node.group_expr.len());
            exprs.extend(carried);
            LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), exprs, aggregates)?)
        }
        LogicalPlan::SubqueryAlias(node) => {
            for column in columns.iter_mut().flatten() {
                column.relation = Some(node.alias.clone());
            }
            LogicalPlan::SubqueryAlias(node).with_new_exprs(exprs, vec![input])?
        }
        other => other.with_new_exprs(exprs, vec![input])?,
    };
    Ok((plan, columns))
}
