//! What administrators write: the configuration, and requests to a running gateway.

use smtp_gateway::config;
use smtp_gateway::control::Request;

/// A configuration is good, or each of its faults has a place and words.
pub(super) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config::parse(text, "fuzz.toml") {
        Ok(config) => assert!(!config.listeners.is_empty() && !config.backends.is_empty()),
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in faults {
                let shown = fault.to_string();
                assert!(shown.contains("fuzz.toml"), "{shown}");
            }
        }
    }
}

/// A request that was understood is understood again as it is then written, and stays as it is.
pub(super) fn control(data: &[u8]) {
    let Ok(line) = std::str::from_utf8(data) else { return };
    match Request::read(line) {
        Ok(request) => {
            let written = serde_json::to_string(&request).expect("a request can be written");
            let again = Request::read(&written).unwrap_or_else(|error| panic!("{written}: {error}"));
            assert_eq!(again, request, "{written}");
            assert!(!written.contains('\n'));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
