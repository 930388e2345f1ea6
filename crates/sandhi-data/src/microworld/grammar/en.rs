//! English: subject, verb, objects, place, time; questions with *do*.

use super::super::lexicon::{Noun, Person, Verb};
use super::{Clause, Np, Predicate, Question, Tense, numeral, word};

pub(super) fn np(np: Np, out: &mut String) {
    let adjective = match np {
        Np::One(person) => return word(out, person.entry().name),
        Np::Two(a, b) => {
            word(out, a.entry().name);
            word(out, "and");
            return word(out, b.entry().name);
        }
        Np::The(_, adjective) | Np::A(_, adjective) | Np::Count(_, _, adjective) => adjective,
    };
    let noun = np.noun().expect("names returned above");
    let noun = if np.is_plural() { noun.entry().en[1] } else { noun.entry().en[0] };
    let adjective = adjective.map(|adjective| adjective.entry().en);
    match np {
        Np::Count(n, ..) => word(out, numeral(n, 0)),
        Np::A(..) => {
            let vowel = adjective.unwrap_or(noun).starts_with(['a', 'e', 'i', 'o', 'u']);
            word(out, if vowel { "an" } else { "a" });
        }
        _ => word(out, "the"),
    }
    if let Some(adjective) = adjective {
        word(out, adjective);
    }
    word(out, noun);
}

fn place(preposition: &str, noun: Noun, out: &mut String) {
    word(out, preposition);
    np(Np::The(noun, None), out);
}

fn state(tense: Tense, plural: bool, forms: [&str; 4], out: &mut String) {
    // forms: present singular, present plural, past singular, past plural
    let [is, are, was, were] = forms;
    match (tense, plural) {
        (Tense::Past, false) => word(out, was),
        (Tense::Past, true) => word(out, were),
        (_, false) => word(out, is),
        (_, true) => word(out, are),
    }
}

const BE: [&str; 4] = ["is", "are", "was", "were"];

pub(super) fn clause(clause: &Clause, out: &mut String) {
    if let Some(when) = clause.when.filter(|when| when.front) {
        word(out, when.adverb.entry().forms[0]);
    }
    let plural = clause.subject.is_plural();
    np(clause.subject, out);
    match clause.predicate {
        Predicate::Go(verb, to) => {
            word(out, verb.entry().en);
            place("to", to, out);
        }
        Predicate::ComeFrom(from) => place("came from", from, out),
        Predicate::Leave(from) => place("left", from, out),
        Predicate::ComeWith(to, company) => {
            place("came to", to, out);
            word(out, "with");
            np(company, out);
        }
        Predicate::At(tense, at, with) => {
            state(tense, plural, BE, out);
            if tense == Tense::Still {
                word(out, "still");
            }
            if let Some(with) = with {
                word(out, "with");
                np(with, out);
            }
            place("in", at, out);
        }
        Predicate::NotAt(at) => {
            state(Tense::Past, plural, BE, out);
            place("not in", at, out);
        }
        Predicate::Has(tense, what) => {
            if tense == Tense::Still {
                word(out, "still");
            }
            state(tense, plural, ["has", "have", "had", "had"], out);
            np(what, out);
        }
        Predicate::HasColored(tense, color) => {
            if tense == Tense::Still {
                word(out, "still");
            }
            state(tense, plural, ["has", "have", "had", "had"], out);
            word(out, "something");
            word(out, color.entry().en);
        }
        Predicate::Is(tense, adjective) => {
            state(tense, plural, BE, out);
            if tense == Tense::Still {
                word(out, "still");
            }
            word(out, adjective.entry().en);
        }
        Predicate::Do(verb) => word(out, verb.entry().en),
        Predicate::DoTo(verb, what) => {
            word(out, verb.entry().en);
            np(what, out);
        }
        Predicate::NotDoTo(verb, what) => {
            word(out, "did not");
            infinitive(verb, what, out);
        }
        Predicate::Give(verb, to, what, prepositional) => {
            word(out, verb.entry().en);
            give(to, what, prepositional, out);
        }
        Predicate::Get(what, from) => {
            word(out, "got");
            np(what, out);
            word(out, "from");
            word(out, from.entry().name);
        }
        Predicate::Borrow(what, from) => {
            word(out, "borrowed");
            np(what, out);
            if let Some(from) = from {
                word(out, "from");
                word(out, from.entry().name);
            }
        }
        Predicate::Bring(what, to) => {
            word(out, "brought");
            np(what, out);
            place("to", to, out);
        }
        Predicate::LeaveAt(what, at) => {
            word(out, "left");
            np(what, out);
            place("in", at, out);
        }
        Predicate::Paint(what, color) => {
            word(out, "painted");
            np(what, out);
            word(out, color.entry().en);
        }
        Predicate::Want(what) => {
            word(out, if plural { "want" } else { "wants" });
            np(what, out);
        }
        Predicate::CanDo(verb, what) => {
            word(out, "can");
            infinitive(verb, what, out);
        }
        Predicate::WantDo(verb, what) => {
            word(out, if plural { "want to" } else { "wants to" });
            infinitive(verb, what, out);
        }
        Predicate::Done(verb, by) => {
            state(Tense::Past, plural, BE, out);
            word(out, verb.entry().en_forms[1]);
            if let Some(by) = by {
                word(out, "by");
                word(out, by.entry().name);
            }
        }
    }
    if let Some(at) = clause.place {
        place("in", at, out);
    }
    if let Some(when) = clause.when.filter(|when| !when.front) {
        word(out, when.adverb.entry().forms[0]);
    }
}

