//! Docker's command-line grammar: that of Go's pflag package (<https://pkg.go.dev/github.com/spf13/pflag>), with its
//! error words, over the static tables of [`super::verb`]. Nothing is built beforehand and nothing is copied that was
//! not given.

use super::failure::{Failure, Result};
use super::values;
use super::verb::{Flag, Operands, Takes, Verb};

/// A command line, understood as far as its verb's table goes. Values are read by [`Parsed::read`].
pub struct Parsed {
    /// The verb.
    pub verb: &'static Verb,
    /// The command as typed, with the program's name: `wharf container run`.
    pub spelling: String,
    given: Vec<(&'static Flag, String)>,
    operands: Vec<String>,
}

/// What a command line asks for.
pub enum Request {
    /// To do it.
    Run(Parsed),
    /// To print its help.
    Help,
}

impl Parsed {
    /// Parses what follows the verb.
    ///
    /// # Errors
    /// Docker's words and codes: 125 for flags, 1 for a wrong number of operands.
    pub fn parse(verb: &'static Verb, name: &str, args: impl Iterator<Item = String>) -> Result<Request> {
        let mut parsed = Parsed { verb, spelling: format!("wharf {name}"), given: Vec::new(), operands: Vec::new() };
        let mut args = args;
        while let Some(arg) = args.next() {
            if arg == "--" {
                parsed.operands.extend(args.by_ref());
            } else if let Some(long) = arg.strip_prefix("--") {
                if long == "help" || long == "help=true" {
                    return Ok(Request::Help);
                }
                parsed.long(&arg, long, &mut args)?;
            } else if arg.len() > 1 && arg.starts_with('-') {
                if arg == "-h" && !verb.flags().any(|flag| flag.short == Some('h')) {
                    return Ok(Request::Help);
                }
                parsed.shorts(&arg, &mut args)?;
            } else {
                parsed.operands.push(arg);
                if verb.trailing {
                    parsed.operands.extend(args.by_ref());
                }
            }
        }
        parsed.refuse_unsupported()?;
        parsed.expect(parsed.verb.operands)?;
        Ok(Request::Run(parsed))
    }

    fn long(&mut self, arg: &str, body: &str, rest: &mut impl Iterator<Item = String>) -> Result<()> {
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        if name.is_empty() || name.starts_with('-') {
            return Err(self.flag_error(&format!("bad flag syntax: {arg}")));
        }
        let Some(flag) = self.verb.flags().find(|flag| flag.long == name || flag.alias == Some(name)) else {
            return Err(self.flag_error(&format!("unknown flag: --{name}")));
        };
        let value = match (flag.takes, value) {
            (_, Some(value)) => value,
            (Takes::Switch, None) => "true".to_owned(),
            (_, None) => match rest.next() {
                Some(value) => value,
                None => return Err(self.flag_error(&format!("flag needs an argument: {arg}"))),
            },
        };
        self.push(flag, value)
    }

    fn shorts(&mut self, arg: &str, rest: &mut impl Iterator<Item = String>) -> Result<()> {
        let mut letters = &arg[1..];
        while let Some(letter) = letters.chars().next() {
            let Some(flag) = self.verb.flags().find(|flag| flag.short == Some(letter)) else {
                return Err(self.flag_error(&format!("unknown shorthand flag: '{letter}' in -{letters}")));
            };
            let after = &letters[letter.len_utf8()..];
            if let Some(value) = after.strip_prefix('=') {
                return self.push(flag, value.to_owned());
            }
            if flag.takes == Takes::Switch {
                self.push(flag, "true".to_owned())?;
                letters = after;
                continue;
            }
            let value = if after.is_empty() { rest.next() } else { Some(after.to_owned()) };
            let Some(value) = value else {
                return Err(self.flag_error(&format!("flag needs an argument: '{letter}' in -{letters}")));
            };
            return self.push(flag, value);
        }
        Ok(())
    }

    fn push(&mut self, flag: &'static Flag, value: String) -> Result<()> {
        let kind = match flag.takes {
            Takes::Switch => "bool",
            Takes::Value(kind) | Takes::List(kind) => kind,
        };
        let checked = match flag.check {
            Some(check) => check(&value),
            None => values::check(kind, &value),
        };
        checked.map_err(|why| self.invalid(flag, &value, &why))?;
        self.given.push((flag, value));
        Ok(())
    }

    fn refuse_unsupported(&self) -> Result<()> {
        for (flag, value) in &self.given {
            // Asking for what is the case anyway (`--restart no`) asks for nothing.
            let harmless = flag.default == Some(value.as_str()) || (flag.takes == Takes::Switch && !is_true(value));
            if !flag.supported && !harmless {
                return Err(self.flag_error(&format!("--{} is not supported yet", flag.long)));
            }
        }
        Ok(())
    }

