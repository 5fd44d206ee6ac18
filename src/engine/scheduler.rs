//! Who gets how many tokens of the next forward pass. Pure: all that it knows is in its arguments.

/// What a sequence needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// One token, and as many guesses behind it as there is room for.
    Decode { guesses: usize },
    /// The rest of the prompt. `cut` is how far it may go at once, where others wait for that point.
    Prefill { left: usize, cut: usize },
    /// Nothing for now.
    Rest,
}

/// One sequence as the scheduler sees it.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub work: Work,
    /// Order of prefills, the smallest first. See [`deadline`].
    pub deadline: u64,
    /// The step in which it was last served.
    pub served: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tokens in the pass.
    pub n_batch: usize,
    /// Rows that may ask for logits.
    pub n_outputs: usize,
    /// Prompt tokens beside decoding sequences. Where none decodes, a pass takes `n_batch`.
    pub prefill: usize,
    /// Rows from which on a pass must not mix prompts with decoding: attention then works on tiles of rows, and rows of
    /// many sequences in one tile cost as if each attended to the cells of all of them.
    pub tile: usize,
    /// Serve one sequence only, whichever waited longest.
    pub exclusive: bool,
}

/// Tokens for the sequence at `index` of the views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub index: usize,
    pub tokens: usize,
}

/// How urgent a request is to its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    Interactive,
    #[default]
    Normal,
    Batch,
}

/// When a prompt should be through, counted in prompt tokens that the engine has computed so far (`clock`).
/// Short prompts go before long ones, but each waits for a bounded amount of work only: this is weighted fair
/// queueing with virtual finish times.
#[must_use]
pub fn deadline(clock: u64, prompt_tokens: usize, priority: Priority) -> u64 {
    let weight = match priority {
        Priority::Interactive => 1,
        Priority::Normal => 8,
        Priority::Batch => 64,
    };
    clock + weight * (prompt_tokens as u64 + 64)
}

/// One forward pass. Kept from step to step for its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub shares: Vec<Share>,
    order: Vec<usize>,
}

impl Plan {
    /// Sets `order` to the views that `wanted` picks.
    fn pick(&mut self, views: &[View], wanted: impl Fn(&Work) -> bool) {
        self.order.clear();
        self.order.extend((0..views.len()).filter(|index| wanted(&views[*index].work)));
    }
}

/// Fills `plan` with the next pass: a token for each decoding sequence, then prompts in order of their deadline.
pub fn plan(views: &[View], limits: Limits, plan: &mut Plan) {
    plan.shares.clear();
    if limits.exclusive {
        return plan_exclusive(views, limits, plan);
    }
    let mut rows = limits.n_batch;
    let mut outputs = limits.n_outputs;
    plan.pick(views, |work| matches!(work, Work::Decode { .. }));
    if plan.order.len() > rows.min(outputs) {
        plan.order.sort_unstable_by_key(|index| views[*index].served);
    }
    let decoding = plan.order.len().min(rows).min(outputs);
    plan.shares.extend(plan.order.iter().take(decoding).map(|index| Share { index: *index, tokens: 1 }));
    if decoding > 0 {
        rows = rows.min(limits.tile.saturating_sub(1).max(decoding));
    }
    rows -= decoding;
    outputs -= decoding;
    let mut room = if decoding == 0 { rows } else { limits.prefill.min(rows) };

    plan.pick(views, |work| matches!(work, Work::Prefill { .. }));
    plan.order.sort_unstable_by_key(|index| (views[*index].deadline, *index));
    for index in plan.order.iter().copied() {
        let Work::Prefill { left, cut } = views[index].work else { continue };
        let mut tokens = left.min(cut).min(room);
        if tokens == left && outputs == 0 {
            // Its last token wants logits; it comes in the next pass.
            tokens -= 1;
        }
        if tokens == 0 {
            continue;
        }
        outputs -= usize::from(tokens == left);
        room -= tokens;
        rows -= tokens;
        plan.shares.push(Share { index, tokens });
    }

    // What is left is for guesses.
    for share in &mut plan.shares[..decoding] {
        let Work::Decode { guesses } = views[share.index].work else { continue };
        let more = guesses.min(rows).min(outputs);
        share.tokens += more;
        rows -= more;
        outputs -= more;
    }
}

fn plan_exclusive(views: &[View], limits: Limits, plan: &mut Plan) {
    let next = (0..views.len()).filter(|index| views[*index].work != Work::Rest).min_by_key(|i| views[*i].served);
    let Some(index) = next else { return };
    let tokens = match views[index].work {
        Work::Decode { .. } => 1,
        Work::Prefill { left, cut } => left.min(cut).min(limits.n_batch),
        Work::Rest => 0,
    };
    plan.shares.push(Share { index, tokens });
}

