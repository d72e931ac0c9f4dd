//! What to do about a finding, in the words of the server that has it.
//!
//! Each mend names the setting, the value, how to make the server read it, and nothing else: whoever reads it has a relay to
//! close.

use std::net::IpAddr;

use crate::config::{IdentityMode, ServerKind};
use crate::identity::host::Forwarder;

use super::judge::Finding;

/// What the advice must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The server, if it was recognised.
    pub kind: Option<ServerKind>,
    /// How it is told who clients are.
    pub mode: IdentityMode,
    /// The gateway's address as the backend sees it.
    pub gateway: String,
}

/// The mend, where there is one at the backend.
pub fn mend(finding: &Finding, facts: &Facts) -> Option<String> {
    Some(match finding {
        Finding::TrustsGateway(_) => trust(facts),
        Finding::IgnoresIdentity(_) if !facts.mode.tells() => {
            format!("give this backend an `identity` by which it can decide: {}", identity(facts))
        }
        Finding::IgnoresIdentity(_) | Finding::IdentityUndeliverable(_) | Finding::NotBelieved => identity(facts),
        Finding::IdentityGrantsTrust(_) => granted(facts),
        Finding::FrontDoorRelays(_) => {
            "mend the backend first; until then set `relay.on_open = \"defer\"`, and look through `relay.local_domains` \
             for domains that are not its own"
                .to_owned()
        }
        Finding::Forgeable | Finding::XclientStillOffered => forgeable(facts),
        Finding::UnknownUsersFromGateway => {
            format!("as for trust in the gateway's address: {}", trust(facts))
        }
        Finding::NoLoginFromGateway => no_login(facts),
        Finding::LoginInClear => "set `tls` for the listener that users log in at".to_owned(),
        Finding::AnyPassword => any_password(facts),
        Finding::CatchAll | Finding::Backscatter(_) => recipients(facts),
        Finding::BareNewline { .. } => bare_newline(facts),
        Finding::NoErrorLimit => error_limit(facts),
        Finding::HiddenClients(forwarders) => hidden_clients(forwarders),
        Finding::Busy(..) => busy(facts),
        Finding::GuardHolds | Finding::RestLater(..) | Finding::Undecided(..) | Finding::LoginUndecided(_) => {
            return None;
        }
    })
}

fn any_password(facts: &Facts) -> String {
    match facts.kind {
        Some(ServerKind::Postfix | ServerKind::Dovecot) => {
            "see what Dovecot says to `doveadm auth test NAME PASSWORD`, and take `nopassword` and a `driver = static` without a \
             password out of its `passdb`; with Cyrus, see `testsaslauthd -u NAME -p PASSWORD` and `auxprop_plugin`; then \
             reload it"
                .to_owned()
        }
        Some(ServerKind::Exim) => "look at `server_condition` of its authenticators: it must compare the password, and an empty \
                                   or failed look-up must not be true"
            .to_owned(),
        _ => "have it check the passwords of its users before it lets anybody send".to_owned(),
    }
}

fn no_login(facts: &Facts) -> String {
    match facts.kind {
        Some(ServerKind::Postfix) => format!(
            "for its submission service in master.cf, take `permit_mynetworks` out of `smtpd_client_restrictions`, \
             `smtpd_recipient_restrictions` and `smtpd_relay_restrictions` (`permit_sasl_authenticated,reject` is enough), and {} \
             out of `mynetworks`; then `postfix reload`",
            facts.gateway
        ),
        Some(ServerKind::Dovecot) => {
            format!("take {} out of `login_trusted_networks`; then `doveadm reload`", facts.gateway)
        }
        _ => format!("as for trust in the gateway's address: {}", trust(facts)),
    }
}

fn hidden_clients(forwarders: &[(IpAddr, Forwarder)]) -> String {
    let ips: Vec<_> = forwarders.iter().map(|(ip, _)| ip.to_string()).collect();
    format!(
        "take {} out of `relay.allowed_networks`: list the machines that send, one by one (`\"10.0.0.31/32\"`), or let them \
         log in at the mail server; and let whatever forwards port 25 to the gateway keep its clients' addresses (a container: \
         the host's network; a cluster: `externalTrafficPolicy: Local`; a router: no masquerading of what it forwards; a load \
         balancer: its PROXY protocol, here `proxy_protocol_from`)",
        ips.join(" and ")
    )
}

