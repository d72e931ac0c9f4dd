//! Every script of the project, as one program: `cargo xtask VERB`.
//!
//! This file only chooses the verb; each verb is a module. Nothing here knows the gateway's insides: the verbs speak to
//! cargo, to package managers and to the built binary, as a person at a terminal would.

use std::process::ExitCode;

mod bench;
mod command;
mod deploy;
mod dist;
mod ebpf;
mod peers;
mod pictures;
mod run;
mod test;

const USAGE: &str = "\
usage: cargo xtask VERB

  run           build, and start the gateway with a small mail server behind it, on loopback
  test [ARGS]   provide the mail servers the tests use, build, and run every test; ARGS go to `cargo test`
  bench [ARGS]  the gateway beside HAProxy and nginx, in one run; --help tells of ARGS
  ebpf          build the kernel side's objects anew; --check proves that the committed ones are what the sources build
  dist          build for release, and pack a tarball and a Debian package into target/dist
  deploy HOST…  a package onto hosts by ssh, without loss, and the old one back if the new one fails; --help tells of options
  install       the same on this machine
  peers [NAME…] only provide the mail servers, or what is named, into target/peers
  pictures      make the README's pictures of page and live view anew, and have a browser judge the page
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next();
    let rest: Vec<String> = arguments.collect();
    let outcome = match verb.as_deref() {
        Some("test") => test::run(&rest),
        Some("run") => run::run(&rest),
        Some("bench") => bench::run(&rest),
        Some("ebpf") => ebpf::run(&rest),
        Some("dist") => dist::run(&rest),
        Some("deploy") => deploy::run(&rest),
        Some("install") => deploy::install(&rest),
        Some("peers") => peers::run(&rest),
        Some("pictures") => pictures::run(&rest),
        Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            Ok(())
        }
        Some(other) => Err(format!("there is no verb `{other}`\n\n{USAGE}")),
        None => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.trim_end());
            ExitCode::FAILURE
        }
    }
}
