//! Who calls at a bus, by the name that it has there: the line to the thread that waits for it, or why there is none any more.
//!
//! A bus gives no name twice, so what is known of one holds until it has left. Where a bus knows its callers by their
//! numbers only, a name is looked up once: whoever holds the connection of a process that has ended could choose the moment
//! at which its number is another's.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use pinfold_realm::Account;
use zbus::names::OwnedUniqueName;
use zbus::{Message, message::Type};
use zruntime::mpmc;

/// What becomes of a caller of whom the bus has no pidfd (dbus before 1.15.8, or Linux before 6.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unheld {
    /// It is refused: its number may be another's by now.
    Refused,
    /// It is taken for the process that has its number and its user when it calls first.
    Taken,
}

/// Why a call at the bus is not carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum TurnedAway {
    /// As many clients are here as may be.
    #[error("no room for more clients of {0}")]
    NoRoom(Account),
    /// As many callers are looked up as may be at once.
    #[error("too many callers at once of whom it is not known who they are")]
    Crowd,
    /// The caller does not wait for answers.
    #[error("too many calls wait")]
    Calls,
    /// It would take descriptors that are kept for the owner's door.
    #[error("no descriptors for more calls that wait")]
    Descriptors,
    /// No method takes as much.
    #[error("the message is longer, or has more descriptors, than any call")]
    Long,
    /// The daemon ends.
    #[error("the daemon is ending")]
    Ending,
    /// The caller's connection inside the daemon has ended.
    #[error("the daemon has hung up")]
    HungUp,
    /// The process that connected to the bus is not there any more.
    #[error("{0}")]
    Gone(String),
    /// Who calls is not known, or is nobody who may.
    #[error("{0}")]
    Denied(String),
    /// The caller could have been served, had all gone well.
    #[error("{0}")]
    Failed(String),
}

impl TurnedAway {
    /// The D-Bus error that says the same.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::NoRoom(_) | Self::Crowd | Self::Calls | Self::Descriptors | Self::Long => {
                "org.freedesktop.DBus.Error.LimitsExceeded"
            }
            Self::Ending | Self::HungUp => "org.freedesktop.DBus.Error.Disconnected",
            Self::Gone(_) => "org.pinfold.Error.ESRCH",
            Self::Denied(_) => "org.freedesktop.DBus.Error.AccessDenied",
            Self::Failed(_) => "org.freedesktop.DBus.Error.Failed",
        }
    }
}

/// Everybody who called and is still at the bus.
#[derive(Debug)]
pub(crate) struct Callers {
    unheld: Unheld,
    lines: HashMap<OwnedUniqueName, Line>,
}

/// The line to the thread of a caller.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Its calls. Closed by the thread when it ends; when this is dropped, the caller has left, and the thread ends.
    pub(crate) calls: mpmc::Sender<Message>,
    /// Why the thread has ended, said before it closes the line.
    pub(crate) end: Arc<OnceLock<TurnedAway>>,
}

/// What is to be done with a caller's call.
#[derive(Debug)]
pub(crate) enum Standing<'l> {
    /// A thread waits for it.
    Served(&'l Line),
    /// It is turned away.
    TurnedAway(TurnedAway),
    /// Who calls must be found out.
    Unknown,
}

impl Callers {
    pub(crate) fn new(unheld: Unheld) -> Self {
        Self { unheld, lines: HashMap::new() }
    }

    /// Where a caller stands, if there is room for whom it counts for.
    pub(crate) fn standing(
        &self,
        name: &OwnedUniqueName,
        has_room: impl FnOnce(Account) -> bool,
    ) -> Standing<'_> {
        let Some(line) = self.lines.get(name) else { return Standing::Unknown };
        if !line.calls.is_closed() {
            return Standing::Served(line);
        }
        // A thread that panicked has said nothing.
        let why = line.end.get().unwrap_or(&TurnedAway::HungUp);
        let may_come_again = match (self.unheld, why) {
            (Unheld::Taken, _) => false,
            (Unheld::Refused, TurnedAway::NoRoom(account)) => has_room(*account),
            (Unheld::Refused, why) => *why == TurnedAway::HungUp,
        };
        if may_come_again { Standing::Unknown } else { Standing::TurnedAway(why.clone()) }
    }

    pub(crate) fn insert(&mut self, name: OwnedUniqueName, line: Line) {
        self.lines.insert(name, line);
    }

    /// Forgets who has left the bus. Its thread ends when the calls before that are passed on.
    pub(crate) fn leaves(&mut self, name: &OwnedUniqueName) {
        self.lines.remove(name);
    }
}

