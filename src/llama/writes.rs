//! Who may write to a model, and what waits for that.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// One writer at a time. What is discarded while there is one is freed by it, so that discarding never waits.
#[derive(Debug)]
pub(super) struct Writes<T> {
    writing: Mutex<()>,
    discarded: Mutex<Vec<T>>,
    free: fn(T),
}

impl<T> Writes<T> {
    /// `free` is called by one thread at a time, and by none while there is a writer.
    pub fn new(free: fn(T)) -> Self {
        Self { writing: Mutex::new(()), discarded: Mutex::new(Vec::new()), free }
    }

    /// Waits for its turn.
    pub fn begin(&self) -> Writing<'_, T> {
        Writing { writes: self, turn: Some(self.writing.lock().unwrap_or_else(PoisonError::into_inner)) }
    }

    /// Frees it now, or has the writer do so that there is.
    pub fn discard(&self, value: T) {
        self.lock().push(value);
        self.sweep();
    }

    fn sweep(&self) {
        // Whoever discards during a sweep cannot have its turn, and counts on another look.
        while !self.lock().is_empty() {
            let _turn = match self.writing.try_lock() {
                Ok(turn) => turn,
                Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let all = std::mem::take(&mut *self.lock());
            all.into_iter().for_each(self.free);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.discarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A writer's turn.
#[derive(Debug)]
pub(super) struct Writing<'a, T> {
    writes: &'a Writes<T>,
    turn: Option<MutexGuard<'a, ()>>,
}

impl<T> Drop for Writing<'_, T> {
    fn drop(&mut self) {
        self.turn = None;
        self.writes.sweep();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread::scope;

    use super::Writes;

    type Freed = &'static Mutex<Vec<u32>>;

    fn writes() -> Writes<(Freed, u32)> {
        Writes::new(|(freed, number)| freed.lock().expect("the list").push(number))
    }

    #[test]
    fn what_is_discarded_during_a_write_is_freed_after_it_and_waits_for_nobody() {
        static FREED: Mutex<Vec<u32>> = Mutex::new(Vec::new());
        let (writes, freed) = (writes(), || FREED.lock().expect("the list").clone());
        writes.discard((&FREED, 1));
        assert_eq!(freed(), [1], "nobody writes");
        let writing = writes.begin();
        // It would never come back from here if it waited.
        writes.discard((&FREED, 2));
        assert_eq!(freed(), [1]);
        drop(writing);
        assert_eq!(freed(), [1, 2]);
    }

    #[test]
    fn none_is_forgotten_where_many_write_and_discard() {
        static FREED: Mutex<Vec<u32>> = Mutex::new(Vec::new());
        let writes = writes();
        scope(|scope| {
            for thread in 0..4 {
                let writes = &writes;
                scope.spawn(move || {
                    for number in 0..500 {
                        if number % 3 == 0 {
                            drop(writes.begin());
                        }
                        writes.discard((&FREED, 500 * thread + number));
                    }
                });
            }
        });
        let mut freed = FREED.lock().expect("the list").clone();
        freed.sort_unstable();
        assert_eq!(freed, (0..2000).collect::<Vec<_>>());
    }
}
