//! Certificates while the gateway runs: what is shown of them, and how a renewed one reaches a gateway that may not read it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use smtp_gateway::tls::{SelfSigned, self_signed};
use tempfile::TempDir;
use tests::peers::gateway::program;
use tests::peers::local::{LocalGateway, address, configuration, run};

/// A gateway whose certificate only the user may read who runs these scenarios.
struct Scene {
    gateway: LocalGateway,
    files: TempDir,
}

impl Scene {
    /// `more` are keys of `[control]`.
    fn new(more: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        issue(files.path());
        let front = (address(), 2525).into();
        let [certificate, key] = ["mx.pem", "mx.key"].map(|name| files.path().join(name).display().to_string());
        let tls = format!("{more}[tls]\ncertificates = [{{ certificate = \"{certificate}\", key = \"{key}\" }}]\n");
        let config = configuration(front, "", (address(), 2526).into(), "xclient", &tls);
        Self { gateway: LocalGateway::start(front, &config), files }
    }

    fn certificate(&self) -> serde_json::Value {
        let output = run(self.gateway.folder(), &["certificates", "--socket", "control.sock", "--json"]);
        assert!(output.status.success(), "{output:?}");
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        list["certificates"][0].clone()
    }

    fn digest(&self) -> String {
        self.certificate()["in_use"]["key_sha256"].as_str().unwrap().to_owned()
    }

    /// The exit code, and what was said on both outputs.
    fn renew(&self) -> (Option<i32>, String) {
        let output = run(self.gateway.folder(), &["certificates", "renew", "-c", "gateway.toml"]);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }
}

/// A new pair in place of the old.
fn issue(folder: &Path) {
    let SelfSigned { certificate, key } = self_signed(&["mx.example.com".to_owned()], 30).unwrap();
    fs::write(folder.join("mx.pem"), certificate).unwrap();
    fs::write(folder.join("mx.key"), key).unwrap();
    fs::set_permissions(folder.join("mx.key"), fs::Permissions::from_mode(0o600)).unwrap();
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("left out: only root has files that the gateway may not read");
    }
    root
}

/// What is added to it runs as this user.
fn as_user(uid: u32) -> Command {
    let mut command = Command::new("setpriv");
    let uid = uid.to_string();
    command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups"]);
    command
}

#[test]
fn what_is_in_use_is_shown() {
    let scene = Scene::new("");
    let certificate = scene.certificate();
    assert_eq!(certificate["in_use"]["names"], serde_json::json!(["mx.example.com"]));
    assert!((29..=30).contains(&certificate["in_use"]["days_left"].as_i64().unwrap()));
    assert_eq!(certificate["listeners"], serde_json::json!([scene.gateway.address.to_string()]));
    let output = run(scene.gateway.folder(), &["certificates", "--socket", "control.sock"]);
    let page = String::from_utf8(output.stdout).unwrap();
    for line in ["  names      mx.example.com", "  issuer     itself", "  key        ECDSA P-256"] {
        assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
    }
    assert!(page.contains(&format!("  DANE 3 1 1 {}", scene.digest())), "{page}");
}

#[test]
fn root_hands_over_what_the_gateway_may_not_read() {
    if !is_root() {
        return;
    }
    let scene = Scene::new("");
    let first = scene.digest();
    assert_eq!(scene.renew().0, Some(0));
    assert_eq!(scene.digest(), first, "nothing is new");
    issue(scene.files.path());
    let (code, said) = scene.renew();
    assert!(code == Some(0) && said.trim_end().ends_with("mx.pem is in use now"), "{said}");
    let second = scene.digest();
    assert_ne!(second, first);
    // Half of a renewal.
    let key = fs::read(scene.files.path().join("mx.key")).unwrap();
    issue(scene.files.path());
    fs::write(scene.files.path().join("mx.key"), key).unwrap();
    let (code, said) = scene.renew();
    assert!(code == Some(1) && said.contains("mx.key does not belong to the certificate"), "{said}");
    assert_eq!(scene.digest(), second);
    let status = scene.gateway.status();
    let problem = status["problems"].to_string();
    assert!(problem.contains("is still in use") && problem.contains("does not belong to"), "{problem}");
    issue(scene.files.path());
    assert_eq!(scene.renew().0, Some(0));
    assert!(!scene.gateway.status()["problems"].to_string().contains("mx.pem"));
}

