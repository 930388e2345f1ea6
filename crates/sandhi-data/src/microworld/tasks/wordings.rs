//! The wordings of the instructions, and which of them speech training uses.

use super::Task;
use crate::rng::Stream;

/// So many wordings at the end of each task's list are held out of speech training.
pub const N_HELD_OUT_WORDINGS: usize = 3;

/// Which wordings an item may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wordings {
    /// Those that speech training uses.
    Training,
    /// Those that it never uses.
    HeldOut,
    /// All.
    All,
}

impl Wordings {
    /// Draws the index of a wording of `task` and puts its words together; nothing where nothing is asked.
    pub(in super::super) fn draw(self, task: Task, rng: &mut Stream) -> (usize, String) {
        let all = task.wordings();
        if all.is_empty() {
            return (0, String::new());
        }
        let n_training = all.len() - N_HELD_OUT_WORDINGS;
        let range = match self {
            Self::Training => 0..n_training,
            Self::HeldOut => n_training..all.len(),
            Self::All => 0..all.len(),
        };
        let wording = range.start + rng.below(range.len());
        let text = match task {
            Task::Translate { to } => all[wording].replace("{L}", to.name()),
            _ => all[wording].to_owned(),
        };
        (wording, text)
    }
}

impl Task {
    /// The wordings of the instruction, the held-out ones last; pairs have none. `{L}` stands for a language.
    #[rustfmt::skip]
    pub fn wordings(self) -> &'static [&'static str] {
        match self {
            Self::Transcribe => &[
                "Write down what you hear.", "Transcribe the speech.", "What is being said?", "Write the words of the speaker.", "Give the transcript.",
                "Type what the speaker says.", "Turn the speech into text.", "Repeat the sentence as text.",
                "Please note every word.", "What did the speaker say?", "Put the recording in writing.",
            ],
            Self::Translate { .. } => &[
                "Translate into {L}.", "Say it in {L}.", "Give the {L} translation.", "Write this in {L}.", "What is this in {L}?", "Put the sentence into {L}.",
                "Translate the speech into {L}.", "How do you say this in {L}?",
                "Turn this into {L}.", "Please write the {L} version.", "I only read {L}, so translate.",
            ],
            Self::FirstWord => &[
                "What is the first word?", "Say the first word.", "Give only the first word.", "Which word comes first?", "Write the first word.", "Repeat the first word.",
                "Name the first word of the sentence.", "Tell me the first word.",
                "How does it begin?", "Which word does the speaker start with?", "The first word, please.",
            ],
            Self::NamePerson => &[
                "Who is mentioned?", "Give the name of the person.", "Which person is mentioned?", "Write the name that you hear.", "Whose name do you hear?", "Name the person.",
                "Tell me who it is about.", "What is the name of the person?",
                "Who is this about?", "Find the name in the sentence.", "The name, please.",
            ],
            Self::LastWord => &[
                "What is the last word?", "Say the last word.", "Give only the last word.", "Which word comes last?", "Write the last word.", "Repeat the last word.",
                "Name the last word of the sentence.", "Tell me the last word.",
                "How does it end?", "Which word does the speaker end with?", "The last word, please.",
            ],
            Self::NamePlace => &[
                "Which place is mentioned?", "Name the place.", "Give the name of the place.", "Write the place that you hear.", "What place is mentioned?", "Tell me the place.",
                "What is the place in the sentence?", "Say which place it is.",
                "Where does it happen?", "Find the place in the sentence.", "The place, please.",
            ],
            Self::UpperCase => &[
                "Repeat in upper case.", "Write it in capital letters.", "Transcribe in capitals.", "Give the words in upper case.", "Write everything in capitals.", "Type it in capital letters.",
                "Repeat the sentence in capitals.", "Use only capital letters.",
                "Shout it in capitals.", "The transcript in upper case, please.", "Put it in big letters.",
            ],
            Self::AnswerQuestion => &[
                "Answer the question.", "Listen and answer.", "What is the answer?", "Give the answer.", "Give a short answer.", "Answer what the speaker asks.", "Reply to the question.",
                "Write the answer to the question.",
                "Please answer.", "Tell the speaker the answer.", "The answer in a few words, please.",
            ],
            Self::Dialogue => &[
                "Reply to the speaker.", "What do you say?", "Give a reply.", "Answer the speaker.", "Write your reply.", "Respond to the speaker.", "Say something in return.",
                "Continue the conversation.",
                "Please reply.", "How do you respond?", "Talk to the speaker.",
            ],
            Self::Continue => &[
                "Continue the story.", "What comes next?", "Write the next sentence.", "How does the story go on?", "Give the next sentence.", "Finish the story.", "End the story.",
                "Say how the story ends.",
                "Please go on.", "Tell the end of the story.", "Add one sentence.",
            ],
            Self::Biasing => &[
                "Transcribe the speech.", "Write down what you hear.", "Give the transcript.", "Type what the speaker says.", "Turn the speech into text.", "Write the words of the speaker.",
                "Repeat the sentence as text.", "What is being said?",
                "Please note every word.", "What did the speaker say?", "Put the recording in writing.",
            ],
            Self::FactChoice => &[
                "Choose the right answer.", "Which choice is right?", "Pick the right choice.", "Answer with one of the choices.", "Select the answer.", "Give the right choice.",
                "Which answer is right?", "Write the right answer.",
                "Please choose.", "What is true?", "Tell me which one is right.",
            ],
            Self::Swuggy | Self::Sblimp => &[],
        }
    }
}
