use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|place| u8::from_str_radix(&text[2 * place..2 * place + 2], 16).expect("hex"))
        .collect()
}

fn hash(text: &str) -> TreeHash {
    TreeHash::from_bytes(hex(text).try_into().expect("32 bytes"))
}

/// The tree that the implementations of certificate transparency test with
/// (google/certificate-transparency, `merkle_tree_test.cc`).
const LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];

const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

/// Index and size, then the path.
const PATHS: [(u64, u64, &[&str]); 4] = [
    (0, 1, &[]),
    (
        0,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        &[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        1,
        5,
        &[
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
];

/// Old and new size, then the proof.
const CONSISTENCY: [(u64, u64, &[&str]); 4] = [
    (1, 1, &[]),
    (
        1,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        &[
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        &[
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
];

fn hashes(leaves: &[TreeHash], ranges: Vec<Range<u64>>) -> Vec<TreeHash> {
    let mut found = RangeHashes::new(ranges);
    leaves.iter().for_each(|leaf| found.push(*leaf));
    found.finish()
}

/// MTH as RFC 6962 section 2.1 writes it.
fn by_definition(leaves: &[TreeHash]) -> TreeHash {
    match leaves {
        [] => TreeHash::empty(),
        [leaf] => *leaf,
        _ => {
            let middle = usize::try_from(split(leaves.len() as u64)).expect("small");
            let (left, right) = leaves.split_at(middle);
            TreeHash::node(&by_definition(left), &by_definition(right))
        }
    }
}

fn frontier(leaves: &[TreeHash]) -> Frontier {
    let mut frontier = Frontier::default();
    leaves.iter().for_each(|leaf| frontier.push(*leaf));
    frontier
}

fn numbered(size: usize) -> Vec<TreeHash> {
    (0..size)
        .map(|number| TreeHash::leaf(&number.to_le_bytes()))
        .collect()
}

#[test]
fn the_reference_tree_has_its_roots_paths_and_proofs() {
    let leaves: Vec<TreeHash> = LEAVES
        .iter()
        .map(|text| TreeHash::leaf(&hex(text)))
        .collect();
    for (size, root) in ROOTS.iter().enumerate() {
        assert_eq!(frontier(&leaves[..size]).root(), hash(root), "{size}");
    }
    let root = |size: u64| hash(ROOTS[usize::try_from(size).expect("small")]);
    for (index, size, wanted) in PATHS {
        let path = hashes(&leaves, inclusion_ranges(index, size));
        let wanted: Vec<TreeHash> = wanted.iter().map(|text| hash(text)).collect();
        assert_eq!(path, wanted, "{index} of {size}");
        let leaf = &leaves[usize::try_from(index).expect("small")];
        assert_eq!(
            root_from_inclusion(leaf, index, size, &path),
            Some(root(size))
        );
    }
    for (old, new, wanted) in CONSISTENCY {
        let proof = hashes(&leaves, consistency_ranges(old, new));
        let wanted: Vec<TreeHash> = wanted.iter().map(|text| hash(text)).collect();
        assert_eq!(proof, wanted, "{old} to {new}");
        assert_eq!(
            roots_from_consistency(old, new, &root(old), &proof),
            Some((root(old), root(new)))
        );
    }
}

#[test]
fn every_index_and_size_up_to_70_is_proven() {
    let leaves = numbered(70);
    for size in 1..=leaves.len() {
        let root = by_definition(&leaves[..size]);
        let size = size as u64;
        for index in 0..size {
            let path = hashes(&leaves, inclusion_ranges(index, size));
            let leaf = &leaves[usize::try_from(index).expect("small")];
            assert_eq!(root_from_inclusion(leaf, index, size, &path), Some(root));
        }
        for old in 1..=size {
            let old_root = by_definition(&leaves[..usize::try_from(old).expect("small")]);
            let proof = hashes(&leaves, consistency_ranges(old, size));
            assert_eq!(
                roots_from_consistency(old, size, &old_root, &proof),
                Some((old_root, root)),
                "{old} to {size}"
            );
        }
    }
}

#[test]
fn a_hash_has_one_spelling() {
    let text = TreeHash::empty().to_string();
    assert_eq!(text.parse(), Ok(TreeHash::empty()));
    for other in [
        text.trim_end_matches('=').to_owned(),
        text.replace("FU=", "FV="),
        format!("{text}\n"),
        String::new(),
    ] {
        assert!(other.parse::<TreeHash>().is_err(), "{other}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_frontier_goes_on_from_what_was_kept_of_it(size in 0..600usize, cut in any::<prop::sample::Index>()) {
        let leaves = numbered(size);
        let cut = cut.index(size + 1);
        let kept = frontier(&leaves[..cut]);
        prop_assert_eq!(kept.root(), by_definition(&leaves[..cut]));
        let mut again = Frontier::from_parts(cut as u64, kept.roots().to_vec()).expect("fits");
        leaves[cut..].iter().for_each(|leaf| again.push(*leaf));
        prop_assert_eq!(again.root(), by_definition(&leaves));
    }

    #[test]
    fn a_proof_of_something_else_leads_elsewhere(
        size in 2..600u64,
        index in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        bit in 0..256usize,
    ) {
        let leaves = numbered(usize::try_from(size).expect("small"));
        let root = by_definition(&leaves);
        let index = index.index(leaves.len());
        let leaf = &leaves[index];
        let path = hashes(&leaves, inclusion_ranges(index as u64, size));
        prop_assert_eq!(root_from_inclusion(leaf, index as u64, size, &path), Some(root));

        let place = other.index(path.len());
        let mut changed = path.clone();
        changed[place].0[bit / 8] ^= 1 << (bit % 8);
        prop_assert_ne!(root_from_inclusion(leaf, index as u64, size, &changed), Some(root));
        prop_assert_ne!(root_from_inclusion(leaf, index as u64, size, &path[1..]), Some(root));
        let longer = [path.clone(), vec![root]].concat();
        prop_assert_ne!(root_from_inclusion(leaf, index as u64, size, &longer), Some(root));
        let elsewhere = other.index(leaves.len());
        if elsewhere != index {
            prop_assert_ne!(root_from_inclusion(leaf, elsewhere as u64, size, &path), Some(root));
        }
    }

    #[test]
    fn a_fork_has_no_proof(size in 2..300usize, old in any::<prop::sample::Index>(), changed in any::<prop::sample::Index>()) {
        let leaves = numbered(size);
        let old = 1 + old.index(size - 1);
        let mut forked = leaves.clone();
        forked[changed.index(old)] = TreeHash::leaf(b"forged");
        let old_root = by_definition(&leaves[..old]);
        let proof = hashes(&forked, consistency_ranges(old as u64, size as u64));
        let roots = roots_from_consistency(old as u64, size as u64, &old_root, &proof);
        prop_assert_ne!(roots, Some((old_root, by_definition(&forked))));
    }
}
