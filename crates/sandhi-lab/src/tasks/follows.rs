//! Whether an answer has the form that was asked for, whatever it says.
//!
//! ```text
//! instruction                 answer                           form
//! Write it in capitals.       ANA TOOK THE RED BELL.           followed, though misheard
//! What is the last word?      Anna took the red ball.          not followed: a transcript
//! ```
//!
//! A model that hears badly and one that only ever transcribes both score low on content; this tells them apart, as
//! Speech-IFEval does (Lu et al., 2025, arXiv:2505.19037). Forms follow from the task:
//!
//! | asked for | form |
//! |---|---|
//! | transcript | half to twice as many words as were said |
//! | translation | most words that are of one language only are of the right one |
//! | first or last word | one word |
//! | name of a person or place | no more words than the name has |
//! | capitals | letters, none of them small |
//! | answer to a question | one to five words |
//! | next sentence | one sentence that the story did not have |

use std::{
    collections::{BTreeSet, HashSet},
    sync::LazyLock,
};

use sandhi_data::{
    language::Language,
    microworld::{self, Item, Task},
    text::normalize,
};

use super::score::{Number, Ratio, add_side};
use crate::{
    protocol::Sides,
    results::{CASCADE, Prediction, Results, TEXT},
};

/// The name of the metric.
pub(super) const METRIC: &str = "follows";

/// Where the mean over all tasks that were never trained on speech stands.
pub(super) const RATE: &str = "instruction_following";

/// Whether an answer has the form that the item's instruction asks for; `None` where the form of an answer says nothing.
pub(super) fn follows(item: &Item, answer: &str) -> Option<bool> {
    let normal = normalize(answer);
    let n = normal.split_whitespace().count();
    let spoken = normalize(&item.spoken);
    let n_spoken = spoken.split_whitespace().count();
    Some(match item.task {
        Task::Transcribe | Task::Biasing => 2 * n >= n_spoken && n <= 2 * n_spoken,
        Task::Translate { to } => is_written_in(&normal, to),
        Task::FirstWord | Task::LastWord => n == 1,
        Task::NamePerson | Task::NamePlace => {
            (1..=normalize(&item.answer).split_whitespace().count().max(1)).contains(&n)
        }
        Task::UpperCase => {
            answer.chars().any(char::is_alphabetic) && !answer.chars().any(char::is_lowercase)
        }
        Task::AnswerQuestion => (1..=5).contains(&n),
        Task::Continue => {
            let answer = answer.trim();
            let n_ends = answer.matches(['.', '?', '!']).count();
            let is_new =
                |story: &str| !story.split(['.', '?', '!']).any(|s| normalize(s) == normal);
            n > 0 && n_ends == 1 && answer.ends_with(['.', '?', '!']) && is_new(&item.spoken)
        }
        // Replies repeat much of what was said, as a transcript with errors does.
        Task::Dialogue | Task::FactChoice => return None,
        // Nothing is asked.
        Task::Swuggy | Task::Sblimp => return None,
    })
}

/// Whether most of the words that only one language has are this one's.
fn is_written_in(normal: &str, language: Language) -> bool {
    static WORDS: LazyLock<[HashSet<String>; 3]> = LazyLock::new(|| {
        Language::ALL.map(|language| microworld::vocabulary(language).map(normalize).collect())
    });
    let has = |language: Language, word: &str| WORDS[language as usize].contains(word);
    let (mut here, mut elsewhere) = (0, 0);
    for word in normal.split_whitespace() {
        match (has(language, word), Language::ALL.iter().filter(|l| has(**l, word)).count()) {
            (true, 1) => here += 1,
            (false, 1..) => elsewhere += 1,
            _ => {}
        }
    }
    here > elsewhere
}

