//! Plays a script: fills the variables in, lets the right process act, and writes the transcript.

use super::cast::{Answer, Cast, Manner};
use super::mounts::Mounter;
use super::operations::{Actor, perform};
use super::outcome::lines;
use super::sweep;
use super::words::{Word, split};
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Words that only the runner understands, as they are shown to the user.
pub(super) const OPERATIONS: &[(&str, &str)] = &[
    ("==", "TITLE...                     (starts a section)"),
    ("spawn", "NAME [user=UID:GID] [threads=N] [own-pids] [own-users=FIRST:COUNT]"),
    ("fork", "PARENT CHILD"),
    ("by", "NAME[.THREAD] OPERATION..."),
    ("send", "NAME OPERATION...         (as by, but does not wait)"),
    ("answer", "NAME [within MS]        (of what was sent)"),
    ("exit", "NAME                      (and stay a zombie)"),
    ("kill", "NAME                      (by SIGKILL; and stay a zombie)"),
    ("signal", "NAME stop|cont|kill     (and do not wait)"),
    ("ends", "NAME within MS"),
    ("reap", "NAME                      (its parent collects it)"),
    ("agent", "NAME-agent               (a release agent that logs to NAME-agent.log)"),
];

/// One run of one script.
pub(super) struct Runner {
    root: PathBuf,
    actor: Actor,
    cast: Cast,
    /// Directories with a mount of ours, in the order of mounting.
    mounted: Vec<PathBuf>,
    /// Whether groups were removed that the kernel may not have freed yet.
    groups_removed: bool,
    /// Whether hierarchies were unmounted that the kernel may not have ended yet.
    unmounted: bool,
    /// File names behind the handles that actors hold, as pids are translated only in lists of processes.
    handles: BTreeMap<(String, OsString), OsString>,
}

impl Runner {
    /// A runner whose current directory is `root`.
    pub(super) fn new(root: &Path, mounter: Mounter) -> Result<Self> {
        let cast = Cast::new(root, mounter.clone())?;
        Ok(Self {
            root: root.to_owned(),
            actor: Actor::new(mounter),
            cast,
            mounted: Vec::new(),
            groups_removed: false,
            unmounted: false,
            handles: BTreeMap::new(),
        })
    }

    /// Plays the whole script and gives the transcript.
    pub(super) fn play(&mut self, script: &str) -> Result<String> {
        let mut transcript = String::new();
        for (number, line) in script.lines().enumerate() {
            let step = line.trim();
            let at = || format!("line {}: {step}", number + 1);
            if let Some(title) = step.strip_prefix("==") {
                transcript.push_str(&format!("\n=={title}\n\n"));
                continue;
            }
            let words = split(step).with_context(at)?;
            if words.is_empty() {
                continue;
            }
            let results = self.step(&words).with_context(at)?;
            transcript.push_str(step);
            transcript.push('\n');
            transcript.extend(results.iter().map(|line| format!("    {line}\n")));
        }
        Ok(transcript)
    }

    /// Ends every process and removes every group and mount that the script left.
    pub(super) fn sweep(&mut self) -> Result<()> {
        self.actor.handles.clear();
        self.mounted.iter().for_each(|dir| sweep::thaw(dir));
        self.cast.dismiss();
        let mounted = std::mem::take(&mut self.mounted);
        mounted.iter().rev().try_for_each(|dir| sweep::clear(dir, &self.actor.mounter))
    }

    fn step(&mut self, words: &[Word]) -> Result<Vec<String>> {
        let words: Vec<OsString> =
            words.iter().map(|word| word.fill(&|name| self.value(name))).collect::<Result<_>>()?;
        let texts: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
        let ok = || Ok(vec!["ok".to_owned()]);
        match texts[..] {
            ["spawn", name, ..] => self.cast.spawn(name, &manner(&texts[2..])?).and_then(|()| ok()),
            ["fork", parent, child] => self.cast.fork(parent, child),
            ["by", name, ..] => {
                let lines = self.cast.tell(name, &words[2..])?;
                Ok(self.readable(name, &words[2..], lines))
            }
            ["send", name, ..] => self.cast.send(name, &words[2..]).map(|()| vec!["sent".to_owned()]),
            ["answer", name] => self.answer(name, Duration::from_secs(60)),
            ["answer", name, "within", ms] => self.answer(name, milliseconds(ms)?),
            ["exit", name] => self.cast.exit(name, "0").and_then(|()| ok()),
            ["kill", name] => {
                self.cast.signal(name, Signal::KILL)?;
                if self.cast.ends_within(name, Duration::from_secs(60))? {
                    ok()
                } else {
                    bail!("{name} lives on")
                }
            }
            ["signal", name, signal] => self.cast.signal(name, named_signal(signal)?).and_then(|()| ok()),
            ["ends", name, "within", ms] => {
                let ends = self.cast.ends_within(name, milliseconds(ms)?)?;
                Ok(vec![if ends { "yes" } else { "no" }.to_owned()])
            }
            ["reap", name] => self.cast.reap(name).and_then(|()| ok()),
            ["agent", name] => self.make_agent(name).and_then(|()| ok()),
            _ => self.perform(&words),
        }
    }

