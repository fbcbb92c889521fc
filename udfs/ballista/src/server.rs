//! Scheduler and executor: Ballista's own, with the plugin registered.

use std::sync::Arc;

use async_trait::async_trait;
use ballista_core::RuntimeProducer;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::utils::default_session_builder;
use ballista_executor::executor_process::ExecutorProcessConfig;
use ballista_scheduler::config::SchedulerConfig;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_wae::distributed;

use crate::codec::{WaeLogicalCodec, WaePhysicalCodec};
use crate::sort_columns::SortColumns;

/// A session as the scheduler plans it: Ballista's, with everything of the plugin registered.
///
/// # Errors
/// Those of [`datafusion_wae::register_all`].
pub fn session_state(config: SessionConfig) -> Result<SessionState> {
    let ctx = SessionContext::new_with_state(default_session_builder(config)?);
    datafusion_wae::register_all(&ctx)?;
    ctx.add_optimizer_rule(Arc::new(SortColumns));
    let id = ctx.session_id();
    let state = SessionStateBuilder::new_from_existing(ctx.state()).with_session_id(id);
    Ok(state.with_query_planner(Arc::new(PassPlanner)).build())
}

/// DataFusion's planner, which applies the plugin's rules whatever other rules the session has: Ballista's adaptive
/// planner puts its own in the place of the session's.
#[derive(Debug)]
struct PassPlanner;

#[async_trait]
impl QueryPlanner for PassPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::default();
        let Some(state) = session.as_any().downcast_ref::<SessionState>() else {
            return planner.create_physical_plan(plan, session).await;
        };
        let first = distributed::physical_rules(state.runtime_env());
        let rules = first.into_iter().chain(state.physical_optimizers().iter().cloned()).collect();
        let id = state.session_id().to_owned();
        let state = SessionStateBuilder::new_from_existing(state.clone()).with_session_id(id);
        planner.create_physical_plan(plan, &state.with_physical_optimizer_rules(rules).build()).await
    }
}

/// A scheduler's configuration, with the plugin.
pub fn scheduler_config(config: SchedulerConfig) -> SchedulerConfig {
    SchedulerConfig {
        override_config_producer: Some(Arc::new(crate::session_config)),
        override_session_builder: Some(Arc::new(scheduler_state)),
        override_logical_codec: Some(Arc::new(WaeLogicalCodec::default())),
        override_physical_codec: Some(Arc::new(WaePhysicalCodec::default())),
        ..config
    }
}

/// A session of a scheduler, whose object stores models are read from at planning: a call that came from a client names
/// its `wae.model_dir`, but holds no stores.
fn scheduler_state(config: SessionConfig) -> Result<SessionState> {
    let state = session_state(config)?;
    datafusion_wae::set_default_object_stores(Arc::clone(&state.runtime_env().object_store_registry));
    Ok(state)
}

/// An executor's configuration, with the plugin.
///
/// Functions over models are left out of the registry: they come with the version of their model or not at all. Where
/// `config` has a producer of RuntimeEnvs, models are read from its object stores too.
///
/// # Errors
/// Those of [`session_state`].
pub fn executor_config(config: ExecutorProcessConfig) -> Result<ExecutorProcessConfig> {
    let mut registry = BallistaFunctionRegistry::from(&session_state(crate::session_config())?);
    registry.scalar_functions.retain(|name, _| !distributed::is_over_model(name));
    registry.aggregate_functions.retain(|name, _| !distributed::is_over_model(name));
    Ok(ExecutorProcessConfig {
        override_runtime_producer: config.override_runtime_producer.map(reading_models),
        override_function_registry: Some(Arc::new(registry)),
        override_config_producer: Some(Arc::new(crate::session_config)),
        override_logical_codec: Some(Arc::new(WaeLogicalCodec::default())),
        override_physical_codec: Some(Arc::new(WaePhysicalCodec::default())),
        ..config
    })
}

/// A producer of a host's own RuntimeEnv, whose object stores models are read from, as a scheduler's are.
fn reading_models(producer: RuntimeProducer) -> RuntimeProducer {
    Arc::new(move |config| {
        let runtime = producer(config)?;
        datafusion_wae::set_default_object_stores(Arc::clone(&runtime.object_store_registry));
        Ok(runtime)
    })
}
