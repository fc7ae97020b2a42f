//! The path of a chunk of the vector: up to its root, and from there to all members.
//!
//! Every chunk has a tree over the members of the view. In a *tree* topology it is the same for all chunks, with the
//! first member at its root, and results go back the way that the parts came. In a *ring* it is a chain, and the chunks'
//! roots rotate over the members: member `p` passes a chunk on to `p + 1` until it has reached its root, and the result goes
//! on in the same direction, from the root to the first member of the chain and on to the last but one (Patarasuk and Yuan
//! 2009). Each member sends and receives 2 (N - 1) / N of the vector. If results went back instead, the chains of different
//! members would meet in both directions at different places, and some links would stay idle while two chunks share others.
//! In one direction, chains that have met follow each other.
//!
//! The tree of *pairs* is a binomial one: members 2 i and 2 i + 1 are a pair, whose result is at the first, and then pairs
//! are paired in the same way. Member 0 gets the results of 1, of 2 and 3, of 4 to 7, and so on.

use alloc::vec::Vec;

use crate::id::PeerId;
use crate::recipe::{Merge, Topology};

/// The neighbours of one node in the trees of a view's chunks.
#[derive(Debug)]
pub(super) struct Routes {
    shape: Shape,
    /// Members of the view.
    count: usize,
    /// This node's position among them.
    at: usize,
    /// The neighbours of this node, each with its position. A view can have many more members.
    near: Vec<(usize, PeerId)>,
}

impl Routes {
    /// Routes without members.
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, count: 0, at: 0, near: Vec::new() }
    }

    /// Sets the members of a view, in order of rank and this node among them: their positions in the shape.
    pub(super) fn set(&mut self, me: PeerId, members: &[PeerId]) {
        self.count = members.len();
        self.at = members.binary_search(&me).expect("a node that enters a view is a member");
        self.near.clear();
        let near = self.shape.neighbours(self.at, self.count);
        self.near.extend(near.map(|position| (position, members[position])));
    }

    /// The neighbours of this node.
    pub(super) fn neighbours(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.near.iter().map(|(_, member)| *member)
    }

    /// The members at the positions of all indices that have one, each with its index.
    fn numbered(&self, position: impl Fn(usize) -> Option<usize>) -> impl Iterator<Item = (usize, PeerId)> {
        (0..self.shape.width()).filter_map(move |index| Some((index, self.member(position(index)?)?)))
    }

    fn member(&self, position: usize) -> Option<PeerId> {
        self.near.iter().find(|(at, _)| *at == position).map(|(_, member)| *member)
    }

    /// The member that this node sends its part of a chunk to; `None` at the chunk's root.
    pub(super) fn parent(&self, chunk: usize) -> Option<PeerId> {
        self.member(self.shape.parent(chunk, self.at, self.count)?)
    }

    /// The members that send their parts of a chunk to this node, each with its index among the children.
    pub(super) fn children(&self, chunk: usize) -> impl Iterator<Item = (usize, PeerId)> + '_ {
        self.numbered(move |index| self.shape.child(chunk, self.at, self.count, index))
    }

    /// The member that sends the result of a chunk to this node; `None` at the chunk's root.
    pub(super) fn giver(&self, chunk: usize) -> Option<PeerId> {
        self.member(self.shape.giver(chunk, self.at, self.count)?)
    }

    /// The members that this node sends the result of a chunk to, each with its index among them.
    pub(super) fn takers(&self, chunk: usize) -> impl Iterator<Item = (usize, PeerId)> + '_ {
        self.numbered(move |index| self.shape.taker(chunk, self.at, self.count, index))
    }

    /// Does each chunk have one chain?
    pub(super) fn is_ring(&self) -> bool {
        self.shape == Shape::Ring
    }

    /// Is this node the only member?
    pub(super) fn is_alone(&self) -> bool {
        self.count == 1
    }
}

/// How chunks travel among the members of a view, which count as positions from 0.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Tree { fan_in: usize },
    Pairs { width: usize },
    Ring,
}

impl Shape {
    /// `workers`: most members of a view.
    pub(super) fn of(topology: Topology, merge: Merge, workers: usize) -> Self {
        match topology {
            Topology::Auto | Topology::Tree { .. } if merge == Merge::Adasum => {
                Self::Pairs { width: workers.next_power_of_two().trailing_zeros() as usize }
            }
            Topology::Auto => Self::Tree { fan_in: 2 },
            Topology::Tree { fan_in } => Self::Tree { fan_in: fan_in as usize },
            _ => Self::Ring,
        }
    }

    /// Most children that a position can have.
    pub(super) fn width(self) -> usize {
        match self {
            Self::Tree { fan_in } => fan_in,
            Self::Pairs { width } => width,
            Self::Ring => 1,
        }
    }

    /// The position that `at`, one of `count`, sends its part of a chunk to; `None` at the chunk's root.
    fn parent(self, chunk: usize, at: usize, count: usize) -> Option<usize> {
        match self {
            Self::Tree { .. } | Self::Pairs { .. } if at == 0 => None,
            // Without its last 1 bit.
            Self::Pairs { .. } => Some(at & (at - 1)),
            Self::Tree { fan_in } => Some((at - 1) / fan_in),
            Self::Ring if at == chunk % count => None,
            Self::Ring => Some((at + 1) % count),
        }
    }

