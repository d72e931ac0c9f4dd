//! Routes that nothing comes to, because earlier ones take it.

use std::collections::{HashMap, HashSet};

use super::route::Route;
use super::route_keys::covering;

pub(super) const SHADOWED_HELP: &str =
    "delete the one of the two that is not meant, or put this one before the other: the first that fits decides";

/// What earlier routes take whole, so that nothing of it comes to a later one. Those of users and those of recipients do not
/// meet.
#[derive(Default)]
pub(super) struct Taken {
    by_recipient: TakenBy,
    by_user: TakenBy,
}

#[derive(Default)]
struct TakenBy {
    /// Where the route is that takes it.
    keys: HashMap<String, String>,
    /// The place of a route that takes everything.
    everything: Option<String>,
}

/// What earlier routes leave of one.
pub(super) enum Left {
    /// Why nothing comes to it.
    Nothing(String),
    /// Which of its keys nothing comes to, by their index, and why.
    AllBut(Vec<(usize, String)>),
}

impl Taken {
    /// What earlier routes leave of this one, which is then one of them.
    pub(super) fn take(&mut self, route: &Route) -> Left {
        let taken = if route.users.is_empty() { &mut self.by_recipient } else { &mut self.by_user };
        if let Some(place) = &taken.everything {
            return Left::Nothing(format!("nothing comes to this route: the one in {place} takes all mail"));
        }
        let keys = route.keys();
        let is_whole = route.clients.is_empty() && route.senders.is_empty() && route.listeners.is_empty();
        if is_whole && keys.is_empty() {
            taken.everything = Some(route.place(None));
        }
        let (mut own, mut shadows) = (HashSet::new(), Vec::new());
        for (index, key) in keys.iter().enumerate() {
            let place = covering(&key.text).into_iter().find_map(|covering| taken.keys.get(&covering));
            if let Some(place) = place {
                let message = format!("no mail for `{}` comes to this route: the one in {place} takes it", key.text);
                shadows.push((index, message));
            } else if !own.insert(&key.text) {
                shadows.push((index, format!("`{}` stands twice in this route", key.text)));
            }
        }
        if is_whole {
            for key in keys {
                let place = route.place(route.file.as_ref().map(|_| key.line));
                taken.keys.entry(key.text.clone()).or_insert(place);
            }
        }
        Left::AllBut(shadows)
    }
}
