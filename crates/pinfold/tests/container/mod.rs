//! Shells in which somebody else runs commands: a plain user, or root of a container.

pub(crate) mod inside;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::daemon::{BINARY, Daemon, readable, wait};

/// The first user and group of the containers' 1000.
pub(crate) const FIRST: u32 = 100_000;

/// A shell that waits for commands. It is in the test's base, and so in the realm's scope.
pub(crate) struct Shell {
    child: Option<Child>,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// What it was told last, for whoever waits in vain for the answer.
    told: String,
}

/// Keeps a user namespace until somebody has come in.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().expect("it is our child");
        self.0.wait().expect("it is our child");
    }
}

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub text: String,
    pub status: i32,
}

impl Shell {
    /// A shell of a user of the host, in a group.
    pub(crate) fn of_user(daemon: &Daemon, uid: u32, group: &str) -> Self {
        let user = format!("exec setpriv --reuid {uid} --regid {uid} --clear-groups sh");
        Self::start(daemon, group, &user)
    }

    /// The same where the daemon's mounts are.
    pub(crate) fn of_user_at_mounts(daemon: &Daemon, uid: u32, group: &str) -> Self {
        let user = format!("setpriv --reuid {uid} --regid {uid} --clear-groups sh");
        Self::start(daemon, group, &format!("exec nsenter {} {user}", daemon.mount_namespace()))
    }

    /// A shell of root in a container, in a group: user, pid and mount namespaces of its own.
    pub(crate) fn of_container(daemon: &Daemon, group: &str) -> Self {
        Self::in_container(daemon, group, "")
    }

    /// The same with the daemon's mounts.
    pub(crate) fn of_container_at_mounts(daemon: &Daemon, group: &str) -> Self {
        Self::in_container(daemon, group, &format!("nsenter {}", daemon.mount_namespace()))
    }

    fn in_container(daemon: &Daemon, group: &str, through: &str) -> Self {
        // Whoever is in a user namespace before it has users loses its rights with the next exec: so a process holds it
        // open, and the shell comes in afterwards.
        let mut holder = Command::new("unshare");
        holder.args(["--user", "sh", "-c", "echo && exec sleep 600"]).stdout(Stdio::piped());
        let mut holder = Holder(holder.spawn().expect("unshare runs"));
        assert!(readable(holder.0.stdout.take().expect("a pipe")), "no user namespace");
        let pid = holder.0.id();
        for map in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{pid}/{map}"), format!("0 {FIRST} 1000\n")).expect(map);
        }
        let enter = format!("exec {through} nsenter --user=/proc/{pid}/ns/user --setuid 0 --setgid 0 --");
        let unshare = "unshare --pid --fork --kill-child --mount-proc sh";
        let mut shell = Self::start(daemon, group, &format!("{enter} {unshare}"));
        assert_eq!(shell.run("id -u").text, "0\n");
        shell
    }

    /// A shell of root in a container with the host's users, as Docker's are: pid and mount namespaces of its own.
    pub(crate) fn of_container_of_host(daemon: &Daemon, group: &str) -> Self {
        let mut shell = Self::start(daemon, group, "exec unshare --pid --fork --kill-child --mount-proc sh");
        // The state directory is the host's, and is in no container.
        assert_eq!(shell.run("mount -t tmpfs none $PINFOLD_STATE").status, 0);
        shell
    }

    /// A shell of root in a container that has all namespaces in common with the host but that of mounts, and no privilege.
    pub(crate) fn of_container_without_privilege(daemon: &Daemon, group: &str) -> Self {
        let mut shell = Self::start(daemon, group, "exec unshare --mount sh");
        assert_eq!(shell.run("mount -t tmpfs none $PINFOLD_STATE").status, 0);
        shell.enter("setpriv --bounding-set=-all --inh-caps=-all");
        shell
    }

    fn start(daemon: &Daemon, group: &str, then: &str) -> Self {
        let mut command = Command::new("env");
        daemon.inside(&mut command, "sh".as_ref());
        command.arg("-c").arg(format!("echo ready; read go; {then}"));
        // Nobody's private directory is where a user of a container may be.
        command.current_dir("/").env("pinfold", BINARY);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pipes.spawn().expect("env runs");
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut shell = Self { child: Some(child), commands, answers, told: String::new() };
        assert_eq!(shell.line(), "ready");
        let pid = shell.child.as_ref().expect("it runs").id().to_string();
        daemon.ok(&["move", &pid, group]);
        shell.say("go");
        shell
    }

    fn say(&mut self, line: &str) {
        line.clone_into(&mut self.told);
        writeln!(self.commands.as_mut().expect("it runs"), "{line}").expect("the shell reads");
    }

    fn line(&mut self) -> String {
        if self.answers.buffer().is_empty() {
            assert!(readable(self.answers.get_ref()), "the shell says nothing: {}", self.told);
        }
        let mut line = String::new();
        let length = self.answers.read_line(&mut line).expect("UTF-8");
        assert_ne!(length, 0, "the shell has ended: {}", self.told);
        line.trim_end().to_owned()
    }

    /// Becomes another shell: this command is given one to run.
    pub(crate) fn enter(&mut self, command: &str) {
        // A shell reads ahead: what comes next must not be there before its reader is.
        self.say(&format!("{command} sh -c 'echo entered; exec sh'; echo left"));
        assert_eq!(self.line(), "entered");
    }

    /// Is the shell again that it was before.
    pub(crate) fn leave(&mut self) {
        self.say("exit");
        assert_eq!(self.line(), "left");
    }

    /// Runs a command; what it said on both outputs.
    pub(crate) fn run(&mut self, command: &str) -> Said {
        self.say(&format!("{{ {command}; }} 2>&1 </dev/null; echo \"=$?\""));
        let mut text = String::new();
        loop {
            let line = self.line();
            match line.strip_prefix('=').and_then(|status| status.parse().ok()) {
                Some(status) => return Said { text, status },
                None => {
                    text.push_str(&line);
                    text.push('\n');
                }
            }
        }
    }

    /// Runs pinfold, which must succeed; what it said.
    pub(crate) fn ok(&mut self, arguments: &str) -> String {
        let said = self.run(&format!("timeout 60 $pinfold {arguments}"));
        assert_eq!(said.status, 0, "pinfold {arguments}: {}", said.text);
        said.text
    }

    /// Runs pinfold, which must be refused with this errno; with `usage`, by pinfold itself.
    pub(crate) fn refused(&mut self, arguments: &str, errno: &str) {
        let said = self.run(&format!("timeout 60 $pinfold {arguments}"));
        let expected = match errno {
            "usage" => said.status == 2,
            errno => said.status == 1 && said.text.contains(&format!("({errno})")),
        };
        assert!(expected, "pinfold {arguments}: not {errno}, but {said:?}");
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // At the end of its input a shell ends, and with it what it runs.
        drop(self.commands.take());
        if let Some(child) = self.child.take() {
            wait(child);
        }
    }
}
