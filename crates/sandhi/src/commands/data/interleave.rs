//! `sandhi data interleave`: what a model over text and units reads of unit files, and what there is to read.
//!
//! ```text
//! <|text|>    in the pleasant time of
//! <|speech|>  99 49 38 38 | 149 149 7 7 | 7 12      spring the
//! ```

use std::{fmt::Write as _, io::Write as _, path::PathBuf, sync::Arc};

use anstyle::{AnsiColor, Style};
use anyhow::Context;
use sandhi_data::{
    interleave::{self, Block, Span, draw_blocks, pieces, reading_stream},
    patching::{
        Aligned, Closure, Entropy, EntropyConfig, Granularity, Rule, Silence, Static, UnitEntropy,
    },
    text::{JointVocabulary, Mode, Symbol, Tokenizer},
    units::{UnitCorpus, UnitUtterance},
};
use sandhi_lab::chat::END;
use serde::Serialize;

/// Arguments of `sandhi data interleave`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Unit files of `sandhi units write`, all of one quantizer.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Show so many utterances, block by block, with the patches of their units.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "3")]
    show: Option<usize>,
    /// The reading that is shown: every epoch draws blocks anew.
    #[arg(long, default_value_t = 0)]
    epoch: u64,
    /// What blocks are drawn with.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Units a patch.
    #[arg(long, value_name = "N", default_value_t = 4, conflicts_with = "aligned")]
    size: usize,
    /// Patches that end where the next unit is uncertain instead, so many units each on average, by what follows what in
    /// these files.
    #[arg(long, value_name = "N", conflicts_with_all = ["size", "aligned"])]
    entropy: Option<f64>,
    /// A patch a word, and a silence, instead.
    #[arg(long)]
    aligned: bool,
    /// A patch a piece of a word.
    #[arg(long, requires = "aligned")]
    by_pieces: bool,
    /// Silences go to the word before them.
    #[arg(long, requires = "aligned")]
    merged: bool,
    /// Print the statistics as JSON, and what is shown as lines of it.
    #[arg(long)]
    json: bool,
}

/// What there is to read.
#[derive(Debug, Default, Serialize)]
struct Statistics {
    utterances: usize,
    units: usize,
    words: usize,
    units_a_word: f64,
    units_a_silence: f64,
    /// Of the words, those that are spoken.
    spoken_share: f64,
    words_a_text_block: f64,
    units_a_speech_block: f64,
    /// Of the speech blocks, those whose last patch is cut short, where patches are of one size.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial_share: Option<f64>,
    /// Of the tokens, those that are units.
    unit_share: f64,
    patches_a_token: f64,
}

