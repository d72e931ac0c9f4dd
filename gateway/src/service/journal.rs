//! The journal of bans: what keeps them over a restart, an upgrade and a reboot where no kernel side does.
//!
//! One file in the state directory, written whole beside the old one and then put in its place, so that at any moment one of
//! them is whole. Ends are in wall-clock time, for the machine's own clock begins anew at a reboot. A file that cannot be used
//! is set aside, and the gateway starts without: bans are not worth a gateway that does not start.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::control::BAN_MAX;
use crate::policy::bans::{Ban, Cause};
use crate::policy::offences::Offence;
use crate::time::Millis;
use crate::verdicts::{BanView, Verdicts};

/// Where it is unless the configuration says otherwise; only if somebody made it.
const DEFAULT_DIRECTORY: &str = "/var/lib/smtp-gateway";
const FILE: &str = "bans.json";
/// Of the format. Another one is not read.
const VERSION: u32 = 1;
/// Most that is read, in bytes: more than the book of bans can make.
const SIZE_MAX: u64 = 128 << 20;
/// Between two times that it is written, at least; and this many times as long as writing it takes.
const INTERVAL: Duration = Duration::from_millis(500);
const SHARE: u32 = 20;

/// The file, and what stands in it.
#[derive(Debug)]
pub(super) struct Journal {
    file: PathBuf,
    /// The book's revision that was written last.
    written: u64,
    not_before: Instant,
    /// Whether it could be written last time; said when that changes.
    works: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Page {
    version: u32,
    bans: Vec<Entry>,
}

/// Only what comes before the bans, which another version may write otherwise.
#[derive(Debug, Deserialize)]
struct Head {
    version: u32,
}

/// One ban; times in milliseconds since 1970, UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    network: IpNet,
    /// The offence that weighed most; `None`: an administrator's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    offence: Option<String>,
    reason: String,
    since: u64,
    until: u64,
    in_kernel: bool,
    refused: u64,
}

/// The directory for what outlives the gateway, if there is one: the configured one is made, the usual one only used.
pub(super) fn directory(configured: Option<&Path>) -> io::Result<Option<PathBuf>> {
    match configured {
        Some(directory) => {
            fs::create_dir_all(directory)?;
            Ok(Some(directory.to_owned()))
        }
        None => Ok(Some(PathBuf::from(DEFAULT_DIRECTORY)).filter(|directory| directory.is_dir())),
    }
}

impl Journal {
    /// Of this directory.
    pub(super) fn new(directory: &Path) -> Self {
        Self { file: directory.join(FILE), written: 0, not_before: Instant::now(), works: true }
    }

    /// Puts the bans that it holds back in force. A sentence comes back where it cannot be used.
    pub(super) fn restore(&self, verdicts: &Verdicts, (now, since_1970): (Millis, Duration)) -> Option<String> {
        let told = match self.read() {
            Ok(page) => {
                let bans = page.bans.into_iter().filter_map(|entry| entry.ban(now, millis(since_1970)));
                let restored = bans.map(|ban| verdicts.reinstate(ban)).filter(|done| *done).count();
                if restored > 0 {
                    tracing::info!(bans = restored, "bans of the journal are in force again");
                }
                return None;
            }
            Err(Unusable::Missing) => return None,
            Err(Unusable::Newer(version)) => self.set_aside(
                "newer",
                &format!("it is of another version ({version}, and this program writes {VERSION})"),
            ),
            Err(Unusable::Damaged(why)) => self.set_aside("damaged", &format!("it cannot be read: {why}")),
        };
        warn!("{told}");
        Some(told)
    }

