//! The Merkle tree of RFC 6962: hashes, roots, inclusion and consistency proofs. Pure.
//!
//! A proof is made from *nodes*: the roots of complete subtrees, of which a leaf is the smallest. Where nodes come
//! from is the caller's business ([`Nodes`]).

use sha2::{Digest, Sha256};

/// A SHA-256.
pub type Hash = [u8; 32];

/// The hash of a leaf.
#[must_use]
pub fn leaf_hash(data: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(data).finalize().into()
}

/// The hash of an inner node.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of a tree without leaves.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Where complete subtrees are looked up.
pub trait Nodes {
    /// Why a look-up fails.
    type Error;

    /// The root of the complete subtree over leaves `index << height .. (index + 1) << height`.
    ///
    /// # Errors
    ///
    /// When it cannot be had.
    fn node(&self, height: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// The root over consecutive hashes of complete subtrees of one height.
#[must_use]
pub fn root_of(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => empty_root(),
        [one] => *one,
        more => {
            let (left, right) = more.split_at(split(more.len() as u64) as usize);
            node_hash(&root_of(left), &root_of(right))
        }
    }
}

/// The largest power of two below `size`, which is at least 2.
const fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// The root over the leaves from `from` to before `to`, as the RFC's recursion reaches such a range.
fn range<N: Nodes>(nodes: &N, from: u64, to: u64) -> Result<Hash, N::Error> {
    let size = to - from;
    if size.is_power_of_two() {
        let height = size.trailing_zeros();
        return nodes.node(height, from >> height);
    }
    let middle = from + split(size);
    Ok(node_hash(&range(nodes, from, middle)?, &range(nodes, middle, to)?))
}

/// The root of the tree of the first `size` leaves.
///
/// # Errors
///
/// When a node cannot be had.
pub fn root<N: Nodes>(nodes: &N, size: u64) -> Result<Hash, N::Error> {
    if size == 0 { Ok(empty_root()) } else { range(nodes, 0, size) }
}

/// Proves that leaf `index` is in the tree of `size` leaves; `index` is below `size`.
///
/// # Errors
///
/// When a node cannot be had.
pub fn prove_inclusion<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    let (mut from, mut to) = (0, size);
    let mut proof = Vec::new();
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            proof.push(range(nodes, middle, to)?);
            to = middle;
        } else {
            proof.push(range(nodes, from, middle)?);
            from = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Proves that the tree of `old` leaves is the beginning of the one of `new` leaves; `old` is at most `new`.
///
/// # Errors
///
/// When a node cannot be had.
pub fn prove_consistency<N: Nodes>(nodes: &N, old: u64, new: u64) -> Result<Vec<Hash>, N::Error> {
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let (mut from, mut to) = (0, new);
    let mut proof = Vec::new();
    while old != to {
        let middle = from + split(to - from);
        if old <= middle {
            proof.push(range(nodes, middle, to)?);
            to = middle;
        } else {
            proof.push(range(nodes, from, middle)?);
            from = middle;
        }
    }
    if from > 0 {
        proof.push(range(nodes, from, to)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether `proof` proves that a leaf of this hash is number `index` of the tree of `size` leaves with `root`.
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` proves that the tree of `old` leaves with `old_root` is the beginning of the one of `new` leaves.
#[must_use]
pub fn verify_consistency(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    // A complete old tree is its own first node, and is not repeated.
    let mut path = proof.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { path.next() };
    let Some(first) = first else { return false };
    let ones = (old - 1).trailing_ones();
    let (mut node, mut last) = ((old - 1) >> ones, (new - 1) >> ones);
    let (mut before, mut after) = (*first, *first);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            before = node_hash(sibling, &before);
            after = node_hash(sibling, &after);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            after = node_hash(&after, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && before == *old_root && after == *new_root
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    struct Leaves(Vec<Hash>);

    impl Nodes for Leaves {
        type Error = Infallible;

        fn node(&self, height: u32, index: u64) -> Result<Hash, Infallible> {
            let (from, to) = ((index << height) as usize, ((index + 1) << height) as usize);
            Ok(root_of(&self.0[from..to]))
        }
    }

    fn leaves(size: u64) -> Leaves {
        Leaves((0..size).map(|number| leaf_hash(&number.to_be_bytes())).collect())
    }

    fn hex(hash: &Hash) -> String {
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn known_trees_have_their_known_roots() {
        // The test vectors that certificate transparency's implementations share.
        let inputs: [&[u8]; 8] = [
            b"",
            &[0],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
        ];
        let hashes: Vec<Hash> = inputs.iter().map(|data| leaf_hash(data)).collect();
        assert_eq!(hex(&root_of(&[])), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for (size, expected) in [
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            (5, "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
            (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ] {
            assert_eq!(hex(&root_of(&hashes[..size])), expected, "{size}");
        }
    }

    #[test]
    fn every_proof_of_small_trees_verifies_and_proves_nothing_else() {
        let tree = leaves(40);
        for size in 1..=40u64 {
            let Ok(top) = root(&tree, size);
            assert_eq!(top, root_of(&tree.0[..size as usize]));
            for index in 0..size {
                let Ok(proof) = prove_inclusion(&tree, index, size);
                for other in 0..size + 2 {
                    let leaf = &tree.0[index as usize];
                    assert_eq!(verify_inclusion(leaf, other, size, &proof, &top), other == index);
                }
            }
            for old in 0..=size {
                let (Ok(proof), Ok(before)) = (prove_consistency(&tree, old, size), root(&tree, old));
                assert!(verify_consistency(old, &before, size, &top, &proof), "{old} in {size}");
                for other in (0..=size).filter(|&other| other != old) {
                    assert!(!verify_consistency(other, &before, size, &top, &proof), "{other} for {old}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_changed_proof_proves_nothing(
            size in 2u64..2000, at: prop::sample::Index, which: prop::sample::Index, bit in 0usize..256,
        ) {
            let tree = leaves(size);
            let Ok(top) = root(&tree, size);
            let index = at.index(size as usize) as u64;
            let Ok(good) = prove_inclusion(&tree, index, size);
            let leaf = tree.0[index as usize];
            prop_assert!(verify_inclusion(&leaf, index, size, &good, &top));
            let mut bad = good.clone();
            bad[which.index(good.len())][bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!verify_inclusion(&leaf, index, size, &bad, &top));
            prop_assert!(!verify_inclusion(&leaf, index, size, &good[1..], &top));
            let Ok(before) = root(&tree, index);
            let Ok(good) = prove_consistency(&tree, index, size);
            prop_assert!(verify_consistency(index, &before, size, &top, &good));
            if !good.is_empty() {
                let mut bad = good.clone();
                bad[which.index(good.len())][bit / 8] ^= 1 << (bit % 8);
                prop_assert!(!verify_consistency(index, &before, size, &top, &bad));
                prop_assert!(!verify_consistency(index, &before, size, &top, &good[1..]));
            }
        }
    }
}
