//! The constructions of stories: what is said, in which order, and which word the endings differ in.
//!
//! ```text
//! form                  says                                             ending
//! place, holder, …      four parallel facts                              one of them again
//! moved, transferred, … two events with what was before each             what is so after (or was before)
//! carried, found, …     two relations that have to be joined             the end of the chain
//! ```
//!
//! Persons, places, things, colors and numbers are drawn without repetition from one list each, and the
//! right candidate is the first drawn: nothing but its role tells it from the other three.

use super::super::grammar::{Clause, Derivation, Np, Predicate, Question, Tense, When, phrase};
use super::super::lexicon::{Adjective, Adverb, Noun, Person, Verb, Words};
use super::super::sentences::words_of;
use super::super::{Level, Style};
use crate::language::Language;
use crate::rng::Stream;

/// What a story says, before it is put in words.
pub(in super::super) struct Draft {
    pub(in super::super) form: &'static str,
    pub(in super::super) sentences: Vec<Derivation>,
    /// The right ending first.
    pub(in super::super) endings: [Derivation; 4],
    pub(in super::super) candidates: [String; 4],
    pub(in super::super) focus: String,
    /// A question whose answer is the right candidate, and the answer in English.
    pub(in super::super) question: Option<(Question, String)>,
}

/// The words that tell a seen story from an unseen one.
struct Phrasing {
    words: &'static Words,
    go: Vec<Verb>,
    give: Vec<Verb>,
    own: Option<Verb>,
    own_tense: Tense,
    before: [Adverb; 2],
    now: Adverb,
    now_tense: Tense,
    unseen: bool,
}

impl Phrasing {
    fn new(style: Style) -> Self {
        let words = words_of(style);
        let named = |verbs: &[Verb], names: &[&str]| -> Vec<Verb> {
            verbs.iter().filter(|verb| names.contains(&verb.entry().en)).copied().collect()
        };
        match style {
            Style::Seen => Self {
                words,
                go: words.motion.clone(),
                give: named(&words.ditransitive, &["gave", "sent"]),
                own: named(&words.transitive, &["took"]).first().copied(),
                own_tense: Tense::Present,
                before: [Adverb::EARLIER, Adverb::AT_FIRST],
                now: Adverb::NOW,
                now_tense: Tense::Present,
                unseen: false,
            },
            Style::Unseen => Self {
                words,
                go: named(&words.motion, &["hurried"]),
                give: named(&words.ditransitive, &["lent"]),
                own: None,
                own_tense: Tense::Past,
                before: [Adverb::LAST_NIGHT, Adverb::LAST_NIGHT],
                now: Adverb::LATER,
                now_tense: Tense::Past,
                unseen: true,
            },
        }
    }

    fn go(&self, person: Person, place: Noun, rng: &mut Stream) -> Clause {
        Clause::new(Np::One(person), Predicate::Go(*rng.pick(&self.go), place))
    }

    /// Before the events the person was there.
    fn was(&self, person: Person, place: Noun, rng: &mut Stream) -> Clause {
        if !self.unseen && rng.chance(0.5) {
            return Clause::new(Np::One(person), Predicate::ComeFrom(place));
        }
        Clause::new(Np::One(person), Predicate::At(Tense::Past, place, None))
            .opened(*rng.pick(&self.before))
    }

    fn has(&self, person: Person, thing: Noun, rng: &mut Stream) -> Clause {
        let predicate = match self.own {
            Some(verb) if rng.chance(0.4) => Predicate::DoTo(verb, the(thing)),
            _ => Predicate::Has(self.own_tense, the(thing)),
        };
        Clause::new(Np::One(person), predicate)
    }

    /// The thing goes from `from` to `to`; either may be the subject.
    fn transfer(&self, from: Person, to: Person, thing: Noun, rng: &mut Stream) -> Clause {
        if rng.chance(0.5) {
            let got = if self.unseen {
                Predicate::Borrow(the(thing), Some(from))
            } else {
                Predicate::Get(the(thing), from)
            };
            return Clause::new(Np::One(to), got);
        }
        let give = Predicate::Give(*rng.pick(&self.give), to, the(thing), rng.chance(0.5));
        Clause::new(Np::One(from), give)
    }

    fn now(&self, subject: Np, predicate: impl Fn(Tense) -> Predicate) -> Derivation {
        Clause::new(subject, predicate(self.now_tense)).opened(self.now).into()
    }