    fn read(&self) -> Result<Page, Unusable> {
        let file = match File::open(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unusable::Missing),
            file => file.map_err(Unusable::damaged)?,
        };
        let mut bytes = Vec::new();
        file.take(SIZE_MAX).read_to_end(&mut bytes).map_err(Unusable::damaged)?;
        let head: Head = serde_json::from_slice(&bytes).map_err(Unusable::damaged)?;
        if head.version != VERSION {
            return Err(Unusable::Newer(head.version));
        }
        serde_json::from_slice(&bytes).map_err(Unusable::damaged)
    }

    fn set_aside(&self, ending: &str, why: &str) -> String {
        let file = self.file.display();
        let aside = self.file.with_extension(format!("json.{ending}"));
        match fs::rename(&self.file, &aside) {
            Ok(()) => format!(
                "the journal of bans {file} is not used, and was set aside as {}: {why}; bans that stood in it are lifted",
                aside.display()
            ),
            Err(error) => format!("the journal of bans {file} is not used: {why}; nor can it be set aside: {error}"),
        }
    }

    /// Writes what has changed, unless it was written just now. For a thread that may wait.
    pub(super) fn keep(&mut self, verdicts: &Verdicts, (now, since_1970): (Millis, Duration)) {
        let revision = verdicts.revision();
        if revision == self.written || Instant::now() < self.not_before {
            return;
        }
        let begun = Instant::now();
        let page = Page {
            version: VERSION,
            bans: verdicts.bans(now).iter().map(|ban| Entry::new(ban, now, millis(since_1970))).collect(),
        };
        let done = self.write(&page);
        self.not_before = Instant::now() + INTERVAL.max(begun.elapsed() * SHARE);
        match done {
            Ok(()) => {
                self.written = revision;
                self.works = true;
            }
            Err(error) if self.works => {
                self.works = false;
                let file = self.file.display();
                warn!("the journal of bans {file} cannot be written: {error}; until it can, bans end with the gateway");
            }
            Err(_) => {}
        }
    }

    /// The same, however lately it was written.
    pub(super) fn keep_now(&mut self, verdicts: &Verdicts, times: (Millis, Duration)) {
        self.not_before = Instant::now();
        self.keep(verdicts, times);
    }

    fn write(&self, page: &Page) -> io::Result<()> {
        let beside = self.file.with_extension("json.new");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&serde_json::to_vec(page)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.file)?;
        // The name, too, must outlive a loss of power.
        self.file.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

enum Unusable {
    Missing,
    Newer(u32),
    Damaged(String),
}