/// Prints statistics over all utterances, and some of them.
pub fn run(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.size > 0, "--size is 0, expected at least 1");
    if let Some(n) = args.entropy {
        anyhow::ensure!((1.0..=1000.0).contains(&n), "--entropy is {n}, expected 1 to 1000 units");
    }
    let corpus = UnitCorpus::open(&args.files)?;
    let words = |utterance: &UnitUtterance| -> String {
        let words: Vec<&str> = utterance.words.iter().map(|word| word.word.as_str()).collect();
        words.join(" ")
    };
    // Pieces like those that a model would learn from these words.
    let mut texts = Vec::with_capacity(corpus.len());
    for i in 0..corpus.len() {
        texts.push(words(&corpus.get(i)?));
    }
    let tokenizer = Tokenizer::train_bpe(texts, 1_000, &[END])?;
    let vocabulary = JointVocabulary::extend(&tokenizer, END, END, corpus.header().n_units)?;
    let rule = if let Some(units_per_patch) = args.entropy {
        by_entropy(&corpus, units_per_patch)?
    } else if args.aligned {
        let granularity = if args.by_pieces { Granularity::Piece } else { Granularity::Word };
        let silence = if args.merged { Silence::Merged } else { Silence::Separate };
        Rule::Aligned(Aligned::new(granularity, silence))
    } else {
        Rule::Static(Static::new(args.size))
    };

    let size = matches!(rule, Rule::Static(_)).then_some(args.size);
    let mut shown = String::new();
    let mut found = Totals::default();
    for i in 0..corpus.len() {
        let utterance = corpus.get(i)?;
        let mut stream = reading_stream(args.seed, args.epoch, &utterance.id);
        let spans = pieces(&utterance)?;
        let blocks = draw_blocks(&spans, &mut stream.clone());
        let document = interleave::interleaved(&utterance, &vocabulary, &mut stream)
            .with_context(|| corpus.place(i))?;
        let patches =
            rule.clone().patches(&document, &utterance.words, &vocabulary, Closure::Causal)?;
        found.add(&utterance, &spans, &blocks, document.ids.len(), patches.n_patches(), size);
        if i >= args.show.unwrap_or(0) {
            continue;
        }
        if args.json {
            let line = serde_json::json!({
                "id": utterance.id, "ids": document.ids, "patch_ends": patches.ends,
            });
            let _ = writeln!(shown, "{line}");
        } else {
            let ends: Vec<usize> = patches.ends.iter().map(|&end| end as usize).collect();
            let n = (blocks.len(), utterance.words.len(), patches.n_patches());
            let _ =
                writeln!(shown, "{}: {} blocks, {} words, {} patches", utterance.id, n.0, n.1, n.2);
            draw(&mut shown, &utterance, &blocks, &document.ids, &ends, &vocabulary);
        }
    }
    let statistics = found.statistics();
    let text = if args.json {
        format!("{shown}{}\n", serde_json::to_string(&statistics)?)
    } else {
        format!("{shown}{}", table(&statistics))
    };
    // Colors where somebody looks, plain text in files.
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Patches by the entropies of a corpus.
fn by_entropy(corpus: &UnitCorpus, units_per_patch: f64) -> anyhow::Result<Rule> {
    let longest = EntropyConfig::default().longest.max((4.0 * units_per_patch).ceil() as usize);
    let config = EntropyConfig { units_per_patch, longest, ..EntropyConfig::default() };
    let (mut sequences, mut n_units) = (Vec::new(), 0);
    for i in 0..corpus.len() {
        if n_units >= UnitEntropy::MOST {
            break;
        }
        let units = corpus.get(i)?.units;
        n_units += units.len();
        sequences.push(units);
    }
    let learned = UnitEntropy::learn(corpus.header(), &sequences, &config)?;
    Ok(Rule::Entropy(Entropy::new(Arc::new(learned))))
}

/// The blocks of a document, a line each; patches in two colors by turns.
fn draw(
    out: &mut String,
    utterance: &UnitUtterance,
    blocks: &[Block],
    ids: &[u32],
    ends: &[usize],
    vocabulary: &JointVocabulary,
) {
    let turns = [AnsiColor::Cyan, AnsiColor::Magenta].map(|color| color.on_default());
    let (dim, bold) = (Style::new().dimmed(), Style::new().bold());
    let said = |words: &mut dyn Iterator<Item = usize>| {
        words.map(|i| utterance.words[i].word.as_str()).collect::<Vec<_>>().join(" ")
    };
    // The blocks follow one another behind the token that begins the document.
    let mut at = 1;
    for block in blocks {
        let first = at + 1;
        at = first;
        let symbol = |id: &u32| vocabulary.symbol(*id);
        while ids
            .get(at)
            .is_some_and(|id| matches!(symbol(id), Some(Symbol::Text | Symbol::Unit(_))))
        {
            at += 1;
        }
        let (mode, line) = match block {
            Block::Text { words } => (Mode::Text, said(&mut words.clone())),
            Block::Speech { spans } => {
                let mut line = String::new();
                let mut start = first;
                let inner = ends.iter().filter(|&&end| end > first && end <= at);
                for (i, &end) in inner.enumerate() {
                    let units: Vec<String> = ids[start..end]
                        .iter()
                        .filter_map(|id| match symbol(id) {
                            Some(Symbol::Unit(unit)) => Some(unit.to_string()),
                            _ => None,
                        })
                        .collect();
                    let (style, bar) = (turns[i % 2], if i == 0 { "" } else { " | " });
                    let _ = write!(line, "{bar}{style}{}{style:#}", units.join(" "));
                    start = end;
                }
                let words = said(&mut spans.iter().filter_map(|span| span.word));
                let _ = write!(line, "   {dim}{words}{dim:#}");
                (Mode::Speech, line)
            }
        };
        let _ = writeln!(out, "  {bold}{:<11}{bold:#} {line}", mode.marker());
    }
}

/// Sums over utterances.
#[derive(Debug, Default)]
struct Totals {
    utterances: usize,
    tokens: usize,
    patches: usize,
    units: usize,
    words: usize,
    in_words: usize,
    silences: usize,
    in_silences: usize,
    spoken: usize,
    text_blocks: usize,
    speech_blocks: usize,
    said_units: usize,
    /// Where patches are of one size.
    partial: Option<usize>,
}

