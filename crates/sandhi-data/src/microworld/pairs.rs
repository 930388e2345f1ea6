//! Pairs of which one is right: a word beside a pseudo-word, a sentence beside one that the grammar does not make.
//!
//! ```text
//! swuggy   word of the world ─ one or two letters changed ─ no word, not said as one ─┬─ kitchen | kilchen
//! sblimp   sentence of the grammar ─ one thing made wrong ─ no sentence ──────────────┴─ a red ball | a red balls
//! ```
//!
//! The forms are those of sWUGGY and sBLIMP in the Zero Resource Speech Challenge (Nguyen et al., 2020,
//! <https://arxiv.org/abs/2011.11588>, section 3): a language model hears both, alone and in one voice, and should find
//! the right one likelier. Here both are made from Microworld, so that a model that only knows Microworld can be asked.
//! Pseudo-words are as long as their word, and every run of vowels or consonants in them stands in the same place of some
//! word, which is the idea of Wuggy (Keuleers and Brysbaert, 2010). They are no words of this world, but may be words of
//! English. There are no reflexives among the sentences, because the grammar has none.

use super::grammar::{FUNCTION_WORDS, capitalize};
use super::lexicon::{Adjective, Adverb, NUMERALS, Noun, Person, Pool, Verb, Words};
use super::sentences::{draw_in, split_of};
use super::tasks::{Spoken, Task};
use super::{Split, Style, almanac, biasing, topics, vocabulary};
use crate::language::Language;
use crate::rng::Stream;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::LazyLock;

/// What is wrong with the other sentence of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phenomenon {
    /// The number of a noun: `a red balls`, `three red ball`.
    Number,
    /// The article before a sound: `an ball`, `a apple`.
    Article,
    /// Verb and subject: `the ball are in the garden`, `Anna and Ben has a cup`.
    Agreement,
    /// Two words the other way round: `red the ball`, `the in garden`.
    Order,
    /// The form of a verb: `did not took`, `Anna taken the ball`.
    Form,
}

impl Phenomenon {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Number, Self::Article, Self::Agreement, Self::Order, Self::Form];

    /// The name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Article => "article",
            Self::Agreement => "agreement",
            Self::Order => "order",
            Self::Form => "form",
        }
    }
}

/// Changes that are tried of the words of a split before there is no pseudo-word.
const CHANGES: usize = 20_000;
/// Sentences that are looked at for one thing that could be made wrong, and how many things are tried.
const SENTENCES: usize = 500;
const THINGS: usize = 8;

/// The shortest word, in letters.
const SHORTEST: usize = 3;

/// Draws a word and a pseudo-word, or a sentence and one that is wrong; `None` when the search was in vain.
pub(super) fn draw(task: Task, split: Split, style: Style, rng: &mut Stream) -> Option<Spoken> {
    if (style, split) == (Style::Unseen, Split::Train) {
        return None;
    }
    let (key, right, wrong, phenomenon) = match task {
        Task::Swuggy => {
            let (word, pseudo) = words(split, style, rng)?;
            (format!("{word} {pseudo}"), word, pseudo, None)
        }
        _ => sentences(split, style, rng)?,
    };
    let is_second = rng.chance(0.5);
    let mut choices = vec![right.clone(), wrong];
    if is_second {
        choices.reverse();
    }
    Some(Spoken {
        key,
        answer: right.clone(),
        text: right,
        choices,
        right: usize::from(is_second),
        phenomenon,
        ..Spoken::default()
    })
}

/// A word of the split and style, and a pseudo-word of the split; no pseudo-word is in two splits, whatever the style.
fn words(split: Split, style: Style, rng: &mut Stream) -> Option<(String, String)> {
    let all = lexicon(style).iter();
    let words: Vec<&String> =
        all.filter(|word| split_of(&format!("word {word}"), style) == split).collect();
    if words.is_empty() {
        return None;
    }
    (0..CHANGES).find_map(|_| {
        let word = *rng.pick(&words);
        let pseudo = changed(word, rng)?;
        let is_of_split = split_of(&format!("pseudo-word {pseudo}"), Style::Seen) == split;
        is_of_split.then(|| (word.clone(), pseudo))
    })
}

