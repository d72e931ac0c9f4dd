//! The usual setting: a gateway that tells a Postfix who the client is, by XCLIENT.

use super::gateway::Gateway;
use super::net::Trio;
use super::postfix::{Postfix, Temper};
use super::{Backend as _, available};

/// Fields go in this order when it is dropped: nobody loses a network while it runs.
#[derive(Debug)]
pub struct Setting {
    /// In the middle.
    pub gateway: Gateway,
    /// Behind it.
    pub backend: Postfix,
    /// The hosts; the client's is free.
    pub trio: Trio,
}

impl Setting {
    /// `None` if the scenario cannot run here, for want of root, of Postfix or of these other peers.
    pub fn new(scenario: &str, others: &[&str]) -> Option<Self> {
        if !available(scenario, &[others, &["postfix"]].concat()) {
            return None;
        }
        let trio = Trio::new();
        let backend = Postfix::start(&trio.backend, Temper::Xclient);
        let gateway = Gateway::start(&trio, backend.address(), "xclient");
        Some(Self { gateway, backend, trio })
    }
}
