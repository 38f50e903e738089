//! The host's functions for guests in processes of their own: each is named once, and from that follows
//! what asks for it in the process, and what answers it in the host.
//!
//! What answers is what a guest in the engine calls, on the same state, so grants, budgets, the ledger
//! and recordings do not know the difference.

use std::io;

use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use super::frame::invalid;
use super::wire::{Reader, Wire};
use super::{away, wasi};
use crate::bindings::adapter::sandcast::plugin::types::Failure;
use crate::bindings::adapter::sandcast::plugin::{blob, compute, models, sql};
use crate::bindings::adapter::wasi::config::store as config;
use crate::bindings::adapter::wasi::keyvalue::{atomics, batch, store as pairs};
use crate::bindings::adapter::wasi::logging::logging;
use crate::columns::{self, Batch, Dataset};
use crate::grants::Capability;
use crate::grants::blob::StoresView;
use crate::grants::clock::ClocksView;
use crate::grants::compute::{
    ComputeView, ForestHandle, ModelHandle, ProgramHandle, SessionHandle, SnapshotHandle,
    TensorHandle, TrainingHandle,
};
use crate::grants::config::ConfigView;
use crate::grants::log::LogView;
use crate::grants::random::RandomView;
use crate::grants::sql::SqlView;
use crate::grants::state::{Bucket, PairsView, Seen};
use crate::state::State;
use crate::text;

/// Why a request of a process has no answer.
#[derive(Debug)]
pub(crate) enum Halt {
    /// It is none that a guest could have made.
    Wrong(io::Error),
    /// The guest traps.
    Trap(wasmtime::Error),
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Halt::Wrong(error)
    }
}

impl From<wasmtime::Error> for Halt {
    fn from(error: wasmtime::Error) -> Self {
        Halt::Trap(error)
    }
}

/// Answers a request of a guest that imports these. `from` stands after the name.
pub(super) async fn answer(
    state: &mut State,
    imports: &[Capability],
    name: &str,
    from: &mut Reader<'_>,
    to: &mut Vec<u8>,
) -> Result<(), Halt> {
    let imports = |capability| imports.contains(&capability);
    let answered = columns::answer(state, name, from, to)?
        || Box::pin(wasi::io_answer(state, name, from, to)).await?
        || wasi::printed_answer(state, name, from, to).await?
        || (imports(Capability::Log) && log_answer(state, name, from, to).await?)
        || (imports(Capability::Config) && config_answer(state, name, from, to).await?)
        || (imports(Capability::Compute) && compute_answer(state, name, from, to).await?)
        || (imports(Capability::Files)
            && Box::pin(wasi::files::answer(state, name, from, to)).await?)
        || (imports(Capability::Http) && wasi::http::answer(state, name, from, to).await?)
        || (imports(Capability::Clock) && clock_answer(state, name, from, to).await?)
        || (imports(Capability::Random) && random_answer(state, name, from, to).await?)
        || (imports(Capability::State) && pairs_answer(state, name, from, to).await?)
        || (imports(Capability::Sql) && sql_answer(state, name, from, to).await?)
        || (imports(Capability::Blob) && blob_answer(state, name, from, to).await?);
    if answered {
        return Ok(());
    }
    let name = text::sentence(name, 64);
    Err(invalid(format!(
        "it asked for `{name}`, which its plugin does not import"
    ))
    .into())
}

