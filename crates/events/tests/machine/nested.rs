//! Pinfolds in containers, each with the outer one's stream for a source.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pinfold_events::{Scope, What};

use crate::door::{self, Behind};
use crate::watch::{Actor, Watch, number, own, service, skip};

/// A directory for sockets and for a copy of this program that everybody may run; removed in the end.
pub(crate) struct Ground(PathBuf);

impl Ground {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pinfold-e-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        fs::copy("/proc/self/exe", path.join("program")).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// A daemon on the connector behind the door `0`.
    pub(crate) fn daemon(&self) -> Option<Behind> {
        let behind: Behind = Arc::new(Mutex::new(Some(service()?)));
        door::open(self.path("0").as_ref(), Arc::clone(&behind));
        Some(behind)
    }

    /// Two containers, one in the other; what makes one is `unshare`, run by `first`.
    fn containers(&self, first: &str, unshare: &str) -> Actor {
        self.containers_of("container", first, unshare)
    }

    pub(crate) fn containers_of(&self, role: &str, first: &str, unshare: &str) -> Actor {
        let program = self.path("program");
        let enter = |level: &str, outer: &str, inner: &str| {
            let (outer, inner) = (self.path(outer), self.path(inner));
            format!("{unshare} {program} --role {role} {level} {outer} {inner}")
        };
        let command = format!("exec {first} {} {}", enter("1", "0", "1"), enter("2", "1", "2"));
        Actor::start(Command::new("sh").args(["-c", &command]))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) const UNSHARE: &str = "unshare --pid --fork --kill-child --mount-proc";

pub(crate) fn containers_two_deep_see_their_own() {
    check(&Ground::new("root"), UNSHARE, "");
}

pub(crate) fn an_unprivileged_user_nests_as_deep() {
    let Some(unshare) = unshare_of_user() else { return };
    check(&Ground::new("user"), &unshare, NOBODY);
}

pub(crate) const NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups";

/// How [`NOBODY`] makes a container; `None`, with the reason printed, where users may not.
pub(crate) fn unshare_of_user() -> Option<String> {
    let unshare = format!("{UNSHARE} --user --map-root-user");
    let works = Command::new("sh").args(["-c", &format!("{NOBODY} {unshare} true")]).status().unwrap();
    if !works.success() {
        skip("unprivileged users may not make namespaces here");
    }
    works.success().then_some(unshare)
}

/// The child of a process that is about to have one.
pub(crate) fn only_child(of: u32) -> u32 {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let children = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap();
        if let Ok(child) = children.trim().parse() {
            return child;
        }
        assert!(Instant::now() < patience, "no child: {children}");
        std::thread::yield_now();
    }
}

