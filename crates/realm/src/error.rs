//! Why the realm refuses: one small error for each operation, each with the errno that Linux gives.

use std::path::PathBuf;

use pinfold_kernel as kernel;
use pinfold_model as model;
use pinfold_model::{Errno, GroupGone, GroupId, Name, NameError, Pid};

use crate::state::StateError;
use crate::{Account, Enforced};

/// Why a realm does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another daemon has the realm.
    #[error("realm {name} is in use by another daemon (lock file {lock})")]
    InUse {
        /// The realm.
        name: String,
        /// Its lock file.
        lock: PathBuf,
    },
    /// The v2 tree cannot be used.
    #[error("the cgroup v2 tree cannot be used")]
    Tree(#[from] kernel::OpenError),
    /// There is no v2 tree.
    #[error("no usable cgroup v2 tree")]
    NoTree(#[from] kernel::DiscoverError),
    /// There is nothing that tells of processes.
    #[error("nothing tells of processes")]
    Source(#[from] pinfold_events::SourceError),
    /// Processes cannot be followed.
    #[error("processes cannot be followed")]
    Following(#[source] std::io::Error),
    /// The state directory cannot be used.
    #[error("the state directory cannot be used")]
    State(#[from] StateError),
    /// What the state directory says does not fit together.
    #[error("the state directory contradicts itself at {at}")]
    Contradiction {
        /// Which file.
        at: PathBuf,
        /// In what way.
        source: model::RestoreError,
    },
    /// The v2 tree does not do as it is told.
    #[error("what was kept cannot be put back in force")]
    Recover(#[from] kernel::StepError),
    /// A daemon was killed while it left, and what it had begun cannot be finished.
    #[error("the end of the last daemon cannot be finished")]
    Leave(#[from] DownError),
    /// The state directory belongs to a realm with another base or other controllers: its leaves hang elsewhere.
    #[error("{} is the state of another realm:\n{kept}this one would have\n{now}give the same --base, or another --state", state.display())]
    OtherRealm {
        /// The state directory.
        state: PathBuf,
        /// What it says.
        kept: String,
        /// What it should say.
        now: String,
    },
    /// What was being changed when the last daemon was killed cannot be finished.
    #[error("a change that was begun cannot be finished")]
    Effect(#[source] EffectError),
    /// Empty leaves cannot be watched for.
    #[error("the v2 tree cannot be watched")]
    Watch(#[from] kernel::WatchError),
}

/// Why the realm does not go down cleanly.
#[derive(Debug, thiserror::Error)]
pub enum DownError {
    /// Processes could not be returned or directories not be removed.
    #[error("some of the realm's v2 directories remain")]
    Tree(#[from] kernel::CloseError),
    /// The state directory could not be removed.
    #[error("the state directory remains")]
    State(#[from] StateError),
}

/// The one thing that can go wrong in any change: the outside refuses.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    /// The state directory.
    #[error("the change could not be kept")]
    State(#[from] StateError),
    /// The v2 tree.
    #[error("the kernel below refused")]
    Step(#[from] kernel::StepError),
    /// Reading the v2 tree.
    #[error("the kernel below could not be asked")]
    Read(#[from] kernel::ReadError),
    /// Watching the v2 tree.
    #[error("the v2 directory cannot be watched")]
    Watch(#[from] kernel::WatchError),
    /// No change is accepted any more.
    #[error("the realm is going down")]
    Down,
    /// Something of ours is not there any more.
    #[error("another program removed a v2 directory of this realm")]
    Foreign,
    /// A limit is lowered below what is used and cannot be reclaimed: mem_cgroup_resize_max().
    #[error("{used} bytes are used and cannot be brought below {most}")]
    InUse {
        /// What is used.
        used: u64,
        /// What the limit would be.
        most: u64,
    },
    /// A limit would have to be divided, and the realm is strict.
    #[error(
        "{file} would be divided over {directories} v2 directories, and this realm is strict\n\
        let the group have the same path as those of the other hierarchies, or serve without --strict"
    )]
    Divided {
        /// The v2 file that has the parts.
        file: &'static str,
        /// The group.
        group: GroupId,
        /// Over how many.
        directories: usize,
    },
    /// The kernel would not enforce a setting as v1 does, and the realm is strict.
    #[error("{file} would be {enforced}; this realm is strict\nserve without --strict")]
    NotNative {
        /// The file that has the setting.
        file: &'static str,
        /// The group.
        group: GroupId,
        /// Who would enforce it.
        enforced: Enforced,
    },
    /// A process's own limit cannot be set.
    #[error("a limit of a process cannot be set")]
    Limit(#[source] kernel::process::ProcessError),
    /// The controller was there when the hierarchy was made, and the kernel below no longer has it.
    #[error(
        "the kernel below no longer has {0}: nothing would enforce the value, and what there was is kept"
    )]
    Vanished(&'static str),
}

impl EffectError {
    /// What the caller gets: the errno below if it means the same above, else EIO.
    pub fn errno(&self) -> Errno {
        match self {
            Self::State(error) => error.errno(),
            Self::Step(error) => error.errno(),
            Self::Read(_) | Self::Foreign => Errno::EIO,
            Self::Limit(error) => error.errno(),
            Self::Down | Self::Vanished(_) => Errno::ENODEV,
            Self::Watch(error) => error.errno(),
            Self::InUse { .. } | Self::Divided { .. } | Self::NotNative { .. } => Errno::EBUSY,
        }
    }
}

/// Why nothing is found.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// There is nothing of this name.
    #[error("{0:?} is not there")]
    NotFound(std::ffi::OsString),
    /// The group was removed.
    #[error(transparent)]
    Gone(#[from] GroupGone),
}

impl LookupError {
    /// The errno Linux gives: the path walk; cgroup_kn_lock_live().
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NotFound(_) => Errno::ENOENT,
            Self::Gone(gone) => gone.errno(),
        }
    }
}

/// A controller that is wanted is bound to another hierarchy. EBUSY: rebind_subsystems().
#[derive(Debug, thiserror::Error)]
#[error("controller {controller} is bound to {label} already\nmount that, or only controllers that are free")]
pub struct BoundElsewhere {
    /// The controller.
    pub controller: &'static str,
    /// The hierarchy that has it, as `/proc/PID/cgroup` calls it.
    pub label: String,
}

/// Why nothing is mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The caller may not make hierarchies.
    #[error("only root can make or change hierarchies")]
    NotPermitted,
    /// A controller is in use.
    #[error(transparent)]
    Bound(#[from] BoundElsewhere),
    /// The hierarchies do not allow it.
    #[error(transparent)]
    Refused(#[from] model::MountError),
    /// The outside refused.
    #[error(transparent)]
    Effect(#[from] EffectError),
}

impl MountError {
    /// The errno Linux gives: cgroup1_get_tree(), check_cgroupfs_options().
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotPermitted => Errno::EPERM,
            Self::Bound(_) => Errno::EBUSY,
            Self::Refused(refused) => refused.errno(),
            Self::Effect(effect) => effect.errno(),
        }
    }
}

/// Why a hierarchy is not changed.
#[derive(Debug, thiserror::Error)]
pub enum RemountError {
    /// The caller may not change hierarchies.
    #[error("only root can make or change hierarchies")]
    NotPermitted,
    /// A controller is in use.
    #[error(transparent)]
    Bound(#[from] BoundElsewhere),
    /// The hierarchies do not allow it.
    #[error(transparent)]
    Refused(#[from] model::RemountError),
    /// The outside refused.
    #[error(transparent)]
    Effect(#[from] EffectError),
}

impl RemountError {
    /// The errno Linux gives: cgroup1_reconfigure().
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotPermitted => Errno::EPERM,
            Self::Bound(_) => Errno::EBUSY,
            Self::Refused(refused) => refused.errno(),
            Self::Effect(effect) => effect.errno(),
        }
    }
}

/// Why no group is made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// It cannot have this name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The name is a control file's.
    #[error("{0} is a control file")]
    ControlFile(Name),
    /// There are enough.
    #[error(transparent)]
    TooMany(#[from] model::TooMany),
    /// The hierarchy does not allow it.
    #[error(transparent)]
    Refused(#[from] model::MakeError),
    /// The outside refused.
    #[error(transparent)]
    Effect(#[from] EffectError),
}

impl MakeError {
    /// The errno Linux gives: cgroup_mkdir(), kernfs_add_one().
    pub fn errno(&self) -> Errno {
        match self {
            Self::Name(error) => error.errno(),
            Self::ControlFile(_) => Errno::EEXIST,
            Self::TooMany(error) => error.errno(),
            Self::Refused(refused) => refused.errno(),
            Self::Effect(effect) => effect.errno(),
        }
    }
}

/// Why a group is not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is no such name.
    #[error(transparent)]
    NotFound(#[from] LookupError),
    /// A control file goes with its group.
    #[error("{0:?} is a control file")]
    ControlFile(std::ffi::OsString),
    /// The hierarchy does not allow it.
    #[error(transparent)]
    Refused(#[from] model::RemoveError),
    /// The outside refused.
    #[error(transparent)]
    Effect(#[from] EffectError),
}

impl RemoveError {
    /// The errno Linux gives: cgroup_rmdir(), the path walk.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotFound(error) => error.errno(),
            Self::ControlFile(_) => Errno::ENOTDIR,
            Self::Refused(refused) => refused.errno(),
            Self::Effect(effect) => effect.errno(),
        }
    }
}

/// Why a group is not renamed.
#[derive(Debug, thiserror::Error)]
pub enum RenameError {
    /// There is no such name.
    #[error(transparent)]
    NotFound(#[from] LookupError),
    /// A control file keeps its name.
    #[error("{0:?} is a control file")]
    ControlFile(std::ffi::OsString),
    /// A group stays below its parent.
    #[error("a group cannot be moved to another parent")]
    OtherParent,
    /// It cannot have this name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The new name is a control file's.
    #[error("{0} exists already: it is a control file")]
    Taken(Name),
    /// The hierarchy does not allow it.
    #[error(transparent)]
    Refused(#[from] model::RenameError),
    /// The outside refused.
    #[error(transparent)]
    Effect(#[from] EffectError),
}

impl RenameError {
    /// The errno Linux gives: cgroup1_rename(), kernfs_rename_ns().
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotFound(error) => error.errno(),
            Self::ControlFile(_) | Self::Taken(_) => Errno::ENOTDIR,
            Self::OtherParent => Errno::EIO,
            Self::Name(error) => error.errno(),
            Self::Refused(refused) => refused.errno(),
            Self::Effect(effect) => effect.errno(),
        }
    }
}

/// Why an attribute is not changed.
#[derive(Debug, thiserror::Error)]
pub enum AttributeError {
    /// There is no such node.
    #[error(transparent)]
    NotFound(#[from] LookupError),
    /// The caller may not.
    #[error("whose group {0} is, and what its mode is, is not the caller's to change")]
    NotPermitted(GroupId),
    /// The outside refused.
    #[error(transparent)]
    Effect(#[from] EffectError),
}

impl AttributeError {
    /// The errno Linux gives: setattr_prepare().
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotFound(error) => error.errno(),
            Self::NotPermitted(_) => Errno::EPERM,
            Self::Effect(effect) => effect.errno(),
        }
    }
}

/// Why an extended attribute is not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum XattrError {
    /// There is no such node.
    #[error(transparent)]
    NotFound(#[from] LookupError),
    /// It has no such attribute.
    #[error("no extended attribute {0:?}")]
    NoAttribute(std::ffi::OsString),
    /// It has the attribute already (XATTR_CREATE).
    #[error("extended attribute {0:?} exists already")]
    Exists(std::ffi::OsString),
    /// Only `trusted.`, `security.` and `user.` attributes are kept.
    #[error("extended attributes of the class of {0:?} are not kept")]
    Class(std::ffi::OsString),
    /// Nothing after the class.
    #[error("{0:?} names no extended attribute")]
    NoName(std::ffi::OsString),
    /// Too many, or too large: kernfs keeps 128 user attributes of 128 KiB together.
    #[error("no room for extended attribute {0:?}")]
    NoRoom(std::ffi::OsString),
    /// All groups of somebody keep enough.
    #[error(transparent)]
    TooMuch(#[from] model::TooMuch),
    /// The outside refused.
    #[error(transparent)]
    Effect(#[from] EffectError),
}

impl XattrError {
    /// The errno Linux gives: kernfs_xattr_set(), kernfs_vfs_user_xattr_add().
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotFound(error) => error.errno(),
            Self::NoAttribute(_) => Errno::ENODATA,
            Self::Exists(_) => Errno::EEXIST,
            Self::Class(_) => Errno::EOPNOTSUPP,
            Self::NoName(_) => Errno::EINVAL,
            Self::NoRoom(_) => Errno::ENOSPC,
            Self::TooMuch(error) => error.errno(),
            Self::Effect(effect) => effect.errno(),
        }
    }
}

/// Why a control file is not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The group was removed.
    #[error(transparent)]
    Gone(#[from] GroupGone),
    /// The file is not read.
    #[error("{0} cannot be read")]
    WriteOnly(String),
    /// The outside refused.
    #[error(transparent)]
    Effect(#[from] EffectError),
}

impl ReadError {
    /// The errno Linux gives: cgroup_seqfile_show(), cgroup_kn_lock_live().
    pub fn errno(&self) -> Errno {
        match self {
            Self::Gone(gone) => gone.errno(),
            Self::WriteOnly(_) => Errno::EINVAL,
            Self::Effect(effect) => effect.errno(),
        }
    }
}

/// Why a process is not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It, the group or the caller does not allow it.
    #[error(transparent)]
    Refused(#[from] model::AttachError),
    /// A controller does not let it in.
    #[error(transparent)]
    Controller(#[from] pinfold_files::AttachRefusal),
    /// The outside refused.
    #[error(transparent)]
    Effect(#[from] EffectError),
}

impl AttachError {
    /// The errno Linux gives: cgroup_attach_permissions(), cgroup_migrate_execute().
    pub fn errno(&self) -> Errno {
        match self {
            Self::Refused(refused) => refused.errno(),
            Self::Controller(refused) => refused.errno(),
            Self::Effect(effect) => effect.errno(),
        }
    }
}

/// Why a control file is not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The group was removed.
    #[error(transparent)]
    Gone(#[from] GroupGone),
    /// The text is not what the file takes.
    #[error(transparent)]
    Refused(#[from] pinfold_files::WriteError),
    /// Only the host's root may set what the host's root will run.
    #[error("{0} is set only by root with CAP_SYS_ADMIN in the daemon's user namespace")]
    NotPermitted(String),
    /// The process is not attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Nobody will be told.
    #[error(transparent)]
    Notice(#[from] NoticeError),
    /// Who asks over a socket may not write it any more.
    #[error(transparent)]
    Permit(#[from] PermitError),
    /// The outside refused.
    #[error(transparent)]
    Effect(#[from] EffectError),
}

impl WriteError {
    /// The errno Linux gives: kernfs_fop_write_iter(), cgroup_file_write() and the file's own write function.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Gone(gone) => gone.errno(),
            Self::Refused(refused) => refused.errno(),
            Self::NotPermitted(_) => Errno::EPERM,
            Self::Attach(error) => error.errno(),
            Self::Notice(error) => error.errno(),
            Self::Permit(error) => error.errno(),
            Self::Effect(effect) => effect.errno(),
        }
    }
}

/// Why nobody is told of what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// The writer's descriptors cannot be looked at.
    #[error("the writer is in a pid namespace that the daemon does not see")]
    CallerUnseen,
    /// The eventfd or the control file.
    #[error("a descriptor of the writer's is of no use")]
    Descriptor(#[from] kernel::listener::DescriptorError),
    /// The writer may not read the control file that it names.
    #[error("the writer may not read {0}")]
    Unreadable(String),
    /// It is no control file, or one of another group, or one of which nothing is told.
    #[error("descriptor {0} is no file of this group that anybody is told of")]
    NotOurs(u32),
    /// Every listener takes descriptors of the daemon.
    #[error(
        "there is a listener for every fourth descriptor of the daemon already\nraise its limit (ulimit -n)"
    )]
    TooMany,
    /// An account has as many of them as it may.
    #[error("there are as many listeners of {0} as may be already")]
    TooManyOf(Account),
    /// What there is to see cannot be seen.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl NoticeError {
    /// The errno Linux gives: memcg_write_event_control(). EBUSY, EPERM and ESRCH are pinfold's own: the kernel sees everybody.
    pub fn errno(&self) -> Errno {
        use kernel::listener::DescriptorError;
        match self {
            Self::CallerUnseen => Errno::ESRCH,
            Self::Descriptor(DescriptorError::NotOpen { .. }) => Errno::EBADF,
            Self::Descriptor(DescriptorError::NotEventfd { .. }) | Self::NotOurs(_) => Errno::EINVAL,
            Self::Descriptor(DescriptorError::Refused { .. }) => Errno::EPERM,
            Self::Descriptor(DescriptorError::Busy(_)) => Errno::EBUSY,
            Self::Descriptor(DescriptorError::Process(error)) => error.errno(),
            Self::Unreadable(_) => Errno::EACCES,
            Self::TooMany | Self::TooManyOf(_) => Errno::ENOMEM,
            Self::Read(error) => error.errno(),
        }
    }
}

/// Why a group's processes are not killed.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// The group was removed.
    #[error(transparent)]
    Gone(#[from] GroupGone),
    /// The root group holds the whole machine.
    #[error("the processes of a root group are not killed together")]
    Root,
    /// The caller may not.
    #[error("only root and the owner of group {0} can kill its processes")]
    NotPermitted(GroupId),
    /// A process there is somebody else's.
    #[error("process {0} is there, which is not the caller's to kill")]
    NotOwner(Pid),
    /// A process there is in no pid namespace that the caller sees.
    #[error("a process is in group {0} or below that the caller does not see")]
    Unseen(GroupId),
    /// The outside refused.
    #[error(transparent)]
    Effect(#[from] EffectError),
}

impl KillError {
    /// The nearest errno: v1 has no such operation; EOPNOTSUPP as v2's cgroup_kill_write() for what it cannot kill.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Gone(gone) => gone.errno(),
            Self::Root => Errno::EOPNOTSUPP,
            Self::NotPermitted(_) | Self::NotOwner(_) | Self::Unseen(_) => Errno::EPERM,
            Self::Effect(effect) => effect.errno(),
        }
    }
}

/// Why a requester may not do what it asks for.
#[derive(Debug, thiserror::Error)]
pub enum PermitError {
    /// A rule of privilege is not met.
    #[error(transparent)]
    Denied(#[from] model::Denied),
    /// The requester has ended: nobody can tell any more what it may do.
    #[error("the process that connected is gone")]
    CallerGone,
    /// Without a v2 tree, nobody has told yet of the birth of the requester, or not whose child it is: it may be of any group.
    #[error("nobody has told yet whose child the process that connected is")]
    Untold,
    /// The requester asks through another, and is not in that one's group or below.
    #[error("who asks is not below the group of the process that is connected")]
    OutOfReach,
    /// The group was removed.
    #[error(transparent)]
    Gone(#[from] GroupGone),
    /// There is nothing of this name.
    #[error(transparent)]
    NotFound(#[from] LookupError),
}

impl PermitError {
    /// The errno: see [`model::Denied::errno`].
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Denied(denied) => denied.errno(),
            Self::CallerGone => Errno::ESRCH,
            Self::Untold | Self::OutOfReach => Errno::EPERM,
            Self::Gone(gone) => gone.errno(),
            Self::NotFound(error) => error.errno(),
        }
    }
}

/// Why a request is refused: it may not be made, or what it asks for cannot be done.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says what is wrong with what is asked for")]
pub enum RequestError {
    #[error(transparent)]
    Permit(#[from] PermitError),
    #[error(transparent)]
    NotFound(#[from] LookupError),
    #[error(transparent)]
    Make(#[from] MakeError),
    #[error(transparent)]
    Remove(#[from] RemoveError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    #[error(transparent)]
    Xattr(#[from] XattrError),
    #[error(transparent)]
    Kill(#[from] KillError),
    #[error(transparent)]
    Effect(#[from] EffectError),
}

impl RequestError {
    /// The errno of whatever is wrong.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Permit(error) => error.errno(),
            Self::NotFound(error) => error.errno(),
            Self::Make(error) => error.errno(),
            Self::Remove(error) => error.errno(),
            Self::Read(error) => error.errno(),
            Self::Write(error) => error.errno(),
            Self::Attach(error) => error.errno(),
            Self::Attribute(error) => error.errno(),
            Self::Xattr(error) => error.errno(),
            Self::Kill(error) => error.errno(),
            Self::Effect(error) => error.errno(),
        }
    }
}

impl From<model::AttachError> for RequestError {
    fn from(error: model::AttachError) -> Self {
        AttachError::from(error).into()
    }
}

/// An error and its causes on one line; a cause that its effect already says is not repeated.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let why = error.to_string();
        if !text.ends_with(&why) {
            text.push_str(": ");
            text.push_str(&why);
        }
        cause = error.source();
    }
    text
}
