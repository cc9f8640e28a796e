//! `inspect`: objects as JSON under docker's field names, or as a template says
//! (<https://docs.docker.com/reference/api/engine/>, "Inspect a container").

use std::io::Write as _;

use wharf_runtime::engine::ExecState;
use wharf_runtime::error::Class;

use super::container_json::{self, Around};
use super::context::Context;
use super::failure::{Failure, Result, tell};
use super::go::Object;
use super::go_types;
use super::network;
use super::parse::Parsed;
use super::template::{Format, Wrong};
use super::verb::{FORMAT_OBJECT, Flag, Listed, Operands, Section, Verb};
use super::volume;
use super::{image, image_json, values};

const SIZE: Flag = Flag::switch("size", "Display total file sizes if the type is container").short('s');

/// The commands of this file.
pub static VERBS: &[Verb] = &[
    Verb {
        names: &["inspect"],
        about: "Return low-level information on Wharf objects",
        usage: "[OPTIONS] NAME|ID [NAME|ID...]",
        listed: Listed::Other,
        operands: Operands::AtLeast(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[FORMAT_OBJECT, SIZE, Flag::value("type", "string", "Only inspect objects of the given type")],
        }],
        run: inspect,
    },
    Verb {
        names: &["container inspect"],
        about: "Display detailed information on one or more containers",
        usage: "[OPTIONS] CONTAINER [CONTAINER...]",
        listed: Listed::Other,
        operands: Operands::AtLeast(1),
        trailing: false,
        sections: &[Section { title: "Options", flags: &[FORMAT_OBJECT, SIZE] }],
        run: |parsed, context| show(parsed, |name| container_alone(parsed, context, name)),
    },
];

fn inspect(parsed: &Parsed, context: &Context) -> Result<()> {
    let kind = parsed.value("type").unwrap_or_default();
    if parsed.switch("size") && !matches!(kind, "" | "container") {
        tell(&format!("WARNING: --size ignored for {kind}\n"));
    }
    match kind {
        "" => show(parsed, |name| match container(parsed, context, name)? {
            Some(found) => Ok(Some(found)),
            None => match any_image(context, name)? {
                Some(found) => Ok(Some(found)),
                None => match network::object(context, name)? {
                    Some(found) => Ok(Some(found)),
                    None => match volume::object(context, name)? {
                        Some(found) => Ok(Some(found)),
                        None => exec(context, name),
                    },
                },
            },
        }),
        "container" => show(parsed, |name| container_alone(parsed, context, name)),
        "image" => image::inspect_images(parsed, context, None),
        "network" => network::inspect_networks(parsed, context),
        "volume" => volume::inspect_volumes(parsed, context),
        other => Err(Failure::new(format!(
            "unknown type: {other:?}: must be one of \"container\", \"image\", \"network\", \"volume\""
        ))),
    }
}

/// The object of the image with this name, if there is one.
///
/// # Errors
/// The store's.
pub fn any_image(context: &Context, name: &str) -> Result<Option<Object>> {
    let engine = context.engine()?;
    let images = engine.images()?;
    match images.resolve(name, None) {
        Ok(image) => Ok(Some(image_json::image(images, &image)?)),
        // What is no name of an image may be one of something else.
        Err(e) if matches!(e.class(), Class::NotFound | Class::InvalidInput) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The exec with this id, as docker's API describes it: its client has no command for that.
fn exec(context: &Context, id: &str) -> Result<Option<Object>> {
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let found = if is_id { context.engine()?.find_exec(id)? } else { None };
    Ok(found.map(|exec| Object { json: container_json::exec(&exec), fields: go_types::EXEC }))
}

/// Where nothing but a container was meant, docker says so.
fn container_alone(parsed: &Parsed, context: &Context, name: &str) -> Result<Option<Object>> {
    let missing = || Failure::new(format!("Error: No such container: {name}"));
    container(parsed, context, name)?.ok_or_else(missing).map(Some)
}

fn container(parsed: &Parsed, context: &Context, name: &str) -> Result<Option<Object>> {
    values::not_empty("container", name)?;
    let engine = context.engine()?;
    let container = match engine.container(name) {
        Ok(container) => container,
        Err(e) if e.class() == Class::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let sizes = match parsed.switch("size") {
        true => Some((engine.size(&container.id)?, engine.images()?.layer_sizes()?.image(&container.image))),
        false => None,
    };
    let attachments = engine.attachments()?.remove(&container.id).unwrap_or_default();
    let around = Around {
        paths: engine.paths(),
        attachments: &attachments,
        networks: &network::ids(&engine)?,
        sizes,
        // Of a container that is being made or removed nothing may be there.
        rootfs: engine.images()?.snapshots.plan(&container.id, &container.image.diff_ids()).ok(),
        volume_dir: &|name| engine.volumes().mountpoint(name).display().to_string(),
    };
    let mut object = container_json::container(&container, &around);
    let running: Vec<String> = engine.execs(&container).into_iter().filter(is_running).map(|exec| exec.id).collect();
    if !running.is_empty() {
        object["ExecIDs"] = running.into();
    }
    Ok(Some(Object { json: object, fields: go_types::CONTAINER }))
}

fn is_running(exec: &ExecState) -> bool {
    exec.exit_code.is_none()
}

/// Shows each name's object, `None` being one that does not exist: the others are shown all the same.
///
/// # Errors
/// [`Failure::Exit`] when something was not found; a template's.
pub fn show(parsed: &Parsed, find: impl Fn(&str) -> Result<Option<Object>>) -> Result<()> {
    let format = match parsed.value("format") {
        None | Some("" | "json") => None,
        Some(template) => Some(Format::parse(template).map_err(Wrong::of_object)?),
    };
    let (mut found, mut missing, mut text) = (Vec::new(), Vec::new(), String::new());
    for name in parsed.operands() {
        match (find(name), &format) {
            (Ok(Some(object)), None) => found.push(object),
            (Ok(Some(object)), Some(format)) => match format.render_object(&object) {
                Ok(line) => text += &(line + "\n"),
                Err(wrong) => missing.push(Failure::from(wrong).text("", false)),
            },
            (Ok(None), _) => missing.push(format!("Error: No such object: {name}\n")),
            (Err(failure), _) => missing.push(failure.text("", false)),
        }
    }
    if format.is_none() {
        text = array(&found, parsed.value("format") == Some("json"));
    }
    if format.is_none() || text.is_empty() {
        text.push('\n');
    }
    std::io::stdout().write_all(text.as_bytes())?;
    if missing.is_empty() {
        return Ok(());
    }
    tell(&missing.concat());
    Err(Failure::Exit(1))
}

/// The objects as one list: on one line, or with docker's four spaces.
fn array(objects: &[Object], on_one_line: bool) -> String {
    use serde::Serialize as _;
    use serde_json::Serializer;
    use serde_json::ser::PrettyFormatter;
    let mut text = Vec::new();
    let written = match on_one_line {
        true => objects.serialize(&mut Serializer::new(&mut text)),
        false => objects.serialize(&mut Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "))),
    };
    // They have only text keys, and a `Vec` takes all that is written.
    match written {
        Ok(()) => String::from_utf8_lossy(&text).into_owned(),
        Err(e) => e.to_string(),
    }
}