    fn before(&self, subject: Np, predicate: Predicate) -> Derivation {
        Clause::new(subject, predicate).opened(self.before[0]).into()
    }

    /// Different sentences that say nothing about a candidate.
    fn fillers(&self, rng: &mut Stream) -> [Derivation; 2] {
        if self.unseen {
            // The last three remarks are only here.
            let [a, b]: [u8; 2] = some(&[6, 7, 8], rng);
            return [a, b].map(Derivation::Remark);
        }
        let remark = Derivation::Remark(rng.below(6) as u8);
        let hour = Derivation::Hour(1 + rng.below(12) as u8);
        if rng.chance(0.5) { [remark, hour] } else { [hour, remark] }
    }
}

fn the(noun: Noun) -> Np {
    Np::The(noun, None)
}

/// `n` different entries of `from`, in random order.
fn some<T: Copy, const COUNT: usize>(from: &[T], rng: &mut Stream) -> [T; COUNT] {
    let mut order: Vec<T> = from.to_vec();
    std::array::from_fn(|i| {
        let j = i + rng.below(order.len() - i);
        order.swap(i, j);
        order[i]
    })
}

fn numbers(rng: &mut Stream) -> [u8; 4] {
    some(&[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], rng)
}

fn english(np: Np) -> String {
    phrase(Language::English, np)
}

fn noun_word(noun: Noun) -> String {
    noun.entry().en[0].to_owned()
}

fn name(person: Person) -> String {
    person.entry().name.to_owned()
}

fn color_word(color: Adjective) -> String {
    color.entry().en.to_owned()
}

fn number_word(n: u8) -> String {
    super::super::grammar::numeral(n, 0).to_owned()
}

/// What may stand beside three sentences of facts, one of which is a pair.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filler {
    /// Nothing: there are four sentences of facts.
    None,
    /// A remark without a number.
    Remark,
    /// A remark or the hour.
    Any,
}

/// Four clauses as four sentences, or as a pair, two sentences and a filler; in random order.
fn arrange(
    mut clauses: Vec<Clause>,
    style: &Phrasing,
    filler: Filler,
    rng: &mut Stream,
) -> Vec<Derivation> {
    rng.shuffle(&mut clauses);
    let mut sentences: Vec<Derivation> = Vec::with_capacity(4);
    // Adverbs at the head of a clause stay at the head of their sentence.
    let pair = filler != Filler::None
        && rng.chance(0.3)
        && clauses[0].when.is_none()
        && clauses[1].when.is_none();
    if pair {
        sentences.push(Derivation::Pair(clauses[0], clauses[1]));
        sentences.extend(clauses[2..].iter().map(|clause| Derivation::Plain(*clause)));
        sentences.push(match filler {
            Filler::Remark => Derivation::Remark(rng.below(6) as u8),
            _ => style.fillers(rng)[0],
        });
    } else {
        sentences.extend(clauses.into_iter().map(Derivation::Plain));
    }
    rng.shuffle(&mut sentences);
    sentences
}

/// Draws a story of `level`; `None` at level `topic`, which has no grammar.
pub(in super::super) fn draft(level: Level, style: Style, rng: &mut Stream) -> Option<Draft> {
    let phrasing = Phrasing::of(style);
    Some(match (level, phrasing.unseen) {
        (Level::Topic, _) => return None,
        (Level::Entity, false) => match rng.below(6) {
            0 => entity_place(phrasing, rng),
            1 => entity_holder(phrasing, rng),
            2 => entity_thing(phrasing, rng),
            3 => entity_color(phrasing, rng),
            4 => entity_count(phrasing, rng),
            _ => entity_hour(phrasing, rng),
        },
        (Level::Entity, true) => match rng.below(3) {
            0 => entity_deed_place(phrasing, rng),
            1 => entity_deed(phrasing, rng),
            _ => entity_deed_count(phrasing, rng),
        },
        (Level::OneHop, unseen) => match rng.below(if unseen { 2 } else { 4 }) {
            0 => moved(phrasing, rng),
            1 => transferred(phrasing, rng),
            2 => painted(phrasing, rng),
            _ => brought(phrasing, rng),
        },
        (Level::TwoHops, unseen) => match rng.below(if unseen { 2 } else { 4 }) {
            0 => carried(phrasing, rng),
            1 => transferred_to_place(phrasing, rng),
            2 => transferred_color(phrasing, rng),
            _ => found(phrasing, rng),
        },
    })
}

