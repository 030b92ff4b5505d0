//! Snapshots, clones, restores and their ends, and what the model says to each.

use super::model::*;
use super::*;

impl Trial {
    pub fn fresh_name(&mut self, what: &str) -> String {
        self.named += 1;
        format!("{what}-{:04}", self.named)
    }

    pub fn note_taken(&mut self, name: String, info: Option<&snapshots::SnapshotInfo>, path: &[String]) {
        let (line, depth) = self.model.line(path);
        self.taken.push(Taken {
            name,
            lineage: info.map_or(0, |info| info.lineage),
            root: info.map_or(0, |info| info.row.root),
            line,
            is_whole: depth == path.len(),
            thing: self.model.at(path).unwrap().clone(),
            files: self.model.files.clone(),
        });
    }

    pub fn take(&mut self) -> Outcome {
        if self.taken.len() >= SNAPSHOTS_MAX {
            return self.delete_snapshot();
        }
        let any = self.random.chance(4);
        let paths = self.model.paths(|thing| any || matches!(thing, Thing::Root(..)));
        let Some(path) = self.pick(&paths) else { return Ok(()) };
        let name = self.fresh_name("s");
        let info = self.world.store.create_snapshot(&joined(&path), &name, 0);
        let info = self.settled(info);
        if self.wrong == Wrong::CopiedLate {
            let _whatever = self.put_key();
            if self.model.at(&path).is_none() {
                return Ok(());
            }
        }
        self.note_taken(name, info.as_ref(), &path);
        self.did("snapshot")
    }

    pub fn delete_snapshot(&mut self) -> Outcome {
        if self.taken.is_empty() {
            return Ok(());
        }
        let at = self.random.below(self.taken.len() as u64) as usize;
        let (lineage, name) = (self.taken[at].lineage, self.taken[at].name.clone());
        let core = self.world.store.core.clone();
        let deleted = wait(|done| {
            core.committer
                .submit(0, 64 << 10, done, move |tx| snapshots::delete(tx, lineage, &name))
        });
        self.settled(deleted);
        self.taken.remove(at);
        self.did("delete a snapshot")
    }

