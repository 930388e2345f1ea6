use proptest::prelude::*;

use super::*;
use crate::{
    text::{JointVocabulary, Mode, Symbol},
    units::{UnitUtterance, tests as units},
};

fn vocabulary() -> &'static JointVocabulary {
    static VOCABULARY: std::sync::LazyLock<JointVocabulary> =
        std::sync::LazyLock::new(|| crate::text::joint_tests::vocabulary(100));
    &VOCABULARY
}

/// An utterance of silence, word, silence, word, … and silence, of so many units each.
fn utterance(id: &str, lengths: &[u32]) -> UnitUtterance {
    let mut utterance = units::utterance(id, &[], &[]);
    let mut end = 0;
    for (i, n_units) in lengths.iter().enumerate() {
        let start = end;
        end += n_units;
        if i % 2 == 1 {
            utterance.words.push((format!("w{}", i / 2), start, end).into());
        }
    }
    utterance.units = (0..end).map(|i| i * 37 % 100).collect();
    utterance
}

/// A document as a person writes it: `B`, `E`, `<t>`, `<s>`, units as numbers, text as it is.
fn render(ids: &[u32]) -> String {
    let part = |&id: &u32| match vocabulary().symbol(id).unwrap() {
        Symbol::Begin => "B".to_owned(),
        Symbol::End => "E".to_owned(),
        Symbol::Marker(Mode::Text) => "<t>".to_owned(),
        Symbol::Marker(Mode::Speech) => "<s>".to_owned(),
        Symbol::Unit(unit) => unit.to_string(),
        Symbol::Text => vocabulary().tokenizer().decode(&[id]).unwrap(),
    };
    ids.iter().map(part).collect::<Vec<_>>().join(" ")
}

fn spans(document: &Document) -> Vec<(usize, usize, Option<u32>)> {
    document.spans.iter().map(|s| (s.tokens.start, s.tokens.end, s.word)).collect()
}

#[test]
fn pieces_are_words_and_the_silence_between_them() {
    let words = [("a", 1, 3), ("b", 3, 3), ("c", 3, 4)];
    let found = pieces(&units::utterance("u", &[0; 6], &words)).unwrap();
    let found: Vec<_> = found.into_iter().map(|s| (s.word, s.units)).collect();
    let expected = [(None, 0..1), (Some(0), 1..3), (Some(1), 3..3), (Some(2), 3..4), (None, 4..6)];
    assert_eq!(found, expected);
    assert_eq!(pieces(&units::utterance("u", &[], &[])).unwrap(), []);
    let error = pieces(&units::utterance("u", &[0; 2], &[("a", 0, 3)])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "utterance \"u\": word \"a\": found the units 0 to 3, expected an end of 2 at most, the units of the utterance"
    );
}

#[test]
fn silences_are_cut_at_edges_within_the_utterance_alone() {
    // Six words of a unit each, between silences of 3, 3, 5, 2, 4, 1 and 2 units.
    let utterance = utterance("u", &[3, 1, 3, 1, 5, 1, 2, 1, 4, 1, 1, 1, 2]);
    let pieces = pieces(&utterance).unwrap();
    let mut seen = std::collections::HashSet::new();
    for seed in 0..100 {
        let blocks = draw_blocks(&pieces, &mut Stream::new(seed));
        let shown: Vec<String> = blocks
            .iter()
            .map(|block| match block {
                Block::Text { words } => format!("{words:?}"),
                Block::Speech { spans } => {
                    spans.iter().map(|s| format!("{:?} ", s.units)).collect()
                }
            })
            .collect();
        seen.insert(shown.join("| "));
    }
    // Units: 0..3 w0 4..7 w1 8..13 w2 14..16 w3 17..21 w4 22..23 w5 24..26. Text has max(2, ⌊0.6 · 6⌋) = 3 words and
    // speech max(2, ⌊3 / 2⌋) = 2; the word that is left goes to the second block, whichever that is.
    // The silence ahead of w3, 14..16, leaves ⌈2 / 2⌉ = 1; the last one is whole.
    let text_first = "0..3| 15..16 16..17 17..21 21..22 22..23 23..24 24..26 ";
    // That behind w1, 8..13, leaves its first ⌈5 / 2⌉ = 3.
    let speech_first = "0..3 3..4 4..7 7..8 8..11 | 2..6";
    let mut seen: Vec<String> = seen.into_iter().collect();
    seen.sort();
    assert_eq!(seen, [speech_first, text_first]);
}

