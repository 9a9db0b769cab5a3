//! `handlers.d/*.toml` beside `lonnet.toml`, one a package: `[handler.<name>]`, `[builtin.<name>]`
//! and `[[local]]`, as in that file.
//!
//! What two files say of one name is an error.

use super::access::{Builtin, read_builtins};
use super::handler::{HandlerSettings, read_handlers};
use super::local::{LocalRules, read_local};
use super::problem::{Place, Problem};
use super::section::{Report, Section, places};
use super::settings::Settings;
use super::source::{Source, read, report_syntax, text_of};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// The folder's name.
const FOLDER: &str = "handlers.d";

/// The files of `handlers.d` beside `lonnet.toml`, in the order of their names, and what cannot be
/// read of that.
///
/// # Errors
/// The folder cannot be read. That it is not there is no error.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, Problem> {
    let folder = folder.join(FOLDER);
    let listed = std::fs::read_dir(&folder).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    });
    let mut files = match listed {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Problem::of(&folder, format!("cannot be read: {error}"))),
    };
    let is_one = |path: &PathBuf| {
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && path.extension().is_some_and(|extension| extension == "toml")
    };
    files.retain(is_one);
    files.sort();
    Ok(files)
}

/// What one file of `handlers.d` has.
#[derive(Default)]
struct OfFile {
    handlers: Vec<HandlerSettings>,
    builtins: Vec<(Builtin, Place)>,
    local: LocalRules,
    places: BTreeMap<String, Place>,
}

/// What all files of `handlers.d` have, behind what there is already: so of the rules of
/// `[[local]]` those of `lonnet.toml` come first.
pub(super) fn read_folder(
    files: &[PathBuf],
    source: Source<'_>,
    settings: &mut Settings,
    report: &mut Report,
) {
    let Settings { handlers, builtins, local, places, .. } = settings;
    for file in files {
        let own = match read_file(file, source) {
            Ok((own, mut of_file)) => {
                report.problems.append(&mut of_file.problems);
                report.warnings.append(&mut of_file.warnings);
                own
            }
            Err(problem) => {
                report.problems.push(problem);
                continue;
            }
        };
        let mut twice = |about: String, first: &Path, line| {
            let what = format!("{about}: is in {} already", first.display());
            report.problems.push(Problem::at(file, line, what));
        };
        for new in own.handlers {
            match handlers.iter().find(|one| one.handler.name == new.handler.name) {
                None => handlers.push(new),
                Some(first) => twice(format!("handler.{}", new.handler.name), &first.file, new.socket_line),
            }
        }
        for new in own.builtins {
            match builtins.iter().find(|(one, _)| one.name == new.0.name) {
                None => builtins.push(new),
                Some((_, first)) => twice(format!("builtin.{}", new.0.name), &first.file, new.1.line),
            }
        }
        local.0.extend(own.local.0);
        for (name, place) in own.places {
            places.entry(name).or_insert(place);
        }
    }
}

fn read_file(file: &Path, source: Source<'_>) -> Result<(OfFile, Report), Problem> {
    let bytes = read(file, source)?;
    let text = text_of(file, &bytes)?;
    let mut report = Report::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        report_syntax(&mut report, &errors);
        return Ok((OfFile::default(), report));
    }
    let mut top = Section::top(document.get_ref(), &report);
    let own = OfFile {
        handlers: read_handlers(top.table(&mut report, "handler"), file, Path::new(FOLDER), &mut report),
        builtins: read_builtins(top.table(&mut report, "builtin"), &mut report),
        local: read_local(top.array(&mut report, "local"), &mut report),
        places: places(document.get_ref(), &report),
    };
    top.finish(&mut report);
    Ok((own, report))
}
