//! Arguments of `cgm`: those of cgmanager's client, in its order and under its names.

use clap::{Parser, Subcommand};

const AFTER_HELP: &str = "\
CONTROLLER is a controller (memory) or the name of a hierarchy; for create, chown, chmod, chmodfile,
remove, removeonempty, prune, movepid, movepidabs and gettasksrecursive also several with commas
between them, or `all`.

CGROUP begins at the caller's own group, which is ''. A slash at the front is the root in getvalue,
setvalue, gettasks, gettasksrecursive, listchildren and listkeys; elsewhere it does not count.

The manager is at CGM_SOCKET, or else at /sys/fs/cgroup/cgmanager/sock or /run/cgmanager/sock:
that of `pinfold serve --cgmanager`, or of cgmanager itself.

Exit status: 0 done, 1 failed or wrong usage.";

/// Talk to cgmanager, or to pinfold in its place.
#[derive(Parser, Debug)]
#[command(name = "cgm", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cgm {
    /// What to do.
    #[command(subcommand)]
    pub command: CgmCommand,
}

/// Every command of cgmanager's client.
#[derive(Subcommand, Debug)]
pub(crate) enum CgmCommand {
    /// Ask whether the manager is there
    Ping,
    /// Make a group, with those above it
    Create { controller: String, cgroup: String },
    /// Give a group, with its tasks and cgroup.procs, to a user
    Chown { controller: String, cgroup: String, uid: String, gid: String },
    /// Change the mode of a group's directory
    Chmod {
        controller: String,
        cgroup: String,
        /// In octal digits
        mode: String,
    },
    /// Change the mode of one of its files
    Chmodfile {
        controller: String,
        cgroup: String,
        file: String,
        /// In octal digits
        mode: String,
    },
    /// Remove a group and those below it
    Remove {
        controller: String,
        cgroup: String,
        /// 0: not those below it
        recursive: Option<String>,
    },
    /// Print where a process is, from the caller's own group
    Getpidcgroup {
        controller: String,
        #[arg(allow_hyphen_values = true)]
        pid: String,
    },
    /// Print where a process is, from the root
    Getpidcgroupabs {
        controller: String,
        #[arg(allow_hyphen_values = true)]
        pid: String,
    },
    /// Move a process
    Movepid {
        controller: String,
        cgroup: String,
        #[arg(allow_hyphen_values = true)]
        pid: String,
    },
    /// Move a process to a group named from the root
    Movepidabs {
        controller: String,
        cgroup: String,
        #[arg(allow_hyphen_values = true)]
        pid: String,
    },
    /// Print what a control file says
    Getvalue { controller: String, cgroup: String, file: String },
    /// Write to a control file
    Setvalue {
        controller: String,
        cgroup: String,
        file: String,
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Print the tasks of a group
    Gettasks {
        controller: String,
        #[arg(default_value = "", hide_default_value = true)]
        cgroup: String,
    },
    /// Print the tasks of a group and those below it
    Gettasksrecursive {
        controller: String,
        #[arg(default_value = "", hide_default_value = true)]
        cgroup: String,
    },
    /// Print the names of the groups in a group
    Listchildren {
        controller: String,
        #[arg(default_value = "", hide_default_value = true)]
        cgroup: String,
    },
    /// Have a group removed when it is empty
    Removeonempty { controller: String, cgroup: String },
    /// Remove what is empty of a group and those below it, and the rest when it is
    Prune {
        controller: String,
        #[arg(default_value = "", hide_default_value = true)]
        cgroup: String,
    },
    /// Print the controllers of each hierarchy
    Listcontrollers,
    /// Print the control files of a group: name, user, group of users, mode
    Listkeys {
        controller: String,
        #[arg(default_value = "", hide_default_value = true)]
        cgroup: String,
    },
    /// Print the version of the interface
    Apiversion,
}
