//! The functions of `sandcast:plugin/compute`.

use std::sync::Arc;
use std::time::Instant;

use sandcast_kernels::{Feeds, Program, RunError, RunPrice, Session, Tensor, TensorData};
use wasmtime::component::Resource;

use super::encode::{Category, Encoding};
use super::watch::RunWatch;
use super::{
    Binding, ComputeView, INLINE_OPERATIONS, INLINE_ROWS, ProgramHandle, SessionHandle,
    SnapshotHandle, TensorHandle, caps, encode, failure, generate, graph, invalid, rows_of,
    session_bytes, train,
};
use crate::bindings::adapter::sandcast::plugin::compute;
use crate::bindings::adapter::sandcast::plugin::types::{Failure, FailureCode};
use crate::columns::{Batch, Dataset};
use crate::fairness::blocking;
use crate::text;

/// Bytes of a message about a graph.
pub(super) const MAX_DIAGNOSTIC_BYTES: usize = 4096;

/// Bytes of weights that a guest takes into its memory or gives out of it at once.
const MAX_EXPORT_BYTES: u64 = 64 << 20;

/// Bytes of names and shapes beside exported weights, at most, for each parameter.
const EXPORT_HEADER_BYTES: u64 = 512;

/// Extents of a tensor that a guest makes.
const MAX_RANK: usize = 8;

/// A trap, or the answer to the guest.
type Answer<T> = wasmtime::Result<Result<T, Failure>>;

/// Leaves a function with a failure for the guest.
macro_rules! or_answer {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(failure) => return Ok(Err(failure)),
        }
    };
}
pub(super) use or_answer;

impl compute::Host for ComputeView<'_> {}

impl compute::HostProgram for ComputeView<'_> {
    fn compile(
        &mut self,
        graph: compute::Graph,
    ) -> wasmtime::Result<Result<Resource<ProgramHandle>, compute::Diagnostic>> {
        self.0.ledger.count("compute.compile");
        let budget = &mut self.0.compute.budget;
        let taken = budget
            .take_program()
            .and_then(|()| budget.check_time())
            .and_then(|()| budget.take_handle());
        if let Err(overdrawn) = taken {
            let failure = self.0.overdrawn(overdrawn);
            return Ok(Err(compute::Diagnostic {
                code: failure.code,
                node: None,
                message: failure.message,
            }));
        }
        let caps = caps(self.0.compute.budget.memory_limit());
        let started = Instant::now();
        let compiled = blocking(|| Program::compile(graph::from_wire(graph), &caps));
        self.computed(started);
        match compiled {
            Ok(program) => {
                self.0.ledger.saw(|| program.digest());
                let program = Arc::new(program);
                Ok(Ok(self.0.table.push(ProgramHandle { program })?))
            }
            Err(diagnostic) => {
                self.0.compute.budget.give_handle();
                Ok(Err(compute::Diagnostic {
                    code: FailureCode::InvalidInput,
                    node: diagnostic.node,
                    message: text::cut(&diagnostic.message, MAX_DIAGNOSTIC_BYTES)
                        .0
                        .to_owned(),
                }))
            }
        }
    }

    fn cost(&mut self, program: Resource<ProgramHandle>) -> wasmtime::Result<Vec<compute::Cost>> {
        self.0.ledger.count("compute.cost");
        let program = &self.0.table.get(&program)?.program;
        Ok(program
            .costs()
            .iter()
            .map(|cost| compute::Cost {
                entry: cost.entry.clone(),
                flops: cost.flops,
                bytes_moved: cost.bytes_moved,
                peak_bytes: cost.peak_bytes,
            })
            .collect())
    }

    fn digest(&mut self, program: Resource<ProgramHandle>) -> wasmtime::Result<String> {
        self.0.ledger.count("compute.digest");
        let digest = self.0.table.get(&program)?.program.digest();
        Ok(blake3::Hash::from_bytes(digest).to_hex().to_string())
    }

    fn drop(&mut self, program: Resource<ProgramHandle>) -> wasmtime::Result<()> {
        self.0.table.delete(program)?;
        self.0.compute.budget.give_handle();
        Ok(())
    }
}

