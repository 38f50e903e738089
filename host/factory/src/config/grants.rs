//! Makes paths absolute, keeps relative file grants inside the folder of the pipeline, and gives
//! grants what other parts of the file say of them: where a connection or a store leads, and whose state it
//! is.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use sandcast_sandbox::{BlobStore, SqlConnection, StoreUrl};

use super::diagnostic::Problem;
use super::names::hint;
use super::spans::Spans;
use super::{PluginSection, Sections};

/// Resolves the sources of plugins, the folders of file grants, the connections of questions, the stores of
/// objects and the pipeline of state.
pub(super) fn resolve(sections: &mut Sections, folder: &Path, source: &Spans) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, connection) in &mut sections.connections {
        if let SqlConnection::Sqlite(file) = connection {
            match inside(file, folder) {
                Ok(path) => *file = path,
                Err(message) => {
                    let path = format!("connections.{name}.sqlite");
                    let problem = Problem::at(source, source.value(&path), message);
                    problems.push(problem.with_help(
                        "a relative path stays in the folder of the pipeline; \
                         to name something outside it, write the absolute path",
                    ));
                }
            }
        }
    }
    for (name, store) in &mut sections.stores {
        if let StoreUrl::Folder(folder_of_store) = &mut store.url {
            match inside(folder_of_store, folder) {
                Ok(path) => *folder_of_store = path,
                Err(message) => {
                    let path = format!("stores.{name}.url");
                    let problem = Problem::at(source, source.value(&path), message);
                    problems.push(problem.with_help(
                        "a relative path stays in the folder of the pipeline; \
                         to name something outside it, write the absolute path",
                    ));
                }
            }
        }
    }
    for (name, plugin) in &mut sections.plugins {
        lead_to_stores(name, plugin, &sections.stores, source, &mut problems);
        lead(name, plugin, &sections.connections, source, &mut problems);
        if let Some(state) = &mut plugin.grants.state
            && state.pipeline.replace(sections.name.clone()).is_some()
        {
            let path = format!("plugins.{name}.grants.state.pipeline");
            let message = "a plugin has the state of its own pipeline";
            let problem = Problem::at(source, source.key(&path), message);
            problems.push(problem.with_help("leave out `pipeline`"));
        }
        // A plugin may be anywhere: it is the operator's choice, and its digest is recorded.
        plugin.source = normal(&folder.join(&plugin.source));
        if let Some(bundle) = &mut plugin.bundle {
            *bundle = normal(&folder.join(&*bundle));
        }
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

/// Says of each question where its connection leads.
fn lead(
    name: &str,
    plugin: &mut PluginSection,
    connections: &BTreeMap<String, SqlConnection>,
    source: &Spans,
    problems: &mut Vec<Problem>,
) {
    for (index, grant) in plugin.grants.sql.iter_mut().enumerate() {
        let at = format!("plugins.{name}.grants.sql[{index}]");
        let (range, message, help) = match (&grant.to, connections.get(&grant.connection)) {
            (None, Some(connection)) => {
                grant.to = Some(connection.clone());
                continue;
            }
            (None, None) => (
                source.value(&format!("{at}.connection")),
                format!("there is no connection `{}`", grant.connection),
                hint(
                    &grant.connection,
                    "connections",
                    connections.keys().map(String::as_str),
                ),
            ),
            (Some(_), _) => (
                source.key(&format!("{at}.to")),
                "where a connection leads stands under `connections`".to_owned(),
                "leave out `to`".to_owned(),
            ),
        };
        problems.push(Problem::at(source, range, message).with_help(help));
    }
}

/// Says of each grant of objects where its store is.
fn lead_to_stores(
    name: &str,
    plugin: &mut PluginSection,
    stores: &BTreeMap<String, BlobStore>,
    source: &Spans,
    problems: &mut Vec<Problem>,
) {
    for (index, grant) in plugin.grants.blob.iter_mut().enumerate() {
        let at = format!("plugins.{name}.grants.blob[{index}]");
        let (range, message, help) = match (&grant.to, stores.get(&grant.store)) {
            (None, Some(store)) => {
                grant.to = Some(store.clone());
                continue;
            }
            (None, None) => (
                source.value(&format!("{at}.store")),
                format!("there is no store `{}`", grant.store),
                hint(&grant.store, "stores", stores.keys().map(String::as_str)),
            ),
            (Some(_), _) => (
                source.key(&format!("{at}.to")),
                "where a store is stands under `stores`".to_owned(),
                "leave out `to`".to_owned(),
            ),
        };
        problems.push(Problem::at(source, range, message).with_help(help));
    }
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
