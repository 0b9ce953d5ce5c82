//! Signed notes and checkpoints, as C2SP's `signed-note` and `tlog-checkpoint` say, with Ed25519.

use super::merkle::Hash;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use std::fmt;

const ED25519: u8 = 1;
/// More signatures than this have no sense.
const SIGNATURES: usize = 100;

/// Why a note, a checkpoint or a key is none, or not a valid one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteFlaw {
    /// It is not written as signed notes are.
    NotANote,
    /// Its text is not that of a checkpoint.
    NotACheckpoint,
    /// It is of another log than the key's.
    OtherOrigin,
    /// The key that is trusted has not signed it.
    OtherKey,
    /// The key that is trusted is named, and its signature is wrong.
    BadSignature,
    /// A key is not written as keys are.
    BadKey,
}

impl fmt::Display for NoteFlaw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NotANote => "it is not a signed note",
            Self::NotACheckpoint => "it is not a checkpoint",
            Self::OtherOrigin => "it is the checkpoint of another log",
            Self::OtherKey => "it is signed by another key",
            Self::BadSignature => "its signature is wrong",
            Self::BadKey => "the key is not written as NAME+HASH+BASE64",
        })
    }
}

impl std::error::Error for NoteFlaw {}

fn key_id(name: &str, public: &[u8; 32]) -> [u8; 4] {
    let digest =
        Sha256::new().chain_update(name).chain_update([b'\n', ED25519]).chain_update(public).finalize();
    let mut id = [0; 4];
    id.copy_from_slice(&digest[..4]);
    id
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|character: char| character.is_whitespace() || character == '+')
}

/// `NAME+HASH+BASE64` taken apart: name, id and the 32 bytes of the key.
fn parse_key(text: &str) -> Option<(&str, [u8; 4], [u8; 32])> {
    let mut parts = text.splitn(3, '+');
    let (name, id, key) = (parts.next()?, parts.next()?, parts.next()?);
    let id = (id.len() == 8).then(|| u32::from_str_radix(id, 16).ok()).flatten()?;
    let key = STANDARD.decode(key).ok()?;
    let (&ED25519, key) = key.split_first()? else { return None };
    let (id, key) = (id.to_be_bytes(), key.try_into().ok()?);
    // The only spelling of a key counts.
    (is_name(name) && write_key(name, id, &key) == text).then_some((name, id, key))
}

fn write_key(name: &str, id: [u8; 4], key: &[u8; 32]) -> String {
    let tagged = [&[ED25519], &key[..]].concat();
    format!("{name}+{:08x}+{}", u32::from_be_bytes(id), STANDARD.encode(tagged))
}

/// The public half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

impl PublicKey {
    /// From its text, as `agentsec log key` prints it.
    ///
    /// # Errors
    ///
    /// When it is not a key.
    pub fn parse(text: &str) -> Result<Self, NoteFlaw> {
        let (name, id, bytes) = parse_key(text).ok_or(NoteFlaw::BadKey)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| NoteFlaw::BadKey)?;
        if id != key_id(name, &bytes) {
            return Err(NoteFlaw::BadKey);
        }
        Ok(Self { name: name.to_owned(), id, key })
    }

    /// The name, which is the log's origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text of the note `signed`, if this key has signed it.
    ///
    /// # Errors
    ///
    /// When it has not.
    pub fn open<'a>(&self, signed: &'a str) -> Result<&'a str, NoteFlaw> {
        let (text, signatures) = split(signed)?;
        for line in signatures.lines() {
            let (name, bytes) = parse_signature(line).ok_or(NoteFlaw::NotANote)?;
            if name != self.name || bytes[..4] != self.id {
                continue;
            }
            let signature = Signature::from_slice(&bytes[4..]).map_err(|_| NoteFlaw::BadSignature)?;
            self.key.verify_strict(text.as_bytes(), &signature).map_err(|_| NoteFlaw::BadSignature)?;
            return Ok(text);
        }
        Err(NoteFlaw::OtherKey)
    }

    /// The checkpoint in the note `signed`, if this key has signed it.
    ///
    /// # Errors
    ///
    /// When it has not, or the note is not a checkpoint of this key's log.
    pub fn checkpoint(&self, signed: &str) -> Result<Checkpoint, NoteFlaw> {
        // Of two flaws the one that names the mistake: the checkpoint of another log.
        let (text, _) = split(signed)?;
        let checkpoint = Checkpoint::parse(text)?;
        if checkpoint.origin != self.name {
            return Err(NoteFlaw::OtherOrigin);
        }
        self.open(signed)?;
        Ok(checkpoint)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&write_key(&self.name, self.id, self.key.as_bytes()))
    }
}

/// Text with its newline, and the lines of signatures.
fn split(signed: &str) -> Result<(&str, &str), NoteFlaw> {
    let at = signed.rfind("\n\n").ok_or(NoteFlaw::NotANote)?;
    let (text, signatures) = (&signed[..=at], &signed[at + 2..]);
    let plain = |character: char| character == '\n' || !character.is_control();
    let whole = signatures.ends_with('\n') && signatures.lines().count() <= SIGNATURES;
    if whole && signed.chars().all(plain) { Ok((text, signatures)) } else { Err(NoteFlaw::NotANote) }
}

fn parse_signature(line: &str) -> Option<(&str, Vec<u8>)> {
    let (name, encoded) = line.strip_prefix("— ")?.split_once(' ')?;
    let bytes = STANDARD.decode(encoded).ok()?;
    (is_name(name) && bytes.len() >= 5).then_some((name, bytes))
}

