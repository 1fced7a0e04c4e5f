//! The methods: each translates its arguments, has an act carried out and translates the answer.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use pinfold_model::{Errno, HostPid, Pid};
use pinfold_realm::{Named, Requester};
use zbus::fdo;

use super::API_VERSION;
use super::acts::{Asking, Existed};
use super::client::Key;
use super::exchange::{Act, Answer, Exchange, Exchanges, Other, Refused};
use crate::error::Refusal;
use crate::manager::Daemon;
use crate::values::Process;

/// `org.linuxcontainers.cgmanager0_0` as one connection sees it.
pub(crate) struct Cgmanager {
    exchanges: Arc<Exchanges>,
}

/// What ends the exchanges of a connection that has ended: when this is dropped, it waits until nothing is done in the
/// client's name any more.
pub(crate) struct Finishing(Arc<Exchanges>);

impl Drop for Finishing {
    fn drop(&mut self) {
        self.0.finish();
    }
}

impl Cgmanager {
    /// The interface for who is at the other end.
    pub(crate) fn new(requester: Requester, daemon: Arc<Daemon>) -> Self {
        Self { exchanges: Arc::new(Exchanges::new(Arc::new(requester), daemon)) }
    }

    /// To be asked for before the interface is served.
    pub(crate) fn finishing(&self) -> Finishing {
        Finishing(Arc::clone(&self.exchanges))
    }

