"""Scores and normalized texts that the tests of `sandhi_data::score` compare with.

    pip install jiwer==4.0.0 sacrebleu==2.6.0 whisper-normalizer==0.1.15
    python tools/golden/scores.py > crates/sandhi-data/tests/golden/scores.json

Texts are random: sentences with words changed, dropped and added; digits, currencies and number
words; and strings of characters that tokenizers stumble over. The seed is fixed.
"""

import json
import random
import sys

import jiwer
import sacrebleu
import whisper_normalizer
from importlib.metadata import version
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

WORDS = (
    "the cat sat on a mat and Anna's dog walked to the mill in 1999 with 3.5 km of rope, "
    "don't you think? \"Yes,\" she said: it's $20.50 (about £15) -- well-known U.S. facts; "
    "die Straße führt über den Fluß nach Köln, ¿dónde está José? naïve café façade 東京 へ 行く "
    "Ελλάδα και ΟΔΟΣ Москва שלום سلام हिन्दी 한국어 e-mail 10-day 1,234,567 50% #tag @home C++ &amp; "
    "&quot;q&quot; <skipped> 👍🏽 ﬁne ½ x² … – — ’tis İstanbul"
).split()

NASTY = list(
    " \t\u00a0\u3000\u2028\x1c\x1f\x85\u200b.,;:!?'\"-_()[]<>{}/\\|@#$%^&*+=~`0123456789"
    "aAbBzZéÉßñøØæłðÞœŒẞıİſΣσςάЖжאبप्िक्が漢字한글ﬁ²½Ⅷ٣５％€£¢¥©™→∑♥👍🏽\u0301\u0308\u20dd\u0903’‘“”…–—¿¡«»"
)

NUMBERS = (
    "zero oh o one two three four five six seven eight nine ten eleven twelve thirteen nineteen "
    "twenty thirty forty ninety hundred thousand million billion decillion first second third fifth "
    "twelfth fourth twentieth thirtieth hundredth thousandth millionths ones twos sixes twenties "
    "hundreds thousands minus negative plus positive pound pounds euro euros dollar dollars cent "
    "cents per percent and double triple point a half 0 1 5 10 20 100 1000 3.5 0.25 1.0 007 $3 £20 "
    "€1.50 ¢7 $ 5% 60s 4th 1st 1s 2,000 12:30 192.168.0.1 and a half"
).split() + ["and a half"]

SENTENCES = [
    "Mr. Smith won't pay twenty five dollars and seven cents, he's gone home.",
    "She'd been to St. Mary's; y'all can't say I'm wrong, let's see what they've got",
    "hmm, uh the colour of the grey theatre's programme um mm is organised",
    "[laughter] (inaudible) <noise> that cost two million three hundred thousand euros",
    "It is one oh one, nineteen ninety nine, and the nineteen eighties or the 1980's",
    "two and a half million people, three and a half, and a half of it and a half",
    "call five five five double oh triple seven at ten past nine on the twenty first of may",
    "minus five degrees, plus ten percent, positive thinking, five per cent, five per day",
    "$2 and 7 cents, $0.05, £1,234.50 and €3, ¢5, 50 ¢",
    "one hundred and one thousand and two, a thousand million, one one one",
    "Dr. Who isn't a prof. or rev. but capt. col. lt. gen. sen. gov. rep. jr. sr. esq.",
    "I'ma go 'cause imma coulda woulda shoulda gonna gotta wanna kinda sorta dunno",
    "the café in Zürich isn't naïve, Þór Łódź œuvre Ærø ẞ ß",
    "three point one four one five nine, point five, one point two million",
    "in 2,500,000 B.C. version 1.2.3 at 10.30 p.m. 100.0 007 12th 3rd 1st",
    "zero hundred, oh hundred, zero point five thousand, 0 thousand, 0.5 thousand",
    "twenty twenty one, twenty hundred ten, thirty first, ninety ninth, hundred first",
    "", " ", "'", "one", "1", "(", "((a) b)", "<a [b> c]", "((()))", "a.b.c.", "'s been", "n't",
    "½ cup ² ５％ ٣ apples ١٢٣ Ⅷ", "$", "$$5", "5$", "%%", "5 %", ".5", "5.", "..", "1.a",
]


def sentence(rng):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(0, 14)))


def spoil(rng, text):
    """A hypothesis: words of the reference changed, dropped, doubled, moved."""
    out = []
    for word in text.split(" "):
        match rng.randint(0, 11):
            case 0:
                out.append(rng.choice(WORDS))
            case 1:
                pass
            case 2:
                out += [word, rng.choice(WORDS)]
            case 3:
                out.append(word.swapcase() + rng.choice(NASTY))
            case _:
                out.append(word)
    if rng.randint(0, 4) == 0:
        rng.shuffle(out)
    return rng.choice([" ", " ", " ", "  ", "\t"]).join(out)


