//! Mounts a file system in memory until its standard input ends: `model_mount DIRECTORY [GIB] [THREADS]`.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use trefoil_core::filesystem::locks::LockTable;
use trefoil_core::filesystem::model::{Model, system_clock};
use trefoil_core::filesystem::{FileSystem, New, Owner, ROOT};
use trefoil_fuse::{Locks, Mount, Options};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(path) = arguments.first() else {
        eprintln!("usage: model_mount DIRECTORY [GIB] [THREADS]");
        return ExitCode::from(2);
    };
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u32>().ok());
    let threads = number(2).map_or(Options::default().threads, |count| count as usize);
    match run(Path::new(path), u64::from(number(1).unwrap_or(4)) << 30, threads) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &Path, bytes: u64, threads: usize) -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::new(bytes, system_clock());
    let view = model.create(ROOT, b"view", New::Directory, 0o755, Owner { uid: 0, gid: 0 })?;
    let locks = Some(Locks {
        table: Arc::new(LockTable::default()),
        client: 1,
    });
    let mount = Mount::start(
        Arc::new(model),
        path,
        Options {
            root: view.inode,
            threads,
            locks,
            ..Options::default()
        },
    )?;
    println!("mounted");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(mount.end()?)
}
