//! Whether a backend still is what it was when it was last seen.

/// What of a greeting stays the same from one connection to the next: two that differ in it are of two servers, or of one
/// whose configuration changed. Banners carry times and queue numbers, so of those only the words count.
pub(super) fn fingerprint(banner: &str, keywords: &[String]) -> String {
    let is_word = |word: &&str| !word.contains([':', ',', '<', '+']) && !word.bytes().all(|byte| byte.is_ascii_digit());
    let calendar = "mon tue wed thu fri sat sun jan feb mar apr may jun jul aug sep oct nov dec gmt utc";
    let is_date = |word: &str| calendar.split(' ').any(|name| name.eq_ignore_ascii_case(word));
    let words: Vec<_> = banner.split_whitespace().filter(is_word).filter(|word| !is_date(word)).collect();
    let mut lines: Vec<_> = keywords.iter().map(|line| line.to_ascii_uppercase()).collect();
    lines.sort_unstable();
    format!("{}\n{}", words.join(" "), lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_itself_again_an_hour_later() {
        let print = |banner: &str, keywords: &[&str]| {
            fingerprint(banner, &keywords.iter().map(|keyword| (*keyword).to_owned()).collect::<Vec<_>>())
        };
        let exim = |time: &str| print(&format!("mail ESMTP Exim 4.96 {time}"), &["PIPELINING", "SIZE 10"]);
        assert_eq!(exim("Tue, 24 Nov 2026 03:45:27 +0000"), exim("Wed, 25 Nov 2026 13:05:07 +0100"));
        assert_ne!(exim("Tue, 24 Nov 2026 03:45:27 +0000"), print("mail ESMTP Exim 4.97", &["PIPELINING", "SIZE 10"]));
        assert_eq!(print("mail ESMTP", &["A", "b"]), print("mail ESMTP", &["B", "a"]));
        assert_ne!(print("mail ESMTP", &["A"]), print("mail ESMTP", &["A", "XCLIENT ADDR"]));
    }
}
