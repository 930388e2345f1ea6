use std::path::PathBuf;

use burn::tensor::TensorData;
use sandhi_data::features::{FeatureExtractor, WaveformConfig, WhisperConfig};
use sandhi_nn::{
    encoder::wav2vec2::{ConvolutionNorm, PositionBiasConfig},
    length::Length,
    ragged::{Offsets, Ragged},
    transformer::Dropout,
    weights::{host, to_autodiff},
};

use super::{super::tests::*, wav2vec2::rename, whisper::our_name as whisper_name, *};
use crate::{
    checkpoint::{Dtype, read_tensors, write_tensors},
    hf::Located,
    model::{HostRagged, SpeechModel},
    recipe::PublishedEncoder,
    units::Kmeans,
};

/// Those that hear samples.
const WAVEFORMS: [&str; 7] = [
    "wav2vec2_base",
    "wav2vec2_large",
    "wav2vec2_ctc",
    "hubert_base",
    "hubert_large",
    "wavlm_base",
    "wavlm_large",
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/speech_encoders").join(name)
}

fn load(dir: &Path) -> Result<SpeechEncoder, Error> {
    SpeechEncoder::load(dir, &Device::flex())
}

/// Inputs of a reference, `NAME.i` each, packed.
fn packed(
    reference: &IndexMap<String, HostTensor>,
    name: &str,
    which: &[usize],
    device: &Device,
) -> Ragged {
    let inputs: Vec<&HostTensor> =
        which.iter().map(|i| &reference[&format!("{name}.{i}")]).collect();
    let values: Vec<f32> = inputs.iter().flat_map(|t| t.values.clone()).collect();
    let lengths: Vec<usize> = inputs.iter().map(|t| t.shape[0]).collect();
    let n_rows: usize = lengths.iter().sum();
    let shape = [n_rows, values.len() / n_rows];
    Ragged {
        values: Tensor::from_data(TensorData::new(values, shape), device),
        offsets: Offsets::from_lengths(&lengths),
    }
}

#[track_caller]
fn close(name: &str, found: &[f32], expected: &HostTensor) {
    let worst = difference(found, &expected.values);
    assert!(worst < 1e-5, "{name}: {worst:e}");
}

#[test]
fn a_whisper_encoder_hears_what_the_authors_code_hears() {
    let dir = golden("whisper");
    let (reference, _) = reference(&dir);
    let encoder = load(&dir).unwrap();
    assert_eq!(encoder.config.n_mels, 12);
    let log_mel = WhisperConfig { n_mels: 12, pad_to_30_s: false };
    assert_eq!(encoder.features, FeatureConfig::Whisper(log_mel));
    assert!(encoder.ctc.is_none());
    let hear = |which: &[usize]| {
        let input = packed(&reference, "input_features", which, &Device::flex());
        host(encoder.encoder.forward(&input, Dropout::OFF).values)
    };
    for i in 0..2 {
        let name = format!("last_hidden_state.{i}");
        close(&name, &hear(&[i]), &reference[&name]);
    }
    assert_eq!(hear(&[0, 1]), [hear(&[0]), hear(&[1])].concat());

    let learning = to_autodiff(encoder.encoder.clone());
    let input = packed(&reference, "input_features", &[0, 1], &Device::flex().autodiff());
    let heard = learning.forward(&input, Dropout::OFF).values;
    let expected = reference.iter().filter_map(|(name, tensor)| {
        let theirs = name.strip_prefix("gradient.")?;
        let tensor = tensor.clone();
        let tensor = if theirs.starts_with("conv") { taps_first(tensor) } else { tensor };
        Some((whisper_name(theirs), tensor))
    });
    check_gradients("whisper", learning, heard.powf_scalar(2.0).mean(), expected.collect());
}

