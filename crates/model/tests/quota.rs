//! How many groups there may be, how much may be kept with them, and of whom.

use pinfold_model::{
    ControllerSet, Errno, Forest, Gid, GroupId, GroupLimits, HierarchyFlags, HierarchyName, Moment,
    MountRequest, Name, Ownership, Placing, Settings, TooMany, TooMuch, Uid,
};

const LIMITS: GroupLimits = GroupLimits { per_user: 3, below: 4, depth: 5, attributes: 100 };

struct Stage {
    forest: Forest,
    root: GroupId,
}

fn stage() -> Stage {
    let mut forest = Forest::new(Placing::default());
    let request = MountRequest {
        controllers: ControllerSet::EMPTY,
        none: true,
        name: Some(HierarchyName::new("x").expect("a name")),
        flags: HierarchyFlags::default(),
    };
    let plan = forest.plan_mount(request).expect("nothing is mounted");
    let owner = Ownership { uid: Uid(0), gid: Gid(0), mode: 0o755 };
    let id = forest.commit_mount(plan, owner, Settings::NONE, Moment::default());
    let root = forest.hierarchy(id).expect("just made").root();
    Stage { forest, root }
}

impl Stage {
    fn may(&self, parent: GroupId, maker: u32) -> Result<(), TooMany> {
        self.forest.may_grow(parent, Uid(maker), |uid| uid == Uid(0), &LIMITS)
    }

    fn may_keep(&self, group: GroupId, more: u64) -> Result<(), TooMuch> {
        self.forest.may_keep(group, more, |uid| uid == Uid(0), &LIMITS)
    }

    fn make(&mut self, parent: GroupId, name: &str, maker: u32) -> GroupId {
        let plan = self.forest.plan_make(parent, Name::new(name.as_ref()).expect(name)).expect(name);
        let id = plan.id();
        let owner = Ownership { uid: Uid(maker), gid: Gid(maker), mode: 0o755 };
        self.forest.commit_make(plan, owner, Settings::NONE, Moment::default());
        id
    }

    fn give(&mut self, group: GroupId, uid: u32) {
        let owner = Ownership { uid: Uid(uid), gid: Gid(uid), mode: 0o755 };
        self.forest.group_mut(group).expect("it is there").set_ownership(owner, Moment::default());
    }

    fn remove(&mut self, group: GroupId) {
        let plan = self.forest.plan_remove(group).expect("it is empty");
        self.forest.commit_remove(plan, Moment::default());
    }
}

#[test]
fn a_user_has_so_many_groups_and_giving_them_away_makes_no_room() {
    let mut stage = stage();
    let root = stage.root;
    let first = stage.make(root, "a", 1);
    stage.make(root, "b", 1);
    assert_eq!(stage.may(root, 1), Ok(()));
    stage.make(root, "c", 1);
    let refused = stage.may(root, 1).unwrap_err();
    assert_eq!(refused, TooMany::OfUser { uid: Uid(1), most: 3 });
    assert_eq!(refused.errno(), Errno::EAGAIN);
    assert_eq!(stage.may(root, 2), Ok(()), "others are not held to that");
    stage.give(first, 2);
    assert_eq!(stage.may(root, 1), Err(refused));
    stage.forest.recount(|_| 0);
    assert_eq!(stage.may(root, 1), Err(refused), "and it is the same after a restart");
    stage.remove(first);
    assert_eq!(stage.may(root, 1), Ok(()));
}

#[test]
fn below_what_was_given_away_all_users_share_one_limit() {
    let mut stage = stage();
    let root = stage.root;
    let given = stage.make(root, "c", 0);
    stage.give(given, 100);
    let mut last = given;
    for (name, maker) in [("1", 100), ("2", 101), ("3", 102)] {
        last = stage.make(last, name, maker);
    }
    assert_eq!(stage.may(given, 103), Ok(()));
    let fourth = stage.make(given, "4", 104);
    let refused = TooMany::Below { group: given, most: 4 };
    assert_eq!(stage.may(given, 103), Err(refused));
    assert_eq!(stage.may(last, 103), Err(refused), "at any depth");
    assert_eq!(stage.may(root, 103), Ok(()), "elsewhere there is room");
    assert_eq!(stage.forest.group(given).unwrap().descendants(), 4);
    stage.forest.recount(|_| 0);
    assert_eq!(stage.forest.group(given).unwrap().descendants(), 4);
    stage.remove(fourth);
    assert_eq!(stage.may(last, 103), Ok(()));
}

#[test]
fn groups_lie_so_deep() {
    let mut stage = stage();
    let mut at = stage.root;
    for depth in 0..5 {
        assert_eq!(stage.may(at, 1), Ok(()), "{depth}");
        at = stage.make(at, "a", 0);
    }
    assert_eq!(stage.may(at, 1), Err(TooMany::Deep { most: 5 }));
}

