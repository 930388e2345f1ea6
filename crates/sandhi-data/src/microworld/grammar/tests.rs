//! Hand-checked sentences in three languages, and round trips through the parser.

use super::super::sentences::{Frames, all_words, draw, words_of};
use super::super::{Split, Style};
use super::*;
use crate::microworld::Microworld;
use crate::rng::Stream;

/// The English sentence is in the grammar and says in German and Spanish what is expected.
#[track_caller]
fn check(english: &str, german: &str, spanish: &str) {
    let derivation = parse(english).unwrap_or_else(|| panic!("not in the grammar: {english}"));
    assert_eq!(derivation.text(Language::English), english);
    assert_eq!(derivation.text(Language::German), german);
    assert_eq!(derivation.text(Language::Spanish), spanish);
}

#[test]
fn german_articles_and_endings_follow_gender_and_case() {
    // Masculine, feminine, neuter; nominative and accusative; weak after the article.
    check("The red ball is old.", "Der rote Ball ist alt.", "La pelota roja es vieja.");
    check("The red cup is old.", "Die rote Tasse ist alt.", "La taza roja es vieja.");
    check("The red book is old.", "Das rote Buch ist alt.", "El libro rojo es viejo.");
    check(
        "Anna took the red ball.",
        "Anna hat den roten Ball genommen.",
        "Anna tomó la pelota roja.",
    );
    check("Anna took the red cup.", "Anna hat die rote Tasse genommen.", "Anna tomó la taza roja.");
    check(
        "Anna took the red book.",
        "Anna hat das rote Buch genommen.",
        "Anna tomó el libro rojo.",
    );
    // Mixed after "ein".
    check("Ben has a green hat.", "Ben hat einen grünen Hut.", "Ben tiene un sombrero verde.");
    check("Ben has a green lamp.", "Ben hat eine grüne Lampe.", "Ben tiene una lámpara verde.");
    check("Ben has a green picture.", "Ben hat ein grünes Bild.", "Ben tiene un cuadro verde.");
    check(
        "In the park there was a black dog.",
        "Im Park war ein schwarzer Hund.",
        "En el parque había un perro negro.",
    );
    check(
        "In the park there was a white cat.",
        "Im Park war eine weiße Katze.",
        "En el parque había un gato blanco.",
    );
    check(
        "In the park there was a brown horse.",
        "Im Park war ein braunes Pferd.",
        "En el parque había un caballo marrón.",
    );
    // Strong after a numeral; the dative plural has -n once.
    check(
        "Ida has three blue coins.",
        "Ida hat drei blaue Münzen.",
        "Ida tiene tres monedas azules.",
    );
    check(
        "Leo came to the mill with two big dogs.",
        "Leo ist mit zwei großen Hunden in die Mühle gekommen.",
        "Leo vino al molino con dos perros grandes.",
    );
    check(
        "Leo came to the mill with two cows.",
        "Leo ist mit zwei Kühen in die Mühle gekommen.",
        "Leo vino al molino con dos vacas.",
    );
    check(
        "Leo came to the mill with two cats.",
        "Leo ist mit zwei Katzen in die Mühle gekommen.",
        "Leo vino al molino con dos gatos.",
    );
    check(
        "Leo came to the mill with two eagles.",
        "Leo ist mit zwei Adlern in die Mühle gekommen.",
        "Leo vino al molino con dos águilas.",
    );
    // Dative singular.
    check(
        "Lena came to the barn with a fox.",
        "Lena ist mit einem Fuchs in die Scheune gekommen.",
        "Lena vino al granero con un zorro.",
    );
    check(
        "Lena came to the barn with an old goat.",
        "Lena ist mit einer alten Ziege in die Scheune gekommen.",
        "Lena vino al granero con una cabra vieja.",
    );
    check(
        "Lena came to the barn with a small pig.",
        "Lena ist mit einem kleinen Schwein in die Scheune gekommen.",
        "Lena vino al granero con un cerdo pequeño.",
    );
}

