//! What `wit-bindgen` makes of `wit/`: the imports once, then one module a world for its export.
//! Plugins use the modules beside this one; nothing here is covered by a promise of stability.

#![expect(missing_docs, reason = "generated")]

/// Everything a plugin may import. A component imports only the functions it reaches.
pub mod imports {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package sandcast:sdk;
            world imports {
                include sandcast:plugin/capabilities@0.1.0;
                import sandcast:plugin/compute@0.1.0;
                import sandcast:plugin/models@0.1.0;
            }
        ",
        world: "sandcast:sdk/imports",
        generate_all,
        generate_unused_types: true,
        default_bindings_module: "sandcast_sdk::bindings::imports",
    });
}

/// The export of a connector.
pub mod connector {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "connector-plugin",
        pub_export_macro: true,
        generate_unused_types: true,
        default_bindings_module: "sandcast_sdk::bindings::connector",
        with: {
            "sandcast:plugin/types@0.1.0": crate::bindings::imports::sandcast::plugin::types,
            "sandcast:plugin/data@0.1.0": crate::bindings::imports::sandcast::plugin::data,
            "wasi:logging/logging@0.1.0-draft": crate::bindings::imports::wasi::logging::logging,
            "wasi:config/store@0.2.0-rc.1": crate::bindings::imports::wasi::config::store,
            "wasi:clocks/wall-clock@0.2.12": crate::bindings::imports::wasi::clocks::wall_clock,
            "wasi:clocks/monotonic-clock@0.2.12": crate::bindings::imports::wasi::clocks::monotonic_clock,
            "wasi:random/random@0.2.12": crate::bindings::imports::wasi::random::random,
            "wasi:io/error@0.2.12": crate::bindings::imports::wasi::io::error,
            "wasi:io/poll@0.2.12": crate::bindings::imports::wasi::io::poll,
            "wasi:io/streams@0.2.12": crate::bindings::imports::wasi::io::streams,
            "wasi:filesystem/types@0.2.12": crate::bindings::imports::wasi::filesystem::types,
            "wasi:filesystem/preopens@0.2.12": crate::bindings::imports::wasi::filesystem::preopens,
            "wasi:http/types@0.2.12": crate::bindings::imports::wasi::http::types,
            "wasi:http/outgoing-handler@0.2.12": crate::bindings::imports::wasi::http::outgoing_handler,
            "wasi:keyvalue/store@0.2.0-draft2": crate::bindings::imports::wasi::keyvalue::store,
            "wasi:keyvalue/atomics@0.2.0-draft2": crate::bindings::imports::wasi::keyvalue::atomics,
            "wasi:keyvalue/batch@0.2.0-draft2": crate::bindings::imports::wasi::keyvalue::batch,
            "sandcast:plugin/sql@0.1.0": crate::bindings::imports::sandcast::plugin::sql,
            "sandcast:plugin/blob@0.1.0": crate::bindings::imports::sandcast::plugin::blob,
        },
    });
}

/// The export of a validator.
pub mod validator {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "validator-plugin",
        pub_export_macro: true,
        generate_unused_types: true,
        default_bindings_module: "sandcast_sdk::bindings::validator",
        with: {
            "sandcast:plugin/types@0.1.0": crate::bindings::imports::sandcast::plugin::types,
            "sandcast:plugin/data@0.1.0": crate::bindings::imports::sandcast::plugin::data,
            "wasi:logging/logging@0.1.0-draft": crate::bindings::imports::wasi::logging::logging,
            "wasi:config/store@0.2.0-rc.1": crate::bindings::imports::wasi::config::store,
            "wasi:clocks/wall-clock@0.2.12": crate::bindings::imports::wasi::clocks::wall_clock,
            "wasi:clocks/monotonic-clock@0.2.12": crate::bindings::imports::wasi::clocks::monotonic_clock,
            "wasi:random/random@0.2.12": crate::bindings::imports::wasi::random::random,
            "wasi:io/error@0.2.12": crate::bindings::imports::wasi::io::error,
            "wasi:io/poll@0.2.12": crate::bindings::imports::wasi::io::poll,
            "wasi:io/streams@0.2.12": crate::bindings::imports::wasi::io::streams,
            "wasi:filesystem/types@0.2.12": crate::bindings::imports::wasi::filesystem::types,
            "wasi:filesystem/preopens@0.2.12": crate::bindings::imports::wasi::filesystem::preopens,
            "wasi:http/types@0.2.12": crate::bindings::imports::wasi::http::types,
            "wasi:http/outgoing-handler@0.2.12": crate::bindings::imports::wasi::http::outgoing_handler,
            "wasi:keyvalue/store@0.2.0-draft2": crate::bindings::imports::wasi::keyvalue::store,
            "wasi:keyvalue/atomics@0.2.0-draft2": crate::bindings::imports::wasi::keyvalue::atomics,
            "wasi:keyvalue/batch@0.2.0-draft2": crate::bindings::imports::wasi::keyvalue::batch,
            "sandcast:plugin/sql@0.1.0": crate::bindings::imports::sandcast::plugin::sql,
            "sandcast:plugin/blob@0.1.0": crate::bindings::imports::sandcast::plugin::blob,
        },
    });
}

