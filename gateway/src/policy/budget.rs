//! What one session may spend: refused commands, commands without mail, messages.

use crate::config::Limits;

/// Counters of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    errors: u32,
    idle_commands: u32,
    messages: u32,
}

/// Whether there is anything left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// The session may go on.
    Within,
    /// This was one too many: the session ends.
    Exhausted,
}

impl Budget {
    /// A command was refused.
    pub fn error(&mut self, limits: &Limits) -> Spent {
        spend(&mut self.errors, limits.errors)
    }

    /// A command that brings no mail nearer: NOOP, RSET, EHLO, VRFY, HELP.
    pub fn idle_command(&mut self, limits: &Limits) -> Spent {
        spend(&mut self.idle_commands, limits.idle_commands)
    }

    /// A transaction begins.
    pub fn message(&mut self, limits: &Limits) -> Spent {
        spend(&mut self.messages, limits.messages_per_session)
    }

    /// A message was answered: commands without mail count from zero again. If it was accepted, half of the errors are
    /// forgiven: who brings mail may err now and then, and who harvests brings none.
    pub fn message_done(&mut self, accepted: bool) {
        self.idle_commands = 0;
        if accepted {
            self.errors /= 2;
        }
    }
}

fn spend(counter: &mut u32, limit: u32) -> Spent {
    *counter = counter.saturating_add(1);
    if *counter > limit { Spent::Exhausted } else { Spent::Within }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_the_limit_is_too_many() {
        let limits = Limits { errors: 2, idle_commands: 1, ..Limits::default() };
        let mut budget = Budget::default();
        let errors = [(); 3].map(|()| budget.error(&limits));
        assert_eq!(errors, [Spent::Within, Spent::Within, Spent::Exhausted]);
        assert_eq!(budget.idle_command(&limits), Spent::Within);
        assert_eq!(budget.idle_command(&limits), Spent::Exhausted);
        budget.message_done(false);
        assert_eq!(budget.idle_command(&limits), Spent::Within);
        assert_eq!(budget.error(&limits), Spent::Exhausted);
    }

    #[test]
    fn who_brings_mail_may_err() {
        let limits = Limits::default();
        let mut budget = Budget::default();
        for message in 0..30 {
            assert_eq!(budget.error(&limits), Spent::Within, "message {message}");
            budget.message_done(true);
        }
        let harvested = (0..).take_while(|_| budget.error(&limits) == Spent::Within).count();
        assert!(harvested <= 20, "{harvested}");
    }
}
