//! Who may do what: principals, their tokens, Cedar policies, and approvals by a second person.
//!
//! [`Gate::demand`] is the one way in: it knows the principal by a token, asks the policies, and
//! writes what came of it to the audit log before anything is done. Principals, tokens and
//! approvals lie in `access.sqlite` in the state folder ([`Store`]); a token is there as a hash only.
//! What evaluates the policies is a [`Judge`]: the first-party Cedar plugin in its sandbox, which this
//! crate does not know.

mod action;
mod approval;
mod budget;
mod gate;
mod policy;
mod principal;
mod store;
#[cfg(test)]
mod testing;
mod token;

pub use action::{Action, ParseActionError, Resource};
pub use approval::{Approval, ApprovalStatus, Subject, Widened};
pub use budget::Budget;
pub use gate::{Gate, GateError, Permit, Refusal};
pub use policy::{
    DEFAULT_POLICIES, Judge, JudgeError, Judging, JudgingOnRecord, Policies, Question, SCHEMA,
    Verdict,
};
pub use principal::{ParsePrincipalError, Principal, PrincipalId, Role, local_user};
pub use store::{
    ACCESS_FOLDER, AccessError, DEFAULT_LIFETIME_DAYS, FourEyes, LONGEST_LIFETIME_DAYS,
    LONGEST_OVERLAP_HOURS, Settings, Store,
};
pub use token::{IssuedToken, Token, TokenId, TokenRecord};
