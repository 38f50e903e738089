//! Objects of stores.

use std::path::Path;

use super::leads_nowhere;
use crate::grants::{Access, BlobGrant, BlobStore, StoreUrl, blob};

/// Says whether a grant can be one of a ceiling.
pub(super) fn check(at: &str, grant: &BlobGrant) -> Result<(), String> {
    blob::check(grant).map_err(|what| format!("{at}: {what}"))?;
    match &grant.to {
        None => Err(leads_nowhere(at)),
        Some(BlobStore {
            url: StoreUrl::Folder(path),
            ..
        }) if !path.is_absolute() => {
            let path = path.display();
            Err(format!("{at}.to.url: `{path}` is not absolute"))
        }
        Some(_) => Ok(()),
    }
}

pub(super) fn in_words(grant: &BlobGrant) -> String {
    grant.in_words(&|path| path.display().to_string())
}

/// Whether everything that one grant allows is allowed by another, with no larger bounds. The name of a
/// store is the pipeline's; what counts is where it leads.
pub(super) fn covers(most: &BlobGrant, asked: &BlobGrant) -> bool {
    let BlobGrant {
        store: _,
        prefix,
        access,
        object_bytes,
        read_bytes,
        write_bytes,
        objects,
        entries,
        calls,
        timeout,
        to,
    } = asked;
    let is_there = match (to, &most.to) {
        (Some(asked), Some(most_to)) => lies_there(asked, prefix, most_to, &most.prefix),
        _ => false,
    };
    is_there
        && (*access == Access::Read || most.access == Access::ReadWrite)
        && object_bytes <= &most.object_bytes
        && read_bytes <= &most.read_bytes
        && write_bytes <= &most.write_bytes
        && objects <= &most.objects
        && entries <= &most.entries
        && calls <= &most.calls
        && timeout <= &most.timeout
}

/// Whether the objects below a prefix of a store are below one of another.
fn lies_there(asked: &BlobStore, prefix: &str, most: &BlobStore, most_prefix: &str) -> bool {
    let BlobStore {
        url,
        endpoint,
        region,
        credentials,
        certificate_authority,
        networks,
    } = asked;
    match (url, &most.url) {
        (StoreUrl::Folder(asked), StoreUrl::Folder(most)) => {
            // Below the folder itself no link is followed.
            let real = |path: &Path, prefix: &str| Some(path.canonicalize().ok()?.join(prefix));
            match (real(asked, prefix), real(most, most_prefix)) {
                (Some(asked), Some(most)) => asked.starts_with(most),
                _ => false,
            }
        }
        (
            StoreUrl::Bucket {
                bucket,
                prefix: own,
            },
            StoreUrl::Bucket {
                bucket: most_bucket,
                prefix: most_own,
            },
        ) => {
            let is_network = networks
                .iter()
                .all(|network| most.networks.iter().any(|most| most.contains(network)));
            bucket == most_bucket
                && format!("{own}{prefix}").starts_with(&format!("{most_own}{most_prefix}"))
                && *endpoint == most.endpoint
                && *region == most.region
                && (credentials.is_none() || *credentials == most.credentials)
                && *certificate_authority == most.certificate_authority
                && is_network
        }
        _ => false,
    }
}
