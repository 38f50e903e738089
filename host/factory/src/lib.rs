//! host/factory