/// What to raise where the gateway's sessions, which all come from one address, meet a limit for one address.
fn busy(facts: &Facts) -> String {
    let Facts { gateway, .. } = facts;
    match facts.kind {
        Some(ServerKind::Postfix) => format!(
            "put {gateway} into `smtpd_client_event_limit_exceptions` in main.cf (not into `mynetworks`), or raise \
             `smtpd_client_connection_count_limit` and `smtpd_client_connection_rate_limit`, and `default_process_limit` if all \
             `smtpd` are taken; then `postfix reload`"
        ),
        Some(ServerKind::Exim) => {
            "raise `smtp_accept_max_per_host` and `smtp_accept_max` in its main section; then `systemctl reload exim4`"
                .to_owned()
        }
        Some(ServerKind::Exchange) => {
            "on the connector that the gateway uses: `Set-ReceiveConnector NAME -MaxInboundConnectionPerSource Unlimited \
             -MaxInboundConnectionPercentagePerSource 100 -MessageRateLimit Unlimited`"
                .to_owned()
        }
        Some(ServerKind::OpenSmtpd) => {
            "raise the limits of sessions (`limit session`, and the open files that its user may have); then restart it".to_owned()
        }
        Some(ServerKind::Sendmail) => format!(
            "write `ClientConn:{gateway} 0` and `ClientRate:{gateway} 0` into /etc/mail/access, and raise \
             `confMAX_DAEMON_CHILDREN`; then `makemap hash /etc/mail/access < /etc/mail/access` and restart it"
        ),
        Some(ServerKind::Haraka) => {
            format!("exempt {gateway} in config/limit.ini (`[concurrency]`, `[rate_conn]`); then restart it")
        }
        Some(ServerKind::Dovecot) => {
            "raise `client_limit` and `process_limit` of `service submission-login`; then `doveadm reload`".to_owned()
        }
        Some(ServerKind::Sink) | None => {
            format!("raise what it allows one address in sessions at once and in sessions a minute, for {gateway}")
        }
    }
}

fn trust(facts: &Facts) -> String {
    let Facts { gateway, .. } = facts;
    match facts.kind {
        Some(ServerKind::Postfix) => format!(
            "take {gateway}, and every network that holds it, out of `mynetworks` in main.cf (`postconf mynetworks` shows it; \
             where it is not set, `mynetworks_style = host`), also from any `check_client_access` that says OK to it; then \
             `postfix reload`"
        ),
        Some(ServerKind::Exim) => format!(
            "take {gateway}, and every network that holds it, out of `hostlist relay_from_hosts` (Debian: \
             `dc_relay_nets` in /etc/exim4/update-exim4.conf.conf, then `update-exim4.conf`); then `systemctl reload exim4`"
        ),
        Some(ServerKind::Exchange) => format!(
            "`Get-ReceiveConnector | fl Name,RemoteIPRanges,PermissionGroups,AuthMechanism` shows the connector whose \
             RemoteIPRanges hold {gateway}; on it, take away the right to relay: `Get-ReceiveConnector NAME | \
             Remove-ADPermission -User 'NT AUTHORITY\\ANONYMOUS LOGON' -ExtendedRights Ms-Exch-SMTP-Accept-Any-Recipient`, \
             and `Set-ReceiveConnector NAME -AuthMechanism Tls -PermissionGroups AnonymousUsers` if it has ExternalAuthoritative"
        ),
        Some(ServerKind::OpenSmtpd) => format!(
            "in smtpd.conf, take {gateway} out of the rule that relays (`match from src … for any action \"relay\"`, also \
             `match from any for any`, and `from local` where it is meant); then `smtpctl stop` and start it"
        ),
        Some(ServerKind::Sendmail) => format!(
            "take {gateway}, and every network that holds it, out of /etc/mail/relay-domains and out of `RELAY` lines in \
             /etc/mail/access; then `makemap hash /etc/mail/access < /etc/mail/access` and restart it"
        ),
        Some(ServerKind::Haraka) => format!(
            "take {gateway} out of config/relay_acl_allow (plugin `relay`) and restart it; `relay` must see the client that \
             XCLIENT or PROXY names"
        ),
        Some(ServerKind::Dovecot) => format!(
            "take {gateway}, and every network that holds it, out of `login_trusted_networks` (and `submission_relay_trusted`); \
             then `doveadm reload`"
        ),
        Some(ServerKind::Sink) => format!("start it without `--trust` for {gateway}"),
        None => format!(
            "take {gateway}, and every network that holds it, off the list of hosts that may relay (mynetworks, \
             relay_from_hosts, receive connector, trusted networks: whatever it is called there)"
        ),
    }
}

