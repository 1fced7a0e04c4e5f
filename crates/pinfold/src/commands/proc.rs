//! What /proc shows on a machine with cgroup v1.

use pinfold_dbus::wire::{Controller, Membership};

use crate::args::{ProcArgs, ProcCommand};
use crate::{output, resolve};

/// `pinfold proc`.
pub(crate) fn proc(args: &ProcArgs) -> anyhow::Result<()> {
    match &args.command {
        ProcCommand::Cgroup { realm, output, pid } => {
            let pid = pid.map_or(0, std::num::NonZeroU32::get);
            let mut groups = resolve::client(realm)?.group_of(pid)?;
            groups.sort_by_key(|group| std::cmp::Reverse(group.hierarchy));
            if output.json {
                return output::json(&groups);
            }
            output::text(&cgroup(&groups))
        }
        ProcCommand::Cgroups { realm, output } => {
            let controllers = resolve::client(realm)?.list_controllers()?;
            if output.json {
                return output::json(&controllers);
            }
            output::text(&cgroups(&controllers))
        }
    }
}

/// `/proc/PID/cgroup`: proc_cgroup_show().
fn cgroup(groups: &[Membership]) -> String {
    groups.iter().map(|group| format!("{}:{}:{}\n", group.hierarchy, group.label, group.path)).collect()
}

/// `/proc/cgroups`: proc_cgroupstats_show(). A controller in no hierarchy counts one group, as there.
fn cgroups(controllers: &[Controller]) -> String {
    let lines = controllers.iter().map(|controller| {
        let enabled = u8::from(controller.unusable.is_empty());
        let groups = controller.groups.max(1);
        format!("{}\t{}\t{groups}\t{enabled}\n", controller.name, controller.hierarchy)
    });
    std::iter::once("#subsys_name\thierarchy\tnum_cgroups\tenabled\n".to_owned()).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::{Controller, Membership, cgroup, cgroups};

    #[test]
    fn proc_pid_cgroup_reads_as_the_kernels() {
        let group = |hierarchy, label: &str, path: &str| Membership {
            hierarchy,
            label: label.to_owned(),
            path: path.to_owned(),
        };
        let groups = [group(2, "name=systemd", "/"), group(1, "pids,freezer", "/jobs/7")];
        assert_eq!(cgroup(&groups), "2:name=systemd:/\n1:pids,freezer:/jobs/7\n");
    }

    #[test]
    fn proc_cgroups_reads_as_the_kernels() {
        let controller = |name: &str, hierarchy, groups, unusable: &str| Controller {
            name: name.to_owned(),
            about: String::new(),
            hierarchy,
            groups,
            unusable: unusable.to_owned(),
        };
        let controllers = [controller("pids", 3, 12, ""), controller("memory", 0, 0, "not in the v2 tree")];
        assert_eq!(
            cgroups(&controllers),
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\npids\t3\t12\t1\nmemory\t0\t1\t0\n"
        );
    }
}
