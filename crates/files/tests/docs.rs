//! The pages of `docs/files/`. That they are what lies there, a test of `cargo xtask gen-docs` sees to.

use pinfold_files::docs::pages;

#[test]
fn every_link_of_the_index_leads_to_a_heading() {
    let pages = pages();
    let (_, index) = &pages[0];
    let mut links = 0;
    for link in index.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let (page, anchor) = link.split_once('#').unwrap_or((link, ""));
        let (_, text) = pages.iter().find(|(name, _)| name == page).expect(link);
        // GitHub drops dots and backquotes from a heading's anchor, and has it in small letters.
        let headings = text.lines().filter_map(|line| line.strip_prefix("## "));
        let mut anchors = headings.map(|heading| heading.replace(['.', '`'], "").to_lowercase());
        assert!(anchor.is_empty() || anchors.any(|heading| heading == anchor), "{link}");
        links += 1;
    }
    assert!(links > 20);
}
