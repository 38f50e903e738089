//! Columns over the pipe: Arrow's buffers as their bytes.

use std::io;

use arrow::buffer::Buffer;

use super::{Reader, Wire, put_length, unknown};
use crate::columns::lift::{ColumnIn, RawColumnIn, StringsIn, ValuesIn};
use crate::columns::list::{Element, List};
use crate::columns::lower::{ColumnOut, RawColumnOut, StringsOut, ValuesOut};

impl<T: Element> Wire for List<T> {
    fn put(&self, to: &mut Vec<u8>) {
        let bytes = self.as_bytes();
        put_length(bytes.len(), to);
        to.extend_from_slice(bytes);
    }

    fn take(from: &mut Reader<'_>) -> io::Result<Self> {
        let length = from.length(1)?;
        if !length.is_multiple_of(size_of::<T>()) {
            return Err(io::Error::other(format!(
                "{length} bytes are no whole numbers of {} bytes",
                size_of::<T>()
            )));
        }
        // A copy lies as numbers have to.
        let buffer = Buffer::from_slice_ref(from.next(length)?);
        Ok(List::of_bytes(buffer))
    }
}

macro_rules! columns {
    ($($column:ident $values:ident $strings:ident $raw:ident;)*) => { $(
        impl Wire for $strings {
            fn put(&self, to: &mut Vec<u8>) {
                self.offsets.put(to);
                self.bytes.put(to);
            }

            fn take(from: &mut Reader<'_>) -> io::Result<Self> {
                Ok(Self {
                    offsets: Wire::take(from)?,
                    bytes: Wire::take(from)?,
                })
            }
        }

        impl Wire for $values {
            fn put(&self, to: &mut Vec<u8>) {
                match self {
                    Self::Boolean(bits) => {
                        to.push(0);
                        bits.put(to);
                    }
                    Self::Int64(values) => {
                        to.push(1);
                        values.put(to);
                    }
                    Self::Float64(values) => {
                        to.push(2);
                        values.put(to);
                    }
                    Self::Utf8(strings) => {
                        to.push(3);
                        strings.put(to);
                    }
                    Self::Date32(values) => {
                        to.push(4);
                        values.put(to);
                    }
                    Self::TimestampUs(values) => {
                        to.push(5);
                        values.put(to);
                    }
                }
            }

            fn take(from: &mut Reader<'_>) -> io::Result<Self> {
                Ok(match u8::take(from)? {
                    0 => Self::Boolean(Wire::take(from)?),
                    1 => Self::Int64(Wire::take(from)?),
                    2 => Self::Float64(Wire::take(from)?),
                    3 => Self::Utf8(Wire::take(from)?),
                    4 => Self::Date32(Wire::take(from)?),
                    5 => Self::TimestampUs(Wire::take(from)?),
                    other => return Err(unknown(other)),
                })
            }
        }

        impl Wire for $column {
            fn put(&self, to: &mut Vec<u8>) {
                self.rows.put(to);
                self.values.put(to);
                self.validity.put(to);
            }

            fn take(from: &mut Reader<'_>) -> io::Result<Self> {
                Ok(Self {
                    rows: Wire::take(from)?,
                    values: Wire::take(from)?,
                    validity: Wire::take(from)?,
                })
            }
        }

        impl Wire for $raw {
            fn put(&self, to: &mut Vec<u8>) {
                self.kind.put(to);
                self.rows.put(to);
                self.values.put(to);
                self.offsets.put(to);
                self.validity.put(to);
            }

            fn take(from: &mut Reader<'_>) -> io::Result<Self> {
                Ok(Self {
                    kind: Wire::take(from)?,
                    rows: Wire::take(from)?,
                    values: Wire::take(from)?,
                    offsets: Wire::take(from)?,
                    validity: Wire::take(from)?,
                })
            }
        }
    )* };
}

columns! {
    ColumnIn ValuesIn StringsIn RawColumnIn;
    ColumnOut ValuesOut StringsOut RawColumnOut;
}
