//! The command line: its help texts, what it refuses, its exit statuses, what it generates.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

fn pinfold(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinfold"));
    for variable in ["PINFOLD_REALM", "PINFOLD_STATE", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command.args(arguments).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// Exit status and what was said on stderr.
fn failure(arguments: &[&str]) -> (Option<i32>, String) {
    let output = pinfold(arguments);
    (output.status.code(), text(&output.stderr))
}

/// Every command, with the subcommands of `proc` and `rules`.
fn commands() -> Vec<Vec<&'static str>> {
    let plain = "serve mount umount down controllers hierarchies tree ls status tasks keys get set create rm prune \
                 move chown chmod kill freeze thaw exec run events rules capture restart proc doctor completions bus-policy \
                 man";
    let mut commands: Vec<_> = plain.split_whitespace().map(|name| vec![name]).collect();
    commands.extend([vec![], vec!["proc", "cgroup"], vec!["proc", "cgroups"], vec!["rules", "check"]]);
    commands
}

/// The help texts are what users read first: a change of theirs is reviewed as text, in tests/help/.
/// `UPDATE_HELP=1 cargo test` writes them anew.
#[test]
fn help_reads_as_reviewed() {
    for command in commands() {
        let mut arguments = command.clone();
        arguments.push("--help");
        let output = pinfold(&arguments);
        assert!(output.status.success(), "{arguments:?}");
        assert_reviewed(&[&["pinfold"], &command[..]].concat().join("-"), &text(&output.stdout));
    }
}

fn assert_reviewed(name: &str, shown: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/help/{name}.txt"));
    if std::env::var_os("UPDATE_HELP").is_some() {
        std::fs::write(&file, shown).expect("the source tree");
    }
    let reviewed = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(shown, reviewed, "{} (UPDATE_HELP=1 writes it anew)", file.display());
}

/// cgmanager's client fails when it is asked for help, and this one does too.
#[test]
fn started_as_cgm_it_is_cgmanagers_client() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinfold"));
    let output = command.arg0("/usr/bin/cgm").arg("--help").output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    assert_reviewed("cgm", &text(&output.stdout));
}

