//! What the columns hold.

use maud::{Markup, html};

use super::input::{Column, ReportInput};
use super::text::{and_more, clip, compact, count, counted, percent};
use super::{Section, chart};

const COLUMNS: usize = 60;
const BINS: usize = 40;
const TOP: usize = 4;

pub(super) fn section(input: &ReportInput) -> Option<Section> {
    if input.profile.is_empty() {
        return None;
    }
    let lead = format!(
        "{} of the rows that passed.",
        counted(input.profile.len() as u64, "column")
    );
    let body = html! {
        div.card.scroll {
            table {
                thead {
                    tr {
                        th { "Column" } th { "Used as" } th.number { "Missing" }
                        th.number { "Different" } th.number { "Least" } th.number { "Mean ± deviation" }
                        th.number { "Greatest" } th style="width:250px" { "How values are spread" }
                    }
                }
                tbody { @for column in input.profile.iter().take(COLUMNS) { (row(column)) } }
            }
            (and_more(COLUMNS.min(input.profile.len()), input.profile.len(), "columns"))
        }
    };
    Some(Section {
        id: "columns",
        title: "Columns",
        lead,
        body,
    })
}

fn row(column: &Column) -> Markup {
    let rows = column.count + column.nulls;
    html! {
        tr {
            th { (clip(&column.name, 60)) span.under { (clip(&column.kind, 30)) } }
            td {
                @for usage in column.uses.iter().take(4) {
                    span.chip.blue[usage == "target"] { (clip(usage, 20)) }
                }
            }
            td.number.warn[column.nulls > 0] { (percent(column.nulls, rows)) }
            td.number {
                @if let Some(distinct) = column.distinct { (count(distinct)) } @else { "–" }
            }
            td.number { (bound(column, &column.minimum)) }
            td.number {
                @if let Some(mean) = column.mean {
                    (compact(mean))
                    @if let Some(deviation) = column.deviation { span.soft { " ± " (compact(deviation)) } }
                } @else { "–" }
            }
            td.number { (bound(column, &column.maximum)) }
            td {
                @if is_spread(column) { (histogram(&column.histogram)) }
                @else { (top(column)) }
            }
        }
    }
}

/// The least and the greatest of what has an order that means something.
fn bound<'a>(column: &Column, value: &'a Option<String>) -> std::borrow::Cow<'a, str> {
    match value {
        Some(value) if is_spread(column) => match value.parse::<f64>() {
            Ok(number) => compact(number).into(),
            Err(_) => clip(value, 24).into(),
        },
        _ => "–".into(),
    }
}

fn is_spread(column: &Column) -> bool {
    column.histogram.iter().any(|rows| *rows > 0)
}

/// Bars of equal width, the highest as high as there is space.
fn histogram(rows: &[u64]) -> Markup {
    const WIDTH: f64 = 236.0;
    const HEIGHT: f64 = 34.0;
    let bins = fewer_bins(rows);
    let most = bins.iter().copied().max().unwrap_or(1).max(1) as f64;
    let step = WIDTH / bins.len().max(1) as f64;
    html! {
        svg width=(WIDTH) height=(HEIGHT) viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) aria-hidden="true" {
            @for (index, rows) in bins.iter().enumerate() {
                @if *rows > 0 {
                    @let height = (*rows as f64 / most * (HEIGHT - 2.0)).max(1.0);
                    rect.bar x=(chart::at(index as f64 * step)) y=(chart::at(HEIGHT - 1.0 - height))
                        width=(chart::at((step - 1.0).max(0.6))) height=(chart::at(height)) opacity="0.75" {}
                }
            }
            line.axis x1="0" x2=(WIDTH) y1=(HEIGHT - 0.5) y2=(HEIGHT - 0.5) {}
        }
    }
}

fn fewer_bins(rows: &[u64]) -> Vec<u64> {
    let together = rows.len().div_ceil(BINS).max(1);
    rows.chunks(together)
        .map(|bins| bins.iter().sum())
        .collect()
}

/// The most frequent values as parts of one bar.
fn top(column: &Column) -> Markup {
    let shown: u64 = column.top.iter().take(TOP).map(|(_, rows)| rows).sum();
    let others = column.count.saturating_sub(shown);
    if column.top.is_empty() {
        return html! { span.faint { "–" } };
    }
    if column
        .distinct
        .is_some_and(|distinct| distinct > column.count / 2)
    {
        return html! { span.under { "nearly every row has a value of its own" } };
    }
    const SHADES: [&str; TOP] = ["opacity:.95", "opacity:.7", "opacity:.48", "opacity:.3"];
    let mut start = 0.0;
    let parts: Vec<(String, String, &str)> = column
        .top
        .iter()
        .take(TOP)
        .zip(SHADES)
        .map(|((_, rows), shade)| {
            let width = *rows as f64 / column.count.max(1) as f64 * 236.0;
            let part = (chart::at(start), chart::at((width - 1.0).max(0.5)), shade);
            start += width;
            part
        })
        .collect();
    let most_frequent: Vec<String> = column
        .top
        .iter()
        .take(2)
        .map(|(value, rows)| {
            let value = if value.is_empty() { "(empty)" } else { value };
            format!("{} {}", clip(value, 18), percent(*rows, column.count))
        })
        .collect();
    html! {
        svg width="236" height="8" viewBox="0 0 236 8" aria-hidden="true" {
            rect.track x="0" y="0" width="236" height="8" {}
            @for (x, width, shade) in parts {
                rect.bar x=(x) y="0" width=(width) height="8" style=(shade) {}
            }
        }
        span.under {
            (most_frequent.join(" · "))
            @if others > 0 || column.top.len() > 2 { " · …" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_bins_are_put_together() {
        let bins = fewer_bins(&vec![1; 1000]);
        assert_eq!((bins.len(), bins.iter().sum::<u64>()), (40, 1000));
        assert_eq!(fewer_bins(&[3, 4]), [3, 4]);
    }

    #[test]
    fn the_bounds_of_text_are_not_shown() {
        let mut column = Column {
            minimum: Some("41.5".to_owned()),
            ..Column::default()
        };
        assert_eq!(bound(&column, &column.minimum), "–");
        column.histogram = vec![1];
        assert_eq!(bound(&column, &column.minimum), "41.50");
    }
}
