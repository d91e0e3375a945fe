/// Who may do what; each level has what those before it have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Monitor,
    Operator,
    Admin,
}

impl Level {
    const ALL: [Level; 3] = [Level::Monitor, Level::Operator, Level::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Level::Monitor => "monitor",
            Level::Operator => "operator",
            Level::Admin => "admin",
        }
    }

    pub fn named(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }
}