#[test]
fn weak_nouns_and_odd_plurals() {
    check("Emma saw a bear.", "Emma hat einen Bären gesehen.", "Emma vio un oso.");
    check(
        "In the cave there was a bear.",
        "In der Höhle war ein Bär.",
        "En la cueva había un oso.",
    );
    check(
        "Eva came to the bank with a hare.",
        "Eva ist mit einem Hasen in die Bank gekommen.",
        "Eva vino al banco con una liebre.",
    );
    check("Emma saw an eagle.", "Emma hat einen Adler gesehen.", "Emma vio un águila.");
    check(
        "In the forest there was a white eagle.",
        "Im Wald war ein weißer Adler.",
        "En el bosque había un águila blanca.",
    );
    check("Hugo bought ten fish.", "Hugo hat zehn Fische gekauft.", "Hugo compró diez peces.");
    check("Hugo found two mice.", "Hugo hat zwei Mäuse gefunden.", "Hugo encontró dos ratones.");
    check("Tina has five knives.", "Tina hat fünf Messer.", "Tina tiene cinco cuchillos.");
    check(
        "Tina drew an old map.",
        "Tina hat eine alte Karte gezeichnet.",
        "Tina dibujó un mapa viejo.",
    );
    check(
        "Eva has twelve new pencils.",
        "Eva hat zwölf neue Stifte.",
        "Eva tiene doce lápices nuevos.",
    );
    check("Eva has two clocks.", "Eva hat zwei Uhren.", "Eva tiene dos relojes.");
}

#[test]
fn places_contract_with_prepositions() {
    check("Anna is in the garden.", "Anna ist im Garten.", "Anna está en el jardín.");
    check("Anna is in the kitchen.", "Anna ist in der Küche.", "Anna está en la cocina.");
    check("Anna is in the office.", "Anna ist im Büro.", "Anna está en la oficina.");
    check("Anna went to the garden.", "Anna ist in den Garten gegangen.", "Anna fue al jardín.");
    check("Anna went to the kitchen.", "Anna ist in die Küche gegangen.", "Anna fue a la cocina.");
    check("Anna went to the office.", "Anna ist ins Büro gegangen.", "Anna fue a la oficina.");
    check(
        "Anna came from the garden.",
        "Anna ist aus dem Garten gekommen.",
        "Anna vino del jardín.",
    );
    check(
        "Anna came from the kitchen.",
        "Anna ist aus der Küche gekommen.",
        "Anna vino de la cocina.",
    );
    check("Anna left the tower.", "Anna hat den Turm verlassen.", "Anna salió de la torre.");
    check("Anna left the castle.", "Anna hat das Schloss verlassen.", "Anna salió del castillo.");
}

#[test]
fn the_german_verb_is_second_and_the_participle_last() {
    check(
        "On Monday Anna gave Ben the red ball.",
        "Am Montag hat Anna Ben den roten Ball gegeben.",
        "El lunes Anna le dio la pelota roja a Ben.",
    );
    check(
        "Anna gave the red ball to Ben on Monday.",
        "Anna hat am Montag Ben den roten Ball gegeben.",
        "Anna le dio la pelota roja a Ben el lunes.",
    );
    check(
        "At three o'clock Tom slept in the library.",
        "Um drei Uhr hat Tom in der Bibliothek geschlafen.",
        "A las tres Tom durmió en la biblioteca.",
    );
    check(
        "Tom slept in the library at one o'clock.",
        "Tom hat um ein Uhr in der Bibliothek geschlafen.",
        "Tom durmió en la biblioteca a la una.",
    );
    check(
        "Then Rosa found a coin in the park.",
        "Dann hat Rosa eine Münze im Park gefunden.",
        "Luego Rosa encontró una moneda en el parque.",
    );
    check("Now Rosa is in the park.", "Jetzt ist Rosa im Park.", "Ahora Rosa está en el parque.");
    check(
        "Earlier Rosa was in the shop.",
        "Vorher war Rosa im Laden.",
        "Antes Rosa estaba en la tienda.",
    );
    check(
        "Later the letter was in the hotel.",
        "Später war der Brief im Hotel.",
        "Más tarde la carta estaba en el hotel.",
    );
    check(
        "Last night Eva was in the mill.",
        "Letzte Nacht war Eva in der Mühle.",
        "Anoche Eva estaba en el molino.",
    );
}

