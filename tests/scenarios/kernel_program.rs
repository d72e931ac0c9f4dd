use tests::kernel::available;
use tests::kernel::frame::Frame;

#[test]
fn quick() {
    let Some(mut rig) = available("quick") else { return };
    println!("{:?}", rig.judge(&Frame::syn("192.0.2.7").bytes()));
    println!("{:?}", rig.repeat(&Frame::ack("192.0.2.7").bytes(), 1_000_000));
    println!("{:?}", rig.counters());
    println!("{:?}", rig.source("192.0.2.7"));
}
