//! Listening sockets: one for every worker and listener.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Listener;

/// Connections the kernel may hold for a worker that has not accepted them yet.
const BACKLOG: i32 = 1024;

/// A listener's sockets.
#[derive(Debug)]
pub struct BoundListener {
    /// What the configuration says.
    pub configured: SocketAddr,
    /// Where it listens; the port is the kernel's choice where the configuration has 0.
    pub address: SocketAddr,
    pub(super) sockets: Vec<Queue>,
}

/// One socket of a listener: a queue of connections that wait to be accepted.
#[derive(Debug)]
pub(super) struct Queue {
    /// For the worker.
    pub(super) socket: TcpListener,
    /// The same once more, for a process that takes over.
    pub(super) spare: TcpListener,
}

impl Queue {
    fn new(socket: TcpListener) -> io::Result<Self> {
        Ok(Self { spare: socket.try_clone()?, socket })
    }

    /// The same queue for one more worker.
    fn share(&self) -> io::Result<Self> {
        Self::new(self.spare.try_clone()?)
    }
}

impl BoundListener {
    /// Of sockets that another process of this gateway has handed over: all queues that it has.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn adopted(
        configured: SocketAddr,
        address: SocketAddr,
        sockets: impl IntoIterator<Item = TcpListener>,
    ) -> io::Result<Self> {
        let sockets = sockets.into_iter().map(Queue::new).collect::<io::Result<_>>()?;
        Ok(Self { configured, address, sockets })
    }

    /// As many queues as there are workers, at least. A new one takes a privilege that this process may not have any more, or
    /// the user that the others were made by; without, two workers share one.
    fn widen(&mut self, all: &[SocketAddr], workers: usize) -> io::Result<()> {
        let adopted = self.sockets.len();
        for index in adopted..workers {
            let another = match queue(self.address, all) {
                Err(_) if adopted > 0 => self.sockets[index % adopted].share(),
                another => another,
            };
            let another = another?;
            // The kernel's choice, where the port was 0.
            self.address = another.socket.local_addr()?;
            self.sockets.push(another);
        }
        Ok(())
    }
}

/// A listener that cannot listen, in one sentence with its mend.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", mend(*address, source))]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

impl BindError {
    /// Whether starting again cannot mend it: the configuration asks for what this host does not have.
    pub fn is_of_the_configuration(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrNotAvailable || no_ipv6(&self.source)
    }

