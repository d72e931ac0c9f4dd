//! Who names whom. Tests may name anybody.

use std::collections::{BTreeMap, BTreeSet};

use super::rooms::table;
use super::source::{Module, SOURCES};

#[test]
fn invariant_11_rooms_point_one_way() {
    let table = table();
    let mut faults = Vec::new();
    for (module, file) in &SOURCES.0 {
        let Some(room) = module.first() else { continue };
        for named in file.named.iter().filter(|named| named.is_own) {
            let other = named.path.first().map_or("", String::as_str);
            if other == room || !table.contains_key(other) || table[&**room].may_name.contains(&other) {
                continue;
            }
            faults.push(format!("{}:{} names {}", file.path.display(), named.line, named.path.join("::")));
        }
    }
    assert!(faults.is_empty(), "the table in lib.rs does not allow:\n{}", faults.join("\n"));
}

/// From each file to those that define what it names.
fn arrows() -> BTreeMap<&'static Module, BTreeSet<Module>> {
    let mut arrows = BTreeMap::new();
    for (module, file) in &SOURCES.0 {
        let named = file.named.iter().filter(|named| named.is_own);
        let homes = named.map(|named| (SOURCES.home(&named.path), named.passed_on));
        // To pass on a name from below is how a room shows itself; it uses nothing.
        let homes = homes.filter(|(home, passed_on)| home != module && !(*passed_on && home.starts_with(module)));
        arrows.insert(module, homes.map(|(home, _)| home).collect());
    }
    arrows
}

#[test]
fn files_go_round_in_no_circle() {
    assert!(SOURCES.0.len() > 100, "the sources have moved");
    let arrows = arrows();
    let reached = |from: &Module| {
        let mut seen = BTreeSet::new();
        let mut open: Vec<_> = arrows[from].iter().collect();
        while let Some(next) = open.pop() {
            if seen.insert(next) {
                open.extend(&arrows[next]);
            }
        }
        seen
    };
    let reach: BTreeMap<_, _> = SOURCES.0.keys().map(|module| (module, reached(module))).collect();
    let mut circles: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (module, file) in &SOURCES.0 {
        let back: Vec<_> = arrows[module].iter().filter(|other| reach[other].contains(module)).collect();
        let back: Vec<_> = back.iter().map(|other| other.join("::")).collect();
        if !back.is_empty() {
            let room = module.first().map_or("lib", String::as_str);
            circles.entry(room).or_default().push(format!("{} → {}", file.path.display(), back.join(", ")));
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
}
