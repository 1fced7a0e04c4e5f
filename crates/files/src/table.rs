//! The form of a controller's table: one row declares one interface file, and everything else is derived.
//!
//! Lookup, listing, mode bits, write dispatch, v1 names as D-Bus keys, the CLI's completion and `docs/files/*.md` all read
//! these rows. Adding a file is one row and its functions; adding a controller is one module and one line in [`crate::ALL`].

use std::fmt;

use pinfold_model::{Forest, GroupId, Instruction, Key, Settings, Slot, Value};

use crate::counter::Counter;
use crate::division::{Amount, Division, Pressed, Used};
use crate::room::{Reclaimer, Room};
use crate::sight::{Facts, Sight};
use crate::write::{AttachRefusal, WriteError};

/// A v1 controller: a file name prefix, its interface files, and what it takes from the kernel below.
#[doc(alias = "cgroup_subsys")]
pub struct Controller {
    /// The name in mount options and before the dot in file names. Empty for the core files.
    pub name: &'static str,
    /// One sentence: what it is for.
    pub about: &'static str,
    /// The document and the kernel source file it follows.
    pub source: &'static str,
    /// What the kernel below must have for this controller to be mountable.
    pub needs: Needs,
    /// What becomes of it where no v2 tree can be written (tracker `events`), or where that does not offer the v2 controller.
    pub unaided: Unaided,
    /// Its interface files.
    pub files: &'static [File],
    /// Its figures that only grow; a v2 directory that goes leaves them to the groups it carried (I6).
    pub counters: &'static [&'static Counter],
    /// Whether a process may be put into the group that is seen: the subsystem's can_attach().
    pub can_attach: fn(&Sight<'_>) -> Result<(), AttachRefusal>,
}

impl Controller {
    /// The `can_attach` of a controller that lets everybody in.
    #[expect(clippy::unnecessary_wraps, reason = "others refuse")]
    pub(crate) const fn anybody(_: &Sight<'_>) -> Result<(), AttachRefusal> {
        Ok(())
    }
}

/// What a controller needs of the v2 tree below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// Nothing but v2 itself.
    Tree,
    /// This controller in `cgroup.controllers` of the base.
    Controller(&'static str),
    /// BPF programs in v2 directories: CONFIG_CGROUP_BPF, and the right to load and attach them.
    Program,
    /// The right to set resource limits of other processes: CAP_SYS_RESOURCE in the first user namespace.
    ResourceLimits,
}

/// What a controller is without a writable v2 tree, or without its v2 controller: the v2 files that its rows name are then served by
/// pinfold itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unaided {
    /// From user space: how, and what is not reached so.
    Served(&'static str),
    /// It cannot be mounted: why.
    Refused(&'static str),
}

/// One interface file.
pub struct File {
    /// The name without the controller's prefix; one that starts with `cgroup.` has none (CFTYPE_NO_PREFIX).
    pub name: &'static str,
    /// In which groups it exists.
    pub place: Place,
    /// What its numbers count.
    pub unit: Unit,
    /// How it is read.
    pub read: Read,
    /// How it is written.
    pub write: Write,
    /// Who may write it.
    pub writer: Writer,
    /// The longest write it takes, in bytes; a longer one is E2BIG whoever writes what.
    pub longest: usize,
    /// The setting it keeps, if it keeps one.
    pub setting: Option<&'static Setting>,
    /// The kernel functions that read and write it.
    pub function: &'static str,
    /// What it means, for the documentation: a sentence or two.
    pub about: &'static str,
    /// What a write takes, for the documentation. Empty if it is not written.
    pub takes: &'static str,
    /// The errors of a write, for the documentation (`EINVAL: not a number`). Empty if it is not written.
    pub errors: &'static str,
    /// How it is done on v2, for the documentation.
    pub v2: &'static str,
    /// What differs from the kernel's v1; empty if nothing does.
    pub differs: &'static str,
    /// Whether a fresh group's value reads and writes back unchanged; tests walk the table and hold it to this.
    pub round_trip: RoundTrip,
    /// What a root group's file makes of a write.
    pub at_root: AtRoot,
    /// What a write of nothing but white space is.
    pub blank: Blank,
    /// What is done where the kernel below lacks a v2 file by which it is done otherwise.
    pub instead: Option<Instead>,
}

/// What a row does without a v2 file of newer kernels: `status` and the documentation say so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instead {
    /// The v2 file.
    pub of: &'static str,
    /// What is done.
    pub how: &'static str,
}

