//! `[stage.loss.transport]`: optimal transport between speech vectors and what is said (OTReg).

use sandhi_align::transport::{
    Exact, Loss, Monotone, Newton, SemiRelaxed, Sinkhorn, Solver, Sparsity, Through, Unbalanced,
};
use serde::{Deserialize, Serialize};

/// The transport loss of a connector's stage: OTReg (Xu et al. 2025, [arXiv 2508.08131](https://arxiv.org/abs/2508.08131)).
/// The published method also merges targets and has a weight of sparsity; their values are not known, and neither has
/// a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransportConfig {
    /// Weight beside the cross-entropy: the paper's lambda_OT.
    pub weight: f64,
    /// How plans are found.
    pub solver: SolverConfig,
    /// Which term makes the rows of the plan decided.
    pub sparsity: SparsityKind,
    /// Its weight beside the cost: the paper's lambda_spr, whose value is not known.
    pub sparsity_weight: f64,
    /// What moves with the costs in the backward pass.
    pub gradient: GradientKind,
    /// Tokens of a transcript whose embeddings have a larger cosine are one target; equal tokens are. Every token
    /// is a target of its own where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_targets: Option<f64>,
    /// How much of the speech goes to the pad's embedding, the place for what carries no content.
    pub pad: PadMass,
    /// How much of it goes to each of the other targets.
    pub masses: TargetMass,
    /// Weight of a prior that keeps the order of speech and tokens; 0 for none.
    pub order_weight: f64,
    /// Depths of the language model at which speech is compared to text: 0 is its input, `k` what leaves block `k`.
    pub depths: Vec<usize>,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            weight: 0.3,
            solver: SolverConfig::default(),
            sparsity: SparsityKind::default(),
            sparsity_weight: 0.0,
            gradient: GradientKind::default(),
            merge_targets: None,
            pad: PadMass::default(),
            masses: TargetMass::default(),
            order_weight: 0.0,
            depths: vec![0],
        }
    }
}

/// How plans are found: [`sandhi_align::transport`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SolverConfig {
    /// With entropy, by Newton's method; the same plan as Sinkhorn's, sooner.
    Newton {
        /// Weight of the entropy; costs are 0 to 2.
        epsilon: f64,
    },
    /// With entropy, by Sinkhorn's sweeps.
    Sinkhorn {
        /// Weight of the entropy.
        epsilon: f64,
    },
    /// The linear program.
    Exact {},
    /// Without a condition on the targets.
    SemiRelaxed {
        /// Weight of the entropy.
        epsilon: f64,
    },
    /// With a penalty on the targets.
    Unbalanced {
        /// Weight of the entropy.
        epsilon: f64,
        /// Weight of the penalty.
        tau: f64,
    },
    /// In the order of the tokens; speech may rest on the pad between them.
    Monotone {},
}

impl Default for SolverConfig {
    fn default() -> Self {
        Self::Newton { epsilon: 0.05 }
    }
}

/// Two readings of the term that makes rows decided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SparsityKind {
    /// Mean entropy of the rows, as a share of the largest.
    #[default]
    Entropy,
    /// One minus the mean of the rows' largest shares.
    Peak,
}

/// What moves with the costs in the backward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradientKind {
    /// The plan, by the implicit function theorem: the published method.
    #[default]
    Implicit,
    /// The loss is the regularized minimum, of which the plan is the gradient.
    Envelope,
    /// The plan is held fixed.
    Detached,
}

/// The mass of the pad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PadMass {
    /// There is no pad among the targets.
    None,
    /// As much as another target, on average: the published method.
    #[default]
    Target,
    /// This share of an utterance.
    Share(f64),
    /// The utterance's mean posterior of the blank, by the encoder's CTC head.
    Blank,
}

/// The masses of the tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetMass {
    /// Every target as much: the published method.
    #[default]
    Uniform,
    /// By how often a token is said.
    Counts,
    /// By how long it is in writing, summed over how often it is said.
    Characters,
    /// By how long it is said, as word times tell, split among a word's tokens by their letters.
    Durations,
}

