use super::*;

fn read(world: &World, file: Inode) -> Vec<u8> {
    world.model.read(file, 0, TRANSFER_BYTES_MAX).unwrap()
}

fn resize(world: &World, file: Inode, size: u64) -> Node {
    world
        .model
        .change(
            file,
            &Changes {
                size: Some(size),
                ..Changes::default()
            },
        )
        .unwrap()
}

#[test]
fn writes_leave_holes() {
    let world = World::new();
    let file = world.file(world.view, b"f");
    let node = world.model.write(file, 3 * PAGE_BYTES + 5, b"end", false).unwrap();
    assert_eq!((node.size, node.allocated), (3 * PAGE_BYTES + 8, PAGE_BYTES));
    world.model.write(file, 1, b"start", false).unwrap();
    let bytes = read(&world, file);
    assert_eq!((&bytes[..8], &bytes[bytes.len() - 4..]), (&b"\0start\0\0"[..], &b"\0end"[..]));
    let seek = |offset, what| world.model.seek(file, offset, what);
    assert_eq!(seek(0, Seek::Data), Ok(0));
    assert_eq!(seek(7, Seek::Hole), Ok(PAGE_BYTES));
    assert_eq!(seek(PAGE_BYTES + 1, Seek::Hole), Ok(PAGE_BYTES + 1));
    assert_eq!(seek(PAGE_BYTES + 1, Seek::Data), Ok(3 * PAGE_BYTES));
    assert_eq!(seek(3 * PAGE_BYTES, Seek::Hole), Ok(3 * PAGE_BYTES + 8));
    assert_eq!(seek(3 * PAGE_BYTES + 8, Seek::Hole), Err(Errno::NXIO));
    resize(&world, file, 9 * PAGE_BYTES);
    assert_eq!(seek(4 * PAGE_BYTES, Seek::Data), Err(Errno::NXIO));
}

#[test]
fn what_was_cut_off_reads_as_zeros() {
    let world = World::new();
    let file = world.file(world.view, b"f");
    world.model.write(file, 0, &[7; 9000], false).unwrap();
    assert_eq!(resize(&world, file, 10).allocated, PAGE_BYTES);
    resize(&world, file, 9000);
    let bytes = read(&world, file);
    assert!(bytes[..10].iter().all(|byte| *byte == 7) && bytes[10..].iter().all(|byte| *byte == 0));
}

#[test]
fn allocation_keeps_or_grows_the_size() {
    let world = World::new();
    let file = world.file(world.view, b"f");
    let allocate = |how, offset, length| world.model.allocate(file, how, offset, length);
    let node = allocate(Allocation::Reserve { keep_size: true }, 0, 8192).unwrap();
    assert_eq!((node.size, node.allocated), (0, 8192));
    assert_eq!(resize(&world, file, 0).allocated, 0);
    assert_eq!(allocate(Allocation::Reserve { keep_size: false }, 100, 8192).unwrap().size, 8292);
    world.model.write(file, 0, &[7; 8192], false).unwrap();
    let node = allocate(Allocation::Punch, 10, 8192).unwrap();
    assert_eq!((node.size, node.allocated), (8292, 2 * PAGE_BYTES));
    assert_eq!(read(&world, file), [vec![7; 10], vec![0; 8282]].concat());
    assert_eq!(allocate(Allocation::Zero { keep_size: true }, 5, 20_000).unwrap().size, 8292);
    assert_eq!(allocate(Allocation::Zero { keep_size: false }, 5, 20_000).unwrap().size, 20_005);
    assert_eq!(allocate(Allocation::Punch, 0, 0).unwrap_err(), Errno::INVAL);
    assert_eq!(allocate(Allocation::Punch, FILE_BYTES_MAX, 1).unwrap_err(), Errno::FBIG);
    assert_eq!(
        allocate(Allocation::Reserve { keep_size: true }, 0, FILE_BYTES_MAX).unwrap_err(),
        Errno::NOSPC
    );
}

#[test]
fn copies_share_nothing_that_shows() {
    let world = World::new();
    let (from, to) = (world.file(world.view, b"from"), world.file(world.view, b"to"));
    world.model.write(from, 0, &[1; 5000], false).unwrap();
    resize(&world, from, 20_000);
    world.model.write(to, 0, &[2; 30_000], false).unwrap();
    assert_eq!(world.model.copy((from, 100), (to, 50), u64::MAX), Ok(19_900));
    let expected = [vec![2; 50], vec![1; 4900], vec![0; 15_000], vec![2; 10_050]].concat();
    assert_eq!(read(&world, to), expected);
    world.model.write(from, 0, &[9; 5000], false).unwrap();
    assert_eq!(read(&world, to), expected);
    assert_eq!(world.model.copy((from, 20_000), (to, 0), 5), Ok(0));
    assert_eq!(world.model.copy((from, 0), (from, 4999), 5000), Err(Errno::INVAL));
    assert_eq!(world.model.copy((from, 0), (from, 5000), 5000), Ok(5000));
    assert_eq!(world.model.copy((world.view, 0), (to, 0), 5), Err(Errno::ISDIR));
}

#[test]
fn only_files_have_content() {
    let world = World::new();
    let fifo = world.make(world.view, b"p", New::Fifo);
    for (inode, errno) in [(world.view, Errno::ISDIR), (fifo, Errno::INVAL)] {
        assert_eq!(world.model.read(inode, 0, 1).unwrap_err(), errno);
        assert_eq!(world.model.write(inode, 0, b"", false).unwrap_err(), errno);
        assert_eq!(world.model.append(inode, b"x", false).unwrap_err(), errno);
    }
    let file = world.file(world.view, b"f");
    assert_eq!(world.model.write(file, FILE_BYTES_MAX, b"x", false).unwrap_err(), Errno::FBIG);
    assert_eq!(world.model.write(file, u64::MAX, b"x", false).unwrap_err(), Errno::FBIG);
    assert!(world.model.write(file, FILE_BYTES_MAX - 1, b"x", false).is_ok());
    assert_eq!(world.model.append(file, b"x", false).unwrap_err(), Errno::FBIG);
}

#[test]
fn content_moves_times_and_strips_privileges() {
    let world = World::new();
    let file = world.file(world.view, b"f");
    let model = &world.model;
    assert_eq!(world.moved(file, || model.write(file, 0, b"abc", false)), "mc");
    assert_eq!(world.moved(file, || model.write(file, 0, b"", true)), "");
    assert_eq!(world.moved(file, || read(&world, file)), "");
    assert_eq!(world.moved(file, || model.note_access(file)), "a");
    assert_eq!(world.moved(file, || model.note_access(file)), "", "relatime");
    assert_eq!(world.moved(file, || model.allocate(file, Allocation::Punch, 0, 1)), "mc");
    model
        .change(
            file,
            &Changes {
                mode: Some(0o6777),
                ..Changes::default()
            },
        )
        .unwrap();
    assert_eq!(model.write(file, 0, b"", true).unwrap().mode, 0o6777);
    assert_eq!(model.write(file, 0, b"x", false).unwrap().mode, 0o6777);
    let before = world.stat(file).version;
    let node = model.append(file, b"x", true).unwrap();
    assert_eq!((node.mode, node.size), (0o777, 4));
    assert!(node.version > before);
}
