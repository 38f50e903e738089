//! What is wrong with a query, for the person who wrote it.

use arrow::datatypes::Schema;
use datafusion::common::{DataFusionError, SchemaError};

/// Columns named for each table.
const COLUMNS_SHOWN: usize = 40;

/// Says what is wrong, what was perhaps meant, and what there is.
pub(super) fn explain(error: &DataFusionError, tables: &[(&str, &Schema)]) -> String {
    let columns = || {
        tables
            .iter()
            .flat_map(|(_, schema)| schema.fields())
            .map(|field| field.name().as_str())
    };
    let mut message = match cause(error) {
        Cause::Column(name) => {
            format!(
                "there is no column {}{}",
                in_sql(&name),
                suggestion(&name, columns())
            )
        }
        Cause::Table(name) => {
            format!(
                "there is no table {}{}",
                in_sql(&name),
                suggestion(&name, tables.iter().map(|(name, _)| *name))
            )
        }
        // A grammatical mistake is not explained by what tables there are.
        Cause::Grammar(message) => return message,
        Cause::Other(message) => message,
    };
    if tables.is_empty() {
        message.push_str("; there are no tables");
        return message;
    }
    message.push_str("; there are: ");
    for (place, (name, schema)) in tables.iter().enumerate() {
        if place > 0 {
            message.push_str(", ");
        }
        let fields = schema.fields();
        let shown: Vec<String> = fields
            .iter()
            .take(COLUMNS_SHOWN)
            .map(|field| in_sql(field.name()))
            .collect();
        let more = if fields.len() > COLUMNS_SHOWN {
            ", ..."
        } else {
            ""
        };
        message.push_str(&format!("{}({}{more})", in_sql(name), shown.join(", ")));
    }
    message
}

/// The message alone: neither the engine's prefix nor a backtrace.
pub(super) fn plain(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(message) => {
            format!(
                "it needs more memory than it may have ({}); aggregate or filter earlier",
                first_line(message)
            )
        }
        DataFusionError::ArrowError(error, _) => error.to_string(),
        DataFusionError::SQL(error, _) => error.to_string(),
        DataFusionError::Plan(message)
        | DataFusionError::Execution(message)
        | DataFusionError::NotImplemented(message) => first_line(message).to_owned(),
        other => other.strip_backtrace(),
    }
}

enum Cause {
    Column(String),
    Table(String),
    Grammar(String),
    Other(String),
}

fn cause(error: &DataFusionError) -> Cause {
    match error.find_root() {
        DataFusionError::SchemaError(error, _) => match error.as_ref() {
            SchemaError::FieldNotFound { field, .. } => Cause::Column(field.name.clone()),
            other => Cause::Other(other.to_string()),
        },
        DataFusionError::SQL(error, _) => Cause::Grammar(error.to_string()),
        DataFusionError::Plan(message) => {
            let message = first_line(message);
            match message
                .strip_prefix("table '")
                .and_then(|rest| rest.strip_suffix("' not found"))
            {
                Some(table) => {
                    Cause::Table(table.trim_start_matches("datafusion.public.").to_owned())
                }
                None => Cause::Other(message.to_owned()),
            }
        }
        _ => Cause::Other(plain(error)),
    }
}

/// The name that was perhaps meant.
fn suggestion<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let distance =
        |other: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase());
    let nearest = known.map(|other| (distance(other), other)).min();
    match nearest {
        Some((0, other)) => format!(
            "; did you mean {}? names that are not in lower case need double quotes",
            in_sql(other)
        ),
        Some((distance, other)) if distance <= (name.chars().count() / 3).max(1) => {
            format!("; did you mean {}?", in_sql(other))
        }
        _ => String::new(),
    }
}

/// A name as it must stand in SQL.
fn in_sql(name: &str) -> String {
    let plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name
            .chars()
            .all(|character| matches!(character, 'a'..='z' | '0'..='9' | '_'));
    if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}
