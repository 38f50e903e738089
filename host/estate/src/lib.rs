//! host/estate