#[test]
fn subjects_agree_in_number_and_gender() {
    check(
        "Anna and Ben went to the park.",
        "Anna und Ben sind in den Park gegangen.",
        "Anna y Ben fueron al parque.",
    );
    check(
        "Tom and Ida have a key.",
        "Tom und Ida haben einen Schlüssel.",
        "Tom e Ida tienen una llave.",
    );
    check(
        "Two dogs slept in the garden.",
        "Zwei Hunde haben im Garten geschlafen.",
        "Dos perros durmieron en el jardín.",
    );
    check("Anna is tired.", "Anna ist müde.", "Anna está cansada.");
    check("Ben is tired.", "Ben ist müde.", "Ben está cansado.");
    check("Anna and Ben are tired.", "Anna und Ben sind müde.", "Anna y Ben están cansados.");
    check(
        "Anna and Emma were happy.",
        "Anna und Emma waren froh.",
        "Anna y Emma estaban contentas.",
    );
    check("The cup is broken.", "Die Tasse ist kaputt.", "La taza está rota.");
    check("The hat was cheap.", "Der Hut war billig.", "El sombrero era barato.");
    check(
        "Three hens were found by Olga.",
        "Drei Hühner wurden von Olga gefunden.",
        "Tres gallinas fueron encontradas por Olga.",
    );
    check(
        "Ben sang and Ida slept.",
        "Ben hat gesungen und Ida hat geschlafen.",
        "Ben cantó e Ida durmió.",
    );
}

#[test]
fn every_construction_in_three_languages() {
    check(
        "Anna still has the key.",
        "Anna hat den Schlüssel noch.",
        "Anna todavía tiene la llave.",
    );
    check(
        "Anna still has three ducks.",
        "Anna hat noch drei Enten.",
        "Anna todavía tiene tres patos.",
    );
    check(
        "Anna is still in the park.",
        "Anna ist noch im Park.",
        "Anna todavía está en el parque.",
    );
    check("The key is still red.", "Der Schlüssel ist noch rot.", "La llave todavía es roja.");
    check(
        "Now Ben has something white.",
        "Jetzt hat Ben etwas Weißes.",
        "Ahora Ben tiene algo blanco.",
    );
    check(
        "Earlier Ben had something red.",
        "Vorher hatte Ben etwas Rotes.",
        "Antes Ben tenía algo rojo.",
    );
    check(
        "Ben got the letter from Anna.",
        "Ben hat den Brief von Anna bekommen.",
        "Ben recibió la carta de Anna.",
    );
    check(
        "Ben borrowed the lamp from Anna.",
        "Ben hat die Lampe von Anna ausgeliehen.",
        "Ben pidió prestada la lámpara a Anna.",
    );
    check(
        "Ben brought the lamp to the cellar.",
        "Ben hat die Lampe in den Keller gebracht.",
        "Ben llevó la lámpara al sótano.",
    );
    check(
        "Ben left the lamp in the cellar.",
        "Ben hat die Lampe im Keller gelassen.",
        "Ben dejó la lámpara en el sótano.",
    );
    check(
        "Ben painted the chair green.",
        "Ben hat den Stuhl grün gestrichen.",
        "Ben pintó la silla de verde.",
    );
    check("Ben wants an apple.", "Ben will einen Apfel.", "Ben quiere una manzana.");
    check(
        "Ben wants to wash the shirt.",
        "Ben will das Hemd waschen.",
        "Ben quiere lavar la camisa.",
    );
    check("Ben can find the ring.", "Ben kann den Ring finden.", "Ben puede encontrar el anillo.");
    check(
        "Ben did not find the old ring.",
        "Ben hat den alten Ring nicht gefunden.",
        "Ben no encontró el anillo viejo.",
    );
    check(
        "Ben was not in the theater.",
        "Ben war nicht im Theater.",
        "Ben no estaba en el teatro.",
    );
    check(
        "Ben is with Ida in the school.",
        "Ben ist mit Ida in der Schule.",
        "Ben está con Ida en la escuela.",
    );
    check(
        "Ben is with a small dog in the school.",
        "Ben ist mit einem kleinen Hund in der Schule.",
        "Ben está con un perro pequeño en la escuela.",
    );
    check(
        "An old hat is in the shop.",
        "Ein alter Hut ist im Laden.",
        "Un sombrero viejo está en la tienda.",
    );
    check("The candle was lost.", "Die Kerze wurde verloren.", "La vela fue perdida.");
    check("There were nine sheep.", "Es waren neun Schafe da.", "Había nueve ovejas.");
    check("It was three o'clock.", "Es war drei Uhr.", "Eran las tres.");
    check("It was one o'clock.", "Es war ein Uhr.", "Era la una.");
    check("It was raining.", "Es hat geregnet.", "Llovía.");
    check("The sun was shining.", "Die Sonne hat geschienen.", "Brillaba el sol.");
}

