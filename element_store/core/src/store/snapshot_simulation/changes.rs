//! Random changes by files and by keys, and what the model says to each.

use super::model::*;
use super::*;

impl Trial {
    pub fn put_key(&mut self) -> Outcome {
        let (Some(path), bytes) = (self.place(), self.bytes()) else {
            return Ok(());
        };
        if path.len() < 2 || self.model.at(&path).is_some_and(|thing| !is_file(thing)) {
            return Ok(());
        }
        let put = put(&self.world.store, &path[0], &joined(&path[1..]), &bytes);
        self.settled(put);
        let id = self.model.fresh();
        self.model.files.insert(id, bytes);
        self.model.put(&path, Thing::File(id));
        self.did("put")
    }

    pub fn delete_key(&mut self) -> Outcome {
        let Some(path) = self.file() else { return Ok(()) };
        let (store, removal) = (
            self.world.store.clone(),
            Removal {
                key: joined(&path[1..]),
                ..Removal::default()
            },
        );
        let deleted = wait(|done| store.delete(&path[0], removal, Versioning::Off, done));
        assert!(self.settled(deleted).is_none_or(|deletion| deletion.existed));
        self.model.take(&path);
        self.did("delete")
    }

    /// From a view, a snapshot's bucket or a clone to a key.
    pub fn copy_key(&mut self) -> Outcome {
        let views: Vec<Taken> = self.taken.iter().filter(|taken| self.bucket_of(taken).is_some()).cloned().collect();
        let (Some(taken), Some(target)) = (self.pick(&views), self.place()) else {
            return Ok(());
        };
        let Some(bucket) = self.bucket_of(&taken) else { return Ok(()) };
        if target.len() < 2 || self.model.at(&target).is_some_and(|thing| !is_file(thing)) {
            return Ok(());
        }
        let alias = format!("{bucket}{}{}", snapshots::ALIAS, taken.name);
        let mut all = Shown::new();
        shown(&taken.thing, &taken.files, "", &mut all);
        let files: Vec<(String, Vec<u8>)> = all
            .into_iter()
            .filter(|(_, (kind, _))| *kind == 'f')
            .map(|(path, (_, bytes))| (path, bytes))
            .collect();
        let Some((path, bytes)) = self.pick(&files) else { return Ok(()) };
        let store = self.world.store.clone();
        let source = store.open_content(&alias, &path.as_bytes()[1..], None).unwrap();
        assert_eq!(source.read(0, source.element.row.size).unwrap(), bytes, "{alias}{path}");
        let digests = digest::digests(&["md5".to_owned()], &bytes).unwrap();
        let copied = store.copy(
            &source,
            &target[0],
            &joined(&target[1..]),
            Attributes::default(),
            digests,
            Terms::default(),
        );
        self.settled(copied);
        let id = self.model.fresh();
        self.model.files.insert(id, bytes);
        self.model.put(&target, Thing::File(id));
        self.did("copy out of a snapshot")
    }

    /// The bucket by which S3 names a snapshot of a whole view.
    pub fn bucket_of(&self, taken: &Taken) -> Option<String> {
        let views = self.model.tree.iter();
        let mut of_line = views.filter(|(_, thing)| matches!(thing, Thing::Root(line, _) if *line == taken.line && taken.is_whole));
        of_line.next().map(|(name, _)| name.clone())
    }

    pub fn create(&mut self) -> Outcome {
        let Some(path) = self.place().filter(|path| self.model.at(path).is_none()) else {
            return Ok(());
        };
        let (name, above) = path.split_last().unwrap();
        let directory = self.inode(above)?;
        let (new, thing) = match self.random.below(5) {
            0 => (New::File, None),
            1 => (New::Symlink(b"there"), Some(Thing::Symlink("there".into()))),
            _ => (New::Directory, Some(Thing::Directory(Tree::new()))),
        };
        self.fs().create(directory, name.as_bytes(), new, 0o755, OWNER)?;
        let thing = thing.unwrap_or_else(|| {
            let id = self.model.fresh();
            self.model.files.insert(id, Vec::new());
            Thing::File(id)
        });
        self.model.put(&path, thing);
        self.did("create")
    }

    pub fn write(&mut self) -> Outcome {
        let (Some(path), bytes) = (self.file(), self.bytes()) else {
            return Ok(());
        };
        let mut content = self.model.content(self.model.at(&path).unwrap()).unwrap();
        let offset = self.random.below(content.len() as u64 + 5000);
        self.fs().write(self.inode(&path)?, offset, &bytes, false)?;
        if !bytes.is_empty() {
            let (offset, end) = (offset as usize, offset as usize + bytes.len());
            content.resize(content.len().max(end), 0);
            content[offset..end].copy_from_slice(&bytes);
        }
        self.model.set_content(&path, content);
        self.did("write")
    }

