//! `--format` templates: Go's text/template with the functions docker adds
//! (<https://docs.docker.com/engine/cli/formatting/>).

use gtmpl_ng::{Context, ExecError, Func, FuncError, Number, ParseError, Template, Value, funcs};

use super::failure::Failure;
use super::go::{self, Object};

/// A template, parsed.
pub struct Format {
    template: Template,
    text: String,
    /// Where [`SHOW`] was put into the text, in bytes of the text with it.
    shown: Vec<usize>,
    /// What docker's Go calls the type of what it is filled in with, where that is no map.
    of: Option<&'static str>,
}

/// A template that cannot be used, in the words of Go's package.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// It is no template; otherwise it asks for what is not there.
    pub parsing: bool,
    /// Where, and why.
    pub text: String,
}

impl Wrong {
    /// The same where one object is shown: docker's client has a code of its own for what is no template.
    pub fn of_object(self) -> Failure {
        match self.parsing {
            true => Failure::from(self).of_program(64),
            false => self.into(),
        }
    }
}

impl From<Wrong> for Failure {
    fn from(wrong: Wrong) -> Self {
        Failure::new(format!("template parsing error: {}", wrong.text))
    }
}

type Result<T, E = Wrong> = std::result::Result<T, E>;

const FUNCTIONS: &[(&str, Func)] = &[
    ("json", json),
    ("join", join),
    ("lower", lower),
    ("upper", upper),
    ("split", split),
    ("title", title),
    ("truncate", truncate),
    ("pad", pad),
    ("label", label),
    ("index", index),
    ("len", len),
    ("print", print),
    ("println", println),
    ("printf", printf),
    ("_show", show),
];

