use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::process::Command;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom as To};
use rustix::io::Errno;
use trefoil_core::filesystem::FileSystem;
use trefoil_core::filesystem::model::PAGE_BYTES;

use crate::rig::Rig;

const PAGE: u64 = PAGE_BYTES;

fn both(rig: &Rig, name: &str) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(rig.path(name))
        .unwrap()
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 % 251) as u8).collect()
}

#[test]
fn large_content_comes_back_whole() {
    let rig = Rig::new();
    let content = pattern(5 << 20);
    fs::write(rig.path("f"), &content).unwrap();
    assert_eq!(fs::read(rig.path("f")).unwrap(), content);
    let file = File::open(rig.path("f")).unwrap();
    let mut part = vec![0; 70_000];
    file.read_exact_at(&mut part, 1_234_567).unwrap();
    assert_eq!(part, content[1_234_567..1_304_567]);
    assert_eq!(file.read_at(&mut part, 5 << 20).unwrap(), 0);
}

#[test]
fn a_file_without_names_lives_until_its_last_close() {
    let rig = Rig::new();
    let mut file = both(&rig, "f");
    file.write_all(b"still here").unwrap();
    let other = File::open(rig.path("f")).unwrap();
    fs::remove_file(rig.path("f")).unwrap();
    drop(file);
    let mut text = String::new();
    (&other).read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), other.metadata().unwrap().nlink()), ("still here", 0));
    let inode = other.metadata().unwrap().ino();
    drop(other);
    crate::rig::soon("its content is given back", || rig.model.stat(inode) == Err(Errno::STALE));
}

#[test]
fn a_removed_directory_that_is_open_can_be_asked_for() {
    let rig = Rig::new();
    fs::create_dir(rig.path("d")).unwrap();
    let open = File::open(rig.path("d")).unwrap();
    fs::remove_dir(rig.path("d")).unwrap();
    assert_eq!(open.metadata().unwrap().nlink(), 0);
}

#[test]
fn holes_are_zeros_and_can_be_found() {
    let rig = Rig::new();
    let file = both(&rig, "f");
    file.write_all_at(b"data", 4 * PAGE).unwrap();
    file.set_len(10 * PAGE).unwrap();
    assert_eq!(
        (file.metadata().unwrap().len(), file.metadata().unwrap().blocks()),
        (10 * PAGE, PAGE / 512)
    );
    let seek = |to| rustix::fs::seek(&file, to);
    assert_eq!(seek(To::Data(0)), Ok(4 * PAGE));
    assert_eq!(seek(To::Hole(4 * PAGE)), Ok(5 * PAGE));
    assert_eq!(seek(To::Data(5 * PAGE)), Err(Errno::NXIO));
    let mut zeros = vec![1; PAGE as usize];
    file.read_exact_at(&mut zeros, 0).unwrap();
    assert!(zeros.iter().all(|&byte| byte == 0));
}

#[test]
fn fallocate_reserves_punches_and_zeroes() {
    let rig = Rig::new();
    let file = both(&rig, "f");
    file.write_all_at(&vec![7; 4 * PAGE as usize], 0).unwrap();
    let allocate = |flags, offset, length| rustix::fs::fallocate(&file, flags, offset, length);
    allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, PAGE, PAGE).unwrap();
    allocate(FallocateFlags::ZERO_RANGE, 3 * PAGE, 2 * PAGE).unwrap();
    allocate(FallocateFlags::KEEP_SIZE, 0, 100 * PAGE).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 5 * PAGE);
    let content = fs::read(rig.path("f")).unwrap();
    let sevens = |page: usize| content[page * PAGE as usize..][..PAGE as usize].iter().all(|&byte| byte == 7);
    assert_eq!([0, 1, 2, 3].map(sevens), [true, false, true, false]);
    allocate(FallocateFlags::empty(), 0, 6 * PAGE).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 6 * PAGE);
    assert_eq!(allocate(FallocateFlags::COLLAPSE_RANGE, 0, PAGE), Err(Errno::OPNOTSUPP));
}

#[test]
fn appenders_never_overwrite_each_other() {
    let rig = Rig::new();
    let path = rig.path("f");
    std::thread::scope(|scope| {
        for writer in 0..4_u8 {
            let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
            scope.spawn(move || (0..100).for_each(|_| file.write_all(&[writer; 10]).unwrap()));
        }
    });
    let content = fs::read(&path).unwrap();
    assert_eq!(content.len(), 4000);
    for (record, expected) in content.chunks(10).map(|record| (record, record[0])) {
        assert!(record.iter().all(|&byte| byte == expected));
    }
}

