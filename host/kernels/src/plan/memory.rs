//! Places in the slab: a buffer lives from the instruction that writes it to the last one that
//! reads it, and what is free is given out best fit first.

use std::collections::BTreeMap;

use super::aligned;

/// Free stretches of a slab that grows when nothing fits.
#[derive(Debug, Default)]
pub(super) struct Slab {
    /// Offset to length.
    free: BTreeMap<usize, usize>,
    size: usize,
}

impl Slab {
    /// The largest size that was needed.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Gives out a stretch.
    pub(super) fn take(&mut self, elements: usize) -> usize {
        let length = aligned(elements);
        if length == 0 {
            return 0;
        }
        let best = self
            .free
            .iter()
            .filter(|(_, free)| **free >= length)
            .min_by_key(|(_, free)| **free);
        if let Some((offset, free)) = best.map(|(offset, free)| (*offset, *free)) {
            self.free.remove(&offset);
            if free > length {
                self.free.insert(offset + length, free - length);
            }
            return offset;
        }
        // A free stretch at the end grows.
        let offset = match self.free.last_key_value() {
            Some((offset, free)) if offset + free == self.size => *offset,
            _ => self.size,
        };
        self.free.remove(&offset);
        self.size = offset + length;
        offset
    }

    /// Takes a stretch back.
    pub(super) fn give_back(&mut self, offset: usize, elements: usize) {
        let mut length = aligned(elements);
        if length == 0 {
            return;
        }
        let mut offset = offset;
        if let Some(next) = self.free.remove(&(offset + length)) {
            length += next;
        }
        if let Some((before, free)) = self.free.range(..offset).next_back()
            && before + free == offset
        {
            offset = *before;
            length += free;
        }
        self.free.insert(offset, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_reused_and_joined() {
        let mut slab = Slab::default();
        let places = [slab.take(16), slab.take(20), slab.take(1)];
        assert_eq!(places, [0, 16, 48]);
        slab.give_back(16, 20);
        slab.give_back(0, 16);
        assert_eq!(slab.take(48), 0);
        assert_eq!(slab.size(), 64);
        slab.give_back(48, 1);
        assert_eq!(slab.take(32), 48);
        assert_eq!(slab.size(), 80);
        assert_eq!(slab.take(0), 0);
    }
}
