//! Segments as a picture: lanes over one time axis.
//!
//! ```text
//!  waveform         ▁▂▅▇▅▂▁   ▂▅▇▇▅▂▁
//!  log-mel          ░▒▓█▓▒░   ░▒▓██▓▒░
//!  words            |she |    |left   |
//!  forced (oracle)    |  |       |    |        ends of segments
//!  ctc                |  |      no segments: the CTC head reads nothing
//!  vectors          |sh|e| -  |␣left  |        the nearest token of each, written upwards
//!                   0 s      0.5       1 s
//! ```
//!
//! A vector's cell is the darker, the greater its cosine to the token's embedding. Vectors that stand for no stretch of
//! their own are drawn side by side in a lane apart.

use std::fmt::Write;

use super::{
    picture::{
        CHARACTER, HEAT, MARGIN, NAMESPACE, PIXELS_PER_SECOND, RULER, STYLE, Scale, WAVEFORM,
        WIDTHS, WORDS, ruler, waveform,
    },
    segments::{Cuts, Segmented, VectorSpan},
};
use crate::{
    costs::median,
    report::{Text, significant, uri_of},
};

/// Heights of the lanes.
const SPECTROGRAM: f64 = 80.0;
const CUTS: f64 = 20.0;
/// Room between lanes.
const GAP: f64 = 4.0;
/// Least width of most vectors' cells: that of a line of text.
const CELL: f64 = 12.0;
/// Width of a character of a token, about, and the most characters that are drawn.
const LETTER: f64 = 6.4;
const MOST_LETTERS: usize = 14;

/// The picture as a file of its own.
pub fn svg(found: &Segmented) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    draw(&mut out, found, NAMESPACE, STYLE);
    out.push('\n');
    out
}

/// The picture inside a page, in the color of its text.
pub(crate) fn inline(out: &mut String, found: &Segmented) {
    draw(out, found, "", "");
}

/// How a segmenter is called in the picture.
fn name_of(cuts: &Cuts) -> String {
    let oracle = if cuts.is_oracle { " (oracle)" } else { "" };
    format!("{}{oracle}", cuts.name)
}

/// From seconds to pixels, so wide that most vectors' tokens can be read.
fn scale_of(found: &Segmented) -> Scale {
    let longest = found.cuts.iter().map(|cuts| name_of(cuts).chars().count()).max().unwrap_or(0);
    let end_s = if found.duration_s > 0.0 { found.duration_s } else { 1.0 };
    let widths = placed(found).map(|(_, [start_s, end_s])| end_s - start_s);
    let median_s = median(widths).filter(|&width_s| width_s > 0.0);
    let rate = median_s.map_or(PIXELS_PER_SECOND, |width_s| PIXELS_PER_SECOND.max(CELL / width_s));
    Scale {
        left: MARGIN + CHARACTER * longest.clamp(14, 28) as f64 + 6.0,
        width: (end_s * rate).clamp(WIDTHS.0, WIDTHS.1),
        end_s,
    }
}

/// Vectors that stand for a stretch of the sound. Encoders that fill up to 30 seconds have some after it.
fn placed(found: &Segmented) -> impl Iterator<Item = (&VectorSpan, [f64; 2])> {
    let vectors = found.vectors.iter().filter_map(|vector| Some((vector, vector.span_s?)));
    vectors.filter(|(_, [start_s, _])| *start_s < found.duration_s)
}

