//! The stages of the line. Each takes what the one before it has made, so that none can be left
//! out: `Loaded -> Connected -> Validated -> Permitted -> Trained -> Evaluated -> Approved ->
//! Registered`.

mod columns;
mod connect;
mod evaluate;
mod examples;
mod gate;
mod line;
mod load;
mod permit;
mod points;
mod policy;
mod register;
mod split;
mod train;
mod validate;

pub(crate) use columns::name_of;
pub(crate) use examples::classes_of;
pub use gate::Approved;
pub(crate) use line::{Halt, Line, Stop, chain};
pub(crate) use register::Registered;

/// Goes down the line. Each stage is a future on the heap: in one piece they are deeper than the
/// stack of a thread.
pub(crate) async fn all(line: &Line<'_>) -> Result<Registered, Halt> {
    let loaded = Box::pin(load::load(line)).await?;
    let connected = Box::pin(connect::connect(line, loaded)).await?;
    let validated = Box::pin(validate::validate(line, connected)).await?;
    let permitted = Box::pin(permit::permit(line, validated)).await?;
    let trained = Box::pin(train::train(line, permitted)).await?;
    let evaluated = Box::pin(evaluate::evaluate(line, trained)).await?;
    let approved = Box::pin(gate::gate(line, evaluated)).await?;
    Box::pin(register::register(line, approved)).await
}