/// What every value that is printed goes through: the engine would print structs as maps.
const SHOW: &str = "|_show";
/// How an action begins that prints no value.
const KEYWORDS: &[&str] = &["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];

/// The fields of docker's objects that are maps, of which one may ask for a key that is not there. The others are
/// structs, which have all their fields.
const MAPS: &[&str] = &[
    "Annotations",
    "Attributes",
    "Containers",
    "DriverOpts",
    "ExposedPorts",
    "Labels",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];

/// The field of a row that holds its labels; none of docker's fields begins like this.
pub const LABELS: &str = " labels";

impl Format {
    /// Parses a template. `\t` and `\n` may be written as two characters, as in a shell's single quotes.
    ///
    /// # Errors
    /// Says where it is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        Self::with(text, FUNCTIONS)
    }

    /// The same template for the header of a table: functions give back their first argument.
    ///
    /// # Errors
    /// As [`Format::parse`].
    pub fn parse_header(text: &str) -> Result<Self> {
        let header = |name: &str| match name {
            "label" => label_header,
            "_show" => show,
            _ => first,
        };
        let functions: Vec<_> = FUNCTIONS.iter().map(|(name, _)| (*name, header(name) as Func)).collect();
        Self::with(text, &functions)
    }

    /// The same for objects of the type that Go calls so.
    #[must_use]
    pub fn of(mut self, kind: &'static str) -> Self {
        self.of = Some(kind);
        self
    }

    fn with(text: &str, functions: &[(&str, Func)]) -> Result<Self> {
        let mut template = Template::with_limits(gtmpl_ng::Limits::unlimited());
        template.add_funcs(functions);
        let text = label_calls(&text.replace("\\t", "\t").replace("\\n", "\n"));
        let (text, shown) = shown(&text);
        template.parse(text.as_str()).map_err(|e| Wrong { parsing: true, text: parse_words(&e) })?;
        Ok(Format { template, text, shown, of: None })
    }

    /// Fills it in with what docker's client has as a struct, or if that cannot be, as it came.
    ///
    /// # Errors
    /// As [`Format::render`].
    pub fn render_object(&self, object: &Object) -> Result<String> {
        self.render(object.typed()).or_else(|_| self.render(from_json(object.json.clone())))
    }

    /// The same of an object of which docker's client has nothing but the struct, so that errors are about that.
    ///
    /// # Errors
    /// As [`Format::render`].
    pub fn render_struct(&self, object: &Object) -> Result<String> {
        self.render(object.typed()).or_else(|wrong| self.render(from_json(object.json.clone())).map_err(|_| wrong))
    }

    /// Fills it in.
    ///
    /// # Errors
    /// Names the field that does not exist, or what else is wrong.
    pub fn render(&self, value: Value) -> Result<String> {
        let wrong = |e| Wrong { parsing: false, text: self.words(&e) };
        self.template.render(&Context::from(value)).map_err(wrong)
    }

    /// Go's words for what went wrong, with the place: the engine has words and places of its own.
    fn words(&self, e: &ExecError) -> String {
        let Some(e) = e.as_structured() else { return format!("template: {e}") };
        let (line, start) = (e.context.line, e.context.col.saturating_sub(1));
        let begins: usize = self.text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let text = self.text[begins..].lines().next().unwrap_or_default();
        let node = text.get(start..).unwrap_or_default();
        let node = node.get(..e.context.len).unwrap_or(node);
        let node = node.strip_suffix(SHOW).unwrap_or(node);
        let (start, node) = match node.strip_prefix('(').and_then(|node| node.strip_suffix(')')) {
            Some(inner) => (start + 1, inner),
            None => (start, node),
        };
        // Of the line as it was given.
        let before = self.shown.iter().filter(|at| (begins..begins + start).contains(*at)).count();
        let start = start - before * SHOW.len();
        let (path, last) = match node.rfind('.').filter(|_| node.starts_with(['.', '$']) && !node.contains(' ')) {
            // Go counts up to the last field of several.
            Some(at) => (at, &node[at + 1..]),
            None => (0, node),
        };
        let missing = e.message.strip_prefix("no field `").and_then(|tail| tail.split_once('`'));
        let ends = |end: usize| node[end..].is_empty() || node[end..].starts_with('.');
        let there = missing.and_then(|(field, _)| {
            let dotted = format!(".{field}");
            node.match_indices(&dotted).map(|(at, _)| at).find(|at| ends(at + dotted.len()))
        });
        // Or to the one that is not there.
        let path = there.unwrap_or(path);
        let why = match (missing, self.of) {
            (Some((field, _)), Some(kind)) => format!("can't evaluate field {field} in type {kind}"),
            (Some((field, _)), None) => format!("map has no entry for key {field:?}"),
            (None, of) if e.message.starts_with("only maps and objects") => {
                let kind = if of.is_some() { "string" } else { "interface {}" };
                format!("can't evaluate field {last} in type {kind}")
            }
            (None, _) if node.starts_with(|c: char| c.is_ascii_lowercase()) => {
                let function = node.split(' ').next().unwrap_or_default();
                format!("error calling {function}: {}", e.message)
            }
            (None, _) => e.message.clone(),
        };
        format!("template: :{line}:{}: executing \"\" at <{node}>: {why}", start + path)
    }
}

/// What the engine's reader of words says as the name of a word that nobody expected.
const LEXICAL: &[&str] = &[
    "bad character",
    "bad number syntax",
    "comment end before closing delimiter",
    "unclosed action",
    "unclosed comment",
    "unclosed left paren",
    "unexpected right paren",
    "unrecognized character in action",
    "unterminated character constant",
    "unterminated quoted string",
    "unterminated raw quoted string",
];

/// Go's words for what is no template.
fn parse_words(e: &ParseError) -> String {
    let ParseError::WithContext(place, message) = e else { return format!("template: {e}") };
    let lexical = LEXICAL.iter().find(|words| message.contains(*words));
    let undefined = message.strip_prefix("function ").and_then(|tail| tail.strip_suffix(" not defined"));
    let why = match (lexical, undefined) {
        (Some(words), _) => (*words).to_owned(),
        (None, Some(name)) => format!("function {name:?} not defined"),
        (None, None) => message.clone(),
    };
    format!("template: :{}: {why}", place.line)
}

/// The engine gives methods no arguments: docker's `{{.Label "x"}}` becomes the function call `{{label $ "x"}}`.
fn label_calls(text: &str) -> String {
    let mut parts = text.split("{{");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (action, after) = part.split_at(part.find("}}").unwrap_or(part.len()));
        out.push_str("{{");
        out.push_str(&action.replace("$.Label ", ".Label ").replace(".Label ", "label $ "));
        out.push_str(after);
    }
    out
}