impl Unusable {
    fn damaged(error: impl std::fmt::Display) -> Self {
        Self::Damaged(error.to_string())
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Entry {
    pub(super) fn new(ban: &BanView, now: Millis, unix: u64) -> Self {
        let at = |time: Millis| unix.saturating_add(time.since(now)).saturating_sub(now.since(time));
        Self {
            network: ban.network,
            offence: match ban.cause {
                Cause::Offences(offence) => Some(offence.as_str().to_owned()),
                Cause::Administrator => None,
            },
            reason: ban.reason.clone(),
            since: at(ban.since),
            until: at(ban.until),
            in_kernel: ban.in_kernel,
            refused: ban.refused,
        }
    }

    /// In force now, if it has not ended. A clock that was set wrong makes no ban longer than one may be.
    pub(super) fn ban(self, now: Millis, unix: u64) -> Option<Ban> {
        let left = Duration::from_millis(self.until.checked_sub(unix).filter(|left| *left > 0)?).min(BAN_MAX);
        let cause = match self.offence {
            None => Cause::Administrator,
            Some(words) => Cause::Offences(*Offence::ALL.iter().find(|offence| offence.as_str() == words)?),
        };
        let ban = Ban::new(self.network.trunc(), cause, &self.reason, now, left, self.in_kernel);
        let since = Millis(now.0.saturating_sub(unix.saturating_sub(self.since)));
        Some(Ban { since, refused: self.refused.into(), ..ban })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const CONFIG: &str = "[server]\nhostname = \"mx.example.com\"\n[[listener]]\naddress = \"0.0.0.0:25\"\n[[backend]]\n\
                          address = \"192.0.2.25\"\n[relay]\nlocal_domains = [\"example.com\"]\n";
    const HOUR: Duration = Duration::from_secs(3600);

    fn verdicts() -> Verdicts {
        Verdicts::new(&config::parse(CONFIG, "gateway.toml").unwrap(), &crate::identity::host::HostNetworks::default())
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn bans_come_back_with_their_ends_after_the_machines_clock_began_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (unix, mut journal) = (Duration::from_secs(1_800_000_000), Journal::new(directory.path()));
        let before = verdicts();
        let now = Millis(50_000_000);
        before.ban(net("203.0.113.0/24"), 12 * HOUR, "ticket 4711", now).unwrap();
        before.ban(net("2001:db8::/64"), HOUR, "short", now).unwrap();
        journal.keep(&before, (now, unix));
        // Two hours later, a minute after a reboot.
        let after = verdicts();
        let (now, unix) = (Millis(60_000), unix + 2 * HOUR);
        assert_eq!(Journal::new(directory.path()).restore(&after, (now, unix)), None);
        let bans = after.bans(now);
        assert_eq!(bans.len(), 1);
        let ban = &bans[0];
        assert_eq!(
            (ban.network, &*ban.reason, ban.cause),
            (net("203.0.113.0/24"), "ticket 4711", Cause::Administrator)
        );
        assert_eq!(ban.until, now.after(10 * HOUR));
        assert!(after.refuses("203.0.113.9".parse().unwrap(), now));
        assert!(!after.refuses("203.0.113.9".parse().unwrap(), now.after(11 * HOUR)));
    }

    #[test]
    fn it_is_written_when_something_changed_and_not_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, verdicts) = (Journal::new(directory.path()), verdicts());
        let times = (Millis(1000), Duration::from_secs(1_800_000_000));
        journal.keep_now(&verdicts, times);
        assert!(!journal.file.exists());
        verdicts.ban(net("203.0.113.9/32"), HOUR, "x", times.0).unwrap();
        journal.keep_now(&verdicts, times);
        let first = fs::read(&journal.file).unwrap();
        fs::remove_file(&journal.file).unwrap();
        journal.keep_now(&verdicts, times);
        assert!(!journal.file.exists());
        verdicts.unban(net("203.0.113.9/32"), times.0).unwrap();
        journal.keep_now(&verdicts, times);
        assert_ne!(fs::read(&journal.file).unwrap(), first);
    }

    #[test]
    fn what_cannot_be_used_is_set_aside() {
        let newer = format!("{{\"version\":{},\"bans\":{{}}}}", VERSION + 1);
        for (text, ending, words) in [
            ("", "damaged", "cannot be read"),
            ("{\"version\":1,\"bans\":[{\"network\":\"203.0.113.9/32\",\"rea", "damaged", "cannot be read"),
            ("[1, 2]", "damaged", "cannot be read"),
            (&newer, "newer", "of another version"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let journal = Journal::new(directory.path());
            fs::write(&journal.file, text).unwrap();
            let verdicts = verdicts();
            let told = journal.restore(&verdicts, (Millis(1000), Duration::from_secs(1_800_000_000))).unwrap();
            assert!(told.contains(words) && told.contains("set aside"), "{told}");
            assert!(!journal.file.exists());
            assert_eq!(fs::read_to_string(directory.path().join(format!("bans.json.{ending}"))).unwrap(), text);
            assert_eq!(verdicts.count(Millis(1000)), 0);
        }
    }

    #[test]
    fn a_clock_that_was_wrong_and_a_network_that_is_protected_ban_nobody_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::new(directory.path());
        let text = format!(
            "{{\"version\":1,\"bans\":[{{\"network\":\"203.0.113.9/32\",\"reason\":\"x\",\"since\":0,\"until\":{},\"in_kernel\":true,\
             \"refused\":7}},{{\"network\":\"192.0.2.25/32\",\"reason\":\"x\",\"since\":0,\"until\":{0},\"in_kernel\":true,\"refused\":0}}]}}",
            u64::MAX
        );
        fs::write(&journal.file, text).unwrap();
        let verdicts = verdicts();
        let now = Millis(1000);
        assert_eq!(journal.restore(&verdicts, (now, Duration::from_secs(1_800_000_000))), None);
        let bans = verdicts.bans(now);
        assert_eq!(bans.len(), 1, "the backend is protected");
        assert_eq!((bans[0].until, bans[0].refused), (now.after(BAN_MAX), 7));
    }
}
