//! The products, in SQLite: nothing here knows of a cache.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

const PRODUCTS: i64 = 50_000;
const CATEGORIES: i64 = 100;
const MATERIALS: [&str; 7] = ["oak", "steel", "linen", "glass", "cork", "wool", "copper"];
const THINGS: [&str; 9] = [
    "lamp", "chair", "kettle", "clock", "shelf", "bowl", "blanket", "mirror", "stool",
];

/// A product as clients see it.
#[derive(Serialize)]
pub(crate) struct Product {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) price: f64,
    pub(crate) category: i64,
}

/// What clients send of a product. Without a category a product keeps the one it has; a new one is
/// put into category 0.
#[derive(Deserialize)]
pub(crate) struct Draft {
    name: String,
    price: f64,
    category: Option<i64>,
}

/// The catalogue; clones share it.
#[derive(Clone)]
pub(crate) struct Catalogue(Arc<Database>);

struct Database {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
    /// Deletes a private catalogue in the end.
    _directory: Option<TempDir>,
}

impl Catalogue {
    /// Makes a catalogue that goes with this process.
    pub(crate) async fn private() -> Result<Self, Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let (catalogue, _) =
            Self::open(directory.path().join("catalogue"), Some(directory)).await?;
        Ok(catalogue)
    }

    /// Opens the catalogue that other processes also use, or makes it; says whether it is new.
    pub(crate) async fn shared(file: PathBuf) -> rusqlite::Result<(Self, bool)> {
        Self::open(file, None).await
    }

    async fn open(file: PathBuf, directory: Option<TempDir>) -> rusqlite::Result<(Self, bool)> {
        let database = Database {
            file,
            idle: Mutex::default(),
            _directory: directory,
        };
        let catalogue = Self(Arc::new(database));
        let new = catalogue.query(fill).await?;
        Ok((catalogue, new))
    }

    pub(crate) async fn product(&self, id: i64) -> rusqlite::Result<Product> {
        self.query(move |db| {
            let select = "SELECT id, name, price, category FROM products WHERE id = ?1";
            db.prepare_cached(select)?.query_row([id], Product::read)
        })
        .await
    }

    /// Lists a category by price. There is no index for this, so all products are looked at.
    pub(crate) async fn category(&self, category: i64) -> rusqlite::Result<Vec<Product>> {
        self.query(move |db| {
            let select = "SELECT id, name, price, category FROM products \
                          WHERE category = ?1 ORDER BY price, id";
            db.prepare_cached(select)?
                .query_map([category], Product::read)?
                .collect()
        })
        .await
    }

    /// Finds the first 50 products whose name contains `text`.
    pub(crate) async fn search(&self, text: String) -> rusqlite::Result<Vec<Product>> {
        self.query(move |db| {
            let select = "SELECT id, name, price, category FROM products \
                          WHERE instr(lower(name), lower(?1)) > 0 ORDER BY id LIMIT 50";
            db.prepare_cached(select)?
                .query_map([text], Product::read)?
                .collect()
        })
        .await
    }

    pub(crate) async fn add(&self, draft: Draft) -> rusqlite::Result<Product> {
        self.query(move |db| {
            let insert = "INSERT INTO products (name, price, category) \
                          VALUES (?1, ?2, coalesce(?3, 0)) RETURNING id, name, price, category";
            let values = params![draft.name, draft.price, draft.category];
            db.prepare_cached(insert)?.query_row(values, Product::read)
        })
        .await
    }

    pub(crate) async fn change(&self, id: i64, draft: Draft) -> rusqlite::Result<Product> {
        self.query(move |db| {
            let update = "UPDATE products \
                          SET name = ?2, price = ?3, category = coalesce(?4, category) \
                          WHERE id = ?1 RETURNING id, name, price, category";
            let values = params![id, draft.name, draft.price, draft.category];
            db.prepare_cached(update)?.query_row(values, Product::read)
        })
        .await
    }

    pub(crate) async fn remove(&self, id: i64) -> rusqlite::Result<()> {
        self.query(move |db| {
            let delete = "DELETE FROM products WHERE id = ?1 RETURNING id";
            db.prepare_cached(delete)?.query_row([id], |_| Ok(()))
        })
        .await
    }

    /// Lowers all prices of a category; returns how many.
    pub(crate) async fn discount(&self, category: i64, percent: u8) -> rusqlite::Result<usize> {
        self.query(move |db| {
            let update = "UPDATE products SET price = round(price * (100 - ?2) / 100, 2) \
                          WHERE category = ?1";
            db.prepare_cached(update)?
                .execute(params![category, percent])
        })
        .await
    }

    /// Runs a query on a thread that may block, with a connection of its own.
    async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> rusqlite::Result<T> {
        let database = Arc::clone(&self.0);
        let task = spawn_blocking(move || {
            let idle = || database.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let reused = idle().pop();
            let mut connection = reused.map_or_else(|| Connection::open(&database.file), Ok)?;
            let outcome = query(&mut connection);
            idle().push(connection);
            outcome
        });
        task.await
            .expect("a query does not panic, and is not aborted")
    }
}

impl Product {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            name: row.get("name")?,
            price: row.get("price")?,
            category: row.get("category")?,
        })
    }
}

/// Makes the table and its rows if they are missing; says whether they were.
fn fill(db: &mut Connection) -> rusqlite::Result<bool> {
    // Readers then neither wait for a writer nor keep it waiting.
    db.pragma_update(None, "journal_mode", "wal")?;
    // Not the default behaviour: of two processes that start at once, one makes the rows.
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let table = "SELECT 1 FROM sqlite_schema WHERE name = 'products'";
    if transaction
        .query_row(table, [], |_| Ok(()))
        .optional()?
        .is_some()
    {
        return Ok(false);
    }
    transaction.execute_batch(
        "CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT NOT NULL, \
                                price REAL NOT NULL, category INTEGER NOT NULL)",
    )?;
    let mut insert = transaction
        .prepare("INSERT INTO products (id, name, price, category) VALUES (?1, ?2, ?3, ?4)")?;
    let materials = MATERIALS.iter().cycle();
    let things = THINGS.iter().cycle();
    for (id, (material, thing)) in (1..=PRODUCTS).zip(materials.zip(things)) {
        // Prices from 5.00 to 104.99, in no order.
        let price = (500 + id * 7919 % 10_000) as f64 / 100.0;
        insert.execute(params![
            id,
            format!("{material} {thing} {id}"),
            price,
            id % CATEGORIES
        ])?;
    }
    drop(insert);
    transaction.commit()?;
    Ok(true)
}
