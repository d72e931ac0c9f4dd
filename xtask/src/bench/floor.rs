//! The floor: what the kernel alone costs. One loop a thread that accepts, connects and moves octets by the system calls a
//! proxy cannot do without, and looks at none of them. What a proxy costs above it is the proxy's own.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::{Errno, read, write};
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, accept_with, connect, shutdown, socket_with, sockopt,
};
use socket2::{Domain, Socket, Type};

const THREADS: usize = 2;
const BUFFER: usize = 64 << 10;
const BACKLOG: i32 = 1024;
/// The listener's number among the events; a connection's two ends have twice its place, and that and one.
const LISTENER: u64 = u64::MAX;

/// One side of a connection, and what was read from the other side and found no room here.
struct End {
    socket: OwnedFd,
    pending: Vec<u8>,
    /// Nothing more comes from it.
    is_over: bool,
}

/// Connections by place; a freed place is taken again.
#[derive(Default)]
struct Connections {
    pairs: Vec<Option<[End; 2]>>,
    free: Vec<usize>,
}

/// Forwards connections from `listen` to `backend`, for ever.
pub(super) fn run(listen: SocketAddr, backend: SocketAddr) -> io::Result<()> {
    let listeners = (0..THREADS).map(|_| listener(listen)).collect::<io::Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            listeners.into_iter().map(|listener| scope.spawn(move || turn(&listener, backend))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| io::Error::other("a thread panicked"))?)
    })
}

fn listener(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_port(true)?;
    // Inherited by what is accepted.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn turn(listener: &Socket, backend: SocketAddr) -> io::Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut connections = Connections::default();
    let mut events = Vec::with_capacity(1024);
    let mut buffer = vec![0; BUFFER];
    loop {
        events.clear();
        match epoll::wait(&poll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let number = event.data.u64();
            if number == LISTENER {
                open(listener, backend, &poll, &mut connections)?;
            } else {
                let flags = event.flags;
                connections.moved(usize::try_from(number).unwrap_or(usize::MAX), flags, &mut buffer);
            }
        }
    }
}

/// One connection: the listener tells again if there are more.
fn open(listener: &Socket, backend: SocketAddr, poll: &OwnedFd, connections: &mut Connections) -> io::Result<()> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let client = match accept_with(listener, flags) {
        Ok(client) => client,
        Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let family = if backend.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let server = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&server, true)?;
    match connect(&server, &backend) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let place = connections.free.pop().unwrap_or_else(|| {
        connections.pairs.push(None);
        connections.pairs.len() - 1
    });
    let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
    for (side, socket) in [&client, &server].into_iter().enumerate() {
        epoll::add(poll, socket, EventData::new_u64((place * 2 + side) as u64), interest)?;
    }
    let end = |socket| End { socket, pending: Vec::new(), is_over: false };
    connections.pairs[place] = Some([end(client), end(server)]);
    Ok(())
}

impl Connections {
    /// Something happened at an end; a connection that is over is closed.
    fn moved(&mut self, number: usize, flags: EventFlags, buffer: &mut [u8]) {
        let (place, side) = (number / 2, number % 2);
        let Some(pair) = self.pairs.get_mut(place).and_then(Option::as_mut) else { return };
        let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let [client, server] = pair;
        let (this, other) = if side == 0 { (client, server) } else { (server, client) };
        let mut done = Ok(());
        if flags.contains(EventFlags::OUT) && !this.pending.is_empty() {
            // What waited for room goes first, and then what was not read meanwhile.
            done = flush(this)
                .and_then(|()| if this.pending.is_empty() { pump(other, this, true, buffer) } else { Ok(()) });
        }
        if done.is_ok() && (ended || flags.contains(EventFlags::IN)) {
            done = pump(this, other, ended, buffer);
        }
        if done.is_err() || pair.iter().all(|end| end.is_over) {
            self.pairs[place] = None;
            self.free.push(place);
        }
    }
}

fn flush(end: &mut End) -> Result<(), Errno> {
    while !end.pending.is_empty() {
        match write(&end.socket, &end.pending) {
            Ok(written) => drop(end.pending.drain(..written)),
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Moves what there is from one end to the other. After a short read there is no more, unless the end said it has `ended`.
fn pump(from: &mut End, to: &mut End, ended: bool, buffer: &mut [u8]) -> Result<(), Errno> {
    while to.pending.is_empty() && !from.is_over {
        let got = match read(&from.socket, &mut *buffer) {
            Ok(0) => {
                from.is_over = true;
                // The other side may have gone already.
                let _ = shutdown(to.socket.as_fd(), Shutdown::Write);
                return Ok(());
            }
            Ok(got) => got,
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error),
        };
        to.pending.extend_from_slice(match write(&to.socket, &buffer[..got]) {
            Ok(written) => &buffer[written..got],
            // Not yet connected, or full.
            Err(Errno::AGAIN | Errno::NOTCONN) => &buffer[..got],
            Err(error) => return Err(error),
        });
        if got < buffer.len() && !ended {
            return Ok(());
        }
    }
    Ok(())
}