impl Phrasing {
    fn of(style: Style) -> &'static Self {
        use std::sync::LazyLock;
        static SEEN: LazyLock<Phrasing> = LazyLock::new(|| Phrasing::new(Style::Seen));
        static UNSEEN: LazyLock<Phrasing> = LazyLock::new(|| Phrasing::new(Style::Unseen));
        match style {
            Style::Seen => &SEEN,
            Style::Unseen => &UNSEEN,
        }
    }
}

fn entity_place(style: &Phrasing, rng: &mut Stream) -> Draft {
    let persons: [Person; 4] = some(&style.words.persons, rng);
    let places: [Noun; 4] = some(&style.words.places, rng);
    let clauses = (0..4)
        .map(|i| Clause::new(Np::One(persons[i]), Predicate::At(Tense::Present, places[i], None)))
        .collect();
    let sentences = arrange(clauses, style, Filler::Any, rng);
    let by_person = rng.chance(0.6);
    let ending = |i: usize| -> Derivation {
        let (who, place) =
            if by_person { (persons[0], places[i]) } else { (persons[i], places[0]) };
        Clause::new(Np::One(who), Predicate::At(Tense::Still, place, None)).into()
    };
    let endings = [0, 1, 2, 3].map(ending);
    if by_person {
        let question = (Question::WhereIs(Np::One(persons[0])), english(the(places[0])));
        Draft {
            form: "place",
            sentences,
            endings,
            candidates: places.map(noun_word),
            focus: name(persons[0]),
            question: Some(question),
        }
    } else {
        let question = (Question::WhoIsIn(places[0]), name(persons[0]));
        Draft {
            form: "person",
            sentences,
            endings,
            candidates: persons.map(name),
            focus: noun_word(places[0]),
            question: Some(question),
        }
    }
}

fn holdings(style: &Phrasing, rng: &mut Stream) -> ([Person; 4], [Noun; 4], Vec<Derivation>) {
    let persons: [Person; 4] = some(&style.words.persons, rng);
    let things: [Noun; 4] = some(&style.words.things, rng);
    let clauses = (0..4).map(|i| style.has(persons[i], things[i], rng)).collect();
    (persons, things, arrange(clauses, style, Filler::Any, rng))
}

fn entity_holder(style: &Phrasing, rng: &mut Stream) -> Draft {
    let (persons, things, sentences) = holdings(style, rng);
    let endings = persons
        .map(|who| Clause::new(Np::One(who), Predicate::Has(Tense::Still, the(things[0]))).into());
    let question = (Question::WhoHas(the(things[0])), name(persons[0]));
    Draft {
        form: "holder",
        sentences,
        endings,
        candidates: persons.map(name),
        focus: noun_word(things[0]),
        question: Some(question),
    }
}

fn entity_thing(style: &Phrasing, rng: &mut Stream) -> Draft {
    let (persons, things, sentences) = holdings(style, rng);
    let endings = things.map(|thing| {
        Clause::new(Np::One(persons[0]), Predicate::Has(Tense::Still, the(thing))).into()
    });
    let question = (Question::WhatHas(persons[0]), english(the(things[0])));
    Draft {
        form: "thing",
        sentences,
        endings,
        candidates: things.map(noun_word),
        focus: name(persons[0]),
        question: Some(question),
    }
}

fn entity_color(style: &Phrasing, rng: &mut Stream) -> Draft {
    let things: [Noun; 4] = some(&style.words.things, rng);
    let colors: [Adjective; 4] = some(&style.words.colors, rng);
    let clauses = (0..4)
        .map(|i| Clause::new(the(things[i]), Predicate::Is(Tense::Present, colors[i])))
        .collect();
    let sentences = arrange(clauses, style, Filler::Any, rng);
    let endings =
        colors.map(|color| Clause::new(the(things[0]), Predicate::Is(Tense::Still, color)).into());
    let question = (Question::ColorOf(the(things[0])), color_word(colors[0]));
    Draft {
        form: "color",
        sentences,
        endings,
        candidates: colors.map(color_word),
        focus: noun_word(things[0]),
        question: Some(question),
    }
}