/// The text with [`SHOW`] in all actions that print a value, and where.
fn shown(text: &str) -> (String, Vec<usize>) {
    let (mut out, mut places, mut rest) = (String::new(), Vec::new(), text);
    while let Some(start) = rest.find("{{") {
        let (before, action) = rest.split_at(start + 2);
        // What does not end is the parser's to refuse.
        let Some(end) = action_end(action) else { break };
        out.push_str(before);
        let body = action[..end].strip_suffix('-').filter(|body| body.ends_with(' ')).unwrap_or(&action[..end]);
        let body = body.trim_end();
        out.push_str(body);
        if prints(body) {
            places.push(out.len());
            out.push_str(SHOW);
        }
        out.push_str(&action[body.len()..end + 2]);
        rest = &action[end + 2..];
    }
    (out + rest, places)
}

/// Where an action ends: behind its texts, which may have braces too.
fn action_end(action: &str) -> Option<usize> {
    let mut quote = None;
    let mut characters = action.char_indices();
    while let Some((at, c)) = characters.next() {
        match (quote, c) {
            (None, '"' | '`' | '\'') => quote = Some(c),
            (None, '}') if action[at..].starts_with("}}") => return Some(at),
            (Some('"' | '\''), '\\') => drop(characters.next()),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

/// Whether this is the text of an action that prints its value, and can.
fn prints(action: &str) -> bool {
    let text = action.strip_prefix('-').unwrap_or(action).trim();
    let first = text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
    let assigns = || {
        let after = text.trim_start_matches(|c: char| c == '$' || c == ',' || c == '_' || c.is_alphanumeric());
        let after = after.trim_start();
        text.starts_with('$') && (after.starts_with(":=") || after.starts_with('=') || after.starts_with(','))
    };
    !text.is_empty() && !text.starts_with("/*") && !text.ends_with('|') && !KEYWORDS.contains(&first) && !assigns()
}

/// JSON as a template sees it.
pub fn from_json(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::NoValue,
        serde_json::Value::Bool(b) => Value::Bool(b),
        serde_json::Value::String(s) => Value::String(s),
        serde_json::Value::Array(list) => Value::Array(list.into_iter().map(from_json).collect()),
        // A struct, so that a field that does not exist is an error and not silence.
        serde_json::Value::Object(map) => Value::Object(map.into_iter().map(field).collect()),
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(n), _, _) => Value::from(n),
            (_, Some(n), _) => Value::from(n),
            (_, _, n) => Value::Number(Number::float(n.unwrap_or(f64::NAN))),
        },
    }
}

/// A field of a struct, which may be one of docker's maps.
fn field((name, value): (String, serde_json::Value)) -> (String, Value) {
    let value = match value {
        // The options of a container's log driver: elsewhere docker calls a struct so.
        serde_json::Value::Object(mut log) if name == "LogConfig" => {
            let config = log.remove("Config").map(|config| ("Config".to_owned(), map(config)));
            Value::Object(log.into_iter().map(field).chain(config).collect())
        }
        value if MAPS.contains(&name.as_str()) => map(value),
        value => from_json(value),
    };
    (name, value)
}

/// One of docker's maps. What is none is left as it is: other objects have lists and numbers of these names.
fn map(value: serde_json::Value) -> Value {
    match value {
        // Its keys are people's, not names of fields.
        serde_json::Value::Object(map) => Value::Map(map.into_iter().map(|(k, v)| (k, from_json(v))).collect()),
        other => from_json(other),
    }
}