impl Totals {
    fn add(
        &mut self,
        utterance: &UnitUtterance,
        spans: &[Span],
        blocks: &[Block],
        n_tokens: usize,
        n_patches: usize,
        size: Option<usize>,
    ) {
        self.utterances += 1;
        self.tokens += n_tokens;
        self.patches += n_patches;
        self.units += utterance.units.len();
        self.words += utterance.words.len();
        for span in spans {
            match span.word {
                Some(_) => self.in_words += span.units.len(),
                None => {
                    self.silences += 1;
                    self.in_silences += span.units.len();
                }
            }
        }
        for block in blocks {
            match block {
                Block::Text { .. } => self.text_blocks += 1,
                Block::Speech { spans } => {
                    let n: usize = spans.iter().map(|span| span.units.len()).sum();
                    self.speech_blocks += 1;
                    self.said_units += n;
                    if let Some(size) = size {
                        *self.partial.get_or_insert(0) += usize::from(!n.is_multiple_of(size));
                    }
                    self.spoken += spans.iter().filter(|span| span.word.is_some()).count();
                }
            }
        }
    }

    fn statistics(&self) -> Statistics {
        let share = |a: usize, b: usize| a as f64 / b.max(1) as f64;
        Statistics {
            utterances: self.utterances,
            units: self.units,
            words: self.words,
            units_a_word: share(self.in_words, self.words),
            units_a_silence: share(self.in_silences, self.silences),
            spoken_share: share(self.spoken, self.words),
            words_a_text_block: share(self.words - self.spoken, self.text_blocks),
            units_a_speech_block: share(self.said_units, self.speech_blocks),
            partial_share: self.partial.map(|partial| share(partial, self.speech_blocks)),
            unit_share: share(self.said_units, self.tokens),
            patches_a_token: share(self.patches, self.tokens),
        }
    }
}

fn table(s: &Statistics) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<14} {value}");
    };
    line("utterances", s.utterances.to_string());
    line(
        "units",
        format!("{}, {:.2} a word, {:.2} a silence", s.units, s.units_a_word, s.units_a_silence),
    );
    line("words", format!("{}, {:.1} % of them spoken", s.words, 100.0 * s.spoken_share));
    line(
        "blocks",
        format!(
            "{:.1} words of text, {:.1} units of speech",
            s.words_a_text_block, s.units_a_speech_block
        ),
    );
    if let Some(share) = s.partial_share {
        let share = 100.0 * share;
        let text = format!("{share:.1} % of the speech blocks end in a patch that is cut short");
        line("partial", text);
    }
    line("tokens", format!("{:.1} % of them units", 100.0 * s.unit_share));
    line("patches", format!("{:.3} for a token", s.patches_a_token));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_show_their_patches() {
        let tokenizer = Tokenizer::train_bpe(["a b c d"; 4], 260, &[END]).unwrap();
        let vocabulary = JointVocabulary::extend(&tokenizer, END, END, 9).unwrap();
        let words = [("a", 0, 2), ("b", 2, 6), ("c", 6, 8)];
        let utterance = UnitUtterance {
            id: "x".into(),
            units: vec![1, 1, 2, 3, 4, 5, 8, 8],
            words: words.map(|(word, start, end)| (word.to_owned(), start, end).into()).to_vec(),
            text: None,
            language: None,
        };
        let span = |word: usize, units: std::ops::Range<usize>| Span { word: Some(word), units };
        let blocks = [
            Block::Speech { spans: vec![span(0, 0..2), span(1, 2..6)] },
            Block::Text { words: 2..3 },
        ];
        let unit = |unit| vocabulary.unit(unit).unwrap();
        let mut ids = vec![vocabulary.begin(), vocabulary.marker(Mode::Speech)];
        ids.extend([1, 1, 2, 3, 4, 5].map(unit));
        ids.push(vocabulary.marker(Mode::Text));
        ids.extend(tokenizer.encode("c").unwrap());
        ids.push(vocabulary.end());
        // Begin and marker alone, four units, two, and what follows alone.
        let mut out = String::new();
        draw(&mut out, &utterance, &blocks, &ids, &[1, 2, 6, 8, 9, 10, 11], &vocabulary);
        let plain = anstream::adapter::strip_str(&out).to_string();
        assert_eq!(plain, "  <|speech|>  1 1 2 3 | 4 5   a b\n  <|text|>    c\n");
    }
}