#[test]
fn every_layer_is_that_of_the_authors_code() {
    for name in WAVEFORMS {
        let dir = golden(name);
        let (reference, _) = reference(&dir);
        let whole = load(&dir).unwrap();
        let EncoderConfig::Wav2vec2(config) = whole.config.encoder.clone() else {
            panic!("{name}")
        };
        let n_layers = config.n_layers;
        let hear = |encoder: &SpeechEncoder, which: &[usize]| {
            let input = packed(&reference, "input_values", which, &Device::flex());
            let frames = encoder.encoder.forward(&input, Dropout::OFF);
            // As long as was said.
            for (rows, samples) in frames.offsets.iter().zip(input.offsets.iter()) {
                let said = encoder.config.encoder.length(samples.len());
                assert_eq!(said, Length::Exact(rows.len()), "{name}");
            }
            host(frames.values)
        };
        for layer in 0..=n_layers {
            let encoder = SpeechEncoder::load_layer(&dir, Some(layer), &Device::flex()).unwrap();
            assert_eq!(encoder.ctc.is_some(), layer == n_layers && name == "wav2vec2_ctc");
            for i in 0..2 {
                let expected = if layer == n_layers {
                    format!("last_hidden_state.{i}")
                } else {
                    format!("hidden.{i}.{layer}")
                };
                let what = format!("{name}, layer {layer}: {expected}");
                close(&what, &hear(&encoder, &[i]), &reference[&expected]);
            }
        }
        // The last one by default; and a batch gives the bits of each alone.
        let all = hear(&whole, &[0, 1]);
        assert_eq!(all, [hear(&whole, &[0]), hear(&whole, &[1])].concat(), "{name}");
        // The authors' own batch, padded and masked, where padding changes nothing there.
        let batched = ["batched.0", "batched.1"].map(|name| reference.get(name));
        assert_eq!(batched[0].is_some(), config.conv_norm == ConvolutionNorm::Layer, "{name}");
        if let [Some(first), Some(second)] = batched {
            let values = [&first.values[..], &second.values].concat();
            assert!(difference(&all, &values) < 1e-5, "{name}");
        }
    }
    let error = SpeechEncoder::load_layer(&golden("hubert_base"), Some(3), &Device::flex());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("layer is 3, expected at most n_layers, 2"), "{error}");
    let error = SpeechEncoder::load_layer(&golden("whisper"), Some(1), &Device::flex());
    assert!(error.unwrap_err().to_string().contains("of a whisper encoder only"));
}

#[test]
fn units_are_the_centers_that_numpy_finds() {
    let dir = golden("hubert_base");
    let (reference, whole_numbers) = reference(&dir);
    let kmeans = Kmeans::read(&dir.join("kmeans.npy")).unwrap();
    assert_eq!((kmeans.n_clusters(), kmeans.width()), (7, 24));
    let expected = &whole_numbers["units.0"];
    assert_eq!(kmeans.assign(&reference["hidden.0.1"].values), *expected);
    // And of what is computed here.
    let encoder = SpeechEncoder::load_layer(&dir, Some(1), &Device::flex()).unwrap();
    let input = packed(&reference, "input_values", &[0], &Device::flex());
    let frames = encoder.encoder.forward(&input, Dropout::OFF);
    assert_eq!(kmeans.assign(&host(frames.values)), *expected);
}

#[test]
fn distances_fall_into_the_buckets_of_the_authors_code() {
    let (_, whole_numbers) = reference(&golden("wavlm_large"));
    let buckets = &whole_numbers["buckets"];
    assert_eq!(buckets.len(), 2_001);
    let published = PositionBiasConfig::default();
    for (&bucket, distance) in buckets.iter().zip(-1_000_isize..) {
        assert_eq!(published.bucket(distance), bucket as usize, "{distance}");
    }
}

#[test]
fn gradients_of_waveform_encoders_are_those_of_the_authors_code() {
    for name in WAVEFORMS {
        let dir = golden(name);
        let (reference, _) = reference(&dir);
        let encoder = to_autodiff(load(&dir).unwrap().encoder);
        let input = packed(&reference, "input_values", &[0, 1], &Device::flex().autodiff());
        let heard = encoder.forward(&input, Dropout::OFF).values;
        let mut expected: IndexMap<String, HostTensor> = IndexMap::new();
        for (theirs, tensor) in &reference {
            let Some(theirs) = theirs.strip_prefix("gradient.") else { continue };
            let theirs = theirs.strip_prefix("feature_extractor.").unwrap_or(theirs);
            let theirs = theirs.strip_prefix("encoder.").unwrap_or(theirs);
            if theirs == "pos_conv_embed.conv.bias" {
                for (i, values) in tensor.values.chunks(6).enumerate() {
                    let group = HostTensor::new([6], values.to_vec());
                    expected.insert(format!("pos_conv_embed.groups.{i}.bias"), group);
                }
            } else {
                let (ours, tensor) = rename(theirs, tensor.clone());
                expected.insert(ours, tensor);
            }
        }
        // Ten of every model, the bias of positions in groups of six, and WavLM's own three.
        let n = 10 + 3 + if name.starts_with("wavlm") { 3 } else { 0 };
        assert_eq!(expected.len(), n, "{name}");
        check_gradients(name, encoder, heard.powf_scalar(2.0).mean(), expected);
    }
}

