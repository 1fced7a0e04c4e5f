//! The small text files of the state directory: one `key=value` a line, bytes escaped as `files` does.
//!
//! ```text
//! id=12                        settings of a group: its number, if something refers to it
//! pids.max=10                  a setting or counter, as files::print_setting() has it
//! files_owner=1000:1000        who owns the control files, if not the directory's owner
//! made=inside                  root of a container made it
//! xattr=user.note=text         an extended attribute of the directory
//! file=tasks 0:0 644           owner and mode of a control file
//! file_xattr=tasks user.a=b    an extended attribute of a control file
//! hierarchy=3                  a root group's file says this too, and how the hierarchy was mounted:
//! flags=noprefix,xattr
//! ```

use std::fmt::Write;

use pinfold_files::FileId;
use pinfold_model::{
    Cell, DescriptorLimit, Dir, FileAttributes, Forest, Gid, Group, GroupId, HierarchyFlags, HierarchyId,
    Key, Ownership, Settings, SpineId, Uid, Value, Xattrs,
};

/// A group's settings file, as it is or with something that the forest does not have yet.
pub(crate) struct GroupText<'a> {
    /// Its number.
    pub(crate) id: GroupId,
    /// The rest of it.
    pub(crate) group: &'a Group,
    /// Of a root group: its hierarchy and how that was mounted.
    pub(crate) hierarchy: Option<(HierarchyId, HierarchyFlags)>,
    /// What the group keeps.
    pub(crate) settings: &'a Settings,
    /// Who owns the directory; `None` while that changes: then the files' owner is always written down.
    pub(crate) owner: Option<(Uid, Gid)>,
    /// Extended attributes of the directory.
    pub(crate) xattrs: Option<&'a Xattrs>,
    /// One control file that differs from what the forest has.
    pub(crate) file: Option<(FileId, &'a FileAttributes)>,
}

/// The settings file of a group that is being made.
pub(crate) fn new_group_text(id: GroupId, settings: &Settings, made_inside: bool) -> String {
    if settings.is_empty() && !made_inside {
        return String::new();
    }
    format!("id={id}\n{}{}", pinfold_files::print_settings(settings), made_line(made_inside))
}

const fn made_line(made_inside: bool) -> &'static str {
    if made_inside { "made=inside\n" } else { "" }
}

/// The settings file of the root group of a hierarchy that is being made.
pub(crate) fn hierarchy_text(
    id: HierarchyId,
    root: GroupId,
    flags: HierarchyFlags,
    settings: &Settings,
) -> String {
    format!("{}id={root}\n{}", hierarchy_lines(id, flags), pinfold_files::print_settings(settings))
}

fn hierarchy_lines(id: HierarchyId, mut flags: HierarchyFlags) -> String {
    let words: Vec<_> = FLAGS.iter().filter(|(flag, _)| *flag(&mut flags)).map(|(_, word)| *word).collect();
    format!("hierarchy={id}\nflags={}\n", words.join(","))
}

/// The record of a cell.
pub(crate) fn cell_text(forest: &Forest, cell: &Cell) -> String {
    let origin = forest.origin_path(cell.origin()).unwrap_or(b"/");
    let home = forest.spine_dir(cell.home());
    let text = format!("origin={}\nhome={home}\n", pinfold_files::print_bytes(origin));
    text + &group_lines(cell.groups())
}

/// The record of a spine directory: the groups that it holds nothing but cells of.
pub(crate) fn spine_text(claims: &[GroupId]) -> String {
    group_lines(claims)
}

fn group_lines(groups: &[GroupId]) -> String {
    groups.iter().map(|group| format!("group={group}\n")).collect()
}

/// Values that a group will keep; `None` stands for the initial one.
pub(crate) type Kept = Vec<(Key, Option<Value>)>;

/// What becomes of the cell of a fold.
#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) enum Fate {
    /// It goes.
    #[default]
    Goes,
    /// It is about to be made. Without its leaf nobody has come to it, and all is as it was.
    Comes,
    /// It has other groups then: its record says so.
    Shifts(String),
}

