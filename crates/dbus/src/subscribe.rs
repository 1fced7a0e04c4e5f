//! `Subscribe`: process events.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use pinfold_model::{Errno, GroupId};
use pinfold_realm::{Caller, Realm, Requester};
use zbus::Variant;

use crate::error::{Refusal, chain};
use crate::group_name::GroupName;
use crate::select;

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

/// Subscribes a caller to a scope.
pub type Subscribe = dyn Fn(&Caller, &Scope) -> Result<OwnedFd, Refusal> + Send + Sync;

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
        (self.subscribe)(requester.caller(), &scope(requester, realm, wanted)?)
    }
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
                realm.look_for(requester, selected.group).map_err(|error| {
                    Refusal::new(error.errno(), format!("{}: {}", selected.name(), chain(&error)))
                })?;
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
