//! Opening a realm: the v2 tree, the state directory, and everything as it was (I8).

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use pinfold_events::{Source, SourceError};
use pinfold_files::{Carry, Needs};
use pinfold_kernel::pins::Pins;
use pinfold_kernel::{Step, Tree};
use pinfold_model::{
    CellId, Claim, ControllerId, ControllerSet, Dir, Forest, GroupId, GroupLimits, HierarchyName, KeptGroup,
    Key, MountRequest, Name, Placing, RestoreError, SpineId, Value,
};

use crate::affinity;
use crate::by_cpu::FollowedFigures;
use crate::carry::{Carrying, Extent};
use crate::changed::Watchers;
use crate::facts::facts;
use crate::guards::Attempt;
use crate::notices::Notices;
use crate::realm::Changes;
use crate::record::{self, CellRecord, Fate, FoldRecord, GroupRecord, Kept as Values};
use crate::register::Finders;
use crate::resets::Resets;
use crate::shares::Sharing;
use crate::state::{GroupPath, KeptDir, Records, State};
use crate::tracker::{Following, Tracker};
use crate::xattrs::weight_of;
use crate::{EffectError, OpenError, Realm, StateError};

/// The line of the mark that says that a daemon was about to take everything away.
pub(crate) const LEAVING: &str = "leaving\n";

/// How a source of process events is had.
pub type OpenSource<'a> = dyn Fn() -> Result<Source, SourceError> + 'a;

/// What a realm is opened with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Its name: one component of a path.
    pub name: String,
    /// Its state directory.
    pub state: PathBuf,
    /// The v2 directory below which it works; `None`: the top of the v2 tree, and every process is in its scope.
    pub base: Option<PathBuf>,
    /// Whether limits that would have to be divided over several v2 directories are refused (EBUSY).
    pub strict: bool,
    /// How many groups users may make who are neither root nor whom the daemon runs as, and what they keep with them.
    pub limits: GroupLimits,
}

