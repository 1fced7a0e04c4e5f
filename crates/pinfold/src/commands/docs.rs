//! What is printed for other programs: completions and manual pages, from the argument tables, and the policy for a bus.

use anyhow::Context;
use clap::CommandFactory;

use crate::args::{Cgm, Cli, CompletionsArgs, ManArgs};
use crate::output;

/// `pinfold completions`.
pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pinfold", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}

/// `pinfold bus-policy`.
pub(crate) fn bus_policy() -> anyhow::Result<()> {
    output::text(include_str!("org.pinfold.conf"))
}

/// `pinfold man`.
pub(crate) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let dir = &args.dir;
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    for command in [Cli::command(), Cgm::command()] {
        clap_mangen::generate_to(command, dir)
            .with_context(|| format!("manual pages cannot be written to {}", dir.display()))?;
    }
    Ok(())
}
