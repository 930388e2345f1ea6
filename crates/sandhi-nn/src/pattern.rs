//! Choosing parameters and layers by name.
//!
//! ```text
//! connector                                     a prefix that ends at a dot: connector.…, not connectors.…
//! language_model.model.layers.*.self_attn.q_proj     `*` is any run of characters, dots included
//! *lora_*                                       so this is every name with `lora_` in it
//! !encoder.layers.0                             takes away again; of several entries the last decides
//! ```
//!
//! A pattern with `*` ends at a dot as well, so that it may name a layer or a single parameter.

/// Whether the entry, without its `!`, covers a name.
pub fn covers(entry: &str, name: &str) -> bool {
    let pattern = entry.strip_prefix('!').unwrap_or(entry);
    glob(pattern.as_bytes(), name.as_bytes())
}

/// Whether the last entry that covers a name gives it and does not take it away.
pub fn selects(entries: &[String], name: &str) -> bool {
    let last = entries.iter().rev().find(|entry| covers(entry, name));
    last.is_some_and(|entry| !entry.starts_with('!'))
}

/// Whether a pattern fits a name, or a beginning of it that a dot follows. Where the rest does not fit, the
/// last `*` takes one character more; earlier ones never need to.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Behind the last `*`, and where the name goes on when it has taken one character more.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p == pattern.len() && (n == name.len() || name[n] == b'.') {
            return true;
        }
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, n));
            p += 1;
        } else if n < name.len() && pattern.get(p) == Some(&name[n]) {
            p += 1;
            n += 1;
        } else {
            match star {
                Some((after, taken)) if taken < name.len() => {
                    star = Some((after, taken + 1));
                    p = after;
                    n = taken + 1;
                }
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(entries: &[&str], name: &str, expected: bool) {
        let owned: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
        assert_eq!(selects(&owned, name), expected, "{entries:?} on {name}");
    }

    #[test]
    fn prefixes_end_at_dots() {
        check(&["connector"], "connector.norm.weight", true);
        check(&["connector"], "connector", true);
        check(&["connector.norm.weight"], "connector.norm.weight", true);
        check(&["connector"], "connectors.norm.weight", false);
        check(&["connector.norm.w"], "connector.norm.weight", false);
        check(&["connector.norm.weight.more"], "connector.norm.weight", false);
        check(&["norm"], "connector.norm.weight", false);
        check(&[""], "connector", false);
        check(&[], "connector", false);
    }

    #[test]
    fn stars_stand_for_any_characters() {
        let name = "language_model.model.layers.12.self_attn.q_proj.weight";
        for pattern in [
            "*",
            "language_model.model.layers.*.self_attn.q_proj",
            "language_model.*.q_proj",
            "*.q_proj.weight",
            "*.self_attn",
            "language_model.*.layers.1*",
            "**q_*j",
            "language_model*",
            "*.weight*",
        ] {
            check(&[pattern], name, true);
        }
        for pattern in ["*.k_proj", "model.*.q_proj", "language_model.*.q_pro", "*.layers.1", "*.q"]
        {
            check(&[pattern], name, false);
        }
        // `q_proj` stands twice and only the second is followed by what is asked for.
        check(&["*q_proj.lora_a"], "a.q_projs.q_proj.lora_a.weight", true);
        check(&["*lora_*"], "model.layers.0.mlp.up_proj.lora_b.weight", true);
        check(&["*lora_*"], "model.layers.0.mlp.up_proj.weight", false);
    }

    #[test]
    fn the_last_entry_that_covers_a_name_decides() {
        let entries = ["*", "!encoder", "encoder.layers.3", "!*.bias"];
        check(&entries, "connector.norm.weight", true);
        check(&entries, "encoder.layers.2.norm.weight", false);
        check(&entries, "encoder.layers.3.norm.weight", true);
        check(&entries, "encoder.layers.3.norm.bias", false);
        check(&["!encoder"], "connector.norm.weight", false);
    }
}