/// Counters on their way from directories that go, or that others are carried by then, into groups: final values.
#[derive(PartialEq, Debug)]
pub(crate) struct FoldRecord {
    /// What becomes of the cell.
    pub(crate) cell: Fate,
    /// The directories that go, leaf first.
    pub(crate) dirs: Vec<Dir>,
    /// What each group keeps then; each group once.
    pub(crate) values: Vec<(GroupId, Kept)>,
    /// Who claims spine directories then: the directory and all that claim it.
    pub(crate) claims: Vec<(SpineId, Vec<GroupId>)>,
    /// Whether the groups' settings files have these values: then the record is not needed any more.
    pub(crate) kept: bool,
}

impl Default for FoldRecord {
    fn default() -> Self {
        Self { cell: Fate::Goes, dirs: Vec::new(), values: Vec::new(), claims: Vec::new(), kept: true }
    }
}

/// The record of a fold.
pub(crate) fn fold_text(fold: &FoldRecord) -> String {
    let mut text = String::new();
    match &fold.cell {
        Fate::Goes => {}
        Fate::Comes => writeln!(text, "{COMES}").expect(INFALLIBLE),
        Fate::Shifts(cell) => {
            writeln!(text, "cell={}", pinfold_files::print_bytes(cell.as_bytes())).expect(INFALLIBLE);
        }
    }
    for dir in &fold.dirs {
        writeln!(text, "dir={dir}").expect(INFALLIBLE);
    }
    for (spine, claims) in &fold.claims {
        writeln!(text, "claims={spine} {}", id_list(claims)).expect(INFALLIBLE);
    }
    for (group, values) in &fold.values {
        writeln!(text, "group={group}").expect(INFALLIBLE);
        for (key, value) in values {
            match value {
                Some(value) => {
                    writeln!(text, "{}", pinfold_files::print_setting(*key, value)).expect(INFALLIBLE)
                }
                None => writeln!(text, "initial={}", key.0).expect(INFALLIBLE),
            }
        }
    }
    text
}

/// A line that is not understood. It is told and left out; everything else is used.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{0:?} is not understood")]
pub(crate) struct BadLine(String);

/// What a group's settings file says.
#[derive(Default, Debug, PartialEq)]
pub(crate) struct GroupRecord {
    pub(crate) id: Option<GroupId>,
    pub(crate) settings: Settings,
    pub(crate) files_owner: Option<(Uid, Gid)>,
    pub(crate) made_inside: bool,
    pub(crate) xattrs: Xattrs,
    pub(crate) files: Vec<(FileId, FileAttributes)>,
    pub(crate) hierarchy: Option<HierarchyId>,
    pub(crate) flags: HierarchyFlags,
}

/// Reads a settings file. Lines that are not understood are returned beside it.
pub(crate) fn parse_group(text: &str) -> (GroupRecord, Vec<BadLine>) {
    let mut record = GroupRecord::default();
    let bad = text.lines().filter(|line| record.take(line).is_none());
    let bad = bad.map(|line| BadLine(line.to_owned())).collect();
    (record, bad)
}

/// The limit that a process has by itself while a group limits it.
#[derive(PartialEq, Debug)]
pub(crate) struct DescriptorRecord {
    /// In which life of the machine: in another, the number is another process's.
    pub(crate) numbering: String,
    /// When the process started.
    pub(crate) started: u64,
    /// Its own limit.
    pub(crate) own: DescriptorLimit,
}

/// The record of a process's own limit.
pub(crate) fn descriptor_text(record: &DescriptorRecord) -> String {
    let DescriptorRecord { numbering, started, own } = record;
    format!("numbering={numbering}\nstarted={started}\nsoft={}\nhard={}\n", own.soft, own.hard)
}

/// Reads the record of a process's own limit.
pub(crate) fn parse_descriptors(text: &str) -> Result<DescriptorRecord, BadLine> {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.ok_or_else(|| BadLine(format!("no {key}")))
    };
    let number = |key: &str| value(key)?.parse().map_err(|_| BadLine(format!("{key} is no number")));
    Ok(DescriptorRecord {
        numbering: value("numbering")?.to_owned(),
        started: number("started")?,
        own: DescriptorLimit { soft: number("soft")?, hard: number("hard")? },
    })
}

/// What a cell's record says.
#[derive(PartialEq, Debug)]
pub(crate) struct CellRecord {
    /// Where its processes came from.
    pub(crate) origin: Vec<u8>,
    /// The directory that its leaf hangs from.
    pub(crate) home: Dir,
    /// Its groups.
    pub(crate) groups: Vec<GroupId>,
}

