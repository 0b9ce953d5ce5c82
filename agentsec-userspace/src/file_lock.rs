//! Locks on files, which end with whoever holds them, however that ends.

use std::fs::{File, TryLockError};
use std::io;
use std::time::Duration;

/// How often a lock is tried, and how long it is waited for in between.
const TRIES: u32 = 20;
const WAIT: Duration = Duration::from_millis(10);

/// Locks a file against everybody else; false when somebody else has it locked.
///
/// A moment's patience, since a child that its holder has just started holds it too until it is another program, even
/// when the holder itself is gone.
///
/// # Errors
///
/// When the system refuses.
pub fn try_alone(file: &File) -> io::Result<bool> {
    for attempt in 1..=TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if attempt < TRIES => std::thread::sleep(WAIT),
            Err(TryLockError::WouldBlock) => {}
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_but_not_for_long() {
        let directory = tempfile::tempdir().unwrap();
        let open = || File::options().create(true).append(true).open(directory.path().join("lock")).unwrap();
        let held = open();
        assert!(try_alone(&held).unwrap());
        let other = open();
        assert!(!try_alone(&other).unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(WAIT * 2);
                drop(held);
            });
            assert!(try_alone(&other).unwrap());
        });
    }
}
