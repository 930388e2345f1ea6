//! The extractors against their references, and their edges.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

use super::*;

/// A file of `tests/golden/features/`, made by `tools/golden/features.py`.
struct Golden(Vec<u8>);

impl Golden {
    fn load(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/features").join(name);
        Self(std::fs::read(path).unwrap())
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = tensors.tensor(name).unwrap().data().chunks_exact(4);
    bytes.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn frames(tensors: &SafeTensors<'_>, name: &str) -> Vec<i32> {
    let bytes = tensors.tensor(name).unwrap().data().chunks_exact(4);
    bytes.map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn whisper(n_mels: usize, pad_to_30_s: bool) -> FeatureConfig {
    FeatureConfig::Whisper(WhisperConfig { n_mels, pad_to_30_s })
}

fn fbank(change: impl FnOnce(&mut FbankConfig)) -> FeatureConfig {
    let mut config = FbankConfig::default();
    change(&mut config);
    FeatureConfig::Fbank(config)
}

/// The configuration that a golden tensor's suffix stands for, and its tolerance.
fn reference(suffix: &str) -> (FeatureConfig, f32) {
    match suffix {
        "whisper80" => (whisper(80, false), 1e-4),
        "whisper128" => (whisper(128, false), 1e-4),
        "padded80" => (whisper(80, true), 1e-4),
        "fbank" | "fbank80" => (fbank(|_| {}), 1e-3),
        "fbank_scaled" => (fbank(|c| c.scale = 32_768.0), 1e-3),
        "fbank_hamming" => {
            let change = |c: &mut FbankConfig| {
                *c = FbankConfig {
                    n_mels: 23,
                    low_hz: 60.0,
                    high_hz: 7_600.0,
                    preemphasis: 0.9,
                    remove_dc: false,
                    snip_edges: true,
                    window: FbankWindow::Hamming,
                    scale: 1.0,
                };
            };
            (fbank(change), 1e-3)
        }
        "fbank_mirrored" => {
            let change = |c: &mut FbankConfig| {
                c.n_mels = 40;
                c.snip_edges = false;
                c.window = FbankWindow::Hann;
            };
            (fbank(change), 1e-3)
        }
        _ => panic!("golden tensor with an unknown suffix {suffix}"),
    }
}

/// Compares the listed frames (all, if there is no list) and returns the largest difference.
fn compare(features: &Features, expected: &[f32], listed: Option<&[i32]>) -> f32 {
    let all: Vec<i32> = (0..features.n_frames as i32).collect();
    let listed = listed.unwrap_or(&all);
    assert_eq!(expected.len(), listed.len() * features.n_mels, "number of frames");
    listed
        .iter()
        .zip(expected.chunks_exact(features.n_mels))
        .flat_map(|(&i, expected)| features.frame(i as usize).iter().zip(expected))
        .fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}

#[test]
fn synthetic_inputs_match_the_references() {
    let golden = Golden::load("synthetic.safetensors");
    let tensors = golden.tensors();
    let padded = frames(&tensors, "padded.frames");
    let mut n_compared = 0;
    for name in tensors.names() {
        let (input, suffix) = name.rsplit_once('.').unwrap();
        if matches!(suffix, "in" | "frames") {
            continue;
        }
        let (config, tolerance) = reference(suffix);
        let samples = floats(&tensors, &format!("{input}.in"));
        let features = FeatureExtractor::new(&config).unwrap().compute(&samples).unwrap();
        let listed = (suffix == "padded80").then_some(padded.as_slice());
        let worst = compare(&features, &floats(&tensors, name), listed);
        println!("{name:32} {worst:.2e}");
        assert!(worst <= tolerance, "{name}: {worst:e} > {tolerance:e}");
        n_compared += 1;
    }
    assert!(n_compared > 50, "{n_compared} tensors compared");
}

/// Recordings that are not part of this repository.
fn test_data() -> Option<PathBuf> {
    let folder = std::env::var_os("SANDHI_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    if !folder.is_dir() {
        eprintln!("skipped: no recordings in {} (SANDHI_TEST_DATA)", folder.display());
        return None;
    }
    Some(folder)
}

#[test]
fn recordings_match_the_references() {
    let Some(data) = test_data() else { return };
    let golden = Golden::load("clips.safetensors");
    let tensors = golden.tensors();
    for name in tensors.names() {
        let Some((path, suffix)) = name.rsplit_once('.').filter(|(_, s)| *s != "frames") else {
            continue;
        };
        let wave = crate::audio::Waveform::read(&data.join(path)).unwrap();
        let (config, tolerance) = reference(suffix);
        let features = FeatureExtractor::new(&config).unwrap().compute(&wave.samples).unwrap();
        let listed = frames(&tensors, &format!("{path}.frames"));
        let worst = compare(&features, &floats(&tensors, name), Some(&listed));
        println!("{name} {worst:.2e}");
        assert!(worst <= tolerance, "{name}: {worst:e} > {tolerance:e}");
    }
}

#[test]
fn the_mel_bank_is_the_one_that_whisper_publishes() {
    let golden = Golden::load("clips.safetensors");
    for n_mels in [80, 128] {
        let mut expected = vec![0.0; n_mels * 201];
        for entry in floats(&golden.tensors(), &format!("mel_{n_mels}")).chunks_exact(3) {
            expected[entry[0] as usize * 201 + entry[1] as usize] = entry[2];
        }
        let bank = mel::MelBank::slaney(n_mels, 201, 8_000.0).dense();
        assert_eq!(bank.len(), expected.len());
        let worst = bank.iter().zip(&expected).fold(0.0_f32, |w, (a, b)| w.max((a - b).abs()));
        assert!(worst < 1e-8, "{n_mels}: {worst:e}");
    }
}

#[test]
fn frame_counts_are_known_before_computing() {
    for config in
        [whisper(80, false), whisper(80, true), fbank(|_| {}), fbank(|c| c.snip_edges = false)]
    {
        let extractor = FeatureExtractor::new(&config).unwrap();
        for n_samples in (0..2_000).step_by(7).chain([1, 79, 80, 159, 160, 161, 399, 400, 480_000])
        {
            let samples = vec![0.1; n_samples];
            let computed = extractor.compute(&samples).map(|f| f.n_frames);
            assert_eq!(computed, extractor.n_frames(n_samples), "{config:?} {n_samples}");
        }
    }
}

#[test]
fn what_is_too_short_or_too_long_says_so() {
    let error = |config: &FeatureConfig, samples: &[f32]| {
        FeatureExtractor::new(config).unwrap().compute(samples).unwrap_err().to_string()
    };
    let natural = whisper(80, false);
    assert_eq!(error(&natural, &[]), "found no samples, expected at least one");
    assert_eq!(error(&natural, &[0.5]), "found 1 samples, expected at least 160 for one frame");
    assert_eq!(
        error(&whisper(80, true), &vec![0.0; 480_001]),
        "found 480001 samples, expected at most 480000 for features padded to 30 s"
    );
    assert_eq!(
        error(&fbank(|_| {}), &[0.5; 399]),
        "found 399 samples, expected at least 400 for one frame"
    );
    assert_eq!(error(&natural, &[0.0, f32::NAN]), "sample 1 is NaN, expected a finite number");
    // One sample is enough where silence follows.
    assert_eq!(
        FeatureExtractor::new(&whisper(80, true)).unwrap().compute(&[0.5]).unwrap().n_frames,
        3_000
    );
}

#[test]
fn a_batch_is_its_utterances_one_by_one() {
    let extractor = FeatureExtractor::new(&whisper(80, false)).unwrap();
    let utterances: Vec<Vec<f32>> = (0..9)
        .map(|k| (0..k * 700).map(|i| (i as f32 * 0.05 * k as f32).sin()).collect())
        .collect();
    let batch = extractor.compute_batch(&utterances);
    for (features, samples) in batch.iter().zip(&utterances) {
        assert_eq!(features, &extractor.compute(samples));
    }
    assert_eq!(batch[0], Err(Error::NoSamples));
}

#[test]
fn configurations_are_read_by_kind_and_refuse_what_they_do_not_know() {
    let parse = |text: &str| serde_json::from_str::<FeatureConfig>(text).map_err(|e| e.to_string());
    assert_eq!(parse(r#"{"kind": "whisper", "n_mels": 128}"#), Ok(whisper(128, false)));
    assert_eq!(parse(r#"{"kind": "fbank"}"#), Ok(fbank(|_| {})));
    assert!(
        parse(r#"{"kind": "whisper", "n_mel": 80}"#).unwrap_err().contains("unknown field `n_mel`")
    );
    assert!(parse(r#"{"kind": "mfcc"}"#).unwrap_err().contains("unknown variant `mfcc`"));
    assert!(parse(r#"{"n_mels": 80}"#).unwrap_err().contains("missing field `kind`"));
}

#[test]
fn npy_files_are_mel_by_frame() {
    let features = Features { values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], n_frames: 2, n_mels: 3 };
    let npy = npyz::NpyFile::new(features.to_npy().unwrap().as_slice())
        .map(|npy| (npy.shape().to_vec(), npy.into_vec::<f32>().unwrap()))
        .unwrap();
    assert_eq!(npy, (vec![3, 2], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
}