/// Reads the record of a cell.
pub(crate) fn parse_cell(text: &str) -> Result<CellRecord, BadLine> {
    let mut record = CellRecord { origin: b"/".to_vec(), home: Dir::REALM, groups: Vec::new() };
    for line in text.lines() {
        let bad = || BadLine(line.to_owned());
        match line.split_once('=').ok_or_else(bad)? {
            ("origin", path) => record.origin = pinfold_files::parse_bytes(path).ok_or_else(bad)?,
            ("home", dir) => {
                let home = Dir::parse(dir.as_bytes()).filter(|dir| dir.leaf().is_none());
                record.home = home.ok_or_else(bad)?;
            }
            ("group", id) => record.groups.push(parse_group_id(id).ok_or_else(bad)?),
            _ => return Err(bad()),
        }
    }
    Ok(record)
}

/// Reads the record of a spine directory: the groups that claim it.
pub(crate) fn parse_spine(text: &str) -> Result<Vec<GroupId>, BadLine> {
    let claim = |line: &str| line.strip_prefix("group=").and_then(parse_group_id);
    text.lines().map(|line| claim(line).ok_or_else(|| BadLine(line.to_owned()))).collect()
}

/// What a fold's record says.
pub(crate) fn parse_fold(text: &str) -> Result<FoldRecord, BadLine> {
    let mut fold = FoldRecord::default();
    for line in text.lines() {
        let bad = || BadLine(line.to_owned());
        if line == COMES {
            fold.cell = Fate::Comes;
            continue;
        }
        match line.split_once('=').ok_or_else(bad)? {
            ("cell", cell) => {
                let cell = pinfold_files::parse_bytes(cell).ok_or_else(bad)?;
                fold.cell = Fate::Shifts(String::from_utf8(cell).map_err(|_| bad())?);
            }
            ("dir", dir) => fold.dirs.push(Dir::parse(dir.as_bytes()).ok_or_else(bad)?),
            ("claims", claims) => fold.claims.push(parse_claims(claims).ok_or_else(bad)?),
            ("group", id) => fold.values.push((parse_group_id(id).ok_or_else(bad)?, Vec::new())),
            ("initial", key) => {
                let counter = pinfold_files::counter_by_key(key).ok_or_else(bad)?;
                fold.values.last_mut().ok_or_else(bad)?.1.push((counter.key, None));
            }
            _ => {
                let (key, value) = pinfold_files::parse_setting(line).map_err(|_| bad())?;
                fold.values.last_mut().ok_or_else(bad)?.1.push((key, Some(value)));
            }
        }
    }
    Ok(fold)
}

/// The line of a fold whose cell is about to be made.
const COMES: &str = "comes";

const INFALLIBLE: &str = "writing to a string cannot fail";

