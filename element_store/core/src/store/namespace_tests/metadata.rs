//! S3's metadata as extended attributes.

use super::*;
use crate::element::metadata::{META, META_BYTES_MAX, TAG, TAGS_MAX};
use crate::filesystem::XattrMode;

fn xattrs(pairs: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect()
}

fn stored(world: &World, key: &[u8]) -> BTreeMap<String, Vec<u8>> {
    world.store.lookup(VIEW, key, None).unwrap().row.attributes.xattrs
}

#[test]
fn files_see_and_change_what_s3_says() {
    let world = World::new();
    let fs = world.fs();
    let given = Attributes {
        xattrs: xattrs(&[
            ("user.s3.meta.a", b"1"),
            ("user.s3.tag.t", b"2"),
            ("user.mime_type", b"text/plain"),
            ("trefoil.acl", b"public-read"),
        ]),
        ..Attributes::default()
    };
    let made = world.put_as(b"key", b"x", given, Terms::default()).unwrap();
    let inode = world.find(b"key").unwrap();
    let mut listed = fs.xattrs(inode).unwrap();
    listed.sort();
    assert_eq!(
        listed,
        [&b"user.mime_type"[..], b"user.s3.meta.a", b"user.s3.tag.t"].map(<[u8]>::to_vec)
    );
    assert_eq!(fs.xattr(inode, b"user.s3.meta.a").unwrap(), b"1");
    assert_eq!(fs.xattr(inode, b"trefoil.acl"), Err(Errno::NODATA));
    assert_eq!(fs.set_xattr(inode, b"trefoil.acl", b"private", XattrMode::Any), Err(Errno::INVAL));
    assert_eq!(fs.remove_xattr(inode, b"trefoil.acl"), Err(Errno::NODATA));
    fs.set_xattr(inode, b"user.mime_type", b"image/png", XattrMode::Replace).unwrap();
    fs.set_xattr(inode, b"user.s3.meta.b", b"3", XattrMode::Create).unwrap();
    fs.remove_xattr(inode, b"user.s3.tag.t").unwrap();
    let expected = xattrs(&[
        ("user.s3.meta.a", b"1"),
        ("user.s3.meta.b", b"3"),
        ("user.mime_type", b"image/png"),
        ("trefoil.acl", b"public-read"),
    ]);
    assert_eq!(stored(&world, b"key"), expected);
    // Metadata are not content.
    assert_eq!(world.store.lookup(VIEW, b"key", None).unwrap().etag(), made.etag());
}

#[test]
fn what_s3_could_not_show_changes_nothing() {
    let world = World::new();
    let fs = world.fs();
    let inode = fs.create(world.view, b"file", New::File, 0o644, USER).unwrap().inode;
    let set = |name: &str, value: &[u8]| fs.set_xattr(inode, name.as_bytes(), value, XattrMode::Any);
    set(&format!("{META}a"), &vec![b'x'; META_BYTES_MAX - 1]).unwrap();
    for tag in 0..TAGS_MAX {
        set(&format!("{TAG}{tag}"), b"").unwrap();
    }
    let before = stored(&world, b"file");
    let node = fs.stat(inode).unwrap();
    for (name, value) in [("b", &b"x"[..]), ("Upper", b"x"), ("a", b"x\r\nx-amz-acl: public-read")] {
        assert_eq!(set(&format!("{META}{name}"), value), Err(Errno::INVAL));
    }
    assert_eq!(set(&format!("{TAG}more"), b""), Err(Errno::INVAL));
    assert_eq!(set("user.s3.header.content-length", b"5"), Err(Errno::INVAL));
    assert_eq!((stored(&world, b"file"), fs.stat(inode).unwrap()), (before, node));
    // One goes, another has room.
    fs.remove_xattr(inode, b"user.s3.tag.0").unwrap();
    set(&format!("{TAG}more"), b"").unwrap();
}

#[test]
fn what_s3_has_no_word_for_outlives_an_overwrite() {
    let world = World::new();
    let fs = world.fs();
    let inode = fs.create(world.view, b"file", New::File, 0o644, USER).unwrap().inode;
    for name in [&b"user.own"[..], b"security.capability", b"user.s3.meta.old", b"trusted.x"] {
        fs.set_xattr(inode, name, b"1", XattrMode::Any).unwrap();
    }
    let given = Attributes {
        xattrs: xattrs(&[("user.s3.meta.new", b"2")]),
        ..Attributes::default()
    };
    let terms = Terms {
        naming: Naming {
            inherit: true,
            ..Naming::default()
        },
        ..Terms::default()
    };
    world.put_as(b"file", b"x", given, terms).unwrap();
    assert_eq!(
        stored(&world, b"file"),
        xattrs(&[("user.own", b"1"), ("user.s3.meta.new", b"2"), ("trusted.x", b"1")])
    );
}
