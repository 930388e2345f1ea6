//! Compressed formats: files that libsndfile wrote (`tools/golden/audio.py`), whole, cut and damaged.

use std::{f64::consts::TAU, path::Path};

use super::*;

/// Every file holds this many samples at 16 kHz.
const N: usize = 8_001;

fn bytes(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/audio");
    std::fs::read(folder.join(name)).unwrap()
}

/// What was written: two tones whose level rises.
fn original() -> Vec<f64> {
    let tone = |i: usize, hz: f64| (TAU * hz * i as f64 / 16_000.0).sin();
    (0..N).map(|i| 0.5 * i as f64 / N as f64 * (tone(i, 440.0) + 0.5 * tone(i, 1_230.0))).collect()
}

/// Largest and root mean square difference from what was written.
fn distance(samples: &[f32]) -> (f64, f64) {
    assert_eq!(samples.len(), N);
    let (mut largest, mut sum) = (0.0_f64, 0.0);
    for (a, b) in samples.iter().zip(original()) {
        let d = (f64::from(*a) - b).abs();
        largest = largest.max(d);
        sum += d * d;
    }
    (largest, (sum / N as f64).sqrt())
}

const LOSSLESS: [(&str, f64); 4] = [
    // Half a step of 16 and 24 bits; μ-law's steps near its maximum are 1/32.
    ("mono16.flac", 0.51 / 32_768.0),
    ("stereo24.flac", 1.1 / 8_388_608.0),
    ("extensible24.wav", 1.1 / 8_388_608.0),
    ("mulaw.wav", 1.0 / 64.0),
];
const LOSSY: [&str; 4] = ["mono.mp3", "stereo.mp3", "mono.ogg", "stereo.ogg"];

fn all() -> impl Iterator<Item = &'static str> {
    LOSSLESS.iter().map(|(name, _)| *name).chain(LOSSY)
}

#[test]
fn every_format_decodes_to_what_was_written() {
    for (name, tolerance) in LOSSLESS {
        let (largest, _) = distance(&Waveform::decode(bytes(name), name).unwrap().samples);
        assert!(largest <= tolerance, "{name}: {largest:e}");
    }
    for name in LOSSY {
        // The level's root mean square is 0.5 / sqrt(3) * sqrt(5 / 8) = 0.23. A shift by one sample
        // would be off by 0.05: an encoder's delay that is not removed shows.
        let (_, rms) = distance(&Waveform::decode(bytes(name), name).unwrap().samples);
        assert!(rms < 0.012, "{name}: {rms:e}");
    }
}

#[test]
fn headers_are_probed() {
    let directory = tempfile::tempdir().unwrap();
    for (name, format) in [("mono16.flac", "flac"), ("stereo.mp3", "mp3"), ("stereo.ogg", "ogg")] {
        // The extension says nothing.
        let path = directory.path().join(format!("{name}.wav"));
        std::fs::write(&path, bytes(name)).unwrap();
        let info = probe(&path).unwrap();
        assert_eq!((info.format, info.sample_rate_hz), (format, 16_000));
        assert_eq!(info.n_channels, if name.starts_with("mono") { 1 } else { 2 });
        assert_eq!(info.n_samples, Some(N as u64), "{name}");
        assert_eq!(Waveform::read(&path).unwrap().samples.len(), N);
    }
}

#[test]
fn spans_of_every_format_are_parts_of_the_whole() {
    let directory = tempfile::tempdir().unwrap();
    for name in all() {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes(name)).unwrap();
        let whole = Waveform::read(&path).unwrap().samples;
        for (start, n) in [(0, 100), (1, 1), (160, 4_000), (4_096, 1_152), (7_000, 1_001)] {
            let (start_s, duration_s) = (start as f64 / 16_000.0, n as f64 / 16_000.0);
            let span = Waveform::read_span(&path, start_s, duration_s).unwrap();
            assert!(span.samples == whole[start..start + n], "{name} at {start}");
        }
    }
}

#[test]
fn blocks_of_every_format_join_to_the_whole() {
    let directory = tempfile::tempdir().unwrap();
    for name in all() {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes(name)).unwrap();
        let whole = Waveform::read(&path).unwrap().resampled(22_050).unwrap().samples;
        let blocks: Vec<_> =
            Blocks::open(&path, 22_050, 777).unwrap().map(Result::unwrap).collect();
        assert!(blocks.concat() == whole, "{name}");
    }
}

/// A cut file may decode to the whole sound (when only padding or a tag was lost), or is an
/// error; it is never a shorter sound.
#[test]
fn a_cut_is_never_silent() {
    for name in all() {
        let whole = bytes(name);
        let step = (whole.len() / 400).max(1);
        let mut n_errors = 0;
        for len in (0..whole.len()).step_by(step).chain(whole.len() - 30..whole.len()) {
            match Waveform::decode(whole[..len].to_vec(), name) {
                Ok(wave) => {
                    assert_eq!(wave.samples.len(), N, "{name} cut to {len} of {}", whole.len());
                }
                Err(error) => {
                    assert!(error.to_string().starts_with(name), "{error}");
                    n_errors += 1;
                }
            }
        }
        assert!(n_errors > 350, "{name}: {n_errors}");
    }
}

#[test]
fn a_truncated_flac_says_where_it_ends() {
    let mut cut = bytes("mono16.flac");
    cut.truncate(cut.len() * 2 / 3);
    let error = Waveform::decode(cut, "cut.flac").unwrap_err();
    assert!(
        matches!(error, Error::Truncated { found, expected: Expected::Samples(8_001), .. }
            if found > 3_000 && found < 8_001),
        "{error}"
    );
    assert!(error.to_string().starts_with("cut.flac: truncated: found "), "{error}");
}

