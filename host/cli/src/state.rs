//! Where the state of a pipeline is.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The name of the state folder beside a pipeline file.
pub(crate) const FOLDER: &str = ".sandcast";

/// The state folder of a command that is given a pipeline: the one asked for, else the one
/// beside the pipeline file.
pub(crate) fn beside(pipeline: &Path, asked: Option<&Path>) -> PathBuf {
    asked.map_or_else(
        || pipeline.parent().unwrap_or(Path::new("")).join(FOLDER),
        Path::to_path_buf,
    )
}

/// The state folder of a command that is not given a pipeline: the one asked for, else the
/// nearest one from the current folder upwards.
///
/// # Errors
/// When there is none.
pub(crate) fn nearest(asked: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(folder) = asked {
        if folder.is_dir() {
            return Ok(folder.to_path_buf());
        }
        return Err(Failure::rejected_because(
            format_args!("there is no state folder at {}", folder.display()),
            "`sandcast run` makes one beside the pipeline file; name that with --state",
        ));
    }
    let here = std::env::current_dir()?;
    here.ancestors()
        .map(|folder| folder.join(FOLDER))
        .find(|folder| folder.is_dir())
        .map(|folder| {
            folder
                .strip_prefix(&here)
                .map(Path::to_path_buf)
                .unwrap_or(folder)
        })
        .ok_or_else(|| {
            Failure::rejected_because(
                format_args!("no {FOLDER} folder in {} or above it", here.display()),
                "run a pipeline first, or name its state: --state examples/credit-risk/.sandcast",
            )
        })
}

/// The pipeline file of an argument: a file as it is, of a folder its `pipeline.yaml`.
///
/// # Errors
/// When there is no such file.
pub(crate) fn pipeline_file(argument: &Path) -> Result<PathBuf, Failure> {
    let file = if argument.is_dir() {
        argument.join("pipeline.yaml")
    } else {
        argument.to_path_buf()
    };
    if file.is_file() {
        return Ok(file);
    }
    Err(Failure::rejected_because(
        format_args!("there is no pipeline at {}", file.display()),
        "give a pipeline file, or a folder with a pipeline.yaml in it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_stands_beside_the_pipeline_unless_asked_for_elsewhere() {
        let pipeline = Path::new("examples/credit-risk/pipeline.yaml");
        assert_eq!(
            beside(pipeline, None),
            Path::new("examples/credit-risk/.sandcast")
        );
        assert_eq!(
            beside(pipeline, Some(Path::new("/tmp/state"))),
            Path::new("/tmp/state")
        );
        assert_eq!(
            beside(Path::new("pipeline.yaml"), None),
            Path::new(".sandcast")
        );
    }

    #[test]
    fn a_folder_stands_for_its_pipeline_yaml() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = pipeline_file(folder.path()).expect_err("the folder is empty");
        assert!(error.report.to_string().contains("pipeline.yaml"));
        std::fs::write(folder.path().join("pipeline.yaml"), "").expect("it is writable");
        assert_eq!(
            pipeline_file(folder.path()).expect("it is there now"),
            folder.path().join("pipeline.yaml")
        );
    }
}
