//! Properties of the whole corpus: cues, splits, agreement with the state, sizes.

use super::cues::{Cue, Scorers};
use super::lexicon::{Noun, Person};
use super::*;
use std::collections::HashSet;

fn world() -> Microworld {
    Microworld::new(1)
}

/// Words without punctuation, as written.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ')
        .map(|word| word.trim_matches(['.', '?', ',', '¿']))
        .filter(|word| !word.is_empty())
}

fn sentences_of(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(['.', '?']).map(str::trim).filter(|sentence| !sentence.is_empty())
}

fn document_text(document: Document) -> String {
    match document {
        Document::Plain(text) => text,
        Document::Chat(item) => format!("{} {} {}", item.instruction, item.spoken, item.answer),
    }
}

#[test]
fn every_task_has_items_in_each_language_it_speaks() {
    for task in Task::ALL {
        for language in Language::ALL {
            let items = world().items(task, language, Split::Dev, Style::Seen, 20);
            assert_eq!(
                items.len(),
                if task.speaks(language) { 20 } else { 0 },
                "{task} {language}"
            );
            for item in &items {
                assert!(item.split == Split::Dev && !item.held_out_wording, "{item:?}");
                assert!(
                    !item.instruction.contains(&item.spoken) && !item.answer.is_empty(),
                    "{item:?}"
                );
                assert!(
                    item.choices.is_empty() || item.choices[item.right] == item.answer,
                    "{item:?}"
                );
            }
            assert!(world().items(task, language, Split::Train, Style::Unseen, 5).is_empty());
        }
    }
}

#[test]
fn items_follow_from_the_seed() {
    let items = |seed| {
        Microworld::new(seed).items(
            Task::AnswerQuestion,
            Language::English,
            Split::Train,
            Style::Seen,
            50,
        )
    };
    assert_eq!(items(1), items(1));
    assert_ne!(items(1), items(2));
    let some = world().items(Task::Transcribe, Language::German, Split::Train, Style::Seen, 20);
    let more = world().items(Task::Transcribe, Language::German, Split::Train, Style::Seen, 30);
    assert_eq!(some[..], more[..20]);
    let ids: HashSet<String> = more.iter().map(|item| item.id.clone()).collect();
    assert_eq!(ids.len(), 30);
}

#[test]
fn shallow_scorers_stay_at_chance() {
    let world = world();
    let stories = |level| world.stories(Split::Train, Style::Seen, level, 5_000);
    let train: Vec<Story> = Level::ALL.into_iter().flat_map(stories).collect();
    assert_eq!(train.len(), 20_000);
    let scorers = Scorers::train(&train);
    for style in [Style::Seen, Style::Unseen] {
        for level in Level::ALL {
            let stories = world.stories(Split::Test, style, level, 4_000);
            assert_eq!(stories.len(), 4_000, "{style:?} {level:?}");
            let mut row = format!("{:6} {:8}", style.name(), level.name());
            for cue in Cue::ALL {
                let accuracy = scorers.accuracy(cue, &stories);
                let held = cue.held_on(level);
                row += &format!(" {} {accuracy:.3}{}", cue.name(), if held { "" } else { "*" });
                assert!(!held || (accuracy - 0.25).abs() < 0.03, "{row}");
            }
            println!("{row}");
        }
    }
}

#[test]
fn right_endings_agree_with_the_state_and_wrong_ones_do_not() {
    for style in [Style::Seen, Style::Unseen] {
        for level in Level::ALL {
            for story in world().stories(Split::Dev, style, level, 500) {
                for (i, ending) in story.endings.iter().enumerate() {
                    let checked = check_continuation(&story, ending);
                    assert_eq!(
                        checked,
                        Continuation { parses: true, agrees: Some(i == story.right) },
                        "{} | {ending}",
                        story.text()
                    );
                }
            }
        }
    }
}

#[test]
fn free_endings_are_checked_by_their_first_sentence() {
    let story = &world().stories(Split::Dev, Style::Seen, Level::OneHop, 1)[0];
    let right = &story.endings[story.right];
    let check = |text: &str| check_continuation(story, text);
    assert_eq!(
        check(&format!(" {right} And so on")),
        Continuation { parses: true, agrees: Some(true) }
    );
    assert_eq!(check("Nobody knows what it was."), Continuation { parses: false, agrees: None });
    assert_eq!(check(""), Continuation { parses: false, agrees: None });
    assert_eq!(check("It was raining."), Continuation { parses: true, agrees: None });
}

