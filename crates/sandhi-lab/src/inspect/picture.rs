//! A transport plan as a picture: a heat map, frames against tokens, under the waveform and above the words.
//!
//! ```text
//!          ▁▂▅▇▅▂▁   ▂▅▇▇▅▂▁        waveform
//!  given   ▬▬ ▬ ▬▬     ▬▬ ▬▬        vectors that compression leaves
//!  ␣she    ░██▒                 18 %
//!  ␣left                ▒██▒    31 %
//!  pad            ████          51 %
//!          she        left          words, where their times are known
//!          0 s      0.5       1 s
//! ```
//!
//! A cell is the darker, the more of its vector's mass goes to the token.

use std::fmt::Write;

use super::transport::{DepthPlan, Transported};
use crate::report::{Text, significant};

/// Pixels a second, and the least and most that a picture's sound is wide.
pub(super) const PIXELS_PER_SECOND: f64 = 150.0;
pub(super) const WIDTHS: (f64, f64) = (320.0, 6_000.0);
/// Heights of the parts.
pub(super) const WAVEFORM: f64 = 56.0;
const GIVEN: f64 = 14.0;
const CAPTION: f64 = 22.0;
const ROW: f64 = 16.0;
pub(super) const WORDS: f64 = 22.0;
pub(super) const RULER: f64 = 18.0;
pub(super) const MARGIN: f64 = 10.0;
/// Room for the shares at the right.
const RIGHT: f64 = 52.0;
/// Width of a character of a label, about.
pub(super) const CHARACTER: f64 = 7.0;
/// Shares of a vector below this are not seen.
const LEAST: f64 = 0.01;
/// Colors that are seen on light and dark.
pub(super) const HEAT: &str = "#1b86a0";
const SOUND: &str = "#c2542d";

/// What a picture needs that is a file of its own.
pub(super) const NAMESPACE: &str = " xmlns=\"http://www.w3.org/2000/svg\"";
pub(super) const STYLE: &str = "<style>svg{color:#22201c;background:#fdfcfa}\
    @media(prefers-color-scheme:dark){svg{color:#e8e5df;background:#16171a}}</style>";

/// The picture as a file of its own.
pub fn svg(found: &Transported) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    draw(&mut out, found, NAMESPACE, STYLE);
    out.push('\n');
    out
}

/// The picture inside a page, in the color of its text.
pub(crate) fn inline(out: &mut String, found: &Transported) {
    draw(out, found, "", "");
}

/// From seconds to pixels.
pub(super) struct Scale {
    pub(super) left: f64,
    pub(super) width: f64,
    pub(super) end_s: f64,
}

impl Scale {
    fn of(found: &Transported) -> Self {
        let columns = || found.plans.iter().flat_map(|plan| &plan.columns);
        let longest = columns().map(|column| column.label.chars().count()).max().unwrap_or(0);
        // Encoders that fill up to 30 seconds have vectors after the sound, which are not drawn.
        let heard_s = found.n_vectors as f64 * found.vector_s;
        let end_s = heard_s.min(found.duration_s + found.vector_s).max(found.vector_s);
        Self {
            left: MARGIN + CHARACTER * longest.clamp(5, 24) as f64 + 6.0,
            width: (end_s * PIXELS_PER_SECOND).clamp(WIDTHS.0, WIDTHS.1),
            end_s,
        }
    }

    pub(super) fn x(&self, seconds: f64) -> f64 {
        self.left + self.width * (seconds / self.end_s).clamp(0.0, 1.0)
    }

    pub(super) fn right(&self) -> f64 {
        self.left + self.width
    }
}

