//! A name server that says exactly what a scenario wants said, right or wrong, and counts what it was asked.
//!
//! Its own encoding, because no library writes what is tried here: host names with blanks and line ends in them, silence,
//! answers that are cut short.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::folder;
use super::local::address;
use super::log::{Log, Process};

/// The types of RFC 1035 and RFC 3596.
const TYPE_SOA: u16 = 6;
const TYPE_PTR: u16 = 12;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
/// How long what it says may be believed, in seconds.
const TTL: u32 = 300;
/// A pointer to the question's name, which begins behind the header.
const TO_QUESTION: [u8; 2] = [0xc0, 12];

/// What is said of an address or a name.
#[derive(Debug, Clone)]
pub enum Answer {
    /// These host names, a PTR each. The bytes between dots are a label, whatever they are.
    Names(Vec<Vec<u8>>),
    /// These addresses, as far as they are of the family that was asked for.
    Addresses(Vec<IpAddr>),
    /// Only a code (RCODE): 2 is SERVFAIL, 5 is REFUSED.
    Code(u8),
    /// Nothing at all.
    Silence,
    /// The first question is lost, the next is answered so.
    Late(Box<Answer>),
    /// Over UDP nothing but that there is more; over TCP this.
    Long(Box<Answer>),
}

/// A name server on loopback. Whoever is not in its zone does not exist. Its threads end with the test program.
#[derive(Debug)]
pub struct Dns {
    /// Where it listens, over UDP and TCP.
    pub address: SocketAddr,
    zone: Arc<Zone>,
}

#[derive(Debug)]
struct Zone {
    answers: HashMap<String, Answer>,
    asked: Mutex<HashMap<String, usize>>,
}

impl Answer {
    /// One host name.
    pub fn name(name: impl AsRef<[u8]>) -> Self {
        Self::Names(vec![name.as_ref().to_vec()])
    }

    /// One address.
    pub fn address(address: &str) -> Self {
        Self::Addresses(vec![address.parse().expect("an address")])
    }
}

impl Dns {
    /// Starts one. An address in the zone stands for its name in the reverse tree.
    pub fn start(zone: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        let answers = zone.into_iter().map(|(key, answer)| (of_zone(key), answer)).collect();
        let zone = Arc::new(Zone { answers, asked: Mutex::default() });
        let tcp = TcpListener::bind((address(), 0)).expect("a TCP socket");
        let address = tcp.local_addr().expect("its address");
        let udp = UdpSocket::bind(address).expect("a UDP socket");
        let shared = zone.clone();
        thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((count, from)) = udp.recv_from(&mut buffer) {
                if let Some(reply) = shared.reply(&buffer[..count], false) {
                    // Whoever asked may have given up.
                    let _ = udp.send_to(&reply, from);
                }
            }
        });
        let shared = zone.clone();
        thread::spawn(move || {
            for stream in tcp.incoming().map_while(Result::ok) {
                // As above.
                let _ = shared.converse(stream);
            }
        });
        Self { address, zone }
    }

    /// The configuration of a gateway that asks it; `more` is more keys of `[dns]`.
    pub fn section(&self, more: &str) -> String {
        format!("[dns]\nservers = [\"{}\"]\n{more}\n", self.address)
    }

    /// How often it was asked about this address or name, whatever the type.
    pub fn asked(&self, about: &str) -> usize {
        self.zone.asked().get(&of_zone(about)).copied().unwrap_or(0)
    }
}

impl Zone {
    fn asked(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut question = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut question)?;
            if let Some(reply) = self.reply(&question, true) {
                let length = u16::try_from(reply.len()).expect("a short reply");
                stream.write_all(&[&length.to_be_bytes(), reply.as_slice()].concat())?;
            }
        }
    }

    /// The reply to a message with one question; `None` is silence.
    fn reply(&self, message: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let (name, end) = read_name(message)?;
        let kind = u16::from_be_bytes([*message.get(end)?, *message.get(end + 1)?]);
        let question = &message[12..end + 4];
        let number = *self.asked().entry(name.clone()).and_modify(|count| *count += 1).or_insert(1);
        let mut answer = self.answers.get(&name);
        let mut cut = false;
        while let Some(Answer::Late(later) | Answer::Long(later)) = answer {
            match answer {
                Some(Answer::Late(_)) if number == 1 => return None,
                Some(Answer::Long(_)) if !tcp => cut = true,
                _ => {}
            }
            answer = Some(&**later);
        }
        let (code, records) = match answer {
            Some(Answer::Silence) => return None,
            _ if cut => (0, Vec::new()),
            Some(Answer::Code(code)) => (*code, Vec::new()),
            Some(answer) => (0, answer.records(kind)),
            None => (3, Vec::new()),
        };
        // What is not there may be remembered for as long as the zone's SOA says (RFC 2308).
        let absent = records.is_empty() && matches!(code, 0 | 3) && !cut;
        let flags = [0x84 | u8::from(cut) << 1, 0x80 | code];
        let mut reply = message[..2].to_vec();
        reply.extend_from_slice(&flags);
        for count in [1, u16::try_from(records.len()).ok()?, absent.into(), 0] {
            reply.extend_from_slice(&count.to_be_bytes());
        }
        reply.extend_from_slice(question);
        for (kind, data) in records {
            write_record(&TO_QUESTION, kind, &data, &mut reply);
        }
        if absent {
            // Two names and five numbers, the last of which is the negative TTL.
            let numbers = [1, TTL, TTL, TTL, TTL].map(u32::to_be_bytes).concat();
            write_record(&[0], TYPE_SOA, &[&[0, 0], numbers.as_slice()].concat(), &mut reply);
        }
        Some(reply)
    }
}

