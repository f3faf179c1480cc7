//! The messages of ONNX's file format (onnx.proto3) that networks need. Tags and types follow the
//! format; unknown fields are skipped.

use prost::Message;

macro_rules! messages {
    ($($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $type:ty,)* })*) => {
        $($(#[$about])* #[derive(Clone, PartialEq, Message)] pub struct $name { $($(#[$field_about])* pub $field: $type,)* })*
    };
}

messages! {
    /// A file.
    ModelProto {
        /// Version of the file format.
        #[prost(int64, tag = "1")] ir_version: i64,
        /// Program that wrote it.
        #[prost(string, tag = "2")] producer_name: String,
        /// Its version.
        #[prost(string, tag = "3")] producer_version: String,
        /// The network.
        #[prost(message, optional, tag = "7")] graph: Option<GraphProto>,
        /// Operator sets and their versions.
        #[prost(message, repeated, tag = "8")] opset_import: Vec<OperatorSetIdProto>,
        /// Anything else.
        #[prost(message, repeated, tag = "14")] metadata_props: Vec<StringStringEntryProto>,
        /// Operators made of others.
        #[prost(message, repeated, tag = "25")] functions: Vec<FunctionProto>,
    }
    /// An operator set; ONNX's own has an empty domain.
    OperatorSetIdProto {
        /// Its name.
        #[prost(string, tag = "1")] domain: String,
        /// Its version.
        #[prost(int64, tag = "2")] version: i64,
    }
    /// A pair of texts.
    StringStringEntryProto {
        /// Name.
        #[prost(string, tag = "1")] key: String,
        /// Content.
        #[prost(string, tag = "2")] value: String,
    }
    /// Nodes in an order in which they can be computed.
    GraphProto {
        /// The nodes.
        #[prost(message, repeated, tag = "1")] node: Vec<NodeProto>,
        /// Name.
        #[prost(string, tag = "2")] name: String,
        /// Constants.
        #[prost(message, repeated, tag = "5")] initializer: Vec<TensorProto>,
        /// What is given, in old files the constants, too.
        #[prost(message, repeated, tag = "11")] input: Vec<ValueInfoProto>,
        /// What is asked for.
        #[prost(message, repeated, tag = "12")] output: Vec<ValueInfoProto>,
    }
    /// An operator made of others.
    FunctionProto {
        /// Its name.
        #[prost(string, tag = "1")] name: String,
        /// Names of its inputs within.
        #[prost(string, repeated, tag = "4")] input: Vec<String>,
        /// Names of its outputs within.
        #[prost(string, repeated, tag = "5")] output: Vec<String>,
        /// Names of its attributes without defaults.
        #[prost(string, repeated, tag = "6")] attribute: Vec<String>,
        /// Its nodes.
        #[prost(message, repeated, tag = "7")] node: Vec<NodeProto>,
        /// Operator sets of its nodes.
        #[prost(message, repeated, tag = "9")] opset_import: Vec<OperatorSetIdProto>,
        /// Its operator set.
        #[prost(string, tag = "10")] domain: String,
        /// Attributes with defaults.
        #[prost(message, repeated, tag = "11")] attribute_proto: Vec<AttributeProto>,
        /// Which of the functions with this name and operator set it is.
        #[prost(string, tag = "13")] overload: String,
    }
    /// One operation.
    NodeProto {
        /// Names of the values it reads; an empty one is left out.
        #[prost(string, repeated, tag = "1")] input: Vec<String>,
        /// Names of the values it gives.
        #[prost(string, repeated, tag = "2")] output: Vec<String>,
        /// Name.
        #[prost(string, tag = "3")] name: String,
        /// Operator.
        #[prost(string, tag = "4")] op_type: String,
        /// Options.
        #[prost(message, repeated, tag = "5")] attribute: Vec<AttributeProto>,
        /// Operator set.
        #[prost(string, tag = "7")] domain: String,
        /// Which of the functions with the operator's name it calls.
        #[prost(string, tag = "8")] overload: String,
    }
    /// An option of a node.
    AttributeProto {
        /// Name.
        #[prost(string, tag = "1")] name: String,
        /// A number.
        #[prost(float, tag = "2")] f: f32,
        /// A whole number.
        #[prost(int64, tag = "3")] i: i64,
        /// A text.
        #[prost(bytes = "vec", tag = "4")] s: Vec<u8>,
        /// A tensor.
        #[prost(message, optional, tag = "5")] t: Option<TensorProto>,
        /// Numbers.
        #[prost(float, repeated, tag = "7")] floats: Vec<f32>,
        /// Whole numbers.
        #[prost(int64, repeated, tag = "8")] ints: Vec<i64>,
        /// Texts.
        #[prost(bytes = "vec", repeated, tag = "9")] strings: Vec<Vec<u8>>,
        /// Which of the fields counts.
        #[prost(int32, tag = "20")] r#type: i32,
        /// Within a function: the attribute of the call that stands here.
        #[prost(string, tag = "21")] ref_attr_name: String,
    }
    /// A tensor.
    TensorProto {
        /// Shape.
        #[prost(int64, repeated, tag = "1")] dims: Vec<i64>,
        /// Type of its elements.
        #[prost(int32, tag = "2")] data_type: i32,
        /// Elements of type FLOAT.
        #[prost(float, repeated, tag = "4")] float_data: Vec<f32>,
        /// Elements of narrow types.
        #[prost(int32, repeated, tag = "5")] int32_data: Vec<i32>,
        /// Elements of type INT64.
        #[prost(int64, repeated, tag = "7")] int64_data: Vec<i64>,
        /// Name.
        #[prost(string, tag = "8")] name: String,
        /// Elements as bytes, little-endian.
        #[prost(bytes = "vec", tag = "9")] raw_data: Vec<u8>,
        /// Elements of type DOUBLE.
        #[prost(double, repeated, tag = "10")] double_data: Vec<f64>,
        /// Elements of type UINT64.
        #[prost(uint64, repeated, tag = "11")] uint64_data: Vec<u64>,
        /// Where in another file the elements are.
        #[prost(message, repeated, tag = "13")] external_data: Vec<StringStringEntryProto>,
        /// 1: in another file.
        #[prost(int32, tag = "14")] data_location: i32,
    }
    /// Name and type of a value.
    ValueInfoProto {
        /// Name.
        #[prost(string, tag = "1")] name: String,
        /// Type.
        #[prost(message, optional, tag = "2")] r#type: Option<TypeProto>,
    }
    /// A type.
    TypeProto {
        /// Of a tensor.
        #[prost(message, optional, tag = "1")] tensor_type: Option<TensorTypeProto>,
    }
    /// Type of a tensor.
    TensorTypeProto {
        /// Type of its elements.
        #[prost(int32, tag = "1")] elem_type: i32,
        /// Its shape, if it is known.
        #[prost(message, optional, tag = "2")] shape: Option<TensorShapeProto>,
    }
    /// A shape.
    TensorShapeProto {
        /// Its dimensions.
        #[prost(message, repeated, tag = "1")] dim: Vec<DimensionProto>,
    }
    /// A dimension: a number, a name, or nothing.
    DimensionProto {
        /// The number or the name.
        #[prost(oneof = "Dimension", tags = "1, 2")] value: Option<Dimension>,
    }
}

/// Largest message in bytes that readers of the format accept.
pub const LARGEST: usize = (1 << 31) - 1;

/// Size of a dimension.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Dimension {
    /// A number.
    #[prost(int64, tag = "1")]
    Size(i64),
    /// A name that stands for any number.
    #[prost(string, tag = "2")]
    Named(String),
}

