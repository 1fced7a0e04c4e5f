//! Release agents, as the kernel runs them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pinfold_kernel::agent;
use pinfold_model::Errno;

/// A directory of one test's own.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pinfold-k-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        // Written under another name: a program that is open for writing in a child just forked cannot be executed.
        fs::write(self.0.join("new"), text).unwrap();
        fs::set_permissions(self.0.join("new"), fs::Permissions::from_mode(0o755)).unwrap();
        let copied =
            std::process::Command::new("cp").args([self.0.join("new"), path.clone()]).status().unwrap();
        assert!(copied.success());
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(program: &Path, group: &str) -> std::process::ExitStatus {
    agent::start(program.as_os_str(), OsStr::new(group)).unwrap().wait().unwrap()
}

#[test]
fn an_agent_gets_the_groups_path_and_the_kernels_environment() {
    let directory = Directory::new("agent");
    let record = directory.0.join("record").display().to_string();
    let program = directory.program(
        "agent",
        &format!(
            "#!/bin/sh\nexec >{record}\ntr '\\0' '|' </proc/$$/cmdline; echo\ntr '\\0' '|' </proc/$$/environ; echo\n\
             pwd -P\numask\ncut -d' ' -f1,6 /proc/$$/stat | (read pid session; [ $pid = $session ] && echo leads)\n\
             readlink /proc/$$/fd/0 /proc/$$/fd/2\nls /proc/$$/fd; exit 7\n"
        ),
    );
    // A descriptor that the daemon inherited from a careless parent.
    let _inherited = rustix::io::dup(std::io::stderr()).unwrap();
    let status = run(&program, "/jobs/a b");
    let told = fs::read_to_string(&record).unwrap();
    let expected = format!(
        "/bin/sh|{}|/jobs/a b|\nHOME=/|PATH=/sbin:/bin:/usr/sbin:/usr/bin|\n/\n0022\nleads\n/dev/null\n/dev/null\n",
        program.display()
    );
    let (lines, descriptors) = told.split_at(expected.len().min(told.len()));
    assert_eq!(lines, expected);
    // 10 is the shell's own: the script.
    assert!(
        descriptors.split_ascii_whitespace().all(|fd| ["0", "1", "2", "10"].contains(&fd)),
        "{descriptors}"
    );
    assert_eq!(status.code(), Some(7));
}

#[test]
fn an_agent_is_neither_searched_for_nor_handed_to_a_shell() {
    let directory = Directory::new("exact");
    let errno = |program: &Path| {
        agent::start(program.as_os_str(), OsStr::new("/g"))
            .map(drop)
            .map_err(|error| error.errno())
            .unwrap_err()
    };
    // `true` is on every PATH, but not in `/`, where a relative path begins.
    assert_eq!(errno(Path::new("true")), Errno::ENOENT);
    assert_eq!(errno(Path::new("")), Errno::ENOENT);
    assert_eq!(errno(&directory.0), Errno::EACCES);
    let no_interpreter = directory.program("plain", "exit 0\n");
    let error = agent::start(no_interpreter.as_os_str(), OsStr::new("/g")).unwrap_err();
    assert!(error.to_string().contains("plain\" cannot be started: Exec format error"), "{error}");
    assert_eq!(agent::start(OsStr::new("/bin/true"), OsStr::new("a\0b")).unwrap_err().errno(), Errno::EINVAL);
}

#[test]
fn a_relative_agent_begins_at_the_root() {
    let directory = Directory::new("relative");
    let program = directory.program("agent", "#!/bin/sh\n[ \"$1\" = /g ] && exit 5\n");
    let relative = program.strip_prefix("/").unwrap();
    assert_eq!(run(relative, "/g").code(), Some(5));
}
