//! Packages in a Debian of its own under a real systemd: installed, changed, upgraded and removed, by dpkg and by
//! `cargo xtask deploy`. They need a Debian root, which takes a mirror and a minute to make, so all of this is left out of the
//! ordinary run: `cargo xtask test packages:: -- --ignored`

mod install;
mod reboot;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use smtp_gateway::sink::{self, Options, Sink, SinkIdentity};
use tests::peers::client::Client;
use tests::peers::gateway::program;
use tests::peers::log::PATIENCE;
use tests::peers::machine::Machine;
use tests::peers::net::{BACK, BACKEND, CLIENT, FRONT, Family, Trio};
use tests::peers::postfix::{Postfix, Temper};
use tests::peers::stage::{Stage, said};
use tests::peers::{LOCAL_DOMAIN, available, xtask};

const CONFIG: &str = "/etc/smtp-gateway/gateway.toml";
const MESSAGE: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

/// One package in both forms.
struct Package {
    tarball: PathBuf,
    debian: PathBuf,
}

/// Packs this program under this version.
fn pack(program: &Path, version: &str) -> Package {
    let output = xtask(&["dist", "--binary", &program.display().to_string(), "--version", version]);
    assert!(output.status.success(), "{}", said(&output));
    let paths = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut paths = paths.lines().map(PathBuf::from);
    Package { tarball: paths.next().unwrap(), debian: paths.next().unwrap() }
}

/// Two that work, the older first, and one whose program ends at once.
fn packages() -> &'static [Package; 3] {
    static PACKAGES: OnceLock<[Package; 3]> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let stripped = folder.path().join("smtp-gateway");
        let status = Command::new("strip").arg("-o").arg(&stripped).arg(program()).status().unwrap();
        assert!(status.success());
        let old = pack(&stripped, "1.0");
        // What stands behind a program's end makes it another one.
        fs::File::options().append(true).open(&stripped).unwrap().write_all(b"newer").unwrap();
        let new = pack(&stripped, "1.1");
        let bytes = |package: &Package| [&package.tarball, &package.debian].map(|file| fs::read(file).unwrap());
        let broken = pack(Path::new("/bin/true"), "1.2");
        let first = bytes(&broken);
        let broken = pack(Path::new("/bin/true"), "1.2");
        assert!(bytes(&broken) == first, "of the same is made the same, byte by byte");
        [old, new, broken]
    })
}

fn configuration(more: &str) -> String {
    let listeners = Family::BOTH.map(|family| format!("[[listener]]\naddress = \"{}\"\n", family.smtp(FRONT))).concat();
    format!(
        "[server]\nhostname = \"gateway.test\"\n{listeners}[[backend]]\nname = \"postfix\"\naddress = \"{}\"\n\
         identity = \"xclient\"\n[relay]\nlocal_domains = [\"{LOCAL_DOMAIN}\"]\n[dns]\nenabled = false\n{more}",
        Family::V4.smtp(BACKEND)
    )
}

/// Whether it can run here; what it needs is provided.
fn provided(scenario: &str) -> bool {
    if !available(scenario, &["postfix"]) {
        return false;
    }
    static DEBIAN: OnceLock<Output> = OnceLock::new();
    let output = DEBIAN.get_or_init(|| xtask(&["peers", "debian"]));
    assert!(output.status.success(), "{}", said(output));
    true
}

fn property(machine: &Machine, name: &str) -> String {
    machine.must(&format!("systemctl show --property {name} --value smtp-gateway"))
}

fn status(machine: &Machine) -> Value {
    serde_json::from_str(&machine.must("smtp-gateway status --json --socket /run/smtp-gateway/control.sock")).unwrap()
}

/// Waits until this is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Messages in sessions of one each, by Postfix's own program, as long as `during` goes on; each must be taken and delivered once.
fn under_load(trio: &Trio, backend: &Postfix, during: impl FnOnce()) {
    const EACH: usize = 200;
    let (server, count) = (format!("inet:{}:25", FRONT[0]), EACH.to_string());
    let recipient = format!("box@{LOCAL_DOMAIN}");
    let options = ["-m", &count, "-s", "4", "-M", "client.test", "-f", "a@client.test", "-t", &recipient];
    let command = [&["smtp-source"], &options[..], &[&server]].concat();
    let over = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let ends = Ends(&over);
        let source = scope.spawn(|| {
            let (stage, mut sent) = (Stage::new("postfix"), 0);
            while !over.load(Ordering::Relaxed) {
                let output = stage.run(&trio.client, &command);
                assert!(output.status.success(), "{}", said(&output));
                sent += EACH;
            }
            sent
        });
        during();
        drop(ends);
        source.join().unwrap()
    });
    println!("{sent} messages meanwhile");
    backend.wait_for_deliveries(sent);
    assert_eq!(backend.mailbox().len(), sent, "none lost, none twice");
}