fn draw(out: &mut String, found: &Transported, attributes: &str, style: &str) {
    let scale = Scale::of(found);
    let given = if found.given.is_some() { GIVEN } else { 0.0 };
    let of_plan = |plan: &DepthPlan| CAPTION + ROW * plan.columns.len() as f64;
    let plans: f64 = found.plans.iter().map(of_plan).sum();
    let words = if found.words.is_empty() { 0.0 } else { WORDS };
    let height = 2.0 * MARGIN + WAVEFORM + given + plans + words + RULER;
    let width = scale.right() + RIGHT;
    let _ = write!(
        out,
        "<svg{attributes} viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
         fill=\"currentColor\" font-family=\"system-ui,sans-serif\" font-size=\"11\" role=\"img\" aria-label=\"{}\">\
         {style}<title>Where the speech of “{}” goes</title>",
        Text(&description(found)),
        Text(&found.text)
    );
    let mut y = MARGIN;
    waveform(out, &found.waveform, found.duration_s, &scale, y);
    y += WAVEFORM;
    if let Some(pairs) = &found.given {
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">given</text>",
            scale.left - 6.0,
            y + GIVEN - 3.0
        );
        for &[first, last] in pairs {
            let [start, end] = [first, last + 1].map(|i| scale.x(i as f64 * found.vector_s));
            if end - start > 1.0 {
                bar(out, start + 0.5, y + 5.0, end - start - 1.0, 6.0, "");
            }
        }
        y += GIVEN;
    }
    let top = y;
    for plan in &found.plans {
        heat(out, plan, &scale, y);
        y += of_plan(plan);
    }
    for word in &found.words {
        let (start, end) = (scale.x(word.start_s), scale.x(word.end_s));
        let _ = write!(
            out,
            "<path d=\"M{start:.1} {top:.1}V{:.1}M{end:.1} {top:.1}V{y:.1}\" stroke=\"currentColor\" \
             stroke-opacity=\".22\" fill=\"none\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            y + WORDS - 6.0,
            start + 3.0,
            y + 13.0,
            Text(&word.label)
        );
    }
    ruler(out, &scale, y + words);
    out.push_str("</svg>");
}

pub(super) fn bar(out: &mut String, x: f64, y: f64, width: f64, height: f64, more: &str) {
    let _ = write!(
        out,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"{more}/>"
    );
}

/// From the lowest to the highest sample, around the middle.
pub(super) fn waveform(
    out: &mut String,
    peaks: &[[f32; 2]],
    duration_s: f64,
    scale: &Scale,
    top: f64,
) {
    let loudest = peaks.iter().flatten().fold(0.0_f32, |max, x| max.max(x.abs()));
    let n = peaks.len();
    if n == 0 || !loudest.is_finite() || loudest <= 0.0 {
        return;
    }
    let middle = top + WAVEFORM / 2.0;
    let y = |sample: f32| middle - f64::from(sample / loudest) * (WAVEFORM / 2.0 - 3.0);
    let x = |i: usize| scale.x((i as f64 + 0.5) * duration_s / n as f64);
    let mut path = String::new();
    for (i, [_, high]) in peaks.iter().enumerate() {
        let _ = write!(path, "{}{:.1} {:.1}", if i == 0 { 'M' } else { 'L' }, x(i), y(*high));
    }
    for (i, [low, _]) in peaks.iter().enumerate().rev() {
        let _ = write!(path, "L{:.1} {:.1}", x(i), y(*low));
    }
    let _ = write!(out, "<path d=\"{path}Z\" fill=\"{SOUND}\"/>");
}

fn heat(out: &mut String, plan: &DepthPlan, scale: &Scale, top: f64) {
    let what = match plan.depth {
        0 => "the connector's vectors, to embeddings".to_owned(),
        depth => format!("after block {depth}, to the same prompt in writing"),
    };
    let _ = write!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" opacity=\".75\">{what}; cost {}{}</text>",
        scale.left,
        top + CAPTION - 7.0,
        significant(plan.cost),
        if plan.is_solved { "" } else { ", not solved to its tolerance" }
    );
    let top = top + CAPTION;
    let height = ROW * plan.columns.len() as f64;
    bar(
        out,
        scale.left,
        top,
        scale.width,
        height,
        " fill=\"none\" stroke=\"currentColor\" stroke-opacity=\".3\"",
    );
    for (j, column) in plan.columns.iter().enumerate() {
        let y = top + ROW * j as f64;
        let name =
            if column.is_pad { format!("pad {}", column.label) } else { column.label.clone() };
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{:.1}\" y=\"{1:.1}\">{:.1} %</text>",
            scale.left - 6.0,
            y + 12.0,
            Text(&name),
            scale.right() + 6.0,
            100.0 * column.share
        );
    }
    let _ = write!(out, "<g fill=\"{HEAT}\">");
    for (row, [start_s, end_s]) in plan.plan.iter().zip(&plan.rows_s) {
        let (start, end) = (scale.x(*start_s), scale.x(*end_s));
        let mass: f64 = row.iter().sum();
        if end <= start || mass <= 0.0 {
            continue;
        }
        for (j, share) in row.iter().map(|share| share / mass).enumerate() {
            if share >= LEAST {
                let opacity = format!(" fill-opacity=\"{share:.2}\"");
                bar(out, start, top + ROW * j as f64, end - start, ROW, &opacity);
            }
        }
    }
    out.push_str("</g>");
}

