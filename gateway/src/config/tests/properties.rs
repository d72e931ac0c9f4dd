//! No text makes the parser panic, and every complaint has a place within the text.

use proptest::prelude::*;

use super::{DOCUMENTED, parse, uncommented};

/// Pieces that texts of this kind are made of, faulty ones among them.
fn piece() -> impl Strategy<Value = String> {
    let pieces = [
        "[server]",
        "[[listener]]",
        "[[backend]]",
        "[relay]",
        "[limits]",
        "[timeouts]",
        "[dns]",
        "[control]",
        "[log]",
        "[bans]",
        "[xdp]",
        "[tls]",
        "[listener]",
        "[",
        "]",
        "[[",
        "{",
        "}",
        "=",
        ".",
        ",",
        "\"",
        "'",
        "\"\"\"",
        "#",
        "\n",
        "\r\n",
        "\t",
        " ",
        "hostname",
        "workers",
        "address",
        "backend",
        "proxy_protocol_from",
        "local_domains",
        "identity",
        "allowed_networks",
        "message_size",
        "proxy_header",
        "servers",
        "interfaces",
        "allow",
        "first",
        "socket",
        "allowed_uids",
        "level",
        "mode",
        "true",
        "0",
        "-1",
        "0x",
        "1e9",
        "99999999999999999999",
        "\"10MiB\"",
        "\"30s\"",
        "\"0.0.0.0:25\"",
        "\"::/0\"",
        "\"10.0.0.1/8\"",
        "\"::ffff:0:0/90\"",
        "\"[::1]\"",
        "\"localhost\"",
        "\"none\"",
        "\"é\"",
        "\u{feff}",
        "\u{0}",
        "\u{1b}",
        "☃",
        "1979-05-27",
        "inf",
        "\\u12",
        " = [\"example.com\"]\n",
        " = \"mx.example.com\"\n",
    ];
    prop_oneof![
        8 => proptest::sample::select(pieces.map(str::to_owned).to_vec()),
        1 => any::<String>(),
    ]
}

fn survives(text: &str) {
    let lines = text.split('\n').count();
    if let Err(faults) = parse(text, "gateway.toml") {
        assert!(!faults.is_empty());
        assert!(faults.is_sorted_by_key(|fault| (fault.line, fault.column)));
        for fault in faults {
            assert!((1..=lines).contains(&fault.line) && fault.column >= 1, "{fault}");
            assert!(fault.to_string().contains("\nhelp: "));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_text_is_too_much(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn no_sequence_of_pieces_is_too_much(pieces in prop::collection::vec(piece(), 0..40)) {
        survives(&pieces.concat());
    }

    #[test]
    fn no_mutation_is_too_much(at in 0..DOCUMENTED.len(), length in 0..20_usize, piece in piece()) {
        let mut text = uncommented(DOCUMENTED, &["# ", "# example: "]);
        let start = text.floor_char_boundary(at);
        let end = text.floor_char_boundary(start + length);
        text.replace_range(start..end, &piece);
        survives(&text);
    }
}