impl TransportConfig {
    /// The solver with its settings.
    pub fn solver(&self) -> Solver {
        match self.solver {
            SolverConfig::Newton { epsilon } => {
                Solver::Newton(Newton { epsilon, ..Newton::default() })
            }
            SolverConfig::Sinkhorn { epsilon } => {
                Solver::Sinkhorn(Sinkhorn { epsilon, ..Sinkhorn::default() })
            }
            SolverConfig::Exact {} => Solver::Exact(Exact::default()),
            SolverConfig::SemiRelaxed { epsilon } => Solver::SemiRelaxed(SemiRelaxed { epsilon }),
            SolverConfig::Unbalanced { epsilon, tau } => {
                Solver::Unbalanced(Unbalanced { epsilon, tau, ..Unbalanced::default() })
            }
            SolverConfig::Monotone {} => Solver::Monotone(Monotone { pad: self.has_pad() }),
        }
    }

    /// What is asked of the plans.
    pub fn loss(&self) -> Loss {
        Loss {
            sparsity: match self.sparsity {
                SparsityKind::Entropy => Sparsity::Entropy,
                SparsityKind::Peak => Sparsity::Peak,
            },
            weight: self.sparsity_weight,
            through: match self.gradient {
                GradientKind::Implicit => Through::Implicit,
                GradientKind::Envelope => Through::Envelope,
                GradientKind::Detached => Through::Detached,
            },
        }
    }

    /// The depths behind the first block.
    pub fn inner_depths(&self) -> impl Iterator<Item = usize> {
        self.depths.iter().copied().filter(|&depth| depth > 0)
    }

    /// Whether the pad's embedding is a target.
    pub fn has_pad(&self) -> bool {
        self.pad != PadMass::None
    }

    /// What is wrong with the settings, as sentences that name the fields.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut need = |holds: bool, text: String| problems.extend((!holds).then_some(text));
        let weights = [
            ("weight", self.weight),
            ("sparsity_weight", self.sparsity_weight),
            ("order_weight", self.order_weight),
        ];
        for (name, value) in weights {
            let fine = value.is_finite() && value >= 0.0;
            need(fine, format!("{name} is {value}, expected a number of at least 0"));
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let (mut settings, mut has_entropy) = (Vec::new(), true);
        match self.solver {
            SolverConfig::Newton { epsilon }
            | SolverConfig::Sinkhorn { epsilon }
            | SolverConfig::SemiRelaxed { epsilon } => settings.push(("epsilon", epsilon)),
            SolverConfig::Unbalanced { epsilon, tau } => {
                settings.extend([("epsilon", epsilon), ("tau", tau)]);
            }
            SolverConfig::Exact {} | SolverConfig::Monotone {} => has_entropy = false,
        }
        for (name, value) in settings {
            need(positive(value), format!("solver.{name} is {value}, expected a number above 0"));
        }
        let moves = has_entropy && self.gradient != GradientKind::Detached;
        need(
            self.sparsity_weight == 0.0 || moves,
            "sparsity_weight has no gradient where the plan does not move: expected 0 with a detached plan or a \
             solver without entropy"
                .into(),
        );
        if let Some(merge) = self.merge_targets {
            need(
                (-1.0..=1.0).contains(&merge),
                format!("merge_targets is {merge}, expected a cosine, -1 to 1"),
            );
            let ordered =
                self.order_weight > 0.0 || matches!(self.solver, SolverConfig::Monotone {});
            need(
                !ordered,
                "merge_targets puts equal tokens together, which have no place in an order: leave it out with \
                 order_weight or the monotone solver"
                    .into(),
            );
        }
        need(
            self.masses != TargetMass::Counts || self.merge_targets.is_some(),
            "masses by counts are uniform where every token is a target of its own: expected merge_targets, e.g. 1.0"
                .into(),
        );
        if let PadMass::Share(share) = self.pad {
            let fine = (0.0..1.0).contains(&share);
            need(fine, format!("pad.share is {share}, expected 0 to below 1"));
        }
        let given = self.masses != TargetMass::Uniform
            || matches!(self.pad, PadMass::Share(_) | PadMass::Blank);
        need(
            !(given && matches!(self.solver, SolverConfig::Monotone {})),
            "masses and the pad's share play no part with the monotone solver, which lets the order decide: leave \
             them out"
                .into(),
        );
        need(!self.depths.is_empty(), "depths is empty, expected at least one, e.g. [0]".into());
        let mut sorted = self.depths.clone();
        sorted.sort_unstable();
        sorted.dedup();
        need(sorted.len() == self.depths.len(), format!("depths {:?} has one twice", self.depths));
        problems
    }
}
