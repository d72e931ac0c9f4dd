//! The process that takes over from another: what it is handed, and the steps until it serves.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use crate::accept::BoundListener;
use crate::config::{Config, OnOpen};
use crate::control::{AskError, Predecessor};
use crate::observe::counters::{CounterSet, Counters};
use crate::observe::counts::Counts;
use crate::observe::events;
use crate::time::clock::{now, since_1970};
use crate::tls::TicketKeys;
use crate::verdicts::Verdicts;

use super::backends::Backends;
use super::handover::{News, Offer, Serving, State, VERSION, Word};
use super::journal::{Entry, millis};
use super::log_levels::OtherLevel;

/// How long the other may take for a word: it has nothing to do but to write it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What another process of this gateway hands over.
#[derive(Debug)]
pub struct Inheritance {
    predecessor: Predecessor,
    offer: Offer,
    /// Standard output and error.
    output: Option<[OwnedFd; 2]>,
    control: Option<UnixListener>,
    metrics: Option<TcpListener>,
    listeners: Vec<BoundListener>,
}

/// Why this process cannot take over; the other goes on.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// The gateway will not, or there is none.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// It speaks of other things.
    #[error(
        "the gateway that runs hands over by other words (version {0}, and this program's are version {VERSION}); this takes a \
         restart"
    )]
    Version(u32),
    /// Not as many sockets came as it speaks of.
    #[error("the gateway that runs did not hand over the sockets that it has; this takes a restart")]
    Sockets,
    /// The connection.
    #[error("the gateway that runs has ended, or has given this process up: {0}")]
    Gone(#[source] io::Error),
    /// It has a kernel side, and this process cannot have it.
    #[error("the kernel side cannot be taken over: {0}")]
    Kernel(String),
}

impl Inheritance {
    /// Asks the gateway behind this control socket to hand over.
    ///
    /// # Errors
    /// It will not, or there is none.
    pub fn ask(socket: &Path) -> Result<Self, TakeoverError> {
        let (predecessor, offer, descriptors): (_, Offer, _) = Predecessor::ask(socket, VERSION)?;
        if offer.version != VERSION {
            return Err(TakeoverError::Version(offer.version));
        }
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or(TakeoverError::Sockets);
        let output = Some([next()?, next()?]);
        let control = Some(UnixListener::from(next()?));
        let metrics = offer.metrics.map(|_| next()).transpose()?.map(TcpListener::from);
        let listeners = offer.listeners.iter().map(|listener| {
            let queues: Vec<_> = (0..listener.queues).map(|_| next()).collect::<Result<_, _>>()?;
            let queues = queues.into_iter().map(TcpListener::from);
            BoundListener::adopted(listener.configured, listener.address, queues).map_err(TakeoverError::Gone)
        });
        let listeners = listeners.collect::<Result<_, _>>()?;
        Ok(Self { predecessor, offer, output, control, metrics, listeners })
    }

    /// The listeners' sockets.
    pub(super) fn listeners(&mut self) -> Vec<BoundListener> {
        std::mem::take(&mut self.listeners)
    }

    /// The control socket, if it is where this configuration wants it.
    pub(super) fn control(&mut self, config: &Config) -> Option<UnixListener> {
        let wanted = std::path::absolute(&config.control.socket).ok();
        self.control.take().filter(|_| wanted.as_ref() == Some(&self.offer.control))
    }

    /// The metrics listener, if it listens where this configuration wants it.
    pub(super) fn metrics(&mut self, config: &Config) -> Option<TcpListener> {
        self.metrics.take().filter(|_| config.metrics.address == self.offer.metrics)
    }

    /// Its standard output and error; once.
    pub(super) fn output(&mut self) -> Result<[OwnedFd; 2], TakeoverError> {
        self.output.take().ok_or(TakeoverError::Sockets)
    }

    /// What of it this configuration has no use for.
    pub(super) fn left(&self, config: &Config) -> Vec<usize> {
        let is_wanted = |address| config.listeners.iter().any(|listener| listener.address == address);
        let offered = self.offer.listeners.iter().enumerate();
        offered.filter(|(_, listener)| !is_wanted(listener.configured)).map(|(place, _)| place).collect()
    }

    /// The keys of clients' session tickets.
    pub(super) fn tickets(&self) -> Option<Arc<TicketKeys>> {
        // Without random bytes there are none to be had either way, and whoever needs them says so.
        self.offer.tickets.as_ref().and_then(|keys| TicketKeys::import(keys).ok()).map(Arc::new)
    }

