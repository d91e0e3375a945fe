use crate::word::words;

words! {
    /// What a run removes.
    Mode, "mode":
    /// The removable rows.
    Regular = "regular",
    /// Every row in scope, whatever its age.
    Emergency = "emergency",
}
