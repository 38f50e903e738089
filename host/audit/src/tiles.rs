//! The tree and the entries cut into files of at most 256, as C2SP `tlog-tiles` has them
//! (<https://c2sp.org/tlog-tiles>), so that programs which know such logs can check an export.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::Path;

use crate::small;
use crate::tree::{Frontier, TreeHash};
use crate::verify::VerifyError;

/// Hashes or entries in a full tile.
pub(crate) const TILE_WIDTH: u64 = 256;

/// One file of the tiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tile {
    /// Relative to the folder of the log.
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
}

/// Makes the tiles of a tree while its leaves go by, each as soon as it is full.
#[derive(Debug)]
pub(crate) struct Tiles {
    /// For each level the tile that is being filled.
    levels: Vec<Level>,
    /// Whether the entries themselves go into tiles too.
    entries: Option<Bundle>,
}

#[derive(Debug, Default)]
struct Level {
    /// Tiles that were filled before.
    full: u64,
    hashes: Vec<TreeHash>,
}

#[derive(Debug, Default)]
struct Bundle {
    full: u64,
    count: u64,
    bytes: Vec<u8>,
    /// An entry is longer than the two bytes of its length can say.
    is_too_long: bool,
}

impl Tiles {
    pub(crate) fn new(with_entries: bool) -> Self {
        Self {
            levels: Vec::new(),
            entries: with_entries.then(Bundle::default),
        }
    }

    /// Takes the next leaf; hands over the tiles that it fills.
    pub(crate) fn push(&mut self, leaf: TreeHash, entry: Option<&[u8]>) -> Vec<Tile> {
        let mut filled = Vec::new();
        if let (Some(bundle), Some(entry)) = (&mut self.entries, entry) {
            filled.extend(bundle.push(entry));
        }
        let mut waiting = VecDeque::from([(0, leaf)]);
        while let Some((place, hash)) = waiting.pop_front() {
            if self.levels.len() == place {
                self.levels.push(Level::default());
            }
            let Some(level) = self.levels.get_mut(place) else {
                break;
            };
            level.hashes.push(hash);
            if level.hashes.len() as u64 == TILE_WIDTH {
                filled.push(level.tile(place));
                // The root of a full tile is one hash of the tile above it.
                let mut tree = Frontier::new();
                level.hashes.drain(..).for_each(|hash| tree.push(hash));
                level.full += 1;
                waiting.push_back((place + 1, tree.root()));
            }
        }
        filled
    }

    /// The tiles that are not full.
    pub(crate) fn finish(self) -> Vec<Tile> {
        let levels = self.levels.iter().enumerate();
        levels
            .filter(|(_, level)| !level.hashes.is_empty())
            .map(|(place, level)| level.tile(place))
            .chain(self.entries.and_then(|bundle| bundle.tile()))
            .collect()
    }
}

impl Level {
    fn tile(&self, place: usize) -> Tile {
        let hashes = self.hashes.iter().flat_map(|hash| hash.as_bytes());
        Tile {
            path: path(&place.to_string(), self.full, self.hashes.len() as u64),
            bytes: hashes.copied().collect(),
        }
    }
}

impl Bundle {
    fn push(&mut self, entry: &[u8]) -> Option<Tile> {
        match u16::try_from(entry.len()) {
            Ok(length) => self.bytes.extend(length.to_be_bytes()),
            Err(_) => self.is_too_long = true,
        }
        self.bytes.extend(entry);
        self.count += 1;
        if self.count < TILE_WIDTH {
            return None;
        }
        let tile = self.tile();
        *self = Self {
            full: self.full + 1,
            ..Self::default()
        };
        tile
    }

    /// None where there is nothing in it, or something that it cannot hold.
    fn tile(&self) -> Option<Tile> {
        (self.count > 0 && !self.is_too_long).then(|| Tile {
            path: path("entries", self.full, self.count),
            bytes: self.bytes.clone(),
        })
    }
}

/// `tile/<level>/<number>[.p/<width>]`: the number in groups of three digits, an `x` before each
/// but the last.
pub(crate) fn path(level: &str, number: u64, width: u64) -> String {
    let mut groups = vec![number % 1000];
    let mut rest = number / 1000;
    while rest > 0 {
        groups.push(rest % 1000);
        rest /= 1000;
    }
    let mut path = format!("tile/{level}");
    for (place, group) in groups.iter().enumerate().rev() {
        let mark = if place > 0 { "x" } else { "" };
        // Writing to a string does not fail.
        let _ = write!(path, "/{mark}{group:03}");
    }
    if width < TILE_WIDTH {
        let _ = write!(path, ".p/{width}");
    }
    path
}

