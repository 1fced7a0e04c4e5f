//! What a realm tells about itself.

use std::fmt;
use std::time::SystemTime;

use pinfold_files::{FileId, Instead};
use pinfold_model::{ControllerSet, Gid, GroupId, HierarchyId, Ownership, Uid};

/// A group, or one of its control files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Node {
    /// A group: a directory.
    Group(GroupId),
    /// A control file of a group.
    File(GroupId, FileId),
}

impl Node {
    /// The group that is meant, or whose file is meant.
    pub fn group(self) -> GroupId {
        match self {
            Self::Group(group) | Self::File(group, _) => group,
        }
    }
}

/// What `stat` shows of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// Who owns it and who may do what.
    pub ownership: Ownership,
    /// How many child groups a group has (its link count is 2 more); 0 for a file.
    pub children: u32,
    /// When it last changed.
    pub changed: SystemTime,
}

/// What a chmod or chown changes; `None` leaves as it is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct AttributeChange {
    /// New permission bits.
    pub mode: Option<u16>,
    /// New owner.
    pub uid: Option<Uid>,
    /// New group of users.
    pub gid: Option<Gid>,
}

impl AttributeChange {
    /// What it makes of an owner and a mode.
    pub(crate) fn applied_to(self, old: &Ownership) -> Ownership {
        Ownership {
            uid: self.uid.unwrap_or(old.uid),
            gid: self.gid.unwrap_or(old.gid),
            mode: self.mode.map_or(old.mode, |mode| mode & 0o7777),
        }
    }
}

/// How an extended attribute is set (setxattr(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrMode {
    /// Made or replaced.
    Set,
    /// Made: EEXIST if it is there (XATTR_CREATE).
    Create,
    /// Replaced: ENODATA if it is not there (XATTR_REPLACE).
    Replace,
}

/// One hierarchy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HierarchyInfo {
    /// Its id.
    pub id: HierarchyId,
    /// Its controllers.
    pub controllers: ControllerSet,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// As the second field of `/proc/PID/cgroup` says it: `pids,freezer`, `name=systemd`.
    pub label: String,
    /// How many mounts hold it.
    pub mounts: u32,
    /// How many groups it has, the root included.
    pub groups: u32,
    /// Its root group.
    pub root: GroupId,
}

/// One controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControllerInfo {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Whether it can be mounted here; if not, why.
    pub usable: Result<(), String>,
    /// The hierarchy it is bound to.
    pub hierarchy: Option<HierarchyId>,
    /// How many groups that hierarchy has.
    pub groups: u32,
}

/// How one setting of a group is enforced (I7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingStatus {
    /// The interface file (`pids.max`).
    pub file: String,
    /// What it reads, without the final newline.
    pub value: String,
    /// Whether the group keeps a value of its own for it.
    pub set: bool,
    /// Who enforces it.
    pub enforced: Enforced,
}

/// A write that gives a group a setting of another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptSetting {
    /// The interface file that is written.
    pub file: String,
    /// What.
    pub text: String,
    /// Whether a new group may start with something else.
    pub needed: bool,
}

