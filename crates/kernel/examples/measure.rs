#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
use pinfold_kernel::process::*;
use pinfold_kernel::*;
use pinfold_model::*;
use std::time::Instant;
fn time<T>(name: &str, n: u32, mut f: impl FnMut() -> T) {
    for _ in 0..n / 10 {
        f();
    }
    let t = Instant::now();
    for _ in 0..n {
        std::hint::black_box(f());
    }
    println!("{name:40} {:9.2} us", t.elapsed().as_secs_f64() * 1e6 / f64::from(n));
}
fn main() {
    let m = Tree::discover().unwrap();
    let base = m.point.join(format!("pinfold-k-measure-{}", std::process::id()));
    std::fs::create_dir(&base).unwrap();
    let tree = Tree::open(&m, Some(&base), "r", &[]).unwrap();
    let mut c = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let p = HostPid::new(c.id()).unwrap();
    let a = DirPath::REALM.cell(CellId::new(1).unwrap());
    let b = DirPath::REALM.group(GroupId::new(1).unwrap()).cell(CellId::new(2).unwrap());
    tree.carry_out(&[Step::Make(a.clone()), Step::Make(b.parent().unwrap()), Step::Make(b.clone())]).unwrap();
    let mv = |d: &DirPath| Step::Move { process: p, to: Place::Dir(d.clone()) };
    time("two moves, one plan each", 200, || {
        tree.carry_out(&[mv(&a)]).unwrap();
        tree.carry_out(&[mv(&b)]).unwrap();
    });
    let f = |d: &str| base.join("pinfold.r").join(d).join("cgroup.procs");
    let (fa, fb) = (f("cell.1"), f("group.1/cell.2"));
    time("two moves, std::fs::write", 200, || {
        std::fs::write(&fa, p.to_string()).unwrap();
        std::fs::write(&fb, p.to_string()).unwrap();
    });
    time("membership", 5000, || tree.membership(p).unwrap());
    time("Identity::of", 5000, || Identity::of(p).unwrap());
    time("Pinned::open + verify", 5000, || Pinned::open(p).unwrap().0.verify().unwrap());
    time("PidMap::of (same)", 5000, || pids::PidMap::of(p).unwrap());
    time("processes of a leaf", 5000, || tree.processes(&b).unwrap());
    time("events", 5000, || tree.events(&b).unwrap());
    time("make + remove a leaf", 200, || {
        let d = DirPath::REALM.cell(CellId::new(9).unwrap());
        tree.carry_out(&[Step::Make(d.clone())]).unwrap();
        tree.carry_out(&[Step::Remove(d)]).unwrap();
    });
    let dirs = |at: &std::path::Path| {
        let mut n = 0;
        let mut w = vec![at.to_path_buf()];
        while let Some(d) = w.pop() {
            n += 1;
            for e in std::fs::read_dir(&d).unwrap().flatten() {
                if e.file_type().unwrap().is_dir() {
                    w.push(e.path());
                }
            }
        }
        n
    };
    println!(
        "v2 directories {}, processes in proc {}",
        dirs(&m.point),
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|e| e.file_name().to_str().unwrap().parse::<u32>().is_ok())
            .count()
    );
    time("scope by walking (base only)", 500, || tree.scope_processes().unwrap());
    time("whole tree, procs of root", 500, || std::fs::read_to_string(m.point.join("cgroup.procs")).unwrap());
    time("proc: membership + stat of all", 100, || {
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|e| e.file_name().to_str().unwrap().parse().ok().and_then(HostPid::new))
            .filter(|p| tree.membership(*p).is_ok() && start_time(*p).is_ok())
            .count()
    });
    for n in 0..200 {
        std::fs::create_dir(base.join(format!("s{n}"))).unwrap();
    }
    time("scope by walking 200 directories", 200, || tree.scope_processes().unwrap());
    for n in 0..200 {
        std::fs::remove_dir(base.join(format!("s{n}"))).unwrap();
    }
    c.kill().unwrap();
    c.wait().unwrap();
    tree.close().unwrap();
    std::fs::remove_dir(&base).unwrap();
}
