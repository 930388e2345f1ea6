//! German: verb second, participle last, three genders, articles and adjective endings by case.
//!
//! ```text
//! Vorfeld  │ finite │ middle field: subject? time? dative accusative place │ participle
//! Am Montag│ hat    │ Anna Ben den roten Ball im Garten                    │ gegeben
//! ```

use super::super::lexicon::{Gender, Noun, Verb};
use super::{Clause, Np, Predicate, Question, Tense, capitalize, numeral, word};

/// Grammatical case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Nominative,
    Accusative,
    Dative,
}

use Case::{Accusative, Dative, Nominative};

fn definite(gender: Gender, case: Case) -> &'static str {
    match (case, gender) {
        (Nominative, Gender::M) => "der",
        (Accusative, Gender::M) => "den",
        (Nominative | Accusative, Gender::F) => "die",
        (Nominative | Accusative, Gender::N) => "das",
        (Dative, Gender::F) => "der",
        (Dative, _) => "dem",
    }
}

fn indefinite(gender: Gender, case: Case) -> &'static str {
    match (case, gender) {
        (Nominative, Gender::M | Gender::N) | (Accusative, Gender::N) => "ein",
        (Accusative, Gender::M) => "einen",
        (Nominative | Accusative, Gender::F) => "eine",
        (Dative, Gender::F) => "einer",
        (Dative, _) => "einem",
    }
}

/// Weak endings after the definite article, mixed after *ein*, strong after a numeral.
fn ending(np: Np, gender: Gender, case: Case) -> &'static str {
    match (np, case, gender) {
        (Np::Count(..), Dative, _) => "en",
        (Np::Count(..), _, _) => "e",
        (_, Dative, _) | (_, Accusative, Gender::M) => "en",
        (Np::A(..), Nominative, Gender::M) => "er",
        (Np::A(..), _, Gender::N) => "es",
        _ => "e",
    }
}

pub(super) fn np(np: Np, case: Case, out: &mut String) {
    let (noun, adjective) = match np {
        Np::One(person) => return word(out, person.entry().name),
        Np::Two(a, b) => {
            word(out, a.entry().name);
            word(out, "und");
            return word(out, b.entry().name);
        }
        Np::The(noun, adjective) | Np::A(noun, adjective) | Np::Count(_, noun, adjective) => {
            (noun, adjective)
        }
    };
    let entry = noun.entry();
    match np {
        Np::Count(n, ..) => word(out, numeral(n, 1)),
        Np::A(..) => word(out, indefinite(entry.de_gender, case)),
        _ => word(out, definite(entry.de_gender, case)),
    }
    if let Some(adjective) = adjective {
        word(out, adjective.entry().de);
        out.push_str(ending(np, entry.de_gender, case));
    }
    if np.is_plural() {
        word(out, entry.de[1]);
        if case == Dative && !entry.de[1].ends_with(['n', 's']) {
            out.push('n');
        }
    } else if entry.de_weak && case != Nominative {
        word(out, entry.de[1]);
    } else {
        word(out, entry.de[0]);
    }
}

/// `im Garten`, `in der Küche`.
fn inside(noun: Noun, out: &mut String) {
    let entry = noun.entry();
    word(out, if entry.de_gender == Gender::F { "in der" } else { "im" });
    word(out, entry.de[0]);
}

/// `in den Garten`, `ins Büro`, `in die Küche`.
fn into(noun: Noun, out: &mut String) {
    let entry = noun.entry();
    word(
        out,
        match entry.de_gender {
            Gender::M => "in den",
            Gender::F => "in die",
            Gender::N => "ins",
        },
    );
    word(out, entry.de[0]);
}

/// The finite verb and what closes the clause.
struct Bracket {
    finite: &'static str,
    last: Option<&'static str>,
}

fn perfect(verb: Verb, plural: bool) -> Bracket {
    let entry = verb.entry();
    let finite = match (entry.de_sein, plural) {
        (true, false) => "ist",
        (true, true) => "sind",
        (false, false) => "hat",
        (false, true) => "haben",
    };
    Bracket { finite, last: Some(entry.de) }
}

fn having(participle: &'static str, plural: bool) -> Bracket {
    Bracket { finite: if plural { "haben" } else { "hat" }, last: Some(participle) }
}

