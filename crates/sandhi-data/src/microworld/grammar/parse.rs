//! Reads English sentences of the grammar back: `parse(sentence.text(English)) == sentence`.
//!
//! A recursive descent over words. Prepositions and verb forms decide every alternative, so there is
//! no ambiguity to resolve; text that the grammar cannot have made gives `None`.

use super::super::lexicon::{Adjective, Adverb, Kind, NUMERALS, Noun, Person, Verb, VerbGroup};
use super::{
    Clause, Derivation, N_REMARKS, Np, Predicate, Question, REMARKS, Tense, When, capitalize,
};

/// Parses one English sentence with its final punctuation.
pub fn parse(text: &str) -> Option<Derivation> {
    let text = text.trim();
    if let Some(index) = (0..N_REMARKS).find(|&index| {
        let mut remark = REMARKS[usize::from(index)][0].to_owned();
        capitalize(&mut remark, 0);
        text.strip_suffix('.') == Some(&remark)
    }) {
        return Some(Derivation::Remark(index));
    }
    let (body, asks) = match text.strip_suffix('.') {
        Some(body) => (body, false),
        None => (text.strip_suffix('?')?, true),
    };
    let words: Vec<&str> = body.split(' ').collect();
    let mut cursor = Cursor { words: &words, at: 0 };
    let sentence = if asks { cursor.question().map(Derivation::Ask) } else { cursor.statement() }?;
    (cursor.at == words.len()).then_some(sentence)
}

