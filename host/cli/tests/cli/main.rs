//! The program as those meet it who type its commands and ask its server.

mod access;
mod audit;
mod commands;
mod disk;
mod inspect;
mod plugins;
mod program;
mod service;
