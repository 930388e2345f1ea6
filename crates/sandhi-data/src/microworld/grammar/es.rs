//! Spanish: gender and number agreement, *al* and *del*, *ser* and *estar*, *le … a*, *e* before *i*.

use super::super::lexicon::{Adjective, Gender, Noun, Person, Verb};
use super::{Clause, Np, Predicate, Question, Tense, numeral, word};

/// ` y `, or ` e ` before a word that begins with the sound *i*.
pub(super) fn and(next: &str) -> &'static str {
    let next = next.to_lowercase();
    if next.starts_with('i') || next.starts_with("hi") { " e " } else { " y " }
}

fn article(noun: Noun) -> &'static str {
    let entry = noun.entry();
    if entry.es_gender == Gender::F && !entry.es_stressed_a { "la" } else { "el" }
}

/// The form of an adjective that agrees with `np`.
fn agreeing(adjective: Adjective, np: Np) -> &'static str {
    let (feminine, plural) = agreement(np);
    adjective.entry().es[usize::from(feminine) + 2 * usize::from(plural)]
}

fn agreement(np: Np) -> (bool, bool) {
    let feminine = match np {
        Np::One(person) => person.entry().gender == Gender::F,
        Np::Two(a, b) => a.entry().gender == Gender::F && b.entry().gender == Gender::F,
        Np::The(noun, _) | Np::A(noun, _) | Np::Count(_, noun, _) => {
            noun.entry().es_gender == Gender::F
        }
    };
    (feminine, np.is_plural())
}

pub(super) fn np(np: Np, out: &mut String) {
    let (noun, adjective) = match np {
        Np::One(person) => return word(out, person.entry().name),
        Np::Two(a, b) => {
            word(out, a.entry().name);
            out.push_str(and(b.entry().name));
            return word(out, b.entry().name);
        }
        Np::The(noun, adjective) | Np::A(noun, adjective) | Np::Count(_, noun, adjective) => {
            (noun, adjective)
        }
    };
    let entry = noun.entry();
    match np {
        Np::Count(n, ..) => word(out, numeral(n, 2)),
        Np::A(..) => word(out, if article(noun) == "la" { "una" } else { "un" }),
        _ => word(out, article(noun)),
    }
    word(out, entry.es[usize::from(np.is_plural())]);
    if let Some(adjective) = adjective {
        word(out, agreeing(adjective, np));
    }
}

/// `al jardín`, `a la cocina`.
fn to(noun: Noun, out: &mut String) {
    word(out, if article(noun) == "el" { "al" } else { "a la" });
    word(out, noun.entry().es[0]);
}

/// `del jardín`, `de la cocina`.
fn from(noun: Noun, out: &mut String) {
    word(out, if article(noun) == "el" { "del" } else { "de la" });
    word(out, noun.entry().es[0]);
}

fn inside(noun: Noun, out: &mut String) {
    word(out, "en");
    np(Np::The(noun, None), out);
}

fn number(forms: [&'static str; 2], plural: bool) -> &'static str {
    forms[usize::from(plural)]
}

fn past(verb: Verb, plural: bool, out: &mut String) {
    word(out, number(verb.entry().es, plural));
}

fn estar(tense: Tense, plural: bool) -> &'static str {
    number(if tense == Tense::Past { ["estaba", "estaban"] } else { ["está", "están"] }, plural)
}

fn ser(tense: Tense, plural: bool) -> &'static str {
    number(if tense == Tense::Past { ["era", "eran"] } else { ["es", "son"] }, plural)
}

/// Moods and damage are states (*estar*), colors and other qualities are not (*ser*).
fn copula(adjective: Adjective, tense: Tense, plural: bool) -> &'static str {
    if adjective.is_mood() || adjective.entry().en == "broken" {
        estar(tense, plural)
    } else {
        ser(tense, plural)
    }
}

pub(super) fn clause(clause: &Clause, out: &mut String) {
    if let Some(when) = clause.when.filter(|when| when.front) {
        word(out, when.adverb.entry().forms[2]);
    }
    np(clause.subject, out);
    predicate(clause, out);
    if let Some(at) = clause.place {
        inside(at, out);
    }
    if let Some(when) = clause.when.filter(|when| !when.front) {
        word(out, when.adverb.entry().forms[2]);
    }
}

