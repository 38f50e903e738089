//! Requests.

use crate::grants::{HttpCredential, HttpGrant};

pub(super) fn in_words(grant: &HttpGrant) -> String {
    let port = grant
        .port
        .map_or_else(String::new, |port| format!(":{port}"));
    let methods: Vec<&str> = grant.methods.iter().map(|method| method.as_str()).collect();
    let credential = match &grant.credential {
        None => String::new(),
        Some(credential) => format!(" with {}", credential.secret),
    };
    format!(
        "{} {}://{}{port}{}{credential}",
        methods.join(","),
        grant.scheme.as_str(),
        grant.host,
        grant.path
    )
}

/// Whether every request that one grant covers is covered by another, with no larger bounds.
pub(super) fn covers(most: &HttpGrant, asked: &HttpGrant) -> bool {
    let HttpGrant {
        host,
        scheme,
        port,
        methods,
        path,
        networks,
        credential,
        certificate_authority,
        requests,
        requests_per_minute,
        at_once,
        request_bytes,
        response_bytes,
        timeout,
    } = asked;
    let is_host = *host == most.host
        || most.host.strip_prefix('*').is_some_and(|above| {
            let name = host.strip_prefix('*').unwrap_or(host);
            name.len() > above.len() && name.ends_with(above)
        });
    let is_port = scheme == &most.scheme
        && port.map_or(scheme.port(), Into::into)
            == most.port.map_or(most.scheme.port(), Into::into);
    let is_below = path
        .strip_prefix(&most.path)
        .is_some_and(|rest| most.path.ends_with('/') || rest.is_empty() || rest.starts_with('/'));
    let is_network = networks
        .iter()
        .all(|network| most.networks.iter().any(|most| most.contains(network)));
    let is_credential = match (credential, &most.credential) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(asked), Some(most)) => {
            let HttpCredential {
                header,
                prefix,
                secret,
            } = asked;
            header.eq_ignore_ascii_case(&most.header)
                && *prefix == most.prefix
                && *secret == most.secret
        }
    };
    is_host
        && is_port
        && methods.iter().all(|method| most.methods.contains(method))
        && is_below
        && is_network
        && is_credential
        // Another authority could speak for the host; only the operator's own may.
        && *certificate_authority == most.certificate_authority
        && requests <= &most.requests
        && most.requests_per_minute.is_none_or(|most| requests_per_minute.is_some_and(|it| it <= most))
        && at_once <= &most.at_once
        && request_bytes <= &most.request_bytes
        && response_bytes <= &most.response_bytes
        && timeout <= &most.timeout
}
