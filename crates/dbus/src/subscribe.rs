//! `Subscribe`: process events, with a realm or without.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pinfold_model::{Errno, GroupId};
use pinfold_realm::{Account, Caller, FrontEnd, Peer, Realm, Requester};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zbus::Variant;

use crate::error::Refusal;
use crate::group_name::GroupName;
use crate::{groups, select};

/// What somebody wants to be told of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Everything that the caller's pid namespace sees.
    All,
    /// A process of that number in the caller's pid namespace (0 is the caller), and its descendants.
    Subtree(u32),
    /// The processes of any of these groups, and of the groups below.
    Groups(Vec<GroupId>),
}

/// What the daemon needs in order to be subscribed to.
pub struct Events {
    /// Subscribes the caller, who is held while this is called: the stream is in the numbers of its namespaces and has
    /// nothing that it cannot see.
    pub subscribe: Box<Subscribe>,
}

/// Subscribes a caller, whose subscriptions count for an account, to a scope.
pub type Subscribe = dyn Fn(&Caller, Account, &Scope) -> Result<OwnedFd, Refusal> + Send + Sync;

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// A stream of events for a caller.
    pub(crate) fn subscribe(
        &self,
        requester: &Requester,
        realm: &Realm,
        wanted: &HashMap<String, Variant<'_>>,
    ) -> Result<OwnedFd, Refusal> {
        let scope = scope(requester, realm, wanted)?;
        let stream = (self.subscribe)(requester.caller(), requester.account(), &scope)?;
        if requester.is_there() { Ok(stream) } else { Err(gone()) }
    }
}

/// The namespaces of a stream were looked up by the caller's number: they were the caller's if it is still there.
fn gone() -> Refusal {
    Refusal::new(Errno::ESRCH, "the process that connected has ended")
}

fn scope(
    requester: &Requester,
    realm: &Realm,
    wanted: &HashMap<String, Variant<'_>>,
) -> Result<Scope, Refusal> {
    let mut wanted = wanted.iter();
    let Some((key, value)) = wanted.next() else { return Ok(Scope::All) };
    if wanted.next().is_some() {
        return Err(Refusal::new(Errno::EINVAL, "a subscription has one scope: a pid or a group"));
    }
    match (key.as_str(), value) {
        ("pid", Variant::U32(pid)) => Ok(Scope::Subtree(*pid)),
        ("group", Variant::Str(name)) => {
            let name: GroupName = name.parse().map_err(|error| Refusal::new(Errno::EINVAL, error))?;
            let found = select::groups(realm, requester, &name)?;
            for selected in &found {
                groups::may_look(realm, requester, selected)?;
            }
            Ok(Scope::Groups(found.into_iter().map(|selected| selected.group).collect()))
        }
        (key, value) => {
            let kind = value.value_signature();
            let text = format!(
                "no scope is called {key:?} with a value of type {kind}: known are pid (u) and group (s)"
            );
            Err(Refusal::new(Errno::EINVAL, text))
        }
    }
}

/// `org.pinfold.Manager1` where there is no realm: what everybody may do there.
pub(crate) struct Listener {
    peer: Peer,
    events: Arc<Events>,
}

impl Listener {
    /// The interface for who is at the other end.
    pub(crate) fn new(peer: Peer, events: Arc<Events>) -> Self {
        Self { peer, events }
    }

    fn stream(&self, wanted: &HashMap<String, Variant<'_>>) -> Result<OwnedFd, Refusal> {
        let scope = match wanted.iter().next() {
            None => Scope::All,
            Some((key, Variant::U32(pid))) if key == "pid" && wanted.len() == 1 => Scope::Subtree(*pid),
            Some((key, _)) if key == "group" => {
                return Err(Refusal::new(
                    Errno::ENODEV,
                    "this daemon serves process events alone: it has no groups",
                ));
            }
            Some(_) => return Err(Refusal::new(Errno::EINVAL, "the only scope here is a pid (u)")),
        };
        let Peer { uid, gid, process, ref pidfd, .. } = self.peer;
        let caller = Caller { uid, gid, task: process, via: FrontEnd::NONE };
        let stream = (self.events.subscribe)(&caller, Account::User(uid), &scope)?;
        // Before Linux 6.5 there is no descriptor: the number is all that is known.
        if pidfd.as_ref().is_some_and(has_ended) { Err(gone()) } else { Ok(stream) }
    }
}

fn has_ended(process: &OwnedFd) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&at_once)) {
            Ok(ready) => return ready != 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}

#[zbus::interface(name = "org.pinfold.Manager1", spawn = false)]
impl Listener {
    /// The daemon's version.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    /// Answers.
    async fn ping(&self) {}

    /// The process events of what the caller may see, over a socket of its own. See docs/events.md.
    #[zbus(out_args("events"))]
    async fn subscribe(&self, scope: HashMap<String, Variant<'_>>) -> Result<zbus::OwnedFd, Refusal> {
        self.stream(&scope).map(zbus::OwnedFd::from)
    }
}
