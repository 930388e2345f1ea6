//! A log-mel spectrogram as a PNG in a data URI.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Error;
use super::data::LogMel;

/// Colors from silence to loud (sRGB), interpolated to the 256 of the palette: lightness grows
/// evenly, so that the picture also reads in gray.
const ANCHORS: [[u8; 3]; 7] = [
    [12, 14, 38],
    [44, 27, 92],
    [98, 31, 122],
    [165, 45, 112],
    [223, 82, 78],
    [250, 150, 66],
    [253, 231, 158],
];

/// The [`png`] in a data URI.
pub(super) fn data_uri(title: &str, mel: &LogMel) -> Result<Option<String>, Error> {
    Ok(png(title, mel)?.map(|png| uri_of(&png)))
}

/// A PNG in a data URI.
pub(crate) fn uri_of(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

/// The picture: time to the right, low bands at the bottom, one pixel a value. `title` is for
/// messages. `None` for a spectrogram without a value.
pub(crate) fn png(title: &str, mel: &LogMel) -> Result<Option<Vec<u8>>, Error> {
    if mel.n_frames.checked_mul(mel.n_mels) != Some(mel.values.len()) {
        return Err(Error::LogMel {
            title: title.to_owned(),
            n_values: mel.values.len(),
            n_frames: mel.n_frames,
            n_mels: mel.n_mels,
        });
    }
    let sizes = (u32::try_from(mel.n_frames), u32::try_from(mel.n_mels));
    let (Ok(width), Ok(height)) = sizes else { return Ok(None) };
    if mel.values.is_empty() {
        return Ok(None);
    }
    let pixels = pixels(mel);
    let png = encode(width, height, &pixels)
        .map_err(|source| Error::Png { title: title.to_owned(), source })?;
    Ok(Some(png))
}

/// Indices into the palette, row by row from the top.
fn pixels(mel: &LogMel) -> Vec<u8> {
    let finite = || mel.values.iter().copied().filter(|value| value.is_finite());
    let low = finite().fold(f32::INFINITY, f32::min);
    let high = finite().fold(f32::NEG_INFINITY, f32::max);
    let scale = if high > low { 255.0 / (high - low) } else { 0.0 };
    let rows = (0..mel.n_mels).rev();
    rows.flat_map(|band| mel.values.iter().skip(band).step_by(mel.n_mels))
        // What is not finite is as dark as silence (a cast of NaN is 0).
        .map(|value| ((value - low) * scale).round() as u8)
        .collect()
}

fn encode(width: u32, height: u32, pixels: &[u8]) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette());
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

fn palette() -> Vec<u8> {
    let n_spans = (ANCHORS.len() - 1) as f32;
    (0..256)
        .flat_map(|index| {
            let position = index as f32 / 255.0 * n_spans;
            let left = (position as usize).min(ANCHORS.len() - 2);
            let share = position - left as f32;
            std::array::from_fn::<u8, 3, _>(|channel| {
                let (a, b) = (ANCHORS[left][channel], ANCHORS[left + 1][channel]);
                (f32::from(a) + (f32::from(b) - f32::from(a)) * share).round() as u8
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_bands_are_at_the_bottom_and_time_runs_right() {
        // Two frames of three bands: frame 0 is 0 1 2, frame 1 is 3 4 5.
        let values = vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let mel = LogMel { n_frames: 2, n_mels: 3, values, frame_s: 0.01 };
        // Top row is band 2 of both frames; 255 / 5 = 51 a step.
        assert_eq!(pixels(&mel), [102, 255, 51, 204, 0, 153]);
    }

    #[test]
    fn the_picture_decodes_to_its_pixels() {
        let mel = LogMel { n_frames: 3, n_mels: 2, values: vec![0.5; 6], frame_s: 0.01 };
        let uri = data_uri("x", &mel).unwrap().unwrap();
        let png = STANDARD.decode(uri.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; 6];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height, info.color_type), (3, 2, png::ColorType::Indexed));
        assert_eq!(pixels, [0; 6]);
        assert_eq!(reader.info().palette.as_ref().unwrap().len(), 768);
    }

    #[test]
    fn odd_spectrograms_are_refused_or_empty() {
        let mel = |n_frames, n_mels, values| LogMel { n_frames, n_mels, values, frame_s: 0.01 };
        assert!(data_uri("x", &mel(0, 80, vec![])).unwrap().is_none());
        let error = data_uri("utterance 7", &mel(2, 2, vec![0.0; 3])).unwrap_err().to_string();
        assert!(error.contains("utterance 7") && error.contains("2 frames of 2"), "{error}");
        let odd = mel(1, 4, vec![f32::NAN, f32::INFINITY, 1.0, 2.0]);
        assert_eq!(pixels(&odd), [255, 0, 255, 0]);
        assert!(data_uri("x", &mel(usize::MAX, 2, vec![])).is_err());
    }

    #[test]
    fn the_palette_grows_lighter() {
        let lightness: Vec<f64> = palette()
            .chunks(3)
            .map(|c| 0.299 * f64::from(c[0]) + 0.587 * f64::from(c[1]) + 0.114 * f64::from(c[2]))
            .collect();
        assert!(lightness.windows(2).all(|pair| pair[1] >= pair[0] - 0.5));
    }
}
