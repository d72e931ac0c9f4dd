//! `demo`: gateway and sink on loopback ports of their own, and one client that shows what each of them sees.

mod confused;
mod stage;

use std::net::IpAddr;

use clap::Args;

use crate::sink::SinkIdentity;

use super::failure::Failure;
use stage::{CLIENT, DIALOG, INSIDER, configuration, converse, proven, saw, start, start_sink, status_page};

#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// Let the sink trust the gateway's address: the relay proof must catch it, and the exit code is 1
    #[arg(long)]
    confused: bool,
}

pub(super) fn demo(arguments: &DemoArguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
    if arguments.confused { runtime.block_on(confused::show()) } else { runtime.block_on(show()) }
}

async fn show() -> Result<(), Failure> {
    let (sink, events) = start_sink(SinkIdentity::Xclient, IpAddr::from(INSIDER).into())?;
    let (config, _directory) = configuration(&sink)?;
    let (address, gateway) = start(config).await?;
    println!("A gateway listens on {address}; behind it a mail server, the sink, on {}.", sink.address());
    proven(&gateway).await;
    // What the sink heard so far was the proof.
    events.try_iter().for_each(drop);
    println!("A client at {CLIENT} sends to the gateway:\n");
    converse(address, &DIALOG).await.map_err(Failure::new)?;

    println!("\nWhat the mail server saw:\n");
    let believed = saw(&events);
    status_page(&gateway.status());
    gateway.drain(std::future::ready(())).await;
    if believed == Some(CLIENT.into()) {
        println!("\nThe mail server knows its client: {CLIENT}, not the gateway.");
        Ok(())
    } else {
        Err(Failure::new(format_args!("the mail server believed its client to be {believed:?}, not {CLIENT}")))
    }
}
