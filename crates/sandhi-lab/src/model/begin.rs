//! Networks over text and units that begin as a language model of text.
//!
//! ```text
//! table, head   a row for every token that the text model knows ─────── its row
//!               a row for every marker and unit that it does not know ─ the mean of those, and a tenth of their spread
//! blocks, norm  the text model's: of the plain transformer, or of the global one
//! ```
//!
//! With the mean of all rows a new token is as likely as the others on (geometric) average, so that n old tokens lose at
//! most the factor n / (n + k) to k new ones (Hewitt, 2021, "Initializing new word embeddings for pretrained language
//! models"); the spread tells new ones apart.

use std::collections::BTreeSet;

use burn::prelude::*;
use sandhi_data::text::JointVocabulary;
use sandhi_nn::{
    init::Init,
    weights::{self, Mismatch, NamedTensor, Weights},
};

use super::TextModel;
use crate::train::speech_text::{Network, SpeechTextNet};

/// The spread of new rows, in that of the others.
const SPREAD: f32 = 0.1;

impl SpeechTextNet {
    /// The network with the weights of a text model where they go; what is not of it stays as it is.
    ///
    /// # Errors
    ///
    /// When the network has no place for the text model, or one of other settings.
    pub fn begin_as(
        self,
        text: &TextModel,
        vocabulary: &JointVocabulary,
        seed: u64,
    ) -> Result<Self, Mismatch> {
        if !self.config.text().is_some_and(|config| config.computes_as(&text.config)) {
            let settings = |config| serde_json::to_string(config).unwrap_or_default();
            return Err(Mismatch(vec![format!(
                "the text model is {}, the network has {} for it",
                settings(&text.config),
                self.config.text().map_or_else(|| "no place".to_owned(), settings)
            )]));
        }
        let tokenizer = text.chat.tokenizer();
        let known =
            |id: &u32| (*id as usize) < text.lm.n_tokens() && tokenizer.piece(*id).is_some();
        let rows: Vec<Option<usize>> = (0..vocabulary.n_tokens() as u32)
            .map(|id| Some(id).filter(known).map(|id| id as usize))
            .collect();
        let over_patches = matches!(self.network, Network::Patch(_));
        let of_rows = ["model.embed_tokens.weight", "lm_head.weight"];
        let given: Weights = weights::weights(&text.lm)
            .into_iter()
            .map(|(name, tensor)| {
                let tensor = match of_rows.contains(&name.as_str()) {
                    true => with_new_rows(
                        &tensor,
                        &rows,
                        &Init::new(seed, &Device::flex()).child(&name),
                    ),
                    false => tensor,
                };
                (format!("network.{}", if over_patches { in_patches(&name) } else { name }), tensor)
            })
            .collect();
        let names: BTreeSet<String> = given.keys().cloned().collect();
        weights::load_where(self, given, |info| names.contains(&info.name))
    }
}

/// Where a weight of a text model is in a network over patches.
fn in_patches(name: &str) -> String {
    match name.strip_prefix("model.layers.") {
        Some(rest) => format!("global.layers.{rest}"),
        None => format!("text.{}", name.strip_prefix("model.").unwrap_or(name)),
    }
}

/// A table whose row `i` is the old one's `rows[i]`, or a new one.
fn with_new_rows(old: &NamedTensor, rows: &[Option<usize>], init: &Init) -> NamedTensor {
    let width = old.shape[1];
    let row = |i: usize| &old.values[i * width..][..width];
    let kept: Vec<usize> = rows.iter().flatten().copied().collect();
    let mut mean = vec![0.0_f64; width];
    let mut square = vec![0.0_f64; width];
    for &i in &kept {
        for ((mean, square), &value) in mean.iter_mut().zip(&mut square).zip(row(i)) {
            *mean += f64::from(value) / kept.len() as f64;
            *square += f64::from(value).powi(2) / kept.len() as f64;
        }
    }
    let spread = |(mean, square): (&f64, &f64)| (square - mean * mean).max(0.0).sqrt() as f32;
    let spreads: Vec<f32> = mean.iter().zip(&square).map(spread).collect();
    let n_new = rows.iter().filter(|row| row.is_none()).count();
    let noise = weights::host(init.normal([n_new, width], f64::from(SPREAD)).val());
    let mut noise = noise.chunks_exact(width);
    let mut values = Vec::with_capacity(rows.len() * width);
    for found in rows {
        match found {
            Some(i) => values.extend_from_slice(row(*i)),
            None => {
                let noise = noise.next().expect("one row of noise for every new one");
                let new = mean.iter().zip(&spreads).zip(noise);
                values.extend(new.map(|((mean, spread), noise)| *mean as f32 + spread * noise));
            }
        }
    }
    NamedTensor { shape: vec![rows.len(), width], values }
}

#[cfg(test)]
mod tests {
    use sandhi_data::text::Tokenizer;
    use sandhi_nn::{
        ragged::{Offsets, Ragged},
        transformer::{Dropout, TransformerConfig},
        weights::{WeightType, host},
    };
    use serde_json::json;

    use super::*;
    use sandhi_data::patching::Patching;

    use crate::{
        chat::{Chat, END, MARKERS, PromptLayout},
        recipe::NetworkConfig,
        train::speech_text::{Cutting, SpeechTextBatch},
    };

    /// Rows of a table beyond the vocabulary.
    const N_UNUSED: usize = 3;

