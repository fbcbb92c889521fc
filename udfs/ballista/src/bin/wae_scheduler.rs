//! `wae-scheduler`: takes queries of clients and deals their tasks to executors.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::{SchedulerConfig, TaskDistributionPolicy};
use ballista_scheduler::scheduler_process::start_server;
use clap::Parser;
use datafusion_wae_ballista::scheduler_config;
use tokio::runtime::Builder;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of a thread's stack: plans are walked by recursion.
const STACK: usize = 32 << 20;

/// Takes queries of clients and deals their tasks to executors. It logs to standard error (RUST_LOG, "info" by
/// default).
#[derive(Debug, Parser)]
#[command(name = "wae-scheduler", version)]
struct Arguments {
    /// Address to listen at. There is no authentication: whoever reaches it reads what the cluster reads.
    #[arg(long, default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Port to listen at.
    #[arg(long, default_value_t = 50050)]
    port: u16,
    /// Host by which executors reach it; by default the address that it listens at.
    #[arg(long)]
    external_host: Option<String>,
    /// Seconds after the last sign of life of an executor until its tasks are given to others; above the executors'
    /// --heartbeat.
    #[arg(long, default_value_t = 60)]
    executor_timeout: u64,
}

impl Arguments {
    fn config(&self) -> SchedulerConfig {
        scheduler_config(SchedulerConfig {
            bind_host: self.bind.to_string(),
            bind_port: self.port,
            external_host: self.external_host.clone().unwrap_or_else(|| self.bind.to_string()),
            // Each task to the next executor: with the default, the first ones get all that fit.
            task_distribution: TaskDistributionPolicy::RoundRobin,
            executor_timeout_seconds: self.executor_timeout,
            expire_dead_executor_interval_seconds: (self.executor_timeout / 4).clamp(1, 15),
            no_executors_grace_period_seconds: self.executor_timeout,
            ..Default::default()
        })
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let config = arguments.config();
    let cluster = BallistaCluster::new_from_config(&config).await?;
    Ok(start_server(cluster, SocketAddr::new(arguments.bind, arguments.port), Arc::new(config)).await?)
}

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let runtime = Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build()?;
    runtime.block_on(run(Arguments::parse()))
}
