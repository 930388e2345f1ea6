//! Host-side data of speech language models: sound, text, manifests, batches and scores.
//!
//! Nothing here names a tensor type.