impl Realm {
    /// Opens a realm, new or as a daemon that was killed has left it. Nobody else can open it meanwhile.
    pub fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        Self::open_with(config, None)
    }

    /// Opens a realm without a v2 tree (tracker `events`): who is where is learnt from a source of process events. It may be asked
    /// for a source twice.
    pub fn open_following(config: Config, source: &OpenSource<'_>) -> Result<Arc<Self>, OpenError> {
        Self::open_with(config, Some(source))
    }

    fn open_with(config: Config, source: Option<&OpenSource<'_>>) -> Result<Arc<Self>, OpenError> {
        let realm = Self::open_kept(config.clone(), source)?;
        let leaving = realm.state.mark()?.is_some_and(|mark| mark.contains(LEAVING));
        if !leaving {
            return Ok(Arc::new(realm));
        }
        tracing::info!("the last daemon was killed while it left: finishing that first");
        realm.down()?;
        drop(realm);
        Ok(Arc::new(Self::open_kept(config, source)?))
    }

    fn open_kept(config: Config, source: Option<&OpenSource<'_>>) -> Result<Self, OpenError> {
        let state = State::open(&config.state).map_err(|error| match error.is_locked() {
            true => OpenError::InUse { name: config.name.clone(), lock: config.state.join("lock") },
            false => error.into(),
        })?;
        let tracker = match source {
            None => {
                let tree = Tree::open(&Tree::discover()?, config.base.as_deref(), &config.name, &wanted())?;
                let watch = tree.watch()?;
                Tracker::cgroup2(tree, watch, &config.state).map_err(OpenError::Following)?
            }
            Some(source) => {
                let following = Following::open(source()?, &config.state);
                Tracker::Events(following.map_err(OpenError::Following)?)
            }
        };
        let enabled: ControllerSet =
            pinfold_files::controllers().iter().filter(|id| tracker.offers(*id)).collect();
        let forest = Mutex::new(Forest::new(placing(enabled)));
        let facts = facts(&tracker);
        let realm = Self {
            forgets_choices: !tracker.is_user_space() && affinity::are_forgotten(&facts.v2_files),
            facts,
            config,
            state,
            tracker,
            enabled,
            change: Mutex::default(),
            forest,
            lacking: Mutex::default(),
            pins: Pins::default(),
            resets: Resets::default(),
            followed: FollowedFigures::default(),
            is_removing: AtomicBool::new(false),
            watchers: Watchers::default(),
            attach_watchers: Watchers::default(),
            finders: Finders::default(),
            notices: Notices::new()?,
            releases: Arc::default(),
            sharing: Sharing::default(),
        };
        realm.tell_what_is_unaided();
        realm.recover()?;
        Ok(realm)
    }

    /// Brings back what the state directory keeps, in the order in which one thing refers to another.
    fn recover(&self) -> Result<(), OpenError> {
        let mut change = self.lock_change();
        self.check_mark()?;
        let mut kept = Kept::read(&self.state)?;
        kept.finish_shifts(&self.state)?;
        // A directory that stayed because somebody else uses it has a number, too.
        let dirs = self.tracker.dirs();
        let spines = dirs.iter().flat_map(Dir::spines).map(|id| id.get());
        let cells = dirs.iter().filter_map(Dir::leaf).map(CellId::get);
        let (last_cell, last_spine) =
            (cells.fold(kept.last_cell(), u32::max), spines.fold(kept.last_spine(), u32::max));
        self.lock_forest().reserve_numbers(kept.last_group(), last_cell, last_spine);
        for (label, root) in kept.hierarchies {
            self.recover_hierarchy(&mut change, &label, root)?;
        }
        let there: HashSet<Dir> = dirs.into_iter().collect();
        let is_leaving = |text: &str| !record::parse_fold(text).is_ok_and(|fold| fold.cell != Fate::Goes);
        let folding = kept.folds.iter().filter(|(_, text)| is_leaving(text)).map(|(number, _)| *number);
        let folding: HashSet<u32> = folding.collect();
        let spines = read_spines(&kept.spines);
        // A cell that was on its way out may not fit any more: another group claims the directory already that it left. It comes
        // after those that stay.
        let (leaving, staying): (Vec<_>, Vec<_>) =
            kept.cells.into_iter().partition(|(number, _)| folding.contains(number));
        for (number, text) in staying {
            self.recover_cell(number, &text, &spines, &there, false)?;
        }
        for (number, text) in leaving {
            self.recover_cell(number, &text, &spines, &there, true)?;
        }
        for (number, text) in kept.folds {
            self.recover_fold(&mut change, number, &text)?;
        }
        self.lock_forest().recount(weight_of);
        self.recover_spines(&kept.spines)?;
        self.recover_directories(&mut change)?;
        self.recover_descriptors(&mut change)?;
        self.forget_what_was_measured();
        drop(change);
        self.tracker.recovered();
        self.count_time();
        self.look_at_every_cell();
        Ok(())
    }

    /// Makes sure that the state directory belongs to this base.
    fn check_mark(&self) -> Result<(), OpenError> {
        let now = self.tracker.mark();
        let kept = self.state.mark()?.unwrap_or_default().replace(LEAVING, "");
        if kept.is_empty() {
            return Ok(self.state.set_mark(&now)?);
        }
        let nothing_kept =
            self.state.hierarchies()?.is_empty() && self.state.records(Records::Cells)?.is_empty();
        match kept == now {
            true => Ok(()),
            false if nothing_kept => Ok(self.state.set_mark(&now)?),
            false => Err(OpenError::OtherRealm { state: self.state.path().to_owned(), kept, now }),
        }
    }

    fn recover_hierarchy(&self, change: &mut Changes, label: &str, root: KeptTree) -> Result<(), OpenError> {
        let KeptTree { at, kept, record, children } = root;
        let Some((id, request)) = record.hierarchy.zip(request_of(label, &record)) else {
            tracing::warn!("hierarchy {label} is not understood and left alone");
            return Ok(());
        };
        let missing = request.controllers.difference(self.enabled);
        for controller in missing.iter().map(pinfold_files::controller) {
            tracing::warn!("hierarchy {label}: the kernel below no longer offers {}", controller.name);
        }
        let mut forest = self.lock_forest();
        let contradiction = |at: &GroupPath| {
            let at = self.state.path().join(at.as_path());
            move |source| OpenError::Contradiction { at, source }
        };
        let id =
            forest.restore_hierarchy(id, request, kept_group(&kept, &record)).map_err(contradiction(&at))?;
        restore_extras(&mut forest, id, &record);
        let mut stack: Vec<_> = children.into_iter().map(|(name, child)| (id, name, child)).collect();
        while let Some((parent, name, KeptTree { at, kept, record, children })) = stack.pop() {
            let kept = kept_group(&kept, &record);
            let id = forest.restore_group(parent, name, kept).map_err(contradiction(&at))?;
            restore_extras(&mut forest, id, &record);
            if record.id.is_some() {
                change.numbered.insert(id);
            }
            stack.extend(children.into_iter().map(|(name, child)| (id, name, child)));
        }
        Ok(())
    }

    /// A cell whose leaf is not there never had a process, or has gone but for its record.
    fn recover_cell(
        &self,
        number: u32,
        text: &str,
        spines: &HashMap<SpineId, Vec<GroupId>>,
        there: &HashSet<Dir>,
        folding: bool,
    ) -> Result<(), OpenError> {
        let Some(id) = CellId::new(number) else { return Ok(()) };
        let record = match record::parse_cell(text) {
            Ok(record) => record,
            Err(line) => {
                tracing::warn!("record of cell {number}: {line}");
                return Ok(());
            }
        };
        if !folding && !there.contains(&record.home.cell(id)) {
            return Ok(self.state.keep(Records::Cells, number, None)?);
        }
        match restore_cell(&mut self.lock_forest(), id, &record, spines) {
            Ok(()) => Ok(()),
            Err(RestoreError::NoGroup(_)) => Ok(self.state.keep(Records::Cells, number, None)?),
            Err(RestoreError::BadCell(_) | RestoreError::BadSpine(_)) if folding => Ok(()),
            Err(source) => {
                let at = self.state.path().join(format!("cells/{number}"));
                Err(OpenError::Contradiction { at, source })
            }
        }
    }

    /// Forgets spine directories that no cell hangs from.
    fn recover_spines(&self, kept: &[(u32, String)]) -> Result<(), OpenError> {
        let live: HashSet<u32> = {
            let mut forest = self.lock_forest();
            forest.drop_unused_spines();
            forest.spines().map(SpineId::get).collect()
        };
        for (number, _) in kept.iter().filter(|(number, _)| !live.contains(number)) {
            self.state.keep(Records::Spines, *number, None)?;
        }
        Ok(())
    }

    /// Finishes a fold that was begun, unless its leaf is in use again.
    fn recover_fold(&self, change: &mut Changes, number: u32, text: &str) -> Result<(), OpenError> {
        let Some(cell) = CellId::new(number) else { return Ok(()) };
        let fold = match record::parse_fold(text) {
            Ok(fold) => fold,
            Err(line) => {
                tracing::warn!("record of the counters of cell {number}: {line}");
                return Ok(());
            }
        };
        let is_back = self.lock_forest().cell(cell).is_some();
        if fold.cell == Fate::Comes && !is_back {
            self.forget_fold(cell); // nobody came to it, and all is as it was
            return Ok(());
        }
        if fold.cell != Fate::Goes {
            let values = match is_back {
                true => fold.values,
                false => no_less(&self.lock_forest(), fold),
            };
            for (group, values) in values {
                self.keep(group, &values).map_err(effect)?;
                crate::write::set_values(&mut self.lock_forest(), group, values);
                // Who was left may not have been told of.
                self.release_if_idle(group);
            }
            self.forget_fold(cell);
            return Ok(());
        }
        let leaf = fold.dirs.first();
        if leaf.is_some_and(|leaf| self.tracker.events(leaf).is_ok_and(|events| events.populated)) {
            self.forget_fold(cell);
            return Ok(());
        }
        for dir in &fold.dirs {
            if let Err(error) = self.tracker.carry_out(&[Step::Remove(dir.clone())]) {
                tracing::warn!("{dir} stays, somebody else uses it: {error}");
            }
        }
        for (group, values) in fold.values {
            self.keep(group, &values).map_err(effect)?;
            crate::write::set_values(&mut self.lock_forest(), group, values);
        }
        // The cell itself goes with its directory: it counts nothing any more. Its agents may hear of it twice, but not
        // never. What it leaves is claimed as the record says: the same plan comes out as then.
        let was_made = |claim: &Claim| {
            let of_spine = fold.claims.iter().find(|(spine, _)| *spine == claim.spine);
            of_spine.is_some_and(|(_, claims)| claims.contains(&claim.group))
        };
        let plan = self.lock_forest().plan_retire_if(cell, was_made);
        if let Some(plan) = plan {
            for (spine, claims) in &fold.claims {
                self.state.keep(Records::Spines, spine.get(), Some(&record::spine_text(claims)))?;
            }
            let groups = self.lock_forest().commit_retire(plan);
            groups.into_iter().for_each(|group| self.release_if_idle(group));
        }
        change.unkept.retain(|(other, _)| *other != cell);
        self.state.keep(Records::Cells, number, None)?;
        self.forget_fold(cell);
        Ok(())
    }

    /// Watches every leaf, puts every value in force again, and removes directories that belong to nothing.
    fn recover_directories(&self, change: &mut Changes) -> Result<(), OpenError> {
        let (leaves, spines, groups) = {
            let forest = self.lock_forest();
            let leaves: Vec<_> = forest.cells().filter_map(|(id, _)| Some((id, forest.leaf(id)?))).collect();
            let spines: Vec<Dir> = forest.spines().map(|spine| forest.spine_dir(Some(spine))).collect();
            let roots = forest.hierarchies().map(|(_, found)| found.root());
            let groups: Vec<GroupId> = roots.flat_map(|root| forest.subtree(root)).collect();
            (leaves, spines, groups)
        };
        let dirs = self.tracker.dirs(); // those below before those above: as they can be removed
        let there: HashSet<&Dir> = dirs.iter().collect();
        let wanted: HashSet<&Dir> = spines.iter().chain(leaves.iter().map(|(_, leaf)| leaf)).collect();
        for dir in dirs.iter().filter(|dir| !wanted.contains(dir)) {
            if let Err(error) = self.tracker.carry_out(&[Step::Remove(dir.clone())]) {
                tracing::warn!("{dir} belongs to no cell and stays: {error}");
            }
        }
        for (cell, leaf) in leaves.iter().filter(|(_, leaf)| there.contains(leaf)) {
            self.tracker.watch(leaf, *cell)?;
        }
        // Who may not attach programs leaves those that are there: they go on being asked. A setting whose file the kernel
        // below has not got was never in force.
        let needs_program = |id: ControllerId| pinfold_files::controller(id).needs == Needs::Program;
        let programs = self.enabled.iter().any(needs_program);
        let divided = {
            let forest = self.lock_forest();
            Carrying { forest: &forest, shares: &change.shares, assigned: &[] }
                .divided(groups.iter().copied())
        };
        self.tell_what_is_not_native(&groups, &divided);
        let plan = |attempt: &mut Attempt| {
            let shares = self.divide_again(change, &groups, &divided, attempt)?;
            let forest = self.lock_forest();
            let carrying = Carrying { forest: &forest, shares: &shares, assigned: &[] };
            // Spine directories first, outer ones before inner ones: one that has taken a limit over has it before those that had
            // parts of it lose them.
            let is_leaf: HashSet<&Dir> = leaves.iter().map(|(_, leaf)| leaf).collect();
            let wanted = dirs.iter().rev().filter(|dir| wanted.contains(dir));
            let (last, first): (Vec<&Dir>, Vec<&Dir>) = wanted.partition(|dir| is_leaf.contains(dir));
            let steps =
                first.into_iter().chain(last).flat_map(|dir| carrying.steps_for_dir(dir, None, Extent::All));
            let may = |step: &Step| programs || !matches!(step, Step::Program { .. });
            let steps = steps.filter(|step| may(step) && self.has_file_of(step)).collect();
            drop(forest);
            Ok((shares, steps))
        };
        let prepared = match self.prepare(&divided, plan) {
            // There is nothing to go back to: the limit comes first.
            Err(EffectError::InUse { .. }) => plan(&mut Attempt::default())
                .and_then(|(shares, steps)| Ok((shares, self.lowered_first(steps, &divided)?))),
            prepared => prepared,
        };
        let (shares, steps) = prepared.map_err(effect)?;
        self.tracker.carry_out(&steps)?;
        self.keep_shares(change, shares);
        self.start_kept_peaks_again(&groups);
        Ok(())
    }
}

