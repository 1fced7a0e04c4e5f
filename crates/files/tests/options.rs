//! cgroup1_parse_param() and check_cgroupfs_options().

use pinfold_files::{MountOptions, OptionError, controller_named, controllers};
use pinfold_model::{ControllerSet, Errno};
use proptest::prelude::*;

/// What options mean on a machine with cpuacct and pids, but without freezer: as /proc/mounts would show it, with `none`, a name
/// alone and `ro` marked; or the error's first words.
fn check(options: &str, expected: &str) {
    let enabled: ControllerSet = ["cpuacct", "pids"].into_iter().filter_map(controller_named).collect();
    let meaning = match MountOptions::parse(options, enabled) {
        Ok(options) => {
            let request = &options.request;
            let mark = match (request.none, request.controllers.is_empty(), options.read_only) {
                (_, _, true) => "ro:",
                (true, _, _) => "none:",
                (false, true, _) => "find:",
                _ => "",
            };
            format!("{mark}{options}")
        }
        Err(error) => {
            assert_eq!(error.errno(), Errno::EINVAL);
            format!("{error:?}").split(['(', '{', ' ']).next().unwrap_or_default().to_owned()
        }
    };
    assert_eq!(meaning, expected, "{options:?}");
}

// Each line was seen on Linux 6.1 with mount(2), with the controllers that are here.
#[test]
fn the_words_of_a_mount() {
    //    options                               meaning or error
    check("", "cpuacct,pids");
    check("all", "cpuacct,pids");
    check("none", "Nothing");
    check("none,name=x", "none:name=x");
    check("name=x", "find:name=x");
    check("pids", "pids");
    check("pids,pids", "pids");
    check("pids,cpuacct", "cpuacct,pids");
    check("pids=1", "pids");
    check("pids=", "pids");
    check("all=1", "UnexpectedValue");
    check("all=", "UnexpectedValue");
    check("none=1,name=x", "UnexpectedValue");
    check("pids,all", "AllAndSome");
    check("all,none", "NoneAndSome");
    check("all,none,name=x", "NoneAndSome");
    check("pids,none", "NoneAndSome");
    check("pids,none,name=x", "NoneAndSome");
    check("bogus", "Unknown");
    check("pids,bogus", "Unknown");
    check("PIDS", "Unknown");
    check(" pids", "Unknown");
    check("pids\n", "Unknown");
    check("freezer", "Disabled");
    check("pids,freezer", "Disabled");
    check("noexec,pids", "Unknown");
    check("defaults,pids", "Unknown");
    check("source=x,pids", "Unknown");
    check(",,pids,,", "pids");
    check("=x,pids", "pids");
    check("pids,=,none=,name=x", "UnexpectedValue");
    check("pids,name=foo", "pids,name=foo");
    check("all,name=foo", "cpuacct,pids,name=foo");
    check("all,xattr", "cpuacct,pids,xattr");
    check("xattr", "cpuacct,pids,xattr");
    check("clone_children", "cpuacct,pids,clone_children");
    check("clone_children,none,name=x", "none:clone_children,name=x");
    check("cpuset_v2_mode,pids", "pids,cpuset_v2_mode");
    check("release_agent=/x,pids", "pids,release_agent=/x");
    check("ro,pids", "ro:pids");
    check("ro=1,pids", "ro:pids");
    check("ro,pids,rw", "pids");
    check("dirsync,lazytime,nolazytime,mand,nomand,sync,async,pids", "pids");
    check("favordynmods,nofavordynmods,pids", "pids");
    check("favordynmods=1,pids", "UnexpectedValue");
}

#[test]
fn a_name_is_1_to_63_letters_digits_dots_hyphens_and_underscores() {
    check("none,name=a.-_9Z", "none:name=a.-_9Z");
    check("none,name", "MissingValue");
    check("none,name=", "MissingValue");
    check("none,name=a b", "BadName");
    check("none,name=a/b", "BadName");
    check("none,name=a+b", "BadName");
    check("none,name=a=b", "BadName");
    check("none,name=x\n", "BadName");
    check("none,name=a,name=b", "Repeated");
    check("none,name=a,name=a", "Repeated");
    let longest = format!("name={}", "x".repeat(63));
    check(&format!("none,{longest}"), &format!("none:{longest}"));
    check(&format!("none,{longest}x"), "BadName");
}