fn draw(out: &mut String, found: &Segmented, attributes: &str, style: &str) {
    let scale = scale_of(found);
    let scattered: Vec<&VectorSpan> =
        found.vectors.iter().filter(|vector| vector.span_s.is_none()).collect();
    let placed: Vec<(&VectorSpan, [f64; 2])> = placed(found).collect();
    let letters = found.vectors.iter().filter_map(|vector| vector.nearest.as_ref());
    let letters = letters.map(|nearest| nearest.label.chars().count().min(MOST_LETTERS)).max();
    let cells = LETTER * letters.unwrap_or(3).max(3) as f64 + 8.0;
    let both = !scattered.is_empty() && !placed.is_empty();
    let vectors = if both { 2.0 * cells + GAP } else { cells };
    let lanes = WAVEFORM + SPECTROGRAM + WORDS + CUTS * found.cuts.len() as f64 + vectors;
    let n_gaps = 4.0 + found.cuts.len() as f64;
    let height = 2.0 * MARGIN + lanes + GAP * n_gaps + RULER;
    let width = scale.right() + MARGIN;
    let _ = write!(
        out,
        "<svg{attributes} viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
         fill=\"currentColor\" font-family=\"system-ui,sans-serif\" font-size=\"11\" role=\"img\" aria-label=\"{}\">\
         {style}<title>Where “{}” is cut</title>",
        Text(&description(found)),
        Text(&found.text)
    );
    let mut y = MARGIN;
    lane(out, &scale, "waveform", y, WAVEFORM);
    waveform(out, &found.waveform, found.duration_s, &scale, y);
    out.push_str("</g>");
    y += WAVEFORM + GAP;
    lane(out, &scale, "log-mel", y, SPECTROGRAM);
    if !found.spectrogram.is_empty() {
        let _ = write!(
            out,
            "<image href=\"{}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{SPECTROGRAM}\" \
             preserveAspectRatio=\"none\"/>",
            uri_of(&found.spectrogram),
            scale.left,
            scale.width
        );
    }
    out.push_str("</g>");
    y += SPECTROGRAM + GAP;
    words(out, found, &scale, y);
    y += WORDS + GAP;
    for cuts in &found.cuts {
        lane(out, &scale, &name_of(cuts), y, CUTS);
        match &cuts.none {
            Some(why) => note(out, &scale, y, &format!("no segments: {why}")),
            None => ends(out, &cuts.ends_s, &scale, y),
        }
        out.push_str("</g>");
        y += CUTS + GAP;
    }
    if found.vectors.is_empty() {
        lane(out, &scale, "vectors", y, cells);
        note(out, &scale, y, "no vectors: the language model is given nothing");
        out.push_str("</g>");
    }
    if !placed.is_empty() {
        lane(out, &scale, "vectors", y, cells);
        placed.iter().for_each(|(vector, span)| cell(out, vector, &scale, *span, y, cells));
        out.push_str("</g>");
    }
    y += if both { cells + GAP } else { 0.0 };
    if !scattered.is_empty() {
        lane(out, &scale, "of no one time", y, cells);
        let step_s = scale.end_s / scattered.len() as f64;
        for (i, vector) in scattered.iter().enumerate() {
            let span = [i as f64 * step_s, (i + 1) as f64 * step_s];
            cell(out, vector, &scale, span, y, cells);
        }
        out.push_str("</g>");
    }
    ruler(out, &scale, y + cells + GAP);
    out.push_str("</svg>");
}

/// Opens a lane with its name.
fn lane(out: &mut String, scale: &Scale, name: &str, top: f64, height: f64) {
    let _ = write!(
        out,
        "<g data-lane=\"{0}\"><text x=\"{1:.1}\" y=\"{2:.1}\" text-anchor=\"end\">{0}</text>",
        Text(name),
        scale.left - 6.0,
        top + height / 2.0 + 4.0
    );
}

/// What is said in place of what is not there.
fn note(out: &mut String, scale: &Scale, top: f64, text: &str) {
    let (x, y) = (scale.left + 4.0, top + 14.0);
    let _ = write!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" opacity=\".75\">{}</text>", Text(text));
}

fn words(out: &mut String, found: &Segmented, scale: &Scale, top: f64) {
    lane(out, scale, "words", top, WORDS);
    for word in &found.words {
        let (start, end) = (scale.x(word.start_s), scale.x(word.end_s));
        let _ = write!(
            out,
            "<path d=\"M{start:.1} {top:.1}V{1:.1}M{end:.1} {top:.1}V{1:.1}\" stroke=\"currentColor\" \
             stroke-opacity=\".4\" fill=\"none\"/><text x=\"{2:.1}\" y=\"{3:.1}\">{0}</text>",
            Text(&word.label),
            top + WORDS,
            start + 3.0,
            top + 15.0
        );
    }
    if found.words.is_empty() {
        let why = found.no_words.as_deref().unwrap_or("none is said");
        note(out, scale, top, &format!("no words: {why}"));
    }
    out.push_str("</g>");
}

/// A line where every segment ends.
fn ends(out: &mut String, ends_s: &[f64], scale: &Scale, top: f64) {
    let mut path = String::new();
    for &end_s in ends_s {
        let _ = write!(path, "M{:.1} {top:.1}v{CUTS}", scale.x(end_s));
    }
    let _ = write!(
        out,
        "<path d=\"M{0:.1} {1:.1}h{2:.1}\" stroke=\"currentColor\" stroke-opacity=\".3\" fill=\"none\"/>\
         <path d=\"{path}\" stroke=\"{HEAT}\" stroke-width=\"1.6\" fill=\"none\"/>",
        scale.left,
        top + CUTS / 2.0,
        scale.width
    );
}

/// A vector's nearest token at its time.
fn cell(
    out: &mut String,
    vector: &VectorSpan,
    scale: &Scale,
    span: [f64; 2],
    top: f64,
    height: f64,
) {
    let [start, end] = span.map(|seconds| scale.x(seconds));
    let (label, cosine) = match &vector.nearest {
        Some(nearest) => (nearest.label.as_str(), Some(nearest.cosine)),
        None => ("–", None),
    };
    let shown: String = match label.chars().count() {
        n if n > MOST_LETTERS => label.chars().take(MOST_LETTERS - 1).chain(['…']).collect(),
        _ => label.to_owned(),
    };
    let time = match vector.span_s {
        Some([start_s, end_s]) => format!("{start_s:.2}–{end_s:.2} s"),
        None => "of no one time".to_owned(),
    };
    let near = cosine.map_or("no direction".to_owned(), |cosine| format!("cosine {cosine:.3}"));
    let _ = write!(
        out,
        "<g><title>{}: {near}, {time}</title><rect x=\"{start:.1}\" y=\"{top:.1}\" width=\"{:.1}\" \
         height=\"{height:.1}\" fill=\"{HEAT}\" fill-opacity=\"{:.2}\" stroke=\"currentColor\" stroke-opacity=\".25\"/>\
         <text transform=\"translate({:.1} {:.1}) rotate(-90)\">{}</text></g>",
        Text(label),
        end - start,
        0.6 * cosine.unwrap_or(0.0).clamp(0.0, 1.0),
        f64::midpoint(start, end) + 4.0,
        top + height - 4.0,
        Text(&shown)
    );
}