/// Who claims which spine directory, by their records.
fn read_spines(kept: &[(u32, String)]) -> HashMap<SpineId, Vec<GroupId>> {
    let read = |(number, text): &(u32, String)| match record::parse_spine(text) {
        Ok(claims) => Some((SpineId::new(*number)?, claims)),
        Err(line) => {
            tracing::warn!("record of spine directory {number}: {line}");
            None
        }
    };
    kept.iter().filter_map(read).collect()
}

/// What groups keep of a shift whose cell did not come back: its leaf went with its figures, unseen. Who lost it has all that it
/// counted for them; who gained it keeps what it kept before, rather than less by figures that nobody has any more.
fn no_less(forest: &Forest, fold: FoldRecord) -> Vec<(GroupId, Values)> {
    // What a spine directory counts is still there, if the directory is.
    let gains_spine = |group: GroupId| {
        let claims = fold.claims.iter().filter(|(spine, _)| !forest.claims(*spine).is_empty());
        claims
            .flat_map(|(_, claims)| claims)
            .any(|claim| *claim == group || forest.ancestors(*claim).any(|above| above == group))
    };
    let of_group = |(group, values): &(GroupId, Values)| {
        let settings = forest.group(*group).map(|found| found.settings());
        let value = |(key, then): &(Key, Option<Value>)| {
            let kept = settings.and_then(|settings| settings.get(*key));
            let value = match pinfold_files::counter_by_key(key.0) {
                Some(counter) if !gains_spine(*group) => counter.greater(kept, then.as_ref()),
                _ => then.clone(),
            };
            (*key, value)
        };
        (*group, values.iter().map(value).collect())
    };
    fold.values.iter().map(of_group).collect()
}