    /// Its head is not its table, so that both are looked at, and both have rows that no token has.
    fn text_model() -> TextModel {
        let texts = ["anna took the red ball to the kitchen"; 4];
        let tokenizer = Tokenizer::train_bpe(texts, 280, &MARKERS).unwrap();
        let config: TransformerConfig = serde_json::from_value(json!({
            "d_model": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "d_ff": 24, "window": 4,
            "qk_norm": true, "attention_bias": true,
        }))
        .unwrap();
        let lm = config.init(tokenizer.n_tokens() + N_UNUSED, &Init::new(3, &Device::flex()));
        let layout = PromptLayout::markers(&tokenizer).unwrap();
        let (chat, dtype) = (Chat::new(tokenizer, layout), WeightType::F32);
        TextModel { config, lm, chat, origin: None, dtype }
    }

    fn plain(text: &TextModel) -> NetworkConfig {
        NetworkConfig::Plain(text.config.clone())
    }

    fn patch(text: &TextModel) -> NetworkConfig {
        let stack = json!({ "n_layers": 1, "n_heads": 2, "d_ff": 16 });
        let config = json!({
            "kind": "patch", "d_local": 8, "n_queries": 2, "cross_heads": 2,
            "encoder": stack, "text": text.config, "decoder": stack,
        });
        serde_json::from_value(config).unwrap()
    }

    #[test]
    fn what_is_written_is_predicted_as_the_text_model_does() {
        let text = text_model();
        let tokenizer = text.chat.tokenizer();
        let vocabulary = JointVocabulary::extend(tokenizer, END, END, 7).unwrap();
        let (n_old, n) = (tokenizer.n_tokens(), vocabulary.n_tokens());
        // One marker is there already.
        assert_eq!(n, n_old + 1 + 7);
        assert_eq!(JointVocabulary::n_tokens_beside(tokenizer, 7), n);
        let mut ids = vec![vocabulary.begin()];
        ids.extend(tokenizer.encode("the red kitchen took anna").unwrap());
        let embedded =
            Ragged { values: text.lm.embed(&ids), offsets: Offsets::from_lengths(&[ids.len()]) };
        let expected = host(text.lm.logits(text.lm.forward(&embedded, &[], Dropout::OFF).last));

        let mut of_all = Vec::new();
        for config in [plain(&text), patch(&text)] {
            let net = config.init(n, &Init::new(1, &Device::flex()));
            let net = net.begin_as(&text, &vocabulary, 1).unwrap();
            let patching = serde_json::from_value(json!({ "kind": "static", "size": 4 })).unwrap();
            let patching = Patching::new(patching, None);
            let cutting = Cutting::new(&config, Some(&patching), Default::default());
            let mut batch = SpeechTextBatch::new(&cutting);
            let mut document = sandhi_data::interleave::written("x", &vocabulary).unwrap();
            // Without the marker, which the text model has never seen.
            document.ids = [&ids[..], &ids[..1]].concat();
            batch.push(
                &document,
                &[],
                &vocabulary,
                &cutting,
                crate::train::dataset::Draw::FIXED,
                "",
            );
            let logits = host(net.logits(net.hidden(&batch, Dropout::OFF).0));
            let expected = expected.chunks_exact(n_old + N_UNUSED);
            for (found, expected) in logits.chunks_exact(n).zip(expected) {
                let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4;
                assert!(found[..n_old].iter().zip(&expected[..n_old]).all(near));
                // New tokens are no likelier than the old ones are on average.
                let share =
                    |logits: &[f32]| logits.iter().map(|logit| f64::from(logit.exp())).sum::<f64>();
                let (old, new) = (share(&found[..n_old]), share(&found[n_old..]));
                assert!(new / old < 1.05 * (n - n_old) as f64 / n_old as f64, "{new} {old}");
            }
            of_all.push(logits);
        }
        // Both have the same new rows.
        assert!(of_all[0].iter().zip(&of_all[1]).all(|(a, b)| (a - b).abs() < 1e-4));
        // Which differ.
        let table = weights::weights(
            &plain(&text)
                .init(n, &Init::new(1, &Device::flex()))
                .begin_as(&text, &vocabulary, 1)
                .unwrap(),
        );
        let table = &table["network.model.embed_tokens.weight"];
        assert_ne!(table.values[n_old * 16..][..16], table.values[(n_old + 1) * 16..][..16]);
    }

    #[test]
    fn a_network_without_a_place_for_it_is_refused() {
        let text = text_model();
        let vocabulary = JointVocabulary::extend(text.chat.tokenizer(), END, END, 2).unwrap();
        let begun = |mut config: serde_json::Value, change: &dyn Fn(&mut serde_json::Value)| {
            change(&mut config);
            let config: NetworkConfig = serde_json::from_value(config).unwrap();
            let net = config.init(vocabulary.n_tokens(), &Init::new(1, &Device::flex()));
            net.begin_as(&text, &vocabulary, 1).unwrap_err().to_string()
        };
        let config = serde_json::to_value(patch(&text)).unwrap();
        let stack = json!({ "n_layers": 2, "n_heads": 2, "d_ff": 24 });
        let error = begun(config.clone(), &|config| {
            let fields = config.as_object_mut().unwrap();
            fields.remove("text");
            fields.insert("d_global".into(), 16.into());
            fields.insert("global".into(), stack.clone());
        });
        assert!(error.contains("the network has no place for it"), "{error}");
        let error = begun(config, &|config| config["text"]["d_ff"] = 20.into());
        assert!(error.contains("\"d_ff\":24") && error.contains("\"d_ff\":20"), "{error}");
    }
}