impl compute::HostTensor for ComputeView<'_> {
    fn from_f32(&mut self, shape: Vec<u32>, values: Vec<f32>) -> Answer<Resource<TensorHandle>> {
        self.0.ledger.count("compute.tensor-from-f32");
        self.0.ledger.count_bytes_out(values.len() * 4);
        self.make(&shape, TensorData::F32(values))
    }

    fn from_i32(&mut self, shape: Vec<u32>, values: Vec<i32>) -> Answer<Resource<TensorHandle>> {
        self.0.ledger.count("compute.tensor-from-i32");
        self.0.ledger.count_bytes_out(values.len() * 4);
        self.make(&shape, TensorData::I32(values))
    }

    fn windows(
        &mut self,
        values: Vec<i32>,
        length: u32,
        stride: u32,
    ) -> Answer<Resource<TensorHandle>> {
        self.0.ledger.count("compute.tensor-windows");
        self.0.ledger.count_bytes_out(values.len() * 4);
        if length == 0 || stride == 0 {
            return Ok(Err(invalid(
                "windows need a length and a stride of at least 1",
            )));
        }
        let made = Tensor::windows(values, length as usize, stride as usize);
        let tensor = or_answer!(made.map_err(invalid));
        self.keep(tensor)
    }

    fn repeated(&mut self, values: Vec<i32>, rows: u32) -> Answer<Resource<TensorHandle>> {
        self.0.ledger.count("compute.tensor-repeated");
        self.0.ledger.count_bytes_out(values.len() * 4);
        self.keep(Tensor::repeated(values, rows as usize))
    }

    fn shape(&mut self, tensor: Resource<TensorHandle>) -> wasmtime::Result<Vec<u32>> {
        self.0.ledger.count("compute.tensor-shape");
        let shape = self.0.table.get(&tensor)?.tensor.shape();
        Ok(shape
            .iter()
            .map(|extent| u32::try_from(*extent))
            .collect::<Result<_, _>>()?)
    }

    fn dtype(&mut self, tensor: Resource<TensorHandle>) -> wasmtime::Result<compute::Dtype> {
        self.0.ledger.count("compute.tensor-dtype");
        Ok(match self.0.table.get(&tensor)?.tensor.data() {
            TensorData::F32(_) => compute::Dtype::Float32,
            TensorData::I32(_) => compute::Dtype::Int32,
        })
    }

    fn values(&mut self, tensor: Resource<TensorHandle>) -> wasmtime::Result<Vec<f32>> {
        self.0.ledger.count("compute.tensor-values");
        let values = self.0.table.get(&tensor)?.tensor.to_f32();
        self.0.ledger.count_bytes_in(values.len() * 4);
        Ok(values)
    }

    fn drop(&mut self, tensor: Resource<TensorHandle>) -> wasmtime::Result<()> {
        let tensor = self.0.table.delete(tensor)?;
        self.0.compute.budget.give_memory(tensor.charged);
        self.0.compute.budget.give_handle();
        Ok(())
    }
}

