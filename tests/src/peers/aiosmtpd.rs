//! aiosmtpd, told of clients by a PROXY header of either version.

use std::net::SocketAddr;

use super::log::{Log, Process};
use super::net::{BACKEND, Family, Host};
use super::stage::Stage;
use super::{Backend, folder};

/// A running aiosmtpd.
#[derive(Debug)]
pub struct Aiosmtpd {
    process: Process,
    _stage: Stage,
    address: SocketAddr,
}

/// Prints what the library made of the header.
const SERVER: &str = r#"
import asyncio, logging, sys
from aiosmtpd.smtp import SMTP

logging.basicConfig(level=logging.INFO)

class Handler:
    async def handle_PROXY(self, server, session, envelope, proxy_data):
        return True

    async def handle_DATA(self, server, session, envelope):
        proxy = session.proxy_data
        print(f"mail from={envelope.mail_from} version={proxy.version} source=[{proxy.src_addr}]:{proxy.src_port}", flush=True)
        return "250 2.0.0 taken"

async def main():
    make = lambda: SMTP(Handler(), hostname="backend.test", proxy_protocol_timeout=5)
    server = await asyncio.get_running_loop().create_server(make, sys.argv[1:], 25)
    print("listening", flush=True)
    await server.serve_forever()

asyncio.run(main())
"#;

impl Aiosmtpd {
    /// An aiosmtpd on a host, once it listens. It requires a PROXY header from everybody.
    pub fn start(host: &Host) -> Self {
        let mut stage = Stage::plain();
        stage.etc("server.py", SERVER);
        stage.prepare(&format!("export PYTHONPATH='{}'", folder("aiosmtpd").display()));
        let process = stage.start(host, &["python3", "/etc/server.py", BACKEND[0], BACKEND[1]]);
        process.log().wait_for_line("listening");
        Self { process, _stage: stage, address: Family::V4.smtp(BACKEND) }
    }
}

impl Backend for Aiosmtpd {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn log(&self) -> &Log {
        self.process.log()
    }
}
