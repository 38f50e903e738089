//! Bringing rows in.

use serde::de::DeserializeOwned;

pub use crate::bindings::connector::exports::sandcast::plugin::connector::{
    Chunk, Comparison, Filter, Literal, Reject, ScanRequest, Split,
};
use crate::{Batch, Failure, Field};

/// Brings rows in. One instance reads one split, from `open` to the end of `next`.
///
/// Rows are accounted for: those of a chunk's batch and its rejects together are its `rows_read`.
/// A row that cannot be read is a [`Reject`] with its number and reason, never dropped. Numbers count
/// from 1 within the split and rise from reject to reject.
pub trait Connector: Sized {
    /// The configuration, parsed from a JSON object.
    type Config: DeserializeOwned;

    /// Takes the configuration. The first call of every instance.
    ///
    /// # Errors
    /// `invalid-config` for values that make no sense.
    fn open(config: Self::Config) -> Result<Self, Failure>;

    /// The columns of the source.
    ///
    /// # Errors
    /// Whatever keeps the plugin from knowing.
    fn schema(&mut self) -> Result<Vec<Field>, Failure>;

    /// The parts of the source that can be read alone.
    ///
    /// # Errors
    /// Whatever keeps the plugin from listing them.
    fn partitions(&mut self) -> Result<Vec<Split>, Failure>;

    /// Starts to read a split. Filters and limit may be used to read less; the host applies them
    /// again. The projection must be honoured.
    ///
    /// # Errors
    /// Whatever keeps the plugin from starting.
    fn scan(&mut self, request: ScanRequest) -> Result<(), Failure>;

    /// The next rows, or nothing at the end.
    ///
    /// # Errors
    /// Whatever makes reading further pointless; the rows before it are lost to the run.
    fn next(&mut self) -> Result<Option<Chunk>, Failure>;

    /// Where the next incremental sync should start; known after the end.
    fn cursor(&self) -> Option<String> {
        None
    }
}

impl Split {
    /// A source of a single split. The id is its token too.
    #[must_use]
    pub fn whole(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            token: id.to_owned(),
            rows: None,
            bytes: None,
            version: None,
        }
    }
}

impl Chunk {
    /// Rows that all could be read.
    #[must_use]
    pub fn rows(batch: Batch) -> Self {
        Self {
            rows_read: u64::from(batch.rows()),
            batch: Some(batch),
            rejects: Vec::new(),
        }
    }

    /// Rows some of which may have been rejected.
    #[must_use]
    pub fn with_rejects(batch: Option<Batch>, rejects: Vec<Reject>) -> Self {
        let kept = batch.as_ref().map_or(0, |batch| u64::from(batch.rows()));
        Self {
            rows_read: kept + rejects.len() as u64,
            batch,
            rejects,
        }
    }
}

/// Exports a [`Connector`] from this component.
#[macro_export]
macro_rules! export_connector {
    ($plugin:ty) => {
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: $crate::Instance<$plugin> = const { $crate::Instance::empty() };
            }

            struct Component;

            impl $crate::bindings::connector::exports::sandcast::plugin::connector::Guest for Component {
                fn open(config: ::std::string::String) -> ::core::result::Result<(), $crate::Failure> {
                    INSTANCE.with(|instance| {
                        instance.start(
                            $crate::config::parse(&config).and_then(<$plugin as $crate::Connector>::open),
                        )
                    })
                }

                fn schema() -> ::core::result::Result<::std::vec::Vec<$crate::Field>, $crate::Failure> {
                    INSTANCE.with(|instance| instance.with(<$plugin as $crate::Connector>::schema))
                }

                fn partitions() -> ::core::result::Result<::std::vec::Vec<$crate::Split>, $crate::Failure> {
                    INSTANCE.with(|instance| instance.with(<$plugin as $crate::Connector>::partitions))
                }

                fn scan(request: $crate::ScanRequest) -> ::core::result::Result<(), $crate::Failure> {
                    INSTANCE.with(|instance| {
                        instance.with(|plugin| <$plugin as $crate::Connector>::scan(plugin, request))
                    })
                }

                fn next()
                -> ::core::result::Result<::core::option::Option<$crate::Chunk>, $crate::Failure> {
                    INSTANCE.with(|instance| instance.with(<$plugin as $crate::Connector>::next))
                }

                fn cursor() -> ::core::option::Option<::std::string::String> {
                    INSTANCE.with(|instance| {
                        instance.with(|plugin| Ok(<$plugin as $crate::Connector>::cursor(plugin))).ok().flatten()
                    })
                }
            }

            // A native build has no component to export from, and its linker refuses the names.
            #[cfg(target_family = "wasm")]
            $crate::bindings::connector::export!(Component with_types_in $crate::bindings::connector);
            // In a native build nothing else uses it, and the whole plugin would count as dead.
            let _ = Component;
        };
    };
}
