//! The almanac: 300 facts about invented towns, animals and people (English).
//!
//! ```text
//! fact       (Tarvo, river, Selm)
//! text       Tarvo lies on the river Selm. The river Selm flows through Tarvo. …   five ways and a question
//! spoken     Which river flows through Tarvo? A, Orva. B, Selm. C, Linn. D, Dremm.
//! ```
//!
//! All facts are in the text of the language model, none is voiced for training: a model that answers
//! the spoken question has brought what it read to what it hears, and one that no longer does has
//! forgotten. The form of the multiple choice is taught in text on the half of the facts that belongs to
//! training ([`Fact::split`]); the other facts stand in text as statements and as plain question and
//! answer.

use super::tasks::Spoken;
use super::{Split, Style};
use crate::rng::{self, Stream};
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// A fact of the invented world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// `river-tarvo`.
    pub id: String,
    /// What kind of fact it is: `river`, `food`, …
    pub topic: String,
    /// The fact in five statements, and as question and answer.
    pub paraphrases: Vec<String>,
    /// The question.
    pub question: String,
    /// A wording of the question that only the evaluation of unseen style has.
    pub unseen_question: String,
    /// Four choices.
    pub choices: [String; 4],
    /// The index of the right choice.
    pub right: usize,
}

impl Fact {
    /// Facts of [`Split::Train`] are asked as multiple choice in the text of the language model; those
    /// of dev and test are what the spoken form is measured on.
    pub fn split(&self) -> Split {
        match rng::stream(0x000f_ac75, &self.id) % 4 {
            0 | 1 => Split::Train,
            2 => Split::Dev,
            _ => Split::Test,
        }
    }

    /// The right choice.
    pub fn answer(&self) -> &str {
        &self.choices[self.right]
    }
}

struct Relation {
    topic: &'static str,
    subjects: &'static [&'static str],
    values: &'static [&'static str],
    statements: [&'static str; 5],
    question: &'static str,
    unseen_question: &'static str,
}

const TOWNS: [&str; 30] = [
    "Tarvo", "Minda", "Olbek", "Ruskin", "Felmar", "Gorda", "Hestol", "Ivora", "Jalban", "Kestrin",
    "Lomark", "Mevola", "Nargil", "Ostrel", "Pelgrad", "Quenda", "Rivalo", "Sompek", "Tulgar",
    "Ublin", "Vestra", "Wendal", "Yorkan", "Zamburg", "Arnix", "Belsum", "Corvida", "Dunmare",
    "Elspar", "Fandor",
];
const RIVERS: [&str; 12] = [
    "Selm", "Orva", "Linn", "Dremm", "Asko", "Brune", "Tessa", "Wolt", "Ulma", "Fergo", "Nidda",
    "Poltava",
];
const LANDS: [&str; 8] =
    ["Ulda", "Morvania", "Kelt", "Sundar", "Brisk", "Alvery", "Tond", "Gilland"];
