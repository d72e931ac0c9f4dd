//! One session's task.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tracing::debug;

use crate::backend::{Attempts, ChosenServer};
use crate::identity::{ClientAddr, PeerAddr};
use crate::observe::trace::{self, Speaker};
use crate::session::{Action, End, Output, Session, Start};
use crate::time::Millis;
use crate::time::clock::now;

use crate::tls::TlsFacts;

use super::backend_side::BackendSide;
use super::buffers::{Pending, READ_MAX, Scratch, keep, with_scratch};
use super::client_side::ClientSide;
use super::closing::Closing;
use super::encrypted;
use super::held::{self, Held};
use super::questions::Questions;
use super::sending::poll_send_last;
use super::spans::Spans;
use super::timer::Timer;
use super::worker::{Notice, Worker};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What a load balancer says of a connection, and the relay proof of its own.
pub(super) struct Told {
    /// The other end of the socket, which is not the client.
    peer: PeerAddr,
    /// The client's view of the gateway.
    pub(super) destination: Option<SocketAddr>,
}

/// Whose socket had nothing more to read in this poll: it wakes the session when it has, and need not be asked again before.
#[derive(Default)]
struct Silent {
    backend: bool,
    client: bool,
}

/// A client's session as a future that ends with it. It is polled by one task from its beginning to its end.
pub(crate) struct SessionTask {
    pub(super) id: u64,
    pub(super) worker: Arc<Worker>,
    pub(super) session: Session,
    /// Where socket and listener do not say it.
    pub(super) told: Option<Box<Told>>,
    pub(super) client: ClientSide,
    pub(super) backend: BackendSide,
    /// What was last agreed upon with it, over TLS.
    pub(super) backend_tls: Option<Box<TlsFacts>>,
    /// The server that it is connected to, or was last.
    pub(super) chosen: Option<ChosenServer>,
    /// Where the backend has several servers: which were tried.
    pub(super) attempts: Option<Box<Attempts>>,
    pub(super) questions: Questions,
    /// Where somebody sees them.
    pub(super) spans: Option<Box<Spans>>,
    pub(super) timer: Timer,
    pub(super) heeded: Notice,
    /// When its end comes, once it has to; 0 before.
    pub(super) turn: Millis,
    pub(super) closing: Closing,
    pub(super) held: Held,
    pub(super) started: Millis,
}

impl SessionTask {
    /// A session with a client that was already let in. `destination` is the client's view of the gateway, where it is
    /// known from a PROXY header; `unread` was read behind that header.
    pub(crate) fn new(
        worker: Arc<Worker>,
        client: TcpStream,
        peer: PeerAddr,
        client_addr: ClientAddr,
        destination: Option<SocketAddr>,
        unread: Vec<u8>,
    ) -> Self {
        let started = now();
        let told = destination.is_some() || client_addr.socket_addr() != peer.socket_addr();
        let start = Start {
            settings: worker.settings.clone(),
            dialect: worker.dialect(),
            client_addr,
            tls: worker.tls_offer(client_addr),
        };
        let session = Session::new(start, started);
        worker.counters.sessions_accepted_total.increment();
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Self {
            id,
            spans: Spans::new(id, client_addr, worker.listener),
            timer: Timer::new(session.deadline()),
            worker,
            session,
            told: told.then(|| Box::new(Told { peer, destination })),
            client: ClientSide::new(client, unread.into()),
            backend: BackendSide::None,
            backend_tls: None,
            chosen: None,
            attempts: None,
            questions: Questions::default(),
            heeded: Notice::default(),
            turn: Millis(0),
            closing: Closing::No,
            held: Held::default(),
            started,
        }
    }

    /// The other end of the client's socket.
    pub(super) fn peer(&self) -> PeerAddr {
        let client = || PeerAddr::from_socket(self.session.client_addr().socket_addr());
        self.told.as_ref().map_or_else(client, |told| told.peer)
    }

