//! `serve --rules`: processes go to groups by themselves.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::daemon::{
    BINARY, Daemon, PYTHON, Sleeper, copy_program, eventually, has_python, kernel_tells, readable, text,
};
use rustix::process::Signal;

/// A realm with one hierarchy, a rules file, and a program of its own that sleeps: no rule of a test fits anything else.
struct Ruled {
    daemon: Daemon,
}

impl Ruled {
    /// `None`, with the reason printed, where there is no realm or where the kernel tells of no processes.
    fn new(rules: &str) -> Option<Self> {
        if !kernel_tells() {
            return None;
        }
        let mut ruled = Self { daemon: Daemon::new()? };
        copy_program("/bin/sleep", ruled.program());
        ruled.write(rules);
        ruled.serve();
        Some(ruled)
    }

    fn serve(&mut self) {
        self.serve_with(&[]);
    }

    fn serve_with(&mut self, arguments: &[&str]) {
        let mount = format!("none,name=x:{}", self.daemon.dir.join("cg").display());
        let rules = self.file();
        let arguments = [&["--mount", &mount, "--rules", &rules], arguments].concat();
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        if let Err(output) = self.daemon.try_serve(&arguments) {
            panic!("{}", text(&output.stderr));
        }
    }

    fn file(&self) -> String {
        self.daemon.dir.join("rules.toml").display().to_string()
    }

    fn program(&self) -> String {
        self.daemon.dir.join("ruled").display().to_string()
    }

    /// Writes the rules; `EXE` in them is the program.
    fn write(&self, rules: &str) {
        std::fs::write(self.file(), rules.replace("EXE", &self.program())).expect("our directory");
    }

    /// The program, run below the base by a command before it.
    fn run(&self, before: &str) -> Sleeper {
        self.daemon.sleeper_by(&format!("exec {before} {} 600", self.program()))
    }

    fn arrives(&self, process: u32, group: &str) {
        let tasks = format!("cg{group}/cgroup.procs");
        eventually(&format!("process {process} comes into {group}"), || {
            let list = std::fs::read_to_string(self.daemon.path(&tasks)).unwrap_or_default();
            list.lines().any(|line| line == process.to_string())
        });
    }
}

/// As every daemon(3) does: the parent has ended, and been waited for or not, before anybody can look at it.
#[test]
fn children_of_who_ended_at_once_go_where_it_would_have_gone() {
    let Some(mut ruled) = Ruled::new("") else { return };
    ruled.daemon.kill();
    copy_program("/bin/dash", ruled.program());
    ruled.write("[[rule]]\nexe = 'EXE'\ngroup = '/forked'\n");
    ruled.serve();
    let (program, dir) = (ruled.program(), ruled.daemon.dir.clone());
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("fifo"), rustix::fs::Mode::RWXU).expect("our directory");
    ruled.daemon.signal(Signal::STOP);
    let forks = format!("{program} -c '(read line < {}) & exit'", dir.join("fifo").display());
    let zombie = ruled.daemon.sleeper_by(&format!("exec {forks}"));
    let reaps = ruled.daemon.sleeper_by(&format!("{forks}; exec sleep 600"));
    for (process, state) in [(&zombie, "(ruled) Z"), (&reaps, "(sleep) S")] {
        eventually("the parents have ended", || {
            let stat =
                std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).expect("it is our child");
            stat.contains(state)
        });
    }
    ruled.daemon.signal(Signal::CONT);
    eventually("both children are there", || {
        ruled.daemon.numbers_or_none("cg/forked/cgroup.procs").len() == 2
    });
    ruled.daemon.ok(&["kill", "/forked"]);
    drop((zombie, reaps));
    ruled.daemon.down();
}