def nasty(rng, most):
    return "".join(rng.choice(NASTY) for _ in range(rng.randint(0, most)))


def corpus(rng, kind):
    n = rng.randint(1, 5)
    if kind == "nasty":
        # Two draws of few characters have something in common.
        pairs = []
        for _ in range(n):
            few = rng.sample(NASTY, 6)
            draw = lambda: "".join(rng.choice(few) for _ in range(rng.randint(0, 40)))
            pairs.append((draw(), draw()))
        return pairs
    if kind == "long":
        words = [str(i) for i in range(20)]
        draw = lambda n: " ".join(rng.choice(words) for _ in range(n))
        return [(draw(rng.randint(60, 150)), draw(rng.randint(60, 150)))]
    refs = [sentence(rng) for _ in range(n)]
    return [(ref, "" if rng.randint(0, 9) == 0 else spoil(rng, ref)) for ref in refs]


def rounded(value):
    return round(float(value), 9)


def counts(out):
    return [out.hits, out.substitutions, out.deletions, out.insertions]


BLEU = {
    "13a": {},
    "intl": {"tokenize": "intl"},
    "char": {"tokenize": "char"},
    "none": {"tokenize": "none"},
    "lc": {"lowercase": True},
    "floor": {"smooth_method": "floor"},
    "add-k": {"smooth_method": "add-k"},
    "unsmoothed": {"smooth_method": "none"},
    "effective": {"effective_order": True},
}

CHRF = {
    "chrF2": {},
    "chrF2++": {"word_order": 2},
    "lc": {"lowercase": True},
    "space": {"whitespace": True},
    "eps": {"eps_smoothing": True, "word_order": 1},
    "beta3": {"beta": 3, "char_order": 4},
}


def scored(pairs):
    refs, hyps = [r for r, _ in pairs], [h for _, h in pairs]
    words, characters = jiwer.process_words(refs, hyps), jiwer.process_characters(refs, hyps)
    case = {
        "refs": refs,
        "hyps": hyps,
        "wer": [rounded(words.wer), *counts(words)],
        "cer": [rounded(characters.cer), *counts(characters)],
        "bleu": {},
        "chrf": {},
    }
    for name, options in BLEU.items():
        metric = sacrebleu.BLEU(force=True, **options)
        case["bleu"][name] = rounded(metric.corpus_score(hyps, [refs]).score)
        signatures["bleu"][name] = str(metric.get_signature())
    for name, options in CHRF.items():
        metric = sacrebleu.CHRF(**options)
        case["chrf"][name] = rounded(metric.corpus_score(hyps, [refs]).score)
        signatures["chrf"][name] = str(metric.get_signature())
    return case


signatures = {"bleu": {}, "chrf": {}}
rng = random.Random(20250101)
kinds = ["words"] * 90 + ["nasty"] * 70 + ["long"] * 10
scores = [scored(corpus(rng, kind)) for kind in kinds]
scores += [scored(pairs) for pairs in [[("", "")], [("", "a b")], [("a b", "")], [(" \t", "\n")]]]

texts = list(SENTENCES)
texts += [sentence(rng) for _ in range(60)]
texts += [nasty(rng, 30) for _ in range(120)]
texts += [" ".join(rng.choice(NUMBERS) for _ in range(rng.randint(1, 7))) for _ in range(350)]
texts += [
    "".join(rng.choice(NUMBERS) + rng.choice([" ", " ", ", ", "-", "", ". "]) for _ in range(6))
    for _ in range(60)
]
basic, plain = BasicTextNormalizer(), BasicTextNormalizer(remove_diacritics=True)
letters, english = BasicTextNormalizer(split_letters=True), EnglishTextNormalizer()


def english_or_null(text):
    try:
        return english(text)
    except (AssertionError, ValueError, AttributeError, IndexError) as error:
        print(f"no English form of {text!r}: {error!r}", file=sys.stderr)
        return None


normalized = [
    [text, basic(text), plain(text), letters(text), english_or_null(text)] for text in texts
]

versions = {
    "python": sys.version.split()[0],
    **{name: version(name) for name in ["jiwer", "rapidfuzz", "sacrebleu", "whisper_normalizer"]},
}
golden = {"versions": versions, "signatures": signatures, "scores": scores, "normalized": normalized}
lines = ["{"]
lines.append(f' "versions": {json.dumps(versions)},')
lines.append(f' "signatures": {json.dumps(signatures)},')
for key, last in [("scores", ","), ("normalized", "")]:
    rows = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in golden[key])
    lines.append(f' "{key}": [\n{rows}\n ]{last}')
lines.append("}")
print("\n".join(lines))
