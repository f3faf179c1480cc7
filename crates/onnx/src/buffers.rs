//! Memory of values that nothing reads any more, for the values that come next. A pass makes dozens
//! of large values; fresh memory would be cleared for each, by this program and by the system.

use std::cell::RefCell;

use crate::value::Array;

/// Least number of elements that are worth keeping.
const LEAST: usize = 1 << 12;
/// Most elements that a thread keeps (32 MiB).
const MOST: usize = 1 << 23;

thread_local! {
    static SPARE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// `len` numbers that the caller overwrites, whatever they are.
pub(crate) fn taken(len: usize) -> Vec<f32> {
    let spare = SPARE.with_borrow_mut(|spare| {
        // Memory that is much too large would be missed by larger values.
        let fits = |held: &Vec<f32>| (len..=len.saturating_mul(2)).contains(&held.capacity());
        let found = spare.iter().enumerate().filter(|(_, held)| fits(held));
        let best = found.min_by_key(|(_, held)| held.capacity()).map(|(index, _)| index);
        best.map(|index| spare.swap_remove(index))
    });
    match spare {
        Some(mut held) => {
            held.resize(len, 0.0);
            held
        }
        None => vec![0.0; len],
    }
}

/// Keeps the memory of `array`, if nothing else holds it.
pub(crate) fn recycle(array: Array<f32>) {
    let Ok(array) = array.try_into_owned_nocopy() else { return };
    let (held, _) = array.into_raw_vec_and_offset();
    if held.capacity() < LEAST {
        return;
    }
    SPARE.with_borrow_mut(|spare| {
        spare.push(held);
        let mut kept: usize = spare.iter().map(Vec::capacity).sum();
        while kept > MOST && !spare.is_empty() {
            kept -= spare.remove(0).capacity();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{array, zeros};

    #[test]
    fn memory_is_used_again_once_nothing_holds_it() {
        let array = array(&[LEAST], vec![1.0; LEAST]).unwrap();
        let (address, other) = (array.as_ptr(), array.clone());
        recycle(array);
        let fresh = taken(LEAST);
        assert_ne!(fresh.as_ptr(), address);
        recycle(other);
        assert!(taken(LEAST + 1).iter().all(|&v| v == 0.0));
        let again = taken(LEAST - 1);
        assert_eq!((again.as_ptr(), again.len()), (address, LEAST - 1));
    }

    #[test]
    fn a_thread_keeps_no_more_than_it_may() {
        for _ in 0..4 {
            recycle(zeros(&[MOST / 2]));
        }
        let kept = SPARE.with_borrow(|spare| spare.iter().map(Vec::capacity).sum::<usize>());
        assert!(kept <= MOST);
        recycle(zeros(&[MOST + 1]));
        assert!(SPARE.with_borrow(Vec::is_empty));
    }
}
