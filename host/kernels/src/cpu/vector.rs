//! A vector register of float32, for the one loop that is written for each kind of register:
//! the matrix product.

/// A register of `LANES` numbers.
///
/// # Safety
/// Its functions may be called only where the processor has the instructions of the type.
pub(super) trait Vector: Copy {
    const LANES: usize;

    unsafe fn splat(value: f32) -> Self;
    /// Reads `LANES` numbers.
    unsafe fn load(from: *const f32) -> Self;
    /// Reads the first `count` numbers, at most `LANES`; the rest are 0.
    unsafe fn load_part(from: *const f32, count: usize) -> Self;
    /// Writes `LANES` numbers.
    unsafe fn store(self, to: *mut f32);
    /// Writes the first `count` numbers, at most `LANES`.
    unsafe fn store_part(self, to: *mut f32, count: usize);
    /// `self + a b`, rounded once where the processor can.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// 0 where it is negative; what is not a number stays.
    unsafe fn relu(self) -> Self;
}

/// Says that memory will soon be read or written, where the processor can be told; any address
/// will do.
#[inline(always)]
pub(super) fn prefetch(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every processor of the architecture has it, and no address is wrong for it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Vector;

    /// AVX-512.
    #[derive(Clone, Copy)]
    pub(in crate::cpu) struct V16(__m512);

    #[inline(always)]
    fn mask16(count: usize) -> __mmask16 {
        ((1_u32 << count) - 1) as __mmask16
    }

    // SAFETY of the whole block: the trait's callers promise the instructions, and that the
    // memory of the elements named is theirs to read or write; masked ones are not touched.
    impl Vector for V16 {
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see above.
            unsafe { V16(_mm512_set1_ps(value)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see above.
            unsafe { V16(_mm512_loadu_ps(from)) }
        }
        #[inline(always)]
        unsafe fn load_part(from: *const f32, count: usize) -> Self {
            // SAFETY: see above.
            unsafe { V16(_mm512_maskz_loadu_ps(mask16(count), from)) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn store_part(self, to: *mut f32, count: usize) {
            // SAFETY: see above.
            unsafe { _mm512_mask_storeu_ps(to, mask16(count), self.0) }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { V16(_mm512_fmadd_ps(a.0, b.0, self.0)) }
        }
        #[inline(always)]
        unsafe fn relu(self) -> Self {
            // The second operand is given where one is not a number.
            // SAFETY: see above.
            unsafe { V16(_mm512_max_ps(_mm512_setzero_ps(), self.0)) }
        }
    }

    /// AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(in crate::cpu) struct V8(__m256);

    #[inline(always)]
    unsafe fn mask8(count: usize) -> __m256i {
        // SAFETY: see below.
        unsafe {
            let places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), places)
        }
    }

    // SAFETY of the whole block: as for the other.
    impl Vector for V8 {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see above.
            unsafe { V8(_mm256_set1_ps(value)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see above.
            unsafe { V8(_mm256_loadu_ps(from)) }
        }
        #[inline(always)]
        unsafe fn load_part(from: *const f32, count: usize) -> Self {
            // SAFETY: see above.
            unsafe { V8(_mm256_maskload_ps(from, mask8(count))) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see above.
            unsafe { _mm256_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn store_part(self, to: *mut f32, count: usize) {
            // SAFETY: see above.
            unsafe { _mm256_maskstore_ps(to, mask8(count), self.0) }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { V8(_mm256_fmadd_ps(a.0, b.0, self.0)) }
        }
        #[inline(always)]
        unsafe fn relu(self) -> Self {
            // SAFETY: see above.
            unsafe { V8(_mm256_max_ps(_mm256_setzero_ps(), self.0)) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{V8, V16};

/// What every processor has, two registers of four at a time.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 8]);

impl Vector for Portable {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Portable([value; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has eight numbers there, at the alignment of float32.
        unsafe { Portable(from.cast::<[f32; 8]>().read()) }
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; 8];
        for (lane, value) in lanes.iter_mut().enumerate().take(count) {
            // SAFETY: the caller has `count` numbers there.
            *value = unsafe { from.add(lane).read() };
        }
        Portable(lanes)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has room for eight numbers there.
        unsafe { to.cast::<[f32; 8]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        for (lane, value) in self.0.iter().enumerate().take(count) {
            // SAFETY: the caller has room for `count` numbers there.
            unsafe { to.add(lane).write(*value) }
        }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        let mut lanes = self.0;
        for ((sum, a), b) in lanes.iter_mut().zip(a.0).zip(b.0) {
            *sum = super::math::multiply_add::<{ super::level::PORTABLE_FUSED }>(a, b, *sum);
        }
        Portable(lanes)
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Portable(self.0.map(|value| if value < 0.0 { 0.0 } else { value }))
    }
}