#[test]
fn a_release_agent_is_named_once_and_fits_its_file() {
    check("release_agent,pids", "MissingValue");
    check("release_agent=,pids", "MissingValue");
    check("release_agent=/x,release_agent=/y,pids", "Repeated");
    check("release_agent=a=b,pids", "pids,release_agent=a=b");
    let longest = format!("release_agent={}", "x".repeat(4095));
    check(&format!("{longest},pids"), &format!("pids,{longest}"));
    check(&format!("{longest}x,pids"), "LongAgent");
}

#[test]
fn noprefix_goes_with_cpuset_or_with_nothing() {
    check("noprefix,none,name=x", "none:noprefix,name=x");
    check("noprefix,pids", "Noprefix");
    check("noprefix", "Noprefix");
    check("all,noprefix", "Noprefix");
}

#[test]
fn options_are_shown_in_the_kernels_order_and_escapes() {
    check(
        r"release_agent=/a b\c,pids,xattr,clone_children,cpuset_v2_mode,name=foo",
        r"pids,xattr,cpuset_v2_mode,release_agent=/a\040b\134c,clone_children,name=foo",
    );
    check("none,name=x,xattr,noprefix,cpuset_v2_mode", "none:noprefix,xattr,cpuset_v2_mode,name=x");
}

#[test]
fn without_any_controller_only_names_can_be_mounted() {
    let parse = |text| MountOptions::parse(text, ControllerSet::EMPTY);
    assert_eq!(parse("all"), Err(OptionError::Nothing));
    assert_eq!(parse(""), Err(OptionError::Nothing));
    assert_eq!(parse("pids"), Err(OptionError::Disabled("pids")));
    assert_eq!(parse("none,name=x").map(|options| options.to_string()), Ok("name=x".to_owned()));
}

/// A list of words that are options, and of some that are not.
fn option_list() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        8 => prop::sample::select(vec![
            "pids", "freezer", "cpuacct", "all", "none", "noprefix", "xattr", "clone_children", "cpuset_v2_mode",
            "name=x", "name=y", "release_agent=/a", "ro", "rw", "favordynmods", "pids=1", "all=1", "name=", "",
        ])
        .prop_map(str::to_owned),
        1 => "[ -~]{0,12}",
        1 => "(name|release_agent)=[ -~]{0,70}",
    ];
    prop::collection::vec(word, 0..8).prop_map(|words| words.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_options_panic(text in prop_oneof![any::<String>(), option_list()]) {
        if let Err(error) = MountOptions::parse(&text, controllers()) {
            prop_assert_eq!(error.errno(), Errno::EINVAL);
        }
    }

    /// What is shown means the same, unless the release agent has letters that are shown escaped.
    #[test]
    fn what_is_shown_means_the_same(text in option_list()) {
        let Ok(options) = MountOptions::parse(&text, controllers()) else { return Ok(()) };
        let none = if options.request.none { "none," } else { "" };
        let ro = if options.read_only { "ro," } else { "" };
        let shown = format!("{ro}{none}{options}");
        prop_assume!(!shown.contains('\\'));
        prop_assert_eq!(MountOptions::parse(&shown, controllers()), Ok(options), "{}", shown);
    }

    /// The order of the words does not matter, but for `ro` and `rw`, nor does saying a word twice.
    #[test]
    fn the_order_of_words_does_not_matter(text in option_list()) {
        let mut words: Vec<&str> = text.split(',').filter(|word| !word.starts_with('r')).collect();
        let Ok(options) = MountOptions::parse(&words.join(","), controllers()) else { return Ok(()) };
        words.reverse();
        prop_assert_eq!(MountOptions::parse(&words.join(","), controllers()), Ok(options));
    }
}
