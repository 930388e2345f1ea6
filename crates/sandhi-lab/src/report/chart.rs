//! Line charts as inline SVG, linear and logarithmic.
//!
//! A curve of more points than the picture has room for is drawn as the mean of each bucket of
//! points with a pale band from the smallest to the largest: the eye sees the trend, nothing hides
//! the noise.

use std::fmt::Write;

use super::data::{Chart, Curve};
use super::html::{Text, significant};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Points of a curve that are drawn at most.
const N_BUCKETS: usize = 180;
/// Colors of the style sheet.
const N_COLORS: usize = 6;

/// A chart with its heading, legend and, where it makes sense, both scales; empty for a chart
/// without a finite point.
pub(super) fn figure(out: &mut String, chart: &Chart, index: usize) {
    let curves: Vec<Line> = chart.curves.iter().map(Line::of).collect();
    let Some(range) = Range::of(&curves) else { return };
    let log = range.y.0 > 0.0 && range.y.1 > range.y.0;
    let log_first = log && range.y.1 / range.y.0 >= 8.0;

    let _ = write!(out, "<figure class=\"chart\"><figcaption><h3>{}</h3>", Text(&chart.title));
    if log {
        let checked = |on: bool| if on { " checked" } else { "" };
        let _ = write!(
            out,
            "<input type=\"radio\" name=\"scale{index}\" id=\"lin{index}\" class=\"lin\"{}>\
             <input type=\"radio\" name=\"scale{index}\" id=\"log{index}\" class=\"log\"{}>\
             <span class=\"scale\"><label for=\"lin{index}\">linear</label>\
             <label for=\"log{index}\">log</label></span>",
            checked(!log_first),
            checked(log_first)
        );
    }
    let _ = write!(out, "<p>{}</p></figcaption>", Text(&chart.caption));
    legend(out, &curves);
    svg(out, chart, &curves, &range, false);
    if log {
        svg(out, chart, &curves, &range, true);
    }
    out.push_str("</figure>\n");
}

fn legend(out: &mut String, curves: &[Line]) {
    if curves.len() < 2 {
        return;
    }
    out.push_str("<ul class=\"legend\">");
    for (index, curve) in curves.iter().enumerate() {
        let _ = write!(
            out,
            "<li><svg viewBox=\"0 0 26 10\" width=\"26\" height=\"10\" aria-hidden=\"true\">\
             <path class=\"line c{}\" d=\"M1 5H25\"/></svg>{}</li>",
            index % N_COLORS,
            Text(curve.name)
        );
    }
    out.push_str("</ul>");
}

/// A point of a drawn line: the mean of a bucket and the range of its values.
struct Point {
    x: f64,
    mean: f64,
    low: f64,
    high: f64,
}

struct Line<'a> {
    name: &'a str,
    points: Vec<Point>,
    first: (f64, f64),
    last: (f64, f64),
}

impl<'a> Line<'a> {
    fn of(curve: &'a Curve) -> Self {
        let finite: Vec<(f64, f64)> =
            curve.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        let points = finite
            .chunks(finite.len().div_ceil(N_BUCKETS).max(1))
            .map(|bucket| {
                let n = bucket.len() as f64;
                Point {
                    x: bucket.iter().map(|p| p.0).sum::<f64>() / n,
                    mean: bucket.iter().map(|p| p.1).sum::<f64>() / n,
                    low: bucket.iter().map(|p| p.1).fold(f64::INFINITY, f64::min),
                    high: bucket.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max),
                }
            })
            .collect();
        let end = |point: Option<&(f64, f64)>| point.copied().unwrap_or((f64::NAN, f64::NAN));
        Self { name: &curve.name, points, first: end(finite.first()), last: end(finite.last()) }
    }
}

/// What the axes must show.
struct Range {
    x: (f64, f64),
    y: (f64, f64),
}

impl Range {
    /// `None` when there is nothing to show.
    fn of(lines: &[Line]) -> Option<Self> {
        let points = || lines.iter().flat_map(|line| &line.points);
        let span = |low: fn(&Point) -> f64, high: fn(&Point) -> f64| {
            (
                points().map(low).fold(f64::INFINITY, f64::min),
                points().map(high).fold(f64::NEG_INFINITY, f64::max),
            )
        };
        points().next()?;
        Some(Self { x: span(|p| p.x, |p| p.x), y: span(|p| p.low, |p| p.high) })
    }
}

/// An axis from data to picture, with its ticks.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    /// Where `low` and `high` lie in the picture.
    pixels: (f64, f64),
}

