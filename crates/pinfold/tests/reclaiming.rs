//! What has the kernel reclaim: as long as that takes, other changes go on.

use pinfold_kernel::inspect::Release;

use crate::daemon::{self, Daemon, eventually, in_guest};

/// What the group uses, and what it is to use.
pub(crate) const FULL: u64 = 192 << 20;
pub(crate) const LOWERED: u64 = 32 << 20;

/// A realm with swap, for what nobody can read again.
pub(crate) struct Swapping(pub(crate) Daemon);

impl Swapping {
    pub(crate) fn new() -> Option<Self> {
        if !in_guest() {
            return None;
        }
        let daemon = Daemon::serving("memory:cg")?;
        daemon.ok(&["create", "/a"]);
        Some(Self::with(daemon))
    }

    /// The same of a realm that has a group `/a` of memory, at `cg`.
    pub(crate) fn with(daemon: Daemon) -> Self {
        let swap = "modprobe zram && echo 512M > /sys/block/zram0/disksize && mkswap -q /dev/zram0 && swapon /dev/zram0";
        assert!(daemon.script(swap).status.success(), "the guest's kernel has zram");
        Self(daemon)
    }

    pub(crate) fn used(&self) -> u64 {
        self.number("memory.usage_in_bytes")
    }

    /// Has a group with much memory reclaimed by a write, and does something when that has begun. Answers how the write ended, and what
    /// was used when the other was done and when the write was.
    fn amid<T>(
        &self,
        file: &str,
        text: &str,
        does: impl FnOnce() -> T,
    ) -> (std::io::Result<()>, T, [u64; 2]) {
        let mut holder = self.holder(FULL);
        let outcome = std::thread::scope(|scope| {
            let write = scope.spawn(|| self.0.write(&format!("cg/a/{file}"), text));
            eventually("the kernel reclaims", || self.used() < FULL - LOWERED || write.is_finished());
            let done = does();
            let then = self.used_or_none();
            let answer = write.join().expect("it does not panic");
            (answer, done, [then, self.used_or_none()])
        });
        // Whoever was moved is not there any more.
        for group in ["/a", "/b"] {
            self.0.pinfold(&["kill", group]);
        }
        holder.wait().expect("timeout is our child");
        outcome
    }

    /// Somebody in the group who has memory of his own.
    pub(crate) fn holder(&self, size: u64) -> std::process::Child {
        self.holder_with(size, Self::used)
    }

    /// The same, if some of it may be counted elsewhere.
    fn holder_with(&self, size: u64, used: impl Fn(&Self) -> u64) -> std::process::Child {
        // dd has all of its buffer, and waits for somebody to read it.
        let script = format!("dd if=/dev/zero bs={size} count=1 | sleep 600");
        let holder = ["exec", "-g", "/a", "--", "sh", "-c", &script];
        let holder = self.0.command(daemon::BINARY).args(holder).spawn().expect("timeout runs");
        eventually("dd has its buffer", || used(self) > size);
        holder
    }

    pub(crate) fn number(&self, file: &str) -> u64 {
        self.0.read(&format!("cg/a/{file}")).trim().parse().expect("a number")
    }

    /// Whether a write is refused because more is used.
    pub(crate) fn refuses(&self, file: &str, text: &str) -> bool {
        let answer = self.0.write(&format!("cg/a/{file}"), text);
        let errno = answer.err().map(|error| error.raw_os_error());
        errno == Some(Some(rustix::io::Errno::BUSY.raw_os_error()))
    }