/// In a mount namespace of its own a process may have any program at any path: a container would choose its rule.
#[test]
fn a_program_is_known_by_its_file_and_not_only_by_its_path() {
    let rules = "\
        [[rule]]\nexe = \"EXE\"\ngroup = \"/trusted\"\n\
        [[rule]]\ncomm = \"ruled\"\ngroup = \"/others\"\n";
    let Some(mut ruled) = Ruled::new(rules) else { return };
    let itself = ruled.run("env");
    ruled.arrives(itself.pid(), "/trusted");
    let program = ruled.program();
    let script = format!("exec unshare -m sh -c 'mount --bind /bin/sleep {program} && exec {program} 600'");
    let another = ruled.daemon.sleeper_by(&script);
    ruled.arrives(another.pid(), "/others");
    drop((itself, another));
    ruled.daemon.down();
}

#[test]
fn who_executes_a_program_or_becomes_another_user_goes_where_the_rules_say() {
    let rules = "\
        [[rule]]\nexe = 'EXE'\nuid = 65534\ngroup = 'name=x:/users/%U/%p'\n\
        [[rule]]\nexe = 'EXE'\ngroup = '/all'\n";
    let Some(mut ruled) = Ruled::new(rules) else { return };
    let one = ruled.run("");
    ruled.arrives(one.pid(), "/all");
    let two = ruled.run("setpriv --reuid 65534 --clear-groups");
    ruled.arrives(two.pid(), "/users/65534/ruled");
    assert_eq!(ruled.daemon.numbers("cg/all/cgroup.procs"), [one.pid()], "the first rule that fits decides");
    drop((one, two));
    ruled.daemon.down();
}

/// The kernel's events of users and of groups of users are heeded by themselves: no program is executed meanwhile.
#[test]
fn who_changes_its_user_or_group_in_the_middle_goes_where_the_rules_say() {
    let Some(mut ruled) = Ruled::new("") else { return };
    ruled.daemon.kill();
    copy_program("/usr/bin/perl", ruled.program());
    let fifo = ruled.daemon.dir.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("our directory");
    let rule =
        |condition: &str, group: &str| format!("[[rule]]\nexe = 'EXE'\n{condition}\ngroup = '{group}'\n");
    let rules = [("uid = 65534", "/user/%U"), ("gid = 65534", "/group/%G"), ("", "/all")];
    ruled.write(&rules.map(|(condition, group)| rule(condition, group)).concat());
    ruled.serve();
    let script = "open(F, \"+<\", $ARGV[0]); <F>; $) = 65534; <F>; $> = 65534; sleep 600";
    let command = format!("exec {} -e '{script}' {}", ruled.program(), fifo.display());
    let one = ruled.daemon.sleeper_by(&command);
    ruled.arrives(one.pid(), "/all");
    for group in ["/group/65534", "/user/65534"] {
        std::fs::write(&fifo, "go\n").expect("it reads");
        ruled.arrives(one.pid(), group);
    }
    drop(one);
    ruled.daemon.down();
}

/// As whoever has numbers of users from /etc/subuid can be one after the other.
#[test]
fn groups_of_users_without_a_name_go_when_they_are_empty() {
    let rules = "\
        [[rule]]\nexe = 'EXE'\nuid = 1234567\ngroup = '/users/%U'\n\
        [[rule]]\nexe = 'EXE'\nuid = 1234568\ngroup = '/users/%u/tasks'\n\
        [[rule]]\nexe = 'EXE'\nuid = 65534\ngroup = '/users/%u'\n";
    let Some(mut ruled) = Ruled::new(rules) else { return };
    let run = |ruled: &Ruled, uid: u32| ruled.run(&format!("setpriv --reuid {uid} --clear-groups"));
    let (nobody, nameless) = (run(&ruled, 65534), run(&ruled, 1_234_567));
    ruled.arrives(nobody.pid(), "/users/nobody");
    ruled.arrives(nameless.pid(), "/users/1234567");
    let refused = run(&ruled, 1_234_568);
    eventually("it cannot be moved there", || ruled.daemon.log().contains("is a control file"));
    drop((nobody, nameless, refused));
    eventually("the groups go", || {
        let all = std::fs::read_dir(ruled.daemon.path("cg/users")).expect("it is there").flatten();
        let groups = all.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let names: Vec<_> = groups.map(|entry| entry.file_name()).collect();
        names == ["nobody"]
    });
    ruled.daemon.down();
}

