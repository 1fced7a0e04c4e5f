//! The process behind a name of a script: it does as it is told, one line at a time.
//!
//! A helper connects to the runner's socket, says who it is, and then performs the operations that the runner sends.
//! It is this same binary started anew, because safe code cannot fork without exec. Its further threads (for
//! scripts about `tasks`) wait on a channel each.

use super::mounts::Mounter;
use super::operations::{Actor, perform};
use super::outcome::{self, Outcome, done, wrong};
use super::words;
use anyhow::{Context, Result};
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Arguments of `xtask hold`.
#[derive(clap::Args, Clone)]
pub struct Hold {
    /// The name that the script gave this process.
    name: String,
    /// The runner's socket.
    socket: PathBuf,
    /// How many threads wait beside the first.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// As for `transcript`.
    #[arg(long)]
    mount: Option<String>,
    /// As for `transcript`.
    #[arg(long)]
    umount: Option<String>,
}

/// The command that starts a helper; `program` is this binary.
pub(super) fn command(name: &str, socket: &OsStr, mounter: &Mounter) -> Result<Command> {
    let program = std::env::current_exe().context("cannot find the running program")?;
    let mut command = Command::new(program);
    command.arg("hold").arg(name).arg(socket).args(mounter.arguments());
    command.stdin(Stdio::null());
    Ok(command)
}

impl Hold {
    /// Serves the runner until it hangs up or says `exit`.
    pub fn run(&self) -> Result<()> {
        let stream = UnixStream::connect(&self.socket).context("cannot reach the runner")?;
        let actor = Actor::new(Mounter::new(self.mount.as_deref(), self.umount.as_deref())?);
        let mut helper = Helper {
            arguments: self.clone(),
            actor: Arc::new(Mutex::new(actor)),
            threads: Vec::new(),
            children: Vec::new(),
        };
        let mut ids = vec![rustix::thread::gettid()];
        for _ in 0..self.threads {
            let (thread, id) = Thread::start(Arc::clone(&helper.actor))?;
            helper.threads.push(thread);
            ids.push(id);
        }
        let ids: Vec<String> = ids.iter().map(|id| id.as_raw_nonzero().to_string()).collect();
        writeln!(&stream, "{} {}", self.name, ids.join(" "))?;
        for line in BufReader::new(&stream).lines() {
            let reply = match helper.obey(&line?) {
                Ok(lines) => lines,
                Err(message) => vec![format!("!{message}")],
            };
            // One write a reply, so that a freeze never leaves half of it.
            (&stream).write_all((reply.join("\n") + "\n.\n").as_bytes())?;
        }
        Ok(())
    }
}

struct Helper {
    arguments: Hold,
    actor: Arc<Mutex<Actor>>,
    threads: Vec<Thread>,
    children: Vec<(String, Child)>,
}

impl Helper {
    /// Performs one line; the error is about the script, not part of the transcript.
    fn obey(&mut self, line: &str) -> Result<Vec<String>, String> {
        let words = parse(line)?;
        let texts: Vec<_> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
        match texts[..] {
            ["exit", code] => {
                std::process::exit(code.parse().map_err(|_| format!("{code} is not an exit code"))?)
            }
            ["fork", name] => outcome::lines(self.fork(name)),
            ["reap", name] => outcome::lines(self.reap(name)),
            ["thread", number, ..] => {
                let number: usize =
                    number.parse().map_err(|_| format!("{number} is not a thread's number"))?;
                let thread = self.threads.get(number.wrapping_sub(1)).ok_or(format!("no thread {number}"))?;
                thread.perform(words[2..].to_vec())
            }
            _ => outcome::lines(lock_and_perform(&self.actor, &words)),
        }
    }

    fn fork(&mut self, name: &str) -> Outcome {
        let actor = self.actor.lock().unwrap_or_else(PoisonError::into_inner);
        let started = command(name, self.arguments.socket.as_os_str(), &actor.mounter);
        let mut command = started.or_else(|error| wrong(error.to_string()))?;
        self.children.push((name.to_owned(), command.spawn()?));
        done()
    }

    fn reap(&mut self, name: &str) -> Outcome {
        let Some(at) = self.children.iter().position(|(known, _)| known == name) else {
            return wrong(format!("{} has no child {name}", self.arguments.name));
        };
        self.children.remove(at).1.wait()?;
        done()
    }
}

/// A thread that waits for operations.
struct Thread {
    orders: Sender<Vec<OsString>>,
    replies: Receiver<Result<Vec<String>, String>>,
}

impl Thread {
    fn start(actor: Arc<Mutex<Actor>>) -> Result<(Self, rustix::thread::Pid)> {
        let (orders, received) = channel::<Vec<OsString>>();
        let (reply, replies) = channel();
        let (hello, id) = channel();
        std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            let mut alive = hello.send(rustix::thread::gettid()).is_ok();
            while let (true, Ok(words)) = (alive, received.recv()) {
                alive = reply.send(outcome::lines(lock_and_perform(&actor, &words))).is_ok();
            }
        })?;
        Ok((Self { orders, replies }, id.recv()?))
    }

    fn perform(&self, words: Vec<OsString>) -> Result<Vec<String>, String> {
        self.orders.send(words).map_err(|_| "the thread has ended".to_owned())?;
        self.replies.recv().map_err(|_| "the thread has ended".to_owned())?
    }
}

fn lock_and_perform(actor: &Mutex<Actor>, words: &[OsString]) -> Outcome {
    perform(&mut actor.lock().unwrap_or_else(PoisonError::into_inner), words)
}

fn parse(line: &str) -> Result<Vec<OsString>, String> {
    let fill = |words: Vec<words::Word>| words.iter().map(|word| word.fill(&|_| None)).collect();
    words::split(line).and_then(fill).map_err(|error| error.to_string())
}