/// Words with a meaning that stories and sentences of a style have; those of unseen style are held back from training.
fn lexicon(style: Style) -> &'static [String] {
    static LEXICA: LazyLock<[Vec<String>; 2]> = LazyLock::new(|| {
        let seen = meaningful(Pool::Open, false);
        let unseen = meaningful(Pool::Reserved, true).difference(&seen).cloned().collect();
        [seen.into_iter().collect(), unseen]
    });
    &LEXICA[style as usize]
}

fn meaningful(pool: Pool, reserved: bool) -> BTreeSet<String> {
    let words = Words::new(pool);
    let things = words.things.iter().chain(&words.animals).flat_map(|noun| noun.entry().en);
    let places = words.places.iter().map(|noun| noun.entry().en[0]);
    let adjectives = Adjective::all().map(|adjective| adjective.entry().en);
    let verbs = [&words.transitive, &words.ditransitive, &words.motion, &words.intransitive];
    let verbs = verbs.into_iter().flatten().map(|verb| verb.entry().en);
    let function = || FUNCTION_WORDS[0].split(' ').chain(NUMERALS.iter().map(|forms| forms[0]));
    let topics = topics::words_of(reserved).filter(|word| word.len() > SHORTEST);
    let all = things.chain(places).chain(adjectives).chain(verbs).chain(topics);
    let is_word = |word: &&str| {
        word.len() >= SHORTEST
            && word.bytes().all(|letter| letter.is_ascii_lowercase())
            && function().all(|other| other != *word)
    };
    all.filter(is_word).map(str::to_owned).collect()
}

/// Everything that a text of this world may have as a word, in small letters, and how the English of it sounds.
struct Known {
    words: HashSet<String>,
    sounds: HashSet<String>,
    /// Runs of vowels and of consonants in English words.
    runs: HashSet<Run>,
}

/// Letters, whether a word begins with them, and whether it ends with them.
type Run = (Vec<u8>, bool, bool);

fn known() -> &'static Known {
    static KNOWN: LazyLock<Known> = LazyLock::new(|| {
        let names = Person::all().map(|person| person.entry().name).chain(almanac::names());
        let adverbs = Adverb::all().flat_map(|adverb| adverb.entry().forms[0].split(' '));
        let instructions = Task::ALL.into_iter().flat_map(Task::wordings);
        let instructions = instructions.flat_map(|text| text.split([' ', '.', ',', '?']));
        let english: BTreeSet<String> = vocabulary(Language::English)
            .chain(names)
            .chain(adverbs)
            .chain(instructions)
            .map(str::to_lowercase)
            .collect();
        let rare = [Split::Train, Split::Dev, Split::Test].into_iter().flat_map(biasing::names);
        let rare = rare.map(|name| name.to_lowercase());
        let others = [Language::German, Language::Spanish].into_iter().flat_map(vocabulary);
        let is_plain = |word: &&String| word.bytes().all(|letter| letter.is_ascii_lowercase());
        let meaning = [Style::Seen, Style::Unseen].into_iter().flat_map(lexicon);
        Known {
            sounds: english.iter().filter(is_plain).map(|word| sound(word)).collect(),
            runs: meaning.flat_map(|word| runs(word.as_bytes())).collect(),
            words: others.map(str::to_lowercase).chain(rare).chain(english.clone()).collect(),
        }
    });
    &KNOWN
}

/// Whether a letter is a vowel; a y is one unless it begins the word.
fn is_vowel(word: &[u8], i: usize) -> bool {
    b"aeiou".contains(&word[i]) || (word[i] == b'y' && i > 0)
}

