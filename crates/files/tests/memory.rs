//! memory.rst and mm/memcontrol.c, case by case. A page has 4096 bytes; nodes 0 and 1 have memory.

use pinfold_files::{Carry, OOM_KILL_DISABLE, UNDER_OOM, full_name};
use pinfold_model::{Key, Limit, Settings, Value};

use crate::stage::{Stage, check};

// What each form of a size means, number.rs and differential/memory.script say.
#[test]
fn a_limit_is_kept_as_whole_pages() {
    check(
        r"
        mkdir /a
        /a/memory.limit_in_bytes = 9223372036854771712\n
        /a/memory.limit_in_bytes < \s8k\s\n = ok
        /a/memory.limit_in_bytes = 8192\n
        /a/memory.limit_in_bytes < 4097 = ok
        /a/memory.limit_in_bytes = 4096\n
        /a/memory.limit_in_bytes < 9223372036854771711 = ok
        /a/memory.limit_in_bytes = 9223372036854767616\n
        /a/memory.limit_in_bytes < 9223372036854771712 = ok
        /a/memory.limit_in_bytes = 9223372036854771712\n
        /a/memory.limit_in_bytes < \n = ok
        /a/memory.limit_in_bytes = 0\n
        /a/memory.limit_in_bytes < max = EINVAL
        /a/memory.limit_in_bytes < -2 = EINVAL
        /a/memory.limit_in_bytes = 0\n
        /a/memory.limit_in_bytes < -1 = ok
        /a/memory.limit_in_bytes = 9223372036854771712\n
        /memory.limit_in_bytes < 1G = EINVAL
        /memory.limit_in_bytes = 9223372036854771712\n
        ",
    );
}

#[test]
fn the_limit_of_memory_is_at_most_that_of_memory_and_swap() {
    check(
        r"
        mkdir /a
        /a/memory.memsw.limit_in_bytes < 2M = EINVAL
        /a/memory.limit_in_bytes < 1M = ok
        /a/memory.memsw.limit_in_bytes < 512k = EINVAL
        /a/memory.memsw.limit_in_bytes < 2M = ok
        /a/memory.limit_in_bytes < 3M = EINVAL
        /a/memory.limit_in_bytes < -1 = EINVAL
        /a/memory.limit_in_bytes < 2M = ok
        /a/memory.limit_in_bytes = 2097152\n
        /a/memory.memsw.limit_in_bytes = 2097152\n
        ",
    );
}

#[test]
fn a_child_inherits_swappiness_and_no_limit() {
    check(
        r"
        mkdir /a
        /a/memory.limit_in_bytes < 1M = ok
        /a/memory.soft_limit_in_bytes < 1M = ok
        /a/memory.swappiness = 60\n
        /a/memory.swappiness < 10 = ok
        /a/memory.swappiness < 201 = EINVAL
        mkdir /a/b
        /a/b/memory.limit_in_bytes = 9223372036854771712\n
        /a/b/memory.soft_limit_in_bytes = 9223372036854771712\n
        /a/b/memory.swappiness = 10\n
        ",
    );
}

#[test]
fn swappiness_is_the_machines_until_it_is_written() {
    let mut stage = Stage::new();
    let read = |stage: &Stage, path: &str| {
        String::from_utf8(stage.read(&format!("{path}/memory.swappiness")).unwrap()).unwrap()
    };
    stage.mkdir("/a");
    for path in ["", "/a"] {
        stage.add_text(path, "machine", "vm.swappiness", b"35\n");
        assert_eq!(read(&stage, path), "35\n");
        assert_eq!(stage.write(&format!("{path}/memory.swappiness"), b"60"), "ok");
        assert_eq!(read(&stage, path), "60\n", "not the kernel's default");
        assert_eq!(stage.write(&format!("{path}/memory.swappiness"), b"201"), "EINVAL");
        assert_eq!(stage.write(&format!("{path}/memory.swappiness"), b"35"), "ok");
        assert!(
            stage.forest.group(stage.group(path)).unwrap().settings().iter().next().is_none(),
            "nothing is kept"
        );
    }
    assert_eq!(stage.write("/memory.swappiness", b"10"), "ok");
    stage.mkdir("/b");
    assert_eq!(read(&stage, "/b"), "10\n", "as its parent has at that moment");
    assert_eq!(read(&stage, "/a"), "35\n");
}

#[test]
fn usage_is_what_the_directory_says() {
    check(
        r"
        mkdir /a
        v2 /a carrier memory.current 8192\n
        v2 /a carrier memory.swap.current 4096\n
        /a/memory.usage_in_bytes = 8192\n
        /a/memory.memsw.usage_in_bytes = 12288\n
        /a/memory.max_usage_in_bytes = 8192\n
        /a/memory.memsw.max_usage_in_bytes = 12288\n
        ",
    );
}

