//! What a fuzzer calls: bytes in, and what must not be ends in a panic.
//!
//! `fuzz/` has a program for each; the ordinary tests replay the corpora that they left there. A target compares two ways of
//! doing the same (packed or in pieces, written and read again, the core and a model), or holds a property that no input may
//! break: that nothing panics is the least.

mod bytes;
mod codecs;
mod messages;
mod openings;
mod sessions;
mod words;

/// A target's name, which is that of its corpus too, and the target.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 15] = [
    ("address", codecs::address),
    ("body", messages::body),
    ("command", codecs::command),
    ("config", words::config),
    ("control", words::control),
    ("ehlo", codecs::ehlo),
    ("header", messages::header),
    ("line", codecs::line),
    ("opening", openings::opening),
    ("proxy_header", openings::proxy_header),
    ("reply", codecs::reply),
    ("session", sessions::session),
    ("session_packed", sessions::session_packed),
    ("xclient", openings::xclient),
    ("xtext", codecs::xtext),
];

/// Runs one of them.
///
/// # Panics
/// There is none of this name, or the bytes bring about what must not be.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).expect("a target's name");
    target(data);
}
