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
mod policy;
mod register;
mod split;
mod train;
mod validate;

pub(crate) use columns::name_of;
pub use gate::Approved;
pub(crate) use line::{Halt, Line, Stop, chain};
pub(crate) use register::Registered;

/// Goes down the line.
pub(crate) async fn all(line: &Line<'_>) -> Result<Registered, Halt> {
    let loaded = load::load(line).await?;
    let connected = connect::connect(line, loaded).await?;
    let validated = validate::validate(line, connected).await?;
    let permitted = permit::permit(line, validated).await?;
    let trained = train::train(line, permitted).await?;
    let evaluated = evaluate::evaluate(line, trained).await?;
    let approved = gate::gate(line, evaluated).await?;
    register::register(line, approved).await
}
