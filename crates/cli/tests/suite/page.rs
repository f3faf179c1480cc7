//! The report page in a browser, where this machine has one: how it looks, prints, and is used
//! without a mouse.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    browser::{Browser, address, browse, chromium},
    cli::{sora, stderr},
    report::{RUNS, text},
};

/// A screenshot of the page. It is framed: a browser's window has a least width, a frame has not.
fn shot(
    browser: &str,
    page: &Path,
    theme: &str,
    [width, height]: [u32; 2],
    dir: &Path,
) -> image::RgbImage {
    let name = page.file_stem().unwrap().to_str().unwrap();
    let picture = dir.join(format!("{name}-{theme}-{width}.png"));
    let frame = dir.join(format!("{name}-{theme}-{width}-frame.html"));
    let framed = format!("{}?theme={theme}", page.file_name().unwrap().to_str().unwrap());
    let style = format!("border:0;width:{width}px;height:{height}px");
    let html = format!("<body style=margin:0><iframe style={style:?} src={framed:?}></iframe>");
    fs::write(&frame, html).unwrap();
    let size = format!("--window-size={},{height}", width.max(500));
    let to = format!("--screenshot={}", text(&picture));
    browse(browser, &address(&frame), &[size, to]);
    let mut shot = image::open(&picture).unwrap().to_rgb8();
    image::imageops::crop(&mut shot, 0, 0, width, height).to_image()
}

/// Pixels of each of the first two colours of the charts.
fn coloured(shot: &image::RgbImage, theme: &str) -> [usize; 2] {
    let colours = if theme == "dark" {
        [[0x5a, 0xae, 0xe6], [0xff, 0x8c, 0x42]]
    } else {
        [[0x00, 0x72, 0xb2], [0xd5, 0x5e, 0x00]]
    };
    colours.map(|wanted: [u8; 3]| {
        shot.pixels().filter(|p| p.0.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) < 24)).count()
    })
}

/// A report on both runs in a folder of its own; where `SORA_SCREENSHOTS` names a folder, there.
fn page_of_both() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("SORA_SCREENSHOTS").map(PathBuf::from);
    let out = kept.unwrap_or_else(|| dir.path().to_owned());
    let output =
        sora(&["report", text(&RUNS.1[0]), text(&RUNS.1[1]), "--limit", "10", "--out", text(&out)]);
    assert!(output.status.success(), "{}", stderr(&output));
    (dir, out)
}

#[test]
fn the_page_draws_in_a_browser_at_390_and_1280_pixels_in_both_themes() {
    let Some(browser) = chromium() else { return };
    let (_kept, dir) = page_of_both();
    let page = dir.join("report.html");
    // The same page without its last script: what is more than on it, the charts drew.
    let html = fs::read_to_string(&page).unwrap();
    let still = dir.join("still.html");
    fs::write(&still, &html[..html.rfind("<script>").unwrap()]).unwrap();
    for size in [[1280, 4200], [390, 7000]] {
        let without = coloured(&shot(browser, &still, "light", size, &dir), "light");
        for theme in ["light", "dark"] {
            let picture = shot(browser, &page, theme, size, &dir);
            let paper = picture.get_pixel(1, 1).0[0];
            assert_eq!(paper < 60, theme == "dark", "{theme}: the paper is {paper}");
            // Without the script the page is light whatever was asked for.
            let without = if theme == "light" { without } else { [0; 2] };
            for (drawn, without) in coloured(&picture, theme).into_iter().zip(without) {
                assert!(
                    drawn > without + 1000,
                    "{theme} {size:?}: {drawn}, {without} without charts"
                );
            }
        }
    }
}

#[test]
fn the_page_prints_to_a_pdf_of_some_pages() {
    let Some(browser) = chromium() else { return };
    let (_kept, dir) = page_of_both();
    let pdf = dir.join("report.pdf");
    let page = format!("{}?theme=dark", address(&dir.join("report.html")));
    let to = format!("--print-to-pdf={}", text(&pdf));
    browse(browser, &page, &[to, "--no-pdf-header-footer".into()]);
    let bytes = fs::read(&pdf).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("%PDF"), "no PDF");
    let pages = text.matches("/Type /Page\n").count() + text.matches("/Type/Page/").count();
    assert!((3..=20).contains(&pages), "{pages} pages");
}

