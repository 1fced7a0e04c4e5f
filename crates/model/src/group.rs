//! A group: a node of a hierarchy, and what it remembers.

use std::collections::{BTreeMap, BTreeSet};

use crate::{CellId, Gid, GroupId, HierarchyId, Name, Ownership, Settings, SpineId, Uid};

/// Seconds and nanoseconds since 1970: a time that came in as a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Moment {
    /// Whole seconds.
    pub seconds: i64,
    /// And nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// Extended attributes, by full name (`user.owner`).
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Owner, mode and extended attributes of one control file, where they differ from those of a fresh one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileAttributes {
    /// Who owns the file and who may do what.
    pub ownership: Ownership,
    /// Its extended attributes.
    pub xattrs: Xattrs,
}

/// A node of a hierarchy.
#[doc(alias = "cgroup")]
#[derive(Debug)]
pub struct Group {
    pub(crate) hierarchy: HierarchyId,
    pub(crate) parent: Option<GroupId>,
    /// Empty for the root, which has no name.
    pub(crate) name: Option<Name>,
    pub(crate) children: BTreeMap<Name, GroupId>,
    /// Cells whose coordinate in this hierarchy is this group. Of the root: none, root is the absent coordinate.
    pub(crate) cells: BTreeSet<CellId>,
    /// How many cells are in this group or below it.
    pub(crate) below: u32,
    /// The groups right below that have cells, or groups with cells below them. Of very many children these may be few.
    pub(crate) inhabited: BTreeSet<GroupId>,
    /// The spine directory that holds nothing but cells of this group and those below it.
    pub(crate) spine: Option<SpineId>,
    /// The spine directories that it waits for.
    pub(crate) awaited: BTreeSet<SpineId>,
    /// How many groups are below it, at any depth.
    pub(crate) descendants: u32,
    /// How much room its extended attributes take, and those of all groups below it.
    pub(crate) attributes: u64,
    /// Plans that need this group to stay.
    pub(crate) pins: u32,
    /// Whether root of a container made it, whom only this tells from the host's.
    pub(crate) made_inside: bool,
    pub(crate) settings: Settings,
    pub(crate) ownership: Ownership,
    pub(crate) changed: Moment,
    /// What few groups have. Invariant: `None` rather than an empty one.
    pub(crate) extra: Option<Box<Extra>>,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Extra {
    pub(crate) xattrs: Xattrs,
    /// Who owns the control files, if the directory has been given to somebody else since.
    pub(crate) files_owner: Option<(Uid, Gid)>,
    /// By file: whatever number the caller of the model gives its rows.
    pub(crate) files: BTreeMap<u16, FileAttributes>,
}

impl Group {
    pub(crate) fn new(
        hierarchy: HierarchyId,
        parent: Option<GroupId>,
        name: Option<Name>,
        ownership: Ownership,
        changed: Moment,
    ) -> Self {
        Self {
            hierarchy,
            parent,
            name,
            children: BTreeMap::new(),
            cells: BTreeSet::new(),
            below: 0,
            inhabited: BTreeSet::new(),
            spine: None,
            awaited: BTreeSet::new(),
            descendants: 0,
            attributes: 0,
            pins: 0,
            made_inside: false,
            settings: Settings::NONE,
            ownership,
            changed,
            extra: None,
        }
    }

    /// The hierarchy it belongs to.
    pub fn hierarchy(&self) -> HierarchyId {
        self.hierarchy
    }

    /// The group above; `None` for the root.
    pub fn parent(&self) -> Option<GroupId> {
        self.parent
    }

    /// Its name in the parent; `None` for the root.
    pub fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    /// The groups right below, by name.
    pub fn children(&self) -> impl ExactSizeIterator<Item = (&Name, GroupId)> {
        self.children.iter().map(|(name, id)| (name, *id))
    }

    /// The child of this name.
    pub fn child(&self, name: &[u8]) -> Option<GroupId> {
        self.children.get(name).copied()
    }

    /// The cells that are exactly here (not below).
    pub fn cells(&self) -> impl ExactSizeIterator<Item = CellId> + '_ {
        self.cells.iter().copied()
    }

    /// How many groups are below it, at any depth.
    pub fn descendants(&self) -> u32 {
        self.descendants
    }

    /// Whether it was made by somebody in a container who has a number that is trusted elsewhere ([`Forest::may_grow_within`]).
    ///
    /// [`Forest::may_grow_within`]: crate::Forest::may_grow_within
    pub fn is_made_inside(&self) -> bool {
        self.made_inside
    }

    /// Says so of a group that was made just now.
    pub fn set_made_inside(&mut self) {
        self.made_inside = true;
    }

    /// Whether no cell is in a group below it.
    pub(crate) fn has_none_below(&self) -> bool {
        self.cells.len() == self.below as usize
    }

    /// How many cells are in this group or below it.
    pub fn cells_below(&self) -> u32 {
        self.below
    }

    /// The spine directory that holds nothing but cells of this group and those below it: maybe not all of them.
    pub fn spine(&self) -> Option<SpineId> {
        self.spine
    }

    /// What it keeps.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What it keeps, to change. A value counts from the moment it is here: persist first.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Who owns the directory.
    pub fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// Gives the directory another owner or mode. Its control files stay with whom they belong to.
    pub fn set_ownership(&mut self, ownership: Ownership, now: Moment) {
        let files = self.files_owner();
        self.ownership = ownership;
        self.changed = now;
        self.set_files_owner(files);
    }

    /// Who owns the control files that have no owner of their own: whoever made the group.
    pub fn files_owner(&self) -> (Uid, Gid) {
        let kept = self.extra.as_deref().and_then(|extra| extra.files_owner);
        kept.unwrap_or((self.ownership.uid, self.ownership.gid))
    }

    /// Says who owns the control files, where that is not the directory's owner.
    pub fn set_files_owner(&mut self, owner: (Uid, Gid)) {
        let differs = owner != (self.ownership.uid, self.ownership.gid);
        self.edit_extra(|extra| extra.files_owner = differs.then_some(owner));
    }

    /// When a child or an attribute last changed.
    pub fn changed(&self) -> Moment {
        self.changed
    }

    /// The directory's extended attributes.
    pub fn xattrs(&self) -> Option<&Xattrs> {
        self.extra.as_deref().map(|extra| &extra.xattrs)
    }

    /// Replaces the directory's extended attributes.
    pub fn set_xattrs(&mut self, xattrs: Xattrs) {
        self.edit_extra(|extra| extra.xattrs = xattrs);
    }

    /// Attributes of a control file, where they differ from a fresh one's.
    pub fn file_attributes(&self, file: u16) -> Option<&FileAttributes> {
        self.extra.as_deref()?.files.get(&file)
    }

    /// Every control file with attributes of its own.
    pub fn files_with_attributes(&self) -> impl Iterator<Item = (u16, &FileAttributes)> {
        self.extra.iter().flat_map(|extra| extra.files.iter().map(|(file, attributes)| (*file, attributes)))
    }

    /// Gives a control file attributes of its own.
    pub fn set_file_attributes(&mut self, file: u16, attributes: FileAttributes) {
        self.edit_extra(|extra| {
            extra.files.insert(file, attributes);
        });
    }

    fn edit_extra(&mut self, edit: impl FnOnce(&mut Extra)) {
        let mut extra = self.extra.take().unwrap_or_default();
        edit(&mut extra);
        self.extra = (*extra != Extra::default()).then_some(extra);
    }
}
