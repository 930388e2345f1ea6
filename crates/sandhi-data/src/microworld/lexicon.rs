//! The words of Microworld: persons, nouns, adjectives, verbs and adverbs in three languages.
//!
//! ```text
//! noun   ball, balls │ der Ball, Bälle │ la pelota, pelotas      verb   took │ hat genommen │ tomó, tomaron
//! color  red         │ rot(er, e, es)  │ rojo, roja              adverb on Monday │ am Montag │ el lunes
//! ```
//!
//! Entries that are *reserved* belong to the evaluation domain `texts` ([`super::Style::Unseen`]): no
//! training item names them, while the plain text of language model pre-training does.

use serde::{Deserialize, Serialize};

/// Grammatical gender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gender {
    /// Masculine.
    M,
    /// Feminine.
    F,
    /// Neuter (German only).
    N,
}

/// What a noun names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A thing that a person can carry.
    Thing,
    /// An animal.
    Animal,
    /// A place that a person can be in.
    Place,
}

/// A person of the world. Names are the same in all languages.
#[derive(Debug)]
pub struct PersonEntry {
    /// The given name.
    pub name: &'static str,
    /// Grammatical gender of predicates in Spanish.
    pub gender: Gender,
}

/// A noun with its forms.
#[derive(Debug)]
pub struct NounEntry {
    /// What it names.
    pub kind: Kind,
    /// English singular and plural.
    pub en: [&'static str; 2],
    /// German singular (nominative) and plural (nominative).
    pub de: [&'static str; 2],
    /// German gender.
    pub de_gender: Gender,
    /// German weak declension: the singular has the plural's form outside the nominative.
    pub de_weak: bool,
    /// Spanish singular and plural.
    pub es: [&'static str; 2],
    /// Spanish gender.
    pub es_gender: Gender,
    /// Spanish feminine that begins with a stressed *a* and takes *el* and *un* in the singular.
    pub es_stressed_a: bool,
}

/// An adjective with its forms.
#[derive(Debug)]
pub struct AdjectiveEntry {
    /// English.
    pub en: &'static str,
    /// German, without ending.
    pub de: &'static str,
    /// Spanish: masculine, feminine, masculine plural, feminine plural.
    pub es: [&'static str; 4],
}

/// A verb that takes a thing or an animal as its object, or none.
#[derive(Debug)]
pub struct VerbEntry {
    /// English past tense, which must differ from every other verb's.
    pub en: &'static str,
    /// English infinitive and past participle.
    pub en_forms: [&'static str; 2],
    /// German past participle (perfect tense).
    pub de: &'static str,
    /// German infinitive.
    pub de_infinitive: &'static str,
    /// The perfect tense takes *sein*, not *haben*.
    pub de_sein: bool,
    /// Spanish preterite, third person singular and plural.
    pub es: [&'static str; 2],
    /// Spanish infinitive and past participle (masculine).
    pub es_forms: [&'static str; 2],
}

/// An adverbial phrase, written as in the middle of a sentence.
#[derive(Debug)]
pub struct AdverbEntry {
    /// English, German and Spanish.
    pub forms: [&'static str; 3],
}

macro_rules! index {
    ($(#[$doc:meta])* $name:ident, $entry:ty, $table:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "u8")]
        pub struct $name(u8);

        impl TryFrom<u8> for $name {
            type Error = String;
            fn try_from(index: u8) -> Result<Self, String> {
                if usize::from(index) < $table.len() { Ok(Self(index)) } else { Err(format!("no entry {index} in the lexicon")) }
            }
        }

        impl $name {
            /// All entries, in the order of the table.
            pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + Clone {
                (0..$table.len() as u8).map(Self)
            }
            /// The entry.
            pub fn entry(self) -> &'static $entry {
                &$table[usize::from(self.0)]
            }
            /// Its place in the table.
            pub fn index(self) -> usize {
                usize::from(self.0)
            }
        }
    };
}

index!(/// A person.
    Person, PersonEntry, PERSONS);
index!(/// A noun.
    Noun, NounEntry, NOUNS);
index!(/// An adjective: the colors first, then qualities, then moods.
    Adjective, AdjectiveEntry, ADJECTIVES);
index!(/// A verb: see [`Verb::group`].
    Verb, VerbEntry, VERBS);
index!(/// An adverbial.
    Adverb, AdverbEntry, ADVERBS);

const fn f(name: &'static str) -> PersonEntry {
    PersonEntry { name, gender: Gender::F }
}
const fn m(name: &'static str) -> PersonEntry {
    PersonEntry { name, gender: Gender::M }
}

/// Persons from this index on are reserved.
const FIRST_RESERVED_PERSON: usize = 24;

#[rustfmt::skip]
static PERSONS: [PersonEntry; 36] = [
    f("Anna"), m("Ben"), f("Carla"), m("David"), f("Emma"), m("Felix"), f("Greta"), m("Hugo"), f("Ida"), m("Jonas"), f("Laura"), m("Karl"),
    f("Nina"), m("Leo"), f("Paula"), m("Martin"), f("Rosa"), m("Oscar"), f("Sara"), m("Peter"), f("Tina"), m("Simon"), f("Vera"), m("Tom"),
    f("Lena"), m("Adam"), f("Marta"), m("Bruno"), f("Olga"), m("Emil"), f("Julia"), m("Max"), f("Eva"), m("Robert"), f("Sofia"), m("Viktor"),
];

const fn noun(
    kind: Kind,
    en: [&'static str; 2],
    de_gender: Gender,
    de: [&'static str; 2],
    es_gender: Gender,
    es: [&'static str; 2],
) -> NounEntry {
    NounEntry { kind, en, de, de_gender, de_weak: false, es, es_gender, es_stressed_a: false }
}
const fn weak(entry: NounEntry) -> NounEntry {
    NounEntry { de_weak: true, ..entry }
}
const fn stressed_a(entry: NounEntry) -> NounEntry {
    NounEntry { es_stressed_a: true, ..entry }
}

use Gender::{F, M, N};
use Kind::{Animal, Place, Thing};

/// Nouns of each kind; the second range of a kind is reserved.
const THINGS: [std::ops::Range<u8>; 2] = [0..20, 20..30];
const ANIMALS: [std::ops::Range<u8>; 2] = [30..42, 42..48];
const PLACES: [std::ops::Range<u8>; 2] = [48..64, 64..72];

#[rustfmt::skip]
static NOUNS: [NounEntry; 72] = [
    noun(Thing, ["ball", "balls"], M, ["Ball", "Bälle"], F, ["pelota", "pelotas"]),
    noun(Thing, ["book", "books"], N, ["Buch", "Bücher"], M, ["libro", "libros"]),
    noun(Thing, ["cup", "cups"], F, ["Tasse", "Tassen"], F, ["taza", "tazas"]),
    noun(Thing, ["key", "keys"], M, ["Schlüssel", "Schlüssel"], F, ["llave", "llaves"]),
    noun(Thing, ["hat", "hats"], M, ["Hut", "Hüte"], M, ["sombrero", "sombreros"]),
    noun(Thing, ["lamp", "lamps"], F, ["Lampe", "Lampen"], F, ["lámpara", "lámparas"]),
    noun(Thing, ["apple", "apples"], M, ["Apfel", "Äpfel"], F, ["manzana", "manzanas"]),
    noun(Thing, ["box", "boxes"], F, ["Kiste", "Kisten"], F, ["caja", "cajas"]),
    noun(Thing, ["letter", "letters"], M, ["Brief", "Briefe"], F, ["carta", "cartas"]),
    noun(Thing, ["clock", "clocks"], F, ["Uhr", "Uhren"], M, ["reloj", "relojes"]),
    noun(Thing, ["bag", "bags"], F, ["Tasche", "Taschen"], F, ["bolsa", "bolsas"]),
    noun(Thing, ["coat", "coats"], M, ["Mantel", "Mäntel"], M, ["abrigo", "abrigos"]),
    noun(Thing, ["knife", "knives"], N, ["Messer", "Messer"], M, ["cuchillo", "cuchillos"]),
    noun(Thing, ["flute", "flutes"], F, ["Flöte", "Flöten"], F, ["flauta", "flautas"]),
    noun(Thing, ["map", "maps"], F, ["Karte", "Karten"], M, ["mapa", "mapas"]),
    noun(Thing, ["coin", "coins"], F, ["Münze", "Münzen"], F, ["moneda", "monedas"]),
    noun(Thing, ["ring", "rings"], M, ["Ring", "Ringe"], M, ["anillo", "anillos"]),
    noun(Thing, ["chair", "chairs"], M, ["Stuhl", "Stühle"], F, ["silla", "sillas"]),
    noun(Thing, ["picture", "pictures"], N, ["Bild", "Bilder"], M, ["cuadro", "cuadros"]),
    noun(Thing, ["basket", "baskets"], M, ["Korb", "Körbe"], F, ["cesta", "cestas"]),
    // Reserved things.
    noun(Thing, ["spoon", "spoons"], M, ["Löffel", "Löffel"], F, ["cuchara", "cucharas"]),
    noun(Thing, ["bottle", "bottles"], F, ["Flasche", "Flaschen"], F, ["botella", "botellas"]),
    noun(Thing, ["candle", "candles"], F, ["Kerze", "Kerzen"], F, ["vela", "velas"]),
    noun(Thing, ["broom", "brooms"], M, ["Besen", "Besen"], F, ["escoba", "escobas"]),
    noun(Thing, ["mirror", "mirrors"], M, ["Spiegel", "Spiegel"], M, ["espejo", "espejos"]),
    noun(Thing, ["shirt", "shirts"], N, ["Hemd", "Hemden"], F, ["camisa", "camisas"]),
    noun(Thing, ["pencil", "pencils"], M, ["Stift", "Stifte"], M, ["lápiz", "lápices"]),
    noun(Thing, ["plate", "plates"], M, ["Teller", "Teller"], M, ["plato", "platos"]),
    noun(Thing, ["glove", "gloves"], M, ["Handschuh", "Handschuhe"], M, ["guante", "guantes"]),
    noun(Thing, ["pillow", "pillows"], N, ["Kissen", "Kissen"], F, ["almohada", "almohadas"]),
    // Animals.
    noun(Animal, ["dog", "dogs"], M, ["Hund", "Hunde"], M, ["perro", "perros"]),
    noun(Animal, ["cat", "cats"], F, ["Katze", "Katzen"], M, ["gato", "gatos"]),
    noun(Animal, ["horse", "horses"], N, ["Pferd", "Pferde"], M, ["caballo", "caballos"]),
    noun(Animal, ["bird", "birds"], M, ["Vogel", "Vögel"], M, ["pájaro", "pájaros"]),
    noun(Animal, ["cow", "cows"], F, ["Kuh", "Kühe"], F, ["vaca", "vacas"]),
    noun(Animal, ["goat", "goats"], F, ["Ziege", "Ziegen"], F, ["cabra", "cabras"]),
    noun(Animal, ["duck", "ducks"], F, ["Ente", "Enten"], M, ["pato", "patos"]),
    noun(Animal, ["mouse", "mice"], F, ["Maus", "Mäuse"], M, ["ratón", "ratones"]),
    noun(Animal, ["hen", "hens"], N, ["Huhn", "Hühner"], F, ["gallina", "gallinas"]),
    weak(noun(Animal, ["bear", "bears"], M, ["Bär", "Bären"], M, ["oso", "osos"])),
    stressed_a(noun(Animal, ["eagle", "eagles"], M, ["Adler", "Adler"], F, ["águila", "águilas"])),
    noun(Animal, ["fish", "fish"], M, ["Fisch", "Fische"], M, ["pez", "peces"]),
    // Reserved animals.
    noun(Animal, ["sheep", "sheep"], N, ["Schaf", "Schafe"], F, ["oveja", "ovejas"]),
    noun(Animal, ["pig", "pigs"], N, ["Schwein", "Schweine"], M, ["cerdo", "cerdos"]),
    noun(Animal, ["fox", "foxes"], M, ["Fuchs", "Füchse"], M, ["zorro", "zorros"]),
    weak(noun(Animal, ["hare", "hares"], M, ["Hase", "Hasen"], F, ["liebre", "liebres"])),
    noun(Animal, ["frog", "frogs"], M, ["Frosch", "Frösche"], F, ["rana", "ranas"]),
    noun(Animal, ["donkey", "donkeys"], M, ["Esel", "Esel"], M, ["burro", "burros"]),
    // Places; all go with "in" in the three languages.
    noun(Place, ["kitchen", "kitchens"], F, ["Küche", "Küchen"], F, ["cocina", "cocinas"]),
    noun(Place, ["garden", "gardens"], M, ["Garten", "Gärten"], M, ["jardín", "jardines"]),
    noun(Place, ["school", "schools"], F, ["Schule", "Schulen"], F, ["escuela", "escuelas"]),
    noun(Place, ["library", "libraries"], F, ["Bibliothek", "Bibliotheken"], F, ["biblioteca", "bibliotecas"]),
    noun(Place, ["cellar", "cellars"], M, ["Keller", "Keller"], M, ["sótano", "sótanos"]),
    noun(Place, ["church", "churches"], F, ["Kirche", "Kirchen"], F, ["iglesia", "iglesias"]),
    noun(Place, ["tower", "towers"], M, ["Turm", "Türme"], F, ["torre", "torres"]),
    noun(Place, ["museum", "museums"], N, ["Museum", "Museen"], M, ["museo", "museos"]),
    noun(Place, ["forest", "forests"], M, ["Wald", "Wälder"], M, ["bosque", "bosques"]),
    noun(Place, ["shop", "shops"], M, ["Laden", "Läden"], F, ["tienda", "tiendas"]),
    noun(Place, ["office", "offices"], N, ["Büro", "Büros"], F, ["oficina", "oficinas"]),
    noun(Place, ["hotel", "hotels"], N, ["Hotel", "Hotels"], M, ["hotel", "hoteles"]),
    noun(Place, ["theater", "theaters"], N, ["Theater", "Theater"], M, ["teatro", "teatros"]),
    noun(Place, ["park", "parks"], M, ["Park", "Parks"], M, ["parque", "parques"]),
    noun(Place, ["castle", "castles"], N, ["Schloss", "Schlösser"], M, ["castillo", "castillos"]),
    noun(Place, ["bakery", "bakeries"], F, ["Bäckerei", "Bäckereien"], F, ["panadería", "panaderías"]),
    // Reserved places.
    noun(Place, ["barn", "barns"], F, ["Scheune", "Scheunen"], M, ["granero", "graneros"]),
    noun(Place, ["hospital", "hospitals"], N, ["Krankenhaus", "Krankenhäuser"], M, ["hospital", "hospitales"]),
    noun(Place, ["factory", "factories"], F, ["Fabrik", "Fabriken"], F, ["fábrica", "fábricas"]),
    noun(Place, ["cave", "caves"], F, ["Höhle", "Höhlen"], F, ["cueva", "cuevas"]),
    noun(Place, ["bank", "banks"], F, ["Bank", "Banken"], M, ["banco", "bancos"]),
    noun(Place, ["village", "villages"], N, ["Dorf", "Dörfer"], M, ["pueblo", "pueblos"]),
    noun(Place, ["mill", "mills"], F, ["Mühle", "Mühlen"], M, ["molino", "molinos"]),
    noun(Place, ["stable", "stables"], M, ["Stall", "Ställe"], M, ["establo", "establos"]),
];

const fn adjective(en: &'static str, de: &'static str, es: [&'static str; 4]) -> AdjectiveEntry {
    AdjectiveEntry { en, de, es }
}

const N_COLORS: u8 = 8;
const N_QUALITIES: u8 = 8;

#[rustfmt::skip]
static ADJECTIVES: [AdjectiveEntry; 22] = [
    adjective("red", "rot", ["rojo", "roja", "rojos", "rojas"]),
    adjective("white", "weiß", ["blanco", "blanca", "blancos", "blancas"]),
    adjective("black", "schwarz", ["negro", "negra", "negros", "negras"]),
    adjective("brown", "braun", ["marrón", "marrón", "marrones", "marrones"]),
    adjective("blue", "blau", ["azul", "azul", "azules", "azules"]),
    adjective("green", "grün", ["verde", "verde", "verdes", "verdes"]),
    adjective("yellow", "gelb", ["amarillo", "amarilla", "amarillos", "amarillas"]),
    adjective("gray", "grau", ["gris", "gris", "grises", "grises"]),
    // Qualities; the first four also suit animals.
    adjective("big", "groß", ["grande", "grande", "grandes", "grandes"]),
    adjective("small", "klein", ["pequeño", "pequeña", "pequeños", "pequeñas"]),
    adjective("old", "alt", ["viejo", "vieja", "viejos", "viejas"]),
    adjective("beautiful", "schön", ["bonito", "bonita", "bonitos", "bonitas"]),
    adjective("new", "neu", ["nuevo", "nueva", "nuevos", "nuevas"]),
    adjective("heavy", "schwer", ["pesado", "pesada", "pesados", "pesadas"]),
    adjective("broken", "kaputt", ["roto", "rota", "rotos", "rotas"]),
    adjective("cheap", "billig", ["barato", "barata", "baratos", "baratas"]),
    // Moods of persons.
    adjective("tired", "müde", ["cansado", "cansada", "cansados", "cansadas"]),
    adjective("happy", "froh", ["contento", "contenta", "contentos", "contentas"]),
    adjective("sad", "traurig", ["triste", "triste", "tristes", "tristes"]),
    adjective("sick", "krank", ["enfermo", "enferma", "enfermos", "enfermas"]),
    adjective("hungry", "hungrig", ["hambriento", "hambrienta", "hambrientos", "hambrientas"]),
    adjective("alone", "allein", ["solo", "sola", "solos", "solas"]),
];

/// What a verb takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerbGroup {
    /// A thing or an animal: `took the ball`.
    Transitive,
    /// A person and a thing: `gave Ben the ball`.
    Ditransitive,
    /// A place to go to: `went to the kitchen`.
    Motion,
    /// Nothing, or the place where it happens: `slept in the garden`.
    Intransitive,
}

const fn verb(
    en: [&'static str; 3],
    de: [&'static str; 2],
    de_sein: bool,
    es: [&'static str; 4],
) -> VerbEntry {
    VerbEntry {
        en: en[1],
        en_forms: [en[0], en[2]],
        de: de[1],
        de_infinitive: de[0],
        de_sein,
        es: [es[1], es[2]],
        es_forms: [es[0], es[3]],
    }
}

#[rustfmt::skip]
static VERBS: [VerbEntry; 29] = [
    // Transitive. The first two change who has the object.
    verb(["take", "took", "taken"], ["nehmen", "genommen"], false, ["tomar", "tomó", "tomaron", "tomado"]),
    verb(["buy", "bought", "bought"], ["kaufen", "gekauft"], false, ["comprar", "compró", "compraron", "comprado"]),
    verb(["find", "found", "found"], ["finden", "gefunden"], false, ["encontrar", "encontró", "encontraron", "encontrado"]),
    verb(["lose", "lost", "lost"], ["verlieren", "verloren"], false, ["perder", "perdió", "perdieron", "perdido"]),
    verb(["see", "saw", "seen"], ["sehen", "gesehen"], false, ["ver", "vio", "vieron", "visto"]),
    verb(["hide", "hid", "hidden"], ["verstecken", "versteckt"], false, ["esconder", "escondió", "escondieron", "escondido"]),
    verb(["clean", "cleaned", "cleaned"], ["putzen", "geputzt"], false, ["limpiar", "limpió", "limpiaron", "limpiado"]),
    verb(["draw", "drew", "drawn"], ["zeichnen", "gezeichnet"], false, ["dibujar", "dibujó", "dibujaron", "dibujado"]),
    verb(["look for", "looked for", "looked for"], ["suchen", "gesucht"], false, ["buscar", "buscó", "buscaron", "buscado"]),
    // Reserved transitives.
    verb(["wash", "washed", "washed"], ["waschen", "gewaschen"], false, ["lavar", "lavó", "lavaron", "lavado"]),
    verb(["sell", "sold", "sold"], ["verkaufen", "verkauft"], false, ["vender", "vendió", "vendieron", "vendido"]),
    verb(["forget", "forgot", "forgotten"], ["vergessen", "vergessen"], false, ["olvidar", "olvidó", "olvidaron", "olvidado"]),
    // Ditransitive. The first two change who has the object.
    verb(["give", "gave", "given"], ["geben", "gegeben"], false, ["dar", "dio", "dieron", "dado"]),
    verb(["send", "sent", "sent"], ["schicken", "geschickt"], false, ["enviar", "envió", "enviaron", "enviado"]),
    verb(["show", "showed", "shown"], ["zeigen", "gezeigt"], false, ["mostrar", "mostró", "mostraron", "mostrado"]),
    // Reserved ditransitive.
    verb(["lend", "lent", "lent"], ["leihen", "geliehen"], false, ["prestar", "prestó", "prestaron", "prestado"]),
    // Motion.
    verb(["go", "went", "gone"], ["gehen", "gegangen"], true, ["ir", "fue", "fueron", "ido"]),
    verb(["run", "ran", "run"], ["laufen", "gelaufen"], true, ["correr", "corrió", "corrieron", "corrido"]),
    verb(["come", "came", "come"], ["kommen", "gekommen"], true, ["venir", "vino", "vinieron", "venido"]),
    // Reserved motion.
    verb(["hurry", "hurried", "hurried"], ["eilen", "geeilt"], true, ["acudir", "acudió", "acudieron", "acudido"]),
    // Intransitive.
    verb(["sleep", "slept", "slept"], ["schlafen", "geschlafen"], false, ["dormir", "durmió", "durmieron", "dormido"]),
    verb(["sing", "sang", "sung"], ["singen", "gesungen"], false, ["cantar", "cantó", "cantaron", "cantado"]),
    verb(["wait", "waited", "waited"], ["warten", "gewartet"], false, ["esperar", "esperó", "esperaron", "esperado"]),
    verb(["dance", "danced", "danced"], ["tanzen", "getanzt"], false, ["bailar", "bailó", "bailaron", "bailado"]),
    verb(["work", "worked", "worked"], ["arbeiten", "gearbeitet"], false, ["trabajar", "trabajó", "trabajaron", "trabajado"]),
    verb(["play", "played", "played"], ["spielen", "gespielt"], false, ["jugar", "jugó", "jugaron", "jugado"]),
    verb(["laugh", "laughed", "laughed"], ["lachen", "gelacht"], false, ["reír", "rio", "rieron", "reído"]),
    // Reserved intransitives.
    verb(["eat", "ate", "eaten"], ["essen", "gegessen"], false, ["comer", "comió", "comieron", "comido"]),
    verb(["cook", "cooked", "cooked"], ["kochen", "gekocht"], false, ["cocinar", "cocinó", "cocinaron", "cocinado"]),
];

const VERB_RANGES: [(VerbGroup, [std::ops::Range<u8>; 2]); 4] = [
    (VerbGroup::Transitive, [0..9, 9..12]),
    (VerbGroup::Ditransitive, [12..15, 15..16]),
    (VerbGroup::Motion, [16..19, 19..20]),
    (VerbGroup::Intransitive, [20..27, 27..29]),
];

const fn adverb(en: &'static str, de: &'static str, es: &'static str) -> AdverbEntry {
    AdverbEntry { forms: [en, de, es] }
}

#[rustfmt::skip]
static ADVERBS: [AdverbEntry; 32] = [
    // Times of the past; any event can have one.
    adverb("on Monday", "am Montag", "el lunes"), adverb("on Tuesday", "am Dienstag", "el martes"), adverb("on Wednesday", "am Mittwoch", "el miércoles"),
    adverb("on Thursday", "am Donnerstag", "el jueves"), adverb("on Friday", "am Freitag", "el viernes"), adverb("on Saturday", "am Samstag", "el sábado"),
    adverb("on Sunday", "am Sonntag", "el domingo"),
    adverb("in the morning", "am Morgen", "por la mañana"), adverb("in the evening", "am Abend", "por la noche"), adverb("at noon", "am Mittag", "al mediodía"),
    adverb("yesterday", "gestern", "ayer"), adverb("today", "heute", "hoy"), adverb("then", "dann", "luego"), adverb("later", "später", "más tarde"),
    // Hours.
    adverb("at one o'clock", "um ein Uhr", "a la una"), adverb("at two o'clock", "um zwei Uhr", "a las dos"), adverb("at three o'clock", "um drei Uhr", "a las tres"),
    adverb("at four o'clock", "um vier Uhr", "a las cuatro"), adverb("at five o'clock", "um fünf Uhr", "a las cinco"), adverb("at six o'clock", "um sechs Uhr", "a las seis"),
    adverb("at seven o'clock", "um sieben Uhr", "a las siete"), adverb("at eight o'clock", "um acht Uhr", "a las ocho"), adverb("at nine o'clock", "um neun Uhr", "a las nueve"),
    adverb("at ten o'clock", "um zehn Uhr", "a las diez"), adverb("at eleven o'clock", "um elf Uhr", "a las once"), adverb("at twelve o'clock", "um zwölf Uhr", "a las doce"),
    // Of states.
    adverb("now", "jetzt", "ahora"), adverb("earlier", "vorher", "antes"), adverb("at first", "zuerst", "al principio"),
    // Reserved.
    adverb("last night", "letzte Nacht", "anoche"), adverb("in summer", "im Sommer", "en verano"), adverb("in winter", "im Winter", "en invierno"),
];

/// The numerals from one to twelve: English, German, Spanish.
pub static NUMERALS: [[&str; 3]; 12] = [
    ["one", "ein", "una"],
    ["two", "zwei", "dos"],
    ["three", "drei", "tres"],
    ["four", "vier", "cuatro"],
    ["five", "fünf", "cinco"],
    ["six", "sechs", "seis"],
    ["seven", "sieben", "siete"],
    ["eight", "acht", "ocho"],
    ["nine", "neun", "nueve"],
    ["ten", "zehn", "diez"],
    ["eleven", "elf", "once"],
    ["twelve", "zwölf", "doce"],
];

/// Which part of the lexicon to draw from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// The words of training items.
    Open,
    /// The words held for the evaluation domain `texts`.
    Reserved,
    /// All words: the plain text of language model pre-training.
    All,
}

impl Pool {
    fn ids<T>(self, [open, reserved]: &[std::ops::Range<u8>; 2], make: fn(u8) -> T) -> Vec<T> {
        let range = match self {
            Self::Open => open.clone(),
            Self::Reserved => reserved.clone(),
            Self::All => open.start..reserved.end,
        };
        range.map(make).collect()
    }
}

/// The words of one pool, by what they can do.
#[derive(Debug)]
pub struct Words {
    /// Persons.
    pub persons: Vec<Person>,
    /// Things.
    pub things: Vec<Noun>,
    /// Animals.
    pub animals: Vec<Noun>,
    /// Places.
    pub places: Vec<Noun>,
    /// Colors (the same in every pool).
    pub colors: Vec<Adjective>,
    /// Other qualities of things (the same in every pool).
    pub qualities: Vec<Adjective>,
    /// Moods of persons (the same in every pool).
    pub moods: Vec<Adjective>,
    /// Transitive verbs.
    pub transitive: Vec<Verb>,
    /// Ditransitive verbs.
    pub ditransitive: Vec<Verb>,
    /// Verbs of motion.
    pub motion: Vec<Verb>,
    /// Intransitive verbs.
    pub intransitive: Vec<Verb>,
    /// Adverbials of time for events.
    pub times: Vec<Adverb>,
    /// The hours from one to twelve (the same in every pool).
    pub hours: Vec<Adverb>,
}

impl Words {
    /// The words of `pool`.
    pub fn new(pool: Pool) -> Self {
        let verbs = |group: VerbGroup| {
            let (_, ranges) =
                VERB_RANGES.iter().find(|(g, _)| *g == group).expect("every group has its range");
            pool.ids(ranges, Verb)
        };
        let persons =
            [0..FIRST_RESERVED_PERSON as u8, FIRST_RESERVED_PERSON as u8..PERSONS.len() as u8];
        let times = match pool {
            Pool::Open => (0..14).map(Adverb).collect(),
            Pool::Reserved => (29..32).map(Adverb).collect(),
            Pool::All => (0..14).chain(29..32).map(Adverb).collect(),
        };
        Self {
            persons: pool.ids(&persons, Person),
            things: pool.ids(&THINGS, Noun),
            animals: pool.ids(&ANIMALS, Noun),
            places: pool.ids(&PLACES, Noun),
            colors: (0..N_COLORS).map(Adjective).collect(),
            qualities: (N_COLORS..N_COLORS + N_QUALITIES).map(Adjective).collect(),
            moods: (N_COLORS + N_QUALITIES..ADJECTIVES.len() as u8).map(Adjective).collect(),
            transitive: verbs(VerbGroup::Transitive),
            ditransitive: verbs(VerbGroup::Ditransitive),
            motion: verbs(VerbGroup::Motion),
            intransitive: verbs(VerbGroup::Intransitive),
            times,
            hours: (14..26).map(Adverb).collect(),
        }
    }
}

impl Verb {
    /// What the verb takes.
    pub fn group(self) -> VerbGroup {
        VERB_RANGES
            .iter()
            .find(|(_, [open, reserved])| (open.start..reserved.end).contains(&self.0))
            .map_or(VerbGroup::Intransitive, |(group, _)| *group)
    }

    /// The subject of a transitive verb, or the receiver of a ditransitive one, has the object afterwards.
    pub fn transfers(self) -> bool {
        matches!(self.0, 0 | 1 | 12 | 13 | 15)
    }
}

impl Adverb {
    /// "now".
    pub const NOW: Self = Self(26);
    /// "earlier".
    pub const EARLIER: Self = Self(27);
    /// "at first".
    pub const AT_FIRST: Self = Self(28);

    /// "later".
    pub const LATER: Self = Self(13);
    /// "then".
    pub const THEN: Self = Self(12);
    /// "last night".
    pub const LAST_NIGHT: Self = Self(29);

    /// "at three o'clock", for 1 to 12.
    pub fn hour(hour: u8) -> Self {
        Self(13 + hour.clamp(1, 12))
    }

    /// The hour that it names.
    pub fn as_hour(self) -> Option<u8> {
        (14..26).contains(&self.0).then(|| self.0 - 13)
    }

    /// Says that a state held before the story's events.
    pub fn is_before(self) -> bool {
        [Self::EARLIER, Self::AT_FIRST, Self::LAST_NIGHT].contains(&self)
    }
}

impl Adjective {
    /// Whether it is a color.
    pub fn is_color(self) -> bool {
        self.0 < N_COLORS
    }

    /// Whether it is a mood of persons.
    pub fn is_mood(self) -> bool {
        self.0 >= N_COLORS + N_QUALITIES
    }
}

impl Noun {
    /// The noun whose English singular is `word`.
    pub fn from_english(word: &str) -> Option<Self> {
        Self::all().find(|noun| noun.entry().en[0] == word)
    }

    /// Whether it is held for the evaluation domain `texts`.
    pub fn is_reserved(self) -> bool {
        [&THINGS[1], &ANIMALS[1], &PLACES[1]].iter().any(|range| range.contains(&self.0))
    }
}

impl Person {
    /// The person called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|person| person.entry().name == name)
    }

    /// Whether the name is held for the evaluation domain `texts`.
    pub fn is_reserved(self) -> bool {
        self.index() >= FIRST_RESERVED_PERSON
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ranges_hold_the_kinds_they_name() {
        let words = Words::new(Pool::All);
        assert!(words.things.iter().all(|noun| noun.entry().kind == Kind::Thing));
        assert!(words.animals.iter().all(|noun| noun.entry().kind == Kind::Animal));
        assert!(words.places.iter().all(|noun| noun.entry().kind == Kind::Place));
        assert_eq!(words.things.len() + words.animals.len() + words.places.len(), NOUNS.len());
        assert_eq!(words.persons.len(), PERSONS.len());
        let verbs = words.transitive.len()
            + words.ditransitive.len()
            + words.motion.len()
            + words.intransitive.len();
        assert_eq!(verbs, VERBS.len());
        assert!(words.hours.iter().all(|hour| hour.entry().forms[0].ends_with("o'clock")));
        assert_eq!(Adverb::EARLIER.entry().forms[0], "earlier");
    }

    #[test]
    fn pools_of_training_and_texts_share_no_entity() {
        let (open, reserved) = (Words::new(Pool::Open), Words::new(Pool::Reserved));
        assert!(
            open.persons
                .iter()
                .all(|person| !reserved.persons.contains(person) && !person.is_reserved())
        );
        for (a, b) in [
            (&open.things, &reserved.things),
            (&open.animals, &reserved.animals),
            (&open.places, &reserved.places),
        ] {
            assert!(a.iter().all(|noun| !b.contains(noun) && !noun.is_reserved()));
            assert!(b.iter().all(|noun| noun.is_reserved()));
        }
    }

    #[test]
    fn words_are_unambiguous_in_english() {
        let mut seen = HashSet::new();
        for verb in Verb::all() {
            assert!(seen.insert(verb.entry().en), "{}", verb.entry().en);
        }
        for noun in Noun::all() {
            assert!(seen.insert(noun.entry().en[0]), "{}", noun.entry().en[0]);
        }
        for adjective in Adjective::all() {
            assert!(seen.insert(adjective.entry().en), "{}", adjective.entry().en);
        }
    }
}
