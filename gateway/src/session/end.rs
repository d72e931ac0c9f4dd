//! Why a session ended.

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client said QUIT.
    Quit,
    /// The client closed without QUIT, between commands.
    ClientClosed,
    /// The client closed inside a message.
    ClientLost,
    /// The client let a deadline pass.
    ClientTimeout,
    /// The client sent less than the minimum rate.
    ClientTooSlow,
    /// Too many refused commands.
    TooManyErrors,
    /// Too many commands without mail, or too many messages.
    TooManyCommands,
    /// Too many refused passwords.
    TooManyPasswords,
    /// The client talked before it was asked.
    EarlyTalk,
    /// A PROXY header came where none is taken.
    ProxyHeader,
    /// TLS did not come about.
    TlsFailed,
    /// Nor in time.
    TlsTimeout,
    /// A TLS handshake began where a command was due.
    TlsUnasked,
    /// The client has begun too many handshakes.
    TooManyHandshakes,
    /// The client said more behind STARTTLS, before TLS.
    TalkBehindStartTls,
    /// The client speaks HTTP.
    AnotherProtocol,
    /// The client went on sending far past a limit.
    Flood,
    /// The backend went away or fell silent while nothing was owed.
    BackendLost,
    /// The backend answered 421.
    BackendClosing,
    /// The gateway is going down.
    Drained,
    /// An administrator ended it.
    Killed,
}

impl End {
    /// Whether TLS was wanted, and did not come about.
    pub fn is_fault_of_tls(self) -> bool {
        matches!(self, Self::TlsFailed | Self::TlsTimeout | Self::TlsUnasked | Self::TooManyHandshakes)
    }

    /// For the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::ClientClosed => "client closed",
            Self::ClientLost => "client lost in message",
            Self::ClientTimeout => "client timeout",
            Self::ClientTooSlow => "client too slow",
            Self::TooManyErrors => "too many errors",
            Self::TooManyCommands => "too many commands",
            Self::TooManyPasswords => "too many refused passwords",
            Self::EarlyTalk => "early talk",
            Self::ProxyHeader => "PROXY header",
            Self::TlsFailed => "TLS failed",
            Self::TlsTimeout => "TLS timeout",
            Self::TlsUnasked => "TLS in clear text",
            Self::TooManyHandshakes => "too many handshakes",
            Self::TalkBehindStartTls => "talk behind STARTTLS",
            Self::AnotherProtocol => "another protocol",
            Self::Flood => "flood",
            Self::BackendLost => "backend lost",
            Self::BackendClosing => "backend closing",
            Self::Drained => "drained",
            Self::Killed => "ended by an administrator",
        }
    }
}
