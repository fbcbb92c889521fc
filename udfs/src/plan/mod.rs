//! One pass through the network a row: the optimiser's rule.
//!
//! DataFusion computes an expression once a node. A query such as
//!
//! ```sql
//! SELECT wae_encode(image) FROM t WHERE label < 3 AND wae_reconstruction_cost(image) > 20
//! ```
//!
//! would run the network in its filter, and for the rows that pass again in its projection. The rule computes a pass
//! (`crate::scalar::pass`) into a column, right below the lowest node that needs it, with the outputs of all calls
//! above that can take it from there, and the calls take their results from the column:
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
//!   and joins from either side. It does not go through an aggregation: as a key of its groups it would split a group
//!   of equal images, which may differ in their last bits on a GPU, where they stand in different batches. Above GROUP
//!   BY, a pass is computed for each group.
//!
//! Calls of `image_features` with the same image, weights, layer and size share a pass in the same way, by
//! `image_features_pass`. A model of features takes them from there, in a pass of its own above.
//!
//! The rewritten plan has DataFusion's own nodes and functions, and these two, which are not registered: no query calls
//! them. They are volatile, since DataFusion moves filters below a projection whose expressions are not, and copies the
//! expressions into them. Where it joins a projection with the one above, the rule, which runs last in each round of the
//! optimiser, takes the pass out again. The second rule, of physical plans, makes a [`WaePassExec`] of the projection; without it the projection
//! computes the same, but a filter may move below, and nothing is counted.
//!
//! # What does a call know of its image?
//! Before the optimiser, a rule of the analyser ([`images`]) finds the tensor type of each image and the column that
//! names its file, so that neither depends on what the optimiser moves where. A rule of physical plans ([`files`])
//! compares what the files of a scan say of their images.
//!
//! # Why do DataFusion's own rules not do this?
//! Its common subexpressions are those of one node, and equal expressions: a filter and the projection above it are two
//! nodes, and `wae_encode(image)` and `wae_p_value(image)` are two expressions with one pass inside. Its extraction of
//! leaf expressions moves expressions that are cheap, such as the field of a struct, down to where data is read: it
//! would move a pass below the filters that leave rows out.
//!
//! # Other nodes
//! A plan that is sent to another node computes the same there: [`crate::distributed`] makes both from their names, calls
//! carry the version of their model, and a codec of physical plans can make a [`WaePassExec`] again from its
//! passes.

mod below;
mod call;
mod demand;
mod evaluation;
mod exec;
mod files;
mod images;
mod lineage;
mod need;
mod origins;
mod outputs;
mod rewriter;
mod slices;
mod unnest;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{AnalyzerRule, OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::prelude::SessionContext;

pub use self::exec::WaePassExec;
use self::exec::WaePassPlanner;
use self::files::FileLayouts;
use self::images::ImageArguments;
pub(crate) use self::images::{path_beside, planned_image};
use self::rewriter::Rewriter;

/// Adds the rules to a context, once.
pub(crate) fn register(ctx: &SessionContext) {
    if !ctx.state().analyzer().rules.iter().any(|rule| rule.name() == ImageArguments.name()) {
        ctx.add_analyzer_rule(Arc::new(ImageArguments));
    }
    if !ctx.state().optimizers().iter().any(|rule| rule.name() == SharePasses.name()) {
        ctx.add_optimizer_rule(Arc::new(SharePasses));
    }
    let state = ctx.state_ref();
    let mut state = state.write();
    let rules = state.physical_optimizers();
    if !rules.iter().any(|rule| rule.name() == WaePassPlanner.name()) {
        let rules = physical_rules(state.runtime_env()).into_iter().chain(rules.iter().cloned()).collect();
        let builder = SessionStateBuilder::new_from_existing(state.clone());
        // A state keeps its id; the builder would give it another.
        let builder = builder.with_session_id(state.session_id().to_owned()).with_physical_optimizer_rules(rules);
        *state = builder.build();
    }
}

/// The rules of physical plans, which come first: before filters move below projections, and into scans.
pub(crate) fn physical_rules(runtime: &Arc<RuntimeEnv>) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    vec![Arc::new(FileLayouts::new(Arc::clone(runtime))), Arc::new(WaePassPlanner)]
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
            plan = Rewriter::new(&plan).root(plan)?;
            let left = call::count(&plan);
            if left == 0 || left >= calls {
                return Ok(Transformed::yes(plan));
            }
            calls = left;
        }
    }
}
