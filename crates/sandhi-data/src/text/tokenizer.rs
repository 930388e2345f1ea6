//! Byte-level byte-pair encoding over the `tokenizers` crate, in Hugging Face's file format.
//!
//! ```text
//! text ─ bytes as printable characters ─ split at words (GPT-2's pattern) ─ merges ─ ids
//! ```
//!
//! Every byte is a piece, so that any text encodes and `decode(encode(text)) == text`. Text never
//! becomes a special token: `"<s>"` in a transcript is three or more ordinary pieces, and markers
//! enter a sequence by their id only ([`Tokenizer::special_id`]). Training is deterministic: pairs
//! are counted, ties go to the smaller ids.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
};

use tokenizers::{
    AddedToken, TokenizerImpl,
    decoders::byte_level::ByteLevel as ByteLevelDecoder,
    models::bpe::{BPE, BpeTrainer},
    pre_tokenizers::byte_level::ByteLevel,
};

use super::Error;

/// One piece of an encoded text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Number of the piece in the vocabulary.
    pub id: u32,
    /// Bytes of the text that it covers. A piece may start or end inside a character, in which
    /// case the range covers the whole character.
    pub span: Range<usize>,
}

/// A tokenizer with its special tokens.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special_ids: BTreeMap<String, u32>,
    n_tokens: usize,
    /// The ids of a line's end, where a space is put before every text (SentencePiece's dummy prefix).
    line: Option<Vec<u32>>,
}

