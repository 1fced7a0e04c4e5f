//! A forest for tests: two hierarchies, and groups with a process each.

use std::ffi::OsStr;

use pinfold_files::controllers;
use pinfold_model::{
    ControllerSet, Forest, Gid, GroupId, HierarchyFlags, HierarchyId, Moment, MountRequest, Name, Ownership,
    Seat, Settings, Uid,
};

use crate::open::placing;

/// Two hierarchies that have all controllers together.
pub(crate) struct Stage {
    pub(crate) forest: Forest,
    pub(crate) coarse: HierarchyId,
    pub(crate) fine: HierarchyId,
}

const OWNER: Ownership = Ownership { uid: Uid(0), gid: Gid(0), mode: 0o755 };

impl Stage {
    pub(crate) fn new(coarse: ControllerSet) -> Self {
        let mut forest = Forest::new(placing(controllers()));
        let mut mount = |controllers| {
            let flags = HierarchyFlags::default();
            let request = MountRequest { controllers, none: false, name: None, flags };
            let plan = forest.plan_mount(request).expect("nothing is bound");
            forest.commit_mount(plan, OWNER, Settings::NONE, Moment::default())
        };
        let (coarse, fine) = (mount(coarse), mount(controllers().difference(coarse)));
        Self { forest, coarse, fine }
    }

    pub(crate) fn group(&mut self, hierarchy: HierarchyId, path: &str) -> GroupId {
        let root = self.forest.hierarchy(hierarchy).expect("mounted").root();
        path.split('/').filter(|name| !name.is_empty()).fold(root, |at, name| {
            if let Some(found) = self.forest.group(at).expect("live").child(name.as_bytes()) {
                return found;
            }
            let plan = self.forest.plan_make(at, Name::new(OsStr::new(name)).expect("legal")).expect("new");
            let id = plan.id();
            self.forest.commit_make(plan, OWNER, Settings::NONE, Moment::default());
            id
        })
    }

    /// Puts a process into a group of each.
    pub(crate) fn put(&mut self, coarse: &str, fine: &str) {
        let (coarse, fine) = (self.group(self.coarse, coarse), self.group(self.fine, fine));
        if self.forest.group(coarse).is_some_and(|found| found.parent().is_none()) {
            self.attach(&Seat::Outside(b"/".as_slice().into()), fine);
            return;
        }
        let first = self.attach(&Seat::Outside(b"/".as_slice().into()), coarse);
        self.attach(&Seat::Cell(first), fine);
        let plan = self.forest.plan_retire(first).expect("it has moved on");
        self.forest.commit_retire(plan);
    }

    fn attach(&mut self, from: &Seat, group: GroupId) -> pinfold_model::CellId {
        let plan = self.forest.plan_attach(from, group).expect("live");
        let Some(Seat::Cell(cell)) = plan.to() else { panic!("no cell") };
        self.forest.commit_attach(plan);
        cell
    }

    /// A group `/a` of the coarse hierarchy: this many cells of its own, told apart by the fine one, and this many below it.
    pub(crate) fn native(coarse: ControllerSet, own: usize, below: usize) -> (Forest, GroupId) {
        let mut stage = Self::new(coarse);
        match own {
            1 => stage.put("/a", "/a"),
            own => (0..own).for_each(|at| stage.put("/a", &format!("/a/{at}"))),
        }
        (0..below).for_each(|at| stage.put(&format!("/a/{at}"), &format!("/a/{at}")));
        let a = stage.group(stage.coarse, "/a");
        let carriers = stage.forest.carriers(a).expect("live").into_dirs();
        assert_eq!(carriers.len(), usize::from(own + below > 0), "native");
        (stage.forest, a)
    }
}