/// The export of a policy.
pub mod policy {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "policy-plugin",
        pub_export_macro: true,
        generate_unused_types: true,
        default_bindings_module: "sandcast_sdk::bindings::policy",
        with: {
            "sandcast:plugin/types@0.1.0": crate::bindings::imports::sandcast::plugin::types,
            "sandcast:plugin/data@0.1.0": crate::bindings::imports::sandcast::plugin::data,
            "wasi:logging/logging@0.1.0-draft": crate::bindings::imports::wasi::logging::logging,
            "wasi:config/store@0.2.0-rc.1": crate::bindings::imports::wasi::config::store,
            "wasi:clocks/wall-clock@0.2.12": crate::bindings::imports::wasi::clocks::wall_clock,
            "wasi:clocks/monotonic-clock@0.2.12": crate::bindings::imports::wasi::clocks::monotonic_clock,
            "wasi:random/random@0.2.12": crate::bindings::imports::wasi::random::random,
            "wasi:io/error@0.2.12": crate::bindings::imports::wasi::io::error,
            "wasi:io/poll@0.2.12": crate::bindings::imports::wasi::io::poll,
            "wasi:io/streams@0.2.12": crate::bindings::imports::wasi::io::streams,
            "wasi:filesystem/types@0.2.12": crate::bindings::imports::wasi::filesystem::types,
            "wasi:filesystem/preopens@0.2.12": crate::bindings::imports::wasi::filesystem::preopens,
            "wasi:http/types@0.2.12": crate::bindings::imports::wasi::http::types,
            "wasi:http/outgoing-handler@0.2.12": crate::bindings::imports::wasi::http::outgoing_handler,
            "wasi:keyvalue/store@0.2.0-draft2": crate::bindings::imports::wasi::keyvalue::store,
            "wasi:keyvalue/atomics@0.2.0-draft2": crate::bindings::imports::wasi::keyvalue::atomics,
            "wasi:keyvalue/batch@0.2.0-draft2": crate::bindings::imports::wasi::keyvalue::batch,
            "sandcast:plugin/sql@0.1.0": crate::bindings::imports::sandcast::plugin::sql,
            "sandcast:plugin/blob@0.1.0": crate::bindings::imports::sandcast::plugin::blob,
        },
    });
}

/// The export of a adapter.
pub mod adapter {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "adapter-plugin",
        pub_export_macro: true,
        generate_unused_types: true,
        default_bindings_module: "sandcast_sdk::bindings::adapter",
        with: {
            "sandcast:plugin/types@0.1.0": crate::bindings::imports::sandcast::plugin::types,
            "sandcast:plugin/data@0.1.0": crate::bindings::imports::sandcast::plugin::data,
            "wasi:logging/logging@0.1.0-draft": crate::bindings::imports::wasi::logging::logging,
            "wasi:config/store@0.2.0-rc.1": crate::bindings::imports::wasi::config::store,
            "wasi:clocks/wall-clock@0.2.12": crate::bindings::imports::wasi::clocks::wall_clock,
            "wasi:clocks/monotonic-clock@0.2.12": crate::bindings::imports::wasi::clocks::monotonic_clock,
            "wasi:random/random@0.2.12": crate::bindings::imports::wasi::random::random,
            "wasi:io/error@0.2.12": crate::bindings::imports::wasi::io::error,
            "wasi:io/poll@0.2.12": crate::bindings::imports::wasi::io::poll,
            "wasi:io/streams@0.2.12": crate::bindings::imports::wasi::io::streams,
            "wasi:filesystem/types@0.2.12": crate::bindings::imports::wasi::filesystem::types,
            "wasi:filesystem/preopens@0.2.12": crate::bindings::imports::wasi::filesystem::preopens,
            "wasi:http/types@0.2.12": crate::bindings::imports::wasi::http::types,
            "wasi:http/outgoing-handler@0.2.12": crate::bindings::imports::wasi::http::outgoing_handler,
            "wasi:keyvalue/store@0.2.0-draft2": crate::bindings::imports::wasi::keyvalue::store,
            "wasi:keyvalue/atomics@0.2.0-draft2": crate::bindings::imports::wasi::keyvalue::atomics,
            "wasi:keyvalue/batch@0.2.0-draft2": crate::bindings::imports::wasi::keyvalue::batch,
            "sandcast:plugin/sql@0.1.0": crate::bindings::imports::sandcast::plugin::sql,
            "sandcast:plugin/blob@0.1.0": crate::bindings::imports::sandcast::plugin::blob,
            "sandcast:plugin/compute@0.1.0": crate::bindings::imports::sandcast::plugin::compute,
            "sandcast:plugin/models@0.1.0": crate::bindings::imports::sandcast::plugin::models,
        },
    });
}
