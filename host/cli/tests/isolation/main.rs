//! Plugins in processes of their own, which ask the host for what they are granted.
//!
//! Apart from the other tests of the program: here the processes are counted that this one has started,
//! some of them are killed, and times are held to.

mod adapters;
mod apart;
mod connectors;
mod grants;
mod processes;
mod server;
