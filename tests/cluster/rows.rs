use postgres::types::FromSqlOwned;
use postgres::{Client, Row};

fn row(client: &mut Client, query: &str) -> Row {
    client.query_one(query, &[]).unwrap_or_else(|failure| panic!("{query}: {failure:?}"))
}

/// The one value that a query returns.
pub fn value<T: FromSqlOwned>(client: &mut Client, query: &str) -> T {
    row(client, query).get(0)
}

/// The same of a query that returns a truth.
pub fn truth(client: &mut Client, query: &str) -> bool {
    value(client, query)
}

/// The same of a query that returns a number of any type.
pub fn number(client: &mut Client, query: &str) -> i64 {
    value(client, &format!("SELECT ({query})::bigint"))
}

/// The columns of the one row that a query returns, all `bigint`.
pub fn numbers<const COLUMNS: usize>(client: &mut Client, query: &str) -> [i64; COLUMNS] {
    let row = row(client, query);
    std::array::from_fn(|column| row.get(column))
}

/// The first column of the rows that a query returns.
pub fn column<T: FromSqlOwned>(client: &mut Client, query: &str) -> Vec<T> {
    let rows = client.query(query, &[]).unwrap_or_else(|failure| panic!("{query}: {failure:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// Returns how many of `rows` rows are gone from `generations`; panics unless the ledger and the history say the same.
pub fn balance(client: &mut Client, rows: i64) -> i64 {
    let books =
        "SELECT (SELECT count(*) FROM generations), (SELECT coalesce(sum(amount), 0)::bigint FROM credit_transactions),
                        (SELECT coalesce(sum(removed), 0)::bigint FROM backlog_cleanup.run WHERE target = 'generations')";
    let [left, ledger, removed] = numbers(client, books);
    let gone = rows - left;
    assert_eq!((ledger, removed), (gone, gone), "the ledger and the history");
    gone
}

/// The SQLSTATE, message and hint of a refused statement.
pub fn refused(result: Result<(), postgres::Error>) -> (String, String, String) {
    let failure = result.expect_err("refused");
    let error = failure.as_db_error().unwrap_or_else(|| panic!("an error of the server: {failure}"));
    (error.code().code().to_owned(), error.message().to_owned(), error.hint().unwrap_or_default().to_owned())
}
