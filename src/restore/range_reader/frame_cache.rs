//! The decrypted frames that are in memory. The least recently used one goes first.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::base::ids::Hash;

/// A frame: the BLAKE3 of its archive, and its number in it.
pub(super) type FrameKey = (Hash, u32);

struct CachedFrame {
    content: Bytes,
    used: u64,
}

/// Decrypted frames, or their beginnings, up to a number of bytes.
pub(super) struct FrameCache {
    frames: HashMap<FrameKey, CachedFrame>,
    /// By time of their last use, which is a counter.
    by_use: BTreeMap<u64, FrameKey>,
    uses: u64,
    bytes: u64,
    most_bytes: u64,
}

impl FrameCache {
    pub(super) fn new(most_bytes: u64) -> Self {
        Self {
            frames: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            bytes: 0,
            most_bytes,
        }
    }

    /// Returns the frame's content if at least its first `needed` bytes are here.
    pub(super) fn get(&mut self, key: FrameKey, needed: u64) -> Option<Bytes> {
        let found = self.frames.get_mut(&key)?;
        self.by_use.remove(&found.used);
        self.uses += 1;
        found.used = self.uses;
        self.by_use.insert(self.uses, key);
        (found.content.len() as u64 >= needed).then(|| found.content.clone())
    }

    /// Whether at least the first `needed` bytes of the frame are here. That is no use of it.
    pub(super) fn has(&self, key: FrameKey, needed: u64) -> bool {
        let found = self.frames.get(&key);
        found.is_some_and(|found| found.content.len() as u64 >= needed)
    }

    /// Keeps a frame's content, unless more of it is here already.
    pub(super) fn put(&mut self, key: FrameKey, content: &Bytes) {
        if self.has(key, content.len() as u64) {
            return;
        }
        self.remove(key);
        self.uses += 1;
        self.bytes += content.len() as u64;
        self.by_use.insert(self.uses, key);
        let cached = CachedFrame {
            content: content.clone(),
            used: self.uses,
        };
        self.frames.insert(key, cached);
        while self.bytes > self.most_bytes
            && let Some((_, oldest)) = self.by_use.first_key_value()
        {
            self.remove(*oldest);
        }
    }

    fn remove(&mut self, key: FrameKey) {
        if let Some(old) = self.frames.remove(&key) {
            self.by_use.remove(&old.used);
            self.bytes -= old.content.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_frame_goes_first() {
        let mut cache = FrameCache::new(25);
        let key = |number| (Hash([0; 32]), number);
        let content = Bytes::from_static(&[1; 10]);
        cache.put(key(0), &content);
        cache.put(key(1), &content);
        assert!(cache.get(key(0), 10).is_some());
        cache.put(key(2), &content);
        assert!(cache.has(key(0), 10) && !cache.has(key(1), 1) && cache.has(key(2), 10));
        // A beginning does not replace more, and more replaces a beginning.
        cache.put(key(0), &content.slice(..3));
        assert_eq!(cache.get(key(0), 10), Some(content.clone()));
        cache.put(key(3), &content.slice(..3));
        assert_eq!(cache.get(key(3), 4), None);
        cache.put(key(3), &content);
        assert!(cache.has(key(3), 10));
        assert!(cache.bytes <= 25 && cache.frames.len() == cache.by_use.len());
        // What is larger than all memory is not kept.
        cache.put(key(4), &Bytes::from_static(&[1; 26]));
        assert_eq!((cache.bytes, cache.frames.len()), (0, 0));
    }
}
