//! Reading and setting values.

use std::collections::BTreeMap;

use pinfold_dbus::wire::KeptSetting;

use crate::args::{GetArgs, SetArgs, StatusArgs};
use crate::{output, resolve};

/// `pinfold get`.
pub(crate) fn get(args: &GetArgs) -> anyhow::Result<()> {
    let client = resolve::client(&args.realm)?;
    let mut values = BTreeMap::new();
    for key in &args.keys {
        values.insert(key.as_str(), client.get_value(&args.group, key.as_str())?);
    }
    if args.output.json {
        return output::json(&values);
    }
    match args.keys.as_slice() {
        [_] => values.values().try_for_each(|value| output::text(&format!("{value}\n"))),
        keys => keys.iter().try_for_each(|key| {
            let key = key.as_str();
            output::text(&labelled(key, &values[key]))
        }),
    }
}

/// `KEY: VALUE`, or the value's lines below the key if there are several: as cgget(1).
fn labelled(key: &str, value: &str) -> String {
    match value.contains('\n') {
        false => format!("{key}: {value}\n"),
        true => format!("{key}:\n{}", value.lines().map(|line| format!("\t{line}\n")).collect::<String>()),
    }
}

/// `pinfold set`.
pub(crate) fn set(args: &SetArgs) -> anyhow::Result<()> {
    let client = resolve::client(&args.realm)?;
    for assignment in &args.values {
        client.set_value(&args.group, assignment.key.as_str(), &assignment.value)?;
    }
    Ok(())
}

/// `pinfold status`.
pub(crate) fn status(StatusArgs { group: args, writes }: &StatusArgs) -> anyhow::Result<()> {
    let client = resolve::client(&args.realm)?;
    if *writes {
        return print_writes(&client.list_settings(&args.group)?, args.output.json);
    }
    let settings = client.status(&args.group)?;
    if args.output.json {
        return output::json(&settings);
    }
    let rows: Vec<_> = settings
        .into_iter()
        // A value of several lines is one cell all the same.
        .map(|setting| [setting.hierarchy, setting.key, setting.value.replace('\n', ", "), setting.enforced])
        .collect();
    output::table(["HIERARCHY", "SETTING", "VALUE", "ENFORCED"], &rows)?;
    // Where events may be lost, how many were belongs to what is known of a group.
    match client.tracker()? {
        tracker if tracker == "cgroup2" => Ok(()),
        tracker => output::text(&format!("tracker: {tracker}\n")),
    }
}

/// For whoever reads JSON, those too that a new group would not need.
fn print_writes(settings: &[KeptSetting], json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(&settings);
    }
    let needed = settings.iter().filter(|setting| setting.needed);
    needed
        .map(|setting| format!("{}={}\n", setting.key, setting.text.trim_end()))
        .try_for_each(|line| output::text(&line))
}

#[cfg(test)]
mod tests {
    use super::labelled;

    #[test]
    fn several_values_are_told_apart_by_their_keys() {
        assert_eq!(labelled("pids.max", "5"), "pids.max: 5\n");
        assert_eq!(labelled("cpuacct.stat", "user 1\nsystem 2"), "cpuacct.stat:\n\tuser 1\n\tsystem 2\n");
    }
}
