//! `smtp-gateway selftest` on the gateway's host, as an administrator runs it, and its verdict.

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::Value;

use super::LOCAL_DOMAIN;
use super::gateway::program;
use super::net::{FRONT, Family, Trio};
use super::stage::temporary_folder;

/// What it printed and how it ended.
#[derive(Debug)]
pub struct Verdict {
    /// The exit code.
    pub code: i32,
    /// The JSON report.
    pub report: Value,
    /// The page for people, of a second run if it was asked for.
    pub page: String,
}

/// A self-test in the making.
#[derive(Debug)]
pub struct Selftest<'a> {
    trio: &'a Trio,
    backend: SocketAddr,
    identity: &'a str,
    more: String,
    allowed: &'a str,
    families: &'a [Family],
    user: &'a str,
    listeners: Option<&'a str>,
}

impl<'a> Selftest<'a> {
    /// Of this backend, told of clients this way, for IPv4 clients.
    pub fn new(trio: &'a Trio, backend: SocketAddr, identity: &'a str) -> Self {
        Self {
            trio,
            backend,
            identity,
            more: String::new(),
            allowed: "",
            families: &[Family::V4],
            user: "box",
            listeners: None,
        }
    }

    /// With these listeners instead of port 25 for each family.
    pub fn listening(mut self, listeners: &'a str) -> Self {
        self.listeners = Some(listeners);
        self
    }

    /// With more keys of `[proof]`.
    pub fn with(mut self, keys: &str) -> Self {
        self.more.push_str(keys);
        self.more.push('\n');
        self
    }

    /// With these `relay.allowed_networks`, as TOML writes them.
    pub fn allowing(mut self, networks: &'a str) -> Self {
        self.allowed = networks;
        self
    }

    /// For clients of these families.
    pub fn families(mut self, families: &'a [Family]) -> Self {
        self.families = families;
        self
    }

    /// With this local user instead of `box`.
    pub fn user(mut self, user: &'a str) -> Self {
        self.user = user;
        self
    }

    /// Runs it with `--json`.
    pub fn run(&self) -> Verdict {
        let (code, printed) = self.output(&["--json"]);
        let report = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
        Verdict { code, report, page: String::new() }
    }

    /// Runs it for people, and then with `--json`.
    pub fn run_both(&self) -> Verdict {
        let (_, page) = self.output(&[]);
        Verdict { page, ..self.run() }
    }

    fn output(&self, options: &[&str]) -> (i32, String) {
        let folder = temporary_folder();
        let file = folder.path().join("gateway.toml");
        fs::write(&file, self.configuration()).expect("a configuration file");
        let mut command = self.trio.gateway.command("timeout");
        command.arg("120").arg(program()).arg("selftest").args(options).arg("-c").arg(&file);
        let output = command.stdin(Stdio::null()).output().expect("selftest");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(complaint.is_empty(), "{complaint}");
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn configuration(&self) -> String {
        let Self { backend, identity, more, allowed, families, user, listeners, .. } = self;
        let listener = |family: &Family| format!("[[listener]]\naddress = \"{}\"\n", family.smtp(FRONT));
        let listeners = listeners.map_or_else(|| families.iter().map(listener).collect(), str::to_owned);
        format!(
            "[server]\nhostname = \"gateway.test\"\nworkers = 1\n{listeners}[[backend]]\nname = \"backend\"\naddress = \
             \"{backend}\"\nidentity = \"{identity}\"\n[relay]\nlocal_domains = [\"{LOCAL_DOMAIN}\"]\nallowed_networks = [{allowed}]\n[dns]\nenabled = \
             false\n[proof]\npause = \"0s\"\nforeign_domain = \"elsewhere.test\"\nlocal_user = \"{user}\"\n{more}"
        )
    }
}

impl Verdict {
    /// The state of a family's leg: `open`.
    pub fn state(&self, family: &str) -> &str {
        self.leg(family)["state"].as_str().expect("a state")
    }

    /// A family's leg.
    pub fn leg(&self, family: &str) -> &Value {
        let legs = self.report["backends"][0]["legs"].as_array().expect("legs");
        legs.iter().find(|leg| leg["family"] == family).unwrap_or_else(|| panic!("no {family} in {}", self.report))
    }

    /// What one of the IPv4 probes came to: `accepts`.
    pub fn answer(&self, probe: &str) -> &str {
        self.probe(probe)["answer"].as_str().expect("an answer")
    }

    /// One of the IPv4 probes.
    pub fn probe(&self, probe: &str) -> &Value {
        let probes = self.leg("IPv4")["probes"].as_array().expect("probes");
        probes.iter().find(|other| other["probe"] == probe).unwrap_or_else(|| panic!("no {probe} in {}", self.report))
    }

    /// All findings of a family, each as `severity: text`.
    pub fn findings(&self, family: &str) -> Vec<String> {
        let findings = self.leg(family)["findings"].as_array().expect("findings");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        findings.iter().map(|finding| format!("{}: {}", text(&finding["severity"]), text(&finding["text"]))).collect()
    }

    /// The mend of the worst finding for IPv4.
    pub fn mend(&self) -> &str {
        self.leg("IPv4")["findings"][0]["mend"].as_str().unwrap_or_default()
    }

    /// Insists on a verdict for IPv4 clients and its exit code.
    pub fn expect(&self, state: &str, code: i32) -> &Self {
        assert_eq!((self.state("IPv4"), self.code), (state, code), "{:#}", self.report);
        self
    }
}
