//! Which program HUP starts, and how it is called.
//!
//! It is the one that the operator started, by the name that was used: a link that is switched to
//! another version is followed, and a file that is replaced is found in its place. The kernel knows
//! the file that runs but not how it came to be chosen, so the name (`argv[0]`) is taken where it
//! leads to that very file, and the file's own path where it does not: a caller may put there what
//! it likes. Who is started again is told the path by the program before it.

use base::disk::Identity;
use nix::unistd::execve;
use std::ffi::{CString, NulError, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What the kernel appends to the path of a program whose file was removed.
const DELETED: &str = " (deleted)";
/// The file that this process runs.
const RUNNING: &str = "/proc/self/exe";

/// The path of this program cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("find this program: {0}")]
pub struct ImageError(io::Error);

/// How this program is to be started again.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// This program, to be started with `arguments` (the program's own name not among them); they
    /// must not depend on the working directory, which a daemon leaves. `left`: the path as the
    /// program before this one had it. To be called at the start, before the title is set and the
    /// folder left.
    ///
    /// # Errors
    /// When the path cannot be told.
    pub fn new(left: Option<PathBuf>, arguments: Vec<OsString>) -> Result<Program, ImageError> {
        let path = match left {
            Some(path) => path,
            None => as_started().map_or_else(as_the_kernel_says, Ok)?,
        };
        Ok(Program { path, arguments })
    }

    /// Where it is looked for.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `exec` is to be given, with `variable` set to `value` and without `others` in the
    /// environment.
    ///
    /// # Errors
    /// A zero byte in one of them.
    pub fn call(&self, variable: &str, value: &str, others: &[&str]) -> Result<Call, NulError> {
        let path = CString::new(self.path.clone().into_os_string().into_vec())?;
        let mut arguments = vec![path.clone()];
        for argument in &self.arguments {
            arguments.push(CString::new(argument.clone().into_vec())?);
        }
        let mut environment = vec![CString::new(format!("{variable}={value}"))?];
        let kept = |name: &OsStr| name != variable && others.iter().all(|other| name != *other);
        for (name, value) in std::env::vars_os().filter(|(name, _)| kept(name)) {
            let mut both = name.into_vec();
            both.push(b'=');
            both.extend(value.into_vec());
            environment.push(CString::new(both)?);
        }
        Ok(Call { path, arguments, environment })
    }
}

/// Path, arguments and environment of a program that is about to be executed.
#[derive(Debug)]
pub struct Call {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Call {
    /// Executes it in this process; returns only what went wrong.
    pub fn exec(&self) -> io::Error {
        let Err(errno) = execve(&self.path, &self.arguments, &self.environment);
        errno.into()
    }
}

fn as_started() -> Option<PathBuf> {
    let name = std::env::args_os().next()?;
    let running = Identity::named(Path::new(RUNNING)).ok()?;
    path_named(&name, std::env::var_os("PATH").as_deref(), running)
}

/// The path by which `name` leads to the file `running`, as a shell would find it.
fn path_named(name: &OsStr, search: Option<&OsStr>, running: Identity) -> Option<PathBuf> {
    let is_running = |path: &PathBuf| Identity::named(path).is_ok_and(|there| there == running);
    let candidates: Vec<PathBuf> = match Path::new(name).parent() {
        // Without a slash.
        Some(folder) if folder.as_os_str().is_empty() => {
            std::env::split_paths(search?).map(|folder| folder.join(name)).collect()
        }
        Some(_) => vec![name.into()],
        None => Vec::new(),
    };
    // Made absolute, links and all: it is they that may be switched.
    candidates.iter().filter_map(|path| std::path::absolute(path).ok()).find(is_running)
}

fn as_the_kernel_says() -> Result<PathBuf, ImageError> {
    std::env::current_exe().map(without_deleted).map_err(ImageError)
}

fn without_deleted(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(DELETED)) {
        Some(text) if !path.exists() => PathBuf::from(text),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_replaced_is_found_in_its_old_place() {
        assert_eq!(without_deleted("/no/such/lonc (deleted)".into()), Path::new("/no/such/lonc"));
        assert_eq!(without_deleted("/no/such/lonc".into()), Path::new("/no/such/lonc"));
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("lonc (deleted)");
        std::fs::write(&odd, "").unwrap();
        assert_eq!(without_deleted(odd.clone()), odd, "a file may be called so");
    }

    #[test]
    fn a_program_is_told_what_it_is_to_know_in_the_place_of_what_this_one_was_told() {
        let told: Vec<(OsString, OsString)> = std::env::vars_os().take(3).collect();
        let [(ours, _), (others, _), (kept, value)] = told.as_slice() else { panic!("{told:?}") };
        let program = Program::new(Some("/usr/sbin/lonc".into()), vec!["--foreground".into()]).unwrap();
        let call = program.call(ours.to_str().unwrap(), "new", &[others.to_str().unwrap()]).unwrap();
        let of = |name: &OsString| {
            let name = [name.as_encoded_bytes(), b"="].concat();
            let found = call.environment.iter().filter(|both| both.as_bytes().starts_with(&name));
            found.map(|both| OsString::from_vec(both.as_bytes()[name.len()..].to_vec())).collect::<Vec<_>>()
        };
        assert_eq!((of(ours), of(others), of(kept)), (vec!["new".into()], vec![], vec![value.clone()]));
        assert_eq!(call.path.as_c_str(), c"/usr/sbin/lonc");
        assert_eq!(call.arguments, [c"/usr/sbin/lonc".to_owned(), c"--foreground".to_owned()]);
    }

    #[test]
    fn who_was_called_by_a_name_that_leads_elsewhere_is_found_as_the_kernel_says() {
        let found = Identity::named(&as_the_kernel_says().unwrap()).unwrap();
        assert_eq!(found, Identity::named(Path::new(RUNNING)).unwrap());
    }

    #[test]
    fn a_name_counts_as_it_was_used_where_it_leads_to_the_file_that_runs() {
        let folder = tempfile::tempdir().unwrap();
        let [old, bin, other] = ["old", "bin", "other"].map(|name| folder.path().join(name));
        for folder in [&old, &bin, &other] {
            std::fs::create_dir(folder).unwrap();
        }
        std::fs::write(old.join("lonc"), "").unwrap();
        std::fs::write(other.join("lonc"), "").unwrap();
        let link = bin.join("lonc");
        std::os::unix::fs::symlink(old.join("lonc"), &link).unwrap();
        let running = Identity::named(&link).unwrap();
        let found = |name: &OsStr, search: Option<&OsStr>| path_named(name, search, running);
        assert_eq!(found(link.as_os_str(), None), Some(link.clone()));
        assert_eq!(found(old.join("lonc").as_os_str(), None), Some(old.join("lonc")));
        let path = std::env::join_paths([&other, &bin, &old]).unwrap();
        assert_eq!(found("lonc".as_ref(), Some(&path)), Some(link), "the first that is the file that runs");
        assert_eq!(found("lonc".as_ref(), None), None);
        assert_eq!(found(other.join("lonc").as_os_str(), None), None, "another file");
        for name in ["", "/", "/no/such/lonc", "-lonc"] {
            assert_eq!(found(name.as_ref(), Some(&path)), None, "{name}");
        }
    }
}