/// The element that has the focus: its role or tag, its name, and whether a frame shows the focus
/// around what can be seen.
const FOCUSED: &str = r#"(() => {
  const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
  if (e === document.body) return null;
  const label = e.getAttribute("aria-label") || e.labels?.[0]?.textContent || e.textContent;
  return {
    kind: e.getAttribute("role") || e.tagName.toLowerCase(),
    name: label.trim(),
    shown: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2
      && box.width > 0 && box.top < innerHeight && box.bottom > 0,
    place: [...document.querySelectorAll("*")].indexOf(e),
  };
})()"#;

#[test]
fn the_tab_key_walks_the_page_from_top_to_bottom() {
    let Some(browser) = chromium() else { return };
    let (_kept, dir) = page_of_both();
    let mut page = Browser::open(browser, &address(&dir.join("report.html")), [1280, 900]);
    let mut walked: Vec<Value> = Vec::new();
    loop {
        page.press("Tab");
        let focused = page.value(FOCUSED);
        if focused.is_null() || walked.first() == Some(&focused) {
            break;
        }
        assert!(walked.len() < 300, "the focus goes in circles: {focused}");
        assert_eq!(focused["shown"], true, "the focus cannot be seen: {focused}");
        assert_ne!(focused["name"], "", "no name to read out: {focused}");
        let place = |at: &Value| at["place"].as_u64();
        assert!(walked.last().is_none_or(|last| place(last) < place(&focused)), "{focused}");
        walked.push(focused);
    }
    assert_eq!(walked[0]["name"], "To the results", "the first key leads past the links");
    let walked_by = |kind: &str| walked.iter().filter(|at| at["kind"] == kind).count() as u64;
    // All that can be used is on the way: links, buttons, boxes, charts, tables and drawings that
    // scroll.
    for (kind, all) in [
        ("a", "a[href]"),
        ("button", "button"),
        ("input", "input"),
        ("section", "section.chart"),
        ("region", "[role=region]"),
        ("summary", "summary"),
    ] {
        // The tables of a part that is closed are not on the way.
        let there = format!(
            "[...document.querySelectorAll({all:?})].filter((e) => e.checkVisibility()).length"
        );
        let there = page.value(&there).as_u64().unwrap();
        assert!(there > 0 && walked_by(kind) == there, "{kind}: {} of {there}", walked_by(kind));
    }
}

/// The Cost table's texts of column `column` from top to bottom, and how the column is sorted.
fn column(page: &mut Browser, column: usize) -> (Vec<String>, String) {
    let found = page.value(&format!(
        "(() => {{ const t = document.querySelector('[aria-label=Cost] table');
          return [[...t.tBodies[0].rows].map((row) => row.children[{column}].textContent.trim()),
                  t.tHead.rows[0].children[{column}].getAttribute('aria-sort')] }})()"
    ));
    serde_json::from_value(found).unwrap()
}

#[test]
fn tables_are_sorted_by_keys_and_say_how() {
    let Some(browser) = chromium() else { return };
    let (_kept, dir) = page_of_both();
    let mut page = Browser::open(browser, &address(&dir.join("report.html")), [1280, 900]);
    let focus = |page: &mut Browser, column: usize| {
        page.value(&format!(
            "document.querySelectorAll('[aria-label=Cost] th button')[{column}].focus()"
        ));
    };
    let both = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
    // Texts, by Enter and by the space bar.
    focus(&mut page, 1);
    assert_eq!(column(&mut page, 1), (both("fgsm", "sora"), "none".into()));
    page.press("Enter");
    assert_eq!(column(&mut page, 1), (both("fgsm", "sora"), "ascending".into()));
    page.press(" ");
    assert_eq!(column(&mut page, 1), (both("sora", "fgsm"), "descending".into()));
    // Numbers, the largest first.
    focus(&mut page, 6);
    for (sorted, largest_first) in [("descending", true), ("ascending", false)] {
        page.press("Enter");
        let (cells, state) = column(&mut page, 6);
        let speeds: Vec<f64> =
            cells.iter().map(|cell| cell.replace(',', "").parse().unwrap()).collect();
        assert_eq!(state, sorted);
        assert!(speeds[0] == speeds[1] || (speeds[0] > speeds[1]) == largest_first, "{speeds:?}");
    }
    assert_eq!(column(&mut page, 1).1, "none", "one column at a time");
}

