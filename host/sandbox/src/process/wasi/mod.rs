//! Interfaces of WASI for guests in processes of their own: streams and what is waited for, what a standard
//! library prints, folders, requests.
//!
//! Each function is named once, by its name in the interface, with what answers it in the host; from that
//! follow the link to the pipe, in the process, and the answer. What answers is what a guest in the engine
//! calls, on the same state. The process has the numbers of streams, folders and requests and nothing of
//! them; waiting is done in the host, bounded by the guest's time as it is in the engine.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::cli::WasiCliView as _;
use wasmtime_wasi::p2::bindings::cli::{stderr, stdin, stdout};
use wasmtime_wasi::p2::bindings::io::{error, poll, streams};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, StreamResult};

use super::away;
use super::functions::Halt;
use super::wire::{Reader, Wire};
use crate::grants::noise::ErrorsView;
use crate::state::State;

/// The functions of interfaces, and the things that they are about: what lets go of one has no answer.
macro_rules! interfaces {
    (
        $answer:ident, $link:ident |$state:ident|
        $(interface $interface:literal {
            $(thing $resource:literal as $dropped:literal ($number:ident: $thing:ty) $dropping:block)*
            $(fn $path:literal ($($argument:ident: $type:ty),*) $(-> $said:ty)? $doing:block)*
        })*
    ) => {
        /// Answers a guest in another process; not at all where the function is another's.
        pub(in crate::process) async fn $answer(
            $state: &mut State,
            name: &str,
            from: &mut Reader<'_>,
            to: &mut Vec<u8>,
        ) -> Result<bool, Halt> {
            match name {
                $(
                    $($dropped => {
                        let $number: Resource<$thing> = Wire::take(from)?;
                        from.end()?;
                        $dropping
                    })*
                    $($path => {
                        $(let $argument: $type = Wire::take(from)?;)*
                        from.end()?;
                        let said: interfaces!(@type $($said)?) = $doing;
                        said.put(to);
                    })*
                )*
                _ => return Ok(false),
            }
            Ok(true)
        }

        /// Links them to the pipe.
        pub(in crate::process) fn $link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
            $(
                let mut interface = linker.instance($interface)?;
                $(interface.resource(
                    $resource,
                    ResourceType::host::<$thing>(),
                    |mut store, number| away::let_go(store.data_mut(), $dropped, number),
                )?;)*
                $(interface.func_wrap(
                    $path,
                    |mut store: StoreContextMut<'_, State>, ($($argument,)*): ($($type,)*)| {
                        let put = |_to: &mut Vec<u8>| {
                            $(Wire::put(&$argument, _to);)*
                        };
                        let said: interfaces!(@type $($said)?) =
                            away::ask(store.data_mut(), $path, put)?;
                        Ok(interfaces!(@results said $($said)?))
                    },
                )?;)*
            )*
            Ok(())
        }
    };
    (@type) => { () };
    (@type $said:ty) => { $said };
    (@results $value:ident) => { $value };
    (@results $value:ident $said:ty) => { ($value,) };
}

pub(super) mod files;
pub(super) mod http;

/// A thing that is waited for stays the guest's, and does not end with the waiting.
fn lent<T: 'static>(thing: &Resource<T>) -> Resource<T> {
    Resource::new_borrow(thing.rep())
}

/// What an operation on a stream comes to.
type Streamed<T> = Result<T, streams::StreamError>;

fn streamed<T>(state: &mut State, answer: StreamResult<T>) -> wasmtime::Result<Streamed<T>> {
    Ok(match answer {
        Ok(value) => Ok(value),
        Err(error) => Err(streams::Host::convert_stream_error(
            &mut state.table,
            error,
        )?),
    })
}

