//! "Did you mean": the known word nearest to a misspelt one.

/// The candidate nearest to `word`, if it is near enough to be meant.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let length = word.chars().count();
    // Nothing that is known is this long, and the distance costs the square of it.
    if length > 64 {
        return None;
    }
    let allowed = (length / 3).max(1);
    let distances = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate));
    distances.filter(|(distance, _)| *distance <= allowed).min().map(|(_, candidate)| candidate)
}

/// Insertions, deletions, substitutions and swaps of neighbours, each 1. A hyphen and an underscore are the same, and so
/// are capitals and small letters.
fn distance(a: &str, b: &str) -> usize {
    let fold = |text: &str| text.replace('-', "_").to_ascii_lowercase();
    strsim::osa_distance(&fold(a), &fold(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("hostname", "hostname", 0),
            ("hostnmae", "hostname", 1),
            ("hostnam", "hostname", 1),
            ("local-domains", "local_domains", 0),
            ("Hostname", "hostname", 0),
            ("adress", "address", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn only_what_is_near_is_meant() {
        let keys = ["address", "backend", "tls"];
        assert_eq!(nearest("adress", keys), Some("address"));
        assert_eq!(nearest("backends", keys), Some("backend"));
        assert_eq!(nearest("ssl", keys), None);
        assert_eq!(nearest("certificate", keys), None);
        assert_eq!(nearest(&"address".repeat(100), keys), None);
    }
}
