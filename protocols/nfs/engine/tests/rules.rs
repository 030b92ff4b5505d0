//! Who may do what: exports, networks, squashing, permissions.

mod support;

use support::client::*;
use support::{World, trusting};
use trefoil_core::filesystem::{FileSystem, XattrMode};
use trefoil_nfs::{Export, Squash};

#[test]
fn root_is_squashed_unless_trusted() {
    let mut world = World::new(vec![Export::new("/view")]);
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let (file, attributes) = client.create(&root, "file", &Set::mode(0o600)).unwrap();
    assert_eq!((attributes.uid, attributes.gid), (65534, 65534));
    assert_eq!(
        client
            .setattr(
                &file,
                &Set {
                    uid: Some(0),
                    ..Set::default()
                },
                None
            )
            .0,
        PERM
    );
    let mut other = world.client_as(5, 6, &[]);
    let made = other.create(&root, "other", &Set::mode(0o600)).unwrap();
    assert_eq!((made.1.uid, made.1.gid), (5, 6));
    assert_eq!(client.read(&made.0, 0, 1), Err(ACCES));
    let mut nobody = Client {
        user: None,
        ..world.client()
    };
    assert_eq!(nobody.create(&root, "nobodys", &Set::default()).unwrap().1.uid, 65534);
    world.exports = vec![Export {
        squash: Squash::All,
        anonymous_uid: 44,
        anonymous_gid: 45,
        ..Export::new("/view")
    }];
    world.restart();
    let made = world.client_as(5, 6, &[]).create(&root, "squashed", &Set::default()).unwrap();
    assert_eq!((made.1.uid, made.1.gid), (44, 45));
    world.server().set_exports(vec![trusting("/view")]);
    assert_eq!(world.client().create(&root, "roots", &Set::default()).unwrap().1.uid, 0);
}

#[test]
fn networks_are_kept_out() {
    let elsewhere = Export {
        networks: vec!["10.0.0.0/8".parse().unwrap()],
        ..Export::new("/view")
    };
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    world.server().set_exports(vec![elsewhere.clone()]);
    assert_eq!(client.mount("/view"), Err(ACCES));
    assert_eq!(client.getattr(&root), Err(ACCES));
    assert_eq!(client.call(MOUNT, 5, Words::new()).int(), 0, "nothing to be seen");
    world.server().set_exports(vec![
        elsewhere,
        Export {
            read_only: true,
            ..Export::new("/view")
        },
    ]);
    assert_eq!(client.mount("/view"), Ok(root.clone()), "the first that admits the client counts");
    assert_eq!(client.create(&root, "x", &Set::default()).map(drop), Err(ROFS));
    world.server().set_exports(Vec::new());
    assert_eq!(client.getattr(&root), Err(STALE));
    let privileged = Export {
        privileged_ports: true,
        ..Export::new("/view")
    };
    world.server().set_exports(vec![privileged]);
    assert_eq!(client.mount("/view"), Err(ACCES));
}

#[test]
fn a_read_only_export_is_only_read() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let (file, _) = client.create(&root, "file", &Set::mode(0o666)).unwrap();
    client.write(&file, 0, b"bytes", 2).unwrap();
    world.server().set_exports(vec![Export {
        read_only: true,
        ..trusting("/view")
    }]);
    assert_eq!(client.read(&file, 0, 5).unwrap().0, b"bytes");
    assert_eq!(client.write(&file, 0, b"x", 0).map(drop), Err(ROFS));
    assert_eq!(client.setattr(&file, &Set::mode(0), None).0, ROFS);
    assert_eq!(client.mkdir(&root, "x", 0).map(drop), Err(ROFS));
    assert_eq!(client.symlink(&root, "x", "y").map(drop), Err(ROFS));
    assert_eq!(client.mknod(&root, "x", 7, (0, 0)).map(drop), Err(ROFS));
    assert_eq!(client.remove(&root, "file").0, ROFS);
    assert_eq!(client.rmdir(&root, "file").0, ROFS);
    assert_eq!(client.rename((&root, "file"), (&root, "x")).0, ROFS);
    assert_eq!(client.link(&file, &root, "x").0, ROFS);
    assert_eq!(client.create_exclusive(&root, "x", [1; 8]).map(drop), Err(ROFS));
    assert_eq!(client.access(&root, 0x3f), Ok(0x03));
    assert_eq!(client.names(&root, 4096), [".", "..", "file"]);
}

