//! Listening sockets: one for every listener, and one more for every so many workers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Listener;

/// Connections that a queue may hold which nobody has accepted yet.
const BACKLOG: i32 = 4096;
/// Workers that wait at one queue. Together they take what comes as they have time; but the kernel wakes all of them that sleep
/// for each connection, and one has it.
const WORKERS_A_QUEUE: usize = 4;

/// A listener's sockets.
#[derive(Debug)]
pub struct BoundListener {
    /// What the configuration says.
    pub configured: SocketAddr,
    /// Where it listens; the port is the kernel's choice where the configuration has 0.
    pub address: SocketAddr,
    /// Its queues, for a process that takes over.
    pub(super) queues: Vec<TcpListener>,
    /// The same for each worker: those that it waits at.
    pub(super) shares: Vec<Vec<TcpListener>>,
}

impl BoundListener {
    /// Of sockets that another process of this gateway has handed over: all queues that it has.
    pub fn adopted(
        configured: SocketAddr,
        address: SocketAddr,
        sockets: impl IntoIterator<Item = TcpListener>,
    ) -> Self {
        Self { configured, address, queues: sockets.into_iter().collect(), shares: Vec::new() }
    }

    /// Queues enough for so many workers. Another takes a privilege that this process may not have any more, or the user that
    /// those before were made by; without, more workers share what there is.
    fn widen(&mut self, all: &[SocketAddr], workers: usize) -> io::Result<()> {
        let adopted = self.queues.len();
        while self.queues.len() < workers.div_ceil(WORKERS_A_QUEUE) {
            let another = match queue(self.address, all) {
                Err(_) if adopted > 0 => break,
                another => another?,
            };
            // The kernel's choice, where the port was 0.
            self.address = another.local_addr()?;
            self.queues.push(another);
        }
        Ok(())
    }

    /// Sets so many workers to the queues. There may be more of these than are needed, of a gateway that had more; one that
    /// nobody serves would reset who waits in it.
    fn share(&mut self, workers: usize) -> io::Result<()> {
        let groups = workers.div_ceil(WORKERS_A_QUEUE).min(self.queues.len());
        let of = |worker| self.queues.iter().skip(worker % groups).step_by(groups).map(TcpListener::try_clone);
        self.shares = (0..workers).map(|worker| of(worker).collect()).collect::<io::Result<_>>()?;
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

/// Binds each of these listeners for so many workers; `all` are the addresses of the whole configuration. Those that are
/// `adopted` are taken as they are, with queues for further workers. Nothing stays bound after an error. Where `[::]` asks for every
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
            None => BoundListener::adopted(configured, address, []),
        };
        bound.widen(all, workers).and_then(|()| bound.share(workers)).map_err(error(address))?;
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
fn queue(address: SocketAddr, all: &[SocketAddr]) -> io::Result<TcpListener> {
    let socket = socket(address, all)?;
    socket.set_reuse_port(true)?;
    // What a listener has, accepted connections inherit: this saves a system call each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
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
        let bound = bound(&[listener("127.0.0.1:0")], 9).unwrap().0;
        assert_ne!(bound[0].address.port(), 0);
        assert_eq!((bound[0].queues.len(), bound[0].shares.len()), (3, 9));
        assert!(bound[0].shares.iter().all(|share| share.len() == 1));
        assert!(bound[0].queues.iter().all(|queue| queue.local_addr().unwrap() == bound[0].address));
    }

    /// Which of these queues each worker waits at.
    fn served(queues: usize, workers: usize) -> Vec<Vec<usize>> {
        let queues: Vec<_> = (0..queues).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<_> = queues.iter().map(|queue| queue.local_addr().unwrap()).collect();
        let mut bound = BoundListener::adopted(ports[0], ports[0], queues);
        bound.share(workers).unwrap();
        let place = |socket: &TcpListener| ports.iter().position(|port| *port == socket.local_addr().unwrap()).unwrap();
        bound.shares.iter().map(|share| share.iter().map(place).collect()).collect()
    }

    #[test]
    fn every_queue_is_served_and_every_worker_serves() {
        assert_eq!(served(1, 2), [[0], [0]]);
        assert_eq!(served(2, 2), [[0, 1], [0, 1]], "of a gateway that had a queue for each worker");
        assert_eq!(served(3, 1), [[0, 1, 2]]);
        assert_eq!(served(2, 8), [[0], [1], [0], [1], [0], [1], [0], [1]]);
        assert_eq!(served(3, 5), [vec![0, 2], vec![1], vec![0, 2], vec![1], vec![0, 2]]);
        assert_eq!(served(1, 9).concat(), [0; 9], "no other could be had");
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
        let other = bound(&[listener("127.0.0.1:0")], 5).unwrap().0.remove(0);
        let address = other.address;
        let configured = [listener(&address.to_string())];
        for (workers, queues) in [(1, 2), (2, 2), (9, 3)] {
            let sockets = other.queues.iter().map(|queue| queue.try_clone().unwrap());
            let adopted = BoundListener::adopted(address, address, sockets);
            let bound = bind(&configured, &[address], workers, vec![adopted]).unwrap().0;
            assert_eq!((bound[0].address, bound[0].queues.len(), bound[0].shares.len()), (address, queues, workers));
            assert!(bound[0].queues.iter().all(|queue| queue.local_addr().unwrap() == address));
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
