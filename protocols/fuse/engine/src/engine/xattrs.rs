//! Extended attributes.
//!
//! `user`, `trusted` and `security` are the store's, and so are POSIX ACLs, which it keeps in step with modes; the kernel has checked who may.

use trefoil_core::filesystem::{Changes, Errno, Result, XattrMode, acl};

use super::{Answer, Call, Engine};
use crate::wire::{Writer, hint};

/// `setxattr(2)`
const XATTR_CREATE: u32 = 1;
const XATTR_REPLACE: u32 = 2;
pub(super) const SET_GID: u32 = 0o2000;
const TRUSTED: &[u8] = b"trusted.";
const NAMESPACES: [&[u8]; 3] = [b"user.", TRUSTED, b"security."];

impl Engine {
    pub(super) fn setxattr(&self, call: &mut Call) -> Result<Answer> {
        let (size, flags) = (call.body.u32()? as usize, call.body.u32()?);
        let hints = call.body.u32()?;
        call.body.skip(4)?;
        let name = served(call.body.name()?)?;
        let value = call.body.bytes(size)?;
        let mode = match flags {
            0 => XattrMode::Any,
            XATTR_CREATE => XattrMode::Create,
            XATTR_REPLACE => XattrMode::Replace,
            _ => return Err(Errno::INVAL),
        };
        self.fs.set_xattr(call.inode, name, value, mode)?;
        if hints & hint::ACL_KILL_SGID != 0 {
            self.kill_set_gid(call)?;
        }
        Ok(Answer::Payload)
    }

    /// Who gave a list to a file of a group that is not theirs does not get to run as that group.
    pub(super) fn kill_set_gid(&self, call: &Call) -> Result<()> {
        let node = self.fs.stat(call.inode)?;
        if node.mode & SET_GID != 0 {
            let mode = Some(node.mode & !SET_GID);
            self.fs.change(
                call.inode,
                &Changes {
                    mode,
                    ..Changes::default()
                },
            )?;
        }
        Ok(())
    }

    pub(super) fn getxattr(&self, call: &mut Call) -> Result<Answer> {
        let size = call.body.u32()?;
        call.body.skip(4)?;
        let value = self.fs.xattr(call.inode, served(call.body.name()?)?)?;
        sized(call.out, size, value)
    }

    /// `trusted` names are shown to root only, as `xattr(7)` says.
    pub(super) fn listxattr(&self, call: &mut Call) -> Result<Answer> {
        let size = call.body.u32()?;
        let mut names = Vec::new();
        for name in self.fs.xattrs(call.inode)? {
            if call.header.uid == 0 || !name.starts_with(TRUSTED) {
                names.extend_from_slice(&name);
                names.push(0);
            }
        }
        sized(call.out, size, names)
    }

    pub(super) fn removexattr(&self, call: &mut Call) -> Result<Answer> {
        self.fs
            .remove_xattr(call.inode, served(call.body.name()?)?)
            .map(|()| Answer::Payload)
    }
}

fn served(name: &[u8]) -> Result<&[u8]> {
    let within = |space: &&[u8]| name.len() > space.len() && name.starts_with(space);
    let is_list = [acl::ACCESS, acl::DEFAULT].iter().any(|list| list.as_bytes() == name);
    if is_list || NAMESPACES.iter().any(within) {
        Ok(name)
    } else {
        Err(Errno::OPNOTSUPP)
    }
}

/// Who asks with no room asks how much there must be.
fn sized(out: &mut Writer, room: u32, bytes: Vec<u8>) -> Result<Answer> {
    if room == 0 {
        out.u32(bytes.len() as u32).u32(0);
        return Ok(Answer::Payload);
    }
    if bytes.len() > room as usize {
        Err(Errno::RANGE)
    } else {
        Ok(Answer::Content(bytes))
    }
}