#[test]
fn an_export_is_not_left() {
    let world = World::new(vec![
        trusting("/view/inner"),
        Export {
            read_only: true,
            ..trusting("/view")
        },
        trusting("/"),
    ]);
    let mut client = world.client();
    let top = client.mount("/").unwrap();
    assert!(client.names(&top, 4096).contains(&"view".to_owned()));
    let (view, _) = client.lookup(&top, "view").unwrap();
    client.mkdir(&view, "inner", 0o777).unwrap();
    let inner = client.mount("/view/inner").unwrap();
    let (file, _) = client.create(&inner, "file", &Set::default()).unwrap();
    assert_eq!(client.lookup(&inner, "..").unwrap().0, inner);
    let read_only = client.mount("/view").unwrap();
    assert_eq!(client.create(&read_only, "x", &Set::default()).map(drop), Err(ROFS));
    // The same directory by two exports is two handles, each with its rules; nothing is moved or linked between them.
    let (inner_below, _) = client.lookup(&read_only, "inner").unwrap();
    assert_ne!(inner_below, inner);
    assert_eq!(client.create(&inner_below, "x", &Set::default()).map(drop), Err(ROFS));
    assert_eq!(client.rename((&inner, "file"), (&view, "file")).0, XDEV);
    assert_eq!(client.link(&file, &view, "file").0, XDEV);
    // What was moved out by somebody else does not lead out.
    let (moved, _) = client.mkdir(&inner, "moved", 0o777).unwrap();
    let (inner_by_top, _) = client.lookup(&view, "inner").unwrap();
    assert_eq!(client.rename((&inner_by_top, "moved"), (&view, "moved")).0, OK);
    assert_eq!(client.lookup(&moved, "..").map(drop), Err(ACCES));
}

#[test]
fn modes_are_kept_to() {
    let world = World::trusting();
    let mut root = world.client();
    let view = root.mount("/view").unwrap();
    let (directory, _) = root.mkdir(&view, "directory", 0o750).unwrap();
    root.setattr(
        &directory,
        &Set {
            uid: Some(1),
            gid: Some(10),
            ..Set::default()
        },
        None,
    );
    let (file, _) = root.create(&directory, "file", &Set::mode(0o640)).unwrap();
    root.setattr(
        &file,
        &Set {
            uid: Some(1),
            gid: Some(10),
            ..Set::default()
        },
        None,
    );
    let (mut owner, mut member, mut other) = (
        world.client_as(1, 1, &[]),
        world.client_as(2, 2, &[9, 10]),
        world.client_as(3, 3, &[]),
    );
    assert_eq!(
        [owner.access(&file, 0x3f), member.access(&file, 0x3f), other.access(&file, 0x3f)],
        [Ok(0x0d), Ok(0x01), Ok(0)]
    );
    assert_eq!(
        [
            owner.access(&directory, 0x3f),
            member.access(&directory, 0x3f),
            other.access(&directory, 0x3f)
        ],
        [Ok(0x1f), Ok(0x03), Ok(0)]
    );
    assert_eq!([root.access(&file, 0x3f), root.access(&directory, 0x3f)], [Ok(0x0d), Ok(0x1f)]);
    assert_eq!(member.lookup(&directory, "file").unwrap().0, file);
    assert_eq!(other.lookup(&directory, "file").map(drop), Err(ACCES));
    assert_eq!(other.readdir(&directory, 0, 4096).map(drop), Err(ACCES));
    assert_eq!(member.create(&directory, "x", &Set::default()).map(drop), Err(ACCES));
    assert_eq!(member.remove(&directory, "file").0, ACCES);
    assert_eq!(member.write(&file, 0, b"x", 0).map(drop), Err(ACCES));
    assert_eq!(other.read(&file, 0, 1), Err(ACCES));
    assert!(member.read(&file, 0, 1).is_ok());
    // Who opened it before the mode changed goes on; what is executed must be read.
    root.setattr(&file, &Set::mode(0o001), None);
    assert!(owner.write(&file, 0, b"x", 0).is_ok() && owner.read(&file, 0, 1).is_ok() && other.read(&file, 0, 1).is_ok());
    assert_eq!((member.read(&file, 0, 1), other.access(&file, 0x3f)), (Err(ACCES), Ok(0x20)));
}

#[test]
fn a_sticky_directory_protects_what_others_own() {
    let world = World::trusting();
    let mut root = world.client();
    let view = root.mount("/view").unwrap();
    let (directory, _) = root.mkdir(&view, "sticky", 0o1777).unwrap();
    let (mut owner, mut other) = (world.client_as(1, 1, &[]), world.client_as(2, 2, &[]));
    owner.create(&directory, "file", &Set::mode(0o666)).unwrap();
    other.create(&directory, "others", &Set::mode(0o666)).unwrap();
    assert_eq!(other.remove(&directory, "file").0, PERM);
    assert_eq!(other.rename((&directory, "file"), (&view, "file")).0, PERM);
    assert_eq!(other.rename((&directory, "others"), (&directory, "file")).0, PERM);
    assert_eq!(owner.remove(&directory, "file").0, OK);
    assert_eq!(root.remove(&directory, "others").0, OK);
    let (closed, _) = owner.mkdir(&view, "closed", 0o755).unwrap();
    other.mkdir(&view, "theirs", 0o777).unwrap();
    let (theirs, _) = other.lookup(&view, "theirs").unwrap();
    assert_eq!(other.rename((&view, "closed"), (&theirs, "closed")).0, ACCES, "its .. would change");
    assert_eq!(owner.rename((&view, "closed"), (&theirs, "closed")).0, OK);
    assert_eq!(owner.lookup(&closed, "..").unwrap().0, theirs);
}

