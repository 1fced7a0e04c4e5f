//! The storm: shells that fork when told to, two at a time.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pinfold_events::Pid;

/// What forks, and is killed in the end.
pub(crate) struct Storm {
    shells: Vec<Child>,
    /// How many forks there will be.
    pub(crate) forks: u64,
}

impl Storm {
    /// Shells that share this many forks evenly.
    pub(crate) fn new(shells: u64, forks: u64) -> Self {
        let each = forks / shells;
        let script =
            format!("read go; i=0; while [ $i -lt {each} ]; do (:); i=$((i+1)); done; echo done; read end");
        let start = || {
            let mut command = Command::new("sh");
            command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
        };
        Self { shells: (0..shells).map(|_| start()).collect(), forks: each * shells }
    }

    /// The shells' numbers.
    pub(crate) fn roots(&self) -> Vec<Pid> {
        self.shells.iter().map(|shell| Pid::new(shell.id()).unwrap()).collect()
    }

    /// The CPU time of the shells and of what they forked, in nanoseconds.
    pub(crate) fn cpu_time(&self) -> u64 {
        let ticks = |shell: &Child| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", shell.id())).unwrap();
            let fields = stat.rsplit(") ").next().unwrap().split(' ');
            // Fields 14 to 17: of itself and of its children, in user mode and in the kernel.
            fields.skip(11).take(4).map(|field| field.parse::<u64>().unwrap()).sum::<u64>()
        };
        self.shells.iter().map(ticks).sum::<u64>() * 10_000_000
    }

    /// Lets loose one half of the shells after the other beside the other half; answers how long it took.
    pub(crate) fn rage(&mut self) -> Duration {
        let begin = Instant::now();
        let half = self.shells.len() / 2;
        let (one, other) = self.shells.split_at_mut(half);
        std::thread::scope(|scope| {
            for shells in [one, other] {
                scope.spawn(move || shells.iter_mut().for_each(rage));
            }
        });
        begin.elapsed()
    }
}

fn rage(shell: &mut Child) {
    let to = shell.stdin.as_mut().unwrap();
    to.write_all(b"go\n").unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "done\n");
}

impl Drop for Storm {
    fn drop(&mut self) {
        for shell in &mut self.shells {
            let _ = shell.kill();
            let _ = shell.wait();
        }
    }
}