/// Who enforces a setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Enforced {
    /// The kernel, in one v2 directory that holds exactly the group.
    Native,
    /// The kernel, by parts of the limit in so many v2 directories: pinfold divides it by demand.
    Shared(usize),
    /// [`Self::Shared`], and what processes leave behind is charged, for as long as the one of the directories is there that they were in.
    SharedCharge(usize),
    /// [`Self::Shared`], but the limit is so low that v2 takes no parts that are small enough: together they may be more.
    SharedBeyond(usize),
    /// [`Self::Shared`], but nobody tells who waits for it: the parts follow what each uses.
    SharedByRates {
        /// How many directories.
        directories: usize,
        /// The v2 file that would tell.
        lacking: &'static str,
    },
    /// The kernel, by the same value in so many v2 directories.
    Everywhere(usize),
    /// The kernel, but not quite as v1 does it: how.
    Unlike(&'static str),
    /// pinfold itself.
    UserSpace,
    /// pinfold itself, as the v2 tree does not offer this controller.
    Unaided(&'static str),
    /// pinfold itself, by parts of the limit that processes have as limits of their own.
    Processes {
        /// How many processes have one.
        limited: usize,
        /// How many could not be given one.
        loose: usize,
    },
    /// Nothing is set: figures by CPU, of which a program of pinfold's tells how they are divided.
    Measured {
        /// In how many v2 directories it does not.
        missed: usize,
    },
    /// Nothing is set: figures by CPU that are spread evenly over the CPUs, for the reason given.
    Spread(String),
    /// Otherwise than by this v2 file, which the kernel below does not have.
    Instead {
        /// Who enforces it all the same; `None`: nothing is set.
        by: Option<Box<Enforced>>,
        /// What is done, and without which file.
        instead: Instead,
    },
    /// Nobody: stored only, since the kernel below does not have this v2 file.
    Lacking(&'static str),
    /// Nobody: stored only, for the reason given.
    StoredOnly(&'static str),
}

impl fmt::Display for Enforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => write!(f, "native"),
            Self::Shared(directories) => write!(f, "shared over {directories} v2 directories"),
            Self::SharedCharge(directories) => write!(
                f,
                "shared over {directories} v2 directories; what processes leave behind counts for as long as theirs is there"
            ),
            Self::SharedBeyond(directories) => write!(
                f,
                "shared over {directories} v2 directories, which may have more than the limit together: each has the least that v2 takes"
            ),
            Self::SharedByRates { directories, lacking } => write!(
                f,
                "shared over {directories} v2 directories by rates alone, which takes longer: the kernel below has no {lacking}"
            ),
            Self::Everywhere(directories) => write!(f, "native, in {directories} v2 directories"),
            Self::Unlike(how) => write!(f, "native, but {how}"),
            Self::Processes { limited, loose: 0 } => write!(f, "user space, over {limited} processes"),
            Self::Processes { limited, loose } => {
                write!(f, "user space, over {limited} of {} processes, {loose} not limited", limited + loose)
            }
            Self::UserSpace => write!(f, "user space"),
            Self::Measured { missed: 0 } => write!(f, "measured"),
            Self::Measured { missed } => {
                write!(f, "measured, but spread in {missed} v2 directories of the realm")
            }
            Self::Spread(why) => write!(f, "spread over the CPUs: {why}"),
            Self::Unaided(controller) => {
                write!(f, "user space, as the v2 tree does not offer {controller}")
            }
            Self::Instead { by, instead: Instead { of, how } } => {
                if let Some(by) = by {
                    write!(f, "{by}; ")?;
                }
                write!(f, "{how}: the kernel below has no {of}")
            }
            Self::Lacking(file) => write!(f, "stored only: the kernel below has no {file}"),
            Self::StoredOnly(why) => write!(f, "stored only: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_some_processes_could_not_be_given_says_so() {
        #[rustfmt::skip]
        let cases = [
            (5, 0, "user space, over 5 processes"),
            (5, 2, "user space, over 5 of 7 processes, 2 not limited"),
            (0, 1, "user space, over 0 of 1 processes, 1 not limited"),
        ];
        for (limited, loose, words) in cases {
            assert_eq!(Enforced::Processes { limited, loose }.to_string(), words);
        }
    }

    #[test]
    fn what_is_done_otherwise_is_said_after_who_enforces_it() {
        let instead = Instead { of: "memory.reclaim", how: "room is made" };
        for (by, words) in [
            (None, "room is made: the kernel below has no memory.reclaim"),
            (
                Some(Enforced::Shared(2)),
                "shared over 2 v2 directories; room is made: the kernel below has no memory.reclaim",
            ),
        ] {
            assert_eq!(Enforced::Instead { by: by.map(Box::new), instead }.to_string(), words);
        }
    }
}
