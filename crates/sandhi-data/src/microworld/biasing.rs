//! Rare names for contextual biasing: the instruction lists names, one of which is spoken.
//!
//! ```text
//! instruction   Transcribe the speech. These names may occur: Bralto, Mirune, Oskel.
//! spoken        On Monday Mirune took the red ball.
//! ```
//!
//! Names are made of syllables that the three languages can say. Training, dev and test have 1,500
//! names each, none in two of them and none a word of the corpus, and any two of all differ in at least two
//! letters.

use super::grammar::{Clause, Derivation, Np};
use super::lexicon::Person;
use super::sentences::{Frames, draw as draw_derivation, id, split_of, words_of};
use super::tasks::{Item, N_HELD_OUT_WORDINGS, Task, Wordings, persons};
use super::{Split, Style, almanac, wild};
use crate::language::Language;
use crate::rng::Stream;
use std::collections::HashSet;
use std::sync::LazyLock;

/// How many names an item lists where nobody asks for another number.
pub const DEFAULT_N_PHRASES: usize = 10;

/// Names of one split.
pub const N_NAMES: usize = 1_500;

/// Makes a name of two or three syllables.
fn invent(rng: &mut Stream) -> String {
    const ONSETS: [&str; 30] = [
        "b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "br", "dr", "fr", "gr",
        "kl", "kr", "pl", "pr", "tr", "st", "sk", "sp", "bl", "fl", "gl", "t", "m",
    ];
    const VOWELS: [&str; 5] = ["a", "e", "i", "o", "u"];
    const CODAS: [&str; 8] = ["", "", "", "n", "l", "r", "s", "m"];
    const ENDS: [&str; 6] = ["", "", "n", "l", "s", "k"];
    let n_syllables = 2 + usize::from(rng.chance(0.6));
    let mut name = String::new();
    for syllable in 0..n_syllables {
        let last = syllable + 1 == n_syllables;
        if syllable > 0 || rng.chance(0.85) {
            name.push_str(rng.pick::<&str>(&ONSETS));
        }
        name.push_str(rng.pick::<&str>(&VOWELS));
        name.push_str(rng.pick::<&str>(if last { &ENDS[..] } else { &CODAS[..] }));
    }
    super::grammar::capitalize(&mut name, 0);
    name
}

/// A name made on the spot that is neither a name of dev or test nor near one.
pub(super) fn invent_open(rng: &mut Stream) -> String {
    static HELD: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let held = names(Split::Dev).iter().chain(names(Split::Test));
        held.flat_map(|name| neighborhood(name)).collect()
    });
    loop {
        let name = invent(rng);
        if neighborhood(&name).iter().all(|form| !HELD.contains(form)) {
            return name;
        }
    }
}

/// Every way to blank or drop one letter: two words share one of these if they are one edit apart.
fn neighborhood(name: &str) -> Vec<String> {
    let letters: Vec<char> = name.to_lowercase().chars().collect();
    let mut forms = Vec::with_capacity(2 * letters.len() + 1);
    for i in 0..letters.len() {
        let mut blanked: String = letters[..i].iter().collect();
        let rest: String = letters[i + 1..].iter().collect();
        let dropped = format!("{blanked}{rest}");
        blanked.push('_');
        blanked.push_str(&rest);
        forms.push(blanked);
        forms.push(dropped);
    }
    forms.push(letters.into_iter().collect());
    forms
}

