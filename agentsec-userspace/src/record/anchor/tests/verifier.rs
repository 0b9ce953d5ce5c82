//! The arithmetic of RFC 6962 once more, from its recursive definition, for the other side's point of view.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::Log;
use crate::record::anchor::consistent::proof;

pub type Hash = [u8; 32];

fn inner(left: &Hash, right: &Hash) -> Hash {
    Sha256::digest([&[1], &left[..], &right[..]].concat()).into()
}

/// Whether a tree of `old` entries with `old_root` is the beginning of one of `new` with `new_root` (section 2.1.2).
pub fn is_beginning(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old == 0 {
        return proof.is_empty();
    }
    let mut rest = proof.to_vec();
    let roots = subproof(old, new, true, old_root, &mut rest);
    roots == Some((*old_root, *new_root)) && rest.is_empty()
}

/// Both roots that SUBPROOF(m, D[n], b) leads to; its hashes are taken from the end.
fn subproof(m: u64, n: u64, b: bool, old_root: &Hash, rest: &mut Vec<Hash>) -> Option<(Hash, Hash)> {
    if m == n {
        return if b { Some((*old_root, *old_root)) } else { rest.pop().map(|hash| (hash, hash)) };
    }
    let mut k = 1;
    while k * 2 < n {
        k *= 2;
    }
    let sibling = rest.pop()?;
    if m <= k {
        let (old, new) = subproof(m, k, b, old_root, rest)?;
        Some((old, inner(&new, &sibling)))
    } else {
        let (old, new) = subproof(m - k, n - k, false, old_root, rest)?;
        Some((inner(&sibling, &old), inner(&sibling, &new)))
    }
}

/// MTH(D[n]) (section 2.1).
pub fn tree_hash(entries: &[Vec<u8>]) -> Hash {
    match entries {
        [] => Sha256::digest([]).into(),
        [one] => Sha256::digest([&[0], &one[..]].concat()).into(),
        more => {
            let mut k = 1;
            while k * 2 < more.len() {
                k *= 2;
            }
            inner(&tree_hash(&more[..k]), &tree_hash(&more[k..]))
        }
    }
}

/// Size and root of a checkpoint, if the log's key (in its text form) has signed it.
pub fn open_checkpoint(note: &str, vkey: &str) -> Option<(String, u64, Hash)> {
    let (text, signatures) = note.split_at(note.find("\n\n")? + 1);
    let mut parts = vkey.splitn(3, '+');
    let (name, id, key) = (parts.next()?, parts.next()?, STANDARD.decode(parts.next()?).ok()?);
    let key = VerifyingKey::from_bytes(key[1..].try_into().ok()?).ok()?;
    let signed = signatures.lines().any(|line| {
        let Some(rest) = line.strip_prefix(&format!("— {name} ")) else { return false };
        let Ok(bytes) = STANDARD.decode(rest) else { return false };
        let same = format!("{:08x}", u32::from_be_bytes(bytes[..4].try_into().unwrap())) == id;
        same && Signature::from_slice(&bytes[4..])
            .is_ok_and(|signature| key.verify_strict(text.as_bytes(), &signature).is_ok())
    });
    let mut lines = text.lines();
    let (origin, size, root) =
        (lines.next()?, lines.next()?.parse().ok()?, STANDARD.decode(lines.next()?).ok()?);
    signed.then_some((origin.to_owned(), size, root.try_into().ok()?))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn proofs_from_tiles_convince_another_implementation_and_changed_ones_do_not(
        new in 1u64..1400, at: prop::sample::Index, which: prop::sample::Index, bit in 0usize..256,
    ) {
        let log = Log::of(new);
        let now = log.newest().checkpoint;
        let entries: Vec<Vec<u8>> = (0..new).map(|number| format!("entry {number}").into_bytes()).collect();
        prop_assert_eq!(now.root, tree_hash(&entries));
        for old in [at.index(new as usize) as u64, 1, 256.min(new), new] {
            let before = tree_hash(&entries[..old as usize]);
            let good = proof(&log.store(), old, &now).unwrap();
            prop_assert!(good.len() <= 63);
            prop_assert!(is_beginning(old, &before, new, &now.root, &good), "{} in {}", old, new);
            if !good.is_empty() {
                let mut bad = good.clone();
                bad[which.index(good.len())][bit / 8] ^= 1 << (bit % 8);
                prop_assert!(!is_beginning(old, &before, new, &now.root, &bad));
                prop_assert!(!is_beginning(old, &before, new, &now.root, &good[1..]));
            }
        }
    }
}
