//! Where the export macros keep the plugin between calls.

use std::cell::RefCell;

use crate::Failure;

/// The one plugin of this component instance. Used by the export macros.
#[derive(Debug)]
pub struct Instance<T>(RefCell<Option<T>>);

impl<T> Instance<T> {
    /// Holds nothing until [`Instance::start`].
    #[must_use]
    pub const fn empty() -> Self {
        Self(RefCell::new(None))
    }

    /// Takes the plugin that the first call made.
    ///
    /// # Errors
    /// What the plugin failed with.
    pub fn start(&self, made: Result<T, Failure>) -> Result<(), Failure> {
        *self.0.borrow_mut() = Some(made?);
        Ok(())
    }

    /// Calls the plugin.
    ///
    /// # Errors
    /// What the call failed with, or that it came before the first one.
    pub fn with<R>(&self, call: impl FnOnce(&mut T) -> Result<R, Failure>) -> Result<R, Failure> {
        match self.0.borrow_mut().as_mut() {
            Some(plugin) => call(plugin),
            None => Err(Failure::internal(
                "the plugin was called before it was configured",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_before_the_first_are_failures() {
        let instance = Instance::<u32>::empty();
        assert!(instance.with(|value| Ok(*value)).is_err());
        assert!(instance.start(Err(Failure::internal("no"))).is_err());
        instance.start(Ok(7)).expect("started");
        assert_eq!(instance.with(|value| Ok(*value)).expect("called"), 7);
    }
}
