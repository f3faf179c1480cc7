//! The width of text, its lines, and its form in XML.

use crate::paint::Weight;

/// Escapes text for XML; characters that XML forbids become a replacement character.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(' '),
            c if c.is_control() || ('\u{fffe}'..='\u{ffff}').contains(&c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Width of a line of text in pixels at a font size in pixels. It is exact for ASCII in the font
/// that PNG files use, and an estimate for other characters.
pub fn text_width(text: &str, size: f64, weight: Weight) -> f64 {
    // Advance widths of U+0020 to U+007E in thousandths of the font size.
    #[rustfmt::skip]
    const WIDTHS: [u16; 95] = [
        281, 278, 403, 631, 638, 812, 639, 222, 362, 362, 500, 659, 280, 460, 276, 357, 625, 464, 605, 636, 642, 608, 624, 571, 616, 624, 276, 280, 659, 659, 659, 507,
        936, 676, 651, 727, 719, 598, 587, 743, 740, 264, 543, 652, 562, 889, 753, 761, 635, 761, 639, 638, 642, 741, 676, 949, 642, 665, 625, 362, 357, 362, 469, 452,
        497, 564, 621, 558, 621, 582, 361, 609, 591, 237, 237, 544, 237, 869, 585, 597, 609, 609, 372, 523, 364, 581, 557, 812, 540, 557, 541, 362, 327, 362, 659,
    ];
    let thousandths: u64 = text
        .chars()
        .map(|c| {
            (c as usize)
                .checked_sub(32)
                .and_then(|i| WIDTHS.get(i))
                .map_or(if c > '\u{2e80}' { 1000 } else { 640 }, |w| u64::from(*w))
        })
        .sum();
    thousandths as f64 * size / 1000.0 * if weight == Weight::Bold { 1.03 } else { 1.0 }
}

/// Breaks `text` into lines no wider than `width` pixels; a longer word stays whole.
pub fn wrap(text: &str, size: f64, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
            if !line.is_empty() && text_width(&longer, size, Weight::Regular) > width {
                lines.push(std::mem::replace(&mut line, word.to_owned()));
            } else {
                line = longer;
            }
        }
        if !line.is_empty() {
            lines.push(line);
        }
    }
    lines
}

/// `text` cut to `width` pixels, with an ellipsis in place of the missing part.
pub fn shorten(text: &str, size: f64, width: f64) -> String {
    if text_width(text, size, Weight::Regular) <= width {
        return text.to_owned();
    }
    let mut short: Vec<char> = text.chars().collect();
    while !short.is_empty()
        && text_width(&(short.iter().collect::<String>() + "..."), size, Weight::Regular) > width
    {
        short.pop();
    }
    short.into_iter().collect::<String>().trim_end().to_owned() + "\u{2026}"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_the_width() {
        let width = text_width("one two", 10.0, Weight::Regular) + 0.1;
        assert_eq!(wrap("one two three\nfour", 10.0, width), ["one two", "three", "four"]);
        let short = shorten("a long label of a run", 10.0, 50.0);
        assert!(text_width(&short, 10.0, Weight::Regular) <= 50.0);
    }
}
