//! Page headers: structures in Thrift's compact protocol, checked before a decoder trusts them.

/// The fields of a page header that the checks need.
pub(super) struct PageHeader {
    /// Bytes of the header.
    pub length: usize,
    pub compressed: i32,
    pub uncompressed: i32,
    /// Number of rows of a data page (without repetition: values); `None` for a dictionary.
    pub rows: Option<i32>,
    /// Values of a dictionary.
    pub entries: Option<i32>,
}

impl PageHeader {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut thrift = Thrift { bytes, at: 0 };
        let (mut compressed, mut uncompressed, mut rows, mut entries) = (None, None, None, None);
        let mut field = 0;
        while let Some(kind) = thrift.field(&mut field)? {
            match (field, kind) {
                (2, 5) => uncompressed = Some(thrift.int()?),
                (3, 5) => compressed = Some(thrift.int()?),
                // The data page headers of both versions begin with the number of values.
                (5 | 8, 12) => rows = Some(thrift.first_int()?),
                (7, 12) => entries = Some(thrift.first_int()?),
                _ => thrift.skip(kind, 0)?,
            }
        }
        Some(Self {
            length: thrift.at,
            compressed: compressed?,
            uncompressed: uncompressed?,
            rows,
            entries,
        })
    }
}

struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn int(&mut self) -> Option<i32> {
        let raw = self.varint()?;
        i32::try_from((raw >> 1) as i64 ^ -((raw & 1) as i64)).ok()
    }

    /// The next field's type; `Some(None)` at the structure's end. `id` is the number of the last
    /// field.
    fn field(&mut self, id: &mut i32) -> Option<Option<u8>> {
        let head = self.byte()?;
        if head == 0 {
            return Some(None);
        }
        *id = match head >> 4 {
            0 => self.int()?,
            delta => id.checked_add(i32::from(delta))?,
        };
        Some(Some(head & 0xf))
    }

    /// Field 1, a number, of a structure that is read to its end.
    fn first_int(&mut self) -> Option<i32> {
        let (mut id, mut first) = (0, None);
        while let Some(kind) = self.field(&mut id)? {
            match (id, kind) {
                (1, 5) => first = Some(self.int()?),
                _ => self.skip(kind, 0)?,
            }
        }
        first
    }

    fn advance(&mut self, n: usize) -> Option<()> {
        self.at = self.at.checked_add(n).filter(|&at| at <= self.bytes.len())?;
        Some(())
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > 8 {
            return None;
        }
        match kind {
            // A boolean's value is part of its type.
            1 | 2 => Some(()),
            3 => self.advance(1),
            4..=6 => self.varint().map(drop),
            7 => self.advance(8),
            8 => {
                let n = usize::try_from(self.varint()?).ok()?;
                self.advance(n)
            }
            12 => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
                Some(())
            }
            // Page headers have no lists, sets or maps.
            _ => None,
        }
    }
}
