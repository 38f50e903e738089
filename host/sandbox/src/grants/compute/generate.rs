//! Generation: on a thread of its own, looking between steps whether it was cancelled or is over
//! its time. What it may hold is charged before it begins.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sandcast_kernels::{Completion, Finish, Prompt, RunError, Sampling, Session, StopReason};

use super::host::{or_answer, run_failure};
use super::watch::CancelOnDrop;
use super::{caps, failure, invalid};
use crate::bindings::adapter::sandcast::plugin::compute;
use crate::bindings::adapter::sandcast::plugin::types::{Failure, FailureCode};
use crate::state::State;

/// Prompts of one call.
const MAX_PROMPTS: usize = 65_536;

/// Sequences at a time.
const MAX_SLOTS: u32 = 1_024;

/// Stop tokens of one prompt.
const MAX_STOPS: usize = 1_024;

/// Goes on from prompts with the weights of a session.
pub(super) async fn generate(
    state: &mut State,
    session: Arc<Session>,
    prompts: Vec<compute::Prompt>,
    slots: u32,
) -> wasmtime::Result<Result<Vec<compute::Completion>, Failure>> {
    if prompts.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    if prompts.len() > MAX_PROMPTS {
        return Ok(Err(invalid(format!(
            "{} prompts are given; at most {MAX_PROMPTS} are taken at once",
            prompts.len()
        ))));
    }
    if prompts
        .iter()
        .any(|prompt| prompt.sampling.stop.len() > MAX_STOPS)
    {
        return Ok(Err(invalid(format!(
            "a prompt has more than {MAX_STOPS} stop tokens"
        ))));
    }
    if slots == 0 {
        return Ok(Err(invalid("no prompt has a slot; give at least 1")));
    }
    let slots = (slots.min(MAX_SLOTS) as usize).min(prompts.len());
    let length = |prompt: &compute::Prompt| {
        let asked = prompt.sampling.maximum_tokens as usize;
        prompt.tokens.len().saturating_add(asked)
    };
    let longest = prompts.iter().map(length).max().unwrap_or(0);
    let Some(cost) = session.program().generation_cost(slots, longest) else {
        return Ok(Err(failure(
            FailureCode::Unsupported,
            "the program declares no generation, so it cannot generate",
        )));
    };
    let budget = &mut state.compute.budget;
    let cap = caps(budget.memory_limit()).flops;
    if cost.flops_of_step > cap {
        return Ok(Err(invalid(format!(
            "a step of {slots} sequences takes {} floating-point operations, over the cap of {cap}; \
             ask for fewer at a time",
            cost.flops_of_step
        ))));
    }
    // A token is kept with its sequence, in the completion, and on its way back to the guest.
    let tokens = prompts.iter().map(length).fold(0, usize::saturating_add) as u64;
    // As if each waited until the longest before it had ended.
    let turns = prompts.len().div_ceil(slots.max(1));
    let steps = longest.saturating_mul(turns) as u64;
    let flops = cost.flops_of_step.saturating_mul(steps);
    let scratch = cost.peak_bytes.saturating_add(tokens.saturating_mul(16));
    let taken = budget
        .check_time()
        .and_then(|()| budget.take_run(scratch, flops));
    or_answer!(taken.map_err(|overdrawn| state.overdrawn(overdrawn)));

    let prompts: Vec<Prompt> = prompts.into_iter().map(prompt).collect();
    let time_left = state.compute.budget.time_left();
    let started = Instant::now();
    let cancelled = Arc::new(AtomicBool::new(false));
    let cancel = CancelOnDrop(Arc::clone(&cancelled));
    let work = move || run(&session, prompts, slots, time_left, &cancelled);
    let done = tokio::task::spawn_blocking(work).await;
    drop(cancel);
    state.computed(started);
    state.compute.budget.give_memory(scratch);
    let outcome = done.map_err(|error| {
        wasmtime::Error::msg(format!(
            "the generating thread ended without an answer: {error}"
        ))
    })?;
    match outcome {
        Ok(completions) => {
            let tokens: usize = completions.iter().map(|one| one.tokens.len()).sum();
            state.ledger.count_bytes_in(tokens.saturating_mul(4));
            state.ledger.saw(|| {
                let tokens = completions.iter().flat_map(|one| &one.tokens);
                tokens.flat_map(|it| it.to_le_bytes()).collect::<Vec<u8>>()
            });
            Ok(Ok(completions.into_iter().map(completion).collect()))
        }
        Err(Stopped::Failed(error)) => Ok(Err(run_failure(&error))),
        Err(Stopped::OutOfTime) => Ok(Err(state.overdrawn(super::budget::Overdrawn {
            key: "time",
            detail: "generation took all the time there was".into(),
        }))),
    }
}

/// Why there are no completions.
enum Stopped {
    Failed(RunError),
    OutOfTime,
}

fn run(
    session: &Session,
    prompts: Vec<Prompt>,
    slots: usize,
    time_left: Duration,
    cancelled: &AtomicBool,
) -> Result<Vec<Completion>, Stopped> {
    let started = Instant::now();
    let mut out_of_time = false;
    let mut watch = |_| {
        if cancelled.load(Ordering::Relaxed) {
            return ControlFlow::Break(StopReason::Cancelled);
        }
        if started.elapsed() >= time_left {
            out_of_time = true;
            return ControlFlow::Break(StopReason::Budget {
                what: "compute time".into(),
            });
        }
        ControlFlow::Continue(())
    };
    let generated = session.generate(prompts, slots, &mut watch);
    generated.map_err(|error| match error {
        RunError::Stopped { .. } if out_of_time => Stopped::OutOfTime,
        error => Stopped::Failed(error),
    })
}

fn prompt(prompt: compute::Prompt) -> Prompt {
    let sampling = prompt.sampling;
    Prompt {
        tokens: prompt.tokens,
        sampling: Sampling {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            maximum_tokens: sampling.maximum_tokens,
            stop: sampling.stop,
            seed: sampling.seed,
            drawn: sampling.drawn,
            slide: sampling.slide,
        },
    }
}

fn completion(completion: Completion) -> compute::Completion {
    compute::Completion {
        tokens: completion.tokens,
        finish: match completion.finish {
            Finish::Stop => compute::Finish::Stop,
            Finish::Length => compute::Finish::Length,
            Finish::Context => compute::Finish::Context,
        },
    }
}
