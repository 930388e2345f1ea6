//! Shallow scorers that must fail on the stories, and the table of how they do.
//!
//! ```text
//! story   Anna is in the park. Ben is in the shop. Leo is in the tower. Ida is in the mill.
//! ending  Ben is still in the ____      park      shop      tower     mill
//! first mention                          1         0         0         0      position in the story
//! recency                                0         0         0         1
//! n-grams                              log p     log p     log p     log p    learned from right endings
//! ```
//!
//! Each scorer gives four scores; credit is shared among the best, so chance is one quarter. `held_on` says where a
//! scorer must stay at chance: those that look at mentions have nothing to look at where the endings
//! mention nothing of the story (level `topic`). `same_sentence` is the association that *solves* level
//! `entity` by construction; it is reported to show what the higher levels add, and held on `two_hops`.

use super::Level;
use super::stories::Story;
use std::collections::HashMap;

/// A shallow scorer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cue {
    /// A bigram model of stories with their right endings, scoring the ending after the story.
    Bigram,
    /// A trigram model of the same.
    Trigram,
    /// How often the ending was right rather than wrong in training, by its words alone.
    EndingOnly,
    /// The candidate that was mentioned last.
    Recency,
    /// The candidate that was mentioned first.
    FirstMention,
    /// The candidate that the story mentions most often.
    Frequency,
    /// The words of the ending that the story has.
    Overlap,
    /// The shortest ending.
    Shortest,
    /// The candidate that stands in a sentence with what the ending is about.
    SameSentence,
}

impl Cue {
    /// All scorers.
    pub const ALL: [Self; 9] = [
        Self::Bigram,
        Self::Trigram,
        Self::EndingOnly,
        Self::Recency,
        Self::FirstMention,
        Self::Frequency,
        Self::Overlap,
        Self::Shortest,
        Self::SameSentence,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bigram => "bigram",
            Self::Trigram => "trigram",
            Self::EndingOnly => "ending_only",
            Self::Recency => "recency",
            Self::FirstMention => "first_mention",
            Self::Frequency => "frequency",
            Self::Overlap => "overlap",
            Self::Shortest => "shortest",
            Self::SameSentence => "same_sentence",
        }
    }

    /// Whether the scorer must stay within 3 points of chance on stories of `level`.
    pub fn held_on(self, level: Level) -> bool {
        match self {
            Self::Bigram | Self::Trigram | Self::EndingOnly | Self::Shortest => true,
            Self::Recency | Self::FirstMention | Self::Frequency | Self::Overlap => {
                level != Level::Topic
            }
            Self::SameSentence => level == Level::TwoHops,
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').map(|word| word.trim_matches(['.', '?']))
}

/// Words and full stops.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for word in text.split(' ') {
        match word.strip_suffix(['.', '?']) {
            Some(stem) => tokens.extend([stem.to_lowercase(), ".".to_owned()]),
            None => tokens.push(word.to_lowercase()),
        }
    }
    tokens
}

/// What the learning scorers know, from stories of training.
#[derive(Debug, Default)]
pub struct Scorers {
    bigrams: HashMap<[u32; 2], u32>,
    trigrams: HashMap<[u32; 3], u32>,
    unigrams: HashMap<u32, u32>,
    endings: HashMap<u32, [u32; 2]>,
    vocabulary: HashMap<String, u32>,
}

impl Scorers {
    /// Learns from stories of training.
    pub fn train(stories: &[Story]) -> Self {
        let mut scorers = Self::default();
        for story in stories {
            let text = format!("{} {}", story.text(), story.endings[story.right]);
            let ids = scorers.learn_ids(&text);
            for &id in &ids {
                *scorers.unigrams.entry(id).or_default() += 1;
            }
            for pair in ids.windows(2) {
                *scorers.bigrams.entry([pair[0], pair[1]]).or_default() += 1;
            }
            for triple in ids.windows(3) {
                *scorers.trigrams.entry([triple[0], triple[1], triple[2]]).or_default() += 1;
            }
            for (i, ending) in story.endings.iter().enumerate() {
                for id in scorers.learn_ids(ending) {
                    scorers.endings.entry(id).or_default()[usize::from(i == story.right)] += 1;
                }
            }
        }
        scorers
    }

    fn learn_ids(&mut self, text: &str) -> Vec<u32> {
        tokens(text)
            .into_iter()
            .map(|token| {
                let next = self.vocabulary.len() as u32;
                *self.vocabulary.entry(token).or_insert(next)
            })
            .collect()
    }