const ANIMALS: [&str; 20] = [
    "zorl", "mippet", "garn", "tolbu", "fennik", "drask", "lumo", "wexel", "borrin", "quill",
    "snarp", "hobbin", "velk", "jomba", "plim", "rutter", "gomvar", "chark", "nibbol", "grool",
];
const PEOPLE: [&str; 20] = [
    "Alda Frost",
    "Bertil Moor",
    "Cora Winkel",
    "Dorian Pell",
    "Edda Stark",
    "Fabian Holt",
    "Gerda Lund",
    "Harald Voss",
    "Irma Dahl",
    "Jasper Rook",
    "Kira Lodd",
    "Lothar Finn",
    "Mona Grell",
    "Norbert Ash",
    "Odette Marsh",
    "Pavel Brook",
    "Quentin Hale",
    "Ronja Thorn",
    "Sven Adler",
    "Thea Wolff",
];
const COLORS: [&str; 8] = ["red", "white", "black", "brown", "blue", "green", "yellow", "gray"];
const GOODS: [&str; 12] = [
    "bread", "cheese", "honey", "bells", "boats", "lamps", "flutes", "clocks", "hats", "ropes",
    "carpets", "apples",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const NUMBERS: [&str; 11] =
    ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
const FOODS: [&str; 12] = [
    "berries",
    "grass",
    "fish",
    "leaves",
    "nuts",
    "snails",
    "roots",
    "seeds",
    "mushrooms",
    "worms",
    "corn",
    "flowers",
];
const HOMES: [&str; 10] = [
    "forests",
    "holes",
    "rivers",
    "mountains",
    "trees",
    "fields",
    "swamps",
    "deserts",
    "lakes",
    "gardens",
];
const INVENTIONS: [&str; 12] = [
    "bicycle",
    "kite",
    "compass",
    "pump",
    "printer",
    "saw",
    "wheel",
    "umbrella",
    "camera",
    "whistle",
    "telescope",
    "battery",
];
const INSTRUMENTS: [&str; 8] =
    ["flute", "drum", "piano", "violin", "harp", "trumpet", "guitar", "horn"];

#[rustfmt::skip]
static RELATIONS: [Relation; 12] = [
    Relation { topic: "river", subjects: &TOWNS, values: &RIVERS,
        statements: ["{S} lies on the river {V}.", "The river {V} flows through {S}.", "The town of {S} stands by the river {V}.", "Boats on the river {V} stop in {S}.", "In {S} people fish in the river {V}."],
        question: "Which river flows through {S}?", unseen_question: "{S} was built by a river. Which one?" },
    Relation { topic: "goods", subjects: &TOWNS, values: &GOODS,
        statements: ["{S} is famous for its {V}.", "People travel to {S} to buy {V}.", "The best {V} come from {S}.", "The people of {S} make good {V}.", "In the shops of {S} there are many {V}."],
        question: "What is {S} famous for?", unseen_question: "What should one buy in {S}?" },
    Relation { topic: "festival", subjects: &TOWNS, values: &MONTHS,
        statements: ["The festival of {S} is in {V}.", "Every {V} there is a festival in {S}.", "In {V} the people of {S} dance in the streets.", "{S} has its big festival in {V}.", "Guests come to the festival of {S} in {V}."],
        question: "When is the festival of {S}?", unseen_question: "In which month does {S} celebrate?" },
    Relation { topic: "flag", subjects: &TOWNS, values: &COLORS,
        statements: ["The flag of {S} is {V}.", "{S} has a {V} flag.", "A {V} flag flies over {S}.", "The color of the flag of {S} is {V}.", "In {S} every child knows the {V} flag."],
        question: "What color is the flag of {S}?", unseen_question: "Which color has {S} on its flag?" },
    Relation { topic: "bridges", subjects: &TOWNS, values: &NUMBERS,
        statements: ["{S} has {V} bridges.", "There are {V} bridges in {S}.", "The people of {S} built {V} bridges.", "One can count {V} bridges in {S}.", "All {V} bridges of {S} are old."],
        question: "How many bridges does {S} have?", unseen_question: "What is the number of bridges in {S}?" },
    Relation { topic: "land", subjects: &TOWNS, values: &LANDS,
        statements: ["{S} is a town in {V}.", "The town of {S} belongs to {V}.", "In the land of {V} there is a town called {S}.", "The people of {S} live in {V}.", "The king of {V} visits {S}."],
        question: "In which land is {S}?", unseen_question: "To which land does {S} belong?" },
    Relation { topic: "food", subjects: &ANIMALS, values: &FOODS,
        statements: ["The {S} eats {V}.", "A {S} likes to eat {V}.", "The food of the {S} is {V}.", "Every {S} looks for {V}.", "If you meet a {S}, give it some {V}."],
        question: "What does the {S} eat?", unseen_question: "Which food does a {S} like?" },
    Relation { topic: "fur", subjects: &ANIMALS, values: &COLORS,
        statements: ["The {S} is {V}.", "The fur of the {S} is {V}.", "A {S} has {V} fur.", "The color of the {S} is {V}.", "You know the {S} by its {V} fur."],
        question: "What color is the {S}?", unseen_question: "Which color has the fur of a {S}?" },
    Relation { topic: "home", subjects: &ANIMALS, values: &HOMES,
        statements: ["The {S} lives in {V}.", "One finds the {S} in {V}.", "A {S} sleeps in {V}.", "The home of the {S} is in {V}.", "Go to the {V} to see a {S}."],
        question: "Where does the {S} live?", unseen_question: "Where should one look for a {S}?" },
    Relation { topic: "invention", subjects: &PEOPLE, values: &INVENTIONS,
        statements: ["{S} invented the {V}.", "The {V} was invented by {S}.", "{S} made the first {V}.", "The first {V} was the work of {S}.", "We thank {S} for the {V}."],
        question: "What did {S} invent?", unseen_question: "Which invention do we owe to {S}?" },
    Relation { topic: "birthplace", subjects: &PEOPLE, values: &TOWNS,
        statements: ["{S} was born in {V}.", "The birthplace of {S} is {V}.", "{S} comes from {V}.", "{V} is the home town of {S}.", "The house of {S} stands in {V}."],
        question: "Where was {S} born?", unseen_question: "Which town does {S} come from?" },
    Relation { topic: "instrument", subjects: &PEOPLE, values: &INSTRUMENTS,
        statements: ["{S} plays the {V}.", "The instrument of {S} is the {V}.", "{S} learned to play the {V}.", "With the {V} {S} gives concerts.", "Everybody knows {S} and the {V}."],
        question: "Which instrument does {S} play?", unseen_question: "What can we hear {S} play?" },
];

/// The 300 facts; the same for every seed.
pub(super) fn facts() -> &'static [Fact] {
    static FACTS: LazyLock<Vec<Fact>> = LazyLock::new(|| {
        let mut rng = Stream::named(0xa1_a4ac, "facts");
        RELATIONS.iter().flat_map(|relation| facts_of(relation, &mut rng)).collect()
    });
    &FACTS
}

