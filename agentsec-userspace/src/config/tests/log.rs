//! `[log]`: anchors and retention.

use super::*;
use crate::config::log::{AnchorPlace, Destination, KeepLog};

/// The key of a witness, and that of a log, which is none.
const WITNESS: &str = "witness.example/w1+81ce0ce5+BGCmjG7lxSYAmNs2Wi2iMBeizq4Cgs1NBmDSjnC9NbJT";
const LOG: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

fn witness_key() -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    let key = *ed25519_dalek::SigningKey::from_bytes(&[3; 32]).verifying_key().as_bytes();
    let tagged = [&[4], &key[..]].concat();
    let digest = sha2::Sha256::digest([b"w1\n", &tagged[..]].concat());
    let id: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("w1+{id}+{}", base64::engine::general_purpose::STANDARD.encode(tagged))
}

#[test]
fn anchors_and_retention_are_read() {
    let key = witness_key();
    let config = parse_one(&format!(
        "[log.anchors]\ninterval = \"30s\"\nca_file = \"/etc/ca.pem\"\n\
         [log.anchors.file.worm]\npath = \"/mnt/worm/agentsec\"\n\
         [log.anchors.http.siem]\nurl = \"https://siem.example/log\"\nheader_file = \"/etc/agentsec/siem\"\n\
         [log.anchors.witness.w1]\nurl = \"https://w.example/a/\"\nkey = \"{key}\"\n\
         [log.retention]\nkeep = {{ age = \"90d\", bytes = \"10GB\" }}\nship_to = \"s3://evidence/hosts/one/\"\n\
         s3 = {{ endpoint = \"https://s3.example\", credentials_file = \"/etc/agentsec/s3\" }}\n"
    ))
    .unwrap();
    let anchors = &config.log.anchors;
    assert_eq!((anchors.interval_ns, anchors.anchors.len()), (30_000_000_000, 3));
    let file = AnchorPlace::File { path: "/mnt/worm/agentsec".into(), same_device: false };
    assert_eq!(anchors.anchors["worm"].place, file);
    let AnchorPlace::Witness { key: read, .. } = &anchors.anchors["w1"].place else { panic!("{anchors:?}") };
    assert_eq!(read.to_string(), key);
    let retention = &config.log.retention;
    assert_eq!(
        retention.keep,
        KeepLog { age_ns: Some(90 * 86_400_000_000_000), bytes: Some(10_000_000_000) }
    );
    let Some(Destination::S3(s3)) = &retention.ship_to else { panic!("{retention:?}") };
    assert_eq!(
        (s3.bucket.as_str(), s3.prefix.as_str(), s3.region.as_str()),
        ("evidence", "hosts/one", "us-east-1")
    );
    assert!(parse_one("").unwrap().log.retention.keep.is_everything());
}

#[test]
fn what_makes_no_sense_names_its_place_and_what_is_allowed() {
    for (body, message) in [
        ("[log]\nanchor = 1", "perhaps `anchors` is meant"),
        ("[log.anchors]\ninterval = \"1ms\"", "a duration from \"1s\""),
        ("[log.anchors.files.a]\npath = \"/a\"", "perhaps `file` is meant"),
        ("[log.anchors.file.a]", "does not say, or not rightly, where it is; allowed: path"),
        ("[log.anchors.file.a]\npath = \"a/b\"", "an absolute path"),
        ("[log.anchors.file.\"a/b\"]\npath = \"/a\"", "is no name"),
        ("[log.anchors.http.a]\nurl = \"ftp://a/\"", "an http or https URL"),
        ("[log.anchors.http.a]\nurl = \"https://user:secret@a/\"", "holds credentials"),
        ("[log.anchors.http.a]\nurl = \"https://a/?token=1\"", "has a query"),
        ("[log.anchors.http.a]\nurl = \"http://a/\"\nheader_file = \"/h\"", "would be sent in the clear"),
        ("[log.anchors.witness.a]\nurl = \"https://a/\"", "url and key"),
        ("[log.anchors.witness.a]\nurl = \"https://a/\"\nkey = \"w+1+x\"", "NAME+HASH+BASE64 of type 4"),
        (&format!("[log.anchors.witness.a]\nurl = \"https://a/\"\nkey = \"{LOG}\""), "the key of a log"),
        (&format!("[log.anchors.witness.a]\nurl = \"https://a/\"\nkey = \"{WITNESS}\""), "hash is not that"),
        (
            "[log.anchors.file.a]\npath = \"/a\"\n[log.anchors.http.a]\nurl = \"https://a/\"",
            "is the name of another anchor",
        ),
        ("[log.retention]\nkeep = \"90d\"", "a table"),
        ("[log.retention]\nkeep = { age = \"1s\" }", "a duration from \"1m\""),
        ("[log.retention]\nkeep = { bytes = \"1kB\" }", "bytes with a unit"),
        ("[log.retention]\nship_to = \"archive\"", "an absolute path, or s3://BUCKET"),
        ("[log.retention]\nship_to = \"s3://UPPER\"", "s3://BUCKET"),
        ("[log.retention]\nship_to = \"s3://evidence\"", "log.retention.s3.credentials_file"),
        (
            "[log.retention]\nship_to = \"s3://evidence\"\ns3 = { endpoint = \"http://s3.example\", credentials_file = \"/c\" }",
            "in the clear",
        ),
    ] {
        let problems = problems(body).join("\n");
        assert!(problems.contains(message) && problems.contains("a.toml:"), "{body}: {problems}");
    }
    assert!(parse_one("[log.anchors.http.a]\nurl = \"http://127.0.0.1:1/\"\nheader_file = \"/h\"").is_ok());
}