    /// Checks how many operands there are.
    ///
    /// # Errors
    /// Docker's words.
    pub fn expect(&self, operands: Operands) -> Result<()> {
        let n = self.operands.len();
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let wants = match operands {
            Operands::None if n > 0 => "accepts no arguments".to_owned(),
            Operands::Exactly(m) if n != m => format!("requires {m} argument{}", plural(m)),
            Operands::AtLeast(m) if n < m => format!("requires at least {m} argument{}", plural(m)),
            Operands::AtMost(m) if n > m => format!("requires at most {m} argument{}", plural(m)),
            Operands::Between(least, most) if n < least || n > most => {
                format!("requires at least {least} and at most {most} argument{}", plural(most))
            }
            _ => return Ok(()),
        };
        let Parsed { spelling, verb, .. } = self;
        let see = if matches!(operands, Operands::AtLeast(_)) { "See" } else { "Run" };
        let text = format!(
            "wharf: '{spelling}' {wants}\n\nUsage:  {}\n\n{see} '{spelling} --help' for more information\n",
            super::help::usage(verb, spelling)
        );
        Err(Failure::Usage { text, code: 1 })
    }

    /// A wrong flag, in docker's form and with its exit code 125.
    pub fn flag_error(&self, message: &str) -> Failure {
        let Parsed { spelling, verb, .. } = self;
        let text = format!(
            "{message}\n\nUsage:  {}\n\nRun '{spelling} --help' for more information\n",
            super::help::usage(verb, spelling)
        );
        Failure::Usage { text, code: 125 }
    }

    fn invalid(&self, flag: &Flag, value: &str, why: &str) -> Failure {
        self.flag_error(&format!("invalid argument {value:?} for \"{}\" flag: {why}", flag.display()))
    }

    fn all(&self, long: &str) -> impl DoubleEndedIterator<Item = &(&'static Flag, String)> {
        debug_assert!(self.verb.flags().any(|flag| flag.long == long), "{} has no --{long}", self.verb.names[0]);
        self.given.iter().filter(move |(flag, _)| flag.long == long)
    }

    /// Whether a switch is on. One that is on unless told otherwise has `true` as its default.
    pub fn switch(&self, long: &str) -> bool {
        match self.all(long).next_back() {
            Some((_, value)) => is_true(value),
            None => self.verb.flags().any(|flag| flag.long == long && flag.default == Some("true")),
        }
    }

    /// Whether a flag was given at all.
    pub fn given(&self, long: &str) -> bool {
        self.all(long).next().is_some()
    }

    /// A flag's value: the last one given.
    pub fn value(&self, long: &str) -> Option<&str> {
        self.all(long).next_back().map(|(_, value)| value.as_str())
    }

    /// All values of a repeated flag, in order.
    pub fn values(&self, long: &str) -> impl Iterator<Item = &str> {
        self.all(long).map(|(_, value)| value.as_str())
    }