/// `TensorProto.DataType`: types of elements that networks use.
pub mod data_type {
    /// f32.
    pub const FLOAT: i32 = 1;
    /// u8.
    pub const UINT8: i32 = 2;
    /// i8.
    pub const INT8: i32 = 3;
    /// u16.
    pub const UINT16: i32 = 4;
    /// i16.
    pub const INT16: i32 = 5;
    /// i32.
    pub const INT32: i32 = 6;
    /// i64.
    pub const INT64: i32 = 7;
    /// bool.
    pub const BOOL: i32 = 9;
    /// IEEE 754 half precision.
    pub const FLOAT16: i32 = 10;
    /// f64.
    pub const DOUBLE: i32 = 11;
    /// u32.
    pub const UINT32: i32 = 12;
    /// u64.
    pub const UINT64: i32 = 13;
    /// bfloat16.
    pub const BFLOAT16: i32 = 16;
}

/// `AttributeProto.AttributeType`.
pub mod attribute_type {
    /// A number.
    pub const FLOAT: i32 = 1;
    /// A whole number.
    pub const INT: i32 = 2;
    /// A text.
    pub const STRING: i32 = 3;
    /// A tensor.
    pub const TENSOR: i32 = 4;
    /// Numbers.
    pub const FLOATS: i32 = 6;
    /// Whole numbers.
    pub const INTS: i32 = 7;
}
