//! Names people type, and the nearest right one.

use strsim::damerau_levenshtein;

/// The candidate that `name` was most likely meant to be: near enough in edits (a third of its
/// letters, at least one), the first among equals.
///
/// ```
/// # use sandcast_factory::config::nearest;
/// assert_eq!(nearest("pluggins", ["plugins", "policies"]), Some("plugins"));
/// assert_eq!(nearest("weather", ["plugins", "policies"]), None);
/// ```
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let limit = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                damerau_levenshtein(&lower, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(edits, _)| *edits <= limit)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// "did you mean `x`?" if something is near, else the list of what there is.
pub(crate) fn hint<'a>(
    name: &str,
    what: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    const SHOWN: usize = 20;
    let candidates: Vec<&str> = candidates.into_iter().collect();
    if let Some(candidate) = nearest(name, candidates.iter().copied()) {
        return format!("did you mean `{candidate}`?");
    }
    if candidates.is_empty() {
        return format!("there are no {what}");
    }
    let shown: Vec<String> = candidates
        .iter()
        .take(SHOWN)
        .map(|candidate| format!("`{candidate}`"))
        .collect();
    let more = match candidates.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("the {what} are {}{more}", shown.join(", "))
}

/// Whether a name may stand in file names, URLs and SQL: lower case letters, digits, `-` and `_`,
/// a letter or a digit first, 63 characters at most.
pub(crate) fn is_plain(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && name.chars().all(|letter| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-' || letter == '_'
        })
}
