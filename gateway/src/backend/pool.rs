//! The servers that stand for one another, and the way to one of them.
//!
//! A pool of one server without a limit, which most are, has nothing to choose and nothing to count: its sessions connect
//! as if there were no pool.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::config::{self, Config};
use crate::identity::ClientAddr;
use crate::policy::relay_guard::Hold;
use crate::session::Dialect;
use crate::time::Millis;
use crate::time::clock::now;

use super::choice::{Candidate, choose};
use super::state::BackendState;

/// What each server gets at least to take a connection, when others have used up the time: a good one needs no more.
const PATIENCE_MIN: Duration = Duration::from_millis(500);

/// Sessions that wait for a place, of each server that there is.
const WAITING_MAX: usize = 64;

/// What clients are told of a backend, and what it was made of.
type CommonDialect = (Box<[Arc<Dialect>]>, Arc<Dialect>);

/// One backend: its servers.
#[derive(Debug)]
pub struct Pool {
    /// In the configuration.
    pub name: String,
    members: Box<[Member]>,
    connect_timeout: Duration,
    waiting: AtomicU32,
    freed: Notify,
    dialect: Mutex<Option<CommonDialect>>,
}

#[derive(Debug)]
struct Member {
    server: Arc<BackendState>,
    weight: u32,
    priority: u32,
    /// 0 for any number.
    max_sessions: u32,
}

/// The server that a session has, or had.
#[derive(Debug)]
pub struct ChosenServer {
    pool: Arc<Pool>,
    member: u8,
    counted: bool,
}

/// Which servers one session has tried, and until when it may go on trying.
#[derive(Debug, Clone, Copy)]
pub struct Attempts {
    tried: u32,
    /// Taken when there is no other.
    put_off: u32,
    until: Millis,
}

impl Pool {
    /// Of the `[[backend]]` with this index; `states` are those of all servers of the configuration.
    pub fn new(config: &Config, pool: usize, states: &[Arc<BackendState>]) -> Self {
        let config::Pool { name, servers, srv: _ } = &config.pools[pool];
        let member = |index: usize| {
            let config::Backend { weight, priority, max_sessions, .. } = config.backends[index];
            Member { server: states[index].clone(), weight, priority, max_sessions }
        };
        Self::of(name.clone(), servers.clone().map(member).collect(), config.timeouts.connect)
    }

    /// Of this server alone, whatever others stand beside it.
    pub fn alone(server: Arc<BackendState>, connect_timeout: Duration) -> Self {
        let name = server.name.clone();
        Self::of(name, [Member { server, weight: 1, priority: 1, max_sessions: 0 }].into(), connect_timeout)
    }

    fn of(name: String, members: Box<[Member]>, connect_timeout: Duration) -> Self {
        Self {
            name,
            members,
            connect_timeout,
            waiting: AtomicU32::new(0),
            freed: Notify::new(),
            dialect: Mutex::default(),
        }
    }

    /// Its servers.
    pub fn servers(&self) -> impl Iterator<Item = &Arc<BackendState>> {
        self.members.iter().map(|member| &member.server)
    }

    /// The first of its servers.
    pub fn first(&self) -> &Arc<BackendState> {
        &self.members[0].server
    }

    /// Whether there is anything to choose.
    pub fn has_several(&self) -> bool {
        self.members.len() > 1
    }

    /// What clients are told: what all servers offer that are there.
    pub fn dialect(&self) -> Arc<Dialect> {
        if let [only] = &*self.members {
            return only.server.dialect();
        }
        let now = now();
        let fit = |member: &&Member| !member.server.load.is_avoided(now) && !member.server.load.is_draining();
        let mut parts: Box<[_]> = self.members.iter().filter(fit).map(|member| member.server.dialect()).collect();
        if !parts.iter().any(|part| part.is_learned()) {
            parts = self.servers().map(|server| server.dialect()).collect();
        }
        let mut known = self.dialect.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |made_of: &[Arc<Dialect>]| {
            made_of.len() == parts.len() && made_of.iter().zip(&parts).all(|(one, other)| Arc::ptr_eq(one, other))
        };
        match &*known {
            Some((made_of, dialect)) if is_same(made_of) => dialect.clone(),
            _ => {
                let common = Dialect::common(&parts);
                *known = Some((parts, common.clone()));
                common
            }
        }
    }

    /// What its servers may be given, for a session that has none of them yet: the least held decide, and only they are
    /// chosen.
    pub fn hold(&self) -> Hold {
        self.servers().map(|server| server.hold()).min().unwrap_or_default()
    }

    /// A session's attempts begin.
    pub fn attempts(&self, now: Millis) -> Attempts {
        Attempts { tried: 0, put_off: 0, until: now.after(self.connect_timeout) }
    }

    /// The same for a session that has lost this server.
    pub fn attempts_behind(&self, lost: &ChosenServer, now: Millis) -> Attempts {
        Attempts { put_off: 1 << lost.member, ..self.attempts(now) }
    }

    /// Whether there is a server that was not tried, and time to try it.
    pub fn has_another(&self, attempts: &Attempts, now: Millis) -> bool {
        now < attempts.until && !self.candidates(attempts, now).is_empty()
    }

