//! What the extension promises, each promise in the file that has its name, on throwaway servers.

mod bad_input;
mod batched;
mod chaos;
mod clock;
mod doctor;
mod emergency;
mod ground;
mod hostile;
mod in_the_way;
mod interrupted;
mod kinds;
mod limits;
mod pg_cron;
mod pg_upgrade;
mod positions;
mod property;
mod races;
mod random;
mod readme;
mod replicas;
mod restore;
mod session;
mod soak;
mod status;
mod trust;
mod upgrade;
