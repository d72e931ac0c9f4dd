//! The program of the kernel side, branch by branch: a frame in, a verdict and a counter out.

use gateway_common::outcome;
use tests::kernel::frame::Frame;
use tests::kernel::rig::{Judged, Rig, Verdict};

mod attach;
mod limits;
mod lists;
mod parsing;
mod properties;
mod stack;

const CLIENT: &str = "198.51.100.7";
const CLIENT_V6: &str = "2001:db8:7::25";

/// That a frame gets this verdict, and counts under this outcome.
#[track_caller]
fn check(rig: &mut Rig, frame: &Frame, verdict: Verdict, outcome: u32) {
    let Judged { verdict: got, outcome: counted, is_attempt: _ } = rig.judge(&frame.bytes());
    assert_eq!((got, counted), (verdict, outcome::name(outcome)), "{frame:?}");
}

#[track_caller]
fn passes(rig: &mut Rig, frame: &Frame, outcome: u32) {
    check(rig, frame, Verdict::Pass, outcome);
}

#[track_caller]
fn drops(rig: &mut Rig, frame: &Frame, outcome: u32) {
    check(rig, frame, Verdict::Drop, outcome);
}
