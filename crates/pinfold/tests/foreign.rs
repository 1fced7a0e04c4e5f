//! Every method of the manager, called by programs that know nothing of pinfold but what its object says of itself: `gdbus`
//! (GLib), `busctl` (systemd) and `dbus-send` (libdbus).

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::daemon::{self, Daemon, Sleeper, eventually, text};

const OBJECT: &str = "/org/pinfold/Manager";
const INTERFACE: &str = "org.pinfold.Manager1";

/// The three programs, and what they have called with success.
struct Callers<'d> {
    daemon: &'d Daemon,
    called: BTreeSet<String>,
}

impl<'d> Callers<'d> {
    /// `None`, with the reason printed, if one is not installed.
    fn of(daemon: &'d Daemon) -> Option<Self> {
        for program in ["gdbus", "busctl", "dbus-send"] {
            let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
            if !found.expect("sh runs").status.success() {
                daemon::skip(&format!("needs {program}"));
                return None;
            }
        }
        Some(Self { daemon, called: BTreeSet::new() })
    }

    fn address(&self) -> String {
        format!("unix:path={}.public/socket", self.daemon.state().display())
    }

    /// Runs a program, which must succeed, with a descriptor for its standard input; what it printed, blanks and ends of
    /// lines all being one blank.
    fn run(&mut self, program: &str, arguments: &[String], input: Option<OwnedFd>) -> String {
        let mut command = Command::new("timeout");
        command.args(["60", program]).args(arguments);
        command.stdin(input.map_or_else(Stdio::null, Stdio::from));
        let output = command.output().expect("timeout runs");
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}\n{}", self.daemon.log());
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// A call of a method; its answer is compared with a pattern, in which `*` is anything.
    fn call(&mut self, program: &str, line: &str, input: Option<OwnedFd>, pattern: &str) -> String {
        let words: Vec<String> =
            line.split(' ').map(|word| if word == "''" { String::new() } else { word.to_owned() }).collect();
        let (method, arguments) = words.split_first().expect("a method");
        let address = self.address();
        let start: Vec<String> = match program {
            "gdbus" => vec![
                "call".to_owned(),
                format!("--address={address}"),
                "--dest=org.pinfold".to_owned(),
                format!("--object-path={OBJECT}"),
                format!("--method={INTERFACE}.{method}"),
            ],
            "busctl" => {
                let call = ["call", "org.pinfold", OBJECT, INTERFACE, method].map(str::to_owned);
                std::iter::once(format!("--address={address}")).chain(call).collect()
            }
            _ => vec![
                format!("--peer={address}"),
                "--print-reply".to_owned(),
                OBJECT.to_owned(),
                format!("{INTERFACE}.{method}"),
            ],
        };
        let said = self.run(program, &[&start[..], arguments].concat(), input);
        // What libdbus says of the message itself.
        let said = match said.split_once("reply_serial=") {
            Some((_, rest)) => rest.split_once(' ').map_or("", |(_, answer)| answer).to_owned(),
            None => said,
        };
        assert!(is_like(&said, pattern), "{program} {line}: {said}\nand not: {pattern}");
        self.called.insert(method.clone());
        said
    }

    fn gdbus(&mut self, line: &str, pattern: &str) -> String {
        self.call("gdbus", line, None, pattern)
    }

    fn busctl(&mut self, line: &str, pattern: &str) -> String {
        self.call("busctl", line, None, pattern)
    }

    fn send(&mut self, line: &str, pattern: &str) -> String {
        self.call("dbus-send", line, None, pattern)
    }
}

/// Whether a text is a pattern's, in which `*` is anything.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().expect("there is one");
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn pidfd(sleeper: &Sleeper) -> OwnedFd {
    let pid = Pid::from_raw(sleeper.pid().try_into().expect("a process's number")).expect("not 0");
    pidfd_open(pid, PidfdFlags::empty()).expect("it is our child")
}