interfaces! {
    io_answer, link_io |state|
    interface "wasi:io/error@0.2.12" {
        thing "error" as "error.drop" (number: error::Error) {
            error::HostError::drop(&mut ErrorsView(&mut state.table), number)?;
        }
        fn "[method]error.to-debug-string"(number: Resource<error::Error>) -> String {
            error::HostError::to_debug_string(&mut ErrorsView(&mut state.table), number)?
        }
    }
    interface "wasi:io/poll@0.2.12" {
        thing "pollable" as "pollable.drop" (number: DynPollable) {
            poll::HostPollable::drop(&mut state.table, number)?;
        }
        fn "[method]pollable.ready"(number: Resource<DynPollable>) -> bool {
            poll::HostPollable::ready(&mut state.table, number).await?
        }
        fn "[method]pollable.block"(number: Resource<DynPollable>) {
            poll::HostPollable::block(&mut state.table, number).await?
        }
        fn "poll"(all: Vec<Resource<DynPollable>>) -> Vec<u32> {
            poll::Host::poll(&mut state.table, all).await?
        }
    }
    interface "wasi:io/streams@0.2.12" {
        thing "input-stream" as "input-stream.drop" (stream: DynInputStream) {
            streams::HostInputStream::drop(&mut state.table, stream).await?;
        }
        thing "output-stream" as "output-stream.drop" (stream: DynOutputStream) {
            streams::HostOutputStream::drop(&mut state.table, stream).await?;
        }
        fn "[method]input-stream.read"(stream: Resource<DynInputStream>, length: u64) -> Streamed<Vec<u8>> {
            let read = streams::HostInputStream::read(&mut state.table, stream, length);
            streamed(state, read)?
        }
        fn "[method]input-stream.blocking-read"(stream: Resource<DynInputStream>, length: u64) -> Streamed<Vec<u8>> {
            let read = streams::HostInputStream::blocking_read(&mut state.table, stream, length);
            let read = read.await;
            streamed(state, read)?
        }
        fn "[method]input-stream.skip"(stream: Resource<DynInputStream>, length: u64) -> Streamed<u64> {
            let skipped = streams::HostInputStream::skip(&mut state.table, stream, length);
            streamed(state, skipped)?
        }
        fn "[method]input-stream.blocking-skip"(stream: Resource<DynInputStream>, length: u64) -> Streamed<u64> {
            let skipped = streams::HostInputStream::blocking_skip(&mut state.table, stream, length);
            let skipped = skipped.await;
            streamed(state, skipped)?
        }
        fn "[method]input-stream.subscribe"(stream: Resource<DynInputStream>) -> Resource<DynPollable> {
            streams::HostInputStream::subscribe(&mut state.table, lent(&stream))?
        }
        fn "[method]output-stream.check-write"(stream: Resource<DynOutputStream>) -> Streamed<u64> {
            let room = streams::HostOutputStream::check_write(&mut state.table, stream);
            streamed(state, room)?
        }
        fn "[method]output-stream.write"(stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> Streamed<()> {
            let written = streams::HostOutputStream::write(&mut state.table, stream, bytes);
            streamed(state, written)?
        }
        fn "[method]output-stream.blocking-write-and-flush"(stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> Streamed<()> {
            let table = &mut state.table;
            let written = streams::HostOutputStream::blocking_write_and_flush(table, stream, bytes);
            let written = written.await;
            streamed(state, written)?
        }
        fn "[method]output-stream.flush"(stream: Resource<DynOutputStream>) -> Streamed<()> {
            let flushed = streams::HostOutputStream::flush(&mut state.table, stream);
            streamed(state, flushed)?
        }
        fn "[method]output-stream.blocking-flush"(stream: Resource<DynOutputStream>) -> Streamed<()> {
            let flushed = streams::HostOutputStream::blocking_flush(&mut state.table, stream).await;
            streamed(state, flushed)?
        }
        fn "[method]output-stream.subscribe"(stream: Resource<DynOutputStream>) -> Resource<DynPollable> {
            streams::HostOutputStream::subscribe(&mut state.table, lent(&stream))?
        }
        fn "[method]output-stream.write-zeroes"(stream: Resource<DynOutputStream>, length: u64) -> Streamed<()> {
            let written = streams::HostOutputStream::write_zeroes(&mut state.table, stream, length);
            streamed(state, written)?
        }
        fn "[method]output-stream.blocking-write-zeroes-and-flush"(stream: Resource<DynOutputStream>, length: u64) -> Streamed<()> {
            let table = &mut state.table;
            let written =
                streams::HostOutputStream::blocking_write_zeroes_and_flush(table, stream, length);
            let written = written.await;
            streamed(state, written)?
        }
        fn "[method]output-stream.splice"(stream: Resource<DynOutputStream>, source: Resource<DynInputStream>, length: u64) -> Streamed<u64> {
            let spliced =
                streams::HostOutputStream::splice(&mut state.table, stream, source, length);
            streamed(state, spliced)?
        }
        fn "[method]output-stream.blocking-splice"(stream: Resource<DynOutputStream>, source: Resource<DynInputStream>, length: u64) -> Streamed<u64> {
            let table = &mut state.table;
            let spliced =
                streams::HostOutputStream::blocking_splice(table, stream, source, length);
            let spliced = spliced.await;
            streamed(state, spliced)?
        }
    }
}

interfaces! {
    printed_answer, link_printed |state|
    interface "wasi:cli/stdin@0.2.12" {
        fn "get-stdin"() -> Resource<DynInputStream> {
            stdin::Host::get_stdin(&mut state.cli())?
        }
    }
    interface "wasi:cli/stdout@0.2.12" {
        fn "get-stdout"() -> Resource<DynOutputStream> {
            stdout::Host::get_stdout(&mut state.cli())?
        }
    }
    interface "wasi:cli/stderr@0.2.12" {
        fn "get-stderr"() -> Resource<DynOutputStream> {
            stderr::Host::get_stderr(&mut state.cli())?
        }
    }
}
