//! How the model was learnt, and what it is.

use maud::{Markup, html};

use super::Section;
use super::chart::{Frame, at, ticks};
use super::input::{Epoch, Model, ReportInput, Training};
use super::text::{CELL, and_more, bytes, clip, compact, count, counted, digest, duration};

/// More points than this do not show on a screen.
const POINTS: usize = 400;
const FEATURES: usize = 60;
const HYPERPARAMETERS: usize = 40;

pub(super) fn section(input: &ReportInput) -> Option<Section> {
    let training = input.training.as_ref()?;
    let lead = format!(
        "{} learnt from, {} to stop early by, {} kept for the evaluation.",
        counted(training.rows_training, "row"),
        count(training.rows_validation),
        count(training.rows_test),
    );
    let body = html! {
        div.grid.wide-narrow {
            div.card {
                h3 { "Loss by epoch" }
                (legend(training))
                (curve(training))
            }
            div.card {
                h3 style="margin-bottom:8px" { "The model" }
                (facts(input, training))
            }
        }
        div.grid.wide-narrow {
            div.card {
                h3 { "What it was learnt from" }
                p.note style="margin-bottom:10px" {
                    @if let Some(target) = &training.target {
                        "The target is " code { (clip(target, CELL)) } "; the features are"
                    } @else { "There is no target; the features are" }
                }
                @for feature in training.features.iter().take(FEATURES) {
                    span.chip { (clip(feature, 60)) }
                }
                (and_more(FEATURES.min(training.features.len()), training.features.len(), "features"))
                @if !training.hyperparameters.is_empty() {
                    h3 style="margin-top:18px" { "Hyperparameters" }
                    p style="margin-top:8px" {
                        @for (name, value) in training.hyperparameters.iter().take(HYPERPARAMETERS) {
                            span.chip { (clip(name, 60)) " " strong { (clip(value, 60)) } }
                        }
                    }
                }
            }
            @if let Some(model) = &input.model { (adapter_card(model)) }
        }
    };
    Some(Section {
        id: "training",
        title: "Training",
        lead,
        body,
    })
}

fn legend(training: &Training) -> Markup {
    let validated = training
        .epochs
        .iter()
        .any(|epoch| epoch.validation_loss.is_some());
    html! {
        div.legend style="margin-top:6px" {
            span { i style="background:var(--blue)" {} "Training rows" }
            @if validated { span { i style="background:var(--violet)" {} "Validation rows" } }
            @if let Some(best) = training.best_epoch {
                span { "Weights of epoch " strong { (best) } " were kept" }
            }
        }
    }
}

fn curve(training: &Training) -> Markup {
    let epochs = thin(&training.epochs);
    let losses = || {
        let all = epochs
            .iter()
            .flat_map(|epoch| [Some(epoch.training_loss), epoch.validation_loss]);
        all.flatten().filter(|loss| loss.is_finite())
    };
    let (least, most) = losses().fold((f64::MAX, f64::MIN), |(least, most), loss| {
        (least.min(loss), most.max(loss))
    });
    if least > most {
        return html! { p.faint { "The adapter reported no epochs." } };
    }
    let margin = ((most - least) * 0.08).max(most.abs() * 1e-3).max(1e-9);
    let last = epochs.last().map_or(1, |epoch| epoch.epoch).max(2);
    let frame = Frame {
        width: 620.0,
        height: 320.0,
        left: 52.0,
        right: 12.0,
        top: 28.0,
        bottom: 40.0,
        x: (1.0, f64::from(last)),
        y: (least - margin, most + margin),
    };
    let of = |loss: fn(&Epoch) -> Option<f64>| -> Vec<(f64, f64)> {
        let points = epochs
            .iter()
            .filter_map(|epoch| Some((f64::from(epoch.epoch), loss(epoch)?)));
        points.filter(|(_, loss)| loss.is_finite()).collect()
    };
    let training_points = frame.points(of(|epoch| Some(epoch.training_loss)));
    let validation_points = frame.points(of(|epoch| epoch.validation_loss));
    html! {
        svg.chart viewBox=(frame.view_box()) role="img" aria-label="Loss by epoch" {
            (frame.axes(
                &epoch_ticks(last),
                &ticks(frame.y.0, frame.y.1, 5.0),
                "epoch",
                "loss",
            ))
            @if let Some(best) = training.best_epoch {
                line.diagonal x1=(at(frame.px(f64::from(best)))) x2=(at(frame.px(f64::from(best))))
                    y1=(at(frame.top)) y2=(at(frame.height - frame.bottom)) {}
            }
            polyline.line-blue points=(training_points) {}
            polyline.line-violet points=(validation_points) {}
            @if let Some(epoch) = training.epochs.iter().find(|epoch| Some(epoch.epoch) == training.best_epoch) {
                @if let Some(loss) = epoch.validation_loss {
                    circle.dot-violet r="4.5" cx=(at(frame.px(f64::from(epoch.epoch)))) cy=(at(frame.py(loss))) {}
                } @else {
                    circle.dot-blue r="4.5" cx=(at(frame.px(f64::from(epoch.epoch)))) cy=(at(frame.py(epoch.training_loss))) {}
                }
            }
        }
    }
}