#[test]
fn every_command_of_the_help_text_is_in_this_list_of_commands() {
    let help = text(&pinfold(&["--help"]).stdout);
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let mut listed: Vec<_> = listed.filter_map(|line| line.split_whitespace().next()).collect();
    listed.retain(|name| *name != "help");
    let known: Vec<_> = commands().into_iter().filter(|command| command.len() == 1).map(|c| c[0]).collect();
    assert_eq!(listed, known);
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_was_wrong() {
    for (arguments, said) in [
        (vec![], "Usage: pinfold"),
        (vec!["nonsense"], "unrecognized subcommand 'nonsense'"),
        (vec!["get", "pids:", "pids.max"], "no path in \"pids:\""),
        (vec!["get", "/a"], "<KEY>"),
        (vec!["get", "/a", "x/y"], "a key is a word as pids.limit"),
        (vec!["set", "/a", "pids.max"], "no `=`: write KEY=VALUE"),
        (vec!["set", "/a", "=5"], "a key is a word as pids.limit"),
        (vec!["create", "/a/../b"], "a group's path has no such step"),
        (vec!["create", ""], "an empty name"),
        (vec!["move", "0", "/a"], "invalid value '0'"),
        (vec!["move", "-1", "/a"], "unexpected argument '-1'"),
        (vec!["move", "abc", "/a"], "invalid value 'abc'"),
        (vec!["chown", ":", "/a"], "write USER, USER:GROUP or :GROUP"),
        (vec!["serve", "--mount", "all"], "no `:`: write OPTS:DIR"),
        (vec!["serve", "--mount", ":/tmp"], "no options before the colon"),
        (vec!["serve", "--mount", "all:"], "no directory after the colon"),
        (vec!["serve", "--realm", "../x"], "a realm's name is"),
        (vec!["serve", "--realm", "a/b"], "a realm's name is"),
        (vec!["serve", "--tracker", "v3"], "invalid value 'v3'"),
        (vec!["serve", "--system-bus", "--events-only"], "cannot be used with"),
        (vec!["serve", "--callers-by-number"], "--system-bus"),
        (vec!["exec", "--", "true"], "--group <GROUP>"),
        (vec!["exec", "-g", "/a"], "<COMMAND>"),
        (vec!["chmod", "u+w", "/a"], "octal digits"),
        (vec!["chmod", "10000", "/a"], "octal digits"),
        (vec!["chmod", "00755", "/a"], "octal digits"),
        (vec!["chmod", "", "/a"], "octal digits"),
        (vec!["rm", "-r", "--when-empty", "/a"], "cannot be used with"),
        (vec!["create", "-p", "/a", "pids.max=1"], "cannot be used with"),
        (vec!["run"], "<COMMAND>"),
        (vec!["run", "pids.max", "--", "true"], "no `=`"),
        (vec!["proc"], "Usage: pinfold proc"),
        (vec!["completions", "tcsh"], "invalid value 'tcsh'"),
    ] {
        let (status, stderr) = failure(&arguments);
        assert_eq!(status, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?} said: {stderr}");
    }
}

#[test]
fn without_a_daemon_a_client_says_where_it_looked_and_how_to_start_one() {
    let (status, stderr) = failure(&["tree", "--state", "/nonexistent/pinfold"]);
    assert_eq!(status, Some(1));
    assert_eq!(
        stderr,
        "pinfold: no daemon at /nonexistent/pinfold/socket (No such file or directory (os error 2))\n\
         start one with `pinfold serve --state /nonexistent/pinfold`, or name another with --realm or --state\n"
    );
}

#[test]
fn a_failure_of_pinfold_itself_is_no_status_of_the_command() {
    for arguments in [
        vec!["run", "--state", "/nonexistent", "--", "false"],
        vec!["exec", "--state", "/nonexistent", "-g", "/", "--", "false"],
    ] {
        let (status, stderr) = failure(&arguments);
        assert_eq!(status, Some(125), "{arguments:?}");
        assert!(stderr.contains("no daemon at /nonexistent/socket"), "{arguments:?} said: {stderr}");
    }
}

#[test]
fn a_realm_and_a_state_directory_can_come_from_the_environment() {
    let run = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pinfold"));
        command.env_remove("PINFOLD_REALM").env_remove("PINFOLD_STATE").arg("controllers");
        command.envs(variables.iter().copied());
        text(&command.output().unwrap().stderr)
    };
    assert!(run(&[("PINFOLD_STATE", "/nonexistent/a")]).contains("no daemon at /nonexistent/a/socket"));
    let user = [("PINFOLD_REALM", "nobody-has-this"), ("XDG_RUNTIME_DIR", "/nonexistent")];
    assert!(run(&user).contains("pinfold/nobody-has-this/socket"), "{}", run(&user));
}

#[test]
fn a_wrong_log_filter_is_told() {
    let (status, stderr) = failure(&["--log", "pinfold=loud", "controllers"]);
    assert_eq!(status, Some(2));
    assert!(stderr.contains("invalid value 'pinfold=loud' for '--log <FILTER>'"), "{stderr}");
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = pinfold(&["completions", shell]);
        assert!(output.status.success(), "{shell}");
        let script = text(&output.stdout);
        for command in commands().into_iter().filter(|command| command.len() == 1) {
            assert!(script.contains(command[0]), "{shell} does not complete {}", command[0]);
        }
    }
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let dir = std::env::temp_dir().join(format!("pinfold-man-{}", std::process::id()));
    let output = pinfold(&["man", dir.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let names = commands().into_iter().map(|command| [&["pinfold"], &command[..]].concat().join("-"));
    let pages: Vec<_> = names
        .chain(["cgm".to_owned(), "cgm-movepid".to_owned()])
        .map(|name| dir.join(format!("{name}.1")))
        .map(|page| (page.display().to_string(), std::fs::read_to_string(page).unwrap_or_default()))
        .collect();
    std::fs::remove_dir_all(&dir).unwrap();
    for (name, page) in &pages {
        assert!(page.contains(".TH"), "{name} is no manual page");
    }
    let (_, main) = pages.iter().find(|(name, _)| name.ends_with("/pinfold.1")).unwrap();
    assert!(main.contains("Exit status"), "the exit statuses are in pinfold(1)");
}