fn identity(facts: &Facts) -> String {
    let Facts { gateway, mode, .. } = facts;
    let proxy = mode.is_proxy();
    match facts.kind {
        _ if mode.is_transparent() => format!(
            "let its replies to clients take the way through {gateway}, without translation of addresses on the way; \
             `smtp-gateway network show` prints what that takes there and here, `smtp-gateway network up` does it here"
        ),
        Some(ServerKind::Postfix) if proxy => {
            "set `smtpd_upstream_proxy_protocol = haproxy` for the listener that the gateway uses (behind postscreen: \
             `postscreen_upstream_proxy_protocol = haproxy`), on a port that nobody else can reach; then `postfix reload`"
                .to_owned()
        }
        Some(ServerKind::Postfix) => format!(
            "set `smtpd_authorized_xclient_hosts = {gateway}` in main.cf, here `identity = \"xclient\"`; then `postfix reload`"
        ),
        Some(ServerKind::Exim) if proxy => {
            format!("set `hosts_proxy = {gateway}` in the main section of its configuration; then `systemctl reload exim4`")
        }
        Some(ServerKind::Exim) => format!(
            "set `hosts_proxy = {gateway}` in the main section of its configuration, here `identity = \"proxy-v2\"`; then \
             `systemctl reload exim4`"
        ),
        Some(ServerKind::Exchange) => {
            "Exchange takes neither XCLIENT nor PROXY: here `identity = \"transparent\"`, with the routing that `smtp-gateway \
             network show` prints. Where that is not possible, the guard of `[relay]` is what stands before it: take the \
             gateway's right to relay away there, and let internal hosts that relay speak to Exchange directly"
                .to_owned()
        }
        Some(ServerKind::OpenSmtpd) => {
            "write `proxy-v2` behind `listen on …` for the listener that the gateway uses, here `identity = \"proxy-v2\"`; \
             then restart it"
                .to_owned()
        }
        Some(ServerKind::Haraka) if proxy => {
            format!("name {gateway} in `[haproxy] hosts[]` of config/connection.ini; then restart it")
        }
        Some(ServerKind::Haraka) => {
            format!("enable its plugin `xclient` and name {gateway} in config/xclient.hosts; then restart it")
        }
        Some(ServerKind::Dovecot) if proxy => {
            format!("set `haproxy = yes` on the listener and `haproxy_trusted_networks = {gateway}`; then `doveadm reload`")
        }
        Some(ServerKind::Dovecot) => {
            format!("name {gateway} in `login_trusted_networks`, which XCLIENT needs there; then `doveadm reload`")
        }
        Some(ServerKind::Sink) => {
            let mode = if mode.tells() { *mode } else { IdentityMode::Xclient };
            format!("start it with `--identity {}`", mode.as_str())
        }
        Some(ServerKind::Sendmail) | None => format!(
            "let it believe {gateway} about who the client is: by XCLIENT or a PROXY header if it knows one (`identity`); \
             if not, use `identity = \"transparent\"`, with the routing that `smtp-gateway network show` prints"
        ),
    }
}

fn granted(facts: &Facts) -> String {
    let strangers = "a stranger may relay there and the gateway may not: look for a rule that trusts ";
    match facts.kind {
        Some(ServerKind::Postfix) => format!(
            "{strangers}clients by what XCLIENT or PROXY sets: networks in `mynetworks` that are not yours, \
             `permit_sasl_authenticated` with XCLIENT LOGIN, or name-based `check_client_access`"
        ),
        Some(ServerKind::Exim) => {
            format!("{strangers}`relay_from_hosts` entries that are not yours, or `hosts_proxy` in an ACL condition")
        }
        Some(ServerKind::OpenSmtpd) => format!("{strangers}`match from any for any action \"relay\"`"),
        _ => format!("{strangers}networks that are not yours, or whoever comes with an identity"),
    }
}

fn forgeable(facts: &Facts) -> String {
    let Facts { gateway, mode, .. } = facts;
    match (facts.kind, mode) {
        (Some(ServerKind::Postfix), IdentityMode::Xclient) => {
            format!("let `smtpd_authorized_xclient_hosts` be {gateway} and nothing else; then `postfix reload`")
        }
        (Some(ServerKind::Exim), _) => {
            format!("let `hosts_proxy` be {gateway} and nothing else; then `systemctl reload exim4`")
        }
        (Some(ServerKind::Haraka), _) => {
            format!("let config/xclient.hosts and `[haproxy] hosts[]` be {gateway} and nothing else; then restart it")
        }
        (Some(ServerKind::Dovecot), _) => {
            format!("let `haproxy_trusted_networks` and `login_trusted_networks` be {gateway} and nothing else")
        }
        (Some(ServerKind::Sink), _) => format!("start it with `--xclient-from {gateway}` alone"),
        _ => format!(
            "it believes whoever comes: let a packet filter admit nobody but {gateway} to that port, for example `nft add \
             rule inet filter input tcp dport 25 ip saddr != {gateway} drop`"
        ),
    }
}