#[test]
fn owner_group_and_times_are_for_who_may() {
    let world = World::trusting();
    let mut root = world.client();
    let view = root.mount("/view").unwrap();
    let (mut owner, mut other) = (world.client_as(1, 1, &[10]), world.client_as(2, 2, &[]));
    let (file, _) = owner.create(&view, "file", &Set::mode(0o6755)).unwrap();
    let gid = |gid| Set {
        gid: Some(gid),
        ..Set::default()
    };
    let uid = |uid| Set {
        uid: Some(uid),
        ..Set::default()
    };
    assert_eq!(owner.setattr(&file, &uid(2), None).0, PERM);
    assert_eq!(owner.setattr(&file, &gid(11), None).0, PERM);
    assert_eq!(other.setattr(&file, &gid(2), None).0, PERM);
    assert_eq!(other.setattr(&file, &Set::mode(0o777), None).0, PERM);
    assert_eq!(owner.setattr(&file, &gid(10), None).0, OK);
    let attributes = owner.getattr(&file).unwrap();
    assert_eq!((attributes.gid, attributes.mode), (10, 0o755), "given away: set-id bits are gone");
    root.setattr(&file, &gid(50), None);
    owner.setattr(&file, &Set::mode(0o2755), None);
    assert_eq!(owner.getattr(&file).unwrap().mode, 0o755, "not in the group");
    let now = Set {
        accessed: Some(None),
        modified: Some(None),
        ..Set::default()
    };
    let then = Set {
        modified: Some(Some((1, 1))),
        ..Set::default()
    };
    assert_eq!(
        (other.setattr(&file, &now, None).0, other.setattr(&file, &then, None).0),
        (ACCES, PERM)
    );
    owner.setattr(&file, &Set::mode(0o4777), None);
    assert_eq!(
        (other.setattr(&file, &now, None).0, other.setattr(&file, &then, None).0),
        (OK, PERM)
    );
    assert_eq!(owner.getattr(&file).unwrap().mode, 0o4777);
    other.write(&file, 0, b"x", 0).unwrap();
    assert_eq!(
        owner.getattr(&file).unwrap().mode,
        0o777,
        "written by another: set-id bits are gone"
    );
    owner.setattr(&file, &Set::mode(0o4444), None);
    assert_eq!(other.setattr(&file, &Set::size(0), None).0, ACCES);
    assert_eq!(owner.setattr(&file, &Set::size(0), None).0, OK, "who opened it may cut it");
    assert_eq!(owner.getattr(&file).unwrap().mode, 0o444);
}

#[test]
fn a_set_gid_directory_gives_its_group() {
    let world = World::trusting();
    let mut root = world.client();
    let view = root.mount("/view").unwrap();
    let (directory, _) = root.mkdir(&view, "shared", 0o2777).unwrap();
    root.setattr(
        &directory,
        &Set {
            gid: Some(20),
            ..Set::default()
        },
        None,
    );
    let mut user = world.client_as(1, 1, &[]);
    let (_, file) = user.create(&directory, "file", &Set::mode(0o2755)).unwrap();
    assert_eq!((file.gid, file.mode), (20, 0o755));
    let (_, inner) = user.mkdir(&directory, "inner", 0o755).unwrap();
    assert_eq!((inner.gid, inner.mode), (20, 0o2755));
    let set = Set {
        gid: Some(33),
        ..Set::mode(0o644)
    };
    assert_eq!(root.create(&directory, "roots", &set).unwrap().1.gid, 33);
}

#[test]
fn access_lists_count() {
    let world = World::trusting();
    let mut root = world.client();
    let view = root.mount("/view").unwrap();
    let (file, attributes) = root.create(&view, "file", &Set::mode(0o670)).unwrap();
    let list = [
        (1_u16, 6_u16, u32::MAX),
        (2, 4, 5),
        (4, 0, u32::MAX),
        (8, 2, 30),
        (8, 4, 31),
        (16, 7, u32::MAX),
        (32, 0, u32::MAX),
    ];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, bits, id) in list {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(bits.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    world
        .fs
        .set_xattr(attributes.inode, b"system.posix_acl_access", &bytes, XattrMode::Any)
        .unwrap();
    let granted = |uid, gid, groups: &[u32]| world.client_as(uid, gid, groups).access(&file, 0x3f).unwrap();
    assert_eq!(granted(5, 5, &[30]), 0x01, "the named user");
    assert_eq!(granted(6, 0, &[]), 0, "the owning group has less than the mask shows");
    assert_eq!(granted(6, 30, &[]), 0x0c);
    assert_eq!(granted(6, 31, &[30]), 0x0d);
    assert_eq!(granted(7, 7, &[]), 0);
}