#[test]
fn truncation_cuts_and_extends() {
    let rig = Rig::new();
    let mut file = both(&rig, "f");
    file.write_all(&pattern(10_000)).unwrap();
    file.set_len(5000).unwrap();
    file.set_len(20_000).unwrap();
    let content = fs::read(rig.path("f")).unwrap();
    assert_eq!(content[..5000], pattern(10_000)[..5000]);
    assert!(content.len() == 20_000 && content[5000..].iter().all(|&byte| byte == 0));
    drop(OpenOptions::new().write(true).truncate(true).open(rig.path("f")).unwrap());
    assert_eq!(file.metadata().unwrap().len(), 0);
    file.seek(SeekFrom::Start(0)).unwrap();
    assert_eq!(file.read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn copies_within_the_store() {
    let rig = Rig::new();
    let (from, to) = (both(&rig, "from"), both(&rig, "to"));
    let content = pattern(100_000);
    from.write_all_at(&content, 0).unwrap();
    to.write_all_at(b"before", 0).unwrap();
    assert_eq!(fs::read(rig.path("to")).unwrap(), b"before");
    let (mut source, mut target) = (10, 3);
    let copied = rustix::fs::copy_file_range(&from, Some(&mut source), &to, Some(&mut target), 1 << 40).unwrap();
    assert_eq!((copied, source, target), (99_990, 100_000, 99_993));
    let result = fs::read(rig.path("to")).unwrap();
    assert_eq!((&result[..3], &result[3..]), (&b"bef"[..], &content[10..]));
}

#[test]
fn direct_and_cached_access_agree() {
    let rig = Rig::new();
    let content = pattern(256 << 10);
    fs::write(rig.path("f"), &content).unwrap();
    assert_eq!(fs::read(rig.path("f")).unwrap(), content);
    let direct = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(rig.path("f"))
        .unwrap();
    let mut room = vec![0; 8192 + 4096];
    let aligned = room.as_ptr().align_offset(4096);
    let block = &mut room[aligned..aligned + 8192];
    direct.read_exact_at(block, 4096).unwrap();
    assert_eq!(block[..], content[4096..12_288]);
    block.fill(9);
    direct.write_all_at(block, 8192).unwrap();
    let cached = fs::read(rig.path("f")).unwrap();
    assert_eq!((&cached[..8192], &cached[16_384..]), (&content[..8192], &content[16_384..]));
    assert!(cached[8192..16_384].iter().all(|&byte| byte == 9));
}

#[test]
fn mapped_pages_are_the_file() {
    use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
    let rig = Rig::new();
    let file = both(&rig, "f");
    file.write_all_at(&pattern(8192), 0).unwrap();
    let address = std::ptr::null_mut();
    // SAFETY: a new mapping of 8192 bytes that the file has, used only below and not after it is unmapped.
    unsafe {
        let map = mmap(address, 8192, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0).unwrap();
        let bytes = std::slice::from_raw_parts_mut(map.cast::<u8>(), 8192);
        assert_eq!(bytes, pattern(8192));
        bytes[5000..5004].copy_from_slice(b"mmap");
        msync(map, 8192, MsyncFlags::SYNC).unwrap();
        munmap(map, 8192).unwrap();
    }
    let inode = file.metadata().unwrap().ino();
    assert_eq!(rig.model.read(inode, 5000, 4).unwrap(), b"mmap");
}

#[test]
fn a_write_by_others_takes_set_id_bits_away() {
    let rig = Rig::new();
    let path = rig.path("f");
    let program = path.to_str().unwrap();
    for (what, mode, expected) in [
        (format!("echo x >> {program}"), 0o6777, 0o100_777),
        (format!("echo x > {program}"), 0o6777, 0o100_777),
        (format!("truncate -s 1 {program}"), 0o6777, 0o100_777),
        (format!("fallocate -l 9000 {program}"), 0o6777, 0o100_777),
        (format!("fallocate -l 9000 {program}"), 0o6666, 0o100_666),
        (format!("cat {program}"), 0o6777, 0o106_777),
    ] {
        fs::write(&path, b"x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        fs::set_permissions(rig.root(), fs::Permissions::from_mode(0o755)).unwrap();
        let done = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", &what])
            .output()
            .unwrap();
        assert!(done.status.success(), "{what}: {done:?}");
        // Who asks for the mode alone is answered from the kernel's cache.
        let mode = rustix::fs::statx(rustix::fs::CWD, &path, rustix::fs::AtFlags::empty(), rustix::fs::StatxFlags::MODE).unwrap();
        assert_eq!(u32::from(mode.stx_mode), expected, "{what}");
        assert_eq!(fs::metadata(&path).unwrap().mode(), expected, "{what}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
    fs::write(&path, b"by root").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode(), 0o106_777, "root may");
}

#[test]
fn statfs_tells_the_truth() {
    let rig = Rig::new();
    let before = rustix::fs::statvfs(rig.root()).unwrap();
    assert_eq!(before.f_blocks * before.f_frsize, crate::rig::BYTES_MAX);
    fs::write(rig.path("f"), vec![1; 10 << 20]).unwrap();
    let after = rustix::fs::statvfs(rig.root()).unwrap();
    assert!(before.f_bfree - after.f_bfree >= (10 << 20) / before.f_frsize);
    assert_eq!((after.f_namemax, after.f_bavail), (255, after.f_bfree));
    assert!(after.f_files - after.f_ffree >= 2);
}

#[test]
fn no_room_is_said_and_harms_nothing() {
    let rig = Rig::new();
    let file = both(&rig, "f");
    let error = (0..300)
        .find_map(|megabyte| file.write_all_at(&[1; 1 << 20], megabyte << 20).err())
        .unwrap();
    assert_eq!(error.raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
    drop(file);
    fs::remove_file(rig.path("f")).unwrap();
    fs::write(rig.path("g"), b"room again").unwrap();
}

#[test]
fn a_first_read_is_noted_unless_nobody_wants_it() {
    use std::os::unix::fs::MetadataExt;
    for (notes, moved) in [(true, true), (false, false)] {
        let rig = Rig::with(|options| options.access_times = notes);
        std::fs::write(rig.path("f"), b"content").unwrap();
        let before = std::fs::metadata(rig.path("f")).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(std::fs::read(rig.path("f")).unwrap(), b"content");
        let after = || std::fs::metadata(rig.path("f")).unwrap();
        let differs = || (after().atime(), after().atime_nsec()) != (before.atime(), before.atime_nsec());
        assert_eq!(differs(), moved);
        assert_eq!(
            (after().mtime_nsec(), after().ctime_nsec()),
            (before.mtime_nsec(), before.ctime_nsec())
        );
    }
}