/// Whatever fails, clients end.
struct Ends<'d>(&'d AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every file but what dpkg, logs and the machine itself keep; and users.
fn traces(machine: &Machine) -> String {
    machine.must(
        "find / /run /sys/fs/bpf -xdev \\( -path /proc -o -path /var/lib/dpkg -o -path /var/log -o -path /run/systemd \
         -o -path /run/udev -o -path /run/agetty.reload -o -path /srv -o -path /tmp -o -path /var/tmp -o -path /var/cache \\) -prune -o -print | sort -u; \
         cut -d: -f1 /etc/passwd /etc/group; ip -o link show | grep -o 'prog/xdp.*' || true",
    )
}

#[test]
#[ignore = "makes and boots a Debian, which takes a mirror and minutes"]
fn a_package_is_installed_changed_upgraded_and_purged_without_loss() {
    if !provided("packages under systemd") {
        return;
    }
    let [old, new, _] = packages();
    let trio = Trio::new();
    let backend = Postfix::start(&trio.backend, Temper::Xclient);
    let machine = Machine::boot(&trio.gateway);
    println!("{}", machine.must("systemctl --version | head -1"));
    let before = traces(&machine);
    let install = |package: &Package| {
        let file = machine.copy(&package.debian);
        machine.must(&format!("dpkg --force-downgrade -i {file} 2>&1"))
    };

    // Nothing starts until it is configured.
    let told = install(old);
    machine.must(
        "cd /usr/share; ls man/man8/smtp-gateway.8* bash-completion/completions/smtp-gateway doc/smtp-gateway/copyright \
         doc/smtp-gateway/CHANGELOG.md; grep -q rustls doc/smtp-gateway/copyright; \
         dpkg-query -W -f '${Conffiles}' smtp-gateway | grep -q gateway.toml",
    );
    assert!(told.contains("write /etc/smtp-gateway/gateway.toml, then"), "{told}");
    assert_eq!(property(&machine, "ActiveState"), "inactive");
    let config = configuration("[xdp]\ninterfaces = [\"client\"]\nmode = \"native\"\n");
    machine.write(CONFIG, &config);
    let drop_in = "/etc/systemd/system/smtp-gateway.service.d";
    machine.must(&format!("install -Dm644 -t {drop_in} /usr/share/smtp-gateway/kernel-side.conf"));
    machine.write(&format!("{drop_in}/watchdog.conf"), "[Service]\nWatchdogSec=4s\n");
    machine.must("smtp-gateway check && systemctl daemon-reload && systemctl enable --now smtp-gateway");
    let running = status(&machine);
    assert_eq!(running["xdp"]["mode"], "native", "{running}");
    // Of ten at most two, with all that the kernel side takes.
    let exposure = machine.must("systemd-analyze security --no-pager --threshold=20 smtp-gateway");
    println!("{}", exposure.lines().last().unwrap_or_default());

    // A process that does not answer is started anew, and bans are still there.
    machine.must(&format!("smtp-gateway ban {} --for 1h --reason 'ticket 4711'", CLIENT[1]));
    until("the ban is written down", || {
        machine.must("cat /var/lib/smtp-gateway/bans.json 2>/dev/null || true").contains("ticket 4711")
    });
    machine.must("kill -STOP $(systemctl show --property MainPID --value smtp-gateway)");
    until("the watchdog starts it anew", || property(&machine, "NRestarts") == "1");
    until("it is ready", || property(&machine, "ActiveState") == "active");
    let reasons = || machine.must("smtp-gateway bans --json | tr -d ' \\n'");
    assert!(reasons().contains("ticket4711"), "{}", reasons());

    let process = || property(&machine, "MainPID");
    let serving = process();
    under_load(&trio, &backend, || {
        // Reloads, and one that is faulty.
        for text in [config.clone() + "[timeouts]\nreply = \"61s\"\n", config.clone()] {
            machine.write(CONFIG, &text);
            machine.must("systemctl reload smtp-gateway");
        }
        let digest = status(&machine)["config"]["digest"].clone();
        machine.write(CONFIG, &config.replace("hostname", "hostnam"));
        let output = machine.run("systemctl reload smtp-gateway");
        assert!(!output.status.success(), "{}", said(&output));
        assert_eq!((&status(&machine)["config"]["digest"], process()), (&digest, serving.clone()));
        machine.must("journalctl --unit smtp-gateway --no-pager --quiet --grep 'did you mean .hostname'");
        // A package that comes meanwhile leaves the old program at work.
        let told = install(new);
        assert!(told.contains("this version does not take") && told.contains("still the old one"), "{told}");
        assert_eq!(process(), serving);
        machine.write(CONFIG, &config);
        let mut serving = serving.clone();
        for package in [old, new, old, new] {
            let told = install(package);
            assert!(told.contains("upgraded; process"), "{told}");
            assert_ne!(process(), serving);
            serving = process();
            assert_eq!(property(&machine, "NRestarts"), "1", "it was not restarted");
            let own = status(&machine);
            assert_eq!((own["process"].to_string(), &own["xdp"]["mode"]), (serving.clone(), &"native".into()), "{own}");
            assert_eq!(own["xdp"]["problem"], Value::Null, "{own}");
        }
        assert!(reasons().contains("ticket4711"), "{}", reasons());
    });
    assert!(trio.client.within(|| {
        std::net::TcpStream::connect_timeout(&Family::V6.smtp(FRONT), Duration::from_millis(500)).is_err()
    }));
    // The watchdog is content with the last of them.
    let serving = process();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!((process(), property(&machine, "NRestarts")), (serving, "1".to_owned()));

    machine.must("dpkg --purge smtp-gateway 2>&1");
    let left: Vec<_> = traces(&machine)
        .lines()
        .filter(|line| !before.lines().any(|known| known == *line))
        .map(str::to_owned)
        .collect();
    assert_eq!(left, Vec::<String>::new(), "purge leaves nothing");
    assert_eq!(machine.run("pgrep -x smtp-gateway").status.code(), Some(1));
    assert_eq!(machine.must("systemctl list-units --all 'smtp-gateway*' --no-legend"), "");
}