    /// Performs an operation in the runner itself.
    fn perform(&mut self, words: &[OsString]) -> Result<Vec<String>> {
        self.settle(words.first().and_then(|word| word.to_str()).unwrap_or_default());
        let lines = lines(perform(&mut self.actor, words)).map_err(|message| anyhow!(message))?;
        self.note_mounts(words, &lines);
        Ok(self.readable("", words, lines))
    }

    /// Waits before `operation` for what earlier ones left the kernel to do, if that would change its answer.
    fn settle(&mut self, operation: &str) {
        let wait = match operation {
            "mount" | "umount" => std::mem::take(&mut self.groups_removed),
            // Other than mount(2), a remount does not itself wait for hierarchies that are going away.
            "remount" => std::mem::take(&mut self.groups_removed) | std::mem::take(&mut self.unmounted),
            _ => false,
        };
        self.groups_removed |= operation == "rmdir";
        self.unmounted |= operation == "umount";
        if wait {
            self.actor.mounter.settle();
        }
    }

    fn note_mounts(&mut self, words: &[OsString], lines: &[String]) {
        match (words.first().and_then(|word| word.to_str()), lines) {
            (Some("mount"), [ok]) if ok == "ok" => self.mounted.push(self.root.join(&words[2])),
            (Some("umount"), [ok]) if ok == "ok" => {
                let dir = self.root.join(&words[1]);
                if let Some(last) = self.mounted.iter().rposition(|mounted| *mounted == dir) {
                    self.mounted.remove(last);
                }
            }
            _ => {}
        }
    }

    fn answer(&mut self, name: &str, patience: Duration) -> Result<Vec<String>> {
        Ok(match self.cast.answer(name, patience)? {
            Answer::Lines(lines) => lines,
            Answer::None => vec!["no answer".to_owned()],
        })
    }

    fn make_agent(&self, name: &str) -> Result<()> {
        if !name.ends_with("-agent") {
            bail!("the name of an agent ends in -agent");
        }
        Ok(std::os::unix::fs::symlink(std::env::current_exe()?, self.root.join(name))?)
    }

    /// The value of a variable: `ROOT`, or the pid of a named process or thread.
    fn value(&self, name: &str) -> Option<String> {
        match name {
            "ROOT" => Some(self.root.display().to_string()),
            "runner" => Some(std::process::id().to_string()),
            _ => self.cast.id(name),
        }
    }

    /// Puts names for pids in lists of processes, and `<root>` for the root directory, whose path varies.
    fn readable(&mut self, actor: &str, words: &[OsString], lines: Vec<String>) -> Vec<String> {
        let root = self.root.display().to_string();
        let mut lines: Vec<String> = lines.into_iter().map(|line| line.replace(&root, "<root>")).collect();
        if self.reads_processes(actor, words) && !self.cast.has_own_pids(actor) {
            lines.iter_mut().for_each(|line| *line = self.named(line));
        }
        lines
    }

    fn named(&self, line: &str) -> String {
        let Some(id) = line.strip_prefix('"').and_then(|rest| rest.strip_suffix("\\n\"")) else {
            return line.to_owned();
        };
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
            return line.to_owned();
        }
        let runner = (id == std::process::id().to_string()).then(|| "runner".to_owned());
        let name = runner.or_else(|| self.cast.name_of(id)).unwrap_or("?".to_owned());
        format!("\"<{name}>\\n\"")
    }

    /// Whether `words` read `tasks` or `cgroup.procs`; remembers what opened handles stand for.
    fn reads_processes(&mut self, actor: &str, words: &[OsString]) -> bool {
        let name_of = |file: &OsString| Path::new(file).file_name().unwrap_or_default().to_owned();
        match (words.first().and_then(|word| word.to_str()), &words[1..]) {
            (Some("open"), [handle, file, ..]) => {
                self.handles.insert((actor.to_owned(), handle.clone()), name_of(file));
                false
            }
            (Some("read" | "read-once"), [file, ..]) => {
                let handle = file.to_str().and_then(|text| text.strip_prefix('@'));
                let name = match handle {
                    None => Some(name_of(file)),
                    Some(handle) => self.handles.get(&(actor.to_owned(), handle.into())).cloned(),
                };
                name.is_some_and(|name| name == "tasks" || name == "cgroup.procs")
            }
            _ => false,
        }
    }
}

fn manner(words: &[&str]) -> Result<Manner> {
    let mut manner = Manner::default();
    for word in words {
        match word.split_once('=') {
            Some(("user", ids)) => {
                let (uid, gid) = ids.split_once(':').context("user=UID:GID")?;
                manner.user = Some((uid.parse()?, gid.parse()?));
            }
            Some(("own-users", ids)) => {
                let (first, count) = ids.split_once(':').context("own-users=FIRST:COUNT")?;
                manner.own_users = Some((first.parse()?, count.parse()?));
            }
            Some(("threads", count)) => manner.threads = count.parse()?,
            None if *word == "own-pids" => manner.own_pids = true,
            _ => bail!("spawn does not know {word}"),
        }
    }
    Ok(manner)
}

fn milliseconds(text: &str) -> Result<Duration> {
    Ok(Duration::from_millis(text.parse().with_context(|| format!("{text} is not a number"))?))
}

fn named_signal(name: &str) -> Result<Signal> {
    Ok(match name {
        "stop" => Signal::STOP,
        "cont" => Signal::CONT,
        "kill" => Signal::KILL,
        _ => bail!("no signal is called {name} here"),
    })
}