/// What a template sees, as JSON.
fn written(value: &Value) -> String {
    if let Some(text) = go::written(value) {
        return text.to_owned();
    }
    match value {
        Value::NoValue | Value::Nil | Value::Function(_) => "null".to_owned(),
        Value::Array(list) => format!("[{}]", list.iter().map(written).collect::<Vec<_>>().join(",")),
        Value::Object(map) | Value::Map(map) => {
            let mut fields: Vec<_> = map.iter().filter(|(name, _)| *name != LABELS).collect();
            fields.sort_by_key(|(name, _)| *name);
            let field = |(name, value): &(&String, &Value)| format!("{}:{}", quoted(name), written(value));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(","))
        }
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn json(args: &[Value]) -> Result<Value, FuncError> {
    let value = args.first().ok_or_else(|| FuncError::ExactlyXArgs("json".to_owned(), 1))?;
    Ok(Value::String(written(value)))
}

/// What an action prints of a value.
fn show(args: &[Value]) -> Result<Value, FuncError> {
    match args {
        [value] if go::is_hidden(value) => Err(FuncError::Generic("range can't iterate over a struct".to_owned())),
        [Value::NoValue] => Ok(Value::from("<no value>")),
        [value] => Ok(Value::String(go::printed(value))),
        _ => Err(FuncError::ExactlyXArgs("print".to_owned(), 1)),
    }
}

/// The arguments as the engine's own functions print them like Go's.
fn printable(args: &[Value]) -> Vec<Value> {
    let one = |value: &Value| match value {
        Value::Object(_) | Value::Map(_) | Value::Array(_) => Value::String(go::printed(value)),
        value if go::is_nil(value) => Value::String(go::printed(value)),
        value => value.clone(),
    };
    args.iter().map(one).collect()
}

fn print(args: &[Value]) -> Result<Value, FuncError> {
    funcs::print(&printable(args))
}

fn println(args: &[Value]) -> Result<Value, FuncError> {
    funcs::println(&printable(args))
}

fn printf(args: &[Value]) -> Result<Value, FuncError> {
    funcs::printf(&printable(args))
}

fn len(args: &[Value]) -> Result<Value, FuncError> {
    match args {
        [value] if go::is_nil(value) => Ok(Value::from(0)),
        [value] if go::is_struct(value) => Err(FuncError::Generic("len of type struct".to_owned())),
        args => funcs::len(args),
    }
}

fn join(args: &[Value]) -> Result<Value, FuncError> {
    match args {
        [Value::Array(list), Value::String(by)] => {
            Ok(Value::String(list.iter().map(go::printed).collect::<Vec<_>>().join(by)))
        }
        [Value::Nil | Value::NoValue, Value::String(_)] => Ok(Value::String(String::new())),
        _ => Err(FuncError::Generic("join takes a list and a text between its items".to_owned())),
    }
}

fn split(args: &[Value]) -> Result<Value, FuncError> {
    match args {
        // Go splits by nothing into characters.
        [Value::String(text), Value::String(by)] if by.is_empty() => {
            Ok(Value::Array(text.chars().map(|c| Value::from(c.to_string())).collect()))
        }
        [Value::String(text), Value::String(by)] => {
            Ok(Value::Array(text.split(by.as_str()).map(Value::from).collect()))
        }
        _ => Err(FuncError::Generic("split takes a text and a separator".to_owned())),
    }
}

fn lower(args: &[Value]) -> Result<Value, FuncError> {
    Ok(Value::String(text("lower", args)?.to_lowercase()))
}

fn upper(args: &[Value]) -> Result<Value, FuncError> {
    Ok(Value::String(text("upper", args)?.to_uppercase()))
}

fn title(args: &[Value]) -> Result<Value, FuncError> {
    let mut start = true;
    let mut titled = String::new();
    for c in text("title", args)?.chars() {
        if start {
            titled.extend(c.to_uppercase());
        } else {
            titled.push(c);
        }
        start = c.is_whitespace();
    }
    Ok(Value::String(titled))
}

fn truncate(args: &[Value]) -> Result<Value, FuncError> {
    match args {
        [Value::String(text), Value::Number(n)] => Ok(Value::String(text.chars().take(count(n)).collect())),
        _ => Err(FuncError::Generic("truncate takes a text and a length".to_owned())),
    }
}

fn pad(args: &[Value]) -> Result<Value, FuncError> {
    match args {
        [Value::String(text), Value::Number(before), Value::Number(after)] if !text.is_empty() => {
            Ok(Value::String(format!("{}{text}{}", " ".repeat(count(before)), " ".repeat(count(after)))))
        }
        [Value::String(_), Value::Number(_), Value::Number(_)] => Ok(Value::String(String::new())),
        _ => Err(FuncError::Generic("pad takes a text and two numbers of spaces".to_owned())),
    }
}

fn first(args: &[Value]) -> Result<Value, FuncError> {
    args.first().cloned().ok_or_else(|| FuncError::Generic("a function needs an argument".to_owned()))
}

/// `{{.Label "name"}}`: the first argument is the row.
fn label(args: &[Value]) -> Result<Value, FuncError> {
    match args {
        [Value::Object(row), Value::String(name)] => match row.get(LABELS) {
            Some(Value::Map(labels)) => Ok(labels.get(name).cloned().unwrap_or_else(|| Value::from(""))),
            _ => Err(FuncError::Generic("there are no labels here".to_owned())),
        },
        _ => Err(FuncError::Generic("Label takes the name of a label".to_owned())),
    }
}

/// The header above `{{.Label "com.example.some-name"}}`: `some name`, as docker has it.
fn label_header(args: &[Value]) -> Result<Value, FuncError> {
    let Some(Value::String(name)) = args.get(1) else { return label(args) };
    let last = name.rsplit('.').next().unwrap_or(name);
    Ok(Value::String(last.replace(['-', '_'], " ")))
}

fn text<'a>(function: &str, args: &'a [Value]) -> Result<&'a str, FuncError> {
    match args {
        [Value::String(text)] => Ok(text),
        _ => Err(FuncError::Generic(format!("{function} takes one text"))),
    }
}