    /// Plain calls: who is connected asks.
    fn asking(&self) -> Asking<'_> {
        Asking { daemon: self.exchanges.daemon(), requester: self.exchanges.connected() }
    }

    /// The process of this number in the caller's pid namespace.
    fn process(&self, pid: i32) -> fdo::Result<Named> {
        let number = u32::try_from(pid).ok().filter(|number| *number != 0);
        let number = number.ok_or_else(|| Refusal::new(Errno::ESRCH, format!("no process {pid}")));
        let asking = self.asking();
        number
            .and_then(|number| Process::Number(number).find(&asking.daemon.realm, asking.requester))
            .map_err(invalid)
    }

    fn wait_for(&self, socket: zbus::OwnedFd, refusal: Refused, act: Act) -> fdo::Result<()> {
        let exchange = Exchange { socket: OwnedFd::from(socket), act, refusal };
        self.exchanges.add(exchange).map_err(invalid)
    }

    /// A call whose caller comes over the socket.
    fn by_credentials(
        &self,
        socket: zbus::OwnedFd,
        refusal: Refused,
        act: impl FnOnce(&Asking<'_>) -> Result<Answer, Refusal> + Send + 'static,
    ) -> fdo::Result<()> {
        self.wait_for(socket, refusal, Act::Alone(Box::new(act)))
    }

    /// A call whose caller comes over the socket, and then whom it is about.
    fn about_another(
        &self,
        socket: zbus::OwnedFd,
        refusal: Refused,
        act: impl FnOnce(&Asking<'_>, Other) -> Result<Answer, Refusal> + Send + 'static,
    ) -> fdo::Result<()> {
        self.wait_for(socket, refusal, Act::About(Box::new(act)))
    }
}

/// The one error that cgmanager knows. What is wrong is in the text.
fn invalid(refusal: Refusal) -> fdo::Error {
    fdo::Error::InvalidArgs(refusal.to_string())
}

fn told(existed: Existed) -> i32 {
    match existed {
        Existed::Yes => 1,
        Existed::No => -1,
    }
}

fn numbers(tasks: Vec<(Pid, HostPid)>) -> Vec<i32> {
    tasks.into_iter().filter_map(|(seen, _)| i32::try_from(seen.get()).ok()).collect()
}

fn processes(tasks: Vec<(Pid, HostPid)>) -> Answer {
    Answer::Tasks(tasks.into_iter().map(|(_, task)| task).collect())
}

#[zbus::interface(name = "org.linuxcontainers.cgmanager0_0", spawn = false)]
impl Cgmanager {
    /// The version of the interface.
    #[zbus(property(emits_changed_signal = "const"), name = "api_version")]
    async fn api_version(&self) -> i32 {
        API_VERSION
    }

    /// Answers.
    async fn ping(&self, junk: i32) {
        let _ = junk;
    }

    /// Where a process is, from the caller's own group, which is `/`.
    #[zbus(out_args("output"))]
    async fn get_pid_cgroup(&self, controller: &str, pid: i32) -> fdo::Result<String> {
        self.asking().pid_cgroup(controller, &self.process(pid)?).map_err(invalid)
    }
    async fn get_pid_cgroup_scm(&self, controller: String, sockfd: zbus::OwnedFd) -> fdo::Result<()> {
        self.about_another(sockfd, Refused::Text, move |asking, other| {
            asking.pid_cgroup(&controller, &other.process(asking)?).map(Answer::Text)
        })
    }

    /// Where a process is, from the root.
    #[zbus(out_args("output"))]
    async fn get_pid_cgroup_abs(&self, controller: &str, pid: i32) -> fdo::Result<String> {
        self.asking().pid_cgroup_abs(controller, &self.process(pid)?).map_err(invalid)
    }
    async fn get_pid_cgroup_abs_scm(&self, controller: String, sockfd: zbus::OwnedFd) -> fdo::Result<()> {
        self.about_another(sockfd, Refused::Text, move |asking, other| {
            asking.pid_cgroup_abs(&controller, &other.process(asking)?).map(Answer::Text)
        })
    }

    /// Makes a group, with those above it.
    #[zbus(out_args("existed"))]
    async fn create(&self, controller: &str, cgroup: &str) -> fdo::Result<i32> {
        self.asking().create(controller, cgroup).map(told).map_err(invalid)
    }
    async fn create_scm(&self, controller: String, cgroup: String, sockfd: zbus::OwnedFd) -> fdo::Result<()> {
        self.by_credentials(sockfd, Refused::Byte, move |asking| {
            asking.create(&controller, &cgroup).map(Answer::Existed)
        })
    }

    /// Gives a group, with its `tasks` and `cgroup.procs`, to a user.
    async fn chown(&self, controller: &str, cgroup: &str, uid: i32, gid: i32) -> fdo::Result<()> {
        let asking = self.asking();
        let to = asking.requester.new_owner(uid.into(), gid.into()).ok_or_else(|| {
            Refusal::new(Errno::EPERM, format!("{uid}:{gid} are not in the caller's user namespace"))
        });
        to.and_then(|to| asking.chown(controller, cgroup, to)).map_err(invalid)
    }
    async fn chown_scm(&self, controller: String, cgroup: String, sockfd: zbus::OwnedFd) -> fdo::Result<()> {
        self.about_another(sockfd, Refused::Byte, move |asking, other| {
            asking.chown(&controller, &cgroup, other.owner()).map(|()| Answer::Done)
        })
    }

    /// Changes the mode of a group's directory or, with a name, of that file.
    async fn chmod(&self, controller: &str, cgroup: &str, file: &str, mode: i32) -> fdo::Result<()> {
        self.asking().chmod(controller, cgroup, file, mode).map_err(invalid)
    }
    async fn chmod_scm(
        &self,
        controller: String,
        cgroup: String,
        file: String,
        mode: i32,
        sockfd: zbus::OwnedFd,
    ) -> fdo::Result<()> {
        self.by_credentials(sockfd, Refused::Byte, move |asking| {
            asking.chmod(&controller, &cgroup, &file, mode).map(|()| Answer::Done)
        })
    }

    /// Moves a process.
    async fn move_pid(&self, controller: &str, cgroup: &str, pid: i32) -> fdo::Result<()> {
        self.asking().move_pid(controller, cgroup, &self.process(pid)?).map_err(invalid)
    }
    async fn move_pid_scm(
        &self,
        controller: String,
        cgroup: String,
        sockfd: zbus::OwnedFd,
    ) -> fdo::Result<()> {
        self.about_another(sockfd, Refused::Byte, move |asking, other| {
            asking.move_pid(&controller, &cgroup, &other.process(asking)?).map(|()| Answer::Done)
        })
    }

    /// Moves a process to a group named from the root.
    async fn move_pid_abs(&self, controller: &str, cgroup: &str, pid: i32) -> fdo::Result<()> {
        self.asking().move_pid_abs(controller, cgroup, &self.process(pid)?).map_err(invalid)
    }
    async fn move_pid_abs_scm(
        &self,
        controller: String,
        cgroup: String,
        sockfd: zbus::OwnedFd,
    ) -> fdo::Result<()> {
        self.about_another(sockfd, Refused::Byte, move |asking, other| {
            asking.move_pid_abs(&controller, &cgroup, &other.process(asking)?).map(|()| Answer::Done)
        })
    }

    /// What a control file says.
    #[zbus(out_args("value"))]
    async fn get_value(&self, controller: &str, cgroup: &str, key: &str) -> fdo::Result<String> {
        self.asking().get_value(controller, cgroup, key).map_err(invalid)
    }
    async fn get_value_scm(
        &self,
        controller: String,
        cgroup: String,
        key: String,
        sockfd: zbus::OwnedFd,
    ) -> fdo::Result<()> {
        self.by_credentials(sockfd, Refused::Text, move |asking| {
            asking.get_value(&controller, &cgroup, &key).map(Answer::Text)
        })
    }

    /// Writes a control file.
    async fn set_value(&self, controller: &str, cgroup: &str, key: &str, value: &str) -> fdo::Result<()> {
        self.asking().set_value(controller, cgroup, key, value).map_err(invalid)
    }
    async fn set_value_scm(
        &self,
        controller: String,
        cgroup: String,
        key: String,
        value: String,
        sockfd: zbus::OwnedFd,
    ) -> fdo::Result<()> {
        self.by_credentials(sockfd, Refused::Byte, move |asking| {
            asking.set_value(&controller, &cgroup, &key, &value).map(|()| Answer::Done)
        })
    }

    /// Removes a group; unless `recursive` is 0, those below it too.
    #[zbus(out_args("existed"))]
    async fn remove(&self, controller: &str, cgroup: &str, recursive: i32) -> fdo::Result<i32> {
        self.asking().remove(controller, cgroup, recursive != 0).map(told).map_err(invalid)
    }
    async fn remove_scm(
        &self,
        controller: String,
        cgroup: String,
        recursive: i32,
        sockfd: zbus::OwnedFd,
    ) -> fdo::Result<()> {
        self.by_credentials(sockfd, Refused::Byte, move |asking| {
            asking.remove(&controller, &cgroup, recursive != 0).map(Answer::Existed)
        })
    }

    /// The tasks of a group, in the caller's pid namespace.
    #[zbus(out_args("output"))]
    async fn get_tasks(&self, controller: &str, cgroup: &str) -> fdo::Result<Vec<i32>> {
        self.asking().tasks(controller, cgroup).map(numbers).map_err(invalid)
    }
    async fn get_tasks_scm(
        &self,
        controller: String,
        cgroup: String,
        sockfd: zbus::OwnedFd,
    ) -> fdo::Result<()> {
        self.by_credentials(sockfd, Refused::Count, move |asking| {
            asking.tasks(&controller, &cgroup).map(processes)
        })
    }

    /// The tasks of a group and those below it, likewise.
    #[zbus(out_args("output"))]
    async fn get_tasks_recursive(&self, controller: &str, cgroup: &str) -> fdo::Result<Vec<i32>> {
        self.asking().tasks_recursive(controller, cgroup).map(numbers).map_err(invalid)
    }
    async fn get_tasks_recursive_scm(
        &self,
        controller: String,
        cgroup: String,
        sockfd: zbus::OwnedFd,
    ) -> fdo::Result<()> {
        self.by_credentials(sockfd, Refused::Count, move |asking| {
            asking.tasks_recursive(&controller, &cgroup).map(processes)
        })
    }

    /// The names of the groups in a group.
    #[zbus(out_args("output"))]
    async fn list_children(&self, controller: &str, cgroup: &str) -> fdo::Result<Vec<String>> {
        self.asking().children(controller, cgroup).map_err(invalid)
    }
    async fn list_children_scm(
        &self,
        controller: String,
        cgroup: String,
        sockfd: zbus::OwnedFd,
    ) -> fdo::Result<()> {
        self.by_credentials(sockfd, Refused::Count, move |asking| {
            asking.children(&controller, &cgroup).map(Answer::Names)
        })
    }

    /// Has a group removed when its last process or its last child has gone.
    async fn remove_on_empty(&self, controller: &str, cgroup: &str) -> fdo::Result<()> {
        self.asking().remove_on_empty(controller, cgroup).map_err(invalid)
    }
    async fn remove_on_empty_scm(
        &self,
        controller: String,
        cgroup: String,
        sockfd: zbus::OwnedFd,
    ) -> fdo::Result<()> {
        self.by_credentials(sockfd, Refused::Byte, move |asking| {
            asking.remove_on_empty(&controller, &cgroup).map(|()| Answer::Done)
        })
    }

    /// Removes a group and those below it that are empty, and has the others removed when they are.
    async fn prune(&self, controller: &str, cgroup: &str) -> fdo::Result<()> {
        self.asking().prune(controller, cgroup).map_err(invalid)
    }
    async fn prune_scm(&self, controller: String, cgroup: String, sockfd: zbus::OwnedFd) -> fdo::Result<()> {
        self.by_credentials(sockfd, Refused::Byte, move |asking| {
            asking.prune(&controller, &cgroup).map(|()| Answer::Done)
        })
    }

    /// The controllers of each hierarchy, with commas between them.
    #[zbus(out_args("output"))]
    async fn list_controllers(&self) -> Vec<String> {
        self.asking().controllers()
    }

    /// The control files of a group: name, user, group of users, mode.
    #[zbus(out_args("output"))]
    async fn list_keys(&self, controller: &str, cgroup: &str) -> fdo::Result<Vec<Key>> {
        self.asking().keys(controller, cgroup).map_err(invalid)
    }
    async fn list_keys_scm(
        &self,
        controller: String,
        cgroup: String,
        sockfd: zbus::OwnedFd,
    ) -> fdo::Result<()> {
        self.by_credentials(sockfd, Refused::Count, move |asking| {
            asking.keys(&controller, &cgroup).map(Answer::Keys)
        })
    }
}
