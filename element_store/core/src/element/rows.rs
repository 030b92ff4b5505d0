//! Values of the metadata store. Every field is documented where it is defined; `docs/FORMAT.md` §5 draws the bytes.
//!
//! Each row begins with its layout version (1) and the epoch in which it was born, so that snapshots can keep what they saw.

pub use super::content_rows::{CHECKSUM_BLOCK, ChunkRow, EXTENT_BYTES_MAX, Encoding, ExtentRow, LandedRow, Piece, Placement};
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

const LAYOUT: u8 = 1;
/// In the place of the layout: the row hides that of an origin. Nothing but its birth follows.
const TOMBSTONE: u8 = 2;

/// Names and values of all xattrs of one element together, bytes.
pub const XATTR_BYTES_MAX: usize = 32 * 1024;
/// Parts described by one row.
pub const PARTS_PER_ROW: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Directory,
    File,
    Symlink,
    Fifo,
    Socket,
    CharacterDevice,
    BlockDevice,
}

/// How the ETag of an element comes about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Etag {
    /// From element id and content version: content that no S3 request wrote.
    Version,
    Md5([u8; 16]),
    /// MD5 of the parts' MD5s, and their number.
    Multipart([u8; 16], u32),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementRow {
    /// Epoch of birth of this row.
    pub born: u64,
    pub kind: Kind,
    /// A directory made on the way to a key: it vanishes with its last entry.
    pub implicit: bool,
    /// A directory to which no path of files leads.
    pub aside: bool,
    /// Bytes of the content that no mapping covers.
    pub holes: u64,
    /// Names and versions that lead here; of a directory 2, and one for each directory in it.
    pub links: u32,
    pub size: u64,
    /// Rises with every change of content, of a directory with every change of its entries.
    pub content_version: u64,
    pub created_ns: i64,
    pub modified_ns: i64,
    pub changed_ns: i64,
    pub accessed_ns: i64,
    /// Of a directory, and of a file that is the root of its space: the one that names it; of anything else the root of its space.
    pub parent: u64,
    /// A directory's name there, with its slash; a symlink's target; a device's number, 8 bytes.
    pub detail: Vec<u8>,
    pub etag: Etag,
    /// `digests` are of the parts' digests, not of the content.
    pub composite: bool,
    pub digests: BTreeMap<String, Vec<u8>>,
    pub attributes: Attributes,
    /// 0: the null version, which also all content has that was written without versioning.
    pub version: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryRow {
    pub born: u64,
    pub element: u64,
    pub kind: Kind,
    /// Its place in listings by files, never used twice in a directory.
    pub cookie: u64,
}

/// A version of a key that the live tree does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRow {
    pub born: u64,
    /// 0: a delete marker.
    pub element: u64,
    /// As in the element's row; 0: the null version.
    pub version: u64,
    pub modified_ns: i64,
}

/// `length` bytes of the element at the key's offset are bytes [skip, skip + length) of the extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappingRow {
    pub born: u64,
    pub extent: u64,
    pub skip: u32,
    pub length: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartRow {
    /// The hidden element that holds the part's bytes; 0 once the upload is complete.
    pub element: u64,
    pub size: u64,
    pub md5: [u8; 16],
    pub modified_ns: i64,
    pub digests: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRow {
    pub created_ns: i64,
    pub attributes: Attributes,
    pub extra: BTreeMap<String, Vec<u8>>,
}

pub(super) fn begin(born: u64) -> Writer {
    let mut writer = Writer::new();
    writer.u8(LAYOUT).varint(born);
    writer
}

pub(super) fn open(bytes: &[u8]) -> Result<(u64, Reader<'_>)> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        LAYOUT => Ok((reader.varint()?, reader)),
        other => Err(Error::Damaged(format!("metadata row of unknown layout {other}"))),
    }
}

/// The epoch in which a row of an element was born; of a tombstone too.
pub fn born(bytes: &[u8]) -> Result<u64> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        LAYOUT | TOMBSTONE => reader.varint(),
        other => Err(Error::Damaged(format!("metadata row of unknown layout {other}"))),
    }
}

pub fn is_tombstone(bytes: &[u8]) -> bool {
    bytes.first() == Some(&TOMBSTONE)
}

pub fn tombstone(born: u64) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u8(TOMBSTONE).varint(born);
    writer.bytes
}

/// A row that is nothing but bytes.
pub fn plain(born: u64, bytes: &[u8]) -> Vec<u8> {
    let mut writer = begin(born);
    writer.raw(bytes);
    writer.bytes
}

