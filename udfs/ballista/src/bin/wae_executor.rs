//! `wae-executor`: runs tasks of queries that a scheduler deals.

use std::error::Error;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use clap::Parser;
use datafusion_wae_ballista::executor_config;
use tokio::runtime::Builder;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of a thread's stack: plans are walked by recursion.
const STACK: usize = 32 << 20;

/// Runs tasks of queries that a scheduler deals. It logs to standard error (RUST_LOG, "info" by default).
#[derive(Debug, Parser)]
#[command(name = "wae-executor", version)]
struct Arguments {
    /// The scheduler's host.
    #[arg(long, default_value = "127.0.0.1")]
    scheduler_host: String,
    /// The scheduler's port.
    #[arg(long, default_value_t = 50050)]
    scheduler_port: u16,
    /// Address to listen at. There is no authentication: whoever reaches it reads what it holds.
    #[arg(long, default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Port for rows.
    #[arg(long, default_value_t = 50051)]
    port: u16,
    /// Port for tasks.
    #[arg(long, default_value_t = 50052)]
    grpc_port: u16,
    /// Host by which the scheduler, other executors and clients reach it; by default the address that it listens at.
    #[arg(long)]
    external_host: Option<String>,
    /// Tasks at a time; by default, one a core. The network uses all cores in each.
    #[arg(long, default_value_t = 0)]
    tasks: usize,
    /// Folder for rows between the stages of a query; by default, a temporary one.
    #[arg(long)]
    work_dir: Option<PathBuf>,
    /// Seconds between signs of life.
    #[arg(long, default_value_t = 10)]
    heartbeat: u64,
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    // Removed when the process ends in good order.
    let temporary = tempfile::tempdir()?;
    let work_dir = arguments.work_dir.unwrap_or_else(|| temporary.path().to_owned());
    let config = executor_config(ExecutorProcessConfig {
        bind_host: arguments.bind.to_string(),
        external_host: Some(arguments.external_host.unwrap_or_else(|| arguments.bind.to_string())),
        port: arguments.port,
        grpc_port: arguments.grpc_port,
        scheduler_host: arguments.scheduler_host,
        scheduler_port: arguments.scheduler_port,
        vcores: arguments.tasks,
        work_dir: Some(work_dir.display().to_string()),
        executor_heartbeat_interval_seconds: arguments.heartbeat,
        ..Default::default()
    })?;
    Ok(start_executor_process(Arc::new(config)).await?)
}

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let runtime = Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build()?;
    runtime.block_on(run(Arguments::parse()))
}
