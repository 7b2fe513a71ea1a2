//! The Tower quartet: layer, service, future and body; and what is done with requests' content.
//!
//! This room translates between services and the engine and decides nothing.

mod body;
mod content;
mod drive;
mod future;
mod layer;
mod service;

pub use self::body::{RequestBody, ResponseBody};
pub use self::content::{KeyedByContent, UnreadContent};
pub use self::future::ResponseFuture;
pub use self::layer::CacheLayer;
pub use self::service::CacheService;
