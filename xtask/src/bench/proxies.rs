//! The proxies that are compared, each started the way its own documentation would.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::{end, target};
use crate::peers;

use super::tls::{Certificate, NAME};

/// How long a proxy may take until it accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// What stands between the load and the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ours, with XCLIENT.
    Gateway,
    /// Ours, with PROXY v2, as HAProxy has it.
    GatewayProxyV2,
    /// Ours, with TLS to the backend as well as to the client.
    GatewayTlsBackend,
    /// An earlier build of ours, so that before and after stand in one run.
    Previous,
    /// The same with PROXY v2.
    PreviousProxyV2,
    /// TCP mode, send-proxy-v2, no splicing.
    Haproxy,
    /// Mail module, XCLIENT.
    Nginx,
    /// `copy_bidirectional`.
    Forwarder,
}

impl Kind {
    /// Those that need nothing but this machine.
    pub(super) const ALL: [Self; 5] =
        [Self::Gateway, Self::GatewayProxyV2, Self::Haproxy, Self::Nginx, Self::Forwarder];
    /// Those that end TLS.
    pub(super) const TLS: [Self; 5] =
        [Self::Gateway, Self::GatewayTlsBackend, Self::Haproxy, Self::Nginx, Self::Forwarder];
    /// Those of an earlier build.
    pub(super) const PREVIOUS: [Self; 2] = [Self::Previous, Self::PreviousProxyV2];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::GatewayProxyV2 => "gateway-proxy-v2",
            Self::GatewayTlsBackend => "gateway-tls-backend",
            Self::Previous => "previous",
            Self::PreviousProxyV2 => "previous-proxy-v2",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Forwarder => "forwarder",
        }
    }

    /// What its sink expects.
    fn identity(self) -> &'static str {
        match self {
            Self::Gateway | Self::GatewayTlsBackend | Self::Previous | Self::Nginx => "xclient",
            Self::GatewayProxyV2 | Self::PreviousProxyV2 | Self::Haproxy => "proxy-v2",
            Self::Forwarder => "none",
        }
    }
}

/// A proxy that runs, with a sink of its own behind it.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) kind: Kind,
    pub(super) address: SocketAddr,
    /// Where users log in, if they can.
    pub(super) submission: Option<SocketAddr>,
    process: Running,
    _sink: Running,
}

/// A process that ends with this value.
#[derive(Debug)]
pub(super) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Asked, not killed: a master that is killed leaves its workers behind.
        end(&mut self.0);
    }
}

impl Proxy {
    pub(super) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Starts the proxy and its sink. `auth_http` is where nginx asks; `sink` must be what it is told. `previous` is the
    /// program of an earlier build. With a `certificate` clients are to come inside TLS.
    pub(super) fn start(
        kind: Kind,
        folder: &Path,
        sink: SocketAddr,
        auth_http: SocketAddr,
        previous: Option<&Path>,
        certificate: Option<&Certificate>,
    ) -> Result<Self, String> {
        let binary = target().join("release/smtp-gateway");
        let this = std::env::current_exe().map_err(|error| error.to_string())?;
        let sink_process = match certificate {
            None => running(
                Command::new(&binary)
                    .args(["sink", "--quiet", "--local-domain", "example.com", "--identity", kind.identity()])
                    .arg("--listen")
                    .arg(sink.to_string()),
            )?,
            Some(Certificate { certificate, key, .. }) => {
                let mut command = Command::new(&this);
                command.args(["bench", "--backend"]).arg(sink.to_string()).arg(kind.identity());
                if kind == Kind::GatewayTlsBackend {
                    command.arg(certificate).arg(key);
                }
                running(&mut command)?
            }
        };
        wait_for(sink)?;
        let free = || free_address().map_err(|error| format!("no free port: {error}"));
        let address = free()?;
        let logs_in = certificate.is_some() && matches!(kind, Kind::Gateway | Kind::Nginx);
        let submission = if logs_in { Some(free()?) } else { None };
        let folder = folder.join(kind.name());
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display())).map(|()| path)
        };
        let process = match kind {
            Kind::Gateway | Kind::GatewayProxyV2 | Kind::GatewayTlsBackend | Kind::Previous | Kind::PreviousProxyV2 => {
                let config = gateway(kind, address, sink, &folder, certificate, submission);
                let config = write("gateway.toml", config)?;
                let earlier = previous.filter(|_| Kind::PREVIOUS.contains(&kind));
                running(Command::new(earlier.unwrap_or(&binary)).args(["run", "-c"]).arg(config))?
            }
            Kind::Haproxy => {
                let config = write("haproxy.cfg", haproxy(address, sink, certificate))?;
                running(peers::command("haproxy", "usr/sbin/haproxy").arg("-db").arg("-f").arg(config))?
            }
            Kind::Nginx => {
                let module = peers::folder("nginx").join("usr/lib/nginx/modules/ngx_mail_module.so");
                let config =
                    write("nginx.conf", nginx(address, auth_http, &folder, &module, certificate.zip(submission)))?;
                running(peers::command("nginx", "usr/sbin/nginx").args(["-e", "stderr", "-c"]).arg(config))?
            }
            Kind::Forwarder => {
                let mut command = Command::new(this);
                command.args(["bench", "--forward"]).arg(address.to_string()).arg(sink.to_string());
                if let Some(Certificate { certificate, key, .. }) = certificate {
                    command.arg(certificate).arg(key);
                }
                running(&mut command)?
            }
        };
        wait_for(address)?;
        Ok(Self { kind, address, submission, process, _sink: sink_process })
    }
}

