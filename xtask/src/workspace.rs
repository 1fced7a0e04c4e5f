//! Where the source tree is, and what cargo says about it.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The root directory of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// A cargo command that runs in the root directory.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command that shows its own output; the error says how it ended.
pub fn run(command: &mut Command) -> Result<()> {
    let name = shown(command);
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    Ok(())
}

/// What a command prints; what it says on standard error goes through.
pub fn output_of(command: &mut Command) -> Result<String> {
    let name = shown(command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} prints what is not text"))
}

/// One package of the workspace, as `cargo metadata` tells it.
#[derive(Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its `Cargo.toml`.
    pub manifest_path: PathBuf,
    /// Everything its manifest depends on, for any purpose.
    pub dependencies: Vec<Dependency>,
    /// What cargo builds from it.
    pub targets: Vec<Target>,
}

/// A dependency of a package.
#[derive(Deserialize)]
pub struct Dependency {
    /// The name of the package depended on.
    pub name: String,
}

/// One thing that cargo builds.
#[derive(Deserialize)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// `lib`, `bin`, `test`...
    pub kind: Vec<String>,
    /// Its crate root.
    pub src_path: PathBuf,
}

/// The packages of the workspace.
pub fn packages() -> Result<Vec<Package>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let text = output_of(cargo().args(["metadata", "--format-version=1", "--no-deps", "--offline"]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata is not as expected")?;
    Ok(metadata.packages)
}

/// What `cargo run` may mean when it is told no package: the programs of the workspace's default members.
pub fn run_by_default() -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Member>,
        workspace_default_members: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Member {
        id: String,
        targets: Vec<Target>,
    }
    let text = output_of(cargo().args(["metadata", "--format-version=1", "--no-deps", "--offline"]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata is not as expected")?;
    let default =
        metadata.packages.into_iter().filter(|p| metadata.workspace_default_members.contains(&p.id));
    let programs =
        default.flat_map(|p| p.targets).filter(|target| target.kind.iter().any(|kind| kind == "bin"));
    Ok(programs.map(|target| target.name).collect())
}

/// A program that cargo has built.
pub struct Executable {
    /// What it was built from.
    pub target: Target,
    /// Where it lies.
    pub path: PathBuf,
}

/// Builds with the arguments given (`build -p pinfold`, `test --no-run`...) and tells which programs came of it.
pub fn executables(arguments: &[&str]) -> Result<Vec<Executable>> {
    #[derive(Deserialize)]
    struct Message {
        target: Option<Target>,
        executable: Option<PathBuf>,
    }
    let text = output_of(cargo().args(arguments).arg("--message-format=json-render-diagnostics"))?;
    let mut found = Vec::new();
    for line in text.lines() {
        let message: Message = serde_json::from_str(line).context("a message of cargo is not as expected")?;
        if let (Some(target), Some(path)) = (message.target, message.executable) {
            found.push(Executable { target, path });
        }
    }
    Ok(found)
}

/// The source files of the tree, as git knows them: tracked, or new and not ignored.
pub fn files() -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"]);
    let listed = output_of(&mut git)?;
    Ok(listed.lines().map(|name| root().join(name)).filter(|path| path.is_file()).collect())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