#[test]
fn who_is_there_at_the_start_is_moved_too() {
    let Some(mut ruled) = Ruled::new("") else { return };
    let sleeper = ruled.run("");
    ruled.daemon.kill();
    ruled.write("[[rule]]\nexe = 'EXE'\ngroup = '/found'\n");
    ruled.serve();
    ruled.arrives(sleeper.pid(), "/found");
    drop(sleeper);
    ruled.daemon.down();
}

#[test]
fn a_new_pid_namespace_gets_a_group_of_its_own() {
    let rules = "[[rule]]\nexe = ['EXE', '/usr/bin/unshare', '/bin/unshare']\nnew_namespace = 'pid'\ngroup = '/ns/%P'\n";
    let Some(mut ruled) = Ruled::new(rules) else { return };
    // unshare forks the first process of the namespace, which executes the program.
    let script = format!("exec unshare --pid --fork --kill-child {} 600", ruled.program());
    let outer = ruled.daemon.sleeper_by(&script);
    let children = format!("/proc/{0}/task/{0}/children", outer.pid());
    let child = || std::fs::read_to_string(&children).ok()?.split_whitespace().next()?.parse::<u32>().ok();
    eventually("the namespace has a process", || child().is_some());
    let init = child().expect("it sleeps");
    ruled.arrives(init, &format!("/ns/{init}"));
    assert_eq!(
        ruled.daemon.ok(&["proc", "cgroup", &outer.pid().to_string()]).trim().rsplit(':').next(),
        Some("/")
    );
    drop(outer);
    eventually("the group goes with the namespace", || !ruled.daemon.path(&format!("cg/ns/{init}")).exists());
    assert!(ruled.daemon.path("cg/ns").exists(), "what others may use stays");
    ruled.daemon.down();
}

/// Those that were there before the daemon, those that were born before it got to move the first, and who comes from outside.
#[test]
fn all_of_a_pid_namespace_are_in_its_group_whoever_they_are() {
    let Some(mut ruled) = Ruled::new("") else { return };
    ruled.daemon.kill();
    ruled.write("[[rule]]\nnew_namespace = 'pid'\ngroup = '/ns/%P'\n");
    let program = ruled.program();
    let container =
        format!("exec unshare --pid --fork --kill-child sh -c '{program} 600 & {program} 600 & wait'");
    let children = |of: u32| -> Vec<u32> {
        let list = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
        list.split_whitespace().map(|number| number.parse().expect("a number")).collect()
    };
    let start = |ruled: &Ruled| {
        let outer = ruled.daemon.sleeper_by(&container);
        eventually("the container has begun", || children(outer.pid()).len() == 1);
        let init = children(outer.pid())[0];
        eventually("its children are there", || children(init).len() == 2);
        (outer, init, children(init))
    };
    let found = start(&ruled);
    ruled.serve();
    ruled.arrives(found.1, &format!("/ns/{}", found.1));
    ruled.daemon.signal(Signal::STOP);
    let forked = start(&ruled);
    ruled.daemon.signal(Signal::CONT);
    for (_, init, members) in [&found, &forked] {
        for member in members.iter().chain([init]) {
            ruled.arrives(*member, &format!("/ns/{init}"));
        }
    }
    let visit = format!("exec nsenter --target {} --pid {program} 600", found.1);
    let visitor = ruled.daemon.sleeper_by(&visit);
    eventually("the visitor has come", || children(visitor.pid()).len() == 1);
    ruled.arrives(children(visitor.pid())[0], &format!("/ns/{}", found.1));
    drop((visitor, found, forked));
    eventually("the groups go with the namespaces", || {
        std::fs::read_dir(ruled.daemon.path("cg/ns"))
            .is_ok_and(|mut dir| !dir.any(|entry| entry.is_ok_and(|e| e.path().is_dir())))
    });
    ruled.daemon.down();
}