#[test]
fn without_words_there_is_speech_and_nothing_to_interleave() {
    let silent = utterance("u", &[7]);
    let document = spoken(&silent, vocabulary()).unwrap();
    assert_eq!(render(&document.ids), "B <s> 0 37 74 11 48 85 22 E");
    assert_eq!((spans(&document), document.n_words()), (vec![(2, 9, None)], 0));
    let error = interleaved(&silent, vocabulary(), &mut Stream::new(1)).unwrap_err();
    assert!(error.to_string().contains("utterance \"u\": found no words"), "{error}");
    assert!(draw_blocks(&pieces(&silent).unwrap(), &mut Stream::new(1)).is_empty());
}

/// Words too short for a unit are written where they would be said alone, so that no block is empty.
#[test]
fn words_without_a_unit_are_written() {
    let words = [("a", 0, 2), ("b", 2, 2), ("c", 2, 2), ("d", 2, 2), ("e", 2, 2), ("f", 2, 2)];
    let utterance = units::utterance("u", &[5, 6], &words);
    let pieces = pieces(&utterance).unwrap();
    let mut n_written = 0;
    for seed in 0..40 {
        let blocks = draw_blocks(&pieces, &mut Stream::new(seed));
        let n_units = |block: &Block| match block {
            Block::Text { words } => words.len(),
            Block::Speech { spans } => spans.iter().map(|span| span.units.len()).sum(),
        };
        assert!(blocks.iter().all(|block| n_units(block) > 0), "{blocks:?}");
        n_written += usize::from(blocks == [Block::Text { words: 0..6 }]);
        let is_text = |block: &Block| matches!(block, Block::Text { .. });
        assert!(blocks.windows(2).all(|pair| is_text(&pair[0]) != is_text(&pair[1])));
    }
    // Where text comes first the speech behind it has no unit.
    assert!((10..30).contains(&n_written), "{n_written}");
}

#[test]
fn documents_by_hand() {
    let utterance = units::utterance("u", &[5, 6, 7, 8], &[("ab", 1, 2), ("c", 2, 2), ("d", 2, 4)]);
    let document = spoken(&utterance, vocabulary()).unwrap();
    assert_eq!(render(&document.ids), "B <s> 5 6 7 8 E");
    // `c` has no unit, so that it has no span and begins where `d` does.
    assert_eq!(spans(&document), [(2, 3, None), (3, 4, Some(0)), (4, 6, Some(2))]);
    assert_eq!((&document.words[..], document.n_units), (&[3, 4, 4][..], 4));

    // No merges of these letters: a piece a byte.
    let document = written(" x-y  zx ", vocabulary()).unwrap();
    assert_eq!(render(&document.ids), "B <t>   x - y     z x   E");
    assert_eq!((&document.words[..], document.n_units), (&[3, 8][..], 0));
    assert_eq!(render(&written("", vocabulary()).unwrap().ids), "B <t> E");

    let other = units::utterance("u", &[5, 100], &[]);
    assert_eq!(
        spoken(&other, vocabulary()).unwrap_err().to_string(),
        "utterance \"u\": found unit 100, expected units below 100, those of the vocabulary"
    );
}