    /// Whether somebody has the port.
    pub fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

fn mend(address: SocketAddr, source: &io::Error) -> String {
    let port = address.port();
    match source.kind() {
        io::ErrorKind::AddrInUse => format!(
            "the port is in use; see who has it with `ss -ltnp 'sport = :{port}'`, and move that server or this listener"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "port {port} needs a privilege, as all below 1024 do; start as root or with CAP_NET_BIND_SERVICE (systemd: \
             AmbientCapabilities=), the gateway drops it once it listens"
        ),
        io::ErrorKind::AddrNotAvailable => {
            "this host has no such address; write one that `ip address` lists, or \"0.0.0.0\" or \"[::]\" for all of them"
                .to_owned()
        }
        _ if no_ipv6(source) => {
            format!("this host has no IPv6; write an IPv4 address such as \"0.0.0.0:{port}\", or switch IPv6 on")
        }
        _ => source.to_string(),
    }
}

/// What socket(2) says where the kernel was booted without IPv6, or may not use it.
fn no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Binds each of these listeners `workers` times; `all` are the addresses of the whole configuration. Those that are `adopted`
/// are taken as they are, with queues for further workers. Nothing stays bound after an error. Where `[::]` asks for every
/// address of a host without IPv6, its IPv4 addresses are taken, and a sentence for the administrator comes back.
///
/// # Errors
/// The first listener that cannot listen, and why.
pub fn bind(
    listeners: &[Listener],
    all: &[SocketAddr],
    workers: usize,
    mut adopted: Vec<BoundListener>,
) -> Result<(Vec<BoundListener>, Vec<String>), BindError> {
    let error = |address| move |source| BindError { address, source };
    let (mut addresses, mut told) = (Vec::new(), Vec::new());
    for address in listeners.iter().map(|listener| listener.address) {
        // Who was handed its sockets is no second gateway.
        if adopted.iter().any(|adopted| adopted.configured == address) {
            addresses.push((address, address));
            continue;
        }
        // A socket that shares its port would be given one that another gateway shares too; this one would not.
        let probed = socket(address, all).and_then(|probe| probe.bind(&address.into()));
        let bound = match probed {
            Ok(()) => address,
            Err(source) => match without_ipv6(address, &source, all) {
                Some((instead, sentence)) => {
                    let probed = socket(instead, all).and_then(|probe| probe.bind(&instead.into()));
                    probed.map_err(error(instead))?;
                    told.push(sentence);
                    instead
                }
                None => return Err(BindError { address, source }),
            },
        };
        addresses.push((address, bound));
    }
    let bound = addresses.into_iter().map(|(configured, address)| {
        let mut bound = match adopted.iter().position(|adopted| adopted.configured == configured) {
            Some(at) => adopted.swap_remove(at),
            None => BoundListener { configured, address, sockets: Vec::with_capacity(workers) },
        };
        bound.widen(all, workers).map_err(error(address))?;
        Ok(bound)
    });
    Ok((bound.collect::<Result<_, _>>()?, told))
}

/// What to listen on instead of every address, where there is no IPv6; not if a listener of its own has IPv4 already.
fn without_ipv6(address: SocketAddr, error: &io::Error, all: &[SocketAddr]) -> Option<(SocketAddr, String)> {
    let instead = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    (no_ipv6(error) && address.ip() == Ipv6Addr::UNSPECIFIED && !all.contains(&instead)).then(|| {
        let told = format!(
            "this host has no IPv6, so the listener {address} takes IPv4 alone; write \"{instead}\" if that is how it shall be"
        );
        (instead, told)
    })
}

/// One more socket that listens there, beside those that do.
fn queue(address: SocketAddr, all: &[SocketAddr]) -> io::Result<Queue> {
    let socket = socket(address, all)?;
    socket.set_reuse_port(true)?;
    // What a listener has, accepted connections inherit: this saves a system call each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Queue::new(socket.into())
}

fn socket(address: SocketAddr, all: &[SocketAddr]) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // `[::]` takes IPv4 too, unless a listener of its own does.
        socket.set_only_v6(all.contains(&(Ipv4Addr::UNSPECIFIED, address.port()).into()))?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ListenerTls, Service};

    fn listener(address: &str) -> Listener {
        Listener {
            address: address.parse().unwrap(),
            backend: 0,
            tls: ListenerTls::Off,
            proxy_protocol_from: Vec::new(),
            own_connections_from: Vec::new(),
            service: Service::Mx,
            relay_without_auth: false,
        }
    }

    fn bound(listeners: &[Listener], workers: usize) -> Result<(Vec<BoundListener>, Vec<String>), BindError> {
        let all: Vec<_> = listeners.iter().map(|listener| listener.address).collect();
        bind(listeners, &all, workers, Vec::new())
    }

    #[test]
    fn workers_share_one_port() {
        let bound = bound(&[listener("127.0.0.1:0")], 2).unwrap().0;
        assert_ne!(bound[0].address.port(), 0);
        assert!(bound[0].sockets.iter().all(|queue| queue.socket.local_addr().unwrap() == bound[0].address));
    }

    #[test]
    fn a_port_that_another_gateway_shares_is_in_use() {
        let other = bound(&[listener("127.0.0.1:0")], 1).unwrap().0;
        let address = other[0].address;
        let error = bound(&[listener(&address.to_string())], 1).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address}: the port is in use; ")), "{error}");
    }

    #[test]
    fn what_is_handed_over_is_let_in_and_every_queue_is_kept() {
        let other = bound(&[listener("127.0.0.1:0")], 2).unwrap().0.remove(0);
        let address = other.address;
        let configured = [listener(&address.to_string())];
        for workers in [1, 2, 5] {
            let sockets = other.sockets.iter().map(|queue| queue.spare.try_clone().unwrap());
            let adopted = BoundListener::adopted(address, address, sockets).unwrap();
            let bound = bind(&configured, &[address], workers, vec![adopted]).unwrap().0;
            assert_eq!((bound[0].address, bound[0].sockets.len()), (address, workers.max(2)));
            assert!(bound[0].sockets.iter().all(|queue| queue.socket.local_addr().unwrap() == address));
        }
        assert!(bind(&configured, &[address], 1, Vec::new()).is_err(), "a stranger's gateway stays out");
    }

    #[test]
    fn both_families_may_have_their_own_listener() {
        let free = bound(&[listener("0.0.0.0:0")], 1).unwrap().0;
        let port = free[0].address.port();
        drop(free);
        let both = [listener(&format!("0.0.0.0:{port}")), listener(&format!("[::]:{port}"))];
        assert_eq!(bound(&both, 2).unwrap().0.len(), 2);
    }

    #[test]
    fn what_cannot_be_listened_on_is_a_sentence() {
        use rustix::io::Errno;
        let sentence = |address: &str, errno: Errno| {
            let error = BindError { address: address.parse().unwrap(), source: errno.into() };
            (error.to_string(), error.is_of_the_configuration())
        };
        for (address, errno, words, of_the_configuration) in [
            ("192.0.2.1:25", Errno::ADDRNOTAVAIL, "this host has no such address", true),
            ("[2001:db8::1]:25", Errno::AFNOSUPPORT, "write an IPv4 address such as \"0.0.0.0:25\"", true),
            ("0.0.0.0:25", Errno::ACCESS, "port 25 needs a privilege", false),
            ("0.0.0.0:25", Errno::ADDRINUSE, "`ss -ltnp 'sport = :25'`", false),
        ] {
            let (said, fault) = sentence(address, errno);
            assert!(said.starts_with(&format!("cannot listen on {address}: ")) && said.contains(words), "{said}");
            assert_eq!(fault, of_the_configuration, "{said}");
        }
        assert!(bound(&[listener("192.0.2.77:0")], 1).unwrap_err().is_of_the_configuration());
    }

    #[test]
    fn every_address_of_a_host_without_ipv6_is_every_ipv4_address() {
        let error = io::Error::from(rustix::io::Errno::AFNOSUPPORT);
        let instead = |address: &str, all: &[&str]| {
            let all: Vec<_> = all.iter().map(|address| address.parse().unwrap()).collect();
            without_ipv6(address.parse().unwrap(), &error, &all).map(|(instead, _)| instead.to_string())
        };
        assert_eq!(instead("[::]:25", &["[::]:25"]).as_deref(), Some("0.0.0.0:25"));
        assert_eq!(instead("[::]:25", &["[::]:25", "0.0.0.0:25"]), None);
        assert_eq!(instead("[2001:db8::1]:25", &[]), None);
        let other = io::Error::from(io::ErrorKind::AddrInUse);
        assert!(without_ipv6("[::]:25".parse().unwrap(), &other, &[]).is_none());
    }
}
