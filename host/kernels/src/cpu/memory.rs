//! The memory of a run: regions, and the slab that is used again by later runs.

use super::kept::Kept;
use crate::plan::{ALIGNMENT, Place, Region};

/// Float32 numbers at an address that is a multiple of 64 bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct AlignedBuffer {
    lines: Vec<Line>,
}

#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
struct Line([f32; ALIGNMENT]);

impl AlignedBuffer {
    pub(crate) fn zeroed(elements: usize) -> AlignedBuffer {
        AlignedBuffer {
            lines: vec![Line([0.0; ALIGNMENT]); elements.div_ceil(ALIGNMENT)],
        }
    }

    /// Makes room for as many numbers; what was there may stay or not.
    pub(crate) fn reserve(&mut self, elements: usize) {
        let lines = elements.div_ceil(ALIGNMENT);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0.0; ALIGNMENT]));
        }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: a line is so many numbers without gaps.
        unsafe {
            std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * ALIGNMENT)
        }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.lines.as_mut_ptr().cast(),
                self.lines.len() * ALIGNMENT,
            )
        }
    }
}

/// A stretch of memory that a run may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    start: *mut f32,
    elements: usize,
}

// SAFETY: a span is only an address. Whoever makes a `Memory` of spans promises that what they
// name outlives it and that runs which share a span only read it.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    pub(crate) const EMPTY: Span = Span {
        start: std::ptr::NonNull::dangling().as_ptr(),
        elements: 0,
    };

    /// A span to be read only.
    pub(crate) fn read_only(values: &[f32]) -> Span {
        Span {
            start: values.as_ptr().cast_mut(),
            elements: values.len(),
        }
    }

    /// A span of int32 to be read only.
    pub(crate) fn read_only_int(values: &[i32]) -> Span {
        Span {
            start: values.as_ptr().cast::<f32>().cast_mut(),
            elements: values.len(),
        }
    }

    pub(crate) fn writable(values: &mut [f32]) -> Span {
        Span {
            start: values.as_mut_ptr(),
            elements: values.len(),
        }
    }

    /// A span of int32 or other four-byte values.
    pub(crate) fn writable_int(values: &mut [i32]) -> Span {
        Span {
            start: values.as_mut_ptr().cast(),
            elements: values.len(),
        }
    }

    pub(crate) fn elements(self) -> usize {
        self.elements
    }

    /// # Safety
    /// What the span names is alive, and nothing writes it while the slice is.
    pub(crate) unsafe fn slice<'a>(self) -> &'a [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start, self.elements) }
    }

    /// # Safety
    /// What the span names is alive and may be written, and nothing else reads or writes it
    /// while the slice is.
    pub(crate) unsafe fn slice_mut<'a>(self) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.elements) }
    }

    /// The part from `offset` on, of so many elements.
    pub(crate) fn part(self, offset: usize, elements: usize) -> Span {
        if elements == 0 {
            // Nothing may begin anywhere.
            return Span::EMPTY;
        }
        assert!(
            offset <= self.elements && elements <= self.elements - offset,
            "part outside a span"
        );
        // SAFETY: the offset was compared with the length.
        let start = unsafe { self.start.add(offset) };
        Span { start, elements }
    }
}

/// The regions of one run.
#[derive(Debug)]
pub(crate) struct Memory<'a> {
    pub(crate) slab: Span,
    pub(crate) shared: Span,
    pub(crate) weights: Span,
    pub(crate) literals: Span,
    pub(crate) gradients: Span,
    pub(crate) inputs: &'a [Span],
    pub(crate) outputs: &'a [Span],
    /// Room for the registers of map programs.
    pub(crate) registers: Span,
    /// Room for what a kernel needs beside its operands.
    pub(crate) scratch: Span,
    /// The keys and values of a generation, to be added to and attended to.
    pub(crate) kept: Option<&'a Kept<'a>>,
}

impl Memory<'_> {
    /// The address of a place that has so many elements.
    pub(crate) fn at(&self, place: Place, elements: usize) -> *mut f32 {
        let span = match place.region {
            Region::Slab => self.slab,
            Region::Shared => self.shared,
            Region::Weights => self.weights,
            Region::Literals => self.literals,
            Region::Gradients => self.gradients,
            Region::Input(index) => self.inputs[index as usize],
            Region::Output(index) => self.outputs[index as usize],
        };
        span.part(place.offset, elements).start
    }

    /// The address of a register block.
    pub(crate) fn register(&self, register: u16, elements: usize) -> *mut f32 {
        self.registers
            .part(register as usize * super::map::BLOCK, elements)
            .start
    }

    /// Numbers to read.
    ///
    /// # Safety
    /// Nothing writes them while they are read: they lie in a region that only this run writes,
    /// or that no run writes, and the plan does not give them to the same instruction to write.
    pub(crate) unsafe fn read(&self, place: Place, elements: usize) -> &[f32] {
        let start = self.at(place, elements);
        // SAFETY: inside the span, and the caller's promise.
        unsafe { std::slice::from_raw_parts(start, elements) }
    }

    /// Int32 numbers to read.
    ///
    /// # Safety
    /// As [`Memory::read`].
    pub(crate) unsafe fn read_int(&self, place: Place, elements: usize) -> &[i32] {
        let start = self.at(place, elements);
        // SAFETY: as above; both types are four bytes and take any bits.
        unsafe { std::slice::from_raw_parts(start.cast::<i32>(), elements) }
    }

    /// Numbers to write.
    ///
    /// # Safety
    /// Nothing else reads or writes them meanwhile.
    #[expect(
        clippy::mut_from_ref,
        reason = "a run writes through its shared description"
    )]
    pub(crate) unsafe fn write(&self, place: Place, elements: usize) -> &mut [f32] {
        let start = self.at(place, elements);
        // SAFETY: inside the span, and the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(start, elements) }
    }

    /// Int32 numbers to write.
    ///
    /// # Safety
    /// As [`Memory::write`].
    #[expect(
        clippy::mut_from_ref,
        reason = "a run writes through its shared description"
    )]
    pub(crate) unsafe fn write_int(&self, place: Place, elements: usize) -> &mut [i32] {
        let start = self.at(place, elements);
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(start.cast::<i32>(), elements) }
    }
}
