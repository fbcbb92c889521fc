//! Runs statements on a cluster and prints what they give.
//!
//! ```sh
//! cargo run -p datafusion-wae-ballista --example client -- df://127.0.0.1:50050 "SET wae.model_dir = '/shared/models'" \
//!     "SELECT name, latent_dim FROM wae_models()"
//! ```

use datafusion::common::Result;
use datafusion_wae_ballista::remote;

/// Bytes of a thread's stack: planners walk plans by recursion, which takes room in unoptimised builds.
const STACK: usize = 32 << 20;

async fn run(arguments: Vec<String>) -> Result<()> {
    let [url, statements @ ..] = arguments.as_slice() else {
        eprintln!("a scheduler's URL and statements expected, such as df://127.0.0.1:50050 \"SELECT 1\"");
        return Ok(());
    };
    let ctx = remote(url).await?;
    for sql in statements {
        ctx.sql(sql).await?.show().await?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build()?;
    let task = runtime.spawn(run(std::env::args().skip(1).collect()));
    runtime.block_on(task).map_err(|e| datafusion::common::exec_datafusion_err!("{e}"))?
}
