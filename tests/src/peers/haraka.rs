//! Haraka, told of clients by XCLIENT or a PROXY version 1 header.

use std::net::SocketAddr;

use super::log::{Log, Process};
use super::net::{BACK, BACKEND, Family, Host};
use super::stage::Stage;
use super::{Backend, LOCAL_DOMAIN, folder};

/// How Haraka is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Its `xclient` plugin.
    Xclient,
    /// `[haproxy]` in its connection.ini.
    Proxy,
}

/// A running Haraka.
#[derive(Debug)]
pub struct Haraka {
    process: Process,
    _stage: Stage,
    address: SocketAddr,
}

/// Takes every message and keeps none.
const TAKE: &str = "exports.hook_queue = (next) => next(OK, 'taken')\n";

impl Haraka {
    /// A Haraka on a host, once it listens.
    pub fn start(host: &Host, told: Told) -> Self {
        let [v4, v6] = BACK;
        Self::launch(
            host,
            &match told {
                Told::Xclient => format!("printf '{v4}\\n{v6}\\n' > /var/haraka/config/xclient.hosts"),
                Told::Proxy => {
                    format!(
                        "sed -i 's/^hosts\\[\\] =$/hosts[] = {v4}\\nhosts[] = {v6}/' /var/haraka/config/connection.ini"
                    )
                }
            },
        )
    }

    /// As somebody set it up: with the plugin `xclient`, and these hosts that may use it.
    pub fn set_up(host: &Host, xclient_hosts: &str) -> Self {
        Self::launch(host, &format!("printf '%s' '{xclient_hosts}' > /var/haraka/config/xclient.hosts"))
    }

    fn launch(host: &Host, believes: &str) -> Self {
        let mut stage = Stage::plain();
        stage.etc("haraka/config/smtp.ini", "listen=[::0]:25\nnodes=0\n");
        stage.etc("haraka/config/plugins", "xclient\nrcpt_to.in_host_list\ntake\n");
        stage.etc("haraka/config/host_list", &format!("{LOCAL_DOMAIN}\n"));
        stage.etc("haraka/config/me", "backend.test\n");
        stage.etc("haraka/config/log.ini", "[main]\nlevel=info\n");
        stage.etc("haraka/plugins/take.js", TAKE);
        let package = folder("haraka").join("node_modules/Haraka");
        // It keeps its queue beside its configuration, and needs more of its default configuration than it says.
        stage.prepare(&format!(
            "mkdir /var/haraka && cp -r '{}/config' /var/haraka && cp -r /etc/haraka /var",
            package.display()
        ));
        stage.prepare(believes);
        let program = package.join("bin/haraka");
        let process = stage.start(host, &["node", &program.to_string_lossy(), "-c", "/var/haraka"]);
        process.log().wait_for(&["Listening on"]);
        Self { process, _stage: stage, address: Family::V4.smtp(BACKEND) }
    }
}

impl Backend for Haraka {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn log(&self) -> &Log {
        self.process.log()
    }
}