/// The same said and written, either first; and what is asked of a model that has seen two examples of it.
#[test]
fn both_sides_of_an_utterance_by_hand() {
    let (a, b) = (units::utterance("a", &[5, 6], &[("x", 0, 2)]), units::utterance("b", &[7], &[]));
    let of = |text: &str| vocabulary().tokenizer().encode(text).unwrap();
    let text = |text: &str| render(&of(text));
    let document = transcribed(&a, "an owl", vocabulary()).unwrap();
    assert_eq!(render(&document.ids), format!("B <s> 5 6 <t> {} E", text("an owl")));
    assert_eq!(spans(&document), [(2, 4, Some(0))]);
    // The word that is said, and the two that are written.
    assert_eq!(
        (document.words[..2].to_vec(), document.n_words(), document.n_units),
        (vec![2, 5], 3, 2)
    );
    let document = voiced("an owl", &a, vocabulary()).unwrap();
    assert_eq!(render(&document.ids), format!("B <t> {} <s> 5 6 E", text("an owl")));
    let n = document.ids.len();
    assert_eq!(spans(&document), [(n - 3, n - 1, Some(0))]);
    // As the split has it: a part goes on under its marker.
    let parts = split(document, vocabulary(), n - 2).unwrap();
    assert_eq!(render(&parts[1].ids), "B <s> 5 6 E");
    let asked = to_transcribe(&[(&b, "owl")], &a, vocabulary()).unwrap();
    assert_eq!(render(&asked), format!("B <s> 7 <t> {} <s> 5 6 <t>", text("owl")));
    assert_eq!(render(&to_transcribe(&[], &a, vocabulary()).unwrap()), "B <s> 5 6 <t>");
    let asked = to_voice(&[(&b, "owl")], "an", vocabulary()).unwrap();
    assert_eq!(render(&asked), format!("B <t> {} <s> 7 <t> {} <s>", text("owl"), text("an")));
}

#[test]
fn a_reading_depends_on_seed_epoch_and_utterance() {
    let value = |seed, epoch, id| reading_stream(seed, epoch, id).next_u64();
    assert_eq!(value(1, 2, "a"), value(1, 2, "a"));
    let others = [value(2, 2, "a"), value(1, 3, "a"), value(1, 2, "b")];
    assert!(others.iter().all(|&other| other != value(1, 2, "a")));
}

#[test]
fn long_documents_are_cut_by_hand() {
    let vocabulary = vocabulary();
    let unit = |unit: u32| vocabulary.unit(unit).unwrap();
    let text = vocabulary.tokenizer().encode("xyz").unwrap();
    let mut ids = vec![vocabulary.begin(), vocabulary.marker(Mode::Text)];
    ids.extend(text);
    ids.push(vocabulary.marker(Mode::Speech));
    ids.extend((1..8).map(unit));
    ids.push(vocabulary.end());
    let span = |tokens, word| SpeechSpan { tokens, word };
    let document = Document {
        ids,
        spans: vec![span(6..8, None), span(8..13, Some(1))],
        words: vec![2, 8],
        n_units: 7,
    };
    assert_eq!(render(&document.ids), "B <t> x y z <s> 1 2 3 4 5 6 7 E");
    let check = |max_tokens: usize, expected: &[&str]| {
        let parts = split(document.clone(), vocabulary, max_tokens).unwrap();
        assert_eq!(parts.iter().map(|part| render(&part.ids)).collect::<Vec<_>>(), expected);
        parts
    };
    check(14, &["B <t> x y z <s> 1 2 3 4 5 6 7 E"]);
    let parts = check(7, &["B <t> x y z", "B <s> 1 2 3 4 5", "B <s> 6 7 E"]);
    assert_eq!(spans(&parts[0]), []);
    assert_eq!(spans(&parts[1]), [(2, 4, None), (4, 7, Some(1))]);
    assert_eq!(spans(&parts[2]), [(2, 4, Some(1))]);
    assert_eq!(
        parts.iter().map(|part| part.words.clone()).collect::<Vec<_>>(),
        [vec![2], vec![4], vec![]]
    );
    assert_eq!(parts.iter().map(|part| part.n_units).collect::<Vec<_>>(), [0, 5, 2]);
    // The end is not left alone: one unit fewer stands ahead of it.
    check(9, &["B <t> x y z", "B <s> 1 2 3 4 5 6", "B <s> 7 E"]);
    check(4, &["B <t> x y", "B <t> z", "B <s> 1 2", "B <s> 3 4", "B <s> 5 6", "B <s> 7 E"]);
    let error = split(document, vocabulary, 3).unwrap_err().to_string();
    assert_eq!(error, "found a context of 3 tokens, expected 4 at least");
}