impl Answer {
    /// Type and data of each record that answers a question of this type.
    fn records(&self, kind: u16) -> Vec<(u16, Vec<u8>)> {
        match self {
            Self::Names(names) if kind == TYPE_PTR => names.iter().map(|name| (TYPE_PTR, write_name(name))).collect(),
            Self::Addresses(addresses) => addresses
                .iter()
                .map(|address| match address {
                    IpAddr::V4(ip) => (TYPE_A, ip.octets().to_vec()),
                    IpAddr::V6(ip) => (TYPE_AAAA, ip.octets().to_vec()),
                })
                .filter(|(of, _)| *of == kind)
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// A real dnsmasq that knows what it is told, and nothing else.
#[derive(Debug)]
pub struct Dnsmasq {
    process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Dnsmasq {
    /// Starts it with these `--host-record` (name and addresses, both ways) and `--ptr-record`.
    pub fn start(hosts: &[&str], pointers: &[&str]) -> Self {
        let records = hosts.iter().map(|host| format!("--host-record={host}"));
        let records = std::iter::once("--local-ttl=300".to_owned()).chain(records);
        let records = records.chain(pointers.iter().map(|pointer| format!("--ptr-record={pointer}")));
        Self::start_at(SocketAddr::from((address(), 5353)), &records.collect::<Vec<_>>())
    }

    /// Starts it here, with these options.
    pub fn start_at(place: SocketAddr, records: &[String]) -> Self {
        let folder = folder("dnsmasq");
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(folder.join("usr/sbin/dnsmasq"));
        command.env("LD_LIBRARY_PATH", folder.join("usr/lib/x86_64-linux-gnu"));
        command.args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--log-queries", "--user="]);
        command.args(["--bind-interfaces", "--local=/#/", "--pid-file="]);
        command.arg(format!("--listen-address={}", place.ip())).arg(format!("--port={}", place.port())).args(records);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("dnsmasq");
        let process = Process::new("dnsmasq", child);
        process.log().wait_for(&["started, version"]);
        Self { process, address: place }
    }

    /// What it was asked, and what it said.
    pub fn log(&self) -> &Log {
        self.process.log()
    }
}

fn write_record(name: &[u8], kind: u16, data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(&kind.to_be_bytes());
    // Of the Internet.
    out.extend_from_slice(&[0, 1]);
    out.extend_from_slice(&TTL.to_be_bytes());
    out.extend_from_slice(&u16::try_from(data.len()).expect("short data").to_be_bytes());
    out.extend_from_slice(data);
}

fn write_name(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split(|&byte| byte == b'.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).expect("a label"));
        out.extend_from_slice(label);
    }
    out.push(0);
    out
}

/// The question's name in lower case, and where its type begins.
fn read_name(message: &[u8]) -> Option<(String, usize)> {
    let (mut name, mut at) = (String::new(), 12);
    loop {
        let length = usize::from(*message.get(at)?);
        let label = message.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            return Some((name, at));
        }
        name.push_str(&String::from_utf8_lossy(label).to_ascii_lowercase());
        name.push('.');
    }
}

/// As names stand in the zone: an address by its name in the reverse tree, unless a dot at its end says that it is a name.
fn of_zone(key: &str) -> String {
    match key.parse() {
        Ok(IpAddr::V4(ip)) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        Ok(IpAddr::V6(ip)) => {
            let nibbles = ip.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa."
        }
        Err(_) => format!("{}.", key.trim_end_matches('.').to_ascii_lowercase()),
    }
}