#[test]
fn every_method_does_for_strangers_what_it_says() {
    let Some(mut daemon) = Daemon::serving("freezer:cg") else { return };
    let sleeper = daemon.sleeper();
    let pid = sleeper.pid();
    let Some(mut callers) = Callers::of(&daemon) else { return };
    let all = &mut callers;
    all.gdbus("Ping", "()");
    // What there is.
    all.busctl("ListControllers", "a(ssuus) *\"freezer\" \"*\" 1 1 \"\"*");
    all.busctl("ListHierarchies", "a(usuu) 1 1 \"freezer\" 1 1");
    all.gdbus("Create /a {'notify_on_release':'1'}", "(['freezer:/a'],)");
    all.busctl("Create sa{ss} /a/b 0", "as 1 \"freezer:/a/b\"");
    all.send(
        "Create string:/a/c dict:string:string:notify_on_release,1",
        "array [ string \"freezer:/a/c\" ]",
    );
    all.busctl(
        "ListChildren sb /a true",
        "a(ssuuu) 2 \"freezer\" \"/a/b\" 0 0 493 \"freezer\" \"/a/c\" 0 0 493",
    );
    all.send(
        "ListKeys string:/a",
        "array [ *struct { string \"freezer\" string \"notify_on_release\" uint32 0 uint32 0 uint32 420 }*]",
    );
    all.gdbus(
        "ListNamedKeys /a",
        "([('freezer', 'frozen', '*', 'a flag', ['freezer.state'], 'owner above'), ('freezer', 'thawed', *)],)",
    );
    // Values, and who sees to them.
    all.busctl("GetValue ss /a notify_on_release", "s \"1\"");
    all.send("SetValue string:/a string:notify_on_release string:0", "");
    all.gdbus("GetValue /a notify_on_release", "('0',)");
    all.send("GetValue string:/a/c string:notify_on_release", "string \"1\"");
    all.busctl("Status s /a", "a(sssbs) *\"freezer\" \"freezer.state\" \"THAWED\" false \"native\"*");
    all.gdbus("ListSettings /a/c", "([*('freezer', 'notify_on_release', '1', *)*],)");
    // Processes, by number and by descriptor: the program's standard input is the pidfd.
    all.send(&format!("Move uint32:{pid} string:/a/b"), "");
    all.busctl("ListTasks sb /a true", &format!("au 1 {pid}"));
    all.busctl("ListTasks sb /a false", "au 0");
    all.send("ListProcesses string:/a/b boolean:false", &format!("array [ uint32 {pid} ]"));
    all.gdbus(&format!("GetGroupOf {pid}"), "([(uint32 1, 'freezer', '/a/b')],)");
    all.gdbus("RemoveOnEmpty /a/b", "()");
    all.call("gdbus", "MoveByFd 0 /a/c", Some(pidfd(&sleeper)), "()");
    all.call("gdbus", "GetGroupOfFd 0", Some(pidfd(&sleeper)), "([(uint32 1, 'freezer', '/a/c')],)");
    assert_eq!(daemon.numbers("cg/a/c/tasks"), [pid]);
    eventually("what was left is removed", || !daemon.path("cg/a/b").exists());
    all.send("Freeze string:/a", "");
    all.busctl("GetValue ss /a/c freezer.state", "s \"FROZEN\"");
    all.gdbus("Thaw /a", "()");
    all.busctl("GetValue ss /a/c freezer.state", "s \"THAWED\"");
    // Whose it is.
    all.busctl("Chown sxx /a 7 8", "");
    all.send("Chown string:/a int64:-1 int64:9", "");
    all.gdbus("Chmod /a '' 448", "()");
    all.gdbus("ListChildren / false", "([('freezer', '/a', uint32 7, uint32 9, uint32 448)],)");
    all.busctl("Chmod ssu /a tasks 384", "");
    all.busctl("ListKeys s /a", "a(ssuuu) *\"freezer\" \"tasks\" 7 9 384*");
    // Away with it.
    all.gdbus("Create /a/c/d {}", "(['freezer:/a/c/d'],)");
    all.busctl("Prune s /a", "as 1 \"freezer:/a/c/d\"");
    all.send("Kill string:/a", "");
    assert_eq!(sleeper.killed_by(), Some(9));
    all.gdbus("Create /a/c/d {}", "(['freezer:/a/c/d'],)");
    let left = daemon.sleeper();
    all.busctl(&format!("Move us {} /a/c/d", left.pid()), "");
    all.send("DeleteForce string:/a/c", "");
    all.gdbus("ListTasks /a false", &format!("([uint32 {}],)", left.pid()));
    drop(left);
    eventually("nobody is there", || daemon.numbers("cg/a/tasks").is_empty());
    all.busctl("Delete s /a", "");
    all.busctl("ListChildren sb / true", "a(ssuuu) 0");
    // Hierarchies. A mount that nobody puts anywhere goes with the program that asked for it.
    all.gdbus("Mount none,name=y", "(handle 0,)");
    eventually("the mount has gone", || !daemon.ok(&["hierarchies"]).contains("name=y"));
    all.busctl("Mount s freezer", "h *");
    all.send("Remount uint32:1 string:freezer,release_agent=/bin/true", "");
    all.gdbus("GetValue / release_agent", "('/bin/true',)");
    // Events and signals.
    all.busctl("Subscribe a{sv} 0", "h *");
    all.gdbus("Subscribe {'group':<'/'>}", "(handle 0,)");
    all.send("Watch", "");
    all.busctl("Unwatch", "");
    // What the daemon says of itself.
    let address = all.address();
    let property = ["get-property", "org.pinfold", OBJECT, INTERFACE].map(str::to_owned);
    let properties = ["Version", "Realm", "Base", "Tracker"].map(str::to_owned);
    let words = [&[format!("--address={address}")][..], &property, &properties].concat();
    let expected = format!(
        "s \"{}\" s \"default\" s \"{}\" s \"cgroup2\"",
        env!("CARGO_PKG_VERSION"),
        daemon.base.path().display()
    );
    assert_eq!(all.run("busctl", &words, None), expected);
    let introspect = ["introspect", "--dest=org.pinfold", "--xml"].map(str::to_owned);
    let whose = [format!("--address={address}"), format!("--object-path={OBJECT}")];
    let xml = all.run("gdbus", &[&introspect[..], &whose].concat(), None);
    all.gdbus("Down", "()");
    let called = std::mem::take(&mut all.called);
    assert_eq!(daemon.ended().code(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
    let (_, methods) = xml.split_once(&format!("<interface name=\"{INTERFACE}\">")).expect("it is there");
    let (methods, _) = methods.split_once("</interface>").expect("it ends");
    let methods = methods.split("<method name=\"").skip(1);
    let there: BTreeSet<_> =
        methods.map(|method| method.split('"').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(called, there, "every method is called, and nothing that is none");
}
