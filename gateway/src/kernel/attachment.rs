//! The program on its cards, kept there.
//!
//! Somebody deletes a card and makes it again, and the kernel tells (netlink); somebody detaches a program, and the kernel does
//! not, so it is asked every second. A thread puts the program back where that can be done. It needs no privilege for that: who holds a loaded program may attach it. Who has put another
//! program in its place is not fought: that may be the next gateway.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{Builder, sleep};
use std::time::Duration;

use tracing::warn;

use crate::config::Xdp;

use super::attach::{Occasion, Shortfalls};
use super::netlink::News;
use super::{Card, KernelError, Mode, Program};

/// How often the thread looks whether the gateway is still there.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at the cards: somebody who detaches again and again costs no more than this.
const PAUSE: Duration = Duration::from_millis(200);

/// The program on its cards.
pub struct Attachment(Arc<Mutex<Covered>>);

struct Covered {
    program: Program,
    /// Which cards, and how.
    xdp: Xdp,
    shortfalls: Shortfalls,
    /// Whether the cards are another process's now.
    left: bool,
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attachment")
    }
}

impl Attachment {
    /// Puts the program on the cards that are wanted, as far as that can be done; [`cards`](Self::cards) says how far. What an
    /// earlier run left on them is taken over, and what it left on others is taken off.
    ///
    /// # Errors
    /// The kernel does not say which cards there are, or the pin folder cannot be read.
    pub fn new(mut program: Program, xdp: &Xdp) -> Result<Self, KernelError> {
        let shortfalls = program.cover(xdp, Occasion::Start)?;
        shortfalls.values().for_each(|why| warn!("{why}"));
        Ok(Self(Arc::new(Mutex::new(Covered { program, xdp: xdp.clone(), shortfalls, left: false }))))
    }

    /// From now on other cards are wanted, or in another way.
    ///
    /// # Errors
    /// As [`new`](Self::new); the program is then where it was.
    pub fn set_cards(&self, xdp: &Xdp) -> Result<(), KernelError> {
        let mut covered = self.covered();
        let shortfalls = covered.program.cover(xdp, Occasion::Start)?;
        (covered.xdp, covered.shortfalls) = (xdp.clone(), shortfalls);
        Ok(())
    }

    /// Leaves the cards to another process of this gateway, which puts its own program behind the pins. What has no pin is
    /// taken off, for nobody could take it over.
    pub fn leave(&self) {
        let mut covered = self.covered();
        covered.left = true;
        covered.program.held.clear();
    }

    /// Takes the cards back, where the other process did not come to serve.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn come_back(&self) -> Result<(), KernelError> {
        let xdp = {
            let mut covered = self.covered();
            covered.left = false;
            covered.xdp.clone()
        };
        self.set_cards(&xdp)
    }

    /// Takes the program off every card, for the process that has taken over wants it on none.
    ///
    /// # Errors
    /// The kernel does not say which cards there are, or the pin folder cannot be read.
    pub fn clear(&self) -> Result<(), KernelError> {
        let xdp = Xdp { interfaces: Vec::new(), ..self.covered().xdp.clone() };
        self.set_cards(&xdp)
    }

    /// What the kernel has now: every wanted card, and any other that the program is on.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn cards(&self) -> Result<Vec<Card>, KernelError> {
        let Covered { program, xdp, shortfalls, .. } = &mut *self.covered();
        program.cards(xdp, shortfalls)
    }

    /// Does something with the program; cards are not looked at meanwhile.
    pub fn with<T>(&self, work: impl FnOnce(&mut Program) -> T) -> T {
        work(&mut self.covered().program)
    }

    /// Starts the thread that puts the program back, for as long as this lives.
    ///
    /// # Errors
    /// No netlink, or no more threads.
    pub fn watch(&self) -> Result<(), KernelError> {
        let news = News::subscribe().map_err(|error| KernelError::other("follow changes of network cards", &error))?;
        let covered = Arc::downgrade(&self.0);
        let thread = Builder::new().name("kernel-cards".to_owned()).spawn(move || follow(&news, &covered));
        thread.map(drop).map_err(|error| KernelError::other("start a thread", &error))
    }

    fn covered(&self) -> MutexGuard<'_, Covered> {
        locked(&self.0)
    }
}

/// Nothing in there is left half done by a panic that would matter more than the panic.
fn locked(covered: &Mutex<Covered>) -> MutexGuard<'_, Covered> {
    covered.lock().unwrap_or_else(PoisonError::into_inner)
}

fn follow(news: &News, covered: &Weak<Mutex<Covered>>) {
    loop {
        let is_news = news.wait(TICK).unwrap_or_else(|error| {
            warn!(%error, "cannot follow changes of network cards");
            sleep(TICK);
            true
        });
        let Some(covered) = covered.upgrade() else { return };
        let mut covered = locked(&covered);
        if !covered.left && (is_news || covered.lacks_something()) {
            covered.look_again();
            drop(covered);
            sleep(PAUSE);
        }
    }
}

impl Covered {
    /// Whether the program is gone from a card that it was on.
    fn lacks_something(&mut self) -> bool {
        let cards = self.program.cards(&self.xdp, &Shortfalls::new()).unwrap_or_default();
        cards.iter().any(|card| card.mode == Mode::Off && !self.shortfalls.contains_key(&card.name))
    }

    fn look_again(&mut self) {
        // A card in generic mode stays so, and why is remembered.
        let known = self.shortfalls.clone();
        match self.program.cover(&self.xdp, Occasion::News) {
            Ok(mut shortfalls) => {
                for why in shortfalls.iter().filter(|(name, why)| known.get(*name) != Some(why)).map(|(_, why)| why) {
                    warn!("{why}");
                }
                let cards = self.program.cards(&self.xdp, &Shortfalls::new()).unwrap_or_default();
                let generic = cards.into_iter().filter(|card| card.mode == Mode::Generic);
                for card in generic {
                    if let Some(why) = known.get(&card.name) {
                        shortfalls.entry(card.name).or_insert_with(|| why.clone());
                    }
                }
                self.shortfalls = shortfalls;
            }
            Err(error) => warn!("{error}"),
        }
    }
}