impl Axis {
    fn linear(range: (f64, f64), pixels: (f64, f64)) -> Self {
        let margin = if range.1 > range.0 { 0.0 } else { range.0.abs().max(1.0) * 0.5 };
        Self { low: range.0 - margin, high: range.1 + margin, log: false, pixels }
    }

    fn logarithmic(range: (f64, f64), pixels: (f64, f64)) -> Self {
        Self { low: range.0 / 1.08, high: range.1 * 1.08, log: true, pixels }
    }

    fn at(&self, value: f64) -> f64 {
        let share = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.pixels.0 + (self.pixels.1 - self.pixels.0) * share
    }

    /// Round values, three to seven of them where the range allows.
    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let decades = (self.high / self.low).log10();
            let steps: &[f64] = match decades {
                d if d > 3.0 => &[1.0],
                d if d > 0.7 => &[1.0, 2.0, 5.0],
                _ => &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
            };
            let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
            return (first..=last)
                .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)))
                .filter(|tick| (self.low..=self.high).contains(tick))
                .collect();
        }
        let rough = (self.high - self.low) / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
        let step =
            power * steps.iter().find(|step| *step * power >= rough * 0.999).unwrap_or(&10.0);
        let first = (self.low / step).ceil() as i64;
        (first..).map(|n| n as f64 * step).take_while(|tick| *tick <= self.high).take(12).collect()
    }
}

fn svg(out: &mut String, chart: &Chart, lines: &[Line], range: &Range, log: bool) {
    // Step 1 stands at the left end; an axis that begins at 0 has the rounder ticks.
    let begin = if range.x.0 > 0.0 && range.x.0 < range.x.1 * 0.1 { 0.0 } else { range.x.0 };
    let x = Axis::linear((begin, range.x.1), (LEFT, WIDTH - RIGHT));
    let pixels = (HEIGHT - BOTTOM, TOP);
    let y = if log {
        Axis::logarithmic(range.y, pixels)
    } else {
        // A loss is read against zero unless zero is far away.
        let low = if range.y.0 > 0.0 && range.y.0 < range.y.1 * 0.6 { 0.0 } else { range.y.0 };
        Axis::linear((low, range.y.1 + (range.y.1 - low) * 0.04), pixels)
    };
    let _ = write!(
        out,
        "<svg class=\"{}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        if log { "plot-log" } else { "plot-lin" },
        Text(&description(chart, lines))
    );
    for tick in y.ticks() {
        let at = y.at(tick);
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" class=\"tick end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 7.0,
            at + 4.0,
            significant(tick)
        );
    }
    for tick in x.ticks() {
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"tick mid\">{}</text>",
            x.at(tick),
            HEIGHT - BOTTOM + 17.0,
            significant(tick)
        );
    }
    let _ = write!(
        out,
        "<path class=\"axis\" d=\"M{LEFT} {0:.1}H{1:.1}\"/>\
         <text x=\"{2:.1}\" y=\"{3:.1}\" class=\"label mid\">{4}</text>\
         <text transform=\"translate(13 {5:.1}) rotate(-90)\" class=\"label mid\">{6}</text>",
        HEIGHT - BOTTOM,
        WIDTH - RIGHT,
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 6.0,
        Text(&chart.x_label),
        f64::midpoint(TOP, HEIGHT - BOTTOM),
        Text(&chart.y_label)
    );
    if chart.fill_between
        && let [one, other, ..] = lines
    {
        let path = |line: &Line| trace(line.points.iter().map(|p| (x.at(p.x), y.at(p.mean))));
        let back = trace(other.points.iter().rev().map(|p| (x.at(p.x), y.at(p.mean))));
        if !one.points.is_empty() && !other.points.is_empty() {
            let back = back.replacen('M', "L", 1);
            let _ = write!(out, "<path class=\"gap\" d=\"{}{back}Z\"/>", path(one));
        }
    }
    for (index, line) in lines.iter().enumerate().rev() {
        let color = index % N_COLORS;
        if line.points.iter().any(|p| p.high > p.low) {
            let up = trace(line.points.iter().map(|p| (x.at(p.x), y.at(p.high))));
            let down = trace(line.points.iter().rev().map(|p| (x.at(p.x), y.at(p.low))));
            let down = down.replacen('M', "L", 1);
            let _ = write!(out, "<path class=\"band c{color}\" d=\"{up}{down}Z\"/>");
        }
        let path = trace(line.points.iter().map(|p| (x.at(p.x), y.at(p.mean))));
        let _ = write!(out, "<path class=\"line c{color}\" d=\"{path}\"/>");
        if line.points.len() <= 24 {
            for point in &line.points {
                let _ = write!(
                    out,
                    "<circle class=\"dot c{color}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.6\"/>",
                    x.at(point.x),
                    y.at(point.mean)
                );
            }
        }
    }
    out.push_str("</svg>");
}

