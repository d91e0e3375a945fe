use crate::postgres::error::Result;
use crate::postgres::stream::{stream, stream_writing};
use crate::target::Target;
use crate::target::leaf::{Leaf, Reach};

/// Rows of a status that is not in scope.
pub struct Others {
    /// As `counts::statuses` has it.
    pub kind: i64,
    /// What a status that the target does not name is called.
    pub text: Option<String>,
    pub count: i64,
}

/// Counts the account's rows that are not in scope by index-only scans, below and above the status in scope. `None` if the planner
/// would read the table. `kind` and `text` say of a row `g` what is counted of its status.
pub fn count(target: &Target, leaves: &[Leaf], (kind, text): &(String, String)) -> Result<Option<Vec<Others>>> {
    let status = target.status.as_ref().filter(|status| status.expression.is_none() && status.has_order_of_catalog());
    let (Some(status), [only], None) = (status, &target.statuses[..], &target.meets) else { return Ok(None) };
    // What guards an expression reads columns of the table.
    if target.is_guarded() {
        return Ok(None);
    }
    let (column, literal) = (status.of_row(), status.literal(only));
    let ranges = [
        format!("{column} OPERATOR(pg_catalog.<) {literal}"),
        format!("{column} OPERATOR(pg_catalog.>) {literal}"),
        format!("{column} IS NULL"),
    ];
    let mut others = Vec::new();
    for leaf in leaves {
        if leaf.reach == Reach::Key {
            return Ok(None);
        }
        let statement = |range: &String| {
            format!(
                "SELECT {kind}, {text}, \"rows of a status\" FROM (
                     SELECT {column}, pg_catalog.count(*) FROM {} g WHERE {} AND {range} GROUP BY {column}
                 ) g ({}, \"rows of a status\")",
                leaf.rows(),
                target.is_of_account(),
                status.name,
            )
        };
        let statements: Vec<String> = ranges.iter().map(statement).collect();
        let is_read = leaf.reading_as_owner(target, || {
            leaf.expect_most_rows();
            for statement in &statements {
                if !is_of_index_alone(statement)? {
                    return Ok(false);
                }
            }
            for statement in &statements {
                stream(statement, |row| {
                    others.push(Others {
                        kind: row.number(0).unwrap_or_default(),
                        // SAFETY: the second column of the statement is a text.
                        text: unsafe { row.text(1) }.map(str::to_owned),
                        count: row.number(2).unwrap_or_default(),
                    });
                })?;
            }
            Ok(true)
        })?;
        if !is_read {
            return Ok(None);
        }
    }
    Ok(Some(others))
}

/// Whether the planner reads nothing but indexes for a statement.
fn is_of_index_alone(statement: &str) -> Result<bool> {
    let mut is_alone = false;
    stream_writing(&format!("EXPLAIN (FORMAT JSON) {statement}"), None, |row| {
        // SAFETY: a json is stored as a text.
        let plan = unsafe { row.text(0) }.unwrap_or_default();
        let reads_table = ["\"Seq Scan\"", "\"Bitmap Heap Scan\"", "\"Index Scan\""];
        is_alone = reads_table.iter().all(|node| !plan.contains(node));
    })?;
    Ok(is_alone)
}
