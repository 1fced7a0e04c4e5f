//! The pages of `docs/files/`, made from the tables: one a controller, and an index.
//!
//! `cargo xtask gen-docs` writes them; a test compares them with what is there.

use pinfold_model::{Limit, Value};

use crate::division::Division;
use crate::lookup::name_of;
use crate::table::{
    Carry, Controller, EntryShare, File, Inherit, Instead, Needs, Place, Read, Setting, Share, Unaided,
    V2Write, Write,
};
use crate::{ALL, CORE};

/// Every page: its file name below `docs/files/`, and its text.
pub fn pages() -> Vec<(String, String)> {
    let tables = || std::iter::once(&CORE).chain(ALL);
    let mut pages = vec![("README.md".to_owned(), index(tables()))];
    pages.extend(tables().map(|table| (format!("{}.md", title(table)), page(table))));
    pages
}

const GENERATED: &str =
    "<!-- Written by `cargo xtask gen-docs` from the tables in crates/files; do not edit. -->\n";

fn title(table: &Controller) -> &'static str {
    if table.name.is_empty() { "core" } else { table.name }
}

fn full_name(table: &Controller, file: &File) -> String {
    name_of(table, file, false).into_owned()
}

fn index(tables: impl Iterator<Item = &'static Controller>) -> String {
    let mut text = format!("{GENERATED}\n# Interface files\n\n");
    text += "What each file of a group means, takes and refuses, the kernel function it follows, how it is done on \
             cgroup v2, and what differs.\n";
    for table in tables {
        let title = title(table);
        text += &format!("\n## [{title}]({title}.md)\n\n{}\n\n", table.about);
        text += "| file | mode | where |\n| --- | --- | --- |\n";
        for file in table.files {
            let name = full_name(table, file);
            text += &format!(
                "| [`{name}`]({title}.md#{}) | {:04o} | {} |\n",
                anchor(&name),
                file.mode(),
                place(file)
            );
        }
    }
    text
}

/// A heading's anchor, as GitHub and GitLab make it.
fn anchor(name: &str) -> String {
    name.replace('.', "").to_lowercase()
}

fn page(table: &Controller) -> String {
    let mut text = format!("{GENERATED}\n# {}\n\n{}\n\n", title(table), table.about);
    text += &format!("Source: {}.  \nNeeds: {}.  \n{}\n", table.source, needs(table), unaided(table));
    for file in table.files {
        text += &section(table, file);
    }
    text
}

fn needs(table: &Controller) -> String {
    match table.needs {
        Needs::Tree => "a cgroup v2 tree; no controller of it".to_owned(),
        Needs::Controller(name) => format!("the v2 controller `{name}`"),
        Needs::Program => {
            "a kernel with CONFIG_CGROUP_BPF, and the right to attach programs (root of the first user \
                           namespace)"
                .to_owned()
        }
        Needs::ResourceLimits => {
            "the right to limit the resources of other processes (CAP_SYS_RESOURCE in the first user namespace)".to_owned()
        }
    }
}

fn section(table: &Controller, file: &File) -> String {
    let mut text = format!("\n## `{}`\n\n{}\n\n", full_name(table, file), file.about);
    let mut item = |label: &str, what: &str| {
        if !what.is_empty() {
            text += &format!("- {label}: {what}\n");
        }
    };
    item("Where", &place(file));
    item("Unit", &format!("{}.", file.unit.words()));
    item("Mode", &format!("{:04o}.{}", file.mode(), reading(file)));
    item(
        "Poll",
        if file.is_told() {
            "POLLPRI and POLLERR when it has changed since it was read; within 100 ms, later where very many files are waited for."
        } else {
            ""
        },
    );
    item("New group", &file.setting.map(fresh).unwrap_or_default());
    item("Write", file.takes);
    item("Errors", &errors(file));
    item("Source", &format!("{}.", file.function));
    item("On v2", file.v2);
    item("Otherwise", &file.instead.map(otherwise).unwrap_or_default());
    item("Effect", &file.setting.map(effect).unwrap_or_default());
    item("Differs", file.differs);
    text
}

fn unaided(table: &Controller) -> String {
    let without = match table.needs {
        Needs::Controller(_) => {
            "Without a writable v2 tree (tracker `events`), or where that does not offer the controller"
        }
        Needs::Tree | Needs::Program | Needs::ResourceLimits => {
            "Without a writable v2 tree (tracker `events`)"
        }
    };
    match table.unaided {
        Unaided::Served(how) => format!("{without}: {how}."),
        Unaided::Refused(why) => format!("{without}, it cannot be mounted: {why}."),
    }
}

fn place(file: &File) -> String {
    match file.place {
        Place::Everywhere => "Every group.".to_owned(),
        Place::RootOnly => "The root group only.".to_owned(),
        Place::BelowRoot => "Every group but the root.".to_owned(),
        Place::WithV2(v2) => format!("Every group, where v2 has `{v2}`."),
        Place::BelowRootWithV2(v2) => format!("Every group but the root, where v2 has `{v2}`."),
    }
}

