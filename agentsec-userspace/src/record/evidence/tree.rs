//! The right edge of a growing tree: enough to add leaves and to know the root, in a few kilobytes.

use super::merkle::{Hash, empty_root, node_hash, root_of};
use super::tiles::{Kind, TILE_WIDTH, Tile};

/// A tree of any size, as the tiles at its right edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// For each level, the hashes of its last tile: fewer than 256.
    levels: Vec<Vec<Hash>>,
}

impl Frontier {
    /// The tree of `size` leaves with these last tiles; `None` when they are not of that width.
    #[must_use]
    pub fn from_levels(size: u64, levels: Vec<Vec<Hash>>) -> Option<Self> {
        let widths = (0..).map(|level: u32| (size >> (8 * level)) % TILE_WIDTH);
        let fits = levels.iter().zip(widths).all(|(hashes, width)| hashes.len() as u64 == width);
        (fits && levels.len() == levels_of(size)).then_some(Self { size, levels })
    }

    /// Leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf. Tiles that become full are told, the lowest first.
    pub fn push(&mut self, leaf: Hash, full: &mut impl FnMut(Tile, &[Hash])) {
        self.size += 1;
        let mut hash = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::with_capacity(TILE_WIDTH as usize));
            }
            let hashes = &mut self.levels[level];
            hashes.push(hash);
            if hashes.len() < TILE_WIDTH as usize {
                return;
            }
            let index = (self.size >> (8 * (level + 1))) - 1;
            full(Tile { kind: Kind::Hashes(level as u8), index, width: TILE_WIDTH }, hashes);
            hash = root_of(hashes);
            hashes.clear();
        }
    }

    /// The last tiles that are not full.
    pub fn partial_tiles(&self) -> impl Iterator<Item = (Tile, &[Hash])> {
        self.levels.iter().enumerate().filter(|(_, hashes)| !hashes.is_empty()).map(|(level, hashes)| {
            let index = (self.size >> (8 * level)) / TILE_WIDTH;
            let tile = Tile { kind: Kind::Hashes(level as u8), index, width: hashes.len() as u64 };
            (tile, &hashes[..])
        })
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut root = None;
        for hashes in &self.levels {
            // From the right: the smallest complete subtree first.
            let mut rest = &hashes[..];
            while !rest.is_empty() {
                let (before, complete) = rest.split_at(rest.len() - (1 << rest.len().trailing_zeros()));
                let peak = root_of(complete);
                root = Some(root.map_or(peak, |right| node_hash(&peak, &right)));
                rest = before;
            }
        }
        root.unwrap_or_else(empty_root)
    }
}

/// How many levels of tiles a tree has.
const fn levels_of(size: u64) -> usize {
    if size == 0 { 0 } else { (size.ilog2() / 8 + 1) as usize }
}

#[cfg(test)]
mod tests {
    use super::super::merkle::leaf_hash;
    use super::*;

    #[test]
    fn a_growing_tree_has_the_root_of_its_leaves_and_can_be_taken_up_at_any_size() {
        let leaves: Vec<Hash> = (0..70_000u32).map(|number| leaf_hash(&number.to_be_bytes())).collect();
        let mut tree = Frontier::default();
        let mut full = 0;
        for (count, leaf) in leaves.iter().enumerate() {
            if count < 600 || count % 9_973 == 0 || (65_530..65_550).contains(&count) {
                assert_eq!(tree.root(), root_of(&leaves[..count]), "{count}");
                let again =
                    Frontier::from_levels(count as u64, tree.levels[..levels_of(count as u64)].to_vec());
                assert_eq!(again.map(|again| again.root()), Some(tree.root()), "{count}");
            }
            tree.push(*leaf, &mut |tile, hashes| {
                full += 1;
                assert_eq!(hashes.len(), 256);
                let leaves = &leaves[..=count];
                if tile.kind == Kind::Hashes(0) {
                    assert_eq!(hashes, &leaves[tile.index as usize * 256..][..256]);
                }
            });
        }
        assert_eq!(full, 273 + 1);
        let widths: Vec<_> = tree.partial_tiles().map(|(tile, _)| (tile.index, tile.width)).collect();
        assert_eq!(widths, [(273, 112), (1, 17), (0, 1)]);
    }
}
