use crate::model::PlannedTaskRow;
use std::ops::Range;

/// The most tasks on one page of a plan.
pub const PAGE_TASKS: usize = 1000;
/// The size of a full page, as JSON text in bytes; below the share of a row, so that only batches of large tasks leave
/// the table.
const PAGE_SIZE: usize = 60 * 1024;

/// What a task's JSON has around its type and parameters.
const ENVELOPE: usize = r#"{"type":"","parameters":},"#.len();

/// How many batches `tasks` travel in.
pub fn batch_count(tasks: u64, batch_size: u32) -> u64 {
    tasks.div_ceil(u64::from(batch_size))
}

/// The indices of a batch's tasks.
pub fn tasks_of_batch(batch: u64, tasks: u64, batch_size: u32) -> Range<u64> {
    let first = batch.saturating_mul(u64::from(batch_size)).min(tasks);
    first..first.saturating_add(u64::from(batch_size)).min(tasks)
}

/// A page of a plan being filled. Pages hold whole batches, so that a batch reads one page.
#[derive(Debug, Default)]
pub struct PageFill {
    tasks: Vec<PlannedTaskRow>,
    size: usize,
    size_before_batch: usize,
}

impl PageFill {
    /// Adds a task, and hands out the page if that filled it.
    pub fn add(&mut self, task: PlannedTaskRow, batch_size: u32) -> Option<Vec<PlannedTaskRow>> {
        self.size += task.task_type.len() + task.parameters.to_string().len() + ENVELOPE;
        self.tasks.push(task);
        if !self.tasks.len().is_multiple_of(batch_size as usize) {
            return None;
        }
        // The next batch is taken to be as large as this one.
        let batch = self.size - std::mem::replace(&mut self.size_before_batch, self.size);
        let full = self.tasks.len() + batch_size as usize > PAGE_TASKS || self.size + batch > PAGE_SIZE;
        full.then(|| std::mem::take(self).tasks)
    }

    /// Hands out the last page, if anything is on it.
    pub fn finish(self) -> Option<Vec<PlannedTaskRow>> {
        (!self.tasks.is_empty()).then_some(self.tasks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn batches_cover_every_task_once() {
        for (tasks, size) in [(0, 1), (1, 1), (1, 32), (32, 32), (33, 32), (1000, 7)] {
            let batches = batch_count(tasks, size);
            let covered: Vec<u64> = (0..batches).flat_map(|batch| tasks_of_batch(batch, tasks, size)).collect();
            assert_eq!(covered, (0..tasks).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_page_holds_whole_batches_and_no_more_than_its_share() {
        let mut fill = PageFill::default();
        let mut pages = Vec::new();
        for index in 0..5000 {
            let task = PlannedTaskRow { task_type: "t".to_owned(), parameters: json!({ "index": index }) };
            pages.extend(fill.add(task, 7));
        }
        pages.extend(fill.finish());
        assert_eq!(pages.iter().map(Vec::len).sum::<usize>(), 5000);
        for page in &pages[..pages.len() - 1] {
            assert_eq!(page.len() % 7, 0);
            assert!(page.len() <= PAGE_TASKS);
        }
    }

    #[test]
    fn a_page_of_whole_batches_stays_within_its_share() {
        let mut fill = PageFill::default();
        let task = PlannedTaskRow { task_type: "t".to_owned(), parameters: json!("x".repeat(200)) };
        let page = (0..1000).find_map(|_| fill.add(task.clone(), 100)).expect("a full page");
        assert_eq!(page.len(), 200);
        assert!(json!(page).to_string().len() <= PAGE_SIZE);
    }

    #[test]
    fn large_tasks_fill_a_page_sooner() {
        let mut fill = PageFill::default();
        let task = PlannedTaskRow { task_type: "t".to_owned(), parameters: json!("x".repeat(PAGE_SIZE)) };
        assert_eq!(fill.add(task, 1).map(|page| page.len()), Some(1));
    }
}