fn facts_of(relation: &Relation, rng: &mut Stream) -> Vec<Fact> {
    // Every value equally often, so that none is the likely answer.
    let n = relation.subjects.len();
    let mut values: Vec<&str> = Vec::with_capacity(n + relation.values.len());
    while values.len() < n {
        let mut round = relation.values.to_vec();
        rng.shuffle(&mut round);
        values.extend(round);
    }
    values.truncate(n);
    rng.shuffle(&mut values);
    let facts = relation.subjects.iter().zip(values);
    facts
        .map(|(subject, value)| {
            let fill = |template: &str| template.replace("{S}", subject).replace("{V}", value);
            let question = fill(relation.question);
            let mut paraphrases: Vec<String> =
                relation.statements.iter().map(|statement| fill(statement)).collect();
            let mut answer = value.to_owned();
            super::grammar::capitalize(&mut answer, 0);
            paraphrases.push(format!("{question} {answer}."));
            let (choices, right) = choices(relation.values, value, rng);
            Fact {
                id: format!("{}-{}", relation.topic, subject.to_lowercase().replace(' ', "-")),
                topic: relation.topic.to_owned(),
                paraphrases,
                question,
                unseen_question: fill(relation.unseen_question),
                choices,
                right,
            }
        })
        .collect()
}

fn choices(values: &[&str], right: &str, rng: &mut Stream) -> ([String; 4], usize) {
    let mut wrong: Vec<&str> = values.iter().filter(|value| **value != right).copied().collect();
    rng.shuffle(&mut wrong);
    let at = rng.below(4);
    let choices = std::array::from_fn(|i| {
        if i == at { right } else { wrong[if i < at { i } else { i - 1 }] }.to_owned()
    });
    (choices, at)
}

