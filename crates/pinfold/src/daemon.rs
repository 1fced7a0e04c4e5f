//! `pinfold serve`: brings a realm up, serves it until told to end, takes it down.

mod events_only;
mod mounts;
pub(crate) mod rules;
mod watching;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use anyhow::{Context, bail};
use pinfold_dbus::cgmanager::default_socket;
use pinfold_dbus::{Daemon, Door, Refusal, Server, SystemBus, Unheld, wire};
use pinfold_kernel::inspect::{Inspection, inspect};
use pinfold_model::Errno;
use pinfold_realm::rules::Rules;
use pinfold_realm::{Config, Realm};

use crate::args::{ServeArgs, TrackerChoice};
use crate::commands::doctor::{self, Finding, State, Tracker};
use crate::{resolve, signals};
use mounts::Mounts;
use rules::Classifying;
pub(crate) use watching::POLLING;
use watching::{Origin, Watching};

/// What the daemon is told: to end, mostly.
enum Event {
    /// A signal. One of them has the rules read again, the others end it.
    Signal(i32),
    /// `pinfold down`: who asks wants to know how it went.
    Down(mpsc::Sender<Result<(), Refusal>>),
}

/// `pinfold serve`.
pub(crate) fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    have_descriptors();
    if args.events_only {
        return events_only::serve(args);
    }
    let found = inspect();
    let tracker = tracker(&found, args)?;
    introduce(&found, args, tracker);
    check(&found, args, tracker)?;
    let rules = args.rules.as_deref().map(|file| anyhow::Ok((file.to_owned(), rules::load(file)?)));
    let rules = rules.transpose()?;
    let (events, happened) = mpsc::channel();
    // Before anything is made, so that no signal leaves it behind.
    take_signals(&events)?;
    let running = Running::start(args, tracker, rules, &events)?;
    // Nobody may be waiting for it.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!("realm {} is up; Ctrl-C or `pinfold down` ends it", args.realm.realm.as_str());
    let event = loop {
        match happened.recv().context("nothing is left that could end the daemon")? {
            Event::Signal(signals::RELOADING) => running.reload(),
            event => break event,
        }
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    match event {
        Event::Signal(signal) => {
            tracing::info!("ending on signal {signal}");
            running.end(None)?;
        }
        Event::Down(answer) => {
            tracing::info!("ending as told by `pinfold down`");
            running.end(Some(&answer))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How many descriptors the daemon needs for as many clients as may be at its doors, and itself.
const DESCRIPTORS: u64 = 8192;

/// Clients cost descriptors, and service managers give few before they are asked.
fn have_descriptors() {
    match pinfold_kernel::descriptors::raise_own() {
        Ok(Some(most)) if most < DESCRIPTORS => {
            tracing::warn!(
                "{most} descriptors are all that the daemon may have (LimitNOFILE=): clients are turned away when few are left"
            );
        }
        Ok(_) => {}
        Err(errno) => tracing::warn!("the limit on the daemon's descriptors stays: {errno}"),
    }
}

/// Says in short what `doctor` says at length.
fn introduce(found: &Inspection, args: &ServeArgs, tracker: Tracker) {
    let base = args.base.as_deref();
    let findings =
        doctor::machine(found, base, tracker).into_iter().chain(doctor::features(found, base, tracker));
    for finding in findings {
        match finding.state {
            State::Good => tracing::info!("{}: {}", finding.what, finding.found),
            State::Limited | State::Missing => tracing::warn!("{}: {}", finding.what, finding.found),
        }
    }
}

/// Refuses to start where nothing can come of it, and says what is missing and what to do.
fn check(found: &Inspection, args: &ServeArgs, tracker: Tracker) -> anyhow::Result<()> {
    let needs_fuse = !args.mounts.is_empty();
    let missing =
        |finding: &Finding| finding.state == State::Missing && (needs_fuse || finding.what != "FUSE");
    let findings = doctor::machine(found, args.base.as_deref(), tracker);
    let missing: Vec<_> = findings.into_iter().filter(missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut text = "this machine lacks what a realm needs".to_owned();
    for finding in missing {
        text.push_str(&format!("\n{}: {}", finding.what, finding.found));
        text.push_str(&finding.remedy.map(|remedy| format!("\n    {remedy}")).unwrap_or_default());
    }
    bail!(text)
}

/// Who will keep processes in their groups.
fn tracker(found: &Inspection, args: &ServeArgs) -> anyhow::Result<Tracker> {
    match (args.tracker, &args.base) {
        (TrackerChoice::Events, Some(base)) => {
            bail!("--tracker events works without a v2 tree: --base {} means nothing to it", base.display())
        }
        (TrackerChoice::Events, None) => Ok(Tracker::Events),
        (TrackerChoice::Cgroup2, _) => Ok(Tracker::Cgroup2),
        (TrackerChoice::Auto, base) => Ok(Tracker::best(found, base.as_deref())),
    }
}

fn take_signals(events: &mpsc::Sender<Event>) -> anyhow::Result<()> {
    let events = events.clone();
    // Nobody receives when the end has begun already: once is enough.
    signals::on(signals::OF_DAEMON, move |signal| drop(events.send(Event::Signal(signal))))
}

/// A realm that is up.
struct Running {
    realm: Arc<Realm>,
    threads: JoinHandle<()>,
    mounts: Arc<Mounts>,
    servers: Vec<Server>,
    system_bus: Option<SystemBus>,
    rules: Option<Classifying>,
}

/// A rules file and what it says.
type Ruling = (PathBuf, Rules);

impl Running {
    fn start(
        args: &ServeArgs,
        tracker: Tracker,
        rules: Option<Ruling>,
        events: &mpsc::Sender<Event>,
    ) -> anyhow::Result<Self> {
        let config = Config {
            name: args.realm.realm.as_str().to_owned(),
            state: resolve::state_dir(&args.realm)?,
            base: args.base.clone(),
            strict: args.strict,
            limits: args.limits.into(),
        };
        let mut doors = vec![
            (Door::Owner, config.state.join(wire::SOCKET)),
            (Door::Public, wire::public_dir(&config.state).join(wire::SOCKET)),
        ];
        if let Some(given) = &args.cgmanager {
            let socket = given.clone().map_or_else(|| Ok(default_socket()), std::path::absolute);
            doors.push((Door::Cgmanager, socket.context("--cgmanager")?));
        }
        let origin = origin(args, &config.state)?;
        let realm = match tracker {
            Tracker::Cgroup2 => Realm::open(config),
            Tracker::Events => Realm::open_following(config, &|| origin.source()),
        };
        let realm = realm.context("the realm cannot be opened")?;
        let was_empty = is_empty(&realm);
        let mounts = Arc::new(Mounts::new(Arc::clone(&realm)));
        let started = Self::start_with(args, origin, rules, events, &realm, &mounts, &doors);
        if started.is_err() {
            // What an earlier daemon of this realm left to carry on with stays.
            mounts.end();
            if was_empty && let Err(error) = realm.down() {
                tracing::warn!("{:#}", anyhow::Error::from(error));
            }
        }
        started
    }

    fn start_with(
        args: &ServeArgs,
        origin: Origin,
        rules: Option<Ruling>,
        events: &mpsc::Sender<Event>,
        realm: &Arc<Realm>,
        mounts: &Arc<Mounts>,
        doors: &[(Door, PathBuf)],
    ) -> anyhow::Result<Self> {
        for spec in &args.mounts {
            mounts.mount_at(&spec.options, &spec.dir)?;
        }
        let watching = Watching::new(origin);
        let told = watching.events(realm).context("no thread for those who follow groups")?;
        let start = |(file, rules)| Classifying::start(file, rules, realm, &watching);
        let rules = rules.map(start).transpose()?;
        let daemon = Arc::new(daemon(realm, mounts, events, told));
        let mut servers = Vec::new();
        for (door, socket) in doors {
            match Server::listen(*door, socket, Arc::clone(&daemon)) {
                Ok(server) => servers.push(server),
                Err(error) => {
                    servers.into_iter().for_each(Server::stop);
                    return Err(error.into());
                }
            }
        }
        let unheld = if args.callers_by_number { Unheld::Taken } else { Unheld::Refused };
        let system_bus = match args.system_bus.then(|| SystemBus::start(daemon, unheld)).transpose() {
            Ok(system_bus) => system_bus,
            Err(error) => {
                servers.into_iter().for_each(Server::stop);
                return Err(error.into());
            }
        };
        let worker = Arc::clone(realm);
        let threads = std::thread::Builder::new()
            .name("realm".to_owned())
            .spawn(move || worker.run())
            .context("no thread for the realm")?;
        Ok(Self { realm: Arc::clone(realm), threads, mounts: Arc::clone(mounts), servers, system_bus, rules })
    }

    /// Has the rules read again.
    fn reload(&self) {
        match &self.rules {
            Some(rules) => rules.reload(),
            None => tracing::debug!("there are no rules to read again"),
        }
    }

    /// Takes the realm down, tells who asked, and hangs up.
    fn end(self, answer: Option<&mpsc::Sender<Result<(), Refusal>>>) -> anyhow::Result<()> {
        self.servers.iter().for_each(Server::close);
        self.system_bus.iter().for_each(SystemBus::close);
        drop(self.rules);
        self.mounts.end();
        self.realm.stop();
        if self.threads.join().is_err() {
            tracing::error!("a thread of the realm panicked");
        }
        let result = self.realm.down().context("the realm did not go down cleanly");
        // The directory of all realms (/run/pinfold) goes with the last one; with others in it, it stays.
        let above = self.realm.state().parent().filter(|above| above.file_name() == Some("pinfold".as_ref()));
        if let (Ok(()), Some(above)) = (&result, above) {
            let _ = std::fs::remove_dir(above);
        }
        if let Some(answer) = answer {
            let told =
                result.as_ref().map(drop).map_err(|error| Refusal::new(Errno::EIO, format!("{error:#}")));
            // The client may have left meanwhile.
            let _ = answer.send(told);
        }
        self.servers.into_iter().for_each(Server::stop);
        self.system_bus.into_iter().for_each(SystemBus::stop);
        result
    }
}

/// Whether no hierarchy has a group but its root.
fn is_empty(realm: &Realm) -> bool {
    realm.hierarchies().iter().all(|hierarchy| hierarchy.groups <= 1)
}

/// Where process events come from. A daemon that asked itself would wait for its own answer.
fn origin(args: &ServeArgs, state: &Path) -> anyhow::Result<Origin> {
    let Some(outer) = &args.outer else { return Ok(Origin::Machine) };
    let own = [state.to_owned(), wire::public_dir(state)];
    let real = |path: &Path| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).ok();
    if own.iter().any(|own| real(own).is_some_and(|own| Some(own) == real(outer))) {
        bail!("--outer {} is this daemon's own directory", outer.display());
    }
    Ok(Origin::outer(outer.clone()))
}

/// What the D-Bus front end needs of us.
fn daemon(
    realm: &Arc<Realm>,
    mounts: &Arc<Mounts>,
    events: &mpsc::Sender<Event>,
    told: pinfold_dbus::Events,
) -> Daemon {
    let (mounting, remounting, settling) = (Arc::clone(mounts), Arc::clone(mounts), Arc::clone(mounts));
    let events = events.clone();
    Daemon {
        realm: Arc::clone(realm),
        events: told,
        signals: pinfold_dbus::Signals::of(realm),
        mount: Box::new(move |caller, options| mounting.detached(caller, options)),
        remount: Box::new(move |caller, hierarchy, options| remounting.remount(caller, hierarchy, options)),
        settle: Box::new(move || settling.settle()),
        down: Box::new(move || {
            let (answer, outcome) = mpsc::channel();
            let ending = || Refusal::new(Errno::EBUSY, "the daemon is going down already");
            events.send(Event::Down(answer)).map_err(|_| ending())?;
            outcome.recv().map_err(|_| ending())?
        }),
    }
}