    /// Begins: greets, at once or after `delay`. `early`: the client has talked already.
    pub(crate) fn begin(&mut self, delay: Duration, early: bool) {
        let mut out = Output::default();
        self.begin_tls(&mut out);
        self.session.begin(self.started, delay, early, &mut out);
        for action in out.actions {
            self.act(action);
        }
        self.replied(&out.to_client);
        // A fresh socket has room. What cannot be sent now is sent when the session is polled, and an error shows then.
        let sent = self.client.stream.try_write(&out.to_client).unwrap_or(0);
        self.client.pending.push(&out.to_client[sent..]);
        self.timer.pull(self.session.deadline());
    }

    fn drive(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        let now = now();
        self.session.hurry(now, self.worker.shortage.is_short());
        self.session.set_crammed(held::total() > self.worker.settings.limits.buffered);
        self.check_notice(cx, now, scratch);
        self.check_timer(cx, now, scratch);
        let mut silent = Silent::default();
        loop {
            if self.closing != Closing::No {
                return self.poll_close(cx, scratch);
            }
            let mut moved = self.move_backend(cx, now, scratch, &mut silent);
            moved |= self.move_client(cx, now, scratch, &mut silent);
            if !moved && self.closing == Closing::No {
                self.arm_timer(cx);
                return Poll::Pending;
            }
        }
    }

    /// What it keeps until it is polled again.
    fn octets_held(&mut self) -> usize {
        let client = &self.client;
        let tls = client.tls.as_ref().map_or(0, |channel| channel.held().len());
        let backend = self.backend.connection().map_or(0, |connection| connection.octets_held());
        self.session.octets_held() + client.unread.len() + client.pending.len() + tls + backend
    }

    /// Dialling, names, what the backend still has to take, and what it says.
    fn move_backend(&mut self, cx: &mut Context<'_>, now: Millis, scratch: &mut Scratch, silent: &mut Silent) -> bool {
        let mut moved = false;
        while let Some((ticket, answer)) = self.questions.poll(cx) {
            self.session.answer(now, ticket, answer, &mut scratch.out);
            self.carry_out(cx, now, &mut scratch.out, &[]);
            moved = true;
        }
        if let Poll::Ready(dialed) = self.backend.poll_dialed(cx, now) {
            self.dialed(now, dialed, &mut scratch.out);
            self.carry_out(cx, now, &mut scratch.out, &[]);
            (moved, silent.backend) = (true, false);
        }
        if let Poll::Ready(secured) = self.backend.poll_secured(cx, now) {
            self.secured(now, secured, &mut scratch.out);
            self.carry_out(cx, now, &mut scratch.out, &[]);
            (moved, silent.backend) = (true, false);
        }
        let Some(connection) = self.backend.connection() else { return moved };
        if let Poll::Ready(Err(error)) = connection.poll_flush(cx) {
            self.backend_broken(cx, now, &error, &mut scratch.out);
            return true;
        }
        // Replies are not read faster than the client takes them.
        if silent.backend || !self.client.pending.is_empty() && !self.client.pending_may_wait {
            return moved;
        }
        let held = connection.unread.len();
        scratch.read[..held].copy_from_slice(&connection.unread);
        match connection.poll_read(cx, &mut scratch.read[held..held + READ_MAX]) {
            Poll::Pending => {
                silent.backend = true;
                return moved;
            }
            Poll::Ready(Ok(0)) => {
                self.backend_lost(cx, now, &io::ErrorKind::UnexpectedEof.into(), scratch);
            }
            Poll::Ready(Ok(count)) => {
                if let Some(took) = connection.greeted(now) {
                    self.worker.counters.banner_seconds.observe(took);
                }
                let input = &scratch.read[..held + count];
                let unsent = !connection.is_flushed();
                let used = self.session.backend_bytes(now, input, unsent, &mut scratch.out);
                keep(&mut connection.unread, &input[used..]);
                self.carry_out(cx, now, &mut scratch.out, &[]);
            }
            Poll::Ready(Err(error)) => self.backend_lost(cx, now, &error, scratch),
        }
        true
    }

