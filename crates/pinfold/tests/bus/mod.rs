//! A bus of the test's own, never the machine's, and a realm that is at it.

pub(crate) mod others;
pub(crate) mod wire;

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use crate::daemon::{BINARY, Daemon, readable, skip, text};

/// What Debian's system bus has for everybody, and pinfold's policy.
const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=DIR/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  POLICY
</busconfig>
"#;

/// Users whom every host has (daemon, bin): dbus-daemon hangs up on those that passwd does not know.
pub(crate) const ALICE: u32 = 1;
pub(crate) const BOB: u32 = 2;

/// A bus.
pub(crate) struct Bus {
    child: Child,
    pub address: String,
}

impl Bus {
    /// Starts one in the daemon's private directory; `None`, with the reason printed, if there is no dbus-daemon.
    pub(crate) fn start(daemon: &Daemon, policy: &str) -> Option<Self> {
        let dir = daemon.dir.display();
        let config = daemon.dir.join("bus.conf");
        let text = CONFIG.replace("DIR", &dir.to_string()).replace("POLICY", policy);
        std::fs::write(&config, text).expect("the directory is ours");
        let mut command = Command::new("dbus-daemon");
        command.arg("--config-file").arg(&config).args(["--nofork", "--nopidfile", "--print-address=1"]);
        let Ok(mut child) = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
        else {
            skip("needs dbus-daemon");
            return None;
        };
        // The address is printed when it listens.
        assert!(readable(child.stdout.take().expect("a pipe").as_fd()), "the bus does not start");
        Some(Self { child, address: format!("unix:path={dir}/bus") })
    }

    /// Starts one that lets pinfold in.
    pub(crate) fn with_policy(daemon: &Daemon) -> Option<Self> {
        let printed = Command::new(BINARY).arg("bus-policy").output().expect("the binary runs");
        let file: PathBuf = daemon.dir.join("org.pinfold.conf");
        std::fs::write(&file, printed.stdout).expect("the directory is ours");
        Self::start(daemon, &format!("<include>{}</include>", file.display()))
    }

    /// Starts the daemon, which is to be at this bus and takes its callers whether or not it has pidfds of them.
    pub(crate) fn serve(&self, daemon: &mut Daemon) -> Result<(), Output> {
        self.serve_with(daemon, &["--callers-by-number"])
    }

    /// The same, with other arguments.
    pub(crate) fn serve_with(&self, daemon: &mut Daemon, arguments: &[&str]) -> Result<(), Output> {
        let address = format!("DBUS_SYSTEM_BUS_ADDRESS={}", self.address);
        let mount = format!("none,name=x:{}/cg", daemon.dir.display());
        let always = ["--system-bus".to_owned(), "--mount".to_owned(), mount];
        let arguments: Vec<_> =
            always.into_iter().chain(arguments.iter().map(|&argument| argument.to_owned())).collect();
        daemon.try_serve_through(&["env", &address], &arguments)
    }

    /// A connection of a user, and its name. Its process is this one, which is root's: where the bus has no pidfds, only
    /// its user tells whether it is still the one that connected.
    pub(crate) fn connected(&self, uid: u32) -> (UnixStream, String) {
        let mut stream = wire::connected(self.address.trim_start_matches("unix:path=").to_owned(), uid);
        stream.write_all(&wire::call_of_bus("Hello", &[])).expect("the bus talks");
        let told = wire::read_until(&mut stream, b"NameAcquired");
        let told = text(&told);
        let name = &told[told.find(":1.").expect("the bus tells the name")..];
        let end = name.find(|byte: char| byte.is_control()).expect("it has an end");
        (stream, name[..end].to_owned())
    }

    /// A call by busctl, as a line for a shell.
    pub(crate) fn call(&self, method_and_arguments: &str) -> String {
        let address = &self.address;
        format!(
            "busctl --address={address} call org.pinfold /org/pinfold/Manager org.pinfold.Manager1 {method_and_arguments}"
        )
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

/// A realm at a bus, with groups of two users.
pub(crate) fn realm_at_a_bus() -> Option<(Daemon, Bus)> {
    let mut daemon = Daemon::new()?;
    let bus = Bus::with_policy(&daemon)?;
    if let Err(output) = bus.serve(&mut daemon) {
        panic!("the daemon did not start: {}\n{}", output.status, text(&output.stderr));
    }
    for (uid, group) in [(ALICE, "/alice"), (BOB, "/bob")] {
        daemon.ok(&["create", group]);
        daemon.ok(&["chown", &format!("{uid}:{uid}"), group]);
    }
    Some((daemon, bus))
}
