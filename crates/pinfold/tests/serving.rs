//! The daemon's life: how it comes up, what it says, what it refuses, and that nothing is left of it.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::daemon::{BINARY, Daemon, copy_program, eventually, text};
use rustix::process::Signal;

#[test]
fn a_signal_ends_it_and_leaves_nothing_behind() {
    for signal in [Signal::INT, Signal::TERM] {
        let Some(mut daemon) = Daemon::serving("all:cg") else { return };
        assert!(daemon.path("cg/tasks").exists());
        daemon.ok(&["create", "/a"]);
        assert_eq!(daemon.end(signal).code(), Some(0), "{}", daemon.log());
        daemon.assert_gone();
        assert!(!daemon.dir.join("cg").exists(), "the mount point was made and stays");
    }
}

#[test]
fn down_ends_it_after_the_answer() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.down();
    assert!(!daemon.dir.join("cg").exists());
    assert!(daemon.refused(&["tree"]).contains("no daemon at"));
}

#[test]
fn a_mount_point_that_was_there_stays() {
    let Some(mut daemon) = Daemon::new() else { return };
    std::fs::create_dir(daemon.dir.join("cg")).unwrap();
    daemon.serve("all:cg");
    daemon.down();
    assert!(daemon.dir.join("cg").exists());
}

#[test]
fn a_hangup_changes_nothing() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    daemon.signal(Signal::HUP);
    assert_eq!(daemon.ok(&["tree"]).lines().count(), 1);
    daemon.down();
}

/// A program that writes to a control file gets a number; whoever runs the daemon can have the reason.
#[test]
fn the_log_has_the_reason_of_a_refusal() {
    let Some(mut daemon) = Daemon::new() else { return };
    let mount = format!("freezer:{}", daemon.dir.join("cg").display());
    daemon.try_serve(&["--mount", &mount, "--log", "debug"].map(str::to_owned)).expect("it serves");
    daemon.ok(&["create", "/a"]);
    let refused = daemon.write("cg/a/freezer.state", "MAYBE").expect_err("no state");
    assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::INVAL.raw_os_error()));
    daemon.down();
    let reason = "write of freezer.state in group ";
    assert!(daemon.log().contains(reason), "{reason:?} is not in:\n{}", daemon.log());
}

#[test]
fn it_says_what_it_found() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    daemon.down();
    let log = daemon.log();
    for said in ["kernel: ", "cgroup v2: ", "FUSE: ", "privileges: root", "controller pids", "is mounted at"]
    {
        assert!(log.contains(said), "{said:?} is not in:\n{log}");
    }
    assert!(!log.contains('\u{1b}'), "no colours where no terminal is");
}

#[test]
fn a_realm_has_one_daemon() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let output = daemon.command(BINARY).arg("serve").arg("--base").arg(daemon.base.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("in use by another daemon"), "{said}");
    assert!(daemon.path("cg/tasks").exists(), "the first goes on");
    daemon.ok(&["create", "/a"]);
    daemon.down();
}

#[test]
fn what_cannot_be_mounted_ends_the_start_and_leaves_nothing() {
    for (mount, why) in [
        ("nonsense:cg", "\"nonsense\" is neither a mount option nor a controller"),
        ("all,freezer:cg", "exclude each other"),
        ("none:cg", "needs a name"),
        ("all:no/such/place", "No such file or directory"),
    ] {
        let Some(mut daemon) = Daemon::new() else { return };
        let (options, dir) = mount.split_once(':').unwrap();
        let spec = format!("{options}:{}", daemon.dir.join(dir).display());
        let output = daemon.try_serve(&["--mount".to_owned(), spec]).unwrap_err();
        assert_eq!(output.status.code(), Some(1), "{mount}");
        assert!(daemon.log().contains(why), "{mount}: {}", daemon.log());
        daemon.assert_gone();
        assert!(!daemon.dir.join("cg").exists(), "{mount}: the mount point was made and stays");
    }
}

#[test]
fn the_state_directory_and_the_socket_are_the_owners_alone() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&daemon.state()), 0o700);
    assert_eq!(mode(&daemon.state().join("socket")), 0o600);
    daemon.down();
}