    pub fn clone_snapshot(&mut self) -> Outcome {
        let (taken, target) = (self.pick(&self.taken.clone()), self.place_for_clone());
        let (Some(taken), Some(target)) = (taken, target) else {
            return Ok(());
        };
        let mut below = Shown::new();
        shown(&taken.thing, &taken.files, "", &mut below);
        let below: Vec<(String, char)> = below
            .into_iter()
            .filter(|(_, (kind, _))| *kind != 'l')
            .map(|(path, (kind, _))| (path, kind))
            .collect();
        let Some((path, kind)) = self.pick(&below) else { return Ok(()) };
        if kind == 'f' && target.len() < 2 {
            return Ok(());
        }
        let mut source = taken.root;
        let mut thing = taken.thing.clone();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            source = self.fs().lookup(source, name.as_bytes())?.inode;
            thing = children(&thing).unwrap()[name].clone();
        }
        self.clone_to(source, &thing, &taken.files, &target)?;
        self.did("clone a snapshot")
    }

    pub fn place_for_clone(&mut self) -> Option<Path> {
        if self.random.chance(3) {
            let name = self.fresh_name("view");
            return Some(vec![name]);
        }
        self.place().filter(|path| self.model.at(path).is_none())
    }

    pub fn clone_live(&mut self) -> Outcome {
        let paths = self.model.paths(|thing| !matches!(thing, Thing::Symlink(_)));
        let (Some(path), Some(target)) = (self.pick(&paths), self.place_for_clone()) else {
            return Ok(());
        };
        let thing = self.model.at(&path).unwrap().clone();
        if is_file(&thing) && target.len() < 2 || target.starts_with(&path) {
            return Ok(());
        }
        let (source, files) = (self.inode(&path)?, self.model.files.clone());
        self.clone_to(source, &thing, &files, &target)?;
        self.did("clone")
    }

    pub fn clone_to(&mut self, source: Inode, thing: &Thing, files: &BTreeMap<u32, Vec<u8>>, target: &[String]) -> Outcome {
        let (name, above) = target.split_last().unwrap();
        let (directory, name) = (self.inode(above)?, name.clone().into_bytes());
        let core = self.world.store.core.clone();
        let cloned = wait(|done| {
            core.committer
                .submit(0, 64 << 10, done, move |tx| snapshots::clone(tx, source, directory, &name))
        });
        self.settled(cloned);
        let copy = self.model.copied(thing, files, true, &mut BTreeMap::new());
        let line = self.model.fresh();
        let root = match copy {
            Thing::Directory(tree) | Thing::Root(_, tree) => Thing::Root(line, tree),
            other => Thing::FileRoot(line, self.model.content(&other).unwrap()),
        };
        self.model.put(target, root);
        Ok(())
    }

    pub fn restore(&mut self) -> Outcome {
        let roots = self.model.paths(|thing| matches!(thing, Thing::Root(..) | Thing::FileRoot(..)));
        let Some(path) = self.pick(&roots) else { return Ok(()) };
        let line = self.model.line(&path).0;
        let of_line: Vec<Taken> = self
            .taken
            .iter()
            .filter(|taken| taken.line == line && taken.is_whole)
            .cloned()
            .collect();
        let Some(taken) = self.pick(&of_line) else { return Ok(()) };
        let undo = self.fresh_name("undo");
        let (above, element) = (self.inode(&path[..path.len() - 1])?, self.inode(&path)?);
        let spelled = if is_file(self.model.at(&path).unwrap()) {
            String::new()
        } else {
            "/".into()
        };
        let place = Place {
            directory: above,
            spelled: format!("{}{spelled}", path.last().unwrap()).into_bytes(),
            element,
        };
        let request = Request {
            name: undo.clone(),
            ..Request::default()
        };
        let (core, name) = (self.world.store.core.clone(), taken.name.clone());
        let restored = wait(|done| {
            core.committer
                .submit(0, 64 << 10, done, move |tx| restore::restore(tx, &place, &name, &request))
        });
        let kept = self.settled(restored).map(|(kept, _)| kept);
        self.note_taken(undo, kept.as_ref(), &path);
        let thing = self.model.copied(&taken.thing, &taken.files, false, &mut BTreeMap::new());
        self.model.put(&path, thing);
        self.did("restore")
    }

    /// A file or a directory below a root, of which a snapshot of the whole line has one of its kind under the same path.
    pub fn restore_part(&mut self) -> Outcome {
        let paths = self
            .model
            .paths(|thing| !matches!(thing, Thing::Symlink(_) | Thing::Root(..) | Thing::FileRoot(..)));
        let Some(path) = self.pick(&paths) else { return Ok(()) };
        let (line, depth) = self.model.line(&path);
        let of_line: Vec<(Taken, Thing)> = self
            .taken
            .iter()
            .filter(|taken| taken.line == line && taken.is_whole)
            .filter_map(|taken| Some((taken.clone(), below(&taken.thing, &path[depth..])?)))
            .filter(|(_, thing)| is_file(thing) == is_file(self.model.at(&path).unwrap()) && !matches!(thing, Thing::Symlink(_)))
            .collect();
        let Some((taken, thing)) = self.pick(&of_line) else { return Ok(()) };
        let undo = self.fresh_name("undo");
        let restored = self.world.store.restore_snapshot(&joined(&path), &taken.name, &undo);
        let kept = self.settled(restored);
        self.note_taken(undo, kept.as_ref(), &path);
        let copy = self.model.copied(&thing, &taken.files, true, &mut BTreeMap::new());
        let line = self.model.fresh();
        let root = match copy {
            Thing::Directory(tree) | Thing::Root(_, tree) => Thing::Root(line, tree),
            other => Thing::FileRoot(line, self.model.content(&other).unwrap()),
        };
        self.model.put(&path, root);
        self.did("restore a part")
    }

    /// Nothing is seen of it.
    pub fn split(&mut self) -> Outcome {
        let roots = self.model.paths(|thing| matches!(thing, Thing::Root(..) | Thing::FileRoot(..)));
        let Some(path) = self.pick(&roots) else { return Ok(()) };
        match self.world.store.split_clone(&joined(&path)) {
            Err(Error::Invalid(_)) => Ok(()),
            split => {
                self.settled(split);
                self.did("split")
            }
        }
    }

    /// A little of what is to be done in the background.
    pub fn work(&mut self) -> Outcome {
        let rows = 1 + self.random.below(6) as usize;
        let worked = self.world.store.core.step_on_snapshots(rows);
        self.settled(worked);
        self.did("work")
    }

    /// Everything below a clone's root, then the root, as a user would.
    pub fn remove_clone(&mut self) -> Outcome {
        let roots = self.model.paths(|thing| matches!(thing, Thing::Root(..)));
        let roots: Vec<Path> = roots
            .into_iter()
            .filter(|path| !VIEWS.contains(&path[0].as_str()) || path.len() > 1)
            .collect();
        let Some(root) = self.pick(&roots) else { return Ok(()) };
        let mut below: Vec<Path> = self
            .model
            .paths(|_| true)
            .into_iter()
            .filter(|path| path.starts_with(&root))
            .collect();
        below.sort_by_key(|path| std::cmp::Reverse(path.len()));
        for path in below {
            self.world.make_room().map_err(|_| Errno::IO)?;
            self.remove_at(&path)?;
        }
        self.did("remove a clone")
    }
}

fn below(thing: &Thing, path: &[String]) -> Option<Thing> {
    let found = path.iter().try_fold(thing, |at, name| children(at)?.get(name));
    found.cloned()
}
