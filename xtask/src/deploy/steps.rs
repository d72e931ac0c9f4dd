//! The steps of a deployment, and of the way back. Each says what it is for, and shows its command, before it runs.

use std::path::Path;

use super::host::{Host, quoted};

/// Where packages are kept: what is installed, what was before, and what has arrived.
const KEPT: &str = "/var/cache/smtp-gateway";
const CONFIG: &str = "/etc/smtp-gateway/gateway.toml";
/// How long a new program may take until it is ready, in seconds.
const READY_SECONDS: u32 = 60;

/// How packages are installed there.
#[derive(Clone, Copy)]
enum Kind {
    Debian,
    Tarball,
}

impl Kind {
    fn of(file: &str) -> Result<Self, String> {
        match file {
            name if name.ends_with(".deb") => Ok(Self::Debian),
            name if name.ends_with(".tar.gz") => Ok(Self::Tarball),
            name => Err(format!("{name} is neither a .deb nor a .tar.gz")),
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Debian => "deb",
            Self::Tarball => "tar.gz",
        }
    }

    /// Unpacks `file` below `folder`.
    fn unpack(self, file: &str, folder: &str) -> String {
        match self {
            Self::Debian => format!("dpkg-deb -x {file} {folder}"),
            Self::Tarball => format!("tar -C {folder} -xzf {file}"),
        }
    }

    /// Installs `file`; the host's configuration stays as it is, and a gateway that runs goes over without loss.
    fn install(self, file: &str) -> String {
        match self {
            Self::Debian => format!("dpkg --force-confold --force-downgrade -i {file}"),
            Self::Tarball => format!(
                "keep=; [ ! -e {CONFIG} ] || keep=--exclude=./etc; tar -C / --no-overwrite-dir $keep -xzf {file} \
                 && /usr/lib/smtp-gateway/activate"
            ),
        }
    }
}

/// Runs steps, or only shows them.
struct Steps<'h> {
    host: &'h Host,
    dry_run: bool,
    number: u32,
}

impl Steps<'_> {
    fn say(&mut self, what: &str, command: &str) {
        self.number += 1;
        println!("{}. {what}\n   # {command}", self.number);
    }

    /// A step that must go well; nothing if it is only shown.
    fn run(&mut self, what: &str, script: &str) -> Result<String, String> {
        self.say(what, script);
        if self.dry_run {
            return Ok(String::new());
        }
        let said = self.host.run(script)?;
        show(&said);
        Ok(said)
    }

    /// A step that tells something, whether it goes well or not.
    fn ask(&mut self, what: &str, script: &str) -> Result<(bool, String), String> {
        self.say(what, script);
        if self.dry_run {
            return Ok((true, String::new()));
        }
        let (well, said) = self.host.try_run(script)?;
        show(&said);
        Ok((well, said))
    }
}

fn show(said: &str) {
    for line in said.lines() {
        println!("   {line}");
    }
}

/// What a host had before.
struct Before {
    runs: bool,
    proof: Proof,
}

/// The outcome of `selftest`, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Proof {
    Safe,
    Inconclusive,
    NotRun,
    Found,
}

impl Proof {
    /// By the exit code that ends what was said.
    fn read(said: &str) -> Self {
        match said.lines().last().and_then(|line| line.strip_prefix("exit code ")) {
            Some("0") => Self::Safe,
            Some("1") => Self::Found,
            Some("2") => Self::Inconclusive,
            _ => Self::NotRun,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Inconclusive => "inconclusive",
            Self::NotRun => "not run",
            Self::Found => "relay or trust found",
        }
    }
}