impl compute::HostSession for ComputeView<'_> {
    fn create(
        &mut self,
        program: Resource<ProgramHandle>,
        seed: u64,
    ) -> Answer<Resource<SessionHandle>> {
        self.0.ledger.count("compute.session-create");
        let program = Arc::clone(&self.0.table.get(&program)?.program);
        let charged = session_bytes(&program);
        let budget = &mut self.0.compute.budget;
        let taken = budget
            .check_time()
            .and_then(|()| budget.take_handle())
            .and_then(|()| {
                budget
                    .take_memory(charged)
                    .inspect_err(|_| budget.give_handle())
            });
        or_answer!(taken.map_err(|overdrawn| self.0.overdrawn(overdrawn)));
        let started = Instant::now();
        let device = &self.0.compute.device;
        let made = blocking(|| Session::new(program, device, seed));
        self.computed(started);
        match made {
            Ok(session) => Ok(Ok(self.0.table.push(SessionHandle {
                session: Some(Arc::new(session)),
                bindings: Arc::new([]),
                report: None,
                shared: false,
                charged,
                bound: 0,
            })?)),
            Err(error) => {
                self.0.compute.budget.give_memory(charged);
                self.0.compute.budget.give_handle();
                Ok(Err(run_failure(&error)))
            }
        }
    }

    fn bind(
        &mut self,
        session: Resource<SessionHandle>,
        bindings: Vec<compute::Binding>,
    ) -> Answer<()> {
        self.0.ledger.count("compute.session-bind");
        let handle = self.0.table.get_mut(&session)?;
        if handle.shared {
            return Ok(Err(shared_session()));
        }
        let bindings: Vec<Binding> = bindings.into_iter().map(binding).collect();
        let program = Arc::clone(handle.session()?.program());
        let known = graph::inputs(program.graph());
        if let Err(error) = encode::check(&bindings, known) {
            return Ok(Err(invalid(error)));
        }
        // What was bound before goes; both are held only while they are exchanged.
        let bytes = encode::held_bytes(&bindings);
        let budget = &mut self.0.compute.budget;
        budget.give_memory(handle.bound);
        let taken = budget.take_memory(bytes);
        if taken.is_err() {
            // It was there, so it is there again.
            let _ = budget.take_memory(handle.bound);
        } else {
            handle.charged = handle.charged - handle.bound + bytes;
            handle.bound = bytes;
            handle.bindings = bindings.into();
        }
        or_answer!(taken.map_err(|overdrawn| self.0.overdrawn(overdrawn)));
        Ok(Ok(()))
    }

    async fn train(
        &mut self,
        session: Resource<SessionHandle>,
        training: Resource<Dataset>,
        validation: Option<Resource<Dataset>>,
        plan: compute::TrainPlan,
    ) -> Answer<compute::TrainReport> {
        self.0.ledger.count("compute.session-train");
        let training = self.0.table.delete(training)?;
        let validation = match validation {
            Some(validation) => Some(self.0.table.delete(validation)?),
            None => None,
        };
        train::train(self.0, &session, training, validation, plan).await
    }

    async fn train_on(
        &mut self,
        session: Resource<SessionHandle>,
        training: Vec<compute::Feed>,
        validation: Option<Vec<compute::Feed>>,
        plan: compute::TrainPlan,
    ) -> Answer<compute::TrainReport> {
        self.0.ledger.count("compute.session-train-on");
        let training = self.take_feeds(training)?;
        // Every handle goes, whatever comes of the others.
        let validation = match validation {
            Some(validation) => Some(self.take_feeds(validation)?),
            None => None,
        };
        let training = or_answer!(training);
        let validation = or_answer!(validation.transpose());
        train::train_on(self.0, &session, training, validation, plan).await
    }

    async fn generate(
        &mut self,
        session: Resource<SessionHandle>,
        prompts: Vec<compute::Prompt>,
        slots: u32,
    ) -> Answer<Vec<compute::Completion>> {
        self.0.ledger.count("compute.session-generate");
        let session = Arc::clone(self.0.table.get(&session)?.session()?);
        generate::generate(self.0, session, prompts, slots).await
    }

    async fn infer(
        &mut self,
        session: Resource<SessionHandle>,
        entry: String,
        rows: Resource<Batch>,
    ) -> Answer<Vec<compute::ResultTensor>> {
        self.0.ledger.count("compute.session-infer");
        let rows = self.0.take_batch(rows)?;
        let handle = self.0.table.get(&session)?;
        let (session, bindings) = (Arc::clone(handle.session()?), Arc::clone(&handle.bindings));
        let Some(inputs) = graph::inputs_of_entry(session.program().graph(), &entry) else {
            return Ok(Err(unknown_entry(&session, &entry)));
        };
        let batches = vec![rows];
        let rows = rows_of(&batches);
        let fed = encode::bytes(&bindings, &inputs, rows);
        let price = or_answer!(self.price(|| session.price_of_rows(&entry, rows as usize)));
        self.compute(fed, price, rows as usize, move |watch| {
            let feeds = encode::feeds(&bindings, &inputs, &batches).map_err(invalid)?;
            session
                .infer_watched(&entry, &feeds, &|| watch.look())
                .map_err(|error| run_failure(&error))
        })
        .await
    }

    async fn run(
        &mut self,
        session: Resource<SessionHandle>,
        entry: String,
        feeds: Vec<compute::Feed>,
    ) -> Answer<Vec<compute::ResultTensor>> {
        self.0.ledger.count("compute.session-run");
        let named = or_answer!(self.take_feeds(feeds)?);
        let session = Arc::clone(self.0.table.get(&session)?.session()?);
        let fed = dense_bytes(&named);
        let price = or_answer!(self.price(|| session.price(&entry, &named)));
        let rows = named.values().map(Tensor::rows).max().unwrap_or(0);
        self.compute(fed, price, rows, move |watch| {
            session
                .infer_watched(&entry, &named, &|| watch.look())
                .map_err(|error| run_failure(&error))
        })
        .await
    }

    fn parameters(&mut self, session: Resource<SessionHandle>) -> wasmtime::Result<Vec<String>> {
        self.0.ledger.count("compute.session-parameters");
        let program = self.0.table.get(&session)?.session()?.program();
        let parameters = program.parameters().iter();
        Ok(parameters.map(|parameter| parameter.name.clone()).collect())
    }

    fn get(
        &mut self,
        session: Resource<SessionHandle>,
        parameter: String,
    ) -> Answer<Resource<TensorHandle>> {
        self.0.ledger.count("compute.session-get");
        or_answer!(self.check_time());
        let found = self.0.table.get(&session)?.session()?.parameter(&parameter);
        let Some(tensor) = found else {
            let name = text::sentence(&parameter, 64);
            return Ok(Err(invalid(format!(
                "`{name}` is not a parameter of the program"
            ))));
        };
        self.keep(tensor)
    }

    fn set(
        &mut self,
        session: Resource<SessionHandle>,
        parameter: String,
        value: Resource<TensorHandle>,
    ) -> Answer<()> {
        self.0.ledger.count("compute.session-set");
        let value = self.0.table.delete(value)?;
        self.0.compute.budget.give_memory(value.charged);
        self.0.compute.budget.give_handle();
        self.change(&session, |session| {
            session.set_parameter(&parameter, &value.tensor)
        })
    }

    fn export_weights(&mut self, session: Resource<SessionHandle>) -> Answer<Vec<u8>> {
        self.0.ledger.count("compute.session-export-weights");
        let session = Arc::clone(self.0.table.get(&session)?.session()?);
        let most = export_bytes(&session);
        if most > MAX_EXPORT_BYTES {
            return Ok(Err(failure(
                FailureCode::Exhausted,
                format!("the weights are up to {most} bytes, over {MAX_EXPORT_BYTES}"),
            )));
        }
        let started = Instant::now();
        let budget = &mut self.0.compute.budget;
        let taken = budget.check_time().and_then(|()| budget.take_memory(most));
        or_answer!(taken.map_err(|overdrawn| self.0.overdrawn(overdrawn)));
        let weights = blocking(|| session.to_safetensors());
        self.computed(started);
        self.0.compute.budget.give_memory(most);
        self.0.ledger.count_bytes_in(weights.len());
        Ok(Ok(weights))
    }

    fn import_weights(&mut self, session: Resource<SessionHandle>, weights: Vec<u8>) -> Answer<()> {
        self.0.ledger.count("compute.session-import-weights");
        self.0.ledger.count_bytes_out(weights.len());
        if weights.len() as u64 > MAX_EXPORT_BYTES {
            return Ok(Err(failure(
                FailureCode::Exhausted,
                format!(
                    "weights of {} bytes, over {MAX_EXPORT_BYTES}",
                    weights.len()
                ),
            )));
        }
        self.change(&session, |session| session.load_safetensors(&weights))
    }

    fn snapshot(&mut self, session: Resource<SessionHandle>) -> Answer<Resource<SnapshotHandle>> {
        self.0.ledger.count("compute.session-snapshot");
        let session = Arc::clone(self.0.table.get(&session)?.session()?);
        let charged = export_bytes(&session);
        let budget = &mut self.0.compute.budget;
        let taken = budget
            .check_time()
            .and_then(|()| budget.take_handle())
            .and_then(|()| {
                budget
                    .take_memory(charged)
                    .inspect_err(|_| budget.give_handle())
            });
        or_answer!(taken.map_err(|overdrawn| self.0.overdrawn(overdrawn)));
        let started = Instant::now();
        let weights = blocking(|| session.to_safetensors());
        self.computed(started);
        Ok(Ok(self
            .0
            .table
            .push(SnapshotHandle { weights, charged })?))
    }

    fn restore(
        &mut self,
        session: Resource<SessionHandle>,
        snapshot: Resource<SnapshotHandle>,
    ) -> Answer<()> {
        self.0.ledger.count("compute.session-restore");
        let snapshot = self.0.table.delete(snapshot)?;
        self.0.compute.budget.give_memory(snapshot.charged);
        self.0.compute.budget.give_handle();
        self.change(&session, |session| {
            session.load_safetensors(&snapshot.weights)
        })
    }

    fn drop(&mut self, session: Resource<SessionHandle>) -> wasmtime::Result<()> {
        let session = self.0.table.delete(session)?;
        self.0.compute.budget.give_memory(session.charged);
        self.0.compute.budget.give_handle();
        Ok(())
    }
}

