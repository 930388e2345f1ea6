//! What is read: documents and exchanges for language models, of Microworld, text files, spelling and
//! transcripts.

use std::{collections::BTreeSet, path::Path};

use rayon::prelude::*;
use sandhi_data::{microworld::Document, rng::Stream};

use super::{Error, Prepared, Workshop, unfit};
use crate::{
    chat::Chat,
    recipe::{DocumentsSource, SourceConfig, SpellingSource, StageConfig, TextSource},
    train::{dataset::TextDataset, learner::TextItem},
};
impl Workshop {
    /// Texts of a stage in documents; chats keep prompt and answer apart.
    fn documents(&self, stage: &StageConfig, source: &SourceConfig) -> Result<Vec<Text>, Error> {
        Ok(match source {
            SourceConfig::Documents(DocumentsSource { kind, max_phrases, n, .. }) => {
                let documents =
                    self.world().documents_of(*kind, "train").with_lists_of(*max_phrases);
                documents.take(*n).map(Text::from).collect()
            }
            SourceConfig::Text(source) => {
                repeated(text_files(source, &self.resolve(&source.path))?, &source.instructions)
            }
            SourceConfig::Spelling(SpellingSource { n, instructions, .. }) => {
                repeated(spelled(*n), instructions)
            }
            SourceConfig::Manifest(source) => {
                let utterances = self.recorded(source)?;
                let mut documents = Vec::new();
                for round in 0..source.repeat {
                    for (i, u) in utterances.iter().enumerate() {
                        documents.push(document(u.text.clone(), &source.instructions, i + round));
                    }
                }
                documents
            }
            SourceConfig::Microworld(_)
            | SourceConfig::Wild(_)
            | SourceConfig::Stories(_)
            | SourceConfig::Units(_) => {
                return Err(unfit(stage, source, "text"));
            }
        })
    }

    /// Texts that a tokenizer is trained on.
    ///
    /// # Errors
    ///
    /// When a source cannot be read.
    pub fn tokenizer_texts(&self, stage: &StageConfig, n: usize) -> Result<Vec<String>, Error> {
        let mut texts = Vec::new();
        for source in &stage.sources {
            for document in self.documents(stage, source)?.into_iter().take(n) {
                match document {
                    Text::Plain(text) => texts.push(text),
                    Text::Chat { instruction, spoken, answer } => {
                        texts.extend([instruction, spoken, answer]);
                    }
                }
            }
        }
        Ok(texts)
    }

    /// The data sets of a text foundation model's stage.
    ///
    /// # Errors
    ///
    /// When a source cannot be read or its text tokenized.
    pub fn text(&self, stage: &StageConfig, chat: &Chat) -> Result<Prepared<TextDataset>, Error> {
        let (mut sources, mut dev) = (Vec::new(), Vec::new());
        for source in &stage.sources {
            let (dataset, held_out) = self.written(stage, source, chat)?;
            sources.push((source.weight(), dataset));
            dev.extend(held_out);
        }
        let dev = if dev.is_empty() { Vec::new() } else { vec![TextDataset { items: dev }] };
        Ok((sources, dev))
    }

    /// What is read of a source, and what of it is held out.
    pub(super) fn written(
        &self,
        stage: &StageConfig,
        source: &SourceConfig,
        chat: &Chat,
    ) -> Result<(TextDataset, Vec<TextItem>), Error> {
        let documents = self.documents(stage, source)?;
        let hesitant = match source {
            SourceConfig::Documents(source) => source.hesitant,
            _ => 0.0,
        };
        let mut items: Vec<TextItem> = documents
            .par_iter()
            .enumerate()
            .map(|(i, document)| text_item(chat, document, hesitant, i as u64))
            .collect::<Result<_, _>>()?;
        items.retain(|item| item.ids.len() >= 2);
        let n = (stage.eval_items / stage.sources.len()).min(items.len() / 10);
        let held_out = items.split_off(items.len() - n);
        if items.is_empty() {
            return Err(Error::Empty { stage: stage.name.clone(), source_kind: source.kind() });
        }
        Ok((TextDataset { items }, held_out))
    }
}

/// A document for a language model.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Text {
    /// As it stands.
    Plain(String),
    /// An exchange; only the answer is the model's own.
    Chat { instruction: String, spoken: String, answer: String },
}

impl From<Document> for Text {
    fn from(document: Document) -> Self {
        match document {
            Document::Plain(text) => Self::Plain(text),
            Document::Chat(item) => Self::Chat {
                instruction: item.instruction,
                spoken: item.spoken,
                answer: item.answer,
            },
        }
    }
}

