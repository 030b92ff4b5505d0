//! Mounts one view of a pool of its own: `store_mount [OPTION...] DIRECTORY STATE DEVICE...`.
//!
//! Until its standard input ends; with `--until-unmounted` until somebody unmounts it, which is what a mount helper needs.
//! `--name NAME`: the source that `mount` shows. `--read-only`, `--no-set-id`, `--no-devices`, `--no-access-times`: as `ro`, `nosuid`, `nodev`,
//! `noatime`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trefoil_core::filesystem::locks::LockTable;
use trefoil_core::filesystem::{FileSystem, New, Owner, ROOT};
use trefoil_core::store::{OpenOptions, Store};
use trefoil_fuse::{Locks, Mount, Options};

const USAGE: &str = "usage: store_mount [--until-unmounted] [--name NAME] [--read-only] [--no-set-id] [--no-devices] [--no-access-times] DIRECTORY STATE DEVICE...";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = Options {
        locks: Some(Locks {
            table: Arc::new(LockTable::default()),
            client: 1,
        }),
        ..Options::default()
    };
    let (mut paths, mut until_unmounted) = (Vec::new(), false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--until-unmounted" => until_unmounted = true,
            "--name" => options.name = arguments.next().ok_or(USAGE)?,
            "--read-only" => options.read_only = true,
            "--no-access-times" => options.access_times = false,
            "--no-set-id" => options.set_id = false,
            "--no-devices" => options.devices = false,
            path => paths.push(PathBuf::from(path)),
        }
    }
    let [directory, state, devices @ ..] = paths.as_slice() else {
        return Err(USAGE.into());
    };
    let store = Store::open(devices, state, OpenOptions::default())?;
    options.root = match FileSystem::lookup(store.as_ref(), ROOT, b"view") {
        Ok(node) => node.inode,
        Err(_) => FileSystem::create(store.as_ref(), ROOT, b"view", New::Directory, 0o755, Owner { uid: 0, gid: 0 })?.inode,
    };
    serve(&store, directory, options, until_unmounted)?;
    Ok(store.close()?)
}

fn serve(store: &Arc<Store>, directory: &Path, options: Options, until_unmounted: bool) -> Result<(), Box<dyn std::error::Error>> {
    let mount = Mount::start(store.clone(), directory, options)?;
    println!("mounted");
    if until_unmounted {
        mount.wait_unmounted();
    } else {
        std::io::stdin().read_to_end(&mut Vec::new())?;
    }
    Ok(mount.end()?)
}