/// The secret half.
pub struct Signer {
    name: String,
    key: SigningKey,
}

impl Signer {
    /// The key whose 32 secret bytes are `seed`. `name` has neither spaces nor `+`.
    ///
    /// # Errors
    ///
    /// When it has.
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Self, NoteFlaw> {
        if !is_name(name) {
            return Err(NoteFlaw::BadKey);
        }
        Ok(Self { name: name.to_owned(), key: SigningKey::from_bytes(seed) })
    }

    /// From its text.
    ///
    /// # Errors
    ///
    /// When it is not a secret key.
    pub fn parse(text: &str) -> Result<Self, NoteFlaw> {
        let rest = text.strip_prefix("PRIVATE+KEY+").ok_or(NoteFlaw::BadKey)?;
        let (name, id, seed) = parse_key(rest).ok_or(NoteFlaw::BadKey)?;
        let signer = Self::new(name, &seed)?;
        if signer.public().id == id { Ok(signer) } else { Err(NoteFlaw::BadKey) }
    }

    /// The secret text, as the reference implementation of signed notes writes it.
    #[must_use]
    pub fn to_secret(&self) -> String {
        format!("PRIVATE+KEY+{}", write_key(&self.name, self.public().id, self.key.as_bytes()))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let key = self.key.verifying_key();
        PublicKey { name: self.name.clone(), id: key_id(&self.name, key.as_bytes()), key }
    }

    /// The signed note of `text`, which ends with a newline.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        let bytes = [&self.public().id[..], &signature].concat();
        format!("{text}\n— {} {}\n", self.name, STANDARD.encode(bytes))
    }

    /// The signed checkpoint of a tree.
    #[must_use]
    pub fn checkpoint(&self, size: u64, root: &Hash) -> String {
        self.sign(&format!("{}\n{size}\n{}\n", self.name, STANDARD.encode(root)))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Signer({})", self.public())
    }
}

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Names the log.
    pub origin: String,
    /// Leaves.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
}

impl Checkpoint {
    /// From a note's text.
    ///
    /// # Errors
    ///
    /// When it is not that of a checkpoint.
    pub fn parse(text: &str) -> Result<Self, NoteFlaw> {
        let flaw = NoteFlaw::NotACheckpoint;
        let mut lines = text.split('\n');
        let (Some(origin), Some(digits), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(flaw);
        };
        let size: u64 = digits.parse().map_err(|_| flaw)?;
        let root = STANDARD.decode(root).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(flaw)?;
        // The only spelling of a number counts, and extension lines are not empty.
        let rest: Vec<&str> = lines.collect();
        let ended = rest.split_last().is_some_and(|(last, more)| last.is_empty() && !more.contains(&""));
        if origin.is_empty() || size.to_string() != digits || !ended {
            return Err(flaw);
        }
        Ok(Self { origin: origin.to_owned(), size, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_implementations_example_is_signed_in_the_same_words() {
        // Key, text and signature of the documentation of Go's sumdb/note.
        let secret = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
        let public = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let signer = Signer::parse(secret).unwrap();
        assert_eq!(signer.public().to_string(), public);
        assert_eq!(signer.to_secret(), secret);
        let text = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n";
        let note = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n\n\
                    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        assert_eq!(signer.sign(text), note);
        assert_eq!(PublicKey::parse(public).unwrap().open(note), Ok(text));
    }

    #[test]
    fn a_checkpoint_opens_with_its_key_only() {
        let signer = Signer::new("agentsec/host/1", &[7; 32]).unwrap();
        let signed = signer.checkpoint(3, &[9; 32]);
        let checkpoint = signer.public().checkpoint(&signed).unwrap();
        assert_eq!((checkpoint.size, checkpoint.root), (3, [9; 32]));
        let other = Signer::new("agentsec/host/1", &[8; 32]).unwrap();
        assert_eq!(other.public().checkpoint(&signed), Err(NoteFlaw::OtherKey));
        let other = Signer::new("agentsec/host/2", &[7; 32]).unwrap();
        assert_eq!(other.public().checkpoint(&signed), Err(NoteFlaw::OtherOrigin));
        // Witnesses add lines, which are not ours to judge.
        let witnessed = format!("{signed}— witness AAAAAAAAAA==\n");
        assert!(signer.public().checkpoint(&witnessed).is_ok());
    }

    #[test]
    fn no_bit_of_a_checkpoint_can_be_changed() {
        let signer = Signer::new("agentsec/host", &[7; 32]).unwrap();
        let signed = signer.checkpoint(300, &[9; 32]).into_bytes();
        for bit in 0..signed.len() * 8 {
            let mut forged = signed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let Ok(text) = String::from_utf8(forged) else { continue };
            assert!(signer.public().checkpoint(&text).is_err(), "bit {bit}: {text}");
        }
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        for text in ["", "a\n1\n", "a\n01\nCQ==\n", "\n1\nCQ==\n", "a\n1\nCQ==\n"] {
            assert_eq!(Checkpoint::parse(text), Err(NoteFlaw::NotACheckpoint), "{text:?}");
        }
        for key in [
            "",
            "a+b",
            "a b+00000000+AQ==",
            "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        ] {
            assert_eq!(PublicKey::parse(key), Err(NoteFlaw::BadKey), "{key:?}");
        }
    }
}
