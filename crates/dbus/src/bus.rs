//! What clients say first that know bus daemons only (busctl, gdbus): `Hello`, and what they ask a bus about names. There is
//! one name here, which is the daemon, whatever a client calls it.

/// The object that it is at.
pub(crate) const PATH: &str = "/org/freedesktop/DBus";
/// The daemon's name, and the client's.
const DAEMON: &str = ":1.0";
const CLIENT: &str = ":1.1";

/// `org.freedesktop.DBus`, as far as it means anything between two.
pub(crate) struct Bus;

#[zbus::interface(name = "org.freedesktop.DBus", spawn = false)]
impl Bus {
    async fn hello(&self) -> &str {
        CLIENT
    }

    async fn get_name_owner(&self, _name: &str) -> &str {
        DAEMON
    }

    async fn name_has_owner(&self, _name: &str) -> bool {
        true
    }

    /// Signals come without asking.
    async fn add_match(&self, _rule: &str) {}

    async fn remove_match(&self, _rule: &str) {}
}
