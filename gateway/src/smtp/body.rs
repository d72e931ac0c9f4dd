//! Message bodies as chunk-to-chunk transcoders (RFC 5321 section 4.5.2).
//!
//! The body never becomes lines or events: a chunk comes in, the same bytes (almost always in place, untouched) go on to
//! the backend, dot-stuffed by our own rule. Only CRLF.CRLF ends data; every look-alike is body or a fault.
