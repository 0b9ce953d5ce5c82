//! The flight recorder, as far as it is not the kernel's: what was recorded of an agent, made readable.
//!
//! ```text
//! kernel's entries ─▶ Recording (decoded, credentials overwritten) ─┬▶ pcapng_of ─▶ Kept (files), the API, evidence
//!                                                                   └▶ the API's view
//! ```
//!
//! Everything but [`Kept`] and [`Keeper`] is pure: entries, a time and names go in, values and bytes come out. A [`Recording`] never
//! holds what [`redact`] knows as a credential, so nothing that is made of one does.

mod keeper;
mod kept;
mod pcapng;
mod recording;
pub mod redact;
mod sampling;

pub use keeper::{Keeper, Outcome};
pub use kept::{Kept, name_of};
pub(crate) use pcapng::verdict_name;
pub use pcapng::{About, pcapng_of};
pub use recording::{Packet, Recording};
pub use sampling::{RecorderMode, Sampling};
