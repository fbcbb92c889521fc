//! Scheduler and executor: Ballista's own, with the plugin registered.

use std::sync::Arc;

use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::utils::default_session_builder;
use ballista_executor::executor_process::ExecutorProcessConfig;
use ballista_scheduler::config::SchedulerConfig;
use datafusion::common::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_wae::distributed;

use crate::codec::{WaeLogicalCodec, WaePhysicalCodec};

/// A session as the scheduler plans it: Ballista's, with everything of the plugin registered.
///
/// # Errors
/// Those of [`datafusion_wae::register_all`].
pub fn session_state(config: SessionConfig) -> Result<SessionState> {
    let ctx = SessionContext::new_with_state(default_session_builder(config)?);
    datafusion_wae::register_all(&ctx)?;
    Ok(ctx.state())
}

/// A scheduler's configuration, with the plugin.
pub fn scheduler_config(config: SchedulerConfig) -> SchedulerConfig {
    SchedulerConfig {
        override_config_producer: Some(Arc::new(crate::session_config)),
        override_session_builder: Some(Arc::new(session_state)),
        override_logical_codec: Some(Arc::new(WaeLogicalCodec::default())),
        override_physical_codec: Some(Arc::new(WaePhysicalCodec::default())),
        ..config
    }
}

/// An executor's configuration, with the plugin.
///
/// Functions over models are left out of the registry: they come with the version of their model or not at all.
///
/// # Errors
/// Those of [`session_state`].
pub fn executor_config(config: ExecutorProcessConfig) -> Result<ExecutorProcessConfig> {
    let mut registry = BallistaFunctionRegistry::from(&session_state(crate::session_config())?);
    registry.scalar_functions.retain(|name, _| !distributed::is_over_model(name));
    registry.aggregate_functions.retain(|name, _| !distributed::is_over_model(name));
    Ok(ExecutorProcessConfig {
        override_function_registry: Some(Arc::new(registry)),
        override_config_producer: Some(Arc::new(crate::session_config)),
        override_logical_codec: Some(Arc::new(WaeLogicalCodec::default())),
        override_physical_codec: Some(Arc::new(WaePhysicalCodec::default())),
        ..config
    })
}