impl compute::HostSnapshot for ComputeView<'_> {
    fn drop(&mut self, snapshot: Resource<SnapshotHandle>) -> wasmtime::Result<()> {
        let snapshot = self.0.table.delete(snapshot)?;
        self.0.compute.budget.give_memory(snapshot.charged);
        self.0.compute.budget.give_handle();
        Ok(())
    }
}

/// Bytes of the weights of a session in the safetensors format, at most.
fn export_bytes(session: &Session) -> u64 {
    let program = session.program();
    let names: u64 = program
        .parameters()
        .iter()
        .map(|parameter| EXPORT_HEADER_BYTES.saturating_add(parameter.name.len() as u64 * 6))
        .sum();
    program
        .parameter_count()
        .saturating_mul(4)
        .saturating_add(names)
        .saturating_add(EXPORT_HEADER_BYTES)
}

impl ComputeView<'_> {
    fn check_time(&mut self) -> Result<(), Failure> {
        let checked = self.0.compute.budget.check_time();
        checked.map_err(|overdrawn| self.0.overdrawn(overdrawn))
    }

    /// Changes the weights of a session, unless it is the shared one of a model.
    fn change(
        &mut self,
        session: &Resource<SessionHandle>,
        work: impl FnOnce(&mut Session) -> Result<(), RunError>,
    ) -> Answer<()> {
        or_answer!(self.check_time());
        let handle = self.0.table.get_mut(session)?;
        if handle.shared {
            return Ok(Err(shared_session()));
        }
        // Nobody else can hold it: it is shared only once its model is made.
        let Some(session) = handle.session.as_mut().and_then(Arc::get_mut) else {
            return Err(wasmtime::Error::msg(
                "a session that is to be changed is in use elsewhere",
            ));
        };
        let started = Instant::now();
        let changed = blocking(|| work(session));
        self.computed(started);
        Ok(changed.map_err(|error| run_failure(&error)))
    }

    /// Takes the time since then off the guest's account and onto the compute budget.
    fn computed(&mut self, started: Instant) {
        self.0.computed(started);
    }

    /// Takes given inputs out of the guest's hands.
    fn take_feeds(&mut self, feeds: Vec<compute::Feed>) -> Answer<Feeds> {
        let mut named = Feeds::new();
        let mut twice = false;
        for feed in feeds {
            let handle = self.0.table.delete(feed.value)?;
            self.0.compute.budget.give_memory(handle.charged);
            self.0.compute.budget.give_handle();
            twice |= named.insert(feed.input, handle.tensor).is_some();
        }
        if twice {
            return Ok(Err(invalid("an input is fed twice")));
        }
        Ok(Ok(named))
    }

    fn make(&mut self, shape: &[u32], data: TensorData) -> Answer<Resource<TensorHandle>> {
        if shape.len() > MAX_RANK {
            return Ok(Err(invalid(format!(
                "a tensor has {} extents; at most {MAX_RANK} are allowed",
                shape.len()
            ))));
        }
        let shape = shape.iter().map(|extent| *extent as usize).collect();
        let tensor = or_answer!(Tensor::new(shape, data).map_err(invalid));
        self.keep(tensor)
    }

    /// Puts a tensor into the table and charges its bytes.
    pub(super) fn keep(&mut self, tensor: Tensor) -> Answer<Resource<TensorHandle>> {
        self.0.ledger.saw(|| bytes_of(&tensor));
        let charged = tensor.elements() as u64 * 4;
        let budget = &mut self.0.compute.budget;
        let taken = budget.take_handle().and_then(|()| {
            budget
                .take_memory(charged)
                .inspect_err(|_| budget.give_handle())
        });
        or_answer!(taken.map_err(|overdrawn| self.0.overdrawn(overdrawn)));
        Ok(Ok(self.0.table.push(TensorHandle { tensor, charged })?))
    }

    /// What a run comes to. To plan one takes time too, of those who have some left.
    fn price(
        &mut self,
        price: impl FnOnce() -> Result<RunPrice, RunError>,
    ) -> Result<RunPrice, Failure> {
        self.check_time()?;
        let started = Instant::now();
        let priced = price();
        self.computed(started);
        priced.map_err(|error| run_failure(&error))
    }

    /// Runs something within the budget: here where it is little, else on a thread of its own.
    async fn compute(
        &mut self,
        fed_bytes: u64,
        price: RunPrice,
        rows: usize,
        work: impl FnOnce(&RunWatch) -> Result<Vec<(String, Tensor)>, Failure> + Send + 'static,
    ) -> Answer<Vec<compute::ResultTensor>> {
        let scratch_bytes = fed_bytes.saturating_add(price.bytes);
        let budget = &mut self.0.compute.budget;
        let taken = budget
            .check_time()
            .and_then(|()| budget.take_run(scratch_bytes, price.flops));
        or_answer!(taken.map_err(|overdrawn| self.0.overdrawn(overdrawn)));
        let started = Instant::now();
        let (watch, cancel) = RunWatch::new(self.0);
        let results = if rows <= INLINE_ROWS && price.flops <= INLINE_OPERATIONS {
            work(&watch)
        } else {
            match tokio::task::spawn_blocking(move || work(&watch)).await {
                Ok(results) => results,
                Err(error) => Err(failure(FailureCode::Internal, error.to_string())),
            }
        };
        drop(cancel);
        self.computed(started);
        self.0.compute.budget.give_memory(scratch_bytes);
        if matches!(&results, Err(failure) if failure.code == FailureCode::Exhausted) {
            // Stopped since there is no time left, which is a denial like any other.
            or_answer!(self.check_time());
        }
        let mut kept = Vec::new();
        for (name, tensor) in or_answer!(results) {
            let value = or_answer!(self.keep(tensor)?);
            kept.push(compute::ResultTensor { name, value });
        }
        Ok(Ok(kept))
    }
}

