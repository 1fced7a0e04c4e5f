//! A realm of a test's own: its base is a directory of the machine's v2 tree, its state a temporary directory. Both
//! go when it is dropped, also when the test fails.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pinfold_files::MountOptions;
use pinfold_kernel::Tree;
use pinfold_model::{Gid, GroupId, GroupLimits, HierarchyId, HostPid, Uid};
use pinfold_realm::{Caller, Config, FrontEnd, Node, OpenError, Realm};

pub(crate) struct Fixture {
    realm: Option<Arc<Realm>>,
    config: Config,
    runner: Option<JoinHandle<()>>,
    children: Vec<Child>,
    /// Goes last.
    _made: Made,
}

/// Directories of the v2 tree that are the test's own.
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for dir in self.0.iter().rev() {
            fs::remove_dir(dir).ok();
        }
    }
}

/// A test's own realm; `None`, with the reason printed, where the machine has no v2 tree that it can write to.
pub(crate) fn fixture() -> Option<Fixture> {
    let name = fresh_name();
    fixture_of(&name, std::env::temp_dir().join(&name))
}

/// The same, with a state directory of the test's choice.
pub(crate) fn fixture_in(state: &Path) -> Option<Fixture> {
    fixture_of(&fresh_name(), state.to_owned())
}

/// The same, in a base that no v2 controller was delegated to. Two directories: the upper one passes none on.
pub(crate) fn fixture_without_controllers(strict: bool) -> Option<Fixture> {
    let name = fresh_name();
    fixture_at(&[&name, "inner"], std::env::temp_dir().join(&name), strict)
}

fn fresh_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("pinfold-test-{}-{number}", std::process::id())
}

/// Why a test does not run here: neither in CI nor in a guest is anything a reason.
pub(crate) fn skip<T>(reason: &str) -> Option<T> {
    assert!(std::env::var_os("CI").is_none(), "cannot run in CI: {reason}");
    assert!(std::env::var_os("PINFOLD_TEST_VM").is_none(), "skipped in the guest: {reason}");
    eprintln!("skipped: {reason}");
    None
}

fn fixture_of(name: &str, state: PathBuf) -> Option<Fixture> {
    fixture_at(&[name], state, false)
}

/// `path`: the directories that are made below the top of the v2 tree, one in the other; the last one is the base.
fn fixture_at(path: &[&str], state: PathBuf, strict: bool) -> Option<Fixture> {
    let v2 = match Tree::discover() {
        Ok(v2) => v2,
        Err(error) => return skip(&error.to_string()),
    };
    let mut made = Made(Vec::new());
    let mut base = v2.point;
    for name in path {
        base = base.join(name);
        if let Err(error) = fs::create_dir(&base) {
            return skip(&format!("{}: {error}", base.display()));
        }
        made.0.push(base.clone());
    }
    let config =
        Config { name: "test".into(), state, base: Some(base), strict, limits: GroupLimits::DEFAULT };
    let realm =
        Realm::open(config.clone()).unwrap_or_else(|error| panic!("a fresh realm does not open: {error:?}"));
    let runner = Some(run(&realm));
    Some(Fixture { realm: Some(realm), config, runner, children: Vec::new(), _made: made })
}

fn run(realm: &Arc<Realm>) -> JoinHandle<()> {
    let realm = Arc::clone(realm);
    std::thread::spawn(move || realm.run())
}

/// This test process, as root.
pub(crate) fn root() -> Caller {
    let task = HostPid::new(std::process::id());
    Caller { uid: Uid(0), gid: Gid(0), task, via: FrontEnd::NONE }
}

impl Fixture {
    pub(crate) fn base(&self) -> &Path {
        self.config.base.as_deref().expect("tests have a base")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.config.state.clone()
    }

    pub(crate) fn options(&self, text: &str) -> MountOptions {
        MountOptions::parse(text, self.realm().enabled()).expect(text)
    }

    pub(crate) fn mount(&self, options: &str) -> HierarchyId {
        self.realm().mount(&root(), &self.options(options)).expect(options)
    }

