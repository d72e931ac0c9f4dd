//! The product in one function: mail goes through the gateway, and the backend knows whose it is.

use super::client::Client;
use super::gateway::Gateway;
use super::net::{CLIENT, Family, Trio};
use super::{Backend, LOCAL_DOMAIN};

/// Sends a mail from an IPv4 and an IPv6 client through a gateway with this identity mode, and waits until the backend's
/// own log has, for each, a line with these parts and the client's address.
pub fn client_is_known(trio: &Trio, backend: &impl Backend, identity: &str, line: &[&str]) {
    let _gateway = Gateway::start(trio, backend.address(), identity);
    for family in Family::BOTH {
        let mut client = Client::to_gateway(&trio.client, family);
        let message = b"Subject: whose is this?\r\n\r\nOne line.\r\n";
        let reply = client.mail("sender@client.test", &format!("box@{LOCAL_DOMAIN}"), message);
        assert_eq!(reply.code, 250, "{family:?}: {reply:?}");
        client.quit();
        backend.log().wait_for_address(line, family.ip(CLIENT));
    }
}