pub(super) fn category(category: compute::Category) -> Category {
    Category {
        column: category.column,
        vocabulary: category.vocabulary,
    }
}

fn binding(binding: compute::Binding) -> Binding {
    Binding {
        input: binding.input,
        encoding: match binding.encoding {
            compute::Encoding::Numbers(columns) => Encoding::Numbers(columns),
            compute::Encoding::Target(column) => Encoding::Target(column),
            compute::Encoding::Categories(categories) => {
                Encoding::Categories(categories.into_iter().map(category).collect())
            }
            compute::Encoding::Labels(labels) => Encoding::Labels(category(labels)),
        },
    }
}

/// What tells a tensor from others.
fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let extents = tensor.shape().iter();
    let mut bytes: Vec<u8> = extents.flat_map(|it| (*it as u64).to_le_bytes()).collect();
    match tensor.data() {
        TensorData::F32(values) => bytes.extend(values.iter().flat_map(|it| it.to_le_bytes())),
        TensorData::I32(values) => bytes.extend(values.iter().flat_map(|it| it.to_le_bytes())),
    }
    bytes
}

/// Bytes of feeds with every window held by itself.
pub(super) fn dense_bytes(feeds: &Feeds) -> u64 {
    feeds
        .values()
        .map(|tensor| {
            let elements = tensor.dense_elements().max(tensor.elements());
            (elements as u64).saturating_mul(4)
        })
        .fold(0, u64::saturating_add)
}

pub(super) fn shared_session() -> Failure {
    failure(
        FailureCode::Unsupported,
        "the session of a finished model is shared and cannot be changed",
    )
}

fn unknown_entry(session: &Session, entry: &str) -> Failure {
    let known: Vec<&str> = session
        .program()
        .graph()
        .entries
        .iter()
        .map(|entry| entry.name.as_str())
        .collect();
    invalid(format!(
        "the program has no entry `{}`; it has {}",
        text::sentence(entry, 64),
        text::sentence(&known.join(", "), 512)
    ))
}

/// What a run that failed is to the guest.
pub(super) fn run_failure(error: &RunError) -> Failure {
    let code = match error {
        RunError::Device { .. } => FailureCode::Internal,
        RunError::Stopped { .. } | RunError::TooLarge { .. } => FailureCode::Exhausted,
        _ => FailureCode::InvalidInput,
    };
    failure(
        code,
        text::sentence(&error.to_string(), MAX_DIAGNOSTIC_BYTES),
    )
}
