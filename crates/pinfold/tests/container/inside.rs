//! What this program does where a shell starts it, as what a container's processes ask for: an act, which is no test.

use std::io::Write;
use std::path::PathBuf;

use pinfold_dbus::{Client, ClientError, GroupName};

use super::Shell;

/// The variable that says what to do.
const ACT: &str = "PINFOLD_TEST_ACT";

/// Has a shell run this program; what it says of its act.
pub(crate) fn act(shell: &mut Shell, test: &str, what: &str) -> Vec<String> {
    let program = std::env::current_exe().expect("this program has a file");
    let said = shell
        .run(&format!("{ACT}=\"{what}\" timeout 400 {} --exact {test} --nocapture", program.display()))
        .text;
    let lines: Vec<_> =
        said.lines().filter_map(|line| line.strip_prefix("act: ").map(str::to_owned)).collect();
    assert!(!lines.is_empty(), "{what}: {said}");
    lines
}

/// What it is to do; nothing if it runs as a test.
pub(crate) fn told_to() -> Option<String> {
    std::env::var(ACT).ok()
}

/// Says what came of an act.
pub(crate) fn says(what: &str) {
    std::io::stdout().write_all(format!("\nact: {what}\n").as_bytes()).expect("somebody listens");
}

/// The state directory of the shell's daemon.
pub(crate) fn state() -> PathBuf {
    std::env::var_os("PINFOLD_STATE").expect("every shell has it").into()
}

/// A client at the public door.
pub(crate) fn client() -> Client {
    let mut socket = state().into_os_string();
    socket.push(".public/socket");
    Client::connect(socket.as_ref()).expect("the public door is open")
}

pub(crate) fn group(name: &str) -> GroupName {
    name.parse().expect("a group's name")
}

/// `ok`, or the errno of a refusal.
pub(crate) fn result<T>(result: Result<T, ClientError>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(ClientError::Refused(refusal)) => refusal.errno().to_owned(),
        Err(error) => format!("{error:?}"),
    }
}