/// The spans of vowels and of consonants, by turns.
fn spans(word: &[u8]) -> Vec<Range<usize>> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    for i in 0..word.len() {
        match spans.last_mut() {
            Some(span) if is_vowel(word, span.start) == is_vowel(word, i) => span.end = i + 1,
            _ => spans.push(i..i + 1),
        }
    }
    spans
}

fn runs(word: &[u8]) -> Vec<Run> {
    let run = |span: Range<usize>| {
        let (begins, ends) = (span.start == 0, span.end == word.len());
        (word[span].to_vec(), begins, ends)
    };
    spans(word).into_iter().map(run).collect()
}

/// How a word sounds, about: spellings of one sound are alike, and those of some near ones too. Vowels after the first
/// ones, which are mostly unstressed, are all alike.
fn sound(word: &str) -> String {
    let mut word = word.to_owned();
    for (start, said) in [("kn", "n"), ("gn", "n"), ("wr", "r"), ("ps", "s")] {
        if let Some(rest) = word.strip_prefix(start) {
            word = format!("{said}{rest}");
        }
    }
    for (end, said) in [("mb", "m"), ("mn", "m")] {
        if let Some(rest) = word.strip_suffix(end) {
            word = format!("{rest}{said}");
        }
    }
    for (letters, said) in [
        ("ph", "f"),
        ("wh", "w"),
        ("ck", "k"),
        ("tch", "C"),
        ("ch", "C"),
        ("sh", "S"),
        ("th", "T"),
        ("gh", ""),
        ("ce", "se"),
        ("ci", "si"),
        ("cy", "sy"),
        ("c", "k"),
        ("q", "k"),
        ("x", "ks"),
        ("z", "s"),
        ("j", "g"),
    ] {
        word = word.replace(letters, said);
    }
    let letters = word.as_bytes();
    let spans = spans(letters);
    let first = spans.iter().position(|span| is_vowel(letters, span.start));
    let mut out = String::with_capacity(word.len());
    for (n, span) in spans.iter().enumerate() {
        if !is_vowel(letters, span.start) {
            let run = single(&word[span.clone()]);
            // Behind a vowel these lengthen it.
            out.push_str(if n > 0 { run.trim_start_matches(['w', 'h']) } else { &run });
            continue;
        }
        let before_r = letters.get(span.end) == Some(&b'r');
        if Some(n) == first {
            out.push(vowel(&word[span.clone()], before_r));
        } else if span.end < letters.len() || &word[span.clone()] != "e" {
            out.push('e');
        }
    }
    out
}

/// The sound of the first vowels of a word, about.
fn vowel(letters: &str, before_r: bool) -> char {
    match letters {
        "e" | "i" | "u" | "ea" | "y" if before_r => 'e',
        "ee" | "ea" | "ie" | "ei" | "ey" | "eo" | "i" | "y" => 'i',
        "oo" | "ou" | "u" | "ue" | "ui" | "eu" => 'u',
        "a" | "ai" | "ay" | "ae" => 'a',
        "e" => 'e',
        _ => 'o',
    }
}

/// Letters without doubled ones.
fn single(letters: &str) -> String {
    let mut last = None;
    letters.chars().filter(|&letter| last.replace(letter) != Some(letter)).collect()
}

/// The word with one or two letters changed, vowels to vowels and consonants to consonants, where that is a pseudo-word:
/// it can be pronounced, and neither is nor sounds like a word. Only the first vowels change, because later ones are
/// mostly unstressed and sound alike.
fn changed(word: &str, rng: &mut Stream) -> Option<String> {
    let letters = word.as_bytes();
    let spans = spans(letters);
    let stressed = spans.iter().find(|span| is_vowel(letters, span.start))?;
    let may_change =
        |i: &usize| letters[*i] != b'y' && (!is_vowel(letters, *i) || stressed.contains(i));
    let places: Vec<usize> = (0..letters.len()).filter(may_change).collect();
    let mut new = letters.to_vec();
    for _ in 0..1 + rng.below(2) {
        let at = *rng.pick(&places);
        let others: &[u8] = if is_vowel(letters, at) { b"aeiou" } else { b"bcdfghjklmnpqrstvwxz" };
        new[at] = *rng.pick(others);
    }
    let new = String::from_utf8(new).expect("letters of the alphabet");
    is_pseudo_word(&new).then_some(new)
}

