//! Where the state of a pipeline is.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The name of the state folder beside a pipeline file.
pub(crate) const FOLDER: &str = ".sandcast";

/// The state folder of a command that is given a pipeline file or a folder with one: the one
/// asked for, else the one beside the file.
pub(crate) fn beside(pipeline: &Path, asked: Option<&Path>) -> PathBuf {
    let folder = if pipeline.is_dir() {
        pipeline
    } else {
        pipeline.parent().unwrap_or(Path::new(""))
    };
    asked.map_or_else(|| folder.join(FOLDER), Path::to_path_buf)
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
}