/// Puts a cell back, and before it the spine directories that it hangs from.
fn restore_cell(
    forest: &mut Forest,
    id: CellId,
    record: &CellRecord,
    spines: &HashMap<SpineId, Vec<GroupId>>,
) -> Result<(), RestoreError> {
    let mut above = None;
    for spine in record.home.spines() {
        if forest.claims(*spine).is_empty() {
            let claims = spines.get(spine).cloned().unwrap_or_default();
            forest.restore_spine(*spine, above, claims)?;
        }
        above = Some(*spine);
    }
    if forest.spine_dir(above) != record.home {
        return Err(RestoreError::BadCell(id));
    }
    forest.restore_cell(id, above, &record.groups, &record.origin)
}

/// All that a state directory keeps, read before anything is put back: numbers that nothing kept must not be given out.
struct Kept {
    hierarchies: Vec<(String, KeptTree)>,
    cells: Vec<(u32, String)>,
    spines: Vec<(u32, String)>,
    folds: Vec<(u32, String)>,
}

fn replace(records: &mut [(u32, String)], number: u32, text: String) {
    if let Some((_, kept)) = records.iter_mut().find(|(other, _)| *other == number) {
        *kept = text;
    }
}

/// A group's directory and those below it.
struct KeptTree {
    at: GroupPath,
    kept: KeptDir,
    record: GroupRecord,
    children: Vec<(Name, KeptTree)>,
}