fn entity_count(style: &Phrasing, rng: &mut Stream) -> Draft {
    let persons: [Person; 4] = some(&style.words.persons, rng);
    let animals: [Noun; 4] = some(&style.words.animals, rng);
    let counts = numbers(rng);
    let has = |tense, i: usize, n: u8| {
        Clause::new(Np::One(persons[i]), Predicate::Has(tense, Np::Count(n, animals[i], None)))
    };
    let clauses = (0..4).map(|i| has(Tense::Present, i, counts[i])).collect();
    let sentences = arrange(clauses, style, Filler::Remark, rng);
    let endings = counts.map(|n| has(Tense::Still, 0, n).into());
    let question = (Question::HowMany(animals[0], persons[0]), number_word(counts[0]));
    Draft {
        form: "count",
        sentences,
        endings,
        candidates: counts.map(number_word),
        focus: name(persons[0]),
        question: Some(question),
    }
}

fn entity_hour(style: &Phrasing, rng: &mut Stream) -> Draft {
    let persons: [Person; 4] = some(&style.words.persons, rng);
    let verbs: [Verb; 4] = some(&style.words.intransitive, rng);
    let hours = numbers(rng);
    let did = |i: usize, hour: u8, front: bool| Clause {
        when: Some(When { adverb: Adverb::hour(hour), front }),
        ..Clause::new(Np::One(persons[i]), Predicate::Do(verbs[i]))
    };
    let clauses = (0..4).map(|i| did(i, hours[i], false)).collect();
    let sentences = arrange(clauses, style, Filler::None, rng);
    let endings = hours.map(|hour| did(0, hour, true).into());
    let answer = Adverb::hour(hours[0]).entry().forms[0].to_owned();
    let question = (Question::WhenDid(persons[0], verbs[0]), answer);
    Draft {
        form: "hour",
        sentences,
        endings,
        candidates: hours.map(number_word),
        focus: name(persons[0]),
        question: Some(question),
    }
}

/// Unseen: `Lena cooked in the barn. … Lena was in the barn.`
fn entity_deed_place(style: &Phrasing, rng: &mut Stream) -> Draft {
    let persons: [Person; 4] = some(&style.words.persons, rng);
    let places: [Noun; 4] = some(&style.words.places, rng);
    let verbs: Vec<Verb> = style
        .words
        .intransitive
        .iter()
        .filter(|verb| ["ate", "cooked"].contains(&verb.entry().en))
        .copied()
        .collect();
    let clauses = (0..4)
        .map(|i| Clause {
            place: Some(places[i]),
            ..Clause::new(Np::One(persons[i]), Predicate::Do(*rng.pick(&verbs)))
        })
        .collect();
    let sentences = arrange(clauses, style, Filler::Any, rng);
    let endings = places.map(|place| {
        Clause::new(Np::One(persons[0]), Predicate::At(Tense::Past, place, None)).into()
    });
    let question = (Question::WhereIs(Np::One(persons[0])), english(the(places[0])));
    Draft {
        form: "deed_place",
        sentences,
        endings,
        candidates: places.map(noun_word),
        focus: name(persons[0]),
        question: Some(question),
    }
}

/// Unseen: `Lena washed the shirt. … The shirt was washed by Lena.`
fn entity_deed(style: &Phrasing, rng: &mut Stream) -> Draft {
    let persons: [Person; 4] = some(&style.words.persons, rng);
    let things: [Noun; 4] = some(&style.words.things, rng);
    let verbs: Vec<Verb> = style
        .words
        .transitive
        .iter()
        .filter(|verb| ["washed", "sold", "forgot"].contains(&verb.entry().en))
        .copied()
        .collect();
    let verbs: [Verb; 4] = std::array::from_fn(|_| *rng.pick(&verbs));
    let clauses = (0..4)
        .map(|i| Clause::new(Np::One(persons[i]), Predicate::DoTo(verbs[i], the(things[i]))))
        .collect();
    let sentences = arrange(clauses, style, Filler::Any, rng);
    let endings =
        persons.map(|who| Clause::new(the(things[0]), Predicate::Done(verbs[0], Some(who))).into());
    let question = (Question::WhoDid(verbs[0], the(things[0])), name(persons[0]));
    Draft {
        form: "deed",
        sentences,
        endings,
        candidates: persons.map(name),
        focus: noun_word(things[0]),
        question: Some(question),
    }
}

