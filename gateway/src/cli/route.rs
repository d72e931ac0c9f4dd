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
    /// The recipient; where users send it decides nothing
    #[arg(value_name = "RECIPIENT")]
    recipient: String,
    /// The sender; left out, mail has none
    #[arg(long, value_name = "SENDER")]
    from: Option<String>,
    /// Where the client comes from; left out, from an address that is in no network of a route
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Who has logged in, where users send; left out, nobody
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

pub(super) fn route(arguments: &RouteArguments) -> Result<(), Failure> {
    let config = load(&arguments.config.config)?;
    let from = arguments.from.as_deref().unwrap_or_default();
    let client = arguments.client.unwrap_or(IpAddr::from([0, 0, 0, 0])).to_canonical();
    let mut out = io::stdout().lock();
    for (index, listener) in config.listeners.iter().enumerate() {
        let routes = Routes::new(&config, index);
        let refused = |error: NoAddress| Failure { code: REFUSED, message: error.to_string() };
        let by_recipient = routes.decide_text(client, from, &arguments.recipient).map_err(refused)?;
        let decision = match routes.are_by_user() {
            true => routes.decide_user(client, arguments.user.as_deref()),
            false => by_recipient,
        };
        let backend = &config.pools[routes.pools()[decision.place]].name;
        let why = match decision.route {
            Some(index) => {
                let route = &config.routes[index];
                let line = (decision.line != 0).then_some(decision.line);
                format!("by the route `{}` in {}", route.name, route.place(line))
            }
            None => "its own; no route fits".to_owned(),
        };
        shown(writeln!(out, "listener {}: backend {backend}, {why}", listener.address))?;
    }
    Ok(())
}