#[test]
fn nobody_else_hands_one_over() {
    if !is_root() {
        return;
    }
    let uid = 60_123;
    let scene = Scene::new(&format!("allowed_uids = [{uid}]\n"));
    // It may ask, and read the files of the set-up; that makes its key none of the gateway's.
    let own = tempfile::tempdir().unwrap();
    issue(own.path());
    let config = fs::read_to_string(scene.gateway.folder().join("gateway.toml")).unwrap();
    let config = config.replace("\"control.sock\"", &format!("\"{}\"", scene.gateway.control_socket().display()));
    fs::write(own.path().join("gateway.toml"), config).unwrap();
    for folder in [scene.gateway.folder(), scene.files.path(), own.path()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let key = scene.files.path().join("mx.key");
    std::os::unix::fs::chown(&key, Some(uid), Some(uid)).unwrap();
    let mut command = as_user(uid);
    let output = command
        .arg(program())
        .args(["certificates", "renew", "-c", "gateway.toml"])
        .current_dir(own.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && said.contains("only root and the gateway's own user"), "{said}");
}

#[test]
fn without_a_key_it_waits_for_one() {
    if !is_root() {
        return;
    }
    let files = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    issue(files.path());
    let front: std::net::SocketAddr = (address(), 2525).into();
    let [certificate, key] = ["mx.pem", "mx.key"].map(|name| files.path().join(name).display().to_string());
    let tls = format!("[tls]\ncertificates = [{{ certificate = \"{certificate}\", key = \"{key}\" }}]\n");
    let config = configuration(front, "", (address(), 2526).into(), "xclient", &tls);
    fs::write(folder.path().join("gateway.toml"), config).unwrap();
    let uid = 60_124;
    for folder in [files.path(), folder.path()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::os::unix::fs::chown(folder.path(), Some(uid), Some(uid)).unwrap();
    let mut command = as_user(uid);
    command.args(["sh", "-c", "exec \"$0\" run -c gateway.toml 2>&1"]).arg(program()).current_dir(folder.path());
    let child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let gateway = tests::peers::log::Process::new("the gateway", child);
    gateway.log().wait_for_line("ready");
    let status = || {
        let output = run(folder.path(), &["status", "--socket", "control.sock", "--json"]);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let problems = status()["problems"].to_string();
    assert!(problems.contains("mx.key may not be read by this user") && problems.contains("critical"), "{problems}");
    let offers = || {
        let mut client = tests::peers::client::Client::over(
            tests::peers::local::connect(std::net::Ipv4Addr::LOCALHOST, front).unwrap(),
        );
        client.expect(2);
        client.must("EHLO client.test").lines.iter().any(|line| line.ends_with("STARTTLS"))
    };
    assert!(!offers(), "there is nothing to offer");
    let output = run(folder.path(), &["certificates", "renew", "-c", "gateway.toml"]);
    assert!(output.status.success(), "{output:?}");
    assert!(offers());
    assert!(!status()["problems"].to_string().contains("mx.key"));
}

#[test]
fn check_says_what_it_may_not_read() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    issue(folder.path());
    let tls = "[tls]\ncertificates = [{ certificate = \"mx.pem\", key = \"mx.key\" }]\n";
    let config = configuration((address(), 2525).into(), "", (address(), 2526).into(), "xclient", tls);
    fs::write(folder.path().join("gateway.toml"), config).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = as_user(60_125);
    let output =
        command.arg(program()).args(["check", "-c", "gateway.toml"]).current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("gateway.toml:") && said.contains("mx.key may not be read by this user"), "{said}");
}
