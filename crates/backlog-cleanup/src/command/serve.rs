use std::net::SocketAddr;

use clap::Args;

use crate::connect::Server;
use crate::failure::{Exit, Result};
use crate::serve;

/// The admin API, metrics and dashboard over HTTP
#[derive(Args)]
pub struct Serve {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8642")]
    listen: SocketAddr,
}

impl Serve {
    pub async fn run(self, server: &Server) -> Result<Exit> {
        serve::serve(self.listen, server.clone()).await?;
        Ok(Exit::Done)
    }
}