#[test]
fn samples_are_prepared_as_the_authors_code_does() {
    for name in WAVEFORMS {
        let dir = golden(name);
        let (reference, _) = reference(&dir);
        let features = load(&dir).unwrap().features;
        // hubert_base has no preprocessor_config.json.
        let normalize = name != "wavlm_base";
        assert_eq!(features, FeatureConfig::Waveform(WaveformConfig { normalize }), "{name}");
        let extractor = FeatureExtractor::new(&features).unwrap();
        for i in 0..2 {
            let found = extractor.compute(&reference[&format!("samples.{i}")].values).unwrap();
            close(name, &found.values, &reference[&format!("input_values.{i}")]);
        }
    }
}

/// The CTC checkpoint as one of our models.
fn recognizer(dir: &Path) -> SpeechModel {
    let at = Located { dir: dir.to_owned(), name: String::new() };
    let published = PublishedEncoder::default();
    crate::hf::speech_model(&at, &published, &Device::flex()).unwrap()
}

#[test]
fn a_published_head_says_what_the_authors_code_says() {
    let dir = golden("wav2vec2_ctc");
    let (reference, _) = reference(&dir);
    let encoder = load(&dir).unwrap();
    let ctc = encoder.ctc.as_ref().unwrap();
    // E <s> </s> <pad> <unk> | A ' T S: the blank first, then what can be said.
    assert_eq!((&ctc.columns[..], ctc.n_outputs), (&[3, 0, 5, 6, 7, 8, 9][..], 10));
    assert_eq!(ctc.symbols, Characters::new("e a'ts".chars()).unwrap());
    let texts = std::fs::read_to_string(dir.join("greedy.json")).unwrap();
    let texts: Vec<String> = serde_json::from_str(&texts).unwrap();
    let model = recognizer(&dir);
    assert_eq!(model.frame_rate_hz(), 16_000.0 / 20.0);
    for (i, text) in texts.iter().enumerate() {
        let input = packed(&reference, "input_values", &[i], &Device::flex());
        let logits = host(ctc.head.forward(&encoder.encoder.forward(&input, Dropout::OFF)).values);
        let theirs = &reference[&format!("logits.{i}")];
        let expected: Vec<f32> =
            theirs.values.chunks(10).flat_map(|row| ctc.columns.iter().map(|&c| row[c])).collect();
        assert!(difference(&logits, &expected) < 1e-5, "{i}");
        // From samples to text through our own model, whose letters are small.
        let features = model.extract(&reference[&format!("samples.{i}")].values).unwrap();
        let frames = model.encode(&HostRagged::gather(1, [&features.values[..]]));
        assert_eq!(
            model.recognizer.as_ref().unwrap().transcribe(&frames)[0].trim(),
            text.to_lowercase()
        );
        assert!(text.len() > 5 && text.contains(' '), "{text}");
    }
}

