//! cpuset: on which CPUs a group's tasks run, and on which nodes their memory lies.
//!
//! v1's empty list is not v2's: there it means "nothing yet", and nobody can be attached; here it means "what is above has".
//! So no process is ever below a v2 directory whose list v1 would call empty.

use pinfold_model::{Forest, GroupId, Key, Value};

use crate::core::CLONE_CHILDREN;
use crate::mask::{Mask, MaskError};
use crate::number::c_string;
use crate::sight::{Facts, Sight};
use crate::table::{
    AtRoot, Birth, Blank, Carry, Change, Controller, File, Inherit, Needs, Place, RoundTrip, Setting,
    Unaided, Unit, Write,
};
use crate::values::line;
use crate::write::{AttachRefusal, Conflict, WriteError, parse_flag, parse_i64, stripped};

static CPUS: Setting = mask("cpuset.cpus", None, Inherit::Derived { from: clone_of_cpus, words: CLONED });
static MEMS: Setting = mask(
    "cpuset.mems",
    Some("without v2's cpuset nobody can bind another's memory to nodes"),
    Inherit::Derived { from: clone_of_mems, words: CLONED },
);

const CLONED: &str = "what its parent has, if cgroup.clone_children is 1 there and no other child is exclusive, or if it is \
                      made with `pinfold create`; else nothing";

/// The v2 file has the setting's name.
const fn mask(key: &'static str, unaided: Option<&'static str>, inherit: Inherit) -> Setting {
    let carry = Carry::Everywhere { v2: key, show: v2_list, combine: within, unaided };
    Setting { key: Key(key), initial: Value::Text(Vec::new()), inherit, carry }
}

/// Whether the group is exclusive, if it is not the root; whether it is not, if it is: the root is from the start.
static CPU_EXCLUSIVE: Setting = flag("cpuset.cpu_exclusive", false, Inherit::Initial, Carry::UserSpace);
static MEM_EXCLUSIVE: Setting = flag("cpuset.mem_exclusive", false, Inherit::Initial, Carry::UserSpace);

static MEM_HARDWALL: Setting = flag(
    "cpuset.mem_hardwall",
    false,
    Inherit::Initial,
    Carry::Inert("v2 keeps the kernel's own memory to a group's nodes no more than v1 does without it"),
);
static SCHED_LOAD_BALANCE: Setting = flag(
    "cpuset.sched_load_balance",
    true,
    Inherit::Initial,
    Carry::Inert(
        "v2 divides the machine for load balancing by partitions, which begin at the top of its tree",
    ),
);
static MEMORY_MIGRATE: Setting = flag(
    "cpuset.memory_migrate",
    false,
    Inherit::Initial,
    Carry::Inert("v2 always moves memory when a group's nodes change"),
);
static SPREAD_PAGE: Setting = flag("cpuset.memory_spread_page", false, Inherit::Parent, SPREAD);
static SPREAD_SLAB: Setting = flag("cpuset.memory_spread_slab", false, Inherit::Parent, SPREAD);
const SPREAD: Carry = Carry::Inert("v2 does not spread pages over nodes; a process's memory policy can");
static PRESSURE_ENABLED: Setting = flag(
    "cpuset.memory_pressure_enabled",
    false,
    Inherit::Initial,
    Carry::Inert("v2 does not count how often a group's processes reclaim memory themselves"),
);

const fn flag(key: &'static str, initial: bool, inherit: Inherit, carry: Carry) -> Setting {
    Setting { key: Key(key), initial: Value::Flag(initial), inherit, carry }
}

/// The level as it is shown.
static RELAX_DOMAIN_LEVEL: Setting = Setting {
    key: Key("cpuset.sched_relax_domain_level"),
    initial: Value::Text(Vec::new()),
    inherit: Inherit::Initial,
    carry: Carry::Inert("a group of v2 has no such level"),
};

/// MAX_NUMNODES of Linux for 64-bit x86: a higher number is no node's anywhere.
const MAX_NODES: u32 = 1024;

