//! Handlers: the programs that `lond` runs, and the files of `handlers.d`.

use crate::folder::{Folder, HOSTS};
use lonnet::config::{Access, Form, Program, Run};
use std::fs;

/// A folder with these files in its `handlers.d`.
fn with_files(files: &[(&str, &str)]) -> Folder {
    let folder =
        Folder::new("id = \"msua1\"\n[handler.echo]\nsocket = \"echo.sock\"\nallow = [\"*\"]\n", HOSTS);
    fs::create_dir(folder.path("handlers.d")).expect("the folder is made");
    for (name, text) in files {
        fs::write(folder.path("handlers.d").join(name), text).expect("a file is written");
    }
    folder
}

#[test]
fn a_program_is_run_for_each_request_or_kept_and_has_its_socket_in_run_dir() {
    let toml = "id = \"msua1\"\n\
        [handler.one]\nexec = [\"./one\", \"-x\"]\nwindow = 3\n\
        [handler.many]\nworker = [\"/bin/many\"]\nformat = \"tagged\"\nworkers = 4\nwaiting = 7\n";
    let folder = Folder::new(toml, HOSTS);
    let handlers = folder.load().handlers;
    let [one, many] = &handlers[..] else { panic!("{handlers:?}") };
    let program = |file: &str, arguments: &[&str], run, waiting| {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Some(Program { file: file.into(), arguments, run, waiting })
    };
    let file = folder.path("one").display().to_string();
    assert_eq!(one.program, program(&file, &["-x"], Run::Each(16), 1024));
    assert_eq!((one.form, one.window, one.socket_form()), (Form::Line, 3, Form::Tagged));
    assert_eq!(one.socket, folder.path("run/handler/one"));
    assert_eq!(many.program, program("/bin/many", &[], Run::Kept(4), 7));
    assert_eq!((many.form, many.window, many.socket_form()), (Form::Tagged, 1, Form::Tagged));
}

#[test]
fn each_file_of_handlers_d_adds_its_handlers_in_the_order_of_their_names() {
    let folder = with_files(&[
        ("b.toml", "[handler.b]\nexec = [\"./b\"]\n"),
        ("a.toml", "[handler.a]\nsocket = \"a.sock\"\n[handler.c]\nsocket = \"/c\"\n"),
        ("notes.txt", "not read"),
        (".hidden.toml", "not read"),
    ]);
    let config = folder.load();
    let found: Vec<_> = config.handlers.iter().map(|handler| handler.name.as_str()).collect();
    assert_eq!(found, ["echo", "a", "c", "b"]);
    assert_eq!(config.handlers[1].socket, folder.path("handlers.d/a.sock"), "relative to the file's folder");
    let program = config.handlers[3].program.as_ref().expect("it has one");
    assert_eq!(program.file, folder.path("handlers.d/b"));
    let files = ["handlers.d/a.toml", "handlers.d/b.toml"].map(|name| folder.path(name));
    assert_eq!(config.handler_files, files);
}

#[test]
fn what_is_wrong_in_a_file_of_handlers_d_is_said_with_that_file_and_its_line() {
    let folder = with_files(&[
        ("1.toml", "[handler.x]\nsocket = \"x\"\nallow = [\"nobody\"]\n"),
        ("2.toml", "id = \"msua1\"\n[handler.y]\nsoket = \"x\"\n"),
        ("3.toml", "[handler.echo]\nsocket = \"x\"\n"),
        ("4.toml", "[handler.z\n"),
        ("5.toml", "[handler.w]\nsocket = \"w\"\nallow = []\n"),
    ]);
    let problems = folder.problems();
    let expected = [
        "handlers.d/1.toml:3: handler.x: allow: \"nobody\" has no line in hosts.tab",
        "handlers.d/2.toml:1: id: unknown key",
        "handlers.d/2.toml:2: handler.y: none of socket, exec, worker is there",
        "handlers.d/2.toml:3: handler.y: soket: unknown key",
        "handlers.d/3.toml:2: handler.echo: is in lonnet.toml already",
    ];
    assert_eq!(problems[..5], expected.map(str::to_owned));
    assert!(problems[5].starts_with("handlers.d/4.toml:1: "), "{problems:?}");
    assert_eq!(problems.len(), 6);
    for name in ["1.toml", "2.toml", "3.toml", "4.toml"] {
        fs::remove_file(folder.path("handlers.d").join(name)).expect("a file is removed");
    }
    assert_eq!(folder.warnings()[0], "handlers.d/5.toml:3: handler.w: allow: is empty: nobody may use it");
}