    fn ids(&self, text: &str) -> Vec<u32> {
        tokens(text)
            .iter()
            .map(|token| self.vocabulary.get(token).copied().unwrap_or(u32::MAX))
            .collect()
    }

    /// Interpolated with the lower order by Dirichlet smoothing.
    fn bigram(&self, a: u32, b: u32, lower: f64) -> f64 {
        let n = self.bigrams.get(&[a, b]).copied().unwrap_or(0);
        let total = self.unigrams.get(&a).copied().unwrap_or(0);
        (f64::from(n) + 5.0 * lower) / (f64::from(total) + 5.0)
    }

    fn trigram(&self, a: u32, b: u32, c: u32, lower: f64) -> f64 {
        let n = self.trigrams.get(&[a, b, c]).copied().unwrap_or(0);
        let total = self.bigrams.get(&[a, b]).copied().unwrap_or(0);
        (f64::from(n) + 5.0 * lower) / (f64::from(total) + 5.0)
    }

    fn ngram(
        &self,
        story: &Story,
        ending: &str,
        order: usize,
        unigrams: &HashMap<u32, f64>,
    ) -> f64 {
        let mut ids = self.ids(&story.sentences[3]);
        let start = ids.len();
        ids.extend(self.ids(ending));
        (start..ids.len())
            .map(|t| {
                let lowest = unigrams.get(&ids[t]).copied().unwrap_or(1e-7);
                let bigram = self.bigram(ids[t - 1], ids[t], lowest);
                if order == 2 {
                    bigram
                } else {
                    self.trigram(ids[t - 2], ids[t - 1], ids[t], bigram)
                }
                .ln()
            })
            .sum()
    }

    fn scores(&self, cue: Cue, story: &Story, unigrams: &HashMap<u32, f64>) -> [f64; 4] {
        let text = story.text();
        let mentions = |i: usize| -> Vec<usize> {
            let candidate = story.candidates.get(i).map_or("", String::as_str);
            words(&text)
                .enumerate()
                .filter(|(_, word)| word.eq_ignore_ascii_case(candidate))
                .map(|(at, _)| at)
                .collect()
        };
        std::array::from_fn(|i| {
            let ending = &story.endings[i];
            match cue {
                Cue::Bigram => self.ngram(story, ending, 2, unigrams),
                Cue::Trigram => self.ngram(story, ending, 3, unigrams),
                Cue::EndingOnly => self
                    .ids(ending)
                    .iter()
                    .map(|id| {
                        let [wrong, right] = self.endings.get(id).copied().unwrap_or_default();
                        ((f64::from(right) + 1.0) / (f64::from(wrong) + 3.0)).ln()
                    })
                    .sum(),
                Cue::Recency => mentions(i).last().map_or(-1.0, |&at| at as f64),
                Cue::FirstMention => mentions(i).first().map_or(-1e9, |&at| -(at as f64)),
                Cue::Frequency => mentions(i).len() as f64,
                Cue::Overlap => words(ending)
                    .filter(|word| words(&text).any(|other| other == *word))
                    .count() as f64,
                Cue::Shortest => -(ending.len() as f64),
                Cue::SameSentence => {
                    let candidate = story.candidates.get(i).map_or("", String::as_str);
                    let has = |sentence: &str, wanted: &str| {
                        words(sentence).any(|word| word.eq_ignore_ascii_case(wanted))
                    };
                    story
                        .sentences
                        .iter()
                        .filter(|sentence| has(sentence, candidate) && has(sentence, &story.focus))
                        .count() as f64
                }
            }
        })
    }

    /// The share of stories in which the scorer prefers the right ending; ties share the credit.
    pub fn accuracy(&self, cue: Cue, stories: &[Story]) -> f64 {
        let unigrams: HashMap<u32, f64> = match cue {
            Cue::Bigram | Cue::Trigram => {
                let total: f64 = self.unigrams.values().map(|&n| f64::from(n)).sum();
                let all = total + 0.5 * self.vocabulary.len() as f64;
                self.unigrams.iter().map(|(&id, &n)| (id, (f64::from(n) + 0.5) / all)).collect()
            }
            _ => HashMap::new(),
        };
        let credit: f64 = stories
            .iter()
            .map(|story| {
                let scores = self.scores(cue, story, &unigrams);
                let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let ties = scores.iter().filter(|score| **score >= best - 1e-9).count();
                if scores[story.right] >= best - 1e-9 { 1.0 / ties as f64 } else { 0.0 }
            })
            .sum();
        credit / stories.len().max(1) as f64
    }
}