    fn used_or_none(&self) -> u64 {
        let text = std::fs::read_to_string(self.0.path("cg/a/memory.usage_in_bytes"));
        text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// The throttles that hold somebody off, of all the realm's directories.
    pub(crate) fn throttles(&self) -> Vec<String> {
        self.limits("memory.high")
    }

    /// What limits something, of what all the realm's directories say in a file.
    fn limits(&self, file: &str) -> Vec<String> {
        let base = self.0.base.path().display();
        let list = self.0.script(&format!("find {base}/*/ -name {file} -exec cat {{}} +"));
        assert!(list.status.success(), "{}", daemon::text(&list.stderr));
        daemon::text(&list.stdout).lines().filter(|limit| *limit != "max").map(str::to_owned).collect()
    }

    pub(crate) fn down(mut self) {
        self.0.down();
        assert!(self.0.script("swapoff /dev/zram0 && echo 1 > /sys/block/zram0/reset").status.success());
    }
}

#[test]
fn others_make_changes_while_a_limit_is_lowered_or_a_group_is_emptied() {
    let Some(swapping) = Swapping::new() else { return };
    let daemon = &swapping.0;
    daemon.ok(&["create", "/others"]);
    let sleeper = daemon.sleeper();
    let moves = |group: &str| daemon.write(&format!("cg/{group}/cgroup.procs"), &sleeper.pid().to_string());
    for (file, text) in
        [("memory.limit_in_bytes", LOWERED.to_string()), ("memory.force_empty", "0".to_owned())]
    {
        eventually("changes are made while the kernel still reclaims", || {
            let (answer, (), [then, after]) = swapping.amid(file, &text, || {
                std::fs::create_dir(daemon.path("cg/others/b")).expect("a new group");
                moves("others/b").expect("it is ours");
            });
            answer.expect("all can be swapped");
            assert!(after <= LOWERED, "{file}: {after}");
            moves("others").expect("it is ours");
            std::fs::remove_dir(daemon.path("cg/others/b")).expect("nobody is in it");
            daemon.write("cg/a/memory.limit_in_bytes", "-1").expect("no limit");
            then > LOWERED + LOWERED / 2
        });
    }
    sleeper.end();
    assert_eq!(swapping.throttles(), Vec::<String>::new());
    swapping.down();
}

#[test]
fn what_others_change_while_a_limit_is_lowered_holds() {
    let Some(swapping) = Swapping::new() else { return };
    let daemon = &swapping.0;
    let lowered = LOWERED.to_string();
    // Another limit: the later holds, whichever that is.
    let other = || daemon.write("cg/a/memory.limit_in_bytes", "160M");
    let (answer, others, _) = swapping.amid("memory.limit_in_bytes", &lowered, || {
        daemon.ok(&["create", "/b"]);
        other()
    });
    answer.expect("it can be swapped");
    others.expect("it was so already");
    assert_eq!(swapping.throttles(), Vec::<String>::new());
    let limit = daemon.read("cg/a/memory.limit_in_bytes").trim().to_owned();
    assert!(limit == lowered || limit == (160 << 20).to_string(), "{limit}");
    daemon.write("cg/a/memory.limit_in_bytes", "-1").expect("no limit");
    // Whoever it is about is somewhere else.
    let (answer, (), _) = swapping.amid("memory.limit_in_bytes", &lowered, || {
        for process in daemon.numbers("cg/a/cgroup.procs") {
            daemon.ok(&["move", &process.to_string(), "/b"]);
        }
        assert!(daemon.read("cg/a/tasks").is_empty());
    });
    answer.expect("nobody is there, or it can be swapped");
    assert_eq!(swapping.throttles(), Vec::<String>::new());
    assert_eq!(daemon.read("cg/b/memory.limit_in_bytes"), "9223372036854771712\n");
    daemon.write("cg/a/memory.limit_in_bytes", "-1").expect("no limit");
    // The group is gone.
    let (answer, (), _) = swapping.amid("memory.limit_in_bytes", &lowered, || {
        daemon.ok(&["kill", "/a"]);
        eventually("nobody is in it", || daemon.pinfold(&["rm", "/a"]).status.success());
    });
    let errno = answer.err().and_then(|error| error.raw_os_error());
    assert!(errno.is_none_or(|errno| errno == rustix::io::Errno::NODEV.raw_os_error()), "{errno:?}");
    assert_eq!(swapping.throttles(), Vec::<String>::new());
    assert!(!daemon.path("cg/a").exists());
    swapping.down();
}

/// v1 swaps to get below a limit: mem_cgroup_resize_max().
#[test]
fn what_a_lower_limit_of_memory_leaves_of_both_can_be_swapped() {
    let Some(swapping) = Swapping::new() else { return };
    let daemon = &swapping.0;
    daemon.ok(&["set", "/a", "memory.limit_in_bytes=96M", "memory.memsw.limit_in_bytes=96M"]);
    let mut holder = swapping.holder(80 << 20);
    assert_eq!(swapping.limits("memory.swap.max"), ["0"]);
    // Not so far down: what the kernel has for somebody does not go to swap.
    assert!(swapping.refuses("memory.limit_in_bytes", "4096"));
    assert_eq!(swapping.limits("memory.swap.max"), ["0"], "as it was");
    assert_eq!(daemon.read("cg/a/memory.limit_in_bytes").trim(), (96 << 20).to_string());
    daemon.write("cg/a/memory.limit_in_bytes", &LOWERED.to_string()).expect("the rest can be swapped");
    assert!(swapping.used() <= LOWERED);
    assert_eq!(swapping.limits("memory.swap.max"), [(64 << 20).to_string()]);
    assert!(swapping.number("memory.memsw.usage_in_bytes") <= 96 << 20);
    assert_eq!(swapping.throttles(), Vec::<String>::new());
    daemon.ok(&["kill", "/a"]);
    holder.wait().expect("timeout is our child");
    swapping.down();
}

#[test]
fn what_can_be_read_again_makes_room_for_a_lower_limit_of_both() {
    let Some(swapping) = Swapping::new() else { return };
    let daemon = &swapping.0;
    daemon.ok(&["set", "/a", "memory.limit_in_bytes=112M", "memory.memsw.limit_in_bytes=200M"]);
    let mut holder = swapping.holder(48 << 20);
    daemon.write("cg/a/memory.force_empty", "0").expect("it can be swapped");
    // Of a device that is in use pages stay.
    daemon.ok(&["exec", "-g", "/a", "--", "dd", "if=/dev/zram0", "of=/dev/null", "bs=1M", "count=96"]);
    let both = || swapping.number("memory.memsw.usage_in_bytes");
    assert!(swapping.used() < 120 << 20 && both() > 120 << 20, "{} of {}", swapping.used(), both());
    daemon.write("cg/a/memory.memsw.limit_in_bytes", "120M").expect("what was read can go");
    assert!(both() <= 120 << 20, "{}", both());
    assert_eq!(swapping.throttles(), Vec::<String>::new());
    // What is in swap cannot.
    assert!(swapping.refuses("memory.limit_in_bytes", "4096"));
    daemon.write("cg/a/memory.limit_in_bytes", "16M").expect("what was read can go");
    assert!(swapping.refuses("memory.memsw.limit_in_bytes", "20M"));
    daemon.ok(&["kill", "/a"]);
    holder.wait().expect("timeout is our child");
    swapping.down();
}

/// v1 limits the sum whatever part of it is in swap; v2 brings nothing back when there may be less.
#[test]
fn more_swap_than_the_limits_leave_is_told() {
    let Some(swapping) = Swapping::new() else { return };
    let daemon = &swapping.0;
    daemon.ok(&["set", "/a", "memory.limit_in_bytes=32M", "memory.memsw.limit_in_bytes=96M"]);
    let mut holder =
        swapping.holder_with(80 << 20, |swapping| swapping.number("memory.memsw.usage_in_bytes"));
    let told = || {
        let status: serde_json::Value =
            serde_json::from_str(&daemon.ok(&["status", "/a", "--json"])).expect("JSON");
        let mut all = status.as_array().expect("a list").iter();
        let limit = all.find(|one| one["key"] == "memory.memsw.limit_in_bytes").expect("it is there");
        limit["enforced"].as_str().expect("words").to_owned()
    };
    assert_eq!(told(), "native");
    daemon.write("cg/a/memory.limit_in_bytes", "96M").expect("no more than both");
    assert!(told().starts_with("native, but more is in swap"), "{}", told());
    // Not by ending who uses it: the kernel keeps some of what was in swap for a while.
    daemon.write("cg/a/memory.limit_in_bytes", "32M").expect("the rest can be swapped");
    assert_eq!(told(), "native");
    daemon.ok(&["kill", "/a"]);
    holder.wait().expect("timeout is our child");
    swapping.down();
}

/// "memcg: expose swapcache stat for memcg v1", Linux 6.7.
#[test]
fn stat_has_the_lines_that_v1_of_this_kernel_would() {
    let Some(swapping) = Swapping::new() else { return };
    let daemon = &swapping.0;
    let mut holder = swapping.holder(LOWERED * 2);
    daemon.write("cg/a/memory.limit_in_bytes", &LOWERED.to_string()).expect("the rest can be swapped");
    let stat = daemon.read("cg/a/memory.stat");
    let names: Vec<&str> = stat.lines().filter_map(|line| line.split(' ').next()).collect();
    let swap = names.iter().position(|name| *name == "swap").expect("listed");
    let release = Release::of_kernel().expect("uname says");
    let has_swapcached = release >= Release { major: 6, minor: 7 };
    assert_eq!(names[swap + 1], if has_swapcached { "swapcached" } else { "pgpgin" }, "{release:?}");
    assert_eq!(names.contains(&"total_swapcached"), has_swapcached);
    let swapped = stat.lines().find_map(|line| line.strip_prefix("total_swap ")).map(crate::crossing::number);
    assert!(swapped > Some(0), "{stat}");
    daemon.ok(&["kill", "/a"]);
    holder.wait().expect("timeout is our child");
    swapping.down();
}