    /// The `index`-th position that sends its part of a chunk to `at`.
    fn child(self, chunk: usize, at: usize, count: usize, index: usize) -> Option<usize> {
        match self {
            Self::Tree { fan_in } => Some(fan_in * at + 1 + index).filter(|child| index < fan_in && *child < count),
            // Below the last 1 bit of `at`, each bit is a child.
            Self::Pairs { width } => {
                let is_child = index < width && (at == 0 || index < at.trailing_zeros() as usize);
                Some(at + (1 << index)).filter(|child| is_child && *child < count)
            }
            // The chain begins at the position after its root.
            Self::Ring if index > 0 || count == 0 || at == (chunk + 1) % count => None,
            Self::Ring => Some((at + count - 1) % count),
        }
    }

    /// The position that sends the result of a chunk to `at`, one of `count`; `None` at the chunk's root.
    fn giver(self, chunk: usize, at: usize, count: usize) -> Option<usize> {
        match self {
            Self::Ring if at == chunk % count => None,
            Self::Ring => Some((at + count - 1) % count),
            _ => self.parent(chunk, at, count),
        }
    }

    /// The `index`-th position that `at` sends the result of a chunk to.
    fn taker(self, chunk: usize, at: usize, count: usize, index: usize) -> Option<usize> {
        match self {
            // The result has been everywhere when it would come to its root again.
            Self::Ring if index > 0 || count == 0 || (at + 1) % count == chunk % count => None,
            Self::Ring => Some((at + 1) % count),
            _ => self.child(chunk, at, count, index),
        }
    }

    /// The positions that exchange parts or results of any chunk with `at`, each once.
    fn neighbours(self, at: usize, count: usize) -> impl Iterator<Item = usize> {
        // In a ring, both neighbours are parent or child for some chunk: the parent for one whose root is elsewhere, the
        // child for the one that ends here.
        let (above, below) = if self == Self::Ring { (at + 1, at) } else { (0, 0) };
        let parent = self.parent(above, at, count).filter(|_| count > 1);
        let children = (0..self.width()).filter_map(move |index| self.child(below, at, count, index));
        let children = children.filter(move |child| count > 1 && Some(*child) != parent);
        parent.into_iter().chain(children)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn every_result_reaches_all_from_its_root_through_neighbours() {
        let trees = [1, 2, 5].map(|fan_in| Shape::Tree { fan_in });
        for shape in trees.into_iter().chain([Shape::Ring, Shape::Pairs { width: 3 }]) {
            for (count, chunk) in (1..9).flat_map(|count| (0..2 * count).map(move |chunk| (count, chunk))) {
                let root = (0..count).find(|at| shape.parent(chunk, *at, count).is_none()).unwrap();
                let (mut reached, mut next) = (vec![root], 0);
                while let Some(at) = reached.get(next).copied() {
                    for taker in (0..shape.width()).filter_map(|index| shape.taker(chunk, at, count, index)) {
                        assert_eq!(shape.giver(chunk, taker, count), Some(at), "{shape:?} {count} {chunk}");
                        assert!(shape.neighbours(at, count).any(|near| near == taker), "{shape:?} {count} {chunk}");
                        reached.push(taker);
                    }
                    next += 1;
                }
                assert_eq!(shape.giver(chunk, root, count), None);
                reached.sort_unstable();
                assert!(reached.into_iter().eq(0..count), "{shape:?} {count} {chunk}");
            }
        }
        // In a ring, parts and results go in one direction.
        for (at, chunk) in (0..5).flat_map(|at| (0..5).map(move |chunk| (at, chunk))) {
            let to = [Shape::Ring.parent(chunk, at, 5), Shape::Ring.taker(chunk, at, 5, 0)];
            assert!(to.into_iter().flatten().all(|to| to == (at + 1) % 5));
        }
    }

    #[test]
    fn every_chunk_reaches_its_root_from_everywhere_and_children_are_those_whose_parent_it_is() {
        let trees = [1, 2, 5].map(|fan_in| Shape::Tree { fan_in });
        for shape in trees.into_iter().chain([Shape::Ring, Shape::Pairs { width: 3 }]) {
            for count in 1..9 {
                for chunk in 0..2 * count {
                    let mut roots = alloc::vec::Vec::new();
                    for start in 0..count {
                        let mut at = start;
                        let mut hops = 0;
                        while let Some(parent) = shape.parent(chunk, at, count) {
                            let mut children = (0..shape.width()).filter_map(|i| shape.child(chunk, parent, count, i));
                            assert!(children.any(|child| child == at), "{shape:?} {count} {chunk} {at} {parent}");
                            (at, hops) = (parent, hops + 1);
                            assert!(hops < count);
                        }
                        roots.push(at);
                        let near: Vec<usize> = shape.neighbours(start, count).collect();
                        let children = (0..shape.width()).filter_map(|i| shape.child(chunk, start, count, i));
                        for other in shape.parent(chunk, start, count).into_iter().chain(children) {
                            assert_eq!(near.iter().filter(|at| **at == other).count(), 1, "{shape:?} {count} {start}");
                        }
                        for child in (0..shape.width()).filter_map(|i| shape.child(chunk, start, count, i)) {
                            assert_eq!(shape.parent(chunk, child, count), Some(start));
                        }
                    }
                    assert!(roots.iter().all(|root| *root == roots[0]));
                }
            }
        }
    }
}
