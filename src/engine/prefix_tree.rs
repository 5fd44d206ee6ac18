//! Which sequences begin with which tokens: a radix tree over the token ids of all of them.
//!
//! Sequences that are computed with different adapters share nothing, whatever their tokens: the first step from the
//! root is the number of a sequence's adapter set.

use super::forward::TokenId;

const ROOT: usize = 0;
/// Of a sequence's way from the root, the step that is no token.
const SET: usize = 1;

#[derive(Debug, Default)]
struct Node {
    parent: usize,
    /// Tokens on the way from the parent to here.
    run: Vec<TokenId>,
    /// Nodes that go on from the end of `run`; their runs differ in the first token.
    children: Vec<usize>,
    /// Sequences whose tokens lead into this node, or through it.
    sequences: Vec<u32>,
}

/// Where a sequence's tokens end.
#[derive(Clone, Copy, Debug)]
struct Tip {
    node: usize,
    /// Steps in all: the set, and the tokens.
    len: usize,
    /// Of those, the ones inside `node`.
    within: usize,
}

/// A sequence that shares a beginning with what was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    pub seq: u32,
    /// Tokens in common.
    pub len: usize,
}

/// See the module. Sequence numbers are small: they index a table.
#[derive(Debug)]
pub struct PrefixTree {
    nodes: Vec<Node>,
    unused: Vec<usize>,
    tips: Vec<Option<Tip>>,
}

impl PrefixTree {
    /// For sequences numbered below `n_seq_max`.
    #[must_use]
    pub fn new(n_seq_max: usize) -> Self {
        Self { nodes: vec![Node::default()], unused: Vec::new(), tips: vec![None; n_seq_max] }
    }

    /// Tokens of the sequence.
    #[must_use]
    pub fn len(&self, seq: u32) -> usize {
        self.tips[seq as usize].map_or(0, |tip| tip.len - SET)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tips.iter().all(Option::is_none)
    }

    /// Makes the sequence consist of these tokens, computed with this set of adapters, whatever it was before.
    pub fn set(&mut self, seq: u32, adapters: u32, tokens: &[TokenId]) {
        self.remove(seq);
        self.tips[seq as usize] = Some(Tip { node: ROOT, len: 0, within: 0 });
        self.extend(seq, &[adapters]);
        self.extend(seq, tokens);
    }

    /// Adds tokens to the end of the sequence.
    pub fn extend(&mut self, seq: u32, mut tokens: &[TokenId]) {
        let Some(mut tip) = self.tips[seq as usize] else { return };
        while let Some(first) = tokens.first() {
            let node = &self.nodes[tip.node];
            let here = &node.run[tip.within..];
            let same = common(here, tokens);
            if same > 0 {
                tip.within += same;
                tip.len += same;
                tokens = &tokens[same..];
                continue;
            }
            if !here.is_empty() {
                // `split` asks where each sequence ends, this one too.
                self.tips[seq as usize] = Some(tip);
                self.split(tip.node, tip.within);
            }
            match self.child(tip.node, *first) {
                Some(child) => tip = Tip { node: child, len: tip.len, within: 0 },
                None if tip.node != ROOT && self.nodes[tip.node].children.is_empty() => {
                    // Whoever else is here ends in this run already.
                    self.nodes[tip.node].run.extend_from_slice(tokens);
                    tip.within += tokens.len();
                    tip.len += tokens.len();
                    break;
                }
                None => {
                    let child = self.add(tip.node, tokens.to_vec());
                    tip = Tip { node: child, len: tip.len, within: 0 };
                }
            }
            self.nodes[tip.node].sequences.push(seq);
        }
        self.tips[seq as usize] = Some(tip);
    }

