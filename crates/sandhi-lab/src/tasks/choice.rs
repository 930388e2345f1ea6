//! Choices by likelihood: one way to ask and one way to count, for every task that chooses.
//!
//! ```text
//! plain   begin ─ before ─ context, heard or read ─ between ─┬─ ending 0 ─ log-probabilities of its tokens ─┬─ sum
//!                                                            └─ ending 1 ─ …                                ├─ per token
//! chat    the prompt of the instruction with the context ────┬─ answer 0                                    └─ per character
//!                                                            └─ answer 1
//! ```
//!
//! A document is tokenized as a whole, context and ending together. What counts of it begins where the encodings with the
//! item's endings, and that of the context alone, first differ: as a rule with the ending's own first token. A token that
//! spans the border counts as a whole, and then the text before it counts for every ending. A context that is heard is
//! followed by the very tokens that follow its transcript, so that hearing and reading are scored on the same ones; one
//! without a transcript by those of a text that goes on. A token that spans the border of a transcript and what follows
//! it stands behind the speech, with the last characters of the transcript. Tokens that end a document or a turn never
//! count.

use sandhi_data::text::Error;

use crate::{chat::Chat, model::pack::Segment, protocol::Score};

/// A question with its possible answers.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) form: Form,
    /// What is chosen from, none of them empty; nothing where the model just answers.
    pub(super) endings: Vec<String>,
}

/// What stands around a context.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// A document.
    Plain {
        /// Before the context, the space between them included.
        before: String,
        /// Between context and ending, the space before the ending included.
        between: String,
    },
    /// The chat prompt.
    Chat {
        /// What is to be done.
        instruction: String,
    },
}

/// How a context is taken in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Context<'a> {
    /// Read.
    Written(&'a str),
    /// Heard: the place of its vectors, and what is said where that is known. In a document the transcript says where tokens
    /// are cut, and where one holds its last characters together with what follows, those follow the speech in writing;
    /// nothing else of it is given to the model. In a chat nothing is.
    Heard(usize, Option<&'a str>),
}

/// A question as a model takes it.
#[derive(Debug, PartialEq)]
pub(super) struct Question {
    pub(super) prompt: Vec<Segment>,
    /// What counts of each ending.
    pub(super) endings: Vec<Vec<u32>>,
}

impl Question {
    /// Puts a question in tokens.
    ///
    /// # Errors
    ///
    /// When the tokenizer refuses a text.
    pub(super) fn new(chat: &Chat, asked: &Asked, context: Context<'_>) -> Result<Self, Error> {
        match &asked.form {
            Form::Chat { instruction } => {
                let input = match context {
                    Context::Written(text) => Segment::Tokens(chat.transcript(text)?),
                    Context::Heard(place, _) => Segment::Speech(place),
                };
                let ids = |text: &String| {
                    let mut ids = chat.answer(text)?;
                    ids.pop().expect("an answer has an end");
                    Ok(ids)
                };
                let endings = asked.endings.iter().map(ids).collect::<Result<_, Error>>()?;
                Ok(Self { prompt: chat.prompt(instruction, vec![input])?, endings })
            }
            Form::Plain { before, between } => {
                Self::document(chat, before, context, between, &asked.endings)
            }
        }
    }

    fn document(
        chat: &Chat,
        before: &str,
        context: Context<'_>,
        between: &str,
        endings: &[String],
    ) -> Result<Self, Error> {
        let tokenizer = chat.tokenizer();
        let bare = between.trim_end();
        let mut head = vec![chat.layout().begin];
        let (Context::Written(text) | Context::Heard(_, Some(text))) = context else {
            let Context::Heard(place, None) = context else { unreachable!("matched above") };
            head.extend(tokenizer.encode(before.trim_end_matches(' '))?);
            let whole = |ending: &String| tokenizer.encode_on(&format!("{between}{ending}"));
            let wholes = endings.iter().map(whole).collect::<Result<Vec<_>, _>>()?;
            let border = shared(&tokenizer.encode_on(bare)?, &wholes);
            return Ok(Self::cut(
                vec![Segment::Tokens(head), Segment::Speech(place)],
                0,
                border,
                wholes,
            ));
        };
        let whole = |ending: &String| tokenizer.encode(&format!("{before}{text}{between}{ending}"));
        let wholes = endings.iter().map(whole).collect::<Result<Vec<_>, _>>()?;
        let until = |text: &str| Ok::<_, Error>(shared(&tokenizer.encode(text)?, &wholes));
        let border = until(&format!("{before}{text}{bare}"))?;
        let said = until(&format!("{before}{text}"))?.min(border);
        let first = until(before.trim_end_matches(' '))?.min(said);
        let tokens: &[u32] = wholes.first().map_or(&[], Vec::as_slice);
        head.extend(&tokens[..first]);
        let input = match context {
            Context::Written(_) => Segment::Tokens(tokens[first..said].to_vec()),
            Context::Heard(place, _) => Segment::Speech(place),
        };
        Ok(Self::cut(vec![Segment::Tokens(head), input], said, border, wholes))
    }

    /// The prompt goes on to the border, the endings from there.
    fn cut(mut prompt: Vec<Segment>, from: usize, border: usize, wholes: Vec<Vec<u32>>) -> Self {
        let tokens: &[u32] = wholes.first().map_or(&[], Vec::as_slice);
        prompt.push(Segment::Tokens(tokens[from..border].to_vec()));
        Self { prompt, endings: wholes.into_iter().map(|ids| ids[border..].to_vec()).collect() }
    }
}

/// How many tokens at the beginning all encodings have in common.
pub(super) fn shared(stem: &[u32], wholes: &[Vec<u32>]) -> usize {
    let with = |whole: &Vec<u32>| stem.iter().zip(whole).take_while(|(a, b)| a == b).count();
    wholes.iter().map(with).min().unwrap_or(0)
}

/// How likely an ending is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Likelihood {
    /// Log-probability of its tokens, in nats; of none at all, what is never the best.
    pub(super) log_prob: f64,
    /// Tokens that count.
    pub(super) n_tokens: usize,
    /// Characters of the ending.
    pub(super) n_chars: usize,
}

