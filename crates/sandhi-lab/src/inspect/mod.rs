//! Looking into a connector: where speech lies among the embeddings of what is said.
//!
//! ```text
//! geometry    many utterances with exact word times     how near vectors are to their tokens, pauses to the pad
//! transport   one utterance                             the plan between its vectors and its tokens
//! picture     the plan                                  as SVG
//! ```

mod geometry;
mod picture;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod transport;

use std::path::{Path, PathBuf};

use sandhi_nn::weights::host;

pub use self::geometry::{
    Content, Geometry, GeometryConfig, GeometryRow, Pauses, PromptPass, geometry,
};
pub(crate) use self::picture::inline;
pub use self::{
    picture::svg,
    transport::{Column, DepthPlan, TransportRequest, Transported, transport, transport_settings},
};
use crate::{
    model::ConnectorModel,
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
