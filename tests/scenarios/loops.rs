//! Mail servers that are the gateway itself, by a name: they are never connected to, and it is said what is wrong.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use tests::peers::available;
use tests::peers::dns::Dnsmasq;
use tests::peers::local::{LocalGateway, address, configuration, run};
use tests::peers::stage::temporary_folder;

/// A name that every system's resolver has this address for.
fn name_of(ip: Ipv4Addr) -> String {
    format!("0x{:08x}", u32::from(ip))
}

/// Clients are told 451, and `status` says why.
fn knows_itself(gateway: &LocalGateway, front: SocketAddr) {
    for _ in 0..2 {
        let mut client = gateway.client(address());
        client.must("EHLO client.test");
        assert_eq!(client.command("MAIL FROM:<a@client.test>").code, 451);
        client.quit();
    }
    let status = gateway.status();
    let told = status["backends"][0].to_string();
    assert!(told.contains(&format!("{front}, which is the gateway's own listener {front}: mail would loop")), "{told}");
    // This one's clients, and nobody else.
    assert_eq!(status["sessions"]["accepted_total"], 2, "{status}");
}

#[test]
fn a_server_whose_name_is_the_gateways_own_address_is_never_connected_to() {
    let own = address();
    let front: SocketAddr = (own, 2525).into();
    let backend = "192.0.2.25:25";
    let text = configuration(front, "", backend.parse().unwrap(), "none", "");
    let text = text.replace(backend, &format!("{}:2525", name_of(own)));
    let folder = temporary_folder();
    fs::write(folder.path().join("gateway.toml"), &text).unwrap();
    let output = run(folder.path(), &["check", "-c", "gateway.toml"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is the gateway's own listener") && said.contains("backend `backend`"), "{output:?}");
    knows_itself(&LocalGateway::start(front, &text), front);
}

#[test]
fn so_is_one_that_srv_records_name() {
    if !available("a loop by SRV records", &["dnsmasq"]) {
        return;
    }
    let place = SocketAddr::from((address(), 5353));
    let own = address();
    let record = format!("--srv-host=_smtp._tcp.mail.test,{},2525,1,1", name_of(own));
    let _dns = Dnsmasq::start_at(place, &[record]);
    let front: SocketAddr = (own, 2525).into();
    let backend = "192.0.2.25:25";
    let resolver = format!("[dns]\nservers = [\"{place}\"]\ntimeout = \"1s\"\n");
    let text = configuration(front, "", backend.parse().unwrap(), "none", &resolver);
    let text = text.replace(&format!("address = \"{backend}\""), "srv = \"_smtp._tcp.mail.test\"");
    knows_itself(&LocalGateway::start(front, &text), front);
}
