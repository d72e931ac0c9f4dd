//! The page for people: one file without a build step. It asks nothing but this listener, and runs no script but its own.

/// The page.
pub(super) const HTML: &str = include_str!("page.html");

/// What a browser may do with the page: run its own script and style, known by their sums, and connect back here.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'sha256-OFYDeq0QpnaToqJlR14EEwsXIPDHmYMmCrShH0lEyC4='; style-src 'sha256-2PNGY9ruFk/72wYhRmekLIGMGJIbGtOg+ON1gV3e7dk='; connect-src \
                                 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(content: &str) -> String {
        use base64::Engine as _;
        use sha2::Digest as _;
        base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(content))
    }

    #[test]
    fn the_policy_names_the_script_and_the_style_that_are_there() {
        for tag in ["script", "style"] {
            let parts: Vec<_> = HTML.split(&format!("<{tag}>")).collect();
            let [_, rest] = parts[..] else { panic!("one <{tag}> there must be") };
            let content = rest.split(&format!("</{tag}>")).next().unwrap();
            let source = format!("{tag}-src 'sha256-{}'", sum(content));
            assert!(POLICY.contains(&source), "the policy must have {source}");
        }
    }

    #[test]
    fn the_page_stands_alone() {
        for outside in ["http://", "https://", "//", "style=", "onclick", "innerHTML", "@import", "url("] {
            let html = HTML.replace("http://www.w3.org/2000/svg", "");
            let comments = html.lines().filter(|line| !line.trim_start().starts_with("// "));
            assert!(!comments.collect::<String>().contains(outside), "{outside}");
        }
    }
}