/// The kernel's own subsystem for this, `ns`, knew those of networks, names and System V objects besides.
#[test]
fn a_new_namespace_of_any_kind_gets_a_group() {
    // Into new clocks only children go.
    let kinds = ["user", "mount", "cgroup", "net", "uts", "ipc", "time --fork --kill-child"];
    let is_there = |kind: &&str| kind.starts_with("time") <= std::fs::exists("/proc/self/ns/time").unwrap();
    let kinds: Vec<&str> = kinds.into_iter().filter(is_there).collect();
    let word = |kind: &str| kind.split(' ').next().expect("one at least").to_owned();
    let rule = |kind: &&str| {
        let kind = word(kind);
        format!("[[rule]]\nexe = 'EXE'\nnew_namespace = '{kind}'\ngroup = '/{kind}'\n")
    };
    let Some(mut ruled) = Ruled::new(&kinds.iter().map(rule).collect::<String>()) else { return };
    let started: Vec<_> = kinds.iter().map(|kind| ruled.run(&format!("unshare --{kind}"))).collect();
    for kind in &kinds {
        let tasks = format!("cg/{}/cgroup.procs", word(kind));
        let name =
            |process: &u32| std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        eventually(&format!("the first of {tasks} comes"), || {
            let names: Vec<String> = ruled.daemon.numbers_or_none(&tasks).iter().map(name).collect();
            names == ["ruled\n"]
        });
    }
    drop(started);
    ruled.daemon.down();
}