/// The numbers of a process from the host's inwards; none if it is gone.
pub(crate) fn numbers(host: u32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{host}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    line.split_ascii_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// As `docker exec` does it.
pub(crate) fn who_enters_from_outside_and_stays_is_told_of() {
    let ground = Ground::new("visit");
    let Some(_behind) = ground.daemon() else { return };
    let mut containers = ground.containers("", UNSHARE);
    containers.hear_until("2 synced");
    let init = only_child(containers.pid()).to_string();
    let visit = ["--target", &init, "--pid", "sh", "-c", "echo here; read stop"];
    let mut visitor = Actor::start(Command::new("nsenter").args(visit));
    assert_eq!(visitor.hear(), "here");
    let number = numbers(only_child(visitor.pid()))[1];
    let mut lines = containers.hear_until(&format!("1 fork 0 {number} "));
    visitor.say("stop");
    lines.extend(containers.hear_until(&format!("1 exit {number} ")));
    let is_told =
        |line: &String| line.starts_with("2 ") && (line.ends_with("sh") || line.ends_with("nsenter"));
    assert!(!lines.iter().any(is_told), "the inner one hears of it: {lines:#?}");
}

/// Most of these processes are gone before their numbers in the containers can be asked for: they are told of nevertheless.
pub(crate) fn a_storm_in_a_container_is_told_completely() {
    const FORKS: usize = 300;
    let ground = Ground::new("storm");
    let Some(_behind) = ground.daemon() else { return };
    let mut containers = ground.containers("", UNSHARE);
    containers.hear_until("2 synced");
    containers.say(&format!("i=0; while [ $i -lt {FORKS} ]; do (:); i=$((i+1)); done; exit 7"));
    let ends = ["1", "2"].map(|level| format!("{level} exit "));
    let mut lines: Vec<String> = Vec::new();
    let has_ended = |lines: &[String], end: &String| {
        lines.iter().any(|line| line.starts_with(end) && line.ends_with(&format!(" {}", 7 << 8)))
    };
    while !ends.iter().all(|end| has_ended(&lines, end)) {
        lines.push(containers.hear());
        assert_ne!(lines.last().unwrap(), "", "{} lines", lines.len());
    }
    let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    for level in ["1", "2"] {
        // A level may hear late that it was made itself: what counts is the shell's.
        let executed = format!("{level} exec ");
        let of_shell =
            lines.iter().find(|line| line.starts_with(&executed) && line.ends_with(" sh")).unwrap();
        let shell = of_shell.split(' ').nth(2).unwrap();
        assert_eq!(count(&format!("{level} fork {shell} ")), FORKS);
        assert_eq!(count(&format!("{level} gap")), 0);
        let unknown = count(&format!("{level} exit 0 "));
        eprintln!("level {level}: {unknown} of {FORKS} without a number");
    }
}

/// A sleeping process two containers deep is told of at every level in that level's number, and nothing else is.
fn check(ground: &Ground, unshare: &str, first: &str) {
    let Some(behind) = ground.daemon() else { return };
    let mut watch = {
        let service = behind.lock().unwrap();
        Watch::new(service.as_ref().unwrap().subscribe(own(), &Scope::All).unwrap().socket)
    };
    watch.until_synced();
    let mut containers = ground.containers(first, unshare);
    containers.hear_until("2 synced");
    // A shell that runs another, so that there is a parent on every level.
    containers.say("sleep 1000 & echo slept; read stop; kill $!; wait $!; exit 3");
    let mut lines = containers.hear_until("slept");
    let [one, two] = numbers_of("sleep", &mut lines, &mut containers);
    // Others on this machine execute sleep, too.
    let is_it = |what: &What| {
        let sleeps = matches!(what, What::Exec { comm, .. } if comm.as_bytes() == b"sleep");
        let Some(process) = what.process().filter(|_| sleeps) else { return false };
        let inside = numbers(number(&process)).into_iter().skip(1);
        inside.map(|number| number.to_string()).eq([&one, &two].map(String::clone))
    };
    watch.until(is_it);
    containers.say("stop");
    let exits = [format!("2 exit {two} 15"), format!("1 exit {one} 15")];
    lines.extend(hear_all(&mut containers, &[&exits[0], &exits[1]]));
    // No level hears of the host's processes: 1 is the first that each knows.
    for level in ["1 ", "2 "] {
        let of_level = lines.iter().filter(|line| line.starts_with(level));
        assert!(!of_level.clone().any(|line| line.contains("gap")), "{lines:#?}");
    }
}

/// The lines until each of these was heard, in whatever order.
fn hear_all(containers: &mut Actor, wanted: &[&str]) -> Vec<String> {
    let mut lines = Vec::new();
    while !wanted.iter().all(|wanted| lines.iter().any(|line| line == wanted)) {
        lines.push(containers.hear());
        assert_ne!(lines.last().unwrap(), "", "not all of {wanted:?}: {lines:#?}");
    }
    lines
}

/// The numbers of the process that executed `name`, as both levels were told; `lines` is what was heard so far.
fn numbers_of(name: &str, lines: &mut Vec<String>, containers: &mut Actor) -> [String; 2] {
    let find = |lines: &[String], level: &str| {
        let (start, end) = (format!("{level} exec "), format!(" {name}"));
        let line = lines.iter().find(|line| line.starts_with(&start) && line.ends_with(&end))?;
        Some(line.split(' ').nth(2).unwrap().to_owned())
    };
    loop {
        if let (Some(one), Some(two)) = (find(lines, "1"), find(lines, "2")) {
            return [one, two];
        }
        lines.push(containers.hear());
        assert_ne!(lines.last().unwrap(), "", "nothing of {name}: {lines:#?}");
    }
}

pub(crate) fn an_outer_daemon_that_restarts_is_a_gap() {
    let ground = Ground::new("restart");
    let Some(behind) = ground.daemon() else { return };
    let mut containers = ground.containers("", UNSHARE);
    containers.hear_until("2 synced");
    containers.say("sleep 1000 & echo slept; read a; sleep 2000 & kill $!; wait $!; echo woke; read stop");
    let mut lines = containers.hear_until("slept");
    numbers_of("sleep", &mut lines, &mut containers);
    *behind.lock().unwrap() = None;
    // Both levels have noticed: the gap is passed on.
    hear_all(&mut containers, &["1 gap", "2 gap"]);
    containers.say("a");
    containers.hear_until("woke");
    *behind.lock().unwrap() = service();
    let difference = hear_all(&mut containers, &["1 synced", "2 synced"]);
    // What lived through it is not told again; what came and went meanwhile is not told at all.
    assert!(difference.iter().all(|line| !line.contains("found")), "{difference:#?}");
    containers.say("stop");
    let exit = containers.hear_until("2 exit");
    assert!(!exit.is_empty());
}
