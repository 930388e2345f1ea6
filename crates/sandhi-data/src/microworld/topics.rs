//! Stories about a topic: the sea, the farm, music, … (English).
//!
//! A frame has one slot for the hero, `{P}`, and alternatives in braces. Every ending begins with the
//! hero, so that the words around the joint do not give the topic away.

use super::lexicon::Person;
use crate::rng::Stream;
use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

struct Topic {
    name: &'static str,
    reserved: bool,
    frames: [&'static str; 9],
    endings: [&'static str; 3],
}

#[rustfmt::skip]
static TOPICS: [Topic; 14] = [
    Topic { name: "sea", reserved: false,
        frames: ["{P} went to the {sea|beach}.", "The {waves|boats} were big.", "{P} saw {two|three} {boats|fish} in the water.", "The wind blew over the {sea|beach}.", "{P} found a shell in the sand.", "The water was {cold|warm}.",
            "{P} took off the shoes.", "A {red|white} ship came by.", "The {birds|children} sat in the sand."],
        endings: ["{P} swam in the {sea|waves}.", "{P} lay in the sand.", "{P} went home by boat."] },
    Topic { name: "farm", reserved: false,
        frames: ["{P} went to the farm.", "The {cows|goats} stood in the field.", "{P} gave the {hens|goats} some corn.", "The farmer had {two|four} {horses|cows}.", "{P} opened the gate.", "The hay was {dry|wet}.",
            "The {dog|cat} lay in the hay.", "{P} carried a bucket of milk.", "The {old|new} tractor was green."],
        endings: ["{P} milked the {cows|goats}.", "{P} brought the hay to the {cows|horses}.", "{P} closed the gate of the field."] },
    Topic { name: "music", reserved: false,
        frames: ["{P} went to the concert.", "The {drums|flutes} were loud.", "{P} played the {piano|violin}.", "The song was {old|new}.", "{P} knew the tune.", "The singer sang {two|three} songs.",
            "The hall was {full|dark}.", "{P} liked the {singer|piano}.", "The people were quiet."],
        endings: ["{P} sang the last song.", "{P} played a tune on the {piano|violin}.", "{P} clapped for the singer."] },
    Topic { name: "baking", reserved: false,
        frames: ["{P} wanted to bake a cake.", "The oven was {hot|old}.", "{P} mixed the flour and the {eggs|butter}.", "The bread smelled good.", "{P} took {two|three} eggs.", "There was sugar in the bowl.",
            "{P} read the recipe.", "The {dough|butter} was {soft|cold}.", "The kitchen was {warm|full of smoke}."],
        endings: ["{P} took the {cake|bread} from the oven.", "{P} ate the {cake|bread} with butter.", "{P} put sugar on the cake."] },
    Topic { name: "winter", reserved: false,
        frames: ["The snow fell all {day|night}.", "{P} put on a warm coat.", "The lake was full of ice.", "{P} walked through the snow.", "{P} made a fire.", "The {road|hill} was white.",
            "The {trees|windows} were white with ice.", "{P} wore {two|three} pairs of socks.", "The wind was {cold|strong}."],
        endings: ["{P} built a snowman.", "{P} skated on the ice.", "{P} threw a snowball."] },
    Topic { name: "train", reserved: false,
        frames: ["{P} bought a ticket.", "The train was {late|full}.", "{P} waited at the station.", "{P} had a {big|small} suitcase.", "The journey was long.", "The driver stopped at {two|three} stations.",
            "{P} looked out of the window.", "The seats were {blue|full}.", "{P} asked for the platform."],
        endings: ["{P} got off at the last station.", "{P} slept on the train.", "{P} carried the suitcase to the platform."] },
    Topic { name: "football", reserved: false,
        frames: ["{P} played for the {red|blue} team.", "The game was {hard|long}.", "{P} kicked the ball.", "The team needed {one goal|two goals}.", "The players were tired.", "{P} ran over the grass.",
            "The {goal|field} was {big|wet}.", "The people {sang|shouted}.", "{P} had the number {seven|nine|ten}."],
        endings: ["{P} shot the last goal.", "{P} won the game with the team.", "{P} passed the ball to a player."] },
    Topic { name: "school", reserved: false,
        frames: ["The teacher asked a question.", "{P} sat in the {first|last} row.", "The lesson was about {numbers|words}.", "{P} wrote on the board.", "{P} opened the book.", "The class was quiet.",
            "{P} made {two|three} mistakes.", "The bell rang at {eight|nine}.", "The children learned {letters|songs}."],
        endings: ["{P} answered the teacher.", "{P} read the lesson again.", "{P} did well in the test."] },
    Topic { name: "market", reserved: false,
        frames: ["{P} went to the market.", "The {apples|pears} were cheap.", "{P} asked for the price.", "{P} had {ten|twelve} coins.", "The seller had fresh {fruit|cheese}.", "There were many people at the stalls.",
            "{P} carried a {big|full} bag.", "The {cheese|fruit} smelled good.", "A man sold {flowers|pears}."],
        endings: ["{P} paid the seller.", "{P} bought the {fruit|cheese}.", "{P} spent all the coins."] },
    Topic { name: "painting", reserved: false,
        frames: ["{P} wanted to paint a picture.", "The paint was still wet.", "{P} took a {big|small} brush.", "{P} mixed {red and blue|white and green}.", "The paper was {white|large}.", "The painter looked at the colors.",
            "{P} drew a line.", "The {red|blue} paint was {dry|thick}.", "{P} stood at the easel."],
        endings: ["{P} hung the picture on the wall.", "{P} painted a {tree|face}.", "{P} washed the brush."] },
    Topic { name: "doctor", reserved: true,
        frames: ["{P} was very sick.", "The doctor came {early|at once}.", "{P} had a fever.", "The nurse brought some tea.", "{P} stayed in bed.", "The medicine was {bitter|strong}.",
            "The patient had a {cough|cold}.", "{P} could not {eat|sleep}.", "The nurse took the temperature."],
        endings: ["{P} took the medicine.", "{P} thanked the {doctor|nurse}.", "{P} felt much better."] },
    Topic { name: "mountain", reserved: true,
        frames: ["{P} climbed the mountain.", "The path was {steep|narrow}.", "{P} carried a rope.", "The rocks were {wet|loose}.", "{P} rested in a hut.", "The valley was far below.",
            "The air was {thin|cold}.", "{P} put on {boots|a helmet}.", "The guide knew the {way|path}."],
        endings: ["{P} reached the top.", "{P} looked down at the valley.", "{P} followed the path down."] },
    Topic { name: "night", reserved: true,
        frames: ["The moon was {bright|full}.", "{P} looked through the telescope.", "The sky was clear.", "{P} knew {two|three} planets.", "{P} lay awake.", "There was no cloud in the sky.",
            "An owl called {twice|softly}.", "{P} drew a map of the sky.", "The {first|last} star was {red|blue}."],
        endings: ["{P} counted the stars.", "{P} saw a comet.", "{P} named the planets."] },
    Topic { name: "theft", reserved: true,
        frames: ["The window was broken.", "{P} called the police.", "The thief had a {mask|car}.", "{P} found a footprint.", "{P} missed the money.", "The judge asked {two|three} people.",
            "The {door|safe} was open.", "{P} heard a {noise|shout}.", "The police asked for {names|papers}."],
        endings: ["{P} caught the thief.", "{P} told the judge everything.", "{P} got the money back."] },
];

/// Replaces the alternatives of `frame` by draws and the hero's slot by a name.
fn fill(frame: &str, hero: Person, rng: &mut Stream) -> String {
    let mut out = String::with_capacity(frame.len());
    let mut rest = frame;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let (slot, after) = after.split_once('}').expect("frames close their braces");
        if slot == "P" {
            out.push_str(hero.entry().name);
        } else {
            let options: Vec<&str> = slot.split('|').collect();
            out.push_str(rng.pick::<&str>(&options));
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// All fillings of a frame, with the hero's slot left in place.
pub(super) fn fillings(frame: &str) -> Vec<String> {
    let Some(open) =
        frame.match_indices('{').map(|(at, _)| at).find(|&at| !frame[at..].starts_with("{P}"))
    else {
        return vec![frame.to_owned()];
    };
    let close = open + frame[open..].find('}').expect("frames close their braces");
    frame[open + 1..close]
        .split('|')
        .flat_map(|option| fillings(&format!("{}{option}{}", &frame[..open], &frame[close + 1..])))
        .collect()
}

/// Four sentences and four endings, the first of which fits.
pub(super) struct TopicStory {
    pub(super) name: &'static str,
    pub(super) sentences: [String; 4],
    pub(super) endings: [String; 4],
}

pub(super) fn draw(reserved: bool, persons: &[Person], rng: &mut Stream) -> TopicStory {
    let mut topics: Vec<&Topic> =
        TOPICS.iter().filter(|topic| topic.reserved == reserved).collect();
    rng.shuffle(&mut topics);
    let hero = *rng.pick(persons);
    let topic = topics[0];
    let mut frames = topic.frames;
    // A third of the frames name the hero or more; a story without a hero is drawn again.
    rng.shuffle(&mut frames);
    while !frames[..4].iter().any(|frame| frame.contains("{P}")) {
        rng.shuffle(&mut frames);
    }
    let sentences = [0, 1, 2, 3].map(|i| fill(frames[i], hero, rng));
    let endings = [0, 1, 2, 3].map(|i: usize| {
        let ending = *rng.pick(&topics[i].endings);
        fill(ending, hero, rng)
    });
    TopicStory { name: topic.name, sentences, endings }
}

/// The words that only one topic has.
fn own_words() -> &'static [Vec<String>] {
    static OWN: LazyLock<Vec<Vec<String>>> = LazyLock::new(|| {
        let of = |topic: &Topic| -> BTreeSet<String> {
            topic
                .frames
                .iter()
                .chain(&topic.endings)
                .flat_map(|frame| words_in(frame))
                .map(str::to_lowercase)
                .collect()
        };
        let all: Vec<BTreeSet<String>> = TOPICS.iter().map(of).collect();
        let shared = |word: &String| all.iter().filter(|words| words.contains(word)).count() > 1;
        all.iter()
            .map(|words| words.iter().filter(|word| !shared(word)).cloned().collect())
            .collect()
    });
    &OWN
}

/// Words of one topic, side by side. The language model's text has them for all topics, so that it knows
/// what a reserved topic is about without having read a story of it.
pub(super) fn association(rng: &mut Stream) -> String {
    let mut words: Vec<&String> = rng.pick(own_words()).iter().collect();
    rng.shuffle(&mut words);
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| words[i]);
    if rng.chance(0.5) {
        format!("The words {a}, {b}, {c} and {d} belong together.")
    } else {
        format!("With {a} and {b} we think of {c} and {d}.")
    }
}

/// The topic of a sentence, when one of the frames makes it.
pub(super) fn topic_of(text: &str) -> Option<&'static str> {
    static FILLINGS: LazyLock<HashMap<String, &'static str>> = LazyLock::new(|| {
        let frames = TOPICS.iter().flat_map(|topic| {
            topic.frames.iter().chain(&topic.endings).map(move |frame| (frame, topic.name))
        });
        frames
            .flat_map(|(frame, name)| fillings(frame).into_iter().map(move |text| (text, name)))
            .collect()
    });
    let hero = text.split([' ', '.']).next().and_then(Person::from_name);
    match hero {
        Some(hero) => FILLINGS.get(&text.replacen(hero.entry().name, "{P}", 1)),
        None => FILLINGS.get(text),
    }
    .copied()
}