/// Links what a guest imports to the pipe, but for what is nothing anywhere, such as its environment.
pub(crate) fn link_apart(
    linker: &mut Linker<State>,
    needs: &dyn Fn(Capability) -> bool,
) -> wasmtime::Result<()> {
    columns::link_apart(linker)?;
    wasi::link_io(linker)?;
    wasi::link_printed(linker)?;
    logging::add_to_linker::<State, Apart>(linker, |state| Guest(state))?;
    config::add_to_linker::<State, Apart>(linker, |state| Guest(state))?;
    if needs(Capability::Files) {
        wasi::files::link(linker)?;
    }
    if needs(Capability::Http) {
        wasi::http::link(linker)?;
    }
    if needs(Capability::Clock) {
        wall_clock::add_to_linker::<State, Apart>(linker, |state| Guest(state))?;
        monotonic_clock::add_to_linker::<State, Apart>(linker, |state| Guest(state))?;
    }
    if needs(Capability::Random) {
        random::add_to_linker::<State, Apart>(linker, |state| Guest(state))?;
        insecure::add_to_linker::<State, Apart>(linker, |state| Guest(state))?;
        insecure_seed::add_to_linker::<State, Apart>(linker, |state| Guest(state))?;
    }
    if needs(Capability::Compute) {
        compute::add_to_linker::<State, Apart>(linker, |state| Guest(state))?;
        models::add_to_linker::<State, Apart>(linker, |state| Guest(state))?;
    }
    if needs(Capability::State) {
        pairs::add_to_linker::<State, Apart>(linker, |state| Guest(state))?;
        atomics::add_to_linker::<State, Apart>(linker, |state| Guest(state))?;
        batch::add_to_linker::<State, Apart>(linker, |state| Guest(state))?;
    }
    if needs(Capability::Sql) {
        sql::add_to_linker::<State, Apart>(linker, |state| Guest(state))?;
    }
    if needs(Capability::Blob) {
        blob::add_to_linker::<State, Apart>(linker, |state| Guest(state))?;
    }
    Ok(())
}

struct Apart;

impl HasData for Apart {
    type Data<'a> = Guest<'a>;
}

/// A guest in this process, whose host is in another.
struct Guest<'a>(&'a mut State);

/// Functions of interfaces: `later` are those that are waited for.
macro_rules! functions {
    (
        $answer:ident by $view:ident;
        $(
            trait $module:ident::$interface:ident as $at:literal $(of $thing:ty)? {
                $($name:ident($($argument:ident: $type:ty),*) -> $said:ty;)*
            }
            $(later {
                $($slow:ident($($given:ident: $kind:ty),*) -> $told:ty;)*
            })?
        )*
    ) => {
        async fn $answer(
            state: &mut State,
            name: &str,
            from: &mut Reader<'_>,
            to: &mut Vec<u8>,
        ) -> Result<bool, Halt> {
            let view = &mut $view(state);
            match name {
                $(
                    $(concat!($at, ".", stringify!($name)) => {
                        $(let $argument: $type = Wire::take(from)?;)*
                        from.end()?;
                        let said: $said = $module::$interface::$name(view, $($argument),*)?;
                        said.put(to);
                    })*
                    $($(concat!($at, ".", stringify!($slow)) => {
                        $(let $given: $kind = Wire::take(from)?;)*
                        from.end()?;
                        let told = $module::$interface::$slow(view, $($given),*);
                        let told: $told = Box::pin(told).await?;
                        told.put(to);
                    })*)?
                    $(concat!($at, ".drop") => {
                        let thing: Resource<$thing> = Wire::take(from)?;
                        $module::$interface::drop(view, thing)?;
                    })?
                )*
                _ => return Ok(false),
            }
            Ok(true)
        }

        $(impl $module::$interface for Guest<'_> {
            $(fn $name(&mut self, $($argument: $type),*) -> wasmtime::Result<$said> {
                away::ask(self.0, concat!($at, ".", stringify!($name)), |_to| {
                    $(Wire::put(&$argument, _to);)*
                })
            })*
            $($(async fn $slow(&mut self, $($given: $kind),*) -> wasmtime::Result<$told> {
                away::ask(self.0, concat!($at, ".", stringify!($slow)), |_to| {
                    $(Wire::put(&$given, _to);)*
                })
            })*)?
            $(fn drop(&mut self, thing: Resource<$thing>) -> wasmtime::Result<()> {
                away::let_go(self.0, concat!($at, ".drop"), thing.rep())
            })?
        })*
    };
}

type Tensor = Resource<TensorHandle>;
type Session = Resource<SessionHandle>;
type Results = Result<Vec<compute::ResultTensor>, Failure>;

