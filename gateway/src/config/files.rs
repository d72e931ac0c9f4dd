//! Reading files whole, but never more of them than has a use.

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
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("{}", why(.0))]
    Io(#[from] io::Error),
    #[error("is no regular file")]
    NotAFile,
    /// More bytes than this.
    #[error("is larger than {} MiB", .0 >> 20)]
    TooLarge(u64),
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "may not be read by this user".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}
