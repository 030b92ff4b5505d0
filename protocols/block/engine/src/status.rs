//! What a command comes to: NVMe's status, as bits 1 to 15 of a completion's last word have it, and the one table from the store's errors to it.

use trefoil_core::block::BlockError;

/// Code in bits 0 to 7, type in bits 8 to 10, Do Not Retry in bit 14.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u16);

const DO_NOT_RETRY: u16 = 1 << 14;

impl Status {
    pub const SUCCESS: Self = Self(0);
    pub const INVALID_OPCODE: Self = Self(0x01 | DO_NOT_RETRY);
    pub const INVALID_FIELD: Self = Self(0x02 | DO_NOT_RETRY);
    pub const ID_CONFLICT: Self = Self(0x03 | DO_NOT_RETRY);
    pub const INTERNAL: Self = Self(0x06);
    pub const ABORTED: Self = Self(0x07);
    pub const ABORTED_FAILED_FUSED: Self = Self(0x09);
    pub const ABORTED_MISSING_FUSED: Self = Self(0x0a | DO_NOT_RETRY);
    pub const INVALID_NAMESPACE: Self = Self(0x0b | DO_NOT_RETRY);
    pub const SEQUENCE_ERROR: Self = Self(0x0c | DO_NOT_RETRY);
    pub const SGL_LENGTH_INVALID: Self = Self(0x0f | DO_NOT_RETRY);
    pub const SGL_TYPE_INVALID: Self = Self(0x11 | DO_NOT_RETRY);
    pub const ATOMIC_UNIT_EXCEEDED: Self = Self(0x14 | DO_NOT_RETRY);
    pub const SGL_OFFSET_INVALID: Self = Self(0x16 | DO_NOT_RETRY);
    pub const HOST_ID_FORMAT: Self = Self(0x18 | DO_NOT_RETRY);
    pub const WRITE_PROTECTED: Self = Self(0x20 | DO_NOT_RETRY);
    pub const COMMAND_INTERRUPTED: Self = Self(0x21);
    pub const TRANSIENT_TRANSPORT: Self = Self(0x22);
    pub const OUT_OF_RANGE: Self = Self(0x80 | DO_NOT_RETRY);
    pub const CAPACITY_EXCEEDED: Self = Self(0x81);
    pub const NOT_READY: Self = Self(0x82);
    pub const RESERVATION_CONFLICT: Self = Self(0x83 | DO_NOT_RETRY);
    pub const TOO_MANY_EVENT_REQUESTS: Self = Self(0x105 | DO_NOT_RETRY);
    pub const INVALID_LOG_PAGE: Self = Self(0x109 | DO_NOT_RETRY);
    pub const NOT_SAVEABLE: Self = Self(0x10d | DO_NOT_RETRY);
    pub const NOT_CHANGEABLE: Self = Self(0x10e | DO_NOT_RETRY);
    pub const CONNECT_FORMAT: Self = Self(0x180 | DO_NOT_RETRY);
    pub const CONNECT_BUSY: Self = Self(0x181);
    pub const CONNECT_PARAMETER: Self = Self(0x182 | DO_NOT_RETRY);
    pub const CONNECT_HOST: Self = Self(0x184 | DO_NOT_RETRY);
    pub const SIZE_LIMIT_EXCEEDED: Self = Self(0x183 | DO_NOT_RETRY);
    pub const INVALID_QUEUE_TYPE: Self = Self(0x185 | DO_NOT_RETRY);
    pub const AUTHENTICATION_REQUIRED: Self = Self(0x191 | DO_NOT_RETRY);
    pub const UNRECOVERED_READ: Self = Self(0x281 | DO_NOT_RETRY);
    pub const COMPARE_FAILURE: Self = Self(0x285 | DO_NOT_RETRY);

    pub fn is_success(self) -> bool {
        self == Self::SUCCESS
    }
}

impl From<BlockError> for Status {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::OutOfSpace => Self::CAPACITY_EXCEEDED,
            BlockError::Damaged(_) => Self::UNRECOVERED_READ,
            BlockError::ReadOnly => Self::WRITE_PROTECTED,
            BlockError::OutOfRange => Self::OUT_OF_RANGE,
            BlockError::Busy(_) => Self::NOT_READY,
            BlockError::Failed(_) => Self::INTERNAL,
        }
    }
}

/// A completion: status, the result in its first two words, and what is sent to the host before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub status: Status,
    pub result: u64,
    pub data: Option<Vec<u8>>,
}

impl Outcome {
    pub fn result(result: u64) -> Self {
        let (status, data) = (Status::SUCCESS, None);
        Self { status, result, data }
    }

    pub fn data(data: Vec<u8>) -> Self {
        let (status, data) = (Status::SUCCESS, Some(data));
        Self { status, result: 0, data }
    }

    pub fn success() -> Self {
        Self::result(0)
    }
}

impl From<Status> for Outcome {
    fn from(status: Status) -> Self {
        let (result, data) = (0, None);
        Self { status, result, data }
    }
}

impl<E: Into<Status>> From<Result<Outcome, E>> for Outcome {
    fn from(result: Result<Outcome, E>) -> Self {
        result.unwrap_or_else(|error| Self::from(error.into()))
    }
}
