//! Columns: building them, looking at them, putting them together.
//!
//! ```
//! use sandcast_sdk::Kind;
//! use sandcast_sdk::columns::ColumnBuilder;
//!
//! let mut builder = ColumnBuilder::new(Kind::Utf8);
//! if let ColumnBuilder::Utf8(strings) = &mut builder {
//!     strings.push("amber");
//!     strings.push_null();
//! }
//! let column = builder.finish();
//! let strings = column.utf8().expect("a column of strings");
//! assert_eq!(strings.get(0), Some("amber"));
//! assert_eq!(strings.get(1), None);
//! assert_eq!(column.null_count(), 1);
//! ```

mod build;
mod rows;
mod view;

pub use build::{BooleanBuilder, ColumnBuilder, PrimitiveBuilder, StringBuilder};
pub use rows::{Rows, field};
pub use view::{BooleanView, PrimitiveView, StringView, Validity};