    /// Whether the other has a kernel side at work.
    pub(super) fn has_kernel(&self) -> bool {
        self.offer.kernel
    }

    /// Says that this process could serve, and hears what is known.
    pub(super) fn ready(&mut self) -> Result<State, TakeoverError> {
        self.predecessor.say(&Word::Ready).map_err(TakeoverError::Gone)?;
        self.hear()
    }

    /// Says that everything is taken over, and waits for the word to serve.
    pub(super) fn taken(&mut self) -> Result<(), TakeoverError> {
        self.predecessor.say(&Word::Taken).map_err(TakeoverError::Gone)?;
        match self.hear()? {
            Word::Go => Ok(()),
            word => Err(TakeoverError::Gone(io::Error::other(format!("{word:?} comes out of turn")))),
        }
    }

    /// Says that this process serves, and from now on adds what the other's last sessions bring. The channel closes when
    /// that one has ended.
    pub(super) fn serving(
        mut self,
        serving: Serving,
        verdicts: Arc<Verdicts>,
        (counters, own, counted): (CounterSet, Arc<Counters>, Counts),
    ) -> Result<oneshot::Receiver<()>, TakeoverError> {
        self.predecessor.say(&Word::Serving(serving)).map_err(TakeoverError::Gone)?;
        let (ended, has_ended) = oneshot::channel();
        let follow = move || {
            follow(&mut self.predecessor, &verdicts, (&counters, &own), counted);
            drop(ended);
        };
        Builder::new().name("predecessor".to_owned()).spawn(follow).map_err(TakeoverError::Gone)?;
        Ok(has_ended)
    }

    fn hear<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, TakeoverError> {
        let heard = self.predecessor.hear(Some(PATIENCE)).map_err(TakeoverError::Gone)?;
        heard.ok_or_else(|| TakeoverError::Gone(io::ErrorKind::UnexpectedEof.into()))
    }
}

/// What was taken over from another process, which still serves.
#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) inheritance: Inheritance,
    pub(super) output: [OwnedFd; 2],
    pub(super) counts: Counts,
    /// SYNs that came to nothing.
    pub(super) lost: u64,
    /// What stands in for the log's configured level.
    pub(super) log_level: Option<OtherLevel>,
}

/// Says that this process could serve, and takes over what the other knows.
pub(super) fn inherit(
    inheritance: Option<Inheritance>,
    (verdicts, counters): (&Verdicts, &CounterSet),
    backends: &mut Backends,
    on_open: OnOpen,
) -> Result<Option<Inherited>, TakeoverError> {
    let Some(mut inheritance) = inheritance else { return Ok(None) };
    let State { counts, bans, reputation, proofs, lost_before_accept, events, log_level } = inheritance.ready()?;
    events::adopt(events);
    adopt_bans(verdicts, bans);
    verdicts.adopt_reputation(reputation);
    counters.absorb(&counts);
    backends.adopt_proofs(proofs, on_open);
    let output = inheritance.output()?;
    Ok(Some(Inherited { inheritance, output, counts, lost: lost_before_accept, log_level }))
}

/// Bans that another process hands over are in force here; who follows verdicts hears of them.
fn adopt_bans(verdicts: &Verdicts, bans: Vec<Entry>) {
    let (now, unix) = (now(), millis(since_1970()));
    let handed_over = bans.len();
    let adopted = bans.into_iter().filter_map(|entry| entry.ban(now, unix));
    let adopted = adopted.map(|ban| verdicts.reinstate(ban)).filter(|done| *done).count();
    debug!(handed_over, adopted, "bans of the process before");
}

/// Until the other has ended.
fn follow(
    predecessor: &mut Predecessor,
    verdicts: &Verdicts,
    (counters, own): (&CounterSet, &Counters),
    mut counted: Counts,
) {
    loop {
        match predecessor.hear::<News>(None) {
            Ok(Some(News { counts, bans, events })) => {
                events.into_iter().for_each(events::tell);
                counters.absorb(&counts);
                counted.add(&counts);
                adopt_bans(verdicts, bans);
            }
            Ok(None) => break,
            Err(error) => {
                warn!(%error, "what the sessions of the process before still bring is not counted");
                break;
            }
        }
    }
    // One that was killed has closed no session.
    let open = counted.of("sessions_accepted_total").saturating_sub(counted.of("sessions_closed_total"));
    own.sessions_closed_total.add(open);
    info!("the process before has ended");
}
