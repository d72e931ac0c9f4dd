//! `route`: which backend gets mail for a recipient, and why.

use std::io::{self, Write as _};
use std::net::IpAddr;

use clap::Args;

use crate::route::{NoAddress, Routes};

use super::failure::{ConfigArgument, Failure, REFUSED, load};
use super::socket::shown;

#[derive(Debug, Args)]
pub(super) struct RouteArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// The recipient
    #[arg(value_name = "RECIPIENT")]
    recipient: String,
    /// The sender; left out, mail has none
    #[arg(long, value_name = "SENDER")]
    from: Option<String>,
    /// Where the client comes from; left out, from an address that is in no network of a route
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
}

pub(super) fn route(arguments: &RouteArguments) -> Result<(), Failure> {
    let config = load(&arguments.config.config)?;
    let from = arguments.from.as_deref().unwrap_or_default();
    let client = arguments.client.unwrap_or(IpAddr::from([0, 0, 0, 0])).to_canonical();
    let mut out = io::stdout().lock();
    for (index, listener) in config.listeners.iter().enumerate() {
        let routes = Routes::new(&config, index);
        let refused = |error: NoAddress| Failure { code: REFUSED, message: error.to_string() };
        let decision = routes.decide_text(client, from, &arguments.recipient).map_err(refused)?;
        let backend = &config.pools[routes.pools()[decision.place]].name;
        let why = match decision.route {
            Some(route) => format!("by the route in line {}", config.routes[route].line.0),
            None => "its own; no route fits".to_owned(),
        };
        shown(writeln!(out, "listener {}: backend {backend}, {why}", listener.address))?;
    }
    Ok(())
}
