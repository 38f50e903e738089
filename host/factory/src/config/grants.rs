//! Makes paths absolute, and keeps relative file grants inside the folder of the pipeline.

use std::path::{Component, Path, PathBuf};

use super::Sections;
use super::diagnostic::Problem;
use super::spans::Spans;

/// Resolves the sources of plugins and the folders of file grants.
pub(super) fn resolve(sections: &mut Sections, folder: &Path, source: &Spans) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, plugin) in &mut sections.plugins {
        // A plugin may be anywhere: it is the operator's choice, and its digest is recorded.
        plugin.source = normal(&folder.join(&plugin.source));
        for (index, grant) in plugin.grants.files.iter_mut().enumerate() {
            match inside(&grant.host, folder) {
                Ok(path) => grant.host = path,
                Err(message) => {
                    let path = format!("plugins.{name}.grants.files[{index}].host");
                    problems.push(Problem::at(source, source.value(&path), message).with_help(
                        "a relative path stays in the folder of the pipeline; \
                             to grant something outside it, write the absolute path",
                    ));
                }
            }
        }
    }
    problems
}

/// The absolute form of a path. A relative one may not leave the folder, neither by `..` nor by a
/// symbolic link.
pub(super) fn inside(path: &Path, folder: &Path) -> Result<PathBuf, String> {
    if path.is_absolute() {
        return Ok(normal(path));
    }
    let leaves = || format!("`{}` leaves the folder of the pipeline", path.display());
    let folder = normal(folder);
    let joined = normal(&folder.join(path));
    if !joined.starts_with(&folder) {
        return Err(leaves());
    }
    // What is not there yet cannot be a link; whoever opens it says that it is not there.
    if let (Ok(real), Ok(real_folder)) = (joined.canonicalize(), folder.canonicalize())
        && !real.starts_with(&real_folder)
    {
        return Err(leaves());
    }
    Ok(joined)
}

/// The path without `.` and `..`, by its letters alone.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_stays_inside() {
        let folder = Path::new("/line/pipeline");
        assert_eq!(
            inside(Path::new("data/x"), folder),
            Ok("/line/pipeline/data/x".into())
        );
        assert_eq!(
            inside(Path::new("a/../b"), folder),
            Ok("/line/pipeline/b".into())
        );
        assert_eq!(
            inside(Path::new("/srv/data"), folder),
            Ok("/srv/data".into())
        );
    }

    #[test]
    fn a_relative_path_that_leaves_is_refused() {
        let folder = Path::new("/line/pipeline");
        for path in ["..", "../secret", "data/../../secret", "../pipeline2"] {
            assert!(inside(Path::new(path), folder).is_err(), "{path}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leaves_is_refused() -> std::io::Result<()> {
        let outside = tempfile::tempdir()?;
        let folder = tempfile::tempdir()?;
        std::os::unix::fs::symlink(outside.path(), folder.path().join("data"))?;
        assert!(inside(Path::new("data"), folder.path()).is_err());
        Ok(())
    }
}
