//! Header hygiene.
