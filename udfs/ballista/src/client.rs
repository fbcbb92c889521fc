//! The client: a context whose queries run on a cluster.

use std::sync::Arc;

use async_trait::async_trait;
use ballista_core::extension::{SessionConfigExt, SessionStateExt};
use ballista_core::planner::BallistaQueryPlanner;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use datafusion::catalog::Session;
use datafusion::common::{Result, config_datafusion_err, config_err, exec_datafusion_err};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_proto::protobuf::LogicalPlanNode;
use url::Url;

use crate::place::Place;
use crate::planned_schema::PlannedSchemaExec;

/// The scheduler's port where a URL has none.
pub(crate) const SCHEDULER_PORT: u16 = 50050;

/// A context whose queries run on the cluster of a scheduler, such as `df://10.0.0.1:50050`, with everything of the
/// plugin registered, and in which a file can be named in FROM by its path.
///
/// # Errors
/// A configuration error for a URL without a host; an execution error if there is no scheduler; those of
/// [`datafusion_wae::register_all`].
pub async fn remote(url: &str) -> Result<SessionContext> {
    remote_with_config(url, crate::session_config()).await
}

/// The same under another configuration, made from [`session_config`](crate::session_config).
///
/// # Errors
/// Those of [`remote`].
pub async fn remote_with_config(url: &str, config: SessionConfig) -> Result<SessionContext> {
    let endpoint = endpoint(url)?;
    SchedulerGrpcClient::connect(endpoint.clone())
        .await
        .map_err(|e| exec_datafusion_err!("remote: no scheduler answers at '{url}': {e}"))?;
    let config = config.with_ballista_query_planner(Arc::new(RemotePlanner::new(endpoint.clone())));
    let state = SessionStateBuilder::new().with_default_features().with_config(config).build();
    let state: SessionState = state.upgrade_for_ballista(endpoint)?;
    let ctx = SessionContext::new_with_state(state).enable_url_table();
    // After the upgrade, which puts Ballista's functions in the place of those that are there.
    datafusion_wae::register_all(&ctx)?;
    Ok(ctx)
}

/// The address that gRPC connects to.
fn endpoint(url: &str) -> Result<String> {
    let parsed = Url::parse(url).map_err(|e| {
        config_datafusion_err!("remote: '{url}' is no URL of a scheduler, such as df://10.0.0.1:50050: {e}")
    })?;
    match parsed.host() {
        Some(host) => Ok(format!("http://{host}:{}", parsed.port().unwrap_or(SCHEDULER_PORT))),
        None => config_err!("remote: '{url}' has no host, expected a scheduler's URL, such as df://10.0.0.1:50050"),
    }
}

/// Sends queries to the cluster, but for those whose tables only the client has.
///
/// A training is one of the latter, with a source that is planned by this planner again: the cluster runs the source,
/// and its rows stream into the training in the client.
#[derive(Debug)]
pub struct RemotePlanner {
    endpoint: String,
}

impl RemotePlanner {
    /// Sends to the scheduler at an address, such as `http://10.0.0.1:50050`.
    pub fn new(endpoint: String) -> Self {
        Self { endpoint }
    }
}

#[async_trait]
impl QueryPlanner for RemotePlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        if Place::of(plan)? == Place::Client {
            return DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await;
        }
        let config = session.config();
        let planner = BallistaQueryPlanner::<LogicalPlanNode>::with_extension(
            self.endpoint.clone(),
            config.ballista_config(),
            config.ballista_logical_extension_codec(),
        );
        let remote = planner.create_physical_plan(plan, session).await?;
        Ok(Arc::new(PlannedSchemaExec::new(remote)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_schedulers() {
        assert_eq!(endpoint("df://10.0.0.1:1234").unwrap(), "http://10.0.0.1:1234");
        assert_eq!(endpoint("df://scheduler").unwrap(), "http://scheduler:50050");
        for (url, message) in [("10.0.0.1:50050", "is no URL of a scheduler"), ("df:scheduler", "has no host")] {
            let error = endpoint(url).unwrap_err().strip_backtrace();
            assert!(error.contains(message), "{error}");
        }
    }
}
