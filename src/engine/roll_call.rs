use crate::contract::JobId;
use crate::model::keys;

/// How many children a node of the roll call has. A roll call reads its node's rows after every child, so more children
/// mean more reading, fewer mean more levels.
pub const FAN_IN: u64 = 64;

/// The tree in which the batches of one stage find out who came last: batches are the children of level 0, nodes of
/// level `n` the children of level `n + 1`, and the root is the one node of the top level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollCall {
    batches: u64,
}

/// A node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// 0 above the batches, growing towards the root.
    pub level: u32,
    /// Its place in its level, from 0.
    pub index: u64,
}

impl RollCall {
    /// The tree over a stage's batches.
    pub const fn over(batches: u64) -> Self {
        Self { batches }
    }

    /// The node above a batch.
    pub const fn node_of_batch(batch: u64) -> Node {
        Node { level: 0, index: batch / FAN_IN }
    }

    /// How many nodes a level has; at least one.
    pub fn width(self, level: u32) -> u64 {
        (0..=level).fold(self.batches, |children, _| children.div_ceil(FAN_IN)).max(1)
    }

    /// The one node of the top level.
    pub fn root(self) -> Node {
        let mut level = 0;
        while self.width(level) > 1 {
            level += 1;
        }
        Node { level, index: 0 }
    }

    /// The node above `node`; `None` above the root.
    pub fn parent(self, node: Node) -> Option<Node> {
        (node != self.root()).then_some(Node { level: node.level + 1, index: node.index / FAN_IN })
    }

    /// How many children `node` waits for.
    pub fn children(self, node: Node) -> u64 {
        let all = if node.level == 0 { self.batches } else { self.width(node.level - 1) };
        all.saturating_sub(node.index * FAN_IN).min(FAN_IN)
    }
}

impl Node {
    /// The partition in which the node's children lie.
    pub fn partition(self, job: &JobId, run: u32, stage: u32) -> String {
        keys::node(job, run, stage, self.level, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_is_called_once_on_every_level() {
        for batches in [1, 2, 63, 64, 65, 4095, 4096, 4097, 262_145] {
            let roll_call = RollCall::over(batches);
            let root = roll_call.root();
            for level in 0..=root.level {
                let waited_for: u64 =
                    (0..roll_call.width(level)).map(|index| roll_call.children(Node { level, index })).sum();
                let expected = if level == 0 { batches } else { roll_call.width(level - 1) };
                assert_eq!(waited_for, expected, "{batches} batches, level {level}");
            }
            let mut node = RollCall::node_of_batch(batches - 1);
            while let Some(parent) = roll_call.parent(node) {
                assert_eq!(parent.level, node.level + 1);
                node = parent;
            }
            assert_eq!(node, root);
        }
    }

    #[test]
    fn a_stage_without_batches_waits_for_nobody() {
        let roll_call = RollCall::over(0);
        assert_eq!(roll_call.children(roll_call.root()), 0);
    }

    #[test]
    fn a_million_batches_take_four_levels() {
        assert_eq!(RollCall::over(1_000_000).root().level, 3);
    }
}
