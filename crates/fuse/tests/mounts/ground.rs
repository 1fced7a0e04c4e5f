//! A mounted hierarchy of a test's own. The realm's base is a directory of the machine's v2 tree, its state a temporary
//! directory, and the mount is detached: it is reached through its descriptor and is in nobody's mount namespace.
//! Everything goes when the ground is dropped, also when the test fails.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pinfold_files::MountOptions;
use pinfold_fuse::{Mounts, What, default_threads};
use pinfold_model::{Gid, GroupLimits, HierarchyId, Uid};
use pinfold_realm::{Caller, Config, FrontEnd, Realm};

/// A realm with its mounts.
pub(crate) struct Ground {
    pub(crate) realm: Arc<Realm>,
    pub(crate) mounts: Mounts,
    config: Config,
    runner: Option<JoinHandle<()>>,
    children: Vec<Child>,
}

/// A detached mount.
pub(crate) struct Mounted {
    pub(crate) hierarchy: HierarchyId,
    fd: OwnedFd,
}

/// A test's own realm; `None`, with the reason printed, where the machine cannot have one.
pub(crate) fn ground() -> Option<Ground> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("pinfold-u-test-{}-{number}", std::process::id());
    let Some(v2) = v2_mount() else { return skip("no cgroup v2 mount") };
    if let Err(error) = File::options().read(true).write(true).open("/dev/fuse") {
        return skip(&format!("/dev/fuse: {error}"));
    }
    let base = v2.join(&name);
    if let Err(error) = fs::create_dir(&base) {
        return skip(&format!("{}: {error}", base.display()));
    }
    let state = std::env::temp_dir().join(&name);
    let config = Config {
        name: "test".to_owned(),
        state,
        base: Some(base),
        strict: false,
        limits: GroupLimits::DEFAULT,
    };
    let realm = Realm::open(config.clone()).unwrap();
    let running = Arc::clone(&realm);
    let runner = Some(std::thread::spawn(move || running.run()));
    let mounts = Mounts::new(Arc::clone(&realm));
    Some(Ground { realm, mounts, config, runner, children: Vec::new() })
}

/// Says why a test does not run here. Under CI everything runs.
pub(crate) fn skip<T>(reason: &str) -> Option<T> {
    assert!(std::env::var_os("CI").is_none(), "cannot run in CI: {reason}");
    assert!(std::env::var_os("PINFOLD_TEST_VM").is_none(), "skipped in the guest: {reason}");
    eprintln!("skipped: {reason}");
    None
}

fn v2_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (point, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(point))
    })
}

/// This test process, through no front end that caches.
pub(crate) fn elsewhere() -> Caller {
    Caller { uid: Uid(0), gid: Gid(0), task: None, via: FrontEnd::NONE }
}

/// Waits for what another thread or process does, at most ten seconds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        std::thread::yield_now();
    }
}

impl Ground {
    pub(crate) fn what(&self, options: &str) -> What {
        let parsed = MountOptions::parse(options, self.realm.enabled()).unwrap();
        let hierarchy = self.realm.mount(&elsewhere(), &parsed).unwrap();
        What { hierarchy, source: options.to_owned(), threads: default_threads() }
    }

    pub(crate) fn mount(&self, options: &str) -> Mounted {
        let what = self.what(options);
        Mounted { hierarchy: what.hierarchy, fd: self.mounts.detached(&what).unwrap() }
    }

    /// A process of the test's own that waits.
    pub(crate) fn sleeper(&mut self) -> u32 {
        let child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        self.children.push(child);
        pid
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
        self.mounts.stop().ok();
        self.realm.stop();
        if let Some(runner) = self.runner.take() {
            runner.join().ok();
        }
        if let Err(error) = self.realm.down() {
            eprintln!("the realm does not go down: {error:?}");
        }
        if let Some(base) = &self.config.base {
            fs::remove_dir(base).ok();
        }
        fs::remove_dir_all(&self.config.state).ok();
    }
}

impl Mounted {
    /// A path in the mount.
    pub(crate) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        Path::new("/proc/self/fd").join(self.fd.as_raw_fd().to_string()).join(path)
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(crate) fn read(&self, path: &str) -> String {
        let mut text = String::new();
        File::open(self.at(path)).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    pub(crate) fn write(&self, path: &str, text: &str) -> std::io::Result<()> {
        File::options().write(true).open(self.at(path))?.write_all(text.as_bytes())
    }

    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(path)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}