fn give(to: Person, what: Np, prepositional: bool, out: &mut String) {
    if prepositional {
        np(what, out);
        word(out, "to");
        word(out, to.entry().name);
    } else {
        word(out, to.entry().name);
        np(what, out);
    }
}

fn infinitive(verb: Verb, what: Np, out: &mut String) {
    word(out, verb.entry().en_forms[0]);
    np(what, out);
}

pub(super) fn question(question: &Question, out: &mut String) {
    let be = |past: bool, subject: Np| match (past, subject.is_plural()) {
        (false, false) => "is",
        (false, true) => "are",
        (true, false) => "was",
        (true, true) => "were",
    };
    match *question {
        Question::WhereIs(what) => {
            word(out, "where");
            word(out, be(false, what));
            np(what, out);
        }
        Question::WhereWas(what) => {
            word(out, "where");
            word(out, be(true, what));
            np(what, out);
            word(out, "earlier");
        }
        Question::WhoHas(what) => {
            word(out, "who has");
            np(what, out);
        }
        Question::WhatHas(person) => {
            word(out, "what does");
            word(out, person.entry().name);
            word(out, "have");
        }
        Question::ColorOf(what) => {
            word(out, "what color");
            word(out, be(false, what));
            np(what, out);
        }
        Question::ColorWas(what) => {
            word(out, "what color");
            word(out, be(true, what));
            np(what, out);
            word(out, "earlier");
        }
        Question::HowMany(noun, person) => {
            word(out, "how many");
            word(out, noun.entry().en[1]);
            word(out, "does");
            word(out, person.entry().name);
            word(out, "have");
        }
        Question::WhoIsIn(at) => place("who is in", at, out),
        Question::WhenDid(person, verb) => {
            word(out, "when did");
            word(out, person.entry().name);
            word(out, verb.entry().en_forms[0]);
        }
        Question::WhoDid(verb, what) => {
            word(out, "who");
            word(out, verb.entry().en);
            np(what, out);
        }
        Question::WhereDid(person, verb, what) => {
            word(out, "where did");
            word(out, person.entry().name);
            infinitive(verb, what, out);
        }
        Question::DidGo(person, verb, to) => {
            word(out, "did");
            word(out, person.entry().name);
            word(out, verb.entry().en_forms[0]);
            place("to", to, out);
        }
    }
}

pub(super) fn hour(hour: u8, out: &mut String) {
    word(out, "it was");
    word(out, numeral(hour, 0));
    word(out, "o'clock");
}

pub(super) fn there(at: Noun, what: Np, out: &mut String) {
    place("in", at, out);
    word(out, if what.is_plural() { "there were" } else { "there was" });
    np(what, out);
}

pub(super) fn there_were(n: u8, noun: Noun, out: &mut String) {
    word(out, "there were");
    np(Np::Count(n, noun, None), out);
}
