//! What `lonc` and `lond` share as supervisors.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `table` | which child runs, which waits for its next start: pure |
//! | `spawn` | the one `fork`, and what a child undoes of its parent |
//! | `lock` | the locked pid file |
//! | `signals` | signals as values, on a mio source |
//! | `control` | the duplex socket between a supervisor and a child |
//! | `title` | what `ps` shows |
//! | `background` | detaching, becoming `user` |
//! | `handoff` | what crosses `exec` at HUP |

pub mod control;
pub mod title;