/// As of whom a daemon is made, `setsid -f unshare --net PROGRAM`: its parent, whose namespace it was born into, has ended when it goes to
/// another one.
#[test]
fn whose_parent_has_ended_is_the_first_of_its_new_namespace_too() {
    let rules = "[[rule]]\nexe = 'EXE'\nnew_namespace = 'net'\ngroup = '/net/%P'\n";
    let Some(mut ruled) = Ruled::new(rules) else { return };
    let (program, fifo) = (ruled.program(), ruled.daemon.dir.join("fifo"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("our directory");
    let waits = format!("read line < {}; exec unshare --net sh -c \"exec {program} 600\"", fifo.display());
    let mut parent = ruled.daemon.command("setsid");
    let status = parent.args(["--fork", "sh", "-c", &waits]).status().expect("timeout runs");
    assert!(status.success(), "it has borne it, and has ended");
    std::fs::write(&fifo, "go\n").expect("it reads");
    let groups = || {
        let all = std::fs::read_dir(ruled.daemon.path("cg/net")).into_iter().flatten().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).collect::<Vec<_>>()
    };
    eventually("its namespace has a group", || groups().len() == 1);
    let orphan = groups()[0];
    ruled.arrives(orphan, &format!("/net/{orphan}"));
    ruled.daemon.ok(&["kill", "/net"]);
    ruled.daemon.down();
}

/// A file system in the daemon's mount namespace, with the program in it. Whoever waits for it waits until this is dropped.
struct Silent {
    server: Child,
    input: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Silent {
    const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ruling/silent.py");

    /// It answers.
    fn mount(ruled: &Ruled, directory: &str) -> Self {
        let directory = ruled.daemon.dir.join(directory);
        std::fs::create_dir(&directory).expect("our directory");
        let mut command = Command::new("nsenter");
        command.arg(ruled.daemon.mount_namespace()).args(["--", PYTHON, Self::SERVER]);
        command.arg(directory).arg(ruled.program()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = command.spawn().expect("nsenter runs");
        let (input, said) = (server.stdin.take().expect("a pipe"), server.stdout.take().expect("a pipe"));
        let mut silent = Self { server, input, said: BufReader::new(said) };
        silent.hears("ready");
        silent
    }

    /// From now on it does not.
    fn falls_silent(&mut self) {
        writeln!(self.input, "silence").expect("it listens");
        self.hears("silent");
    }

    fn hears(&mut self, word: &str) {
        assert!(readable(self.said.get_ref()), "nothing is said");
        let mut line = String::new();
        self.said.read_line(&mut line).expect("text");
        assert_eq!(line.trim_end(), word);
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // With the last descriptor of its device goes everybody's wait.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Rules that name a program ask for the file at its path. There a user may have whatever he likes, also what never answers: he stopped the
/// rules for everybody, and the daemon did not end.
#[test]
fn a_file_system_that_does_not_answer_keeps_neither_others_nor_the_daemon_waiting() {
    if !has_python() {
        return;
    }
    let rules = "\
        [[rule]]\nexe = 'DIR/silent/silent'\ngroup = '/known'\n\
        [[rule]]\ncomm = 'silent'\ngroup = '/unknown'\n\
        [[rule]]\nexe = 'EXE'\ngroup = '/all'\n";
    let Some(mut ruled) = Ruled::new("") else { return };
    ruled.write(&rules.replace("DIR", &ruled.daemon.dir.display().to_string()));
    ruled.daemon.signal(Signal::HUP);
    let mut silent = Silent::mount(&ruled, "silent");
    let start = |ruled: &Ruled| {
        let program = ruled.daemon.dir.join("silent/silent");
        let process = ruled.daemon.sleeper_by(&format!(
            "exec nsenter {} -- {} 600",
            ruled.daemon.mount_namespace(),
            program.display()
        ));
        let is_asleep = || {
            let file = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", process.pid()));
            let is_it = file("comm").is_ok_and(|comm| comm == "silent\n");
            is_it && file("wchan").is_ok_and(|place| place.contains("nanosleep"))
        };
        eventually("the program sleeps", is_asleep);
        process
    };
    // While it answers, it is waited for.
    let known = start(&ruled);
    ruled.arrives(known.pid(), "/known");
    ruled.daemon.signal(Signal::STOP);
    let processes: Vec<_> = (0..8).map(|_| start(&ruled)).collect();
    let child = ruled.run("");
    silent.falls_silent();
    ruled.daemon.signal(Signal::CONT);
    ruled.arrives(child.pid(), "/all");
    for process in &processes {
        ruled.arrives(process.pid(), "/unknown");
    }
    // Somebody still asks, and waits.
    ruled.daemon.down();
    drop((silent, known, processes, child));
}

/// The children of a process that forks before it is moved come after it.
#[test]
fn nobody_is_left_behind_by_forking_early() {
    let rules = "[[rule]]\ncomm = 'ruledsh'\ngroup = '/sh'\n";
    let Some(mut ruled) = Ruled::new(rules) else { return };
    let shell = ruled.daemon.dir.join("ruledsh");
    copy_program("/bin/sh", &shell);
    let forking = "for i in 1 2 3 4 5 6 7 8; do (sleep 600 & wait) & done; wait";
    let outer = ruled.daemon.sleeper_by(&format!("exec {} -c '{forking}'", shell.display()));
    // The shell, eight of its kind, and what those run, which is born there.
    eventually("all seventeen are in the group", || {
        ruled.daemon.numbers_or_none("cg/sh/cgroup.procs").len() == 17
    });
    ruled.daemon.ok(&["kill", "/sh"]);
    assert_eq!(outer.killed_by(), Some(9));
    ruled.daemon.down();
}

#[test]
fn the_rules_are_read_again_on_sighup_and_a_bad_file_changes_nothing() {
    let Some(mut ruled) = Ruled::new("[[rule]]\nexe = 'EXE'\ngroup = '/one'\n") else { return };
    let first = ruled.run("");
    ruled.arrives(first.pid(), "/one");
    ruled.write("[[rule]]\nexe = 'EXE'\ngroup = '/two'\nuid = 'nobody-of-this-name'\n");
    ruled.daemon.signal(Signal::HUP);
    eventually("the error is logged", || {
        ruled.daemon.log().contains("rules.toml: line 4: no user is called")
    });
    let second = ruled.run("");
    ruled.arrives(second.pid(), "/one");
    ruled.write("[[rule]]\nexe = 'EXE'\ngroup = '/two'\n");
    ruled.daemon.signal(Signal::HUP);
    // Also who is there already.
    ruled.arrives(first.pid(), "/two");
    ruled.arrives(second.pid(), "/two");
    // What cannot be done is said once, and stops nothing.
    ruled.write("[[rule]]\nexe = 'EXE'\ngroup = ['nosuch:/x', '/three']\n");
    ruled.daemon.signal(Signal::HUP);
    ruled.arrives(first.pid(), "/three");
    eventually("the failure is logged", || ruled.daemon.log().contains("line 1: no hierarchy has nosuch"));
    drop((first, second));
    ruled.daemon.down();
}

#[test]
fn whatever_happens_while_the_rules_are_read_again_is_asked_about() {
    let Some(mut ruled) = Ruled::new("[[rule]]\nexe = 'EXE'\ngroup = '/one'\n") else { return };
    let first = ruled.run("");
    ruled.arrives(first.pid(), "/one");
    ruled.daemon.signal(Signal::STOP);
    let before = ruled.run("");
    ruled.write("[[rule]]\nexe = 'EXE'\ngroup = '/two'\n");
    ruled.daemon.signal(Signal::HUP);
    let after = ruled.run("");
    ruled.daemon.signal(Signal::CONT);
    for process in [&first, &before, &after] {
        ruled.arrives(process.pid(), "/two");
    }
    drop((first, before, after));
    ruled.daemon.down();
}

/// Whoever was left in the namespace went elsewhere with the next program: nobody was its first process any more.
#[test]
fn a_namespace_keeps_its_group_over_sighup_also_when_its_first_process_has_ended() {
    let own = "[[rule]]\nexe = 'EXE'\nnew_namespace = 'mount'\ngroup = '/ns/%P'\n";
    let others = "[[rule]]\ncomm = 'nextruled'\ngroup = '/others'\n";
    let Some(mut ruled) = Ruled::new("") else { return };
    ruled.daemon.kill();
    copy_program("/bin/dash", ruled.program());
    let dir = ruled.daemon.dir.clone();
    let (next, fifo) = (dir.join("nextruled"), dir.join("fifo"));
    copy_program("/bin/sleep", &next);
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("our directory");
    ruled.write(&format!("{own}{others}"));
    ruled.serve();
    let (program, next) = (ruled.program(), next.display().to_string());
    let rest = format!("(read line < {}; exec {next} 600) & wait", fifo.display());
    let first = ruled.daemon.sleeper_by(&format!("exec unshare --mount {program} -c '{rest}'"));
    let group = format!("/ns/{}", first.pid());
    ruled.arrives(first.pid(), &group);
    let tasks = format!("cg{group}/cgroup.procs");
    let others_of = |ruled: &Ruled| {
        let members = ruled.daemon.numbers_or_none(&tasks).into_iter();
        members.filter(|process| *process != first.pid()).collect::<Vec<_>>()
    };
    eventually("its child is there", || others_of(&ruled).len() == 1);
    let child = others_of(&ruled)[0];
    drop(first);
    eventually("the first has ended", || ruled.daemon.numbers_or_none(&tasks) == [child]);
    // The same rules, elsewhere in the file, and the other way about.
    ruled.write(&format!("# so and so\n\n{own}{others}"));
    ruled.daemon.signal(Signal::HUP);
    eventually("they are read", || ruled.daemon.log().contains("2 rules from now on"));
    std::fs::write(&fifo, "go\n").expect("it reads");
    eventually("it executes another program", || {
        std::fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm == "nextruled\n")
    });
    // What happens later is seen to later.
    let later = ruled.daemon.sleeper_by(&format!("exec {next} 600"));
    ruled.arrives(later.pid(), "/others");
    assert_eq!(ruled.daemon.numbers_or_none(&tasks), [child]);
    // Other rules are asked as about the first.
    ruled.write(&own.replace("/ns/", "/space/"));
    ruled.daemon.signal(Signal::HUP);
    ruled.arrives(child, &group.replace("/ns/", "/space/"));
    ruled.daemon.ok(&["kill", "/space"]);
    drop(later);
    ruled.daemon.down();
}

/// Births to who ends at once, another user, a new namespace, and a program of the same name as the one before: nobody tells of the last one's
/// exec, nor that its name has changed.
#[test]
fn whatever_happened_in_a_gap_everybody_is_where_the_rules_say_when_it_is_over() {
    let Some(mut ruled) = Ruled::new("") else { return };
    let Some(mut outer) = Daemon::serving("none,name=x:cg") else { return };
    ruled.daemon.kill();
    let (program, dir) = (ruled.program(), ruled.daemon.dir.clone());
    std::fs::create_dir(dir.join("other")).expect("our directory");
    let (namesake, fifo) = (dir.join("other/ruled"), dir.join("fifo"));
    copy_program("/bin/dash", &namesake);
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("our directory");
    ruled.write(
        "[[rule]]\nexe = 'EXE'\nnew_namespace = 'pid'\ngroup = '/ns'\n\
         [[rule]]\nexe = 'EXE'\nuid = 65534\ngroup = '/user'\n\
         [[rule]]\nexe = 'EXE'\ngroup = '/all'\n",
    );
    let public = format!("{}.public", outer.state().display());
    ruled.serve_with(&["--outer", &public]);
    let waits =
        format!("exec {} -c 'read line < {}; exec {program} 600'", namesake.display(), fifo.display());
    let waiting = ruled.daemon.sleeper_by(&waits);
    let executes = |process: u32, path: &str| {
        std::fs::read_link(format!("/proc/{process}/exe")).is_ok_and(|exe| exe.display().to_string() == path)
    };
    eventually("it waits", || executes(waiting.pid(), &namesake.display().to_string()));
    // The rules have been asked about it when they have been asked about who comes after it.
    let before = ruled.run("");
    ruled.arrives(before.pid(), "/all");
    // Whatever is known of it was told by then.
    let (mut heard, _) = crate::events::Heard::events(&ruled.daemon, &["--pid", &waiting.pid().to_string()]);
    outer.kill();
    heard.until(&["\"gap\""]);
    std::fs::write(&fifo, "go\n").expect("it reads");
    let orphans = ruled.daemon.sleeper_by(&format!("({program} 600 & {program} 601 &); exec sleep 600"));
    let user = ruled.run("setpriv --reuid 65534 --clear-groups");
    let container = ruled.daemon.sleeper_by(&format!("exec unshare --pid --fork --kill-child {program} 600"));
    let of_program = || {
        let all = std::fs::read_dir("/proc").expect("it is there").flatten();
        let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        all.filter(|process| executes(*process, &program)).count()
    };
    eventually("all of them have executed the program", || of_program() == 6);
    assert_eq!(ruled.daemon.numbers("cg/all/cgroup.procs"), [before.pid()]);
    outer.serve("");
    let members = |group: &str| ruled.daemon.numbers_or_none(&format!("cg{group}/cgroup.procs")).len();
    heard.until(&["\"synced\""]);
    for (group, count) in [("/user", 1), ("/ns", 1), ("/all", 4)] {
        eventually(&format!("{group} has its {count}"), || members(group) == count);
    }
    ruled.arrives(waiting.pid(), "/all");
    ruled.arrives(user.pid(), "/user");
    ruled.daemon.ok(&["kill", "/all"]);
    drop((heard, before, waiting, orphans, user, container));
    ruled.daemon.down();
    outer.down();
}

#[test]
fn a_rules_file_is_checked_before_anything_is_made() {
    let Some(mut daemon) = Daemon::new() else { return };
    let file = daemon.dir.join("rules.toml");
    std::fs::write(&file, "[[rule]]\ngroup = '/a'\n\n[[rule]]\ngroup = 'b'\n").expect("our directory");
    let file = file.display().to_string();
    let reason =
        format!("{file}: line 5: \"b\" is no group: write CONTROLLERS:PATH or PATH, PATH beginning with /\n");
    let output = daemon.try_serve(&["--rules".to_owned(), file.clone()]).expect_err("no such rules");
    assert!(text(&output.stderr).ends_with(&format!("pinfold: {reason}")), "{}", text(&output.stderr));
    assert!(!daemon.state().exists());
    let check =
        |file: &str| Command::new(BINARY).args(["rules", "check", file]).stdin(Stdio::null()).output();
    let output = check(&file).expect("the binary runs");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), format!("pinfold: {reason}")));
    std::fs::write(&file, "[[rule]]\ngroup = '/a'\n").expect("our directory");
    let output = check(&file).expect("the binary runs");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), format!("{file}: 1 rule\n")));
}
