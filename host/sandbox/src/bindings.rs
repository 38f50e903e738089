//! The contract as Rust types, generated from `wit/`.
//!
//! `data` is left out: its functions are linked by hand in [`crate::columns`], so that Arrow's
//! buffers reach the guest in a single copy.

/// Types, capabilities, compute and the adapter; the other worlds use its types.
pub(crate) mod adapter {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "adapter-plugin",
        with: {
            "sandcast:plugin/data.batch": crate::columns::Batch,
            "sandcast:plugin/data.dataset": crate::columns::Dataset,
            "sandcast:plugin/compute.program": crate::grants::compute::ProgramHandle,
            "sandcast:plugin/compute.session": crate::grants::compute::SessionHandle,
            "sandcast:plugin/compute.snapshot": crate::grants::compute::SnapshotHandle,
            "sandcast:plugin/compute.forest": crate::grants::compute::ForestHandle,
            "sandcast:plugin/compute.tensor": crate::grants::compute::TensorHandle,
            "sandcast:plugin/models.training": crate::grants::compute::TrainingHandle,
            "sandcast:plugin/models.model": crate::grants::compute::ModelHandle,
            "wasi:keyvalue/store.bucket": crate::grants::state::Bucket,
            "wasi:keyvalue/atomics.cas": crate::grants::state::Seen,
            "wasi:clocks": wasmtime_wasi::p2::bindings::clocks,
            "wasi:filesystem": wasmtime_wasi::p2::bindings::filesystem,
            "wasi:http": wasmtime_wasi_http::p2::bindings::http,
            "wasi:io": wasmtime_wasi::p2::bindings::io,
            "wasi:random": wasmtime_wasi::p2::bindings::random,
        },
        imports: {
            "sandcast:plugin/blob.list-entries": async | trappable,
            "sandcast:plugin/blob.head": async | trappable,
            "sandcast:plugin/blob.get": async | trappable,
            "sandcast:plugin/blob.put": async | trappable,
            "sandcast:plugin/blob.delete": async | trappable,
            "sandcast:plugin/sql.query": async | trappable,
            "wasi:keyvalue/store.[method]bucket.get": async | trappable,
            "wasi:keyvalue/store.[method]bucket.set": async | trappable,
            "wasi:keyvalue/store.[method]bucket.delete": async | trappable,
            "wasi:keyvalue/store.[method]bucket.exists": async | trappable,
            "wasi:keyvalue/store.[method]bucket.list-keys": async | trappable,
            "wasi:keyvalue/atomics.[static]cas.new": async | trappable,
            "wasi:keyvalue/atomics.[method]cas.current": async | trappable,
            "wasi:keyvalue/atomics.increment": async | trappable,
            "wasi:keyvalue/atomics.swap": async | trappable,
            "wasi:keyvalue/batch.get-many": async | trappable,
            "wasi:keyvalue/batch.set-many": async | trappable,
            "wasi:keyvalue/batch.delete-many": async | trappable,
            "sandcast:plugin/compute.[method]session.train": async | trappable,
            "sandcast:plugin/compute.[method]session.train-on": async | trappable,
            "sandcast:plugin/compute.[method]session.generate": async | trappable,
            "sandcast:plugin/compute.[method]session.infer": async | trappable,
            "sandcast:plugin/compute.[method]session.run": async | trappable,
            "sandcast:plugin/compute.[static]forest.train": async | trappable,
            "sandcast:plugin/compute.[method]forest.predict": async | trappable,
            default: trappable,
        },
        exports: { default: async },
    });
}

/// The world of connectors.
pub(crate) mod connector {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "connector-plugin",
        with: {
            "sandcast:plugin/types": crate::bindings::adapter::sandcast::plugin::types,
            "sandcast:plugin/data": crate::bindings::adapter::sandcast::plugin::data,
            "sandcast:plugin/blob": crate::bindings::adapter::sandcast::plugin::blob,
            "sandcast:plugin/sql": crate::bindings::adapter::sandcast::plugin::sql,
            "wasi:clocks": wasmtime_wasi::p2::bindings::clocks,
            "wasi:config": crate::bindings::adapter::wasi::config,
            "wasi:filesystem": wasmtime_wasi::p2::bindings::filesystem,
            "wasi:http": wasmtime_wasi_http::p2::bindings::http,
            "wasi:io": wasmtime_wasi::p2::bindings::io,
            "wasi:keyvalue": crate::bindings::adapter::wasi::keyvalue,
            "wasi:logging": crate::bindings::adapter::wasi::logging,
            "wasi:random": wasmtime_wasi::p2::bindings::random,
        },
        exports: { default: async },
    });
}

/// The world of validators.
pub(crate) mod validator {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "validator-plugin",
        with: {
            "sandcast:plugin/types": crate::bindings::adapter::sandcast::plugin::types,
            "sandcast:plugin/data": crate::bindings::adapter::sandcast::plugin::data,
            "sandcast:plugin/blob": crate::bindings::adapter::sandcast::plugin::blob,
            "sandcast:plugin/sql": crate::bindings::adapter::sandcast::plugin::sql,
            "wasi:clocks": wasmtime_wasi::p2::bindings::clocks,
            "wasi:config": crate::bindings::adapter::wasi::config,
            "wasi:filesystem": wasmtime_wasi::p2::bindings::filesystem,
            "wasi:http": wasmtime_wasi_http::p2::bindings::http,
            "wasi:io": wasmtime_wasi::p2::bindings::io,
            "wasi:keyvalue": crate::bindings::adapter::wasi::keyvalue,
            "wasi:logging": crate::bindings::adapter::wasi::logging,
            "wasi:random": wasmtime_wasi::p2::bindings::random,
        },
        additional_derives: [serde::Serialize, serde::Deserialize],
        exports: { default: async },
    });
}

/// The world of policies.
pub(crate) mod policy {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "policy-plugin",
        with: {
            "sandcast:plugin/types": crate::bindings::adapter::sandcast::plugin::types,
            "sandcast:plugin/data": crate::bindings::adapter::sandcast::plugin::data,
            "sandcast:plugin/blob": crate::bindings::adapter::sandcast::plugin::blob,
            "sandcast:plugin/sql": crate::bindings::adapter::sandcast::plugin::sql,
            "wasi:clocks": wasmtime_wasi::p2::bindings::clocks,
            "wasi:config": crate::bindings::adapter::wasi::config,
            "wasi:filesystem": wasmtime_wasi::p2::bindings::filesystem,
            "wasi:http": wasmtime_wasi_http::p2::bindings::http,
            "wasi:io": wasmtime_wasi::p2::bindings::io,
            "wasi:keyvalue": crate::bindings::adapter::wasi::keyvalue,
            "wasi:logging": crate::bindings::adapter::wasi::logging,
            "wasi:random": wasmtime_wasi::p2::bindings::random,
        },
        additional_derives: [serde::Serialize, serde::Deserialize],
        exports: { default: async },
    });
}
