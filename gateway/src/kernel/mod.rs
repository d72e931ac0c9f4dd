//! The kernel side: the only room that knows BPF, and the only writer of its maps.

mod tables;
mod writer;