/// Whether letters can be pronounced, and neither are nor sound like a word.
fn is_pseudo_word(letters: &str) -> bool {
    let known = known();
    runs(letters.as_bytes()).iter().all(|run| known.runs.contains(run))
        && !known.words.contains(letters)
        && !known.sounds.contains(&sound(letters))
}

/// A sentence of the split and one that is wrong, behind what tells the pair from others.
fn sentences(
    split: Split,
    style: Style,
    rng: &mut Stream,
) -> Option<(String, String, String, Option<Phenomenon>)> {
    for _ in 0..THINGS {
        let phenomenon = *rng.pick(&Phenomenon::ALL);
        let turned = rng.chance(0.5);
        for _ in 0..SENTENCES {
            let (derivation, key) = draw_in(style, split, rng)?;
            let right = derivation.text(Language::English);
            let wrongs = wrong(&right, phenomenon, turned);
            if !wrongs.is_empty() {
                let wrong = rng.pick(&wrongs).clone();
                return Some((format!("{key} {wrong}"), right, wrong, Some(phenomenon)));
            }
        }
    }
    None
}

/// Forms of verbs by what can be made of their number.
const NUMBERS: [[&str; 2]; 5] =
    [["is", "are"], ["was", "were"], ["has", "have"], ["does", "do"], ["wants", "want"]];
const DETERMINERS: [&str; 3] = ["the", "a", "an"];
const PREPOSITIONS: [&str; 6] = ["in", "to", "from", "at", "on", "with"];

/// Every sentence that has this one thing wrong, once. Each thing can be wrong in two ways, which turn into one another:
/// singular for plural and plural for singular, `a` for `an` and `an` for `a`, finite forms for others and others for them;
/// and words the other way round behind a determiner or behind a preposition.
fn wrong(text: &str, phenomenon: Phenomenon, turned: bool) -> Vec<String> {
    let sentence = Sentence::read(text);
    let at = usize::from(turned);
    (0..sentence.words.len())
        .filter_map(|i| {
            let mut new = sentence.clone();
            match phenomenon {
                Phenomenon::Number => {
                    let (at_noun, noun) = sentence.counted(i, turned)?;
                    let [singular, plural] = noun.entry().en;
                    let (old, other) = if turned { (plural, singular) } else { (singular, plural) };
                    if sentence.words[at_noun] != old || singular == plural {
                        return None;
                    }
                    new.words[at_noun] = other.to_owned();
                }
                Phenomenon::Article => {
                    let articles = ["a", "an"];
                    if sentence.words[i] != articles[at] {
                        return None;
                    }
                    new.words[i] = articles[1 - at].to_owned();
                }
                Phenomenon::Agreement => {
                    let forms = NUMBERS.iter().find(|forms| forms[at] == sentence.words[i])?;
                    new.words[i] = forms[1 - at].to_owned();
                }
                Phenomenon::Order => {
                    let firsts: &[&str] = if turned { &PREPOSITIONS } else { &DETERMINERS };
                    if !firsts.contains(&sentence.words[i].as_str()) || i + 1 == new.words.len() {
                        return None;
                    }
                    new.words.swap(i, i + 1);
                }
                Phenomenon::Form => new.words[i] = other_form(&sentence.words[i], turned)?.into(),
            }
            Some(new.text())
        })
        .collect()
}

/// The form of a verb that cannot stand where this one does: the past for an infinitive or a participle, or, turned, a
/// participle for the past.
fn other_form(word: &str, turned: bool) -> Option<&'static str> {
    let verbs = Verb::all().map(Verb::entry).filter(|verb| !verb.en.contains(' '));
    verbs.into_iter().find_map(|verb| {
        let (past, [infinitive, participle]) = (verb.en, verb.en_forms);
        // Forms that are like another one could be right.
        let tells = participle != past && participle != infinitive;
        let found = match turned {
            false if word == infinitive && past != infinitive => past,
            false if word == participle && tells => past,
            true if word == past && tells => participle,
            _ => return None,
        };
        Some(found)
    })
}