pub(super) fn deploy(host: &Host, file: &Path, dry_run: bool) -> Result<(), String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let kind = Kind::of(&name)?;
    let mut steps = Steps { host, dry_run, number: 0 };
    let before = look(&mut steps, kind)?;
    let new = format!("{KEPT}/arrived.{}", kind.extension());
    let folder = format!("mkdir -p -m 0755 {KEPT}");
    steps.say("copy the package", &format!("{folder}; cat > {new} < {}", file.display()));
    if !dry_run {
        host.run(&folder)?;
        host.copy(file, &new)?;
    }
    steps.run("let the new program check this host's configuration", &fits(kind, &new))?;
    keep(&mut steps, kind)?;
    let [current, previous] = ["current", "previous"].map(|name| format!("{KEPT}/{name}.{}", kind.extension()));
    let fails = match exchange(&mut steps, kind, &new, &before) {
        Ok(()) => {
            steps.run(
                "keep the package for the way back",
                &format!("[ ! -e {current} ] || mv -f {current} {previous}; mv -f {new} {current}"),
            )?;
            return Ok(());
        }
        Err(error) => error,
    };
    println!("   it failed: {fails}");
    if !before.runs {
        return Err(format!("{fails}\nno gateway ran here before, so nothing is put back"));
    }
    // The new one may have given up, and then the package's script starts nothing. Where one serves, it went over.
    let start = "systemctl is-active --quiet smtp-gateway || { systemctl reset-failed smtp-gateway || true; \
                 systemctl restart smtp-gateway; }";
    let back = steps.run("put the old package back", &format!("{}; {start}", kind.install(&current)));
    match back.and_then(|_| watch(&mut steps, &Before { runs: true, proof: Proof::Found })) {
        Ok(()) => Err(format!("{fails}\nthe old package is back, and runs")),
        Err(error) => Err(format!("{fails}\nand the old package could not be put back: {error}")),
    }
}

pub(super) fn roll_back(host: &Host, dry_run: bool) -> Result<(), String> {
    let mut steps = Steps { host, dry_run, number: 0 };
    let find = format!("ls -1 {KEPT}/previous.deb {KEPT}/previous.tar.gz 2>/dev/null | head -1 | grep .");
    let (found, previous) = steps.ask("find the package that was there before", &find)?;
    if !found {
        return Err(format!("there is no earlier package in {KEPT}; deploy the one you want with --package FILE"));
    }
    let previous = if dry_run { format!("{KEPT}/previous.deb") } else { previous.trim().to_owned() };
    let kind = Kind::of(&previous)?;
    let before = look(&mut steps, kind)?;
    steps.run("let the earlier program check this host's configuration", &fits(kind, &previous))?;
    // The way back is asked for by who knows the state: a proof that finds more stops it no less than forward.
    exchange(&mut steps, kind, &previous, &before)?;
    let extension = kind.extension();
    let swap = format!(
        "cd {KEPT}; [ ! -e current.{extension} ] || mv current.{extension} left; mv previous.{extension} current.{extension}; \
         [ ! -e left ] || mv left previous.{extension}"
    );
    steps.run("keep the package that was taken back", &swap).map(drop)
}

/// Whether the program of a package runs on the host at all, and takes the host's own configuration, if there is one. It is tried
/// where packages are kept: nothing can be started from a /tmp that is mounted `noexec`.
fn fits(kind: Kind, file: &str) -> String {
    format!(
        "d=$(mktemp -d {KEPT}/try.XXXXXX); trap 'rm -rf $d' EXIT; {}; $d/usr/bin/smtp-gateway --version || {{ echo \"the \
         program of this package does not run on this host, which is $(uname -m) with $(ldd --version 2>&1 | head -1)\" >&2; exit 1; }}; \
         [ -e {CONFIG} ] || {{ echo 'there is no {CONFIG} yet'; exit 0; }}; $d/usr/bin/smtp-gateway check -c {CONFIG}",
        kind.unpack(file, "$d")
    )
}

/// What is there, and what its proof says.
fn look(steps: &mut Steps<'_>, kind: Kind) -> Result<Before, String> {
    let needs = match kind {
        Kind::Debian => "command -v dpkg",
        Kind::Tarball => "command -v tar",
    };
    steps.run(
        "see that the host has what is needed",
        &format!("{needs} systemctl >/dev/null; [ -d /run/systemd/system ] || {{ echo 'systemd does not run here' >&2; exit 1; }}"),
    )?;
    let (runs, _) = steps.ask(
        "see what runs now",
        "systemctl is-active smtp-gateway && smtp-gateway --version && smtp-gateway status --json >/dev/null",
    )?;
    let proof = if runs { proof(steps)? } else { Proof::Found };
    Ok(Before { runs, proof })
}