#[test]
fn questions_invert_and_open_twice_in_spanish() {
    check("Where is the red ball?", "Wo ist der rote Ball?", "¿Dónde está la pelota roja?");
    check("Where was Anna earlier?", "Wo war Anna vorher?", "¿Dónde estaba Anna antes?");
    check("Who has the map?", "Wer hat die Karte?", "¿Quién tiene el mapa?");
    check("What does Anna have?", "Was hat Anna?", "¿Qué tiene Anna?");
    check("What color is the hat?", "Welche Farbe hat der Hut?", "¿De qué color es el sombrero?");
    check(
        "What color was the hat earlier?",
        "Welche Farbe hatte vorher der Hut?",
        "¿De qué color era antes el sombrero?",
    );
    check("How many ducks does Ben have?", "Wie viele Enten hat Ben?", "¿Cuántos patos tiene Ben?");
    check("How many cows does Ben have?", "Wie viele Kühe hat Ben?", "¿Cuántas vacas tiene Ben?");
    check("Who is in the kitchen?", "Wer ist in der Küche?", "¿Quién está en la cocina?");
    check("When did Ida sing?", "Wann hat Ida gesungen?", "¿Cuándo cantó Ida?");
    check(
        "Who took the new bag?",
        "Wer hat die neue Tasche genommen?",
        "¿Quién tomó la bolsa nueva?",
    );
    check(
        "Where did Ida find the new bag?",
        "Wo hat Ida die neue Tasche gefunden?",
        "¿Dónde encontró Ida la bolsa nueva?",
    );
    check("Did Leo run to the hotel?", "Ist Leo ins Hotel gelaufen?", "¿Corrió Leo al hotel?");
}

