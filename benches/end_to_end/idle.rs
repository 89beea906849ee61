//! What a service takes that nobody uses.

use std::thread;

use tokio::runtime::Builder;

use crate::{Settings, memory, service::Service, table};

pub(crate) fn measure(settings: &Settings) -> anyhow::Result<()> {
    let folder = settings.folder.join("idle");
    std::fs::create_dir(&folder)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let service = runtime.block_on(Service::start(&folder))?;
    thread::sleep(settings.quiet);
    let used = memory::now();
    runtime.block_on(service.esl.shutdown());
    let is_met = used.is_some_and(|used| used <= BUDGET_MIB);
    table::row("memory, idle", &memory::show(used), &format!("≤ {BUDGET_MIB} MiB"), is_met);
    Ok(())
}

const BUDGET_MIB: u64 = 20;
