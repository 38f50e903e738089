//! What the charts are drawn with.

use maud::{Markup, html};

/// A coordinate, to a tenth of a pixel.
pub(super) fn at(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// A plot area inside of a drawing, with a linear scale on both sides.
pub(super) struct Frame {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
    pub(super) x: (f64, f64),
    pub(super) y: (f64, f64),
}

impl Frame {
    /// Where a value lies on the drawing, from the left.
    pub(super) fn px(&self, value: f64) -> f64 {
        let share = (value - self.x.0) / (self.x.1 - self.x.0);
        self.left + share * (self.width - self.left - self.right)
    }

    /// Where a value lies on the drawing, from the top.
    pub(super) fn py(&self, value: f64) -> f64 {
        let share = (value - self.y.0) / (self.y.1 - self.y.0);
        self.height - self.bottom - share * (self.height - self.top - self.bottom)
    }

    pub(super) fn view_box(&self) -> String {
        format!("0 0 {} {}", at(self.width), at(self.height))
    }

    /// Points as a polyline wants them.
    pub(super) fn points(&self, points: impl IntoIterator<Item = (f64, f64)>) -> String {
        let mut text = String::new();
        for (x, y) in points {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(&at(self.px(x)));
            text.push(',');
            text.push_str(&at(self.py(y)));
        }
        text
    }

    /// Grid, ticks and names of both axes.
    pub(super) fn axes(
        &self,
        x_ticks: &[(f64, String)],
        y_ticks: &[(f64, String)],
        x_name: &str,
        y_name: &str,
    ) -> Markup {
        let (left, right) = (self.left, self.width - self.right);
        let (top, bottom) = (self.top, self.height - self.bottom);
        html! {
            @for (value, label) in y_ticks {
                line.gridline x1=(at(left)) x2=(at(right))
                    y1=(at(self.py(*value))) y2=(at(self.py(*value))) {}
                text.faint x=(at(left - 8.0)) y=(at(self.py(*value) + 3.8)) text-anchor="end" {
                    (label)
                }
            }
            line.axis x1=(at(left)) x2=(at(right)) y1=(at(bottom)) y2=(at(bottom)) {}
            @for (value, label) in x_ticks {
                text.faint x=(at(self.px(*value))) y=(at(bottom + 17.0)) text-anchor="middle" {
                    (label)
                }
            }
            text x=(at((left + right) / 2.0)) y=(at(self.height - 4.0)) text-anchor="middle" {
                (x_name)
            }
            text x=(at(left)) y=(at(top - 10.0)) text-anchor="start" { (y_name) }
        }
    }
}

/// Round numbers from the first at or above `from` to the last at or below `to`, about `count`.
pub(super) fn ticks(from: f64, to: f64, count: f64) -> Vec<(f64, String)> {
    let span = to - from;
    if !(span.is_finite() && span > 0.0) {
        return Vec::new();
    }
    let rough = span / count;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough)
        .unwrap_or(10.0 * power);
    // As many decimals as tell two ticks apart.
    let whole = |decimals: &usize| {
        let shifted = step * 10_f64.powi(*decimals as i32);
        (shifted - shifted.round()).abs() < 1e-6
    };
    let decimals = (0..12).find(whole).unwrap_or(12);
    let first = (from / step - 1e-9).ceil() as i64;
    let last = (to / step + 1e-9).floor() as i64;
    (first..=last)
        .take(64)
        .map(|index| {
            let value = index as f64 * step;
            (value, format!("{value:.decimals$}"))
        })
        .collect()
}

/// Ticks at every fifth from 0 to 1.
pub(super) fn unit_ticks() -> Vec<(f64, String)> {
    (0..=5)
        .map(|fifth| {
            (
                f64::from(fifth) / 5.0,
                format!("{:.1}", f64::from(fifth) / 5.0),
            )
        })
        .collect()
}

/// A tick in a circle, or a cross in one.
pub(super) fn mark(passed: bool) -> Markup {
    html! {
        @if passed {
            svg.mark viewBox="0 0 18 18" role="img" aria-label="passed" {
                circle.bar-good cx="9" cy="9" r="8" {}
                path d="M5.4 9.3l2.4 2.4 4.8-5.1" fill="none" stroke="var(--card)"
                    stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" {}
            }
        } @else {
            svg.mark viewBox="0 0 18 18" role="img" aria-label="failed" {
                circle.bar-bad cx="9" cy="9" r="8" {}
                path d="M6.2 6.2l5.6 5.6M11.8 6.2l-5.6 5.6" fill="none" stroke="var(--card)"
                    stroke-width="1.8" stroke-linecap="round" {}
            }
        }
    }
}

/// One horizontal bar of several parts, each with a class and its size.
pub(super) fn stacked_bar(height: u32, parts: &[(&str, u64)]) -> Markup {
    const WIDTH: f64 = 1000.0;
    let whole: u64 = parts.iter().map(|(_, size)| size).sum();
    let mut drawn = Vec::with_capacity(parts.len());
    let mut start = 0.0;
    for (class, size) in parts.iter().filter(|(_, size)| *size > 0) {
        // What is there is seen, however little it is.
        let width = (*size as f64 / whole as f64 * WIDTH).max(4.0);
        drawn.push((class, at(f64::min(start, WIDTH - width)), at(width)));
        start += width;
    }
    html! {
        svg.meter viewBox=(format!("0 0 {WIDTH} {height}")) preserveAspectRatio="none"
            style=(format!("height:{height}px")) aria-hidden="true" {
            rect.track x="0" y="0" width=(at(WIDTH)) height=(height) {}
            @for (class, x, width) in drawn {
                rect class=(class) x=(x) y="0" width=(width) height=(height) {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: Vec<(f64, String)>) -> Vec<String> {
        ticks.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            labels(ticks(0.0, 1.0, 5.0)),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(labels(ticks(0.31, 0.62, 4.0)), ["0.4", "0.5", "0.6"]);
        assert_eq!(labels(ticks(1.0, 40.0, 5.0)), ["10", "20", "30", "40"]);
        assert_eq!(
            labels(ticks(0.0, 0.1, 4.0)),
            ["0.000", "0.025", "0.050", "0.075", "0.100"]
        );
    }

    #[test]
    fn there_are_no_ticks_of_nothing() {
        assert!(ticks(1.0, 1.0, 5.0).is_empty());
        assert!(ticks(f64::NAN, 1.0, 5.0).is_empty());
    }

    #[test]
    fn values_lie_where_they_should() {
        let frame = Frame {
            width: 110.0,
            height: 120.0,
            left: 10.0,
            right: 0.0,
            top: 0.0,
            bottom: 20.0,
            x: (0.0, 1.0),
            y: (0.0, 10.0),
        };
        assert_eq!(
            frame.points([(0.0, 0.0), (1.0, 10.0), (0.5, 5.0)]),
            "10,100 110,0 60,50"
        );
    }
}
