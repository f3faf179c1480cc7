//! The values that a pass holds, and the room that they may take together.

use super::Id;
use crate::{
    buffers::recycle,
    error::{Outcome, problem},
    value::Value,
};

/// Most bytes of the values that a pass holds at once, for each image: where values that nothing
/// reads any more are dropped, as for logits.
pub(crate) const LOGITS: u64 = if cfg!(fuzzing) { 64 << 20 } else { 4 << 30 };
/// The same where all values are kept for a gradient.
pub(crate) const GRADIENT: u64 = if cfg!(fuzzing) { 256 << 20 } else { 32 << 30 };

/// The values of a pass. Each counts with all its elements, also where it shares its memory with
/// another: no operator gives a part of a larger piece of memory, which it would keep.
pub(super) struct Held {
    pub values: Vec<Option<Value>>,
    bytes: u64,
    room: u64,
}

impl Held {
    /// Places for `count` values, which may take `room` bytes.
    pub fn new(count: usize, room: u64) -> Self {
        Self { values: vec![None; count], bytes: 0, room }
    }

    pub fn put(&mut self, id: Id, value: Value) {
        self.release(id);
        self.bytes += value.bytes();
        self.values[id] = Some(value);
    }

    /// Puts a value that exists already, whatever the pass does: it takes no room.
    pub fn put_given(&mut self, id: Id, value: Value) {
        self.room = self.room.saturating_add(value.bytes());
        self.put(id, value);
    }

    pub fn release(&mut self, id: Id) {
        if let Some(value) = self.values[id].take() {
            self.bytes -= value.bytes();
            forget(value);
        }
    }

    /// Checks that the values fit into their room.
    pub fn check(&self) -> Outcome<()> {
        if self.bytes > self.room {
            problem!(
                "the values of a pass take more than {} MiB at once; smaller images take less, and so \
                 does a file with an open batch axis",
                self.room >> 20
            );
        }
        Ok(())
    }
}

/// Keeps the memory of a value that nothing reads any more for the next ones.
pub(super) fn forget(value: Value) {
    if let Value::Float(array) = value {
        recycle(array);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{array, zeros};

    #[test]
    fn values_take_room_until_they_are_released() {
        let mut held = Held::new(4, 40);
        held.put(0, Value::Float(zeros(&[4])));
        held.put(1, Value::Int(array(&[3], vec![0; 3]).unwrap()));
        assert!(held.check().is_ok(), "16 and 24 bytes");
        held.put(2, Value::Bool(array(&[1], vec![true]).unwrap()));
        assert!(held.check().is_err());
        held.release(0);
        held.release(0);
        assert!(held.check().is_ok());
        held.put(0, Value::Float(zeros(&[3])));
        held.put(0, Value::Float(zeros(&[3])));
        assert!(held.check().is_ok(), "one value takes the place of the other");
        held.put_given(3, Value::Float(zeros(&[100])));
        assert!(held.check().is_ok(), "it was there before");
    }
}