#[test]
fn a_file_of_handlers_d_may_have_rules_for_built_in_requests_and_for_this_host_too() {
    let folder = with_files(&[
        ("1.toml", "[builtin.load]\nallow = [\"msul1\"]\n[[local]]\ncommands = [\"x\"]\nallow = [\"*\"]\n"),
        ("2.toml", "[[local]]\ncommands = [\"y\"]\nallow = [\"user:0\"]\n[builtin.log]\ndeny = [\"*\"]\n"),
    ]);
    let toml = fs::read_to_string(folder.path("lonnet.toml")).expect("read it");
    let own = "[builtin.ping]\ndeny = [\"msul1\"]\n[[local]]\ncommands = [\"z\"]\nallow = [\"*\"]\n";
    fs::write(folder.path("lonnet.toml"), toml + own).expect("write it");
    let config = folder.load();
    let said: Vec<_> = config.builtins.iter().filter(|own| own.access != Access::everyone()).collect();
    let [ping, load, log] = &said[..] else { panic!("{said:?}") };
    assert_eq!([ping.name, load.name, log.name], ["ping", "load", "log"]);
    let place = load.access.allow.as_ref().and_then(|allow| allow.place.clone()).expect("a place");
    assert_eq!(place.to_string(), folder.path("handlers.d/1.toml").display().to_string() + ":2");
    // Those of lonnet.toml come first, then file by file.
    let rules: Vec<_> = config.local.0.iter().map(|rule| rule.commands.clone().expect("commands")).collect();
    assert_eq!(rules.concat(), ["z", "x", "y"]);
    fs::write(
        folder.path("handlers.d/3.toml"),
        "[builtin.ping]\n[builtin.load]\n[builtin.nothing]\n[[local]]\npeers = [\"stranger\"]\nallow = [\"*\"]\n[lond]\n",
    )
    .expect("write it");
    assert_eq!(
        folder.problems(),
        [
            "handlers.d/3.toml:1: builtin.ping: is in lonnet.toml already",
            "handlers.d/3.toml:2: builtin.load: is in handlers.d/1.toml already",
            "handlers.d/3.toml:3: builtin.nothing: no request of this name can have rules: want one of ping, pong, \
             version, load, log, exit",
            "handlers.d/3.toml:4: local: peers: \"stranger\" has no line in hosts.tab",
            "handlers.d/3.toml:7: lond: unknown key",
        ]
    );
}

#[test]
fn where_a_key_stands_is_known_or_else_where_its_table_does() {
    let folder = with_files(&[("1.toml", "\n[handler.x]\nallow = [\"*\"]\nsocket = \"x\"\n")]);
    let config = folder.load();
    let place = |name: &str| config.place_of(name).map(ToString::to_string);
    let own = |line: u32| Some(format!("{}:{line}", folder.path("lonnet.toml").display()));
    let of_package = |line: u32| Some(format!("{}:{line}", folder.path("handlers.d/1.toml").display()));
    assert_eq!(place("id"), own(1));
    assert_eq!((place("handler.echo.socket"), place("handler.echo.timeout")), (own(3), own(2)));
    assert_eq!((place("handler.x.socket"), place("handler.x.exec")), (of_package(4), of_package(2)));
    assert_eq!((place("user"), place("handler.y"), place("")), (None, own(2), None));
}
