//! Folders.

use std::path::Path;

use crate::grants::{Access, FileGrant};

/// Says whether a folder can be one of a ceiling.
pub(super) fn check(at: &str, grant: &FileGrant) -> Result<(), String> {
    if !grant.host.is_absolute() {
        let host = grant.host.display();
        return Err(format!("{at}.host: `{host}` is not absolute"));
    }
    Ok(())
}

pub(super) fn in_words(grant: &FileGrant) -> String {
    let access = match grant.access {
        Access::Read => "read",
        Access::ReadWrite => "read-write",
    };
    let quota = match grant.access {
        Access::ReadWrite if !grant.quota.is_default() => {
            format!(" ({}, {} entries)", grant.quota.bytes, grant.quota.entries)
        }
        _ => String::new(),
    };
    format!("{} {access}{quota}", grant.host.display())
}

/// Whether a folder lies in another one, links followed, and is no more open than it.
pub(super) fn covers(most: &FileGrant, asked: &FileGrant) -> bool {
    let FileGrant {
        host,
        guest: _,
        access,
        quota,
    } = asked;
    // What cannot be followed is not there, and then the grant cannot be given anyway.
    let real = |path: &Path| path.canonicalize().ok();
    let inside = match (real(host), real(&most.host)) {
        (Some(host), Some(most)) => host.starts_with(most),
        _ => false,
    };
    let fills_less = quota.bytes <= most.quota.bytes && quota.entries <= most.quota.entries;
    inside && (*access == Access::Read || most.access == Access::ReadWrite && fills_less)
}
