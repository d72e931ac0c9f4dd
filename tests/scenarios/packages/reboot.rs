//! What outlives the machine: bans, with the kernel side on, over a reboot in good order and over a power cut. Pins, sockets and
//! whatever else is in memory are gone after either; only the disk stays.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use tests::peers::machine::{Disk, Machine};
use tests::peers::net::{CLIENT, FRONT, Family, Trio};
use tests::peers::stage::said;

use super::{CONFIG, configuration, mail_server, packages, property, provided, status, until};

/// A ban in force.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Ban {
    address: String,
    reason: String,
    /// Seconds since 1970.
    until: u64,
}

fn bans(machine: &Machine) -> Vec<Ban> {
    let listed: Value = serde_json::from_str(&machine.must("smtp-gateway bans --json")).unwrap();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let bans = listed["bans"].as_array().unwrap().iter();
    let mut bans: Vec<_> = bans
        .map(|ban| Ban {
            address: word(&ban["address"]),
            reason: word(&ban["reason"]),
            until: ban["until"].as_u64().unwrap(),
        })
        .collect();
    bans.sort();
    bans
}

/// The same bans until the same time, but for what rounding does to a second.
fn assert_same(bans: &[Ban], kept: &[Ban]) {
    let names = |bans: &[Ban]| bans.iter().map(|ban| (ban.address.clone(), ban.reason.clone())).collect::<Vec<_>>();
    assert_eq!(names(bans), names(kept));
    assert!(bans.iter().zip(kept).all(|(ban, kept)| ban.until.abs_diff(kept.until) <= 1), "{bans:?}, {kept:?}");
}

/// The gateway of a machine that has just booted is there by itself, with its kernel side.
fn is_back(machine: &Machine) {
    until("the gateway is there", || property(machine, "ActiveState") == "active");
    let own = status(machine);
    assert_eq!((&own["xdp"]["mode"], &own["xdp"]["problem"]), (&"native".into(), &Value::Null), "{own}");
}

#[test]
#[ignore = "makes and boots a Debian, which takes a mirror and minutes"]
fn bans_outlive_a_reboot_and_a_power_cut_with_the_kernel_side_on() {
    if !provided("reboots under systemd") {
        return;
    }
    let [package, ..] = packages();
    let trio = Trio::new();
    let _server = mail_server(&trio, false);
    let connects = |family: Family| {
        let patience = Duration::from_millis(500);
        trio.client.within(|| TcpStream::connect_timeout(&family.smtp(FRONT), patience).is_ok())
    };
    let disk = Disk::new();
    let machine = Machine::boot_from(&trio.gateway, &disk);
    let file = machine.copy(&package.debian);
    machine.write(CONFIG, &configuration("[xdp]\ninterfaces = [\"client\"]\nmode = \"native\"\n"));
    machine.must(&format!("dpkg --force-confold -i {file} 2>&1"));
    machine.must(
        "install -Dm644 -t /etc/systemd/system/smtp-gateway.service.d /usr/share/smtp-gateway/kernel-side.conf; \
         systemctl daemon-reload; systemctl enable --now smtp-gateway",
    );
    is_back(&machine);
    let ban = |machine: &Machine, source: &str, time: &str, reason: &str| {
        machine.must(&format!("smtp-gateway ban {source} --for {time} --reason '{reason}'"));
        until("the ban is on the disk", || {
            machine.must("cat /var/lib/smtp-gateway/bans.json 2>/dev/null || true").contains(reason)
        });
    };
    ban(&machine, CLIENT[1], "1h", "before the reboot");
    ban(&machine, "203.0.113.9", "2s", "ends meanwhile");
    let kept: Vec<_> = bans(&machine).into_iter().filter(|ban| ban.reason == "before the reboot").collect();
    assert_eq!(kept.len(), 1, "{:?}", bans(&machine));

    machine.reboot();
    let links = trio.gateway.command("ip").args(["-o", "link"]).output().unwrap();
    assert!(!said(&links).contains("prog/xdp"), "the program went with its pins: {}", said(&links));
    let machine = Machine::boot_from(&trio.gateway, &disk);
    is_back(&machine);
    assert_same(&bans(&machine), &kept);
    assert!(connects(Family::V4) && !connects(Family::V6), "the card drops who is banned, and nobody else");

    ban(&machine, "203.0.113.0/24", "1h", "before the power cut");
    let kept = bans(&machine);
    assert_eq!(kept.len(), 2, "{kept:?}");
    drop(machine);
    let machine = Machine::boot_from(&trio.gateway, &disk);
    is_back(&machine);
    assert_same(&bans(&machine), &kept);
    assert!(connects(Family::V4) && !connects(Family::V6));
    // Lifted stays lifted, too.
    machine.must(&format!("smtp-gateway unban {}", CLIENT[1]));
    until("the journal knows", || !machine.must("cat /var/lib/smtp-gateway/bans.json").contains("before the reboot"));
    machine.reboot();
    let machine = Machine::boot_from(&trio.gateway, &disk);
    is_back(&machine);
    assert_same(
        &bans(&machine),
        &kept.into_iter().filter(|ban| ban.reason == "before the power cut").collect::<Vec<_>>(),
    );
    assert!(connects(Family::V6));
}
