//! The operations that a machine has handed to its driver and that have not ended.

use alloc::vec::Vec;

use super::OPEN;
use crate::id::OpId;
use crate::machine::Misuse;

/// Why an operation was started.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A message without consequence, or a body that is dropped.
    Nothing,
    /// To read the contract of a peer with a different digest.
    ReadContract,
    /// To find the line in which that contract differs.
    Compare,
    /// A role's: the role's [`Jobs`] say why.
    Role,
}

/// A table of operations, reused from operation to operation.
#[derive(Debug)]
pub(super) struct Operations {
    table: Vec<Operation>,
    /// Indices of the table's entries that are not open.
    free: Vec<u32>,
}

#[derive(Copy, Clone, Debug)]
struct Operation {
    /// Raised at each reuse, so that a late end is not taken for that of another operation.
    generation: u32,
    purpose: Option<Purpose>,
}

impl Operations {
    pub(super) fn new() -> Self {
        Self { table: Vec::with_capacity(OPEN), free: Vec::with_capacity(OPEN) }
    }

    pub(super) fn begin(&mut self, purpose: Purpose) -> OpId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.table.push(Operation { generation: 0, purpose: None });
            self.table.len() as u32 - 1
        });
        let operation = &mut self.table[index as usize];
        operation.generation = operation.generation.wrapping_add(1);
        operation.purpose = Some(purpose);
        OpId(u64::from(operation.generation) << 32 | u64::from(index))
    }

    pub(super) fn end(&mut self, id: OpId) -> Result<Purpose, Misuse> {
        let operation = self.table.get_mut(index(id)).filter(|operation| operation.generation == (id.0 >> 32) as u32);
        let purpose = operation.and_then(|operation| operation.purpose.take());
        let purpose = purpose.ok_or(Misuse::UnknownOp { op: id })?;
        self.free.push(index(id) as u32);
        Ok(purpose)
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.table.len() - self.free.len()
    }
}

/// The place of an operation in the table, which no other open operation has.
fn index(id: OpId) -> usize {
    id.0 as u32 as usize
}

/// A role's record of why it started each of its open operations.
#[derive(Debug)]
pub(crate) struct Jobs<J>(Vec<Option<J>>);

impl<J: Copy> Jobs<J> {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(OPEN))
    }

    pub(super) fn begin(&mut self, id: OpId, job: J) {
        if self.0.len() <= index(id) {
            self.0.resize(index(id) + 1, None);
        }
        self.0[index(id)] = Some(job);
    }

    /// The job of an operation that has just ended.
    pub(crate) fn end(&mut self, id: OpId) -> J {
        self.0[index(id)].take().expect("a role's operation has a job")
    }
}
