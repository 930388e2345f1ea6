//! Looking into a model: where speech lies among the embeddings of what is said, and what became of the language model.
//!
//! ```text
//! geometry       many utterances with exact word times   how near vectors are to their tokens, pauses to the pad
//! layers         the same, at every depth                how alike speech and text are: CKA, retrieval of tokens
//! transport      one utterance                           the plan between its vectors and its tokens
//! picture        the plan                                as SVG
//! segments       one utterance                           where it is cut, and the nearest token of every vector
//! patch_segments one utterance                           where a model over text and units ends patches of it
//! lanes          the segments                            as SVG
//! forgetting     texts, before and after training        perplexity, divergence, choices of the almanac
//! misalignment   stories, spoken and written             the divergence of what is expected to follow
//! patches        stories, spoken                         how alike the patches of one word are, and of different ones
//! ```

mod base;
mod cka;
mod divergence;
mod forgetting;
mod geometry;
mod lanes;
mod layers;
mod misalignment;
mod patch_segments;
mod patches;
mod picture;
mod segments;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod transport;

use std::path::{Path, PathBuf};

use sandhi_nn::weights::host;

pub use self::{
    base::{Base, base, text_side},
    forgetting::{Almanac, Change, Corpus, Forgetting, TextRow, almanac, texts},
    geometry::{Content, Geometry, GeometryConfig, GeometryRow, Pauses, PromptPass, geometry},
    lanes::svg as lanes_svg,
    layers::{DepthRow, LayersRow, add_layers, layers},
    misalignment::{MisalignmentRow, SpeechConfig, add_misalignment, misalignment},
    patch_segments::patch_segments,
    patches::{Likeness, PatchesConfig, PatchesRow, add_patches, patches},
    picture::svg,
    segments::{Cuts, Nearest, Segmented, SegmentsRequest, VectorSpan, segments},
    transport::{Column, DepthPlan, TransportRequest, Transported, transport, transport_settings},
};
pub(crate) use self::{lanes::inline as inline_lanes, picture::inline, segments::log_mel};
use crate::{
    model::{self, ConnectorModel},
    pipeline,
    recipe::{ModelConfig, Recipe},
    sources,
};

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Speech cannot be made, read or encoded.
    #[error(transparent)]
    Sources(#[from] sources::Error),
    /// The token for no content is none, or its embedding has no direction.
    #[error("the pad {token:?}: {problem}")]
    Pad {
        /// The token.
        token: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There is a pad among the targets, and no token for it.
    #[error(
        "the pad is among the targets, and neither the model nor its recipe names one: name a token for it, or leave \
         the pad out"
    )]
    NoPad,
    /// Nothing is said.
    #[error("the model writes nothing to which speech could be transported: give what is said")]
    NoText,
    /// A depth that the language model does not have. The last block does not work on speech.
    #[error("depth {depth} is not below the {n_layers} blocks of the language model")]
    Depth {
        /// What was asked for.
        depth: usize,
        /// Blocks that there are.
        n_layers: usize,
    },
    /// Vectors have no times of their own.
    #[error(
        "this connector's vectors do not stand for equal times, which is what is looked at here"
    )]
    NotUniform,
    /// Settings that make no sense, named.
    #[error("{0}")]
    Settings(String),
    /// Nothing to transport, or too little to do so in order.
    #[error(
        "at depth {depth} {n_vectors} vectors cannot be transported to {n_tokens} tokens: expected at least one \
         vector, and in order one a token"
    )]
    Nothing {
        /// The depth.
        depth: usize,
        /// Vectors that there are.
        n_vectors: usize,
        /// Tokens that there are.
        n_tokens: usize,
    },
    /// The problem cannot be solved.
    #[error(transparent)]
    Transport(#[from] sandhi_align::transport::Error),
    /// A model cannot be read.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// A model without a language model.
    #[error("{name} only hears: expected a text or a connector model, which has a language model")]
    NoTextSide {
        /// Which model.
        name: String,
    },
    /// Nothing tells what a language model was before.
    #[error(
        "nothing tells what the language model was made from: name the model that it was before"
    )]
    NoBase,
    /// What a language model was before is in a folder that depends on where the recipe was.
    #[error(
        "the recipe beside the model says that its language model was {path}, from a folder that is not known: name the \
         model that it was before"
    )]
    RelativeBase {
        /// What the recipe says.
        path: PathBuf,
    },
    /// What a language model was before is not there any more.
    #[error(
        "the recipe beside the model says that its language model was {path}, which cannot be loaded from here: name \
         the model that it was before"
    )]
    Base {
        /// What the recipe says.
        path: String,
        /// Why not.
        source: Box<pipeline::Error>,
    },
    /// Two language models that do not take the same tokens.
    #[error("the language models cannot be compared token by token: {0}")]
    Vocabulary(String),
    /// A text file is none, or empty.
    #[error("{path}: {message}")]
    Corpus {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A document is longer than what a model is given at once.
    #[error(
        "{corpus}: \"{text}…\" has {n_tokens} tokens, expected at most {most} a document; cut it"
    )]
    Long {
        /// Its corpus.
        corpus: String,
        /// How it begins.
        text: String,
        /// Its tokens.
        n_tokens: usize,
        /// As many as there may be.
        most: usize,
    },
    /// A network without patches.
    #[error("the model's network is plain, expected one over patches")]
    NoPatches,
    /// A model that was trained on files of units.
    #[error("the model hears nothing: its units came in files, and no encoder makes them of sound")]
    Deaf,
    /// Vectors have no partners.
    #[error(
        "this connector's vectors stand for no time of their own and there is none a token, so that they cannot be \
         paired with what is said"
    )]
    Unpaired,
    /// The spectrogram cannot be drawn.
    #[error(transparent)]
    Report(#[from] crate::report::Error),
    /// The recipe beside a model is none.
    #[error("{path}: {message}")]
    Recipe {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

impl From<sandhi_data::text::Error> for Error {
    fn from(error: sandhi_data::text::Error) -> Self {
        Self::Sources(error.into())
    }
}

/// The recipe that a model was made from, if it lies beside it.
///
/// # Errors
///
/// [`Error::Recipe`] when it cannot be read.
pub fn recipe_of(model: &Path) -> Result<Option<Recipe>, Error> {
    let path = model.join("recipe.json");
    let wrong = |message: String| Error::Recipe { path: path.clone(), message };
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| wrong(e.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Longest sound that is drawn, in seconds.
pub const MAX_DRAWN_S: f64 = 60.0;

/// The token that stands for no content: the one that is named, else the one that the model compresses by, else that of
/// its recipe.
///
/// # Errors
///
/// [`Error::Pad`] when the vocabulary has no such token, or its embedding is zero.
pub fn pad(
    model: &ConnectorModel,
    recipe: Option<&Recipe>,
    named: Option<&str>,
) -> Result<Option<u32>, Error> {
    let text = &model.text;
    let of_recipe = recipe.and_then(|recipe| match &recipe.model {
        ModelConfig::Connector(config) => config.pad_token.as_deref(),
        _ => None,
    });
    let compressed_by = model.compression.and_then(|compression| compression.pad);
    let (id, token) = match (named, compressed_by, of_recipe) {
        (None, Some(id), _) => (Some(id), piece(model, id)),
        (Some(token), _, _) | (None, None, Some(token)) => {
            (text.chat.token(token), token.to_owned())
        }
        (None, None, None) => return Ok(None),
    };
    let wrong = |problem| Error::Pad { token: token.clone(), problem };
    let id = id.ok_or_else(|| wrong("the vocabulary has no such token"))?;
    if id as usize >= text.lm.n_tokens() {
        return Err(wrong("the language model has no embedding for it"));
    }
    if host(text.lm.embed(&[id])).iter().all(|&x| x == 0.0) {
        return Err(wrong("its embedding is zero and has no direction; name a trained one"));
    }
    Ok(Some(id))
}

/// How the vocabulary writes a token.
fn piece(model: &ConnectorModel, id: u32) -> String {
    model.text.chat.tokenizer().piece(id).unwrap_or_else(|| format!("token {id}"))
}
