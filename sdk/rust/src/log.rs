//! Messages for whoever runs the pipeline, through `wasi:logging`. They are bounded and kept by the
//! host; put no payloads and no secrets into them.

use crate::bindings::imports::wasi::logging::logging;
pub use crate::bindings::imports::wasi::logging::logging::Level;

/// Leaves one message; `context` groups messages of one concern. The macros pass the module.
pub fn message(level: Level, context: &str, text: &str) {
    logging::log(level, context, text);
}

/// Sends what a panic says to the log, so that the trap that follows has a reason beside it.
/// Call it first; the plugin then always imports `wasi:logging`.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        logging::log(Level::Critical, "panic", &panic.to_string());
    }));
}

/// Leaves a message of level `debug`, as `format!` makes it.
#[macro_export]
#[doc(hidden)]
macro_rules! __log_debug {
    ($($argument:tt)+) => {
        $crate::log::message($crate::log::Level::Debug, ::core::module_path!(), &::std::format!($($argument)+))
    };
}

/// Leaves a message of level `info`, as `format!` makes it.
#[macro_export]
#[doc(hidden)]
macro_rules! __log_info {
    ($($argument:tt)+) => {
        $crate::log::message($crate::log::Level::Info, ::core::module_path!(), &::std::format!($($argument)+))
    };
}

/// Leaves a message of level `warn`, as `format!` makes it.
#[macro_export]
#[doc(hidden)]
macro_rules! __log_warn {
    ($($argument:tt)+) => {
        $crate::log::message($crate::log::Level::Warn, ::core::module_path!(), &::std::format!($($argument)+))
    };
}

/// Leaves a message of level `error`, as `format!` makes it.
#[macro_export]
#[doc(hidden)]
macro_rules! __log_error {
    ($($argument:tt)+) => {
        $crate::log::message($crate::log::Level::Error, ::core::module_path!(), &::std::format!($($argument)+))
    };
}

#[doc(inline)]
pub use {__log_debug as debug, __log_error as error, __log_info as info, __log_warn as warn};