/// A mail server that takes XCLIENT from the gateway; an `open` one relays for everybody.
fn mail_server(trio: &Trio, open: bool) -> Sink {
    let everybody = "0.0.0.0/0".parse().unwrap();
    let options = Options {
        listen: Family::V4.smtp(BACKEND),
        identity: SinkIdentity::Xclient,
        xclient_from: vec![BACK[0].parse::<std::net::IpAddr>().unwrap().into()],
        trust: if open { vec![everybody] } else { Vec::new() },
        local_domains: vec![LOCAL_DOMAIN.to_owned()],
        quiet: true,
        ..Options::default()
    };
    trio.backend.within(|| sink::start(options)).unwrap()
}

/// One message after the other, as long as `during` goes on; each must be taken.
fn while_mail_comes<T>(trio: &Trio, during: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                let mut client = Client::to_gateway(&trio.client, Family::V4);
                assert_eq!(client.mail("a@client.test", &format!("b@{LOCAL_DOMAIN}"), MESSAGE).code, 250);
                client.quit();
                sent += 1;
            }
            sent
        });
        let ends = Ends(&over);
        let done = during();
        drop(ends);
        println!("{} messages meanwhile", sender.join().unwrap());
        done
    })
}

/// By a real sshd: forward, what is broken or proves worse, and back.
fn deploys(form: impl Fn(&Package) -> &Path) {
    let [old, new, broken] = packages();
    let trio = Trio::new();
    let mut server = Some(mail_server(&trio, false));
    let machine = Machine::boot(&trio.gateway);
    machine.must(
        "ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519 && cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys",
    );
    println!("{}", machine.must("ssh -V 2>&1"));
    let ssh = format!(
        "nsenter --all --target {} ssh -o StrictHostKeyChecking=accept-new -o LogLevel=ERROR -i /root/.ssh/id_ed25519",
        machine.leader()
    );
    let deploy = |hosts: &[&str], ssh: &str, what: &[&str]| {
        let output = xtask(&[&["deploy"], hosts, &["--ssh", ssh], what].concat());
        (output.status.success(), said(&output))
    };
    let package = |package: &Package| ["--package".to_owned(), form(package).display().to_string()];
    let to_one = |which: &Package| {
        let [option, file] = package(which);
        deploy(&["127.0.0.1"], &ssh, &[&option, &file])
    };
    let installed = || machine.must("tail -c 5 /usr/bin/smtp-gateway | tr -cd a-z") == "newer";
    let runs_what_is_installed = || {
        machine
            .run("cmp /usr/bin/smtp-gateway /proc/$(systemctl show -p MainPID --value smtp-gateway)/exe")
            .status
            .success()
    };

    // Dry, nothing happens; then what is new to the host starts nothing.
    let [option, file] = package(old);
    let (well, told) = deploy(&["127.0.0.1"], &ssh, &[&option, &file, "--dry-run"]);
    assert!(well && told.contains("install") && !machine.run("ls /usr/bin/smtp-gateway").status.success(), "{told}");
    let (well, told) = to_one(old);
    assert!(well && told.contains("no gateway ran here"), "{told}");
    machine.write(CONFIG, &configuration(""));
    machine.must("systemctl enable --now smtp-gateway");

    while_mail_comes(&trio, || {
        let (well, told) = to_one(new);
        assert!(well && told.contains("ready: "), "{told}");
        assert!(installed() && runs_what_is_installed());
        // What ends at once comes never to serve.
        let (well, told) = to_one(broken);
        assert!(!well && told.contains("the old package is back, and runs"), "{told}");
        assert!(installed() && runs_what_is_installed());
        let (well, told) = deploy(&["127.0.0.1"], &ssh, &["--rollback"]);
        assert!(well && !installed() && runs_what_is_installed(), "{told}");
        let (well, told) = deploy(&["127.0.0.1"], &ssh, &["--rollback"]);
        assert!(well && installed() && runs_what_is_installed(), "{told}");
    });

    // The mail server becomes an open relay while the package is installed.
    let wrapper = machine.shared().join("ssh");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *'dpkg --force-confold'*|*'tar -C / --no-overwrite-dir'*)\ntouch {0}/installing\n\
         until [ -e {0}/open ]; do sleep 0.1; done;; esac\nexec {ssh} \"$@\"\n",
        machine.shared().display()
    );
    fs::write(&wrapper, script).unwrap();
    let [option, file] = package(old);
    let (well, told) = std::thread::scope(|scope| {
        let deploying = scope.spawn(|| deploy(&["127.0.0.1"], &format!("sh {}", wrapper.display()), &[&option, &file]));
        until("the package is installed", || machine.shared().join("installing").exists() || deploying.is_finished());
        server.take().into_iter().for_each(Sink::stop);
        server = Some(mail_server(&trio, true));
        fs::write(machine.shared().join("open"), "").unwrap();
        deploying.join().unwrap()
    });
    assert!(!well && told.contains("the relay proof is worse than before"), "{told}");
    assert!(told.contains("the old package is back, and runs") && installed() && runs_what_is_installed(), "{told}");
    server.take().into_iter().for_each(Sink::stop);
    let _server = mail_server(&trio, false);

    // Of several hosts the first that fails is the last.
    let hosts = ["127.0.0.1", "::1"];
    let [option, file] = package(broken);
    let (well, told) = deploy(&hosts, &ssh, &[&option, &file]);
    assert!(!well && told.contains("1 further host(s) were left as they are"), "{told}");
    assert!(told.contains("\n127.0.0.1:") && !told.contains("\n::1:"), "{told}");
    let [option, file] = package(old);
    let (well, told) = deploy(&hosts, &ssh, &[&option, &file]);
    assert!(well && told.contains("\n::1:") && !installed() && runs_what_is_installed(), "{told}");
    assert_eq!(property(&machine, "NRestarts"), "0", "what did not come to serve was never in its place");
}

#[test]
#[ignore = "makes and boots a Debian, which takes a mirror and minutes"]
fn debian_packages_are_deployed_and_put_back() {
    if provided("deploying packages") {
        deploys(|package| &package.debian);
    }
}

#[test]
#[ignore = "makes and boots a Debian, which takes a mirror and minutes"]
fn tarballs_are_deployed_and_put_back() {
    if provided("deploying tarballs") {
        deploys(|package| &package.tarball);
    }
}