#[test]
fn a_part_is_more_than_begin_and_marker() {
    let vocabulary = vocabulary();
    let (text, speech) = (vocabulary.marker(Mode::Text), vocabulary.marker(Mode::Speech));
    let xyz = vocabulary.tokenizer().encode("xyz").unwrap();
    // Speech of words without a unit: one marker follows the other.
    let ids = [&[vocabulary.begin(), text][..], &xyz[..2], &[speech, text], &xyz].concat();
    let ids = [&ids[..], &[vocabulary.end()]].concat();
    let document = Document { ids, spans: Vec::new(), words: vec![2, 6], n_units: 0 };
    let parts = split(document, vocabulary, 4).unwrap();
    let parts: Vec<String> = parts.iter().map(|part| render(&part.ids)).collect();
    assert_eq!(parts, ["B <t> x y", "B <s> <t> x", "B <t> y", "B <t> z E"]);
}

/// Utterances as long as those of published corpora: about 42.5 words of 5.8 units, silences of 3.7, one after most
/// words (arXiv 2510.06195, section 3).
fn like_a_corpus(n: usize) -> Vec<UnitUtterance> {
    (0..n)
        .map(|i| {
            let mut stream = Stream::named(i as u64, "corpus");
            let n_words = stream.between(30.0, 56.0) as usize;
            // Log-normal: the mean is exp(μ + σ² / 2).
            let mut length = |mean: f64, deviation: f64| {
                let log = mean.ln() - deviation * deviation / 2.0 + deviation * stream.normal();
                (log.exp().round() as u32).max(1)
            };
            let mut lengths = vec![length(3.7, 0.6)];
            for _ in 0..n_words {
                lengths.extend([length(5.8, 0.5), length(3.7, 0.6)]);
            }
            utterance(&format!("utterance {i}"), &lengths)
        })
        .collect()
}

#[test]
fn blocks_of_a_corpus_are_those_that_were_published() {
    let utterances = like_a_corpus(400);
    let (mut n_words, mut n_said, mut n_blocks, mut n_odd, mut n_text, mut n_texts) =
        (0, 0, 0, 0, 0, 0);
    for utterance in &utterances {
        let pieces = pieces(utterance).unwrap();
        n_words += 10 * utterance.words.len();
        for epoch in 0..10 {
            let mut stream = reading_stream(7, epoch, &utterance.id);
            for block in draw_blocks(&pieces, &mut stream) {
                match block {
                    Block::Text { words } => {
                        n_text += words.len();
                        n_texts += 1;
                    }
                    Block::Speech { spans } => {
                        n_said += spans.iter().filter(|span| span.word.is_some()).count();
                        let n_units: usize = spans.iter().map(|span| span.units.len()).sum();
                        n_blocks += 1;
                        n_odd += usize::from(!n_units.is_multiple_of(4));
                    }
                }
            }
        }
    }
    let n_units: usize = utterances.iter().map(|utterance| utterance.units.len()).sum();
    let share = |a: usize, b: usize| a as f64 / b as f64;
    let frames_a_word = share(10 * n_units, n_words);
    assert!((9.0..10.5).contains(&frames_a_word), "{frames_a_word}");
    let said = share(n_said, n_words);
    assert!((0.30..=0.34).contains(&said), "{said}");
    let odd = share(n_odd, n_blocks);
    assert!((0.70..=0.78).contains(&odd), "{odd}");
    let text = share(n_text, n_texts);
    assert!((11.0..15.0).contains(&text), "{text}");
}