fn being(participle: &'static str, plural: bool) -> Bracket {
    Bracket { finite: if plural { "sind" } else { "ist" }, last: Some(participle) }
}

fn finite(singular: &'static str, plural_form: &'static str, plural: bool) -> Bracket {
    Bracket { finite: if plural { plural_form } else { singular }, last: None }
}

fn sein(tense: Tense, plural: bool) -> Bracket {
    if tense == Tense::Past {
        finite("war", "waren", plural)
    } else {
        finite("ist", "sind", plural)
    }
}

fn bracket(predicate: Predicate, plural: bool) -> Bracket {
    let infinitive = |verb: Verb, bracket: Bracket| Bracket {
        last: Some(verb.entry().de_infinitive),
        ..bracket
    };
    match predicate {
        Predicate::Go(verb, _) | Predicate::Do(verb) => perfect(verb, plural),
        Predicate::DoTo(verb, _) | Predicate::NotDoTo(verb, _) | Predicate::Give(verb, ..) => {
            perfect(verb, plural)
        }
        Predicate::ComeFrom(_) | Predicate::ComeWith(..) => being("gekommen", plural),
        Predicate::Leave(_) => having("verlassen", plural),
        Predicate::At(tense, ..) | Predicate::Is(tense, _) => sein(tense, plural),
        Predicate::NotAt(_) => sein(Tense::Past, plural),
        Predicate::Has(Tense::Past, _) | Predicate::HasColored(Tense::Past, _) => {
            finite("hatte", "hatten", plural)
        }
        Predicate::Has(..) | Predicate::HasColored(..) => finite("hat", "haben", plural),
        Predicate::Get(..) => having("bekommen", plural),
        Predicate::Borrow(..) => having("ausgeliehen", plural),
        Predicate::Bring(..) => having("gebracht", plural),
        Predicate::LeaveAt(..) => having("gelassen", plural),
        Predicate::Paint(..) => having("gestrichen", plural),
        Predicate::Want(_) => finite("will", "wollen", plural),
        Predicate::WantDo(verb, _) => infinitive(verb, finite("will", "wollen", plural)),
        Predicate::CanDo(verb, _) => infinitive(verb, finite("kann", "können", plural)),
        Predicate::Done(verb, _) => {
            Bracket { last: Some(verb.entry().de), ..finite("wurde", "wurden", plural) }
        }
    }
}

fn middle_field(predicate: Predicate, out: &mut String) {
    match predicate {
        Predicate::Go(_, to) => into(to, out),
        Predicate::ComeFrom(from) => {
            word(out, "aus");
            np(Np::The(from, None), Dative, out);
        }
        Predicate::Leave(from) => np(Np::The(from, None), Accusative, out),
        Predicate::ComeWith(to, company) => {
            word(out, "mit");
            np(company, Dative, out);
            into(to, out);
        }
        Predicate::At(tense, at, with) => {
            if tense == Tense::Still {
                word(out, "noch");
            }
            if let Some(with) = with {
                word(out, "mit");
                np(with, Dative, out);
            }
            inside(at, out);
        }
        Predicate::NotAt(at) => {
            word(out, "nicht");
            inside(at, out);
        }
        Predicate::Has(Tense::Still, what @ Np::The(..)) => {
            np(what, Accusative, out);
            word(out, "noch");
        }
        Predicate::Has(tense, what) => {
            if tense == Tense::Still {
                word(out, "noch");
            }
            np(what, Accusative, out);
        }
        Predicate::HasColored(tense, color) => {
            if tense == Tense::Still {
                word(out, "noch");
            }
            // The adjective after "etwas" is a noun: "etwas Rotes".
            word(out, "etwas");
            let mut noun = color.entry().de.to_owned();
            capitalize(&mut noun, 0);
            word(out, &noun);
            out.push_str("es");
        }
        Predicate::Is(tense, adjective) => {
            if tense == Tense::Still {
                word(out, "noch");
            }
            word(out, adjective.entry().de);
        }
        Predicate::Do(_) => {}
        Predicate::DoTo(_, what)
        | Predicate::Want(what)
        | Predicate::CanDo(_, what)
        | Predicate::WantDo(_, what) => np(what, Accusative, out),
        Predicate::NotDoTo(_, what) => {
            np(what, Accusative, out);
            word(out, "nicht");
        }
        Predicate::Give(_, to, what, _) => {
            word(out, to.entry().name);
            np(what, Accusative, out);
        }
        Predicate::Get(what, from) => {
            np(what, Accusative, out);
            word(out, "von");
            word(out, from.entry().name);
        }
        Predicate::Borrow(what, from) => {
            np(what, Accusative, out);
            if let Some(from) = from {
                word(out, "von");
                word(out, from.entry().name);
            }
        }
        Predicate::Bring(what, to) => {
            np(what, Accusative, out);
            into(to, out);
        }
        Predicate::LeaveAt(what, at) => {
            np(what, Accusative, out);
            inside(at, out);
        }
        Predicate::Paint(what, color) => {
            np(what, Accusative, out);
            word(out, color.entry().de);
        }
        Predicate::Done(_, by) => {
            if let Some(by) = by {
                word(out, "von");
                word(out, by.entry().name);
            }
        }
    }
}

