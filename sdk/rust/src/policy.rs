//! Deciding what may happen.

use serde::de::DeserializeOwned;

use crate::Failure;
pub use crate::bindings::policy::exports::sandcast::plugin::policy::{
    ControlPoint, Decision, Effect, Obligation, Request,
};

/// Decides what may happen.
///
/// ```
/// use sandcast_sdk::{Decision, Failure, Policy, Request};
///
/// #[derive(serde::Deserialize)]
/// struct Config {
///     principal: String,
/// }
///
/// struct OnlyOne(Config);
///
/// impl Policy for OnlyOne {
///     type Config = Config;
///
///     fn configure(config: Config) -> Result<Self, Failure> {
///         Ok(Self(config))
///     }
///
///     fn decide(&mut self, request: &Request) -> Result<Decision, Failure> {
///         Ok(if request.principal == self.0.principal {
///             Decision::allow("the principal is the one named in the configuration")
///         } else {
///             Decision::deny(format!("only `{}` may `{}`", self.0.principal, request.action))
///         })
///     }
/// }
///
/// sandcast_sdk::export_policy!(OnlyOne);
/// # fn main() {}
/// ```
pub trait Policy: Sized {
    /// The configuration, parsed from a JSON object.
    type Config: DeserializeOwned;

    /// Takes the configuration. The first call of every instance.
    ///
    /// # Errors
    /// `invalid-config` for values that make no sense.
    fn configure(config: Self::Config) -> Result<Self, Failure>;

    /// Decides one request.
    ///
    /// # Errors
    /// Whatever keeps the plugin from deciding; the host then treats the request as denied.
    fn decide(&mut self, request: &Request) -> Result<Decision, Failure>;
}

impl Decision {
    /// Go ahead, and why.
    pub fn allow(reason: impl Into<String>) -> Self {
        Self::because(Effect::Allow, reason)
    }

    /// Do not, and why.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self::because(Effect::Deny, reason)
    }

    /// A person must agree first, and why.
    pub fn require_approval(reason: impl Into<String>) -> Self {
        Self::because(Effect::RequireApproval, reason)
    }

    fn because(effect: Effect, reason: impl Into<String>) -> Self {
        Self {
            effect,
            reasons: vec![reason.into()],
            obligations: Vec::new(),
        }
    }

    /// Adds something the host must do if it goes ahead; `parameters` is a JSON object.
    #[must_use]
    pub fn oblige(mut self, kind: &str, parameters: impl Into<String>) -> Self {
        self.obligations.push(Obligation {
            kind: kind.to_owned(),
            parameters: parameters.into(),
        });
        self
    }
}

/// Exports a [`Policy`] from this component.
#[macro_export]
macro_rules! export_policy {
    ($plugin:ty) => {
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: $crate::Instance<$plugin> = const { $crate::Instance::empty() };
            }

            struct Component;

            impl $crate::bindings::policy::exports::sandcast::plugin::policy::Guest for Component {
                fn configure(
                    config: ::std::string::String,
                ) -> ::core::result::Result<(), $crate::Failure> {
                    INSTANCE.with(|instance| {
                        instance.start(
                            $crate::config::parse(&config)
                                .and_then(<$plugin as $crate::Policy>::configure),
                        )
                    })
                }

                fn decide(
                    request: $crate::Request,
                ) -> ::core::result::Result<$crate::Decision, $crate::Failure> {
                    INSTANCE.with(|instance| {
                        instance
                            .with(|plugin| <$plugin as $crate::Policy>::decide(plugin, &request))
                    })
                }
            }

            // A native build has no component to export from, and its linker refuses the names.
            #[cfg(target_family = "wasm")]
    $crate::bindings::policy::export!(Component with_types_in $crate::bindings::policy);
            // In a native build nothing else uses it, and the whole plugin would count as dead.
            let _ = Component;
        };
    };
}
