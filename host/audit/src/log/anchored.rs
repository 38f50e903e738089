//! What was signed here last, where it was archived since.

use super::{Folder, Tail};
use crate::archived::{Archived, KeptLines};
use crate::entry::open_line;
use crate::head::Head;
use crate::tiles::read_leaves;
use crate::tree::{Frontier, TreeHash};
use crate::{Digest, Event, small};

impl Folder {
    /// The tail after the entries that were archived, if the one that was signed here last is among
    /// them: their hashes make the tree that was signed, and the tree that the log goes on from.
    pub(super) fn after_archived(&self, signed: &Head) -> Option<Tail> {
        let archived = Archived::of(&self.dir).ok()??;
        let kept = Archived::kept_path(&self.dir, archived.last);
        if Digest::of(&small::read(&kept).ok()?) != archived.kept {
            return None;
        }
        let mut lines = KeptLines::open(kept).ok()?;
        let (mut tree, mut key) = (Frontier::new(), None);
        let mut is_same = false;
        let read = read_leaves(
            &self.dir,
            archived.last,
            1..=archived.last,
            |number, leaf| {
                tree.push(leaf);
                let line = lines.take(number).ok().flatten();
                if let Some(line) = line.filter(|line| TreeHash::leaf(line) == leaf) {
                    let entry = open_line(&line).ok();
                    let event = entry.and_then(|entry| entry.key_event(&line));
                    key = event
                        .as_ref()
                        .and_then(Event::key)
                        .cloned()
                        .or_else(|| key.take());
                }
                if number == signed.sequence {
                    is_same = signed.tree.as_deref() == Some(tree.roots()) && signed.key == key;
                }
            },
        );
        read.ok()?;
        let is_whole = lines.is_used_up() && tree.roots() == archived.tree;
        (is_same && is_whole).then_some(Tail {
            digest: archived.digest,
            start: archived.bytes,
            end: archived.bytes,
            tree,
            key,
        })
    }
}