#[test]
fn who_is_trusted_elsewhere_is_held_to_what_there_is_below_its_own_group() {
    let mut stage = stage();
    let root = stage.root;
    let own = stage.make(root, "c", 0);
    let mut at = own;
    for depth in 0..4 {
        assert_eq!(stage.forest.may_grow_within(own, at, &LIMITS), Ok(()), "{depth}");
        at = stage.make(at, "a", 0);
    }
    let deep = TooMany::Deep { most: 5 };
    assert_eq!(stage.forest.may_grow_within(own, at, &LIMITS), Err(deep));
    let many = TooMany::Below { group: own, most: 4 };
    assert_eq!(stage.forest.may_grow_within(own, own, &LIMITS), Err(many));
    let other = stage.make(root, "d", 0);
    assert_eq!(stage.forest.may_grow_within(other, other, &LIMITS), Ok(()), "others have room of their own");
}

#[test]
fn what_was_made_inside_gives_no_more_room() {
    let mut stage = stage();
    let root = stage.root;
    let own = stage.make(root, "c", 0);
    let inner: Vec<GroupId> = ["a", "b", "c", "d"].map(|name| stage.make(own, name, 0)).into();
    for group in &inner {
        stage.forest.group_mut(*group).unwrap().set_made_inside();
    }
    let many = TooMany::Below { group: own, most: 4 };
    // Into one of its own groups it may go, and make others there or beside it: they count where the host has put it.
    for (at, parent) in [(own, inner[0]), (inner[0], inner[0]), (inner[0], inner[1]), (inner[0], own)] {
        assert_eq!(stage.forest.may_grow_within(at, parent, &LIMITS), Err(many));
    }
    // A group that the host made there has room of its own for those that the host has put there.
    let given = stage.make(own, "given", 0);
    assert_eq!(stage.forest.may_grow_within(given, given, &LIMITS), Ok(()));
    assert_eq!(stage.forest.may_grow_within(inner[0], given, &LIMITS), Err(many));
}

#[test]
fn what_a_user_keeps_with_all_his_groups_is_bounded() {
    let mut stage = stage();
    let root = stage.root;
    let [one, other] = ["a", "b"].map(|name| stage.make(root, name, 1));
    stage.forest.count_attributes(one, 0, 60);
    stage.forest.count_attributes(other, 0, 30);
    assert_eq!(stage.may_keep(other, 10), Ok(()));
    let refused = stage.may_keep(other, 11).unwrap_err();
    assert_eq!(refused, TooMuch::OfUser { uid: Uid(1), bytes: 101, most: 100 });
    assert_eq!(refused.errno(), Errno::EDQUOT);
    assert_eq!(stage.may_keep(other, 0), Ok(()), "less is always taken");
    stage.give(one, 2);
    assert_eq!(stage.may_keep(other, 11), Err(refused), "giving away makes no room");
    stage.forest.recount(|group| if group.ownership().uid == Uid(2) { 60 } else { 30 });
    assert_eq!(stage.may_keep(other, 11), Err(refused), "it is the same after a restart");
    assert_eq!(stage.may_keep(root, 1000), Ok(()), "what is the host's counts for nobody");
    stage.remove(one);
    assert_eq!(stage.may_keep(other, 70), Ok(()));
    stage.forest.count_attributes(other, 30, 100);
    assert!(stage.may_keep(other, 1).is_err());
}

#[test]
fn what_all_users_keep_below_what_was_given_away_is_bounded() {
    let mut stage = stage();
    let root = stage.root;
    let given = stage.make(root, "c", 0);
    stage.give(given, 100);
    let [one, other] = [("a", 101), ("b", 102)].map(|(name, maker)| stage.make(given, name, maker));
    let inner = stage.make(one, "inner", 103);
    stage.forest.count_attributes(given, 0, 20);
    stage.forest.count_attributes(one, 0, 20);
    stage.forest.count_attributes(inner, 0, 50);
    for group in [given, one, other, inner] {
        assert_eq!(stage.may_keep(group, 10), Ok(()));
        let refused = TooMuch::Below { group: given, bytes: 101, most: 100 };
        assert_eq!(stage.may_keep(group, 11), Err(refused));
    }
    stage.remove(inner);
    assert_eq!(stage.may_keep(other, 60), Ok(()));
}

#[test]
fn what_root_of_a_container_with_the_hosts_users_keeps_counts_where_the_host_has_put_it() {
    let mut stage = stage();
    let root = stage.root;
    let own = stage.make(root, "c", 0);
    let inner = ["a", "b"].map(|name| stage.make(own, name, 0));
    for group in inner {
        stage.forest.group_mut(group).unwrap().set_made_inside();
        stage.forest.count_attributes(group, 0, 45);
    }
    assert_eq!(stage.may_keep(inner[0], 10), Ok(()));
    let refused = TooMuch::Below { group: own, bytes: 101, most: 100 };
    assert_eq!(stage.may_keep(inner[1], 11), Err(refused));
    let other = stage.make(root, "d", 0);
    assert_eq!(stage.may_keep(other, 11), Ok(()));
}
