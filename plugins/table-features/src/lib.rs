//! What the columns of a table become in a tensor program: numbers to standardise, categories to
//! look up. Shared by the adapters that learn from tables.

mod counts;
mod moments;
mod table;

pub use counts::{Counts, seconds_or_numbers};
pub use moments::{Moments, Sample, median};
pub use table::{Category, Inputs, Number, Numbers, Options, Table};
