use super::*;
use proptest::prelude::*;

fn encoded(text: &str) -> String {
    BASE64.encode(text)
}

#[test]
fn commands_are_read_and_written_anew() {
    for (argument, line) in [
        ("PLAIN", "AUTH PLAIN\r\n"),
        ("plain =", "AUTH PLAIN =\r\n"),
        ("PLAIN AHUAcA==", "AUTH PLAIN AHUAcA==\r\n"),
        ("Plain \t AHUAcA", "AUTH PLAIN AHUAcA==\r\n"),
        ("SCRAM-SHA-256 biws", "AUTH SCRAM-SHA-256 biws\r\n"),
    ] {
        let auth = Auth::parse(argument).unwrap();
        assert_eq!(String::from_utf8_lossy(&auth.encode()), line, "{argument}");
    }
    for name in ["EXTERNAL", "GSSAPI", "NTLM", "GSS-SPNEGO", "ANONYMOUS", "NOVEL_ONE"] {
        assert_eq!(Auth::parse(name).unwrap().mechanism, Mechanisms::empty(), "{name}");
    }
}

#[test]
fn what_is_no_command() {
    let long = "A".repeat(21);
    for (argument, code) in [
        ("", SYNTAX),
        (&*long, SYNTAX),
        ("PLÄIN", SYNTAX),
        ("PLAIN=", SYNTAX),
        ("PLAIN AHUAcA== more", SYNTAX),
        ("PLAIN ==", NOT_BASE64),
        ("PLAIN A", NOT_BASE64),
        ("PLAIN AHU*", NOT_BASE64),
        ("PLAIN *", NOT_BASE64),
        ("PLAIN AHUÄ", NOT_BASE64),
        ("PLAIN AH=UAcA", NOT_BASE64),
    ] {
        assert_eq!(Auth::parse(argument), Err(code), "{argument}");
    }
}

#[test]
fn only_what_works_through_a_gateway_is_offered() {
    let offered = |line: &str| line.split(' ').map(|name| Mechanisms::named(name.as_bytes())).collect::<Mechanisms>();
    for (backend, told) in [
        ("PLAIN LOGIN", "PLAIN LOGIN"),
        ("LOGIN plain", "PLAIN LOGIN"),
        ("GSSAPI NTLM EXTERNAL ANONYMOUS PLAIN", "PLAIN"),
        ("SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-256-PLUS PLAIN", "SCRAM-SHA-1 PLAIN"),
        ("SCRAM-SHA-1-PLUS SCRAM-SHA-256-PLUS SCRAM-SHA-1 SCRAM-SHA-256", ""),
        ("CRAM-MD5 DIGEST-MD5 XOAUTH2 OAUTHBEARER", "DIGEST-MD5 CRAM-MD5 OAUTHBEARER XOAUTH2"),
    ] {
        assert_eq!(offered(backend).relayable().names().collect::<Vec<_>>().join(" "), told, "{backend}");
    }
}

#[test]
fn names_are_found_as_each_mechanism_has_them() {
    let login = |mechanism, text: &str| {
        let response = Response::parse(encoded(text).as_bytes()).unwrap();
        Login::from_response(mechanism, &response).map(|login| (login.name().to_owned(), login.is_exact()))
    };
    let found = |name: &str, exact| Some((name.to_owned(), exact));
    for (mechanism, text, expected) in [
        (Mechanisms::PLAIN, "\0u@a.example\0secret", found("u@a.example", true)),
        (Mechanisms::PLAIN, "u\0u\0secret", found("u", true)),
        (Mechanisms::PLAIN, "other\0u\0secret", found("u", false)),
        (Mechanisms::PLAIN, "\0\0secret", None),
        (Mechanisms::PLAIN, "secret", None),
        (Mechanisms::PLAIN, "\0u\r\nRSET\0secret", None),
        (Mechanisms::LOGIN, "u@a.example", found("u@a.example", true)),
        (Mechanisms::LOGIN, "u\0", None),
        (Mechanisms::CRAM_MD5, "joe user 0123456789abcdef", found("joe user", true)),
        (Mechanisms::SCRAM_SHA_256, "n,,n=u=2Cv=3Dw,r=abc", found("u,v=w", true)),
        (Mechanisms::SCRAM_SHA_1, "y,a=boss,n=u,r=abc", found("u", false)),
        (Mechanisms::SCRAM_SHA_1, "n,,n=u=41,r=abc", None),
        (Mechanisms::SCRAM_SHA_1, "n", None),
        (Mechanisms::DIGEST_MD5, r#"charset=utf-8,username="a\"b",realm="x""#, found("a\"b", false)),
        (Mechanisms::DIGEST_MD5, r#"username="open"#, None),
        (Mechanisms::OAUTHBEARER, "n,a=u@a.example,\x01auth=Bearer t\x01\x01", found("u@a.example", false)),
        (Mechanisms::XOAUTH2, "user=u@a.example\x01auth=Bearer t\x01\x01", found("u@a.example", false)),
        (Mechanisms::XOAUTH2, "auth=Bearer t", None),
    ] {
        assert_eq!(login(mechanism, text), expected, "{text:?}");
    }
}

#[test]
fn nothing_secret_is_shown() {
    let auth = Auth::parse("PLAIN AHVzZXJAYS5leGFtcGxlAHNlY3JldA==").unwrap();
    let login = Login::from_response(auth.mechanism, auth.initial.as_ref().unwrap()).unwrap();
    let shown = format!("{auth:?} {login:?}");
    assert!(!shown.contains("AHVz") && !shown.contains("user") && !shown.contains("secret"), "{shown}");
    assert!(is_auth(b"auth plain x") && is_auth(b"AUTH") && is_auth(b"AUTH\r\n") && !is_auth(b"AUTHX"));
}

proptest! {
    #[test]
    fn what_is_written_is_what_was_read(bytes: Vec<u8>) {
        let text = BASE64.encode(&bytes);
        let response = Response::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(&*response.encode(), &[text.as_bytes(), b"\r\n"].concat());
    }

    #[test]
    fn whatever_is_accepted_is_one_line_of_base64(argument in "[ -~\t]{0,60}") {
        if let Ok(auth) = Auth::parse(&argument) {
            let line = auth.encode();
            let text = line.strip_suffix(b"\r\n").unwrap();
            prop_assert!(text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' '));
            let again = Auth::parse(std::str::from_utf8(&text[5..]).unwrap());
            if !auth.mechanism.is_empty() {
                prop_assert_eq!(again, Ok(auth));
            }
        }
    }
}