/// Go's `index`: for a key that a map does not have, the empty value of what it has.
fn index(args: &[Value]) -> Result<Value, FuncError> {
    let Some((collection, keys)) = args.split_first() else {
        return Err(FuncError::Generic("index takes a map or a list and a key".to_owned()));
    };
    keys.iter().try_fold(collection.clone(), |value, key| match (&value, key) {
        (Value::Map(map), Value::String(key)) => {
            let of_texts = || map.values().all(|value| matches!(value, Value::String(_)));
            Ok(map.get(key).cloned().unwrap_or_else(|| if of_texts() { Value::from("") } else { Value::NoValue }))
        }
        (value, Value::String(_)) if go::is_nil(value) => Ok(Value::from("")),
        (value, _) if go::is_struct(value) => Err(FuncError::Generic("can't index item of type struct".to_owned())),
        (Value::NoValue, Value::String(_)) => Ok(Value::from("")),
        (Value::Nil | Value::NoValue, _) => Err(FuncError::Generic("index of untyped nil".to_owned())),
        (Value::Array(list), Value::Number(n)) => {
            let at = n.as_u64().and_then(|n| usize::try_from(n).ok());
            let out_of_range = || FuncError::Generic(format!("index out of range: {key}"));
            at.and_then(|at| list.get(at)).cloned().ok_or_else(out_of_range)
        }
        _ => gtmpl_ng::funcs::index(&[value, key.clone()]),
    })
}