pub fn plain_bytes(row: &[u8]) -> Result<&[u8]> {
    let born = open(row)?.0;
    // Varints have one spelling.
    Ok(&row[begin(born).bytes.len()..])
}

pub(super) fn narrow(value: u64) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::Damaged("metadata row holds a number out of range".into()))
}

fn put_map(writer: &mut Writer, map: &BTreeMap<String, Vec<u8>>) {
    writer.varint(map.len() as u64);
    for (name, value) in map {
        writer.blob(name.as_bytes()).blob(value);
    }
}

fn get_map(reader: &mut Reader) -> Result<BTreeMap<String, Vec<u8>>> {
    let count = reader.varint()?;
    let mut map = BTreeMap::new();
    for _ in 0..count {
        let name = String::from_utf8(reader.blob()?.to_vec()).map_err(|_| Error::Damaged("metadata row holds a broken name".into()))?;
        map.insert(name, reader.blob()?.to_vec());
    }
    Ok(map)
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Directory => 0,
            Kind::File => 1,
            Kind::Symlink => 2,
            Kind::Fifo => 3,
            Kind::Socket => 4,
            Kind::CharacterDevice => 5,
            Kind::BlockDevice => 6,
        }
    }

    fn from_code(code: u8) -> Result<Self> {
        match code {
            0 => Ok(Kind::Directory),
            1 => Ok(Kind::File),
            2 => Ok(Kind::Symlink),
            3 => Ok(Kind::Fifo),
            4 => Ok(Kind::Socket),
            5 => Ok(Kind::CharacterDevice),
            6 => Ok(Kind::BlockDevice),
            other => Err(Error::Damaged(format!("element of unknown kind {other}"))),
        }
    }
}

impl Etag {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Etag::Version => writer.u8(0),
            Etag::Md5(md5) => writer.u8(1).raw(md5),
            Etag::Multipart(md5, parts) => writer.u8(2).raw(md5).varint(u64::from(*parts)),
        };
    }

    fn decode(reader: &mut Reader) -> Result<Self> {
        match reader.u8()? {
            0 => Ok(Etag::Version),
            1 => Ok(Etag::Md5(reader.array()?)),
            2 => Ok(Etag::Multipart(reader.array()?, narrow(reader.varint()?)?)),
            other => Err(Error::Damaged(format!("etag of unknown kind {other}"))),
        }
    }
}

impl Attributes {
    /// Refuses what does not fit a row.
    pub fn check(&self) -> Result<()> {
        let bytes: usize = self.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > XATTR_BYTES_MAX {
            return Err(Error::Limit(format!(
                "extended attributes take {bytes} bytes, {XATTR_BYTES_MAX} are allowed"
            )));
        }
        Ok(())
    }

    fn encode(&self, writer: &mut Writer) {
        writer
            .varint(u64::from(self.mode))
            .varint(u64::from(self.uid))
            .varint(u64::from(self.gid));
        put_map(writer, &self.xattrs);
    }

    fn decode(reader: &mut Reader) -> Result<Self> {
        Ok(Self {
            mode: narrow(reader.varint()?)?,
            uid: narrow(reader.varint()?)?,
            gid: narrow(reader.varint()?)?,
            xattrs: get_map(reader)?,
        })
    }
}

impl ElementRow {
    pub fn new(kind: Kind, now_ns: i64, attributes: Attributes) -> Self {
        Self {
            born: 0,
            kind,
            implicit: false,
            aside: false,
            holes: 0,
            links: if kind == Kind::Directory { 2 } else { 1 },
            size: 0,
            content_version: 1,
            created_ns: now_ns,
            modified_ns: now_ns,
            changed_ns: now_ns,
            accessed_ns: now_ns,
            parent: 0,
            detail: Vec::new(),
            etag: Etag::Version,
            composite: false,
            digests: BTreeMap::new(),
            attributes,
            version: 0,
        }
    }

