//! What goes over the pipe between a guest in a process of its own and the host's functions: the
//! contract's values as bytes, numbers little-endian, lists with their length in front.
//!
//! Things that the host holds go as the numbers they have in the host's table. Whatever a process
//! sends is taken as a guest's: lengths are held against the bytes that are there, and what is made
//! of them against a bound, before there is room for it.

use std::io;

use wasmtime::component::Resource;

use super::frame::invalid;

/// A record is its fields, in this order; one that is left out does not compile.
macro_rules! records {
    ($($module:ident::$record:ident { $($field:ident),* })*) => { $(
        impl Wire for $module::$record {
            fn put(&self, to: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $($field.put(to);)*
            }

            fn take(from: &mut Reader<'_>) -> io::Result<Self> {
                $(let $field = Wire::take(from)?;)*
                Ok(Self { $($field),* })
            }
        }
    )* };
}

/// A variant is the number of its case, in this order, and what comes with it.
macro_rules! variants {
    ($($module:ident::$variant:ident { $($case:ident $(($it:ident))?),* })*) => { $(
        impl Wire for $module::$variant {
            fn put(&self, to: &mut Vec<u8>) {
                enum Number { $($case),* }
                match self {
                    $(Self::$case $(($it))? => {
                        to.push(Number::$case as u8);
                        $($it.put(to);)?
                    })*
                }
            }

            fn take(from: &mut Reader<'_>) -> io::Result<Self> {
                enum Number { $($case),* }
                let number = u8::take(from)?;
                $(if number == Number::$case as u8 {
                    $(let $it = Wire::take(from)?;)?
                    return Ok(Self::$case $(($it))?);
                })*
                Err(unknown(number))
            }
        }
    )* };
}

/// Flags are bits, in this order; there are no more than 8.
macro_rules! flags {
    ($($module:ident::$flags:ident { $($flag:ident),* })*) => { $(
        impl Wire for $module::$flags {
            fn put(&self, to: &mut Vec<u8>) {
                let mut bits = 0;
                for (place, flag) in [$(Self::$flag),*].into_iter().enumerate() {
                    bits |= u8::from(self.contains(flag)) << place;
                }
                to.push(bits);
            }

            fn take(from: &mut Reader<'_>) -> io::Result<Self> {
                let mut bits = u8::take(from)?;
                let mut flags = Self::empty();
                for flag in [$(Self::$flag),*] {
                    if bits & 1 == 1 {
                        flags |= flag;
                    }
                    bits >>= 1;
                }
                match bits {
                    0 => Ok(flags),
                    left => Err(unknown(left)),
                }
            }
        }
    )* };
}

mod columns;
mod contract;
mod wasi;

/// A value that goes over the pipe.
pub(crate) trait Wire: Sized {
    fn put(&self, to: &mut Vec<u8>);

    fn take(from: &mut Reader<'_>) -> io::Result<Self>;

    /// Many of them, without their number.
    fn put_all(all: &[Self], to: &mut Vec<u8>) {
        for one in all {
            one.put(to);
        }
    }

    fn take_all(count: usize, from: &mut Reader<'_>) -> io::Result<Vec<Self>> {
        // Each takes a byte at least, so there are no more than bytes.
        let mut all = Vec::with_capacity(count.min(from.bytes.len()));
        for _ in 0..count {
            all.push(Self::take(from)?);
        }
        Ok(all)
    }
}

/// The bytes of a value.
pub(crate) fn bytes_of(value: &impl Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.put(&mut bytes);
    bytes
}

/// The value that some bytes are, all of them.
pub(crate) fn value_of<T: Wire>(bytes: &[u8], room: u64) -> io::Result<T> {
    let mut reader = Reader::new(bytes, room);
    let value = T::take(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// Bytes that values are taken from.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    /// Bytes of memory that lists and texts may still take.
    room: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], room: u64) -> Self {
        Self { bytes, room }
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> io::Result<()> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(invalid(format!("{left} bytes after what was to be said"))),
        }
    }

    /// All that is left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// The next so many bytes.
    pub(crate) fn next(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let Some((next, rest)) = self.bytes.split_at_checked(count) else {
            return Err(invalid("what was said is cut short".to_owned()));
        };
        self.bytes = rest;
        Ok(next)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let next = self.next(N)?.try_into();
        next.map_err(|_| invalid("what was said is cut short".to_owned()))
    }

    /// The length of a list whose elements take so many bytes of memory each.
    pub(crate) fn length(&mut self, each: usize) -> io::Result<usize> {
        let length = u32::from_le_bytes(self.array()?);
        let bytes = u64::from(length).saturating_mul(each as u64);
        let Some(left) = self.room.checked_sub(bytes) else {
            return Err(invalid(format!(
                "a list of {length} takes more room than there is"
            )));
        };
        self.room = left;
        Ok(length as usize)
    }
}

