//! host/kernels
