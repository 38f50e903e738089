//! host/audit
