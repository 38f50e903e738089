//! The applicants of the credit-risk example: ten thousand people in two files of different
//! shape, with the dirt and the bias that the example is about. The same seed gives the same bytes.

mod applicants;
mod philox;
mod silos;

pub use applicants::Applicant;
pub use philox::Draws;
pub use silos::{branch_csv, web_csv};

/// The seed of the committed files.
pub const SEED: u64 = 7;

/// Applicants in `data/branch.csv`, before the dirt.
pub const BRANCH_APPLICANTS: u32 = 6_000;

/// Applicants in `data/web.csv.gz`, before the dirt.
pub const WEB_APPLICANTS: u32 = 4_000;
