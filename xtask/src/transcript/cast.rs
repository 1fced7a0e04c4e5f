//! The processes that a script has named, as the runner sees them.
//!
//! Every helper connects to one socket; its credentials there give its pid in the runner's namespace, whatever
//! namespace it lives in. Signals go through pidfds only.

use super::hold;
use super::mounts::Mounter;
use super::words::quote;
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a helper may take for anything it is not expected to hang in. Guests without KVM are slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// All named processes of a run.
pub(super) struct Cast {
    socket: PathBuf,
    listener: UnixListener,
    mounter: Mounter,
    members: BTreeMap<String, Member>,
}

struct Member {
    pidfd: OwnedFd,
    pid: Pid,
    /// Ids of the threads beside the first.
    threads: Vec<String>,
    stream: BufReader<UnixStream>,
    child: Option<Child>,
    parent: Option<String>,
    /// Whether it lives in a pid namespace of its own, so that ids it reads mean other processes here.
    has_own_pids: bool,
}

/// How a process is to be started.
#[derive(Default)]
pub(super) struct Manner {
    /// User and group, if not root.
    pub(super) user: Option<(u32, u32)>,
    /// How many threads wait beside the first.
    pub(super) threads: usize,
    /// Whether it starts a pid namespace of its own.
    pub(super) own_pids: bool,
    /// The first user and group, and how many, of a user namespace of its own, in which it is root.
    pub(super) own_users: Option<(u32, u32)>,
}

/// What came of waiting for a helper's answer.
pub(super) enum Answer {
    /// The lines it gave.
    Lines(Vec<String>),
    /// Nothing in the time allowed.
    None,
}

