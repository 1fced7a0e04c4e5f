//! `serve --rules FILE`: a thread that follows process events and moves processes as the rules say.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use pinfold_events::{Pid, Reader, Scope, Stream};
use pinfold_realm::Realm;
use pinfold_realm::rules::{Classifier, Ended, Names, Rulebook, Rules};

use super::watching::Watching;

/// How long to wait before asking for events again when there were none to be had.
const RETRY: Duration = Duration::from_secs(1);

/// The rules in force.
pub(crate) struct Classifying {
    file: PathBuf,
    book: Arc<Rulebook>,
    thread: Option<JoinHandle<()>>,
}

/// Reads a rules file.
pub(crate) fn load(file: &Path) -> anyhow::Result<Rules> {
    let read = |path: &Path| {
        let text = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        anyhow::Ok(String::from_utf8_lossy(&text).into_owned())
    };
    // A machine without these files has numbers only.
    let listed = |path: &str| read(Path::new(path)).unwrap_or_default();
    let names = Names::parse(&listed("/etc/passwd"), &listed("/etc/group"));
    let text =
        String::from_utf8(std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?);
    let text = text.with_context(|| format!("{} is not UTF-8", file.display()))?;
    // The reason names a line: it reads as a compiler's message.
    Rules::parse(&text, names).map_err(|error| anyhow!("{}: {error}", file.display()))
}

impl Classifying {
    /// Starts with these rules.
    pub(crate) fn start(
        file: PathBuf,
        rules: Rules,
        realm: &Arc<Realm>,
        watching: &Arc<Watching>,
    ) -> anyhow::Result<Self> {
        let book = Arc::new(Rulebook::new().context("rules")?);
        let mut classifier = Classifier::new(Arc::clone(realm), rules);
        let first = subscribe(watching)?;
        let (told, watching) = (Arc::clone(&book), Arc::clone(watching));
        let follow = move || {
            let mut stream = Some(first);
            loop {
                match stream.take().map(|stream| classifier.follow(stream, &told)) {
                    Some(Ok(Ended::Stopped)) => return,
                    Some(Ok(Ended::OutOfEvents)) => {
                        tracing::warn!("rules: the events have ended; starting again")
                    }
                    Some(Err(error)) => tracing::warn!("rules: {error}; starting again"),
                    None => {}
                }
                // Also where there were some: a source may be there, and fail at once, again and again.
                if told.is_stopped_within(RETRY) {
                    return;
                }
                match subscribe(&watching) {
                    Ok(next) => stream = Some(next),
                    Err(error) => tracing::warn!("rules are not applied: {error:#}"),
                }
            }
        };
        let thread = std::thread::Builder::new().name("rules".to_owned()).spawn(follow);
        Ok(Self { file, book, thread: Some(thread.context("no thread for rules")?) })
    }

    /// Reads the file again. What cannot be read changes nothing.
    pub(crate) fn reload(&self) {
        match load(&self.file) {
            Ok(rules) => self.book.replace(rules),
            Err(error) => tracing::error!("the rules stay as they were: {error:#}"),
        }
    }
}

impl Drop for Classifying {
    /// Moves nobody any more.
    fn drop(&mut self) {
        self.book.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread for rules panicked");
        }
    }
}

fn subscribe(watching: &Watching) -> anyhow::Result<Stream> {
    let own = Pid::new(std::process::id()).context("the daemon has a number")?;
    let (_, subscription) = watching.choose(Reader::from(own), &Scope::All)?;
    Ok(Stream::new(subscription.socket))
}