    /// Drops the tokens of the sequence from `len` on.
    pub fn truncate(&mut self, seq: u32, len: usize) {
        let Some(mut tip) = self.tips[seq as usize] else { return };
        let len = len + SET;
        while tip.len > len {
            let start = tip.len - tip.within;
            if len > start || tip.node == ROOT {
                tip = Tip { node: tip.node, len, within: len - start };
                break;
            }
            let parent = self.nodes[tip.node].parent;
            self.leave(tip.node, seq);
            tip = Tip { node: parent, len: start, within: self.nodes[parent].run.len() };
        }
        self.tips[seq as usize] = Some(tip);
        self.trim(tip.node);
    }

    /// Forgets the sequence.
    pub fn remove(&mut self, seq: u32) {
        let Some(tip) = self.tips[seq as usize].take() else { return };
        let mut node = tip.node;
        while node != ROOT {
            let parent = self.nodes[node].parent;
            self.leave(node, seq);
            self.trim(node);
            node = parent;
        }
    }

    /// All sequences of this set of adapters that begin as `tokens` do, each with how far, the longest first. One that
    /// shares less than a whole run with `tokens` may be named with less than it shares.
    pub fn matches<'a>(&'a self, adapters: u32, tokens: &[TokenId]) -> impl Iterator<Item = Match> + 'a {
        let mut path = Vec::new();
        let mut at = 0;
        let mut next = self.child(ROOT, adapters);
        while let Some(node) = next {
            // A run of the first level begins with the set.
            let begin = if path.is_empty() { SET } else { 0 };
            let run = &self.nodes[node].run[begin..];
            let same = common(run, &tokens[at..]);
            at += same;
            path.push((node, at));
            next = if same < run.len() { None } else { tokens.get(at).and_then(|first| self.child(node, *first)) };
        }
        let reaching = move |(node, end): (usize, usize)| {
            self.nodes[node].sequences.iter().map(move |seq| Match { seq: *seq, len: end.min(self.len(*seq)) })
        };
        path.into_iter().rev().flat_map(reaching).filter(|found| found.len > 0)
    }

    fn child(&self, node: usize, first: TokenId) -> Option<usize> {
        self.nodes[node].children.iter().copied().find(|child| self.nodes[*child].run.first() == Some(&first))
    }

    fn add(&mut self, parent: usize, run: Vec<TokenId>) -> usize {
        let node = Node { parent, run, ..Node::default() };
        let index = match self.unused.pop() {
            Some(index) => {
                self.nodes[index] = node;
                index
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.nodes[parent].children.push(index);
        index
    }

    /// Cuts the node's run at `at`; what follows moves to a new child.
    fn split(&mut self, node: usize, at: usize) {
        let rest = self.nodes[node].run.split_off(at);
        let children = std::mem::take(&mut self.nodes[node].children);
        let lower = self.add(node, rest);
        for child in &children {
            self.nodes[*child].parent = lower;
        }
        self.nodes[lower].children = children;
        for seq in self.nodes[node].sequences.clone() {
            let Some(tip) = self.tips[seq as usize].as_mut() else { continue };
            // Those that end in the upper part stay there.
            let ends_here = tip.node == node;
            if ends_here && tip.within <= at {
                continue;
            }
            if ends_here {
                *tip = Tip { node: lower, len: tip.len, within: tip.within - at };
            }
            self.nodes[lower].sequences.push(seq);
        }
    }

    fn leave(&mut self, node: usize, seq: u32) {
        self.nodes[node].sequences.retain(|other| *other != seq);
        if self.nodes[node].sequences.is_empty() && node != ROOT {
            let parent = self.nodes[node].parent;
            self.nodes[parent].children.retain(|child| *child != node);
            self.nodes[node] = Node::default();
            self.unused.push(node);
        }
    }

    /// Cuts off what no sequence reaches any more.
    fn trim(&mut self, node: usize) {
        if node == ROOT || !self.nodes[node].children.is_empty() {
            return;
        }
        let reach = |seq: &u32| self.tips[*seq as usize].filter(|tip| tip.node == node).map_or(0, |tip| tip.within);
        let longest = self.nodes[node].sequences.iter().map(reach).max().unwrap_or(0);
        self.nodes[node].run.truncate(longest);
    }
}

fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::{Match, PrefixTree, TokenId, common};
    use proptest::prelude::*;

    fn longest(tree: &PrefixTree, tokens: &[TokenId]) -> Option<Match> {
        tree.matches(0, tokens).max_by_key(|found| found.len)
    }

    #[test]
    fn the_longest_beginning_wins() {
        let mut tree = PrefixTree::new(4);
        tree.set(0, 0, &[1, 2, 3, 4]);
        tree.set(1, 0, &[1, 2, 9]);
        assert_eq!(longest(&tree, &[1, 2, 3, 7]), Some(Match { seq: 0, len: 3 }));
        assert_eq!(longest(&tree, &[1, 2, 9, 9]), Some(Match { seq: 1, len: 3 }));
        assert_eq!(longest(&tree, &[5]), None);
        tree.remove(0);
        assert_eq!(longest(&tree, &[1, 2, 3, 7]), Some(Match { seq: 1, len: 2 }));
        tree.remove(1);
        assert!(tree.is_empty() && longest(&tree, &[1]).is_none());
    }

    #[derive(Clone, Debug)]
    enum Change {
        Set(u32, u32, Vec<TokenId>),
        Extend(u32, Vec<TokenId>),
        Truncate(u32, usize),
        Remove(u32),
    }

    fn change() -> impl Strategy<Value = Change> {
        // Few different tokens, so that sequences share much.
        let tokens = || prop::collection::vec(0u32..3, 0..12);
        prop_oneof![
            (0u32..6, 0u32..2, tokens()).prop_map(|(seq, adapters, tokens)| Change::Set(seq, adapters, tokens)),
            (0u32..6, tokens()).prop_map(|(seq, tokens)| Change::Extend(seq, tokens)),
            (0u32..6, 0usize..16).prop_map(|(seq, len)| Change::Truncate(seq, len)),
            (0u32..6).prop_map(Change::Remove),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        /// The tree answers as a plain list of sequences does, after whatever happened to it.
        #[test]
        fn answers_as_a_plain_list_does(
            changes in prop::collection::vec(change(), 1..40), asked in prop::collection::vec(0u32..3, 0..16)
        ) {
            let mut tree = PrefixTree::new(6);
            let mut plain: Vec<Option<Vec<TokenId>>> = vec![None; 6];
            let mut sets = [0; 6];
            for change in changes {
                match change {
                    Change::Set(seq, adapters, tokens) => {
                        tree.set(seq, adapters, &tokens);
                        sets[seq as usize] = adapters;
                        plain[seq as usize] = Some(tokens);
                    }
                    Change::Extend(seq, tokens) => {
                        tree.extend(seq, &tokens);
                        if let Some(all) = &mut plain[seq as usize] {
                            all.extend(tokens);
                        }
                    }
                    Change::Truncate(seq, len) => {
                        tree.truncate(seq, len);
                        if let Some(all) = &mut plain[seq as usize] {
                            all.truncate(len);
                        }
                    }
                    Change::Remove(seq) => {
                        tree.remove(seq);
                        plain[seq as usize] = None;
                    }
                }
                let of_the_set = plain.iter().zip(sets).filter(|(_, set)| *set == 0).filter_map(|(all, _)| all.as_ref());
                let truth = of_the_set.map(|all| common(all, &asked)).max().unwrap_or(0);
                prop_assert_eq!(longest(&tree, &asked).map_or(0, |found| found.len), truth);
                for found in tree.matches(0, &asked) {
                    prop_assert_eq!(sets[found.seq as usize], 0);
                    let all = plain[found.seq as usize].as_ref().expect("only sequences that exist");
                    prop_assert!(found.len <= common(all, &asked));
                }
                for (seq, all) in (0u32..).zip(&plain) {
                    prop_assert_eq!(tree.len(seq), all.as_ref().map_or(0, Vec::len));
                }
            }
        }
    }
}