pub(super) fn clause(clause: &Clause, out: &mut String) {
    let bracket = bracket(clause.predicate, clause.subject.is_plural());
    match clause.when {
        Some(when) if when.front => {
            word(out, when.adverb.entry().forms[1]);
            word(out, bracket.finite);
            np(clause.subject, Nominative, out);
        }
        when => {
            np(clause.subject, Nominative, out);
            word(out, bracket.finite);
            if let Some(when) = when {
                word(out, when.adverb.entry().forms[1]);
            }
        }
    }
    middle_field(clause.predicate, out);
    if let Some(at) = clause.place {
        inside(at, out);
    }
    if let Some(last) = bracket.last {
        word(out, last);
    }
}

pub(super) fn question(question: &Question, out: &mut String) {
    let be = |past: bool, subject: Np| {
        sein(if past { Tense::Past } else { Tense::Present }, subject.is_plural()).finite
    };
    let color = |past: bool, what: Np, out: &mut String| {
        word(out, "welche Farbe");
        let plural = what.is_plural();
        word(
            out,
            if past { finite("hatte", "hatten", plural) } else { finite("hat", "haben", plural) }
                .finite,
        );
        if past {
            word(out, "vorher");
        }
        np(what, Nominative, out);
    };
    match *question {
        Question::WhereIs(what) => {
            word(out, "wo");
            word(out, be(false, what));
            np(what, Nominative, out);
        }
        Question::WhereWas(what) => {
            word(out, "wo");
            word(out, be(true, what));
            np(what, Nominative, out);
            word(out, "vorher");
        }
        Question::WhoHas(what) => {
            word(out, "wer hat");
            np(what, Accusative, out);
        }
        Question::WhatHas(person) => {
            word(out, "was hat");
            word(out, person.entry().name);
        }
        Question::ColorOf(what) => color(false, what, out),
        Question::ColorWas(what) => color(true, what, out),
        Question::HowMany(noun, person) => {
            word(out, "wie viele");
            word(out, noun.entry().de[1]);
            word(out, "hat");
            word(out, person.entry().name);
        }
        Question::WhoIsIn(at) => {
            word(out, "wer ist");
            inside(at, out);
        }
        Question::WhenDid(person, verb) => {
            word(out, "wann");
            word(out, perfect(verb, false).finite);
            word(out, person.entry().name);
            word(out, verb.entry().de);
        }
        Question::WhoDid(verb, what) => {
            word(out, "wer hat");
            np(what, Accusative, out);
            word(out, verb.entry().de);
        }
        Question::WhereDid(person, verb, what) => {
            word(out, "wo hat");
            word(out, person.entry().name);
            np(what, Accusative, out);
            word(out, verb.entry().de);
        }
        Question::DidGo(person, verb, to) => {
            word(out, "ist");
            word(out, person.entry().name);
            into(to, out);
            word(out, verb.entry().de);
        }
    }
}

pub(super) fn hour(hour: u8, out: &mut String) {
    word(out, "es war");
    word(out, numeral(hour, 1));
    word(out, "Uhr");
}

pub(super) fn there(at: Noun, what: Np, out: &mut String) {
    inside(at, out);
    word(out, if what.is_plural() { "waren" } else { "war" });
    np(what, Nominative, out);
}

pub(super) fn there_were(n: u8, noun: Noun, out: &mut String) {
    word(out, "es waren");
    np(Np::Count(n, noun, None), Nominative, out);
    word(out, "da");
}
