//! NumPy's file format for one array, as the body of a message.

/// Longest header that is read.
const LONGEST: usize = 1 << 16;

/// `values` of `shape` as little-endian f32.
pub(crate) fn write(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let sizes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let mut header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}{comma}), }}",
        sizes.join(", ")
    );
    // Magic, version and length take 10 bytes; the data begin at a multiple of 64.
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    bytes
}

/// Shape and values of an array of numbers.
///
/// # Errors
/// What is wrong, to follow "its answer".
pub(crate) fn read(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f32>), String> {
    let cut = || "is an npy array that is cut off".to_owned();
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("is no npy array")?;
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (u32::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]), rest),
        _ => return Err("is an npy array of an unknown version".into()),
    };
    let length = length as usize;
    if length > LONGEST {
        return Err("is an npy array with a header beyond all measure".into());
    }
    let (header, data) = rest.split_at_checked(length).ok_or_else(cut)?;
    let header = String::from_utf8_lossy(header);
    if !entry(&header, "fortran_order").is_some_and(|rest| rest.starts_with("False")) {
        return Err("is an npy array in Fortran's order; send it in C order".into());
    }
    let shape = shape_of(&header).ok_or("is an npy array without a shape")?;
    let count = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).ok_or_else(cut)?;
    let kind = entry(&header, "descr").unwrap_or_default();
    let kind = kind.get(1..4).unwrap_or_default();
    let values = numbers(kind, data).ok_or_else(|| {
        format!("is an npy array of type '{kind}', expected <f4, <f8, <i4, <i8 or |u1")
    })?;
    if values.len() == count { Ok((shape, values)) } else { Err(cut()) }
}

fn numbers(kind: &str, data: &[u8]) -> Option<Vec<f32>> {
    Some(match kind {
        "<f4" => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        "<f8" => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        "<i4" => data.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b) as f32).collect(),
        "<i8" => data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect(),
        "|u1" => data.iter().map(|b| f32::from(*b)).collect(),
        _ => return None,
    })
}

/// What follows the key in the header, which is a Python dictionary.
fn entry<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}'"))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

fn shape_of(header: &str) -> Option<Vec<usize>> {
    let (sizes, _) = entry(header, "shape")?.strip_prefix('(')?.split_once(')')?;
    let sizes = sizes.split(',').map(str::trim).filter(|size| !size.is_empty());
    sizes.map(|size| size.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_come_back() {
        for shape in [vec![2, 3], vec![6], vec![1, 2, 3, 1], vec![0, 5]] {
            let count = shape.iter().product::<usize>();
            let values: Vec<f32> = (0..count).map(|i| i as f32 - 1.5).collect();
            let bytes = write(&shape, &values);
            assert_eq!((bytes.len() - 4 * count) % 64, 0);
            assert_eq!(read(&bytes).unwrap(), (shape, values));
        }
    }

    #[test]
    fn arrays_that_numpy_writes_are_read() {
        // np.save of np.arange(3), of np.float64 and of np.uint8.
        let of = |kind: &str, data: &[u8]| {
            let header =
                format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': (2,), }}\n");
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((header.len() as u16).to_le_bytes());
            bytes.extend(header.as_bytes());
            bytes.extend(data);
            read(&bytes)
        };
        assert_eq!(
            of("<i8", &[7, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]).unwrap().1,
            [7.0, -1.0]
        );
        assert_eq!(of("|u1", &[3, 200]).unwrap(), (vec![2], vec![3.0, 200.0]));
        assert_eq!(
            of("<f8", &[0, 0, 0, 0, 0, 0, 240, 63, 0, 0, 0, 0, 0, 0, 0, 192]).unwrap().1,
            [1.0, -2.0]
        );
        assert!(of(">f4", &[0; 8]).unwrap_err().contains(">f4"));
        assert!(of("<f4", &[0; 7]).unwrap_err().contains("cut off"));
    }

    #[test]
    fn arrays_of_a_hostile_server_are_refused() {
        let whole = write(&[2, 3], &[1.0; 6]);
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).is_err(), "{cut}");
        }
        let huge =
            String::from_utf8_lossy(&whole).replace("(2, 3)", "(9999999999999, 9999999999999)");
        assert!(read(huge.as_bytes()).is_err());
        assert!(read(b"\x93NUMPY\x02\x00\xff\xff\xff\x7f").unwrap_err().contains("measure"));
    }
}
