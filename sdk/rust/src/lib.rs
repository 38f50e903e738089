//! sdk
pub mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "adapter-plugin", generate_all, pub_export_macro: true, default_bindings_module: "sandcast_sdk::bindings" });
}
