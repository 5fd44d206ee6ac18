//! Who gets how many tokens of the next forward pass. Pure: all that it knows is in its arguments.

/// What a sequence needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// One token, and as many guesses behind it as there is room for.
    Decode { guesses: usize },
    /// The rest of the prompt. `cut` is how far it may go at once, where others wait for that point.
    Prefill { left: usize, cut: usize },
    /// Rows of one image, in a pass of their own; all of them at once where it is read as a `whole`.
    Image { rows: usize, whole: bool },
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
    /// Which adapters it is computed with. A pass has those of one set only.
    pub set: u32,
    /// The latest pass that had this set.
    pub turn: u64,
    /// That pass was one of an image: what decodes has its turn before the next.
    pub after_image: bool,
}

impl View {
    /// Rows that it could use in a pass that decodes beside it: of its prompt, or guesses.
    pub fn beside(&self) -> usize {
        match self.work {
            Work::Prefill { left, cut } => left.min(cut),
            Work::Decode { guesses } => guesses,
            // It has a pass of its own, which may be as large as others beside those that decode.
            Work::Image { rows, whole: false } => rows,
            Work::Image { whole: true, .. } | Work::Rest => 0,
        }
    }

    /// Whether it has a prompt to compute.
    fn waits(&self) -> bool {
        matches!(self.work, Work::Prefill { .. } | Work::Image { .. })
    }

