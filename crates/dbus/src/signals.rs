//! `Watch`: `GroupCreated`, `HierarchyMounted` and their opposites, for who asks for them.
//!
//! A change is put into the line of each connection that watches, and nobody is waited for. What it is called is found out
//! by that connection's own thread, as for an answer: names begin at the watcher's own group, and what is neither that nor
//! below is not told. Of hierarchies everybody may know (`ListHierarchies`). A line that is full loses changes; `SignalsLost` says that it did.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pinfold_realm::{Changed, Fate, GroupChange, HierarchyChange, Realm, Requester};
use zbus::Message;
use zbus::object_server::SignalEmitter;
use zbus::wire::DynamicType;
use zruntime::mpmc;

use crate::manager::Daemon;
use crate::wire::INTERFACE;
use crate::{bus, select};

/// How many changes may wait for a client to take the ones before.
const MOST_WAITING: NonZeroUsize = NonZeroUsize::new(256).expect("not 0");

/// Everybody who watches.
#[derive(Clone, Default, Debug)]
pub struct Signals(Arc<Mutex<Vec<Line>>>);

/// What watchers are told of.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Change {
    Group(GroupChange),
    Hierarchy(HierarchyChange),
}

/// The daemon's end of a watcher's line.
#[derive(Debug)]
struct Line {
    changes: mpmc::Sender<Change>,
    has_lost: Arc<AtomicBool>,
}

/// The watcher's end.
#[derive(Debug)]
pub(crate) struct Changes {
    changes: mpmc::Receiver<Change>,
    has_lost: Arc<AtomicBool>,
}

impl Signals {
    /// Signals of what changes in a realm from now on.
    pub fn of(realm: &Realm) -> Self {
        let signals = Self::default();
        let told = signals.clone();
        realm.watch(move |changed| match changed {
            Changed::Group(change) => told.tell(&Change::Group(change.clone())),
            Changed::Hierarchy(change) => told.tell(&Change::Hierarchy(change.clone())),
            Changed::Entry { .. } | Changed::Attributes { .. } => {}
        });
        signals
    }

    fn tell(&self, change: &Change) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|line| match line.changes.try_send(change.clone()) {
            Ok(()) => true,
            Err(_) if line.changes.is_closed() => false,
            Err(_) => {
                line.has_lost.store(true, Ordering::Relaxed);
                true
            }
        });
    }

    /// A line for a new watcher.
    pub(crate) fn watch(&self) -> Changes {
        let (sender, receiver) = mpmc::bounded(MOST_WAITING);
        let has_lost = Arc::new(AtomicBool::new(false));
        let line = Line { changes: sender, has_lost: Arc::clone(&has_lost) };
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those who have left, of whom nothing else tells while no group changes.
        lines.retain(|line| !line.changes.is_closed());
        lines.push(line);
        Changes { changes: receiver, has_lost }
    }
}

impl Changes {
    /// Sends what comes to a client, for as long as it takes it.
    pub(crate) async fn emit(self, daemon: &Daemon, requester: &Requester, to: &SignalEmitter<'_>) {
        while let Ok(change) = self.changes.recv().await {
            let lost = self.has_lost.swap(false, Ordering::Relaxed);
            let sent = match change {
                Change::Group(change) => match (name_of(&daemon.realm, requester, &change), change.fate) {
                    (None, _) => Ok(()),
                    (Some(name), Fate::Created) => send(to, "GroupCreated", &name).await,
                    (Some(name), Fate::Removed) => send(to, "GroupRemoved", &name).await,
                },
                Change::Hierarchy(HierarchyChange { label, fate: Fate::Created }) => {
                    send(to, "HierarchyMounted", &label).await
                }
                Change::Hierarchy(HierarchyChange { label, fate: Fate::Removed }) => {
                    send(to, "HierarchyRemoved", &label).await
                }
            };
            let told = if lost { send(to, "SignalsLost", &()).await } else { Ok(()) };
            if let Err(error) = sent.and(told) {
                tracing::debug!(%error, "a client that watches takes no more");
                return;
            }
        }
    }
}

/// Sends a signal that the interface declares. At a socket who knows buses only (GLib) asks who has the daemon's name, and takes
/// for its signals what says that it comes from that one; a bus writes there who it was.
async fn send(
    to: &SignalEmitter<'_>,
    member: &'static str,
    body: &(impl serde::Serialize + DynamicType),
) -> zbus::Result<()> {
    let mut signal = Message::signal(to.path(), INTERFACE, member).sender(bus::DAEMON);
    if let Some(watcher) = to.destination() {
        signal = signal.destination(watcher);
    }
    to.connection().send(&signal.build(body)?).await
}

/// What the requester calls the group; `None` if it may not know of it, or if the group above has gone meanwhile, of
/// which it is told instead.
fn name_of(realm: &Realm, requester: &Requester, change: &GroupChange) -> Option<String> {
    let above = realm.path_for(requester, change.parent).ok()??;
    if !realm.sees_below(requester, change.parent).ok()? {
        return None;
    }
    let hierarchy = realm.hierarchies().into_iter().find(|hierarchy| hierarchy.id == change.hierarchy)?;
    let path = select::child_path(&above.to_string_lossy(), &change.name);
    Some(select::full_name(&hierarchy.label, path))
}

#[cfg(test)]
mod tests {
    use pinfold_model::{GroupId, HierarchyId};

    use super::*;

    #[test]
    fn who_watches_and_leaves_again_and_again_has_one_line_at_a_time() {
        let signals = Signals::default();
        let stays = signals.watch();
        for _ in 0..1000 {
            drop(signals.watch());
        }
        assert!(
            signals.0.lock().unwrap().len() <= 2,
            "one stays, and the last one's line goes with the next"
        );
        drop(stays);
    }

    #[test]
    fn a_line_that_is_full_loses_and_says_so_and_the_next_is_not_disturbed() {
        let signals = Signals::default();
        let (slow, quick) = (signals.watch(), signals.watch());
        let gone = signals.watch();
        drop(gone);
        let change = Change::Group(GroupChange {
            hierarchy: HierarchyId::new(1).unwrap(),
            parent: GroupId::new(1).unwrap(),
            name: "a".into(),
            fate: Fate::Created,
        });
        for _ in 0..MOST_WAITING.get() + 1 {
            signals.tell(&change);
            assert_eq!(quick.changes.try_recv().unwrap(), change);
        }
        assert!(slow.has_lost.load(Ordering::Relaxed) && !quick.has_lost.load(Ordering::Relaxed));
        assert_eq!(slow.changes.len(), MOST_WAITING.get());
        assert_eq!(signals.0.lock().unwrap().len(), 2, "who has left has no line");
    }
}