    /// Hex, unquoted.
    pub fn etag_text(&self, id: u64) -> String {
        fn hex(md5: &[u8; 16]) -> String {
            md5.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        match &self.etag {
            Etag::Version => format!("{id:016x}{:016x}-0", self.content_version),
            Etag::Md5(md5) => hex(md5),
            Etag::Multipart(md5, parts) => format!("{}-{parts}", hex(md5)),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut writer = begin(self.born);
        writer
            .u8(self.kind.code())
            .u8(u8::from(self.implicit)
                | u8::from(self.composite) << 1
                | u8::from(self.version != 0) << 2
                | u8::from(self.aside) << 3
                | u8::from(self.holes != 0) << 4)
            .varint(u64::from(self.links));
        writer.varint(self.size).varint(self.content_version);
        writer.i64(self.created_ns).i64(self.modified_ns).i64(self.changed_ns);
        writer.i64(self.accessed_ns).varint(self.parent).blob(&self.detail);
        self.etag.encode(&mut writer);
        put_map(&mut writer, &self.digests);
        self.attributes.encode(&mut writer);
        if self.version != 0 {
            writer.varint(self.version);
        }
        if self.holes != 0 {
            writer.varint(self.holes);
        }
        writer.bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (born, mut reader) = open(bytes)?;
        let kind = Kind::from_code(reader.u8()?)?;
        let flags = reader.u8()?;
        Ok(Self {
            born,
            kind,
            implicit: flags & 1 != 0,
            composite: flags & 2 != 0,
            aside: flags & 8 != 0,
            links: narrow(reader.varint()?)?,
            size: reader.varint()?,
            content_version: reader.varint()?,
            created_ns: reader.i64()?,
            modified_ns: reader.i64()?,
            changed_ns: reader.i64()?,
            accessed_ns: reader.i64()?,
            parent: reader.varint()?,
            detail: reader.blob()?.to_vec(),
            etag: Etag::decode(&mut reader)?,
            digests: get_map(&mut reader)?,
            attributes: Attributes::decode(&mut reader)?,
            version: if flags & 4 != 0 { reader.varint()? } else { 0 },
            holes: if flags & 16 != 0 { reader.varint()? } else { 0 },
        })
    }
}

impl EntryRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = begin(self.born);
        writer.u8(self.kind.code()).varint(self.element).varint(self.cookie);
        writer.bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (born, mut reader) = open(bytes)?;
        let kind = Kind::from_code(reader.u8()?)?;
        Ok(Self {
            born,
            kind,
            element: reader.varint()?,
            cookie: reader.varint()?,
        })
    }
}

impl VersionRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = begin(self.born);
        writer.varint(self.element).varint(self.version).i64(self.modified_ns);
        writer.bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (born, mut reader) = open(bytes)?;
        Ok(Self {
            born,
            element: reader.varint()?,
            version: reader.varint()?,
            modified_ns: reader.i64()?,
        })
    }
}

impl MappingRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = begin(self.born);
        writer
            .varint(self.extent)
            .varint(u64::from(self.skip))
            .varint(u64::from(self.length));
        writer.bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (born, mut reader) = open(bytes)?;
        Ok(Self {
            born,
            extent: reader.varint()?,
            skip: narrow(reader.varint()?)?,
            length: narrow(reader.varint()?)?,
        })
    }
}

impl PartRow {
    fn encode_into(&self, writer: &mut Writer) {
        writer.varint(self.element).varint(self.size).raw(&self.md5).i64(self.modified_ns);
        put_map(writer, &self.digests);
    }

    fn decode_from(reader: &mut Reader) -> Result<Self> {
        Ok(Self {
            element: reader.varint()?,
            size: reader.varint()?,
            md5: reader.array()?,
            modified_ns: reader.i64()?,
            digests: get_map(reader)?,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut writer = begin(0);
        self.encode_into(&mut writer);
        writer.bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_from(&mut open(bytes)?.1)
    }

    /// Up to PARTS_PER_ROW parts of a finished object in one row: (number, part).
    pub fn encode_many(born: u64, parts: &[(u32, PartRow)]) -> Vec<u8> {
        let mut writer = begin(born);
        writer.varint(parts.len() as u64);
        for (number, part) in parts {
            writer.varint(u64::from(*number));
            part.encode_into(&mut writer);
        }
        writer.bytes
    }

    pub fn decode_many(bytes: &[u8]) -> Result<Vec<(u32, PartRow)>> {
        let (_, mut reader) = open(bytes)?;
        (0..reader.varint()?)
            .map(|_| Ok((narrow(reader.varint()?)?, Self::decode_from(&mut reader)?)))
            .collect()
    }
}

impl UploadRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = begin(0);
        writer.i64(self.created_ns);
        self.attributes.encode(&mut writer);
        put_map(&mut writer, &self.extra);
        writer.bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (_, mut reader) = open(bytes)?;
        Ok(Self {
            created_ns: reader.i64()?,
            attributes: Attributes::decode(&mut reader)?,
            extra: get_map(&mut reader)?,
        })
    }
}
