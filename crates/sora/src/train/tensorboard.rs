//! TensorBoard event files of a run's figures.
//!
//! A file is a sequence of TFRecords: the length of the data (u64, little-endian), its masked
//! CRC-32C, the data, and its masked CRC-32C. The data of each record is an `Event` message of
//! TensorFlow's `event.proto`; this module writes only the scalar part. A session that continues
//! from an earlier step starts a file of its own with a START record; TensorBoard then ignores the
//! records of older files from that step on.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use prost::Message;

use super::{Event as Told, Observer};
use crate::{
    error::{Error, Result},
    run::log::{EpochLine, StepLine, ValFigures},
};

/// Writes the events of a training to event files in a folder.
#[derive(Debug)]
pub struct TensorBoard {
    dir: PathBuf,
    writer: Option<EventWriter>,
}

impl TensorBoard {
    /// Writes one file in `dir` for each session, made when training starts.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, writer: None }
    }
}

impl Observer for TensorBoard {
    fn observe(&mut self, event: &Told<'_>) -> Result<()> {
        if let Told::Started { step, .. } = event {
            self.writer = Some(EventWriter::create(&self.dir, *step)?);
        }
        let Some(writer) = &mut self.writer else { return Ok(()) };
        match event {
            Told::Step(line) => writer.step(line),
            Told::Epoch(line) => writer.epoch(line),
            Told::RolledBack(rollback) => writer.restart(rollback.to_step),
            _ => Ok(()),
        }
    }
}

/// `tensorflow.Event`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

/// The content of an [`Event`].
#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

/// `tensorflow.Summary.Value`.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    /// The field is part of a oneof in `event.proto`, so a zero must be written too.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// `tensorflow.SessionLog`.
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `tensorflow.SessionLog.SessionStatus.START`.
const START: i32 = 1;

/// Writes one event file.
#[derive(Debug)]
struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Starts a new event file in `dir` for a session whose first step is `step`.
    ///
    /// # Errors
    /// A folder that cannot be written.
    fn create(dir: &Path, step: u64) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // TensorBoard reads the files in the order of their names; leading zeros make that the
        // order of time.
        let name =
            format!("events.out.tfevents.{:010}.{:09}.sora", since.as_secs(), since.subsec_nanos());
        let path = dir.join(name);
        let file = File::create_new(&path).map_err(|e| Error::io("create", &path, e))?;
        let mut writer = Self { path, file };
        writer.write(0, What::FileVersion("brain.Event:2".into()))?;
        writer.restart(step)?;
        Ok(writer)
    }

    /// Declares that `step` comes next; earlier records of that step and later ones no longer
    /// count.
    ///
    /// # Errors
    /// A disk that is full.
    fn restart(&mut self, step: u64) -> Result<()> {
        self.write(step, What::SessionLog(SessionLog { status: START }))
    }

    /// Writes the figures of a step.
    ///
    /// # Errors
    /// A disk that is full.
    fn step(&mut self, line: &StepLine) -> Result<()> {
        let mut value = scalars(&[
            ("train/loss", line.loss),
            ("train/adv_acc", line.adv_acc),
            ("train/lr", line.lr),
            ("attack/alpha", line.alpha),
            ("attack/delta_mean", line.delta_mean),
            ("diagnose/pert_align", line.pert_align),
            ("diagnose/linearity", line.linearity),
            ("speed/images_per_s", line.images_per_s),
        ]);
        value.extend(line.val.iter().flat_map(|val| validation("val_step", val)));
        value.extend(scalars(
            &line.co.map(|co| ("diagnose/co", co.sure as f32)).into_iter().collect::<Vec<_>>(),
        ));
        self.write(line.step, What::Summary(Summary { value }))
    }

    /// Writes the figures of an epoch, at its last step.
    ///
    /// # Errors
    /// A disk that is full.
    fn epoch(&mut self, line: &EpochLine) -> Result<()> {
        let mut value = scalars(&[
            ("epoch/loss", line.train.loss as f32),
            ("epoch/adv_acc", line.train.adv_acc as f32),
            ("epoch/pert_align", line.train.pert_align as f32),
            ("epoch/seconds", line.seconds as f32),
            ("epoch/peak_rss_mib", line.peak_rss_mib as f32),
        ]);
        value.extend(line.val.iter().flat_map(|val| validation("val", val)));
        self.write(line.step.saturating_sub(1), What::Summary(Summary { value }))
    }

    fn write(&mut self, step: u64, what: What) -> Result<()> {
        let wall_time =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let event = Event { wall_time, step: step as i64, what: Some(what) };
        // Each record is written in one call, because a reader that follows the file waits for the
        // rest of a record that it sees in part.
        self.file
            .write_all(&record(&event.encode_to_vec()))
            .map_err(|e| Error::io("append to", &self.path, e))
    }
}

fn scalars(pairs: &[(&str, f32)]) -> Vec<Value> {
    pairs
        .iter()
        .map(|&(tag, simple_value)| Value { tag: tag.into(), simple_value: Some(simple_value) })
        .collect()
}

fn validation(group: &str, val: &ValFigures) -> Vec<Value> {
    [("clean", val.clean), ("fgsm", val.fgsm), ("pgd-10", val.pgd)]
        .map(|(name, figure)| Value {
            tag: format!("{group}/{name}"),
            simple_value: Some(figure.accuracy as f32),
        })
        .into()
}

/// Encloses `data` in a TFRecord.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length), data, &masked_crc(data)].concat()
}

/// The CRC-32C, rotated and offset, so that the checksum of data that holds checksums stays useful.
fn masked_crc(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-32C bit by bit, as RFC 3720 defines it.
    fn crc_by_bits(data: &[u8]) -> u32 {
        !data.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 }
            })
        })
    }

    fn read(mut bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_at(8);
            let (crc, rest) = rest.split_at(4);
            let unmask = |crc: &[u8]| {
                u32::from_le_bytes(crc.try_into().unwrap())
                    .wrapping_sub(0xa282_ead8)
                    .rotate_left(15)
            };
            assert_eq!(unmask(crc), crc_by_bits(length));
            let (data, rest) =
                rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            let (crc, rest) = rest.split_at(4);
            assert_eq!(unmask(crc), crc_by_bits(data));
            events.push(Event::decode(data).unwrap());
            bytes = rest;
        }
        events
    }

    #[test]
    fn records_hold_what_was_written_under_their_checksums() {
        assert_eq!(crc_by_bits(&[0; 32]), 0x8a91_36aa, "RFC 3720, B.4");
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(&dir.path().join("tensorboard"), 7).unwrap();
        writer
            .step(&StepLine { step: 7, loss: 1.5, pert_align: 0.25, ..StepLine::default() })
            .unwrap();
        let name = writer.path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("events.out.tfevents."), "{name}");
        let events = read(&fs::read(&writer.path).unwrap());
        assert_eq!(events[0].what, Some(What::FileVersion("brain.Event:2".into())));
        assert_eq!(
            (events[1].step, &events[1].what),
            (7, &Some(What::SessionLog(SessionLog { status: START })))
        );
        let Some(What::Summary(summary)) = &events[2].what else { panic!("{:?}", events[2]) };
        let value = |tag: &str| {
            summary.value.iter().find(|value| value.tag == tag).and_then(|value| value.simple_value)
        };
        assert_eq!(
            (events[2].step, value("train/loss"), value("train/adv_acc"), value("val_step/clean")),
            (7, Some(1.5), Some(0.0), None)
        );
    }
}