    /// A flag's value, read by `read`.
    ///
    /// # Errors
    /// Docker's `invalid argument "x" for "-m, --memory" flag: WHY`, where `read` says why.
    pub fn read<T>(&self, long: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>> {
        let Some((flag, value)) = self.all(long).next_back() else { return Ok(None) };
        read(value).map(Some).map_err(|why| self.invalid(flag, value, &why))
    }

    /// The same of a flag whose value docker reads when the line is understood as a whole: the reason stands alone.
    ///
    /// # Errors
    /// What `read` says.
    pub fn read_late<T>(&self, long: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>> {
        self.value(long).map(|value| read(value).map_err(Failure::new)).transpose()
    }

    /// All values of such a flag.
    ///
    /// # Errors
    /// As [`Parsed::read_late`].
    pub fn read_all_late<T>(&self, long: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>> {
        self.values(long).map(|value| read(value).map_err(Failure::new)).collect()
    }

    /// All values of a repeated flag, each read by `read`.
    ///
    /// # Errors
    /// As [`Parsed::read`].
    pub fn read_all<T>(&self, long: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>> {
        self.all(long).map(|(flag, value)| read(value).map_err(|why| self.invalid(flag, value, &why))).collect()
    }

    /// The operands. The verb's table says how many there are at least.
    pub fn operands(&self) -> &[String] {
        &self.operands
    }
}

/// Go's `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn is_true(text: &str) -> bool {
    parse_bool(text) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::verb::{Listed, Section};

    static VERB: Verb = Verb {
        names: &["try", "box try"],
        about: "Try",
        usage: "[OPTIONS] IMAGE [ARG...]",
        listed: Listed::Hidden,
        operands: Operands::AtLeast(1),
        trailing: true,
        sections: &[Section {
            title: "Options",
            flags: &[
                Flag::switch("interactive", "").short('i'),
                Flag::switch("tty", "").short('t'),
                Flag::switch("sig-proxy", "").or("true"),
                Flag::list("env", "").short('e'),
                Flag::value("network", "network", "").alias("net"),
                Flag::value("restart", "string", "").or("no").not_yet(),
                Flag::value("memory", "amount", "").short('m'),
                Flag::value("cpus", "decimal", ""),
                Flag::switch("gpus", "").not_yet(),
            ],
        }],
        run: |_, _| Ok(()),
    };

    fn parse(line: &str) -> Result<Parsed> {
        match Parsed::parse(&VERB, "try", line.split(' ').filter(|s| !s.is_empty()).map(str::to_owned))? {
            Request::Run(parsed) => Ok(parsed),
            Request::Help => panic!("help"),
        }
    }

    fn error(line: &str) -> (String, u8) {
        match parse(line) {
            Err(Failure::Usage { text, code }) => (text.lines().next().unwrap_or_default().to_owned(), code),
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("{line} should have failed"),
        }
    }

    #[test]
    fn flags_are_read_as_pflag_reads_them() {
        let p = parse("-it -e A=1 -eB=2 -e=C=3 --env D=4 --env=E=5 --net=none img -x --rm").expect("parse");
        assert!(p.switch("interactive") && p.switch("tty") && p.switch("sig-proxy"));
        assert_eq!(p.values("env").collect::<Vec<_>>(), ["A=1", "B=2", "C=3", "D=4", "E=5"]);
        assert_eq!(p.value("network"), Some("none"));
        assert_eq!(p.operands(), ["img", "-x", "--rm"]);
        assert_eq!(p.spelling, "wharf try");
    }

    #[test]
    fn switches_take_values_and_the_last_one_counts() {
        let p = parse("-i --interactive=false --tty=T --sig-proxy=0 x").expect("parse");
        assert!(!p.switch("interactive") && p.switch("tty") && !p.switch("sig-proxy"));
        assert!(p.given("interactive") && !p.given("env"));
        let p = parse("-m 1 -m2 x").expect("parse");
        assert_eq!(p.value("memory"), Some("2"));
    }

    #[test]
    fn two_dashes_end_flags_and_one_is_an_operand() {
        assert_eq!(parse("-i -- -t").expect("parse").operands(), ["-t"]);
        assert_eq!(parse("-").expect("parse").operands(), ["-"]);
    }

    #[test]
    fn errors_are_dockers() {
        let cases = [
            ("--bad x", "unknown flag: --bad", 125),
            ("-zq x", "unknown shorthand flag: 'z' in -zq", 125),
            ("-iz x", "unknown shorthand flag: 'z' in -z", 125),
            ("--env", "flag needs an argument: --env", 125),
            ("-ie", "flag needs an argument: 'e' in -e", 125),
            ("--=x y", "bad flag syntax: --=x", 125),
            (
                "--tty=maybe x",
                r#"invalid argument "maybe" for "-t, --tty" flag: strconv.ParseBool: parsing "maybe": invalid syntax"#,
                125,
            ),
            ("--cpus x", r#"invalid argument "x" for "--cpus" flag: failed to parse x as a rational number"#, 125),
            ("--restart always x", "--restart is not supported yet", 125),
            ("--restart no --gpus x", "--gpus is not supported yet", 125),
            ("", "wharf: 'wharf try' requires at least 1 argument", 1),
        ];
        for (line, text, code) in cases {
            assert_eq!(error(line), (text.to_owned(), code), "{line}");
        }
        assert!(parse("--restart=no --gpus=false x").is_ok());
    }

    #[test]
    fn values_are_read_with_dockers_error_around_the_reason() {
        let p = parse("-m bad x").expect("parse");
        let Err(Failure::Usage { text, code }) = p.read("memory", |_| Err::<u8, _>("invalid size: 'bad'".to_owned()))
        else {
            panic!("must fail")
        };
        assert_eq!(text.lines().next(), Some(r#"invalid argument "bad" for "-m, --memory" flag: invalid size: 'bad'"#));
        assert!(
            text.ends_with(
                "Usage:  wharf try [OPTIONS] IMAGE [ARG...]\n\nRun 'wharf try --help' for more information\n"
            )
        );
        assert_eq!(code, 125);
    }
}