fn recipients(facts: &Facts) -> String {
    match facts.kind {
        Some(ServerKind::Postfix) => {
            "if it is no catch-all on purpose, set `local_recipient_maps`, `virtual_mailbox_maps` or `relay_recipient_maps` \
             to the users there are, and leave `allow_percent_hack = no`"
                .to_owned()
        }
        Some(ServerKind::Exim) => "if it is no catch-all on purpose, write `require verify = recipient` into the RCPT ACL, \
                                   and deny local parts with `%`, `!` and `@`"
            .to_owned(),
        Some(ServerKind::Exchange) => {
            "if it is no catch-all on purpose: `Set-RecipientFilterConfig -RecipientValidationEnabled $true`, with the \
             antispam agents installed"
                .to_owned()
        }
        _ => "if it is no catch-all on purpose, have it refuse users that do not exist at RCPT, before it takes their mail"
            .to_owned(),
    }
}

fn bare_newline(facts: &Facts) -> String {
    match facts.kind {
        Some(ServerKind::Postfix) => "set `smtpd_forbid_bare_newline = normalize` and keep the gateway out of \
                                      `smtpd_forbid_bare_newline_exclusions` (by default `$mynetworks`); then `postfix reload`"
            .to_owned(),
        Some(ServerKind::Exim) => "update Exim to 4.97.1 or later".to_owned(),
        Some(ServerKind::Sendmail) => "update Sendmail to 8.18.1 or later".to_owned(),
        _ => "update it to a version that ends a message at CRLF.CRLF only (SMTP smuggling); the gateway sends it nothing \
              else, but others may reach it"
            .to_owned(),
    }
}

fn error_limit(facts: &Facts) -> String {
    match facts.kind {
        Some(ServerKind::Postfix) => {
            format!("keep {} out of `smtpd_client_event_limit_exceptions` (by default `$mynetworks`)", facts.gateway)
        }
        _ => format!("take the exception from its limits that {} has there", facts.gateway),
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::ProbeKind;
    use super::*;

    const KINDS: [Option<ServerKind>; 9] = [
        Some(ServerKind::Postfix),
        Some(ServerKind::Exim),
        Some(ServerKind::Exchange),
        Some(ServerKind::OpenSmtpd),
        Some(ServerKind::Sendmail),
        Some(ServerKind::Haraka),
        Some(ServerKind::Dovecot),
        Some(ServerKind::Sink),
        None,
    ];

    #[test]
    fn every_finding_has_its_mend_for_every_server() {
        let ids = || vec!["A01".into()];
        for kind in KINDS {
            for mode in IdentityMode::ALL {
                let facts = Facts { kind, mode, gateway: "198.51.100.1".into() };
                for finding in [
                    Finding::TrustsGateway(ids()),
                    Finding::IgnoresIdentity(ids()),
                    Finding::IdentityGrantsTrust(ids()),
                    Finding::FrontDoorRelays(ids()),
                    Finding::IdentityUndeliverable("why".into()),
                    Finding::Forgeable,
                    Finding::XclientStillOffered,
                    Finding::NotBelieved,
                    Finding::UnknownUsersFromGateway,
                    Finding::CatchAll,
                    Finding::Backscatter(ids()),
                    Finding::BareNewline { outsider: true },
                    Finding::NoErrorLimit,
                    Finding::NoLoginFromGateway,
                    Finding::LoginInClear,
                    Finding::AnyPassword,
                    Finding::HiddenClients(vec![(IpAddr::from([192, 168, 1, 1]), Forwarder::Router)]),
                    Finding::Busy(ProbeKind::Naked, "why".into()),
                ] {
                    let mend = mend(&finding, &facts).unwrap();
                    assert!(mend.len() > 20 && !mend.contains("  "), "{mend}");
                }
            }
        }
    }

    #[test]
    fn the_exact_words_of_each_server() {
        for (kind, words) in [
            (Some(ServerKind::Postfix), "mynetworks"),
            (Some(ServerKind::Exim), "relay_from_hosts"),
            (Some(ServerKind::Exchange), "Get-ReceiveConnector"),
            (Some(ServerKind::OpenSmtpd), "match from src"),
            (Some(ServerKind::Dovecot), "login_trusted_networks"),
        ] {
            let facts = Facts { kind, mode: IdentityMode::Xclient, gateway: "198.51.100.1".into() };
            let mend = mend(&Finding::TrustsGateway(Vec::new()), &facts).unwrap();
            assert!(mend.contains(words) && mend.contains("198.51.100.1"), "{mend}");
        }
    }
}
