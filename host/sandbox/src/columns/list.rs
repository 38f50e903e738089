//! A `list<T>` of the contract that is an Arrow buffer on the host's side: one copy each way.
//!
//! Bindgen lowers a list from a `Vec`, so a column would be copied twice: out of Arrow's buffer
//! into a `Vec`, and from there into the guest. [`List`] holds Arrow's buffer itself. Wasmtime's
//! conversion traits are unsafe to implement, and this is the one place that does.

#![expect(unsafe_code, reason = "wasmtime's Lower and Lift are unsafe traits")]

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::datatypes::ArrowNativeType;
use wasmtime::ValRaw;
use wasmtime::component::__internal::{
    CanonicalAbiInfo, InstanceType, InterfaceType, LiftContext, LowerContext,
};
use wasmtime::component::{ComponentType, Lift, Lower};

#[cfg(target_endian = "big")]
compile_error!("columns are passed as Arrow's own bytes, which the contract wants little-endian");

/// The numbers a [`List`] can hold: those whose bytes are the same in Arrow and in the contract.
pub(crate) trait Element: ArrowNativeType + ComponentType + Lower + Lift {}

impl Element for u8 {}
impl Element for i32 {}
impl Element for i64 {}
impl Element for f32 {}
impl Element for f64 {}

/// A list of numbers in Arrow's buffer.
#[derive(Clone, Debug)]
pub(crate) struct List<T> {
    buffer: Buffer,
    element: PhantomData<T>,
}

impl<T: Element> List<T> {
    /// The numbers of a buffer, without a copy.
    pub(crate) fn of(values: &ScalarBuffer<T>) -> Self {
        Self {
            buffer: values.inner().clone(),
            element: PhantomData,
        }
    }

    /// The numbers in some bytes; what is left over at the end is not part of the list.
    pub(crate) fn of_bytes(buffer: Buffer) -> Self {
        Self {
            buffer,
            element: PhantomData,
        }
    }

    /// How many numbers there are.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len() / size_of::<T>()
    }

    /// The bytes of the numbers.
    pub(crate) fn bytes(&self) -> usize {
        self.len() * size_of::<T>()
    }

    /// The bytes of the numbers.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.buffer.as_slice()[..self.bytes()]
    }

    /// The buffer, without a copy.
    pub(crate) fn into_buffer(self) -> Buffer {
        self.buffer
    }

    /// The numbers, without a copy.
    pub(crate) fn into_scalars(self) -> ScalarBuffer<T> {
        let len = self.len();
        ScalarBuffer::new(self.buffer, 0, len)
    }

    /// Copies the numbers into memory that the guest allocates, and says where.
    fn store<U>(&self, cx: &mut LowerContext<'_, U>) -> wasmtime::Result<usize> {
        let bytes = self.bytes();
        let pointer = cx.realloc(0, 0, T::ALIGN32, bytes)?;
        // `realloc` has checked that the range lies in the guest's memory, and the slice checks
        // it again.
        cx.as_slice_mut()[pointer..][..bytes].copy_from_slice(&self.buffer.as_slice()[..bytes]);
        Ok(pointer)
    }

    /// Copies `len` numbers at `pointer` out of the guest's memory.
    fn load(cx: &mut LiftContext<'_>, pointer: u32, len: u32) -> wasmtime::Result<Self> {
        let pointer = pointer as usize;
        let len = len as usize;
        if !pointer.is_multiple_of(T::ALIGN32 as usize) {
            return Err(wasmtime::Error::msg(
                "a list is not aligned in the guest's memory",
            ));
        }
        cx.consume_fuel_array(len, size_of::<T>())?;
        let bytes = len
            .checked_mul(size_of::<T>())
            .and_then(|bytes| cx.memory().get(pointer..)?.get(..bytes))
            .ok_or_else(|| wasmtime::Error::msg("a list lies outside the guest's memory"))?;
        Ok(Self::of_bytes(Buffer::from_slice_ref(bytes)))
    }
}

// SAFETY: the type is checked and laid out exactly as wasmtime's own `[T]`, to which both are
// delegated, and `Lower` is the same type.
unsafe impl<T: Element> ComponentType for List<T> {
    type Lower = <[T] as ComponentType>::Lower;

    const ABI: CanonicalAbiInfo = <[T] as ComponentType>::ABI;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> wasmtime::Result<()> {
        <[T] as ComponentType>::typecheck(ty, types)
    }
}

// SAFETY: `dst` is written in full on every path that returns `Ok`, with a pointer and a length
// that `realloc` has checked, as the canonical ABI lays a list out: in flat form two 64-bit
// slots, which is how wasmtime's own lists fill them; in memory two 32-bit words, since 64-bit
// memories are off. The bytes behind the pointer are `len` numbers whose little-endian bytes are
// the host's own, and every bit pattern is a valid number.
unsafe impl<T: Element> Lower for List<T> {
    fn linear_lower_to_flat<U>(
        &self,
        cx: &mut LowerContext<'_, U>,
        _ty: InterfaceType,
        dst: &mut MaybeUninit<Self::Lower>,
    ) -> wasmtime::Result<()> {
        let pointer = self.store(cx)?;
        dst.write([ValRaw::i64(pointer as i64), ValRaw::i64(self.len() as i64)]);
        Ok(())
    }

    fn linear_lower_to_memory<U>(
        &self,
        cx: &mut LowerContext<'_, U>,
        _ty: InterfaceType,
        offset: usize,
    ) -> wasmtime::Result<()> {
        let pointer = u32::try_from(self.store(cx)?)?;
        *cx.get(offset) = pointer.to_le_bytes();
        *cx.get(offset + 4) = u32::try_from(self.len())?.to_le_bytes();
        Ok(())
    }
}

// SAFETY: pointer and length are checked against the guest's memory before anything is read, and
// charged to the call's fuel before anything is allocated; every bit pattern is a valid number.
unsafe impl<T: Element> Lift for List<T> {
    fn linear_lift_from_flat(
        cx: &mut LiftContext<'_>,
        _ty: InterfaceType,
        src: &Self::Lower,
    ) -> wasmtime::Result<Self> {
        Self::load(cx, src[0].get_u32(), src[1].get_u32())
    }

    fn linear_lift_from_memory(
        cx: &mut LiftContext<'_>,
        _ty: InterfaceType,
        bytes: &[u8],
    ) -> wasmtime::Result<Self> {
        let word = |at: usize| {
            bytes
                .get(at..at + 4)
                .and_then(|word| word.try_into().ok())
                .map(u32::from_le_bytes)
                .ok_or_else(|| wasmtime::Error::msg("a list's pointer and length are cut short"))
        };
        let (pointer, len) = (word(0)?, word(4)?);
        Self::load(cx, pointer, len)
    }
}
