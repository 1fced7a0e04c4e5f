//! Mounting a hierarchy in the caller's own mount namespace; as `mount.cgroup`, on behalf of mount(8).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use rustix::mount::UnmountFlags;

use crate::args::{MountArgs, RealmArgs, UmountArgs};
use crate::mounting::{self, Source, Wanted};
use crate::resolve;

/// `pinfold mount`.
pub(crate) fn mount(args: &MountArgs) -> anyhow::Result<()> {
    let wanted = Wanted::parse(&args.options);
    mount_at(&args.realm, &wanted, &args.dir)
}

fn mount_at(realm: &RealmArgs, wanted: &Wanted, dir: &Path) -> anyhow::Result<()> {
    let mut realm = realm.clone();
    if let Some(name) = &wanted.realm {
        realm.realm = name.parse().map_err(|error: String| anyhow::anyhow!("realm {name:?}: {error}"))?;
    }
    let shown = dir.display();
    let found = std::fs::metadata(dir).with_context(|| format!("{shown} is no directory to mount at"))?;
    if !found.is_dir() {
        bail!("{shown} is no directory to mount at (ENOTDIR)");
    }
    let client = resolve::client(&realm)?;
    if wanted.remount {
        if wanted.read_only {
            bail!("{shown}: a remount does not change ro and rw: unmount it and mount it anew (EINVAL)");
        }
        return Ok(client.remount(Source::at(dir)?.hierarchy, &wanted.hierarchy)?);
    }
    let mount = client.mount(&wanted.hierarchy)?;
    mounting::attach(mount, dir, wanted.read_only)
}

/// `pinfold umount`.
pub(crate) fn umount(args: &UmountArgs) -> anyhow::Result<()> {
    let dir = &args.dir;
    // What a killed daemon has left answers nothing, so it goes whatever its users do.
    if pinfold_fuse::remove_dead(dir)? {
        return Ok(());
    }
    Source::at(dir)?;
    let flags = if args.lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    rustix::mount::unmount(dir, flags | UnmountFlags::NOFOLLOW)
        .with_context(|| format!("{} cannot be unmounted", dir.display()))
}

/// mount(8)'s helper: `mount.cgroup SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`.
///
/// It talks to the realm that PINFOLD_REALM or the option x-pinfold.realm=NAME names.
#[derive(Parser, Debug)]
#[command(name = "mount.cgroup", version)]
struct Helper {
    /// Any word: a hierarchy has no device.
    #[arg(value_name = "SOURCE")]
    _source: OsString,
    /// Where to mount.
    dir: PathBuf,
    /// Mount options.
    #[arg(short, default_value = "")]
    options: String,
    /// Check everything and mount nothing.
    #[arg(short)]
    fake: bool,
    /// Be verbose.
    #[arg(short)]
    verbose: bool,
    /// Do not write /etc/mtab: nobody does.
    #[arg(short = 'n')]
    _no_mtab: bool,
    /// Tolerate unknown options.
    #[arg(short = 's')]
    _sloppy: bool,
    /// The file system's type.
    #[arg(short = 't', value_name = "TYPE")]
    _kind: Option<String>,
    /// The mount namespace.
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<PathBuf>,
    #[command(flatten)]
    realm: RealmArgs,
}

/// `mount.cgroup`.
pub(crate) fn helper(arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let program = OsString::from("mount.cgroup");
    let args = Helper::parse_from(std::iter::once(program).chain(arguments));
    if let Some(namespace) = &args.namespace {
        bail!("-N {}: run mount inside that namespace instead", namespace.display());
    }
    let wanted = Wanted::parse(&args.options);
    if args.verbose {
        eprintln!("mount.cgroup: {:?} at {}", wanted.hierarchy, args.dir.display());
    }
    if !args.fake {
        mount_at(&args.realm, &wanted, &args.dir)?;
    }
    Ok(ExitCode::SUCCESS)
}
