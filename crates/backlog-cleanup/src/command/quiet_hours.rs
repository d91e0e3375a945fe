use clap::Args;

use super::selection::Target;
use crate::client::analytics;
use crate::client::connect::{Server, begin};
use crate::failure::{Exit, Result};
use crate::terminal::output::Output;

/// Show how busy the database is at each hour of the day and of the week, in transactions per second
#[derive(Args)]
pub struct QuietHours {
    #[command(flatten)]
    target: Target,
}

impl QuietHours {
    pub async fn run(mut self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect().await?;
        let mut work = begin(&mut connection).await?;
        self.target.settle(&mut work).await?;
        let hours = analytics::quiet_hours(&mut work, &self.target.name).await?;
        work.commit().await?;
        if output.json {
            output.json(&hours)?;
            return Ok(Exit::Done);
        }
        let mut table = output.table(["HOUR", "ALL", "MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN", ""]);
        let figure = |figure: Option<f64>| output.cell(figure.map_or(String::new(), |it| format!("{it:.1}")));
        for hour in &hours {
            let mut row = vec![output.cell(&hour.hour), figure(hour.transactions_per_second)];
            row.extend([hour.mon, hour.tue, hour.wed, hour.thu, hour.fri, hour.sat, hour.sun].map(figure));
            row.push(output.cell(hour.note.as_deref().unwrap_or_default()));
            table.add_row(row);
        }
        output.line(table.trim_fmt())?;
        Ok(Exit::Done)
    }
}
