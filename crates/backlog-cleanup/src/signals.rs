use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Result;

/// SIGINT, SIGTERM and SIGHUP, except those that the parent process has set to be ignored, as nohup does.
pub struct Signals(Vec<Signal>);

impl Signals {
    pub fn listen() -> Result<Signals> {
        let wanted = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let ignored = ignored();
        let wanted = wanted.into_iter().filter(|kind| ignored >> (kind.as_raw_value() - 1) & 1 == 0);
        Ok(Signals(wanted.map(signal).collect::<std::io::Result<_>>()?))
    }

    /// Returns when one of them comes.
    pub async fn next(&mut self) {
        std::future::poll_fn(|context| {
            let came = self.0.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
            if came { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}

/// A bit for each signal that this process ignored when it started; 0 if that is unknown.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