    pub fn truncate(&mut self) -> Outcome {
        let Some(path) = self.file() else { return Ok(()) };
        let mut content = self.model.content(self.model.at(&path).unwrap()).unwrap();
        let size = self.random.below(content.len() as u64 * 2 + 10);
        let changes = Changes {
            size: Some(size),
            ..Changes::default()
        };
        self.fs().change(self.inode(&path)?, &changes)?;
        content.resize(size as usize, 0);
        self.model.set_content(&path, content);
        self.did("truncate")
    }

    pub fn punch(&mut self) -> Outcome {
        let Some(path) = self.file() else { return Ok(()) };
        let mut content = self.model.content(self.model.at(&path).unwrap()).unwrap();
        let offset = self.random.below(content.len() as u64 + 1);
        let length = 1 + self.random.below(20_000);
        self.fs().allocate(self.inode(&path)?, Allocation::Punch, offset, length)?;
        let end = content.len().min((offset + length) as usize);
        content[offset as usize..end].fill(0);
        self.model.set_content(&path, content);
        self.did("punch")
    }

    pub fn remove(&mut self) -> Outcome {
        let paths = self.model.paths(|thing| children(thing).is_none_or(Tree::is_empty));
        let Some(path) = self.pick(&paths).filter(|path| path.len() > 1) else {
            return Ok(());
        };
        self.remove_at(&path)?;
        self.did("remove")
    }

    pub fn remove_at(&mut self, path: &[String]) -> Outcome {
        let (name, above) = path.split_last().unwrap();
        let directory = self.inode(above)?;
        match children(self.model.at(path).unwrap()) {
            Some(_) => self.fs().remove_directory(directory, name.as_bytes())?,
            None => self.fs().unlink(directory, name.as_bytes())?,
        }
        self.model.take(path);
        Ok(())
    }

    pub fn rename(&mut self) -> Outcome {
        let paths = self.model.paths(|_| true);
        let (Some(from), Some(to)) = (self.pick(&paths), self.place()) else {
            return Ok(());
        };
        if from.len() < 2 || to.len() < 2 || self.model.at(&to).is_some() || to.starts_with(&from) {
            return Ok(());
        }
        let (name, above) = from.split_last().unwrap();
        let (new_name, new_above) = to.split_last().unwrap();
        let (source, target) = (self.inode(above)?, self.inode(new_above)?);
        let renamed = self
            .fs()
            .rename((source, name.as_bytes()), (target, new_name.as_bytes()), Replace::No);
        if self.model.line(above) != self.model.line(new_above)
            || above[..self.model.line(above).1] != new_above[..self.model.line(new_above).1]
        {
            assert_eq!(renamed, Err(Errno::XDEV));
            return Ok(());
        }
        renamed?;
        let thing = self.model.take(&from);
        self.model.put(&to, thing);
        self.did("rename")
    }

    pub fn link(&mut self) -> Outcome {
        let (Some(from), Some(to)) = (self.file(), self.place()) else {
            return Ok(());
        };
        if self.model.at(&to).is_some() || to.len() < 2 {
            return Ok(());
        }
        let (name, above) = to.split_last().unwrap();
        let (inode, directory) = (self.inode(&from)?, self.inode(above)?);
        let linked = self.fs().link(inode, directory, name.as_bytes());
        let (from_root, to_root) = (self.model.line(&from), self.model.line(above));
        if from[..from_root.1] != above[..to_root.1] {
            assert_eq!(linked, Err(Errno::XDEV));
            return Ok(());
        }
        linked?;
        let thing = self.model.at(&from).unwrap().clone();
        self.model.put(&to, thing);
        self.did("link")
    }

    pub fn copy(&mut self) -> Outcome {
        let (Some(from), Some(to)) = (self.file(), self.file()) else {
            return Ok(());
        };
        let content = |path: &Path| self.model.content(self.model.at(path).unwrap()).unwrap();
        let (source, mut target) = (content(&from), content(&to));
        let (inode, other) = (self.inode(&from)?, self.inode(&to)?);
        if inode == other || source.is_empty() {
            return Ok(());
        }
        let start = self.random.below(source.len() as u64);
        let offset = self.random.below(target.len() as u64 + 1) as usize;
        let length = self.fs().copy((inode, start), (other, offset as u64), source.len() as u64)? as usize;
        let piece = &source[start as usize..];
        assert_eq!(length, piece.len());
        target.resize(target.len().max(offset + length), 0);
        target[offset..offset + length].copy_from_slice(piece);
        self.model.set_content(&to, target);
        self.did("copy")
    }
}