impl Kept {
    fn read(state: &State) -> Result<Self, OpenError> {
        let mut hierarchies = Vec::new();
        for label in state.hierarchies()? {
            let root = KeptTree::read(state, GroupPath::root(&label))?;
            hierarchies.push((label, root));
        }
        let [cells, spines, folds] = [Records::Cells, Records::Spines, Records::Folds];
        Ok(Self {
            hierarchies,
            cells: state.records(cells)?,
            spines: state.records(spines)?,
            folds: state.records(folds)?,
        })
    }

    /// Cells that were about to have other groups have them, and so have the spine directories that those claim. Those that
    /// were about to be made have theirs already.
    fn finish_shifts(&mut self, state: &State) -> Result<(), OpenError> {
        let folds = self.folds.iter().filter_map(|(number, text)| {
            let fold = record::parse_fold(text).ok()?;
            let Fate::Shifts(cell) = fold.cell else { return None };
            Some((*number, cell, fold.claims))
        });
        for (number, cell, claims) in folds {
            state.keep(Records::Cells, number, Some(&cell))?;
            replace(&mut self.cells, number, cell);
            for (spine, claims) in claims {
                let text = record::spine_text(&claims);
                state.keep(Records::Spines, spine.get(), Some(&text))?;
                replace(&mut self.spines, spine.get(), text);
            }
        }
        Ok(())
    }

