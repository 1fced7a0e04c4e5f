//! Who asks.

use pinfold_model::{Gid, HostPid, Uid};

/// The task that asks for something, in the daemon's namespaces. Front ends take it from the kernel (the FUSE request
/// header, SO_PEERCRED), never from a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// Effective (file system) user id.
    pub uid: Uid,
    /// Effective (file system) group id.
    pub gid: Gid,
    /// Its thread; `None` if it is in a pid namespace that the daemon does not see.
    pub task: Option<HostPid>,
    /// Through which front end.
    pub via: FrontEnd,
}

/// Who opened a file: for what is written to it rights count as they were then, whoever writes. As the kernel does it (`f_cred`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opener {
    /// Effective (file system) user id.
    pub uid: Uid,
    /// Whether it had CAP_SYS_ADMIN in the daemon's user namespace. It is asked about files alone of which that matters.
    pub is_admin: bool,
}

/// One mount, or one other front end: whose caches need not be told of a change that came through it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FrontEnd(pub u32);

impl FrontEnd {
    /// A front end that caches nothing (D-Bus, the daemon itself).
    pub const NONE: Self = Self(0);
}
