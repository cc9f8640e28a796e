//! The shape of a command: a static table entry that parsing, help and completion all read.
//!
//! Everything here is `const` data. Building a full clap tree for every call costs more than half a millisecond of a
//! budget of two, and docker's grammar (pflag: `--rm=false`, `-it`, flags that end at the image's name) and its error
//! words are not clap's; so the hot path walks these tables, and [`super::complete`] makes clap's tree of them when
//! a shell asks for completions.

use super::context::Context;
use super::failure::Result;
use super::parse::Parsed;

/// One command, under all its spellings.
pub struct Verb {
    /// Its spellings, the shortest first: `["ps", "container ls", "container list", "container ps"]`.
    /// A verb whose first spelling has a space (`system check`) is listed in its management group only.
    pub names: &'static [&'static str],
    /// What it does, in one line.
    pub about: &'static str,
    /// What follows its name in the usage line: `[OPTIONS] IMAGE [COMMAND] [ARG...]`.
    pub usage: &'static str,
    /// Where `wharf --help` lists it.
    pub listed: Listed,
    /// How many operands it takes.
    pub operands: Operands,
    /// True when flags end at the first operand, because what follows belongs to the container's program.
    pub trailing: bool,
    /// Its flags, in the order and under the headings of its help.
    pub sections: &'static [Section],
    /// Does it.
    pub run: fn(&Parsed, &Context) -> Result<()>,
}

/// Where `wharf --help` lists a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// Among the common commands.
    Common,
    /// Among the rest.
    Other,
    /// Nowhere; it still works.
    Hidden,
}

/// How many operands a verb takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operands {
    /// None at all.
    None,
    /// This many.
    Exactly(usize),
    /// This many or more.
    AtLeast(usize),
    /// This many or fewer.
    AtMost(usize),
    /// At least so many, and at most so many.
    Between(usize, usize),
}

/// Flags under one heading.
pub struct Section {
    /// `Options`, or a narrower heading.
    pub title: &'static str,
    /// The flags.
    pub flags: &'static [Flag],
}

/// One flag.
#[derive(Debug)]
pub struct Flag {
    /// Its name after `--`.
    pub long: &'static str,
    /// Its letter after `-`.
    pub short: Option<char>,
    /// An old name that still works.
    pub alias: Option<&'static str>,
    /// What it takes.
    pub takes: Takes,
    /// What it does.
    pub help: &'static str,
    /// Its value when not given, as help prints it.
    pub default: Option<&'static str>,
    /// False when Wharf knows the flag and cannot do it yet: it is refused by name, never ignored.
    pub supported: bool,
    /// Says why a value is none, where its kind does not. As for docker that comes before anything else on the line.
    pub check: Option<Check>,
}

/// Says why a value cannot be one.
pub type Check = fn(&str) -> Result<(), String>;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Nothing, or `=true` and `=false`.
    Switch,
    /// One value of this kind (`string`, `bytes`); the last one counts.
    Value(&'static str),
    /// A value of this kind each time.
    List(&'static str),
}

impl Flag {
    const fn new(long: &'static str, takes: Takes, help: &'static str) -> Self {
        Flag { long, short: None, alias: None, takes, help, default: None, supported: true, check: None }
    }

    /// A flag that is on or off.
    pub const fn switch(long: &'static str, help: &'static str) -> Self {
        Flag::new(long, Takes::Switch, help)
    }

    /// A flag with one value.
    pub const fn value(long: &'static str, kind: &'static str, help: &'static str) -> Self {
        Flag::new(long, Takes::Value(kind), help)
    }

    /// A flag that can be repeated.
    pub const fn list(long: &'static str, help: &'static str) -> Self {
        Flag::new(long, Takes::List("list"), help)
    }

    /// The same, with a letter.
    #[must_use]
    pub const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    /// The same, with another kind of value.
    #[must_use]
    pub const fn of(mut self, kind: &'static str) -> Self {
        self.takes = match self.takes {
            Takes::List(_) => Takes::List(kind),
            Takes::Switch | Takes::Value(_) => Takes::Value(kind),
        };
        self
    }

    /// The same, with a default for its help.
    #[must_use]
    pub const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// The same, with an old name.
    #[must_use]
    pub const fn alias(mut self, alias: &'static str) -> Self {
        self.alias = Some(alias);
        self
    }

    /// The same, whose values are looked at.
    #[must_use]
    pub const fn checked(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    /// The same, known and refused.
    #[must_use]
    pub const fn not_yet(mut self) -> Self {
        self.supported = false;
        self
    }

    /// As error messages call it: `"-m, --memory"`.
    pub fn display(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.long),
            None => format!("--{}", self.long),
        }
    }
}

impl Verb {
    /// All its flags.
    pub fn flags(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        self.sections.iter().flat_map(|section| section.flags)
    }
}

/// `-q, --quiet` as listings have it.
pub const QUIET: Flag = Flag::switch("quiet", "Only display IDs").short('q');
/// `--no-trunc`.
pub const NO_TRUNC: Flag = Flag::switch("no-trunc", "Don't truncate output");
/// `-f, --filter`.
pub const FILTER: Flag = Flag::list("filter", "Filter output based on conditions provided").short('f').of("filter");
/// `--format` of a listing.
pub const FORMAT: Flag = Flag::value(
    "format",
    "string",
    "Format output using a custom template:\n\
     'table':            Print output in table format with column headers (default)\n\
     'table TEMPLATE':   Print output in table format using the given Go template\n\
     'json':             Print in JSON format\n\
     'TEMPLATE':         Print output using the given Go template",
);
/// `-f, --format` of a command that shows one object.
pub const FORMAT_OBJECT: Flag = Flag::value(
    "format",
    "string",
    "Format output using a custom template:\n\
     'json':             Print in JSON format\n\
     'TEMPLATE':         Print output using the given Go template",
)
.short('f');
/// `-f, --force`.
pub const FORCE_PROMPT: Flag = Flag::switch("force", "Do not prompt for confirmation").short('f');