/// Unseen: `Lena saw three foxes. … Three foxes were seen by Lena.`
fn entity_deed_count(style: &Phrasing, rng: &mut Stream) -> Draft {
    let persons: [Person; 4] = some(&style.words.persons, rng);
    let animals: [Noun; 4] = some(&style.words.animals, rng);
    let counts = numbers(rng);
    let verbs: Vec<Verb> = style
        .words
        .transitive
        .iter()
        .filter(|verb| ["saw", "found", "sold"].contains(&verb.entry().en))
        .copied()
        .collect();
    let verbs: [Verb; 4] = std::array::from_fn(|_| *rng.pick(&verbs));
    let clauses = (0..4)
        .map(|i| {
            Clause::new(
                Np::One(persons[i]),
                Predicate::DoTo(verbs[i], Np::Count(counts[i], animals[i], None)),
            )
        })
        .collect();
    let sentences = arrange(clauses, style, Filler::None, rng);
    let endings = counts.map(|n| {
        Clause::new(Np::Count(n, animals[0], None), Predicate::Done(verbs[0], Some(persons[0])))
            .into()
    });
    Draft {
        form: "deed_count",
        sentences,
        endings,
        candidates: counts.map(number_word),
        focus: name(persons[0]),
        question: None,
    }
}

/// Two persons, each with a place before and one after a move.
fn moved(style: &Phrasing, rng: &mut Stream) -> Draft {
    let [a, b]: [Person; 2] = some(&style.words.persons, rng);
    let places: [Noun; 4] = some(&style.words.places, rng);
    let [to, from, other_to, other_from] = places;
    // A question about the past asks for what only `came from` tells.
    let past = !style.unseen && rng.chance(0.3);
    let before = if past {
        Clause::new(Np::One(a), Predicate::ComeFrom(from))
    } else {
        style.was(a, from, rng)
    };
    let clauses = vec![
        style.go(a, to, rng),
        before,
        style.go(b, other_to, rng),
        style.was(b, other_from, rng),
    ];
    let sentences = arrange(clauses, style, Filler::Any, rng);
    let candidates = if past { [from, to, other_to, other_from] } else { places };
    let endings = candidates.map(|place| {
        if past {
            style.before(Np::One(a), Predicate::At(Tense::Past, place, None))
        } else {
            style.now(Np::One(a), |tense| Predicate::At(tense, place, None))
        }
    });
    let question =
        if past { Question::WhereWas(Np::One(a)) } else { Question::WhereIs(Np::One(a)) };
    let question = Some((question, english(the(candidates[0]))));
    Draft {
        form: "moved",
        sentences,
        endings,
        candidates: candidates.map(noun_word),
        focus: name(a),
        question,
    }
}

/// Two things change hands; four persons, each named once.
fn transferred(style: &Phrasing, rng: &mut Stream) -> Draft {
    let [a, b, c, d]: [Person; 4] = some(&style.words.persons, rng);
    let [x, y]: [Noun; 2] = some(&style.words.things, rng);
    let mut sentences: Vec<Derivation> =
        vec![style.transfer(a, b, x, rng).into(), style.transfer(c, d, y, rng).into()];
    let colors: [Adjective; 2] = some(&style.words.colors, rng);
    for (i, filler) in style.fillers(rng).into_iter().enumerate() {
        let color = Clause::new(the([x, y][i]), Predicate::Is(Tense::Past, colors[i]));
        sentences.push(if style.unseen || rng.chance(0.5) { filler } else { color.into() });
    }
    rng.shuffle(&mut sentences);
    let past = !style.unseen && rng.chance(0.3);
    let persons = if past { [a, b, c, d] } else { [b, a, c, d] };
    let endings = persons.map(|who| {
        if past {
            style.before(Np::One(who), Predicate::Has(Tense::Past, the(x)))
        } else {
            style.now(Np::One(who), |tense| Predicate::Has(tense, the(x)))
        }
    });
    let question = (!past).then(|| (Question::WhoHas(the(x)), name(b)));
    Draft {
        form: "transferred",
        sentences,
        endings,
        candidates: persons.map(name),
        focus: noun_word(x),
        question,
    }
}