pub(super) fn ruler(out: &mut String, scale: &Scale, top: f64) {
    // As many halves of a second as have room.
    let room = scale.width / scale.end_s;
    let step = [0.5, 1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * room >= 40.0);
    let step = step.unwrap_or(30.0);
    let n_ticks = (scale.end_s / step) as usize;
    for seconds in (0..=n_ticks).map(|i| i as f64 * step) {
        let x = scale.x(seconds);
        let _ = write!(
            out,
            "<path d=\"M{x:.1} {top:.1}v5\" stroke=\"currentColor\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" opacity=\".75\">{} s</text>",
            x + 3.0,
            top + 12.0,
            significant(seconds)
        );
    }
}

/// The picture in words.
fn description(found: &Transported) -> String {
    let mut text = format!(
        "Transport plan: {} vectors, {} as given, of {} seconds of speech.",
        found.n_vectors,
        found.n_given(),
        significant(found.duration_s)
    );
    for plan in &found.plans {
        let _ = write!(text, " Depth {}:", plan.depth);
        for column in &plan.columns {
            let _ = write!(text, " {} {:.0} %,", column.label, 100.0 * column.share);
        }
        text.pop();
        text.push('.');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::testing::transported as example;

    #[test]
    fn cells_lie_at_their_vector_and_token() {
        let found = example("ab");
        let scale = Scale::of(&found);
        assert_eq!((scale.width, scale.end_s), (320.0, 2.0));
        let svg = svg(&found);
        // Five cells, two vectors that are given, a frame.
        assert_eq!(svg.matches("<rect").count(), 5 + 2 + 1);
        // The third vector begins after a second, in the middle, and is of two tokens.
        let top = MARGIN + WAVEFORM + GIVEN + CAPTION;
        for row in [top, top + ROW] {
            let (x, width) = (scale.left + 160.0, 80.0);
            let cell = format!(
                "<rect x=\"{x:.1}\" y=\"{row:.1}\" width=\"{width:.1}\" height=\"16.0\" fill-opacity=\"0.50\"/>"
            );
            assert!(svg.contains(&cell), "{cell} is not in {svg}");
        }
        assert_eq!(svg.matches("fill-opacity=\"1.00\"").count(), 3);
        for part in ["25.0 %", "cost 0.25", "1.5 s", "pad ab", ">given<", "of 2 seconds"] {
            assert!(svg.contains(part), "{part} is not in {svg}");
        }
        let plain = Transported { given: None, words: Vec::new(), ..found };
        assert!(!super::svg(&plain).contains(">given<"));
    }

    #[test]
    fn text_stays_text_and_tags_are_closed() {
        let evil = "\"'><script>&";
        let (evil, harmless) = (svg(&example(evil)), svg(&example("word")));
        for c in ['<', '>', '"', '\''] {
            assert_eq!(evil.matches(c).count(), harmless.matches(c).count(), "{c}");
        }
        for tag in ["svg", "text", "g", "title", "style"] {
            let opened = [" ", ">"].map(|end| harmless.matches(&format!("<{tag}{end}")).count());
            let closed = harmless.matches(&format!("</{tag}>")).count();
            assert_eq!(opened.iter().sum::<usize>(), closed, "{tag}");
        }
        let mut inside = String::new();
        inline(&mut inside, &example("word"));
        assert!(!inside.contains("http") && !inside.contains("<style"), "{inside}");
    }

    #[test]
    fn odd_sound_is_drawn() {
        let mut found = example("a");
        found.waveform = vec![[f32::NAN, f32::NAN], [0.0, 0.0]];
        found.duration_s = 0.0;
        found.plans[0].plan[1] = vec![0.0; 3];
        let svg = svg(&found);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
