//! Who makes which user namespace, and when: decided before anything is made.
//!
//! A namespace belongs to the user namespace that its maker was in, and nobody comes back out of a user namespace. So each has
//! a *keeper*: a process that will be in it, goes into it early, makes all that it owns, and holds what is not
//! its own until the others have fetched it. Keepers go in rounds, those of outer user namespaces first; everybody else goes
//! last, from where all may still be opened. A user namespace that no process is in any more is made by the keeper of the one in it,
//! on its way.
//!
//! Pid namespaces are not among these: a process whose number has to be chosen in an outer one is forked with the rights
//! of the restarting process, so they belong to its user namespace.

use std::collections::BTreeMap;

use super::RebuildError;
use super::dress::KINDS;
use crate::image::{Image, Living, USER, users};

/// What one keeper does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Keeper {
    /// The process: an index into [`Image::processes`].
    pub index: usize,
    /// The user namespaces that it makes, outer ones first; the last is its own.
    pub route: Vec<usize>,
    /// When, from 0 on.
    pub round: u32,
}

/// A namespace that a keeper makes and holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub kind: &'static str,
    pub flag: u32,
    pub number: usize,
    pub owner: usize,
}

/// The user namespaces of an image and what they own.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub keepers: Vec<Keeper>,
    pub kept: Vec<Kept>,
    /// For each user namespace by number, its place in `keepers`.
    by_namespace: BTreeMap<usize, usize>,
}

/// The number of a process's namespace of a kind.
pub(super) fn number(living: &Living, kind: &str) -> usize {
    living.namespaces.get(kind).copied().unwrap_or(0)
}

impl Plan {
    /// Errors: user namespaces that cannot be made again with their members and their owners as they were.
    pub(super) fn of(image: &Image) -> Result<Self, RebuildError> {
        if image.user_namespaces.is_empty() {
            return Ok(Self::default());
        }
        let mut plan = Self { kept: kept(image), ..Self::default() };
        // From the innermost out: who makes one that is empty is known from the one in it.
        let mut routes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for namespace in (1..=image.user_namespaces.len()).rev() {
            let members = members(image, namespace);
            let parent = parent(image, namespace);
            let route = routes.remove(&namespace);
            if members.is_empty() {
                let Some(mut route) = route else {
                    return refuse(
                        image,
                        None,
                        "a user namespace without processes owns one of its namespaces",
                    );
                };
                route.insert(0, namespace);
                plan.lead(image, &mut routes, parent, route)?;
            } else {
                plan.lead(image, &mut routes, parent, vec![namespace])?;
            }
        }
        plan.settle(image, routes)?;
        Ok(plan)
    }

    /// A route that starts with a child of `parent`: goes on outwards if nobody is in that.
    fn lead(
        &mut self,
        image: &Image,
        routes: &mut BTreeMap<usize, Vec<usize>>,
        parent: usize,
        route: Vec<usize>,
    ) -> Result<(), RebuildError> {
        if parent == 0 || !members(image, parent).is_empty() {
            let index = self.keeper(image, &route)?;
            self.keepers.push(Keeper { index, route, round: 0 });
            return Ok(());
        }
        let member = route.last().and_then(|&last| members(image, last).first().copied());
        match routes.insert(parent, route) {
            None => Ok(()),
            Some(_) => refuse(
                image,
                member,
                "its user namespace is nested in one without processes, and so is another: only one can be made on the way",
            ),
        }
    }

    /// Numbers the rounds, from the outermost in.
    fn settle(&mut self, image: &Image, left: BTreeMap<usize, Vec<usize>>) -> Result<(), RebuildError> {
        if !left.is_empty() {
            return refuse(image, None, "a user namespace without processes");
        }
        self.keepers.sort_by_key(|keeper| keeper.route[0]);
        for place in 0..self.keepers.len() {
            let parent = parent(image, self.keepers[place].route[0]);
            let around = self.by_namespace.get(&parent).map(|&outer| self.keepers[outer].round + 1);
            self.keepers[place].round = around.unwrap_or(0);
            for &namespace in &self.keepers[place].route {
                self.by_namespace.insert(namespace, place);
            }
        }
        Ok(())
    }

    /// Who of the members of the innermost one can go this way and end up in its own namespaces.
    fn keeper(&self, image: &Image, route: &[usize]) -> Result<usize, RebuildError> {
        let own = route.last().copied().unwrap_or(0);
        let members = members(image, own);
        let fits = |&&index: &&usize| {
            let Some(living) = &image.processes[index].living else { return false };
            self.comes_out_right(image, living, route) && has_numbers(image, living, own)
        };
        match members.iter().find(fits) {
            Some(&index) => Ok(index),
            None => refuse(
                image,
                members.first().copied(),
                "nobody in its user namespace can be the one that makes it: their ids have no numbers there, or they are in \
                 namespaces of others while it owns some of the same kind",
            ),
        }
    }

