//! How a key is declared: once, with its name, type, default and reader. From that come the field, the reading, what a
//! misspelt key is compared with, and what the tests ask of `config/gateway.toml`.

use toml::de::DeValue;

use super::read::{Read, Section};

/// Declares a table: a struct with a field a key, and `read`, which takes them from a [`Section`].
///
/// ```text
/// table! {
///     /// `[log]`
///     pub struct Log: Default {
///         /// What the field means.
///         key: Type = default, reader;
///     } and {
///         /// What is no key, or is read by hand.
///         field: Type = default;
///     }
/// }
/// ```
///
/// `: Default` stands where a table with no keys means something. The default also goes on in place of a faulty value, so
/// that one fault hides no other.
macro_rules! table {
    (
        $(#[$meta:meta])*
        pub struct $name:ident $(: $trait:ident)? {
            $($(#[$doc:meta])* $key:ident: $type:ty = $default:expr, $reader:expr;)*
        } $(and {
            $($(#[$more_doc:meta])* $more:ident: $more_type:ty = $more_default:expr;)*
        })?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[$doc])* pub $key: $type,)*
            $($($(#[$more_doc])* pub $more: $more_type,)*)?
        }

        impl $name {
            /// Reads every key; the caller checks what must hold between them, and ends the section.
            pub(in crate::config) fn read(section: &mut $crate::config::read::Section<'_, '_, '_>) -> Self {
                let default = Self::unread();
                Self {
                    $($key: $crate::config::declare::key(section, stringify!($key), default.$key, $reader),)*
                    $($($more: default.$more,)*)?
                }
            }

            fn unread() -> Self {
                Self { $($key: $default,)* $($($more: $more_default,)*)? }
            }
        }

        $(impl $trait for $name {
            fn default() -> Self {
                Self::unread()
            }
        })?
    };
}

/// Declares a choice: an enum whose variants are words of the configuration.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $($(#[$doc:meta])* $variant:ident = $word:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            /// Every one, as the documentation has them.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$variant),*];

            /// As it is written in the configuration.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl $crate::config::declare::Word for $name {
            const WORDS: &[(&str, Self)] = &[$(($word, Self::$variant)),*];
        }
    };
}

pub(super) use {table, words};

/// A choice between words.
pub(super) trait Word: Copy + 'static {
    /// In the order in which a complaint lists them.
    const WORDS: &[(&str, Self)];
}

/// A declared key's value, or its default.
pub(super) fn key<T>(section: &mut Section<'_, '_, '_>, key: &'static str, default: T, reader: impl KeyReader<T>) -> T {
    reader.read(section, key).unwrap_or(default)
}

/// How a key's value is read: by any function from a value to what it means, or by one of the shapes below.
pub(super) trait KeyReader<T> {
    /// `None` if it is not there, or faulty; then that was reported.
    fn read(self, section: &mut Section<'_, '_, '_>, key: &'static str) -> Option<T>;
}

impl<T, F: Fn(&DeValue<'_>) -> Read<T>> KeyReader<T> for F {
    fn read(self, section: &mut Section<'_, '_, '_>, key: &'static str) -> Option<T> {
        section.optional(key, self).map(|located| located.value)
    }
}

/// A list whose elements are all read the same way.
pub(super) struct Each<F>(pub(super) F);

impl<T, F: Fn(&DeValue<'_>) -> Read<T>> KeyReader<Vec<T>> for Each<F> {
    fn read(self, section: &mut Section<'_, '_, '_>, key: &'static str) -> Option<Vec<T>> {
        section.list(key, self.0).map(|list| list.value)
    }
}

/// A value that has no default, and may be left out.
pub(super) struct Maybe<F>(pub(super) F);

impl<T, F: Fn(&DeValue<'_>) -> Read<T>> KeyReader<Option<T>> for Maybe<F> {
    fn read(self, section: &mut Section<'_, '_, '_>, key: &'static str) -> Option<Option<T>> {
        section.optional(key, self.0).map(|located| Some(located.value))
    }
}

/// A value that must be there; the text is an example to write, quotes included.
pub(super) struct Required<F>(pub(super) &'static str, pub(super) F);

impl<T, F: Fn(&DeValue<'_>) -> Read<T>> KeyReader<T> for Required<F> {
    fn read(self, section: &mut Section<'_, '_, '_>, key: &'static str) -> Option<T> {
        section.required(key, self.0, self.1).map(|located| located.value)
    }
}