/// In which groups of a hierarchy a file exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In all.
    Everywhere,
    /// In the root group only (CFTYPE_ONLY_ON_ROOT).
    RootOnly,
    /// In all but the root group (CFTYPE_NOT_ON_ROOT).
    BelowRoot,
    /// In all, where the kernel below has this v2 file.
    WithV2(&'static str),
    /// In all but the root group, where the kernel below has this v2 file.
    BelowRootWithV2(&'static str),
}

/// What a file's numbers count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are units")]
pub enum Unit {
    Tasks,
    Processes,
    Descriptors,
    Events,
    Microseconds,
    Nanoseconds,
    /// Ticks of USER_HZ (100 a second).
    Ticks,
    Bytes,
    /// Of the machine's page size.
    Pages,
    /// Of no unit.
    Number,
    Flag,
    Path,
    /// One of a few words.
    State,
    /// Numbers of CPUs or nodes.
    List,
}

impl Unit {
    /// The unit in words, for the documentation.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Tasks => "tasks (threads)",
            Self::Processes => "processes (thread groups)",
            Self::Descriptors => "open descriptors",
            Self::Events => "events",
            Self::Microseconds => "microseconds",
            Self::Nanoseconds => "nanoseconds",
            Self::Ticks => "ticks of USER_HZ (100 a second)",
            Self::Bytes => "bytes",
            Self::Pages => "pages",
            Self::Number => "a number",
            Self::Flag => "0 or 1",
            Self::Path => "a path",
            Self::State => "a word",
            Self::List => "a list of numbers",
        }
    }
}

/// Who may write a file whose mode lets the caller open it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// Whoever has it open for writing.
    Permitted,
    /// Whoever has it open for writing; to begin with everybody may open it so (CFTYPE_WORLD_WRITABLE).
    Anyone,
    /// Only who had CAP_SYS_ADMIN in the initial user namespace (for pinfold: the daemon's) when it was opened, whoever writes; else
    /// EPERM. Source: file_ns_capable().
    OpenedByAdmin,
    /// The same, and who writes has it too. Source: capable(), which asks the writer alone.
    Admin,
}

impl Writer {
    /// Whether it takes an administrator, whatever the file's mode.
    pub const fn is_admin(self) -> bool {
        match self {
            Self::Permitted | Self::Anyone => false,
            Self::OpenedByAdmin | Self::Admin => true,
        }
    }
}

