//! An NFS client as small as can be, with its own encoder and decoder: a mistake in the server's does not cancel out.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub const NFS: u32 = 100_003;
pub const MOUNT: u32 = 100_005;
pub const PORTMAP: u32 = 100_000;

pub const OK: u32 = 0;
pub const PERM: u32 = 1;
pub const NOENT: u32 = 2;
pub const IO: u32 = 5;
pub const ACCES: u32 = 13;
pub const EXIST: u32 = 17;
pub const XDEV: u32 = 18;
pub const NOTDIR: u32 = 20;
pub const ISDIR: u32 = 21;
pub const INVAL: u32 = 22;
pub const ROFS: u32 = 30;
pub const NAMETOOLONG: u32 = 63;
pub const NOTEMPTY: u32 = 66;
pub const STALE: u32 = 70;
pub const BADHANDLE: u32 = 10001;
pub const NOT_SYNC: u32 = 10002;
pub const TOOSMALL: u32 = 10005;
pub const BADTYPE: u32 = 10007;

pub type Handle = Vec<u8>;

/// Arguments under construction.
#[derive(Clone, Default)]
pub struct Words(pub Vec<u8>);

impl Words {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn int(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn long(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self = self.int(bytes.len() as u32);
        self.0.extend(bytes);
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub fn entry(self, directory: &[u8], name: impl AsRef<[u8]>) -> Self {
        self.bytes(directory).bytes(name.as_ref())
    }
}

/// Results being read; reading beyond their end fails the test.
#[derive(Debug, Clone)]
pub struct Results {
    bytes: Vec<u8>,
    position: usize,
}

impl Results {
    pub fn int(&mut self) -> u32 {
        let word = self.bytes[self.position..][..4].try_into().unwrap();
        self.position += 4;
        u32::from_be_bytes(word)
    }

    pub fn long(&mut self) -> u64 {
        u64::from(self.int()) << 32 | u64::from(self.int())
    }

    pub fn bytes(&mut self) -> Vec<u8> {
        let length = self.int() as usize;
        let bytes = self.bytes[self.position..][..length].to_vec();
        self.position += length.next_multiple_of(4);
        bytes
    }

    pub fn raw<const N: usize>(&mut self) -> [u8; N] {
        let bytes = self.bytes[self.position..][..N].try_into().unwrap();
        self.position += N;
        bytes
    }

    pub fn attributes(&mut self) -> Attributes {
        Attributes {
            kind: self.int(),
            mode: self.int(),
            links: self.int(),
            uid: self.int(),
            gid: self.int(),
            size: self.long(),
            used: self.long(),
            device: (self.int(), self.int()),
            fsid: self.long(),
            inode: self.long(),
            accessed: (self.int(), self.int()),
            modified: (self.int(), self.int()),
            changed: (self.int(), self.int()),
        }
    }

    pub fn maybe_attributes(&mut self) -> Option<Attributes> {
        (self.int() == 1).then(|| self.attributes())
    }

    pub fn wcc(&mut self) -> Wcc {
        let before = (self.int() == 1).then(|| (self.long(), (self.int(), self.int()), (self.int(), self.int())));
        Wcc {
            before,
            after: self.maybe_attributes(),
        }
    }

    /// All was read.
    pub fn done(self) {
        assert_eq!(self.position, self.bytes.len(), "the results have {} bytes", self.bytes.len());
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    pub kind: u32,
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub used: u64,
    pub device: (u32, u32),
    pub fsid: u64,
    pub inode: u64,
    pub accessed: (u32, u32),
    pub modified: (u32, u32),
    pub changed: (u32, u32),
}

type Time = (u32, u32);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wcc {
    /// Size, modified, changed.
    pub before: Option<(u64, Time, Time)>,
    pub after: Option<Attributes>,
}

/// `sattr3`
#[derive(Debug, Clone, Default)]
pub struct Set {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    /// `Some(None)` is now.
    pub accessed: Option<Option<Time>>,
    pub modified: Option<Option<Time>>,
}

impl Set {
    pub fn mode(mode: u32) -> Self {
        Self {
            mode: Some(mode),
            ..Self::default()
        }
    }

    pub fn size(size: u64) -> Self {
        Self {
            size: Some(size),
            ..Self::default()
        }
    }

    pub fn encode(&self, mut words: Words) -> Words {
        for value in [self.mode, self.uid, self.gid] {
            words = value.map_or(words.clone().int(0), |value| words.int(1).int(value));
        }
        words = self.size.map_or(words.clone().int(0), |size| words.int(1).long(size));
        for time in [self.accessed, self.modified] {
            words = match time {
                None => words.int(0),
                Some(None) => words.int(1),
                Some(Some((seconds, nanoseconds))) => words.int(2).int(seconds).int(nanoseconds),
            };
        }
        words
    }
}

#[derive(Debug, Clone)]
pub struct Listed {
    pub inode: u64,
    pub name: Vec<u8>,
    pub cookie: u64,
    pub attributes: Option<Attributes>,
    pub handle: Option<Handle>,
}

impl Listed {
    pub fn text(self) -> String {
        String::from_utf8(self.name).unwrap()
    }
}

pub struct Client {
    pub stream: TcpStream,
    pub xid: u32,
    /// Uid, gid, groups; none: AUTH_NONE.
    pub user: Option<(u32, u32, Vec<u32>)>,
}

type Outcome<T> = Result<T, u32>;

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self {
            stream,
            xid: 1,
            user: Some((0, 0, Vec::new())),
        }
    }

    pub fn encode(&self, program: u32, version: u32, procedure: u32, arguments: &Words) -> Vec<u8> {
        let words = Words::new().int(self.xid).int(0).int(2).int(program).int(version).int(procedure);
        let words = match &self.user {
            None => words.int(0).int(0),
            Some((uid, gid, groups)) => {
                let body = Words::new().int(5).bytes(b"tester").int(*uid).int(*gid).int(groups.len() as u32);
                let body = groups.iter().fold(body, |body, &group| body.int(group));
                words.int(1).bytes(&body.0)
            }
        };
        words.int(0).int(0).raw(&arguments.0).0
    }

    pub fn send(&mut self, record: &[u8]) {
        let mut bytes = (record.len() as u32 | 1 << 31).to_be_bytes().to_vec();
        bytes.extend(record);
        self.stream.write_all(&bytes).unwrap();
    }

    pub fn receive(&mut self) -> std::io::Result<Vec<u8>> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header)?;
        let header = u32::from_be_bytes(header);
        assert!(header >> 31 == 1, "one fragment");
        let mut record = vec![0; (header & 0x7fff_ffff) as usize];
        self.stream.read_exact(&mut record)?;
        Ok(record)
    }

    /// What follows the header of an accepted reply to `xid`.
    pub fn results(record: Vec<u8>, xid: u32) -> Results {
        let mut results = Results {
            bytes: record,
            position: 0,
        };
        let header: Vec<u32> = (0..6).map(|_| results.int()).collect();
        assert_eq!(header, [xid, 1, 0, 0, 0, 0], "an accepted call that ran");
        results
    }

    pub fn call(&mut self, program: u32, procedure: u32, arguments: Words) -> Results {
        let record = self.encode(program, if program == PORTMAP { 2 } else { 3 }, procedure, &arguments);
        self.send(&record);
        let reply = self.receive().unwrap();
        self.xid += 1;
        Self::results(reply, self.xid - 1)
    }

    pub fn nfs(&mut self, procedure: u32, arguments: Words) -> Results {
        self.call(NFS, procedure, arguments)
    }

    pub fn mount(&mut self, path: &str) -> Outcome<Handle> {
        let mut results = self.call(MOUNT, 1, Words::new().bytes(path.as_bytes()));
        match results.int() {
            0 => {
                let handle = results.bytes();
                assert_eq!((0..3).map(|_| results.int()).collect::<Vec<_>>(), [2, 1, 0]);
                results.done();
                Ok(handle)
            }
            status => Err(status),
        }
    }

    pub fn getattr(&mut self, handle: &[u8]) -> Outcome<Attributes> {
        let mut results = self.nfs(1, Words::new().bytes(handle));
        match results.int() {
            OK => Ok(results.attributes()),
            status => Err(status),
        }
    }

    /// The status and what follows it: `wcc_data`.
    pub fn wcc(&mut self, procedure: u32, arguments: Words) -> (u32, Wcc) {
        let mut results = self.nfs(procedure, arguments);
        let outcome = (results.int(), results.wcc());
        results.done();
        outcome
    }

    pub fn setattr(&mut self, handle: &[u8], set: &Set, guard: Option<Time>) -> (u32, Wcc) {
        let words = set.encode(Words::new().bytes(handle));
        let words = guard.map_or(words.clone().int(0), |(seconds, nanoseconds)| {
            words.int(1).int(seconds).int(nanoseconds)
        });
        self.wcc(2, words)
    }

    pub fn lookup(&mut self, directory: &[u8], name: impl AsRef<[u8]>) -> Outcome<(Handle, Attributes)> {
        let mut results = self.nfs(3, Words::new().entry(directory, name));
        let status = results.int();
        let found = (status == OK).then(|| (results.bytes(), results.maybe_attributes().unwrap()));
        results.maybe_attributes();
        results.done();
        found.ok_or(status)
    }

    pub fn access(&mut self, handle: &[u8], wanted: u32) -> Outcome<u32> {
        let mut results = self.nfs(4, Words::new().bytes(handle).int(wanted));
        let status = results.int();
        results.maybe_attributes();
        if status == OK { Ok(results.int()) } else { Err(status) }
    }

    pub fn readlink(&mut self, handle: &[u8]) -> Outcome<Vec<u8>> {
        let mut results = self.nfs(5, Words::new().bytes(handle));
        let status = results.int();
        results.maybe_attributes();
        if status == OK { Ok(results.bytes()) } else { Err(status) }
    }

    /// The bytes and whether the file ends with them.
    pub fn read(&mut self, handle: &[u8], offset: u64, count: u32) -> Outcome<(Vec<u8>, bool)> {
        let mut results = self.nfs(6, Words::new().bytes(handle).long(offset).int(count));
        let status = results.int();
        results.maybe_attributes();
        if status != OK {
            return Err(status);
        }
        let (count, end, bytes) = (results.int(), results.int() == 1, results.bytes());
        assert_eq!(count as usize, bytes.len());
        results.done();
        Ok((bytes, end))
    }

    /// How it was written, the verifier, and the file's attributes.
    pub fn write(&mut self, handle: &[u8], offset: u64, bytes: &[u8], how: u32) -> Outcome<(u32, [u8; 8], Wcc)> {
        let words = Words::new()
            .bytes(handle)
            .long(offset)
            .int(bytes.len() as u32)
            .int(how)
            .bytes(bytes);
        let mut results = self.nfs(7, words);
        let (status, wcc) = (results.int(), results.wcc());
        if status != OK {
            results.done();
            return Err(status);
        }
        assert_eq!(results.int() as usize, bytes.len());
        let outcome = (results.int(), results.raw(), wcc);
        results.done();
        Ok(outcome)
    }

    /// What CREATE, MKDIR, SYMLINK and MKNOD answer.
    pub fn make(&mut self, procedure: u32, arguments: Words) -> (Outcome<(Handle, Attributes)>, Wcc) {
        let mut results = self.nfs(procedure, arguments);
        let status = results.int();
        let made = (status == OK).then(|| {
            assert_eq!(results.int(), 1);
            (results.bytes(), results.maybe_attributes().unwrap())
        });
        let wcc = results.wcc();
        results.done();
        (made.ok_or(status), wcc)
    }

    pub fn create(&mut self, directory: &[u8], name: impl AsRef<[u8]>, set: &Set) -> Outcome<(Handle, Attributes)> {
        self.make(8, set.encode(Words::new().entry(directory, name).int(0))).0
    }

    pub fn create_guarded(&mut self, directory: &[u8], name: impl AsRef<[u8]>, set: &Set) -> Outcome<(Handle, Attributes)> {
        self.make(8, set.encode(Words::new().entry(directory, name).int(1))).0
    }

    pub fn create_exclusive(&mut self, directory: &[u8], name: impl AsRef<[u8]>, verifier: [u8; 8]) -> Outcome<(Handle, Attributes)> {
        self.make(8, Words::new().entry(directory, name).int(2).raw(&verifier)).0
    }

    pub fn mkdir(&mut self, directory: &[u8], name: impl AsRef<[u8]>, mode: u32) -> Outcome<(Handle, Attributes)> {
        self.make(9, Set::mode(mode).encode(Words::new().entry(directory, name))).0
    }

    pub fn symlink(&mut self, directory: &[u8], name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Outcome<(Handle, Attributes)> {
        self.make(
            10,
            Set::default().encode(Words::new().entry(directory, name)).bytes(target.as_ref()),
        )
        .0
    }

    /// 3: block device, 4: character device, 6: socket, 7: FIFO.
    pub fn mknod(&mut self, directory: &[u8], name: impl AsRef<[u8]>, kind: u32, device: (u32, u32)) -> Outcome<(Handle, Attributes)> {
        let words = Words::new().entry(directory, name).int(kind);
        let words = if matches!(kind, 3 | 4 | 6 | 7) {
            Set::mode(0o644).encode(words)
        } else {
            words
        };
        self.make(11, if kind < 5 { words.int(device.0).int(device.1) } else { words }).0
    }

    pub fn remove(&mut self, directory: &[u8], name: impl AsRef<[u8]>) -> (u32, Wcc) {
        self.wcc(12, Words::new().entry(directory, name))
    }

    pub fn rmdir(&mut self, directory: &[u8], name: impl AsRef<[u8]>) -> (u32, Wcc) {
        self.wcc(13, Words::new().entry(directory, name))
    }

    pub fn rename<N: AsRef<[u8]>>(&mut self, from: (&[u8], N), to: (&[u8], N)) -> (u32, [Wcc; 2]) {
        let mut results = self.nfs(14, Words::new().entry(from.0, from.1).entry(to.0, to.1));
        let outcome = (results.int(), [results.wcc(), results.wcc()]);
        results.done();
        outcome
    }

    pub fn link(&mut self, file: &[u8], directory: &[u8], name: impl AsRef<[u8]>) -> (u32, Option<Attributes>, Wcc) {
        let mut results = self.nfs(15, Words::new().bytes(file).entry(directory, name));
        let outcome = (results.int(), results.maybe_attributes(), results.wcc());
        results.done();
        outcome
    }

    pub fn readdir(&mut self, directory: &[u8], cookie: u64, bytes: u32) -> Outcome<(Vec<Listed>, bool)> {
        self.list(16, Words::new().bytes(directory).long(cookie).long(0).int(bytes), bytes)
    }

    pub fn readdirplus(&mut self, directory: &[u8], cookie: u64, plain: u32, bytes: u32) -> Outcome<(Vec<Listed>, bool)> {
        self.list(17, Words::new().bytes(directory).long(cookie).long(0).int(plain).int(bytes), bytes)
    }

    fn list(&mut self, procedure: u32, arguments: Words, bytes: u32) -> Outcome<(Vec<Listed>, bool)> {
        let mut results = self.nfs(procedure, arguments);
        let status = results.int();
        let start = results.position;
        results.maybe_attributes();
        if status != OK {
            return Err(status);
        }
        results.long();
        let mut entries = Vec::new();
        while results.int() == 1 {
            let (inode, name, cookie) = (results.long(), results.bytes(), results.long());
            let attributes = if procedure == 17 { results.maybe_attributes() } else { None };
            let handle = (procedure == 17 && results.int() == 1).then(|| results.bytes());
            entries.push(Listed {
                inode,
                name,
                cookie,
                attributes,
                handle,
            });
        }
        let end = results.int() == 1;
        assert!(results.position - start <= bytes as usize, "more bytes than asked for");
        results.done();
        Ok((entries, end))
    }

    /// All names, by calls for `bytes` bytes.
    pub fn names(&mut self, directory: &[u8], bytes: u32) -> Vec<String> {
        let (mut names, mut cookie) = (Vec::new(), 0);
        loop {
            let (entries, end) = self.readdirplus(directory, cookie, bytes, bytes).unwrap();
            cookie = entries.last().map_or(cookie, |entry| entry.cookie);
            names.extend(entries.into_iter().map(Listed::text));
            if end {
                return names;
            }
        }
    }

    /// The status, and the verifier if it is OK.
    pub fn commit(&mut self, handle: &[u8]) -> Outcome<[u8; 8]> {
        let mut results = self.nfs(21, Words::new().bytes(handle).long(0).int(0));
        let status = results.int();
        results.wcc();
        if status == OK { Ok(results.raw()) } else { Err(status) }
    }
}
