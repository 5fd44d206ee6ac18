//! Responses that clients may come back to, in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::api::openai::Kept;

/// Most responses that are kept at a time.
const MAX_RESPONSES: usize = 1024;
/// Most bytes of all of them together.
const MAX_BYTES: usize = 64 << 20;

/// Where there is no room, those that nobody has asked for the longest go first.
#[derive(Debug)]
pub(super) struct ResponsesStore {
    responses: Mutex<Responses>,
    max_responses: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Responses {
    by_id: HashMap<String, Entry>,
    bytes: usize,
    /// Counts the uses.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    kept: Arc<Kept>,
    used: u64,
}

impl Default for ResponsesStore {
    fn default() -> Self {
        Self { responses: Mutex::default(), max_responses: MAX_RESPONSES, max_bytes: MAX_BYTES }
    }
}

impl ResponsesStore {
    /// One that is too large for all of the store is not kept.
    pub fn keep(&self, kept: Kept) {
        if kept.bytes() > self.max_bytes {
            return;
        }
        self.with(|responses| {
            responses.clock += 1;
            responses.bytes += kept.bytes();
            let entry = Entry { used: responses.clock, kept: Arc::new(kept) };
            responses.by_id.insert(entry.kept.id().to_owned(), entry);
            while responses.by_id.len() > self.max_responses || responses.bytes > self.max_bytes {
                let oldest = responses.by_id.values().min_by_key(|entry| entry.used);
                let Some(id) = oldest.map(|entry| entry.kept.id().to_owned()) else { return };
                responses.remove(&id);
            }
        });
    }

    pub fn get(&self, id: &str) -> Option<Arc<Kept>> {
        self.with(|responses| {
            responses.clock += 1;
            let entry = responses.by_id.get_mut(id)?;
            entry.used = responses.clock;
            Some(Arc::clone(&entry.kept))
        })
    }

    /// Whether it was there.
    pub fn remove(&self, id: &str) -> bool {
        self.with(|responses| responses.remove(id))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Responses) -> T) -> T {
        work(&mut self.responses.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Responses {
    fn remove(&mut self, id: &str) -> bool {
        let removed = self.by_id.remove(id);
        self.bytes -= removed.as_ref().map_or(0, |entry| entry.kept.bytes());
        removed.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;

    use super::{Kept, Responses, ResponsesStore};

    fn store(max_responses: usize, max_bytes: usize) -> ResponsesStore {
        ResponsesStore { responses: Mutex::new(Responses::default()), max_responses, max_bytes }
    }

    fn response(id: &str, bytes: usize) -> Kept {
        let empty = Kept::new(id, &json!(""), &[]).bytes();
        let kept = Kept::new(id, &json!("x".repeat(bytes - empty)), &[]);
        assert_eq!(kept.bytes(), bytes);
        kept
    }

    fn there(store: &ResponsesStore, ids: &[&str]) -> Vec<bool> {
        ids.iter().map(|id| store.with(|responses| responses.by_id.contains_key(*id))).collect()
    }

    #[test]
    fn the_one_that_nobody_asked_for_the_longest_goes_first() {
        let store = store(2, 1000);
        store.keep(response("a", 10));
        store.keep(response("b", 10));
        assert!(store.get("a").is_some());
        store.keep(response("c", 10));
        assert_eq!(there(&store, &["a", "b", "c"]), [true, false, true]);
        assert!(store.remove("a") && !store.remove("a") && !store.remove("b"));
        assert_eq!(store.with(|responses| responses.bytes), 10);
    }

    #[test]
    fn bytes_are_bounded_and_what_is_larger_is_not_kept() {
        let store = store(100, 100);
        for id in ["a", "b", "c"] {
            store.keep(response(id, 40));
        }
        assert_eq!(there(&store, &["a", "b", "c"]), [false, true, true]);
        // Whatever is there already must not go for one that cannot stay.
        store.keep(response("d", 101));
        assert_eq!(there(&store, &["b", "c", "d"]), [true, true, false]);
        assert_eq!(store.with(|responses| responses.bytes), 80);
    }
}
