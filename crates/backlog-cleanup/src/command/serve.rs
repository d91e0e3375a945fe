use clap::Args;

use crate::client::connect::Server;
use crate::failure::{Exit, Result};
use crate::serve::{self, Settings};

/// Serve the admin API, metrics and dashboard over HTTP
#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub async fn run(self, server: &Server) -> Result<Exit> {
        serve::serve(self.settings, server).await?;
        Ok(Exit::Done)
    }
}
