//! Domain names as lower-case A-labels (RFC 5890), which is the form in which two of them are compared.
//!
//! An internationalised name counts only if it is written the way IDNA writes it, letter case aside. A name that must first be
//! folded (fullwidth letters, an ideographic full stop, the Kelvin sign) is no domain here, for the next server may fold it
//! onto something else than we would.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;

/// The name's form for comparison, borrowed where it is written so already; `None` if it is no domain name.
pub fn a_labels(name: &str) -> Option<Cow<'_, str>> {
    if has_empty_part(name) {
        return None;
    }
    if name.is_ascii() {
        let has_capitals = name.bytes().fold(false, |has, byte| has | byte.is_ascii_uppercase());
        return Some(if has_capitals { name.to_ascii_lowercase().into() } else { name.into() });
    }
    // What has another composed form is folded onto that, whatever its case: the Kelvin sign is a K.
    if !ComposingNormalizerBorrowed::new_nfc().is_normalized(name) {
        return None;
    }
    let ascii = idna::domain_to_ascii(name).ok()?;
    let (unicode, valid) = idna::domain_to_unicode(&ascii);
    (valid.is_ok() && unicode == name.to_lowercase()).then_some(ascii.into())
}

/// Whether nothing stands before a dot or behind one. All octets are looked at, many at once: most names have none.
pub(super) fn has_empty_part(dotted: &str) -> bool {
    let octets = dotted.as_bytes();
    let ([first, behind @ ..], Some(last)) = (octets, octets.last()) else { return true };
    let has_two = octets.iter().zip(behind).fold(false, |has, (one, next)| has | ((*one == b'.') & (*next == b'.')));
    *first == b'.' || *last == b'.' || has_two
}

/// Whether `sign` appears in `text` as such, or as what compatibility folds it from (Unicode NFKC): a server that folds would
/// find it there.
pub fn folds_onto(text: &str, signs: &[char]) -> bool {
    if text.is_ascii() {
        return text.contains(signs);
    }
    ComposingNormalizerBorrowed::new_nfkc().normalize(text).contains(signs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_must_be_folded_is_none() {
        for (name, expected) in [
            ("example.com", Some("example.com")),
            ("Example.COM", Some("example.com")),
            ("bücher.example", Some("xn--bcher-kva.example")),
            ("BÜCHER.example", Some("xn--bcher-kva.example")),
            ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            // Kelvin sign, Angstrom sign, fullwidth letters, long s, ideographic full stop, soft hyphen.
            ("boo\u{212a}.test", None),
            ("\u{212b}rhus.test", None),
            ("ｌｏcal.test", None),
            ("te\u{17f}t.example", None),
            ("local。test", None),
            ("lo\u{ad}cal.test", None),
            // Controls and what turns text around.
            ("a\u{85}b.example", None),
            ("a\u{2028}b.example", None),
            ("a\u{9b}b.example", None),
            ("a\u{202e}b.example", None),
            ("a..b", None),
        ] {
            assert_eq!(a_labels(name).as_deref(), expected, "{name:?}");
        }
    }

    #[test]
    fn parts_between_dots() {
        for (dotted, expected) in [
            ("", true),
            (".", true),
            ("a", false),
            ("a.b", false),
            (".a", true),
            ("a.", true),
            ("a..b", true),
            ("ü.b", false),
        ] {
            assert_eq!(has_empty_part(dotted), expected, "{dotted}");
        }
    }

    #[test]
    fn signs_are_found_in_every_form_that_folds_onto_them() {
        let signs = ['@', '%', '!', ':'];
        for form in
            "@%!:＠％！：\u{fe6b}\u{fe6a}\u{fe55}\u{fe57}\u{fe13}\u{fe15}\u{203c}\u{2048}\u{2049}\u{2a74}".chars()
        {
            assert!(folds_onto(&format!("usér{form}x"), &signs), "{form:?}");
        }
        for plain in ["user", "üser+tag", "用户"] {
            assert!(!folds_onto(plain, &signs), "{plain}");
        }
    }
}
