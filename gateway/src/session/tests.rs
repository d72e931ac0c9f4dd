//! The session core, driven without I/O.
