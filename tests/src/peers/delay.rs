//! A long way: what is sent arrives later, in both directions, and whatever breaks on it is counted.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::net::Host;

/// Carries connections until it is dropped.
#[derive(Debug)]
pub struct Delay {
    address: SocketAddr,
    broken: Arc<Broken>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    host: Host,
}

/// What did not go well.
#[derive(Debug, Default)]
pub struct Broken {
    /// Connections that the server did not take.
    pub refused: AtomicUsize,
    /// Connections that the server reset.
    pub reset: AtomicUsize,
}

impl Delay {
    /// From this address of a host to a server; each octet takes this long.
    pub fn start(host: &Host, address: SocketAddr, server: SocketAddr, delay: Duration) -> Self {
        let listener = host.within(|| TcpListener::bind(address)).expect("a listener");
        let (broken, stop) = (Arc::<Broken>::default(), Arc::<AtomicBool>::default());
        let (own, is_over, count) = (host.clone(), stop.clone(), broken.clone());
        let thread = thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(server) = own.connect(server) else {
                    count.refused.fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).expect("a socket");
                }
                let clone = |stream: &TcpStream| stream.try_clone().expect("a socket");
                carry(clone(&client), clone(&server), delay, |_| {});
                let count = count.clone();
                carry(server, client, delay, move |error| {
                    if error.kind() == io::ErrorKind::ConnectionReset {
                        count.reset.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self { address, broken, stop, thread: Some(thread), host: host.clone() }
    }

    /// What did not go well so far.
    pub fn broken(&self) -> &Broken {
        &self.broken
    }
}

/// One direction, on threads of its own, to its end.
fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration, broken: impl FnOnce(&io::Error) + Send + 'static) {
    type Piece = (Instant, Vec<u8>);
    let (sender, arriving): (Sender<Piece>, Receiver<Piece>) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    if sender.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
                        return;
                    }
                }
                Err(error) => return broken(&error),
            }
        }
    });
    thread::spawn(move || {
        for (at, bytes) in arriving {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        // Whoever is gone is gone for both; an end takes as long as the rest.
        thread::sleep(delay);
        let _ = to.shutdown(Shutdown::Write);
    });
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The connection is what it waits for.
        let _ = self.host.connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