#[cfg(test)]
mod tests {
    use super::{Limits, Plan, Priority, Share, View, Work, deadline};
    use proptest::prelude::*;

    fn work() -> impl Strategy<Value = Work> {
        prop_oneof![
            (0usize..8).prop_map(|guesses| Work::Decode { guesses }),
            (1usize..3000, 1usize..3000).prop_map(|(left, cut)| Work::Prefill { left, cut: cut.min(left) }),
            Just(Work::Rest),
        ]
    }

    fn view() -> impl Strategy<Value = View> {
        (work(), 0u64..1000, 0u64..1000).prop_map(|(work, deadline, served)| View { work, deadline, served })
    }

    fn limits() -> impl Strategy<Value = Limits> {
        (1usize..600, 1usize..64, 0usize..600, 8usize..100, any::<bool>()).prop_map(
            |(n_batch, n_outputs, prefill, tile, exclusive)| Limits { n_batch, n_outputs, prefill, tile, exclusive },
        )
    }

    fn outputs(views: &[View], share: Share) -> usize {
        match views[share.index].work {
            Work::Decode { .. } => share.tokens,
            Work::Prefill { left, .. } => usize::from(left == share.tokens),
            Work::Rest => 0,
        }
    }

    fn shares(views: &[View], limits: Limits) -> Vec<Share> {
        let mut plan = Plan::default();
        super::plan(views, limits, &mut plan);
        plan.shares
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]

        #[test]
        fn a_plan_keeps_all_limits(views in prop::collection::vec(view(), 0..80), limits in limits()) {
            let shares = shares(&views, limits);
            let rows: usize = shares.iter().map(|share| share.tokens).sum();
            prop_assert!(rows <= limits.n_batch);
            prop_assert!(shares.iter().map(|share| outputs(&views, *share)).sum::<usize>() <= limits.n_outputs);
            let mut seen = std::collections::HashSet::new();
            for share in &shares {
                prop_assert!(seen.insert(share.index), "served twice");
                prop_assert!(share.tokens > 0);
                match views[share.index].work {
                    Work::Decode { guesses } => prop_assert!(share.tokens <= 1 + guesses),
                    Work::Prefill { left, cut } => prop_assert!(share.tokens <= left.min(cut)),
                    Work::Rest => prop_assert!(false, "a resting sequence was served"),
                }
            }
            if limits.exclusive {
                prop_assert!(shares.len() <= 1);
            }
        }

        #[test]
        fn whoever_decodes_is_served_while_there_is_room(
            views in prop::collection::vec(view(), 0..80), limits in limits()
        ) {
            let limits = Limits { exclusive: false, ..limits };
            let shares = shares(&views, limits);
            let decodes = |view: &View| matches!(view.work, Work::Decode { .. });
            let served = shares.iter().filter(|share| decodes(&views[share.index])).count();
            let wanted = views.iter().filter(|view| decodes(view)).count().min(limits.n_batch).min(limits.n_outputs);
            let rows: usize = shares.iter().map(|share| share.tokens).sum();
            prop_assert_eq!(served, wanted);
            let mixed = served > 0 && shares.len() > served;
            prop_assert!(!mixed || rows < limits.tile, "prompts and decoding in one tile");
        }

        /// There is always progress where there is work.
        #[test]
        fn a_plan_is_empty_only_where_all_rest(views in prop::collection::vec(view(), 0..80), limits in limits()) {
            let shares = shares(&views, limits);
            let resting = views.iter().all(|view| view.work == Work::Rest);
            prop_assert_eq!(shares.is_empty(), resting);
        }

        #[test]
        fn a_lone_prefill_gets_the_whole_batch(left in 1usize..5000, limits in limits()) {
            let view = View { work: Work::Prefill { left, cut: left }, deadline: 0, served: 0 };
            prop_assert_eq!(shares(&[view], limits), vec![Share { index: 0, tokens: left.min(limits.n_batch) }]);
        }
    }

    #[test]
    fn short_prompts_overtake_long_ones_for_a_bounded_time() {
        let long = deadline(0, 4000, Priority::Normal);
        assert!(deadline(0, 50, Priority::Normal) < long);
        assert!(deadline(40_000, 50, Priority::Normal) > long);
        assert!(deadline(0, 4000, Priority::Interactive) < deadline(0, 1000, Priority::Normal));
        assert!(deadline(0, 50, Priority::Batch) > deadline(0, 500, Priority::Normal));
    }
}
