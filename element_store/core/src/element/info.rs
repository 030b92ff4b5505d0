//! What callers of the store see: plain values made from rows.

use super::keys;
use super::rows::{Attributes, ElementRow, Etag};
use std::collections::BTreeMap;

/// Digests by name (`md5`, `sha256`, `sha1`, `crc32`, `crc32c`, `crc64nvme`), raw bytes, big-endian for CRCs.
pub type Digests = BTreeMap<String, Vec<u8>>;

/// One element as one committed state shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementInfo {
    pub id: u64,
    pub key: Vec<u8>,
    pub row: ElementRow,
    /// Of a multipart upload, in order. Empty in listings.
    pub parts: Vec<PartInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartInfo {
    pub size: u64,
    /// The part's digest of the kind that the element keeps besides MD5.
    pub digest: Option<Vec<u8>>,
}

impl ElementInfo {
    /// Hex, unquoted.
    pub fn etag(&self) -> String {
        etag_text(self.id, &self.row)
    }

    /// Everything kept with the content, the MD5 that is the ETag included.
    pub fn digests(&self) -> Digests {
        let mut digests = self.row.digests.clone();
        if let Etag::Md5(md5) = &self.row.etag {
            digests.insert("md5".into(), md5.to_vec());
        }
        digests
    }
}

pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

pub fn etag_text(id: u64, row: &ElementRow) -> String {
    match &row.etag {
        // A snapshot's element has its original's number.
        Etag::Version => format!("{:016x}{:016x}-0", keys::number_of(id), row.content_version),
        Etag::Md5(md5) => hex(md5),
        Etag::Multipart(md5, parts) => format!("{}-{parts}", hex(md5)),
    }
}

/// A view root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewInfo {
    pub name: String,
    pub id: u64,
    pub created_ns: i64,
    pub attributes: Attributes,
    /// The view of which it is a snapshot, as that is called now.
    pub snapshot_of: Option<String>,
}

/// Checked inside the commit. ETags unquoted; `*` stands for any element.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    pub if_match: Vec<String>,
    pub if_none_match: Vec<String>,
}

/// What a change of a key does to the version that the key named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Versioning {
    /// It is given up. For views that never had versions: nothing more is read or written.
    #[default]
    Off,
    /// It is kept.
    Enabled,
    /// It is kept unless it is the null version, which the new one becomes.
    Suspended,
}

/// How a key is put into the tree of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Naming {
    /// Of the directories that the key makes; they have the element's owner.
    pub directory_mode: u32,
    /// What is replaced hands on its owner, mode and the xattrs that S3 has no word for.
    pub inherit: bool,
}

impl Default for Naming {
    fn default() -> Self {
        Self {
            directory_mode: 0o755,
            inherit: false,
        }
    }
}

/// On what terms a key is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    pub condition: Option<Condition>,
    pub versioning: Versioning,
    pub naming: Naming,
}

/// One version of a key: content or a delete marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    pub key: Vec<u8>,
    /// 0: the null version.
    pub version: u64,
    pub is_latest: bool,
    pub modified_ns: i64,
    /// None: a delete marker. Without parts.
    pub element: Option<ElementInfo>,
}

/// One page of a listing of versions: keys in byte order, the newest version first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct VersionPage {
    pub versions: Vec<VersionInfo>,
    pub prefixes: Vec<Vec<u8>>,
    /// Last key and version, or last prefix, of a page that is not the last.
    pub next_after: Option<(Vec<u8>, Option<u64>)>,
}

/// One key or version to be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removal {
    pub key: Vec<u8>,
    /// None: what the key names.
    pub version: Option<u64>,
    pub condition: Option<Condition>,
}

/// What a deletion did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deletion {
    /// There was what was to be deleted.
    pub existed: bool,
    /// A delete marker was set, or was what was deleted.
    pub marker: bool,
    /// Of the marker that was set, or of what was deleted.
    pub version: u64,
}

/// One page of a listing, in byte order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub elements: Vec<ElementInfo>,
    pub prefixes: Vec<Vec<u8>>,
    /// Last key or prefix of a page that is not the last.
    pub next_after: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadInfo {
    pub id: String,
    pub key: Vec<u8>,
    pub created_ns: i64,
    pub attributes: Attributes,
    pub extra: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadedPart {
    pub number: u32,
    pub size: u64,
    pub etag: String,
    pub modified_ns: i64,
    pub digests: Digests,
}
