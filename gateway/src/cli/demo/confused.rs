//! `demo --confused`: the whole story in a minute. A mail server trusts the gateway's address, as many do; the proof catches
//! it, the guard holds meanwhile, the mail server is mended, and the proof passes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::{Config, HostPort, IdentityMode};
use crate::identity::names::Names;
use crate::proof::report::{OutcomeWord, Report};
use crate::proof::{Prover, text};
use crate::service::Backends;
use crate::sink::SinkIdentity;

use super::super::failure::Failure;
use super::stage::{CLIENT, DIALOG, INSIDER, configuration, converse, proven, saw, start, start_sink, status_page};

/// What a spammer says, and the first digit of the answer.
const SPAM: [(&str, char); 5] = [
    ("EHLO spammer.example", '2'),
    ("MAIL FROM:<spam@spammer.example>", '2'),
    ("RCPT TO:<victim@elsewhere.example>", '5'),
    ("RCPT TO:<victim%elsewhere.example@example.com>", '5'),
    ("QUIT", '2'),
];

pub(super) async fn show() -> Result<(), Failure> {
    let gateway: IpNet = IpAddr::from(Ipv4Addr::LOCALHOST).into();
    println!(
        "1. A mail server trusts the gateway's address, {}, and is not told who its clients are.\n",
        gateway.addr()
    );
    let (sink, _events) = start_sink(SinkIdentity::None, gateway)?;
    let (config, directory) = configuration(&sink)?;
    let blind = with_identity(&config, IdentityMode::None);
    if selftest(&blind).await != OutcomeWord::Found {
        return Err(Failure::new("the proof did not find the open relay"));
    }

    println!("2. The guard holds meanwhile. A spammer at {CLIENT} tries:\n");
    let (address, gateway) = start(blind).await?;
    converse(address, &SPAM).await.map_err(Failure::new)?;
    status_page(&proven(&gateway).await);
    gateway.drain(std::future::ready(())).await;
    drop(sink);

    println!(
        "\n3. The mend: the mail server lets only {INSIDER} relay, and the gateway tells it who its clients are.\n"
    );
    let (sink, events) = start_sink(SinkIdentity::Xclient, IpAddr::from(INSIDER).into())?;
    let mut config = config;
    config.backends[0].address = HostPort::Address(sink.address());
    let mended = with_identity(&config, IdentityMode::Xclient);
    if selftest(&mended).await != OutcomeWord::Safe {
        return Err(Failure::new("the proof did not pass"));
    }

    println!("4. Mail goes through, and the mail server knows whose it is:\n");
    let (address, gateway) = start(mended).await?;
    proven(&gateway).await;
    // What was heard so far was the proof.
    events.try_iter().for_each(drop);
    converse(address, &DIALOG).await.map_err(Failure::new)?;
    println!("\n   What the mail server saw:\n");
    let believed = saw(&events);
    status_page(&gateway.status());
    gateway.drain(std::future::ready(())).await;
    drop(directory);
    if believed != Some(CLIENT.into()) {
        return Err(Failure::new(format_args!("the mail server believed its client to be {believed:?}, not {CLIENT}")));
    }
    // By contract: what was asked for was a confused mail server, and it was found.
    Err(Failure::new("\nAn open relay was found, and mended. With --confused that is what must happen: exit code 1."))
}

fn with_identity(config: &Config, identity: IdentityMode) -> Config {
    let mut config = config.clone();
    config.backends[0].identity = identity;
    if identity == IdentityMode::None {
        // Whoever is told nothing has nothing to believe.
        config.proof.trusted.clear();
    }
    config
}

/// What `smtp-gateway selftest` says.
async fn selftest(config: &Config) -> OutcomeWord {
    println!("   `smtp-gateway selftest` says:\n");
    let (names, _) = Names::spawn(&config.dns);
    let backends = Backends::watch(config, &HashMap::default()).await;
    let prover = Prover::new(Arc::new(config.clone()), backends.states(), &names);
    let report = Report::new(vec![prover.prove(0, &mut |_| {}).await]);
    for line in text::brief(&report).trim_end().lines() {
        println!("  {line}");
    }
    println!();
    report.outcome
}