#[test]
fn wrong_endings_differ_from_the_right_one_in_the_candidate_only() {
    for level in [Level::Entity, Level::OneHop, Level::TwoHops] {
        for story in world().stories(Split::Test, Style::Seen, level, 500) {
            let right: Vec<&str> = words(&story.endings[story.right]).collect();
            let text = story.text();
            for (ending, candidate) in story.endings.iter().zip(&story.candidates) {
                let these: Vec<&str> = words(ending).collect();
                assert_eq!(these.len(), right.len());
                let n_different = these.iter().zip(&right).filter(|(a, b)| a != b).count();
                assert!(n_different <= 1, "{ending}");
                let n_mentions = words(&text).filter(|word| word == candidate).count();
                assert!(n_mentions == 1, "{text} | {candidate}");
            }
        }
    }
}

#[test]
fn no_derivation_is_in_two_splits() {
    for task in Task::ALL {
        for style in [Style::Seen, Style::Unseen] {
            let mut seen: HashSet<String> = HashSet::new();
            for split in [Split::Train, Split::Dev, Split::Test] {
                let spoken: HashSet<String> = world()
                    .items(task, Language::English, split, style, 400)
                    .into_iter()
                    .map(|item| item.spoken)
                    .collect();
                assert!(spoken.is_disjoint(&seen), "{task} {split:?}");
                seen.extend(spoken);
            }
        }
    }
}

#[test]
fn documents_hold_no_sentence_of_dev_or_test() {
    let mut held: HashSet<String> = HashSet::new();
    for split in [Split::Dev, Split::Test] {
        for style in [Style::Seen, Style::Unseen] {
            for sentence in world().sentences(Language::English, split, style, 4_000) {
                held.extend(sentence.parallel);
            }
        }
    }
    for document in world().documents("pretraining").take(20_000) {
        for sentence in sentences_of(&document_text(document)) {
            assert!(!held.contains(sentence), "{sentence}");
        }
    }
}

#[test]
fn training_items_have_no_reserved_entity() {
    let reserved: HashSet<&str> = Noun::all()
        .filter(|noun| noun.is_reserved())
        .flat_map(|noun| noun.entry().en)
        .chain(
            Person::all().filter(|person| person.is_reserved()).map(|person| person.entry().name),
        )
        .collect();
    for task in Task::ALL {
        for item in world().items(task, Language::English, Split::Train, Style::Seen, 1_000) {
            for word in words(&item.spoken).chain(words(&item.answer)) {
                assert!(
                    !reserved.contains(word.to_lowercase().as_str()) && !reserved.contains(word),
                    "{}",
                    item.spoken
                );
            }
        }
    }
}

/// The sentence with its entities, numbers and times taken out.
fn template(sentence: &str) -> String {
    use super::lexicon::{Adjective, Adverb, NUMERALS};
    let mut text = sentence.to_owned();
    for adverb in Adverb::all().filter(|adverb| adverb.as_hour().is_some()) {
        text = text.replace(adverb.entry().forms[0], "H");
    }
    let noun = |word: &str| Noun::all().any(|noun| noun.entry().en.contains(&word));
    let adjective = |word: &str| Adjective::all().any(|adjective| adjective.entry().en == word);
    let masked = words(&text).map(|word| match word {
        "an" => "a",
        word if Person::from_name(word).is_some() => "P",
        word if noun(word) => "N",
        word if adjective(word) => "A",
        word if NUMERALS.iter().any(|numeral| numeral[0].eq_ignore_ascii_case(word)) => "C",
        word => word,
    });
    masked.collect::<Vec<_>>().join(" ")
}

#[test]
fn unseen_templates_are_not_in_training_items() {
    let mut train: HashSet<String> = HashSet::new();
    let tasks =
        [Task::Transcribe, Task::AnswerQuestion, Task::Continue, Task::Dialogue, Task::FactChoice];
    for task in tasks {
        for item in world().items(task, Language::English, Split::Train, Style::Seen, 4_000) {
            train
                .extend(sentences_of(&item.spoken).chain(sentences_of(&item.answer)).map(template));
        }
    }
    for task in tasks {
        for item in world().items(task, Language::English, Split::Test, Style::Unseen, 500) {
            for sentence in sentences_of(&item.spoken) {
                // Lettered choices ("A, five.") are the same form everywhere.
                if words(sentence).next().is_some_and(|word| word.len() > 1) {
                    assert!(!train.contains(&template(sentence)), "{sentence}");
                }
            }
        }
    }
}

