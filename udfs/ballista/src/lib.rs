#![doc = include_str!("../README.md")]
//!
//! # For programs of your own
//! [`remote`] makes a client.
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
