//! What crosses crates, with the real guests: whole lines, and every grant as a guest meets it.

mod adult;
mod bench;
mod blob;
mod full;
mod grants;
mod http;
mod insider;
mod postgres;
mod replay;
mod sql;
mod state;
mod unsupervised;
