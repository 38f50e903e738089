//! What the tests that cross crates share: the repository's own plugins, built once, and pipelines
//! laid out in a folder of their own; components written in text; a server that repeats; an allocator that counts; and
//! what reads bytes of somebody else, for fuzzing.

pub mod allocator;
pub mod components;
pub mod fuzz;
pub mod repeating;

use std::path::{Path, PathBuf};

use sandcast_build::{BuildRequest, build};
use sandcast_factory::{Pipeline, RunOptions, RunOutcome, Workspace, run};
use tempfile::TempDir;

/// The top of the repository.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// Builds a guest of the repository, such as `plugins/connector-csv`, and says where its
/// component is.
///
/// # Panics
/// If it cannot be built.
pub fn built(crate_dir: &str) -> PathBuf {
    let request = BuildRequest::new(repository().join(crate_dir));
    match build(&request, &mut |_| {}) {
        Ok(built) => built.component,
        Err(error) => panic!("{crate_dir} cannot be built: {error}"),
    }
}

/// A pipeline in a folder of its own, with its own state.
pub struct Line {
    folder: TempDir,
    text: String,
}

impl Line {
    /// A pipeline from its text. `{plugins}` in it stands for the repository's plugins and
    /// `{guests}` for the guests of the tests.
    ///
    /// # Panics
    /// If the folder cannot be made.
    pub fn new(text: &str) -> Self {
        let folder = TempDir::with_prefix("sandcast-line-").expect("a folder for the test");
        let top = repository();
        let text = text
            .replace("{plugins}", &top.join("plugins").display().to_string())
            .replace("{guests}", &top.join("tests/guests").display().to_string());
        Line { folder, text }
    }

    /// Puts a file beside the pipeline.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.folder.path().join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("the folder of the file");
        }
        std::fs::write(&path, content).expect("the file");
        self
    }

    /// The folder of the pipeline.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Changes the text of the pipeline.
    pub fn edit(&mut self, from: &str, to: &str) {
        assert!(self.text.contains(from), "`{from}` is not in the pipeline");
        self.text = self.text.replace(from, to);
    }

    /// The pipeline as it stands.
    ///
    /// # Panics
    /// If it is not a pipeline.
    pub fn pipeline(&self) -> Pipeline {
        let path = self.folder.path().join("pipeline.yaml");
        std::fs::write(&path, &self.text).expect("the pipeline file");
        match Pipeline::load(&path) {
            Ok(pipeline) => pipeline,
            Err(error) => panic!("the pipeline of the test: {error}: {error:?}"),
        }
    }

    /// Its state.
    ///
    /// # Panics
    /// If the state folder cannot be opened.
    pub fn workspace(&self) -> Workspace {
        match Workspace::open(&self.folder.path().join(".sandcast")) {
            Ok(workspace) => workspace,
            Err(error) => panic!("the state of the test: {error}"),
        }
    }

    /// Runs it.
    ///
    /// # Panics
    /// If the run fails through the host's fault.
    pub fn run(&self) -> RunOutcome {
        let (workspace, pipeline) = (self.workspace(), self.pipeline());
        let going = run(&workspace, &pipeline, RunOptions::default());
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        match runtime.block_on(going) {
            Ok(outcome) => outcome,
            Err(error) => panic!("the run failed: {error}"),
        }
    }
}
