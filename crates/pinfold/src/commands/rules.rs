//! `pinfold rules`: rules files, looked at without a daemon.

use crate::args::{RulesArgs, RulesCommand};
use crate::daemon::rules::load;
use crate::output;

/// `pinfold rules`.
pub(crate) fn rules(args: &RulesArgs) -> anyhow::Result<()> {
    let RulesCommand::Check { file } = &args.command;
    let rules = load(file)?;
    let plural = if rules.len() == 1 { "" } else { "s" };
    output::text(&format!("{}: {} rule{plural}\n", file.display(), rules.len()))
}
