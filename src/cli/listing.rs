//! Listings (`ps`, `images`): docker's table, `--format` and `-q` over one description of the columns.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;

use gtmpl_ng::Value;

use super::failure::{Result, tell};
use super::parse::Parsed;
use super::table;
use super::template::{Format, LABELS, Wrong};

/// One field of a row: what templates call it, what the table calls it, and its text.
pub struct Column<T> {
    /// `ID`.
    pub field: &'static str,
    /// `CONTAINER ID`.
    pub header: &'static str,
    /// Its text in a row.
    pub text: fn(&T) -> String,
}

/// A kind of listing.
pub struct Listing<T: 'static> {
    /// All fields a template can use.
    pub columns: &'static [Column<T>],
    /// What docker calls the type of a row, which its errors name.
    pub kind: &'static str,
    /// The row's labels, for `{{.Label "name"}}`.
    pub labels: fn(&T) -> Option<&BTreeMap<String, String>>,
}

impl<T> Listing<T> {
    /// Prints `rows` as the flags `--format`, `-q` say, else a table of the fields `shown`.
    ///
    /// # Errors
    /// A template's, or that of writing.
    pub fn print(&self, parsed: &Parsed, rows: &[T], shown: &[&str]) -> Result<()> {
        let quiet = parsed.verb.flags().any(|flag| flag.long == "quiet") && parsed.switch("quiet");
        let format = parsed.value("format");
        if quiet && format.is_some_and(|format| !format.starts_with("table")) && parsed.verb.names[0] == "ps" {
            tell("WARNING: Ignoring custom format, because both --format and --quiet are set.\n");
            let ids: String = rows.iter().map(|row| format!("{}\n", (self.columns[0].text)(row))).collect();
            return Ok(std::io::stdout().write_all(ids.as_bytes())?);
        }
        let text = self.text(rows, shown, format, quiet)?;
        Ok(std::io::stdout().write_all(text.as_bytes())?)
    }

    /// The same as text.
    ///
    /// # Errors
    /// A template's.
    pub fn text(&self, rows: &[T], shown: &[&str], format: Option<&str>, quiet: bool) -> Result<String> {
        let format = format.unwrap_or("table");
        match format.strip_prefix("table").map(str::trim_start) {
            Some(_) if quiet => Ok(rows.iter().map(|row| format!("{}\n", (self.columns[0].text)(row))).collect()),
            Some("") => {
                let columns = shown.iter().filter_map(|field| self.columns.iter().find(|c| c.field == *field));
                let columns: Vec<_> = columns.collect();
                let header = columns.iter().map(|column| column.header.to_owned()).collect();
                let rows = rows.iter().map(|row| columns.iter().map(|column| (column.text)(row)).collect());
                Ok(table::layout(&std::iter::once(header).chain(rows).collect::<Vec<_>>()))
            }
            Some(template) => {
                let header = Format::parse_header(template)?.render(self.header())?;
                let format = Format::parse(template)?.of(self.kind);
                let cells = |line: String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
                let mut lines = vec![cells(header)];
                for row in rows {
                    lines.push(cells(format.render(self.value(row))?));
                }
                Ok(table::layout(&lines))
            }
            None if format == "json" => rows.iter().map(|row| self.json(row)).collect(),
            None => {
                let format = Format::parse(format)?.of(self.kind);
                rows.iter().map(|row| Ok(format.render(self.value(row))? + "\n")).collect()
            }
        }
    }

    /// Tries a template on a row that has all fields.
    ///
    /// # Errors
    /// The template's.
    pub fn check(&self, format: &str) -> Result<(), Wrong> {
        Format::parse_header(format)?.of(self.kind).render(self.header()).map(drop)
    }

    /// The rows as JSON objects, all values texts, as docker has it.
    pub fn objects(&self, rows: &[T]) -> Vec<serde_json::Value> {
        rows.iter().map(|row| self.object(row)).collect()
    }

    fn object(&self, row: &T) -> serde_json::Value {
        let field = |column: &Column<T>| (column.field.to_owned(), serde_json::Value::String((column.text)(row)));
        self.columns.iter().map(field).collect()
    }

