//! Pure rooms know neither I/O nor a clock: they may name what is listed here, and nothing else outside the crate. To list
//! what is allowed covers every way of naming the rest.

use super::rooms::table;
use super::source::SOURCES;

/// Of the standard library and of other crates.
const ALLOWED: [&str; 47] = [
    "std::array",
    "std::ascii",
    "std::borrow",
    "std::char",
    "std::cmp",
    "std::collections",
    "std::convert",
    "std::error",
    "std::fmt",
    "std::hash",
    // To write into a `Vec<u8>`.
    "std::io::Write",
    "std::iter",
    "std::marker",
    "std::mem",
    "std::net::AddrParseError",
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
    "std::net::SocketAddr",
    "std::net::SocketAddrV4",
    "std::net::SocketAddrV6",
    "std::num",
    "std::ops",
    "std::option",
    "std::result",
    "std::slice",
    "std::str",
    "std::string",
    "std::sync::Arc",
    "std::sync::LazyLock",
    "std::sync::OnceLock",
    "std::sync::atomic",
    "std::time::Duration",
    "std::vec",
    "base64",
    "bitflags",
    "foldhash",
    "icu_normalizer",
    "idna",
    "ipnet",
    "itoa",
    "mail_parser",
    "memchr",
    "multiversion",
    // Says what a value is made of; who reads and writes is elsewhere.
    "serde",
    "thiserror",
    "zeroize",
];
/// Words of the language, and macros, that lead out.
const FORBIDDEN: [&str; 14] = [
    "async",
    "await",
    "unsafe",
    "extern",
    "print",
    "println",
    "eprint",
    "eprintln",
    "dbg",
    "env",
    "option_env",
    "include",
    "include_str",
    "include_bytes",
];
/// Types whose functions may be named by paths that begin in small letters.
const PRIMITIVE: [&str; 17] = [
    "bool", "char", "str", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize",
    "f32", "f64",
];

fn is_allowed(path: &str) -> bool {
    let is_below =
        |path: &str, above: &str| path == above || path.strip_prefix(above).is_some_and(|rest| rest.starts_with("::"));
    // A module may be named whose allowed parts are then named through it.
    ALLOWED.iter().any(|allowed| is_below(path, allowed) || is_below(allowed, path) && path.contains("::"))
}

#[test]
fn invariant_9_purity() {
    let table = table();
    let mut files = 0;
    let mut faults = Vec::new();
    for (module, file) in &SOURCES.0 {
        if !module.first().is_some_and(|room| table[&**room].is_pure) {
            continue;
        }
        files += 1;
        let place = |line: usize| format!("{}:{line}", file.path.display());
        for named in &file.named {
            let path = named.path.join("::");
            let is_type = path.starts_with(|c: char| c.is_uppercase()) || PRIMITIVE.contains(&&*named.path[0]);
            let is_clock = named.is_own && path.starts_with("time::clock");
            if is_clock || (!named.is_own && !is_type && !is_allowed(&path)) {
                faults.push(format!("{} names {path}", place(named.line)));
            }
        }
        let words = file.words.iter().filter(|(word, _)| FORBIDDEN.contains(&&**word));
        faults.extend(words.map(|(word, line)| format!("{} says `{word}`", place(*line))));
    }
    assert!(files > 20, "the pure rooms have moved");
    assert!(faults.is_empty(), "a pure room knows neither I/O nor a clock:\n{}", faults.join("\n"));
}

#[test]
fn what_leads_out_is_not_allowed() {
    for path in [
        "std::net::TcpStream",
        "std::net::ToSocketAddrs",
        "std::net::*",
        "std::*",
        "std",
        "std::fs",
        "std::fs::read",
        "std::env::var",
        "std::io::Read",
        "std::os::fd::OwnedFd",
        "std::process::Command",
        "std::sync::Mutex",
        "std::sync::mpsc",
        "std::thread::sleep",
        "std::time::Instant",
        "std::time::SystemTime",
        "std::time::UNIX_EPOCH",
        "core::time",
        "tokio::time::Instant",
        "rustix::time",
        "socket2::Socket",
        "libc",
        "tracing::info",
    ] {
        assert!(!is_allowed(path), "{path}");
    }
    for path in
        ["std::net", "std::net::IpAddr", "std::net::Ipv4Addr::LOCALHOST", "std::collections::*", "memchr::memchr"]
    {
        assert!(is_allowed(path), "{path}");
    }
}
