//! A witness, as C2SP's `tlog-witness` describes it: it verifies that the log only grew, and cosigns.

use super::Fault;
use super::consistent::{self, Contradiction, How, Newest};
use super::cosign::{Cosignature, WitnessKey};
use crate::record::evidence::merkle::{self, Hash};
use crate::record::evidence::note::Checkpoint;
use crate::record::evidence::tiles::TileStore;
use crate::record::remote::{Answer, Client};
use anyhow::anyhow;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The media type of a witness's size.
const SIZE_TYPE: &str = "text/x.tlog.size";

/// The witness.
#[derive(Clone, Debug)]
pub struct Witness {
    /// The submission prefix.
    pub url: String,
    /// Its key.
    pub key: WitnessKey,
}

/// What a witness said, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    /// It has cosigned.
    Cosigned(Cosignature),
    /// It knows so many entries, not those that we thought.
    Knows(u64),
    /// It knows another tree.
    Disagrees,
}

/// The body of a request: the size that the witness knows, the proof from there, and the checkpoint.
#[must_use]
pub fn request(old: u64, proof: &[Hash], signed: &str) -> String {
    let lines: String = proof.iter().map(|hash| STANDARD.encode(hash) + "\n").collect();
    format!("old {old}\n{lines}\n{signed}")
}

impl Witness {
    /// Has the newest checkpoint of the log in `store` cosigned. `was` is what it cosigned last, as far as we know.
    ///
    /// # Errors
    ///
    /// When it does not cosign; a contradiction when that is because it knows another tree.
    pub async fn place(
        &self,
        client: &Client,
        store: &TileStore,
        was: Option<&Checkpoint>,
        newest: &Newest,
    ) -> Result<Cosignature, Fault> {
        let now = &newest.checkpoint;
        let was = was.filter(|was| was.origin == now.origin);
        let mut old = was.map_or(0, |was| was.size);
        // Once more with the size that it says, when ours was not the one that it knows.
        for _ in 0..2 {
            let proof = consistent::proof(store, old, now)?;
            self.check_proof(was.filter(|was| was.size == old), now, &proof)?;
            let answer =
                client.post(&self.target(), &[], request(old, &proof, &newest.signed).into()).await?;
            match self.understand(&answer, newest)? {
                Said::Cosigned(cosignature) => return Ok(cosignature),
                Said::Knows(size) if size > now.size => {
                    return Err(contradiction(How::RolledBack, size, now).into());
                }
                Said::Knows(size) if size == old && size == now.size => {
                    return Err(contradiction(How::SplitView, size, now).into());
                }
                Said::Knows(size) => old = size,
                Said::Disagrees => return Err(contradiction(How::SplitView, old, now).into()),
            }
        }
        Err(Fault::Failed(anyhow!("the witness changes its mind about the size that it knows")))
    }

    fn target(&self) -> String {
        format!("{}/add-checkpoint", self.url.trim_end_matches('/'))
    }

    /// A proof that does not verify here is not sent.
    fn check_proof(&self, was: Option<&Checkpoint>, now: &Checkpoint, proof: &[Hash]) -> Result<(), Fault> {
        let Some(was) = was else { return Ok(()) };
        if merkle::verify_consistency(was.size, &was.root, now.size, &now.root, proof) {
            return Ok(());
        }
        Err(Contradiction::of(How::Rewritten, Some(was), now).into())
    }

    fn understand(&self, answer: &Answer, newest: &Newest) -> Result<Said, Fault> {
        let origin = &newest.checkpoint.origin;
        let failed = |what: String| Err(Fault::Failed(anyhow!("the witness {what}: {}", answer.quote())));
        match answer.status.as_u16() {
            200 => Ok(Said::Cosigned(self.cosignature(answer, newest)?)),
            409 => match size_in(answer) {
                Some(size) => Ok(Said::Knows(size)),
                None => failed(format!("answered 409 without a size ({SIZE_TYPE})")),
            },
            422 => Ok(Said::Disagrees),
            404 => failed(format!("does not know the log {origin}")),
            403 => failed(format!("knows the log {origin} with another key than {}", newest.key)),
            status => failed(format!("answered {status}")),
        }
    }

    fn cosignature(&self, answer: &Answer, newest: &Newest) -> Result<Cosignature, Fault> {
        let lines = String::from_utf8_lossy(&answer.body);
        let text = newest.signed.rfind("\n\n").map_or("", |end| &newest.signed[..=end]);
        let found = self.key.find(text, &lines).map_err(|why| anyhow!("the witness answered, but {why}"))?;
        Ok(found.ok_or_else(|| anyhow!("the witness answered without a cosignature of {}", self.key))?)
    }
}

/// Which root the witness knows it does not say.
fn contradiction(how: How, size: u64, now: &Checkpoint) -> Contradiction {
    Contradiction { how, anchored: size, anchored_root: None, now: now.clone() }
}

/// The size in the answer to a conflict, in its only spelling.
fn size_in(answer: &Answer) -> Option<u64> {
    let text = std::str::from_utf8(&answer.body).ok()?.strip_suffix('\n')?;
    let size: u64 = text.parse().ok()?;
    (answer.media_type == SIZE_TYPE && size.to_string() == text).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_as_the_specification_says() {
        let signed = "log\n3\nAAAA\n\n— log AAAA\n";
        assert_eq!(request(0, &[], signed), format!("old 0\n\n{signed}"));
        let proof = [[0; 32], [255; 32]];
        let expected = format!(
            "old 2\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n//////////////////////////////////////////8=\n\n{signed}"
        );
        assert_eq!(request(2, &proof, signed), expected);
    }

    #[test]
    fn a_size_has_one_spelling() {
        let answer = |body: &str, media_type: &str| Answer {
            status: hyper::StatusCode::CONFLICT,
            media_type: media_type.into(),
            body: body.into(),
        };
        assert_eq!(size_in(&answer("20852163\n", SIZE_TYPE)), Some(20_852_163));
        for wrong in ["", "7", "07\n", "+7\n", "7\n\n", "x\n"] {
            assert_eq!(size_in(&answer(wrong, SIZE_TYPE)), None, "{wrong:?}");
        }
        assert_eq!(size_in(&answer("7\n", "text/plain")), None);
    }
}
