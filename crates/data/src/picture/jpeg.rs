//! Where a JPEG file ends.

/// The length of the JPEG image that `bytes` begin with: up to and with its end marker, however
/// much lies behind it (a second picture, a camera's notes); `None` when it breaks off before.
///
/// Segments are passed over by their length, so that markers of a thumbnail within one do not
/// count. (Within a scan neither marker can occur: 0xff is followed by 0.)
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    const START: u8 = 0xd8;
    const END: u8 = 0xd9;
    let mut at = 0;
    loop {
        // To the next marker: what lies between two segments is passed over, as decoders do it.
        at += bytes.get(at..)?.iter().position(|&b| b == 0xff)?;
        at += bytes[at..].iter().position(|&b| b != 0xff)?;
        let marker = bytes[at];
        at += 1;
        match marker {
            END => return Some(at),
            // No segment follows: a stuffed 0xff, restarts, the start, and TEM.
            0 | 1 | 0xd0..=0xd7 | START => {}
            _ => {
                let [high, low] = *bytes.get(at..at + 2)?.as_array()?;
                at = at.checked_add(usize::from(u16::from_be_bytes([high, low])).max(2))?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Vec<u8> {
        // Start, a segment that holds a whole thumbnail, a scan with a stuffed byte and a restart,
        // end.
        [
            &[0xff, 0xd8][..],
            &[0xff, 0xe1, 0, 8, 0xff, 0xd8, 0xff, 0xd9, 0, 0],
            &[0xff, 0xff, 0xda, 0, 3, 1, 7, 0xff, 0, 9, 0xff, 0xd0, 5],
            &[0xff, 0xd9],
        ]
        .concat()
    }

    #[test]
    fn the_end_is_that_of_the_image_not_of_a_thumbnail_nor_of_what_follows() {
        let whole = image();
        assert_eq!(length(&whole), Some(whole.len()));
        // A second picture whose scan begins but never ends: the last markers of the file are its.
        let followed = [&whole[..], &[0xff, 0xd8, 0xff, 0xda, 0, 2, 1, 2, 3]].concat();
        assert_eq!(length(&followed), Some(whole.len()));
    }

    #[test]
    fn every_part_breaks_off() {
        let whole = image();
        for n in 0..whole.len() {
            assert_eq!(length(&whole[..n]), None, "{n}");
        }
    }
}
