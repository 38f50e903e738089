//! `sandcast generate`: a registered model writes.

use std::{
    io::{self, Read as _, Write as _},
    sync::Arc,
};

use clap::Args;
use sandcast_access::{Action, Resource};
use sandcast_factory::{InferenceError, ServedModel, Workspace};
use sandcast_sandbox::{GenerationOptions, TextSink};
use sandcast_serve::ModelSelector;

use crate::{
    access::Need,
    arguments::{DeviceArguments, GlobalArguments},
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    state,
};

const EXAMPLES: &str = "\
Examples:
  sandcast generate shakespeare --prompt 'ROMEO:' --max-tokens 200
  sandcast generate shakespeare --prompt 'ROMEO:' --temperature 0 --stop '\\n\\n'
  sandcast generate shakespeare --prompt 'First' --prompt 'Second' --json
  sandcast generate shakespeare --prompt - < beginning.txt

What is written after the prompt goes to stdout, as it is written where there is one prompt. The same
model, prompt, options and seed give the same text. In a stop text, \\n is a line end and \\t a tab.
The model runs in its sandbox, as in training and serving.";

/// The longest prompt that is read.
const MAX_PROMPT_BYTES: u64 = 1 << 20;

/// Have a registered model write on from a text
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GenerateArguments {
    /// name, name@alias or name@version
    model: ModelSelector,
    /// What to go on from; - reads it from stdin; may be given several times
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    prompt: Vec<String>,
    /// The most tokens to write
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 256)]
    max_tokens: u32,
    /// How freely to choose: 0 takes the likeliest token, 1 follows the model
    #[arg(short, long, value_name = "NUMBER", default_value_t = 1.0)]
    temperature: f32,
    /// Choose among so many of the likeliest tokens only
    #[arg(long, value_name = "COUNT")]
    top_k: Option<u32>,
    /// Choose among the likeliest tokens that together have this probability only
    #[arg(long, value_name = "SHARE")]
    top_p: Option<f32>,
    /// A text that ends the writing; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Another seed, another text
    #[arg(short, long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArguments,
}

impl GenerateArguments {
    pub(crate) fn need(&self, global: &GlobalArguments) -> Option<Need> {
        let resource = Resource::model(&self.model.name);
        super::in_state(global, Action::Generate, resource)
    }
}

pub(crate) async fn execute(
    arguments: &GenerateArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let options = GenerationOptions {
        maximum_tokens: arguments.max_tokens,
        temperature: arguments.temperature,
        top_k: arguments.top_k,
        top_p: arguments.top_p,
        stop: arguments.stop.iter().map(|stop| unescaped(stop)).collect(),
        seed: arguments.seed,
    };
    options
        .check()
        .map_err(|what| Failure::rejected_because(what, "see `sandcast generate --help`"))?;
    let prompts = prompts(&arguments.prompt)?;
    let workspace = Workspace::open_with(
        &state::nearest(global.state.as_deref())?,
        arguments.device.sandbox(global)?,
    )?;
    let version = super::models::resolve(&workspace, &arguments.model)?;
    let model = ServedModel::load(&workspace, &version)
        .await
        .map_err(rejected_if_asked_wrongly)?;
    let streams = prompts.len() == 1 && !output.wants_json();
    let watch: Option<TextSink> = streams.then(|| Arc::new(|_, text: &str| show(text)) as TextSink);
    let written = model
        .generate(&prompts, &options, watch)
        .await
        .map_err(rejected_if_asked_wrongly)?;
    if output.wants_json() {
        let completions = prompts.iter().zip(&written).map(|(prompt, written)| {
            serde_json::json!({
                "prompt": prompt,
                "text": written.text,
                "tokens": written.tokens,
                "finish": written.finish,
            })
        });
        output.json(&serde_json::json!({
            "model": version.model,
            "version": version.version,
            "completions": completions.collect::<Vec<_>>(),
        }))?;
        return Ok(Exit::Done);
    }
    if streams {
        output.line("")?;
    } else {
        for (prompt, written) in prompts.iter().zip(&written) {
            output.line(harmless(&format!("{prompt}{}\n", written.text)))?;
        }
    }
    let tokens: u64 = written.iter().map(|written| written.tokens).sum();
    output.note(format_args!(
        "{} version {}, {tokens} tokens",
        version.model, version.version
    ));
    Ok(Exit::Done)
}

fn rejected_if_asked_wrongly(error: InferenceError) -> Failure {
    match error {
        InferenceError::Rows(_)
        | InferenceError::Denied { .. }
        | InferenceError::Untrusted { .. }
        | InferenceError::Call(_)
        | InferenceError::Conduct { .. }
        | InferenceError::DoesNotWrite { .. } => Failure::from(error).into_rejection(),
        error => error.into(),
    }
}

/// The prompts, one of them perhaps from stdin.
fn prompts(given: &[String]) -> Result<Vec<String>, Failure> {
    let mut prompts = Vec::with_capacity(given.len());
    for prompt in given {
        let mut text = prompt.clone();
        if prompt == "-" {
            text.clear();
            let mut stdin = io::stdin().lock().take(MAX_PROMPT_BYTES + 1);
            stdin.read_to_string(&mut text).or_reject()?;
        }
        if text.len() as u64 > MAX_PROMPT_BYTES {
            return Err(Failure::rejected_because(
                format_args!("a prompt is larger than {MAX_PROMPT_BYTES} bytes"),
                "give the end of it only; a model sees no more than its context",
            ));
        }
        prompts.push(text);
    }
    Ok(prompts)
}

/// Line ends and tabs, as people write them in a shell.
fn unescaped(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t")
}

/// Writes a piece of text at once. Whether somebody still reads it is found out at the end.
fn show(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(harmless(text).as_bytes());
    let _ = stdout.flush();
}

/// Text without what a terminal would obey.
fn harmless(text: &str) -> String {
    let shown = |character: char| match character {
        '\n' | '\t' => character,
        character if character.is_control() => char::REPLACEMENT_CHARACTER,
        character => character,
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_told_what_to_do() {
        assert_eq!(
            harmless("a\tb\n\u{1b}[31m\r\u{9b}"),
            "a\tb\n\u{fffd}[31m\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn stop_texts_are_written_as_in_a_shell() {
        assert_eq!(unescaped(r"end\n\n\t."), "end\n\n\t.");
    }
}