fn proof(steps: &mut Steps<'_>) -> Result<Proof, String> {
    // What was found matters whole; of the rest, its first words.
    let script = format!(
        "code=0; said=$(smtp-gateway selftest -c {CONFIG}) || code=$?; [ $code = 1 ] && end='' || end='/^$/q'; \
         printf '%s\\n' \"$said\" | sed \"$end\"; echo \"exit code $code\""
    );
    let (_, said) = steps.ask("prove that it relays for nobody", &script)?;
    Ok(Proof::read(&said))
}

/// Keeps the installed package as the current one: what was deployed last, or else what dpkg knows, packed again.
fn keep(steps: &mut Steps<'_>, kind: Kind) -> Result<(), String> {
    let script = match kind {
        Kind::Tarball => format!(
            "cd {KEPT}; if [ ! -e current.tar.gz ] && [ -x /usr/bin/smtp-gateway ]; then tar -C / -czf current.tar.gz \
             ./usr/bin/smtp-gateway ./usr/lib/smtp-gateway ./usr/lib/systemd/system/smtp-gateway.service \
             ./usr/lib/sysusers.d/smtp-gateway.conf; fi"
        ),
        Kind::Debian => format!(
            "cd {KEPT}; have=$(dpkg-query -W -f '${{Version}}' smtp-gateway 2>/dev/null || true); [ -n \"$have\" ] || exit 0; \
             if [ \"$(dpkg-deb -f current.deb Version 2>/dev/null)\" != \"$have\" ]; then \
             d=$(mktemp -d); trap 'rm -rf $d' EXIT; mkdir -m 0755 $d/DEBIAN; \
             dpkg-query -W -f 'Package: ${{Package}}\\nVersion: ${{Version}}\\nArchitecture: ${{Architecture}}\\nMaintainer: \
             ${{Maintainer}}\\nDepends: ${{Depends}}\\nDescription: ${{Description}}\\n' smtp-gateway > $d/DEBIAN/control; \
             for script in postinst prerm postrm; do cp /var/lib/dpkg/info/smtp-gateway.$script $d/DEBIAN/; done; \
             echo {CONFIG} > $d/DEBIAN/conffiles; \
             dpkg -L smtp-gateway | while read -r file; do [ ! -f \"$file\" ] || echo \".$file\"; done | tar -C / -c -T - \
             | tar -C $d -x; \
             dpkg-deb --root-owner-group --build $d current.deb >/dev/null; fi"
        ),
    };
    steps.run("keep the installed package for the way back", &script).map(drop)
}

/// Installs `file`, and sees that it is ready and proves no worse.
fn exchange(steps: &mut Steps<'_>, kind: Kind, file: &str, before: &Before) -> Result<(), String> {
    steps.run("install", &kind.install(file))?;
    if !before.runs {
        steps.ask("see whether it is configured", &format!("smtp-gateway check -c {CONFIG}"))?;
        println!("   no gateway ran here: write {CONFIG}, then `systemctl enable --now smtp-gateway`");
        return Ok(());
    }
    watch(steps, before)
}

/// Waits until what was installed is ready, and sees that it proves no worse.
fn watch(steps: &mut Steps<'_>, before: &Before) -> Result<(), String> {
    let ready = format!(
        "want=$(smtp-gateway --version | cut -d' ' -f2); for i in $(seq {READY_SECONDS}); do \
         if systemctl is-active --quiet smtp-gateway && smtp-gateway status --json 2>/dev/null | tr -d ' \\n' | grep -qF \
         \"\\\"version\\\":\\\"$want\\\"\" && [ \"$(systemctl show -p MainPID --value smtp-gateway)\" != 0 ] && \
         cmp -s /usr/bin/smtp-gateway /proc/$(systemctl show -p MainPID --value smtp-gateway)/exe; then echo \"ready: $want\"; \
         exit 0; fi; [ \"$(systemctl show -p NRestarts --value smtp-gateway)\" -lt 3 ] || break; sleep 1; done; systemctl status --no-pager -n 20 smtp-gateway >&2 || true; \
         echo {} >&2; exit 1",
        quoted(&format!("the program was not ready within {READY_SECONDS} seconds, or ended again and again"))
    );
    steps.run("wait until it is ready", &ready)?;
    steps.ask("show its status", "smtp-gateway status")?;
    let after = proof(steps)?;
    if !steps.dry_run && after > before.proof {
        return Err(format!(
            "the relay proof is worse than before: {}, and was: {}",
            after.word(),
            before.proof.word()
        ));
    }
    Ok(())
}
