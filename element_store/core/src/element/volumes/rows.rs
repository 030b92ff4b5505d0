//! The mark of a volume on its element, and the row that leads to it.

use crate::block::{VOLUMES_MAX, VolumeId};
use crate::codec::{Reader, Writer};
use crate::element::rows::ElementRow;
use crate::error::{Error, Result};

/// Layout u8 (1), id u32, bytes of a block u32, uuid 16.
pub const MARK: &str = "trefoil.volume";
pub const BLOCK_BYTES: [u32; 2] = [512, 4096];
const LAYOUT: u8 = 1;
/// Of a row that leads to what a snapshot has.
const IMAGE_LAYOUT: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub id: VolumeId,
    pub block_bytes: u32,
    pub uuid: [u8; 16],
}

impl Mark {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(LAYOUT).u32(self.id).u32(self.block_bytes).raw(&self.uuid);
        writer.bytes
    }

    /// Raises Damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let (layout, mark) = (
            reader.u8()?,
            Self {
                id: reader.u32()?,
                block_bytes: reader.u32()?,
                uuid: reader.array()?,
            },
        );
        reader.finish()?;
        if layout != LAYOUT || !BLOCK_BYTES.contains(&mark.block_bytes) || !(1..=VOLUMES_MAX).contains(&mark.id) {
            return Err(Error::Damaged("the mark of a volume is none".into()));
        }
        Ok(mark)
    }

    pub fn of(row: &ElementRow) -> Result<Option<Self>> {
        row.attributes.xattrs.get(MARK).map(|bytes| Self::decode(bytes)).transpose()
    }
}

/// The row that leads to a volume: its element, and the one name of that; or what a snapshot has of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub element: u64,
    /// Of a snapshot's: 0.
    pub directory: u64,
    /// Of a snapshot's: the path under which it was asked for.
    pub name: Vec<u8>,
    pub image: Option<Image>,
}

/// Of a volume that is a snapshot's: nothing in it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its own: the mark on the element is that of the volume that the snapshot was taken of.
    pub uuid: [u8; 16],
    pub snapshot: String,
}

impl Place {
    pub(super) fn encode(&self, born: u64) -> Vec<u8> {
        let mut writer = Writer::new();
        let layout = if self.image.is_some() { IMAGE_LAYOUT } else { LAYOUT };
        writer.u8(layout).varint(born).varint(self.element).varint(self.directory);
        writer.blob(&self.name);
        if let Some(image) = &self.image {
            writer.raw(&image.uuid).blob(image.snapshot.as_bytes());
        }
        writer.bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let layout = reader.u8()?;
        if ![LAYOUT, IMAGE_LAYOUT].contains(&layout) {
            return Err(Error::Damaged("a volume's row has an unknown layout".into()));
        }
        reader.varint()?;
        let mut place = Self {
            element: reader.varint()?,
            directory: reader.varint()?,
            name: reader.blob()?.to_vec(),
            image: None,
        };
        if layout == IMAGE_LAYOUT {
            let (uuid, snapshot) = (reader.array()?, reader.blob()?.to_vec());
            let snapshot = String::from_utf8(snapshot).map_err(|_| Error::Damaged("a snapshot's name is not UTF-8".into()))?;
            place.image = Some(Image { uuid, snapshot });
        }
        reader.finish().map(|()| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(mark) = Mark::decode(&bytes) {
                prop_assert_eq!(mark.encode(), bytes.clone());
            }
            if let Ok(place) = Place::decode(&bytes) {
                prop_assert_eq!(Place::decode(&place.encode(1)).unwrap(), place);
            }
        }

        #[test]
        fn places_return(element: u64, directory: u64, name: Vec<u8>, uuid: Option<[u8; 16]>) {
            let image = uuid.map(|uuid| Image { uuid, snapshot: "s".into() });
            let place = Place { element, directory, name, image };
            prop_assert_eq!(Place::decode(&place.encode(1)).unwrap(), place);
        }

        #[test]
        fn marks_return(id in 1..=VOLUMES_MAX, large: bool, uuid: [u8; 16]) {
            let mark = Mark { id, block_bytes: BLOCK_BYTES[usize::from(large)], uuid };
            prop_assert_eq!(Mark::decode(&mark.encode()).unwrap(), mark);
            prop_assert!(Mark::decode(&mark.encode()[1..]).is_err());
        }
    }
}
