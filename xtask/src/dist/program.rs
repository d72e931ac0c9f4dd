//! What a built program says of itself: which machine it is for, and which C library it needs at least. A package that says
//! otherwise would be installed where its program cannot run.

use std::fs;
use std::path::Path;

/// Of the program that is packed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// As dpkg calls it.
    pub(super) architecture: &'static str,
    /// The newest version of the C library that a symbol is taken from.
    pub(super) libc: Option<String>,
}

pub(super) fn read(file: &Path) -> Result<Program, String> {
    let bytes = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let architecture = architecture(&bytes)
        .ok_or_else(|| format!("{}: this is no program for Linux on amd64 or arm64", file.display()))?;
    Ok(Program { architecture, libc: libc(&bytes) })
}

/// By the head of an ELF file: 64 bits, little-endian, and the machine's number.
fn architecture(bytes: &[u8]) -> Option<&'static str> {
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    match bytes.get(18..20)? {
        [62, 0] => Some("amd64"),
        [183, 0] => Some("arm64"),
        _ => None,
    }
}

/// Its symbols' versions are texts such as `GLIBC_2.34`, each between zeros.
fn libc(bytes: &[u8]) -> Option<String> {
    let version = |text: &[u8]| {
        let numbers = std::str::from_utf8(text.strip_prefix(b"GLIBC_")?).ok()?.split('.').map(str::parse);
        numbers.collect::<Result<Vec<u32>, _>>().ok()
    };
    let newest = bytes.split(|&byte| byte == 0).filter_map(version).max()?;
    Some(newest.iter().map(u32::to_string).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::{architecture, libc};

    #[test]
    fn the_head_says_which_machine() {
        let head = |machine: [u8; 2]| [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 9], &[3, 0], &machine].concat();
        for (bytes, expected) in [
            (head([62, 0]), Some("amd64")),
            (head([183, 0]), Some("arm64")),
            (head([243, 0]), None),
            (head([62, 0])[..19].to_vec(), None),
            (b"#!/bin/sh\nexec something\n".to_vec(), None),
            (Vec::new(), None),
        ] {
            assert_eq!(architecture(&bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn the_newest_symbol_says_which_c_library() {
        for (bytes, expected) in [
            (b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.4\0".as_slice(), Some("2.34")),
            (b"\0GLIBC_2.9\0GLIBC_PRIVATE\0GLIBC_2.10\0".as_slice(), Some("2.10")),
            (b"takes GLIBC_2.99\0or \0GLIBC_soon\0".as_slice(), None),
            (b"".as_slice(), None),
        ] {
            assert_eq!(libc(bytes).as_deref(), expected, "{bytes:?}");
        }
    }
}
