//! The window functions, a file each.

mod wae_fdr;

use datafusion::logical_expr::WindowUDF;

/// The window functions.
pub(crate) fn all() -> Vec<WindowUDF> {
    vec![wae_fdr::wae_fdr_udwf()]
}
