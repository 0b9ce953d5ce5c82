//! Cosignatures of version 1 with Ed25519, as C2SP's `tlog-cosignature` says. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};
use std::fmt;

/// Tells a cosigner's key from that of a log.
const COSIGNATURE_V1: u8 = 4;

/// The key of a witness: name, id and Ed25519 key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

/// A witness's word: at this time, this was the largest tree of this log that it knew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignature {
    /// Name of the witness.
    pub witness: String,
    /// When, in seconds since 1970, by its clock.
    pub at_s: u64,
    /// The line of the signed note, with its newline.
    pub line: String,
}

impl WitnessKey {
    /// From its text `NAME+HASH+BASE64`.
    ///
    /// # Errors
    ///
    /// Why it is not such a key.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("it is not NAME+HASH+BASE64");
        };
        let bytes = STANDARD.decode(encoded).map_err(|_| "its key is not base64")?;
        let key: [u8; 32] = match bytes.split_first() {
            Some((&COSIGNATURE_V1, key)) => key.try_into().map_err(|_| "its key has not 32 bytes")?,
            Some((1, _)) => return Err("it is the key of a log, not of a witness"),
            Some((6, _)) => return Err("its algorithm is ML-DSA-44, and only Ed25519 is understood"),
            _ => return Err("its algorithm is not known"),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err("it has no name");
        }
        let expected = key_id(name, &key);
        if id != hex(expected) {
            return Err("its hash is not that of its name and key");
        }
        let key = VerifyingKey::from_bytes(&key).map_err(|_| "its key is no Ed25519 key")?;
        Ok(Self { name: name.to_owned(), id: expected, key })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cosignature of this witness among signature lines, over a checkpoint's text, which ends with a newline.
    /// Lines of others are not looked at. `Ok(None)` when it has not signed.
    ///
    /// # Errors
    ///
    /// When a line that names this witness is not its signature.
    pub fn find(&self, text: &str, lines: &str) -> Result<Option<Cosignature>, &'static str> {
        let mut found = None;
        for line in lines.lines() {
            let Some((name, encoded)) = line.strip_prefix("— ").and_then(|rest| rest.split_once(' '))
            else {
                continue;
            };
            let Ok(bytes) = STANDARD.decode(encoded) else { continue };
            if name != self.name || bytes.get(..4) != Some(&self.id[..]) {
                continue;
            }
            let at_s = self.verify(text, &bytes[4..])?;
            found = Some(Cosignature { witness: self.name.clone(), at_s, line: format!("{line}\n") });
        }
        Ok(found)
    }

    /// The time of a timestamped signature.
    fn verify(&self, text: &str, bytes: &[u8]) -> Result<u64, &'static str> {
        let (time, signature) = bytes.split_first_chunk::<8>().ok_or("its cosignature is cut")?;
        let at_s = u64::from_be_bytes(*time);
        let signature = Signature::from_slice(signature).map_err(|_| "its cosignature has another length")?;
        if at_s > i64::MAX as u64 {
            return Err("its cosignature has an impossible time");
        }
        let message = format!("cosignature/v1\ntime {at_s}\n{text}");
        self.key.verify_strict(message.as_bytes(), &signature).map_err(|_| "its cosignature is wrong")?;
        Ok(at_s)
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tagged = [&[COSIGNATURE_V1], &self.key.as_bytes()[..]].concat();
        write!(out, "{}+{}+{}", self.name, hex(self.id), STANDARD.encode(tagged))
    }
}

fn hex(id: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(id))
}

fn key_id(name: &str, key: &[u8; 32]) -> [u8; 4] {
    let digest = Sha256::new().chain_update(name).chain_update([b'\n', COSIGNATURE_V1]).chain_update(key);
    let digest = digest.finalize();
    let mut id = [0; 4];
    id.copy_from_slice(&digest[..4]);
    id
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    /// The example of the specification.
    const CHECKPOINT: &str =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    /// A witness's secret, for tests: its key's text and its line over a checkpoint.
    pub fn witness(name: &str, seed: u8) -> (SigningKey, String) {
        let secret = SigningKey::from_bytes(&[seed; 32]);
        let public = *secret.verifying_key().as_bytes();
        let tagged = [&[COSIGNATURE_V1], &public[..]].concat();
        let text = format!("{name}+{}+{}", hex(key_id(name, &public)), STANDARD.encode(tagged));
        (secret, text)
    }

    pub fn line(name: &str, secret: &SigningKey, text: &str, at_s: u64) -> String {
        let signature = secret.sign(format!("cosignature/v1\ntime {at_s}\n{text}").as_bytes()).to_bytes();
        let id = key_id(name, secret.verifying_key().as_bytes());
        let bytes = [&id[..], &at_s.to_be_bytes(), &signature].concat();
        format!("— {name} {}\n", STANDARD.encode(bytes))
    }

    #[test]
    fn a_witness_is_found_among_signatures_and_nobody_else() {
        let (secret, text) = witness("witness.example/w1", 3);
        let key = WitnessKey::parse(&text).unwrap();
        assert_eq!(key.to_string(), text);
        let ours = line("witness.example/w1", &secret, CHECKPOINT, 1_679_315_147);
        let (other, _) = witness("witness.example/w2", 4);
        let others = line("witness.example/w2", &other, CHECKPOINT, 7);
        let found = key.find(CHECKPOINT, &format!("{others}{ours}")).unwrap().unwrap();
        assert_eq!((found.at_s, &found.line), (1_679_315_147, &ours));
        assert_eq!(key.find(CHECKPOINT, &others), Ok(None));
        // Another text, another time, or a signature by another key under its name and id.
        assert!(key.find(&CHECKPOINT.replace('3', "4"), &ours).is_err());
        let forged = line("witness.example/w1", &other, CHECKPOINT, 7);
        assert_eq!(key.find(CHECKPOINT, &forged), Ok(None), "its key has another id");
        let mut bytes = STANDARD.decode(ours.trim_end().rsplit(' ').next().unwrap()).unwrap();
        bytes[11] ^= 1;
        let later = format!("— witness.example/w1 {}\n", STANDARD.encode(bytes));
        assert_eq!(key.find(CHECKPOINT, &later), Err("its cosignature is wrong"));
    }

    #[test]
    fn no_bit_of_a_cosignature_can_be_changed() {
        let (secret, text) = witness("w", 3);
        let key = WitnessKey::parse(&text).unwrap();
        let ours = line("w", &secret, CHECKPOINT, 1_679_315_147);
        let bytes = STANDARD.decode(ours.trim_end().rsplit(' ').next().unwrap()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let line = format!("— w {}\n", STANDARD.encode(forged));
            assert!(!matches!(key.find(CHECKPOINT, &line), Ok(Some(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_key_says_what_is_wrong_with_it() {
        let (_, good) = witness("w", 3);
        for (text, why) in [
            ("w", "NAME+HASH+BASE64"),
            ("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "key of a log"),
            ("w+00000000+BBpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "hash"),
            ("w+00000000+BBpc", "32 bytes"),
            ("w+00000000+!", "base64"),
            (&good.replace("w+", "v+"), "hash"),
        ] {
            assert!(WitnessKey::parse(text).unwrap_err().contains(why), "{text}");
        }
    }
}