static NAMES: LazyLock<[Vec<String>; 3]> = LazyLock::new(|| {
    let mut rng = Stream::named(0x00b1_a5ed, "names");
    let mut taken: HashSet<String> = HashSet::new();
    let known = Person::all().map(|person| person.entry().name).chain(almanac::names());
    for name in known {
        taken.extend(neighborhood(name));
    }
    let mut next = || {
        loop {
            let name = invent(&mut rng);
            let forms = neighborhood(&name);
            if (5..=9).contains(&name.len()) && forms.iter().all(|form| !taken.contains(form)) {
                taken.extend(forms);
                return name;
            }
        }
    };
    let mut names: [Vec<String>; 3] =
        std::array::from_fn(|_| (0..N_NAMES).map(|_| next()).collect());
    // What turned out to be a word of the corpus is replaced, in its place.
    let words: HashSet<String> =
        Language::ALL.into_iter().flat_map(wild::vocabulary).map(str::to_lowercase).collect();
    for name in names.iter_mut().flatten() {
        while words.contains(&name.to_lowercase()) {
            *name = next();
        }
    }
    names
});

/// The rare names of a split; they do not depend on the seed.
pub fn names(split: Split) -> &'static [String] {
    &NAMES[split as usize]
}

/// An instruction with a list of names; without names it is the wording alone.
pub fn instruction<S: AsRef<str>>(wording: &str, phrases: &[S]) -> String {
    if phrases.is_empty() {
        return wording.to_owned();
    }
    let list: Vec<&str> = phrases.iter().map(AsRef::as_ref).collect();
    format!("{wording} These names may occur: {}.", list.join(", "))
}

/// Draws an item whose instruction lists `n_phrases` names (at most [`N_NAMES`]), the spoken one among them.
pub(super) fn draw(
    n_phrases: usize,
    split: Split,
    wordings: Wordings,
    rng: &mut Stream,
) -> Option<Item> {
    let names = names(split);
    for _ in 0..400 {
        let derivation = draw_derivation(words_of(Style::Seen), Frames::Seen, rng);
        let name = rng.pick(names);
        // The lists come from a stream of their own, so that every length has the same spoken side.
        let mut list = Stream::new(rng.next_u64());
        if !is_about_one(&derivation) {
            continue;
        }
        let person = persons(&derivation)[0].entry().name;
        let text = derivation.text(Language::English).replacen(person, name, 1);
        if split_of(&text, Style::Seen) != split {
            continue;
        }
        let mut phrases = Vec::with_capacity(n_phrases);
        if n_phrases > 0 {
            let mut others: Vec<&String> = names.iter().filter(|other| *other != name).collect();
            list.shuffle(&mut others);
            phrases.extend(others.into_iter().take(n_phrases - 1).cloned());
            let at = list.below(phrases.len() + 1);
            phrases.insert(at, name.clone());
        }
        let (wording, words) = wordings.draw(Task::Biasing, &mut list);
        let instruction = instruction(&words, &phrases);
        return Some(Item {
            id: id("biasing", &text),
            task: Task::Biasing,
            split,
            style: Style::Seen,
            instruction,
            wording,
            held_out_wording: wording + N_HELD_OUT_WORDINGS >= Task::Biasing.wordings().len(),
            answer: text.clone(),
            spoken: text,
            spoken_language: Language::English,
            answer_language: Language::English,
            choices: Vec::new(),
            right: 0,
            phrases,
            entities: vec![name.clone()],
            level: None,
            phenomenon: None,
            story: None,
        });
    }
    None
}

fn is_about_one(derivation: &Derivation) -> bool {
    matches!(derivation, Derivation::Plain(Clause { subject: Np::One(_), .. }))
        && persons(derivation).len() == 1
}

/// The name as a poor ear might have heard it: one letter wrong, missing or added. The text of the
/// language model has such items, which the list in the instruction sets right.
pub(super) fn misheard(name: &str, rng: &mut Stream) -> String {
    let mut letters: Vec<char> = name.to_lowercase().chars().collect();
    let at = rng.below(letters.len());
    let other = *rng.pick(&['a', 'e', 'i', 'o', 'u', 'n', 'r', 's', 't', 'l', 'm', 'k']);
    match rng.below(3) {
        0 => letters[at] = other,
        1 if letters.len() > 3 => drop(letters.remove(at)),
        _ => letters.insert(at, other),
    }
    let mut text: String = letters.into_iter().collect();
    super::grammar::capitalize(&mut text, 0);
    text
}