fn words_in(frame: &'static str) -> impl Iterator<Item = &'static str> {
    frame.split([' ', '.', '{', '}', '|']).filter(|word| !word.is_empty() && *word != "P")
}

/// Every word of the topics, for the texts of the encoder.
pub(super) fn words() -> impl Iterator<Item = &'static str> {
    TOPICS
        .iter()
        .flat_map(|topic| topic.frames.iter().chain(&topic.endings))
        .flat_map(|frame| words_in(frame))
}

/// The words of the topics that are reserved, or of the others; several times where several frames have one.
pub(super) fn words_of(reserved: bool) -> impl Iterator<Item = &'static str> {
    TOPICS
        .iter()
        .filter(move |topic| topic.reserved == reserved)
        .flat_map(|topic| topic.frames.iter().chain(&topic.endings))
        .flat_map(|frame| words_in(frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_belongs_to_one_topic() {
        let mut seen: HashMap<String, &str> = HashMap::new();
        for topic in &TOPICS {
            for frame in topic.frames.iter().chain(&topic.endings) {
                for text in fillings(frame) {
                    let before = seen.insert(text.clone(), topic.name);
                    assert!(before.is_none_or(|name| name == topic.name), "{text}");
                }
            }
            assert!(
                topic.endings.iter().all(|ending| ending.starts_with("{P} ")),
                "{}",
                topic.name
            );
            assert!(
                topic.frames.iter().filter(|frame| frame.contains("{P}")).count() >= 4,
                "{}",
                topic.name
            );
        }
    }

    #[test]
    fn fillings_multiply() {
        assert_eq!(fillings("{P} saw {two|three} {boats|fish}.").len(), 4);
        assert_eq!(topic_of("Anna milked the goats."), Some("farm"));
        assert_eq!(topic_of("Anna milked the ducks."), None);
    }
}
