//! The state of a story: who is where, who holds what, colors, counts and times, now and before.
//!
//! ```text
//! Earlier Anna was in the kitchen.      before: at(Anna, kitchen)
//! Anna took the ball.                   now: holds(Anna, ball)
//! Anna went to the tower.               now: at(Anna, tower)     so the ball is in the tower
//! ```

use super::grammar::{Clause, Derivation, Np, Predicate, Tense};
use super::lexicon::{Adjective, Adverb, Noun, Person, Verb};
use serde::{Deserialize, Serialize};

/// One thing that is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The person is in the place.
    PersonAt(Person, Noun),
    /// The thing is in the place.
    ThingAt(Noun, Noun),
    /// The person has the thing.
    Holds(Person, Noun),
    /// The thing has the color.
    Color(Noun, Adjective),
    /// The person has so many of the kind.
    Count(Person, Noun, u8),
    /// The person did it at that hour.
    Hour(Person, Verb, u8),
    /// The person did it to so many of the kind (1: *the* or *a*).
    Deed(Person, Verb, Noun, u8),
}

/// What is so now and what was so before. Each question has at most one answer in each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// At the end of the story.
    pub now: Vec<State>,
    /// Before its events.
    pub before: Vec<State>,
}

impl World {
    /// The world after `sentences`, whose order does not matter: adverbs and verbs say what was before.
    pub fn after<'a>(sentences: impl IntoIterator<Item = &'a Derivation>) -> Self {
        let mut world = Self::default();
        for sentence in sentences {
            match sentence {
                Derivation::Plain(clause) => world.apply(clause),
                Derivation::Pair(first, second) => {
                    world.apply(first);
                    world.apply(second);
                }
                _ => {}
            }
        }
        world
    }

    fn apply(&mut self, clause: &Clause) {
        let subjects: &[Person] = match &clause.subject {
            Np::One(person) => &[*person],
            Np::Two(a, b) => &[*a, *b],
            _ => &[],
        };
        let past = clause.when.is_some_and(|when| when.adverb.is_before());
        let states = if past { &mut self.before } else { &mut self.now };
        match (clause.predicate, clause.subject.noun()) {
            (Predicate::At(_, place, _), Some(thing)) => states.push(State::ThingAt(thing, place)),
            (Predicate::Is(_, color), Some(thing)) if color.is_color() => {
                states.push(State::Color(thing, color));
            }
            _ => {}
        }
        for &person in subjects {
            self.apply_deed(person, clause, past);
        }
    }

    fn apply_deed(&mut self, person: Person, clause: &Clause, past: bool) {
        let states = if past { &mut self.before } else { &mut self.now };
        match clause.predicate {
            Predicate::At(_, place, _) => states.push(State::PersonAt(person, place)),
            Predicate::Go(_, place) | Predicate::ComeWith(place, _) => {
                self.now.push(State::PersonAt(person, place));
            }
            Predicate::ComeFrom(place) | Predicate::Leave(place) => {
                self.before.push(State::PersonAt(person, place));
            }
            Predicate::Has(_, Np::Count(n, noun, _)) => states.push(State::Count(person, noun, n)),
            Predicate::Has(_, what) => {
                states.extend(what.noun().map(|noun| State::Holds(person, noun)));
            }
            Predicate::Give(verb, to, what, _) if verb.transfers() => {
                if let Some(noun) = what.noun() {
                    self.before.push(State::Holds(person, noun));
                    self.now.push(State::Holds(to, noun));
                }
            }
            Predicate::Get(what, from) | Predicate::Borrow(what, Some(from)) => {
                if let Some(noun) = what.noun() {
                    self.before.push(State::Holds(from, noun));
                    self.now.push(State::Holds(person, noun));
                }
            }
            Predicate::DoTo(verb, what) => {
                let n = if let Np::Count(n, ..) = what { n } else { 1 };
                if let Some(noun) = what.noun() {
                    states.push(State::Deed(person, verb, noun, n));
                    if verb.transfers() && n == 1 {
                        states.push(State::Holds(person, noun));
                    }
                }
            }
            Predicate::Do(verb) => {
                if let Some(place) = clause.place {
                    states.push(State::PersonAt(person, place));
                }
                if let Some(hour) = clause.when.and_then(|when| when.adverb.as_hour()) {
                    states.push(State::Hour(person, verb, hour));
                }
            }
            Predicate::Bring(what, place) => {
                states.extend(what.noun().map(|thing| State::ThingAt(thing, place)));
            }
            Predicate::Paint(what, color) => {
                states.extend(what.noun().map(|thing| State::Color(thing, color)));
            }
            _ => {}
        }
    }

    fn states(&self, before: bool) -> &[State] {
        if before { &self.before } else { &self.now }
    }

    /// Where the person is.
    pub fn person_place(&self, person: Person, before: bool) -> Option<Noun> {
        self.states(before).iter().find_map(|state| match *state {
            State::PersonAt(p, place) if p == person => Some(place),
            _ => None,
        })
    }

    /// Who has the thing.
    pub fn holder(&self, thing: Noun, before: bool) -> Option<Person> {
        self.states(before).iter().find_map(|state| match *state {
            State::Holds(p, noun) if noun == thing => Some(p),
            _ => None,
        })
    }

    /// Where the thing is: where it was put, or where the person is who has it.
    pub fn thing_place(&self, thing: Noun, before: bool) -> Option<Noun> {
        let own = self.states(before).iter().find_map(|state| match *state {
            State::ThingAt(noun, place) if noun == thing => Some(place),
            _ => None,
        });
        own.or_else(|| self.person_place(self.holder(thing, before)?, before))
    }

    /// The color of the thing; one that was never changed is the same before and now.
    pub fn color(&self, thing: Noun, before: bool) -> Option<Adjective> {
        let find = |states: &[State]| {
            states.iter().find_map(|state| match *state {
                State::Color(noun, color) if noun == thing => Some(color),
                _ => None,
            })
        };
        find(self.states(before)).or_else(|| find(&self.now).filter(|_| before))
    }

    /// How many of the kind the person has.
    pub fn count(&self, person: Person, noun: Noun) -> Option<u8> {
        self.now.iter().find_map(|state| match *state {
            State::Count(p, kind, n) if p == person && kind == noun => Some(n),
            _ => None,
        })
    }

    /// The hour at which the person did it.
    pub fn hour(&self, person: Person, verb: Verb) -> Option<u8> {
        self.now.iter().find_map(|state| match *state {
            State::Hour(p, v, hour) if p == person && v == verb => Some(hour),
            _ => None,
        })
    }

    /// Whether what the sentence says is so: `None` when the story does not tell.
    pub fn agrees(&self, sentence: &Derivation) -> Option<bool> {
        match sentence {
            Derivation::Plain(clause) => self.agrees_with(clause),
            Derivation::Pair(first, second) => {
                match (self.agrees_with(first), self.agrees_with(second)) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn agrees_with(&self, clause: &Clause) -> Option<bool> {
        let before = clause.when.is_some_and(|when| when.adverb.is_before());
        if let Np::Two(a, b) = clause.subject {
            let each = [a, b]
                .map(|person| self.agrees_with(&Clause { subject: Np::One(person), ..*clause }));
            return match each {
                [Some(false), _] | [_, Some(false)] => Some(false),
                [Some(true), Some(true)] => Some(true),
                _ => None,
            };
        }
        if let Np::One(person) = clause.subject {
            return self.agrees_about(person, clause, before);
        }
        let thing = clause.subject.noun()?;
        match clause.predicate {
            Predicate::At(_, place, _) => Some(self.thing_place(thing, before)? == place),
            Predicate::Is(tense, color) if color.is_color() => {
                Some(self.color(thing, before && tense == Tense::Past)? == color)
            }
            Predicate::Done(verb, Some(by)) => {
                let n = if let Np::Count(n, ..) = clause.subject { n } else { 1 };
                self.did(by, verb, thing, n)
            }
            _ => None,
        }
    }

    fn agrees_about(&self, person: Person, clause: &Clause, before: bool) -> Option<bool> {
        match clause.predicate {
            Predicate::At(_, place, None) => Some(self.person_place(person, before)? == place),
            Predicate::Has(_, Np::Count(n, noun, _)) => Some(self.count(person, noun)? == n),
            Predicate::Has(_, what) => Some(self.holder(what.noun()?, before)? == person),
            Predicate::HasColored(_, color) => {
                let mut held = self.states(before).iter().filter_map(|state| match *state {
                    State::Holds(p, thing) if p == person => self.color(thing, before),
                    _ => None,
                });
                let first = held.next()?;
                Some(first == color || held.any(|other| other == color))
            }
            Predicate::Do(verb) => {
                let hour = clause.when.and_then(|when| Adverb::as_hour(when.adverb))?;
                Some(self.hour(person, verb)? == hour)
            }
            // Who sees or finds a thing is where it is.
            Predicate::DoTo(verb, what) if ["saw", "found"].contains(&verb.entry().en) => {
                let place = self.thing_place(what.noun()?, before)?;
                Some(self.person_place(person, before)? == place)
            }
            _ => None,
        }
    }

    fn did(&self, person: Person, verb: Verb, noun: Noun, n: u8) -> Option<bool> {
        let mut deeds = self.now.iter().filter_map(|state| match *state {
            State::Deed(p, v, what, count) if v == verb && what == noun => Some((p, count)),
            _ => None,
        });
        let first = deeds.next()?;
        Some(first == (person, n) || deeds.any(|deed| deed == (person, n)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::grammar::parse;
    use super::*;

    fn world(story: &[&str]) -> World {
        let sentences: Vec<_> =
            story.iter().map(|text| parse(text).unwrap_or_else(|| panic!("{text}"))).collect();
        World::after(&sentences)
    }

    fn check(world: &World, text: &str, expected: Option<bool>) {
        assert_eq!(
            world.agrees(&parse(text).unwrap_or_else(|| panic!("{text}"))),
            expected,
            "{text}"
        );
    }

    #[test]
    fn things_go_where_their_holder_goes() {
        let world = world(&[
            "At first Anna was in the kitchen.",
            "Anna went to the tower.",
            "Ben gave Anna the ball.",
            "Ben ran to the park.",
        ]);
        check(&world, "Now the ball is in the tower.", Some(true));
        check(&world, "Now the ball is in the park.", Some(false));
        check(&world, "Now the ball is in the kitchen.", Some(false));
        check(&world, "Earlier Anna was in the kitchen.", Some(true));
        check(&world, "Now Anna has the ball.", Some(true));
        check(&world, "Earlier Anna had the ball.", Some(false));
        check(&world, "Now Carla is in the tower.", None);
        check(&world, "Anna and Ben are in the tower.", Some(false));
        check(&world, "Then Ben found the ball.", Some(false));
        check(&world, "Anna slept.", None);
    }

    #[test]
    fn colors_counts_hours_and_deeds_are_kept() {
        let world = world(&[
            "At first the key was red.",
            "Ida painted the key blue and Leo has three ducks.",
            "Sara sang at two o'clock.",
            "Olga saw five foxes.",
            "Leo has the key.",
        ]);
        check(&world, "The key is blue.", Some(true));
        check(&world, "Earlier the key was red.", Some(true));
        check(&world, "Leo has something blue.", Some(true));
        check(&world, "Leo has something red.", Some(false));
        check(&world, "Leo still has three ducks.", Some(true));
        check(&world, "Leo still has four ducks.", Some(false));
        check(&world, "At two o'clock Sara sang.", Some(true));
        check(&world, "Five foxes were seen by Olga.", Some(true));
        check(&world, "Four foxes were seen by Olga.", Some(false));
    }
}