impl Cast {
    /// A cast with no members, whose socket is in `dir`.
    pub(super) fn new(dir: &Path, mounter: Mounter) -> Result<Self> {
        let socket = dir.join("socket");
        let listener =
            UnixListener::bind(&socket).with_context(|| format!("cannot listen at {}", socket.display()))?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777))?;
        Ok(Self { socket, listener, mounter, members: BTreeMap::new() })
    }

    /// Starts `name` as a child of the runner.
    pub(super) fn spawn(&mut self, name: &str, manner: &Manner) -> Result<()> {
        let mut command = hold::command(name, self.socket.as_os_str(), &self.mounter)?;
        if manner.own_pids {
            command = in_new_pid_namespace(&command);
        }
        let holder = manner.own_users.map(|(first, count)| Holder::of_users(first, count)).transpose()?;
        if let Some(holder) = &holder {
            command = holder.inside(&command);
        }
        command.arg(format!("--threads={}", manner.threads));
        if let Some((uid, gid)) = manner.user {
            command.uid(uid).gid(gid);
        }
        let child = command.spawn().context("cannot start a helper")?;
        let mut member = self.welcome(name)?;
        drop(holder);
        member.child = Some(child);
        member.has_own_pids = manner.own_pids;
        self.members.insert(name.to_owned(), member);
        Ok(())
    }

    /// Tells `parent` to start `name`; its answer is the transcript's.
    pub(super) fn fork(&mut self, parent: &str, name: &str) -> Result<Vec<String>> {
        let lines = self.tell(parent, &["fork".into(), name.into()])?;
        if lines == ["ok"] {
            let mut member = self.welcome(name)?;
            member.parent = Some(parent.to_owned());
            member.has_own_pids = self.member(parent)?.has_own_pids;
            self.members.insert(name.to_owned(), member);
        }
        Ok(lines)
    }

    /// Lets `actor` (`NAME` or `NAME.THREAD`) perform `words` and waits for its answer.
    pub(super) fn tell(&mut self, actor: &str, words: &[OsString]) -> Result<Vec<String>> {
        self.send(actor, words)?;
        match self.answer(actor, PATIENCE)? {
            Answer::Lines(lines) => Ok(lines),
            Answer::None => bail!("{actor} did not answer in {} s", PATIENCE.as_secs()),
        }
    }

    /// Sends `words` to `actor` and does not wait.
    pub(super) fn send(&mut self, actor: &str, words: &[OsString]) -> Result<()> {
        let (name, thread) =
            actor.split_once('.').map_or((actor, None), |(name, thread)| (name, Some(thread)));
        let mut line: String = thread.map(|number| format!("thread {number} ")).unwrap_or_default();
        let quoted: Vec<String> = words.iter().map(|word| quote(word.as_bytes())).collect();
        line.push_str(&quoted.join(" "));
        line.push('\n');
        let stream = self.member(name)?.stream.get_mut();
        stream.write_all(line.as_bytes()).with_context(|| format!("{name} does not listen"))
    }

    /// Waits for the answer to what was sent.
    pub(super) fn answer(&mut self, actor: &str, patience: Duration) -> Result<Answer> {
        let name = actor.split('.').next().unwrap_or(actor);
        let member = self.member(name)?;
        member.stream.get_ref().set_read_timeout(Some(patience))?;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            match member.stream.read_line(&mut line) {
                Ok(0) => bail!("{name} ended before it answered"),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && lines.is_empty() => {
                    return Ok(Answer::None);
                }
                Err(error) => return Err(error).context(format!("{name} does not answer")),
            }
            match line.trim_end_matches('\n') {
                "." => return Ok(Answer::Lines(lines)),
                text => match text.strip_prefix('!') {
                    Some(message) => bail!("{actor}: {message}"),
                    None => lines.push(text.to_owned()),
                },
            }
        }
    }

    /// Tells `name` to exit and waits until it has; it stays a zombie until [`Cast::reap`].
    pub(super) fn exit(&mut self, name: &str, code: &str) -> Result<()> {
        self.send(name, &["exit".into(), code.into()])?;
        ensure!(self.ends_within(name, PATIENCE)?, "{name} did not exit");
        Ok(())
    }

    /// Sends a signal.
    pub(super) fn signal(&mut self, name: &str, signal: Signal) -> Result<()> {
        pidfd_send_signal(&self.member(name)?.pidfd, signal).with_context(|| format!("cannot signal {name}"))
    }

    /// Whether `name` ends (as a zombie, or altogether) in the time given.
    pub(super) fn ends_within(&mut self, name: &str, patience: Duration) -> Result<bool> {
        let member = self.member(name)?;
        let mut fds = [PollFd::new(&member.pidfd, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&Timespec::try_from(patience)?))? > 0)
    }

    /// Lets the parent of `name` collect its exit status.
    pub(super) fn reap(&mut self, name: &str) -> Result<()> {
        let member = self.member(name)?;
        if let Some(child) = &mut member.child {
            child.wait()?;
        } else if let Some(parent) = member.parent.clone() {
            self.tell(&parent, &["reap".into(), name.into()])?;
        }
        Ok(())
    }

    /// Kills whoever is left, so that no process outlives the run.
    pub(super) fn dismiss(&mut self) {
        let names: Vec<String> = self.members.keys().cloned().collect();
        for name in &names {
            let _already_dead = self.signal(name, Signal::KILL);
        }
        for name in &names {
            let _ends = self.ends_within(name, PATIENCE);
            if let Some(child) = self.members.get_mut(name).and_then(|member| member.child.as_mut()) {
                let _status = child.wait();
            }
        }
        self.members.clear();
    }

    /// The id that `NAME` or `NAME.THREAD` stands for.
    pub(super) fn id(&self, name: &str) -> Option<String> {
        match name.split_once('.') {
            None => self.members.get(name).map(|member| member.pid.as_raw_nonzero().to_string()),
            Some((name, number)) => {
                let number: usize = number.parse().ok()?;
                self.members.get(name)?.threads.get(number.checked_sub(1)?).cloned()
            }
        }
    }

    /// The name that an id stands for: the latest process to have had it.
    pub(super) fn name_of(&self, id: &str) -> Option<String> {
        self.members.iter().find_map(|(name, member)| {
            if member.pid.as_raw_nonzero().to_string() == id {
                return Some(name.clone());
            }
            let number = member.threads.iter().position(|thread| thread == id)? + 1;
            Some(format!("{name}.{number}"))
        })
    }

    /// Whether ids that `actor` reads are of another pid namespace than the runner's.
    pub(super) fn has_own_pids(&self, actor: &str) -> bool {
        let name = actor.split('.').next().unwrap_or(actor);
        self.members.get(name).is_some_and(|member| member.has_own_pids)
    }

    fn member(&mut self, name: &str) -> Result<&mut Member> {
        self.members.get_mut(name).ok_or_else(|| anyhow!("no process is named {name}"))
    }

    /// Takes the next connection, which must be from the helper called `name`.
    fn welcome(&mut self, name: &str) -> Result<Member> {
        let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
        ensure!(poll(&mut fds, Some(&Timespec::try_from(PATIENCE)?))? > 0, "{name} did not start");
        let (stream, _) = self.listener.accept()?;
        let pid = socket_peercred(&stream)?.pid;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = BufReader::new(stream);
        let mut hello = String::new();
        stream.read_line(&mut hello)?;
        let mut words = hello.split_whitespace().map(str::to_owned);
        ensure!(words.next().as_deref() == Some(name), "expected {name}, but {hello:?} came");
        let threads = words.skip(1).collect();
        Ok(Member { pidfd, pid, threads, stream, child: None, parent: None, has_own_pids: false })
    }
}

/// The same command as the first process of a new pid namespace; unshare(1) stays its parent.
///
/// unshare(1) complains when that process is killed, so nobody listens to it.
fn in_new_pid_namespace(command: &Command) -> Command {
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--pid", "--fork", "--kill-child", "--"]).arg(command.get_program());
    wrapped.args(command.get_args()).stdin(Stdio::null()).stderr(Stdio::null());
    wrapped
}

/// A process that holds a user namespace open until somebody has come in: who is in it before it has users loses its rights with
/// the next exec.
struct Holder(Child);

impl Holder {
    fn of_users(first: u32, count: u32) -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--user", "sh", "-c", "echo && exec sleep 600"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut holder = Self(child.context("cannot start unshare")?);
        // The line comes when it is there.
        let said = holder.0.stdout.as_mut().context("it has a pipe")?;
        let mut fds = [PollFd::new(said, PollFlags::IN)];
        ensure!(poll(&mut fds, Some(&Timespec::try_from(PATIENCE)?))? > 0, "no user namespace");
        for map in ["uid_map", "gid_map"] {
            let file = format!("/proc/{}/{map}", holder.0.id());
            std::fs::write(&file, format!("0 {first} {count}\n")).context(file)?;
        }
        Ok(holder)
    }

    /// The same command as root of that namespace.
    fn inside(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("nsenter");
        wrapped.arg(format!("--user=/proc/{}/ns/user", self.0.id())).args(["--setuid=0", "--setgid=0", "--"]);
        wrapped.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        wrapped
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _it_has_ended = self.0.kill();
        let _nobody_asks = self.0.wait();
    }
}