/// An utterance of any words and silences, of which some are empty.
fn any_utterance() -> impl Strategy<Value = UnitUtterance> {
    // A silence and a word at least.
    let lengths = proptest::collection::vec(0_u32..12, 2..130);
    lengths.prop_map(|lengths| utterance("u", &lengths))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn blocks_alternate_and_cover_all_words_once(utterance in any_utterance(), seed: u64) {
        let pieces = pieces(&utterance).unwrap();
        let blocks = draw_blocks(&pieces, &mut Stream::new(seed));
        let n_words = utterance.words.len();
        let is_text = |block: &Block| matches!(block, Block::Text { .. });
        prop_assert!(blocks.windows(2).all(|pair| is_text(&pair[0]) != is_text(&pair[1])));

        let words = |block: &Block| -> Vec<usize> {
            match block {
                Block::Text { words } => words.clone().collect(),
                Block::Speech { spans } => spans.iter().filter_map(|span| span.word).collect(),
            }
        };
        let all: Vec<usize> = blocks.iter().flat_map(words).collect();
        prop_assert_eq!(all, (0..n_words).collect::<Vec<_>>());

        // Lengths lie within their bounds, but for the last, which is cut or takes two words more.
        let upper = 30.min((0.6 * n_words as f64 + 1e-9) as usize).max(2);
        let lower = 5.min(upper).max(2);
        let mut before = None;
        for (i, block) in blocks.iter().enumerate() {
            let n = words(block).len();
            let (low, high) = match (is_text(block), before) {
                (true, _) => (lower, upper),
                (false, Some(text)) => (2.max(text / 2), 2.max(text / 2)),
                (false, None) => (2.max(lower / 2), 2.max(upper / 2)),
            };
            if i + 1 < blocks.len() {
                prop_assert!((low..=high).contains(&n), "{n} of {low} to {high}");
            } else {
                prop_assert!(n <= high + 2 && (n >= 3 || blocks.len() == 1), "{n}");
            }
            before = Some(n);
        }
    }

    #[test]
    fn speech_is_in_order_and_silences_are_halved_exactly(
        utterance in any_utterance(),
        seed: u64,
    ) {
        let pieces = pieces(&utterance).unwrap();
        let blocks = draw_blocks(&pieces, &mut Stream::new(seed));
        let n_units = utterance.units.len();
        let mut end = 0;
        for (i, block) in blocks.iter().enumerate() {
            let Block::Speech { spans } = block else { continue };
            for (j, span) in spans.iter().enumerate() {
                prop_assert!(span.units.start >= end && span.units.end <= n_units);
                prop_assert!(j == 0 || span.units.start == end, "no gap within a block");
                end = span.units.end;
                let piece = pieces.iter().find(|piece| {
                    piece.word == span.word
                        && piece.units.start <= span.units.start
                        && piece.units.end >= span.units.end
                });
                let whole = piece.expect("a span is of a piece").units.clone();
                let is_edge = (j == 0 && i > 0) || (j + 1 == spans.len() && i + 1 < blocks.len());
                if is_edge && span.word.is_none() {
                    prop_assert_eq!(span.units.len(), whole.len().div_ceil(2));
                    // The half beside the words of the block.
                    let is_near = if j == 0 {
                        span.units.end == whole.end
                    } else {
                        span.units.start == whole.start
                    };
                    prop_assert!(is_near);
                } else {
                    prop_assert_eq!(span.units.clone(), whole);
                }
            }
        }
    }

    #[test]
    fn documents_say_what_their_blocks_do(utterance in any_utterance(), seed: u64) {
        let vocabulary = vocabulary();
        let document = interleaved(&utterance, vocabulary, &mut Stream::new(seed)).unwrap();
        let blocks = draw_blocks(&pieces(&utterance).unwrap(), &mut Stream::new(seed));
        let (first, last) = (document.ids[0], document.ids[document.ids.len() - 1]);
        prop_assert_eq!((first, last), (vocabulary.begin(), vocabulary.end()));
        prop_assert_eq!(document.n_words(), utterance.words.len());

        let is_marker = |id: &u32| matches!(vocabulary.symbol(*id), Some(Symbol::Marker(_)));
        let inner = &document.ids[1..document.ids.len() - 1];
        let starts: Vec<usize> = (0..inner.len()).filter(|&i| is_marker(&inner[i])).collect();
        prop_assert_eq!(starts.len(), blocks.len());
        let mut n_units = 0;
        for (i, block) in blocks.iter().enumerate() {
            let end = starts.get(i + 1).copied().unwrap_or(inner.len());
            let (marker, ids) = (inner[starts[i]], &inner[starts[i] + 1..end]);
            match block {
                Block::Text { words } => {
                    prop_assert_eq!(marker, vocabulary.marker(Mode::Text));
                    let said: Vec<&str> = utterance.words[words.clone()]
                        .iter()
                        .map(|word| word.word.as_str())
                        .collect();
                    prop_assert_eq!(vocabulary.tokenizer().decode(ids).unwrap(), said.join(" "));
                }
                Block::Speech { spans } => {
                    prop_assert_eq!(marker, vocabulary.marker(Mode::Speech));
                    let units: Vec<u32> = spans
                        .iter()
                        .flat_map(|span| &utterance.units[span.units.clone()])
                        .map(|&unit| vocabulary.unit(unit).unwrap())
                        .collect();
                    prop_assert_eq!(ids, &units[..]);
                    n_units += units.len();
                }
            }
        }
        prop_assert_eq!(document.n_units, n_units);
        // Spans tile the units, in order.
        let is_unit = |id: &u32| matches!(vocabulary.symbol(*id), Some(Symbol::Unit(_)));
        let in_spans: Vec<usize> =
            document.spans.iter().flat_map(|span| span.tokens.clone()).collect();
        let units: Vec<usize> =
            (0..document.ids.len()).filter(|&i| is_unit(&document.ids[i])).collect();
        prop_assert_eq!(in_spans, units);
        prop_assert!(document.spans.iter().all(|span| !span.tokens.is_empty()));
    }

    #[test]
    fn parts_are_the_document(utterance in any_utterance(), seed: u64, max_tokens in 4_usize..90) {
        let vocabulary = vocabulary();
        let document = interleaved(&utterance, vocabulary, &mut Stream::new(seed)).unwrap();
        let parts = split(document.clone(), vocabulary, max_tokens).unwrap();
        let is_marker = |id: u32| matches!(vocabulary.symbol(id), Some(Symbol::Marker(_)));
        let mut ids: Vec<u32> = Vec::new();
        let mut spans = Vec::new();
        let mut mode = None;
        for (i, part) in parts.iter().enumerate() {
            prop_assert!(part.ids.len() <= max_tokens && part.ids.len() > 2);
            prop_assert_eq!(part.ids[0], vocabulary.begin());
            prop_assert!(is_marker(part.ids[1]));
            // A marker that was added is that of the block that goes on.
            let next = document.ids[ids.len()];
            let n_added = match i {
                0 => 0,
                _ if is_marker(next) => 1,
                _ => 2,
            };
            prop_assert!(n_added < 2 || mode == Some(part.ids[1]));
            let moved = |at: usize| at - n_added + ids.len();
            for span in &part.spans {
                let tokens = moved(span.tokens.start)..moved(span.tokens.end);
                spans.push(SpeechSpan { tokens, word: span.word });
            }
            ids.extend(&part.ids[n_added..]);
            mode = part.ids.iter().copied().rfind(|&id| is_marker(id));
        }
        prop_assert_eq!(&ids, &document.ids);
        let sum = |n: fn(&Document) -> usize| parts.iter().map(n).sum::<usize>();
        prop_assert_eq!(sum(Document::n_words), document.n_words());
        prop_assert_eq!(sum(|part| part.n_units), document.n_units);
        // Two halves of a word that was cut are the word.
        spans.dedup_by(|b, a| {
            let is_cut = document.spans.iter().any(|whole| {
                whole.tokens.start <= a.tokens.start && whole.tokens.end >= b.tokens.end
            });
            if is_cut {
                a.tokens.end = b.tokens.end;
            }
            is_cut
        });
        prop_assert_eq!(spans, document.spans);
    }
}
