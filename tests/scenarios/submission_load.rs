//! Many users log in while others try out passwords: no user is turned away, and whoever tries names is banned.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use smtp_gateway::time::clock::now;
use tests::peers::local::{LocalGateway, address, configuration, run};
use tests::peers::log::PATIENCE;
use tests::peers::scripted::{self, Answer, Dialog};

/// Sources that try out passwords.
const SPRAYERS: usize = 200;
/// Addresses that users have.
const HOMES: usize = 400;
/// Names that a sprayer tries at most.
const NAMES: usize = 400;
const THREADS: usize = 8;

/// A mail server that knows everybody's password.
fn backend() -> SocketAddr {
    scripted::start(|dialog: &mut Dialog, command| match command.split_once(' ') {
        Some(("EHLO", _)) => {
            dialog.say("250-backend\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n");
            Answer::Given
        }
        Some(("AUTH", rest)) => {
            let response = rest.strip_prefix("PLAIN ").and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
            let is_right = response.ends_with(b"\0secret");
            dialog.say(if is_right { "235 2.7.0 Ok\r\n" } else { "535 5.7.8 No\r\n" });
            Answer::Given
        }
        _ => Answer::Usual,
    })
}

/// A session of a client with this address, as a load balancer brings it.
struct Visit {
    reader: BufReader<TcpStream>,
}

impl Visit {
    /// The code of the greeting; 0 if there is none.
    fn begin(gateway: SocketAddr, client: Ipv4Addr) -> (Self, u16) {
        let stream = TcpStream::connect(gateway).expect("the gateway accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        let mut visit = Self { reader: BufReader::new(stream) };
        let code = visit.say(&format!("PROXY TCP4 {client} 192.0.2.1 50000 587\r\n"));
        (visit, code)
    }

    /// Says something, and hears the code of the reply; 0 if the connection ends.
    fn say(&mut self, text: &str) -> u16 {
        // Who was hung up on reads why.
        let _ = self.reader.get_mut().write_all(text.as_bytes());
        let mut line = String::new();
        loop {
            line.clear();
            if self.reader.read_line(&mut line).unwrap_or(0) == 0 {
                return 0;
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
            }
        }
    }

    fn log_in(&mut self, name: &str, password: &str) -> u16 {
        let response = STANDARD.encode(format!("\0{name}\0{password}"));
        self.say(&format!("AUTH PLAIN {response}\r\n"))
    }
}

fn home(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number % HOMES).expect("a small number");
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 1).to_bits() + number * 3)
}

/// One user's session. Every tenth mistypes first, at each address one of ten too.
fn user(gateway: SocketAddr, number: usize) -> Result<(), String> {
    let name = format!("user{number}@example.com");
    let (mut visit, greeting) = Visit::begin(gateway, home(number));
    let hello = visit.say("EHLO client.example\r\n");
    if (number + number / HOMES).is_multiple_of(10) {
        let typo = visit.log_in(&name, "mistyped");
        if typo != 535 {
            return Err(format!("{typo} to a mistyped password of {name}"));
        }
    }
    let codes = [greeting, hello, visit.log_in(&name, "secret"), visit.say("MAIL FROM:<>\r\n"), visit.say("QUIT\r\n")];
    if codes == [220, 250, 235, 250, 221] { Ok(()) } else { Err(format!("{codes:?} to {name}")) }
}

/// Tries names until the door is shut. How many were tried.
fn spray(gateway: SocketAddr, source: Ipv4Addr) -> usize {
    let mut tried = 0;
    while tried < NAMES {
        let (mut visit, greeting) = Visit::begin(gateway, source);
        if greeting != 220 {
            break;
        }
        visit.say("EHLO client.example\r\n");
        while visit.log_in(&format!("name{tried}@example.com"), "summer2026") == 535 {
            tried += 1;
        }
    }
    tried
}

fn logins_beside_a_spray(logins: usize) {
    let front = SocketAddr::from((address(), 5870));
    let listener = "service = \"submission\"\nproxy_protocol_from = [\"127.0.0.0/8\"]";
    let more = "[submission]\nclear_text_networks = [\"198.18.0.0/15\"]\n[log]\nlevel = \"error\"\n";
    let gateway = LocalGateway::start(front, &configuration(front, listener, backend(), "none", more));
    let (next_user, next_sprayer) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let began = now();
    let (mut refused, mut tried) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let users: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let numbers = std::iter::repeat_with(|| next_user.fetch_add(1, Ordering::Relaxed));
                    let sessions = numbers.take_while(|number| *number < logins);
                    sessions.filter_map(|number| user(front, number).err()).collect::<Vec<_>>()
                })
            })
            .collect();
        let sprayers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let numbers = std::iter::repeat_with(|| next_sprayer.fetch_add(1, Ordering::Relaxed));
                    let sources = numbers.take_while(|number| *number < SPRAYERS).map(|number| {
                        let number = u32::try_from(number).expect("a small number");
                        Ipv4Addr::from_bits(Ipv4Addr::new(198, 19, 0, 1).to_bits() + number * 257)
                    });
                    sources.map(|source| spray(front, source)).collect::<Vec<_>>()
                })
            })
            .collect();
        refused = users.into_iter().flat_map(|user| user.join().expect("a user")).collect();
        tried = sprayers.into_iter().flat_map(|sprayer| sprayer.join().expect("a sprayer")).collect::<Vec<_>>();
    });
    println!("{logins} logins beside {} refused ones took {} ms", tried.iter().sum::<usize>(), now().since(began));
    assert!(refused.is_empty(), "{} users were turned away: {:?}", refused.len(), &refused[..refused.len().min(5)]);
    let most = tried.iter().max().copied().unwrap_or(0);
    assert!(tried.len() == SPRAYERS && most < NAMES / 4, "one could try {most} names");
    let output = run(gateway.folder(), &["bans", "--socket", "control.sock", "--json"]);
    let bans: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let banned: Vec<IpAddr> = bans["bans"].as_array().expect("bans").iter().map(address_of).collect();
    let is_sprayer = |ip: &IpAddr| matches!(ip, IpAddr::V4(ip) if ip.octets()[..2] == [198, 19]);
    assert!(banned.len() == SPRAYERS && banned.iter().all(is_sprayer), "{} bans: {banned:?}", banned.len());
    let outcomes = &gateway.status()["logins"]["outcomes_total"];
    assert_eq!(outcomes["ok"], logins, "{outcomes}");
}

fn address_of(ban: &serde_json::Value) -> IpAddr {
    let address = ban["address"].as_str().expect("an address");
    address.split('/').next().and_then(|ip| ip.parse().ok()).unwrap_or_else(|| panic!("{address}"))
}

#[test]
fn users_log_in_beside_a_password_spray() {
    logins_beside_a_spray(500);
}

/// By hand: `cargo test -p tests --release -- --ignored ten_thousand`.
#[test]
#[ignore = "takes a minute"]
fn ten_thousand_users_log_in_beside_a_password_spray() {
    logins_beside_a_spray(10_000);
}