    fn backend_lost(&mut self, cx: &mut Context<'_>, now: Millis, error: &io::Error, scratch: &mut Scratch) {
        debug!(session = self.id, %error, "backend lost");
        self.note("the backend's connection was lost");
        self.close_backend();
        self.session.backend_closed(now, &mut scratch.out);
        self.carry_out(cx, now, &mut scratch.out, &[]);
    }

    /// What the client still has to take, and what it says.
    fn move_client(&mut self, cx: &mut Context<'_>, now: Millis, scratch: &mut Scratch, silent: &mut Silent) -> bool {
        if !self.client.pending.is_empty() && !self.client.pending_may_wait {
            match self.poll_flush_client(cx) {
                Poll::Pending => return false,
                // The backend's replies were held back meanwhile, and are next.
                Poll::Ready(Ok(())) => return true,
                Poll::Ready(Err(error)) => return self.client_lost(cx, now, &error, scratch),
            }
        }
        // A body is not read faster than the backend takes it.
        if self.closing != Closing::No || !self.session.wants_client() || !self.backend.is_flushed() {
            return false;
        }
        if !self.client.unread.is_empty() {
            let held = self.client.unread.len();
            scratch.read[..held].copy_from_slice(&self.client.unread);
            if self.hand_in(cx, now, held, scratch) {
                return true;
            }
            // A command that waits for the backend: what is behind it waits too, the client's end as well.
            if !self.session.wants_client() {
                return false;
            }
        }
        if self.client.eof {
            // A command that stands before the end may have to wait for the backend.
            if !self.session.wants_client() {
                return false;
            }
            self.client.eof = false;
            self.session.client_closed(now, false, &mut scratch.out);
            self.carry_out(cx, now, &mut scratch.out, &[]);
            return true;
        }
        if silent.client || self.awaits_turn(now) {
            return false;
        }
        if self.client.tls.is_some() {
            return self.move_client_tls(cx, now, scratch);
        }
        let held = self.client.unread.len();
        let mut buffer = ReadBuf::new(&mut scratch.read[held..held + READ_MAX]);
        match Pin::new(&mut self.client.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => {
                silent.client = true;
                return false;
            }
            Poll::Ready(Err(error)) => return self.client_lost(cx, now, &error, scratch),
            Poll::Ready(Ok(())) => {}
        }
        let count = buffer.filled().len();
        if count == 0 {
            self.client.eof = true;
            return true;
        }
        self.client.bytes_in += count as u64;
        scratch.read[..held].copy_from_slice(&self.client.unread);
        self.hand_in(cx, now, held + count, scratch);
        true
    }

    /// Hands the scratch buffer's first `length` bytes to the core; keeps what it leaves. Whether it used any.
    pub(super) fn hand_in(&mut self, cx: &mut Context<'_>, now: Millis, length: usize, scratch: &mut Scratch) -> bool {
        let Scratch { read, out } = scratch;
        let mut used = 0;
        let followed = trace::follows(self.session.client_addr().ip());
        let hold = self.hold();
        self.tell_holds();
        while used < length && self.session.wants_client() && self.backend.is_flushed() && self.closing == Closing::No {
            let input = &mut read[used..length];
            out.heard = followed.then(Vec::new);
            let taken = self.session.client_bytes(now, hold, input, out);
            if let Some(heard) = out.heard.take() {
                trace::tell(self.id, self.session.client_addr().ip(), Speaker::Client, &heard);
            }
            let forward = &input[taken.forward.clone()];
            self.carry_out(cx, now, out, forward);
            used += taken.used;
            if taken.used == 0 {
                break;
            }
        }
        out.secret |= self.client.holds_secret || (used < length && self.session.expects_login());
        self.client.keep_unread(&read[used..length], out.secret);
        used > 0
    }

