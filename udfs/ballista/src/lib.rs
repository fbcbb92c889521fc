//! The functions of [`datafusion_wae`] on a [Ballista](https://datafusion.apache.org/ballista) cluster.
//!
//! A scheduler (`wae-scheduler`) takes queries and deals their tasks to executors (`wae-executor`). A client is a
//! DataFusion context that sends its queries there:
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> datafusion::error::Result<()> {
//! let ctx = datafusion_wae_ballista::remote("df://10.0.0.1:50050").await?;
//! ctx.sql("SET wae.model_dir = '/shared/models'").await?;
//! ctx.sql("SELECT path FROM '/shared/new.parquet' WHERE wae_is_outlier(image, 0.01, 'fashion')").await?.show().await?;
//! # Ok(())
//! # }
//! ```
//!
//! | what | where it runs |
//! |---|---|
//! | scalar functions, aggregates, window functions | on the executors |
//! | `wae_train`, `wae_calibrate` | in the client; their source on the executors, whose rows stream to the client |
//! | `wae_sample`, `wae_models`, `wae_history`, `wae_drop`, `wae_rename`, `read_images`, tables in memory | in the client, in a query of their own |
//!
//! Models are files in `wae.model_dir`, a folder that client, scheduler and executors see under one path, or a URL of an object
//! store that each has registered. The client's
//! planning pins a query to a model's content; an executor that finds another content under the name refuses it. The
//! options `wae.*` of the client's session travel with each query.
//!
//! [`scheduler_config`] and [`executor_config`] are for programs that start Ballista themselves.

mod client;
mod codec;
mod place;
mod planned_schema;
mod server;
mod sort_columns;

use std::sync::Arc;

use ballista_core::extension::SessionConfigExt;
use datafusion::prelude::SessionConfig;
use datafusion_wae::WaeOptions;

pub use crate::client::{RemotePlanner, remote, remote_with_config};
pub use crate::codec::{WaeLogicalCodec, WaePhysicalCodec};
pub use crate::planned_schema::PlannedSchemaExec;
pub use crate::server::{executor_config, scheduler_config, session_state};

/// The configuration that every side starts from: Ballista's, the options `wae.*` and the codecs.
pub fn session_config() -> SessionConfig {
    SessionConfig::new_with_ballista()
        .with_option_extension(WaeOptions::default())
        .with_ballista_logical_extension_codec(Arc::new(WaeLogicalCodec::default()))
        .with_ballista_physical_extension_codec(Arc::new(WaePhysicalCodec::default()))
}
