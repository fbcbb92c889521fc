//! Rewrites a plan from its root: each node is asked for passes, and answers with columns.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, Join, LogicalPlan, Projection, Union, WriteOp};

use super::below::{by_position, is_over, survives};
use super::call::{self, COLUMN, PassCall};
use super::demand::{Demand, Wanted, taken_below};
use super::need::Need;

/// The state of one rewriting.
#[derive(Debug)]
pub(super) struct Rewriter {
    /// The number of the next column.
    next: usize,
}

/// A rewritten node, and for each demand on it the column that answers it.
type Answer = (LogicalPlan, Vec<Option<Column>>);

impl Rewriter {
    /// Names columns with numbers that no pass of the plan has.
    pub(super) fn new(plan: &LogicalPlan) -> Self {
        Self { next: call::next_column(plan) }
    }

    /// Rewrites a plan whose columns must stay as they are.
    pub(super) fn root(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let schema = Arc::clone(plan.schema());
        let (plan, _) = self.rewrite(plan, &[])?;
        if plan.schema().fields().len() == schema.fields().len() {
            return Ok(plan);
        }
        project(plan, schema.columns().into_iter().map(Expr::Column).collect())
    }

    fn rewrite(&mut self, plan: LogicalPlan, demands: &[Demand]) -> Result<Answer> {
        // DataFusion does not run the plan below an UPDATE, a DELETE or a MERGE: it reads expressions and conditions
        // off it and hands them to the table, which has no column of a pass.
        if matches!(&plan, LogicalPlan::Dml(node) if !matches!(node.op, WriteOp::Insert(_) | WriteOp::Ctas)) {
            return Ok((plan, vec![None; demands.len()]));
        }
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
            scan.filters.retain(|f| !conditions.contains(f) || PassCall::all(f).is_empty());
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
        // Adds to the side that has the image, if one has.
        let mut add = |demand: &Demand, own: bool| {
            let image = &demand.key.image;
            let of_left = is_over(image, join.left.schema());
            let (side, wanted) = if of_left { (&join.left, &mut left) } else { (&join.right, &mut right) };
            let here = demand.on(|expr| is_over(expr, side.schema()).then(|| expr.clone()))?;
            Some((of_left, wanted.add(here, own, side)))
        };
        for PassCall { key, outputs, function, .. } in join.filter.iter().flat_map(PassCall::all) {
            // Without equal keys every pair of rows meets the filter, and a pass a row is cheaper than one a pair.
            add(&Demand { key, outputs, need: Need::Always, function }, join.on.is_empty());
        }
        let passes_through = |demand: &&Demand| {
            let image = &demand.key.image;
            survives(join.join_type, is_over(image, join.left.schema()), image)
        };
        let places: Vec<_> =
            demands.iter().map(|demand| Some(demand).filter(passes_through).and_then(|d| add(d, false))).collect();
        let inputs = [self.side(&join.left, &mut left)?, self.side(&join.right, &mut right)?];
        let column = |place: Option<(bool, usize)>| {
            place.and_then(|(of_left, i)| if of_left { &left } else { &right }.0[i].column.clone())
        };
        let columns = places.into_iter().map(column).collect();
        let on = join.on.into_iter().map(|(l, r)| Ok((left.replace(l)?, right.replace(r)?)));
        let on = on.collect::<Result<Vec<_>>>()?;
        let filter = join.filter.map(|f| right.replace(left.replace(f)?)).transpose()?;
        let inputs = inputs.map(Arc::new);
        let [l, r] = inputs;
        let Join { join_type, join_constraint, null_equality, null_aware, .. } = join;
        let join = Join::try_new(l, r, on, filter, join_type, join_constraint, null_equality, null_aware)?;
        Ok((LogicalPlan::Join(join), columns))
    }

    /// Rewrites a join's side, or a union's input, and computes what is missing there.
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
        let inputs = union.inputs.iter().map(|input| Ok(Arc::new(self.union_input(&union.schema, input, &carried)?)));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
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

    /// An input of a union with the passes after its own columns, since a union goes by position.
    fn union_input(
        &mut self,
        schema: &DFSchema,
        input: &LogicalPlan,
        carried: &[(usize, Demand, String)],
    ) -> Result<LogicalPlan> {
        let mut exprs: Vec<_> = input.schema().columns().into_iter().map(Expr::Column).collect();
        let mut wanted = Wanted::default();
        let add = |(_, demand, name): &(usize, Demand, String)| {
            let here = demand.on(|expr| by_position(expr, schema, input.schema()))?;
            Some((wanted.add(here, true, input), name.clone()))
        };
        let places: Vec<_> = carried.iter().filter_map(add).collect();
        let input = self.side(input, &mut wanted)?;
        exprs.extend(places.into_iter().filter_map(|(i, name)| {
            let column = wanted.0[i].column.clone()?;
            Some(Expr::Column(column).alias(name))
        }));
        project(input, exprs)
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
            let wave = ready(&missing, wanted)?;
            missing.retain(|i| wave.iter().all(|(done, _)| done != i));
            let mut exprs: Vec<_> = plan.schema().columns().into_iter().map(Expr::Column).collect();
            for (i, need) in wave {
                let name = self.name();
                let asked = &mut wanted.0[i];
                let Demand { key, outputs, function, .. } = &asked.demand;
                exprs.push(call::pass(key, *outputs, function, need)?.alias(name.clone()));
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

/// Those of the missing passes whose conditions can be computed now, with the conditions.
fn ready(missing: &[usize], wanted: &Wanted) -> Result<Vec<(usize, Need)>> {
    let mut ready = Vec::new();
    for &i in missing {
        match wanted.0[i].demand.need.clone() {
            Need::When(condition) => {
                let condition = wanted.replace(condition)?;
                if wanted.missing_in(&condition).is_empty() {
                    ready.push((i, Need::When(condition)));
                }
            }
            need => ready.push((i, need)),
        }
    }
    if ready.is_empty() {
        // Their conditions wait for each other.
        return Ok(missing.iter().map(|i| (*i, Need::Always)).collect());
    }
    Ok(ready)
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