/// FLAC frames carry a checksum: no changed byte of the sound goes unnoticed.
#[test]
fn a_changed_byte_of_a_flac_is_an_error_or_makes_no_difference() {
    let whole = bytes("mono16.flac");
    let expected = Waveform::decode(whole.clone(), "x").unwrap();
    let first_frame = 4 + 4 + 34;
    let mut n_errors = 0;
    for at in (first_frame..whole.len()).step_by(13) {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        match Waveform::decode(changed, "x") {
            // Metadata behind the stream info may change freely.
            Ok(wave) => assert!(wave == expected, "byte {at}"),
            Err(_) => n_errors += 1,
        }
    }
    assert!(n_errors > 100, "{n_errors}");
}

#[test]
fn an_mp3_without_an_encoders_tag_is_read_whole() {
    // Without the first frame, which is the tag, the length is unknown and the encoder's delay
    // stays: 14 to 16 frames of 576 samples.
    let whole = bytes("mono.mp3");
    let second = whole[4..].windows(2).position(|w| w[0] == 0xff && w[1] == 0xf3).unwrap() + 4;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("untagged.mp3");
    std::fs::write(&path, &whole[second..]).unwrap();
    let wave = Waveform::read(&path).unwrap();
    assert_eq!(wave.samples.len() % 576, 0);
    assert!((N..N + 2_304).contains(&wave.samples.len()), "{}", wave.samples.len());
    assert_eq!(probe(&path).unwrap().n_samples, None);
}

#[test]
fn an_mp3_with_a_picture_in_front_is_found_behind_it() {
    // An ID3v2.3 tag with one frame of 1.5 MB; sizes of the tag are written in groups of 7 bits.
    let picture = vec![0x5a; 1_500_000];
    let n_tag = picture.len() as u32 + 10;
    let mut file = b"ID3\x03\x00\x00".to_vec();
    file.extend([21, 14, 7, 0].map(|shift| (n_tag >> shift) as u8 & 0x7f));
    file.extend(b"PRIV");
    file.extend((picture.len() as u32).to_be_bytes());
    file.extend([0, 0]);
    file.extend(&picture);
    file.extend(bytes("mono.mp3"));
    assert_eq!(
        Waveform::decode(file, "x").unwrap(),
        Waveform::decode(bytes("mono.mp3"), "x").unwrap()
    );
}

/// A FLAC file of frames with one constant value each: hours of sound in a few bytes. `n_total`
/// is what the header says. See RFC 9639 for the layout.
fn constant_flac(frame_len: u16, values: impl Iterator<Item = i16>, n_total: u64) -> Vec<u8> {
    let mut bytes = b"fLaC\x80\x00\x00\x22".to_vec();
    bytes.extend(frame_len.to_be_bytes());
    bytes.extend(frame_len.to_be_bytes());
    bytes.extend([0; 6]);
    // 20 bits of rate, 3 of channels - 1, 5 of bits - 1, 36 of length; the checksum is left out.
    let packed = (16_000_u64 << 44) | (15 << 36) | n_total;
    bytes.extend(packed.to_be_bytes());
    bytes.extend([0; 16]);
    for (frame_idx, value) in values.enumerate() {
        let start = bytes.len();
        // Fixed length given in 16 bits, 16 kHz, mono, 16 bits.
        bytes.extend([0xff, 0xf8, 0x75, 0x08]);
        let number = char::from_u32(frame_idx as u32).unwrap();
        bytes.extend(number.encode_utf8(&mut [0; 4]).bytes());
        bytes.extend((frame_len - 1).to_be_bytes());
        bytes.push(crc(&bytes[start..], 8, 0x07) as u8);
        bytes.push(0);
        bytes.extend(value.to_be_bytes());
        let checksum = crc(&bytes[start..], 16, 0x8005);
        bytes.extend((checksum as u16).to_be_bytes());
    }
    bytes
}

/// A cyclic redundancy check of `n_bits`, highest bit first, starting at 0.
fn crc(bytes: &[u8], n_bits: u32, polynomial: u32) -> u32 {
    let top = 1 << (n_bits - 1);
    bytes.iter().fold(0, |sum, &byte| {
        (0..8).fold(sum ^ (u32::from(byte) << (n_bits - 8)), |sum: u32, _| {
            (sum << 1) ^ if sum & top == 0 { 0 } else { polynomial }
        }) & ((top << 1) - 1)
    })
}

#[test]
fn three_hours_are_read_in_bounded_memory() {
    // 3 h at 16 kHz are 172.8 million samples, 5,400 frames of 2 s.
    let values = (0..5_400_i32).map(|i| (i - 2_700) as i16);
    let file = constant_flac(32_000, values, 172_800_000);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("long.flac");
    std::fs::write(&path, &file).unwrap();
    assert_eq!(probe(&path).unwrap().duration_s, Some(10_800.0));

    let mut blocks = Blocks::open(&path, 16_000, 32_000).unwrap();
    for (i, block) in blocks.by_ref().enumerate() {
        let block = block.unwrap();
        let value = (i as f32 - 2_700.0) / 32_768.0;
        assert!(block.len() == 32_000 && block[0] == value && block[31_999] == value, "block {i}");
    }
    assert!(blocks.capacity() < 200_000, "{} samples are held", blocks.capacity());

    // A span in the third hour does not decode the first two.
    let span = Waveform::read_span(&path, 9_001.5, 1.0).unwrap();
    assert_eq!(span.samples[7_999..8_001], [1_800.0 / 32_768.0, 1_801.0 / 32_768.0]);
}

#[test]
fn a_flac_of_unknown_length_is_read_to_its_end() {
    let file = constant_flac(4_000, [5, -5, 7].into_iter(), 0);
    assert_eq!(Waveform::decode(file, "x").unwrap().samples.len(), 12_000);
}