pub(super) fn running(command: &mut Command) -> Result<Running, String> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    child.map(Running).map_err(|error| format!("{}: {error}", command.get_program().display()))
}

/// A port that was free a moment ago.
pub(super) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

pub(super) fn wait_for(address: SocketAddr) -> Result<(), String> {
    let until = Instant::now() + START_TIMEOUT;
    while Instant::now() < until {
        if TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("nothing accepts connections on {address} after {} s", START_TIMEOUT.as_secs()))
}

fn gateway(
    kind: Kind,
    address: SocketAddr,
    sink: SocketAddr,
    folder: &Path,
    certificate: Option<&Certificate>,
    submission: Option<SocketAddr>,
) -> String {
    let (mut listener, mut backend, mut tls) = (String::new(), String::new(), String::new());
    if let Some(Certificate { certificate, key, .. }) = certificate {
        let (certificate, key) = (certificate.display(), key.display());
        tls = format!("[tls]\ncertificates = [{{ certificate = \"{certificate}\", key = \"{key}\" }}]\n");
        listener.push_str("tls = \"starttls\"\n");
        if kind == Kind::GatewayTlsBackend {
            backend = format!(
                "tls = \"required\"\ntls_verify = \"ca\"\ntls_ca = \"{certificate}\"\ntls_name = \"backend.{NAME}\"\n"
            );
        }
    }
    if let Some(submission) = submission {
        let more = format!("[[listener]]\naddress = \"{submission}\"\nservice = \"submission\"\ntls = \"starttls\"\n");
        listener.push_str(&more);
    }
    let control: PathBuf = folder.join("control.sock");
    format!(
        r#"[server]
hostname = "gateway.example"
workers = 2
[[listener]]
address = "{address}"
{listener}[[backend]]
address = "{sink}"
identity = "{}"
{backend}[relay]
local_domains = ["example.com"]
[limits]
sessions_per_client = 20000
handshakes_per_client = 1000000
[proof]
enabled = false
[dns]
enabled = false
[control]
socket = "{}"
[log]
level = "error"
{tls}"#,
        kind.identity(),
        control.display()
    )
}

fn haproxy(address: SocketAddr, sink: SocketAddr, certificate: Option<&Certificate>) -> String {
    let ssl = certificate.map_or_else(String::new, |tls| format!(" ssl crt {}", tls.combined.display()));
    format!(
        "global
    nbthread 2
    maxconn 6000
defaults
    mode tcp
    timeout connect 10s
    timeout client 5m
    timeout server 5m
    maxconn 6000
listen smtp
    bind {address}{ssl}
    server sink {sink} send-proxy-v2
"
    )
}

/// `tls`: its certificate, and where users log in.
fn nginx(
    address: SocketAddr,
    auth_http: SocketAddr,
    folder: &Path,
    module: &Path,
    tls: Option<(&Certificate, SocketAddr)>,
) -> String {
    let mut starttls = String::new();
    let mut submission = String::new();
    if let Some((Certificate { certificate, key, .. }, address)) = tls {
        let (certificate, key) = (certificate.display(), key.display());
        starttls = format!(
            "starttls on; ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_session_cache shared:s:10m;
        ssl_protocols TLSv1.2 TLSv1.3; proxy_buffer 64k;"
        );
        submission = format!(
            "    server {{
        listen {address} backlog=1024;
        protocol smtp;
        smtp_auth plain;
        {starttls}
        smtp_capabilities PIPELINING \"SIZE 104857600\" 8BITMIME;
    }}
"
        );
    }
    format!(
        "load_module {};
daemon off;
user root;
worker_processes 2;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 15000; }}
mail {{
    server_name nginx.example;
    auth_http {auth_http}/;
    xclient on;
    timeout 300s;
    server {{
        listen {address} backlog=1024;
        protocol smtp;
        smtp_auth none;
        {starttls}
        smtp_capabilities PIPELINING \"SIZE 104857600\" 8BITMIME;
    }}
{submission}}}
",
        module.display(),
        folder = folder.display()
    )
}