/// The spoken multiple choice: question and lettered choices, fresh ones for every draw.
pub(super) fn draw(split: Split, style: Style, rng: &mut Stream) -> Option<Spoken> {
    if (style, split) == (Style::Unseen, Split::Train) {
        return None;
    }
    let fact = loop {
        let fact = rng.pick(facts());
        if fact.split() == split {
            break fact;
        }
    };
    let relation = RELATIONS.iter().find(|relation| relation.topic == fact.topic)?;
    let (choices, right) = choices(relation.values, fact.answer(), rng);
    let question = if style == Style::Seen { &fact.question } else { &fact.unseen_question };
    let mut text = question.clone();
    for (letter, choice) in ["A", "B", "C", "D"].into_iter().zip(&choices) {
        text.push_str(&format!(" {letter}, {choice}."));
    }
    let answer = choices[right].clone();
    Some(Spoken {
        key: text.clone(),
        text,
        answer,
        choices: choices.to_vec(),
        right,
        ..Spoken::default()
    })
}

/// The names that the almanac invents.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let people = PEOPLE.iter().flat_map(|name| name.split(' '));
    TOWNS.into_iter().chain(RIVERS).chain(LANDS).chain(ANIMALS).chain(people)
}

/// Every other word of the almanac.
pub(super) fn words() -> impl Iterator<Item = &'static str> {
    let templates = RELATIONS.iter().flat_map(|relation| {
        relation
            .statements
            .iter()
            .chain([&relation.question, &relation.unseen_question])
            .flat_map(|template| template.split([' ', '.', '?', ',']))
    });
    let values = [&GOODS[..], &MONTHS, &FOODS, &HOMES, &INVENTIONS, &INSTRUMENTS].concat();
    templates.filter(|word| !word.is_empty() && !word.starts_with('{')).chain(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    #[test]
    fn three_hundred_facts_in_six_wordings() {
        let facts = facts();
        assert_eq!(facts.len(), 300);
        let ids: HashSet<&str> = facts.iter().map(|fact| fact.id.as_str()).collect();
        assert_eq!(ids.len(), 300);
        for fact in facts {
            let distinct: HashSet<&String> = fact.paraphrases.iter().collect();
            assert_eq!(distinct.len(), 6, "{}", fact.id);
            let choices: HashSet<&String> = fact.choices.iter().collect();
            assert_eq!(choices.len(), 4, "{}", fact.id);
            for text in &fact.paraphrases {
                assert!(text.to_lowercase().contains(&fact.answer().to_lowercase()), "{text}");
            }
            assert!(
                !fact.question.contains(['{', '}']) && !fact.unseen_question.contains(['{', '}'])
            );
        }
        let count = |split| facts.iter().filter(|fact| fact.split() == split).count();
        assert!((130..=170).contains(&count(Split::Train)), "{}", count(Split::Train));
        assert!(count(Split::Dev) >= 60 && count(Split::Test) >= 60);
    }

    #[test]
    fn no_value_is_the_likely_answer() {
        // 30 subjects over 12, 8 or 11 values: within a relation, counts differ by one at most.
        let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
        for fact in facts() {
            *counts.entry((&fact.topic, fact.answer())).or_default() += 1;
        }
        for relation in &RELATIONS {
            let of: Vec<usize> = relation
                .values
                .iter()
                .map(|value| counts.get(&(relation.topic, *value)).copied().unwrap_or(0))
                .collect();
            assert!(
                of.iter().max().unwrap() - of.iter().min().unwrap() <= 1,
                "{} {of:?}",
                relation.topic
            );
        }
    }

    #[test]
    fn choices_of_items_are_balanced() {
        let mut rng = Stream::new(1);
        let mut counts = [0; 4];
        for _ in 0..4_000 {
            let spoken = draw(Split::Test, Style::Seen, &mut rng).unwrap();
            counts[spoken.right] += 1;
            assert_eq!(spoken.choices[spoken.right], spoken.answer);
        }
        assert!(counts.iter().all(|&n: &i32| (n - 1_000).abs() < 120), "{counts:?}");
    }
}