/// What a write may have: 100 + 6 * NR_CPUS, and the same of nodes, as Debian builds Linux.
const LONGEST_CPUS: usize = 100 + 6 * 8192;
const LONGEST_MEMS: usize = 100 + 6 * MAX_NODES as usize;

/// The cpuset controller.
pub(crate) static CPUSET: Controller = Controller {
    name: "cpuset",
    about: "On which CPUs the tasks of a group run, and on which nodes their memory lies.",
    source: "Documentation/admin-guide/cgroup-v1/cpusets.rst; kernel/cgroup/cpuset.c",
    needs: Needs::Controller("cpuset"),
    unaided: Unaided::Served(
        "the affinity of every thread, which the thread itself can change until the next look; memory nodes are kept and bind nobody",
    ),
    files: &[
        File {
            longest: LONGEST_CPUS,
            errors: "EACCES: the root; CPUs that the group above has not. EBUSY: without CPUs that a group below has. EINVAL: \
                     not a list, or CPUs that the machine has not; CPUs of another group below the same one, and one of both \
                     has cpu_exclusive. ENOSPC: an empty list, and the group or one below it has processes. ERANGE: a \
                     number that no CPU can have. EOVERFLOW: more than 32 bits. E2BIG: more than 49252 bytes.",
            at_root: AtRoot::Refused,
            differs: "Before Linux 6.2 the kernel forgets what sched_setaffinity(2) chose when a task gets another v2 directory. Where v1 \
                      does not, in all hierarchies but that of cpuset, pinfold sets it again: for a moment the task may run on \
                      all of its group's CPUs.",
            ..list(
                "cpus",
                &CPUS,
                |sight| line(own(sight, Which::Cpus)),
                |sight, data| write_mask(sight, Which::Cpus, data),
                "The CPUs that the group's tasks run on. Nobody can be attached while it is empty. The root has those of the \
                 machine, or of the directory that pinfold works below.",
                "cpuset.cpus of every v2 directory of the group. What v2 does not compare (the groups above, below and \
                 beside) pinfold does.",
            )
        },
        File {
            longest: LONGEST_MEMS,
            errors: "EACCES: the root; nodes that the group above has not. EBUSY: without nodes that a group below has. \
                     EINVAL: not a list, or nodes without memory; nodes of another group below the same one, and one of both \
                     has mem_exclusive. ENOSPC: an empty list, and the group or one below it has processes. ERANGE: a \
                     number that no node can have. EOVERFLOW: more than 32 bits. E2BIG: more than 6244 bytes.",
            at_root: AtRoot::Refused,
            ..list(
                "mems",
                &MEMS,
                |sight| line(own(sight, Which::Mems)),
                |sight, data| write_mask(sight, Which::Mems, data),
                "The memory nodes that the group's tasks get memory from. Nobody can be attached while it is empty.",
                "cpuset.mems of every v2 directory of the group.",
            )
        },
        File {
            differs: EFFECTIVE_DIFFERS,
            ..shown(
                "effective_cpus",
                |sight| line(effective(sight, Which::Cpus)),
                "cpuset_common_seq_show()",
                "The CPUs that the group's tasks can run on now.",
                EFFECTIVE_V2,
            )
        },
        File {
            differs: EFFECTIVE_DIFFERS,
            ..shown(
                "effective_mems",
                |sight| line(effective(sight, Which::Mems)),
                "cpuset_common_seq_show()",
                "The nodes that the group's tasks can get memory from now.",
                EFFECTIVE_V2,
            )
        },
        exclusive(
            "cpu_exclusive",
            &CPU_EXCLUSIVE,
            |sight| flag_line(Config::of(sight, sight.group).cpu_exclusive),
            |sight, data| write_exclusive(sight, &CPU_EXCLUSIVE, data),
            "Whether no other group below the same one may have any of its CPUs. 1 at the root.",
        ),
        exclusive(
            "mem_exclusive",
            &MEM_EXCLUSIVE,
            |sight| flag_line(Config::of(sight, sight.group).mem_exclusive),
            |sight, data| write_exclusive(sight, &MEM_EXCLUSIVE, data),
            "Whether no other group below the same one may have any of its nodes. 1 at the root.",
        ),
        stored(
            "mem_hardwall",
            &MEM_HARDWALL,
            |sight| show_flag(sight, &MEM_HARDWALL),
            |sight, data| keep_flag(sight, &MEM_HARDWALL, data),
            "Whether the kernel's own memory for the group's tasks is kept to its nodes too.",
        ),
        stored(
            "sched_load_balance",
            &SCHED_LOAD_BALANCE,
            |sight| show_flag(sight, &SCHED_LOAD_BALANCE),
            |sight, data| keep_flag(sight, &SCHED_LOAD_BALANCE, data),
            "Whether the scheduler balances load over the group's CPUs.",
        ),
        File {
            takes: "A number from -1 to 3, without white space but one newline.",
            errors: "EINVAL: not a number, or another one. ERANGE: more than a signed 64-bit number.",
            unit: Unit::Number,
            differs: "The highest number depends on how many levels of scheduling domains the machine has; here it is always 3.",
            ..stored(
                "sched_relax_domain_level",
                &RELAX_DOMAIN_LEVEL,
                show_level,
                write_level,
                "How far the scheduler looks for a task when a CPU becomes idle: -1 is as the machine does by default.",
            )
        },
        stored(
            "memory_migrate",
            &MEMORY_MIGRATE,
            |sight| show_flag(sight, &MEMORY_MIGRATE),
            |sight, data| keep_flag(sight, &MEMORY_MIGRATE, data),
            "Whether pages move along when the group's nodes change.",
        ),
        File {
            unit: Unit::Number,
            differs: "It is 0 however much is reclaimed.",
            ..shown(
                "memory_pressure",
                |_| line(0),
                "cpuset_read_u64(), fmeter_getrate()",
                "How often in a second, times 1000, the group's tasks had to reclaim memory themselves.",
                "A constant: v2 does not count by group how often, but how many pages (pgscan_direct of memory.stat).",
            )
        },
        stored(
            "memory_spread_page",
            &SPREAD_PAGE,
            |sight| show_flag(sight, &SPREAD_PAGE),
            |sight, data| keep_flag(sight, &SPREAD_PAGE, data),
            "Whether the page cache that the group's tasks fill is spread evenly over its nodes.",
        ),
        stored(
            "memory_spread_slab",
            &SPREAD_SLAB,
            |sight| show_flag(sight, &SPREAD_SLAB),
            |sight, data| keep_flag(sight, &SPREAD_SLAB, data),
            "The same for the kernel's caches of inodes and directory entries.",
        ),
        File {
            place: Place::RootOnly,
            ..stored(
                "memory_pressure_enabled",
                &PRESSURE_ENABLED,
                |sight| show_flag(sight, &PRESSURE_ENABLED),
                |sight, data| keep_flag(sight, &PRESSURE_ENABLED, data),
                "Whether memory_pressure is measured, in all groups.",
            )
        },
    ],
    counters: &[],
    can_attach,
};

