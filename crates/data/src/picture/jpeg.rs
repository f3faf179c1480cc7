//! Finds where a JPEG image ends in its file.

/// The length in bytes of the JPEG image at the beginning of `bytes`, its end marker included.
/// Anything may follow it (a second picture, a camera's notes). `None` when the image breaks off
/// before its end.
///
/// Segments are skipped by their length, so that markers of a thumbnail within one do not count.
/// (Within a scan neither marker can occur: 0xff is followed by 0.)
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    const START: u8 = 0xd8;
    const END: u8 = 0xd9;
    let mut at = 0;
    loop {
        // Go to the next marker; bytes between two segments are skipped, as decoders do.
        at += bytes.get(at..)?.iter().position(|&b| b == 0xff)?;
        at += bytes[at..].iter().position(|&b| b != 0xff)?;
        let marker = bytes[at];
        at += 1;
        match marker {
            END => return Some(at),
            // These markers have no segment: a stuffed 0xff, restarts, the start, and TEM.
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
        // A start, a segment that holds a whole thumbnail, a scan with a stuffed byte and a
        // restart, and an end.
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
        // A second picture begins a scan that never ends, so the file's last markers belong to it.
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
