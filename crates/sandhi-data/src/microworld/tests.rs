//! Properties of the whole corpus.
use super::*;

#[test]
fn every_task_has_items_in_each_language_it_speaks() {
    let world = Microworld::new(1);
    for task in Task::ALL {
        for language in Language::ALL {
            let items = world.items(task, language, Split::Dev, Style::Seen, 20);
            assert_eq!(
                items.len(),
                if task.speaks(language) { 20 } else { 0 },
                "{task} {language}"
            );
            assert!(items.iter().all(|item| item.split == Split::Dev && !item.held_out_wording));
        }
    }
}
