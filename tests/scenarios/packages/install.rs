//! `cargo xtask install`, as whoever is new to it tries it on the machine that the gateway is to run on.

use std::process::Command;

use tests::peers::machine::Machine;
use tests::peers::net::Trio;
use tests::peers::stage::said;

use super::{CONFIG, configuration, mail_server, packages, property, provided};

/// What `install` said, whether it went well, and that each step stands before what it did.
struct Told {
    well: bool,
    text: String,
}

impl Told {
    /// The steps by name, in their order; each with its command below it.
    fn steps(&self) -> Vec<&str> {
        let mut lines = self.text.lines().peekable();
        let mut steps = Vec::new();
        while let Some(line) = lines.next() {
            let number = format!("{}. ", steps.len() + 1);
            if let Some(step) = line.strip_prefix(&number) {
                assert!(lines.peek().is_some_and(|command| command.starts_with("   # ")), "{step}: {}", self.text);
                steps.push(step);
            }
        }
        steps
    }

    /// That it failed, in these words, as its last.
    #[track_caller]
    fn failed(&self, words: &str) {
        assert!(!self.well && self.text.contains(words), "{}", self.text);
        assert!(!self.text.contains("panicked"), "{}", self.text);
    }
}

fn install(machine: &Machine, user: u32, arguments: &str) -> Told {
    let become_user = format!("setpriv --reuid {user} --regid {user} --clear-groups");
    let output = machine.run(&format!("exec {become_user} /srv/xtask install {arguments} 2>&1"));
    Told { well: output.status.success(), text: said(&output) }
}

#[test]
#[ignore = "makes and boots a Debian, which takes a mirror and minutes"]
fn this_machine_is_installed_on_upgraded_and_put_back_step_by_step() {
    if !provided("installing on this machine") {
        return;
    }
    let [old, new, broken] = packages();
    let trio = Trio::new();
    let _server = mail_server(&trio, false);
    let machine = Machine::boot(&trio.gateway);
    // Of what `cargo xtask` runs nothing but the program itself: a package is enough, and neither sources nor cargo are.
    let program = Command::new(option_env!("CARGO").unwrap_or("cargo"))
        .args(["build", "--quiet", "--package", "xtask"])
        .status()
        .unwrap();
    assert!(program.success());
    machine.copy(&tests::peers::target().join("debug/xtask"));
    let [old, new, broken] = [old, new, broken].map(|package| machine.copy(&package.debian));
    let as_root = |arguments: &str| install(&machine, 0, arguments);
    let is_there = || machine.run("ls /usr/bin/smtp-gateway /var/cache/smtp-gateway").status.success();
    let is_new = || machine.must("tail -c 5 /usr/bin/smtp-gateway | tr -cd a-z") == "newer";

    // What goes wrong before anything is done.
    as_root("--package /srv/nothing.deb").failed("/srv/nothing.deb: there is no such file");
    as_root("--package /etc/hostname").failed("hostname is neither a .deb nor a .tar.gz");
    as_root("--package").failed("usage: ");
    as_root("--packages x").failed("there is no option --packages");
    as_root("mx.example").failed("usage: ");
    as_root("--rollback")
        .failed("there is no earlier package in /var/cache/smtp-gateway; deploy the one you want with --package FILE");
    install(&machine, 65534, &format!("--package {old}")).failed("root is needed here");
    machine.must(&format!("head -c 100000 {old} > /srv/torn.deb"));
    as_root("--package /srv/torn.deb").failed("dpkg-deb: error: ");
    assert!(!machine.run("ls /usr/bin/smtp-gateway").status.success());
    machine.must("rm -r /var/cache/smtp-gateway");

    // Dry, the same steps are told, and nothing is done.
    let dry = as_root(&format!("--dry-run --package {old}"));
    assert!(dry.well && !is_there(), "{}", dry.text);
    let first = as_root(&format!("--package {old}"));
    assert!(first.well && first.text.contains("there is no /etc/smtp-gateway/gateway.toml yet"), "{}", first.text);
    assert!(first.text.contains("no gateway ran here: write /etc/smtp-gateway/gateway.toml, then"), "{}", first.text);
    println!("{}", first.text);
    machine.write(CONFIG, &configuration(""));
    machine.must("smtp-gateway check && systemctl enable --now smtp-gateway");

    // The second time is an upgrade.
    let process = || property(&machine, "MainPID");
    let serving = process();
    let second = as_root(&format!("--package {new}"));
    println!("{}", second.text);
    assert!(second.well && is_new() && process() != serving, "{}", second.text);
    assert!(second.text.contains("upgraded; process") && second.text.contains("ready: "), "{}", second.text);
    assert_eq!(dry.steps()[..2], second.steps()[..2]);
    assert!(second.steps().len() >= 9, "{:?}", second.steps());
    as_root(&format!("--package {broken}")).failed("the old package is back, and runs");
    assert!(is_new());
    let back = as_root("--rollback");
    assert!(back.well && !is_new() && property(&machine, "ActiveState") == "active", "{}", back.text);
    // A configuration that the new program does not take stops it before anything changes.
    machine.write(CONFIG, &configuration("").replace("hostname", "hostnam"));
    let serving = process();
    as_root(&format!("--package {new}")).failed("did you mean `hostname`?");
    assert!(!is_new() && process() == serving);
    assert_eq!(property(&machine, "NRestarts"), "0");
}