functions! {
    compute_answer by ComputeView;
    trait compute::Host as "compute" {}
    trait compute::HostProgram as "program" of ProgramHandle {
        compile(graph: compute::Graph) -> Result<Resource<ProgramHandle>, compute::Diagnostic>;
        cost(program: Resource<ProgramHandle>) -> Vec<compute::Cost>;
        digest(program: Resource<ProgramHandle>) -> String;
    }
    trait compute::HostTensor as "tensor" of TensorHandle {
        from_f32(shape: Vec<u32>, values: Vec<f32>) -> Result<Tensor, Failure>;
        from_i32(shape: Vec<u32>, values: Vec<i32>) -> Result<Tensor, Failure>;
        windows(values: Vec<i32>, length: u32, stride: u32) -> Result<Tensor, Failure>;
        repeated(values: Vec<i32>, rows: u32) -> Result<Tensor, Failure>;
        shape(tensor: Tensor) -> Vec<u32>;
        dtype(tensor: Tensor) -> compute::Dtype;
        values(tensor: Tensor) -> Vec<f32>;
    }
    trait compute::HostSession as "session" of SessionHandle {
        create(program: Resource<ProgramHandle>, seed: u64) -> Result<Session, Failure>;
        bind(session: Session, bindings: Vec<compute::Binding>) -> Result<(), Failure>;
        parameters(session: Session) -> Vec<String>;
        get(session: Session, parameter: String) -> Result<Tensor, Failure>;
        set(session: Session, parameter: String, value: Tensor) -> Result<(), Failure>;
        export_weights(session: Session) -> Result<Vec<u8>, Failure>;
        import_weights(session: Session, weights: Vec<u8>) -> Result<(), Failure>;
        snapshot(session: Session) -> Result<Resource<SnapshotHandle>, Failure>;
        restore(session: Session, snapshot: Resource<SnapshotHandle>) -> Result<(), Failure>;
    }
    later {
        train(session: Session, training: Resource<Dataset>, validation: Option<Resource<Dataset>>, plan: compute::TrainPlan) -> Result<compute::TrainReport, Failure>;
        train_on(session: Session, training: Vec<compute::Feed>, validation: Option<Vec<compute::Feed>>, plan: compute::TrainPlan) -> Result<compute::TrainReport, Failure>;
        generate(session: Session, prompts: Vec<compute::Prompt>, slots: u32) -> Result<Vec<compute::Completion>, Failure>;
        infer(session: Session, entry: String, rows: Resource<Batch>) -> Results;
        run(session: Session, entry: String, feeds: Vec<compute::Feed>) -> Results;
    }
    trait compute::HostSnapshot as "snapshot" of SnapshotHandle {}
    trait compute::HostForest as "forest" of ForestHandle {
        importance(forest: Resource<ForestHandle>) -> Vec<compute::Importance>;
    }
    later {
        train(examples: compute::ForestExamples, plan: compute::ForestPlan, seed: u64) -> Result<compute::TrainedForest, Failure>;
        predict(forest: Resource<ForestHandle>, rows: Resource<Batch>) -> Result<Tensor, Failure>;
    }
    trait models::Host as "models" {}
    trait models::HostTraining as "training" of TrainingHandle {
        task(training: Resource<TrainingHandle>) -> models::Task;
        hyperparameters(training: Resource<TrainingHandle>) -> String;
        seed(training: Resource<TrainingHandle>) -> u64;
        training_rows(training: Resource<TrainingHandle>) -> Resource<Dataset>;
        validation_rows(training: Resource<TrainingHandle>) -> Option<Resource<Dataset>>;
    }
    trait models::HostModel as "model" of ModelHandle {
        task(model: Resource<ModelHandle>) -> models::Task;
        state(model: Resource<ModelHandle>) -> Vec<u8>;
        predictor(model: Resource<ModelHandle>) -> compute::Predictor;
        wrote(model: Resource<ModelHandle>, row: u32, text: String) -> ();
    }
}

functions! {
    config_answer by ConfigView;
    trait config::Host as "config" {
        get(key: String) -> Result<Option<String>, config::Error>;
        get_all() -> Result<Vec<(String, String)>, config::Error>;
    }
}

functions! {
    clock_answer by ClocksView;
    trait wall_clock::Host as "wall" {
        now() -> wall_clock::Datetime;
        resolution() -> wall_clock::Datetime;
    }
    trait monotonic_clock::Host as "counter" {
        now() -> u64;
        resolution() -> u64;
        subscribe_instant(when: u64) -> Resource<DynPollable>;
        subscribe_duration(duration: u64) -> Resource<DynPollable>;
    }
}

