//! `cargo xtask pictures`: the page and the live view under load, as the README shows them, looked at by a browser.
//!
//! Not only pictures: the browser's console must stay clean, and axe-core must find nothing that keeps people from using the
//! page, at a desk's and at a phone's width, in light and in dark.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::command::{bounded, end, exists, output, repository, target, visible};
use crate::peers;

mod terminal;

const GATEWAY: &str = "127.99.0.1";
const CLIENTS: u8 = 12;
/// How long the load runs before the first picture.
const WARM_UP: Duration = Duration::from_secs(12);

/// A child that is asked to end when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    if !arguments.is_empty() {
        return Err("`cargo xtask pictures` takes no arguments".to_owned());
    }
    for program in ["chromium", "node", "tmux"] {
        if !exists(program) {
            return Err(format!("{program} is not on the path; install chromium, Node.js with npm, and tmux"));
        }
    }
    peers::provide_one("puppeteer")?;
    peers::provide_one("axe")?;
    visible(Command::new("cargo").args(["build", "--quiet", "-p", "smtp-gateway"]).current_dir(repository()))?;
    let folder = target().join("pictures");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let _sink = start(&folder, &["sink", "--listen", "127.99.0.2:2526", "--local-domain", "example.com", "--quiet"])?;
    fs::write(folder.join("gateway.toml"), configuration()).map_err(|error| error.to_string())?;
    let _gateway = start(&folder, &["run", "-c", "gateway.toml"])?;
    for (source, reason) in [("203.0.113.9", "40 relay attempts in 3 sessions"), ("2001:db8:5::/48", "banned by hand")]
    {
        let mut ban = Command::new(program());
        ban.args(["ban", source, "--for", "45m", "--reason", reason, "--socket", "control.sock"]).current_dir(&folder);
        output(&mut ban)?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|number| {
            let stop = stop.clone();
            std::thread::spawn(move || send_mail(number, &stop))
        })
        .collect();
    sleep(WARM_UP);
    let taken = take(&folder);
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().map_err(|_| "a client panicked")?;
    }
    taken
}

fn configuration() -> String {
    format!(
        "[server]\nhostname = \"mx.example.com\"\n[[listener]]\naddress = \"{GATEWAY}:2525\"\n\
         [[backend]]\nname = \"exchange\"\naddress = \"127.99.0.2:2526\"\n[relay]\nlocal_domains = [\"example.com\"]\n\
         [dns]\nenabled = false\n[log]\nlevel = \"warn\"\n[control]\nsocket = \"control.sock\"\n\
         [metrics]\naddress = \"{GATEWAY}:9525\"\n"
    )
}

/// Starts the built program, and waits for its first line.
fn start(folder: &Path, arguments: &[&str]) -> Result<Ended, String> {
    let mut command = Command::new(program());
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", program().display()))?;
    let stdout = child.stdout.take().ok_or("no standard output")?;
    let child = Ended(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
    if line.is_empty() {
        return Err(format!("`smtp-gateway {}` did not start; it says why above", arguments.join(" ")));
    }
    Ok(child)
}

fn program() -> PathBuf {
    target().join("debug/smtp-gateway")
}

/// Mail from one source of its own, until told to stop; now and then for somebody elsewhere.
fn send_mail(number: u8, stop: &AtomicBool) {
    let mut round = u32::from(number);
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        // The next connection may go better; the pictures show how it went.
        let _ = session(number, round);
        sleep(Duration::from_millis(u64::from(number) * 20));
    }
}

fn session(number: u8, round: u32) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 99, 1, number), 0)).into())?;
    let gateway: SocketAddr = format!("{GATEWAY}:2525").parse().map_err(io::Error::other)?;
    socket.connect_timeout(&gateway.into(), Duration::from_secs(5))?;
    let stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream);
    let mut say = |words: &str| -> io::Result<()> {
        reader.get_mut().write_all(words.as_bytes())?;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(());
            }
        }
    };
    say("")?;
    say("EHLO client.example\r\n")?;
    say("MAIL FROM:<sender@client.example>\r\n")?;
    let stranger = number == CLIENTS && round.is_multiple_of(4);
    say(if stranger { "RCPT TO:<somebody@elsewhere.example>\r\n" } else { "RCPT TO:<user@example.com>\r\n" })?;
    if !stranger {
        say("DATA\r\n")?;
        say(&format!("Subject: {round}\r\n\r\n{}\r\n.\r\n", "words ".repeat(usize::from(number) * 8)))?;
    }
    // So that somebody is there when the picture is taken.
    sleep(Duration::from_millis(u64::from(number) * 60));
    say("QUIT\r\n")
}

/// The page in three looks, and the live view.
fn take(folder: &Path) -> Result<(), String> {
    let docs = repository().join("docs");
    let page = format!("http://{GATEWAY}:9525/");
    for (out, width, scheme) in [
        (docs.join("page.png"), "1100", "light"),
        (folder.join("page-dark.png"), "1100", "dark"),
        (folder.join("page-phone.png"), "380", "light"),
    ] {
        look(&page, &out, width, scheme, true)?;
    }
    let text = live_view(folder)?;
    let html = folder.join("live-view.html");
    fs::write(&html, terminal::to_html(&text)).map_err(|error| format!("{}: {error}", html.display()))?;
    look(&format!("file://{}", html.display()), &docs.join("live-view.png"), "760", "dark", false)?;
    println!("docs/page.png and docs/live-view.png are made anew; other looks are in {}", folder.display());
    Ok(())
}

/// Has the browser look at a page; `live`: it must come to life, and be free of faults.
fn look(url: &str, out: &Path, width: &str, scheme: &str, live: bool) -> Result<(), String> {
    let script = repository().join("xtask/src/pictures/look.mjs");
    let mut command = bounded(120, "node");
    command.arg(script).args([url, &out.to_string_lossy(), width, scheme, if live { "live" } else { "still" }]);
    command.env("MODULES", peers::folder("puppeteer").join("node_modules"));
    command.env("AXE", peers::folder("axe").join("node_modules/axe-core/axe.min.js"));
    output(&mut command).map(|said| print!("{said}"))
}

/// What `status --watch` shows in a terminal of 80 by 24.
fn live_view(folder: &Path) -> Result<String, String> {
    let tmux = |arguments: &[&str]| {
        let mut command = bounded(30, "tmux");
        command.args(["-L", "smtp-gateway-pictures"]).args(arguments).current_dir(folder);
        output(&mut command)
    };
    let watch = format!("{} status --watch --socket control.sock", program().display());
    tmux(&["new-session", "-d", "-x", "80", "-y", "24", &watch])?;
    sleep(WARM_UP);
    let text = tmux(&["capture-pane", "-p", "-e"]);
    tmux(&["send-keys", "q"])?;
    text
}