/// Adds the mean over the tasks that are not among those `trained` on speech, a number for every domain and way of
/// reading: each task counts the same, and utterances are drawn anew over all of them.
pub(super) fn add_rates(
    results: &mut Results,
    predictions: &[Vec<Prediction>],
    trained: &BTreeSet<String>,
) {
    let domains: indexmap::IndexSet<&str> =
        predictions.iter().flatten().map(|p| p.domain.as_str()).collect();
    for domain in domains {
        for suffix in ["", TEXT, CASCADE] {
            let name = format!("{METRIC}{suffix}");
            let mut counts = Vec::new();
            for cell in predictions {
                let belongs = |p: &&Prediction| p.domain == domain && !trained.contains(&p.task);
                let found: Vec<f64> = cell
                    .iter()
                    .filter(belongs)
                    .filter_map(|p| Some(p.counts.get(&name)?[0]))
                    .collect();
                let share = 1.0 / found.len() as f64;
                counts.extend(found.into_iter().map(|follows| Ratio(share * follows, share)));
            }
            if !counts.is_empty() {
                let sides = if suffix == TEXT { Sides::T2T } else { Sides::S2T };
                let number = Number::share(METRIC, counts);
                add_side(results, (RATE, domain), suffix, &[number], None, sides);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sandhi_data::microworld::{Microworld, Split, Style};

    use super::*;

    fn item(task: Task, spoken: &str, answer: &str) -> Item {
        let mut item = Microworld::new(1).item_of(Task::Transcribe, Language::English, spoken);
        (item.task, item.answer) = (task, answer.to_owned());
        item
    }

    #[test]
    fn forms_are_told_by_hand() {
        const SAID: &str = "Anna took the red ball to the park.";
        let to = Language::German;
        for (task, right, followed, not) in [
            (
                Task::Transcribe,
                SAID,
                vec!["Ana took red bell to a bark.", SAID],
                vec!["", "Anna", "park."],
            ),
            (
                Task::UpperCase,
                "ANNA",
                vec!["ANA TOOK THE RED BELL.", "X"],
                vec!["Anna", "", "ANNA took", "7"],
            ),
            (Task::FirstWord, "Anna", vec!["Anna", "Bell.", "the"], vec![SAID, "", "Anna took"]),
            (Task::LastWord, "park", vec!["bark", "Park."], vec!["the park", SAID, ""]),
            (Task::NamePerson, "Anna", vec!["Ben", "park"], vec!["Anna took", "", SAID]),
            (Task::NamePlace, "swimming pool", vec!["park", "cool pool"], vec!["in the park", ""]),
            (
                Task::AnswerQuestion,
                "park",
                vec!["the park", "Anna", "She is in the park."],
                vec!["", SAID],
            ),
            (
                Task::Continue,
                "So.",
                vec!["Now the ball is red.", "Is it?"],
                vec![SAID, "Now", "", "It is. It was."],
            ),
            (
                Task::Translate { to },
                "x",
                vec!["Anna hat den roten Ball genommen.", "Der Ball"],
                vec![SAID, "", "Anna", "Anna tomó la pelota."],
            ),
        ] {
            let item = item(task, SAID, right);
            for answer in followed {
                assert_eq!(follows(&item, answer), Some(true), "{task}: {answer}");
            }
            for answer in not {
                assert_eq!(follows(&item, answer), Some(false), "{task}: {answer}");
            }
        }
        for task in [Task::Dialogue, Task::FactChoice] {
            assert_eq!(follows(&item(task, SAID, "x"), "x"), None);
        }
    }

    #[test]
    fn right_answers_follow() {
        let world = Microworld::new(1);
        for task in Task::ALL {
            for style in [Style::Seen, Style::Unseen] {
                for item in world.items(task, Language::English, Split::Dev, style, 60) {
                    let found = follows(&item, &item.answer);
                    assert_ne!(found, Some(false), "{task}: {} -> {}", item.spoken, item.answer);
                }
            }
        }
    }

    #[test]
    fn every_untrained_task_counts_the_same() {
        let prediction = |task: &str, follows: f64| Prediction {
            id: "u".into(),
            task: task.into(),
            domain: "base".into(),
            counts: [(METRIC.to_owned(), vec![follows, 1.0])].into_iter().collect(),
            ..Prediction::default()
        };
        let mut results = Results::default();
        let cells = [
            vec![prediction("asr", 0.0); 9],
            vec![prediction("upper_case", 1.0); 2],
            [vec![prediction("last_word", 0.0); 3], vec![prediction("last_word", 1.0)]].concat(),
        ];
        add_rates(&mut results, &cells, &BTreeSet::from(["asr".to_owned()]));
        // (2/2 + 1/4) / 2.
        let found = results.get(RATE, "base", METRIC).unwrap();
        assert!((found.value - 0.625).abs() < 1e-12, "{found:?}");
        assert_eq!(found.n, 6);
        assert!(results.get(RATE, "base", "follows_text").is_none());
    }
}