    /// The group at a path, made if it is not there.
    pub(crate) fn group(&self, hierarchy: HierarchyId, path: &str) -> GroupId {
        let root_group = self.realm().root(hierarchy).expect("the hierarchy is there");
        path.split('/').filter(|name| !name.is_empty()).fold(root_group, |at, name| {
            match self.realm().lookup(at, OsStr::new(name)) {
                Ok(Node::Group(group)) => group,
                _ => self.realm().make(&root(), at, OsStr::new(name), 0o755).expect(path),
            }
        })
    }

    pub(crate) fn remove(
        &self,
        hierarchy: HierarchyId,
        path: &str,
    ) -> Result<(), pinfold_realm::RemoveError> {
        let (above, name) = path.rsplit_once('/').expect("an absolute path");
        let parent = self.realm().resolve(hierarchy, OsStr::new(above)).expect(path);
        self.realm().remove(&root(), parent, OsStr::new(name))
    }

    pub(crate) fn read(&self, group: GroupId, file: &str) -> String {
        let Ok(Node::File(group, id)) = self.realm().lookup(group, OsStr::new(file)) else {
            panic!("{file} is not there")
        };
        String::from_utf8(self.realm().read(&root(), group, id).expect(file)).expect("control files are text")
    }

    pub(crate) fn write(
        &self,
        group: GroupId,
        file: &str,
        text: &str,
    ) -> Result<(), pinfold_realm::WriteError> {
        let Ok(Node::File(group, id)) = self.realm().lookup(group, OsStr::new(file)) else {
            panic!("{file} is not there")
        };
        let opener = self.realm().opener(&root(), id, true);
        self.realm().write(&root(), opener, group, id, text.as_bytes())
    }

    /// A process of the test's own that waits.
    pub(crate) fn sleeper(&mut self) -> u32 {
        self.start("exec sleep 600")
    }

    /// A process of the test's own that uses the CPU.
    pub(crate) fn burner(&mut self) -> u32 {
        self.start("while :; do :; done")
    }

    /// A process of the test's own that runs a script of the shell.
    pub(crate) fn start(&mut self, script: &str) -> u32 {
        let child =
            Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().expect("sh is there");
        let pid = child.id();
        self.children.push(child);
        pid
    }

    /// Ends a sleeper and reaps it.
    pub(crate) fn end(&mut self, pid: u32) {
        let at = self.children.iter().position(|child| child.id() == pid).expect("a sleeper of this test");
        let mut child = self.children.remove(at);
        child.kill().expect("it was not reaped");
        child.wait().expect("it was not reaped");
    }

    /// As after kill -9: everything in memory is gone, nothing was cleaned up; then a new daemon.
    pub(crate) fn crash_and_restart(&mut self) {
        self.crash_and_restart_after(|_| {});
    }

    /// The same, with something done to the state directory while no daemon runs.
    pub(crate) fn crash_and_restart_after(&mut self, meanwhile: impl FnOnce(&Path)) {
        self.stop();
        self.realm = None; // the lock goes with the last reference
        meanwhile(&self.config.state);
        // A child that another test is about to start has a copy of the lock's descriptor until it has become its program.
        eventually("the lock is free", || match Realm::open(self.config.clone()) {
            Err(OpenError::InUse { .. }) => false,
            opened => {
                self.realm = Some(opened.expect("a realm opens again after a crash"));
                true
            }
        });
        self.runner = Some(run(self.realm()));
    }

    pub(crate) fn realm(&self) -> &Arc<Realm> {
        self.realm.as_ref().expect("there is a realm but while it restarts")
    }

    /// Leaves cleanly, before the end of the test.
    pub(crate) fn leave(&mut self) {
        self.stop();
        self.realm().down().expect("nothing is in the way");
    }

    fn stop(&mut self) {
        self.realm().stop();
        if let Some(runner) = self.runner.take() {
            runner.join().expect("the realm's threads do not panic");
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
        self.stop();
        if let Err(error) = self.realm().down() {
            eprintln!("down: {error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
        }
    }
}

/// Waits until something is so; fails the test if it is not within five seconds.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !is_so() {
        assert!(Instant::now() < end, "still not so after 5 s: {what}");
        std::thread::yield_now();
    }
}