/// The words of a sentence as in the middle of one, and what stands behind each.
#[derive(Clone)]
struct Sentence<'a> {
    words: Vec<String>,
    marks: Vec<&'a str>,
}

impl<'a> Sentence<'a> {
    fn read(text: &'a str) -> Self {
        let (mut words, mut marks) = (Vec::new(), Vec::new());
        for token in text.split(' ') {
            let word = token.trim_end_matches(['.', '?', ',']);
            marks.push(&token[word.len()..]);
            let is_name = Person::from_name(word).is_some();
            let is_first = words.is_empty() && !is_name;
            words.push(if is_first { word.to_lowercase() } else { word.to_owned() });
        }
        Self { words, marks }
    }

    /// The noun behind an indefinite article, or behind a numeral from two on, and its place.
    fn counted(&self, i: usize, numeral: bool) -> Option<(usize, Noun)> {
        let word = self.words[i].as_str();
        let counts = if numeral {
            NUMERALS[1..].iter().any(|forms| forms[0] == word)
        } else {
            ["a", "an"].contains(&word)
        };
        let is_adjective =
            |word: &String| Adjective::all().any(|adjective| adjective.entry().en == word);
        let described = self.words[i + 1..].iter().take_while(|word| is_adjective(word)).count();
        let at = i + 1 + described;
        let word = self.words.get(at).filter(|_| counts)?;
        let noun = Noun::all().find(|noun| noun.entry().en.contains(&word.as_str()))?;
        Some((at, noun))
    }