    /// Connects for this client to one of the servers, and to another while one cannot be connected to. What was tried is
    /// noted in `attempts`.
    ///
    /// # Errors
    /// No server takes sessions, or none of those that were tried could be connected to: the last one's error.
    pub async fn connect_for(
        self: &Arc<Self>,
        client: ClientAddr,
        attempts: &mut Attempts,
    ) -> io::Result<(TcpStream, ChosenServer)> {
        if let [Member { server, max_sessions: 0, .. }] = &*self.members {
            if server.load.is_draining() {
                return Err(io::Error::other("it is drained"));
            }
            let stream = server.connect_for(client).await?;
            return Ok((stream, ChosenServer { pool: self.clone(), member: 0, counted: false }));
        }
        let mut last = io::Error::other("every server is drained");
        while let Some(chosen) = self.take_server(attempts).await? {
            let server = chosen.server();
            let left = Duration::from_millis(attempts.until.since(now()));
            // Whoever is tried last has all that is left; the others leave half of it to those behind them.
            let patience = if self.has_another(attempts, now()) { left / 2 } else { left };
            let connecting = timeout(patience.max(PATIENCE_MIN), server.connect_for(client));
            match connecting.await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
            {
                Ok(stream) => return Ok((stream, chosen)),
                Err(error) => {
                    tracing::debug!(backend = server.name, %error, "dial failed");
                    if is_its_fault(server, &error) {
                        server.load.failed(now());
                    }
                    server.ask_refresh();
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// A place at a server that was not tried; `None` if there is none. Where all have as many sessions as they may, a place is
    /// waited for.
    async fn take_server(self: &Arc<Self>, attempts: &mut Attempts) -> io::Result<Option<ChosenServer>> {
        let mut place = None;
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // From here on it hears of every place.
            freed.as_mut().enable();
            let now = now();
            let mut candidates = self.candidates(attempts, now);
            if candidates.is_empty() {
                return Ok(None);
            }
            while let Some(index) = choose(&candidates, random()) {
                let Member { server, max_sessions, .. } = &self.members[index];
                if server.load.enter(*max_sessions) {
                    server.load.is_tried(now);
                    attempts.tried |= 1 << index;
                    let member = u8::try_from(index).unwrap_or(u8::MAX);
                    return Ok(Some(ChosenServer { pool: self.clone(), member, counted: true }));
                }
                candidates.retain(|candidate| candidate.index != index);
            }
            if place.is_none() {
                place = Some(self.wait().ok_or_else(|| io::Error::other("every server has all the sessions it may"))?);
            }
            let left = Duration::from_millis(attempts.until.since(now));
            if timeout(left, freed).await.is_err() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "every server has all the sessions it may"));
            }
        }
    }

    fn wait(&self) -> Option<Waiting<'_>> {
        let most = u32::try_from(WAITING_MAX * self.members.len()).unwrap_or(u32::MAX);
        let waiting = Waiting(&self.waiting);
        (self.waiting.fetch_add(1, Ordering::Relaxed) < most).then_some(waiting)
    }

    fn candidates(&self, attempts: &Attempts, now: Millis) -> Vec<Candidate> {
        let hold = self.hold();
        let members = self.members.iter().enumerate();
        let candidate = |(index, member): (usize, &Member)| {
            let Member { server, weight, priority, .. } = member;
            let load = &server.load;
            let is_fit = attempts.tried & (1 << index) == 0 && !load.is_draining() && server.hold() <= hold;
            is_fit.then(|| Candidate {
                index,
                avoided: load.is_avoided(now) || attempts.put_off & (1 << index) != 0,
                priority: *priority,
                weight: (weight * load.share(now)).max(1),
                sessions: load.sessions(),
            })
        };
        members.filter_map(candidate).collect()
    }
}

/// One that waits for a place.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Attempts {
    /// Until when it may go on trying.
    pub fn until(&self) -> Millis {
        self.until
    }

    /// Until when a server that was just connected to must have opened its session: half of what is left, while there is
    /// another.
    pub fn patience(&self, now: Millis) -> Millis {
        Millis(now.0 + self.until.since(now) / 2)
    }

    /// The same for the last one, if it was silent towards others.
    pub fn last_patience(&self, now: Millis) -> Millis {
        self.until.max(now.after(PATIENCE_MIN))
    }
}

impl ChosenServer {
    /// The server.
    pub fn server(&self) -> &Arc<BackendState> {
        &self.pool.members[usize::from(self.member)].server
    }

    /// The session with it is over.
    pub fn leave(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.server().load.leave();
            self.pool.freed.notify_one();
        }
    }
}

impl Drop for ChosenServer {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Whether this befalls every client. Where each connects from its own address, silence may be meant for one.
fn is_its_fault(server: &BackendState, error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};
    match error.kind() {
        ConnectionRefused | ConnectionReset => true,
        TimedOut | HostUnreachable | NetworkUnreachable => !server.identity.is_transparent(),
        _ => false,
    }
}

/// 64 bits of chance, which nobody need be unable to guess.
fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0_u8) | 1);
    }
    STATE.with(|state| {
        let mut next = state.get();
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        state.set(next);
        next.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}
