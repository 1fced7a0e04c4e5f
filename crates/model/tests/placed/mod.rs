//! What holds of a group's carriers, told by scanning everything.

use std::collections::BTreeSet;

use pinfold_model::{Carriers, CellId, Dir, Forest, GroupId};

/// The cells of a group and of those below it.
pub(crate) fn cells_within(forest: &Forest, group: GroupId) -> BTreeSet<CellId> {
    let all = forest.subtree(group).filter_map(|id| forest.group(id));
    all.flat_map(|found| found.cells().collect::<Vec<_>>()).collect()
}

pub(crate) fn carriers(forest: &Forest, group: GroupId) -> Vec<Dir> {
    forest.carriers(group).map_or(Vec::new(), Carriers::into_dirs)
}

/// The cells whose leaf is a directory or hangs below it.
fn cells_under(forest: &Forest, dir: &Dir) -> BTreeSet<CellId> {
    let under = |leaf: &Dir| leaf == dir || leaf.to_string().starts_with(&format!("{dir}/"));
    forest.cells().map(|(id, _)| id).filter(|id| forest.leaf(*id).is_some_and(|leaf| under(&leaf))).collect()
}

/// Carriers hold exactly the group's cells, each cell once, and each cell knows its carrier.
pub(crate) fn hold(forest: &Forest, group: GroupId) {
    let own = cells_within(forest, group);
    assert_eq!(forest.group(group).expect("listed").cells_below() as usize, own.len());
    let mut held = BTreeSet::new();
    let carriers = carriers(forest, group);
    for dir in &carriers {
        let under = cells_under(forest, dir);
        assert!(!under.is_empty(), "{dir} carries {group} and holds nothing");
        let leaves: BTreeSet<CellId> = forest.leaves_in(group, dir).iter().filter_map(Dir::leaf).collect();
        assert_eq!(leaves, under, "the leaves of {group} in {dir}");
        for cell in under {
            assert!(held.insert(cell), "two carriers of {group} hold {cell}");
            assert_eq!(forest.carrier_of(group, cell).as_ref(), Some(dir));
        }
    }
    let exactly: BTreeSet<CellId> = forest.group(group).expect("listed").cells().collect();
    let own_carriers = forest.own_carriers(group);
    let own_held: Vec<CellId> = own_carriers.iter().flat_map(|dir| cells_under(forest, dir)).collect();
    assert_eq!(own_held.len(), exactly.len(), "no cell of {group} twice in {own_carriers:?}");
    assert_eq!(own_held.into_iter().collect::<BTreeSet<_>>(), exactly, "{own_carriers:?} hold {group}'s own");
    assert_eq!(held, own, "the carriers of {group} ({carriers:?}) hold its cells and no other");
    if let Some(spine) = forest.group(group).and_then(|found| found.spine()) {
        let under = cells_under(forest, &forest.spine_dir(Some(spine)));
        assert!(under.is_subset(&own), "what {group} claims holds cells that are not its own");
        assert_eq!(carriers.len() == 1, under == own, "alone exactly if it holds them all");
    }
}

/// What a directory says it carries is what those groups say carries them.
pub(crate) fn directories_know_whom_they_carry(forest: &Forest) {
    let spines = forest.spines().map(|spine| forest.spine_dir(Some(spine)));
    let leaves = forest.cells().filter_map(|(id, _)| forest.leaf(id));
    for dir in spines.chain(leaves) {
        let said: BTreeSet<GroupId> = forest.carried(&dir).into_iter().collect();
        let mut expected = BTreeSet::new();
        for (_, hierarchy) in forest.hierarchies() {
            let below = forest.subtree(hierarchy.root()).filter(|id| *id != hierarchy.root());
            expected.extend(below.filter(|id| carriers(forest, *id).contains(&dir)));
        }
        assert_eq!(said, expected, "{dir}");
    }
}