#[derive(Clone, Copy)]
struct Cursor<'a> {
    words: &'a [&'a str],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self) -> Option<&'a str> {
        let word = self.peek()?;
        self.at += 1;
        Some(word)
    }

    /// Takes the words of `phrase` if they come next; the first word of a sentence may be a capital.
    fn eat(&mut self, phrase: &str) -> bool {
        let mut at = self.at;
        for expected in phrase.split(' ') {
            let Some(found) = self.words.get(at) else { return false };
            let same = *found == expected || (at == 0 && lower(found) == expected);
            if !same {
                return false;
            }
            at += 1;
        }
        self.at = at;
        true
    }

    fn attempt<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let before = self.at;
        let result = read(self);
        if result.is_none() {
            self.at = before;
        }
        result
    }

    fn person(&mut self) -> Option<Person> {
        self.attempt(|c| Person::from_name(c.next()?))
    }

    fn adjective(&mut self) -> Option<Adjective> {
        let word = self.peek()?;
        let found = Adjective::all().find(|adjective| adjective.entry().en == word)?;
        self.at += 1;
        Some(found)
    }

    fn numeral(&mut self) -> Option<u8> {
        (1..=12).find(|&n| self.eat(NUMERALS[usize::from(n) - 1][0]))
    }

    fn noun(&mut self, plural: bool) -> Option<Noun> {
        let word = self.peek()?;
        let found = Noun::all().find(|noun| noun.entry().en[usize::from(plural)] == word)?;
        self.at += 1;
        Some(found)
    }

    fn np(&mut self) -> Option<Np> {
        self.attempt(|c| {
            if let Some(first) = c.person() {
                let second = c.attempt(|c| if c.eat("and") { c.person() } else { None });
                return Some(second.map_or(Np::One(first), |second| Np::Two(first, second)));
            }
            if c.eat("the") {
                let adjective = c.adjective();
                return Some(Np::The(c.noun(false)?, adjective));
            }
            if c.eat("a") || c.eat("an") {
                let adjective = c.adjective();
                return Some(Np::A(c.noun(false)?, adjective));
            }
            let n = c.numeral().filter(|&n| n >= 2)?;
            let adjective = c.adjective();
            Some(Np::Count(n, c.noun(true)?, adjective))
        })
    }

    /// `in the garden` after its preposition.
    fn place(&mut self, preposition: &str) -> Option<Noun> {
        self.attempt(|c| {
            if !(c.eat(preposition) && c.eat("the")) {
                return None;
            }
            c.noun(false).filter(|noun| noun.entry().kind == Kind::Place)
        })
    }

    fn adverb(&mut self) -> Option<Adverb> {
        Adverb::all().find(|adverb| self.eat(adverb.entry().forms[0]))
    }

    fn verb(&mut self, form: impl Fn(Verb) -> &'static str) -> Option<Verb> {
        Verb::all().find(|verb| self.eat(form(*verb)))
    }

    fn statement(&mut self) -> Option<Derivation> {
        let special = self.attempt(|c| {
            if c.eat("it was") {
                let hour = c.numeral()?;
                return c.eat("o'clock").then_some(Derivation::Hour(hour));
            }
            if c.eat("there were") {
                let Np::Count(n, noun, None) = c.np()? else { return None };
                return Some(Derivation::ThereWere(n, noun));
            }
            let place = c.place("in")?;
            if !(c.eat("there was") || c.eat("there were")) {
                return None;
            }
            Some(Derivation::There(place, c.np()?))
        });
        if special.is_some() {
            return special;
        }
        let first = self.clause()?;
        if self.eat("and") {
            return Some(Derivation::Pair(first, self.clause()?));
        }
        Some(Derivation::Plain(first))
    }

    fn clause(&mut self) -> Option<Clause> {
        let when = self.adverb().map(|adverb| When { adverb, front: true });
        let subject = self.np()?;
        let predicate = self.predicate()?;
        let place = self.place("in");
        let when = when.or_else(|| self.adverb().map(|adverb| When { adverb, front: false }));
        Some(Clause { when, subject, predicate, place })
    }

    fn predicate(&mut self) -> Option<Predicate> {
        self.attempt(Self::state)
            .or_else(|| self.attempt(Self::fixed))
            .or_else(|| self.attempt(Self::event))
    }

    /// States: forms of *be* and *have*.
    fn state(&mut self) -> Option<Predicate> {
        let still_first = self.eat("still");
        if self.eat("had") {
            return self.has(Tense::Past);
        }
        if self.eat("has") || self.eat("have") {
            let tense = if still_first { Tense::Still } else { Tense::Present };
            return self.has(tense);
        }
        if still_first {
            return None;
        }
        let past = self.eat("was") || self.eat("were");
        if !past && !self.eat("is") && !self.eat("are") {
            return None;
        }
        let tense = match (past, self.eat("still")) {
            (true, false) => Tense::Past,
            (false, true) => Tense::Still,
            (false, false) => Tense::Present,
            (true, true) => return None,
        };
        if past && self.eat("not") {
            return Some(Predicate::NotAt(self.place("in")?));
        }
        if let Some(adjective) = self.adjective() {
            return Some(Predicate::Is(tense, adjective));
        }
        if past && let Some(verb) = self.verb(|verb| verb.entry().en_forms[1]) {
            if verb.group() != VerbGroup::Transitive {
                return None;
            }
            let by = if self.eat("by") { Some(self.person()?) } else { None };
            return Some(Predicate::Done(verb, by));
        }
        let with = if self.eat("with") { Some(self.np()?) } else { None };
        Some(Predicate::At(tense, self.place("in")?, with))
    }

    fn has(&mut self, tense: Tense) -> Option<Predicate> {
        if self.eat("something") {
            let color = self.adjective().filter(|adjective| adjective.is_color())?;
            return Some(Predicate::HasColored(tense, color));
        }
        Some(Predicate::Has(tense, self.np()?))
    }

    /// Events whose verb is part of the construction.
    fn fixed(&mut self) -> Option<Predicate> {
        if self.eat("came from") {
            self.at -= 1;
            return Some(Predicate::ComeFrom(self.place("from")?));
        }
        if self.eat("left") {
            let what = self.np()?;
            return match what {
                Np::The(noun, None) if noun.entry().kind == Kind::Place => {
                    Some(Predicate::Leave(noun))
                }
                _ => Some(Predicate::LeaveAt(what, self.place("in")?)),
            };
        }
        if self.eat("got") {
            let what = self.np()?;
            return if self.eat("from") {
                Some(Predicate::Get(what, self.person()?))
            } else {
                None
            };
        }
        if self.eat("borrowed") {
            let what = self.np()?;
            let from = if self.eat("from") { Some(self.person()?) } else { None };
            return Some(Predicate::Borrow(what, from));
        }
        if self.eat("brought") {
            let what = self.np()?;
            return Some(Predicate::Bring(what, self.place("to")?));
        }
        if self.eat("painted") {
            let what = self.np()?;
            return Some(Predicate::Paint(what, self.adjective()?));
        }
        if self.eat("can") {
            return Some(Predicate::CanDo(self.infinitive()?, self.np()?));
        }
        if self.eat("wants to") || self.eat("want to") {
            return Some(Predicate::WantDo(self.infinitive()?, self.np()?));
        }
        if self.eat("wants") || self.eat("want") {
            return Some(Predicate::Want(self.np()?));
        }
        if self.eat("did not") {
            return Some(Predicate::NotDoTo(self.infinitive()?, self.np()?));
        }
        None
    }

    fn infinitive(&mut self) -> Option<Verb> {
        self.verb(|verb| verb.entry().en_forms[0])
    }

    /// Events whose verb comes from the lexicon.
    fn event(&mut self) -> Option<Predicate> {
        let verb = self.verb(|verb| verb.entry().en)?;
        match verb.group() {
            VerbGroup::Intransitive => Some(Predicate::Do(verb)),
            VerbGroup::Transitive => Some(Predicate::DoTo(verb, self.np()?)),
            VerbGroup::Ditransitive => {
                if let Some(to) = self.person() {
                    return Some(Predicate::Give(verb, to, self.np()?, false));
                }
                let what = self.np()?;
                if self.eat("to") {
                    Some(Predicate::Give(verb, self.person()?, what, true))
                } else {
                    None
                }
            }
            VerbGroup::Motion => {
                let to = self.place("to")?;
                if verb.entry().en == "came" && self.eat("with") {
                    return Some(Predicate::ComeWith(to, self.np()?));
                }
                Some(Predicate::Go(verb, to))
            }
        }
    }

    fn question(&mut self) -> Option<Question> {
        let be = |c: &mut Self| c.eat("is") || c.eat("are");
        let was = |c: &mut Self| c.eat("was") || c.eat("were");
        if self.eat("where did") {
            let person = self.person()?;
            return Some(Question::WhereDid(person, self.infinitive()?, self.np()?));
        }
        if self.eat("where") {
            if be(self) {
                return Some(Question::WhereIs(self.np()?));
            }
            let subject = if was(self) { self.np()? } else { return None };
            return self.eat("earlier").then_some(Question::WhereWas(subject));
        }
        if self.eat("what color") {
            if be(self) {
                return Some(Question::ColorOf(self.np()?));
            }
            let subject = if was(self) { self.np()? } else { return None };
            return self.eat("earlier").then_some(Question::ColorWas(subject));
        }
        if self.eat("what does") {
            let person = self.person()?;
            return self.eat("have").then_some(Question::WhatHas(person));
        }
        if self.eat("how many") {
            let noun = self.noun(true)?;
            let person = if self.eat("does") { self.person()? } else { return None };
            return self.eat("have").then_some(Question::HowMany(noun, person));
        }
        if self.eat("when did") {
            let person = self.person()?;
            return Some(Question::WhenDid(person, self.infinitive()?));
        }
        if self.eat("who has") {
            return Some(Question::WhoHas(self.np()?));
        }
        if self.eat("who is") {
            return Some(Question::WhoIsIn(self.place("in")?));
        }
        if self.eat("who") {
            return Some(Question::WhoDid(self.verb(|verb| verb.entry().en)?, self.np()?));
        }
        if self.eat("did") {
            let person = self.person()?;
            return Some(Question::DidGo(person, self.infinitive()?, self.place("to")?));
        }
        None
    }
}

fn lower(word: &str) -> String {
    let mut chars = word.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}