fn predicate(clause: &Clause, out: &mut String) {
    let plural = clause.subject.is_plural();
    let still = |tense: Tense, out: &mut String| {
        if tense == Tense::Still {
            word(out, "todavía");
        }
    };
    match clause.predicate {
        Predicate::Go(verb, place) => {
            past(verb, plural, out);
            to(place, out);
        }
        Predicate::ComeFrom(place) => {
            word(out, number(["vino", "vinieron"], plural));
            from(place, out);
        }
        Predicate::Leave(place) => {
            word(out, number(["salió", "salieron"], plural));
            from(place, out);
        }
        Predicate::ComeWith(place, company) => {
            word(out, number(["vino", "vinieron"], plural));
            to(place, out);
            word(out, "con");
            np(company, out);
        }
        Predicate::At(tense, place, with) => {
            still(tense, out);
            word(out, estar(tense, plural));
            if let Some(with) = with {
                word(out, "con");
                np(with, out);
            }
            inside(place, out);
        }
        Predicate::NotAt(place) => {
            word(out, "no");
            word(out, estar(Tense::Past, plural));
            inside(place, out);
        }
        Predicate::Has(tense, what) => {
            still(tense, out);
            let forms =
                if tense == Tense::Past { ["tenía", "tenían"] } else { ["tiene", "tienen"] };
            word(out, number(forms, plural));
            np(what, out);
        }
        Predicate::HasColored(tense, color) => {
            still(tense, out);
            let forms =
                if tense == Tense::Past { ["tenía", "tenían"] } else { ["tiene", "tienen"] };
            word(out, number(forms, plural));
            word(out, "algo");
            word(out, color.entry().es[0]);
        }
        Predicate::Is(tense, adjective) => {
            still(tense, out);
            word(out, copula(adjective, tense, plural));
            word(out, agreeing(adjective, clause.subject));
        }
        Predicate::Do(verb) => past(verb, plural, out),
        Predicate::DoTo(verb, what) => {
            past(verb, plural, out);
            np(what, out);
        }
        Predicate::NotDoTo(verb, what) => {
            word(out, "no");
            past(verb, plural, out);
            np(what, out);
        }
        Predicate::Give(verb, person, what, _) => {
            word(out, "le");
            past(verb, plural, out);
            np(what, out);
            to_person(person, out);
        }
        Predicate::Get(what, person) => {
            word(out, number(["recibió", "recibieron"], plural));
            np(what, out);
            word(out, "de");
            word(out, person.entry().name);
        }
        Predicate::Borrow(what, person) => {
            word(out, number(["pidió", "pidieron"], plural));
            word(out, &agree("prestado", agreement(what)));
            np(what, out);
            if let Some(person) = person {
                to_person(person, out);
            }
        }
        Predicate::Bring(what, place) => {
            word(out, number(["llevó", "llevaron"], plural));
            np(what, out);
            to(place, out);
        }
        Predicate::LeaveAt(what, place) => {
            word(out, number(["dejó", "dejaron"], plural));
            np(what, out);
            inside(place, out);
        }
        Predicate::Paint(what, color) => {
            word(out, number(["pintó", "pintaron"], plural));
            np(what, out);
            word(out, "de");
            word(out, color.entry().es[0]);
        }
        Predicate::Want(what) => {
            word(out, number(["quiere", "quieren"], plural));
            np(what, out);
        }
        Predicate::CanDo(verb, what) => {
            word(out, number(["puede", "pueden"], plural));
            word(out, verb.entry().es_forms[0]);
            np(what, out);
        }
        Predicate::WantDo(verb, what) => {
            word(out, number(["quiere", "quieren"], plural));
            word(out, verb.entry().es_forms[0]);
            np(what, out);
        }
        Predicate::Done(verb, by) => {
            word(out, number(["fue", "fueron"], plural));
            word(out, &agree(verb.entry().es_forms[1], agreement(clause.subject)));
            if let Some(by) = by {
                word(out, "por");
                word(out, by.entry().name);
            }
        }
    }
}

fn to_person(person: Person, out: &mut String) {
    word(out, "a");
    word(out, person.entry().name);
}

/// The participle in agreement: `encontrado`, `encontradas`.
fn agree(masculine: &str, (feminine, plural): (bool, bool)) -> String {
    let mut form = masculine.trim_end_matches('o').to_owned();
    form.push(if feminine { 'a' } else { 'o' });
    if plural {
        form.push('s');
    }
    form
}

pub(super) fn question(question: &Question, out: &mut String) {
    match *question {
        Question::WhereIs(what) => {
            word(out, "dónde");
            word(out, estar(Tense::Present, what.is_plural()));
            np(what, out);
        }
        Question::WhereWas(what) => {
            word(out, "dónde");
            word(out, estar(Tense::Past, what.is_plural()));
            np(what, out);
            word(out, "antes");
        }
        Question::WhoHas(what) => {
            word(out, "quién tiene");
            np(what, out);
        }
        Question::WhatHas(person) => {
            word(out, "qué tiene");
            word(out, person.entry().name);
        }
        Question::ColorOf(what) => {
            word(out, "de qué color");
            word(out, ser(Tense::Present, what.is_plural()));
            np(what, out);
        }
        Question::ColorWas(what) => {
            word(out, "de qué color");
            word(out, ser(Tense::Past, what.is_plural()));
            word(out, "antes");
            np(what, out);
        }
        Question::HowMany(noun, person) => {
            let feminine = noun.entry().es_gender == Gender::F;
            word(out, if feminine { "cuántas" } else { "cuántos" });
            word(out, noun.entry().es[1]);
            word(out, "tiene");
            word(out, person.entry().name);
        }
        Question::WhoIsIn(place) => {
            word(out, "quién está");
            inside(place, out);
        }
        Question::WhenDid(person, verb) => {
            word(out, "cuándo");
            past(verb, false, out);
            word(out, person.entry().name);
        }
        Question::WhoDid(verb, what) => {
            word(out, "quién");
            past(verb, false, out);
            np(what, out);
        }
        Question::WhereDid(person, verb, what) => {
            word(out, "dónde");
            past(verb, false, out);
            word(out, person.entry().name);
            np(what, out);
        }
        Question::DidGo(person, verb, place) => {
            past(verb, false, out);
            word(out, person.entry().name);
            to(place, out);
        }
    }
}

pub(super) fn hour(hour: u8, out: &mut String) {
    word(out, if hour == 1 { "era la" } else { "eran las" });
    word(out, numeral(hour, 2));
}

pub(super) fn there(place: Noun, what: Np, out: &mut String) {
    inside(place, out);
    word(out, "había");
    np(what, out);
}

pub(super) fn there_were(n: u8, noun: Noun, out: &mut String) {
    word(out, "había");
    np(Np::Count(n, noun, None), out);
}