/// A path through points of the picture.
fn trace(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (index, (x, y)) in points.enumerate() {
        let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
    }
    path
}

/// The chart in a sentence a curve, for those who do not see it.
fn description(chart: &Chart, lines: &[Line]) -> String {
    let mut text = format!("Line chart, {} by {}.", chart.y_label, chart.x_label);
    for line in lines.iter().filter(|line| !line.points.is_empty()) {
        let _ = write!(
            text,
            " {}: {} at {}, {} at {}.",
            line.name,
            significant(line.first.1),
            significant(line.first.0),
            significant(line.last.1),
            significant(line.last.0)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        Chart {
            title: "a < b".into(),
            caption: "c".into(),
            x_label: "step".into(),
            y_label: "loss".into(),
            curves: vec![Curve { name: "training".into(), points }],
            fill_between: false,
        }
    }

    fn draw(chart: &Chart) -> String {
        let mut out = String::new();
        figure(&mut out, chart, 0);
        out
    }

    #[test]
    fn ticks_are_round_and_within() {
        let ticks = |low, high| Axis::linear((low, high), (0.0, 1.0)).ticks();
        assert_eq!(ticks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(0.0, 800.0), [0.0, 200.0, 400.0, 600.0, 800.0]);
        let log = |low, high| Axis { low, high, log: true, pixels: (0.0, 1.0) }.ticks();
        assert_eq!(log(0.9, 11.0), [1.0, 2.0, 5.0, 10.0]);
        for (low, high) in [(3.0, 3.5), (0.001, 0.0011), (1e3, 1e6), (2.0, 2.0)] {
            let ticks = ticks(low, high);
            assert!((2..=12).contains(&ticks.len()), "{low} {high}: {ticks:?}");
        }
    }

    #[test]
    fn the_ends_of_an_axis_lie_at_the_ends_of_the_picture() {
        for axis in [
            Axis { low: 1.0, high: 100.0, log: true, pixels: (200.0, 0.0) },
            Axis { low: 1.0, high: 100.0, log: false, pixels: (200.0, 0.0) },
        ] {
            assert_eq!((axis.at(1.0), axis.at(100.0)), (200.0, 0.0));
        }
        let axis = Axis { low: 1.0, high: 100.0, log: true, pixels: (200.0, 0.0) };
        assert!((axis.at(10.0) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn a_long_curve_is_drawn_as_means_with_a_band() {
        let points: Vec<_> = (0..1_000).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let line = Curve { name: "x".into(), points };
        let line = Line::of(&line);
        assert!(line.points.len() <= N_BUCKETS);
        // Buckets of 6 points, three zeros and three ones each.
        assert_eq!((line.points[0].mean, line.points[0].low, line.points[0].high), (0.5, 0.0, 1.0));
        assert_eq!(line.points[0].x, 2.5);
        assert_eq!((line.first, line.last), ((0.0, 0.0), (999.0, 1.0)));
    }

    #[test]
    fn a_chart_says_what_it_shows_and_escapes_its_title() {
        let html = draw(&chart(vec![(1.0, 8.0), (2.0, 0.5), (3.0, f64::NAN)]));
        assert!(html.contains("training: 8 at 1, 0.5 at 2."), "{html}");
        assert!(html.contains("<h3>a &lt; b</h3>"));
        // 8 / 0.5 = 16 spans enough for the logarithmic scale to come first.
        assert!(html.contains("class=\"log\" checked"));
        assert_eq!(html.matches("<svg class=\"plot").count(), 2);
        assert!(!html.contains("NaN") && !html.contains("inf"));
    }

    #[test]
    fn odd_data_give_no_odd_picture() {
        assert_eq!(draw(&chart(vec![])), "");
        assert_eq!(draw(&chart(vec![(1.0, f64::NAN)])), "");
        for points in [vec![(5.0, 2.0)], vec![(1.0, 0.0), (2.0, -1.0)], vec![(1.0, 0.0); 3]] {
            let html = draw(&chart(points));
            assert!(html.contains("plot-lin"), "{html}");
            assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
        }
    }

    #[test]
    fn the_gap_is_filled() {
        let html = draw(&Chart::listening_gap(&[(1.0, 4.0, 4.1), (100.0, 1.0, 5.0)]));
        assert!(html.contains("class=\"gap\""));
        assert!(html.contains("the right audio: 4 at 1, 1 at 100."), "{html}");
    }
}
