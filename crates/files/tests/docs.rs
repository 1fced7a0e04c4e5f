//! `docs/files/` says what the tables say.

use std::path::Path;

use pinfold_files::docs::pages;

#[test]
#[expect(clippy::disallowed_methods, reason = "the test compares with what is in the source tree")]
fn the_pages_are_in_step_with_the_tables() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/files");
    let expected = pages();
    for (name, text) in &expected {
        let there = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        assert!(there == *text, "docs/files/{name} is out of step: run `cargo xtask gen-docs`");
    }
    for entry in std::fs::read_dir(&dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(expected.iter().any(|(page, _)| *page == name), "docs/files/{name} belongs to no table");
    }
}

#[test]
fn every_link_of_the_index_leads_to_a_heading() {
    let pages = pages();
    let (_, index) = &pages[0];
    let mut links = 0;
    for link in index.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let (page, anchor) = link.split_once('#').unwrap_or((link, ""));
        let (_, text) = pages.iter().find(|(name, _)| name == page).expect(link);
        // GitHub drops dots and backquotes from a heading's anchor.
        let headings = text.lines().filter_map(|line| line.strip_prefix("## "));
        let mut anchors = headings.map(|heading| heading.replace(['.', '`'], ""));
        assert!(anchor.is_empty() || anchors.any(|heading| heading == anchor), "{link}");
        links += 1;
    }
    assert!(links > 20);
}
