"""Writes crates/sandhi-lab/tests/golden/speech_encoders/: tiny random checkpoints and what their authors' code makes of them.

    python3 -m venv venv && venv/bin/pip install torch==2.11.0 transformers==5.23.0 safetensors
    venv/bin/python tools/golden/speech_encoders.py

One folder a family, laid out as published checkpoints are. `reference.safetensors` holds, for two inputs run alone:

    input_features.N [n, n_mels]     last_hidden_state.N [n_frames, d_model]
    gradient.NAME                    of the mean square of the last hidden states of both inputs

and of those that hear samples (wav2vec 2.0, HuBERT, WavLM):

    samples.N [n]                    input_values.N [n], what the feature extractor makes of them
    hidden.N.L [n_frames, d_model]   what goes into block L
    batched.N [n_frames, d_model]    the last hidden states of both in one padded batch with an attention mask, where the
                                     family has one: group norm takes padding for silence
    logits.N [n_frames, n_symbols]   of a CTC head; greedy.json has the texts that the tokenizer reads from them, when
                                     the symbols that are no characters are left out
    units.0 [n_frames]               of hidden.0.1, the nearest of the centers in kmeans.npy
    buckets [2001]                   of relative positions -1000 to 1000 with WavLM's published 320 buckets up to 800

Some folders also have a verify.safetensors, which tools/reference.py writes. Weights are drawn wide, norms too, so that a
part that is left out shows.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2ForPreTraining,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

OUT = Path(__file__).resolve().parents[2] / "crates/sandhi-lab/tests/golden/speech_encoders"
VERSIONS = {
    "made_by": "tools/golden/speech_encoders.py",
    "torch": torch.__version__,
    "transformers": transformers.__version__,
}


def whisper():
    config = WhisperConfig(
        vocab_size=20, num_mel_bins=12, d_model=24, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=40,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=8, max_source_positions=18, max_target_positions=4,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None,
        begin_suppress_tokens=None, dropout=0.0,
    )
    model = WhisperForConditionalGeneration(config).float().eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if "embed_positions" in path:
                continue
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    folder = OUT / "whisper"
    folder.mkdir(exist_ok=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    WhisperFeatureExtractor(feature_size=12).save_pretrained(folder)
    encoder = model.model.encoder
    reference, total, n = {}, 0.0, 0
    for i in range(2):
        features = torch.randn(1, 12, 36)
        hidden = encoder(features).last_hidden_state[0]
        reference[f"input_features.{i}"] = features[0].T.contiguous()
        reference[f"last_hidden_state.{i}"] = hidden.detach().clone()
        total = total + hidden.square().sum()
        n += hidden.numel()
    (total / n).backward()
    for path, parameter in encoder.named_parameters():
        if parameter.grad is not None:
            reference[f"gradient.{path}"] = parameter.grad.clone()
    save_file(reference, folder / "reference.safetensors", VERSIONS)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"whisper: {size // 1024} kB")


SMALL = dict(
    vocab_size=10, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32, conv_dim=(8, 12, 12),
    conv_stride=(5, 2, 2), conv_kernel=(10, 3, 2), num_feat_extract_layers=3, num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=4, num_codevectors_per_group=4, codevector_dim=8, proj_codevector_dim=8, pad_token_id=3,
    apply_spec_augment=False, layerdrop=0.0, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0,
    feat_proj_dropout=0.0, final_dropout=0.0, attn_implementation="eager",
)
LARGE = dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True, num_hidden_layers=3)
VOCABULARY = ["E", "<s>", "</s>", "<pad>", "<unk>", "|", "A", "'", "T", "S"]
GRADIENTS = [
    "feature_extractor.conv_layers.0.conv.weight", "feature_extractor.conv_layers.0.layer_norm.weight",
    "feature_extractor.conv_layers.1.conv.weight", "feature_projection.projection.bias",
    "encoder.pos_conv_embed.conv.bias", "encoder.layer_norm.weight", "encoder.layers.0.attention.q_proj.weight",
    "encoder.layers.1.attention.out_proj.bias", "encoder.layers.0.layer_norm.bias",
    "encoder.layers.1.feed_forward.output_dense.weight", "encoder.layers.0.attention.rel_attn_embed.weight",
    "encoder.layers.1.attention.gru_rel_pos_linear.weight", "encoder.layers.1.attention.gru_rel_pos_const",
]


def old_names(folder):
    """Weight norm as it was written before PyTorch 2.1."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for new, old in [("original0", "weight_g"), ("original1", "weight_v")]:
        for name in [name for name in tensors if name.endswith(f"parametrizations.weight.{new}")]:
            tensors[name.replace(f"parametrizations.weight.{new}", old)] = tensors.pop(name)
    save_file(tensors, path, {"format": "pt"})