#[test]
#[rustfmt::skip]
fn every_verb_in_singular_and_plural() {
    for (english, german, spanish) in [
        ("took the ring", "genommen", ["tomó el anillo", "tomaron el anillo"]), ("bought the ring", "gekauft", ["compró el anillo", "compraron el anillo"]),
        ("found the ring", "gefunden", ["encontró el anillo", "encontraron el anillo"]), ("lost the ring", "verloren", ["perdió el anillo", "perdieron el anillo"]),
        ("saw the ring", "gesehen", ["vio el anillo", "vieron el anillo"]), ("hid the ring", "versteckt", ["escondió el anillo", "escondieron el anillo"]),
        ("cleaned the ring", "geputzt", ["limpió el anillo", "limpiaron el anillo"]), ("drew the ring", "gezeichnet", ["dibujó el anillo", "dibujaron el anillo"]),
        ("looked for the ring", "gesucht", ["buscó el anillo", "buscaron el anillo"]), ("washed the ring", "gewaschen", ["lavó el anillo", "lavaron el anillo"]),
        ("sold the ring", "verkauft", ["vendió el anillo", "vendieron el anillo"]), ("forgot the ring", "vergessen", ["olvidó el anillo", "olvidaron el anillo"]),
    ] {
        check(&format!("Nina {english}."), &format!("Nina hat den Ring {german}."), &format!("Nina {}.", spanish[0]));
        check(&format!("Nina and Leo {english}."), &format!("Nina und Leo haben den Ring {german}."), &format!("Nina y Leo {}.", spanish[1]));
    }
    for (english, german, spanish) in [
        ("gave", "gegeben", ["dio", "dieron"]), ("sent", "geschickt", ["envió", "enviaron"]), ("showed", "gezeigt", ["mostró", "mostraron"]), ("lent", "geliehen", ["prestó", "prestaron"]),
    ] {
        check(&format!("Nina {english} Tom the box."), &format!("Nina hat Tom die Kiste {german}."), &format!("Nina le {} la caja a Tom.", spanish[0]));
        check(&format!("Nina and Leo {english} the box to Tom."), &format!("Nina und Leo haben Tom die Kiste {german}."), &format!("Nina y Leo le {} la caja a Tom.", spanish[1]));
    }
    for (english, german, spanish) in [
        ("went", "gegangen", ["fue", "fueron"]), ("ran", "gelaufen", ["corrió", "corrieron"]), ("came", "gekommen", ["vino", "vinieron"]), ("hurried", "geeilt", ["acudió", "acudieron"]),
    ] {
        check(&format!("Nina {english} to the bakery."), &format!("Nina ist in die Bäckerei {german}."), &format!("Nina {} a la panadería.", spanish[0]));
        check(&format!("Nina and Leo {english} to the bakery."), &format!("Nina und Leo sind in die Bäckerei {german}."), &format!("Nina y Leo {} a la panadería.", spanish[1]));
    }
    for (english, german, spanish) in [
        ("slept", "geschlafen", ["durmió", "durmieron"]), ("sang", "gesungen", ["cantó", "cantaron"]), ("waited", "gewartet", ["esperó", "esperaron"]), ("danced", "getanzt", ["bailó", "bailaron"]),
        ("worked", "gearbeitet", ["trabajó", "trabajaron"]), ("played", "gespielt", ["jugó", "jugaron"]), ("laughed", "gelacht", ["rio", "rieron"]), ("ate", "gegessen", ["comió", "comieron"]), ("cooked", "gekocht", ["cocinó", "cocinaron"]),
    ] {
        check(&format!("Nina {english}."), &format!("Nina hat {german}."), &format!("Nina {}.", spanish[0]));
        check(&format!("Nina and Leo {english}."), &format!("Nina und Leo haben {german}."), &format!("Nina y Leo {}.", spanish[1]));
    }
}

#[test]
fn what_the_grammar_writes_it_reads_back() {
    let mut rng = Stream::named(7, "round trip");
    for frames in [Frames::Seen, Frames::Unseen, Frames::Plain] {
        let words = if frames == Frames::Seen { words_of(Style::Seen) } else { all_words() };
        for _ in 0..3_000 {
            let derivation = draw(words, frames, &mut rng);
            let text = derivation.text(Language::English);
            let read = parse(&text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(read.text(Language::English), text);
            assert_eq!(read, derivation, "{text}");
        }
    }
}

#[test]
fn what_the_grammar_cannot_write_does_not_parse() {
    for text in [
        "",
        ".",
        "Anna",
        "Anna took the ball",
        "Anna took ball.",
        "Took the ball Anna.",
        "Anna is in kitchen.",
        "Anna is in the ball.",
        "Anna has three ball.",
        "Anna took the ball the.",
        "anna took the ball.",
        "Anna and took the ball.",
        "Where Anna is?",
        "Zed took the ball.",
        "Anna  took the ball.",
        "¿?",
        "Anna has one ball.",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
}

#[test]
fn text_starts_with_a_capital_and_ends_with_its_mark() {
    for language in Language::ALL {
        for sentence in Microworld::new(3).sentences(language, Split::Dev, Style::Seen, 500) {
            let text = &sentence.text;
            let first = text.trim_start_matches('¿').chars().next().unwrap();
            assert!(first.is_uppercase(), "{text}");
            assert!(text.ends_with(['.', '?']) && !text.contains("  "), "{text}");
            assert_eq!(
                text.starts_with('¿'),
                language == Language::Spanish && text.ends_with('?'),
                "{text}"
            );
        }
    }
}