/// A v2 file that a row's text is made from, and which directories it is read in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    /// In every carrier of the group.
    Carriers(&'static str),
    /// In every carrier, the file of the counter of this name, as it was since that counter was reset; nowhere if it was not, or
    /// if the kernel does not know.
    Since(&'static str),
    /// In every carrier, the present figure beside the peak of the counter of this name: where that may not be as much already. It
    /// is if one directory carries the group, the kernel has the peak's file, and the group keeps nothing of the counter.
    Beside(&'static str, &'static str),
    /// In the directories that together hold exactly the processes of this group, not of those below it: a file that counts
    /// what is below its directory.
    Own(&'static str),
    /// In the leaf of every cell that is exactly in this group, not below it: a file that counts its directory alone.
    OwnLeaves(&'static str),
    /// In the base, for the root group; nowhere for others.
    Root(&'static str),
    /// No file, but what the machine says of itself by this name; the same for every group, and for writes too.
    Machine(&'static str),
    /// In the realm's own directory, whichever the group: what the kernel below knows of, as nothing is limited there. Beside a
    /// file of carriers only while there are none: theirs tell of it too.
    Realm(&'static str),
    /// In no v2 directory: how many descriptors the processes of the group and of those below it have open; a number for each
    /// leaf.
    Descriptors,
    /// In no v2 file: the CPU time that was measured in every carrier, CPU by CPU; nowhere while none is.
    Measured,
    /// Nowhere: a counter that only what is read leaves something to.
    Nowhere,
}

impl Source {
    /// The file's name, or what is read instead.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Carriers(file)
            | Self::Beside(file, _)
            | Self::Since(file)
            | Self::Own(file)
            | Self::OwnLeaves(file)
            | Self::Root(file)
            | Self::Realm(file)
            | Self::Machine(file) => file,
            Self::Descriptors => "/proc/PID/fd",
            Self::Measured => "sched_switch",
            Self::Nowhere => "",
        }
    }
}

/// Which ids a membership file lists and takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ids {
    /// Every thread (`tasks`).
    Tasks,
    /// Every process (`cgroup.procs`).
    Processes,
}

/// How a file is read.
pub enum Read {
    /// Not at all: EINVAL.
    Refused,
    /// Not at all either, but it may be opened: cgroup.event_control takes a descriptor of it.
    Named,
    /// The ids of the group's members, in the reader's pid namespace.
    Members(Ids),
    /// Text made from what the group keeps and from v2 files.
    Shown {
        /// The v2 files wanted. One that a directory has not got is left out of the texts.
        from: &'static [Source],
        /// Makes the text, with its final newline.
        show: fn(&Sight<'_>) -> Vec<u8>,
    },
    /// Makes the text of figures that go on from those that were shown last.
    Followed {
        /// The v2 files wanted.
        from: &'static [Source],
        /// Makes the text, and what the group keeps of it for the next time.
        show: fn(&Sight<'_>) -> Followed,
    },
}

/// A text, and what the group keeps of it; `None` stands for the initial value.
pub type Followed = (Vec<u8>, Vec<(Key, Option<Value>)>);

/// How a file is written.
pub enum Write {
    /// Not at all: EINVAL.
    Refused,
    /// The id of a task or process to attach.
    Attach(Ids),
    /// Who is to be told of what: cgroup.event_control.
    Register,
    /// Parsed into a change.
    Parsed(fn(&Sight<'_>, &[u8]) -> Result<Change, WriteError>),
}

/// What an accepted write asks for. All of it or nothing is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing: the value is accepted and has no effect.
    Nothing,
    /// These settings take these values; most writes assign one setting of the group itself.
    Keep(Vec<Assignment>),
    /// These settings take these values, if the kernel below knows the device or resource that they are for.
    IfTaken {
        /// The v2 file that has an entry for each.
        file: &'static str,
        /// The entry, without a limit. Taken means: in the realm's own directory, where it limits nobody.
        entry: String,
        /// What is asked for then.
        then: Result<Vec<Assignment>, WriteError>,
    },
    /// These counters of the group start again from zero.
    Reset(&'static [&'static Counter]),
    /// As much as can be of what the group uses is reclaimed. Nothing is kept.
    Reclaim(&'static Reclaimer),
}

/// A setting of a group takes a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// Where.
    pub group: GroupId,
    /// What.
    pub setting: &'static Setting,
    /// The new value.
    pub value: Value,
}

impl Change {
    /// One setting of the group that is written takes this value.
    pub fn keep(sight: &Sight<'_>, setting: &'static Setting, value: Value) -> Self {
        Self::Keep(vec![Assignment { group: sight.group, setting, value }])
    }
}

/// A value that a group keeps.
pub struct Setting {
    /// Under which name, in memory and in the state directory.
    pub key: Key,
    /// What a group has that never kept another.
    pub initial: Value,
    /// What a new child starts with.
    pub inherit: Inherit,
    /// Who enforces it.
    pub carry: Carry,
}

impl Setting {
    /// The value in these settings: the kept one, or the initial.
    pub fn of<'a>(&'a self, settings: &'a Settings) -> &'a Value {
        settings.get(self.key).unwrap_or(&self.initial)
    }

    /// The value in a group; the initial one if the group is gone.
    pub fn in_group<'a>(&'a self, forest: &'a Forest, group: GroupId) -> &'a Value {
        forest.group(group).map_or(&self.initial, |group| self.of(group.settings()))
    }

    /// What holds in a group: its own value, combined with those above if the setting is one that holds
    /// everywhere below.
    pub fn effective(&self, forest: &Forest, group: GroupId) -> Value {
        let own = self.in_group(forest, group).clone();
        let Carry::Everywhere { combine, .. } = self.carry else { return own };
        // From the root down is the same as from here up: what holds above is itself combined that way.
        forest.ancestors(group).fold(own, |below, id| combine(self.in_group(forest, id), &below))
    }
}

impl PartialEq for Setting {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key // keys are unique in the tables: a test walks them
    }
}

impl Eq for Setting {}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Setting({})", self.key.0)
    }
}

/// What a new group's setting starts with.
#[derive(Clone, Copy)]
pub enum Inherit {
    /// The initial value.
    Initial,
    /// The parent's value at that moment.
    Parent,
    /// What the controller makes of the parent, and of how the group is made.
    Derived {
        /// The value, where the parent is what is seen.
        from: fn(&Sight<'_>, Birth) -> Value,
        /// The value in words, for the documentation.
        words: &'static str,
    },
}

/// How a group is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Birth {
    /// By mkdir(2), as v1 makes it: some controllers want to be set up before anybody can be attached.
    Mkdir,
    /// By the manager or the command line, which have no use for a group that nobody can be attached to.
    Ready,
}

/// Who gives a setting its effect.
#[derive(Clone, Copy)]
pub enum Carry {
    /// pinfold itself does what the setting says.
    UserSpace,
    /// pinfold itself, which divides a limit over the RLIMIT_NOFILE of the processes of the group and of those below it.
    Descriptors {
        /// The limit, if there is one.
        most: fn(&Settings) -> Option<u64>,
    },
    /// Nobody: the value is kept and shown, for the reason given (I7).
    Inert(&'static str),
    /// The kernel, along the v2 tree: one directory must hold exactly the group's processes and those below. These
    /// files are written there, in this order.
    Limit(&'static [V2Write]),
    /// As a limit, in a file that has an entry for each device or resource.
    Entries(V2Entries),
    /// The kernel, in every directory that holds processes of the group; the same value in each.
    Everywhere {
        /// The v2 file.
        v2: &'static str,
        /// The text to write there, from the effective value.
        show: fn(&Value) -> String,
        /// What holds in a group, from its parent's effective value and its own. Associative.
        combine: fn(above: &Value, own: &Value) -> Value,
        /// Why the value has no effect where there is no v2 tree; `None`: pinfold gives it one from user space.
        unaided: Option<&'static str>,
    },
    /// The kernel, through a BPF program in every directory that holds processes of the group itself. The group's own
    /// value says all: what holds above is part of it.
    Program {
        /// Where it is asked, and under which name it is found again.
        slot: Slot,
        /// The program for a value; `None`: none is needed.
        code: fn(&Value) -> Option<Vec<Instruction>>,
        /// How the effect differs from v1's, in words that follow "by the kernel"; empty if it does not.
        unlike: &'static str,
    },
}

impl Carry {
    /// Whether a setting has a part in what is written to this v2 file.
    pub fn writes(&self, file: &str) -> bool {
        match self {
            Self::Limit(writes) => writes.iter().any(|write| write.file == file),
            Self::Entries(entries) => entries.file == file,
            Self::Everywhere { v2, .. } => *v2 == file,
            Self::UserSpace | Self::Descriptors { .. } | Self::Inert(_) | Self::Program { .. } => false,
        }
    }
}

/// A v2 file and what is written to it: made from everything a group keeps, since several settings may share a file
/// (`cpu.max`) and one may take part in several.
#[derive(Clone, Copy)]
pub struct V2Write {
    /// The v2 file.
    pub file: &'static str,
    /// The text to write there; `None`: what is there stays.
    pub text: fn(&Settings) -> Option<String>,
    /// What must be made sure of before, if a limit is lowered below what is used.
    pub room: Option<Room>,
    /// What each has of it, if several directories carry the group together.
    pub share: Share,
    /// How the effect differs from v1's, in words that follow "native, but"; empty if it does not.
    pub unlike: &'static str,
}

/// What becomes of a v2 value where several directories carry a group together: it crosses a group of another hierarchy.
#[derive(Clone, Copy)]
pub enum Share {
    /// Each directory has the same: a switch.
    Same,
    /// Each directory has the same. It counts against its neighbours in the v2 tree, who are the group's siblings only
    /// if no other hierarchy's groups part them.
    Weight,
    /// The amounts are divided over them, by demand; their parts never sum to more (I5).
    Divided(&'static Division),
    /// Each has this instead, which is less: what cannot be divided without harm.
    Without(&'static str),
}

/// A v2 file that takes one entry a write, a key and what holds for it (`254:0 rbps=1048576 wbps=max`).
#[derive(Clone, Copy)]
pub struct V2Entries {
    /// The v2 file.
    pub file: &'static str,
    /// The entries, from everything a group keeps, in the order in which they are written. One whose device is gone is
    /// passed over.
    pub entries: fn(&Settings) -> Vec<String>,
    /// What each directory has of them, if several carry the group together.
    pub share: EntryShare,
    /// How the effect differs from v1's, as of [`V2Write::unlike`].
    pub unlike: &'static str,
}

/// What becomes of a file's entries where several directories carry a group together.
#[derive(Clone, Copy)]
pub enum EntryShare {
    /// Each directory has the same, as of [`Share::Weight`]. There is always a `default`, which goes first as it takes the
    /// others back.
    Weight,
    /// The figures are limits, divided like those of [`Share::Divided`]; `max` lifts one.
    Divided {
        /// What a directory uses of each amount.
        used: Used,
        /// What tells that a directory meets its part, if v2 does.
        pressed: Option<Pressed>,
        /// The least that the kernel takes of an amount: no part is less.
        least: u64,
    },
}

impl V2Entries {
    /// The amounts that entries limit: `254:0 rbps`, or `sev` where an entry has one figure only.
    pub fn amounts(entries: &[String]) -> Vec<Amount> {
        let figures = entries.iter().flat_map(|entry| figures(entry));
        figures.filter_map(|(of, figure)| Some(Amount { of, most: figure.parse().ok()? })).collect()
    }

    /// The device or resource of an entry.
    pub fn key(entry: &str) -> &str {
        entry.split(' ').next().unwrap_or_default()
    }

    /// An entry that limits nothing of what this one does.
    pub fn lifted(entry: &str) -> String {
        let figures = figures(entry).into_iter().map(|(of, _)| figure_text(&of, "max"));
        figures.fold(Self::key(entry).to_owned(), |text, figure| text + &figure)
    }

    /// These entries with these amounts instead of their own, none below the least; amounts that no entry has get one.
    pub fn with(entries: &[String], amounts: &[Amount], least: u64) -> Vec<String> {
        let mut left: Vec<&Amount> = amounts.iter().collect();
        let mut written: Vec<String> = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut text = Self::key(entry).to_owned();
            for (of, figure) in figures(entry) {
                let amount = left.iter().position(|amount| amount.of == of).map(|at| left.swap_remove(at));
                let figure = amount.map_or(figure, |amount| amount.most.max(least).to_string());
                text += &figure_text(&of, &figure);
            }
            written.push(text);
        }
        written.extend(left.into_iter().map(|amount| {
            Self::key(&amount.of).to_owned() + &figure_text(&amount.of, &amount.most.max(least).to_string())
        }));
        written
    }
}

/// The figures of an entry, each with the name of what it counts.
fn figures(entry: &str) -> Vec<(String, String)> {
    let mut words = entry.split_ascii_whitespace();
    let key = words.next().unwrap_or_default();
    let figure = |word: &str| match word.split_once('=') {
        Some((name, figure)) => (format!("{key} {name}"), figure.to_owned()),
        None => (key.to_owned(), word.to_owned()),
    };
    words.map(figure).collect()
}

fn figure_text(of: &str, figure: &str) -> String {
    match of.split_once(' ') {
        Some((_, name)) => format!(" {name}={figure}"),
        None => format!(" {figure}"),
    }
}

/// What a root group's file makes of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtRoot {
    /// What the files of other groups make of it.
    Alike,
    /// Whatever is written is refused: a root is not limited.
    Refused,
}

/// What a write of nothing but white space is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blank {
    /// Junk like any other.
    Junk,
    /// A value: 0, or an empty list.
    Taken,
    /// ERANGE, where other junk is EINVAL.
    OutOfRange,
}

/// How the table-walking tests treat a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoundTrip {
    /// What a fresh group shows can be written back, and reads the same.
    Exact,
    /// It is not read, not written, or it lists members: nothing to write back.
    NotApplicable,
    /// Writing back what it shows is refused, as the kernel does (`cpuacct.usage` takes only 0).
    Refused,
    /// Any text is taken (failure counters): junk is no error here.
    TakesAnything,
    /// It shows a line for each device and takes one at a time, of those that the machine has.
    NotWhole,
}

impl File {
    /// What one atomic write may have at most: PAGE_SIZE, cgroup_init_cftypes().
    pub const LONGEST: usize = 4096;

    /// A row of a file that is only read, in every group. Rows of other files say how they differ from it.
    pub(crate) const fn shown(
        name: &'static str,
        from: &'static [Source],
        show: fn(&Sight<'_>) -> Vec<u8>,
        function: &'static str,
        about: &'static str,
        v2: &'static str,
    ) -> Self {
        Self {
            name,
            place: Place::Everywhere,
            unit: Unit::Number,
            read: Read::Shown { from, show },
            write: Write::Refused,
            writer: Writer::Permitted,
            longest: Self::LONGEST,
            setting: None,
            function,
            about,
            takes: "",
            errors: "",
            v2,
            differs: "",
            round_trip: RoundTrip::NotApplicable,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        }
    }

    /// Permission bits of a new group's file: cgroup_file_mode().
    pub const fn mode(&self) -> u16 {
        let read = if matches!(self.read, Read::Refused) { 0 } else { 0o444 };
        let write = match (&self.write, self.writer) {
            (Write::Refused, _) => 0,
            (_, Writer::Anyone) => 0o222,
            (_, Writer::Permitted | Writer::OpenedByAdmin | Writer::Admin) => 0o200,
        };
        read | write
    }

    /// Whether a group has this file.
    pub fn exists_in(&self, is_root: bool, facts: &Facts) -> bool {
        match self.place {
            Place::Everywhere => true,
            Place::RootOnly => is_root,
            Place::BelowRoot => !is_root,
            Place::WithV2(file) => facts.v2_files.contains(file),
            Place::BelowRootWithV2(file) => !is_root && facts.v2_files.contains(file),
        }
    }

    /// Whether poll(2) tells of its changes: figures of events that nobody sets (cgroup_file_notify()).
    pub const fn is_told(&self) -> bool {
        matches!((self.unit, &self.write), (Unit::Events, Write::Refused))
    }

    /// The v2 files that its text is made from.
    pub const fn sources(&self) -> &'static [Source] {
        match self.read {
            Read::Shown { from, .. } | Read::Followed { from, .. } => from,
            Read::Refused | Read::Named | Read::Members(_) => &[],
        }
    }
}
