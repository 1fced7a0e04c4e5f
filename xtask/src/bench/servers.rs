//! What is measured: a daemon with everything mounted, the null server, and a place in the v2 tree for the kernel's own
//! figures. All of it goes again, also when a measurement fails.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{PidfdFlags, Signal};

use crate::workspace;

/// How long a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// The programs, built for release.
pub(super) struct Programs {
    pinfold: PathBuf,
    null: PathBuf,
    null_service: PathBuf,
}

impl Programs {
    pub(super) fn build() -> Result<Self> {
        let pinfold = workspace::executables(&["build", "--release", "-p", "pinfold"])?;
        let example = ["build", "--release", "-p", "pinfold-fuse", "--example", "null_server"];
        let null = workspace::executables(&example)?;
        let example = ["build", "--release", "-p", "pinfold-dbus", "--example", "null_service"];
        let service = workspace::executables(&example)?;
        Ok(Self {
            pinfold: path_of(&pinfold, "pinfold")?,
            null: path_of(&null, "null_server")?,
            null_service: path_of(&service, "null_service")?,
        })
    }
}

fn path_of(built: &[workspace::Executable], name: &str) -> Result<PathBuf> {
    let found = built.iter().find(|executable| executable.target.name == name);
    Ok(found.with_context(|| format!("cargo built no {name}"))?.path.clone())
}

/// Everything that a measurement needs.
pub(super) struct Ground {
    daemon: Server,
    null: Server,
    _service: Service,
    reference: Directory,
    realm: PathBuf,
    place: Place,
}

impl Ground {
    pub(super) fn new(programs: &Programs) -> Result<Self> {
        let v2 = v2_mount()?;
        let name = format!("pinfold-bench-{}", std::process::id());
        let place = Place::new(&name)?;
        let reference = Directory::new(v2.join(&name))?;
        let mut null = Command::new(&programs.null);
        null.arg(place.null());
        let null = Server::start("null_server", &mut null, &place.null())?;
        let service = Service::start(&programs.null_service, &place.null_service())?;
        let realm = name.replace("pinfold-", "");
        let mut daemon = Command::new(&programs.pinfold);
        daemon.args(["serve", "--realm", &realm, "--state"]).arg(place.0.join("state"));
        daemon.arg("--mount").arg(format!("all,clone_children:{}", place.pinfold().display()));
        let daemon = Server::start("pinfold", &mut daemon, &place.pinfold())?;
        Ok(Self {
            daemon,
            null,
            _service: service,
            reference,
            realm: v2.join(format!("pinfold.{realm}")),
            place,
        })
    }

    /// A path in the mounted hierarchy.
    pub(super) fn pinfold(&self, path: &str) -> PathBuf {
        self.place.pinfold().join(path)
    }

    /// A path in the null server's mount.
    pub(super) fn null(&self, path: &str) -> PathBuf {
        self.place.null().join(path)
    }

    /// A path in the kernel's own v2 tree.
    pub(super) fn v2(&self, path: &str) -> PathBuf {
        self.reference.0.join(path)
    }

    /// How many v2 directories the realm has.
    pub(super) fn v2_directories(&self) -> Result<usize> {
        count_directories(&self.realm)
    }

    /// A file in the daemon's /proc directory.
    pub(super) fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.daemon.child.id().to_string()).join(file)
    }

    /// The socket that the daemon's owner comes in through.
    pub(super) fn owners_door(&self) -> PathBuf {
        self.place.0.join("state/socket")
    }

    /// The socket for everybody.
    pub(super) fn public_door(&self) -> PathBuf {
        self.place.0.join("state.public/socket")
    }

    /// The socket of the service that does nothing.
    pub(super) fn null_service(&self) -> PathBuf {
        self.place.null_service()
    }

    /// Resident memory of the daemon, in bytes.
    pub(super) fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: u32 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS")?;
        Ok(f64::from(kib) * 1024.0)
    }

    /// Ends the servers, and tells if one did not end well.
    pub(super) fn end(mut self) -> Result<()> {
        self.daemon.end()?;
        rustix::mount::unmount(self.place.null(), UnmountFlags::DETACH)?;
        self.null.wait()
    }
}

fn count_directories(dir: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            count += 1 + count_directories(&entry.path())?;
        }
    }
    Ok(count)
}

/// Where cgroup v2 is mounted.
fn v2_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (point, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(point))
    });
    found.context("no cgroup v2 mount")
}

/// A directory of the v2 tree, with what is made in it.
struct Directory(PathBuf);

impl Directory {
    fn new(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let below = fs::read_dir(&self.0).into_iter().flatten().flatten();
        for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            fs::remove_dir(entry.path()).ok();
        }
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}

/// A directory in memory, as /run is: mount points, and the daemon's state.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Result<Self> {
        let place = Self(std::env::temp_dir().join(name));
        fs::create_dir(&place.0)?;
        rustix::mount::mount("none", &place.0, "tmpfs", MountFlags::empty(), None)?;
        fs::create_dir(place.null())?;
        fs::create_dir(place.pinfold())?;
        Ok(place)
    }

    fn null(&self) -> PathBuf {
        self.0.join("null")
    }

    fn pinfold(&self) -> PathBuf {
        self.0.join("pinfold")
    }

    fn null_service(&self) -> PathBuf {
        self.0.join("null_service")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for dir in [self.null(), self.pinfold(), self.0.clone()] {
            // It may be unmounted already.
            rustix::mount::unmount(dir, UnmountFlags::DETACH).ok();
        }
        fs::remove_dir(&self.0).ok();
    }
}

/// A server that is mounted.
struct Server {
    name: &'static str,
    child: Child,
}

impl Server {
    fn start(name: &'static str, command: &mut Command, dir: &Path) -> Result<Self> {
        let child = command.stdin(Stdio::null()).spawn().with_context(|| name.to_owned())?;
        let mut server = Self { name, child };
        let deadline = Instant::now() + PATIENCE;
        let text = dir.display().to_string();
        while !fs::read_to_string("/proc/self/mounts")?
            .lines()
            .any(|line| line.split(' ').nth(1) == Some(&text))
        {
            if let Some(status) = server.child.try_wait()? {
                bail!("{name} ended: {status}");
            }
            if Instant::now() > deadline {
                bail!("{name} does not mount");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// As Ctrl-C does.
    fn end(&mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        let fd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        rustix::process::pidfd_send_signal(fd, Signal::INT)?;
        self.wait()
    }

    fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} ended: {status}", self.name),
                None if Instant::now() > deadline => bail!("{} does not end", self.name),
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.end().is_err() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// The D-Bus service that does nothing.
struct Service(Child);

impl Service {
    fn start(program: &Path, socket: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        let mut service = Self(command.arg(socket).stdin(Stdio::null()).spawn().context("null_service")?);
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(socket).is_err() {
            if let Some(status) = service.0.try_wait()? {
                bail!("null_service ended: {status}");
            }
            if Instant::now() > deadline {
                bail!("null_service does not listen");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(service)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A process that waits, for as long as it is kept.
pub(super) struct Sleeper(Child);

impl Sleeper {
    pub(super) fn start() -> Result<Self> {
        Ok(Self(Command::new("sleep").arg("100000").stdin(Stdio::null()).spawn().context("sleep")?))
    }

    /// Its number.
    pub(super) fn number(&self) -> u32 {
        self.0.id()
    }

    /// Its number, as it is written to a control file.
    pub(super) fn line(&self) -> String {
        format!("{}\n", self.0.id())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