fn reading(file: &File) -> &'static str {
    match (&file.read, &file.write) {
        (Read::Named, Write::Refused) => " Reading and writing it is EINVAL.",
        (Read::Refused | Read::Named, _) => " Reading it is EINVAL.",
        (_, Write::Refused) => " A write, by root too, is EINVAL.",
        _ => "",
    }
}

fn fresh(setting: &Setting) -> String {
    let initial = match &setting.initial {
        Value::Flag(flag) => u8::from(*flag).to_string(),
        Value::Number(number) | Value::Limit(Limit::At(number)) => number.to_string(),
        Value::Limit(Limit::Max) => "no limit".to_owned(),
        Value::Offset(offset) => offset.to_string(),
        Value::Peak { floor, .. } => floor.to_string(),
        Value::Text(bytes) if bytes.is_empty() => "nothing".to_owned(),
        Value::Text(bytes) => bytes.escape_ascii().to_string(),
    };
    match setting.inherit {
        Inherit::Initial => format!("{initial}."),
        Inherit::Parent => format!("what its parent has at that moment; a root, {initial}."),
        Inherit::Derived { words, .. } => format!("{words}."),
    }
}

fn errors(file: &File) -> String {
    if matches!(file.write, Write::Refused) {
        return String::new();
    }
    let mut text = file.errors.to_owned();
    if file.longest == File::LONGEST {
        text += " E2BIG: more than 4096 bytes.";
    }
    if file.writer.is_admin() && !text.contains("EPERM") {
        text += " EPERM: the writer lacks CAP_SYS_ADMIN.";
    }
    text
}

/// Where a group has several v2 directories.
const CROSSING: &str = "Where the group crosses groups of another hierarchy,";
const SAME: &str = "is the same in each of its v2 directories";
const DIVIDED: &str = "is divided over its v2 directories by demand, and the parts never sum to more";

/// What becomes of v2 values there: said once of those that fare alike.
fn where_shared(writes: &[V2Write]) -> String {
    let mut said: Vec<(String, String)> = Vec::new();
    for write in writes {
        let how = match write.share {
            Share::Same | Share::Weight => SAME.to_owned(),
            Share::Divided(Division { least: 0, .. }) => DIVIDED.to_owned(),
            Share::Divided(_) => format!(
                "{DIVIDED}, but for a limit that is less than the least that v2 takes for each of them"
            ),
            Share::Without(text) => format!("is `{text}` in each of its v2 directories"),
        };
        let file = format!("`{}`", write.file);
        match said.iter_mut().find(|(seen, _)| *seen == how) {
            Some((_, files)) => *files += &format!(" and {file}"),
            None => said.push((how, file)),
        }
    }
    let what = |(how, files): &(String, String)| format!("what {files} says {how}");
    said.iter().map(what).collect::<Vec<_>>().join("; ")
}

/// How an effect differs from v1's, if it does.
fn but(unlike: &str) -> String {
    if unlike.is_empty() { String::new() } else { format!(", but {unlike}") }
}

fn otherwise(instead: Instead) -> String {
    let Instead { of, how } = instead;
    format!("where the kernel below has no `{of}`, {how}; `pinfold status` says so.")
}

fn effect(setting: &Setting) -> String {
    match setting.carry {
        Carry::UserSpace => "pinfold itself does what it says.".to_owned(),
        Carry::Descriptors { .. } => {
            "pinfold divides it over the RLIMIT_NOFILE of the group's processes.".to_owned()
        }
        Carry::Inert(why) => format!("stored only: {why}."),
        Carry::Limit(writes) => {
            let files: Vec<_> = writes.iter().map(|write| format!("`{}`", write.file)).collect();
            format!(
                "enforced by the kernel through {}{}. {CROSSING} {}.",
                files.join(", "),
                but(writes.first().map_or("", |first| first.unlike)),
                where_shared(writes)
            )
        }
        Carry::Program { slot, unlike, .. } => format!(
            "enforced by the kernel{}{unlike}, through the BPF program `{}` in every directory that holds processes of the \
             group.",
            if unlike.is_empty() { "" } else { " " },
            slot.name
        ),
        Carry::Entries(entries) => format!(
            "enforced by the kernel through `{}`{}. {CROSSING} {}.",
            entries.file,
            but(entries.unlike),
            match entries.share {
                EntryShare::Weight => format!("each entry {SAME}"),
                EntryShare::Divided { least: 0, .. } => format!("each figure {DIVIDED}"),
                EntryShare::Divided { least, .. } => format!(
                    "each figure {DIVIDED}, but for a limit that is less than {least} for each of them, the least that v2 takes"
                ),
            }
        ),
        Carry::Everywhere { v2, .. } => {
            format!(
                "enforced by the kernel through `{v2}` in every directory that holds processes of the group."
            )
        }
    }
}
