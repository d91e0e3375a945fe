use crate::word::words;

words! {
    /// What a role may do; each level includes those before it.
    Level, "level":
    /// Read.
    Monitor = "monitor",
    /// Also remove and stop.
    Operator = "operator",
    /// Also configure and schedule.
    Admin = "admin",
}
