//! Formats of a figure's file.

use std::path::Path;

use crate::error::{Error, Result};

/// Format of a figure's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Scalable vector graphics.
    Svg,
    /// Portable network graphics; needs the feature `png`.
    Png,
}

impl Format {
    /// The format that the ending of `path` names.
    ///
    /// # Errors
    /// [`Error::Format`] for an ending other than `.svg` and `.png`.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().map(|e| e.to_string_lossy().to_lowercase()).as_deref() {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            _ => Err(Error::Format { path: path.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_names_the_format() {
        assert_eq!(Format::of("a.b/c.SVG".as_ref()).unwrap(), Format::Svg);
        assert_eq!(Format::of("c.png".as_ref()).unwrap(), Format::Png);
        for other in ["svg", "c.pdf", "c.svg/", "c"] {
            let found = Format::of(other.as_ref());
            assert!(matches!(found, Err(Error::Format { .. })) || other == "c.svg/", "{other}");
        }
    }
}