/// The picture in words.
fn description(found: &Segmented) -> String {
    let mut text = format!("Segments of {} seconds of speech.", significant(found.duration_s));
    for cuts in &found.cuts {
        let _ = write!(text, " {}: {} segments.", name_of(cuts), cuts.ends_s.len());
    }
    let _ = write!(text, " {} vectors, nearest to:", found.vectors.len());
    for nearest in found.vectors.iter().filter_map(|vector| vector.nearest.as_ref()) {
        let _ = write!(text, " {}", nearest.label);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::testing::segmented as example;

    /// What stands in a lane.
    fn of<'a>(svg: &'a str, lane: &str) -> &'a str {
        let start = svg.find(&format!("<g data-lane=\"{lane}\">")).unwrap_or_else(|| {
            panic!("no lane {lane} in {svg}");
        });
        let rest = &svg[start + 3..];
        &rest[..rest.find("<g data-lane").unwrap_or(rest.len())]
    }

    #[test]
    fn boundaries_and_cells_lie_at_their_times() {
        let found = example("ab");
        let scale = scale_of(&found);
        // Two seconds of 160 px each: half a second is 80.
        assert_eq!((scale.width, scale.end_s), (320.0, 2.0));
        let svg = svg(&found);
        let x = |seconds: f64| scale.left + 160.0 * seconds;
        let cuts = of(&svg, "forced (oracle)");
        for end_s in [0.5, 1.25, 2.0] {
            assert!(cuts.contains(&format!("M{:.1} ", x(end_s))), "{end_s}: {cuts}");
        }
        assert_eq!(cuts.matches(&format!("v{CUTS}")).count(), 3);
        assert!(of(&svg, "ctc").contains("no segments: ab"));
        let vectors = of(&svg, "vectors");
        assert_eq!(vectors.matches("<rect").count(), 2);
        for (start, end, opacity) in [(0.0, 0.5, "0.60"), (0.5, 1.25, "0.00")] {
            let (left, width) = (x(start), x(end) - x(start));
            assert!(vectors.contains(&format!("<rect x=\"{left:.1}\"")), "{vectors}");
            assert!(vectors.contains(&format!("width=\"{width:.1}\"")), "{vectors}");
            assert!(vectors.contains(&format!("fill-opacity=\"{opacity}\"")), "{vectors}");
        }
        assert!(vectors.contains("<title>ab: cosine 1.000, 0.00–0.50 s</title>"), "{vectors}");
        assert!(vectors.contains("–: no direction"), "{vectors}");
        // The one of no stretch has the whole width in a lane of its own.
        let scattered = of(&svg, "of no one time");
        assert_eq!(scattered.matches("<rect").count(), 1);
        assert!(scattered.contains("width=\"320.0\""), "{scattered}");
        assert!(of(&svg, "words").contains(&format!("M{:.1} ", x(0.5))));
        assert!(of(&svg, "log-mel").contains("href=\"data:image/png;base64,"));
    }

    #[test]
    fn lanes_without_anything_say_so() {
        let mut found = example("ab");
        found.words.clear();
        found.no_words = Some("the encoder has no CTC head".into());
        found.vectors.clear();
        found.spectrogram.clear();
        found.cuts.clear();
        found.waveform.clear();
        let svg = svg(&found);
        assert!(of(&svg, "words").contains("no words: the encoder has no CTC head"));
        assert!(of(&svg, "vectors").contains("no vectors"));
        assert!(!of(&svg, "log-mel").contains("<image") && !svg.contains("of no one time"));
        found.duration_s = 0.0;
        assert!(!super::svg(&found).contains("NaN") && !super::svg(&found).contains("inf"));
    }

    #[test]
    fn narrow_vectors_make_a_wide_picture() {
        let mut found = example("ab");
        let vector = found.vectors[0].clone();
        let span = |i: usize| Some([0.04 * i as f64, 0.04 * (i + 1) as f64]);
        let of = |i| VectorSpan { span_s: span(i), ..vector.clone() };
        found.vectors = (0..60).map(of).collect();
        // 12 px for 40 ms; ten of the vectors are after the sound.
        assert!((scale_of(&found).width - 600.0).abs() < 1e-6);
        assert_eq!(svg(&found).matches("<rect").count(), 50);
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
}
