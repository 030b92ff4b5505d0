//! Mounts the first view of a pool of its own until its standard input ends: `store_mount DIRECTORY STATE DEVICE...`.

use std::io::Read;
use std::path::{Path, PathBuf};
use trefoil_core::filesystem::{FileSystem, New, Owner, ROOT};
use trefoil_core::store::{OpenOptions, Store};
use trefoil_fuse::{Mount, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, state, devices @ ..] = arguments.as_slice() else {
        return Err("usage: store_mount DIRECTORY STATE DEVICE...".into());
    };
    let devices: Vec<PathBuf> = devices.iter().map(PathBuf::from).collect();
    let store = Store::open(&devices, Path::new(state), OpenOptions::default())?;
    let view = match FileSystem::lookup(store.as_ref(), ROOT, b"view") {
        Ok(node) => node,
        Err(_) => FileSystem::create(store.as_ref(), ROOT, b"view", New::Directory, 0o755, Owner { uid: 0, gid: 0 })?,
    };
    let root = view.inode;
    let mount = Mount::start(
        store.clone(),
        Path::new(directory),
        Options {
            root,
            ..Options::default()
        },
    )?;
    println!("mounted");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    mount.end()?;
    Ok(store.close()?)
}
