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
    /// System calls, and nothing else.
    Floor,
}

impl Kind {
    /// Those that need nothing but this machine.
    pub(super) const ALL: [Self; 6] =
        [Self::Gateway, Self::GatewayProxyV2, Self::Haproxy, Self::Nginx, Self::Forwarder, Self::Floor];
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
            Self::Floor => "floor",
        }
    }

    /// What its sink expects.
    fn identity(self) -> &'static str {
        match self {
            Self::Gateway | Self::GatewayTlsBackend | Self::Previous | Self::Nginx => "xclient",
            Self::GatewayProxyV2 | Self::PreviousProxyV2 | Self::Haproxy => "proxy-v2",
            Self::Forwarder | Self::Floor => "none",
        }
    }
}

/// Programs that are not the ones at hand.
#[derive(Debug, Default)]
pub(super) struct Programs {
    /// The gateway of an earlier build.
    pub(super) previous: Option<PathBuf>,
    /// Else the distribution's.
    pub(super) haproxy: Option<PathBuf>,
    /// Else the distribution's. This one must have the mail module in it, as `--with-mail` builds it.
    pub(super) nginx: Option<PathBuf>,
}

impl Programs {
    pub(super) fn haproxy(&self) -> Command {
        self.haproxy.as_ref().map_or_else(|| peers::command("haproxy", "usr/sbin/haproxy"), Command::new)
    }

    pub(super) fn nginx(&self) -> Command {
        self.nginx.as_ref().map_or_else(|| peers::command("nginx", "usr/sbin/nginx"), Command::new)
    }

    /// What a peer says it is; nothing for those that are of this repository.
    pub(super) fn version(&self, kind: Kind) -> Option<String> {
        let mut command = match kind {
            Kind::Haproxy => self.haproxy(),
            Kind::Nginx => self.nginx(),
            Kind::Previous => Command::new(self.previous.as_ref()?),
            _ => return None,
        };
        let argument = if kind == Kind::Previous { "--version" } else { "-v" };
        let output = command.arg(argument).output();
        let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        Some(said.lines().next().unwrap_or("unknown").trim().to_owned())
    }
}

/// How a gateway is configured, where that is what is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) workers: usize,
    pub(super) local_domains: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { workers: 2, local_domains: 1 }
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

    /// Starts a gateway of this shape, with XCLIENT, and its sink.
    pub(super) fn gateway(shape: &Shape, folder: &Path, address: SocketAddr, sink: SocketAddr) -> Result<Self, String> {
        let kind = Kind::Gateway;
        let binary = target().join("release/smtp-gateway");
        let sink_process = start_sink(&binary, kind, sink)?;
        let path = folder.join("gateway.toml");
        let text = gateway(kind, shape, address, sink, folder, None, None);
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, text));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
        let process = running(Command::new(&binary).args(["run", "-c"]).arg(path))?;
        wait_for(address)?;
        Ok(Self { kind, address, submission: None, process, _sink: sink_process })
    }

    /// Starts the proxy and its sink. `auth_http` is where nginx asks; `sink` must be what it is told. With a `certificate`
    /// clients are to come inside TLS.
    pub(super) fn start(
        kind: Kind,
        folder: &Path,
        sink: SocketAddr,
        auth_http: SocketAddr,
        programs: &Programs,
        certificate: Option<&Certificate>,
    ) -> Result<Self, String> {
        let binary = target().join("release/smtp-gateway");
        let this = std::env::current_exe().map_err(|error| error.to_string())?;
        let sink_process = match certificate {
            None => start_sink(&binary, kind, sink)?,
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
                let config = gateway(kind, &Shape::default(), address, sink, &folder, certificate, submission);
                let config = write("gateway.toml", config)?;
                let earlier = programs.previous.as_ref().filter(|_| Kind::PREVIOUS.contains(&kind));
                running(Command::new(earlier.unwrap_or(&binary)).args(["run", "-c"]).arg(config))?
            }
            Kind::Haproxy => {
                let config = write("haproxy.cfg", haproxy(address, sink, certificate))?;
                running(programs.haproxy().arg("-db").arg("-f").arg(config))?
            }
            Kind::Nginx => {
                let module = peers::folder("nginx").join("usr/lib/nginx/modules/ngx_mail_module.so");
                let load = format!("load_module {};\n", module.display());
                let load = if programs.nginx.is_none() { load } else { String::new() };
                let config = load + &nginx(address, auth_http, &folder, certificate.zip(submission));
                let config = write("nginx.conf", config)?;
                running(programs.nginx().args(["-e", "stderr", "-c"]).arg(config))?
            }
            Kind::Forwarder | Kind::Floor => {
                let mut command = Command::new(this);
                let flag = if kind == Kind::Floor { "--floor" } else { "--forward" };
                command.args(["bench", flag]).arg(address.to_string()).arg(sink.to_string());
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

fn start_sink(binary: &Path, kind: Kind, sink: SocketAddr) -> Result<Running, String> {
    let fixed = ["sink", "--quiet", "--local-domain", "example.com", "--identity", kind.identity(), "--listen"];
    let process = running(Command::new(binary).args(fixed).arg(sink.to_string()))?;
    wait_for(sink)?;
    Ok(process)
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
    shape: &Shape,
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
    let workers = shape.workers;
    let others: String = (1..shape.local_domains).map(|number| format!(", \"domain{number}.example\"")).collect();
    format!(
        r#"[server]
hostname = "gateway.example"
workers = {workers}
[[listener]]
address = "{address}"
{listener}[[backend]]
address = "{sink}"
identity = "{}"
{backend}[relay]
local_domains = ["example.com"{others}]
[limits]
sessions = 100000
sessions_per_client = 100000
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
fn nginx(address: SocketAddr, auth_http: SocketAddr, folder: &Path, tls: Option<(&Certificate, SocketAddr)>) -> String {
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
        "daemon off;
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
        folder = folder.display()
    )
}
