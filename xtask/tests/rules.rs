//! The rules that `cargo xtask ci` checks, so that a plain `cargo test` finds what CI would.

use xtask::{edges, format, tidy, workspace};

#[test]
fn the_tree_is_formatted() {
    format::check().unwrap();
}

#[test]
fn the_tree_is_tidy() {
    let complaints = tidy::check().unwrap();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn arrows_between_crates_point_downwards() {
    let complaints = edges::check(&workspace::packages().unwrap());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The README's first command names no package.
#[test]
fn cargo_run_is_pinfold() {
    assert_eq!(workspace::run_by_default().unwrap(), ["pinfold"]);
}