impl Likelihood {
    /// Of the log-probabilities of the tokens that count of `ending`.
    pub(super) fn new(tokens: &[f64], ending: &str) -> Self {
        let log_prob = if tokens.is_empty() { f64::NEG_INFINITY } else { tokens.iter().sum() };
        Self { log_prob, n_tokens: tokens.len(), n_chars: ending.chars().count() }
    }

    fn score(&self, score: Score) -> f64 {
        match score {
            Score::Sum => self.log_prob,
            Score::PerToken => self.log_prob / self.n_tokens as f64,
            Score::PerCharacter => self.log_prob / self.n_chars as f64,
        }
    }
}

/// The best endings by a score, in order; all that tie.
pub(super) fn best(endings: &[Likelihood], score: Score) -> Vec<usize> {
    let scores: Vec<f64> = endings.iter().map(|ending| ending.score(score)).collect();
    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (0..scores.len()).filter(|&i| scores[i] == best).collect()
}

/// What a choice is worth: 1 where the right ending is the best, 1/k where k tie for the best and it is one of them.
pub(super) fn credit(endings: &[Likelihood], right: usize, score: Score) -> f64 {
    let best = best(endings, score);
    if best.contains(&right) { 1.0 / best.len() as f64 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use sandhi_data::text::Tokenizer;

    use super::*;
    use crate::chat::{END, MARKERS};

    const STORY: &str = "Anna took the red ball. Ben went to the shop.";

    fn chat() -> Chat {
        let texts = ["Anna took the red ball. Ben went to the shop. Now Ben is in the shop."; 8];
        Chat::with_markers(Tokenizer::train_bpe(texts, 330, &MARKERS).unwrap()).unwrap()
    }

    fn plain(before: &str, between: &str, endings: &[&str]) -> Asked {
        let form = Form::Plain { before: before.into(), between: between.into() };
        Asked { form, endings: endings.iter().map(|&text| text.into()).collect() }
    }

    fn flat(prompt: &[Segment]) -> Vec<u32> {
        let ids = |segment: &Segment| match segment {
            Segment::Tokens(ids) => ids.clone(),
            Segment::Speech(_) => Vec::new(),
        };
        prompt.iter().flat_map(ids).collect()
    }

    #[test]
    fn a_document_is_tokenized_as_a_whole() {
        let chat = chat();
        let asked = plain("Ben went. ", " ", &["Now Ben is in the shop.", "Anna went."]);
        let question = Question::new(&chat, &asked, Context::Written(STORY)).unwrap();
        for (text, ending) in asked.endings.iter().zip(&question.endings) {
            // The document as it is trained on, but for its end.
            let mut document = chat.document(&format!("Ben went. {STORY} {text}")).unwrap();
            document.pop();
            assert_eq!([flat(&question.prompt), ending.clone()].concat(), document);
            // What counts is the ending with the space before it.
            let counted = chat.tokenizer().decode(ending).unwrap();
            assert_eq!(counted, format!(" {text}"));
        }
    }

    #[test]
    fn hearing_is_scored_on_the_tokens_of_reading() {
        let chat = chat();
        for between in [" ", "\nAnswer: "] {
            for before in ["", "Ben went.\n\n"] {
                let asked = plain(before, between, &["Anna is in the shop.", "Ben took it."]);
                let read = Question::new(&chat, &asked, Context::Written(STORY)).unwrap();
                let heard = Context::Heard(3, Some(STORY));
                let heard = Question::new(&chat, &asked, heard).unwrap();
                assert_eq!(heard.endings, read.endings);
                let (first, last) = (&read.prompt[0], &read.prompt[2]);
                assert_eq!(heard.prompt, [first.clone(), Segment::Speech(3), last.clone()]);
                // Without a transcript the same follows, because no token spans the border here.
                let unknown = Question::new(&chat, &asked, Context::Heard(3, None)).unwrap();
                assert_eq!((unknown.endings, &unknown.prompt[1]), (read.endings, &heard.prompt[1]));
                assert_eq!(flat(&unknown.prompt), flat(&heard.prompt));
            }
        }
    }

    #[test]
    fn a_token_that_spans_the_border_counts_as_a_whole() {
        let chat = chat();
        // No space between: "sh" and "op" are one token of " shop".
        let asked = plain("", "", &["op.", "e."]);
        let context = "Ben went to the sh";
        let question = Question::new(&chat, &asked, Context::Written(context)).unwrap();
        let text = |ids: &[u32]| chat.tokenizer().decode(ids).unwrap();
        for (ending, counted) in asked.endings.iter().zip(&question.endings) {
            let whole = chat.tokenizer().encode(&format!("{context}{ending}")).unwrap();
            let prompt = &flat(&question.prompt)[1..];
            assert_eq!([prompt.to_vec(), counted.clone()].concat(), whole);
            // The same text counts for both, though only one has a token that spans.
            assert_eq!(text(prompt), "Ben went to the");
            assert_eq!(text(counted), format!(" sh{ending}"));
        }
        // What is heard is followed by the whole token, here of an ending, there of what stands before one.
        let heard = Context::Heard(0, Some(context));
        assert_eq!(Question::new(&chat, &asked, heard).unwrap().endings, question.endings);
        let asked = plain("", "op. ", &["Anna went.", "Ben took it."]);
        let Question { prompt, .. } = Question::new(&chat, &asked, heard).unwrap();
        let Segment::Tokens(ids) = &prompt[2] else { panic!("tokens behind the speech") };
        assert!(text(ids).starts_with(" sh"), "{}", text(ids));
    }

    #[test]
    fn markers_never_count() {
        let chat = chat();
        let end = chat.token(END).unwrap();
        let instruction = "Say it.".to_owned();
        let asked =
            Asked { form: Form::Chat { instruction }, endings: vec!["Now.".into(), "Ben".into()] };
        for context in [Context::Written(STORY), Context::Heard(0, Some(STORY))] {
            let question = Question::new(&chat, &asked, context).unwrap();
            assert!(question.endings.iter().all(|ids| !ids.is_empty() && !ids.contains(&end)));
            let answer = chat.answer("Now.").unwrap();
            assert_eq!(question.endings[0], answer[..answer.len() - 1]);
        }
    }

    #[test]
    fn the_three_scores_differ_and_ties_are_shared() {
        let of = |tokens: &[f64], ending: &str| Likelihood::new(tokens, ending);
        // Sums -2, -3, -4; per token -2, -1.5, -1; per character -1, -1.5, -1.
        let endings = [of(&[-2.0], "ab"), of(&[-1.0, -2.0], "ab"), of(&[-1.0; 4], "äöüß")];
        assert_eq!(best(&endings, Score::Sum), [0]);
        assert_eq!(best(&endings, Score::PerToken), [2]);
        assert_eq!(best(&endings, Score::PerCharacter), [0, 2]);
        assert_eq!(
            [0, 1, 2].map(|right| credit(&endings, right, Score::PerCharacter)),
            [0.5, 0.0, 0.5]
        );
        assert_eq!(credit(&endings, 0, Score::Sum), 1.0);
        // Nothing to score is no certainty.
        assert_eq!(best(&[of(&[], ""), of(&[-9.0], "a")], Score::Sum), [1]);
        let same = [of(&[-1.0], "a"); 4];
        assert_eq!(credit(&same, 2, Score::PerToken), 0.25);
    }
}
