//! The table of rooms, as it stands in `lib.rs`.

use std::collections::BTreeMap;

/// A row of it.
#[derive(Debug)]
pub(super) struct Room {
    /// Rooms that it may name.
    pub(super) may_name: Vec<&'static str>,
    /// Whether it must know neither I/O nor a clock.
    pub(super) is_pure: bool,
}

/// Reads the table.
pub(super) fn table() -> BTreeMap<&'static str, Room> {
    let rows = include_str!("../lib.rs").lines().filter_map(|line| line.strip_prefix("//! | [`")?.strip_suffix(" |"));
    let room = |row: &'static str| {
        let cells: Vec<_> = row.split(" | ").collect();
        let [name, _, may_name, must_not_know] = cells[..] else { panic!("a row of lib.rs has not four cells: {row}") };
        let may_name = if may_name == "nobody" { Vec::new() } else { may_name.split(", ").collect() };
        (name.trim_end_matches("`]"), Room { may_name, is_pure: must_not_know.split(", ").any(|word| word == "I/O") })
    };
    rows.map(room).collect()
}

#[test]
fn the_table_is_whole_and_goes_round_in_no_circle() {
    let table = table();
    let declared: Vec<_> =
        include_str!("../lib.rs").lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(table.keys().copied().collect::<Vec<_>>(), declared, "lib.rs: the table and the modules");
    let mut settled: Vec<&str> = Vec::new();
    while settled.len() < table.len() {
        let free = |room: &Room| room.may_name.iter().all(|named| settled.contains(named));
        let next = table.iter().find(|(name, room)| !settled.contains(*name) && free(room));
        let (name, _) = next.unwrap_or_else(|| panic!("lib.rs: beyond {settled:?} the table goes round in a circle"));
        settled.push(name);
    }
}