/// Who has left the bus, if this message of the bus itself tells it. Others may send one that looks the same, but for its
/// sender, which the bus writes into each.
pub(crate) fn who_left(message: &Message) -> Option<OwnedUniqueName> {
    const BUS: &str = "org.freedesktop.DBus";
    let header = message.header();
    let is_told = message.message_type() == Type::Signal
        && header.sender().is_some_and(|name| name.as_str() == BUS)
        && header.interface().is_some_and(|name| name.as_str() == BUS)
        && header.member().is_some_and(|name| name.as_str() == "NameOwnerChanged");
    if !is_told {
        return None;
    }
    let body = message.body();
    let (name, _, owner): (&str, &str, &str) = body.deserialize().ok()?;
    let has_left = owner.is_empty() && name.starts_with(':');
    has_left.then(|| name.to_owned().try_into().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use pinfold_model::Uid;

    use super::*;

    fn name() -> OwnedUniqueName {
        ":1.7".try_into().unwrap()
    }

    /// Whether a caller is looked up again after its thread has ended.
    fn is_looked_up_again(unheld: Unheld, end: Option<TurnedAway>, has_room: bool) -> bool {
        let mut callers = Callers::new(unheld);
        let (calls, thread) = mpmc::bounded(1.try_into().unwrap());
        let line = Line { calls, end: Arc::default() };
        callers.insert(name(), line.clone());
        assert!(matches!(callers.standing(&name(), |_| false), Standing::Served(_)));
        if let Some(end) = end.clone() {
            line.end.set(end).unwrap();
        }
        thread.close();
        match callers.standing(&name(), |_| has_room) {
            Standing::Unknown => true,
            Standing::TurnedAway(why) => {
                assert_eq!(why, end.unwrap_or(TurnedAway::HungUp), "it is said again");
                false
            }
            Standing::Served(_) => panic!("nobody is there"),
        }
    }

    #[test]
    fn a_name_whose_look_up_failed_is_never_looked_up_again() {
        use TurnedAway::*;
        let no_room = || Some(NoRoom(Account::User(Uid(1))));
        //   its end                       room   held   by number
        for (end, has_room, held, by_number) in [
            (Some(Gone("gone".into())), true, false, false),
            (Some(Denied("denied".into())), true, false, false),
            (Some(Failed("failed".into())), true, false, false),
            (no_room(), false, false, false),
            (no_room(), true, true, false),
            (Some(HungUp), true, true, false),
            (None, true, true, false),
        ] {
            assert_eq!(is_looked_up_again(Unheld::Refused, end.clone(), has_room), held, "{end:?}");
            assert_eq!(is_looked_up_again(Unheld::Taken, end.clone(), has_room), by_number, "{end:?}");
        }
    }

    #[test]
    fn who_has_left_is_forgotten_and_its_thread_hears_it() {
        let mut callers = Callers::new(Unheld::Refused);
        let (calls, thread) = mpmc::bounded(1.try_into().unwrap());
        callers.insert(name(), Line { calls, end: Arc::default() });
        callers.leaves(&name());
        assert!(matches!(callers.standing(&name(), |_| true), Standing::Unknown));
        assert!(thread.is_closed());
    }

    #[test]
    fn only_the_bus_tells_who_has_left() {
        let told = |sender: &str, member: &str, body: (&str, &str, &str)| {
            let signal = Message::signal("/org/freedesktop/DBus", "org.freedesktop.DBus", member);
            who_left(&signal.sender(sender).build(&body).unwrap())
        };
        let (bus, changed, left) = ("org.freedesktop.DBus", "NameOwnerChanged", (":1.7", ":1.7", ""));
        assert_eq!(told(bus, changed, left), Some(name()));
        assert_eq!(told(":1.8", changed, left), None);
        assert_eq!(told(bus, "NameLost", left), None);
        assert_eq!(told(bus, changed, (":1.7", "", ":1.7")), None, "it has come");
        assert_eq!(told(bus, changed, ("org.example", ":1.7", "")), None, "it is still there");
    }

    #[test]
    fn each_reason_has_the_error_that_says_it() {
        use TurnedAway::*;
        for (why, name) in [
            (NoRoom(Account::Host), "org.freedesktop.DBus.Error.LimitsExceeded"),
            (Crowd, "org.freedesktop.DBus.Error.LimitsExceeded"),
            (Calls, "org.freedesktop.DBus.Error.LimitsExceeded"),
            (Descriptors, "org.freedesktop.DBus.Error.LimitsExceeded"),
            (Long, "org.freedesktop.DBus.Error.LimitsExceeded"),
            (Ending, "org.freedesktop.DBus.Error.Disconnected"),
            (HungUp, "org.freedesktop.DBus.Error.Disconnected"),
            (Gone(String::new()), "org.pinfold.Error.ESRCH"),
            (Denied(String::new()), "org.freedesktop.DBus.Error.AccessDenied"),
            (Failed(String::new()), "org.freedesktop.DBus.Error.Failed"),
        ] {
            assert_eq!(why.name(), name);
        }
    }
}
