//! Following a job of the daemon's to its end, with its progress on a terminal.

use std::time::Duration;

use super::error::CliError;
use super::progress::Line;
use super::style::harmless;
use super::units::bytes;
use super::{Context, exit::Exit};
use crate::recovery::jobs::{Job, Standing};

/// How often the job is asked after.
const LOOK: Duration = Duration::from_millis(100);

/// Waits for the end of `job`, which the daemon has begun.
///
/// # Errors
///
/// When it failed, or the daemon went away.
pub(super) async fn follow(context: &Context, mut job: Job) -> Result<Job, CliError> {
    let mut line = Line::of(context);
    while job.standing == Standing::Running {
        line.show(&describe(&job));
        tokio::time::sleep(LOOK).await;
        job = context.client.get(&format!("/v1/jobs/{}", job.job)).await?;
    }
    line.show("");
    match job.standing {
        Standing::Failed => Err(CliError::new(Exit::Failure, harmless(&job.message), None)),
        _ => Ok(job),
    }
}

fn describe(job: &Job) -> String {
    let percent = (job.done_bytes.min(job.all_bytes) * 100).checked_div(job.all_bytes);
    match percent {
        Some(percent) => format!(
            "{}: {percent} % ({} of {})",
            harmless(&job.message),
            bytes(job.done_bytes),
            bytes(job.all_bytes)
        ),
        None => harmless(&job.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_progress_is_told_where_it_is_known() {
        let mut job = Job { message: "reading a".into(), ..Job::default() };
        assert_eq!(describe(&job), "reading a");
        (job.done_bytes, job.all_bytes) = (512, 2048);
        assert_eq!(describe(&job), "reading a: 25 % (512 B of 2.0 KiB)");
        job.done_bytes = 9999;
        assert!(describe(&job).contains("100 %"), "an archive is longer than what is in it");
    }
}
