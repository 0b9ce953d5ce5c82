//! `doctor`.
use super::exit::Exit;
use super::{Context, Outcome};
#[derive(Debug, clap::Args)]
pub(super) struct Args {}
impl Args {
    pub(super) async fn run(self, _: &Context) -> Outcome {
        Ok(Exit::Ok)
    }
}