/// The length of a list. One of more than 32 bits does not come out of a guest, and is cut so that it
/// is not understood.
pub(super) fn put_length(length: usize, to: &mut Vec<u8>) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    to.extend_from_slice(&length.to_le_bytes());
}

/// Numbers as their little-endian bytes.
macro_rules! numbers {
    ($($number:ty)*) => { $(
        impl Wire for $number {
            fn put(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut Reader<'_>) -> io::Result<Self> {
                Ok(<$number>::from_le_bytes(from.array()?))
            }

            fn put_all(all: &[Self], to: &mut Vec<u8>) {
                to.reserve(size_of_val(all));
                to.extend(all.iter().flat_map(|one| one.to_le_bytes()));
            }

            fn take_all(count: usize, from: &mut Reader<'_>) -> io::Result<Vec<Self>> {
                const EACH: usize = size_of::<$number>();
                let bytes = from.next(count.saturating_mul(EACH))?;
                let (each, _) = bytes.as_chunks::<EACH>();
                Ok(each.iter().map(|bytes| <$number>::from_le_bytes(*bytes)).collect())
            }
        }
    )* };
}

numbers! { u16 u32 u64 i32 i64 f32 f64 }

impl Wire for u8 {
    fn put(&self, to: &mut Vec<u8>) {
        to.push(*self);
    }

    fn take(from: &mut Reader<'_>) -> io::Result<Self> {
        let [byte] = from.array()?;
        Ok(byte)
    }

    fn put_all(all: &[Self], to: &mut Vec<u8>) {
        to.extend_from_slice(all);
    }

    fn take_all(count: usize, from: &mut Reader<'_>) -> io::Result<Vec<Self>> {
        Ok(from.next(count)?.to_vec())
    }
}

impl Wire for bool {
    fn put(&self, to: &mut Vec<u8>) {
        to.push(u8::from(*self));
    }

    fn take(from: &mut Reader<'_>) -> io::Result<Self> {
        match u8::take(from)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(unknown(other)),
        }
    }
}

impl Wire for () {
    fn put(&self, _: &mut Vec<u8>) {}

    fn take(_: &mut Reader<'_>) -> io::Result<Self> {
        Ok(())
    }
}

impl Wire for String {
    fn put(&self, to: &mut Vec<u8>) {
        put_length(self.len(), to);
        to.extend_from_slice(self.as_bytes());
    }

    fn take(from: &mut Reader<'_>) -> io::Result<Self> {
        let length = from.length(1)?;
        let bytes = from.next(length)?;
        let text = str::from_utf8(bytes).map_err(|error| invalid(error.to_string()))?;
        Ok(text.to_owned())
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, to: &mut Vec<u8>) {
        put_length(self.len(), to);
        T::put_all(self, to);
    }

    fn take(from: &mut Reader<'_>) -> io::Result<Self> {
        let length = from.length(size_of::<T>())?;
        T::take_all(length, from)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, to: &mut Vec<u8>) {
        to.push(u8::from(self.is_some()));
        if let Some(value) = self {
            value.put(to);
        }
    }

    fn take(from: &mut Reader<'_>) -> io::Result<Self> {
        Ok(match bool::take(from)? {
            true => Some(T::take(from)?),
            false => None,
        })
    }
}