// The top of the v2 tree has no memory.current.
#[test]
fn usage_of_the_root_is_files_and_anonymous_memory() {
    check(
        r"
        v2 / base memory.stat anon\s4096\nfile\s8192\nkernel\s100\n
        /memory.usage_in_bytes = 12288\n
        ",
    );
}

#[test]
fn the_largest_usage_starts_again_and_outlives_its_directory() {
    check(
        r"
        mkdir /a
        v2 /a carrier memory.peak 8192\n
        v2 /a carrier memory.current 4096\n
        /a/memory.max_usage_in_bytes = 8192\n
        /a/memory.max_usage_in_bytes < abc = ok
        /a/memory.max_usage_in_bytes = 4096\n
        /a/memory.memsw.max_usage_in_bytes = 8192\n
        gone /a
        /a/memory.max_usage_in_bytes = 4096\n
        v2 /a carrier memory.peak 12288\n
        v2 /a carrier memory.current 0\n
        /a/memory.max_usage_in_bytes = 12288\n
        gone /a
        /a/memory.max_usage_in_bytes = 12288\n
        ",
    );
}

// The stage's kernel has no file that a place depends on but for those of rows: no memory.peak.
#[test]
fn without_a_peak_of_v2_the_most_that_a_read_found_counts() {
    check(
        r"
        mkdir /a
        v2 /a carrier memory.current 8192\n
        v2 /a carrier memory.swap.current 4096\n
        /a/memory.max_usage_in_bytes = 8192\n
        /a/memory.memsw.max_usage_in_bytes = 12288\n
        lost /a
        v2 /a carrier memory.current 4096\n
        /a/memory.max_usage_in_bytes = 8192\n
        /a/memory.memsw.max_usage_in_bytes = 12288\n
        /a/memory.max_usage_in_bytes < 0 = ok
        /a/memory.max_usage_in_bytes = 4096\n
        /a/memory.memsw.max_usage_in_bytes = 12288\n
        /a/memory.memsw.max_usage_in_bytes < 0 = ok
        /a/memory.memsw.max_usage_in_bytes = 4096\n
        v2 /a carrier memory.swap.peak 20480\n
        /a/memory.memsw.max_usage_in_bytes = 20480\n
        ",
    );
}

#[test]
fn a_peak_that_passes_the_one_before_the_reset_counts() {
    check(
        r"
        mkdir /a
        v2 /a carrier memory.peak 8192\n
        /a/memory.max_usage_in_bytes < 0 = ok
        /a/memory.max_usage_in_bytes = 0\n
        lost /a
        v2 /a carrier memory.peak 8192\n
        v2 /a carrier memory.current 5000\n
        /a/memory.max_usage_in_bytes = 5000\n
        lost /a
        v2 /a carrier memory.peak 9000\n
        /a/memory.max_usage_in_bytes = 9000\n
        ",
    );
}

// Linux 6.12 knows of each open file what was since it was written to.
#[test]
fn a_peak_since_the_reset_that_the_kernel_knows_counts() {
    check(
        r"
        mkdir /a
        v2 /a carrier memory.peak 8192\n
        v2 /a carrier memory.current 1000\n
        /a/memory.max_usage_in_bytes < 0 = ok
        /a/memory.max_usage_in_bytes = 1000\n
        lost /a
        v2 /a carrier memory.peak 8192\n
        v2 /a since memory.max_usage_in_bytes 5000\n
        v2 /a carrier memory.current 2000\n
        /a/memory.max_usage_in_bytes = 5000\n
        /a/memory.memsw.max_usage_in_bytes = 8192\n
        gone /a
        /a/memory.max_usage_in_bytes = 5000\n
        ",
    );
}

#[test]
fn failures_start_again_with_any_write() {
    check(
        r"
        mkdir /a
        v2 /a carrier memory.events.local low\s0\nmax\s7\noom\s1\n
        v2 /a carrier memory.swap.events high\s0\nmax\s3\nfail\s0\n
        v2 /a leaf memory.events max\s0\noom_kill\s2\n
        /a/memory.failcnt = 7\n
        /a/memory.failcnt < x = ok
        /a/memory.failcnt = 0\n
        /a/memory.memsw.failcnt = 3\n
        /a/memory.memsw.failcnt < 0 = ok
        /a/memory.memsw.failcnt = 0\n
        /a/memory.oom_control = oom_kill_disable\s0\nunder_oom\s0\noom_kill\s2\n
        gone /a
        /a/memory.failcnt = 0\n
        v2 /a carrier memory.events.local max\s2\n
        /a/memory.failcnt = 2\n
        /a/memory.oom_control = oom_kill_disable\s0\nunder_oom\s0\noom_kill\s2\n
        ",
    );
}

