//! An exchange of AUTH, as far as it has come, and whoever has logged in.

use std::fmt;

use zeroize::Zeroizing;

use crate::smtp::auth::{Auth, Login, Mechanisms, Response};

use super::words::Words;

/// An AUTH that is under way.
pub(super) struct Exchange {
    pub(super) mechanism: Mechanisms,
    /// It was the gateway that asked, to know by the client's name which backend to ask.
    pub(super) asks_name: bool,
    /// The command, until the backend's session is open.
    pub(super) held: Zeroizing<Vec<u8>>,
    pub(super) login: Option<Login>,
    /// The client has responded.
    responded: bool,
    pub(super) challenges: u8,
    /// The client, or for what it said the gateway, has broken it off.
    pub(super) cancelled: bool,
    /// What the client hears, whatever the backend says.
    pub(super) instead: Option<Words>,
    /// The backend was lost while the client was asked.
    pub(super) lost: bool,
    /// Bytes of a line that is too long.
    pub(super) skipping: usize,
}

/// Who has logged in, as far as the exchange said.
#[derive(Debug)]
pub(super) struct User(pub(super) Option<Login>);

impl User {
    /// Under which name another session of the backend may know it.
    pub(super) fn told(&self) -> Option<&str> {
        self.0.as_ref().filter(|login| login.is_exact()).map(Login::name)
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("challenges", &self.challenges).finish_non_exhaustive()
    }
}

impl Exchange {
    pub(super) fn begin(auth: &Auth) -> Self {
        let login = auth.initial.as_ref().and_then(|response| Login::from_response(auth.mechanism, response));
        Self {
            mechanism: auth.mechanism,
            asks_name: false,
            held: auth.encode(),
            login,
            responded: auth.initial.is_some(),
            challenges: 0,
            cancelled: false,
            instead: None,
            lost: false,
            skipping: 0,
        }
    }

    /// The client is to say who it is, before any backend is asked.
    pub(super) fn asking(auth: &Auth) -> Self {
        Self { asks_name: true, ..Self::begin(auth) }
    }

    /// The exchange that begins with this response.
    pub(super) fn answered(&self, response: Response) -> Self {
        Self::begin(&Auth { mechanism: self.mechanism, initial: Some(response) })
    }

    /// The client responds. Of a server that asks first, DIGEST-MD5 and CRAM-MD5, the name is in the answer.
    pub(super) fn respond(&mut self, response: &Response) {
        if !std::mem::replace(&mut self.responded, true) {
            self.login = Login::from_response(self.mechanism, response);
        }
    }
}