#[test]
fn charts_are_read_and_runs_switched_off_by_keys() {
    let Some(browser) = chromium() else { return };
    let (_kept, dir) = page_of_both();
    let mut page = Browser::open(browser, &address(&dir.join("report.html")), [1280, 900]);
    let said = |page: &mut Browser| {
        let said = page.value("document.activeElement.querySelector('[role=status]').textContent");
        said.as_str().unwrap().to_owned()
    };
    // Training loss: a line of each run over all steps.
    let chart = "[...document.querySelectorAll('section.chart')].find((c) => \
                 c.getAttribute('aria-label') === 'Training loss').focus()";
    page.value(chart);
    assert_eq!(said(&mut page), "");
    let mut spoken = Vec::new();
    for key in ["ArrowRight", "ArrowRight", "ArrowLeft", "End"] {
        page.press(key);
        spoken.push(said(&mut page));
    }
    assert!(spoken[0].starts_with("step 0: fgsm ") && spoken[0].contains("; sora "), "{spoken:?}");
    assert!(spoken[1].starts_with("step 1: ") && spoken[2] == spoken[0], "{spoken:?}");
    assert!(spoken[3].starts_with("step ") && spoken[3] != spoken[1], "{spoken:?}");

    page.value("document.querySelector('[data-toggle]').focus()");
    page.press(" ");
    assert_eq!(page.value("document.querySelectorAll('.card.off').length"), 1);
    page.value(chart);
    page.press("ArrowLeft");
    let now = said(&mut page);
    assert!(now.contains("sora ") && !now.contains("fgsm"), "a run that is off: {now}");
}

#[test]
fn every_part_has_a_name_for_screen_readers() {
    let Some(browser) = chromium() else { return };
    let (_kept, dir) = page_of_both();
    let mut page = Browser::open(browser, &address(&dir.join("report.html")), [1280, 900]);
    let tree = page.call("Accessibility.getFullAXTree", json!({}));
    let mut seen = 0;
    for node in tree["nodes"].as_array().unwrap() {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        let named = [
            "button",
            "link",
            "checkbox",
            "region",
            "image",
            "columnheader",
            "rowheader",
            "heading",
            "navigation",
        ];
        if node["ignored"] == false && named.contains(&role) {
            seen += 1;
            assert_ne!(node["name"]["value"], "", "{role} without a name: {node}");
        }
    }
    assert!(seen > 80, "{seen} parts");
}

#[test]
fn no_width_of_a_window_makes_the_page_scroll_sideways() {
    let Some(browser) = chromium() else { return };
    let (_kept, dir) = page_of_both();
    let mut page = Browser::open(browser, &address(&dir.join("report.html")), [1280, 900]);
    for width in [320, 390, 768, 1280, 1920] {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        page.call("Emulation.setDeviceMetricsOverride", size);
        assert_eq!(page.value("document.documentElement.scrollWidth"), width);
    }
}

#[test]
fn on_paper_the_page_is_light_and_open_and_afterwards_as_before() {
    let Some(browser) = chromium() else { return };
    let (_kept, dir) = page_of_both();
    let page = format!("{}?theme=dark", address(&dir.join("report.html")));
    let mut page = Browser::open(browser, &page, [1280, 900]);
    const STATE: &str = "({
      dark: document.documentElement.dataset.theme === 'dark',
      paper: getComputedStyle(document.body).backgroundColor,
      open: [...document.querySelectorAll('main details')].every((part) => part.open),
      links: document.querySelector('nav').checkVisibility(),
    })";
    let before = page.value(STATE);
    assert!(before["dark"] == true && before["open"] == false && before["links"] == true);
    page.call("Emulation.setEmulatedMedia", json!({"media": "print"}));
    page.value("dispatchEvent(new Event('beforeprint'))");
    let printed = page.value(STATE);
    assert_eq!(
        printed,
        json!({"dark": false, "paper": "rgb(255, 255, 255)", "open": true, "links": false})
    );
    page.value("dispatchEvent(new Event('afterprint'))");
    page.call("Emulation.setEmulatedMedia", json!({"media": ""}));
    assert_eq!(page.value(STATE), before);
}
