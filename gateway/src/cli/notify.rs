//! Word to the service manager, by sd_notify(3): one datagram to the socket it names.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::warn;

use crate::time::clock::now_ns;

/// That a reload begins; with the time, by which it tells one from the next.
pub(super) fn reloading() -> String {
    format!("RELOADING=1\nMONOTONIC_USEC={}", now_ns() / 1000)
}

/// Tells it `state`, if there is one.
pub(super) fn service_manager(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, state) {
        warn!(%error, state, "cannot notify the service manager");
    }
}

fn send(socket: &OsString, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}