const EFFECTIVE_V2: &str = "Derived from the lists of the group and of those above.";
const EFFECTIVE_DIFFERS: &str = "A CPU or node that goes offline stays listed.";

/// A file that is only read.
const fn shown(
    name: &'static str,
    show: fn(&Sight<'_>) -> Vec<u8>,
    function: &'static str,
    about: &'static str,
    v2: &'static str,
) -> File {
    File { unit: Unit::List, ..File::shown(name, &[], show, function, about, v2) }
}

/// A list of numbers.
const fn list(
    name: &'static str,
    setting: &'static Setting,
    show: fn(&Sight<'_>) -> Vec<u8>,
    write: fn(&Sight<'_>, &[u8]) -> Result<Change, WriteError>,
    about: &'static str,
    v2: &'static str,
) -> File {
    File {
        write: Write::Parsed(write),
        setting: Some(setting),
        takes: "Decimal numbers and ranges (`0-3`) between commas or white space; `N` is the last number, `all` all of them; \
                `0-7:2/4` are the first two of every four. Nothing but white space is the empty list.",
        round_trip: RoundTrip::Exact,
        blank: Blank::Taken,
        ..shown(name, show, "cpuset_common_seq_show(), cpuset_write_resmask(), validate_change()", about, v2)
    }
}

/// A flag that pinfold keeps and nobody acts on.
const fn stored(
    name: &'static str,
    setting: &'static Setting,
    show: fn(&Sight<'_>) -> Vec<u8>,
    write: fn(&Sight<'_>, &[u8]) -> Result<Change, WriteError>,
    about: &'static str,
) -> File {
    File {
        unit: Unit::Flag,
        write: Write::Parsed(write),
        setting: Some(setting),
        takes: FLAG,
        errors: NO_FLAG,
        round_trip: RoundTrip::Exact,
        ..shown(name, show, "cpuset_read_u64(), cpuset_write_u64()", about, "Kept by pinfold.")
    }
}

/// A flag that keeps neighbours apart.
const fn exclusive(
    name: &'static str,
    setting: &'static Setting,
    show: fn(&Sight<'_>) -> Vec<u8>,
    write: fn(&Sight<'_>, &[u8]) -> Result<Change, WriteError>,
    about: &'static str,
) -> File {
    File {
        errors: "EACCES: 1, and the group above has not. EBUSY: 0, and a group below has 1. EINVAL: not a number, or with a \
                 minus sign; 1, and another group below the same one has some of the same. ERANGE: more than 64 bits.",
        v2: "pinfold refuses what overlaps.",
        differs: "The CPUs of an exclusive group are not balanced apart from others.",
        ..stored(name, setting, show, write, about)
    }
}

const FLAG: &str = "A number without white space but one newline: decimal, octal after `0`, hexadecimal after `0x`; any \
                    but 0 is 1.";
const NO_FLAG: &str = "EINVAL: not a number, or with a minus sign. ERANGE: more than 64 bits.";

/// Which of the two lists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Cpus,
    Mems,
}

impl Which {
    fn setting(self) -> &'static Setting {
        match self {
            Self::Cpus => &CPUS,
            Self::Mems => &MEMS,
        }
    }

    /// What the root has.
    fn all(self, facts: &Facts) -> Mask {
        match self {
            Self::Cpus => facts.cpus.iter().copied().collect(),
            Self::Mems => facts.mems.iter().copied().collect(),
        }
    }

    /// How many numbers there are.
    fn size(self, facts: &Facts) -> u32 {
        match self {
            Self::Cpus => facts.possible_cpus.try_into().unwrap_or(u32::MAX),
            Self::Mems => MAX_NODES,
        }
    }

    /// A list in a group: the machine's in the root.
    fn in_group(self, sight: &Sight<'_>, group: GroupId) -> Mask {
        match is_root(sight.forest, group) {
            true => self.all(sight.facts),
            false => kept(self.setting().in_group(sight.forest, group)),
        }
    }
}

/// What is compared with the groups above, below and beside.
struct Config {
    cpus: Mask,
    mems: Mask,
    cpu_exclusive: bool,
    mem_exclusive: bool,
}

impl Config {
    fn of(sight: &Sight<'_>, group: GroupId) -> Self {
        Self {
            cpus: Which::Cpus.in_group(sight, group),
            mems: Which::Mems.in_group(sight, group),
            cpu_exclusive: is_set(&CPU_EXCLUSIVE, sight.forest, group),
            mem_exclusive: is_set(&MEM_EXCLUSIVE, sight.forest, group),
        }
    }

    /// is_cpuset_subset().
    fn is_within(&self, above: &Self) -> bool {
        self.cpus.is_subset(&above.cpus)
            && self.mems.is_subset(&above.mems)
            && self.cpu_exclusive <= above.cpu_exclusive
            && self.mem_exclusive <= above.mem_exclusive
    }

    /// Whether both have something that one of them wants for itself.
    fn collides(&self, other: &Self) -> bool {
        (self.cpu_exclusive || other.cpu_exclusive) && self.cpus.intersects(&other.cpus)
            || (self.mem_exclusive || other.mem_exclusive) && self.mems.intersects(&other.mems)
    }
}

/// Whether a group is exclusive. The root is unless it keeps that it is not.
fn is_set(flag: &'static Setting, forest: &Forest, group: GroupId) -> bool {
    (*flag.in_group(forest, group) == Value::Flag(true)) != is_root(forest, group)
}

fn flag_line(flag: bool) -> Vec<u8> {
    line(u8::from(flag))
}

fn is_root(forest: &Forest, group: GroupId) -> bool {
    forest.group(group).is_some_and(|group| group.parent().is_none())
}

/// Whether the hierarchy was mounted with `cpuset_v2_mode`: an empty list then stands for what is above.
fn is_v2_mode(sight: &Sight<'_>) -> bool {
    let hierarchy =
        sight.forest.group(sight.group).and_then(|group| sight.forest.hierarchy(group.hierarchy()));
    hierarchy.is_some_and(|hierarchy| hierarchy.flags().cpuset_v2_mode)
}

fn kept(value: &Value) -> Mask {
    match value {
        Value::Text(text) => Mask::of_kept(text),
        _ => Mask::default(),
    }
}

fn kept_as(mask: &Mask) -> Value {
    Value::Text(mask.to_string().into_bytes())
}

/// A lone newline has v2 forget a list.
fn v2_list(value: &Value) -> String {
    let mask = kept(value).to_string();
    if mask.is_empty() { "\n".to_owned() } else { mask }
}

/// What holds in a group below one: its own list, which v1 keeps to a part of that above. With `cpuset_v2_mode` it may be none,
/// or another: then what is above holds.
fn within(above: &Value, own: &Value) -> Value {
    let (above_mask, own_mask) = (kept(above), kept(own));
    match above_mask.intersection(&own_mask) {
        both if !both.is_empty() => kept_as(&both),
        _ if above_mask.is_empty() => own.clone(),
        _ => above.clone(),
    }
}

fn own(sight: &Sight<'_>, which: Which) -> Mask {
    which.in_group(sight, sight.group)
}

fn effective(sight: &Sight<'_>, which: Which) -> Mask {
    if !is_v2_mode(sight) {
        return own(sight, which);
    }
    let mut path: Vec<GroupId> = sight.forest.ancestors(sight.group).collect();
    path.reverse();
    path.push(sight.group);
    path.into_iter().fold(which.all(sight.facts), |above, group| {
        let own = which.in_group(sight, group).intersection(&above);
        if own.is_empty() { above } else { own }
    })
}

fn write_mask(sight: &Sight<'_>, which: Which, data: &[u8]) -> Result<Change, WriteError> {
    let text = stripped(data);
    if sight.is_root() {
        return Err(Conflict::Root.into());
    }
    let mask = Mask::parse(text, which.size(sight.facts)).map_err(|error| match error {
        MaskError::Form => WriteError::syntax(text, "a list of numbers and ranges"),
        MaskError::Overflow => WriteError::overflow_u32(text),
        MaskError::Range => WriteError::beyond(text, which.size(sight.facts)),
    })?;
    if !mask.is_subset(&which.all(sight.facts)) {
        return Err(WriteError::syntax(text, "a part of what this machine has"));
    }
    let mut trial = Config::of(sight, sight.group);
    let place = match which {
        Which::Cpus => &mut trial.cpus,
        Which::Mems => &mut trial.mems,
    };
    if *place == mask {
        return Ok(Change::Nothing);
    }
    let value = kept_as(&mask);
    *place = mask;
    validate(sight, &trial)?;
    Ok(Change::keep(sight, which.setting(), value))
}

fn write_exclusive(sight: &Sight<'_>, setting: &'static Setting, data: &[u8]) -> Result<Change, WriteError> {
    let flag = parse_flag(data)?;
    let mut trial = Config::of(sight, sight.group);
    if *setting == CPU_EXCLUSIVE {
        trial.cpu_exclusive = flag;
    } else {
        trial.mem_exclusive = flag;
    }
    validate(sight, &trial)?;
    Ok(Change::keep(sight, setting, Value::Flag(flag != sight.is_root())))
}

/// Whether the group may be so: validate_change(), in its order.
fn validate(sight: &Sight<'_>, trial: &Config) -> Result<(), Conflict> {
    let forest = sight.forest;
    let is_compared = !is_v2_mode(sight);
    let mut below = forest.children(sight.group);
    if is_compared && below.any(|child| !Config::of(sight, child).is_within(trial)) {
        return Err(Conflict::Below);
    }
    let Some(parent) = forest.ancestors(sight.group).next() else { return Ok(()) };
    if is_compared && !trial.is_within(&Config::of(sight, parent)) {
        return Err(Conflict::Above);
    }
    let mut beside = forest.children(parent).filter(|sibling| *sibling != sight.group);
    if beside.any(|sibling| trial.collides(&Config::of(sight, sibling))) {
        return Err(Conflict::Beside);
    }
    let now = Config::of(sight, sight.group);
    let emptied = |now: &Mask, trial: &Mask| !now.is_empty() && trial.is_empty();
    if (emptied(&now.cpus, &trial.cpus) || emptied(&now.mems, &trial.mems)) && has_processes(sight) {
        return Err(Conflict::Occupied);
    }
    Ok(())
}

fn has_processes(sight: &Sight<'_>) -> bool {
    let mut groups = sight.forest.subtree(sight.group).filter_map(|id| sight.forest.group(id));
    groups.any(|group| sight.forest.has_processes(group))
}

fn clone_of_cpus(parent: &Sight<'_>, birth: Birth) -> Value {
    clone_of(parent, birth, Which::Cpus)
}

fn clone_of_mems(parent: &Sight<'_>, birth: Birth) -> Value {
    clone_of(parent, birth, Which::Mems)
}

/// What a new child has: cpuset_css_online(). One that the manager makes is there to be used.
fn clone_of(parent: &Sight<'_>, birth: Birth, which: Which) -> Value {
    let cloned = birth == Birth::Ready || parent.flag(&CLONE_CHILDREN);
    let is_exclusive =
        |group| [&CPU_EXCLUSIVE, &MEM_EXCLUSIVE].iter().any(|setting| is_set(setting, parent.forest, group));
    // There may be very many children, and none is exclusive in a group that is not.
    let has_exclusive =
        || is_exclusive(parent.group) && parent.forest.children(parent.group).any(is_exclusive);
    match cloned && !has_exclusive() {
        true => kept_as(&own(parent, which)),
        false => which.setting().initial.clone(),
    }
}

/// cpuset_can_attach().
fn can_attach(sight: &Sight<'_>) -> Result<(), AttachRefusal> {
    if is_v2_mode(sight) {
        return Ok(());
    }
    for (which, file) in [(Which::Cpus, "cpuset.cpus"), (Which::Mems, "cpuset.mems")] {
        if own(sight, which).is_empty() {
            return Err(AttachRefusal::Empty(file));
        }
    }
    Ok(())
}

fn show_flag(sight: &Sight<'_>, setting: &'static Setting) -> Vec<u8> {
    flag_line(sight.flag(setting))
}

fn keep_flag(sight: &Sight<'_>, setting: &'static Setting, data: &[u8]) -> Result<Change, WriteError> {
    Ok(Change::keep(sight, setting, Value::Flag(parse_flag(data)?)))
}

/// The level that stands for the machine's own.
const NO_LEVEL: &[u8] = b"-1";

fn show_level(sight: &Sight<'_>) -> Vec<u8> {
    let level: &[u8] = match sight.own(&RELAX_DOMAIN_LEVEL) {
        Value::Text(level) if !level.is_empty() => level,
        _ => NO_LEVEL,
    };
    [level, b"\n"].concat()
}

fn write_level(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    match parse_i64(c_string(data), "a number from -1 to 3")? {
        -1 => Ok(Change::keep(sight, &RELAX_DOMAIN_LEVEL, RELAX_DOMAIN_LEVEL.initial.clone())),
        level @ 0..=3 => {
            Ok(Change::keep(sight, &RELAX_DOMAIN_LEVEL, Value::Text(level.to_string().into_bytes())))
        }
        level => Err(WriteError::OutOfRange { value: level.into(), range: "-1 to 3" }),
    }
}