    fn text(&self) -> String {
        let words = self.words.iter().zip(&self.marks).map(|(word, mark)| format!("{word}{mark}"));
        let mut text = words.collect::<Vec<_>>().join(" ");
        capitalize(&mut text, 0);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::microworld::{Item, Microworld};

    fn items(task: Task, split: Split, style: Style, n: usize) -> Vec<Item> {
        Microworld::new(1).items(task, Language::English, split, style, n)
    }

    fn everywhere() -> impl Iterator<Item = (Split, Style)> {
        use {Split::*, Style::*};
        [(Train, Seen), (Dev, Seen), (Test, Seen), (Dev, Unseen), (Test, Unseen)].into_iter()
    }

    #[test]
    fn spellings_of_one_sound_are_alike() {
        for (a, b) in
            [("cat", "kat"), ("key", "kee"), ("fish", "phish"), ("bird", "burd"), ("knife", "nife")]
        {
            assert_eq!(sound(a), sound(b), "{a} {b}");
        }
        for (a, b) in
            [("cat", "cot"), ("ball", "bill"), ("ship", "chip"), ("goat", "coat"), ("lamp", "lamb")]
        {
            assert_ne!(sound(a), sound(b), "{a} {b}");
        }
        assert_eq!(spans(b"chairs"), [0..2, 2..4, 4..6]);
        // "sh" begins and ends words of this world, "sr" begins none.
        assert!(is_pseudo_word("shug") && !is_pseudo_word("srug"));
        // Words, and what sounds like one.
        assert!(!is_pseudo_word("ball") && !is_pseudo_word("kat"));
    }

    /// Pseudo-words are never words, are as long, and differ in one or two letters; both are of one split alone.
    #[test]
    fn pseudo_words_are_no_words() {
        let words: HashSet<String> = Language::ALL
            .into_iter()
            .flat_map(vocabulary)
            .map(str::to_lowercase)
            .chain(Person::all().map(|person| person.entry().name.to_lowercase()))
            .collect();
        let mut of_splits: [HashSet<String>; 3] = Default::default();
        for (split, style) in everywhere() {
            let items = items(Task::Swuggy, split, style, 200);
            assert_eq!(items.len(), 200, "{split:?} {style:?}");
            for item in &items {
                let (word, pseudo) = (&item.answer, &item.choices[1 - item.right]);
                assert!(words.contains(word) && !words.contains(pseudo), "{word} {pseudo}");
                let n = word.bytes().zip(pseudo.bytes()).filter(|(a, b)| a != b).count();
                assert!(word.len() == pseudo.len() && (1..=2).contains(&n), "{word} {pseudo}");
                of_splits[split as usize].insert(pseudo.clone());
                if style == Style::Seen {
                    of_splits[split as usize].insert(word.clone());
                }
            }
            let n_second = items.iter().filter(|item| item.right == 1).count();
            assert!((70..130).contains(&n_second), "{n_second}");
        }
        let [train, dev, test] = &of_splits;
        assert!(train.is_disjoint(dev) && train.is_disjoint(test) && dev.is_disjoint(test));
    }

    #[test]
    fn one_thing_is_wrong() {
        let check = |text: &str, phenomenon, turned, expected: &[&str]| {
            assert_eq!(wrong(text, phenomenon, turned), expected, "{text} {phenomenon:?}");
        };
        use Phenomenon::*;
        let text = "On Monday Anna took an old cup and three red balls.";
        check(text, Number, false, &["On Monday Anna took an old cups and three red balls."]);
        check(text, Number, true, &["On Monday Anna took an old cup and three red ball."]);
        check(text, Article, true, &["On Monday Anna took a old cup and three red balls."]);
        check(text, Article, false, &[]);
        check(text, Form, true, &["On Monday Anna taken an old cup and three red balls."]);
        check(text, Order, false, &["On Monday Anna took old an cup and three red balls."]);
        check(text, Order, true, &["Monday on Anna took an old cup and three red balls."]);
        // An hour counts no noun; what has one form has no wrong one.
        check("At two o'clock Ben saw two fish.", Number, true, &[]);
        let text = "The red ball is in the garden.";
        check(text, Agreement, false, &["The red ball are in the garden."]);
        check(text, Agreement, true, &[]);
        let swapped = ["Red the ball is in the garden.", "The red ball is in garden the."];
        check(text, Order, false, &swapped);
        check("Anna and Ben have a hat.", Agreement, true, &["Anna and Ben has a hat."]);
        check("Did Anna go to the park?", Form, false, &["Did Anna went to the park?"]);
        check("The cup was taken by Ben.", Form, false, &["The cup was took by Ben."]);
        // "Anna and Ben come" would be right.
        check("Anna and Ben came to the park.", Form, true, &[]);
        check("Anna did not hide it.", Form, false, &["Anna did not hid it."]);
    }

    /// The grammar makes the right ones and none of the wrong ones; every phenomenon comes about as often.
    #[test]
    fn wrong_sentences_are_none_of_the_grammar() {
        let parse = crate::microworld::grammar::parse;
        for (split, style) in everywhere() {
            let items = items(Task::Sblimp, split, style, 200);
            assert_eq!(items.len(), 200, "{split:?} {style:?}");
            for item in &items {
                let wrong = &item.choices[1 - item.right];
                assert_ne!(&item.answer, wrong);
                // The parser is told nothing by articles and numbers of verbs; what it reads is said otherwise.
                let said = parse(wrong).map(|derivation| derivation.text(Language::English));
                assert_ne!(said.as_ref(), Some(wrong));
                let sorted = |text: &str| {
                    let mut words: Vec<String> = text.split(' ').map(str::to_lowercase).collect();
                    words.sort_unstable();
                    words
                };
                let (a, b) = (sorted(&item.answer), sorted(wrong));
                assert_eq!(a.len(), b.len(), "{wrong}");
            }
            for phenomenon in Phenomenon::ALL {
                let n = items.iter().filter(|item| item.phenomenon == Some(phenomenon)).count();
                assert!(n >= 20, "{split:?} {style:?}: {n} of {phenomenon:?}");
            }
        }
    }
}
