use clap::Args;

/// What a command is about.
#[derive(Args)]
pub struct Target {
    /// The table to look after: a row of backlog_cleanup.target
    #[arg(long, value_name = "NAME", default_value = "generations")]
    pub target: String,
}

/// Which of its failed rows a run is about.
#[derive(Args)]
pub struct Selection {
    /// The table to look after: a row of backlog_cleanup.target
    #[arg(long, value_name = "NAME", default_value = "generations")]
    pub target: String,
    /// Only rows of this recipe
    #[arg(long, value_name = "ID")]
    pub recipe_id: Option<String>,
    /// Only rows that failed for this reason
    #[arg(long, value_name = "TYPE")]
    pub failure_type: Option<String>,
}

/// How much a person is shown.
#[derive(Args)]
pub struct Length {
    /// How many recipes to show; JSON has all
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub limit: usize,
}
