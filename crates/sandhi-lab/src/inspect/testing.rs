//! A plan that is known by hand, and a language model that knows nothing.

use burn::prelude::Device;
use sandhi_data::{
    alignment::{Alignment, Source},
    text::Tokenizer,
};
use sandhi_nn::{init::Init, transformer::TransformerConfig, weights::WeightType};

use super::{Column, DepthPlan, Transported};
use crate::{
    chat::{Chat, MARKERS},
    model::TextModel,
    recipe::TransportConfig,
};

/// A small language model with random weights; of every seed over the same tokens.
pub(crate) fn text_model(seed: u64) -> TextModel {
    let config: TransformerConfig = serde_json::from_value(serde_json::json!({
        "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 24, "tie_embeddings": false,
    }))
    .unwrap();
    let texts = ["Anna took the red ball to the kitchen.", "Ben has the ball. Where is the key?"];
    let tokenizer = Tokenizer::train_bpe(texts, 290, &MARKERS).unwrap();
    let lm = config.init(tokenizer.n_tokens(), &Init::new(seed, &Device::flex()));
    let chat = Chat::with_markers(tokenizer).unwrap();
    TextModel { config, lm, chat, origin: None, dtype: WeightType::F32 }
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
