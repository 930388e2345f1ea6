//! Which rule a document is patched by.
//!
//! ```text
//! P(aligned)   1 ────────╮
//!                         ╲                       curriculum: words at first, then units by their number, so that
//!              0           ╰────────────          nothing has to be aligned once training is over
//!              0        1/3 2/3        1          progress of training
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Aligned, Entropy, EntropyConfig, Granularity, Rule, Silence, Static, UnitEntropy};
use crate::rng::Stream;

/// How units are patched; `kind` tells the variants apart in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PatchingConfig {
    /// Patches of one size.
    Static(StaticConfig),
    /// Patches as long as words, in training and outside.
    Aligned(AlignedConfig),
    /// Either, drawn for every document of training.
    Mixed(MixedConfig),
    /// Words at first, then one size.
    Curriculum(CurriculumConfig),
    /// Patches that end where the next unit is uncertain.
    Entropy(EntropyConfig),
}

/// Patches of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticConfig {
    /// Units a patch: 4 at 25 Hz gives 6.25 patches a second. More make a shorter sequence of patches.
    pub size: usize,
}

/// Patches as long as words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlignedConfig {
    /// Whether a word is a patch, or each of its pieces.
    #[serde(default)]
    pub granularity: Granularity,
    /// Whether a silence is a patch, or goes to a word.
    #[serde(default)]
    pub silence: Silence,
}

/// Either, drawn for every document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixedConfig {
    /// Units of a static patch, as in [`StaticConfig`].
    pub size: usize,
    /// Share of documents whose patches are words.
    pub p_aligned: f64,
    /// As in [`AlignedConfig`].
    #[serde(default)]
    pub granularity: Granularity,
    /// As in [`AlignedConfig`].
    #[serde(default)]
    pub silence: Silence,
}

/// Words at first, then one size, in the first stage; later stages have patches of that size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurriculumConfig {
    /// Units of a static patch, as in [`StaticConfig`].
    pub size: usize,
    /// Share of the first stage up to which all patches are words.
    #[serde(default = "third")]
    pub aligned_until: f64,
    /// Share of it from which all patches are of one size; between the two, fewer and fewer are words.
    #[serde(default = "two_thirds")]
    pub static_from: f64,
    /// As in [`AlignedConfig`].
    #[serde(default)]
    pub granularity: Granularity,
    /// As in [`AlignedConfig`].
    #[serde(default)]
    pub silence: Silence,
}

fn third() -> f64 {
    1.0 / 3.0
}

fn two_thirds() -> f64 {
    2.0 / 3.0
}

