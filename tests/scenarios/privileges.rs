//! What the gateway may do after its start, asked of the kernel: the running process's own credentials are tried on files.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use smtp_gateway::sink::{Options, SinkIdentity};
use tests::peers::local::{LocalGateway, LocalSink, address, configuration, run};

/// The words behind a field of `/proc/PID/status`.
fn credentials(pid: u32, field: &str) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    line.trim_start_matches(':').split_whitespace().map(str::to_owned).collect()
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("left out: only root has something to give up");
    }
    root
}

/// Reads a file as a process with these credentials.
fn reads(file: &Path, uid: &str, gid: &str, groups: &[String]) -> bool {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", uid, "--regid", gid, "--inh-caps=-all", "--bounding-set=-all"]);
    match groups {
        [] => command.arg("--clear-groups"),
        groups => command.args(["--groups", &groups.join(",")]),
    };
    command.arg("cat").arg(file).output().expect("setpriv").status.success()
}

#[test]
fn root_is_given_up_after_the_start() {
    if !is_root() {
        return;
    }
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
    let front = (address(), 2525).into();
    let gateway = LocalGateway::start(front, &configuration(front, "", sink.address, "xclient", ""));
    let [uids, gids] = ["Uid", "Gid"].map(|field| credentials(gateway.pid(), field));
    let groups = credentials(gateway.pid(), "Groups");
    for ids in [&uids, &gids] {
        assert!(ids.iter().all(|id| *id == ids[0] && id != "0"), "real, effective, saved, file system: {ids:?}");
    }
    assert!(!groups.contains(&"0".to_owned()), "{groups:?}");
    // What belongs to root of a process that is another user's is a process of which no core dump is made (proc(5)).
    let owner = fs::metadata(format!("/proc/{}/fd", gateway.pid())).unwrap().uid();
    assert_eq!(owner, 0, "its memory could be dumped");
    let secret = gateway.folder().join("secret");
    fs::write(&secret, "x").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(fs::read(&secret).is_ok(), "root itself reads it");
    assert!(!reads(&secret, &uids[0], &gids[0], &groups), "the gateway's credentials read root's file");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(reads(&secret, &uids[0], &gids[0], &groups), "the attempt itself is sound");
    // Root still asks, and mail still goes.
    assert_eq!(gateway.status()["warnings"], serde_json::json!([]));
    assert_eq!(gateway.client(address()).mail("a@client.test", "b@example.com", b"Subject: x\r\n\r\nx\r\n").code, 250);
}

#[test]
fn a_user_that_is_not_there_is_a_fault_of_the_configuration() {
    if !is_root() {
        return;
    }
    let gateway = tempfile::tempdir().unwrap();
    let front = (address(), 2525).into();
    let config = configuration(front, "", (address(), 2526).into(), "xclient", "");
    let config = config.replace("workers = 2\n", "workers = 2\nuser = \"nobody-has-this-name\"\n");
    fs::write(gateway.path().join("gateway.toml"), config).unwrap();
    let output = run(gateway.path(), &["run", "-c", "gateway.toml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("`server.user` is `nobody-has-this-name`, and there is no such user"), "{said}");
}
