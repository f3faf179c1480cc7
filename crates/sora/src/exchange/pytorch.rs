//! The containers that `torch.save` writes: a zip archive since PyTorch 1.6; before that, one
//! pickle after another with the numbers behind them.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
};

use super::{
    checkpoint::{Kind, Source, StoredTensor, Strided},
    pickle::{Node, Pickle, Problem, Storage, Tensor, Value, text},
};

/// The number with which the old format begins, in the form of its pickle.
const OLD_MAGIC: [u8; 14] =
    [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// Most values that are searched for tensors.
const MOST_VISITS: usize = 1 << 23;
/// Greatest depth of nesting that is searched.
const DEEPEST: usize = 200;

/// Lists every tensor of a file that `torch.save` or `torch.jit.save` wrote; `None` for a file of
/// neither format.
pub(super) fn read(path: &Path) -> Result<Option<Vec<StoredTensor>>, Problem> {
    let mut file = File::open(path).map_err(|e| e.to_string())?;
    let mut start = [0; OLD_MAGIC.len()];
    let filled = fill(&mut file, &mut start)?;
    if start.starts_with(b"PK\x03\x04") {
        return archive(path).map(Some);
    }
    if filled == start.len() && start == OLD_MAGIC {
        file.seek(SeekFrom::Start(0)).map_err(|e| e.to_string())?;
        return old(path, BufReader::new(file)).map(Some);
    }
    Ok(None)
}

fn fill(file: &mut File, bytes: &mut [u8]) -> Result<usize, Problem> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest).map_err(|e| e.to_string())? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Offset and length of each storage's numbers in the file.
type Places = HashMap<Arc<str>, (u64, u64)>;

/// The zip format: `NAME/data.pkl` and a file `NAME/data/KEY` for each storage, not compressed.
fn archive(path: &Path) -> Result<Vec<StoredTensor>, Problem> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let mut zip = zip::ZipArchive::new(BufReader::new(file)).map_err(|e| e.to_string())?;
    let name = zip
        .file_names()
        .flatten()
        .find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"))
        .ok_or("an archive without data.pkl")?
        .into_owned();
    let root = name.trim_end_matches("data.pkl").to_owned();
    if let Ok(mut order) = zip.by_name(&format!("{root}byteorder")) {
        let mut text = String::new();
        let read = order.by_ref().take(16).read_to_string(&mut text);
        if read.is_ok() && text.trim() != "little" {
            return Err("written on a big-endian machine, which is not supported".into());
        }
    }
    let pickle = Pickle::read(&mut zip.by_name(&name).map_err(|e| e.to_string())?)?;
    let mut places = Places::new();
    let folder = format!("{root}data/");
    for index in 0..zip.len() {
        let Ok(entry) = zip.by_index_raw(index) else { continue };
        let Ok(name) = entry.name() else { continue };
        if let (Some(key), zip::CompressionMethod::Stored, Some(start)) =
            (name.strip_prefix(&folder), entry.compression(), entry.data_start())
        {
            places.insert(key.into(), (start, entry.size()));
        }
    }
    Ok(entries(path, &pickle, &places))
}

/// The format before PyTorch 1.6: magic number, version, sizes of the machine's types, the pickle
/// itself, the list of its storages, and then the length and the numbers of each storage.
fn old(path: &Path, mut file: BufReader<File>) -> Result<Vec<StoredTensor>, Problem> {
    for _ in 0..3 {
        Pickle::read(&mut file)?;
    }
    let pickle = Pickle::read(&mut file)?;
    let keys = Pickle::read(&mut file)?;
    let Some(Node::List(keys)) = keys.node(&keys.root) else {
        return Err("no list of storages where one is expected".into());
    };
    let sizes: HashMap<Arc<str>, u64> =
        pickle.storages().map(|storage| (storage.key.clone(), size(&storage.kind))).collect();
    let mut places = Places::new();
    for key in keys {
        let key = text(key);
        let mut len = [0; 8];
        file.read_exact(&mut len).map_err(|_| "cut off in its numbers".to_owned())?;
        let Some(bytes) = sizes
            .get(&key)
            .and_then(|size| u64::from_le_bytes(len).checked_mul(*size))
            .filter(|bytes| i64::try_from(*bytes).is_ok())
        else {
            return Err("a storage of no size".into());
        };
        let start = file.stream_position().map_err(|e| e.to_string())?;
        places.insert(key, (start, bytes));
        file.seek_relative(bytes as i64).map_err(|e| e.to_string())?;
    }
    Ok(entries(path, &pickle, &places))
}

