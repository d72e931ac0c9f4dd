//! What is known of sources: a table says of whom, and rows beside it have most of what the IPv4 sources among them sent.

use std::net::IpAddr;

use aya::maps::{Array, HashMap, MapData, MapError};
use gateway_common::{Source, SourceKey, SourceRow, maps, source_row};

use super::tables::{found, typed};

/// Handles of both.
pub(super) struct Accounts {
    table: HashMap<MapData, SourceKey, Source>,
    rows: Array<MapData, SourceRow>,
}

impl Accounts {
    pub(super) fn open(open: &impl Fn(&str) -> Result<MapData, MapError>) -> Result<Self, MapError> {
        Ok(Self { table: typed(open, maps::SOURCES)?, rows: typed(open, maps::SOURCES4)? })
    }

    /// Every source with its account; three system calls each.
    pub(super) fn all(&self) -> Result<Vec<(SourceKey, Source)>, MapError> {
        let whole = |entry: Result<_, _>| {
            let (source, mut account) = entry?;
            if let Some((number, address)) = row_of(source) {
                self.rows.get(&number, 0)?.add_to(address, &mut account);
            }
            Ok((source, account))
        };
        self.table.iter().map(whole).collect()
    }

    /// Every source.
    pub(super) fn known(&self) -> impl Iterator<Item = SourceKey> {
        self.table.keys().filter_map(Result::ok)
    }

    /// Takes a source out; one that is not there is no error. Out of the table first: who is not in it is given no place. What
    /// the other source of the row sends in this moment may be lost to its account.
    pub(super) fn remove(&mut self, source: SourceKey) -> Result<(), MapError> {
        found(self.table.remove(&source))?;
        if let Some((number, address)) = row_of(source) {
            let mut row = self.rows.get(&number, 0)?;
            if row.remove(address) {
                self.rows.set(number, row, 0)?;
            }
        }
        Ok(())
    }
}

fn row_of(source: SourceKey) -> Option<(u32, [u8; 4])> {
    match source.address() {
        IpAddr::V4(address) => Some((source_row(source), address.octets())),
        IpAddr::V6(_) => None,
    }
}
