//! `[bundles]`.

use super::*;

const KEY: &str = "age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq";

#[test]
fn what_bundles_may_take_is_read() {
    let key = age::x25519::Identity::generate().to_public().to_string();
    let text = format!(
        "[bundles]\nrecipients = [\"{key}\"]\npart_timeout = \"1s\"\nwait = \"0s\"\nmax_bundle = \"2MB\"\nmax_count = 3\n\
         max_size = \"5MB\"\nexpire = \"off\"\n"
    );
    let expected = BundlesConfig {
        enabled: true,
        recipients: vec![key],
        part_timeout_ns: 1_000_000_000,
        wait_ns: 0,
        max_bundle_bytes: 2_000_000,
        max_count: 3,
        max_bytes: 5_000_000,
        expire_ns: None,
    };
    assert_eq!(parse_one(&text).unwrap().bundles, expected);
    assert_eq!(parse_one("").unwrap().bundles, BundlesConfig::default());
    let overriding =
        parse(&[source("a.toml", &text), source("b.toml", "[bundles]\nenabled = false\n")]).unwrap();
    assert_eq!(overriding.bundles, BundlesConfig { enabled: false, ..expected });
}

#[test]
fn what_bundles_may_not_take_names_its_place_and_what_is_allowed() {
    for (body, message) in [
        (format!("recipients = [\"{KEY}x\"]"), "a list of public keys of age"),
        ("recipients = \"age1\"".into(), "a list of public keys of age"),
        ("recipients = [\"AGE-SECRET-KEY-1QQ\"]".into(), "must not be on this host"),
        ("part_timeout = \"10ms\"".into(), "a duration from \"100ms\" to \"1m\""),
        ("wait = \"2m\"".into(), "a duration from \"0ns\" to \"1m\""),
        ("max_count = 0".into(), "an integer from 1"),
        ("max_bundle = \"1kB\"".into(), "from \"1MB\""),
        ("expire = \"0s\"".into(), "a duration from \"1s\""),
        ("recipient = []".into(), "perhaps `recipients` is meant"),
    ] {
        refused(&format!("[bundles]\n{body}\n"), &["a.toml:2", message]);
    }
}
