//! Reading symbols off a matrix.
//!
//! ```text
//! best symbol of each frame   _ h h i i _ i _     repeats join, blanks go
//! read                          h   i     i
//! ```

use super::{Error, n_frames};

/// The best symbol of each frame, repeats joined and blanks dropped.
///
/// # Shapes
///
/// - `logits`: `[n_frames, n_symbols]`, normalized or not
///
/// # Errors
///
/// [`Error::Shape`] when `logits` is not whole rows.
pub fn greedy(logits: &[f32], n_symbols: usize, blank: u32) -> Result<Vec<u32>, Error> {
    n_frames(logits, n_symbols)?;
    let mut symbols = Vec::new();
    let mut last = blank;
    for row in logits.chunks_exact(n_symbols) {
        let mut best = 0;
        for (symbol, value) in row.iter().enumerate() {
            if *value > row[best] {
                best = symbol;
            }
        }
        let best = best as u32;
        if best != blank && best != last {
            symbols.push(best);
        }
        last = best;
    }
    Ok(symbols)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits that make `path` all but certain.
    fn sure(path: &[usize], n_symbols: usize) -> Vec<f32> {
        let mut logits = vec![0.0; path.len() * n_symbols];
        for (t, &symbol) in path.iter().enumerate() {
            logits[t * n_symbols + symbol] = 20.0;
        }
        logits
    }

    #[test]
    fn repeats_join_unless_a_blank_parts_them() {
        let path = [1, 1, 0, 1, 2, 2, 0, 0, 2];
        assert_eq!(greedy(&sure(&path, 3), 3, 0).unwrap(), [1, 1, 2, 2]);
        assert_eq!(greedy(&[], 3, 0).unwrap(), [0_u32; 0]);
    }
}
