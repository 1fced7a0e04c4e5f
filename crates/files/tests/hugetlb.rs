//! hugetlb.rst and mm/hugetlb_cgroup.c. Every answer about pages of 2 MB was seen on Linux 6.1.

use pinfold_files::{Amount, Carry, Facts, Share, controllers, full_name, list, setting_by_key};
use pinfold_model::{Limit, Settings, Value};

use crate::stage::{Stage, check};

#[test]
fn a_limit_is_kept_as_whole_huge_pages() {
    check(
        r"
        mkdir /a
        /a/hugetlb.2MB.limit_in_bytes = 9223372036852678656\n
        /hugetlb.2MB.limit_in_bytes = 9223372036854771712\n
        /a/hugetlb.2MB.limit_in_bytes < 5M = ok
        /a/hugetlb.2MB.limit_in_bytes = 4194304\n
        /a/hugetlb.2MB.limit_in_bytes < 2097151 = ok
        /a/hugetlb.2MB.limit_in_bytes = 0\n
        /a/hugetlb.2MB.limit_in_bytes < 9223372036852678655 = ok
        /a/hugetlb.2MB.limit_in_bytes = 9223372036850581504\n
        /a/hugetlb.2MB.limit_in_bytes < 18446744073709551615 = ok
        /a/hugetlb.2MB.limit_in_bytes = 9223372036852678656\n
        /a/hugetlb.2MB.limit_in_bytes < -2 = EINVAL
        /a/hugetlb.2MB.limit_in_bytes < max = EINVAL
        /a/hugetlb.2MB.rsvd.limit_in_bytes < \s2M\n = ok
        /a/hugetlb.2MB.rsvd.limit_in_bytes = 2097152\n
        /a/hugetlb.2MB.limit_in_bytes = 9223372036852678656\n
        /a/hugetlb.1GB.limit_in_bytes < 5G = ok
        /a/hugetlb.1GB.limit_in_bytes = 5368709120\n
        /a/hugetlb.1GB.limit_in_bytes < 2M = ok
        /a/hugetlb.1GB.limit_in_bytes = 0\n
        /hugetlb.2MB.limit_in_bytes < 2M = EINVAL
        /hugetlb.2MB.limit_in_bytes < -1 = EINVAL
        mkdir /a/b
        /a/b/hugetlb.1GB.limit_in_bytes = 9223372035781033984\n
        ",
    );
}

#[test]
fn usage_and_failures_are_those_of_the_size() {
    check(
        r"
        mkdir /a
        v2 /a carrier hugetlb.2MB.current 4194304\n
        v2 /a carrier hugetlb.2MB.events max\s3\n
        v2 /a carrier hugetlb.2MB.numa_stat total=4194304\sN0=2097152\sN1=2097152\n
        v2 /a leaf hugetlb.2MB.numa_stat total=2097152\sN0=0\sN1=2097152\n
        /a/hugetlb.2MB.usage_in_bytes = 4194304\n
        /a/hugetlb.2MB.max_usage_in_bytes = 4194304\n
        /a/hugetlb.2MB.failcnt = 3\n
        /a/hugetlb.2MB.numa_stat = total=2097152\sN0=0\sN1=2097152\nhierarchical_total=4194304\sN0=2097152\sN1=2097152\n
        /a/hugetlb.1GB.usage_in_bytes = 0\n
        /a/hugetlb.1GB.failcnt = 0\n
        /a/hugetlb.2MB.failcnt < abc = ok
        /a/hugetlb.2MB.failcnt = 0\n
        /a/hugetlb.2MB.rsvd.failcnt = 3\n
        /a/hugetlb.2MB.max_usage_in_bytes < abc = ok
        /hugetlb.2MB.failcnt < 0 = ok
        /a/hugetlb.2MB.usage_in_bytes < 0 = EINVAL
        ",
    );
}

#[test]
fn the_most_that_was_found_stays_until_a_write() {
    check(
        r"
        mkdir /a
        v2 /a carrier hugetlb.2MB.current 4194304\n
        v2 /a carrier hugetlb.2MB.rsvd.current 6291456\n
        /a/hugetlb.2MB.max_usage_in_bytes = 4194304\n
        /a/hugetlb.2MB.rsvd.max_usage_in_bytes = 6291456\n
        lost /a
        v2 /a carrier hugetlb.2MB.current 2097152\n
        /a/hugetlb.2MB.max_usage_in_bytes = 4194304\n
        /a/hugetlb.2MB.rsvd.max_usage_in_bytes = 6291456\n
        /a/hugetlb.2MB.max_usage_in_bytes < abc = ok
        lost /a
        /a/hugetlb.2MB.max_usage_in_bytes = 2097152\n
        /a/hugetlb.2MB.rsvd.max_usage_in_bytes = 6291456\n
        /a/hugetlb.1GB.max_usage_in_bytes = 0\n
        ",
    );
}

#[test]
fn only_the_sizes_that_the_machine_has_are_there() {
    let facts = Facts {
        v2_files: ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "hugetlb.2MB.numa_stat"]
            .map(str::to_owned)
            .into(),
        ..Stage::new().facts
    };
    let names: Vec<_> = list(controllers(), false, &facts).map(|id| full_name(id, false)).collect();
    let of_pages = names.iter().filter(|name| name.starts_with("hugetlb."));
    assert_eq!(of_pages.clone().count(), 9);
    assert!(of_pages.clone().all(|name| name.starts_with("hugetlb.2MB.")));
}

/// Half a page is no use to anybody.
#[test]
fn whole_pages_are_divided() {
    let setting = setting_by_key("hugetlb.2MB.limit_in_bytes").expect("a setting");
    let Carry::Limit([write]) = setting.carry else { panic!("one file") };
    let Share::Divided(division) = write.share else { panic!("it is divided") };
    let mut settings = Settings::NONE;
    settings.replace(setting.key, Some(Value::Limit(Limit::At(6 << 20))));
    assert_eq!((division.amounts)(&settings), Amount::only(Some(3)));
    assert_eq!((division.used.figure().value)("4194304\n", ""), Some(2));
    assert_eq!((division.text)(&settings, &Amount::only(Some(2))), "4194304");
    assert_eq!((division.text)(&settings, &[]), "max");
}
