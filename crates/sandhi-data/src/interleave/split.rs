//! Documents that are longer than a context, in parts.
//!
//! ```text
//! document   B <t> a b c <s> 1 2 3 4 5 6 7 E           at most 7 tokens a part
//! parts      B <t> a b c
//!                        B <s> 1 2 3 4 5               cut ahead of a marker where there is one,
//!                                  B <s> 6 7 E         and within a block under its marker again
//! ```

use super::{Document, Error, SpeechSpan};
use crate::text::{JointVocabulary, Symbol};

/// Less holds no token behind begin and marker, once one is left for the end.
const LEAST: usize = 4;

/// Cuts a document into parts of at most so many tokens. Every token of it is in one part; what is added is a begin
/// and, where a part goes on within a block, the block's marker. A word that a cut divides is two spans, and begins in
/// the part in which it begins.
///
/// # Errors
///
/// [`Error::Context`] for fewer than four tokens, [`Error::Text`] for a token that is not of the vocabulary.
pub fn split(
    document: Document,
    vocabulary: &JointVocabulary,
    max_tokens: usize,
) -> Result<Vec<Document>, Error> {
    if max_tokens < LEAST {
        return Err(Error::Context { found: max_tokens, least: LEAST });
    }
    let symbols: Result<Vec<Symbol>, _> =
        document.ids.iter().map(|&id| vocabulary.known(id)).collect();
    let symbols = symbols?;
    let n_tokens = symbols.len();
    if n_tokens <= max_tokens {
        return Ok(vec![document]);
    }
    let is_marker = |at: usize| matches!(symbols[at], Symbol::Marker(_));
    let mut parts = Vec::new();
    let mut start = 0;
    while start < n_tokens {
        // What a part begins with that does not begin the document.
        let mut ids = Vec::with_capacity(max_tokens);
        if start > 0 {
            ids.push(vocabulary.begin());
            let marker = (0..start).rev().find(|&at| is_marker(at));
            ids.extend(marker.filter(|_| !is_marker(start)).map(|at| document.ids[at]));
        }
        let n_added = ids.len();
        let limit = start + max_tokens - n_added;
        let end = if limit >= n_tokens {
            n_tokens
        } else {
            // Begin and marker alone say nothing.
            let least = match start {
                0 => 3,
                _ if is_marker(start) => start + 2,
                _ => start + 1,
            };
            let marker = (least..=limit).rev().find(|&at| is_marker(at));
            // Nor does an end alone.
            marker.unwrap_or(if limit + 1 == n_tokens { limit - 1 } else { limit })
        };
        ids.extend_from_slice(&document.ids[start..end]);
        parts.push(part(&document, ids, start..end, n_added, &symbols));
        start = end;
    }
    Ok(parts)
}

/// The tokens of a range, behind so many that were added.
fn part(
    document: &Document,
    ids: Vec<u32>,
    range: std::ops::Range<usize>,
    n_added: usize,
    symbols: &[Symbol],
) -> Document {
    let moved = |at: usize| at - range.start + n_added;
    let span = |span: &SpeechSpan| {
        let start = span.tokens.start.max(range.start);
        let end = span.tokens.end.min(range.end);
        let tokens = moved(start)..moved(end.max(start));
        (start < end).then_some(SpeechSpan { tokens, word: span.word })
    };
    let words = document.words.iter().filter(|&&at| range.contains(&(at as usize)));
    let is_unit = |symbol: &&Symbol| matches!(symbol, Symbol::Unit(_));
    Document {
        ids,
        spans: document.spans.iter().filter_map(span).collect(),
        words: words.map(|&at| moved(at as usize) as u32).collect(),
        n_units: symbols[range.clone()].iter().filter(is_unit).count(),
    }
}