#[test]
fn wild_texts_are_no_sentences_and_cover_all_words() {
    for language in Language::ALL {
        let wild = world().wild_sentences(language, WildWords::All, 12_000);
        let first: HashSet<&str> = wild.iter().filter_map(|text| words(text).next()).collect();
        // A word alone is no salad.
        for task in Task::ALL.into_iter().filter(|task| *task != Task::Swuggy) {
            for style in [Style::Seen, Style::Unseen] {
                for item in world().items(task, language, Split::Dev, style, 300) {
                    for sentence in sentences_of(&item.spoken) {
                        let opening = words(sentence).next().unwrap();
                        assert!(!first.contains(opening), "{language}: {sentence}");
                    }
                }
            }
        }
        let known: HashSet<String> =
            wild.iter().flat_map(|text| words(text).map(str::to_lowercase)).collect();
        for word in super::wild::vocabulary(language) {
            assert!(known.contains(&word.to_lowercase()), "{language}: {word}");
        }
        // What is spoken in any split and style is among the words that the encoder heard.
        for task in Task::ALL.into_iter().filter(|task| *task != Task::Biasing) {
            for style in [Style::Seen, Style::Unseen] {
                for item in world().items(task, language, Split::Test, style, 400) {
                    for word in words(&item.spoken).filter(|word| word.len() > 1) {
                        assert!(known.contains(&word.to_lowercase()), "{language} {task}: {word}");
                    }
                }
            }
        }
    }
}

#[test]
fn open_wild_texts_hold_nothing_back() {
    for language in Language::ALL {
        let open = world().wild_sentences(language, WildWords::Open, 6_000);
        let known: HashSet<String> =
            open.iter().flat_map(|text| words(text).map(str::to_lowercase)).collect();
        let reserved = Noun::all().filter(|noun| noun.is_reserved()).flat_map(|noun| {
            let entry = noun.entry();
            match language {
                Language::English => entry.en,
                Language::German => entry.de,
                Language::Spanish => entry.es,
            }
        });
        let people = Person::all().filter(|person| person.is_reserved());
        for word in reserved.chain(people.map(|person| person.entry().name)) {
            assert!(!known.contains(&word.to_lowercase()), "{language}: {word}");
        }
        for person in Person::all().filter(|person| !person.is_reserved()) {
            assert!(known.contains(&person.entry().name.to_lowercase()));
        }
    }
}

#[test]
fn tasks_that_can_be_about_the_same_speech_are() {
    let spoken = |task| -> Vec<String> {
        let items = world().items(task, Language::German, Split::Test, Style::Seen, 60);
        items.into_iter().map(|item| item.spoken).collect()
    };
    let passages = spoken(Task::Transcribe);
    for to in [Language::English, Language::Spanish] {
        assert_eq!(spoken(Task::Translate { to }), passages);
    }
    let sentences = spoken(Task::FirstWord);
    assert_eq!(spoken(Task::LastWord), sentences);
    // Not every sentence names one person, so the others differ.
    let shared = spoken(Task::NamePerson).iter().filter(|text| sentences.contains(text)).count();
    assert!(shared > 15, "{shared}");
}

#[test]
fn in_mixed_documents_what_is_spoken_does_not_tell_the_task() {
    let replies = |kind| -> (HashSet<Task>, usize) {
        let documents = world().documents_of(kind, "test").take(12_000);
        let said = documents.filter_map(|document| match document {
            Document::Chat(item) if item.spoken.starts_with("Hello, I am ") => Some(item.task),
            _ => None,
        });
        let said: Vec<Task> = said.collect();
        (said.iter().copied().collect(), said.len())
    };
    assert_eq!(replies(DocumentKind::All).0, HashSet::from([Task::Dialogue]));
    // Some questions about words are rare.
    let (tasks, n) = replies(DocumentKind::Mixed);
    assert!(
        n > 20 && tasks.is_superset(&[Task::Dialogue, Task::Transcribe, Task::UpperCase].into())
    );
}

#[test]
fn words_can_be_asked_about_whatever_they_say() {
    let text = "Who has the ball? Anna.";
    let answer = |task| world().item_of(task, Language::English, text).answer;
    let answers = tasks::ABOUT_WORDS.map(answer);
    assert_eq!(answers, [text, "Who", "Anna", "WHO HAS THE BALL? ANNA."]);
    let item = world().item_of(Task::FirstWord, Language::English, text);
    assert!(!item.held_out_wording && item.spoken == text);
    assert_eq!(item, world().item_of(Task::FirstWord, Language::English, text));
}

#[test]
fn instructions_list_no_more_names_than_asked() {
    let longest = |max_phrases| {
        let documents = world().documents("test").with_lists_of(max_phrases).take(20_000);
        let lists = documents.filter_map(|document| match document {
            Document::Chat(item) => Some(item.phrases.len()),
            Document::Plain(_) => None,
        });
        lists.max()
    };
    assert_eq!((longest(20), longest(100)), (Some(20), Some(100)));
}