    fn last_group(&self) -> u32 {
        let mut last = 0;
        let mut stack: Vec<&KeptTree> = self.hierarchies.iter().map(|(_, root)| root).collect();
        while let Some(tree) = stack.pop() {
            last = last.max(tree.record.id.map_or(0, GroupId::get));
            stack.extend(tree.children.iter().map(|(_, child)| child));
        }
        let cells = self.cells.iter().filter_map(|(_, text)| record::parse_cell(text).ok());
        let of_cells = cells.flat_map(|cell| cell.groups).map(GroupId::get);
        let folds = self.folds.iter().filter_map(|(_, text)| record::parse_fold(text).ok());
        let of_folds = folds.flat_map(|fold| fold.values).map(|(group, _)| group.get());
        of_cells.chain(of_folds).fold(last, u32::max)
    }

    fn last_spine(&self) -> u32 {
        let of_cells = self.cells.iter().filter_map(|(_, text)| record::parse_cell(text).ok());
        let of_cells =
            of_cells.flat_map(|cell| cell.home.spines().iter().map(|id| id.get()).collect::<Vec<_>>());
        self.spines.iter().map(|(number, _)| *number).chain(of_cells).max().unwrap_or(0)
    }

    fn last_cell(&self) -> u32 {
        self.cells.iter().chain(&self.folds).map(|(number, _)| *number).max().unwrap_or(0)
    }
}

