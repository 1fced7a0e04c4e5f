//! A realm for unit tests, without a v2 tree, of which nobody looks after anything.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pinfold_files::MountOptions;
use pinfold_model::{Gid, GroupId, GroupLimits, HostPid, Uid};

use crate::{Caller, Config, FrontEnd, Realm};

/// The realm, and the test as its caller.
pub(crate) struct Fixture {
    pub(crate) realm: Arc<Realm>,
    pub(crate) caller: Caller,
    pub(crate) state: PathBuf,
}

impl Fixture {
    /// Opens one of this name, which looks at who is there so often.
    pub(crate) fn new(name: &str, pause: Duration) -> Self {
        let state = std::env::temp_dir().join(format!("pinfold-{name}-{}", std::process::id()));
        let config = Config {
            name: name.to_owned(),
            state: state.clone(),
            base: None,
            strict: false,
            limits: GroupLimits::DEFAULT,
        };
        let polling = || Ok(pinfold_events::Source::polling(pause).expect("proc is there"));
        let realm = Realm::open_following(config, &polling).expect("it needs nothing");
        let task = HostPid::new(std::process::id());
        let caller = Caller { uid: Uid(0), gid: Gid(0), task, via: FrontEnd::NONE };
        Self { realm, caller, state }
    }

    /// The root of a new hierarchy.
    pub(crate) fn mount(&self, options: &str) -> GroupId {
        let options = MountOptions::parse(options, self.realm.enabled()).expect("user space does it");
        let mounted = self.realm.mount(&self.caller, &options).expect("not bound");
        self.realm.root(mounted).expect("mounted")
    }

    pub(crate) fn group(&self, parent: GroupId, name: &str) -> GroupId {
        self.realm.make(&self.caller, parent, name.as_ref(), 0o755).expect("new")
    }

    /// Leaves nothing.
    pub(crate) fn close(self) {
        self.realm.down().expect("nothing is in the way");
        drop(self.realm);
        std::fs::remove_dir_all(&self.state).ok();
    }
}
