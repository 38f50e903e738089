//! host/serve