    /// One line of JSON.
    fn json(&self, row: &T) -> Result<String> {
        Ok(format!("{}\n", self.object(row)))
    }

    fn value(&self, row: &T) -> Value {
        let fields = self.columns.iter().map(|column| (column.field.to_owned(), Value::String((column.text)(row))));
        let mut object: HashMap<_, _> = fields.collect();
        if let Some(labels) = (self.labels)(row) {
            let labels = labels.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect();
            object.insert(LABELS.to_owned(), Value::Map(labels));
        }
        Value::Object(object)
    }

    fn header(&self) -> Value {
        Value::Object(self.columns.iter().map(|c| (c.field.to_owned(), Value::from(c.header))).collect())
    }
}

/// Docker's order of names: what is written in digits counts as a number.
pub fn natural(a: &str, b: &str) -> Ordering {
    let number = |name: &[u8]| name.iter().take_while(|c| c.is_ascii_digit()).count();
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    while let (Some(x), Some(y)) = (left.first(), right.first()) {
        let (n, m) = (number(left).max(1), number(right).max(1));
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let zeros = |name: &[u8]| name.iter().take_while(|c| **c == b'0').count();
            let (x, y) = (&left[zeros(&left[..n])..n], &right[zeros(&right[..m])..m]);
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            x.cmp(y)
        };
        if order.is_ne() {
            return order;
        }
        (left, right) = (&left[n..], &right[m..]);
    }
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (&'static str, BTreeMap<String, String>);

    static LISTING: Listing<Row> = Listing {
        columns: &[
            Column { field: "ID", header: "CONTAINER ID", text: |row| row.0.to_owned() },
            Column { field: "Size", header: "SIZE", text: |_| "1B".to_owned() },
        ],
        kind: "*row",
        labels: |row| Some(&row.1),
    };

    fn text(format: Option<&str>, quiet: bool) -> String {
        let rows = [("one", BTreeMap::from([("a.my-color".to_owned(), "red".to_owned())])), ("three", BTreeMap::new())];
        match LISTING.text(&rows, &["ID", "Size"], format, quiet) {
            Ok(text) => text,
            Err(e) => e.text("wharf", false),
        }
    }

    #[test]
    fn formats_are_dockers() {
        let table = "CONTAINER ID   SIZE\none            1B\nthree          1B\n";
        assert_eq!(text(None, false), table);
        assert_eq!(text(Some("table"), false), table);
        assert_eq!(text(None, true), "one\nthree\n");
        assert_eq!(text(Some("json"), false), "{\"ID\":\"one\",\"Size\":\"1B\"}\n{\"ID\":\"three\",\"Size\":\"1B\"}\n");
        assert_eq!(text(Some("{{.Size}} {{.ID}}"), false), "1B one\n1B three\n");
        assert_eq!(text(Some("{{json .ID}}"), true), "\"one\"\n\"three\"\n");
        assert_eq!(
            text(Some("table {{.Size}}\\t{{upper .ID}}"), false),
            "SIZE      CONTAINER ID\n1B        ONE\n1B        THREE\n"
        );
        assert_eq!(
            text(Some("table {{.ID}}\t{{.Label \"a.my-color\"}}"), false),
            "CONTAINER ID   my color\none            red\nthree          \n"
        );
        assert_eq!(
            text(Some("{{.Nope}}"), false),
            "template parsing error: template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type *row\n"
        );
    }

    #[test]
    fn names_come_in_dockers_order() {
        let sorted = ["a", "a-1", "a1b", "a01c", "a2", "a10", "a10b2", "a10b10", "b", "k1", "k2", "k10"];
        let mut names = sorted;
        names.sort();
        assert_ne!(names, sorted);
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, sorted);
        assert_eq!((natural("a1", "a01"), natural("a1", "a1")), (Ordering::Greater, Ordering::Equal));
    }

    #[test]
    fn json_of_a_row_shows_its_fields_only() {
        assert!(text(Some("{{json .}}"), false).starts_with("{\"ID\":\"one\",\"Size\":\"1B\"}\n"));
    }
}