/// Two things, each with a color before and one after it was painted.
fn painted(style: &Phrasing, rng: &mut Stream) -> Draft {
    let persons: [Person; 2] = some(&style.words.persons, rng);
    let [x, y]: [Noun; 2] = some(&style.words.things, rng);
    let colors: [Adjective; 4] = some(&style.words.colors, rng);
    let [now, before, other_now, other_before] = colors;
    let paint =
        |who: Person, thing, color| Clause::new(Np::One(who), Predicate::Paint(the(thing), color));
    let was = |thing, color| {
        Clause::new(the(thing), Predicate::Is(Tense::Past, color)).opened(Adverb::AT_FIRST)
    };
    let clauses = vec![
        paint(persons[0], x, now),
        was(x, before),
        paint(persons[1], y, other_now),
        was(y, other_before),
    ];
    let sentences = arrange(clauses, style, Filler::Any, rng);
    let past = rng.chance(0.3);
    let candidates = if past { [before, now, other_now, other_before] } else { colors };
    let endings = candidates.map(|color| {
        if past {
            style.before(the(x), Predicate::Is(Tense::Past, color))
        } else {
            style.now(the(x), |tense| Predicate::Is(tense, color))
        }
    });
    let question = if past { Question::ColorWas(the(x)) } else { Question::ColorOf(the(x)) };
    let question = Some((question, color_word(candidates[0])));
    Draft {
        form: "painted",
        sentences,
        endings,
        candidates: candidates.map(color_word),
        focus: noun_word(x),
        question,
    }
}

/// Two things, each with a place before and one after it was brought elsewhere.
fn brought(style: &Phrasing, rng: &mut Stream) -> Draft {
    let persons: [Person; 2] = some(&style.words.persons, rng);
    let [x, y]: [Noun; 2] = some(&style.words.things, rng);
    let places: [Noun; 4] = some(&style.words.places, rng);
    let [now, before, other_now, other_before] = places;
    let bring =
        |who: Person, thing, place| Clause::new(Np::One(who), Predicate::Bring(the(thing), place));
    let was = |thing, place| {
        Clause::new(the(thing), Predicate::At(Tense::Past, place, None)).opened(Adverb::AT_FIRST)
    };
    let clauses = vec![
        bring(persons[0], x, now),
        was(x, before),
        bring(persons[1], y, other_now),
        was(y, other_before),
    ];
    let sentences = arrange(clauses, style, Filler::Any, rng);
    let past = rng.chance(0.3);
    let candidates = if past { [before, now, other_now, other_before] } else { places };
    let endings = candidates.map(|place| {
        if past {
            style.before(the(x), Predicate::At(Tense::Past, place, None))
        } else {
            style.now(the(x), |tense| Predicate::At(tense, place, None))
        }
    });
    let question = if past { Question::WhereWas(the(x)) } else { Question::WhereIs(the(x)) };
    let question = Some((question, english(the(candidates[0]))));
    Draft {
        form: "brought",
        sentences,
        endings,
        candidates: candidates.map(noun_word),
        focus: noun_word(x),
        question,
    }
}

/// Joins a random two of `clauses` into one sentence, so often that `n` sentences are left.
fn join_to(mut clauses: Vec<Clause>, n: usize, rng: &mut Stream) -> Vec<Derivation> {
    rng.shuffle(&mut clauses);
    let n_pairs = clauses.len().saturating_sub(n).min(clauses.len() / 2);
    let (paired, single) = clauses.split_at(2 * n_pairs);
    let mut sentences: Vec<Derivation> =
        paired.chunks(2).map(|pair| Derivation::Pair(pair[0], pair[1])).collect();
    sentences.extend(single.iter().map(|clause| Derivation::Plain(*clause)));
    sentences
}

/// Two of four persons hold things, all four move: things go along.
fn carried(style: &Phrasing, rng: &mut Stream) -> Draft {
    let persons: [Person; 4] = some(&style.words.persons, rng);
    let places: [Noun; 4] = some(&style.words.places, rng);
    let [x, y]: [Noun; 2] = some(&style.words.things, rng);
    let holds = vec![style.has(persons[0], x, rng), style.has(persons[1], y, rng)];
    let moves = (0..4).map(|i| style.go(persons[i], places[i], rng)).collect();
    let together = rng.chance(0.5);
    let mut sentences = join_to(holds, if together { 1 } else { 2 }, rng);
    sentences.extend(join_to(moves, if together { 3 } else { 2 }, rng));
    rng.shuffle(&mut sentences);
    let endings = places.map(|place| style.now(the(x), |tense| Predicate::At(tense, place, None)));
    let question = Some((Question::WhereIs(the(x)), english(the(places[0]))));
    Draft {
        form: "carried",
        sentences,
        endings,
        candidates: places.map(noun_word),
        focus: noun_word(x),
        question,
    }
}