fn repeated(texts: Vec<String>, instructions: &[String]) -> Vec<Text> {
    texts.into_iter().enumerate().map(|(i, text)| document(text, instructions, i)).collect()
}

/// A text as it is, or with one of the instructions as an exchange in which it is written down again.
fn document(text: String, instructions: &[String], i: usize) -> Text {
    match instructions {
        [] => Text::Plain(text),
        list => Text::Chat {
            instruction: list[i % list.len()].clone(),
            spoken: text.clone(),
            answer: text,
        },
    }
}

/// One chat in so many has its transcript as a recognizer writes it: lower case, no punctuation. A
/// text model that is to read transcripts has seen some.
const PLAIN_TRANSCRIPTS: f64 = 0.2;

/// A transcript as hesitant speech: every piece once or several times in a row, dashes for pauses. How
/// hesitant differs from text to text.
fn hesitated(pieces: &[u32], pause: &[u32], stream: &mut Stream) -> Vec<u32> {
    let (again, silence) = (0.6 * stream.uniform(), 0.4 * stream.uniform());
    let mut ids = Vec::with_capacity(2 * pieces.len());
    for &piece in pieces {
        while stream.chance(silence) {
            ids.extend(pause);
        }
        ids.push(piece);
        while stream.chance(again) {
            ids.push(piece);
        }
    }
    while stream.chance(silence) {
        ids.extend(pause);
    }
    ids
}

fn text_item(chat: &Chat, document: &Text, hesitant: f64, index: u64) -> Result<TextItem, Error> {
    Ok(match document {
        Text::Plain(text) => TextItem { ids: chat.document(text)?, n_prompt: 0 },
        Text::Chat { instruction, spoken, answer } => {
            let frame = chat.frame(instruction)?;
            let mut stream = Stream::named(index, "transcript style");
            let transcript = if stream.chance(PLAIN_TRANSCRIPTS) {
                sandhi_data::text::normalize(spoken)
            } else {
                spoken.clone()
            };
            let mut ids = frame.before;
            let pieces = chat.transcript(&transcript)?;
            // A stream of its own, so that the share changes nothing else.
            let mut stream = Stream::named(index, "hesitation");
            if stream.chance(hesitant) {
                ids.extend(hesitated(&pieces, &chat.tokenizer().encode("-")?, &mut stream));
            } else {
                ids.extend(pieces);
            }
            ids.extend(frame.after);
            let n_prompt = ids.len();
            ids.extend(chat.answer(answer)?);
            TextItem { ids, n_prompt }
        }
    })
}

/// Paragraphs of text files, cut to length at sentence ends.
pub(super) fn text_files(source: &TextSource, path: &Path) -> Result<Vec<String>, Error> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    let mut files = BTreeSet::new();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(io(path))? {
            let file = entry.map_err(io(path))?.path();
            if file.extension().is_some_and(|e| e == "txt" || e == "md") {
                files.insert(file);
            }
        }
    } else {
        files.insert(path.to_owned());
    }
    let mut texts = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(io(&file))?;
        for paragraph in text.split("\n\n") {
            let paragraph = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
            texts.extend(cut(&paragraph, source.max_chars).into_iter().map(|piece| {
                if source.transcript_style {
                    sandhi_data::text::normalize(&piece).to_uppercase()
                } else {
                    piece
                }
            }));
        }
    }
    texts.retain(|text| text.chars().filter(|c| c.is_alphabetic()).count() >= 2);
    Ok(texts)
}

/// Cuts a paragraph at sentence ends so that no piece is longer than asked, if a sentence end allows.
fn cut(paragraph: &str, max_chars: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for sentence in paragraph.split_inclusive(['.', '!', '?', ';']) {
        let last = pieces.last_mut().expect("never empty");
        if !last.is_empty() && last.chars().count() + sentence.chars().count() > max_chars {
            pieces.push(sentence.trim_start().to_owned());
        } else {
            last.push_str(sentence);
        }
    }
    pieces.iter().map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).collect()
}