impl Tokenizer {
    /// Trains byte-level BPE on texts.
    ///
    /// Special tokens take the first ids in the order given, then come the 256 bytes, then the
    /// merges, most frequent first. The vocabulary stays smaller than `vocab_size` when the texts
    /// run out of pairs. Occurrences of a special token inside the texts are cut out.
    ///
    /// # Errors
    ///
    /// [`Error::VocabularyTooSmall`] and [`Error::BadSpecialToken`].
    pub fn train_bpe<I, S>(
        texts: I,
        vocab_size: usize,
        special_tokens: &[&str],
    ) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S>,
        I::IntoIter: Send,
        S: AsRef<str> + Send,
    {
        check_names(special_tokens)?;
        let needed = 256 + special_tokens.len();
        if vocab_size < needed {
            return Err(Error::VocabularyTooSmall { needed, found: vocab_size });
        }

        let added = special_tokens.iter().map(|&token| AddedToken::from(token, true));
        let mut trainer = BpeTrainer::builder()
            .show_progress(false)
            .vocab_size(vocab_size)
            .min_frequency(2)
            .special_tokens(added.collect())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let texts = texts.into_iter().map(|text| without(text.as_ref(), special_tokens));

        let mut bpe = TokenizerImpl::<
            BPE,
            tokenizers::NormalizerWrapper,
            ByteLevel,
            tokenizers::PostProcessorWrapper,
            ByteLevelDecoder,
        >::new(BPE::default());
        bpe.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)))
            .with_decoder(Some(ByteLevelDecoder::default()));
        bpe.train(&mut trainer, texts).map_err(failed)?;
        Self::from_bytes(bpe.to_string(false).map_err(failed)?.as_bytes())
    }

    /// Reads the contents of a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] when it is not one.
    pub fn from_bytes(json: &[u8]) -> Result<Self, Error> {
        Self::of(tokenizers::Tokenizer::from_bytes(json).map_err(failed)?)
    }

    fn of(mut inner: tokenizers::Tokenizer) -> Result<Self, Error> {
        inner.set_encode_special_tokens(true);
        let added = inner.get_added_tokens_decoder();
        let specials = added.into_iter().filter(|(_, token)| token.special);
        let special_ids = specials.map(|(id, token)| (token.content, id)).collect();
        // Ids may have gaps in other people's files; the model needs a row for the largest.
        let largest = inner.get_vocab(true).into_values().max();
        let n_tokens = largest.map_or(0, |id| id as usize + 1);
        let mut tokenizer = Self { inner, special_ids, n_tokens, line: None };
        let first = tokenizer.encode("a")?.first().and_then(|&id| tokenizer.piece(id));
        if first.is_some_and(|piece| piece.starts_with('\u{2581}')) {
            tokenizer.line = Some(tokenizer.encode("\n")?);
        }
        Ok(tokenizer)
    }

    /// The same tokenizer with more special tokens behind its vocabulary, in the order given. One that it has already
    /// keeps its id.
    ///
    /// # Errors
    ///
    /// [`Error::BadSpecialToken`]; [`Error::PieceOfText`] for a name that text can become; [`Error::TakenId`] where a
    /// foreign vocabulary has gaps and its next id is in use.
    pub fn with_special_tokens<S: AsRef<str>>(&self, tokens: &[S]) -> Result<Self, Error> {
        check_names(tokens)?;
        let is_new = |token: &&str| !self.special_ids.contains_key(*token);
        let new: Vec<&str> = tokens.iter().map(AsRef::as_ref).filter(is_new).collect();
        let mut inner = self.inner.clone();
        let added = new.iter().map(|&token| AddedToken::from(token, true));
        inner.add_special_tokens(added).map_err(failed)?;
        let tokenizer = Self::of(inner)?;
        for token in new {
            let id = tokenizer.special_id(token)?;
            match self.id(token) {
                Some(_) if tokenizer.encode(token)?.contains(&id) => {
                    return Err(Error::PieceOfText(token.to_owned()));
                }
                None if self.piece(id).is_some() => {
                    return Err(Error::TakenId { id, token: token.to_owned() });
                }
                _ => {}
            }
        }
        Ok(tokenizer)
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the file cannot be read or is not a tokenizer.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let file = |reason: String| Error::File { path: path.display().to_string(), reason };
        let json = std::fs::read(path).map_err(|error| file(error.to_string()))?;
        Self::from_bytes(&json).map_err(|error| file(error.to_string()))
    }

    /// Writes a `tokenizer.json` that `tokenizers` and `transformers` read in Python.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let file = |error: std::io::Error| Error::File {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        std::fs::write(path, self.to_json()?).map_err(file)
    }

    /// The contents of a `tokenizer.json`; equal tokenizers give equal text.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] when the parts of a foreign tokenizer cannot be written.
    pub fn to_json(&self) -> Result<String, Error> {
        self.inner.to_string(true).map_err(failed)
    }

    /// Rows of an embedding table for this vocabulary: the largest id and one.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// The ids of a text; no special token is added or recognized.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`], never for tokenizers of [`Tokenizer::train_bpe`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.inner.encode_fast(text, false).map_err(failed)?.get_ids().to_vec())
    }

    /// The ids of a text that a template wrote: special tokens in it are what they say, and none is added.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn encode_template(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut inner = self.inner.clone();
        inner.set_encode_special_tokens(false);
        Ok(inner.encode_fast(text, false).map_err(failed)?.get_ids().to_vec())
    }

    /// As [`Tokenizer::encode`], of a text that goes on after another one: no space is put before it.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn encode_on(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.on(text, |text| self.encode(text))
    }

    /// As [`Tokenizer::encode_template`], of a text that goes on after another one.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn encode_template_on(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.on(text, |text| self.encode_template(text))
    }

    fn on(
        &self,
        text: &str,
        encode: impl Fn(&str) -> Result<Vec<u32>, Error>,
    ) -> Result<Vec<u32>, Error> {
        let Some(line) = &self.line else { return encode(text) };
        if text.is_empty() {
            return Ok(Vec::new());
        }
        // The space that is put before a text stands for its own; elsewhere a line's end takes it.
        if let Some(rest) = text.strip_prefix(' ').filter(|rest| !rest.is_empty()) {
            return encode(rest);
        }
        let ids = encode(&format!("\n{text}"))?;
        match ids.strip_prefix(line.as_slice()) {
            Some(rest) => Ok(rest.to_vec()),
            None => encode(text),
        }
    }

    /// Tokens that this tokenizer puts before a text of its own, e.g. the one that begins a document.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn opening(&self) -> Result<Vec<u32>, Error> {
        let with = self.inner.encode_fast("a", true).map_err(failed)?;
        let without = self.inner.encode_fast("a", false).map_err(failed)?;
        let (with, without) = (with.get_ids(), without.get_ids());
        let start = with.windows(without.len().max(1)).position(|ids| ids == without);
        Ok(with[..start.unwrap_or(0)].to_vec())
    }

    /// As [`Tokenizer::pieces`], of a text that goes on after another one: the pieces of [`Tokenizer::encode_on`].
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn pieces_on(&self, text: &str) -> Result<Vec<Piece>, Error> {
        let Some(line) = &self.line else { return self.pieces(text) };
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let at = |piece: Piece, to: fn(usize) -> usize| {
            let span = to(piece.span.start)..to(piece.span.end);
            Piece { span, ..piece }
        };
        if let Some(rest) = text.strip_prefix(' ').filter(|rest| !rest.is_empty()) {
            return Ok(self.pieces(rest)?.into_iter().map(|piece| at(piece, |i| i + 1)).collect());
        }
        let pieces = self.pieces(&format!("\n{text}"))?;
        if pieces.iter().map(|piece| &piece.id).zip(line).filter(|(a, b)| a == b).count()
            < line.len()
        {
            return self.pieces(text);
        }
        let rest = pieces.into_iter().skip(line.len());
        Ok(rest.map(|piece| at(piece, |i| i.saturating_sub(1))).collect())
    }

    /// The pieces of a text with the bytes that they cover.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn pieces(&self, text: &str) -> Result<Vec<Piece>, Error> {
        let encoding = self.inner.encode(text, false).map_err(failed)?;
        let pairs = encoding.get_ids().iter().zip(encoding.get_offsets());
        Ok(pairs.map(|(&id, &(start, end))| Piece { id, span: start..end }).collect())
    }

    /// The text of ids, leaving special tokens out. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownId`] for an id outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.decode_ids(ids, true)
    }

    /// The text of ids with special tokens written out, for people to read.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::decode`].
    pub fn decode_with_specials(&self, ids: &[u32]) -> Result<String, Error> {
        self.decode_ids(ids, false)
    }

    /// The id of a special token.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownToken`] when it is not one of this vocabulary.
    pub fn special_id(&self, token: &str) -> Result<u32, Error> {
        self.special_ids.get(token).copied().ok_or_else(|| Error::UnknownToken(token.to_owned()))
    }

    /// All special tokens with their ids, by name.
    pub fn special_ids(&self) -> &BTreeMap<String, u32> {
        &self.special_ids
    }

    /// The vocabulary's own spelling of a piece (`Ġmill`), `None` outside the vocabulary.
    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a piece in the vocabulary's own spelling.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.inner.token_to_id(piece)
    }

    /// Pieces per word (run of characters that are not white space); 0 for texts without words.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn pieces_per_word<S: AsRef<str>>(
        &self,
        texts: impl IntoIterator<Item = S>,
    ) -> Result<f64, Error> {
        let (mut n_pieces, mut n_words) = (0_usize, 0_usize);
        for text in texts {
            n_pieces += self.encode(text.as_ref())?.len();
            n_words += text.as_ref().split_whitespace().count();
        }
        Ok(if n_words == 0 { 0.0 } else { n_pieces as f64 / n_words as f64 })
    }

    fn decode_ids(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, Error> {
        match ids.iter().find(|&&id| self.inner.id_to_token(id).is_none()) {
            Some(&id) => Err(Error::UnknownId { id, n_tokens: self.n_tokens }),
            None => self.inner.decode(ids, skip_special_tokens).map_err(failed),
        }
    }
}