    fn decodes(&self) -> bool {
        matches!(self.work, Work::Decode { .. })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tokens in the pass.
    pub n_batch: usize,
    /// Rows of an image in a pass. One that is read as a whole has no more.
    pub n_image: usize,
    /// Rows that may ask for logits.
    pub n_outputs: usize,
    /// Prompt tokens beside decoding sequences. Where none decodes, a pass takes `n_batch`.
    pub prefill: usize,
    /// Rows from which on a pass must not mix prompts with decoding: attention then works on tiles of rows, and rows of
    /// many sequences in one tile cost as if each attended to the cells of all of them.
    pub tile: usize,
    /// The latest pass in which nobody decoded: the turn of the sets that have prompts only.
    pub prompts_turn: u64,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
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
    fn pick(&mut self, views: &[View], wanted: impl Fn(&View) -> bool) {
        self.order.clear();
        self.order.extend((0..views.len()).filter(|index| wanted(&views[*index])));
    }
}

/// The set whose turn it is. Each set with streams has one a round. The others have one together, for the most urgent of
/// their prompts: so streams go on however many sets come and go, and prompts keep their order.
fn next_set(views: &[View], prompts_turn: u64) -> Option<u32> {
    let streams = |set| views.iter().any(|view| view.set == set && view.decodes());
    let prompts = views.iter().filter(|view| view.waits() && !streams(view.set));
    let most_urgent = prompts.min_by_key(|view| view.deadline).map(|view| (prompts_turn, view.set));
    let decoding = views.iter().filter(|view| view.decodes()).map(|view| (view.turn, view.set));
    decoding.chain(most_urgent).min().map(|(_, set)| set)
}

/// Fills `plan` with the next pass: a token for each decoding sequence of the set of adapters whose turn it is, then
/// its prompts in order of their deadline.
pub fn plan(views: &[View], limits: Limits, plan: &mut Plan) {
    plan.shares.clear();
    if limits.exclusive {
        return plan_exclusive(views, limits, plan);
    }
    let several = views.iter().any(|view| view.set != views[0].set);
    let set = if several { next_set(views, limits.prompts_turn) } else { views.first().map(|view| view.set) };
    if let Some(share) = image(views, limits, set) {
        return plan.shares.push(share);
    }
    let mut rows = limits.n_batch;
    let mut outputs = limits.n_outputs;
    plan.pick(views, |view| view.decodes() && Some(view.set) == set);
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
    let mut room = if decoding > 0 {
        limits.prefill.min(rows)
    } else if several && views.iter().any(View::decodes) {
        // The streams of other sets wait for this pass.
        limits.prefill.clamp(1, rows)
    } else {
        rows
    };

    plan.pick(views, |view| matches!(view.work, Work::Prefill { .. }) && Some(view.set) == set);
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

/// Rows of an image, where it is the most urgent of the prompts, or all there is to do.
fn image(views: &[View], limits: Limits, set: Option<u32>) -> Option<Share> {
    let of_set = || views.iter().enumerate().filter(|(_, view)| Some(view.set) == set);
    // Those that decode go on beside other prompts, and not beside an image.
    if of_set().any(|(_, view)| view.decodes() && view.after_image) {
        return None;
    }
    let (index, view) =
        of_set().filter(|(_, view)| view.waits()).min_by_key(|(index, view)| (view.deadline, *index))?;
    let Work::Image { rows, whole } = view.work else { return None };
    let streams = views.iter().any(View::decodes);
    let most = if streams { limits.prefill.clamp(1, limits.n_image) } else { limits.n_image };
    Some(Share { index, tokens: if whole { rows } else { rows.min(most) } })
}

fn plan_exclusive(views: &[View], limits: Limits, plan: &mut Plan) {
    let next = (0..views.len()).filter(|index| views[*index].work != Work::Rest).min_by_key(|i| views[*i].served);
    let Some(index) = next else { return };
    let tokens = match views[index].work {
        Work::Decode { .. } => 1,
        Work::Prefill { left, cut } => left.min(cut).min(limits.n_batch),
        Work::Image { rows, .. } => rows.min(limits.n_image),
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
            (1usize..3000).prop_map(|rows| Work::Image { rows, whole: false }),
            (1usize..=600).prop_map(|rows| Work::Image { rows, whole: true }),
            Just(Work::Rest),
        ]
    }

    fn view() -> impl Strategy<Value = View> {
        (work(), 0u64..1000, 0u64..1000).prop_map(|(work, deadline, served)| View {
            work,
            deadline,
            served,
            set: 0,
            turn: 0,
            after_image: false,
        })
    }

    /// Sequences of up to four sets of adapters.
    fn views() -> impl Strategy<Value = Vec<View>> {
        let of_sets = (prop::collection::vec((view(), 0usize..4), 0..80), [0u64..9, 0u64..9, 0u64..9, 0u64..9]);
        let with_set = |turns: [u64; 4]| {
            move |(view, set): (View, usize)| View {
                set: set as u32,
                turn: turns[set],
                after_image: turns[set] % 2 == 1,
                ..view
            }
        };
        let mixed = of_sets.prop_map(move |(all, turns)| all.into_iter().map(with_set(turns)).collect());
        prop_oneof![prop::collection::vec(view(), 0..80), mixed]
    }

    fn limits() -> impl Strategy<Value = Limits> {
        (1usize..600, 1usize..64, 0usize..600, 8usize..100, 0u64..9, any::<bool>()).prop_map(
            |(n_batch, n_outputs, prefill, tile, prompts_turn, exclusive)| Limits {
                n_batch,
                n_image: 600,
                n_outputs,
                prefill,
                tile,
                prompts_turn,
                exclusive,
            },
        )
    }

    fn outputs(views: &[View], share: Share) -> usize {
        match views[share.index].work {
            Work::Decode { .. } => share.tokens,
            Work::Prefill { left, .. } => usize::from(left == share.tokens),
            Work::Image { .. } | Work::Rest => 0,
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
        fn a_plan_keeps_all_limits(views in views(), limits in limits()) {
            let shares = shares(&views, limits);
            let rows: usize = shares.iter().map(|share| share.tokens).sum();
            let has_image = shares.iter().any(|share| matches!(views[share.index].work, Work::Image { .. }));
            let most = if has_image { limits.n_image } else { limits.n_batch };
            prop_assert!(rows <= most, "a pass that is too large");
            prop_assert!(!has_image || shares.len() == 1, "an image beside others");
            prop_assert!(shares.iter().map(|share| outputs(&views, *share)).sum::<usize>() <= limits.n_outputs);
            let mut seen = std::collections::HashSet::new();
            for share in &shares {
                prop_assert!(seen.insert(share.index), "served twice");
                prop_assert!(share.tokens > 0);
                prop_assert_eq!(views[share.index].set, views[shares[0].index].set, "two sets in a pass");
                match views[share.index].work {
                    Work::Decode { guesses } => prop_assert!(share.tokens <= 1 + guesses),
                    Work::Prefill { left, cut } => prop_assert!(share.tokens <= left.min(cut)),
                    Work::Image { rows, whole } => {
                        let kept = if whole { share.tokens == rows } else { share.tokens <= rows };
                        prop_assert!(kept, "an image in pieces");
                    }
                    Work::Rest => prop_assert!(false, "a resting sequence was served"),
                }
            }
            if limits.exclusive {
                prop_assert!(shares.len() <= 1);
            }
        }

        #[test]
        fn whoever_decodes_is_served_while_there_is_room(
            views in views(), limits in limits()
        ) {
            let limits = Limits { exclusive: false, ..limits };
            let shares = shares(&views, limits);
            let Some(set) = shares.first().map(|share| views[share.index].set) else { return Ok(()) };
            let is_image = |share: &Share| matches!(views[share.index].work, Work::Image { .. });
            if shares.iter().any(is_image) {
                let streams = || views.iter().filter(|view| view.decodes() && view.set == set);
                prop_assert!(!streams().any(|view| view.after_image), "two images and no stream");
                return Ok(());
            }
            let decodes = |view: &View| view.decodes() && view.set == set;
            let served = shares.iter().filter(|share| decodes(&views[share.index])).count();
            let wanted = views.iter().filter(|view| decodes(view)).count().min(limits.n_batch).min(limits.n_outputs);
            let rows: usize = shares.iter().map(|share| share.tokens).sum();
            prop_assert_eq!(served, wanted);
            let mixed = served > 0 && shares.len() > served;
            prop_assert!(!mixed || rows < limits.tile, "prompts and decoding in one tile");
        }

        /// There is always progress where there is work.
        #[test]
        fn a_plan_is_empty_only_where_all_rest(views in views(), limits in limits()) {
            let shares = shares(&views, limits);
            let resting = views.iter().all(|view| view.work == Work::Rest);
            prop_assert_eq!(shares.is_empty(), resting);
        }

        #[test]
        fn a_lone_prefill_gets_the_whole_batch(left in 1usize..5000, limits in limits()) {
            let view = View { work: Work::Prefill { left, cut: left }, deadline: 0, served: 0, set: 0, turn: 0, after_image: false };
            prop_assert_eq!(shares(&[view], limits), vec![Share { index: 0, tokens: left.min(limits.n_batch) }]);
        }
    }

    /// Three streams of different sets, and two sets that have only prompts.
    #[test]
    fn sets_take_turns_and_prompts_keep_their_order() {
        let mut limits = Limits {
            n_batch: 512,
            n_image: 512,
            n_outputs: 64,
            prefill: 10,
            tile: 64,
            prompts_turn: 0,
            exclusive: false,
        };
        let view = |set, work, deadline| View { work, deadline, served: 0, set, turn: 0, after_image: false };
        let (stream, prompt) = (Work::Decode { guesses: 0 }, Work::Prefill { left: 400, cut: 400 });
        let mut views =
            [view(0, stream, 0), view(1, stream, 0), view(2, stream, 0), view(3, prompt, 9), view(4, prompt, 5)];
        let mut served = Vec::new();
        for pass in 1..=8 {
            let shares = shares(&views, limits);
            let [share] = shares[..] else { panic!("one of each set: {shares:?}") };
            let set = views[share.index].set;
            assert_eq!(share.tokens, if set == 4 { 10 } else { 1 }, "a prompt does not hold up streams");
            views.iter_mut().filter(|view| view.set == set).for_each(|view| view.turn = pass);
            if set == 4 {
                limits.prompts_turn = pass;
            }
            served.push(set);
        }
        served[..4].sort_unstable();
        assert_eq!(served[..4], [0, 1, 2, 4], "set 3 waits for the more urgent prompt");
        served[4..].sort_unstable();
        assert_eq!(served[4..], served[..4], "and the next round is the same");
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
