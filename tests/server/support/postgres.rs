//! What a case does to a database of Postgres, or looks at in it, past the server.

use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

/// A connection to the server that `ESL_TEST_DATABASE_URL` names.
pub(crate) struct Postgres {
    client: Client,
    connection: JoinHandle<()>,
}

impl Postgres {
    pub(crate) async fn connect(url: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a server");
        let connection = tokio::spawn(async move { _ = connection.await });
        Self { client, connection }
    }

    /// All rows of a schema as text, and what their binary columns hold as it is.
    pub(crate) async fn rows(&self, schema: &str) -> Vec<u8> {
        let tables = "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = $1";
        let mut rows = Vec::new();
        for table in self.client.query(tables, &[&schema]).await.expect("the tables") {
            let table: String = table.get(0);
            let all = format!("SELECT row::text FROM \"{schema}\".{table} AS row");
            for row in self.client.query(&all, &[]).await.expect("its rows") {
                let text: String = row.get(0);
                rows.extend(text.split(r"\x").skip(1).flat_map(bytes));
                rows.extend(text.into_bytes());
            }
        }
        rows
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The bytes whose hexadecimal digits a text begins with.
fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .map_while(|one| one.to_digit(16))
        .filter_map(|one| one.try_into().ok())
        .collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