/// A count of characters; more than a screenful of screens is nobody's wish.
fn count(n: &Number) -> usize {
    n.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0).min(1 << 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(template: &str) -> String {
        let value = json!({"Name": "/x y", "Id": "abcdef", "State": {"Running": true, "Pid": 12}, "List": ["a", "b"], "Size": 1.5});
        match Format::parse(template).and_then(|format| format.render(from_json(value))) {
            Ok(text) => text,
            Err(wrong) => wrong.text,
        }
    }

    #[test]
    fn templates_have_dockers_functions() {
        let cases = [
            ("{{.Name}}\\t{{.State.Pid}}", "/x y\t12"),
            (
                "{{json .}}",
                r#"{"Id":"abcdef","List":["a","b"],"Name":"/x y","Size":1.5,"State":{"Pid":12,"Running":true}}"#,
            ),
            ("{{json .List}}", r#"["a","b"]"#),
            ("{{join .List \", \"}}", "a, b"),
            ("{{upper .Id}}{{lower \"ABC\"}}", "ABCDEFabc"),
            ("{{title .Name}}", "/x Y"),
            ("{{index (split .Id \"c\") 1}}", "def"),
            ("{{join (split .Id \"\") \"-\"}}", "a-b-c-d-e-f"),
            ("{{truncate .Id 3}}|{{pad .Id 1 2}}|", "abc| abcdef  |"),
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            ("{{range .List}}<{{.}}>{{end}}", "<a><b>"),
            ("{{println .Id}}", "abcdef\n"),
            ("{{len .List}}", "2"),
        ];
        for (template, want) in cases {
            assert_eq!(render(template), want, "{template}");
        }
    }

    /// As the docker client prints them for the same objects; only for an object that is not there it has `<nil>`.
    #[test]
    fn a_key_that_a_map_does_not_have_is_no_error() {
        let shown = |template: &str| {
            let value = json!({
                "Config": {"Labels": {"a": "1"}, "Volumes": {}},
                "HostConfig": {"LogConfig": {"Type": "local", "Config": {"max-file": "2"}}},
                "NetworkSettings": {
                    "Networks": {"Labels": {"IPAddress": "10.0.0.2"}},
                    "Ports": {"80/tcp": [{"HostPort": "8080"}], "81/tcp": null},
                },
                "Labels": null,
            });
            Format::parse(template).and_then(|format| format.render(from_json(value))).map_err(|wrong| wrong.text)
        };
        for (template, want) in [
            ("{{.Config.Labels.a}}{{index .Config.Labels \"a\"}}", "11"),
            ("{{index .Config.Labels \"nope\"}}|", "|"),
            ("{{.Config.Labels.nope}}", "<no value>"),
            ("{{.Labels.nope}}|{{index .Labels \"nope\"}}|{{json .Labels}}", "<no value>||null"),
            ("{{.NetworkSettings.Networks.nope}}", "<no value>"),
            ("{{.NetworkSettings.Networks.nope.IPAddress}}", "<no value>"),
            ("{{index .NetworkSettings.Networks \"nope\"}}", "<no value>"),
            ("{{.NetworkSettings.Networks.Labels.IPAddress}}", "10.0.0.2"),
            ("{{json (index .NetworkSettings.Ports \"99/tcp\")}}", "null"),
            ("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}", "8080"),
            ("{{if index .NetworkSettings.Ports \"99/tcp\"}}yes{{else}}no{{end}}", "no"),
            ("{{range $name, $x := .Config.Volumes}}{{$name}}{{end}}|{{.Config.Volumes}}", "|map[]"),
            ("{{index .HostConfig.LogConfig.Config \"max-file\"}}{{.HostConfig.LogConfig.Config.mode}}", "2<no value>"),
        ] {
            assert_eq!(shown(template).as_deref(), Ok(want), "{template}");
        }
        // Structs have all their fields, and what is not there has none.
        for (template, why) in [
            ("{{.Config.Nope}}", "map has no entry for key \"Nope\""),
            ("{{.NetworkSettings.Networks.Labels.Nope}}", "map has no entry for key \"Nope\""),
            ("{{(index (index .NetworkSettings.Ports \"81/tcp\") 0).HostPort}}", "index of untyped nil"),
        ] {
            let told = shown(template).expect_err(template);
            assert!(told.contains(why), "{template}: {told}");
        }
    }

    /// As the docker client says it.
    #[test]
    fn errors_are_gos() {
        for (template, want) in [
            ("{{.Nope}}", r#"1:2: executing "" at <.Nope>: map has no entry for key "Nope""#),
            ("{{.State.Nope}}", r#"1:8: executing "" at <.State.Nope>: map has no entry for key "Nope""#),
            ("{{.Stat.Running}}", r#"1:2: executing "" at <.Stat.Running>: map has no entry for key "Stat""#),
            ("x\\n{{json .Nope}}", r#"2:7: executing "" at <.Nope>: map has no entry for key "Nope""#),
            ("{{.Name.Nope}}", r#"1:7: executing "" at <.Name.Nope>: can't evaluate field Nope in type interface {}"#),
            (
                "{{index .List 10}}",
                r#"1:2: executing "" at <index .List 10>: error calling index: index out of range: 10"#,
            ),
            ("{{.Id", "1: unclosed action"),
            ("{{", "1: unclosed action"),
            ("a\\n{{nope .Id}}", r#"2: function "nope" not defined"#),
            ("{{range .List}}", "1: unexpected EOF"),
            ("{{end}}", "1: unexpected {{end}}"),
            ("{{if}}x{{end}}", "1: missing value for if"),
            (r#"{{"x}}"#, "1: unterminated quoted string"),
        ] {
            assert_eq!(render(template), format!("template: :{want}"), "{template}");
        }
        let of = Format::parse("{{.Nope}}").expect("a template").of("*formatter.ContainerContext");
        let wrong = of.render(from_json(json!({}))).expect_err("no field");
        let want = "at <.Nope>: can't evaluate field Nope in type *formatter.ContainerContext";
        assert!(wrong.text.ends_with(want), "{wrong:?}");
    }
}
