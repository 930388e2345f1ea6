//! Short dialogues: something is said, and what was said decides the reply (English).
//!
//! ```text
//! Hello, I am Anna. How are you?                        Hello Anna, I am fine.
//! Can we meet in the park at three o'clock?             Yes, at three o'clock in the park.
//! ```

use super::lexicon::{Adjective, Adverb, Noun, Person, Words};
use super::sentences::{split_of, words_of};
use super::tasks::Spoken;
use super::{Split, Style};
use crate::rng::Stream;

/// The words of the dialogues that no other part of the corpus has.
pub(super) const WORDS: &str = "hello I am how you fine would like please here can we meet yes maybe ask goodbye will see until thank likes \
    glad that waiting me should go it my name this nice do keep call for bring get or lost take and still";

struct Parts {
    persons: [Person; 2],
    things: [Noun; 2],
    place: Noun,
    colors: [Adjective; 2],
    mood: Adjective,
    hour: u8,
    n: u8,
    day: Adverb,
}

impl Parts {
    fn draw(words: &Words, rng: &mut Stream) -> Self {
        let two = |n: usize, rng: &mut Stream| {
            let first = rng.below(n);
            [first, (first + 1 + rng.below(n - 1)) % n]
        };
        Self {
            persons: two(words.persons.len(), rng).map(|i| words.persons[i]),
            things: two(words.things.len(), rng).map(|i| words.things[i]),
            place: *rng.pick(&words.places),
            colors: two(words.colors.len(), rng).map(|i| words.colors[i]),
            mood: *rng.pick(&words.moods),
            hour: 1 + rng.below(12) as u8,
            n: 2 + rng.below(11) as u8,
            day: words_of(Style::Seen).times[rng.below(7)],
        }
    }
}

/// What is said and the reply.
fn exchange(style: Style, parts: &Parts, rng: &mut Stream) -> (String, String) {
    let Parts { persons: [a, b], things: [x, y], place, colors: [red, blue], mood, hour, n, day } =
        *parts;
    let (a, b) = (a.entry().name, b.entry().name);
    let (x, xs, y) = (x.entry().en[0], x.entry().en[1], y.entry().en[0]);
    let place = place.entry().en[0];
    let (red, blue, mood) = (red.entry().en, blue.entry().en, mood.entry().en);
    let hour = Adverb::hour(hour).entry().forms[0];
    let n = super::grammar::numeral(n, 0);
    let day = day.entry().forms[0];
    match style {
        Style::Seen => match rng.below(8) {
            0 => (
                format!("Hello, I am {a} and I am {mood}. How are you?"),
                format!("Hello {a}, I am fine."),
            ),
            1 => (
                format!("I would like {n} {red} {xs}, please."),
                format!("Here are {n} {red} {xs}."),
            ),
            2 => (
                format!("Can we meet in the {place} {hour}?"),
                format!("Yes, {hour} in the {place}."),
            ),
            3 => (format!("I lost the {red} {x}. Maybe {a} has it."), format!("Then ask {a}.")),
            4 => (
                format!("Goodbye {a}, I will see {b} {day}."),
                format!("Goodbye, until {}.", day.trim_start_matches("on ")),
            ),
            5 => (
                format!("Thank you for the {red} {x}. {a} likes it."),
                format!("I am glad that {a} likes the {x}."),
            ),
            6 => (
                format!("{a} is waiting for me in the {place}. Where should I go?"),
                format!("Go to the {place}."),
            ),
            _ => (
                format!("Is the {x} {red} or {blue}? It is not {red}."),
                format!("Then it is {blue}."),
            ),
        },
        Style::Unseen => match rng.below(4) {
            0 => (
                format!("My name is {a} and this is {b}."),
                format!("Nice to meet you, {a} and {b}."),
            ),
            1 => (
                format!("Do you want the {x} or the {y}? I will keep the {x}."),
                format!("Then I take the {y}."),
            ),
            2 => (format!("Please call {a} for me {hour}."), format!("I will call {a} {hour}.")),
            _ => (
                format!("The {red} {x} is still in the {place}. Can you bring it?"),
                format!("I will get it from the {place}."),
            ),
        },
    }
}

pub(super) fn draw(split: Split, style: Style, rng: &mut Stream) -> Option<Spoken> {
    if (style, split) == (Style::Unseen, Split::Train) {
        return None;
    }
    for _ in 0..400 {
        let (text, answer) = exchange(style, &Parts::draw(words_of(style), rng), rng);
        if split_of(&text, style) == split {
            return Some(Spoken { key: text.clone(), text, answer, ..Spoken::default() });
        }
    }
    None
}