/// Spelled letters, digits and number words, as in dictated names, codes and dates.
fn spelled(n: usize) -> Vec<String> {
    const DIGITS: [&str; 10] =
        ["ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"];
    const TEENS: [&str; 10] = [
        "TEN",
        "ELEVEN",
        "TWELVE",
        "THIRTEEN",
        "FOURTEEN",
        "FIFTEEN",
        "SIXTEEN",
        "SEVENTEEN",
        "EIGHTEEN",
        "NINETEEN",
    ];
    const TENS: [&str; 8] =
        ["TWENTY", "THIRTY", "FORTY", "FIFTY", "SIXTY", "SEVENTY", "EIGHTY", "NINETY"];
    let number = |stream: &mut Stream| match stream.below(3) {
        0 => (*stream.pick(&TEENS)).to_owned(),
        1 => (*stream.pick(&TENS)).to_owned(),
        _ => format!("{} {}", stream.pick(&TENS), DIGITS[1 + stream.below(9)]),
    };
    let mut stream = Stream::named(0, "spelling");
    (0..n)
        .map(|_| {
            let length = 1 + stream.below(9);
            let words: Vec<String> = match stream.below(5) {
                0 => (0..length)
                    .map(|_| char::from(b'A' + stream.below(26) as u8).to_string())
                    .collect(),
                1 => (0..length).map(|_| (*stream.pick(&DIGITS)).to_owned()).collect(),
                2 => (0..1 + length / 3).map(|_| number(&mut stream)).collect(),
                _ => (0..length)
                    .map(|_| match stream.below(3) {
                        0 => (*stream.pick(&DIGITS)).to_owned(),
                        1 => number(&mut stream),
                        _ => char::from(b'A' + stream.below(26) as u8).to_string(),
                    })
                    .collect(),
            };
            words.join(" ")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use sandhi_data::text::Tokenizer;

    use super::*;
    use crate::chat::MARKERS;

    #[test]
    fn long_paragraphs_are_cut_at_sentences() {
        assert_eq!(cut("One two. Three four. Five.", 14), ["One two.", "Three four.", "Five."]);
        assert_eq!(cut("One two. Three.", 100), ["One two. Three."]);
        assert_eq!(cut("  ", 10), Vec::<String>::new());
    }

    #[test]
    fn hesitation_keeps_the_pieces_in_their_order() {
        let (pieces, pause) = ((1..40).collect::<Vec<u32>>(), [99, 98]);
        let mut stream = Stream::named(1, "test");
        let mut lengths = Vec::new();
        for _ in 0..200 {
            let ids = hesitated(&pieces, &pause, &mut stream);
            let pauses = ids.iter().filter(|&&id| id == 99).count();
            assert_eq!(pauses, ids.iter().filter(|&&id| id == 98).count());
            let mut said: Vec<u32> = ids.into_iter().filter(|&id| id < 90).collect();
            lengths.push((said.len() - pieces.len(), pauses));
            said.dedup();
            assert_eq!(said, pieces);
        }
        // Some texts flow and some do not.
        assert!(lengths.iter().any(|&(again, pauses)| again + pauses < 10), "{lengths:?}");
        assert!(lengths.iter().any(|&(again, _)| again > 30), "{lengths:?}");
        assert!(lengths.iter().any(|&(_, pauses)| pauses > 15), "{lengths:?}");
    }

    #[test]
    fn only_transcripts_of_exchanges_hesitate() {
        let text = "Anna took the red ball to the kitchen.";
        let tokenizer = Tokenizer::train_bpe(vec![text.to_owned()], 300, &MARKERS).unwrap();
        let chat = Chat::with_markers(tokenizer).unwrap();
        let document = document(text.to_owned(), &["Write it down.".to_owned()], 0);
        let item = |share, i| text_item(&chat, &document, share, i).unwrap();
        let answer = |item: &TextItem| item.ids[item.n_prompt..].to_vec();
        let mut longer = 0;
        for i in 0..50 {
            let (fluent, hesitant) = (item(0.0, i), item(1.0, i));
            assert_eq!(answer(&fluent), answer(&hesitant));
            longer += usize::from(hesitant.n_prompt > fluent.n_prompt);
        }
        assert!(longer > 40, "{longer} of 50");
        let plain = Text::Plain(text.to_owned());
        let ids = |share| text_item(&chat, &plain, share, 1).unwrap().ids;
        assert_eq!(ids(0.0), ids(1.0));
    }

    #[test]
    fn spelling_has_letters_digits_and_numbers() {
        let texts = spelled(200);
        for word in ["A", "SEVEN", "TWELVE", "FORTY"] {
            assert!(texts.iter().any(|t| t.split(' ').any(|w| w == word)), "no {word}");
        }
        assert_eq!(texts, spelled(200));
    }
}