impl PatchingConfig {
    /// What is wrong with the sizes and shares.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let (size, shares): (_, &[(&str, f64)]) = match self {
            Self::Static(config) => (config.size, &[]),
            Self::Aligned(_) => (1, &[]),
            Self::Mixed(config) => (config.size, &[("p_aligned", config.p_aligned)]),
            Self::Curriculum(config) => (
                config.size,
                &[("aligned_until", config.aligned_until), ("static_from", config.static_from)],
            ),
            Self::Entropy(config) => return config.problems(),
        };
        if size == 0 {
            problems.push("size is 0, expected 1 or more units a patch".to_owned());
        }
        for (name, share) in shares {
            if !(0.0..=1.0).contains(share) {
                problems.push(format!("{name} is {share}, expected a share from 0 to 1"));
            }
        }
        if let [(_, until), (_, from)] = shares
            && until > from
        {
            problems
                .push(format!("aligned_until is {until}, expected at most static_from, {from}"));
        }
        problems
    }

    /// What later stages than the first have: of a curriculum its size.
    pub fn finished(&self) -> Self {
        match self {
            Self::Curriculum(config) => Self::Static(StaticConfig { size: config.size }),
            Self::Static(_) | Self::Aligned(_) | Self::Mixed(_) | Self::Entropy(_) => self.clone(),
        }
    }

    /// The share of documents whose patches are words, at a share of a stage; outside training there is no progress,
    /// and only [`PatchingConfig::Aligned`] has such patches.
    pub fn p_aligned(&self, progress: Option<f64>) -> f64 {
        match (self, progress) {
            (Self::Aligned(_), _) => 1.0,
            (Self::Static(_) | Self::Entropy(_), _) | (_, None) => 0.0,
            (Self::Mixed(config), Some(_)) => config.p_aligned,
            (Self::Curriculum(config), Some(progress)) => {
                let (until, from) = (config.aligned_until, config.static_from);
                if progress < until {
                    1.0
                } else if progress < from {
                    (from - progress) / (from - until)
                } else {
                    0.0
                }
            }
        }
    }

    /// Units of a static patch, where there are such patches.
    pub fn size(&self) -> Option<usize> {
        match self {
            Self::Static(config) => Some(config.size),
            Self::Aligned(_) | Self::Entropy(_) => None,
            Self::Mixed(config) => Some(config.size),
            Self::Curriculum(config) => Some(config.size),
        }
    }

    /// The rule by which patches are words, where it has such patches; else that of words and silences.
    pub fn words(&self) -> Aligned {
        let (granularity, silence) = match self {
            Self::Static(_) | Self::Entropy(_) => (Granularity::default(), Silence::default()),
            Self::Aligned(config) => (config.granularity, config.silence),
            Self::Mixed(config) => (config.granularity, config.silence),
            Self::Curriculum(config) => (config.granularity, config.silence),
        };
        Aligned::new(granularity, silence)
    }

    /// Whether the rule of a document is drawn anew at every reading.
    pub fn is_drawn(&self) -> bool {
        match self {
            Self::Mixed(_) | Self::Curriculum(_) => true,
            Self::Static(_) | Self::Aligned(_) | Self::Entropy(_) => false,
        }
    }

    /// Whether outside training it is known of what is not said yet where its patches end.
    pub fn is_known_in_use(&self) -> bool {
        match self {
            Self::Static(_) | Self::Mixed(_) | Self::Curriculum(_) | Self::Entropy(_) => true,
            Self::Aligned(_) => false,
        }
    }
}

/// How units are patched, with what that takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Patching {
    config: PatchingConfig,
    entropy: Option<Arc<UnitEntropy>>,
}

impl Patching {
    /// By a configuration, and the entropies of units where it asks for them.
    ///
    /// # Panics
    ///
    /// When it asks for entropies and there are none.
    pub fn new(config: PatchingConfig, entropy: Option<Arc<UnitEntropy>>) -> Self {
        let is_asked = matches!(config, PatchingConfig::Entropy(_));
        assert!(entropy.is_some() || !is_asked, "patches by entropy need entropies");
        Self { config, entropy: entropy.filter(|_| is_asked) }
    }

    /// As [`PatchingConfig::finished`].
    pub fn finished(&self) -> Self {
        Self { config: self.config.finished(), entropy: self.entropy.clone() }
    }

    /// What is asked for.
    pub fn config(&self) -> &PatchingConfig {
        &self.config
    }

    /// Entropies of units, where patches end by them.
    pub fn entropy(&self) -> Option<&Arc<UnitEntropy>> {
        self.entropy.as_ref()
    }

