//! `cgroup.event_control`: from the writer's descriptors to somebody who is told.
//!
//! Nothing here opens or closes a control file: the writer's descriptor may be the last one of a file of our own mounts,
//! and closing it would ask the thread that is here. Whose file it is, front ends know by its numbers.

use std::sync::{Arc, RwLock};

use pinfold_files::FileId;
use pinfold_files::notice::{Notice, Registration};
use pinfold_kernel::listener::{Closers, DescriptorError, Listener, file_behind};
use pinfold_model::{GroupGone, GroupId, Ownership, Uid};

use crate::attach::Authority;
use crate::{Account, Caller, NoPlace, Node, NoticeError, Realm, WriteError};

/// Threads that close what was in the place of an eventfd: as many of one user's or container's as at the sockets.
static CLOSING: Closers<Account> = Closers::new(64);

/// Says which node has this device and inode number in a front end; `None` if none of its has.
type Finder = Box<dyn Fn((u32, u32), u64) -> Option<Node> + Send + Sync>;

/// The front ends that show nodes as files.
#[derive(Default)]
pub(crate) struct Finders(RwLock<Vec<Finder>>);

impl Realm {
    /// Has `finder` asked which node a file is that a caller has open: by device (major, minor) and inode number. It must
    /// not call back or block.
    pub fn find_with(&self, finder: impl Fn((u32, u32), u64) -> Option<Node> + Send + Sync + 'static) {
        self.finders.0.write().expect("no finder panics while the list is held").push(Box::new(finder));
    }

    fn node_of(&self, device: (u32, u32), inode: u64) -> Option<Node> {
        let finders = self.finders.0.read().expect("no finder panics while the list is held");
        finders.iter().find_map(|finder| finder(device, inode))
    }

    /// Has somebody told from now on. What is wrong is said in the order of memcg_write_event_control(): the eventfd, the
    /// control file, the argument.
    pub(crate) fn register(
        &self,
        authority: Authority<'_>,
        group: GroupId,
        file: FileId,
        asked: &Registration,
    ) -> Result<(), WriteError> {
        let (caller, asked_at) = (authority.caller(), file);
        let task = caller.task.ok_or(NoticeError::CallerUnseen)?;
        let (writer, _) = self.pins.open(task).map_err(DescriptorError::from).map_err(NoticeError::from)?;
        let account = Account::of(task, authority.uid()).map_err(|_| NoticeError::CallerUnseen)?;
        let listener = Listener::take(Arc::clone(&writer), asked.eventfd, &CLOSING, account);
        let listener = listener.map_err(NoticeError::from)?;
        let behind = file_behind(&writer, asked.control, &CLOSING, account).map_err(NoticeError::from)?;
        let not_ours = || NoticeError::NotOurs(asked.control);
        let Some(Node::File(of, file)) = self.node_of(behind.device, behind.inode) else {
            return Err(not_ours().into());
        };
        // A group that was removed has no file any more.
        let attributes = self.attributes(Node::File(of, file)).map_err(|_| not_ours())?;
        if !may_read(caller, &attributes.ownership) {
            return Err(NoticeError::Unreadable(pinfold_files::full_name(file, false).into_owned()).into());
        }
        if of != group {
            return Err(not_ours().into());
        }
        let notice = Notice::parse(file, &asked.argument, &self.facts)?.ok_or_else(not_ours)?;
        // Seen before other changes have to wait: what happens in between is told.
        let matter = self.matter(group, notice).map_err(NoticeError::from)?;
        let _change = self.begin_change()?;
        self.still_may_write(authority, group, asked_at)?;
        self.lock_forest().group(group).ok_or(GroupGone(group))?;
        let listening = self.notices.listen(account, group, listener, matter);
        Ok(listening.map_err(|no_place| match no_place {
            NoPlace::OfAccount => NoticeError::TooManyOf(account),
            NoPlace::InAll => NoticeError::TooMany,
        })?)
    }
}

/// file_permission(MAY_READ), as far as a front end tells who asks: supplementary groups are not known.
fn may_read(caller: &Caller, ownership: &Ownership) -> bool {
    let bits = match () {
        () if caller.uid == ownership.uid => 0o400,
        () if caller.gid == ownership.gid => 0o040,
        () => 0o004,
    };
    caller.uid == Uid(0) || ownership.mode & bits != 0
}