/// Whole epochs only, the first among them.
fn epoch_ticks(last: u32) -> Vec<(f64, String)> {
    let mut all: Vec<(f64, String)> = ticks(0.0, f64::from(last), 8.0)
        .into_iter()
        .filter(|(epoch, _)| *epoch >= 1.0 && epoch.fract() == 0.0)
        .map(|(epoch, _)| (epoch, format!("{epoch:.0}")))
        .collect();
    if all.first().is_none_or(|(epoch, _)| *epoch > 1.0) {
        all.insert(0, (1.0, "1".to_owned()));
    }
    all
}

fn thin(epochs: &[Epoch]) -> Vec<&Epoch> {
    let step = epochs.len().div_ceil(POINTS).max(1);
    let last = epochs.len().saturating_sub(1);
    let kept = |index: &usize| index.is_multiple_of(step) || *index == last;
    epochs
        .iter()
        .enumerate()
        .filter(|(index, _)| kept(index))
        .map(|(_, epoch)| epoch)
        .collect()
}

fn plain(name: &str, value: &str) -> Markup {
    html! { @if !value.is_empty() { tr { th { (name) } td { (clip(value, CELL)) } } } }
}

/// What the vendor says about the adapter, in its manifest.
fn adapter_card(model: &Model) -> Markup {
    let says = [
        ("Intended use", &model.intended_use),
        ("Data sourcing", &model.data_sourcing),
        ("Updates", &model.update_cadence),
    ];
    if says.iter().all(|(_, text)| text.is_none()) {
        return html! {};
    }
    html! {
        div.card {
            h3 { "What its adapter says" }
            p.note style="margin-bottom:8px" { "In the manifest that its digest covers" }
            table.key-values {
                @for (name, text) in says { (plain(name, text.as_deref().unwrap_or_default())) }
            }
        }
    }
}

fn facts(input: &ReportInput, training: &Training) -> Markup {
    html! {
        table.key-values {
            @if let Some(model) = &input.model {
                @if let Some(name) = &model.name { (plain("Model", name)) }
                tr { th { "Digest" } td { (digest(&model.digest)) } }
                tr { th { "Size" } td { (bytes(model.bytes)) } }
            }
            (plain("Adapter", &training.adapter))
            (plain("Task", &training.task.replace('-', " ")))
            tr { th { "Parameters" } td { (count(training.parameters)) } }
            tr { th { "Took" } td { (duration(training.seconds)) (speed(training)) } }
            (plain("Device", &training.device))
            (plain("Precision", &training.precision))
        }
    }
}

fn speed(training: &Training) -> Markup {
    let rows = training.rows_training as f64 * training.epochs.len() as f64;
    html! {
        @if training.seconds > 0.0 && rows > 0.0 {
            span.soft { ", " (compact((rows / training.seconds).round())) " rows a second" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_is_thinned_and_keeps_its_end() {
        let epochs: Vec<Epoch> = (1..=1003)
            .map(|epoch| Epoch {
                epoch,
                ..Epoch::default()
            })
            .collect();
        let kept = thin(&epochs);
        assert!(kept.len() <= POINTS + 1, "{}", kept.len());
        assert_eq!(kept.last().map(|epoch| epoch.epoch), Some(1003));
    }

    #[test]
    fn epochs_are_whole() {
        let labels: Vec<String> = epoch_ticks(3).into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["1", "2", "3"]);
    }
}
