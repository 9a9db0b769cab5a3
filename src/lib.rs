//! lonnet: persistent links between the hosts of a network, shared by local programs through Unix
//! sockets.
//!
//! ```text
//!  local programs                       this host │ another host
//!                                                 │
//!  app ─┐   run/<peer>                            │
//!  app ─┼── Unix socket ── lonc child ══ TCP link ══ lond child ── handler (built in, Unix socket)
//!  app ─┘                   │  one per host       │   one per link
//!                           └─ delayed/<peer>/    │
//!                              (the spool)        │
//!         lonc (supervisor)                       │   lond (supervisor)
//!         forks a child per line of hosts.tab,    │   accepts, forks a child per link
//!         holds the listening Unix sockets,       │
//!         answers HUP, USR1, TERM, child deaths,  │   runs handlers' programs by
//!         dials for its children, and moves what  │   children of its own: pools
//!         is dropped into delayed/ to its peer    │
//! ```
//!
//! Data flows one way: `reactor -> turn -> broker -> {session, pending, link -> protocol, spool} ->
//! wire` in `lonc`'s child, and `reactor -> turn -> {classic, secure} -> service -> wire` in
//! `lond`'s. The rooms on the right of an arrow know nothing of those on its left; siblings don't
//! call each other. At HUP the programs of a `lonc` child pass to the next one (`lonc::handover`).
//!
//! Each room is a crate below `src/`; its manifest says whom it uses, and `tests/house.rs` which it
//! may use. This package is the programs and their tests.
//!
//! | room | what it owns | sockets, clock, files? |
//! | --- | --- | --- |
//! | [`base`] | the ground: ids, pins, what names a message, a local program's line, clock, log, durable steps and the lock on a folder, what is known by rising numbers, short texts that wait; knows of no other room | log, and files through `Disk` |
//! | [`config`] | `lonnet.toml`, `hosts.tab` and `hosts.pins` as checked values; every error says `file:line` | reads files |
//! | [`wire`] | bytes to lines and back; the classic opening dialogue and cipher; the secure tunnel and frames; what makes both flow | none: pure; this host's key is a file, and memory of its own |
//! | [`net`] | sockets that do not wait: readiness, how long is looked before a sleep, a connection's options, the way out through a tunnel | sockets |
//! | [`store`] | what must outlast a crash: `spool`, the delayed directory of one peer; `record`, the answers that `lond` remembers of one caller | files, through the `Disk` trait |
//! | [`lonc`] | `supervisor`: children, their dials, dropped files, signals, status files; `broker`, `dials` and `turn` (pure), `reactor`: one link child | supervisor, reactor |
//! | [`lond`] | `supervisor`: accepting; `classic`, `secure` and `turn` (pure but for the record that a session owns), `handler`: what a request is passed to, and what came of it; `reactor`: one link child; `pool`: the process that runs a handler's program | supervisor, reactor, pool |
//! | [`lonsvc`] | `supervisor`: the programs of `[service.<name>]`, by fork and exec | supervisor |
//! | [`supervise`] | what all supervisors share: `daemon`, the one machine, and the `Role` that a program is to it; child table (pure), fork, what programs leave behind them, locks and what else lies in folders that others may empty, signals, control sockets, titles, looking names up; the sandbox of a link child; at HUP the trial of the next program, and the exec state: what crosses it | yes |
//! | [`status`] | one snapshot type and its views: text, JSON, the original's `loncstatus.txt` | none |
//! | [`owner`] | the user that the files belong to: how root acts as it and makes folders for it; what a process gives up at its start | files |
//! | [`client`] | for Rust programs: a request with its deadline, its outcome; many ahead; keys; a critical message when the broker is away. `clients/` has the same for Python and Perl | yes |
//! | [`cli`] | `lon`, a file a subcommand | yes |

pub use {base, cli, client, config, lonc, lond, lonsvc, net, owner, status, store, supervise, wire};
