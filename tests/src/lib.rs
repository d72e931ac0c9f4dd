//! Helpers shared by the scenarios of the one test binary: peers, sockets, transcripts.