    /// Whoever makes a namespace of a kind on the way is in it afterwards, and cannot go back further out.
    fn comes_out_right(&self, image: &Image, living: &Living, route: &[usize]) -> bool {
        KINDS.iter().all(|&(kind, _)| {
            let owner = image.owner(kind, number(living, kind));
            let last = route.iter().rposition(|&on_way| self.makes(kind, on_way));
            let of_own = route.iter().position(|&on_way| on_way == owner);
            last.is_none_or(|last| of_own.is_some_and(|of_own| of_own >= last))
                && (owner == 0 || of_own.is_some() || image.is_around(owner, route[0]))
        })
    }

    fn makes(&self, kind: &str, owner: usize) -> bool {
        self.kept.iter().any(|kept| kept.kind == kind && kept.owner == owner)
    }

    /// The keeper of a user namespace.
    pub(super) fn keeper_of(&self, namespace: usize) -> Option<&Keeper> {
        self.by_namespace.get(&namespace).map(|&place| &self.keepers[place])
    }

    /// What a process does as a keeper, if it is one.
    pub(super) fn duty_of(&self, index: usize) -> Option<&Keeper> {
        self.keepers.iter().find(|keeper| keeper.index == index)
    }

    /// How many rounds there are.
    pub(super) fn rounds(&self) -> u32 {
        self.keepers.iter().map(|keeper| keeper.round + 1).max().unwrap_or(0)
    }

    /// The place of a kept namespace.
    pub(super) fn place(&self, kind: &str, number: usize) -> Option<usize> {
        self.kept.iter().position(|kept| kept.kind == kind && kept.number == number)
    }
}

fn refuse<T>(image: &Image, index: Option<usize>, what: &'static str) -> Result<T, RebuildError> {
    let pid = index.and_then(|index| image.processes[index].pids.first().copied()).unwrap_or(0);
    Err(RebuildError::Unsupported { pid, what })
}

/// The number of the user namespace around another.
pub(super) fn parent(image: &Image, namespace: usize) -> usize {
    image.user_namespace(namespace).map_or(0, |space| space.parent)
}

/// The living processes of a user namespace.
fn members(image: &Image, namespace: usize) -> Vec<usize> {
    let is_in = |index: &usize| {
        image.processes[*index].living.as_ref().is_some_and(|living| number(living, USER) == namespace)
    };
    (0..image.processes.len()).filter(is_in).collect()
}

/// Every namespace that somebody is in and a user namespace of the image owns.
fn kept(image: &Image) -> Vec<Kept> {
    let mut all: Vec<Kept> = Vec::new();
    for living in image.processes.iter().filter_map(|process| process.living.as_ref()) {
        for (kind, flag) in KINDS {
            let number = number(living, kind);
            let kept = Kept { kind, flag, number, owner: image.owner(kind, number) };
            if kept.owner != 0 && !all.contains(&kept) {
                all.push(kept);
            }
        }
    }
    all
}