    /// The rule of a document: at a share of training, or outside where there is none. Draws once, whatever the kind.
    pub fn rule(&self, progress: Option<f64>, stream: &mut Stream) -> Rule {
        let is_aligned = stream.chance(self.config.p_aligned(progress));
        match (&self.entropy, self.config.size().filter(|_| !is_aligned)) {
            (Some(learned), _) => Rule::Entropy(Entropy::new(learned.clone())),
            (None, Some(size)) => Rule::Static(Static::new(size)),
            (None, None) => Rule::Aligned(self.config.words()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> PatchingConfig {
        serde_json::from_str(json).unwrap()
    }

    fn share(config: &PatchingConfig, progress: Option<f64>) -> f64 {
        let patching = Patching::new(config.clone(), None);
        let mut stream = Stream::named(1, "patching");
        let n = 4_000;
        let aligned =
            (0..n).filter(|_| matches!(patching.rule(progress, &mut stream), Rule::Aligned(_)));
        aligned.count() as f64 / f64::from(n)
    }

    #[test]
    fn a_curriculum_goes_from_words_to_one_size() {
        let config = parse(r#"{"kind": "curriculum", "size": 4}"#);
        for (progress, expected) in
            [(0.0, 1.0), (0.3, 1.0), (0.5, 0.5), (0.6, 0.2), (0.7, 0.0), (1.0, 0.0)]
        {
            // Between, (2/3 - x) / (1/3).
            let p = config.p_aligned(Some(progress));
            assert!((p - expected).abs() < 1e-12, "{p} at {progress}");
            // 4,000 draws: the standard deviation is 0.008 at most.
            let drawn = share(&config, Some(progress));
            assert!((drawn - expected).abs() < 0.04, "{drawn} at {progress}");
        }
        let step =
            parse(r#"{"kind": "curriculum", "size": 4, "aligned_until": 0.5, "static_from": 0.5}"#);
        assert_eq!([0.49, 0.5].map(|at| step.p_aligned(Some(at))), [1.0, 0.0]);
    }

    /// A second stage does not begin with words again; what is no curriculum stays as it is.
    #[test]
    fn later_stages_go_on_with_the_size_of_a_curriculum() {
        let curriculum = Patching::new(parse(r#"{"kind": "curriculum", "size": 4}"#), None);
        let later = curriculum.finished();
        assert_eq!(later.config(), &parse(r#"{"kind": "static", "size": 4}"#));
        assert!(curriculum.config().is_drawn() && !later.config().is_drawn());
        for json in [
            r#"{"kind": "aligned"}"#,
            r#"{"kind": "static", "size": 3}"#,
            r#"{"kind": "mixed", "size": 4, "p_aligned": 0.5}"#,
            r#"{"kind": "entropy", "units_per_patch": 4.0}"#,
        ] {
            assert_eq!(parse(json).finished(), parse(json));
        }
    }

    #[test]
    fn outside_training_patches_are_of_one_size() {
        for json in [
            r#"{"kind": "static", "size": 4}"#,
            r#"{"kind": "mixed", "size": 4, "p_aligned": 1.0}"#,
            r#"{"kind": "curriculum", "size": 4}"#,
        ] {
            let rule = Patching::new(parse(json), None).rule(None, &mut Stream::new(1));
            assert_eq!(rule, Rule::Static(Static::new(4)));
        }
        let aligned = parse(r#"{"kind": "aligned", "silence": "merged"}"#);
        let expected = Rule::Aligned(Aligned::new(Granularity::Word, Silence::Merged));
        let aligned = Patching::new(aligned, None);
        assert_eq!(aligned.rule(None, &mut Stream::new(1)), expected);
        let entropy = parse(r#"{"kind": "entropy", "units_per_patch": 4.0}"#);
        let learned = UnitEntropy::learn(
            &crate::units::tests::header(2),
            &[[0, 1]],
            match &entropy {
                PatchingConfig::Entropy(config) => config,
                _ => unreachable!(),
            },
        );
        let learned = Arc::new(learned.unwrap());
        let expected = Rule::Entropy(Entropy::new(learned.clone()));
        let entropy = Patching::new(entropy, Some(learned));
        for progress in [None, Some(0.0), Some(1.0)] {
            assert_eq!(entropy.rule(progress, &mut Stream::new(1)), expected);
        }
    }

    #[test]
    fn a_mixture_draws_its_share() {
        let config =
            parse(r#"{"kind": "mixed", "size": 4, "p_aligned": 0.3, "granularity": "piece"}"#);
        assert!((share(&config, Some(0.9)) - 0.3).abs() < 0.04);
    }

    #[test]
    fn problems_name_the_field() {
        let problems = |json: &str| parse(json).problems();
        assert_eq!(problems(r#"{"kind": "aligned"}"#), [""; 0]);
        assert_eq!(
            problems(r#"{"kind": "mixed", "size": 0, "p_aligned": -0.5}"#),
            [
                "size is 0, expected 1 or more units a patch",
                "p_aligned is -0.5, expected a share from 0 to 1"
            ]
        );
        assert_eq!(
            problems(r#"{"kind": "curriculum", "size": 4, "aligned_until": 0.8}"#),
            ["aligned_until is 0.8, expected at most static_from, 0.6666666666666666"]
        );
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error =
            |json: &str| serde_json::from_str::<PatchingConfig>(json).unwrap_err().to_string();
        let found = error(r#"{"kind": "static", "size": 4, "silence": "merged"}"#);
        assert!(found.contains("unknown field `silence`"), "{found}");
        let found = error(r#"{"kind": "syllables"}"#);
        assert!(found.contains("unknown variant `syllables`"), "{found}");
    }
}