impl KeptTree {
    /// Reads a tree without recursion: a tenant decides how deep it is. A group that cannot be read (its path has become
    /// too long) is left out with all below it; it must not keep the others from coming back.
    fn read(state: &State, at: GroupPath) -> Result<Self, OpenError> {
        let mut done: Vec<(Option<usize>, Name, KeptTree)> = Vec::new();
        let (mut root, names) = Self::read_one(state, at)?;
        let mut waiting: Vec<(Option<usize>, GroupPath, Name)> =
            names.into_iter().map(|name| (None, root.at.child(&name), name)).collect();
        while let Some((parent, at, name)) = waiting.pop() {
            let (tree, names) = match Self::read_one(state, at) {
                Ok(read) => read,
                Err(error) => {
                    tracing::error!("a group cannot be brought back: {error}");
                    continue;
                }
            };
            waiting.extend(names.into_iter().map(|name| (Some(done.len()), tree.at.child(&name), name)));
            done.push((parent, name, tree));
        }
        // Children come after their parents: from the end, each is complete when it is handed up.
        while let Some((parent, name, tree)) = done.pop() {
            let above = match parent {
                Some(parent) => &mut done[parent].2,
                None => &mut root,
            };
            above.children.push((name, tree));
        }
        Ok(root)
    }

    fn read_one(state: &State, at: GroupPath) -> Result<(Self, Vec<Name>), StateError> {
        let mut kept = state.read_group(&at)?;
        let (record, bad) = record::parse_group(&kept.settings);
        for line in bad {
            tracing::warn!("{}: {line}", state.path().join(at.as_path()).display());
        }
        let names = std::mem::take(&mut kept.children);
        Ok((Self { at, kept, record, children: Vec::new() }, names))
    }
}

fn effect(error: crate::EffectError) -> OpenError {
    OpenError::Effect(error)
}

fn kept_group(kept: &KeptDir, record: &GroupRecord) -> KeptGroup {
    KeptGroup {
        id: record.id,
        ownership: kept.ownership,
        settings: record.settings.clone(),
        changed: kept.changed,
    }
}

fn restore_extras(forest: &mut Forest, group: GroupId, record: &GroupRecord) {
    let Some(found) = forest.group_mut(group) else { return };
    if let Some(owner) = record.files_owner {
        found.set_files_owner(owner);
    }
    if record.made_inside {
        found.set_made_inside();
    }
    found.set_xattrs(record.xattrs.clone());
    for (file, attributes) in &record.files {
        found.set_file_attributes(file.get(), attributes.clone());
    }
}

/// What a hierarchy was made from, out of its label. `None` for a label of another kind.
fn request_of(label: &str, record: &GroupRecord) -> Option<MountRequest> {
    let mut request =
        MountRequest { controllers: ControllerSet::EMPTY, none: false, name: None, flags: record.flags };
    for word in label.split(',') {
        match word.strip_prefix("name=") {
            Some(name) => request.name = Some(HierarchyName::new(name).ok()?),
            None => request.controllers = request.controllers.with(pinfold_files::controller_named(word)?),
        }
    }
    request.none = request.controllers.is_empty();
    Some(request)
}

/// The v2 controllers that any v1 controller could use.
fn wanted() -> Vec<&'static str> {
    let needs = pinfold_files::controllers().iter().map(|id| pinfold_files::controller(id).needs);
    needs
        .filter_map(|needs| match needs {
            Needs::Controller(name) => Some(name),
            Needs::Tree | Needs::Program | Needs::ResourceLimits => None,
        })
        .collect()
}

/// The controllers, of these, that decide where leaves hang.
pub(crate) fn placing(enabled: ControllerSet) -> Placing {
    let some = |wanted: fn(&Carry) -> bool| {
        let is_wanted = |id: &ControllerId| {
            let files = pinfold_files::controller(*id).files.iter();
            files.filter_map(|file| file.setting).any(|setting| wanted(&setting.carry))
        };
        enabled.iter().filter(is_wanted).collect::<ControllerSet>()
    };
    Placing {
        limiting: some(|carry| matches!(carry, Carry::Limit(_) | Carry::Entries(_))),
        first: some(
            |carry| matches!(carry, Carry::Limit(files) if files.iter().any(|file| file.room.is_some())),
        ),
    }
}
