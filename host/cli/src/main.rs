//! The `sandcast` program: one file per subcommand, data on stdout, everything else on stderr.

mod access;
mod arguments;
mod commands;
mod failure;
mod output;
mod progress;
mod state;
mod summary;
mod table;
mod terminal;
mod values;
mod watcher;

use std::{process::ExitCode, thread};

use clap::Parser;

use crate::{
    arguments::Arguments,
    failure::{Exit, Failure},
    output::Output,
};

/// Deep SQL and deep configuration recurse; a build without optimisation has large frames.
const STACK_BYTES: usize = 32 << 20;

fn main() -> ExitCode {
    if let Some(exit) = sandcast_sandbox::process::enter() {
        return exit;
    }
    let arguments = Arguments::parse();
    let output = Output::new(&arguments.global);
    output.install_panic_message();
    output.install_tracing();
    let work = thread::Builder::new()
        .name("sandcast".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let finished = execute(arguments, &output);
            match finished {
                Ok(exit) => exit,
                Err(failure) => output.failure(&failure),
            }
        });
    let exit = match work {
        Ok(thread) => thread.join().unwrap_or(Exit::Unexpected),
        Err(_) => Exit::Unexpected,
    };
    exit.into()
}

fn execute(arguments: Arguments, output: &Output) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("sandcast-worker")
        // A guest at work gives way every 10 ms. Clocks and sockets are looked at each time, not every
        // 61st, or two guests that never end would stop them for most of a second.
        .event_interval(1)
        .global_queue_interval(1)
        .thread_stack_size(STACK_BYTES)
        .build()?;
    let exit = runtime.block_on(commands::execute(arguments, output));
    // A guest may still be on its way to its next epoch; it is not waited for.
    runtime.shutdown_background();
    exit
}