#[test]
fn another_user_is_told_what_is_missing() {
    let Some(daemon) = Daemon::new() else { return };
    // A copy that the other user can reach.
    let binary = daemon.dir.join("pinfold");
    copy_program(BINARY, &binary);
    std::fs::set_permissions(&daemon.dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = |arguments: &[&str]| {
        let mut command = Command::new("timeout");
        command
            .args(["60", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(&binary);
        command.env_remove("XDG_RUNTIME_DIR").env_remove("PINFOLD_STATE").args(arguments).output().unwrap()
    };
    let output = nobody(&["serve", "--mount", "all:/nonexistent"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in
        ["this machine lacks what a realm needs", "not writable", "run as root", "chmod 666 /dev/fuse"]
    {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    let output = nobody(&["controllers"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("XDG_RUNTIME_DIR is not set"), "{}", text(&output.stderr));
    let output = nobody(&["doctor"]);
    assert_eq!(output.status.code(), Some(1), "nothing can be served");
    assert!(
        text(&output.stdout).contains("cgroup v2 ") && text(&output.stdout).contains("NO  FUSE"),
        "{}",
        text(&output.stdout)
    );
}

/// Which threads of a process wait for a time, or do not wait: each is a wake-up to come.
fn restless(process: u32) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs").flatten();
    let call = |thread: std::fs::DirEntry| {
        let read = |file| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        let (name, call) = (read("comm"), read("syscall"));
        let words: Vec<&str> = call.split_whitespace().collect();
        let argument = |at: usize| u64::from_str_radix(words.get(at + 1)?.strip_prefix("0x")?, 16).ok();
        let has_time = |at| argument(at) != Some(0);
        let has_millis = |at| argument(at).is_none_or(|millis| millis & 0xffff_ffff != 0xffff_ffff);
        // Numbers of x86-64: the system call table's.
        let is_restless = match words.first().copied() {
            Some("202" | "441") => has_time(3),   // futex, epoll_pwait2
            Some("271") => has_time(2),           // ppoll
            Some("7") => has_millis(2),           // poll
            Some("232" | "281") => has_millis(3), // epoll_wait, epoll_pwait
            Some("0" | "17" | "45" | "47" | "61" | "288") => false, // read, pread64, recvfrom, recvmsg, wait4, accept4
            _ => true,
        };
        is_restless.then(|| format!("{} in {}", name.trim(), call.trim()))
    };
    threads.filter_map(call).collect()
}

#[test]
fn nobody_waits_for_a_time_while_nothing_is_divided() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let sleeper = daemon.sleeper();
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["create", "/a/b"]); // not by mkdir: with CPUs, where there is cpuset
    daemon.write("cg/a/b/tasks", &sleeper.pid().to_string()).expect("it is moved");
    daemon.write("cg/a/freezer.state", "FROZEN").expect("it is frozen");
    let is_quiet = || restless(daemon.pid()).is_empty();
    eventually("all is quiet", is_quiet);
    if daemon.path("cg/a/files.max").exists() {
        daemon.write("cg/a/files.max", "64").expect("a limit that is divided over processes");
        eventually("they are looked after", || !is_quiet());
        daemon.write("cg/a/files.max", "max").expect("no limit");
        eventually("all is quiet again", is_quiet);
    }
    drop(sleeper);
    daemon.down();
}

#[test]
fn doctor_says_that_proc_hides_processes() {
    let Some(daemon) = Daemon::new() else { return };
    let binary = daemon.dir.join("pinfold");
    copy_program(BINARY, &binary);
    std::fs::set_permissions(&daemon.dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let doctor = |options: &str| {
        let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
        let script = format!("mount -o remount,{options} /proc && exec {nobody} {} doctor", binary.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script]);
        text(&command.output().expect("unshare runs").stdout)
    };
    let said = |options| doctor(options).contains("hidden processes");
    assert_eq!([said("hidepid=0"), said("hidepid=2"), said("hidepid=2,gid=65534")], [false, true, false]);
}

#[test]
fn doctor_knows_the_daemon() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let said = daemon.ok(&["doctor", "--base", daemon.base.path().to_str().unwrap()]);
    assert!(said.contains("realm default"), "{said}");
    let json: serde_json::Value = serde_json::from_str(&daemon.ok(&["doctor", "--json"])).unwrap();
    assert_eq!(json["daemon"]["realm"], "default");
    assert!(json["machine"].as_array().unwrap().iter().any(|finding| finding["what"] == "cgroup v2"));
    let features = json["features"].as_array().unwrap();
    assert!(features.iter().any(|finding| finding["what"] == "controller pids"));
    let events = features.iter().find(|finding| finding["what"] == "process events").unwrap();
    let source = if pinfold_events::Source::connector().is_ok() { "from the kernel" } else { "from /proc" };
    assert!(events["found"].as_str().unwrap().starts_with(source), "{events}");
    daemon.down();
}
