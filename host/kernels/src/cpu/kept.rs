//! The keys and values that a generation keeps, in pages of a few positions, so that a short
//! sequence holds little (Kwon et al. 2023). All attentions of a program share the numbers of
//! pages.

use super::memory::{AlignedBuffer, Span};

/// Positions of a page.
pub(crate) const PAGE: usize = 16;

/// What an attention keeps.
#[derive(Debug)]
pub(super) struct Layer {
    /// The value of the attention.
    pub(super) id: u32,
    /// Elements of one page of keys, and of values.
    pub(super) page_elements: usize,
    /// For each page and head [width, positions].
    pub(super) keys: AlignedBuffer,
    /// For each page and head [positions, width].
    pub(super) values: AlignedBuffer,
}

/// Every page of a generation.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pub(super) layers: Vec<Layer>,
    /// Pages that there is memory for.
    count: usize,
    free: Vec<u32>,
}

impl Pages {
    pub(super) fn new(layers: Vec<Layer>) -> Pages {
        Pages {
            layers,
            ..Pages::default()
        }
    }

    /// A page that no sequence has; memory doubles when there is none.
    pub(super) fn take(&mut self) -> u32 {
        if let Some(page) = self.free.pop() {
            return page;
        }
        let count = (2 * self.count).max(8);
        for layer in &mut self.layers {
            layer.keys.reserve(count * layer.page_elements);
            layer.values.reserve(count * layer.page_elements);
        }
        self.free
            .extend((self.count..count).rev().map(|page| page as u32));
        self.count = count;
        // There are more than before, so the first of them is there.
        self.free.pop().unwrap_or(0)
    }

    pub(super) fn give_back(&mut self, pages: &mut Vec<u32>) {
        self.free.append(pages);
    }

    /// The memory of each layer.
    pub(super) fn spans(&mut self) -> Vec<(u32, Span, Span)> {
        let layers = self.layers.iter_mut();
        layers
            .map(|layer| {
                let keys = Span::writable(layer.keys.as_mut_slice());
                (layer.id, keys, Span::writable(layer.values.as_mut_slice()))
            })
            .collect()
    }
}

/// One sequence of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence<'a> {
    /// Positions that are kept already.
    pub(super) length: usize,
    /// Enough for the positions that the run adds, too.
    pub(super) pages: &'a [u32],
}

/// What a run adds to and attends to.
#[derive(Debug)]
pub(crate) struct Kept<'a> {
    pub(super) layers: &'a [(u32, Span, Span)],
    /// In the order of the rows of the run.
    pub(super) sequences: Vec<Sequence<'a>>,
}

impl Kept<'_> {
    /// The keys and values of an attention.
    pub(super) fn layer(&self, id: u32) -> (Span, Span) {
        let found = self.layers.iter().find(|(layer, ..)| *layer == id);
        found.map_or((Span::EMPTY, Span::EMPTY), |(_, keys, values)| {
            (*keys, *values)
        })
    }

    /// Elements of the scores of the longest sequence.
    pub(super) fn scratch(&self) -> usize {
        let pages = self.sequences.iter().map(|sequence| sequence.pages.len());
        pages.max().unwrap_or(0) * PAGE
    }
}
