//! A server that gets each checkpoint as the body of a POST.

use super::Fault;
use super::consistent::Newest;
use crate::record::remote::{Client, header_in};
use anyhow::anyhow;
use std::path::PathBuf;

/// The server.
#[derive(Clone, Debug)]
pub struct HttpAnchor {
    /// Where to.
    pub url: String,
    /// File with a header for it.
    pub header_file: Option<PathBuf>,
}

impl HttpAnchor {
    /// Posts the newest checkpoint.
    ///
    /// # Errors
    ///
    /// When the server does not say that it has it (any status from 200 to 299).
    pub async fn place(&self, client: &Client, newest: &Newest) -> Result<(), Fault> {
        let header = self.header_file.as_deref().map(header_in).transpose()?;
        let headers: Vec<_> = header.into_iter().collect();
        let answer = client.post(&self.url, &headers, newest.signed.clone().into_bytes()).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        let moved = if answer.status.is_redirection() { " (redirections are not followed)" } else { "" };
        Err(Fault::Failed(anyhow!("the server answered {}{moved}: {}", answer.status, answer.quote())))
    }
}
