//! What holds of the code as a whole, as tests: rooms point one way, pure rooms stay pure, files can be read in one go.
//!
//! The tables of rooms and the code are compared by their tokens, so nothing has to be kept in step by hand.

mod arrows;
mod purity;
mod rooms;
mod source;
mod tidy;
