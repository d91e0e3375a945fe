use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Samples a value beside what is measured, and remembers the largest.
pub struct Peak {
    is_over: Arc<AtomicBool>,
    watcher: thread::JoinHandle<f64>,
}

impl Peak {
    pub fn of(every: Duration, mut sample: impl FnMut() -> f64 + Send + 'static) -> Peak {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = is_over.clone();
        let watcher = thread::spawn(move || {
            let mut peak = 0.0;
            while !seen.load(Ordering::Relaxed) {
                peak = sample().max(peak);
                thread::sleep(every);
            }
            peak
        });
        Peak { is_over, watcher }
    }

    pub fn stop(self) -> f64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.watcher.join().expect("the watcher ends")
    }
}