// Seen on Linux 6.1: a child is told what its parent was, and is under_oom because of the one above.
#[test]
fn processes_wait_if_they_are_told_to() {
    check(
        r"
        mkdir /a
        /a/memory.oom_control < 1 = ok
        /a/memory.oom_control = oom_kill_disable\s1\nunder_oom\s0\noom_kill\s0\n
        mkdir /a/b
        /a/b/memory.oom_control = oom_kill_disable\s1\nunder_oom\s0\noom_kill\s0\n
        /a/b/memory.oom_control < 0 = ok
        /a/b/memory.oom_control = oom_kill_disable\s0\nunder_oom\s0\noom_kill\s0\n
        /a/memory.oom_control < 0x1\n = ok
        ",
    );
}

#[test]
fn a_group_below_one_that_waits_waits_too() {
    let mut stage = Stage::new();
    ["/a", "/a/b", "/c"].into_iter().for_each(|path| stage.mkdir(path));
    let a = stage.group("/a");
    let settings = stage.forest.group_mut(a).unwrap().settings_mut();
    settings.replace(UNDER_OOM.key, Some(Value::Flag(true)));
    for (path, waits) in [("/a", 1), ("/a/b", 1), ("/c", 0), ("", 0)] {
        let shown = stage.read(&format!("{path}/memory.oom_control")).unwrap();
        let expected = format!("oom_kill_disable 0\nunder_oom {waits}\noom_kill 0\n");
        assert_eq!(String::from_utf8(shown).unwrap(), expected, "{path}");
    }
}

