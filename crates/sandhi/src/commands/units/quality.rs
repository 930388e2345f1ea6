//! `sandhi units quality`: what units tell of phones.
//!
//! ```text
//! Microworld's sentences ─ espeak-ng ─┬─ sound ─ frames ─ nearest centers ─ units ──┬─ a table a domain
//!                                     └─ phonemes, exact times ─ at every middle ───┘
//! ```

use std::path::PathBuf;

use anyhow::ensure;
use sandhi_data::{
    language::Language,
    microworld::{Item, Microworld, Style, Task},
    speech::{Domain, Request, Speech, Studio},
};
use sandhi_lab::{
    sources::{Spoken, WORLD_SEED},
    units::{Front, Kmeans, Quality, labels_at, quality},
};
use serde::Serialize;

use super::{FrontArgs, bar, frames_of, none_heard, quantizer};
use crate::{
    commands::{
        data::{SplitArg, domain, language},
        failures::Failures,
    },
    output,
};

/// Arguments of `sandhi units quality`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    front: FrontArgs,
    /// Centers of clusters, as for `sandhi units`.
    #[arg(long, value_name = "FILE")]
    kmeans: PathBuf,
    /// Domains: wild, base, voices, tempo, channel.
    #[arg(long, value_delimiter = ',', value_parser = domain, default_value = "base")]
    domains: Vec<Domain>,
    /// Languages that are spoken: en, de, es. Phones of one name are one phone.
    #[arg(long, value_delimiter = ',', value_parser = language, default_value = "en")]
    languages: Vec<Language>,
    /// Part of the corpus.
    #[arg(long, value_enum, default_value = "dev")]
    split: SplitArg,
    /// Sentences of each domain and language.
    #[arg(short, value_name = "ITEMS", default_value_t = 200)]
    n: usize,
    /// Leave out frames in which no phone is said; otherwise silence is a phone.
    #[arg(long)]
    speech_only: bool,
    /// Ask for the phone so many milliseconds after the middle of a frame, before it where this is negative. An encoder's
    /// frames are taken to lie side by side from the start of the sound, as they do for words; where in its stretch a
    /// frame is about differs between encoders.
    #[arg(long, value_name = "MS", default_value_t = 0.0, allow_negative_numbers = true)]
    shift_ms: f64,
    /// Folder of speech that is kept between runs.
    #[arg(long, value_name = "DIR", default_value = "cache")]
    cache: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// No progress bar.
    #[arg(long)]
    quiet: bool,
}

/// What stands for the phone of a frame without one.
const SILENCE: &str = "";
/// Texts that are spoken at once.
const CHUNK: usize = 64;

/// A row of the table.
#[derive(Debug, Serialize)]
struct Row {
    domain: Domain,
    n_utterances: usize,
    n_failed: usize,
    /// Share of the frames in which no phone is said, also where these are left out.
    silence: f64,
    #[serde(flatten)]
    quality: Quality,
}

/// Speaks, hears and measures.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    ensure!(args.n > 0, "-n is 0, expected at least 1 sentence");
    let shift_ms = args.shift_ms;
    ensure!(
        (-1e3..=1e3).contains(&shift_ms),
        "--shift-ms is {shift_ms}, expected -1,000 to 1,000 milliseconds"
    );
    let (front, kmeans) = quantizer(args.front, &args.kmeans)?;
    let world = Microworld::new(WORLD_SEED);
    let said: Vec<Item> = args
        .languages
        .iter()
        .flat_map(|&language| {
            world.items(Task::Transcribe, language, args.split.into(), Style::Seen, args.n)
        })
        .collect();
    let studio = Studio::open(Some(&args.cache))?;
    let hearing = bar(said.len() * args.domains.len(), "hearing", args.quiet)?;
    let mut rows = Vec::new();
    for &domain in &args.domains {
        let mut failures = Failures::default();
        let (mut phones, mut units): (Vec<String>, Vec<u32>) = (Vec::new(), Vec::new());
        for items in said.chunks(CHUNK) {
            let requests: Vec<Request> = items.iter().map(|item| request(item, domain)).collect();
            for (item, speech) in items.iter().zip(studio.speak_many(&requests)?) {
                match labeled(&front, &kmeans, &speech, shift_ms / 1e3) {
                    Ok((new_phones, new_units)) => {
                        phones.extend(new_phones);
                        units.extend(new_units);
                    }
                    Err(why) => failures.add(&hearing, &item.id, &why),
                }
                hearing.inc(1);
            }
        }
        failures.tell_rest();
        let n_silent = phones.iter().filter(|phone| *phone == SILENCE).count();
        let silence = n_silent as f64 / phones.len().max(1) as f64;
        let (phones, units): (Vec<&str>, Vec<u32>) = phones
            .iter()
            .map(String::as_str)
            .zip(units)
            .filter(|(phone, _)| !args.speech_only || *phone != SILENCE)
            .unzip();
        let quality = quality(&phones, &units).ok_or_else(|| none_heard(&failures, said.len()))?;
        let (n_utterances, n_failed) = (said.len() - failures.len(), failures.len());
        rows.push(Row { domain, n_utterances, n_failed, silence, quality });
    }
    hearing.finish_and_clear();
    if args.json { output::print_json(&rows) } else { output::print(&table(&rows, &kmeans)) }
}

/// What is asked of the studio: what recipes ask for too, so that they share a cache.
fn request(item: &Item, domain: Domain) -> Request {
    Request {
        text: item.spoken.clone(),
        language: item.spoken_language,
        domain,
        seed: Spoken::take_of(&item.spoken),
        voice: None,
    }
}

/// Phone and unit of every frame.
fn labeled(
    front: &Front,
    kmeans: &Kmeans,
    speech: &Speech,
    shift_s: f64,
) -> anyhow::Result<(Vec<String>, Vec<u32>)> {
    let units = kmeans.assign(&frames_of(front, &speech.waveform)?);
    let middles_s = (0..units.len()).map(|frame| front.middle_s(frame) + shift_s);
    let phones = labels_at(&speech.phonemes, middles_s, SILENCE);
    Ok((phones.into_iter().map(str::to_owned).collect(), units))
}

/// A line a domain.
fn table(rows: &[Row], kmeans: &Kmeans) -> String {
    let mut lines = vec![format!(
        "{:<9}{:>10}{:>9}{:>8}{:>7}{:>12}{:>14}{:>13}{:>8}",
        "domain",
        "frames",
        "silent",
        "phones",
        "units",
        "perplexity",
        "phone purity",
        "unit purity",
        "PNMI"
    )];
    lines.extend(rows.iter().map(|Row { domain, silence, quality, .. }| {
        format!(
            "{:<9}{:>10}{:>9.1}{:>8}{:>7}{:>12.1}{:>14.1}{:>13.1}{:>8}",
            domain.name(),
            quality.n_frames,
            100.0 * silence,
            quality.n_phones,
            quality.n_units,
            quality.unit_perplexity,
            100.0 * quality.phone_purity,
            100.0 * quality.unit_purity,
            quality.pnmi.map_or_else(|| "-".to_owned(), |pnmi| format!("{pnmi:.3}"))
        )
    }));
    lines.push(format!(
        "\nof {} units those that are used; silent: % of the frames without a phone; purities in %, of the phones that \
         units stand for and of the units that phones do",
        kmeans.n_clusters()
    ));
    lines.join("\n")
}
