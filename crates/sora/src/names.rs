//! Enums of choices, each with a name that files and command lines use.

/// Gives an enum of choices its names: `ALL`, `NAMES`, `name`, [`Display`](std::fmt::Display) and
/// [`FromStr`](std::str::FromStr). `$kind` names the kind of choice in the error for a wrong name.
macro_rules! named {
    ($type:ident, $kind:literal: $($variant:ident = $name:literal),+ $(,)?) => {
        impl $type {
            /// Every choice.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// Their names, in the same order.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::error::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err($crate::error::Error::unknown($kind, text, Self::NAMES.iter().copied())),
                }
            }
        }
    };
}

pub(crate) use named;