/// A flag of a hierarchy, and its word in the state directory.
type Flag = (fn(&mut HierarchyFlags) -> &mut bool, &'static str);

const FLAGS: &[Flag] = &[
    (|flags| &mut flags.noprefix, "noprefix"),
    (|flags| &mut flags.cpuset_v2_mode, "cpuset_v2_mode"),
    (|flags| &mut flags.xattr, "xattr"),
];

impl<'a> GroupText<'a> {
    /// Of a group as it is. `None` if it is gone.
    pub(crate) fn of(forest: &'a Forest, id: GroupId) -> Option<Self> {
        let group = forest.group(id)?;
        let hierarchy = forest.hierarchy(group.hierarchy())?;
        let ownership = group.ownership();
        Some(Self {
            id,
            group,
            hierarchy: group.parent().is_none().then(|| (group.hierarchy(), hierarchy.flags())),
            settings: group.settings(),
            owner: Some((ownership.uid, ownership.gid)),
            xattrs: group.xattrs(),
            file: None,
        })
    }

    /// The text.
    pub(crate) fn print(&self) -> String {
        let mut text = self.hierarchy.map(|(id, flags)| hierarchy_lines(id, flags)).unwrap_or_default();
        write!(text, "id={}\n{}", self.id, pinfold_files::print_settings(self.settings)).expect(INFALLIBLE);
        let (uid, gid) = self.group.files_owner();
        if Some((uid, gid)) != self.owner {
            writeln!(text, "files_owner={}:{}", uid.0, gid.0).expect(INFALLIBLE);
        }
        text.push_str(made_line(self.group.is_made_inside()));
        for (name, value) in self.xattrs.into_iter().flatten() {
            writeln!(text, "xattr={}", xattr_text(name, value)).expect(INFALLIBLE);
        }
        let changed = self.file.map(|(file, _)| file.get());
        let others = self.group.files_with_attributes().filter(|(file, _)| Some(*file) != changed);
        let others = others.filter_map(|(file, attributes)| Some((FileId::new(file)?, attributes)));
        for (file, attributes) in others.chain(self.file) {
            file_lines(&mut text, file, attributes);
        }
        text
    }
}

fn file_lines(text: &mut String, file: FileId, attributes: &FileAttributes) {
    let name = pinfold_files::full_name(file, false);
    let Ownership { uid, gid, mode } = attributes.ownership;
    writeln!(text, "file={name} {}:{} {mode:o}", uid.0, gid.0).expect(INFALLIBLE);
    for (key, value) in &attributes.xattrs {
        writeln!(text, "file_xattr={name} {}", xattr_text(key, value)).expect(INFALLIBLE);
    }
}

/// `=` in an attribute's name is escaped by hand, so that the first one ends the name.
pub(crate) fn xattr_text(name: &[u8], value: &[u8]) -> String {
    let name = pinfold_files::print_bytes(name).replace('=', "\\x3d");
    format!("{name}={}", pinfold_files::print_bytes(value))
}

fn parse_xattr(text: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let (name, value) = text.split_once('=')?;
    Some((pinfold_files::parse_bytes(name)?, pinfold_files::parse_bytes(value)?))
}

fn id_list(groups: &[GroupId]) -> String {
    groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// `SPINE GROUP,GROUP`.
fn parse_claims(text: &str) -> Option<(SpineId, Vec<GroupId>)> {
    let (spine, groups) = text.split_once(' ')?;
    let groups = groups.split(',').map(parse_group_id).collect::<Option<Vec<_>>>()?;
    Some((SpineId::new(spine.parse().ok()?)?, groups))
}

fn parse_group_id(text: &str) -> Option<GroupId> {
    GroupId::new(text.parse().ok()?)
}

fn parse_owner(text: &str) -> Option<(Uid, Gid)> {
    let (uid, gid) = text.split_once(':')?;
    Some((Uid(uid.parse().ok()?), Gid(gid.parse().ok()?)))
}

impl GroupRecord {
    fn take(&mut self, line: &str) -> Option<()> {
        let (key, value) = line.split_once('=')?;
        match key {
            "id" => self.id = Some(parse_group_id(value)?),
            "hierarchy" => self.hierarchy = Some(HierarchyId::new(value.parse().ok()?)?),
            "flags" => {
                for word in value.split(',').filter(|word| !word.is_empty()) {
                    let (flag, _) = FLAGS.iter().find(|(_, known)| *known == word)?;
                    *flag(&mut self.flags) = true;
                }
            }
            "files_owner" => self.files_owner = Some(parse_owner(value)?),
            "made" => self.made_inside = (value == "inside").then_some(true)?,
            "xattr" => self.xattrs.extend([parse_xattr(value)?]),
            "file" => {
                let mut words = value.splitn(3, ' ');
                let file = pinfold_files::named(words.next()?)?;
                let (uid, gid) = parse_owner(words.next()?)?;
                let mode = u16::from_str_radix(words.next()?, 8).ok()?;
                let ownership = Ownership { uid, gid, mode: mode & 0o7777 };
                self.files.push((file, FileAttributes { ownership, xattrs: Xattrs::new() }));
            }
            "file_xattr" => {
                let (name, xattr) = value.split_once(' ')?;
                let file = pinfold_files::named(name)?;
                let (_, attributes) = self.files.iter_mut().find(|(known, _)| *known == file)?;
                attributes.xattrs.extend([parse_xattr(xattr)?]);
            }
            _ => {
                let (key, value) = pinfold_files::parse_setting(line).ok()?;
                self.settings.replace(key, Some(value));
            }
        }
        Some(())
    }
}