/// A thing changes hands and is where its new holder went.
fn transferred_to_place(style: &Phrasing, rng: &mut Stream) -> Draft {
    let persons: [Person; 4] = some(&style.words.persons, rng);
    let places: [Noun; 4] = some(&style.words.places, rng);
    let [x, y]: [Noun; 2] = some(&style.words.things, rng);
    let moves = (0..4).map(|i| style.go(persons[i], places[i], rng)).collect();
    // persons[1] gives to persons[0].
    let mut sentences: Vec<Derivation> =
        vec![style.transfer(persons[1], persons[0], x, rng).into()];
    if rng.chance(0.5) {
        sentences.extend(join_to(moves, 3, rng));
    } else {
        sentences.extend(join_to(moves, 2, rng));
        sentences.push(style.transfer(persons[3], persons[2], y, rng).into());
    }
    rng.shuffle(&mut sentences);
    let endings = places.map(|place| style.now(the(x), |tense| Predicate::At(tense, place, None)));
    let question = Some((Question::WhereIs(the(x)), english(the(places[0]))));
    Draft {
        form: "transferred_to_place",
        sentences,
        endings,
        candidates: places.map(noun_word),
        focus: noun_word(x),
        question,
    }
}

/// A thing of a known color changes hands: who has something red?
fn transferred_color(style: &Phrasing, rng: &mut Stream) -> Draft {
    let [a, b, c, d]: [Person; 4] = some(&style.words.persons, rng);
    let things: [Noun; 4] = some(&style.words.things, rng);
    let colors: [Adjective; 4] = some(&style.words.colors, rng);
    let clauses = (0..4)
        .map(|i| Clause::new(the(things[i]), Predicate::Is(Tense::Past, colors[i])))
        .collect();
    let mut sentences = join_to(clauses, 2, rng);
    sentences.push(style.transfer(a, b, things[0], rng).into());
    sentences.push(style.transfer(c, d, things[1], rng).into());
    rng.shuffle(&mut sentences);
    let past = rng.chance(0.3);
    let endings = colors.map(|color| {
        if past {
            style.before(Np::One(a), Predicate::HasColored(Tense::Past, color))
        } else {
            style.now(Np::One(b), |tense| Predicate::HasColored(tense, color))
        }
    });
    let focus = name(if past { a } else { b });
    Draft {
        form: "transferred_color",
        sentences,
        endings,
        candidates: colors.map(color_word),
        focus,
        question: None,
    }
}

/// Things lie in places that persons went to: who found them?
fn found(style: &Phrasing, rng: &mut Stream) -> Draft {
    let persons: [Person; 4] = some(&style.words.persons, rng);
    let places: [Noun; 4] = some(&style.words.places, rng);
    let [x, y]: [Noun; 2] = some(&style.words.things, rng);
    let moves = (0..4).map(|i| style.go(persons[i], places[i], rng)).collect();
    let lies = [(x, places[0]), (y, places[1])]
        .map(|(thing, place)| Clause::new(the(thing), Predicate::At(Tense::Past, place, None)))
        .to_vec();
    let together = rng.chance(0.5);
    let mut sentences = join_to(lies, if together { 1 } else { 2 }, rng);
    sentences.extend(join_to(moves, if together { 3 } else { 2 }, rng));
    rng.shuffle(&mut sentences);
    let verb = style.words.transitive.iter().find(|verb| verb.entry().en == "found").copied();
    let verb = verb.expect("the lexicon has found");
    let endings = persons.map(|who| {
        Clause::new(Np::One(who), Predicate::DoTo(verb, the(x))).opened(Adverb::THEN).into()
    });
    let question = Some((Question::WhoDid(verb, the(x)), name(persons[0])));
    Draft {
        form: "found",
        sentences,
        endings,
        candidates: persons.map(name),
        focus: noun_word(x),
        question,
    }
}