#[test]
fn those_who_wait_have_their_limit_in_memory_high() {
    let texts = |limit: Limit, waits: bool| {
        let mut settings = Settings::NONE;
        settings.replace(Key("memory.limit_in_bytes"), Some(Value::Limit(limit)));
        settings.replace(OOM_KILL_DISABLE.key, Some(Value::Flag(waits)));
        let Carry::Limit(writes) = OOM_KILL_DISABLE.carry else { panic!("the kernel has a part in it") };
        writes
            .iter()
            .map(|write| format!("{}={}", write.file, (write.text)(&settings).unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(texts(Limit::At(1 << 20), false), ["memory.max=1048576", "memory.high=max"]);
    assert_eq!(texts(Limit::At(1 << 20), true), ["memory.max=17825792", "memory.high=1048576"]);
    assert_eq!(texts(Limit::At(1 << 30), true), ["memory.max=1207959552", "memory.high=1073741824"]);
    assert_eq!(texts(Limit::Max, true), ["memory.max=max", "memory.high=max"]);
}

#[test]
fn what_v2_cannot_do_is_refused() {
    check(
        r"
        mkdir /a
        /a/memory.oom_control < 0 = ok
        /a/memory.oom_control < 2 = EINVAL
        /memory.oom_control < 1 = EINVAL
        /a/memory.use_hierarchy < 1 = ok
        /a/memory.use_hierarchy < 0 = EINVAL
        /a/memory.move_charge_at_immigrate < 0 = ok
        /a/memory.move_charge_at_immigrate < 1 = EINVAL
        /a/memory.force_empty < junk = ok
        /memory.force_empty < 0 = EINVAL
        ",
    );
}

#[test]
fn kernel_memory_has_figures_and_no_limit() {
    check(
        r"
        mkdir /a
        v2 /a carrier memory.stat kernel\s5000\nsock\s300\n
        /a/memory.kmem.usage_in_bytes = 5000\n
        /a/memory.kmem.max_usage_in_bytes = 5000\n
        /a/memory.kmem.tcp.usage_in_bytes = 300\n
        /a/memory.kmem.tcp.max_usage_in_bytes = 300\n
        lost /a
        v2 /a carrier memory.stat kernel\s4000\nsock\s200\n
        /a/memory.kmem.max_usage_in_bytes = 5000\n
        /a/memory.kmem.tcp.max_usage_in_bytes = 300\n
        /a/memory.kmem.max_usage_in_bytes < 0 = ok
        /a/memory.kmem.tcp.max_usage_in_bytes < abc = ok
        /a/memory.kmem.max_usage_in_bytes = 4000\n
        /a/memory.kmem.tcp.max_usage_in_bytes = 200\n
        /a/memory.kmem.limit_in_bytes < 1M = ok
        /a/memory.kmem.limit_in_bytes = 9223372036854771712\n
        /a/memory.kmem.tcp.limit_in_bytes < 10000 = ok
        /a/memory.kmem.tcp.limit_in_bytes = 8192\n
        /memory.kmem.limit_in_bytes < 1M = EINVAL
        ",
    );
}

#[test]
fn stat_has_the_group_itself_the_limits_and_all_below() {
    check(
        r"
        mkdir /a
        mkdir /a/b
        /a/memory.limit_in_bytes < 1M = ok
        /a/memory.memsw.limit_in_bytes < 2M = ok
        /a/b/memory.limit_in_bytes < 64k = ok
        v2 /a/b leaf memory.stat anon\s1\nfile\s2\npgfault\s5\n
        v2 /a/b leaf memory.swap.current 6\n
        v2 /a/b carrier memory.stat anon\s10\nfile\s20\nanon_thp\s3\nfile_mapped\s4\npgfault\s50\npgmajfault\s7\n
        v2 /a/b carrier memory.swap.current 60\n
        /a/b/memory.stat = cache\s2\nrss\s1\nrss_huge\s0\nshmem\s0\nmapped_file\s0\ndirty\s0\nwriteback\s0\nworkingset_refault_anon\s0\nworkingset_refault_file\s0\nswap\s6\npgpgin\s0\npgpgout\s0\npgfault\s5\npgmajfault\s0\ninactive_anon\s0\nactive_anon\s0\ninactive_file\s0\nactive_file\s0\nunevictable\s0\nhierarchical_memory_limit\s65536\nhierarchical_memsw_limit\s2097152\ntotal_cache\s20\ntotal_rss\s10\ntotal_rss_huge\s3\ntotal_shmem\s0\ntotal_mapped_file\s4\ntotal_dirty\s0\ntotal_writeback\s0\ntotal_workingset_refault_anon\s0\ntotal_workingset_refault_file\s0\ntotal_swap\s60\ntotal_pgpgin\s0\ntotal_pgpgout\s0\ntotal_pgfault\s50\ntotal_pgmajfault\s7\ntotal_inactive_anon\s0\ntotal_active_anon\s0\ntotal_inactive_file\s0\ntotal_active_file\s0\ntotal_unevictable\s0\n
        ",
    );
}

/// "memcg: expose swapcache stat for memcg v1", Linux 6.7.
#[test]
fn stat_tells_of_swap_that_is_in_memory_too_where_v1_of_the_kernel_below_does() {
    for (linux, can_swap, is_told) in
        [((6, 6), true, false), ((6, 7), true, true), ((7, 0), true, true), ((7, 0), false, false)]
    {
        let mut stage = Stage::new();
        stage.facts.linux = linux;
        if !can_swap {
            assert!(stage.facts.v2_files.remove("memory.swap.max"));
        }
        stage.mkdir("/a");
        for (at, swapcached) in [("leaf", 4096), ("carrier", 8192)] {
            let text = format!("anon 1\nswapcached {swapcached}\n");
            stage.add_text("/a", at, "memory.stat", text.as_bytes());
        }
        let text = String::from_utf8(stage.read("/a/memory.stat").expect("it is there")).expect("words");
        let after =
            |line: &str| text.lines().skip_while(|found| *found != line).nth(1).expect(line).to_owned();
        let (own, total) = match is_told {
            true => ("swapcached 4096", "total_swapcached 8192"),
            false => ("pgpgin 0", "total_pgpgin 0"),
        };
        assert_eq!((after("swap 0"), after("total_swap 0")), (own.to_owned(), total.to_owned()), "{linux:?}");
    }
}

/// As on v1: CONFIG_SWAP.
#[test]
fn a_kernel_that_cannot_swap_has_no_file_of_memory_and_swap() {
    let mut stage = Stage::new();
    stage.mkdir("/a");
    let shown = |stage: &Stage| {
        let of_both = |path: &str| {
            let files = stage.files(stage.group(path)).into_iter().map(|id| full_name(id, false));
            files.filter(|name| name.starts_with("memory.memsw.")).count()
        };
        ["/", "/a"].map(of_both)
    };
    assert_eq!(shown(&stage), [4, 4]);
    assert!(stage.facts.v2_files.remove("memory.swap.max"));
    assert_eq!(shown(&stage), [0, 0]);
    assert_eq!(stage.write("/a/memory.memsw.limit_in_bytes", b"1M"), "ENOENT");
    assert_eq!(stage.write("/a/memory.limit_in_bytes", b"1M"), "ok");
}

#[test]
fn numa_stat_counts_pages_of_each_node() {
    check(
        r"
        mkdir /a
        v2 /a carrier memory.numa_stat anon\sN0=1\sN1=1\ninactive_anon\sN0=4096\sN1=8192\nactive_file\sN0=4096\sN1=0\nunevictable\sN0=0\sN1=4096\n
        /a/memory.numa_stat = total=0\sN0=0\sN1=0\nfile=0\sN0=0\sN1=0\nanon=0\sN0=0\sN1=0\nunevictable=0\sN0=0\sN1=0\nhierarchical_total=5\sN0=2\sN1=3\nhierarchical_file=1\sN0=1\sN1=0\nhierarchical_anon=3\sN0=1\sN1=2\nhierarchical_unevictable=1\sN0=0\sN1=1\n
        ",
    );
}
