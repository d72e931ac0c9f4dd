//! Reading files whole, but never more of them than has a use.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Reads a file of at most `bytes_max` bytes.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= bytes_max) {
        Ok(bytes)
    } else {
        Err(FileError::TooLarge(bytes_max))
    }
}

/// The same, for a file that another file names: a pipe or a device might never end.
pub(super) fn read_regular(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    if !path.metadata()?.is_file() {
        return Err(FileError::NotAFile);
    }
    read(path, bytes_max)
}

/// Why a file could not be read; shown as the end of a sentence that began with its name.
#[derive(Debug)]
pub(super) enum FileError {
    Io(io::Error),
    NotAFile,
    /// More bytes than this.
    TooLarge(u64),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => match error.kind() {
                io::ErrorKind::NotFound => write!(f, "does not exist"),
                io::ErrorKind::PermissionDenied => write!(f, "may not be read by this user"),
                io::ErrorKind::IsADirectory => write!(f, "is a directory"),
                _ => write!(f, "cannot be read: {error}"),
            },
            Self::NotAFile => write!(f, "is no regular file"),
            Self::TooLarge(bytes_max) => write!(f, "is larger than {} MiB", bytes_max >> 20),
        }
    }
}
