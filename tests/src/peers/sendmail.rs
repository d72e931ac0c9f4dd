//! Sendmail, as a client that delivers its own queue.

use super::stage::Stage;

/// What its configuration is made of; the names of its files are the stage's.
const CONFIGURATION: &str = "\
include(`/usr/share/sendmail/cf/m4/cf.m4')dnl
OSTYPE(`linux')dnl
define(`QUEUE_DIR', `/var/spool/mqueue')dnl
define(`ALIAS_FILE', `')dnl
define(`STATUS_FILE', `/var/lib/statistics')dnl
define(`HELP_FILE', `')dnl
define(`confSERVICE_SWITCH_FILE', `/etc/service.switch')dnl
define(`confDONT_PROBE_INTERFACES', `True')dnl
define(`confDOMAIN_NAME', `client.test')dnl
define(`confPID_FILE', `/run/sendmail.pid')dnl
define(`confMIN_QUEUE_AGE', `0')dnl
FEATURE(`nocanonify')dnl
MAILER(`smtp')dnl
";

/// How it is called, as one that delivers and does not only hand over.
pub const PROGRAM: &str = "/usr/libexec/sendmail/sendmail -C /var/lib/sendmail.cf -Am";

/// A stage on which it sends all mail to this address.
pub fn client(to: &str) -> Stage {
    let mut stage = Stage::new("sendmail");
    // Without a name of its own it waits for a minute.
    stage.etc("hosts", "127.0.0.1 localhost client.test\n::1 localhost\n");
    stage.etc("service.switch", "hosts files\naliases files\n");
    stage.etc("client.mc", &format!("define(`SMART_HOST', `[{to}]')dnl\n{CONFIGURATION}"));
    stage.prepare(
        "mkdir -pm 700 /var/spool/mqueue\n\
         m4 -D_CF_DIR_=/usr/share/sendmail/cf/ /etc/client.mc > /var/lib/sendmail.cf",
    );
    stage
}

/// A program in which the machine has this client's name.
pub fn named(script: &str) -> [String; 5] {
    ["unshare", "--uts", "sh", "-ec", &format!("hostname client.test\n{script}")].map(str::to_owned)
}
