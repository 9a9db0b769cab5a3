//! What makes a stream of frames or lines flow: the same at both ends of a link.
//!
//! Pure: no socket, and no clock but the instants that are passed in. Who holds a link feeds these
//! and says what comes of it.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `credit` | [`Credit`]: how much the other side may still send us |
//! | `sending` | [`Sending`]: messages to frames, within the other side's window and in a fair order |
//! | `assembly` | [`Assembly`]: frames to messages, in bounded memory |
//! | `control` | [`Control`]: PING, PONG and WINDOW on their way out, one lot at a time |
//! | `heartbeat` | [`Heartbeat`]: finds out that the other side is gone though no socket says so |
//! | `in_order` | [`InOrder`]: answers given in any order, sent in that of the requests |

mod assembly;
mod control;
mod credit;
mod heartbeat;
mod in_order;
mod sending;

pub use assembly::{Assembly, Taken};
pub use control::Control;
pub use credit::Credit;
pub use heartbeat::{Beat, Heartbeat};
pub use in_order::InOrder;
pub use sending::{Cancelled, Chunk, Message, Sending};