/// Calls for the leaves of these numbers, from 1, that the tiles of a tree of this size hold.
pub(crate) fn read_leaves(
    dir: &Path,
    size: u64,
    numbers: RangeInclusive<u64>,
    mut work: impl FnMut(u64, TreeHash),
) -> Result<(), VerifyError> {
    let mut number = *numbers.start();
    while number <= *numbers.end() {
        let tile = (number - 1) / TILE_WIDTH;
        let width = TILE_WIDTH.min(size - tile * TILE_WIDTH);
        let path = dir.join(path("0", tile, width));
        let bytes = small::read(&path).unwrap_or_default();
        let (hashes, rest) = bytes.as_chunks::<32>();
        if hashes.len() as u64 != width || !rest.is_empty() {
            return Err(VerifyError::TileChanged { path });
        }
        let before = tile * TILE_WIDTH;
        for (hash, found) in hashes.iter().zip(before + 1..) {
            if found == number && number <= *numbers.end() {
                work(number, TreeHash::from_bytes(*hash));
                number += 1;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        assert_eq!(path("0", 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(path("0", 273, 112), "tile/0/273.p/112");
        assert_eq!(path("entries", 0, 1), "tile/entries/000.p/1");
        assert_eq!(path("3", 999, 256), "tile/3/999");
        assert_eq!(path("3", 1000, 256), "tile/3/x001/000");
    }

    /// The example of the specification: a tree of 70,000 has 273 full tiles and one of 112 at
    /// level 0, one full one and one of 17 at level 1, and one of 1 at level 2.
    #[test]
    fn a_tree_of_seventy_thousand_has_the_tiles_of_the_specification() {
        let mut tiles = Tiles::new(true);
        let mut tree = Frontier::new();
        let mut made = Vec::new();
        for number in 0..70_000_u32 {
            let entry = number.to_be_bytes();
            tree.push(TreeHash::leaf(&entry));
            made.extend(tiles.push(TreeHash::leaf(&entry), Some(&entry)));
        }
        made.extend(tiles.finish());
        let of_level = |level: &str| -> Vec<&Tile> {
            let start = format!("tile/{level}/");
            made.iter()
                .filter(|tile| tile.path.starts_with(&start))
                .collect()
        };
        assert_eq!(of_level("0").len(), 274);
        assert_eq!(of_level("entries").len(), 274);
        let last = |level| of_level(level).last().map(|tile| tile.path.as_str());
        assert_eq!(last("0"), Some("tile/0/273.p/112"));
        assert_eq!(last("1"), Some("tile/1/001.p/17"));
        assert_eq!(last("2"), Some("tile/2/000.p/1"));
        assert_eq!(last("entries"), Some("tile/entries/273.p/112"));
        assert!(last("3").is_none());

        // The root comes out of the tiles: the full subtrees and what is left over at each level.
        let mut root = Frontier::new();
        for tile in of_level("0") {
            let (hashes, _) = tile.bytes.as_chunks::<32>();
            hashes
                .iter()
                .for_each(|hash| root.push(TreeHash::from_bytes(*hash)));
        }
        assert_eq!(root.root(), tree.root());
        let bundle = of_level("entries")[0];
        assert_eq!(bundle.bytes[..12], [0, 4, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1]);
    }

    #[test]
    fn an_entry_that_is_too_long_costs_its_bundle_alone() {
        let mut tiles = Tiles::new(true);
        let long = vec![b'x'; 65_536];
        let mut made = Vec::new();
        for number in 0..300_u32 {
            let entry = if number == 7 {
                long.as_slice()
            } else {
                b"short"
            };
            made.extend(tiles.push(TreeHash::leaf(entry), Some(entry)));
        }
        made.extend(tiles.finish());
        let paths: Vec<&str> = made.iter().map(|tile| tile.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "tile/0/000",
                "tile/0/001.p/44",
                "tile/1/000.p/1",
                "tile/entries/001.p/44"
            ]
        );
    }
}