def heard(name, model, normalize=None, symbols=False, prefix=""):
    """`normalize=None` writes no preprocessor_config.json, and transformers then normalizes."""
    model = model.float().eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if path.endswith("weight.original0"):
                parameter.copy_(torch.rand_like(parameter) + 0.5)
            elif parameter.dim() == 1 or "gru_rel_pos_const" in path:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            elif "rel_attn_embed" in path:
                parameter.copy_(torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) * (0.5 if "lm_head" in path else 0.2))
    folder = OUT / name
    folder.mkdir(exist_ok=True)
    model.save_pretrained(folder)
    if name.startswith("hubert_base"):
        old_names(folder)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=normalize is not False)
    if normalize is not None:
        extractor.save_pretrained(folder)
    base = getattr(model, prefix) if prefix else model
    samples = [0.3 * torch.randn(n) + 0.05 for n in (520, 333)]
    values = [torch.tensor(extractor(s.numpy(), sampling_rate=16_000).input_values[0]) for s in samples]
    reference, texts, total, n = {}, [], 0.0, 0
    if symbols:
        with torch.no_grad():  # no symbol wins everywhere
            hidden = torch.cat([base(v[None]).last_hidden_state[0] for v in values])
            model.lm_head.bias.copy_(-(model.lm_head.weight @ hidden.mean(0)))
        model.save_pretrained(folder)
        (folder / "vocab.json").write_text(json.dumps({symbol: i for i, symbol in enumerate(VOCABULARY)}))
        tokenizer = Wav2Vec2CTCTokenizer(folder / "vocab.json")
        tokenizer.save_pretrained(folder)
    for i in range(2):
        output = base(values[i][None], output_hidden_states=True)
        hidden = output.last_hidden_state[0]
        reference[f"samples.{i}"], reference[f"input_values.{i}"] = samples[i], values[i]
        for layer, state in enumerate(output.hidden_states[:-1]):
            reference[f"hidden.{i}.{layer}"] = state[0].detach().clone()
        reference[f"last_hidden_state.{i}"] = hidden.detach().clone()
        if symbols:
            logits = model(values[i][None]).logits[0].detach().clone()
            reference[f"logits.{i}"] = logits
            said = logits.clone()
            said[:, [VOCABULARY.index(symbol) for symbol in ("<s>", "</s>", "<unk>")]] = -torch.inf
            texts.append(tokenizer.decode(said.argmax(-1)))
        total = total + hidden.square().sum()
        n += hidden.numel()
    if base.config.feat_extract_norm == "layer":
        padded = torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(v), dtype=torch.long) for v in values], batch_first=True)
        batched = base(padded, attention_mask=mask).last_hidden_state
        for i in range(2):
            reference[f"batched.{i}"] = batched[i, : len(reference[f"last_hidden_state.{i}"])].detach().clone()
    (total / n).backward()
    for path, parameter in base.named_parameters():
        if path in GRADIENTS and parameter.grad is not None:
            reference[f"gradient.{path}"] = parameter.grad.clone()
    if name == "hubert_base":
        frames = reference["hidden.0.1"].numpy()
        centers = frames[::4] + np.random.default_rng(1).normal(0, 0.3, frames[::4].shape).astype("f4")
        np.save(folder / "kmeans.npy", centers)
        distances = np.square(frames[:, None].astype("f8") - centers).sum(-1)
        reference["units.0"] = torch.from_numpy(distances.argmin(-1))
    if "wavlm" in name:
        published = WavLMAttention(8, 2, num_buckets=320, max_distance=800)
        reference["buckets"] = published._relative_positions_bucket(torch.arange(-1000, 1001))
    save_file({k: v.contiguous() for k, v in reference.items()}, folder / "reference.safetensors", VERSIONS)
    if symbols:
        (folder / "greedy.json").write_text(json.dumps(texts) + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name}: {size // 1024} kB", *texts)


torch.manual_seed(20_231)
whisper()
torch.manual_seed(20_232)
heard("wav2vec2_base", Wav2Vec2ForPreTraining(Wav2Vec2Config(**SMALL)), True, prefix="wav2vec2")
heard("wav2vec2_large", Wav2Vec2Model(Wav2Vec2Config(**SMALL | LARGE)), True)
heard("wav2vec2_ctc", Wav2Vec2ForCTC(Wav2Vec2Config(**SMALL)), True, symbols=True, prefix="wav2vec2")
heard("hubert_base", HubertModel(HubertConfig(**SMALL, feat_proj_layer_norm=False)))
heard("hubert_large", HubertModel(HubertConfig(**SMALL | LARGE | dict(num_conv_pos_embeddings=7))), True)
WAVLM = dict(num_buckets=16, max_bucket_distance=20)
heard("wavlm_base", WavLMModel(WavLMConfig(**SMALL, **WAVLM)), False)
heard("wavlm_large", WavLMModel(WavLMConfig(**SMALL | LARGE | WAVLM)), True)