#[test]
fn rare_names_are_no_words() {
    let words: HashSet<String> = Language::ALL
        .into_iter()
        .flat_map(super::wild::vocabulary)
        .map(str::to_lowercase)
        .collect();
    for split in [Split::Train, Split::Dev, Split::Test] {
        for name in biasing::names(split) {
            assert!(!words.contains(&name.to_lowercase()), "{split:?}: {name}");
        }
    }
}

#[test]
fn biasing_lists_hold_the_spoken_name_and_do_not_change_the_speech() {
    let lists: Vec<Vec<Item>> =
        [0, 10, 100, 1_000].map(|n| world().biasing_items(n, Split::Test, 50)).to_vec();
    for (items, n) in lists.iter().zip([0, 10, 100, 1_000]) {
        assert_eq!(items.len(), 50);
        for (item, same) in items.iter().zip(&lists[0]) {
            assert_eq!(item.spoken, same.spoken);
            assert_eq!(item.phrases.len(), n);
            let distinct: HashSet<&String> = item.phrases.iter().collect();
            assert_eq!(distinct.len(), n);
            assert!(words(&item.spoken).any(|word| word == item.entities[0]));
            assert_eq!(n > 0, item.phrases.contains(&item.entities[0]));
            assert!(item.phrases.iter().all(|name| item.instruction.contains(name.as_str())));
        }
    }
    let all: HashSet<&String> =
        [Split::Train, Split::Dev, Split::Test].into_iter().flat_map(biasing::names).collect();
    assert_eq!(all.len(), 3 * biasing::N_NAMES);
}

#[test]
fn documents_have_every_task_and_wording() {
    let mut wordings: HashSet<(Task, usize)> = HashSet::new();
    for document in world().documents("wordings").take(20_000) {
        if let Document::Chat(item) = document {
            assert_eq!((item.split, item.style), (Split::Train, Style::Seen));
            wordings.insert((item.task, item.wording));
        }
    }
    for task in Task::ALL {
        // Pairs are heard, and nothing is asked.
        assert!(task.is_pair() || task.wordings().len() >= 8 + N_HELD_OUT, "{task}");
        for wording in 0..task.wordings().len() {
            assert!(wordings.contains(&(task, wording)), "{task} {wording}");
        }
        let name = serde_json::to_string(&task).unwrap();
        assert_eq!(serde_json::from_str::<Task>(&name).unwrap(), task);
        assert_eq!(name, format!("\"{task}\""));
    }
    assert!("translate_fr".parse::<Task>().is_err());
}

const N_HELD_OUT: usize = tasks::N_HELD_OUT_WORDINGS;

#[test]
fn held_out_wordings_change_the_instruction_only() {
    let items = |wordings| {
        world().items_with(
            Task::FirstWord,
            Language::Spanish,
            Split::Test,
            Style::Seen,
            wordings,
            50,
        )
    };
    for (a, b) in items(Wordings::Training).into_iter().zip(items(Wordings::HeldOut)) {
        assert_eq!((a.spoken, a.answer), (b.spoken, b.answer));
        assert!(!a.held_out_wording && b.held_out_wording && a.instruction != b.instruction);
    }
}

#[test]
fn sizes_are_moderate() {
    // Word forms of the three languages, without invented names.
    let names: HashSet<String> = biasing::names(Split::Train)
        .iter()
        .map(|name| name.to_lowercase())
        .chain(almanac::names().map(str::to_lowercase))
        .collect();
    let mut forms: HashSet<String> = HashSet::new();
    let mut n_words = 0;
    for document in world().documents("sizes").take(20_000) {
        // Capitals, names and word salad have forms without number.
        let open =
            [Task::UpperCase, Task::Biasing, Task::Transcribe, Task::FirstWord, Task::LastWord];
        let is_open = matches!(&document, Document::Chat(item) if open.contains(&item.task));
        let text = document_text(document);
        n_words += words(&text).count();
        if is_open {
            continue;
        }
        forms.extend(words(&text).map(str::to_lowercase).filter(|word| !names.contains(word)));
    }
    assert!((1_000..1_500).contains(&forms.len()), "{} forms", forms.len());
    assert!((300_000..600_000).contains(&n_words), "{n_words} words");
    let mut lexicon: HashSet<String> = HashSet::new();
    for language in Language::ALL {
        for style in [Style::Seen, Style::Unseen] {
            for sentence in world().sentences(language, Split::Test, style, 5_000) {
                lexicon.extend(words(&sentence.text).map(str::to_lowercase));
            }
        }
    }
    assert!((700..950).contains(&lexicon.len()), "{} forms in sentences", lexicon.len());
    // About three seconds at 110 words a minute (the pilot's 2.7 words a second).
    let count = |text: &str| words(text).count();
    let sentences = world().sentences(Language::English, Split::Dev, Style::Seen, 1_000);
    let lengths: Vec<usize> = sentences.iter().map(|sentence| count(&sentence.text)).collect();
    let mean = lengths.iter().sum::<usize>() as f64 / 1_000.0;
    assert!((6.5..8.5).contains(&mean), "{mean}");
    assert!(lengths.iter().filter(|n| (5..=9).contains(*n)).count() > 850);
    for level in Level::ALL {
        let stories = world().stories(Split::Dev, Style::Seen, level, 500);
        let lengths: usize =
            stories.iter().map(|story| count(&story.text()) + count(&story.endings[0])).sum();
        let mean = lengths as f64 / 500.0;
        assert!((22.0..38.0).contains(&mean), "{} {mean}", level.name());
    }
}

