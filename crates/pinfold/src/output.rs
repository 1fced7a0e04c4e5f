//! Printing data: aligned columns for people, JSON for programs.

use std::io::Write;

use serde::Serialize;

/// Prints a value as JSON and a newline.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Prints text as it is.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Prints rows below a heading in aligned columns; the last column is as wide as it likes.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> anyhow::Result<()> {
    text(&aligned(heading, rows))
}

fn aligned<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let heading = heading.map(str::to_owned);
    let lines = || std::iter::once(&heading).chain(rows);
    let widths: [usize; N] =
        std::array::from_fn(|column| lines().map(|line| line[column].chars().count()).max().unwrap_or(0));
    let mut out = String::new();
    for line in lines() {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::aligned;

    #[test]
    fn columns_align_and_lines_end_where_their_text_ends() {
        let rows =
            [["pids".to_owned(), "1".to_owned(), String::new()], ["ä".into(), "20".into(), "x y".into()]];
        assert_eq!(aligned(["NAME", "N", "WHY"], &rows), "NAME  N   WHY\npids  1\nä     20  x y\n");
    }
}
