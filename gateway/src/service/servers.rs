//! Backends whose servers DNS names: asked before there are any, and again while the gateway runs.

use std::future::pending;
use std::io;

use crate::backend::SrvServers;
use crate::config::Config;

/// The servers that DNS names, where the configuration leaves them to it. Before privileges go, so before there is a runtime.
pub(super) fn look_up(config: Config) -> io::Result<(Config, Option<SrvServers>)> {
    if config.pools.iter().all(|pool| pool.srv.is_none()) {
        return Ok((config, None));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(SrvServers::find(config, None)))
}

/// The configuration as it was written, once DNS names other servers. Never, where it names none.
pub(super) async fn others(srv: &mut Option<SrvServers>) -> Config {
    match srv {
        Some(srv) => {
            srv.changed().await;
            srv.written()
        }
        None => pending().await,
    }
}
