//! A plain TCP forwarder: what stands before many mail servers, and tells them nothing.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::net::Host;

/// Forwards until it is dropped.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// To wake it.
    host: Host,
}

impl Forwarder {
    /// From this address of a host to a mail server.
    pub fn start(host: &Host, address: SocketAddr, server: SocketAddr) -> Self {
        let listener = host.within(|| TcpListener::bind(address)).expect("a listener");
        let stop = Arc::new(AtomicBool::new(false));
        let (own, is_over) = (host.clone(), stop.clone());
        let thread = thread::spawn(move || {
            for client in listener.incoming() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), Ok(server)) = (client, own.connect(server)) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    thread::spawn(move || carry(from, to));
                }
            }
        });
        Self { address, stop, thread: Some(thread), host: host.clone() }
    }
}

/// Whoever is gone is gone for both.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The connection is what it waits for.
        let _ = self.host.connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
