//! What the gateway says about itself: counters and logs. Each name is declared once; nothing here decides anything.

pub mod counters;
pub mod log;
