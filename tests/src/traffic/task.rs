//! Work on a thread inside a namespace that ends when asked, and by itself in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::netns::Namespace;
use crate::wait::patient;

/// What running work looks at to know when to end.
#[derive(Clone, Debug)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    deadline: Instant,
}

impl Stop {
    /// Nobody asks, and it ends after `longest`, made [`patient`].
    #[must_use]
    pub fn after(longest: Duration) -> Self {
        Self { asked: Arc::default(), deadline: Instant::now() + patient(longest) }
    }

    /// Whether it is time to end.
    #[must_use]
    pub fn now(&self) -> bool {
        self.asked.load(Ordering::Relaxed) || Instant::now() >= self.deadline
    }

    /// Asks for the end.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Sleeps for `pause`, or less if it is time to end before.
    pub fn sleep(&self, pause: Duration) {
        let end = Instant::now() + pause;
        while !self.now() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(super::TICK));
        }
    }
}

/// Running work, and in the end what it returns. Dropping it ends the work and waits for that.
#[derive(Debug)]
pub struct Task<T> {
    stop: Stop,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Task<T> {
    /// Starts `work` inside `namespace`; it shall look at its [`Stop`] at least every few milliseconds.
    pub fn start(
        namespace: &Namespace,
        name: &str,
        longest: Duration,
        work: impl FnOnce(&Stop) -> T + Send + 'static,
    ) -> Result<Self> {
        let stop = Stop::after(longest);
        let inner = stop.clone();
        let thread = namespace.spawn(name, move || work(&inner))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl<T> Task<T> {
    /// Whether the work has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the work ends by itself.
    ///
    /// # Panics
    /// When the work panicked.
    pub fn wait(mut self) -> T {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(value)) => value,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => unreachable!("only this function and the destructor take the thread"),
        }
    }

    /// Asks the work to end, and waits for that.
    ///
    /// # Panics
    /// When the work panicked.
    pub fn stop(self) -> T {
        self.stop.ask();
        self.wait()
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.stop.ask();
        if let Some(thread) = self.thread.take() {
            // Whoever drops a task does not want to know how it ended.
            let _ = thread.join();
        }
    }
}