/// Whether whoever made the namespace can become this one: it has the maker's user ids, or all of its own have numbers inside.
fn has_numbers(image: &Image, living: &Living, namespace: usize) -> bool {
    let Some(space) = image.user_namespace(namespace) else { return true };
    let uids = &living.credentials.uids;
    uids.iter().all(|&uid| uid == space.maker)
        || uids.iter().all(|&uid| users::inside(&space.uids, uid).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::capture_frozen;
    use crate::image::UserNamespace;
    use proptest::prelude::*;

    /// An image of processes in the user namespaces given, and in net namespaces given; `spaces`: parents of user namespaces.
    fn image(spaces: &[usize], net_owners: &[usize], processes: &[(usize, usize)]) -> Image {
        let mut image = capture_frozen(&[std::process::id()]).expect("a capture of this process");
        let like = image.processes[0].clone();
        let space = |&parent: &usize| UserNamespace {
            parent,
            maker: 0,
            uids: vec![[0, 0, 1000].into()],
            gids: vec![[0, 0, 1000].into()],
            setgroups: true,
        };
        image.user_namespaces = spaces.iter().map(space).collect();
        image.owners = BTreeMap::from([("net".to_owned(), net_owners.to_vec())]);
        image.processes.clear();
        for (place, &(user, net)) in processes.iter().enumerate() {
            let mut process = like.clone();
            process.pids = vec![100 + u32::try_from(place).expect("few")];
            let living = process.living.as_mut().expect("it lives");
            living.credentials.uids = [0; 3];
            living.namespaces.insert("user".to_owned(), user);
            living.namespaces.insert("net".to_owned(), net);
            image.processes.push(process);
        }
        image
    }

    fn routes(image: &Image) -> Vec<(usize, Vec<usize>, u32)> {
        let plan = Plan::of(image).expect("a plan");
        plan.keepers.into_iter().map(|keeper| (keeper.index, keeper.route, keeper.round)).collect()
    }

    #[test]
    fn without_user_namespaces_there_is_nothing_to_keep() {
        assert_eq!(Plan::of(&image(&[], &[], &[(0, 0)])).expect("a plan"), Plan::default());
    }

    #[test]
    fn outer_user_namespaces_are_made_in_earlier_rounds() {
        let nested = image(&[0, 1, 0], &[], &[(0, 0), (2, 0), (1, 0), (3, 0)]);
        assert_eq!(routes(&nested), [(2, vec![1], 0), (1, vec![2], 1), (3, vec![3], 0)]);
    }

    #[test]
    fn an_empty_one_is_made_on_the_way_to_the_one_in_it() {
        assert_eq!(routes(&image(&[0, 1], &[], &[(2, 0)])), [(0, vec![1, 2], 0)]);
        let twice = Plan::of(&image(&[0, 1, 1], &[], &[(2, 0), (3, 0)]));
        assert!(twice.expect_err("two in an empty one").to_string().contains("nested in one without"));
        let nobody = Plan::of(&image(&[0], &[1], &[(0, 1)]));
        assert!(nobody.expect_err("nobody in it").to_string().contains("without processes"));
    }

    /// The keeper makes the net namespace that its user namespace owns, so it must be the one that is in it.
    #[test]
    fn a_keeper_ends_up_in_its_own_namespaces() {
        let first_is_outside = image(&[0], &[0, 1], &[(1, 1), (1, 2)]);
        assert_eq!(routes(&first_is_outside), [(1, vec![1], 0)]);
        let nobody = Plan::of(&image(&[0], &[0, 1], &[(1, 1), (0, 2)]));
        assert!(nobody.expect_err("nobody can").to_string().contains("nobody in its user namespace"));
        let of_the_empty_one = image(&[0, 1], &[1], &[(2, 1)]);
        assert_eq!(routes(&of_the_empty_one), [(0, vec![1, 2], 0)]);
    }

    #[test]
    fn a_keeper_can_become_who_it_was() {
        let mut foreign = image(&[0], &[], &[(1, 0), (1, 0)]);
        let living = foreign.processes[0].living.as_mut().expect("it lives");
        living.credentials.uids = [5000, 5000, 5000];
        assert_eq!(routes(&foreign), [(1, vec![1], 0)], "5000 has no number in it");
        foreign.user_namespaces[0].maker = 5000;
        assert_eq!(routes(&foreign), [(0, vec![1], 0)], "it has made it itself");
    }

    proptest! {
        /// Whatever a file says: refused, or everybody finds a keeper who was there a round before.
        #[test]
        fn every_user_namespace_has_a_keeper(
            spaces in prop::collection::vec(0..6_usize, 0..6),
            nets in prop::collection::vec(0..7_usize, 0..5),
            processes in prop::collection::vec((0..7_usize, 0..6_usize), 1..12),
        ) {
            let count = spaces.len();
            let parents: Vec<usize> = spaces.iter().enumerate().map(|(place, parent)| parent % (place + 1)).collect();
            let nets: Vec<usize> = nets.into_iter().map(|owner| owner % (count + 1)).collect();
            let processes: Vec<(usize, usize)> =
                processes.into_iter().map(|(user, net)| (user % (count + 1), net % (nets.len() + 1))).collect();
            let image = image(&parents, &nets, &processes);
            let Ok(plan) = Plan::of(&image) else { return Ok(()) };
            for namespace in 1..=count {
                let keeper = plan.keeper_of(namespace).expect("one");
                let (first, last) = (keeper.route[0], keeper.route[keeper.route.len() - 1]);
                prop_assert_eq!(processes[keeper.index].0, last);
                let around = parents[first - 1];
                if around != 0 {
                    prop_assert!(plan.keeper_of(around).expect("one").round < keeper.round);
                }
            }
            for kept in &plan.kept {
                prop_assert!(plan.keeper_of(kept.owner).is_some());
            }
        }
    }
}
