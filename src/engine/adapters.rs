//! Which LoRA adapters a sequence is computed with.

use std::any::Any;
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A loaded adapter as the engine knows it: a number that no other one ever has, and what keeps it loaded.
///
/// A file that is loaded again is another adapter: what was computed with the old one is not shared with the new.
#[derive(Clone)]
pub struct EngineAdapter(Arc<Inner>);

struct Inner {
    id: u64,
    unloaded: AtomicBool,
    weights: Box<dyn Any + Send + Sync>,
}

impl EngineAdapter {
    /// `weights` is what the engine computes with: llama.cpp's adapter, or what a simulation's rule looks at.
    #[must_use]
    pub fn new(weights: impl Any + Send + Sync) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Inner { id, unloaded: AtomicBool::new(false), weights: Box::new(weights) }))
    }

    pub(super) fn id(&self) -> u64 {
        self.0.id
    }

    fn weights<T: Any>(&self) -> Option<&T> {
        self.0.weights.downcast_ref()
    }

    pub(super) fn set_unloaded(&self) {
        self.0.unloaded.store(true, Ordering::Release);
    }
}

impl Debug for EngineAdapter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "adapter {}", self.0.id)
    }
}

/// Adapters with their scales, in an order of their own: two requests that name the same ones have the same set. Empty
/// is the model alone.
#[derive(Clone, Default)]
pub struct AdapterSet(Arc<[(EngineAdapter, f32)]>);

impl AdapterSet {
    /// An adapter with the scale 0 changes nothing and is left out.
    #[must_use]
    pub fn new(adapters: impl IntoIterator<Item = (EngineAdapter, f32)>) -> Self {
        let mut all: Vec<_> = adapters.into_iter().filter(|(_, scale)| *scale != 0.0).collect();
        all.sort_by_key(|(adapter, _)| adapter.id());
        Self(all.into())
    }

    /// What tells sets apart, without keeping an adapter loaded.
    pub(super) fn key(&self) -> impl Iterator<Item = (u64, u32)> {
        self.0.iter().map(|(adapter, scale)| (adapter.id(), scale.to_bits()))
    }

    /// Whether one of them was unloaded: no request to come can name this set.
    pub(super) fn is_stale(&self) -> bool {
        self.0.iter().any(|(adapter, _)| adapter.0.unloaded.load(Ordering::Acquire))
    }

    /// What each was made from, with its scale. Those of one engine are all of one type.
    #[must_use]
    pub fn weights<T: Any + Clone>(&self) -> Vec<(T, f32)> {
        self.0.iter().filter_map(|(adapter, scale)| Some((adapter.weights::<T>()?.clone(), *scale))).collect()
    }
}

impl PartialEq for AdapterSet {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.key().eq(other.key())
    }
}

impl Debug for AdapterSet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

/// The number of a set among those that have something in the cache.
pub(super) type SetId = u32;

/// Numbers sets for as long as they are in use.
#[derive(Debug, Default)]
pub(super) struct Sets(Vec<Numbered>);

#[derive(Debug, Default)]
struct Numbered {
    key: Vec<(u64, u32)>,
    users: usize,
    turn: Turn,
}

/// The latest pass that was computed with a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    pub pass: u64,
    /// Whether it was one of an image.
    pub image: bool,
}

impl Sets {
    /// The set's number, where it is in use.
    pub fn find(&self, set: &AdapterSet) -> Option<SetId> {
        let found = self.0.iter().position(|known| known.users > 0 && known.key.iter().copied().eq(set.key()));
        found.and_then(|index| SetId::try_from(index).ok())
    }

    /// One more user of the set.
    pub fn enter(&mut self, set: &AdapterSet) -> SetId {
        let index = self.find(set).map_or_else(
            || {
                let free = self.0.iter().position(|known| known.users == 0);
                let index = free.unwrap_or_else(|| {
                    self.0.push(Numbered::default());
                    self.0.len() - 1
                });
                self.0[index] = Numbered { key: set.key().collect(), users: 0, turn: Turn::default() };
                index
            },
            |id| id as usize,
        );
        self.0[index].users += 1;
        SetId::try_from(index).unwrap_or(SetId::MAX)
    }

    /// One user less.
    pub fn leave(&mut self, id: SetId) {
        self.0[id as usize].users -= 1;
    }

    /// A pass was computed with the set.
    pub fn passed(&mut self, id: SetId, turn: Turn) {
        self.0[id as usize].turn = turn;
    }

    pub fn turn(&self, id: SetId) -> Turn {
        self.0[id as usize].turn
    }

    /// Whether this adapter is part of the set.
    pub fn contains(&self, id: SetId, adapter: u64) -> bool {
        self.0[id as usize].key.iter().any(|(part, _)| *part == adapter)
    }
}

#[cfg(test)]
mod tests {
    use super::{AdapterSet, EngineAdapter, Sets};

    #[test]
    fn order_and_what_has_no_effect_make_no_difference() {
        let [a, b] = [EngineAdapter::new(()), EngineAdapter::new(())];
        let set =
            |list: &[(&EngineAdapter, f32)]| AdapterSet::new(list.iter().map(|(a, scale)| ((*a).clone(), *scale)));
        assert_eq!(set(&[(&a, 1.0), (&b, 0.5)]), set(&[(&b, 0.5), (&a, 1.0)]));
        assert_eq!(set(&[(&a, 1.0), (&b, 0.0)]), set(&[(&a, 1.0)]));
        assert_eq!(set(&[(&a, 0.0), (&b, -0.0)]), AdapterSet::default());
        assert_ne!(set(&[(&a, 1.0)]), set(&[(&a, 0.9)]));
        assert_ne!(set(&[(&a, 1.0)]), set(&[(&b, 1.0)]));
        let both = set(&[(&a, 1.0), (&b, 1.0)]);
        assert!(!both.is_stale());
        b.set_unloaded();
        assert!(both.is_stale() && !set(&[(&a, 1.0)]).is_stale());
    }

    #[test]
    fn a_number_is_given_again_only_when_nobody_uses_it() {
        let [a, b] = [EngineAdapter::new(()), EngineAdapter::new(())];
        let (base, a, b) = (AdapterSet::default(), AdapterSet::new([(a, 1.0)]), AdapterSet::new([(b, 1.0)]));
        let mut sets = Sets::default();
        let (first, second) = (sets.enter(&base), sets.enter(&a));
        assert_ne!(first, second);
        assert_eq!((sets.enter(&a), sets.find(&b)), (second, None));
        sets.leave(second);
        assert_eq!(sets.find(&a), Some(second));
        sets.leave(second);
        assert_eq!((sets.find(&a), sets.enter(&b)), (None, second));
    }
}
