//! Answers from the log, through the index over it where that helps.

use super::entries::EventSource;
use super::index::{Answer, Files};
use super::query::EventQuery;
use std::io;

/// Places read at once.
const PLACES_AT_ONCE: usize = 4096;

/// Hands the lines that a question is about to `each`: through the index if it can be believed, else from the whole log.
///
/// # Errors
///
/// When the log cannot be read.
pub fn ask(
    source: &dyn EventSource,
    files: &Files,
    query: &EventQuery,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    // What was handed over through the index ends here; the log itself goes on after it.
    let mut after = None;
    if let Ok(Some(answer)) = Answer::find(files, source, query) {
        let mut is_right = true;
        for places in answer.places.chunks(PLACES_AT_ONCE) {
            let lines = source.entries_at(places)?;
            for (place, line) in places.iter().zip(&lines) {
                // Where the index is wrong about the log, the log alone counts from there on.
                let Some(line) = line else {
                    is_right = false;
                    break;
                };
                after = Some(*place);
                if query.wants(line) {
                    each(line);
                }
            }
            if !is_right {
                break;
            }
        }
        if is_right {
            after = answer.covered_to;
        }
    }
    for entry in source.entries_from(after.unwrap_or(0))? {
        let (place, line) = entry?;
        // The one that was handed over last may have been removed meanwhile.
        if after.is_none_or(|after| place > after) && query.wants(&line) {
            each(&line);
        }
    }
    Ok(())
}
