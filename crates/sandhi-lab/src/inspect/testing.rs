//! A small model, a language model of any seed, and a plan and segments that are known by hand.

use burn::prelude::Device;
use sandhi_data::{
    alignment::{Alignment, Source},
    text::{Characters, Tokenizer},
};
use sandhi_nn::{
    connector::Widths, init::Init, transformer::TransformerConfig, weights::WeightType,
};
use serde_json::{from_value, json};

use super::{Column, Cuts, DepthPlan, Nearest, Segmented, Transported, VectorSpan};
use crate::{
    chat::{Chat, MARKERS},
    model::{ConnectorModel, SpeechModel, TextModel},
    recipe::TransportConfig,
};

/// A small language model with random weights; of every seed over the same tokens.
pub(crate) fn text_model(seed: u64) -> TextModel {
    let config: TransformerConfig = from_value(json!({
        "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 24, "tie_embeddings": false,
    }))
    .unwrap();
    let texts = ["Anna took the red ball to the kitchen.", "Ben has the ball. Where is the key?"];
    let tokenizer = Tokenizer::train_bpe(texts, 290, &MARKERS).unwrap();
    let lm = config.init(tokenizer.n_tokens(), &Init::new(seed, &Device::flex()));
    let chat = Chat::with_markers(tokenizer).unwrap();
    TextModel { config, lm, chat, origin: None, dtype: WeightType::F32 }
}

pub(crate) const TEXT: &str = "she left early";

/// A model of a tiny encoder, connector and language model: 25 frames and 12.5 vectors a second.
pub(crate) fn model() -> ConnectorModel {
    model_of(json!({
        "kind": "slm", "reduction": 2, "reduce": "stack", "d_hidden": 8, "n_layers": 1,
        "n_heads": 2, "d_ff": 8,
    }))
}

/// The same with another connector.
pub(crate) fn model_of(connector: serde_json::Value) -> ConnectorModel {
    let init = Init::new(5, &Device::flex());
    let speech = SpeechModel::init(
        from_value(json!({ "kind": "whisper", "n_mels": 80 })).unwrap(),
        from_value(json!({
            "kind": "conformer", "d_model": 8, "n_layers": 1, "n_heads": 2, "d_ff": 8, "kernel": 3,
        }))
        .unwrap(),
        from_value(json!({ "steps_per_frame": 2 })).unwrap(),
        Characters::from_texts([TEXT]),
        &init,
    )
    .unwrap();
    let tokenizer = Tokenizer::train_bpe([TEXT, "she left", "early"], 262, &MARKERS).unwrap();
    let lm: TransformerConfig =
        from_value(json!({ "d_model": 16, "n_layers": 3, "n_heads": 2, "d_ff": 32 })).unwrap();
    let config: sandhi_nn::connector::ConnectorConfig = from_value(connector).unwrap();
    ConnectorModel {
        speech,
        text: TextModel {
            lm: lm.init(tokenizer.n_tokens(), &init.child("lm")),
            config: lm,
            chat: Chat::with_markers(tokenizer).unwrap(),
            origin: None,
            dtype: WeightType::F32,
        },
        connector: config.init(Widths { d_encoder: 8, d_model: 16 }, &init.child("connector")),
        config,
        compression: None,
        segmenter: None,
        pad: None,
    }
}

/// A second and a half of tone.
pub(crate) fn samples() -> Vec<f32> {
    (0..24_000).map(|i| 0.3 * (i as f32 * 0.1).sin()).collect()
}

/// Two seconds, four vectors: two on the first token, one between both, one on the pad.
pub(crate) fn transported(text: &str) -> Transported {
    let column = |is_pad| Column {
        label: text.to_owned(),
        token: 1,
        is_pad,
        share: 0.25,
        mean_s: Some(1.0),
        distance: Some(0.5),
    };
    let word = Alignment {
        label: text.to_owned(),
        start_s: 0.5,
        end_s: 1.5,
        confidence: None,
        source: Source::Exact,
    };
    let quarter = |i: usize| (0..3).map(|j| if i == j { 0.25 } else { 0.0 }).collect();
    let plan: Vec<Vec<f64>> = vec![quarter(0), quarter(0), vec![0.125, 0.125, 0.0], quarter(2)];
    Transported {
        text: text.to_owned(),
        duration_s: 2.0,
        waveform: vec![[-0.5, 0.5]; 200],
        words: vec![word],
        vector_s: 0.5,
        n_vectors: 4,
        given: Some(vec![[0, 1], [2, 2]]),
        n_tokens: 2,
        settings: TransportConfig::default(),
        plans: vec![DepthPlan {
            depth: 0,
            rows_s: (0..4).map(|i| [0.5 * f64::from(i), 0.5 * f64::from(i + 1)]).collect(),
            columns: vec![column(false), column(false), column(true)],
            plan,
            cost: 0.25,
            marginal_error: 0.0,
            iterations: 3,
            is_solved: true,
        }],
    }
}

/// Two seconds: three segments, two vectors in their times, the second without a direction, and one of no time.
pub(crate) fn segmented(text: &str) -> Segmented {
    let transported = transported(text);
    let text = || text.to_owned();
    let nearest = |cosine| Nearest { token: 1, label: text(), cosine };
    let cuts = |name: &str, is_oracle, ends_s: &[f64]| Cuts {
        name: name.to_owned(),
        is_oracle,
        ends_s: ends_s.to_vec(),
        none: ends_s.is_empty().then(text),
    };
    Segmented {
        text: text(),
        is_given: true,
        duration_s: 2.0,
        waveform: transported.waveform,
        spectrogram: vec![1, 2, 3],
        words: transported.words,
        no_words: None,
        cuts: vec![cuts("forced", true, &[0.5, 1.25, 2.0]), cuts("ctc", false, &[])],
        vectors: vec![
            VectorSpan { span_s: None, nearest: Some(nearest(0.5)) },
            VectorSpan { span_s: Some([0.0, 0.5]), nearest: Some(nearest(1.0)) },
            VectorSpan { span_s: Some([0.5, 1.25]), nearest: None },
        ],
    }
}