/// Number of bytes of an element; 1 for an unknown type.
fn size(kind: &str) -> u64 {
    match kind.trim_end_matches("Storage").to_lowercase().as_str() {
        "double" | "long" | "float64" | "int64" | "complexfloat" | "complex64" => 8,
        "float" | "int" | "float32" | "int32" | "qint32" | "complexhalf" | "complex32" => 4,
        "half" | "bfloat16" | "short" | "float16" | "int16" | "uint16" => 2,
        "complexdouble" | "complex128" => 16,
        _ => 1,
    }
}

fn kind(name: &str) -> Kind {
    match name.trim_end_matches("Storage").to_lowercase().as_str() {
        "float" | "float32" => Kind::F32,
        "double" | "float64" => Kind::F64,
        "half" | "float16" => Kind::F16,
        "bfloat16" => Kind::Bf16,
        _ => Kind::Other,
    }
}

fn entries(path: &Path, pickle: &Pickle, places: &Places) -> Vec<StoredTensor> {
    let path: Arc<Path> = path.into();
    let entry = |(name, tensor): (String, Tensor)| {
        let Tensor { storage, offset, shape, stride } = tensor;
        let (start, len) = places.get(&storage.key).copied().unwrap_or((0, 0));
        let strided = Strided { path: path.clone(), start, len, offset, stride };
        StoredTensor { name, shape, dtype: kind(&storage.kind), source: Source::File(strided) }
    };
    let mut entries: Vec<StoredTensor> = pickle.tensors().into_iter().map(entry).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    // An object that is also a dictionary lists every tensor twice.
    entries.dedup_by(|a, b| a.name == b.name);
    entries
}

impl Pickle {
    fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.nodes().filter_map(|node| match node {
            Node::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// Every tensor, named by the keys on the way to it, joined by dots. Parts of a saved module
    /// have the names of its state dict.
    fn tensors(&self) -> Vec<(String, Tensor)> {
        let mut walk = Walk { pickle: self, found: Vec::new(), barren: HashSet::new(), visits: 0 };
        walk.visit(&self.root, &mut Vec::new());
        walk.found
    }
}

/// A walk through the values of a pickle.
struct Walk<'a> {
    pickle: &'a Pickle,
    found: Vec<(String, Tensor)>,
    /// Nodes without a tensor below them, so that shared nodes are not searched twice.
    barren: HashSet<usize>,
    visits: usize,
}

impl Walk<'_> {
    fn visit(&mut self, value: &Value, path: &mut Vec<Arc<str>>) {
        self.visits += 1;
        let (Value::Node(index), true) = (value, self.visits < MOST_VISITS && path.len() < DEEPEST)
        else {
            return;
        };
        if self.barren.contains(index) {
            return;
        }
        let before = self.found.len();
        match self.pickle.node(value) {
            Some(Node::Tensor(tensor)) => {
                let parts: Vec<&str> = path.iter().map(|part| &**part).collect();
                self.found.push((parts.join("."), tensor.clone()));
            }
            Some(Node::Dict(items)) => self.items(items, path),
            Some(Node::List(list)) => self.list(list, path),
            Some(Node::Object { items, list, state, .. }) => {
                self.items(items, path);
                self.list(list, path);
                if let Some(state) = state {
                    self.state(state, path);
                }
            }
            Some(Node::Storage(_)) | None => {}
        }
        if self.found.len() == before {
            self.barren.insert(*index);
        }
    }

    fn below(&mut self, part: Arc<str>, value: &Value, path: &mut Vec<Arc<str>>) {
        if matches!(value, Value::Node(_)) {
            path.push(part);
            self.visit(value, path);
            path.pop();
        }
    }

    fn items(&mut self, items: &[(Value, Value)], path: &mut Vec<Arc<str>>) {
        for (key, value) in items {
            self.below(self.key(key), value, path);
        }
    }

    fn list(&mut self, list: &[Value], path: &mut Vec<Arc<str>>) {
        for (index, value) in list.iter().enumerate() {
            self.below(index.to_string().into(), value, path);
        }
    }

    /// Walks through the attributes of an object; attributes in which a module keeps its parts add
    /// no name.
    fn state(&mut self, state: &Value, path: &mut Vec<Arc<str>>) {
        match self.pickle.node(state) {
            Some(Node::Dict(items)) => {
                for (key, value) in items {
                    let name = self.key(key);
                    if ["_parameters", "_buffers", "_modules"].contains(&&*name) {
                        self.visit(value, path);
                    } else {
                        self.below(name, value, path);
                    }
                }
            }
            // (attributes, slots).
            Some(Node::List(both)) => both.iter().for_each(|state| {
                if let Some(Node::Dict(_)) = self.pickle.node(state) {
                    self.state(state, path);
                }
            }),
            _ => {}
        }
    }

    fn key(&self, key: &Value) -> Arc<str> {
        match self.pickle.node(key) {
            Some(Node::List(parts)) => {
                parts.iter().map(|part| text(part).to_string()).collect::<Vec<_>>().join("_").into()
            }
            _ => text(key),
        }
    }
}