#[test]
fn items_and_stories_read_back_from_json() {
    for item in world().items(Task::Continue, Language::English, Split::Dev, Style::Seen, 20) {
        let line = serde_json::to_string(&item).unwrap();
        assert_eq!(serde_json::from_str::<Item>(&line).unwrap(), item);
    }
}

#[test]
fn documents_have_every_word_that_is_spoken() {
    let mut known: HashSet<String> = HashSet::new();
    for document in world().documents("words").take(40_000) {
        known.extend(words(&document_text(document)).map(str::to_lowercase));
    }
    for task in Task::ALL.into_iter().filter(|task| *task != Task::Biasing) {
        for language in Language::ALL {
            for style in [Style::Seen, Style::Unseen] {
                for item in world().items(task, language, Split::Test, style, 500) {
                    for word in words(&item.spoken).chain(words(&item.answer)) {
                        assert!(known.contains(&word.to_lowercase()), "{task} {style:?}: {word}");
                    }
                }
            }
        }
    }
}

#[test]
fn examples_for_readers() {
    let world = world();
    let mut text = String::new();
    for sentence in world.sentences(Language::English, Split::Train, Style::Seen, 6) {
        text += &format!("{}\n", sentence.parallel.join(" | "));
    }
    for sentence in world.sentences(Language::English, Split::Test, Style::Unseen, 6) {
        text += &format!("unseen: {}\n", sentence.parallel.join(" | "));
    }
    for level in Level::ALL {
        for style in [Style::Seen, Style::Unseen] {
            let story = &world.stories(Split::Dev, style, level, 1)[0];
            text += &format!("{} {}: {}\n", level.name(), style.name(), story.text());
            for (i, ending) in story.endings.iter().enumerate() {
                text += &format!("    {} {ending}\n", if i == story.right { '+' } else { '-' });
            }
        }
    }
    for task in Task::ALL {
        let language = Language::ALL.into_iter().find(|language| task.speaks(*language)).unwrap();
        for item in world.items(task, language, Split::Dev, Style::Seen, 2) {
            text += &format!("{task}: {} | {} | {}\n", item.instruction, item.spoken, item.answer);
        }
    }
    for language in Language::ALL {
        text += &format!("wild: {}\n", world.wild_sentences(language, WildWords::All, 1)[0]);
    }
    for document in world.documents("examples").take(12) {
        text += &match document {
            Document::Plain(text) => format!("plain: {text}\n"),
            Document::Chat(item) => {
                format!("chat: {} | {} | {}\n", item.instruction, item.spoken, item.answer)
            }
        };
    }
    insta::assert_snapshot!(text);
}

#[test]
fn json_lines_hold_one_record_each() {
    let mut out = Vec::new();
    write_jsonl(&mut out, &world().facts()).unwrap();
    let text = String::from_utf8(out).unwrap();
    let facts: Vec<Fact> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(facts, world().facts());
}

#[test]
fn repetitions_are_answered_from_what_is_read_alone() {
    for document in world().documents_of(DocumentKind::Repetition, "test").take(2_000) {
        let Document::Chat(item) = document else { panic!("{document:?}") };
        let words: Vec<&str> = item.spoken.trim_end_matches('.').split(' ').collect();
        let expected = match item.task {
            Task::FirstWord => words[0],
            Task::LastWord => words[words.len() - 1],
            _ => item.spoken.as_str(),
        };
        assert_eq!(item.answer, expected);
        assert_eq!(item.instruction, item.task.wordings()[item.wording]);
    }
}