    pub(super) fn client_lost(
        &mut self,
        cx: &mut Context<'_>,
        now: Millis,
        error: &io::Error,
        scratch: &mut Scratch,
    ) -> bool {
        debug!(session = self.id, %error, "client lost");
        self.client.pending = Pending::default();
        self.session.client_closed(now, true, &mut scratch.out);
        self.carry_out(cx, now, &mut scratch.out, &[]);
        true
    }

    /// Writes what the core produced, then does what it asks.
    pub(super) fn carry_out(&mut self, cx: &mut Context<'_>, now: Millis, out: &mut Output, forward: &[u8]) {
        let mut failed = None;
        if let Some(connection) = self.backend.connection() {
            let last = out.actions.iter().any(|action| matches!(action, Action::CloseBackend));
            failed = connection.send(cx, &out.to_backend, forward, last).err();
            if out.secret {
                connection.keep_secret();
            }
        }
        out.to_backend.clear();
        let mut secure = None;
        for action in out.actions.drain(..) {
            match action {
                Action::SecureClient(nothing) => secure = Some(nothing),
                action => self.act(action),
            }
        }
        if !out.to_client.is_empty() {
            self.replied(&out.to_client);
            self.send_client(cx, &out.to_client);
            out.to_client.clear();
        }
        // Behind what was said in clear.
        if let Some(nothing) = secure {
            self.secure_client(nothing);
        }
        // A backend that cannot be written to is lost, unless the core has just let go of it.
        if let Some(error) = failed {
            self.backend_broken(cx, now, &error, out);
        }
    }

    /// The backend takes no more. Why, it may have said before it hung up.
    fn backend_broken(&mut self, cx: &mut Context<'_>, now: Millis, error: &io::Error, out: &mut Output) {
        let Some(connection) = self.backend.connection() else { return };
        debug!(session = self.id, %error, "backend lost");
        let last_words = connection.last_words();
        self.close_backend();
        self.session.backend_broken(now, &last_words, out);
        self.carry_out(cx, now, out, &[]);
    }

    fn send_client(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        let quit = matches!(self.closing, Closing::Flushing { .. }) && self.session.end() == Some(End::Quit);
        self.client.pending_may_wait = false;
        if let ClientSide { tls: Some(channel), stream, pending, .. } = &mut self.client {
            // Who cannot be written to shows itself when it is read from.
            let _ = encrypted::send(channel, stream, cx, (bytes, &[]), quit, pending);
            return;
        }
        let mut sent = 0;
        if self.client.pending.is_empty() {
            let written = if quit {
                poll_send_last(&self.client.stream, bytes, cx)
            } else {
                Pin::new(&mut self.client.stream).poll_write(cx, bytes)
            };
            // A broken connection shows itself when the rest is flushed.
            if let Poll::Ready(Ok(count)) = written {
                sent = count;
            }
        }
        self.client.pending.push(&bytes[sent..]);
    }
}

impl Future for SessionTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = &mut *self;
        let _entered = task.spans.as_mut().map(|spans| spans.enter(&task.session));
        let driven = with_scratch(|scratch| task.drive(cx, scratch));
        let held = task.octets_held();
        task.held.set(held);
        driven
    }
}

#[cfg(test)]
mod tests {
    use super::super::backend_side::Connection;
    use super::*;

    /// What one that waits costs, ten thousand times over. What few sessions need is behind a pointer.
    #[test]
    fn sessions_are_small() {
        let sizes = [size_of::<SessionTask>(), size_of::<Session>(), size_of::<ClientSide>(), size_of::<Connection>()];
        let most = [608, 360, 88, 104];
        assert!(sizes.iter().zip(most).all(|(size, most)| *size <= most), "{sizes:?}, and at most {most:?}");
    }
}
