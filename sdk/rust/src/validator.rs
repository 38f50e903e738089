//! Saying which rows can be trusted.

use serde::de::DeserializeOwned;

pub use crate::bindings::imports::sandcast::plugin::types::Severity;
pub use crate::bindings::validator::exports::sandcast::plugin::validator::{
    Finding, Rule, Verdict,
};
use crate::{Batch, Failure, Field};

/// Says which rows can be trusted. One instance sees every batch of one dataset, in order.
///
/// ```
/// use sandcast_sdk::{Batch, Failure, Field, Finding, Rule, Severity, Validator, Verdict};
///
/// #[derive(serde::Deserialize)]
/// struct Config {
///     column: String,
/// }
///
/// struct NotNull {
///     column: String,
///     index: u32,
///     checked: u64,
///     failed: u64,
/// }
///
/// impl Validator for NotNull {
///     type Config = Config;
///
///     fn configure(config: Config, schema: &[Field]) -> Result<Self, Failure> {
///         let index = schema.iter().position(|field| field.name == config.column)
///             .ok_or_else(|| Failure::invalid_config("column", format!("no column `{}`", config.column)))?;
///         Ok(Self { column: config.column, index: index as u32, checked: 0, failed: 0 })
///     }
///
///     fn rules(&self) -> Vec<Rule> {
///         vec![Rule {
///             id: "not-null".into(),
///             kind: "not-null".into(),
///             columns: vec![self.column.clone()],
///             severity: Severity::Error,
///             mostly: 1.0,
///             description: format!("`{}` is never null", self.column),
///         }]
///     }
///
///     fn check(&mut self, batch: &Batch) -> Result<Vec<Finding>, Failure> {
///         let column = batch.column(self.index)?;
///         let rows: Vec<u32> = (0..column.rows).filter(|&row| column.is_null(row as usize)).collect();
///         self.checked += u64::from(column.rows);
///         self.failed += rows.len() as u64;
///         if rows.is_empty() {
///             return Ok(Vec::new());
///         }
///         Ok(vec![Finding {
///             rule: "not-null".into(),
///             column: Some(self.column.clone()),
///             severity: Severity::Error,
///             rows,
///             message: format!("`{}` is null", self.column),
///         }])
///     }
///
///     fn finish(&mut self) -> Result<Vec<Verdict>, Failure> {
///         Ok(vec![Verdict {
///             rule: "not-null".into(),
///             passed: self.failed == 0,
///             rows_checked: self.checked,
///             rows_failed: self.failed,
///             message: format!("{} of {} rows are null", self.failed, self.checked),
///         }])
///     }
/// }
///
/// sandcast_sdk::export_validator!(NotNull);
/// # fn main() {}
/// ```
pub trait Validator: Sized {
    /// The configuration, parsed from a JSON object.
    type Config: DeserializeOwned;

    /// Takes the configuration and the columns. The first call of every instance.
    ///
    /// # Errors
    /// `invalid-config` for values that make no sense, such as a column that is not there.
    fn configure(config: Self::Config, schema: &[Field]) -> Result<Self, Failure>;

    /// The rules as the plugin has understood them.
    fn rules(&self) -> Vec<Rule>;

    /// Looks at a batch. Row numbers of a finding count from 0 within the batch and rise; its
    /// column, if it names one, is one of the schema.
    ///
    /// # Errors
    /// Whatever keeps the plugin from looking; a row that fails is a finding, not an error.
    fn check(&mut self, batch: &Batch) -> Result<Vec<Finding>, Failure>;

    /// Judges, once every batch has been seen: one verdict a rule. The host holds it against the rows
    /// it has lent and the findings about them: no more rows checked than there were, no fewer failed
    /// than found, and no pass where too many were found.
    ///
    /// # Errors
    /// Whatever keeps the plugin from judging.
    fn finish(&mut self) -> Result<Vec<Verdict>, Failure>;
}

/// Exports a [`Validator`] from this component.
#[macro_export]
macro_rules! export_validator {
    ($plugin:ty) => {
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: $crate::Instance<$plugin> = const { $crate::Instance::empty() };
            }

            struct Component;

            impl $crate::bindings::validator::exports::sandcast::plugin::validator::Guest for Component {
                fn configure(
                    config: ::std::string::String,
                    schema: ::std::vec::Vec<$crate::Field>,
                ) -> ::core::result::Result<::std::vec::Vec<$crate::Rule>, $crate::Failure> {
                    INSTANCE.with(|instance| {
                        instance.start($crate::config::parse(&config).and_then(|config| {
                            <$plugin as $crate::Validator>::configure(config, &schema)
                        }))?;
                        instance.with(|plugin| Ok(<$plugin as $crate::Validator>::rules(plugin)))
                    })
                }

                fn check(
                    batch: $crate::Batch,
                ) -> ::core::result::Result<::std::vec::Vec<$crate::Finding>, $crate::Failure> {
                    INSTANCE.with(|instance| {
                        instance.with(|plugin| <$plugin as $crate::Validator>::check(plugin, &batch))
                    })
                }

                fn finish() -> ::core::result::Result<::std::vec::Vec<$crate::Verdict>, $crate::Failure> {
                    INSTANCE.with(|instance| instance.with(<$plugin as $crate::Validator>::finish))
                }
            }

            // A native build has no component to export from, and its linker refuses the names.
            #[cfg(target_family = "wasm")]
            $crate::bindings::validator::export!(Component with_types_in $crate::bindings::validator);
            // In a native build nothing else uses it, and the whole plugin would count as dead.
            let _ = Component;
        };
    };
}