functions! {
    random_answer by RandomView;
    trait random::Host as "random" {
        get_random_bytes(length: u64) -> Vec<u8>;
        get_random_u64() -> u64;
    }
    trait insecure::Host as "insecure" {
        get_insecure_random_bytes(length: u64) -> Vec<u8>;
        get_insecure_random_u64() -> u64;
    }
    trait insecure_seed::Host as "seed" {
        insecure_seed() -> (u64, u64);
    }
}

type OfPairs<T> = Result<T, pairs::Error>;
/// Keys with what is kept under them.
type Found = Vec<Option<(String, Vec<u8>)>>;

functions! {
    pairs_answer by PairsView;
    trait pairs::Host as "pairs" {
        open(identifier: String) -> OfPairs<Resource<Bucket>>;
    }
    trait pairs::HostBucket as "bucket" of Bucket {}
    later {
        get(bucket: Resource<Bucket>, key: String) -> OfPairs<Option<Vec<u8>>>;
        set(bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> OfPairs<()>;
        delete(bucket: Resource<Bucket>, key: String) -> OfPairs<()>;
        exists(bucket: Resource<Bucket>, key: String) -> OfPairs<bool>;
        list_keys(bucket: Resource<Bucket>, cursor: Option<String>) -> OfPairs<pairs::KeyResponse>;
    }
    trait atomics::Host as "atomics" {}
    later {
        increment(bucket: Resource<Bucket>, key: String, delta: i64) -> OfPairs<i64>;
        swap(seen: Resource<Seen>, value: Vec<u8>) -> Result<(), atomics::CasError>;
    }
    trait atomics::HostCas as "cas" of Seen {}
    later {
        new(bucket: Resource<Bucket>, key: String) -> OfPairs<Resource<Seen>>;
        current(seen: Resource<Seen>) -> OfPairs<Option<Vec<u8>>>;
    }
    trait batch::Host as "many" {}
    later {
        get_many(bucket: Resource<Bucket>, keys: Vec<String>) -> OfPairs<Found>;
        set_many(bucket: Resource<Bucket>, pairs: Vec<(String, Vec<u8>)>) -> OfPairs<()>;
        delete_many(bucket: Resource<Bucket>, keys: Vec<String>) -> OfPairs<()>;
    }
}

functions! {
    sql_answer by SqlView;
    trait sql::Host as "sql" {}
    later {
        query(connection: String, statement: String, parameters: Vec<sql::Parameter>) -> Result<Resource<Batch>, Failure>;
    }
}

type OfBlob<T> = Result<T, Failure>;

functions! {
    blob_answer by StoresView;
    trait blob::Host as "blob" {}
    later {
        list_entries(store: String, prefix: String, cursor: Option<String>, limit: u32) -> OfBlob<blob::Page>;
        head(store: String, key: String) -> OfBlob<Option<blob::Entry>>;
        get(store: String, key: String, range: Option<blob::Range>) -> OfBlob<Option<blob::Object>>;
        put(store: String, key: String, bytes: Vec<u8>, condition: blob::Condition) -> OfBlob<blob::Outcome>;
        delete(store: String, key: String) -> OfBlob<()>;
    }
}

/// What stands for a line of the log.
const LOG: &str = "log.log";

async fn log_answer(
    state: &mut State,
    name: &str,
    from: &mut Reader<'_>,
    to: &mut Vec<u8>,
) -> Result<bool, Halt> {
    if name != LOG {
        return Ok(false);
    }
    let (level, context, message) = Wire::take(from)?;
    from.end()?;
    logging::Host::log(&mut LogView(state), level, context, message)?;
    ().put(to);
    Ok(true)
}

impl logging::Host for Guest<'_> {
    fn log(
        &mut self,
        level: logging::Level,
        context: String,
        message: String,
    ) -> wasmtime::Result<()> {
        away::ask(self.0, LOG, |to| {
            level.put(to);
            context.put(to);
            message.put(to);
        })
    }
}
