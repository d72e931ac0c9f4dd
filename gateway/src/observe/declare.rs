//! What is said of a number once: its name, its kind, its unit, its labels and its help.

/// Before every name, for monitoring systems have one room for all programs.
pub const PREFIX: &str = "smtp_gateway";

/// What a number is, for whoever shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declaration {
    /// Without the prefix. A counter's ends in `_total`, one with a unit has the unit before that.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Names of its labels, in the order of a sample's values.
    pub labels: &'static [&'static str],
    /// What it counts, in a sentence with its stop.
    pub help: &'static str,
}

/// How a number behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the gateway runs.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    /// As OpenMetrics writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Declaration {
    /// As monitoring systems know it.
    pub fn full_name(&self) -> String {
        format!("{PREFIX}_{}", self.name)
    }

    /// `seconds` or `bytes`, where the name says so.
    pub fn unit(&self) -> Option<&'static str> {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(&format!("_{unit}")))
    }
}

/// A closed set of label values: an enum whose members are written in one way.
pub trait Label: Copy + 'static {
    /// Every one, in order.
    const ALL: &'static [Self];
    /// Its place in [`Label::ALL`].
    fn index(self) -> usize;
    /// As it is written.
    fn as_str(self) -> &'static str;
}

/// Declares an enum that is a [`Label`].
macro_rules! label {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])+ $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])+ $variant,)+
        }

        impl $crate::observe::declare::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn index(self) -> usize {
                self as usize
            }

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}
pub(crate) use label;