impl<T: Wire, E: Wire> Wire for Result<T, E> {
    fn put(&self, to: &mut Vec<u8>) {
        to.push(u8::from(self.is_err()));
        match self {
            Ok(value) => value.put(to),
            Err(error) => error.put(to),
        }
    }

    fn take(from: &mut Reader<'_>) -> io::Result<Self> {
        Ok(match bool::take(from)? {
            false => Ok(T::take(from)?),
            true => Err(E::take(from)?),
        })
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, to: &mut Vec<u8>) {
        self.0.put(to);
        self.1.put(to);
    }

    fn take(from: &mut Reader<'_>) -> io::Result<Self> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

impl<A: Wire, B: Wire, C: Wire> Wire for (A, B, C) {
    fn put(&self, to: &mut Vec<u8>) {
        self.0.put(to);
        self.1.put(to);
        self.2.put(to);
    }

    fn take(from: &mut Reader<'_>) -> io::Result<Self> {
        Ok((A::take(from)?, B::take(from)?, C::take(from)?))
    }
}

/// The number of a thing in the host's table, which knows what is there under it.
impl<T: 'static> Wire for Resource<T> {
    fn put(&self, to: &mut Vec<u8>) {
        self.rep().put(to);
    }

    fn take(from: &mut Reader<'_>) -> io::Result<Self> {
        Ok(Resource::new_own(u32::take(from)?))
    }
}

fn unknown(case: u8) -> io::Error {
    invalid(format!("a case {case}, which there is not"))
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;
    use crate::bindings::adapter::sandcast::plugin::compute;

    fn goes_over<T: Wire + Debug>(value: &T) {
        let bytes = bytes_of(value);
        let back: T = value_of(&bytes, 1 << 20).expect("it comes out");
        assert_eq!(format!("{value:?}"), format!("{back:?}"));
        for cut in 0..bytes.len() {
            value_of::<T>(&bytes[..cut], 1 << 20).expect_err("it is cut");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        value_of::<T>(&longer, 1 << 20).expect_err("something is left");
    }

    #[test]
    fn values_come_out_as_they_went_in() {
        goes_over(&vec![1.5_f32, f32::MIN, -0.0]);
        goes_over(&(7_u64, "ä\n".to_owned(), vec![true, false]));
        goes_over(&Some(Ok::<_, String>(vec![Some(i64::MIN), None])));
        goes_over(&compute::Node::Convolution(compute::ConvolutionNode {
            operand: 1,
            kernel: 2,
            strides: vec![1, 2],
            padding: vec![compute::Padding {
                before: 1,
                after: 0,
            }],
            dilation: vec![1],
            groups: 3,
            transposed: true,
        }));
        goes_over(&compute::Schedule::Constant);
        let nan = bytes_of(&f64::NAN);
        assert!(value_of::<f64>(&nan, 0).expect("a number").is_nan());
    }

    #[test]
    fn a_list_that_takes_more_room_than_there_is_is_not_made() {
        let bytes = bytes_of(&vec![compute::Node::Input(compute::Input {
            name: "x".into(),
            dtype: compute::Dtype::Int32,
            shape: Vec::new(),
        })]);
        let over = value_of::<Vec<compute::Node>>(&bytes, 8).expect_err("no room");
        assert!(over.to_string().contains("more room"), "{over}");
        // A length that nobody means takes no memory.
        let lie = bytes_of(&u32::MAX);
        for over in [
            value_of::<Vec<u64>>(&lie, u64::MAX).map(|_| ()),
            value_of::<Vec<String>>(&lie, u64::MAX).map(|_| ()),
            value_of::<String>(&lie, u64::MAX).map(|_| ()),
        ] {
            over.expect_err("a lie");
        }
        value_of::<bool>(&[2], 0).expect_err("neither");
        value_of::<compute::Dtype>(&[2], 0).expect_err("no such case");
        value_of::<String>(&[1, 0, 0, 0, 0xff], 8).expect_err("not UTF-8");
    }
}
