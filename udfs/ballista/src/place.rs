//! Where a query runs: on the cluster, or in the client.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, plan_err};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::LogicalPlan;
use datafusion_wae::distributed;

/// Where a query runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the cluster, which reads its tables.
    Cluster,
    /// In the client: its tables are in the client's memory, or computed by it.
    Client,
}

impl Place {
    /// The place of a query, by the tables that it reads, those of subqueries included.
    ///
    /// # Errors
    /// A plan error if it reads tables of either place.
    pub(crate) fn of(plan: &LogicalPlan) -> Result<Self> {
        let (mut client, mut cluster) = (None, None);
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                let local = distributed::is_local_table(source_as_provider(&scan.source)?.as_ref());
                (if local { &mut client } else { &mut cluster }).get_or_insert_with(|| scan.table_name.to_string());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        match (client, cluster) {
            (Some(client), Some(cluster)) => plan_err!(
                "{client} is a table of the client, which the cluster cannot read beside {cluster}, expected a query of its \
                 own, or its rows in a file that every node reads (COPY ... TO)"
            ),
            (Some(_), None) => Ok(Self::Client),
            (None, _) => Ok(Self::Cluster),
        }
    }
}
