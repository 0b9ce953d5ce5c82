//! Encryption to recipients' public keys, in age's format: whoever is root on this host afterwards cannot read what was
//! collected, and `age` or `rage` elsewhere can.

use std::io::{self, Read, Write};

use age::x25519::Recipient;
use age::{Decryptor, Encryptor, IdentityFile};

/// The bytes encrypted to every recipient; as they are when there is none.
///
/// # Errors
///
/// When a recipient is no public key of age's.
pub fn seal(recipients: &[String], bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    if recipients.is_empty() {
        return Ok(bytes);
    }
    let parse =
        |text: &String| text.parse::<Recipient>().map_err(|why| io::Error::other(format!("{text}: {why}")));
    let keys: Vec<Recipient> = recipients.iter().map(parse).collect::<Result<_, _>>()?;
    let encryptor = Encryptor::with_recipients(keys.iter().map(|key| key as &dyn age::Recipient))
        .map_err(io::Error::other)?;
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 1024 + 512);
    let mut writer = encryptor.wrap_output(&mut out)?;
    writer.write_all(&bytes)?;
    writer.finish()?;
    Ok(out)
}

/// Whether these are the first bytes of an encrypted file.
#[must_use]
pub fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(b"age-encryption.org/v1\n")
}

/// Decrypts with the secret keys in the text of an identity file. The plain text has at most `most` bytes.
///
/// # Errors
///
/// When none of the keys fits, the file was altered, or there is more.
pub fn open(identities: &[u8], sealed: &[u8], most: u64) -> Result<Vec<u8>, String> {
    let file = IdentityFile::from_buffer(identities).map_err(|error| error.to_string())?;
    let identities = file.into_identities().map_err(|error| error.to_string())?;
    if identities.is_empty() {
        return Err("the identity file has no secret key".into());
    }
    let decryptor = Decryptor::new_buffered(sealed).map_err(|error| error.to_string())?;
    let keys = identities.iter().map(|identity| &**identity as &dyn age::Identity);
    let reader = decryptor.decrypt(keys).map_err(|error| error.to_string())?;
    let mut plain = Vec::new();
    reader.take(most + 1).read_to_end(&mut plain).map_err(|error| error.to_string())?;
    if plain.len() as u64 > most {
        return Err(format!("it has more than {most} bytes"));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use age::secrecy::ExposeSecret;

    #[test]
    fn every_recipient_opens_it_nobody_else_and_not_when_it_was_altered() {
        let keys: Vec<_> = (0..3).map(|_| age::x25519::Identity::generate()).collect();
        let file = |at: usize| format!("# a comment\n{}\n", keys[at].to_string().expose_secret());
        let recipients: Vec<String> = keys[..2].iter().map(|key| key.to_public().to_string()).collect();
        let plain = b"evidence".repeat(10_000);
        let mut sealed = seal(&recipients, plain.clone()).unwrap();
        assert!(is_sealed(&sealed) && !is_sealed(&plain));
        assert!(!sealed.windows(8).any(|window| window == b"evidence"));
        for at in 0..2 {
            assert_eq!(open(file(at).as_bytes(), &sealed, 1 << 20), Ok(plain.clone()));
        }
        assert!(open(file(2).as_bytes(), &sealed, 1 << 20).is_err());
        assert!(open(file(0).as_bytes(), &sealed, 100).is_err(), "more than is allowed");
        assert!(open(b"not a key\n", &sealed, 1 << 20).is_err());
        assert!(open(file(0).as_bytes(), &sealed[..sealed.len() - 1], 1 << 20).is_err());
        let last = sealed.len() - 1;
        sealed[last] ^= 1;
        assert!(open(file(0).as_bytes(), &sealed, 1 << 20).is_err());
        assert_eq!(seal(&[], plain.clone()).unwrap(), plain);
        assert!(seal(&["age1nonsense".into()], plain).is_err());
    }
}
