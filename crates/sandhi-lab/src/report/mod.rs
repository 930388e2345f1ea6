//! The report of a run: one HTML file that holds everything, to be opened anywhere and kept.
//!
//! ```text
//! ReportData ─┬─ highlights, explanation       what was found, in words
//!             ├─ charts                        loss of every stage, listening gap        inline SVG
//!             ├─ parameters                    what was trained                          inline SVG
//!             ├─ results                       task × domain, with intervals             table
//!             └─ examples                      sound, spectrogram, words, answers,       PNG, WAV as data
//!                                              segments, transport                       inline SVG
//! ```
//!
//! No external resource, no script that anything depends on (a few lines move a play head), light
//! and dark after the reader's preference, readable without colors and by a screen reader.

mod chart;
mod data;
mod example;
mod html;
mod page;
mod parameters;
mod run;
mod scores;
mod spectrogram;

pub(crate) use data::base64_bytes;
pub use data::{Answer, Chart, Curve, Example, Highlight, LogMel, ParameterRow, ReportData, Word};
pub(crate) use html::{Text, metric_name, metric_unit, significant};
pub use page::{render_html, write_html};
pub(crate) use run::{BESIDE_TEXT, answers};
pub use run::{Run, Shown, of_run};
pub(crate) use spectrogram::{png, uri_of};

/// What can go wrong when a report is written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused; the cause is named as for a checkpoint.
    #[error(transparent)]
    File(#[from] crate::checkpoint::Error),
    /// A spectrogram whose sizes contradict each other.
    #[error("spectrogram of {title:?}: {n_values} values are not {n_frames} frames of {n_mels}")]
    LogMel {
        /// The example's title.
        title: String,
        /// How many values there are.
        n_values: usize,
        /// How many frames it claims.
        n_frames: usize,
        /// How many mel bands it claims.
        n_mels: usize,
    },
    /// A picture that could not be encoded.
    #[error("spectrogram of {title:?}: {source}")]
    Png {
        /// The example's title.
        title: String,
        /// What the encoder says.
        source: png::EncodingError,
    },
}