fn failed(error: tokenizers::Error) -> Error {
    Error::Tokenizer(error.to_string())
}

fn check_names<S: AsRef<str>>(special_tokens: &[S]) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    let bad = special_tokens.iter().map(AsRef::as_ref).find(|token| {
        token.is_empty() || token.contains(char::is_whitespace) || !seen.insert(*token)
    });
    bad.map_or(Ok(()), |token| Err(Error::BadSpecialToken(token.to_owned())))
}

/// A merge that spelled a special token would give text a way to become one.
fn without(text: &str, special_tokens: &[&str]) -> String {
    special_tokens.iter().fold(text.to_owned(), |text, token| text.replace(token, "\n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPECIALS: [&str; 3] = ["<pad>", "<s>", "</s>"];

    fn texts() -> Vec<String> {
        let people = ["Anna", "Björn", "José"];
        let places = ["the mill", "the harbor", "die Küche"];
        let pairs = people.iter().flat_map(|a| places.iter().map(move |b| (a, b)));
        pairs
            .map(|(a, b)| {
                format!("{a} walks to {b} slowly. <s> {a} isn't at {b}, is she? It rains there.")
            })
            .collect()
    }

    fn tokenizer() -> Tokenizer {
        Tokenizer::train_bpe(texts(), 312, &SPECIALS).unwrap()
    }

    #[test]
    fn special_tokens_come_first_and_bytes_follow() {
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.special_id("<pad>").unwrap(), 0);
        assert_eq!(tokenizer.special_id("</s>").unwrap(), 2);
        assert!(tokenizer.special_id("mill").is_err());
        assert_eq!(tokenizer.n_tokens(), 312);
        let bytes = (3..259).map(|id| tokenizer.piece(id).unwrap().chars().count());
        assert!(bytes.into_iter().all(|n| n == 1));
    }

    #[test]
    fn text_that_looks_like_a_marker_is_text() {
        let tokenizer = tokenizer();
        let ids = tokenizer.encode("a<s>b</s>").unwrap();
        assert!(ids.iter().all(|&id| id > 2), "{ids:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), "a<s>b</s>");
    }

    #[test]
    fn markers_are_left_out_or_written() {
        let tokenizer = tokenizer();
        let mut ids = vec![1];
        ids.extend(tokenizer.encode("the mill").unwrap());
        ids.push(2);
        assert_eq!(tokenizer.decode(&ids).unwrap(), "the mill");
        assert_eq!(tokenizer.decode_with_specials(&ids).unwrap(), "<s>the mill</s>");
        let error = tokenizer.decode(&[5_000]).unwrap_err();
        assert_eq!(error.to_string(), "token id 5000 is outside the vocabulary of 312");
    }

    #[test]
    fn frequent_words_become_one_piece() {
        let texts = [" the mill", " the mill", " a mole"];
        let tokenizer = Tokenizer::train_bpe(texts, 512, &[]).unwrap();
        assert_eq!(tokenizer.encode(" the mill").unwrap().len(), 2);
        // " mole" occurs once and stays " m", "o", "l", "e": 7 pieces for 4 words.
        let pieces = tokenizer.pieces_per_word([" the mill", " the mole"]).unwrap();
        assert_eq!(pieces, 7.0 / 4.0, "{:?}", tokenizer.encode(" mole"));
        assert_eq!(tokenizer.pieces_per_word([""; 0]).unwrap(), 0.0);
    }

    #[test]
    fn pieces_cover_the_text() {
        let text = "Björn walks — to 日本";
        let pieces = tokenizer().pieces(text).unwrap();
        assert_eq!(pieces.first().unwrap().span.start, 0);
        assert_eq!(pieces.last().unwrap().span.end, text.len());
        for pair in pieces.windows(2) {
            // Adjacent, or two pieces inside one character.
            assert!(pair[1].span.start <= pair[0].span.end && pair[0].span.end <= pair[1].span.end);
        }
        assert!(pieces.iter().all(|piece| text.get(piece.span.clone()).is_some()));
    }

    #[test]
    fn training_is_deterministic_and_files_keep_everything() {
        let (first, second) = (tokenizer(), tokenizer());
        assert_eq!(first.to_json().unwrap(), second.to_json().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        first.save(&path).unwrap();
        let loaded = Tokenizer::load(&path).unwrap();
        assert_eq!(loaded.to_json().unwrap(), first.to_json().unwrap());
        assert_eq!(loaded.special_ids(), first.special_ids());
        assert_eq!(loaded.encode("<s> Anna").unwrap(), first.encode("<s> Anna").unwrap());
        std::fs::write(&path, "{").unwrap();
        let error = Tokenizer::load(&path).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: tokenizer: "), "{error}");
    }

    #[test]
    fn impossible_requests_are_refused() {
        let train = |size, specials: &[&str]| Tokenizer::train_bpe(texts(), size, specials);
        assert!(matches!(
            train(258, &SPECIALS),
            Err(Error::VocabularyTooSmall { needed: 259, found: 258 })
        ));
        for specials in [&["a", "a"][..], &[""], &["a b"]] {
            assert!(matches!(train(300, specials), Err(Error::BadSpecialToken(_))));
        }
    }

    #[test]
    fn special_tokens_are_added_behind_the_vocabulary() {
        let tokenizer = tokenizer();
        let more = tokenizer.with_special_tokens(&["<x>", "</s>", "<y>"]).unwrap();
        // `</s>` was there.
        let ids = ["<x>", "</s>", "<y>"].map(|token| more.special_id(token).unwrap());
        assert_eq!((ids, more.n_tokens()), ([312, 2, 313], 314));
        assert_eq!(more.encode("the mill").unwrap(), tokenizer.encode("the mill").unwrap());
        assert!(more.encode("<x>").unwrap().iter().all(|&id| id < 312));
        let again = Tokenizer::from_bytes(more.to_json().unwrap().as_bytes()).unwrap();
        assert_eq!(again.special_ids(), more.special_ids());
        assert!(tokenizer.with_special_tokens(&["<x>", "<x>"]).is_err());
    }

    #[test]
    fn what_text_can_become_is_no_special_token() {
        let error = tokenizer().with_special_tokens(&["m"]).unwrap_err();
        assert_eq!(error.to_string(), "text can become \"m\", which is to be a special token");
    }

    #[test]
    fn an_id_behind_a_gap_is_not_taken_twice() {
        // Three pieces of which the last has number 3: the library would number the next one 3 as well.
        let json = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
            "pre_tokenizer":null,"post_processor":null,"decoder":null,"model":{"type":"WordLevel",
            "vocab":{"a":0,"b":1,"c":3},"unk_token":"a"}}"#;
        let tokenizer = Tokenizer::from_bytes(json.as_bytes()).unwrap();
        let error = tokenizer.with_special_tokens(&["<x>"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the next id of the vocabulary, 3, is in use and cannot be that of \"<x>\""
        );
    }

    proptest! {
        #[test]
        fn any_text_survives(text in any::<String>(), tail in "[ \t\r\n\u{a0}\u{301}ab'<s>/]{0,12}") {
            let tokenizer = tokenizer_once();
            let text = text + &tail;
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        }
    }

    fn tokenizer_once() -> &'static Tokenizer {
        static TOKENIZER: std::sync::LazyLock<Tokenizer> = std::sync::LazyLock::new(tokenizer);
        &TOKENIZER
    }
}