/// Loads a golden checkpoint after `change`, which must be refused with all these parts.
#[track_caller]
fn refused(name: &str, change: impl FnOnce(&Path), expected: &[&str]) {
    let dir = copy_of(&golden(name));
    change(dir.path());
    let error = load(dir.path()).unwrap_err().to_string();
    for part in expected {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

/// Changes the tensors of a checkpoint.
fn with(change: impl Fn(&mut IndexMap<String, HostTensor>)) -> impl FnOnce(&Path) {
    move |dir| {
        let path = dir.join("model.safetensors");
        let mut tensors = read_tensors(&path).unwrap();
        change(&mut tensors);
        write_tensors(&path, &tensors, Dtype::F32, &IndexMap::new()).unwrap();
    }
}

/// Changes a field of a JSON file.
fn set(file: &str, field: &str, value: serde_json::Value) -> impl FnOnce(&Path) {
    let (file, field) = (file.to_owned(), field.to_owned());
    move |dir| edit(&dir.join(file), |config| config[field] = value)
}

#[test]
fn configurations_of_other_encoders_are_refused() {
    let cases: [(&str, &str, serde_json::Value, &[&str]); 19] = [
        ("whisper", "model_type", "musicgen".into(), &["musicgen", "whisper", "wavlm"]),
        ("whisper", "activation_function", "relu".into(), &["activation_function", "relu"]),
        ("whisper", "scale_embedding", true.into(), &["scale_embedding"]),
        ("whisper", "encoder_attention_heads", 5.into(), &["d_model 24", "n_heads 5"]),
        (
            "whisper",
            "max_source_positions",
            20.into(),
            &["embed_positions", "[18, 24]", "[20, 24]"],
        ),
        ("wav2vec2_base", "hidden_act", "relu".into(), &["hidden_act", "relu"]),
        ("wav2vec2_base", "feat_extract_activation", 1.into(), &["feat_extract_activation is 1"]),
        ("wav2vec2_base", "add_adapter", true.into(), &["add_adapter"]),
        ("wav2vec2_ctc", "adapter_attn_dim", 16.into(), &["adapter_attn_dim is 16", "MMS"]),
        ("hubert_base", "conv_pos_batch_norm", true.into(), &["conv_pos_batch_norm"]),
        ("hubert_base", "feat_extract_norm", "batch".into(), &["feat_extract_norm", "batch"]),
        ("hubert_base", "num_attention_heads", 5.into(), &["d_model 24", "n_heads 5"]),
        ("hubert_base", "num_feat_extract_layers", 7.into(), &["conv_dim has 3 entries", "is 7"]),
        ("wav2vec2_large", "conv_dim", serde_json::json!([8, "x"]), &["conv_dim", "list"]),
        ("wav2vec2_large", "conv_stride", serde_json::json!([5, 2, 0]), &["conv_strides"]),
        ("wav2vec2_large", "num_conv_pos_embedding_groups", 5.into(), &["position_groups 5"]),
        ("wavlm_large", "num_buckets", 2.into(), &["buckets is 2"]),
        ("wav2vec2_ctc", "pad_token_id", 0.into(), &["vocab.json", "is 3", "config.json is 0"]),
        (
            "wav2vec2_large",
            "architectures",
            serde_json::json!(["Wav2Vec2ForCTC"]),
            &["missing tensor lm_head.weight"],
        ),
    ];
    for (name, field, value, expected) in cases {
        refused(name, set("config.json", field, value), expected);
    }
    let cases: [(&str, &str, serde_json::Value, &[&str]); 5] = [
        ("wavlm_base", "sampling_rate", 8_000.into(), &["sampling_rate is 8000", "16000"]),
        ("wavlm_base", "do_normalize", "yes".into(), &["preprocessor_config.json", "do_normalize"]),
        ("whisper", "feature_size", 80.into(), &["feature_size is 80, expected 12"]),
        ("whisper", "n_fft", 512.into(), &["n_fft is 512, expected 400"]),
        ("whisper", "hop_length", 80.into(), &["hop_length is 80, expected 160"]),
    ];
    for (name, field, value, expected) in cases {
        refused(name, set("preprocessor_config.json", field, value), expected);
    }
}

#[test]
fn every_tensor_of_a_speech_encoder_is_accounted_for() {
    let extra = |tensors: &mut IndexMap<String, HostTensor>, name: &str| {
        tensors.insert(name.into(), HostTensor::new([1], vec![0.0]));
    };
    refused("whisper", with(|t| extra(t, "adapter.weight")), &["adapter.weight is left over"]);
    let conv = "encoder.pos_conv_embed.conv";
    refused(
        "hubert_base",
        with(|t| {
            extra(t, "adapter.weight");
            drop(t.shift_remove("encoder.layers.1.final_layer_norm.bias").unwrap());
            t["feature_projection.projection.bias"] = HostTensor::new([2], vec![0.0; 2]);
        }),
        &[
            "left-over tensor adapter.weight",
            "missing tensor layers.1.final_layer_norm.bias of shape [24]",
            "feature_projection.projection.bias has shape [2], the model expects [24]",
        ],
    );
    refused(
        "hubert_base",
        with(|t| {
            drop(t.shift_remove(&format!("{conv}.weight_g")).unwrap());
            t[&format!("{conv}.bias")] = HostTensor::new([1], vec![0.0]);
        }),
        &["missing tensor encoder.pos_conv_embed.conv.weight_g", "bias has shape [1]"],
    );
    refused(
        "wav2vec2_ctc",
        with(|t| {
            let name = format!("wav2vec2.{conv}.parametrizations.weight.original1");
            t[&name].values.iter_mut().skip(2).step_by(8).for_each(|x| *x = 0.0);
        }),
        &["weight_v is 0 throughout tap 2"],
    );
    refused(
        "wav2vec2_ctc",
        with(|t| drop(t.shift_remove("lm_head.bias").unwrap())),
        &["missing tensor lm_head.bias of shape [10]"],
    );
    let vocabulary = |dir: &Path| std::fs::remove_file(dir.join("vocab.json")).unwrap();
    refused("wav2vec2_ctc", vocabulary, &["vocab.json", "lm_head"]);
}

#[test]
fn a_preprocessor_may_be_part_of_a_processor() {
    let dir = copy_of(&golden("wavlm_base"));
    let own = dir.path().join("preprocessor_config.json");
    let inner = std::fs::read_to_string(&own).unwrap();
    std::fs::remove_file(own).unwrap();
    let shared = format!("{{\"feature_extractor\": {inner}}}");
    std::fs::write(dir.path().join("processor_config.json"), shared).unwrap();
    let features = load(dir.path()).unwrap().features;
    assert_eq!(features, FeatureConfig::Waveform(WaveformConfig { normalize: false }));
}
