//! S3's words among extended attributes: which they are, what they may say, and what of an element outlives its being replaced by S3.
//!
//! Invariant: what files set under S3's names S3 can show as it is, within S3's own limits, and could have been set by S3. Anything else is one
//! error, EINVAL, and changes nothing. Names under `trefoil.` are the daemon's and no file sees them.

use super::rows::Attributes;
use std::collections::BTreeMap;

pub const META: &str = "user.s3.meta.";
pub const TAG: &str = "user.s3.tag.";
pub const HEADER: &str = "user.s3.header.";
pub const CONTENT_TYPE: &str = "user.mime_type";
/// Everything that S3 says of an object besides its content type.
const S3: &str = "user.s3.";
const OWN: &str = "trefoil.";
/// The rights that a program gets by this are its content's, not its name's.
const CAPABILITY: &str = "security.capability";
/// Names (without the prefix) and values of all metadata of a user's own together.
pub const META_BYTES_MAX: usize = 2048;
/// Of any other header's value.
pub const HEADER_BYTES_MAX: usize = 4096;
pub const TAGS_MAX: usize = 10;
/// Of a bucket.
pub const VIEW_TAGS_MAX: usize = 50;
/// Characters.
pub const TAG_KEY_MAX: usize = 128;
pub const TAG_VALUE_MAX: usize = 256;
const HEADERS: [&str; 6] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-website-redirect-location",
];

/// May files see an attribute of this name?
pub fn is_shown(name: &str) -> bool {
    !name.starts_with(OWN)
}

/// What a bucket says of itself: it has no place in one.
pub fn is_of_views(name: &str) -> bool {
    name.starts_with(OWN) || name.starts_with(S3)
}

fn is_s3(name: &str) -> bool {
    name.starts_with(S3) || name == CONTENT_TYPE || name.starts_with(OWN)
}

/// A header's name in lower case: RFC 9110's token.
fn is_token(name: &str) -> bool {
    let is_mark = |byte| b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || is_mark(byte))
}

/// A header's value that arrives as it was sent: no control characters, no blanks around it.
fn is_field(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| byte.is_some_and(|byte| *byte == b' ' || *byte == b'\t');
    !is_blank(value.first()) && !is_blank(value.last()) && !value.iter().any(|byte| *byte < b' ' && *byte != b'\t' || *byte == 0x7f)
}

fn is_printable(text: &str, characters_max: usize) -> bool {
    text.chars().count() <= characters_max
        && !text
            .chars()
            .any(|character| character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}'))
}

fn is_tag(key: &str, value: &[u8]) -> bool {
    let value = std::str::from_utf8(value).ok();
    !key.is_empty()
        && !key.starts_with("aws:")
        && is_printable(key, TAG_KEY_MAX)
        && value.is_some_and(|value| is_printable(value, TAG_VALUE_MAX))
}

/// Can S3 show the attribute?
fn is_sayable(name: &str, value: &[u8]) -> bool {
    if name == CONTENT_TYPE {
        !value.is_empty() && value.len() <= HEADER_BYTES_MAX && is_field(value)
    } else if let Some(short) = name.strip_prefix(META) {
        is_token(short) && is_field(value)
    } else if let Some(key) = name.strip_prefix(TAG) {
        is_tag(key, value)
    } else if let Some(header) = name.strip_prefix(HEADER) {
        HEADERS.contains(&header) && !value.is_empty() && value.len() <= HEADER_BYTES_MAX && is_field(value)
    } else {
        !is_s3(name)
    }
}

/// After files have set `name`: may it stay so?
pub fn is_allowed(xattrs: &BTreeMap<String, Vec<u8>>, name: &str, is_view: bool) -> bool {
    let named = |prefix: &'static str| xattrs.iter().filter(move |(name, _)| name.starts_with(prefix));
    let within = || {
        if name.starts_with(TAG) {
            named(TAG).count() <= if is_view { VIEW_TAGS_MAX } else { TAGS_MAX }
        } else {
            let bytes: usize = named(META).map(|(name, value)| name.len() - META.len() + value.len()).sum();
            !name.starts_with(META) || bytes <= META_BYTES_MAX
        }
    };
    xattrs.get(name).is_none_or(|value| is_sayable(name, value)) && within()
}

/// What replaces an element under its name gets its owner and permissions, and what S3 has no word for.
pub fn inherit(old: &Attributes, new: &mut Attributes) {
    const PERMISSIONS: u32 = 0o777;
    (new.uid, new.gid, new.mode) = (old.uid, old.gid, old.mode & PERMISSIONS);
    for (name, value) in &old.xattrs {
        if !is_s3(name) && name != CAPABILITY {
            new.xattrs.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(name: &str, value: &[u8]) -> bool {
        is_allowed(&BTreeMap::from([(name.to_owned(), value.to_vec())]), name, false)
    }

    #[test]
    fn what_s3_cannot_say_is_refused() {
        for (name, value) in [
            ("user.s3.meta.colour", &b"blue"[..]),
            ("user.s3.meta.empty", b""),
            ("user.s3.meta.latin", b"\xe9"),
            ("user.s3.tag.Key with blanks", "\u{e9}".as_bytes()),
            ("user.s3.header.cache-control", b"no-cache"),
            ("user.mime_type", b"text/plain"),
            ("user.anything", b"\n\0\xff"),
        ] {
            assert!(allowed(name, value), "{name}");
        }
        for (name, value) in [
            ("user.s3.meta.Colour", &b"blue"[..]),
            ("user.s3.meta.", b"x"),
            ("user.s3.meta.a b", b"x"),
            ("user.s3.meta.a", b"x\ny"),
            ("user.s3.meta.a", b" x"),
            ("user.s3.tag.", b"x"),
            ("user.s3.tag.aws:x", b"x"),
            ("user.s3.tag.a", b"\xff"),
            ("user.s3.tag.a\n", b"x"),
            ("user.s3.header.content-length", b"1"),
            ("user.s3.other", b"x"),
            ("user.mime_type", b""),
            ("trefoil.owner", b"x"),
        ] {
            assert!(!allowed(name, value), "{name}");
        }
        assert!(!allowed("user.s3.tag.a", "\u{e9}".repeat(TAG_VALUE_MAX + 1).as_bytes()));
        assert!(allowed("user.s3.tag.a", "\u{e9}".repeat(TAG_VALUE_MAX).as_bytes()));
    }

    #[test]
    fn limits_count_everything_of_a_kind() {
        let mut xattrs: BTreeMap<String, Vec<u8>> = (0..TAGS_MAX).map(|tag| (format!("{TAG}{tag}"), Vec::new())).collect();
        assert!(is_allowed(&xattrs, "user.s3.tag.0", false));
        xattrs.insert("user.s3.tag.more".into(), Vec::new());
        assert!(!is_allowed(&xattrs, "user.s3.tag.more", false) && is_allowed(&xattrs, "user.s3.tag.more", true));
        let name = format!("{META}a");
        let mut xattrs = BTreeMap::from([(name.clone(), vec![b'x'; META_BYTES_MAX - 1])]);
        assert!(is_allowed(&xattrs, &name, false));
        xattrs.insert(format!("{META}b"), Vec::new());
        assert!(!is_allowed(&xattrs, "user.s3.meta.b", false));
    }
}
