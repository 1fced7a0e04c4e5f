//! What clients say first that know bus daemons only (busctl, gdbus): `Hello`, and what they ask a bus about names. There is
//! one name here, which is the daemon, whatever a client calls it.

use zbus::message::Header;
use zbus::{Connection, ObjectServer};

use crate::manager::Manager;
use crate::wire::{self, INTERFACE};

/// The object that it is at.
pub(crate) const PATH: &str = "/org/freedesktop/DBus";
/// The daemon's name, and the client's.
pub(crate) const DAEMON: &str = ":1.0";
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

    /// Who wants to be sent signals of a bus that is not there gets those of the daemon.
    async fn add_match(
        &self,
        rule: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(object_server)] server: &ObjectServer,
        #[zbus(header)] call: Header<'_>,
    ) -> zbus::fdo::Result<()> {
        if is_about_the_daemon(rule)
            && let Ok(manager) = server.interface::<_, Manager>(wire::PATH).await
        {
            manager.get().await.start_watching(connection, &call)?;
        }
        Ok(())
    }

    /// Ends nothing: rules are not kept, so which of them was the last is not known. `Unwatch` ends it.
    async fn remove_match(&self, _rule: &str) {}
}

/// Whether a match rule takes signals of the daemon's interface: it does if it names no other.
fn is_about_the_daemon(rule: &str) -> bool {
    rule.split(',').all(|part| match part.trim().split_once('=') {
        Some(("interface", name)) => name.trim_matches('\'') == INTERFACE,
        Some(("sender", name)) => name.trim_matches('\'') != "org.freedesktop.DBus",
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::is_about_the_daemon;

    #[test]
    fn rules_about_the_bus_are_not_about_the_daemon() {
        for (rule, is) in [
            ("type='signal',sender='org.pinfold'", true),
            ("type='signal',interface='org.pinfold.Manager1',path='/org/pinfold/Manager'", true),
            ("", true),
            ("type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged'", false),
            ("type='signal',interface='org.freedesktop.DBus.Properties'", false),
        ] {
            assert_eq!(is_about_the_daemon(rule), is, "{rule}");
        }
    }
}
